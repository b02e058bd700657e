//! The SQLite file: its tables, and when it is made anew.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params,
};

use crate::index::StoreError;

/// Raised whenever the tables below or what is put into them changes: an index of another version is rebuilt.
const VERSION: i64 = 1;

/// How long a statement waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

/// How many pages of 4 KiB the write-ahead log gathers before they are copied into the file: 32 MiB.
const LOG_PAGES: i64 = 8192;
/// How many statements are kept prepared: more than there are here.
const STATEMENTS: usize = 64;
/// How much of the file is kept in memory, at most.
const CACHE_KIB: i64 = 16 << 10;

/// One row of `state` says up to where the ledger is in. `texts` has a row for each distinct command, `pieces` its
/// searchable form in bounded pieces, `words` the trigrams over them: a trigram index finds any substring of three
/// characters and more, so that `customer_id`, a literal or an e-mail address inside a command is found without
/// guessing how a tokenizer for prose would have cut it.
const TABLES: &str = "
CREATE TABLE state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  origin TEXT NOT NULL,
  cursor INTEGER NOT NULL,
  leaf BLOB
);
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY,
  sid TEXT NOT NULL UNIQUE,
  opened INTEGER NOT NULL,
  closed INTEGER,
  closed_entry INTEGER,
  connection TEXT,
  object_id TEXT,
  name TEXT,
  person_id TEXT,
  person_name TEXT,
  group_id TEXT,
  group_name TEXT,
  trace TEXT,
  refused INTEGER NOT NULL DEFAULT 0,
  masked INTEGER NOT NULL DEFAULT 0,
  approved INTEGER NOT NULL DEFAULT 0,
  aborted INTEGER NOT NULL DEFAULT 0,
  document TEXT NOT NULL
);
CREATE INDEX sessions_by_opening ON sessions (opened, id);
CREATE INDEX sessions_that_are_open ON sessions (id) WHERE closed IS NULL;
CREATE TABLE operations (
  session INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  requested INTEGER NOT NULL,
  text INTEGER,
  trace TEXT,
  entry INTEGER NOT NULL,
  segment INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  end_segment INTEGER,
  end_offset INTEGER,
  refused INTEGER NOT NULL,
  masked INTEGER NOT NULL DEFAULT 0,
  approved INTEGER NOT NULL,
  PRIMARY KEY (session, sequence)
) WITHOUT ROWID;
CREATE INDEX operations_by_text ON operations (text) WHERE text IS NOT NULL;
CREATE INDEX operations_by_trace ON operations (trace) WHERE trace IS NOT NULL;
CREATE TABLE chunks (
  session INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  entry INTEGER NOT NULL,
  content_bytes INTEGER NOT NULL,
  segment INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  PRIMARY KEY (session, sequence, entry)
) WITHOUT ROWID;
CREATE TABLE texts (id INTEGER PRIMARY KEY, hash BLOB UNIQUE);
CREATE TABLE pieces (id INTEGER PRIMARY KEY, text INTEGER NOT NULL, content TEXT NOT NULL);
CREATE INDEX pieces_by_text ON pieces (text);
CREATE VIRTUAL TABLE words USING fts5 (content, content = 'pieces', content_rowid = 'id', tokenize = 'trigram');
";

/// Up to where the ledger is in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// The ledger's origin.
    pub(crate) origin: String,
    /// How many entries are in.
    pub(crate) cursor: u64,
    /// The leaf of the last of them.
    pub(crate) leaf: Option<[u8; 32]>,
}

/// Opens the index for writing, and makes its tables where they are missing or of another version. A file that is no
/// database is replaced.
pub(crate) fn open(path: &Path, origin: &str) -> Result<Connection, StoreError> {
    match prepare(path, origin) {
        Err(StoreError::Sqlite(error)) if is_no_database(&error) => {
            for suffix in ["", "-wal", "-shm"] {
                let mut name = path.as_os_str().to_owned();
                name.push(suffix);
                match std::fs::remove_file(&name) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            prepare(path, origin)
        }
        other => other,
    }
}

fn is_no_database(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn prepare(path: &Path, origin: &str) -> Result<Connection, StoreError> {
    // The file holds commands: its owner's alone. SQLite gives its log files the same mode.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.pragma_update(None, "journal_mode", "wal")?;
    // What a lost commit loses is read from the ledger again.
    db.pragma_update(None, "synchronous", "normal")?;
    // Pages that change with every batch are copied back into the file once for many batches.
    db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    make_tables(&mut db, origin)?;
    Ok(db)
}

/// An index of this process alone, for where none can be written: a temporary database that SQLite keeps in memory
/// until it grows, and deletes.
pub(crate) fn open_private(origin: &str) -> Result<Connection, StoreError> {
    let mut db = Connection::open("")?;
    make_tables(&mut db, origin)?;
    Ok(db)
}

/// Opens the index for reading beside its writer.
pub(crate) fn open_reading(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI,
    )?;
    db.busy_timeout(BUSY)?;
    Ok(db)
}

fn make_tables(db: &mut Connection, origin: &str) -> Result<(), StoreError> {
    let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = change.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != VERSION || state(&change)?.is_none_or(|state| state.origin != origin) {
        make_anew(&change, origin)?;
    }
    change.commit()?;
    Ok(())
}

/// Drops everything, whatever made it, and begins at the ledger's first entry. One transaction, so that whoever reads
/// at the same time sees the old index or the new one.
pub(crate) fn make_anew(change: &Transaction<'_>, origin: &str) -> Result<(), StoreError> {
    // A virtual table takes its shadow tables with it, so it goes first; `IF EXISTS` passes over those.
    let mut names = change.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
         ORDER BY sql NOT LIKE 'CREATE VIRTUAL%'",
    )?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for name in names {
        change.execute_batch(&format!("DROP TABLE IF EXISTS \"{}\"", name.replace('"', "\"\"")))?;
    }
    change.execute_batch(TABLES)?;
    change.execute("INSERT INTO state (one, origin, cursor) VALUES (1, ?1, 0)", [origin])?;
    change.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}

/// What the index says of itself; none where it has no such row.
pub(crate) fn state(db: &Connection) -> Result<Option<State>, StoreError> {
    let exists = db
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'state' AND type = 'table'", [], |_| Ok(()))
        .optional()?;
    if exists.is_none() {
        return Ok(None);
    }
    let state = db
        .prepare_cached("SELECT origin, cursor, leaf FROM state")?
        .query_row([], |row| {
            Ok(State {
                origin: row.get(0)?,
                cursor: row.get::<_, i64>(1)?.cast_unsigned(),
                leaf: row.get(2)?,
            })
        })
        .optional()?;
    Ok(state)
}

/// Moves the cursor, in the transaction that put the entries in.
pub(crate) fn set_cursor(change: &Transaction<'_>, cursor: u64, leaf: [u8; 32]) -> Result<(), StoreError> {
    change
        .prepare_cached("UPDATE state SET cursor = ?1, leaf = ?2")?
        .execute(params![cursor.cast_signed(), leaf])?;
    Ok(())
}
