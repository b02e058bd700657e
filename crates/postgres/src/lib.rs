//! The PostgreSQL interceptor: lets a client in by its token, and carries its session to the target, every operation
//! recorded before its bytes are forwarded.
//!
//! It holds no policy, opens no files and writes no events: what decides and records is behind
//! [`Gate`] and the [`Operations`](verbatim_core::Operations) of a session. It re-encodes nothing: what is forwarded is
//! forwarded as the bytes that came, and it asks nothing of the target by itself but its own login, a Flush where an answer
//! must not wait for a Sync, the end of a COPY that it refused, and a cancel.
//!
//! ```text
//!  client                                    gateway                                             target
//!    │ SSLRequest, TLS, StartupMessage         startup   who, and for which connection
//!    │ password or OAUTHBEARER                 Gate      identity, access, session opened
//!    │                                         target    the gateway's own login                    │
//!    │ ◂─ AuthenticationOk, greeting, own BackendKeyData                                            │
//!    │ Query, Parse … Sync                     operation what is asked, batch by batch              │
//!    │                                         Operations permits, durable                          │
//!    │                                         relay     the original bytes                       ─▸ │
//!    │ ◂─ results, as they came                results   matched to what was asked: outcomes         │
//! ```
//!
//! Limits: a startup packet 10 000 bytes, a credential and a message as [`Limits`] says; 65 536 prepared statements and as
//! many portals a session, and 256 MiB for each; 16 384 messages without an answer; 256 KiB of a batch without its Sync.
//!
//! Refused: replication, protocols other than 3.x, messages of unknown types, logins and cancel requests in clear where TLS
//! is configured and the listener is not loopback. Not seen: what SQL hides from the wire. A statement that a function or a `DO` block
//! prepares or deallocates changes what a name means without a word in the protocol.
//!
//! Specification: PostgreSQL 18 documentation, chapter 54 (frontend/backend protocol); RFC 7628 (OAUTHBEARER).

pub mod cancel;
mod frame;
mod operation;
mod refusal;
mod relay;
mod results;
mod session;
mod startup;
mod stream;
pub mod target;
pub mod values;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use verbatim_core::{ConnectionName, Gate};

pub use target::{LoginMethod, SslMode, Target, TargetError};

/// The TLS configuration of a listener, asked for at each accept, so that certificates can be replaced.
pub type TlsSource = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;
/// The current targets, by the name of their connection.
pub type Targets = Arc<dyn Fn(&str) -> Option<Arc<Target>> + Send + Sync>;
/// Where a client is told to get its token.
pub type DiscoverySource = Arc<dyn Fn() -> Option<Discovery> + Send + Sync>;

/// What all streams of one listener share. What can be reloaded is behind functions that are asked anew.
pub struct Context {
    /// Lets clients in.
    pub gate: Arc<dyn Gate>,
    /// TLS, with `postgresql` in its ALPN; none where the listener offers none.
    pub tls: Option<TlsSource>,
    /// The listener is loopback: it takes logins in clear although TLS is there.
    pub loopback: bool,
    /// The targets.
    pub targets: Targets,
    /// The connection of a listener that serves only one.
    pub own: Option<ConnectionName>,
    /// What clients may take.
    pub limits: Limits,
    /// For OAUTHBEARER.
    pub discovery: DiscoverySource,
    /// The cancel keys; one for all listeners, since a cancel request may come to any.
    pub cancels: Arc<cancel::Registry>,
    /// Counters.
    pub metrics: Arc<dyn Metrics>,
}

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The length of a message, in bytes.
    pub message_bytes: u64,
    /// The length of a token, in bytes.
    pub token_bytes: usize,
    /// From accept to identity.
    pub login: Duration,
    /// How long a session may send nothing while nothing runs; none: for ever.
    pub idle: Option<Duration>,
}

/// Where a client of OAUTHBEARER is told to get its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// The URL of the issuer's discovery document.
    pub openid_configuration: String,
    /// The scope to ask for.
    pub scope: String,
}

/// What the interceptor counts.
pub trait Metrics: Send + Sync {
    /// A stream came that claimed nothing: a port scan, junk, a cancel request with a key that is none.
    fn junk(&self);
    /// A batch was forwarded this long after its bytes were read.
    fn added_latency(&self, latency: Duration);
}

/// Serves one accepted stream to its end, and closes the session if there was one.
pub async fn serve(socket: TcpStream, peer: SocketAddr, context: Arc<Context>) {
    startup::serve(socket, peer, context).await;
}

// What peers reach is private here, and fuzzing has to reach it too; cargo-fuzz sets this, nothing else does.
#[cfg(fuzzing)]
pub mod fuzzing;
