//! Entries of the ledger, put into the index batch by batch.
//!
//! Most operations end in the batch that they begin in, so a batch's operations are gathered and put in once, with their
//! ends, in the order of the table's key.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use verbatim_core::event::{AuditEvent as _, kind, part};
use verbatim_core::{SessionId, Timestamp};
use verbatim_ledger::Entry;

use crate::index::StoreError;
use crate::view::SessionView;
use crate::{fold, search};

/// What the index wants of an operation's entry, borrowed from its envelope: for entries that come by the thousand, a
/// parsed tree of all fields would cost more than everything else that is done with them.
#[derive(Deserialize)]
struct Facts<'e> {
    seq: Option<u64>,
    #[serde(borrow, default)]
    trace: Option<Cow<'e, str>>,
    #[serde(borrow, default)]
    approval: Option<&'e RawValue>,
    #[serde(borrow, default)]
    masked: Option<&'e RawValue>,
}

impl<'e> Facts<'e> {
    /// None where the entry is no operation's.
    fn of(entry: &'e Entry) -> Option<(u64, Self)> {
        let facts: Self = serde_json::from_str(entry.envelope()).ok()?;
        Some((facts.seq?, facts))
    }
}

/// A moment as the index stores it: nanoseconds since 1970.
pub(crate) fn stored(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// Puts `entries` in. An entry of no session leaves no trace in the index.
pub(crate) fn apply(change: &Transaction<'_>, entries: &[Entry]) -> Result<(), StoreError> {
    let mut batch =
        Batch { change, sessions: HashMap::new(), texts: HashMap::new(), operations: BTreeMap::new() };
    for entry in entries {
        batch.apply(entry)?;
    }
    batch.put_operations()
}

/// What is known of the rows that one batch is about.
struct Batch<'c, 'e> {
    change: &'c Transaction<'c>,
    sessions: HashMap<SessionId, i64>,
    /// By their hash.
    texts: HashMap<[u8; 32], i64>,
    /// By session and sequence: not in the table yet.
    operations: BTreeMap<(i64, u64), Pending<'e>>,
}

/// An operation that is not in the table yet.
struct Pending<'e> {
    request: &'e Entry,
    text: Option<i64>,
    trace: Option<Cow<'e, str>>,
    approved: bool,
    end: Option<&'e Entry>,
    masked: bool,
}

impl<'e> Batch<'_, 'e> {
    fn apply(&mut self, entry: &'e Entry) -> Result<(), StoreError> {
        let Some(sid) = entry.session() else { return Ok(()) };
        if let Some(view) = fold::open(entry) {
            return open_session(self.change, entry, &view);
        }
        let Some(session) = self.session_row(sid)? else { return Ok(()) };
        match entry.kind() {
            kind::INTENT => self.request(session, entry),
            kind::DENIED if !fold::is_login(entry) => {
                mark(self.change, session, "UPDATE sessions SET refused = 1 WHERE id = ?1")?;
                self.request(session, entry)
            }
            kind::CHUNK => {
                // It looks for its operation in the table.
                self.put_operations()?;
                chunk(self.change, session, entry)
            }
            kind::OUTCOME | kind::ABORT => self.end(session, entry),
            kind::AUTHZ | kind::DENIED | kind::SESSION_CLOSE => advance_session(self.change, session, entry),
            _ => Ok(()),
        }
    }

    fn session_row(&mut self, sid: SessionId) -> Result<Option<i64>, StoreError> {
        if let Some(known) = self.sessions.get(&sid) {
            return Ok(Some(*known));
        }
        let mut find = self.change.prepare_cached("SELECT id FROM sessions WHERE sid = ?1")?;
        let found: Option<i64> = find.query_row([sid.to_string()], |row| row.get(0)).optional()?;
        if let Some(row) = found {
            self.sessions.insert(sid, row);
        }
        Ok(found)
    }

    fn request(&mut self, session: i64, entry: &'e Entry) -> Result<(), StoreError> {
        let Some((sequence, facts)) = Facts::of(entry) else { return Ok(()) };
        let text = fold::bytes(entry, part::TEXT).map(|bytes| self.text_row(bytes)).transpose()?;
        let approved = facts.approval.is_some_and(|approval| approval.get().starts_with('{'));
        if approved {
            mark(self.change, session, "UPDATE sessions SET approved = 1 WHERE id = ?1")?;
        }
        let pending =
            Pending { request: entry, text, trace: facts.trace, approved, end: None, masked: false };
        // The first one counts, as in the table.
        self.operations.entry((session, sequence)).or_insert(pending);
        Ok(())
    }

    fn text_row(&mut self, bytes: &[u8]) -> Result<i64, StoreError> {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(known) = self.texts.get(&hash) {
            return Ok(*known);
        }
        let row = text_row(self.change, bytes, hash)?;
        self.texts.insert(hash, row);
        Ok(row)
    }

    fn end(&mut self, session: i64, entry: &'e Entry) -> Result<(), StoreError> {
        let Some((sequence, facts)) = Facts::of(entry) else { return Ok(()) };
        let masked = facts.masked.is_some() && fold::masked(entry.fields()).iter().any(|mask| mask.cells > 0);
        match self.operations.get_mut(&(session, sequence)) {
            Some(pending) => {
                pending.end = Some(entry);
                pending.masked = masked;
            }
            None => end_in_table(self.change, session, sequence, entry, masked)?,
        }
        if masked {
            mark(self.change, session, "UPDATE sessions SET masked = 1 WHERE id = ?1")?;
        }
        if entry.kind() == kind::ABORT {
            mark(self.change, session, "UPDATE sessions SET aborted = aborted + 1 WHERE id = ?1")?;
        }
        Ok(())
    }

    fn put_operations(&mut self) -> Result<(), StoreError> {
        if self.operations.is_empty() {
            return Ok(());
        }
        let mut put = self.change.prepare_cached(
            "INSERT OR IGNORE INTO operations
               (session, sequence, requested, text, trace, entry, segment, offset, refused, approved,
                end_segment, end_offset, masked)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?;
        for ((session, sequence), pending) in std::mem::take(&mut self.operations) {
            let request = pending.request;
            put.execute(params![
                session,
                sequence.cast_signed(),
                stored(request.time()),
                pending.text,
                pending.trace,
                request.index.cast_signed(),
                request.location.segment.cast_signed(),
                request.location.offset.cast_signed(),
                request.kind() == kind::DENIED,
                pending.approved,
                pending.end.map(|end| end.location.segment.cast_signed()),
                pending.end.map(|end| end.location.offset.cast_signed()),
                pending.masked,
            ])?;
        }
        Ok(())
    }
}

