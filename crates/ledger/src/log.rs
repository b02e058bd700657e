//! The ledger, open for writing.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;
use verbatim_core::event::{Aborted, SessionClosed, kind};
use verbatim_core::{AuditEvent, BoxFuture, CloseReason, SessionId};

use crate::chain::{Chain, is_of_a_session};
use crate::commit::{Control, Durable};
use crate::disk::{Disk, FileSystem};
use crate::frame::frame_bytes;
use crate::heartbeat::{self, State};
use crate::prepare::Group;
use crate::recover;
use crate::segment;
use crate::sequencer::Sequencer;
use crate::spare::Spares;
use crate::writer::Writer;
use crate::{Admission, Checkpoint, HeartbeatFacts, LedgerError, OpenError, Recovery, Settings, Stats};

/// Entries that wait for being written may take this many bytes; who appends more waits.
const QUEUE_BYTES_MAX: u64 = 256 << 20;

/// How often the newest checkpoint is put on its other volume, at most; at the end it is in any case.
const KEPT_EVERY: Duration = Duration::from_secs(1);

/// What gives the gateway's share of a heartbeat.
pub(crate) type Facts = Arc<dyn Fn() -> HeartbeatFacts + Send + Sync>;

/// One session's chain, shared by all that append to it.
pub(crate) struct Shared {
    pub(crate) id: Option<SessionId>,
    pub(crate) chain: Mutex<Chain>,
    /// The next entry's place, for those who only look.
    pub(crate) next: AtomicU64,
}

impl Shared {
    pub(crate) fn new(id: Option<SessionId>, chain: Chain) -> Arc<Self> {
        let next = AtomicU64::new(chain.next);
        Arc::new(Self { id, chain: Mutex::new(chain), next })
    }
}

/// What all threads of a ledger share.
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) disk: Arc<dyn Disk>,
    /// `ledger/`.
    dir: PathBuf,
    pub(crate) origin: String,
    pub(crate) sequencer: Mutex<Sequencer>,
    /// Signalled when a batch was taken out of the queue.
    pub(crate) room: Condvar,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) spares: Spares,
    /// The chain of the entries of no session.
    node: Arc<Shared>,
    pub(crate) sessions: Mutex<HashMap<SessionId, Arc<Shared>>>,
    /// How many entries were appended, written, and committed.
    pub(crate) appended: AtomicU64,
    pub(crate) written: AtomicU64,
    pub(crate) committed: AtomicU64,
    pub(crate) dead: OnceLock<String>,
    pub(crate) control: Mutex<Control>,
    pub(crate) signal: Condvar,
    /// The committer sleeps until it is woken.
    pub(crate) idle: AtomicBool,
    pub(crate) newest: Mutex<Option<Checkpoint>>,
    pub(crate) published: watch::Sender<u64>,
    pub(crate) facts: Mutex<Option<Facts>>,
    pub(crate) counters: Mutex<Stats>,
    /// Bytes that the open segment, and spares and file system, still take.
    pub(crate) segment_room: AtomicU64,
    /// Bytes that were appended and not written.
    pub(crate) queued: AtomicU64,
    pub(crate) other_room: AtomicU64,
    pub(crate) clock_back: AtomicBool,
    /// The log was closed.
    pub(crate) stopped: AtomicBool,
    maintenance: SyncSender<()>,
    heartbeats: SyncSender<()>,
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

/// The ledger of this node, open for writing. Clones share it; when the last is dropped it is closed.
#[derive(Clone)]
pub struct Ledger(Arc<Handle>);

struct Handle {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl Ledger {
    /// Opens the ledger in `settings.data_dir`, or makes one. Blocking.
    ///
    /// Locks the folder against other processes, makes `ledger/`, `keys/node.key` and `keys/node.vkey` where there is no
    /// ledger yet, repairs a torn tail on record, closes sessions that a crash left open, and starts the ledger's threads
    /// (committer, heartbeats, segment maker). All entries that this took are durable when it returns.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] where the record itself is not as it was written: that is never repaired. Otherwise: a setting
    /// out of range, a folder in use, an input or output error.
    pub fn open(settings: Settings) -> Result<(Self, Recovery), OpenError> {
        if settings.segment_bytes < segment::SEGMENT_BYTES_MIN {
            let message = format!("at least {} bytes are expected", segment::SEGMENT_BYTES_MIN);
            return Err(OpenError::Setting { name: "segment", message });
        }
        Self::open_on(settings, Arc::new(FileSystem))
    }

