//! The index: it follows the ledger, and answers from both.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use tokio::sync::watch;
use verbatim_ledger::{ReadError, Reader};

use crate::content::Content;
use crate::fold::Labels;
use crate::list::List;
use crate::place::{COLUMNS, Place};
use crate::view::{Match, OperationView, SearchDocument, SessionDocument, SessionView, SessionsDocument};
use crate::writer::{Writer, make_anew_if_stale};
use crate::{Filters, schema, search};

/// The file's name in the data directory.
const FILE: &str = "index.sqlite";

/// How long the follower lets entries gather: a transaction costs the same for one as for a hundred, and whoever reads
/// brings the index up to date first.
const GATHER: Duration = Duration::from_millis(100);

/// How many sessions an ambiguous beginning names.
const AMBIGUOUS_MAX: usize = 10;

/// What can go wrong with the index, or with a question to it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No session's id begins so.
    #[error("no session whose id begins with {0:?}")]
    NotFound(String),
    /// Several sessions' ids begin so.
    #[error("{prefix:?} is the beginning of several ids: {}", ids.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Some of them.
        ids: Vec<String>,
    },
    /// The search cannot be done.
    #[error("{message}")]
    Search {
        /// What is wrong with it.
        message: String,
    },
    /// The ledger could not be read.
    #[error("reading the ledger: {0}")]
    Ledger(#[from] ReadError),
    /// SQLite failed.
    #[error("the session index: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A file could not be read or written, or nobody takes the document any more.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A document could not be read or written.
    #[error("a document: {0}")]
    Json(#[from] serde_json::Error),
}

/// A session, and one of its operations where one was asked for.
pub(crate) struct Found {
    pub(crate) session: SessionView,
    /// The entry that closed the session.
    pub(crate) closed: Option<u64>,
    pub(crate) operation: Option<OperationView>,
}

/// The session index over one ledger.
///
/// Every method blocks; call them where that is allowed. All that is asked is answered up to what was committed when
/// the question came.
pub struct Index {
    ledger_dir: PathBuf,
    /// None where no file can be written: then the writer's database is the only one.
    file: Option<PathBuf>,
    labels: Labels,
    writer: Mutex<Writer>,
    committed: RwLock<Option<watch::Receiver<u64>>>,
    indexed: AtomicU64,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("file", &self.file)
            .field("indexed", &self.indexed)
            .finish_non_exhaustive()
    }
}

