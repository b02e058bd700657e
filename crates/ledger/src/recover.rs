//! Opening what a process before left: nothing, a ledger that was stopped in order, or one that a crash cut off.
//!
//! Everything up to the last commit must be as it was written, or the ledger is not opened. What stands behind it was
//! never acknowledged (with `sync` other than `always` whole entries there may have been: they are kept). The torn rest is
//! copied to `quarantine/`, overwritten with zeros, so that it can't reappear behind new frames, and put on record.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use verbatim_core::event::Aborted;
use verbatim_core::{CloseReason, SessionId};

use crate::chain::Chain;
use crate::create::{self, Paths, at, damaged};
use crate::disk::Disk;
use crate::heartbeat::{self, LogOpened, Recovered, State};
use crate::log::{Inner, Shared};
use crate::note::{NOTE_BYTES_MAX, Signed, VerifyingKey};
use crate::scan::{self, Scanned};
use crate::segment::HEADER_ROOM;
use crate::spare::Spares;
use crate::torn::{self, Torn};
use crate::writer::Writer;
use crate::{Checkpoint, OpenError, Recovery, Settings};

/// A ledger that is ready for its threads.
pub(crate) struct Found {
    pub(crate) lock: Box<dyn Any + Send + Sync>,
    pub(crate) writer: Writer,
    pub(crate) spares: Spares,
    pub(crate) node: Chain,
    /// Sessions that were open.
    pub(crate) sessions: Vec<(SessionId, Chain)>,
    /// The name of this boot and process.
    pub(crate) boot: String,
    pub(crate) newest: Option<Checkpoint>,
    pub(crate) recovery: Recovery,
    /// What is to be put on record, unless the process before stopped in order.
    pub(crate) crash: Option<Recovered>,
    /// The time of the last entry, in nanoseconds since 1970.
    pub(crate) last_time: u64,
}

/// How often a locked folder is tried again: `verify` locks it for an instant, to see whether it is in use.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

pub(crate) fn open(settings: &Settings, disk: &Arc<dyn Disk>) -> Result<Found, OpenError> {
    let origin = create::origin(settings)?;
    let paths = Paths::new(&settings.data_dir);
    disk.create_dir(&paths.data).map_err(at(&paths.data))?;
    let lock = lock(&**disk, &paths.data)?;
    let spares = Spares::new(Arc::clone(disk), &paths.data, settings.segment_bytes, settings.reserve_bytes)
        .map_err(at(&paths.data))?;
    disk.create_dir(&paths.quarantine).map_err(at(&paths.quarantine))?;
    let (key, created) = create::identity(&**disk, &paths, &origin, &spares)?;
    let kept = kept_checkpoint(&**disk, settings, key.public())?;
    let scanned = scan::scan(disk, &paths, key.public(), kept.as_ref())?;
    if let (Some(kept), Some(path)) = (&kept, &settings.last_checkpoint)
        && kept.size > scanned.frontier.size()
    {
        let size = scanned.frontier.size();
        let message = format!("the ledger has {size} entries, but had {} when this was signed", kept.size);
        return Err(damaged(path, 0, message));
    }
    let torn = torn::set_aside(&**disk, &paths, &scanned)?;
    let clean = scanned.stopped && torn.is_none() && scanned.sessions.is_empty() && scanned.kept == 0;
    let recovery = Recovery {
        created,
        clean: clean && !created,
        entries: scanned.frontier.size(),
        discarded_bytes: torn.as_ref().map_or(0, |torn| torn.bytes),
        kept_entries: scanned.kept,
        crashed_sessions: scanned.sessions.iter().map(|(id, _)| *id).collect(),
        aborted_operations: scanned.sessions.iter().map(|(_, chain)| chain.intents.len() as u64).sum(),
    };
    let crash = (!clean && !created).then(|| recovered(&scanned, torn, &recovery));
    let Scanned { segment, sealed, frontier, node, sessions, newest, last_commit, time: last_time, .. } =
        scanned;
    let number = segment.number;
    let signed = newest.as_ref().map_or(0, |checkpoint| checkpoint.size);
    let mut writer = Writer {
        disk: Arc::clone(disk),
        dir: paths.segments.clone(),
        key,
        segment,
        frontier,
        signed,
        last_commit,
        sealed: None,
    };
    if sealed {
        writer.next_segment(number + 1, HEADER_ROOM, &spares).map_err(at(&paths.segments))?;
    }
    let boot = boot(&**disk)?;
    Ok(Found { lock, writer, spares, node, sessions, boot, newest, recovery, crash, last_time })
}