    /// As [`Self::open`], on another disk than the machine's, where segments may be as short as
    /// [`SEGMENT_BYTES_LEAST`](segment::SEGMENT_BYTES_LEAST).
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_on(settings: Settings, disk: Arc<dyn Disk>) -> Result<(Self, Recovery), OpenError> {
        let found = recover::open(&settings, &disk)?;
        let recover::Found {
            lock,
            writer,
            spares,
            node,
            sessions,
            boot,
            newest,
            mut recovery,
            crash,
            last_time,
        } = found;
        let (maintenance, maintenance_wakes) = sync_channel(1);
        let (heartbeats, heartbeat_wakes) = sync_channel(1);
        let origin = writer.key.public().name.clone();
        let size = writer.frontier.size();
        let batch_bytes = crate::sequencer::BATCH_BYTES_MAX.min(segment::capacity(settings.segment_bytes));
        let inner = Arc::new(Inner {
            dir: settings.data_dir.join("ledger"),
            disk,
            sequencer: Mutex::new(Sequencer::new(&origin, &boot, size, batch_bytes)),
            room: Condvar::new(),
            spares,
            node: Shared::new(None, node),
            sessions: Mutex::new(HashMap::new()),
            appended: AtomicU64::new(size),
            written: AtomicU64::new(size),
            committed: AtomicU64::new(writer.signed),
            dead: OnceLock::new(),
            control: Mutex::new(Control::default()),
            signal: Condvar::new(),
            idle: AtomicBool::new(false),
            newest: Mutex::new(newest),
            published: watch::Sender::new(writer.signed),
            facts: Mutex::new(None),
            counters: Mutex::new(Stats::default()),
            segment_room: AtomicU64::new(writer.room()),
            other_room: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            clock_back: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            maintenance,
            heartbeats,
            lock: Mutex::new(Some(lock)),
            writer: Mutex::new(writer),
            origin,
            settings,
        });
        inner.look_at_space();
        recover::put_on_record(&inner, sessions, crash, last_time, &mut recovery)?;
        let ledger = Self(Arc::new(Handle { inner, threads: Mutex::new(Vec::new()) }));
        ledger.0.start(maintenance_wakes, heartbeat_wakes)?;
        Ok((ledger, recovery))
    }

    /// The part of the ledger that a session appends to. Cheap; several of one session share its chain.
    pub fn session(&self, id: SessionId) -> SessionLog {
        let shared = self.0.inner.sessions.lock().get(&id).cloned();
        let shared = shared.unwrap_or_else(|| Shared::new(Some(id), Chain::default()));
        SessionLog { inner: Arc::clone(&self.0.inner), shared, id }
    }

    /// Appends an entry of no session; returns its index.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn append(&self, event: &dyn AuditEvent) -> Result<u64, LedgerError> {
        self.0.inner.append_to_node(event)
    }

    /// Whether the entry is durable; none while that is not known. Cheap.
    pub fn is_durable(&self, index: u64) -> Option<Result<(), LedgerError>> {
        self.0.inner.is_durable(index)
    }

    /// Resolves when the entry is durable: synced and signed, or with [`SyncMode::Within`](crate::SyncMode::Within)
    /// written (then by this very call, if by none before).
    ///
    /// # Cancel safety
    /// It can be dropped and asked for again.
    pub fn durable(&self, index: u64) -> BoxFuture<'_, Result<(), LedgerError>> {
        Box::pin(Durable { inner: Arc::clone(&self.0.inner), index, registered: None, yielded: false })
    }

    /// How many entries are synced and under a signed checkpoint; changes with every commit.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.0.inner.published.subscribe()
    }

    /// The newest durable checkpoint.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.0.inner.newest.lock().clone()
    }

    /// What the ledger still takes. Cheap.
    pub fn admits(&self) -> Admission {
        self.0.inner.admits()
    }

    /// The folder that `verify` covers.
    pub fn dir(&self) -> &Path {
        &self.0.inner.dir
    }

    /// Who to ask for the gateway's share of each heartbeat.
    pub fn set_heartbeat_facts(&self, facts: Facts) {
        *self.0.inner.facts.lock() = Some(facts);
    }

    /// Counters since the ledger was opened.
    pub fn stats(&self) -> Stats {
        let mut stats = self.0.inner.counters.lock().clone();
        stats.entries = self.0.inner.appended.load(SeqCst);
        stats
    }

    /// Closes sessions that are still open (as drained, their unanswered operations as aborted), commits what is pending
    /// and a last heartbeat, and stops the ledger's threads. Blocking; the second call does nothing.
    pub fn close(&self) {
        self.0.close();
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({})", self.0.inner.origin)
    }
}

