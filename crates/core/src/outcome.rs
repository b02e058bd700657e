//! What the target made of an operation.

use crate::{Masking, Part};

/// How an operation that was forwarded ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The target did it.
    Ok,
    /// The target refused or failed it.
    Error,
    /// The target discarded it unrun.
    Skipped,
}

impl Status {
    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }
}

/// The target's error, as the client got it.
#[derive(Clone, PartialEq, Eq)]
pub struct TargetError {
    /// The protocol's own code (an SQLSTATE).
    pub code: String,
    /// Its message. It may quote data, so it is stored as payload.
    pub message: String,
}

impl std::fmt::Debug for TargetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TargetError({}, {} bytes)", self.code, self.message.len())
    }
}

/// The whole of streamed content: a COPY's data, a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Bytes in all.
    pub length: u64,
    /// SHA-256 over all of it.
    pub sha256: [u8; 32],
}

/// What the target made of an operation. Its duration is taken from the permit.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Rows returned or affected.
    pub rows: Option<u64>,
    /// Bytes of result that were sent to the client.
    pub bytes: Option<u64>,
    /// The target's error.
    pub error: Option<TargetError>,
    /// What the client streamed.
    pub content: Option<Content>,
    /// Notices and warnings, in order, as `SEVERITY CODE: message`; bounded by whoever collects them.
    pub messages: Vec<String>,
    /// What the protocol says of the answer beyond that: an HTTP response's fields.
    pub parts: Vec<Part>,
    /// What masking did to the result; none where it was not looked at.
    pub masking: Option<Box<Masking>>,
}

impl Outcome {
    /// An outcome with a status and nothing else known.
    pub const fn new(status: Status) -> Self {
        Self {
            status,
            rows: None,
            bytes: None,
            error: None,
            content: None,
            messages: Vec::new(),
            parts: Vec::new(),
            masking: None,
        }
    }
}
