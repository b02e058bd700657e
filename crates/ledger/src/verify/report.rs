//! What `verify` answers.

use serde::Serialize;

/// The most findings that are kept; further ones are counted.
const FINDINGS_MAX: usize = 10_000;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything that the inputs can show is intact and complete.
    Intact,
    /// Something is not.
    Findings,
    /// It could not be told.
    Unknown,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which tampering, by its code.
    pub code: &'static str,
    /// The file.
    pub file: Option<String>,
    /// Bytes from its beginning.
    pub offset: Option<u64>,
    /// The session.
    pub session: Option<String>,
    /// The operation's place in it, from 1.
    pub sequence: Option<u64>,
    /// What it means.
    pub message: String,
}

impl Finding {
    /// A finding without a place.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, file: None, offset: None, session: None, sequence: None, message: message.into() }
    }

    /// The same, in a file.
    pub(crate) fn at(mut self, file: &std::path::Path, offset: u64) -> Self {
        self.file = Some(file.display().to_string());
        self.offset = Some(offset);
        self
    }

    /// The same, of an entry.
    pub(crate) fn of(mut self, session: Option<verbatim_core::SessionId>, operation: Option<u64>) -> Self {
        self.session = session.map(|id| id.to_string());
        self.sequence = operation;
        self
    }
}

/// One ledger, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerSummary {
    /// The log.
    pub origin: String,
    /// Entries under a checkpoint of its own.
    pub size: u64,
    /// The tree's root over them, in base64.
    pub root: String,
    /// Sessions opened.
    pub sessions: u64,
    /// Operations, permitted or refused.
    pub operations: u64,
    /// The time of the newest entry that a checkpoint from elsewhere covers.
    pub anchored_until: Option<String>,
}

/// The answer. Serialises to the document that `verify --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What came of it.
    pub result: Outcome,
    /// Each ledger.
    pub ledgers: Vec<LedgerSummary>,
    /// What is wrong, in the order in which it was met.
    pub findings: Vec<Finding>,
    /// For people: up to when the record is anchored outside the node, or that it isn't; or what could not be told.
    #[serde(skip)]
    pub last_line: String,
}

impl Report {
    /// The exit status: 0 intact, 1 findings, 2 could not tell.
    pub const fn exit_code(&self) -> u8 {
        match self.result {
            Outcome::Intact => 0,
            Outcome::Findings => 1,
            Outcome::Unknown => 2,
        }
    }
}

/// Findings as they are met.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    dropped: u64,
}

impl Findings {
    pub(crate) fn push(&mut self, finding: Finding) {
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.dropped += 1;
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.list.len()
    }

    /// Forgets what was met after the first `count`.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.list.truncate(count);
    }

    pub(crate) fn into_list(mut self) -> Vec<Finding> {
        if self.dropped > 0 {
            let message = format!("and {} more findings", self.dropped);
            self.list.push(Finding::new("MORE", message));
        }
        self.list
    }
}
