//! The session, as its wire tells of it before it is let in.

use verbatim_core::{Client, Session, SessionId};

/// What a login says of a session.
#[derive(Debug)]
pub(crate) struct RedisSession {
    pub(crate) id: SessionId,
    pub(crate) wanted: String,
    pub(crate) client: Client,
    pub(crate) trace: Option<String>,
}

impl Session for RedisSession {
    fn id(&self) -> SessionId {
        self.id
    }

    fn protocol(&self) -> &'static str {
        "redis"
    }

    fn wanted(&self) -> &str {
        &self.wanted
    }

    fn client(&self) -> &Client {
        &self.client
    }

    fn trace_id(&self) -> Option<&str> {
        self.trace.as_deref()
    }
}
