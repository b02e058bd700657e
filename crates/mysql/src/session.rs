//! The session, as its wire tells of it before it is let in.

use verbatim_core::{Client, Session, SessionId};

/// What a client's login says of a session.
#[derive(Debug)]
pub(crate) struct MysqlSession {
    pub(crate) id: SessionId,
    pub(crate) wanted: String,
    pub(crate) client: Client,
    pub(crate) trace_id: Option<String>,
}

impl Session for MysqlSession {
    fn id(&self) -> SessionId {
        self.id
    }

    fn protocol(&self) -> &'static str {
        "mysql"
    }

    fn wanted(&self) -> &str {
        &self.wanted
    }

    fn client(&self) -> &Client {
        &self.client
    }

    fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }
}
