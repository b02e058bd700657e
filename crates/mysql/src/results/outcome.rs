//! What the target says of an operation, gathered into its outcome.

use verbatim_core::{Outcome, Status, TargetError};

use crate::answer::Done;

/// How many results of an operation have their words kept.
const MESSAGES_MAX: usize = 100;

/// What is known of the operation that the target is answering.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    rows: Option<u64>,
    /// Rows of the result that is being sent.
    counted: Option<u64>,
    bytes: u64,
    error: Option<TargetError>,
    messages: Vec<String>,
}

impl Progress {
    /// Whether anything of the answer came.
    pub(crate) const fn began(&self) -> bool {
        self.bytes > 0
    }

    /// A packet of the answer was sent to the client.
    pub(crate) fn sent(&mut self, length: u64) {
        self.bytes = self.bytes.saturating_add(length);
    }

    /// A row was.
    pub(crate) fn row(&mut self) {
        self.counted = Some(self.counted.unwrap_or(0) + 1);
    }

    /// A result ended: by its rows, or by how many it affected.
    pub(crate) fn done(&mut self, done: Done) {
        let rows = self.counted.take().or(done.affected);
        if let Some(rows) = rows {
            self.rows = Some(self.rows.unwrap_or(0).saturating_add(rows));
        }
        let words = [
            (done.warnings > 0).then(|| format!("WARNING: {} warnings", done.warnings)),
            (!done.info.is_empty()).then(|| format!("INFO: {}", done.info)),
        ];
        for word in words.into_iter().flatten() {
            if self.messages.len() < MESSAGES_MAX {
                self.messages.push(word);
            }
        }
    }

    /// The target's error.
    pub(crate) fn failed(&mut self, error: TargetError) {
        self.error.get_or_insert(error);
    }

    /// The outcome.
    pub(crate) fn outcome(self) -> Outcome {
        let status = if self.error.is_some() { Status::Error } else { Status::Ok };
        let rows = match (self.rows, self.counted) {
            (None, counted) => counted,
            (Some(rows), counted) => Some(rows.saturating_add(counted.unwrap_or(0))),
        };
        Outcome {
            rows,
            bytes: Some(self.bytes),
            error: self.error,
            messages: self.messages,
            ..Outcome::new(status)
        }
    }
}
