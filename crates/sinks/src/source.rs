//! What of the ledger goes to one sink: entries from a place on, filtered, encoded, in batches.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use verbatim_core::event::{AuditEvent as _, kind};
use verbatim_core::{SessionId, Timestamp};
use verbatim_ledger::{Entry, Item, ReadError, Reader};

use crate::cursor::Cursor;
use crate::event::{Event, Payload};
use crate::native::{self, hexadecimal};

/// After how many entries that were passed over a batch ends, so that the cursor moves past them.
const PASSED_MAX: usize = 20_000;

/// Which entries a sink gets. Checkpoints pass always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Entries of these connections, and those that belong to none; without it, of all.
    pub connections: Option<BTreeSet<String>>,
    /// Entries of these kinds; without it, of all.
    pub kinds: Option<BTreeSet<String>>,
}

/// What is known of a session whose connection decides.
enum Known {
    /// It opened; the entry waits until the session's next one says for which connection.
    Opening(Box<Entry>),
    /// Whether its entries pass.
    Settled {
        /// The entry that opened it.
        first: u64,
        passes: bool,
    },
}

/// Reads one sink's events. It blocks.
pub(crate) struct Source {
    reader: Reader,
    filter: Filter,
    payload: Payload,
    cursor: Cursor,
    sessions: BTreeMap<SessionId, Known>,
    last: Option<Timestamp>,
}

/// What one reading gave.
pub(crate) struct Filled {
    pub(crate) events: Vec<Event>,
    /// The cursor once these are delivered.
    pub(crate) cursor: Cursor,
}

impl Filled {
    /// Whether there is anything behind `cursor`: entries, passed over or not, or a checkpoint.
    pub(crate) fn moved(&self, cursor: &Cursor) -> bool {
        (self.cursor.next, self.cursor.checkpoint) != (cursor.next, cursor.checkpoint)
    }
}

impl Source {
    /// Opens the ledger at `cursor`; at its beginning where the cursor is another ledger's, or of a state that this one
    /// never had.
    pub(crate) fn open(
        ledger_dir: &Path,
        cursor: Cursor,
        filter: Filter,
        payload: Payload,
    ) -> Result<Self, ReadError> {
        let mut reader = Reader::open(ledger_dir)?;
        let cursor = if fits(&cursor, &mut reader)? {
            cursor
        } else {
            tracing::warn!(next = cursor.next, "the cursor does not fit the ledger: delivery begins anew");
            Cursor::default()
        };
        let cursor = Cursor { origin: reader.origin().to_owned(), ..cursor };
        let mut source = Self { reader, filter, payload, cursor, sessions: BTreeMap::new(), last: None };
        source.learn_sessions()?;
        Ok(source)
    }

    /// Where it is.
    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Walks from the oldest session that was open to the cursor, and learns which connection each has.
    fn learn_sessions(&mut self) -> Result<(), ReadError> {
        let next = self.cursor.next;
        if self.filter.connections.is_some() && self.cursor.sessions_from < next {
            self.reader.seek(self.cursor.sessions_from)?;
            while let Some(item) = self.reader.next(next)? {
                if let Item::Entry(entry) = item {
                    self.admit(entry);
                }
            }
        }
        self.reader.seek(next)
    }