fn lock(disk: &dyn Disk, data: &Path) -> Result<Box<dyn Any + Send + Sync>, OpenError> {
    for _ in 0..LOCK_TRIES {
        if let Some(lock) = disk.lock(data).map_err(at(data))? {
            return Ok(lock);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(OpenError::InUse { dir: data.to_owned() })
}

/// The checkpoint on the other volume, which the ledger must not be behind.
fn kept_checkpoint(
    disk: &dyn Disk,
    settings: &Settings,
    key: &VerifyingKey,
) -> Result<Option<Checkpoint>, OpenError> {
    let Some(path) = settings.last_checkpoint.as_deref().filter(|path| disk.exists(path)) else {
        return Ok(None);
    };
    let bytes = disk.get(path, NOTE_BYTES_MAX).map_err(at(path))?;
    let checkpoint = std::str::from_utf8(&bytes).ok().and_then(|note| Checkpoint::parse(note).ok());
    match checkpoint.filter(|checkpoint| checkpoint.signed_by(key) == Signed::Good) {
        Some(checkpoint) => Ok(Some(checkpoint)),
        None => Err(damaged(path, 0, "this is no checkpoint that the node's key signed")),
    }
}

fn recovered(scanned: &Scanned, torn: Option<Torn>, recovery: &Recovery) -> Recovered {
    let (sha256, notes) = torn.map_or((None, Vec::new()), |torn| (Some(torn.sha256), torn.notes));
    Recovered {
        previous_boot: scanned.boot.clone(),
        last_index: scanned.frontier.size().checked_sub(1),
        discarded_bytes: recovery.discarded_bytes,
        sha256,
        kept: recovery.kept_entries,
        sessions: recovery.crashed_sessions.len() as u64,
        aborts: recovery.aborted_operations,
        notes,
    }
}

/// The machine's boot id and a number of this process.
fn boot(disk: &dyn Disk) -> Result<String, OpenError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let id = disk.get(path, 64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let id = id.as_deref().map_or("unknown", str::trim);
    let mut nonce = [0; 8];
    aws_lc_rs::rand::SecureRandom::fill(&aws_lc_rs::rand::SystemRandom::new(), &mut nonce)
        .map_err(|_| OpenError::Append(crate::LedgerError::NoRandom))?;
    Ok(format!("{id}/{}", crate::hash::hex(&nonce)))
}

/// Appends and commits what the opening itself has to say.
pub(crate) fn put_on_record(
    inner: &Inner,
    sessions: Vec<(SessionId, Chain)>,
    crash: Option<Recovered>,
    last_time: u64,
    recovery: &mut Recovery,
) -> Result<(), OpenError> {
    if inner.appended.load(SeqCst) == 0 {
        let vkey = inner.writer.lock().key.public().to_string();
        inner.append_to_node(&LogOpened { vkey })?;
        recovery.created = true;
    }
    if let Some(crash) = crash {
        inner.append_to_node(&crash)?;
    }
    heartbeat::mention_clock_set_back(inner, last_time)?;
    for (id, chain) in sessions {
        let shared = Shared::new(Some(id), chain);
        let mut chain = shared.chain.lock();
        while let Some((&entry, &sequence)) = chain.intents.first_key_value() {
            inner.append(&shared, &mut chain, &Aborted { entry, sequence })?;
        }
        let close = verbatim_core::event::SessionClosed { reason: CloseReason::Crash };
        inner.append(&shared, &mut chain, &close)?;
    }
    heartbeat::beat(inner, State::Started)?;
    while inner.appended.load(SeqCst) > inner.committed.load(SeqCst) {
        inner.commit_round()?;
    }
    torn::forget(&*inner.disk, &Paths::new(&inner.settings.data_dir))
}
