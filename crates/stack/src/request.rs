//! What passes between the layers: a login as it becomes a session, and an operation as it becomes a permit.

use std::sync::Arc;

use verbatim_core::{AuthorizedBy, Identity, Login, Operation, Refusal};

use crate::policy::Connection;
use crate::session::SessionState;

/// A login whose token was verified.
pub(crate) struct Verified {
    /// The login as it came.
    pub(crate) login: Login,
    /// Who it is.
    pub(crate) identity: Arc<dyn Identity>,
}

/// A login that was let in.
pub(crate) struct Admitted {
    /// The login as it came.
    pub(crate) login: Login,
    /// Who it is.
    pub(crate) identity: Arc<dyn Identity>,
    /// The connection.
    pub(crate) connection: Arc<Connection>,
    /// What let it in.
    pub(crate) authorized_by: AuthorizedBy,
}

/// A login that was refused, with what had been proved by then.
pub(crate) struct Rejected {
    /// Why.
    pub(crate) refusal: Refusal,
    /// The identity, if the token proved one.
    pub(crate) identity: Option<Arc<dyn Identity>>,
    /// The connection, if the identity was proved and the wanted name is one.
    pub(crate) connection: Option<Arc<Connection>>,
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, identity: None, connection: None }
    }
}

/// An operation that an open session asks to forward.
pub(crate) struct Asked {
    /// The session.
    pub(crate) session: Arc<SessionState>,
    /// The operation.
    pub(crate) operation: Arc<Operation>,
}

/// What the inner layers answer when nothing speaks against an operation; `Record` makes the permit of it.
pub(crate) struct Grant {
    /// The operation, to be recorded.
    pub(crate) operation: Arc<Operation>,
}