    /// Reads events of entries below `limit`, up to `events_max` and about `bytes_max` of them; one event may be longer.
    pub(crate) fn fill(
        &mut self,
        limit: u64,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Filled, ReadError> {
        let mut events: Vec<Event> = Vec::new();
        let mut bytes = 0;
        let mut passed = 0;
        while events.len() < events_max && bytes < bytes_max && passed < PASSED_MAX {
            let entry = match self.reader.next(limit)? {
                None => break,
                Some(Item::Checkpoint(checkpoint)) => {
                    // Behind where it was sought there may be one that was delivered before.
                    if checkpoint.size > self.cursor.checkpoint {
                        self.cursor.checkpoint = checkpoint.size;
                        let event = native::checkpoint(&checkpoint, self.last.unwrap_or_else(Timestamp::now));
                        bytes += event.json.len();
                        events.push(event);
                    }
                    continue;
                }
                Some(Item::Entry(entry)) => entry,
            };
            passed += 1;
            self.last = Some(entry.time());
            self.cursor.next = entry.index.saturating_add(1);
            self.cursor.leaf = Some(hexadecimal(&entry.leaf));
            for admitted in self.admit(entry) {
                let event = native::entry(&admitted, self.payload);
                bytes += event.json.len();
                events.push(event);
            }
        }
        let open = self.sessions.values().map(|known| match known {
            Known::Opening(entry) => entry.index,
            Known::Settled { first, .. } => *first,
        });
        self.cursor.sessions_from = open.min().unwrap_or(self.cursor.next);
        Ok(Filled { events, cursor: self.cursor.clone() })
    }

    /// The entries that pass now that `entry` came: none, itself, or the opening that waited for it and itself.
    fn admit(&mut self, entry: Entry) -> Vec<Entry> {
        let candidates = match (&self.filter.connections, entry.session()) {
            (Some(connections), Some(session)) => {
                of_connections(&mut self.sessions, connections, session, entry)
            }
            _ => vec![entry],
        };
        let kinds = self.filter.kinds.as_ref();
        candidates
            .into_iter()
            .filter(|entry| kinds.is_none_or(|kinds| kinds.contains(entry.kind())))
            .collect()
    }
}

fn of_connections(
    sessions: &mut BTreeMap<SessionId, Known>,
    connections: &BTreeSet<String>,
    session: SessionId,
    entry: Entry,
) -> Vec<Entry> {
    if entry.kind() == kind::SESSION_OPEN {
        sessions.insert(session, Known::Opening(Box::new(entry)));
        return Vec::new();
    }
    let closes = entry.kind() == kind::SESSION_CLOSE;
    // A session whose opening was never seen cannot be; its entries are withheld rather than shown to the wrong sink.
    let (opening, first, passes) = match sessions.remove(&session) {
        None => return Vec::new(),
        Some(Known::Settled { first, passes }) => (None, first, passes),
        Some(Known::Opening(opening)) => {
            // `authz` and a login's `denied` name the connection. Neither came: it died before, and has none.
            let connection = entry.fields().get("conn").and_then(serde_json::Value::as_str);
            let passes = connection.is_none_or(|connection| connections.contains(connection));
            let first = opening.index;
            (Some(*opening), first, passes)
        }
    };
    if !closes {
        sessions.insert(session, Known::Settled { first, passes });
    }
    if passes { opening.into_iter().chain([entry]).collect() } else { Vec::new() }
}

/// Whether the ledger has what the cursor says was delivered last.
fn fits(cursor: &Cursor, reader: &mut Reader) -> Result<bool, ReadError> {
    if cursor.origin.is_empty() {
        return Ok(cursor.leaf.is_none());
    }
    if cursor.origin != reader.origin() {
        return Ok(false);
    }
    let (Some(leaf), Some(last)) = (&cursor.leaf, cursor.next.checked_sub(1)) else { return Ok(true) };
    match reader.seek(last) {
        Err(ReadError::NoSuchEntry(_)) => return Ok(false),
        sought => sought?,
    }
    loop {
        match reader.next(cursor.next)? {
            Some(Item::Checkpoint(_)) => {}
            Some(Item::Entry(entry)) => return Ok(entry.index == last && hexadecimal(&entry.leaf) == *leaf),
            None => return Ok(false),
        }
    }
}

/// The first entry that was appended at `time` or later, among the first `size`; `size` where there is none. A clock
/// that was set back makes it an earlier one or a later one: replaying is for people, order never rests on a clock. It
/// blocks.
///
/// # Errors
/// The ledger cannot be read.
pub fn entry_at(ledger_dir: &Path, time: Timestamp, size: u64) -> Result<u64, ReadError> {
    let mut reader = Reader::open(ledger_dir)?;
    let (mut low, mut high) = (0, size);
    while low < high {
        let middle = low + (high - low) / 2;
        reader.seek(middle)?;
        let found = loop {
            match reader.next(size)? {
                Some(Item::Checkpoint(_)) => {}
                Some(Item::Entry(entry)) => break entry.time(),
                None => return Ok(size),
            }
        };
        if found < time {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
