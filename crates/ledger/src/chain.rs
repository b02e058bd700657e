//! A session's entries as a chain: what may come next, and what the record says of the session so far.

use std::collections::BTreeMap;

use verbatim_core::event::kind;

use crate::LedgerError;
use crate::hash::Hash;

/// How many entries of each kind a session has; its close states them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) intents: u64,
    pub(crate) outcomes: u64,
    pub(crate) aborts: u64,
    pub(crate) denied: u64,
}

impl Counts {
    /// The counts under the names in which the close states them.
    pub(crate) const fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("intents", self.intents),
            ("outcomes", self.outcomes),
            ("aborts", self.aborts),
            ("denied", self.denied),
        ]
    }
}

/// The entries of one session, or those of none, as far as the next one depends on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The next entry's place.
    pub(crate) next: u64,
    /// The last entry's leaf.
    pub(crate) last: Option<Hash>,
    pub(crate) opened: bool,
    pub(crate) authorized: bool,
    pub(crate) closed: bool,
    /// Intents without an answer: the entry, and the operation's place in its session.
    pub(crate) intents: BTreeMap<u64, u64>,
    pub(crate) counts: Counts,
}

/// Whether entries of this kind belong to a session.
pub(crate) fn is_of_a_session(kind: &str) -> bool {
    matches!(
        kind,
        kind::SESSION_OPEN
            | kind::AUTHZ
            | kind::INTENT
            | kind::DENIED
            | kind::CHUNK
            | kind::OUTCOME
            | kind::ABORT
            | kind::RENEWED
            | kind::SESSION_CLOSE
    )
}

impl Chain {
    /// Whether a session's next entry may be of this kind and answer that entry.
    pub(crate) fn admits(&self, kind: &str, answers: Option<u64>) -> Result<(), LedgerError> {
        let wrong = |what| Err(LedgerError::OutOfOrder { what });
        if self.closed {
            return Err(LedgerError::Closed);
        }
        match (kind, self.opened) {
            (kind::SESSION_OPEN, false) => return Ok(()),
            (kind::SESSION_OPEN, true) => return wrong("the session is open already"),
            (_, false) => return wrong("the session is not open"),
            (_, true) => {}
        }
        match kind {
            kind::INTENT if !self.authorized => wrong("an operation before anything let the session in"),
            kind::CHUNK | kind::OUTCOME | kind::ABORT => match answers {
                Some(index) if self.intents.contains_key(&index) => Ok(()),
                _ => wrong("it answers no open operation of the session"),
            },
            _ => Ok(()),
        }
    }

    /// Takes the entry that was appended.
    pub(crate) fn advance(
        &mut self,
        kind: &str,
        index: u64,
        answers: Option<u64>,
        operation: Option<u64>,
        leaf: Hash,
    ) {
        self.next += 1;
        self.last = Some(leaf);
        match kind {
            kind::SESSION_OPEN => self.opened = true,
            kind::AUTHZ => self.authorized = true,
            kind::SESSION_CLOSE => self.closed = true,
            kind::DENIED => self.counts.denied += 1,
            kind::INTENT => {
                self.counts.intents += 1;
                self.intents.insert(index, operation.unwrap_or_default());
            }
            kind::OUTCOME | kind::ABORT => {
                if kind == kind::OUTCOME {
                    self.counts.outcomes += 1;
                } else {
                    self.counts.aborts += 1;
                }
                if let Some(index) = answers {
                    self.intents.remove(&index);
                }
            }
            _ => {}
        }
    }
}
