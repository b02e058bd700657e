//! The seam between an interceptor and the stack: how a session is opened, and what it is given.

use std::sync::Arc;

use crate::{
    BoxFuture, CloseReason, ConnectionName, Identity, Operation, Permit, RecordMode, Refusal, Session,
    SessionId, Token,
};

/// The stack of one session: `tower::Service<Operation, Response = Permit, Error = Refusal>`.
///
/// Clones share the session; a cancel request that comes on another stream uses one.
pub type Operations = tower::util::BoxCloneSyncService<Operation, Permit, Refusal>;

/// Lets clients in. Given by the gateway to every interceptor; it holds all policy, the interceptor none.
pub trait Gate: Send + Sync {
    /// Verifies the credential, finds what lets the identity in to the wanted connection, and records what came of
    /// it, durably, refusals too. Identity is judged before the connection is looked at.
    fn open(&self, login: Login) -> BoxFuture<'_, Result<Opened, Refusal>>;
}

/// A client's request to be let in.
pub struct Login {
    /// Who asks, and for what, as the wire says it.
    pub session: Arc<dyn Session>,
    /// What it proves itself with.
    pub credential: Credential,
    /// What the interceptor cannot give this client even if it is let in (replication): refused after identity and
    /// access were judged, and recorded like any other refusal.
    pub unsupported: Option<Refusal>,
}

/// What a client proves itself with.
#[derive(Debug)]
pub enum Credential {
    /// A bearer token.
    Token(Token),
    /// Nothing that could be verified: the login is refused with this, and recorded.
    Refused(Refusal),
}

/// A session that was let in; its opening is durable in the record.
pub struct Opened {
    /// The session, from now on.
    pub session: Arc<dyn OpenSession>,
    /// What decides and records its operations.
    pub operations: Operations,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({})", self.session.id())
    }
}

/// An open session, as the stack keeps it.
pub trait OpenSession: Send + Sync {
    /// Its identifier.
    fn id(&self) -> SessionId;
    /// The connection it was let in to.
    fn connection(&self) -> &ConnectionName;
    /// Who it is.
    fn identity(&self) -> Arc<dyn Identity>;
    /// How much is recorded.
    fn record(&self) -> RecordMode;
    /// Whether the stack may ask operations what they mean, and give permits a mask plan. It can change with a reload, so it
    /// is asked for each batch.
    fn masks(&self) -> bool;
    /// Numbers an operation at its arrival: 1, 2, 3, … without gaps, so every number must be used.
    fn next_sequence(&self) -> u64;
    /// Resolves when the gateway ends the session: `Expired`, `AccessRevoked`, `Killed` or `Drained`. The interceptor
    /// then ends what runs, tells the client in its protocol's words, and closes.
    ///
    /// # Cancel safety
    /// It can be dropped and asked for again.
    fn ended(&self) -> BoxFuture<'static, CloseReason>;
    /// Takes another token of the same identity (tenant, object id, application): the session then ends with that one, and
    /// [`ended`](Self::ended) minds it. What came of it is recorded, durably; a refusal leaves the session as it was.
    fn renew(&self, credential: Credential) -> BoxFuture<'_, Result<(), Refusal>>;
    /// Records the close; operations without an outcome are recorded as aborted before it. Only the first call
    /// counts. A session that is dropped without it is closed as `Protocol`.
    fn close(&self, reason: CloseReason);
}
