//! What puts entries into the index: from the ledger's files, in batches, each in one transaction with its cursor.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use verbatim_ledger::{Entry, Item, ReadError, Reader};

use crate::index::StoreError;
use crate::ingest;
use crate::schema::{self, State};

/// How many entries go in with one transaction at most.
const BATCH_ENTRIES: usize = 8192;

/// After how many bytes of envelopes and payloads a transaction ends.
const BATCH_BYTES: usize = 8 << 20;

/// What puts entries in: one connection, one place in the ledger.
pub(crate) struct Writer {
    pub(crate) db: Connection,
    pub(crate) reader: Reader,
    /// The entry that the reader gives next, where that is known.
    pub(crate) next: Option<u64>,
}

/// How far a step came.
pub(crate) struct Moved {
    pub(crate) cursor: u64,
    /// Whether there may be more.
    pub(crate) more: bool,
}

impl Writer {
    /// Puts in one batch: entries that are below `limit`, or, without one, that a checkpoint in the files covers.
    pub(crate) fn step(&mut self, limit: Option<u64>) -> Result<Moved, StoreError> {
        let state = schema::state(&self.db)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        if self.next != Some(state.cursor) {
            self.reader.seek(state.cursor)?;
        }
        // Whatever fails from here on, the next step begins where the index says.
        self.next = None;
        let batch = self.gather(limit)?;
        let Some(last) = batch.last() else { return Ok(Moved { cursor: state.cursor, more: false }) };
        let cursor = last.index.saturating_add(1);
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if schema::state(&change)?.as_ref() != Some(&state) {
            // Another process was quicker, or made the index anew: look again.
            return Ok(Moved { cursor: state.cursor, more: true });
        }
        ingest::apply(&change, &batch)?;
        schema::set_cursor(&change, cursor, last.leaf)?;
        change.commit()?;
        let full = batch.len() >= BATCH_ENTRIES || limit.is_none_or(|limit| cursor < limit);
        self.next = limit.is_some().then_some(cursor);
        Ok(Moved { cursor, more: full })
    }

    fn gather(&mut self, limit: Option<u64>) -> Result<Vec<Entry>, StoreError> {
        let mut batch: Vec<Entry> = Vec::new();
        let mut covered = 0;
        let mut bytes = 0;
        loop {
            let item = match self.reader.next(limit.unwrap_or(u64::MAX)) {
                Err(ReadError::Damaged { file, offset, message }) if limit.is_none() => {
                    if !is_blank(&file, offset)? {
                        tracing::warn!(file = %file.display(), offset, message, "the record ends here: verify says more");
                    }
                    break;
                }
                other => other?,
            };
            match item {
                None => break,
                Some(Item::Entry(entry)) => {
                    bytes += entry.envelope().len();
                    bytes += entry.parts().iter().map(|part| part.bytes.len()).sum::<usize>();
                    batch.push(entry);
                    if limit.is_some() {
                        covered = batch.len();
                    }
                }
                Some(Item::Checkpoint(checkpoint)) if limit.is_none() => {
                    covered = batch.partition_point(|entry| entry.index < checkpoint.size);
                }
                Some(Item::Checkpoint(_)) => {}
            }
            if covered == batch.len() && (batch.len() >= BATCH_ENTRIES || bytes >= BATCH_BYTES) {
                break;
            }
        }
        batch.truncate(covered);
        Ok(batch)
    }
}

/// Whether a segment has nothing at `offset`: it is zero-filled ahead of what is written. A ledger without a running
/// gateway has no other end.
fn is_blank(file: &Path, offset: u64) -> io::Result<bool> {
    let mut beginning = [0; 8];
    let read = File::open(file)?.read_at(&mut beginning, offset)?;
    Ok(beginning.iter().take(read).all(|byte| *byte == 0))
}

/// An index is stale where the ledger doesn't have the entry that it ends with: a restored snapshot, another file.
pub(crate) fn make_anew_if_stale(db: &mut Connection, reader: &mut Reader) -> Result<(), StoreError> {
    let state = schema::state(db)?;
    if state.as_ref().is_some_and(|state| agrees(state, reader)) {
        return Ok(());
    }
    tracing::info!("the session index does not fit the ledger: it is made anew");
    let origin = reader.origin().to_owned();
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::make_anew(&change, &origin)?;
    change.commit()?;
    Ok(())
}

fn agrees(state: &State, reader: &mut Reader) -> bool {
    let Some(last) = state.cursor.checked_sub(1) else { return state.leaf.is_none() };
    if reader.seek(last).is_err() {
        return false;
    }
    loop {
        match reader.next(state.cursor) {
            Ok(Some(Item::Checkpoint(_))) => {}
            Ok(Some(Item::Entry(entry))) => return entry.index == last && Some(entry.leaf) == state.leaf,
            Ok(None) | Err(_) => return false,
        }
    }
}
