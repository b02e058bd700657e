//! What waits for the target's answer.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use verbatim_core::{Content, Outcome, Recorded, Status, TargetError};

use crate::operation::File;

/// What was asked, as far as it decides the form of the answer.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Any number of results, of which each may be rows; these files may be asked for. With a cursor, rows are fetched.
    Result { files: Vec<File>, cursor: bool },
    /// Rows alone: COM_STMT_FETCH.
    Rows,
    /// Definitions alone: COM_FIELD_LIST.
    Definitions,
    /// One packet.
    Simple,
    /// One packet; if it is good, every statement is gone.
    ResetConnection,
    /// A statement, of this text.
    Prepare(Bytes),
}

impl Asked {
    /// Whether the answer has what a client asks a database for.
    pub(crate) const fn has_result(&self) -> bool {
        matches!(self, Self::Result { .. } | Self::Rows | Self::Definitions)
    }
}

/// A place in the order of answers.
#[derive(Debug)]
pub(crate) enum Entry {
    /// The target answers it, with this sequence first.
    Forwarded { recorded: Recorded, asked: Asked, answer: u8 },
    /// The gateway answers it by this packet.
    Own(Bytes),
    /// The gateway's last packet.
    Last(Bytes),
}

/// What is to be put between the target's bytes.
#[derive(Debug, Default)]
pub(crate) struct Inserts {
    /// Behind so many of the bytes, each.
    pub(crate) at: Vec<(usize, Bytes)>,
    /// Nothing follows the last of them.
    pub(crate) last: bool,
}

/// The content of a file that the client sends (`local_infile`).
pub(crate) struct FileContent {
    name: Bytes,
    /// There once the operation is on record.
    recorded: Option<Recorded>,
    length: u64,
    digest: Context,
}

impl std::fmt::Debug for FileContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileContent({} bytes)", self.length)
    }
}

impl FileContent {
    pub(super) fn of(name: Bytes) -> Self {
        Self { name, recorded: None, length: 0, digest: Context::new(&SHA256) }
    }

    /// As the target asked for it.
    pub(crate) const fn name(&self) -> &Bytes {
        &self.name
    }

    pub(crate) const fn recorded(&self) -> Option<&Recorded> {
        self.recorded.as_ref()
    }

    /// The operation is on record.
    pub(crate) fn begin(&mut self, recorded: Recorded) {
        self.recorded = Some(recorded);
    }

    /// A piece of the content was recorded.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.digest.update(piece);
    }

    /// The statement that asked for it has its answer.
    pub(crate) fn complete(self, error: Option<&TargetError>) {
        let Some(recorded) = self.recorded else { return };
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.digest.finish().as_ref());
        let status = if error.is_some() { Status::Error } else { Status::Ok };
        recorded.complete(&Outcome {
            content: Some(Content { length: self.length, sha256 }),
            error: error.cloned(),
            ..Outcome::new(status)
        });
    }
}
