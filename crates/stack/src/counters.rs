//! What the stack counts, for `/metrics`. Counters only grow; labels come from closed sets.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use verbatim_core::Status;

/// Counts since the gateway's start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions that were let in.
    pub sessions_opened: AtomicU64,
    /// Logins that were refused, recorded or counted.
    pub logins_refused: AtomicU64,
    /// Refused logins that became part of a `flood` entry instead of entries of their own.
    pub logins_flooded: AtomicU64,
    /// Operations by outcome.
    pub operations: ByOutcome,
}

/// Operations by what came of them.
#[derive(Debug, Default)]
pub struct ByOutcome {
    /// Done by the target.
    pub ok: AtomicU64,
    /// Failed at the target.
    pub error: AtomicU64,
    /// Never forwarded.
    pub refused: AtomicU64,
    /// Discarded by the target, unrun.
    pub skipped: AtomicU64,
    /// Forwarded, and no answer came.
    pub aborted: AtomicU64,
}

impl ByOutcome {
    pub(crate) fn count(&self, status: Status) {
        let counter = match status {
            Status::Ok => &self.ok,
            Status::Error => &self.error,
            Status::Skipped => &self.skipped,
        };
        counter.fetch_add(1, Relaxed);
    }
}
