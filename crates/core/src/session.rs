//! One client's stay on one connection.

use std::net::SocketAddr;

use crate::SessionId;

/// What the wire tells of the client; every word of it is the client's own, and trusted for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The peer's address as the gateway saw it.
    pub address: SocketAddr,
    /// The user name that the client gave.
    pub user: Option<String>,
    /// `application_name`, `program_name`, `CLIENT SETNAME`, User-Agent.
    pub application: Option<String>,
}

/// A session as its interceptor knows it: what the client said before it was let in. Each interceptor implements it.
pub trait Session: Send + Sync {
    /// Its identifier, made when the stream was accepted.
    fn id(&self) -> SessionId;
    /// The connection's type: `postgres`, `mysql`, `redis`, `http`, `mcp`.
    fn protocol(&self) -> &'static str;
    /// The connection that the client asks for, as it said; the listener's own where it has one.
    fn wanted(&self) -> &str;
    /// The client.
    fn client(&self) -> &Client;
    /// A W3C trace id (32 hexadecimal digits), where the client sent one.
    fn trace_id(&self) -> Option<&str> {
        None
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client left.
    Client,
    /// The target left, or could not be reached.
    Target,
    /// The token ended.
    Expired,
    /// The identity lost its access.
    AccessRevoked,
    /// An operator ended it.
    Killed,
    /// Nothing came for longer than `[limits] idle`.
    Idle,
    /// One side broke the protocol.
    Protocol,
    /// The gateway shut down.
    Drained,
    /// The gateway died; written by the next start.
    Crash,
    /// The login was refused.
    Refused,
}

impl CloseReason {
    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Target => "target",
            Self::Expired => "expired",
            Self::AccessRevoked => "access_revoked",
            Self::Killed => "killed",
            Self::Idle => "idle",
            Self::Protocol => "protocol",
            Self::Drained => "drained",
            Self::Crash => "crash",
            Self::Refused => "refused",
        }
    }
}
