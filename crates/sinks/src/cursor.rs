//! Where a sink is in the ledger, on disk: `<data_dir>/sinks/<name>.cursor`, one line of JSON.
//!
//! It is replaced by renaming a synced file, so it is the old one or the new one, and it moves only after the sink said
//! that it has what is behind it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A cursor file is not read beyond this: 64 KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where a sink is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The ledger's origin; empty before the first delivery.
    pub origin: String,
    /// How many entries are delivered, or passed over by a filter: the next one's index.
    pub next: u64,
    /// The leaf of the last of them, in hexadecimal: tells whether the ledger is still the one that was delivered.
    pub leaf: Option<String>,
    /// How many entries the newest delivered checkpoint covers.
    pub checkpoint: u64,
    /// The first entry of the oldest session that is open at `next`, where connections are filtered: which connection
    /// a session has is learnt again from there.
    pub sessions_from: u64,
    /// How many events were put aside since the sink was set up.
    pub dead_letters: u64,
}

/// The files of one sink in a data directory.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
    name: String,
}

impl Files {
    /// The files of the sink `name`. Whatever is not plain in the name is written as `%` and its code, so that no name
    /// leads out of the folder.
    pub fn new(data_dir: &Path, name: &str) -> Self {
        let mut plain = String::with_capacity(name.len());
        for (place, byte) in name.bytes().enumerate() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => plain.push(char::from(byte)),
                b'.' if place > 0 => plain.push('.'),
                other => plain.push_str(&format!("%{other:02x}")),
            }
        }
        Self { dir: data_dir.join("sinks"), name: plain }
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}.{suffix}", self.name))
    }

    /// The dead letters.
    pub(crate) fn dead(&self) -> PathBuf {
        self.file("dead.jsonl")
    }

    /// Makes the folder, for its owner alone.
    pub(crate) fn make_dir(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)
    }

    /// Reads the cursor; the beginning where there is none.
    ///
    /// # Errors
    /// The file cannot be read or is no cursor.
    pub fn load(&self) -> io::Result<Cursor> {
        let mut text = String::new();
        match File::open(self.file("cursor")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cursor::default()),
            Err(error) => return Err(error),
            Ok(file) => file.take(FILE_BYTES_MAX).read_to_string(&mut text)?,
        };
        serde_json::from_str(&text).map_err(io::Error::from)
    }

    /// Replaces the cursor; it is durable when this returns.
    ///
    /// # Errors
    /// It could not be written; the old one is still there.
    pub fn store(&self, cursor: &Cursor) -> io::Result<()> {
        self.make_dir()?;
        let new = self.file("cursor.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let mut line = serde_json::to_vec(cursor)?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_all()?;
        std::fs::rename(&new, self.file("cursor"))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Sets the sink of a stopped gateway back (or on) to the entry `next`.
    ///
    /// # Errors
    /// The cursor cannot be read or written.
    pub fn replay(&self, next: u64) -> io::Result<()> {
        let cursor = self.load()?;
        self.store(&cursor.moved_to(next))
    }
}

impl Cursor {
    /// This cursor at another place. What is known of sessions is learnt from the ledger's beginning.
    pub(crate) fn moved_to(self, next: u64) -> Self {
        Self { next, leaf: None, sessions_from: 0, checkpoint: self.checkpoint.min(next), ..self }
    }
}