impl Index {
    /// Opens the index in `data_dir` over the ledger in `ledger_dir`, and makes it anew where it is missing, of another
    /// version or of another ledger. Where the file cannot be written, a private one that lives as long as this value.
    ///
    /// Nothing is read into it yet: see [`catch_up`](Self::catch_up) and [`follow`](Self::follow).
    ///
    /// # Errors
    /// The ledger cannot be read, or SQLite fails.
    pub fn open(data_dir: &Path, ledger_dir: &Path, labels: Labels) -> Result<Self, StoreError> {
        let mut reader = Reader::open(ledger_dir)?;
        let origin = reader.origin().to_owned();
        let path = data_dir.join(FILE);
        let (mut db, file) = match schema::open(&path, &origin) {
            Ok(db) => (db, Some(path)),
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "the session index cannot be written: a private one is made");
                (schema::open_private(&origin)?, None)
            }
        };
        make_anew_if_stale(&mut db, &mut reader)?;
        let indexed = AtomicU64::new(schema::state(&db)?.map_or(0, |state| state.cursor));
        Ok(Self {
            ledger_dir: ledger_dir.to_owned(),
            file,
            labels,
            writer: Mutex::new(Writer { db, reader, next: None }),
            committed: RwLock::new(None),
            indexed,
        })
    }

    /// How many entries are in. The lag is what the ledger's committed size has more.
    pub fn indexed(&self) -> u64 {
        self.indexed.load(Ordering::Relaxed)
    }

    /// Reads what is committed and not in yet, batch by batch, and returns how many entries are in then. Without
    /// [`follow`](Self::follow) "committed" is what a checkpoint in the files covers.
    ///
    /// # Errors
    /// The ledger cannot be read, or SQLite fails; what was read before is in.
    pub fn catch_up(&self) -> Result<u64, StoreError> {
        let limit = self.committed.read().as_ref().map(|committed| *committed.borrow());
        loop {
            if limit.is_some_and(|limit| self.indexed() >= limit) {
                return Ok(self.indexed());
            }
            // One batch a lock, so that a long rebuild lets others in between.
            let mut writer = self.writer.lock();
            let moved = writer.step(limit)?;
            self.indexed.store(moved.cursor, Ordering::Relaxed);
            drop(writer);
            if !moved.more {
                return Ok(moved.cursor);
            }
        }
    }

    /// Starts a thread of low priority that follows the ledger until it is stopped or `committed` has no sender.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn follow(self: &Arc<Self>, committed: watch::Receiver<u64>) -> Result<Follow, StoreError> {
        *self.committed.write() = Some(committed.clone());
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let index = Arc::clone(self);
        let thread = std::thread::Builder::new().name("verbatim-index".to_owned()).spawn(move || {
            // On Linux this is the thread's own; where it is not allowed, it runs as everything else does.
            let _ = rustix::process::nice(19);
            runtime.block_on(index.follow_until(committed, stopped));
        })?;
        Ok(Follow { stop, thread: Some(thread) })
    }

    async fn follow_until(&self, mut committed: watch::Receiver<u64>, mut stopped: watch::Receiver<bool>) {
        loop {
            committed.mark_unchanged();
            if let Err(error) = self.catch_up() {
                tracing::warn!(%error, "the session index is behind");
            }
            tokio::select! {
                _ = stopped.changed() => return,
                changed = committed.changed() => if changed.is_err() { return },
            }
            tokio::select! {
                _ = stopped.changed() => return,
                () = tokio::time::sleep(GATHER) => {}
            }
        }
    }

    /// The sessions that pass, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read, or SQLite fails.
    pub fn list(&self, filters: &Filters) -> Result<SessionsDocument, StoreError> {
        let mut sessions = Vec::new();
        self.each_session(filters, &mut |session| {
            sessions.push(session);
            Ok(())
        })?;
        Ok(SessionsDocument { sessions, matches: Vec::new() })
    }

    /// Gives each session that passes to `each`, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read, SQLite fails, or `each` does.
    pub fn each_session(
        &self,
        filters: &Filters,
        each: &mut dyn FnMut(SessionView) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let conditions = filters.of_sessions();
        let sql = format!(
            "SELECT s.document FROM sessions s {} ORDER BY s.opened DESC, s.id DESC {}",
            conditions.sql(),
            filters.limit_sql()
        );
        self.read(&mut |db| {
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query(params_from_iter(conditions.values()))?;
            while let Some(row) = rows.next()? {
                each(document(row)?)?;
            }
            Ok(())
        })
    }

    /// The session whose id begins with `prefix`.
    ///
    /// # Errors
    /// There is none, or more than one; the ledger cannot be read, or SQLite fails.
    pub fn session(&self, prefix: &str) -> Result<SessionView, StoreError> {
        let mut found = None;
        self.read(&mut |db| {
            found = Some(find(db, prefix)?);
            Ok(())
        })?;
        found.ok_or_else(|| StoreError::NotFound(prefix.to_owned()))
    }

    /// The session whose id begins with `prefix`, whole. For a session of any length see
    /// [`write_session`](Self::write_session).
    ///
    /// # Errors
    /// As [`session`](Self::session).
    pub fn show(&self, prefix: &str) -> Result<SessionDocument, StoreError> {
        let session = self.session(prefix)?;
        let mut operations = Vec::new();
        self.each_operation(&session, &mut |operation| {
            operations.push(operation);
            Ok(())
        })?;
        Ok(SessionDocument { session, operations })
    }

    /// Gives each operation of `session` to `each`, in order; one at a time is in memory.
    ///
    /// # Errors
    /// The ledger cannot be read, SQLite fails, or `each` does.
    pub fn each_operation(
        &self,
        session: &SessionView,
        each: &mut dyn FnMut(OperationView) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each_place(session, &mut |db, reader, place| {
            each(place.read(db, reader)?.view(&session.protocol, &self.labels))
        })
    }

    fn each_place(
        &self,
        session: &SessionView,
        each: &mut dyn FnMut(&Connection, &mut Reader, &Place) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut reader = Reader::open(&self.ledger_dir)?;
        self.read(&mut |db| {
            let mut statement = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM operations o JOIN sessions s ON s.id = o.session
                 WHERE s.sid = ?1 ORDER BY o.sequence"
            ))?;
            let mut rows = statement.query([&session.id])?;
            while let Some(row) = rows.next()? {
                each(db, &mut reader, &Place::of(row)?)?;
            }
            Ok(())
        })
    }

    /// Writes the document of the session whose id begins with `prefix` as JSON, operation by operation.
    ///
    /// # Errors
    /// As [`session`](Self::session), or `out` takes no more; what was written then is no whole document.
    pub fn write_session(&self, prefix: &str, out: &mut dyn Write) -> Result<(), StoreError> {
        let session = self.session(prefix)?;
        out.write_all(b"{\"session\":")?;
        serde_json::to_writer(&mut *out, &session)?;
        out.write_all(b",\"operations\":")?;
        let mut list = List::begin(out)?;
        self.each_place(&session, &mut |db, reader, place| {
            let operation = place.read(db, reader)?.view(&session.protocol, &self.labels);
            // Data under a command with a text of its own is not that command's text.
            let is_bare = operation.text.is_none() && operation.base64.is_none();
            match place.long_content(db)?.filter(|_| is_bare) {
                None => list.add(&operation),
                Some(chunks) => list.add_long(&operation, &mut Content { reader, chunks }),
            }
        })?;
        list.end()
    }

    /// Writes the document of [`list`](Self::list) as JSON, session by session. Where a trace is asked for, what it did
    /// follows as `matches`: its operations in all of those sessions, in the order in which they were recorded.
    ///
    /// # Errors
    /// As [`list`](Self::list), or `out` takes no more.
    pub fn write_list(&self, filters: &Filters, out: &mut dyn Write) -> Result<(), StoreError> {
        out.write_all(b"{\"sessions\":")?;
        let mut list = List::begin(out)?;
        self.each_session(filters, &mut |session| list.add(&session))?;
        if filters.trace.is_none() {
            return list.end();
        }
        let out = list.close()?;
        out.write_all(b",\"matches\":")?;
        let mut list = List::begin(out)?;
        self.each_of_trace(filters, &mut |found| list.add(&found))?;
        list.end()
    }

    /// Gives each operation of a trace to `each`, across sessions, in the order in which they were recorded.
    fn each_of_trace(
        &self,
        filters: &Filters,
        each: &mut dyn FnMut(Match) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let conditions = filters.of_operations();
        let sql = format!(
            "SELECT {COLUMNS}, s.document FROM operations o JOIN sessions s ON s.id = o.session {}
             ORDER BY o.entry",
            conditions.sql()
        );
        self.each_found(&sql, conditions.values(), each)
    }

    fn each_found(
        &self,
        sql: &str,
        values: &[rusqlite::types::Value],
        each: &mut dyn FnMut(Match) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut reader = Reader::open(&self.ledger_dir)?;
        self.read(&mut |db| {
            let mut statement = db.prepare(sql)?;
            let mut rows = statement.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                let session = document(row)?;
                let operation = Place::of(row)?.read(db, &mut reader)?.view(&session.protocol, &self.labels);
                each(Match { session, operation })?;
            }
            Ok(())
        })
    }

    /// The operations whose text has every word of `text`, newest first.
    ///
    /// # Errors
    /// The search has no words or too many; the ledger cannot be read, or SQLite fails.
    pub fn search(&self, text: &str, filters: &Filters) -> Result<SearchDocument, StoreError> {
        let mut matches = Vec::new();
        self.each_match(text, filters, &mut |found| {
            matches.push(found);
            Ok(())
        })?;
        Ok(SearchDocument { matches })
    }

    /// Gives each operation that [`search`](Self::search) finds to `each`.
    ///
    /// # Errors
    /// As [`search`](Self::search), or `each` fails.
    pub fn each_match(
        &self,
        text: &str,
        filters: &Filters,
        each: &mut dyn FnMut(Match) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (texts, mut values) = search::texts(text)?;
        let conditions = filters.of_operations();
        let sql = format!(
            "WITH found (text) AS ({texts})
             SELECT {COLUMNS}, s.document
             FROM found f JOIN operations o ON o.text = f.text JOIN sessions s ON s.id = o.session {}
             ORDER BY o.requested DESC, o.session DESC, o.sequence DESC {}",
            conditions.sql(),
            filters.limit_sql()
        );
        values.extend(conditions.values().iter().cloned());
        self.each_found(&sql, &values, each)
    }

    /// Writes the document of [`search`](Self::search) as JSON, match by match.
    ///
    /// # Errors
    /// As [`search`](Self::search), or `out` takes no more.
    pub fn write_matches(
        &self,
        text: &str,
        filters: &Filters,
        out: &mut dyn Write,
    ) -> Result<(), StoreError> {
        out.write_all(b"{\"matches\":")?;
        let mut list = List::begin(out)?;
        self.each_match(text, filters, &mut |found| list.add(&found))?;
        list.end()
    }

    /// The ledger that this index is over.
    pub(crate) fn ledger_dir(&self) -> &Path {
        &self.ledger_dir
    }

    /// How many entries are committed, where a running ledger says so.
    pub(crate) fn committed(&self) -> Option<u64> {
        self.committed.read().as_ref().map(|committed| *committed.borrow())
    }

    /// A session and one of its operations, for the tail.
    pub(crate) fn one(
        &self,
        sid: &str,
        sequence: Option<u64>,
        reader: &mut Reader,
    ) -> Result<Option<Found>, StoreError> {
        let mut found = None;
        self.read(&mut |db| {
            let session = db
                .prepare_cached("SELECT document, closed_entry FROM sessions WHERE sid = ?1")?
                .query_row([sid], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?)))
                .optional()?;
            let Some((text, closed)) = session else { return Ok(()) };
            let session: SessionView = serde_json::from_str(&text)?;
            let mut operation = None;
            if let Some(sequence) = sequence {
                let mut statement = db.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM operations o JOIN sessions s ON s.id = o.session
                     WHERE s.sid = ?1 AND o.sequence = ?2"
                ))?;
                let mut rows = statement.query(params![sid, sequence.cast_signed()])?;
                if let Some(row) = rows.next()? {
                    let entries = Place::of(row)?.read(db, reader)?;
                    operation = Some(entries.view(&session.protocol, &self.labels));
                }
            }
            found = Some(Found { session, closed: closed.map(i64::cast_unsigned), operation });
            Ok(())
        })?;
        Ok(found)
    }

    /// Brings the index up to date and asks it, in one read transaction.
    fn read(&self, ask: &mut dyn FnMut(&Connection) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.catch_up()?;
        match &self.file {
            None => ask(&self.writer.lock().db),
            Some(file) => {
                let db = schema::open_reading(file)?;
                let snapshot = db.unchecked_transaction()?;
                ask(&snapshot)
            }
        }
    }
}