impl Handle {
    fn start(&self, maintenance: Receiver<()>, heartbeats: Receiver<()>) -> Result<(), OpenError> {
        let mut threads = self.threads.lock();
        let mut spawn = |name: &str, work: Box<dyn FnOnce(&Inner) + Send>| {
            let inner = Arc::clone(&self.inner);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&inner));
            let path = self.inner.settings.data_dir.clone();
            thread.map(|thread| threads.push(thread)).map_err(|source| OpenError::Io { path, source })
        };
        spawn("ledger-commit", Box::new(Inner::commit_until_stopped))?;
        spawn("ledger-segments", Box::new(move |inner| inner.maintain(&maintenance)))?;
        spawn("ledger-heartbeat", Box::new(move |inner| heartbeat::run(inner, &heartbeats)))
    }

    fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return;
        }
        // No new sessions and operations from here on.
        self.inner.stopped.store(true, SeqCst);
        // Where the log is dead or full it can't be said; the next start will call it a crash, which it is.
        let _ = self.inner.close_sessions().and_then(|()| heartbeat::beat(&self.inner, State::Stopped));
        self.inner.sequencer.lock().closed = true;
        self.inner.control.lock().stop = true;
        self.inner.signal.notify_all();
        self.inner.room.notify_all();
        self.inner.wake_maintenance();
        // A full channel means that the thread has yet to look, and will see the stop.
        let _ = self.inner.heartbeats.try_send(());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the ledger panicked");
            }
        }
        self.inner.keep_checkpoint();
        // Sessions may hold on to the ledger; another process may have the folder now.
        self.inner.lock.lock().take();
    }
}

/// A session's part of the ledger. Clones share the session's chain.
#[derive(Clone)]
pub struct SessionLog {
    inner: Arc<Inner>,
    shared: Arc<Shared>,
    id: SessionId,
}

impl SessionLog {
    /// Appends an entry of this session and returns its index. A `session_close` is given the session's counts, and
    /// before it an `abort` for every intent that has no answer.
    ///
    /// # Errors
    /// [`LedgerError::Closed`] after the close; see there for the others. What was refused left no trace.
    pub fn append(&self, event: &dyn AuditEvent) -> Result<u64, LedgerError> {
        self.inner.append_to_session(self.id, &self.shared, event)
    }

    /// The session.
    pub fn id(&self) -> SessionId {
        self.id
    }
}

impl fmt::Debug for SessionLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionLog({})", self.id)
    }
}

impl Inner {
    pub(crate) fn append_to_node(&self, event: &dyn AuditEvent) -> Result<u64, LedgerError> {
        if is_of_a_session(event.kind()) {
            return Err(LedgerError::OutOfOrder { what: "an entry of this kind belongs to a session" });
        }
        self.append(&self.node, &mut self.node.chain.lock(), event)
    }

    fn append_to_session(
        &self,
        id: SessionId,
        shared: &Arc<Shared>,
        event: &dyn AuditEvent,
    ) -> Result<u64, LedgerError> {
        let mut chain = shared.chain.lock();
        chain.admits(event.kind(), event.answers())?;
        if event.kind() == kind::SESSION_CLOSE {
            while let Some((&entry, &sequence)) = chain.intents.first_key_value() {
                self.append(shared, &mut chain, &Aborted { entry, sequence })?;
            }
        }
        let index = self.append(shared, &mut chain, event)?;
        match event.kind() {
            kind::SESSION_OPEN => {
                self.sessions.lock().insert(id, Arc::clone(shared));
            }
            kind::SESSION_CLOSE => {
                self.sessions.lock().remove(&id);
            }
            _ => {}
        }
        Ok(index)
    }

