//! The record, live: a line when a session opens, when an operation has its outcome, when a session closes.

use std::collections::VecDeque;
use std::sync::Arc;

use verbatim_core::event::{AuditEvent as _, kind};
use verbatim_ledger::{Entry, Item, Reader};

use crate::index::{Found, Index, StoreError};
use crate::view::TailLine;
use crate::{Filters, fold};

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At what is committed from now on.
    Now,
    /// At this entry of the ledger.
    Entry(u64),
}

/// How many entries are read ahead at most.
const AHEAD: usize = 256;

/// Follows the ledger line by line. It blocks only for reading files: whoever owns it waits for the ledger's `committed`
/// to change (or, without a running ledger, a while) and asks again.
pub struct Tail {
    index: Arc<Index>,
    filters: Filters,
    reader: Reader,
    /// Used beside `reader`, whose place must stay.
    lookup: Reader,
    /// The entry to go on at.
    next: u64,
    /// Whether `reader` stands behind the last of `ready`.
    placed: bool,
    ready: VecDeque<Entry>,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Tail {
    /// A tail of what passes `filters` (its times and `limit` are not looked at).
    ///
    /// # Errors
    /// The ledger cannot be read, or SQLite fails.
    pub fn new(index: Arc<Index>, start: Start, filters: Filters) -> Result<Self, StoreError> {
        let reader = Reader::open(index.ledger_dir())?;
        let lookup = Reader::open(index.ledger_dir())?;
        let next = match start {
            Start::Now => index.catch_up()?,
            Start::Entry(entry) => entry,
        };
        Ok(Self { index, filters, reader, lookup, next, placed: false, ready: VecDeque::new() })
    }

    /// The next line; none where there is nothing more yet.
    ///
    /// # Errors
    /// The ledger cannot be read, or SQLite fails. Asked again, it goes on at the entry that failed.
    #[expect(clippy::should_implement_trait, reason = "none is not the end")]
    pub fn next(&mut self) -> Result<Option<TailLine>, StoreError> {
        loop {
            if self.ready.is_empty() {
                self.read_ahead()?;
            }
            let Some(entry) = self.ready.front().cloned() else { return Ok(None) };
            let line = self.line(&entry)?;
            self.ready.pop_front();
            self.next = entry.index.saturating_add(1);
            if line.is_some() {
                return Ok(line);
            }
        }
    }

    fn read_ahead(&mut self) -> Result<(), StoreError> {
        // The index is at least this far, so whatever is below can be looked up.
        let indexed = self.index.catch_up()?;
        let limit = self.index.committed().map_or(indexed, |committed| committed.min(indexed));
        if self.next >= limit {
            return Ok(());
        }
        if !std::mem::replace(&mut self.placed, false) {
            self.reader.seek(self.next)?;
        }
        while self.ready.len() < AHEAD
            && let Some(item) = self.reader.next(limit)?
        {
            if let Item::Entry(entry) = item {
                self.ready.push_back(entry);
            }
        }
        self.placed = true;
        Ok(())
    }

    fn line(&mut self, entry: &Entry) -> Result<Option<TailLine>, StoreError> {
        let Some(sid) = entry.session() else { return Ok(None) };
        let sequence = match entry.kind() {
            kind::AUTHZ | kind::SESSION_CLOSE => None,
            kind::OUTCOME | kind::ABORT => fold::sequence(entry),
            kind::DENIED if !fold::is_login(entry) => fold::sequence(entry),
            _ => return Ok(None),
        };
        let found = self.index.one(&sid.to_string(), sequence, &mut self.lookup)?;
        let Some(Found { mut session, closed, operation }) = found else { return Ok(None) };
        if closed != Some(entry.index) {
            session.closed_at = None;
            session.close_reason = None;
            session.complete = false;
        }
        let line = TailLine { session, operation };
        Ok(self.filters.pass(&line).then_some(line))
    }
}