fn mark(change: &Transaction<'_>, session: i64, sql: &str) -> Result<(), StoreError> {
    change.prepare_cached(sql)?.execute([session])?;
    Ok(())
}

fn open_session(change: &Transaction<'_>, entry: &Entry, view: &SessionView) -> Result<(), StoreError> {
    let identity = view.identity.as_ref();
    let person = identity.and_then(|identity| identity.on_behalf_of.as_ref());
    change
        .prepare_cached(
            "INSERT OR IGNORE INTO sessions
               (sid, opened, object_id, name, person_id, person_name, trace, document)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            view.id,
            stored(entry.time()),
            identity.map(|identity| &identity.object_id),
            identity.and_then(|identity| identity.name.as_ref()),
            person.map(|person| &person.object_id),
            person.and_then(|person| person.name.as_ref()),
            view.trace_id,
            serde_json::to_string(view)?,
        ])?;
    Ok(())
}

fn advance_session(change: &Transaction<'_>, session: i64, entry: &Entry) -> Result<(), StoreError> {
    let (document, aborted): (String, i64) = change
        .prepare_cached("SELECT document, aborted FROM sessions WHERE id = ?1")?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut view: SessionView = serde_json::from_str(&document)?;
    if !fold::advance(&mut view, entry, aborted.cast_unsigned()) {
        return Ok(());
    }
    let closes = entry.kind() == kind::SESSION_CLOSE;
    let group = view.authorized_by.as_ref().filter(|by| by.kind == "group");
    change
        .prepare_cached(
            "UPDATE sessions SET connection = ?2, group_id = ?3, group_name = ?4, refused = max(refused, ?5),
               closed = ?6, closed_entry = ?7, document = ?8
             WHERE id = ?1",
        )?
        .execute(params![
            session,
            view.connection,
            group.and_then(|group| group.id.as_ref()),
            group.and_then(|group| group.name.as_ref()),
            view.refusal.is_some(),
            closes.then(|| stored(entry.time())),
            closes.then(|| entry.index.cast_signed()),
            serde_json::to_string(&view)?,
        ])?;
    Ok(())
}

/// The row of a text: a new one the first time that this text comes, the same one from then on.
fn text_row(change: &Transaction<'_>, bytes: &[u8], hash: [u8; 32]) -> Result<i64, StoreError> {
    let mut find = change.prepare_cached("SELECT id FROM texts WHERE hash = ?1")?;
    if let Some(row) = find.query_row([hash], |row| row.get(0)).optional()? {
        return Ok(row);
    }
    change.prepare_cached("INSERT INTO texts (hash) VALUES (?1)")?.execute([hash])?;
    let row = change.last_insert_rowid();
    add_pieces(change, row, &search::searchable(bytes))?;
    Ok(row)
}

