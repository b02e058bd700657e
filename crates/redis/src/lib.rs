//! The Redis interceptor: lets a client in by its token, and carries its session to the target, every command recorded
//! before its bytes are forwarded.
//!
//! It holds no policy, opens no files and writes no events: what decides and records is behind
//! [`Gate`](verbatim_core::Gate) and the [`Operations`](verbatim_core::Operations) of a session. It re-encodes nothing: what is
//! forwarded is forwarded as the bytes that came, but for a HELLO that holds a token. By itself it asks of the target its own
//! login, again after RESET, and in a transaction a command that no server knows in the place of one that was refused, or
//! DISCARD in the place of EXEC.
//!
//! ```text
//!  client                                    gateway                                             target
//!    │ (TLS) AUTH user token                   startup   who, and for which connection
//!    │       HELLO 3 AUTH user token           Gate      identity, access, session opened
//!    │                                         target    the gateway's own login                    │
//!    │ ◂─ OK, or the target's answer to HELLO                                                       │
//!    │ SET k v, MULTI … EXEC, SUBSCRIBE        operation what is asked, batch by batch              │
//!    │                                         Operations permits, durable                          │
//!    │                                         relay     the original bytes                       ─▸ │
//!    │ ◂─ replies, messages, as they came      results   matched to what was asked: outcomes         │
//! ```
//!
//! Limits: before the login 10 arguments of the token's limit; then a command of the message's limit, of which 1 MiB and
//! 65 536 arguments are held (what is longer is recorded and forwarded piece by piece), an inline line of 64 KiB, 16 384
//! commands without an answer, 1 048 576 in one transaction. Replies of any size take no memory.
//!
//! Refused: AUTH without a user name; DEBUG, FAILOVER, MODULE LOAD, LOADEX and UNLOAD, REPLCONF, REPLICAOF, SHUTDOWN, SLAVEOF,
//! SYNC, PSYNC, CLIENT KILL, SCRIPT DEBUG, and what changes a cluster by CLUSTER, unless the connection's `allow_commands` names it; CLIENT
//! REPLY, HELLO, logins and subscriptions in a transaction; subscriptions and HELLO while CLIENT REPLY is off, and CLIENT REPLY while subscribed; commands other than PING, RESET and QUIT
//! after MONITOR. Not seen: what a script or a function does inside the server. Not followed: the redirections of a cluster
//! (`-MOVED`, `-ASK`), which name servers that the client cannot reach through this connection.
//!
//! Specification: Redis serialization protocol (RESP2, RESP3); Redis 7 command reference.

mod frame;
mod operation;
mod refusal;
mod relay;
mod results;
mod session;
mod startup;
mod target;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use verbatim_wire::{Interceptor, InvalidTarget, Listener, Serve, Target, TargetSettings};

/// The Redis interceptor, as the gateway registers it.
pub fn interceptor() -> Arc<dyn Interceptor> {
    Arc::new(Redis)
}

struct Redis;

impl Interceptor for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn types(&self) -> &'static [&'static str] {
        &["redis"]
    }

    fn example(&self) -> &'static str {
        "redis://app@cache.internal:6379/0"
    }

    fn options(&self) -> &'static [&'static str] {
        &[target::ALLOW_COMMANDS]
    }

    fn statement(&self, text: &str) -> Option<String> {
        operation::statement(text)
    }

    fn target(&self, settings: TargetSettings<'_>) -> Result<Arc<dyn Target>, InvalidTarget> {
        Ok(Arc::new(target::RedisTarget::read(settings)?))
    }

    fn listen(self: Arc<Self>, listener: Listener) -> Serve {
        let listener = Arc::new(listener);
        Arc::new(move |socket: TcpStream, peer: SocketAddr| {
            Box::pin(startup::serve(socket, peer, Arc::clone(&listener)))
        })
    }
}

// What peers reach is private here, and fuzzing has to reach it too; cargo-fuzz sets this, nothing else does.
#[cfg(fuzzing)]
pub mod fuzzing;
