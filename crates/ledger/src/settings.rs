//! How a ledger is opened, and what it says of itself.

use std::path::PathBuf;
use std::time::Duration;

use verbatim_core::SessionId;

/// How a ledger is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it lives: `ledger/`, `keys/`, `spare/`, `quarantine/`.
    pub data_dir: PathBuf,
    /// The organisation's domain, the first part of the origin.
    pub organisation: String,
    /// The node's name, the third part of the origin.
    pub node: String,
    /// When an entry counts as durable.
    pub sync: SyncMode,
    /// How long a segment file is, in bytes; at least
    /// [`SEGMENT_BYTES_MIN`](crate::segment::SEGMENT_BYTES_MIN).
    pub segment_bytes: u64,
    /// How much space is kept for outcomes, closes and the last heartbeat, in bytes.
    pub reserve_bytes: u64,
    /// How often a heartbeat is written.
    pub heartbeat: Duration,
    /// A file on another volume that holds the newest checkpoint; a ledger that is behind it is not opened.
    pub last_checkpoint: Option<PathBuf>,
}

/// When an entry counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// When it is synced and signed.
    Always,
    /// When it is written; synced and signed within this time. Survives a dead process, not a dead machine.
    Within(Duration),
}

/// What was found, and put on record, when the ledger was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The ledger did not exist before.
    pub created: bool,
    /// The process before this one stopped in order.
    pub clean: bool,
    /// How many entries there were, before those of the recovery itself.
    pub entries: u64,
    /// Bytes of a torn tail, moved to `quarantine/`.
    pub discarded_bytes: u64,
    /// Whole entries behind the last commit that were kept (`sync` other than `always`).
    pub kept_entries: u64,
    /// Sessions that were open and are closed as crashed now.
    pub crashed_sessions: Vec<SessionId>,
    /// Operations without an answer that are aborted now.
    pub aborted_operations: u64,
}

/// What the ledger still takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    /// Nothing: it is dead or closed.
    Nothing,
    /// Outcomes, aborts, closes and refusals: the disk is full down to the reserve.
    NoNewOperations,
    /// Operations of open sessions: less than twice the reserve is free.
    NoNewSessions,
    /// Everything.
    Everything,
}

/// What only the gateway knows and each heartbeat states.
#[derive(Debug, Clone, Default)]
pub struct HeartbeatFacts {
    /// Each sink's name and how many entries of the ledger it has acknowledged.
    pub sinks: Vec<(String, u64)>,
}

/// Counters since the ledger was opened.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Entries appended.
    pub entries: u64,
    /// Commits: batches that got a signed checkpoint.
    pub batches: u64,
    /// Bytes written to segments.
    pub bytes: u64,
    /// How many syncs took up to [`SYNC_BOUNDS`]`[i]`; one more for those that took longer.
    pub sync_counts: [u64; SYNC_BOUNDS.len() + 1],
    /// How long all syncs took together.
    pub sync_total: Duration,
}

/// Upper bounds of the sync time histogram's buckets.
pub const SYNC_BOUNDS: [Duration; 12] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
];
