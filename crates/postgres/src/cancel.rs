//! Cancel requests: the keys that clients were given, and what each may cancel.
//!
//! A client's key is the target's process id, which `pg_backend_pid()` shows, and a secret of the gateway's own: the
//! target's secret never reaches a client. A request with a known key is an operation of the session that the key was
//! given to (`cancel`), recorded before the target hears of it; any other is closed without a word, as the server does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::timeout;
use tower::{Service, ServiceExt};
use verbatim_core::{OpenSession, Operation, Operations, Outcome, Refusal, Status, TargetError};

use crate::frame;
use crate::target::{BackendKey, Target};

/// The kind of BackendKeyData.
const BACKEND_KEY_DATA: u8 = b'K';
/// How long the end of a session waits for cancel requests on their way to the target.
const SETTLING: Duration = Duration::from_secs(2);

/// The keys of every open session, over all listeners.
#[derive(Default)]
pub struct Registry {
    /// By process id; several where several targets use the same.
    sessions: Mutex<HashMap<u32, Vec<Arc<Cancellable>>>>,
}

/// What a key cancels.
struct Cancellable {
    secret: Bytes,
    key: BackendKey,
    target: Arc<Target>,
    session: Arc<dyn OpenSession>,
    operations: Operations,
    /// Read while a request is carried out; written by the session's end, which waits for that.
    open: Arc<RwLock<()>>,
}

/// Keeps a session's key known; dropped, the key is unknown.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    entry: Arc<Cancellable>,
}

/// Whether a cancel request was anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requested {
    /// It had the key of an open session.
    Known,
    /// It had not.
    Unknown,
}

impl Registry {
    /// Makes a key for a session: a secret of `length` bytes.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn register(
        self: &Arc<Self>,
        length: usize,
        key: BackendKey,
        target: Arc<Target>,
        session: Arc<dyn OpenSession>,
        operations: Operations,
    ) -> Result<Registration, Refusal> {
        let mut secret = vec![0; length];
        rand::fill(&mut secret).map_err(|_| Refusal::Busy { reason: "random numbers".into() })?;
        let entry = Arc::new(Cancellable {
            secret: secret.into(),
            key,
            target,
            session,
            operations,
            open: Arc::default(),
        });
        self.sessions.lock().entry(entry.key.process_id).or_default().push(Arc::clone(&entry));
        Ok(Registration { registry: Arc::clone(self), entry })
    }

    /// The session that this key was given to, and what keeps it from closing meanwhile.
    fn find(&self, process_id: u32, secret: &[u8]) -> Option<(Arc<Cancellable>, OwnedRwLockReadGuard<()>)> {
        let sessions = self.sessions.lock();
        let known = |entry: &&Arc<Cancellable>| verify_slices_are_equal(&entry.secret, secret).is_ok();
        let entry = sessions.get(&process_id)?.iter().find(known)?;
        let open = Arc::clone(&entry.open).try_read_owned().ok()?;
        Some((Arc::clone(entry), open))
    }

    /// Does what a CancelRequest asks, if its key is known.
    pub(crate) async fn request(&self, process_id: u32, secret: &[u8]) -> Requested {
        let Some((entry, _open)) = self.find(process_id, secret) else { return Requested::Unknown };
        let operation = Operation::new(entry.session.next_sequence(), "cancel");
        let mut operations = entry.operations.clone();
        let permit = match operations.ready().await {
            Ok(operations) => operations.call(operation).await,
            Err(refusal) => Err(refusal),
        };
        let recorded = match permit {
            Ok(permit) => permit.recorded().await,
            Err(refusal) => Err(refusal),
        };
        // Refused, it is recorded; a cancel request gets no answer.
        let Ok(recorded) = recorded else { return Requested::Known };
        let outcome = match entry.target.cancel(&entry.key).await {
            Ok(()) => Outcome::new(Status::Ok),
            Err(error) => Outcome {
                error: Some(TargetError { code: "08006".into(), message: error.to_string() }),
                ..Outcome::new(Status::Error)
            },
        };
        recorded.complete(&outcome);
        Requested::Known
    }

    /// How many sessions have a key.
    pub fn len(&self) -> usize {
        self.sessions.lock().values().map(Vec::len).sum()
    }

    /// Whether no session has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({} sessions)", self.len())
    }
}

impl Registration {
    /// The BackendKeyData for the client.
    pub(crate) fn message(&self) -> Bytes {
        frame::message(BACKEND_KEY_DATA, |out| {
            out.put_u32(self.entry.key.process_id);
            out.put_slice(&self.entry.secret);
        })
    }

    /// Makes the key unknown, and waits for requests that are on their way: their outcomes belong into the session,
    /// which a client often closes as soon as it has cancelled.
    pub(crate) async fn settle(self) {
        let open = Arc::clone(&self.entry.open);
        drop(self);
        // One that takes longer has no outcome; the session's close says so.
        let _ = timeout(SETTLING, open.write()).await;
    }

    /// Cancels what runs, at the gateway's own wish.
    pub(crate) async fn cancel(&self) {
        if let Err(error) = self.entry.target.cancel(&self.entry.key).await {
            tracing::debug!(%error, "the running operation could not be cancelled");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sessions = self.registry.sessions.lock();
        let process_id = self.entry.key.process_id;
        if let Some(entries) = sessions.get_mut(&process_id) {
            entries.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
            if entries.is_empty() {
                sessions.remove(&process_id);
            }
        }
    }
}
