//! Open sessions, as the stack keeps them, and the register of all of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use verbatim_core::event::Renewed;
use verbatim_core::{
    AuthorizedBy, BoxFuture, CloseReason, ConnectionName, Credential, Identity, OpenSession, RecordMode,
    Refusal, SessionId, Timestamp,
};

use crate::gate::Shared;
use crate::journal::SessionJournal;
use crate::policy::{Connection, Policy};

/// How often the wall clock is asked again while a session waits for its end, so that a clock that jumps is noticed.
const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// One open session.
pub struct SessionState {
    id: SessionId,
    connection: Arc<Connection>,
    authorized_by: AuthorizedBy,
    identity: RwLock<Arc<dyn Identity>>,
    pub(crate) journal: Arc<SessionJournal>,
    shared: Arc<Shared>,
    operations: AtomicU64,
    /// The generation of the policy that this session's access was last judged by.
    judged_by: AtomicU64,
    /// When groups and account were last confirmed.
    confirmed: Mutex<Timestamp>,
    revoked: OnceLock<String>,
    end: watch::Sender<Option<CloseReason>>,
    /// When the token ends that the session goes by.
    expires_at: watch::Sender<Timestamp>,
}

impl SessionState {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        connection: Arc<Connection>,
        identity: Arc<dyn Identity>,
        authorized_by: AuthorizedBy,
        journal: Arc<SessionJournal>,
    ) -> Arc<Self> {
        let session = Arc::new(Self {
            id: journal.id(),
            connection,
            authorized_by,
            expires_at: watch::Sender::new(identity.expires_at()),
            identity: RwLock::new(identity),
            journal,
            shared: Arc::clone(shared),
            operations: AtomicU64::new(0),
            judged_by: AtomicU64::new(shared.generation.load(Relaxed)),
            confirmed: Mutex::new(Timestamp::now()),
            revoked: OnceLock::new(),
            end: watch::Sender::new(None),
        });
        shared.sessions.add(&session);
        session
    }

    /// Who it is.
    pub fn identity(&self) -> Arc<dyn Identity> {
        Arc::clone(&self.identity.read())
    }

    /// What let it in.
    pub const fn authorized_by(&self) -> &AuthorizedBy {
        &self.authorized_by
    }

    /// Whether the session still has access: a look at a flag, and after a reload one at the new policy.
    ///
    /// # Errors
    /// Its access was revoked.
    pub(crate) fn standing(&self, policy: &Policy) -> Result<(), Refusal> {
        let generation = self.shared.generation.load(Relaxed);
        if self.judged_by.swap(generation, Relaxed) != generation {
            self.judge(policy, &*self.identity());
        }
        match self.revoked.get() {
            None => Ok(()),
            Some(reason) => Err(Refusal::Revoked { reason: reason.clone() }),
        }
    }

    fn judge(&self, policy: &Policy, identity: &dyn Identity) {
        if let Err((_, reason)) = self.judged(policy, identity) {
            self.revoke(reason);
        }
    }

    /// Whether a renewal's identity is the one that the session is of, and still has access.
    fn fits(&self, renewed: &dyn Identity) -> Result<(), Refusal> {
        let own = self.identity();
        let same = own.provider() == renewed.provider()
            && own.tenant() == renewed.tenant()
            && own.object_id() == renewed.object_id()
            && own.app_id() == renewed.app_id();
        if !same {
            let reason = "the token is another identity's than the session's".to_owned();
            return Err(Refusal::NotAuthenticated { code: "identity", reason });
        }
        self.judged(&self.shared.policy.load(), renewed)
            .map_err(|(code, reason)| Refusal::NotAllowed { code, reason })
    }

    fn judged(&self, policy: &Policy, identity: &dyn Identity) -> Result<(), (&'static str, String)> {
        let connection = policy.connections.get(&self.connection.name);
        connection
            .ok_or_else(|| ("no_connection", "the connection is no longer configured".to_owned()))
            .and_then(|connection| connection.authorize(identity).map(drop))
    }

    fn revoke(&self, reason: String) {
        if self.revoked.set(reason).is_ok() {
            self.end(CloseReason::AccessRevoked);
        }
    }

    /// Ends the session; the first reason counts.
    pub fn end(&self, reason: CloseReason) {
        self.end.send_if_modified(|end| end.is_none() && end.replace(reason).is_none());
    }

    fn deadline(&self) -> Timestamp {
        self.identity.read().expires_at().plus(self.shared.policy.load().grace)
    }

    /// Looks up groups and account again when that is due. An answer that cannot be had is asked for again until two
    /// periods have passed without one; then the session has lost its access.
    pub(crate) async fn recheck(&self, now: Timestamp) {
        let period = self.shared.policy.load().recheck;
        let confirmed = *self.confirmed.lock();
        if period.is_zero() || now.since(confirmed) < period {
            return;
        }
        let identity = self.identity();
        match self.shared.provider.recheck(&identity).await {
            Ok(identity) => {
                *self.confirmed.lock() = now;
                self.judge(&self.shared.policy.load_full(), &*identity);
                *self.identity.write() = identity;
            }
            Err(error) if error.verdict == verbatim_core::Verdict::Undecided => {
                if now.since(confirmed) >= period.saturating_mul(2) {
                    self.revoke(format!("it could not be confirmed again: {error}"));
                }
            }
            Err(error) => self.revoke(error.to_string()),
        }
    }
}

