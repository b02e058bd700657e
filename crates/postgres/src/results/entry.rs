//! What waits for the target's answer, and which of its messages answer what.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use verbatim_core::{Content, Recorded, TargetError};

use super::outcome;
use crate::frame::target;
use crate::operation::Change;

/// Something that was forwarded, or refused in its place.
#[derive(Debug)]
pub(crate) enum Entry {
    /// With its text, if that may change what names mean.
    Query(Recorded, Option<Bytes>),
    FunctionCall(Recorded),
    Parse(Change, Option<Recorded>),
    Bind(Change),
    CloseStatement(Change),
    ClosePortal(Change),
    DescribeStatement(Bytes),
    DescribePortal,
    /// With its text, if that may change what names mean.
    Execute(Recorded, Option<Bytes>),
    Sync(Answer),
    /// Refused in a batch: the ErrorResponse, and everything to the next Sync is skipped.
    Refused(Bytes),
    /// Refused by itself: the ErrorResponse, then ReadyForQuery with the state that is true then.
    RefusedAlone(Bytes),
    /// The session ends here, with these words.
    Last(Bytes),
}

/// Whether a Sync has an answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has.
    Due,
    /// It was sent while the target took COPY data, or about to: ignored then, answered if the COPY failed before.
    IfCopyFails,
    /// It follows such a one, whose answer may be the only one that came.
    Perhaps,
}

/// What is to be put between the target's bytes.
#[derive(Debug, Default)]
pub(crate) struct Inserts {
    /// At which offset of the bytes given, and what.
    pub(crate) at: Vec<(usize, Bytes)>,
    /// Nothing after the last insert is for the client: the session ends.
    pub(crate) last: bool,
}

/// COPY data that the client sends.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    recorded: Option<Recorded>,
    digest: Sha256,
    length: u64,
}

impl Copy {
    pub(crate) const fn recorded(&self) -> Option<&Recorded> {
        self.recorded.as_ref()
    }

    pub(crate) fn begin(&mut self, recorded: Recorded) {
        self.recorded = Some(recorded);
    }

    pub(crate) fn add(&mut self, content: &[u8]) {
        self.digest.update(content);
        self.length = self.length.saturating_add(content.len() as u64);
    }

    pub(super) fn complete(self, error: Option<&TargetError>) {
        if let Some(recorded) = self.recorded {
            let content = Content { length: self.length, sha256: self.digest.finalize().into() };
            recorded.complete(&outcome::of_copy(content, error));
        }
    }
}

/// Whether the target takes COPY data.
#[derive(Debug, Default)]
pub(super) enum CopyIn {
    #[default]
    No,
    /// It does.
    Taking,
    /// The gateway refused the data and told the target so; what the client still sends is dropped.
    Refused,
}

/// Whether such a message is part of what an operation returns.
pub(super) const fn is_result(kind: u8) -> bool {
    matches!(
        kind,
        target::COMMAND_COMPLETE
            | target::COPY_BOTH_RESPONSE
            | target::COPY_DATA
            | target::COPY_DONE
            | target::COPY_IN_RESPONSE
            | target::COPY_OUT_RESPONSE
            | target::DATA_ROW
            | target::EMPTY_QUERY_RESPONSE
            | target::ERROR_RESPONSE
            | target::FUNCTION_CALL_RESPONSE
            | target::PORTAL_SUSPENDED
            | target::ROW_DESCRIPTION
    )
}

/// Whether such a message may take an operation off the queue.
pub(super) const fn ends_operation(kind: u8) -> bool {
    matches!(
        kind,
        target::COMMAND_COMPLETE
            | target::EMPTY_QUERY_RESPONSE
            | target::ERROR_RESPONSE
            | target::PORTAL_SUSPENDED
            | target::ROW_DESCRIPTION
    )
}

/// Whether such a message answers something other than a Sync; the rest come at any time.
pub(super) const fn answers_something(kind: u8) -> bool {
    !matches!(
        kind,
        target::NOTIFICATION_RESPONSE
            | target::PARAMETER_STATUS
            | target::NOTICE_RESPONSE
            | target::ERROR_RESPONSE
            | target::READY_FOR_QUERY
    )
}
