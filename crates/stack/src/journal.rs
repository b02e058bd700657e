//! Where the fate of a session's operations is written: behind every permit stands this journal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use parking_lot::Mutex;
use verbatim_core::event::{Aborted, Chunk, Completed, Requested, SessionClosed};
use verbatim_core::{
    BoxFuture, ChunkStream, CloseReason, Journal, Operation, Outcome, Permit, RecordMode, Refusal, SessionId,
};
use verbatim_ledger::{Ledger, LedgerError, SessionLog};

use crate::counters::Counters;
use crate::gate::Withholding;

/// One session's way into the ledger.
///
/// Its lock is held across an append, so that nothing is appended after the close, and no operation is left open by it.
pub(crate) struct SessionJournal {
    log: SessionLog,
    ledger: Ledger,
    record: RecordMode,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Entry and sequence of the operations without an outcome, in order of arrival; outcomes mostly come in that order.
    open: VecDeque<(u64, u64)>,
}

impl State {
    /// Takes an operation off; false if it is not open (any more).
    fn take(&mut self, entry: u64) -> bool {
        let place = self.open.iter().position(|&(open, _)| open == entry);
        place.and_then(|place| self.open.remove(place)).is_some()
    }
}

/// The refusal that a failed append amounts to.
pub(crate) fn not_recorded(error: &LedgerError) -> Refusal {
    Refusal::NotRecorded { reason: error.to_string() }
}

impl SessionJournal {
    pub(crate) fn new(
        log: SessionLog,
        ledger: Ledger,
        record: RecordMode,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        Arc::new(Self { log, ledger, record, counters, state: Mutex::default() })
    }

    pub(crate) fn id(&self) -> SessionId {
        self.log.id()
    }

    /// Writes that an operation was permitted.
    pub(crate) fn permit(
        self: &Arc<Self>,
        operation: &Operation,
        requested: Instant,
        withholding: &Withholding,
    ) -> Result<Permit, Refusal> {
        let event = Requested { operation, refusal: None, withheld: withholding.of(operation, self.record) };
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refusal::NotRecorded { reason: "the session is closed".to_owned() });
        }
        let entry = self.log.append(&event).map_err(|error| not_recorded(&error))?;
        state.open.push_back((entry, operation.sequence));
        Ok(Permit::new(Arc::clone(self) as Arc<dyn Journal>, entry, operation.sequence, requested))
    }

    /// Writes that an operation was refused.
    pub(crate) fn deny(
        &self,
        operation: &Operation,
        refusal: &Refusal,
        withholding: &Withholding,
    ) -> Result<u64, Refusal> {
        self.counters.operations.refused.fetch_add(1, Relaxed);
        let event =
            Requested { operation, refusal: Some(refusal), withheld: withholding.of(operation, self.record) };
        self.append(&event)
    }

    /// Writes what concerns the session as a whole, while it is open.
    pub(crate) fn append(&self, event: &dyn verbatim_core::AuditEvent) -> Result<u64, Refusal> {
        let state = self.state.lock();
        if state.closed {
            return Err(Refusal::NotRecorded { reason: "the session is closed".to_owned() });
        }
        self.log.append(event).map_err(|error| not_recorded(&error))
    }

    /// Writes the close, after the aborts of what is still open; only the first call counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        for (entry, sequence) in std::mem::take(&mut state.open) {
            self.counters.operations.aborted.fetch_add(1, Relaxed);
            self.write(&Aborted { entry, sequence });
        }
        self.write(&SessionClosed { reason });
    }

    /// Appends what nobody waits for. When that fails the ledger is dead, the process about to end, and the next start
    /// writes aborts and closes for what is open.
    fn write(&self, event: &dyn verbatim_core::AuditEvent) {
        if let Err(error) = self.log.append(event) {
            tracing::error!(session.id = %self.id(), kind = event.kind(), %error, "not recorded");
        }
    }
}

impl Journal for SessionJournal {
    fn is_durable(&self, entry: u64) -> Option<Result<(), Refusal>> {
        self.ledger.is_durable(entry).map(|known| known.map_err(|error| not_recorded(&error)))
    }

    fn durable(&self, entry: u64) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move { self.ledger.durable(entry).await.map_err(|error| not_recorded(&error)) })
    }

    fn chunk(
        &self,
        entry: u64,
        sequence: u64,
        stream: ChunkStream,
        bytes: &[u8],
    ) -> Result<Option<u64>, Refusal> {
        let kept = match stream {
            ChunkStream::Content => self.record != RecordMode::Commands,
            ChunkStream::Result => self.record == RecordMode::Results,
        };
        if !kept {
            return Ok(None);
        }
        let state = self.state.lock();
        if state.closed {
            return Err(Refusal::NotRecorded { reason: "the session is closed".to_owned() });
        }
        let appended = self.log.append(&Chunk { entry, sequence, stream, bytes });
        appended.map(Some).map_err(|error| not_recorded(&error))
    }

    fn complete(&self, entry: u64, sequence: u64, requested: Instant, outcome: &Outcome) {
        let mut state = self.state.lock();
        if !state.take(entry) {
            return;
        }
        self.counters.operations.count(outcome.status);
        let duration_us = u64::try_from(requested.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.write(&Completed { entry, sequence, record: self.record, duration_us, outcome });
    }

    fn abort(&self, entry: u64, sequence: u64) {
        let mut state = self.state.lock();
        if state.take(entry) {
            self.counters.operations.aborted.fetch_add(1, Relaxed);
            self.write(&Aborted { entry, sequence });
        }
    }
}