fn document(row: &Row<'_>) -> Result<SessionView, StoreError> {
    Ok(serde_json::from_str(row.get_ref("document")?.as_str().map_err(rusqlite::Error::from)?)?)
}

fn find(db: &Connection, prefix: &str) -> Result<SessionView, StoreError> {
    let not_found = || StoreError::NotFound(prefix.to_owned());
    let wanted = prefix.to_ascii_lowercase();
    if wanted.is_empty() || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(not_found());
    }
    let mut statement =
        db.prepare_cached("SELECT document FROM sessions WHERE sid >= ?1 AND sid < ?1 || 'g' ORDER BY sid")?;
    let mut rows = statement.query([&wanted])?;
    let mut found: Vec<SessionView> = Vec::new();
    while let (Some(row), true) = (rows.next()?, found.len() < AMBIGUOUS_MAX) {
        found.push(document(row)?);
    }
    match found.pop() {
        None => Err(not_found()),
        Some(only) if found.is_empty() => Ok(only),
        Some(last) => {
            let ids = found.into_iter().chain([last]).map(|session| session.id).collect();
            Err(StoreError::Ambiguous { prefix: prefix.to_owned(), ids })
        }
    }
}

/// The thread that follows the ledger. Dropping it stops the thread and waits for the batch that it is at.
#[derive(Debug)]
pub struct Follow {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the session index panicked");
        }
    }
}
