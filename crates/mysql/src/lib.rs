//! The MySQL and MariaDB interceptor: lets a client in by its token, and carries its session to the target, every operation
//! recorded before its bytes are forwarded.
//!
//! It holds no policy, opens no files and writes no events: what decides and records is behind
//! [`Gate`](verbatim_core::Gate) and the [`Operations`](verbatim_core::Operations) of a session. It re-encodes nothing: the
//! target is asked for the capabilities that the client asked for, so that what either sends is what the other expects, and is
//! forwarded as the bytes that came. It asks nothing of the target by itself but its own logins (one to learn its greeting),
//! and a KILL where a session or a statement is ended.
//!
//! ```text
//!  client                                    gateway                                             target
//!    │ ◂─ greeting: what its targets have in common
//!    │ SSLRequest, TLS, HandshakeResponse41    startup   who, and for which connection
//!    │ ◂─ AuthSwitchRequest; the token         Gate      identity, access, session opened
//!    │                                         target    the gateway's own login                    │
//!    │ ◂─ OK, as the target's                                                                       │
//!    │ COM_QUERY, COM_STMT_EXECUTE …           operation what is asked, batch by batch              │
//!    │                                         Operations permits, durable                          │
//!    │                                         relay     the original bytes                       ─▸ │
//!    │ ◂─ results, as they came                results   matched to what was asked: outcomes         │
//! ```
//!
//! The token comes as the password of `mysql_clear_password`, or by `authentication_openid_connect_client` from clients that
//! name it as their default plugin; the schema that the client connects to names the connection, but on a listener of one
//! connection it is the target's. The thread id of the greeting is the gateway's: `KILL [QUERY] id` as a command of its own and
//! COM_PROCESS_KILL with it reach a session of the same identity; `CONNECTION_ID()` and any other KILL are the target's.
//!
//! Limits: a command and a credential as [`Limits`](verbatim_wire::Limits) says; 65 536 prepared statements a session, and
//! 256 MiB of their texts and long data; 1 024 commands without an answer; 64 KiB of connection attributes.
//!
//! Refused: compression (it is not offered), replication, COM_SHUTDOWN, COM_DEBUG, COM_CREATE_DB, COM_DROP_DB, COM_CLONE,
//! unknown commands, commands on statements that were not prepared in the session, a file that no statement asked for, logins
//! in clear where TLS is configured and the listener is not loopback. Not seen: what SQL hides from the wire (a
//! statement in a procedure, `PREPARE … FROM`).
//!
//! Specification: MySQL 9 source documentation, "MySQL Protocol"; MariaDB knowledge base, "Client/Server Protocol".

mod answer;
mod cancel;
mod capability;
mod frame;
mod greeting;
mod interceptor;
mod operation;
mod refusal;
mod relay;
mod results;
mod session;
mod startup;
pub mod target;
mod values;

use std::sync::Arc;

use verbatim_wire::Interceptor;

pub use target::{MysqlTarget, TargetError};

/// The protocol, for the gateway to register: connections of the type `mysql`, without options of their own.
pub fn interceptor() -> Arc<dyn Interceptor> {
    Arc::new(interceptor::Mysql::default())
}

// What peers reach is private here, and fuzzing has to reach it too; cargo-fuzz sets this, nothing else does.
#[cfg(fuzzing)]
pub mod fuzzing;