fn add_pieces(change: &Transaction<'_>, text: i64, content: &str) -> Result<(), StoreError> {
    let mut store = change.prepare_cached("INSERT INTO pieces (text, content) VALUES (?1, ?2)")?;
    let mut index = change.prepare_cached("INSERT INTO words (rowid, content) VALUES (?1, ?2)")?;
    for piece in search::pieces(content) {
        store.execute(params![text, piece])?;
        index.execute(params![change.last_insert_rowid(), piece])?;
    }
    Ok(())
}

fn chunk(change: &Transaction<'_>, session: i64, entry: &Entry) -> Result<(), StoreError> {
    // What the client received is kept for whoever asks the ledger for it; it is in no document.
    if fold::bytes(entry, part::RESULT).is_some() {
        return Ok(());
    }
    let Some(sequence) = chunk_sequence(change, session, entry)? else { return Ok(()) };
    change.prepare_cached("INSERT OR IGNORE INTO chunks VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(
        params![
            session,
            sequence,
            entry.index.cast_signed(),
            fold::bytes(entry, part::CONTENT).map_or(0, <[u8]>::len).cast_signed(),
            entry.location.segment.cast_signed(),
            entry.location.offset.cast_signed(),
        ],
    )?;
    match fold::bytes(entry, part::TEXT) {
        None => Ok(()),
        Some(more) => continue_text(change, session, sequence, more),
    }
}

/// A chunk's operation: it says so itself, or by the entry that it continues.
fn chunk_sequence(change: &Transaction<'_>, session: i64, entry: &Entry) -> Result<Option<i64>, StoreError> {
    if let Some(sequence) = fold::sequence(entry) {
        return Ok(Some(sequence.cast_signed()));
    }
    let Some(answers) = entry.answers() else { return Ok(None) };
    let mut find = change.prepare_cached(
        "SELECT sequence FROM operations WHERE session = ?1 AND entry = ?2 ORDER BY sequence DESC LIMIT 1",
    )?;
    Ok(find.query_row(params![session, answers.cast_signed()], |row| row.get(0)).optional()?)
}

/// A text that goes on in a chunk gets a row of its own, since what it begins with may be another command's whole text.
fn continue_text(
    change: &Transaction<'_>,
    session: i64,
    sequence: i64,
    more: &[u8],
) -> Result<(), StoreError> {
    let (text, shared): (i64, bool) = change
        .prepare_cached(
            "SELECT o.text, t.hash IS NOT NULL FROM operations o JOIN texts t ON t.id = o.text
             WHERE o.session = ?1 AND o.sequence = ?2",
        )?
        .query_row(params![session, sequence], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let own = if shared { own_copy(change, session, sequence, text)? } else { text };
    let last: String = change
        .prepare_cached("SELECT content FROM pieces WHERE text = ?1 ORDER BY id DESC LIMIT 1")?
        .query_row([own], |row| row.get(0))?;
    add_pieces(change, own, &format!("{}{}", search::overlap(&last), search::searchable(more)))
}

fn own_copy(change: &Transaction<'_>, session: i64, sequence: i64, text: i64) -> Result<i64, StoreError> {
    change.execute("INSERT INTO texts (hash) VALUES (NULL)", [])?;
    let own = change.last_insert_rowid();
    let copied: Vec<String> = change
        .prepare("SELECT content FROM pieces WHERE text = ?1 ORDER BY id")?
        .query_map([text], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for piece in copied {
        add_pieces(change, own, &piece)?;
    }
    change.execute(
        "UPDATE operations SET text = ?3 WHERE session = ?1 AND sequence = ?2",
        params![session, sequence, own],
    )?;
    Ok(own)
}

/// The end of an operation that an earlier batch put in.
fn end_in_table(
    change: &Transaction<'_>,
    session: i64,
    sequence: u64,
    entry: &Entry,
    masked: bool,
) -> Result<(), StoreError> {
    change
        .prepare_cached(
            "UPDATE operations SET end_segment = ?3, end_offset = ?4, masked = ?5
             WHERE session = ?1 AND sequence = ?2",
        )?
        .execute(params![
            session,
            sequence.cast_signed(),
            entry.location.segment.cast_signed(),
            entry.location.offset.cast_signed(),
            masked,
        ])?;
    Ok(())
}