    /// Closes what is still open when the ledger is: a record that stopped in order has no loose ends.
    fn close_sessions(&self) -> Result<(), LedgerError> {
        let open: Vec<_> =
            self.sessions.lock().iter().map(|(id, shared)| (*id, Arc::clone(shared))).collect();
        let close = SessionClosed { reason: CloseReason::Drained };
        for (id, shared) in open {
            match self.append_to_session(id, &shared, &close) {
                // Its own thread was faster.
                Ok(_) | Err(LedgerError::Closed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Appends to a chain whose lock is held: prepared outside of the shared lock, put in order inside.
    pub(crate) fn append(
        &self,
        shared: &Shared,
        chain: &mut Chain,
        event: &dyn AuditEvent,
    ) -> Result<u64, LedgerError> {
        self.check_alive()?;
        let mut group = Group::scratch();
        let result = group
            .prepare(event, &self.origin, shared.id, chain)
            .and_then(|()| self.append_group(chain, event, &mut group));
        if result.is_ok() {
            shared.next.store(chain.next, SeqCst);
        }
        group.recycle();
        result
    }

    fn append_group(
        &self,
        chain: &mut Chain,
        event: &dyn AuditEvent,
        group: &mut Group,
    ) -> Result<u64, LedgerError> {
        let (kind, answers, operation) = (event.kind(), event.answers(), group.operation);
        let entries = group.entries();
        let bytes = entries.iter().map(|entry| self.bytes_max(entry)).sum();
        self.make_room(kind, bytes)?;
        let count = entries.len() as u64;
        let mut sequencer = self.sequencer.lock();
        while sequencer.queued_bytes() > QUEUE_BYTES_MAX && !sequencer.closed && self.dead.get().is_none() {
            self.room.wait(&mut sequencer);
        }
        if sequencer.closed {
            return Err(LedgerError::Closed);
        }
        self.check_alive()?;
        let sequenced = sequencer.append(entries, bytes, chain.last, answers);
        self.appended.store(sequenced.next, SeqCst);
        self.queued.store(sequencer.queued_bytes(), SeqCst);
        drop(sequencer);
        chain.advance(kind, sequenced.first, answers, operation, sequenced.leaf);
        chain.next += count - 1;
        if sequenced.clock_back && !self.clock_back.swap(true, SeqCst) {
            let _ = self.heartbeats.try_send(());
        }
        self.nudge();
        Ok(sequenced.first)
    }

    /// What an entry takes in a segment at most.
    fn bytes_max(&self, entry: &crate::prepare::Prepared) -> u64 {
        let envelope = self.origin.len() + 512 + entry.head.len() + entry.tail.len();
        (entry.payload.len() + frame_bytes(envelope)) as u64
    }

    /// Refuses what there is no space for; makes a segment for what no usual one holds.
    fn make_room(&self, kind: &str, bytes: u64) -> Result<(), LedgerError> {
        let admitted = match kind {
            kind::SESSION_OPEN => self.admits() >= Admission::Everything,
            kind::INTENT | kind::CHUNK => self.admits() >= Admission::NoNewSessions,
            _ => true,
        };
        if !admitted && self.stopped.load(SeqCst) {
            return Err(LedgerError::Closed);
        }
        let needed = bytes + segment::HEADER_ROOM + segment::COMMIT_ROOM + segment::SEAL_ROOM;
        let taken = needed + self.queued.load(SeqCst);
        if !admitted || (self.segment_room.load(SeqCst) < taken && self.other_room.load(SeqCst) < taken) {
            return Err(LedgerError::Full);
        }
        if bytes > segment::capacity(self.settings.segment_bytes) {
            self.spares.prepare(needed).map_err(|_| LedgerError::Full)?;
        }
        Ok(())
    }

    pub(crate) fn admits(&self) -> Admission {
        if self.dead.get().is_some() || self.stopped.load(SeqCst) {
            return Admission::Nothing;
        }
        let room = self.segment_room.load(SeqCst).saturating_add(self.other_room.load(SeqCst));
        let reserve = self.settings.reserve_bytes;
        if room <= reserve {
            Admission::NoNewOperations
        } else if room < reserve.saturating_mul(2) {
            Admission::NoNewSessions
        } else {
            Admission::Everything
        }
    }

    /// Notes how much space there is; one system call.
    pub(crate) fn look_at_space(&self) {
        // What can't be asked is taken for full.
        let free = self.disk.free(&self.settings.data_dir).unwrap_or(0);
        self.other_room.store(free.saturating_add(self.spares.bytes()), SeqCst);
    }

    pub(crate) fn wake_maintenance(&self) {
        // A full channel means that the thread has yet to look.
        let _ = self.maintenance.try_send(());
    }

    /// The segment maker's thread: keeps spares ready, and the newest checkpoint on its other volume.
    fn maintain(&self, wakes: &Receiver<()>) {
        let mut kept: Option<Instant> = None;
        loop {
            while !self.stopped.load(SeqCst) {
                match self.spares.refill() {
                    Ok(true) => self.look_at_space(),
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "no segment could be made ahead");
                        break;
                    }
                }
            }
            if kept.is_none_or(|kept| kept.elapsed() >= KEPT_EVERY) {
                self.keep_checkpoint();
                kept = Some(Instant::now());
            }
            if self.stopped.load(SeqCst) {
                return;
            }
            if wakes.recv().is_err() {
                return;
            }
        }
    }

    /// Writes the newest checkpoint to where a rolled back data volume can't take it along.
    fn keep_checkpoint(&self) {
        let Some(path) = &self.settings.last_checkpoint else { return };
        let Some(checkpoint) = self.newest.lock().clone() else { return };
        if let Err(error) = self.disk.put(path, checkpoint.note.as_bytes(), false) {
            tracing::warn!(%error, path = %path.display(), "the last checkpoint could not be kept");
        }
    }
}
