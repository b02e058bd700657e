//! Thread ids: the names of sessions, by which a client may end a statement or a session of its own.
//!
//! A client is told a thread id in the greeting, before it is known which target it wants, so the id is the gateway's: from
//! [`FIRST`] on, where no server's ids are. `KILL [QUERY] id` as a command of its own, and COM_PROCESS_KILL, are carried out
//! on a stream of the gateway's own at the target of the session that has the id, if it is one of the same identity. Any
//! other KILL is SQL like any other, with the target's ids (`CONNECTION_ID()`, `SHOW PROCESSLIST`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use parking_lot::Mutex;
use verbatim_core::Identity;

use crate::target::MysqlTarget;

/// The gateway's lowest thread id. A driver may read ids as signed numbers of 32 bits.
pub(crate) const FIRST: u32 = 0x4000_0000;
const IDS: u32 = 0x4000_0000;

/// The sessions of every listener, by the gateway's thread ids.
#[derive(Default)]
pub(crate) struct Registry {
    next: AtomicU32,
    sessions: Mutex<HashMap<u32, Arc<Killable>>>,
}

/// What a thread id names.
pub(crate) struct Killable {
    target: Arc<MysqlTarget>,
    /// The target's id.
    thread_id: u32,
    identity: Arc<dyn Identity>,
}

/// Whose a thread id is.
pub(crate) enum Found {
    /// A session of the same identity.
    Own(Arc<Killable>),
    /// Another identity's.
    NotOwn,
    /// Nobody's.
    Unknown,
}

/// Keeps a session's id known; dropped, it is unknown.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    id: u32,
    session: Arc<Killable>,
}

impl Killable {
    /// Ends what runs, or the session. An ERR of the target is an answer.
    pub(crate) async fn kill(
        &self,
        query: bool,
    ) -> Result<Option<crate::answer::ErrPacket>, crate::target::TargetError> {
        self.target.kill(self.thread_id, query).await
    }
}

impl Registry {
    /// An id for the greeting of a client.
    pub(crate) fn allot(&self) -> u32 {
        FIRST + self.next.fetch_add(1, Relaxed) % IDS
    }

    /// Makes a session's id known.
    pub(crate) fn register(
        self: &Arc<Self>,
        id: u32,
        target: Arc<MysqlTarget>,
        thread_id: u32,
        identity: Arc<dyn Identity>,
    ) -> Registration {
        let session = Arc::new(Killable { target, thread_id, identity });
        self.sessions.lock().insert(id, Arc::clone(&session));
        Registration { registry: Arc::clone(self), id, session }
    }

    /// The session that this id names to this client: by the gateway's id or, at its own target, by the target's.
    pub(crate) fn find(&self, id: u32, asking: &Registration) -> Found {
        let sessions = self.sessions.lock();
        let by_target = || {
            sessions.values().find(|session| {
                session.thread_id == id && Arc::ptr_eq(&session.target, &asking.session.target)
            })
        };
        match sessions.get(&id).or_else(by_target) {
            None => Found::Unknown,
            Some(session) if same(&*session.identity, &*asking.session.identity) => {
                Found::Own(Arc::clone(session))
            }
            Some(_) => Found::NotOwn,
        }
    }
}

/// Whether two tokens are one identity's: the same tenant, object and application.
pub(crate) fn same(one: &dyn Identity, other: &dyn Identity) -> bool {
    one.provider() == other.provider()
        && one.tenant() == other.tenant()
        && one.object_id() == other.object_id()
        && one.app_id() == other.app_id()
}

impl Registration {
    /// Ends what runs at the gateway's own wish, and the target's session with it.
    pub(crate) async fn kill(&self) {
        if let Err(error) = self.session.kill(false).await {
            tracing::debug!(%error, "the running operation could not be ended");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sessions = self.registry.sessions.lock();
        if sessions.get(&self.id).is_some_and(|session| Arc::ptr_eq(session, &self.session)) {
            sessions.remove(&self.id);
        }
    }
}