impl OpenSession for SessionState {
    fn id(&self) -> SessionId {
        self.id
    }

    fn connection(&self) -> &ConnectionName {
        &self.connection.name
    }

    fn identity(&self) -> Arc<dyn Identity> {
        self.identity()
    }

    fn record(&self) -> RecordMode {
        self.connection.record
    }

    fn masks(&self) -> bool {
        false
    }

    fn next_sequence(&self) -> u64 {
        self.operations.fetch_add(1, Relaxed) + 1
    }

    fn ended(&self) -> BoxFuture<'static, CloseReason> {
        let mut end = self.end.subscribe();
        // Only what the deadline needs is kept, not the session: its drop is what closes it.
        let shared = Arc::clone(&self.shared);
        let mut expires_at = self.expires_at.subscribe();
        Box::pin(async move {
            loop {
                let until = *expires_at.borrow_and_update();
                let left = until.plus(shared.policy.load().grace).since(Timestamp::now());
                if left.is_zero() {
                    return CloseReason::Expired;
                }
                tokio::select! {
                    ended = end.wait_for(Option::is_some) => {
                        return ended.ok().and_then(|reason| *reason).unwrap_or(CloseReason::Protocol);
                    }
                    // An error is the session's drop, which `end` hears of too.
                    Ok(()) = expires_at.changed() => {}
                    () = tokio::time::sleep(left.min(CLOCK_CHECK)) => {}
                }
            }
        })
    }

    fn renew(&self, credential: Credential) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let (identity, judged) = match self.shared.prove(credential).await {
                Ok(identity) => {
                    let judged = self.fits(&*identity);
                    (Some(identity), judged)
                }
                Err(rejected) => (rejected.identity, Err(rejected.refusal)),
            };
            let event = Renewed { identity: identity.as_deref(), refusal: judged.as_ref().err() };
            let entry = self.journal.append(&event)?;
            self.shared.durable(entry).await?;
            judged?;
            if let Some(identity) = identity {
                let expires_at = identity.expires_at();
                *self.confirmed.lock() = Timestamp::now();
                *self.identity.write() = identity;
                self.expires_at.send_replace(expires_at);
            }
            Ok(())
        })
    }

    fn close(&self, reason: CloseReason) {
        self.journal.close(reason);
    }
}

impl Drop for SessionState {
    fn drop(&mut self) {
        let reason = self.end.borrow().unwrap_or(CloseReason::Protocol);
        self.journal.close(reason);
        self.shared.sessions.remove(self.id);
    }
}

/// Every open session.
#[derive(Default)]
pub struct OpenSessions(Mutex<HashMap<SessionId, Weak<SessionState>>>);

impl OpenSessions {
    fn add(&self, session: &Arc<SessionState>) {
        self.0.lock().insert(session.id, Arc::downgrade(session));
    }

    fn remove(&self, id: SessionId) {
        self.0.lock().remove(&id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, at this moment.
    pub fn all(&self) -> Vec<Arc<SessionState>> {
        self.0.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// One of them.
    pub fn find(&self, id: SessionId) -> Option<Arc<SessionState>> {
        self.0.lock().get(&id).and_then(Weak::upgrade)
    }

    /// Those whose token has ended although nobody waits for it any more.
    pub(crate) fn end_expired(&self, now: Timestamp) {
        for session in self.all() {
            if now >= session.deadline() {
                session.end(CloseReason::Expired);
            }
        }
    }
}
