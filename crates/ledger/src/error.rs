//! What can go wrong with the record, and who has to act.

use std::path::PathBuf;

/// Why an entry was not taken, or is not durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The space that is left is kept for outcomes and closes.
    #[error("the disk is full: what is left is kept for outcomes and closes")]
    Full,
    /// The session was closed in the record, or the ledger was.
    #[error("closed: nothing can be appended any more")]
    Closed,
    /// A write or a sync failed; nothing is taken any more until the process has been started anew.
    #[error("the ledger is dead: {reason}")]
    Dead {
        /// What failed.
        reason: String,
    },
    /// The fields of the entry are more than an envelope holds.
    #[error("an entry of {length} bytes, over the limit of {limit}")]
    TooLarge {
        /// What it would take.
        length: usize,
        /// What there is.
        limit: usize,
    },
    /// The entry does not fit what its session's record says so far: `verify` would report it.
    #[error("out of order: {what}")]
    OutOfOrder {
        /// What does not fit.
        what: &'static str,
    },
    /// No random bytes could be had for the salt of a payload.
    #[error("no random bytes")]
    NoRandom,
}

/// Why a ledger could not be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The record was changed, cut, or is not this node's; it is never repaired, `verify` says more.
    #[error("the ledger is damaged: {file} at {offset}: {message}", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        message: String,
    },
    /// Another process has it open.
    #[error("{dir} is in use by another process", dir = dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// A setting is out of its range.
    #[error("{name}: {message}")]
    Setting {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The first entries could not be made durable.
    #[error("the ledger takes no entries: {0}")]
    Append(#[from] LedgerError),
}

/// Why the record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Reading failed.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is there is no entry.
    #[error("{file} at {offset}: {message}", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        message: String,
    },
    /// There is no such entry.
    #[error("the ledger has no entry {0}")]
    NoSuchEntry(u64),
    /// What was asked for is not in the record, or under no checkpoint yet.
    #[error("not in the record: {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
}
