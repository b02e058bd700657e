//! What waits for the target's answer, and what is passed on of what it says.

use bytes::Bytes;
use verbatim_core::{Content, Outcome, Recorded, Refusal, Status, TargetError};

use super::walk::Walk;
use crate::operation::Role;

/// Something that was forwarded, or stands in its place.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A command of the client; one without a record is the `HELLO` of its login.
    Sent(Open),
    /// A command of the gateway: its reply is not for the client, who gets these words instead, if any.
    Own(Role, Option<Bytes>),
    /// A command that was not forwarded: its answer.
    Words(Bytes),
    /// The session ends here, with these words.
    Last(Bytes),
}

impl Entry {
    pub(super) const fn role(&self) -> Option<Role> {
        match self {
            Self::Sent(open) => Some(open.role),
            Self::Own(role, _) => Some(*role),
            Self::Words(_) | Self::Last(_) => None,
        }
    }
}

/// A command that the target has.
#[derive(Debug)]
pub(crate) struct Open {
    pub(super) recorded: Option<Recorded>,
    pub(crate) role: Role,
    /// What of it streamed.
    pub(super) content: Option<Content>,
    /// What came of its reply.
    pub(super) bytes: u64,
}

impl Open {
    pub(crate) const fn new(recorded: Option<Recorded>, role: Role, content: Option<Content>) -> Self {
        Self { recorded, role, content, bytes: 0 }
    }

    /// Records what the client receives of it.
    pub(super) fn result(&self, bytes: &[u8]) -> Result<(), Refusal> {
        match &self.recorded {
            Some(recorded) if !bytes.is_empty() => recorded.result(bytes),
            _ => Ok(()),
        }
    }

    /// The target answered it; `walk` has what.
    pub(super) fn answered(self, walk: &Walk) {
        let error = failure(walk);
        let status = if error.is_some() { Status::Error } else { Status::Ok };
        let bytes = Some(self.bytes);
        self.complete(Outcome { bytes, error, ..Outcome::new(status) });
    }

    /// It has no answer of its own.
    pub(super) fn ended(self, status: Status) {
        let bytes = (self.bytes > 0).then_some(self.bytes);
        self.complete(Outcome { bytes, ..Outcome::new(status) });
    }

    fn complete(self, outcome: Outcome) {
        if let Some(recorded) = self.recorded {
            recorded.complete(&Outcome { content: self.content, ..outcome });
        }
    }
}

/// The target's error, if a reply is one: its first word is the code.
pub(super) fn failure(walk: &Walk) -> Option<TargetError> {
    if !matches!(walk.kind(), Some(b'-' | b'!')) {
        return None;
    }
    let text = match std::str::from_utf8(walk.word()) {
        Ok(text) => text.to_owned(),
        Err(_) => walk.word().escape_ascii().to_string(),
    };
    let (code, message) = text.split_once(' ').unwrap_or((text.as_str(), ""));
    Some(TargetError { code: code.to_owned(), message: message.to_owned() })
}

/// A piece of what the client gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The target's bytes, from here to there.
    Bytes(usize, usize),
    /// The gateway's.
    Insert(Bytes),
}

/// What the client gets.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) parts: Vec<Part>,
    /// Nothing after it is for the client: the session ends.
    pub(crate) last: bool,
}

impl Passed {
    pub(super) fn pass(&mut self, from: usize, to: usize) {
        match self.parts.last_mut() {
            Some(Part::Bytes(_, end)) if *end == from => *end = to,
            _ if from == to => {}
            _ => self.parts.push(Part::Bytes(from, to)),
        }
    }

    /// Takes back what is behind `from`.
    pub(super) fn cut(&mut self, from: usize) {
        self.parts.retain_mut(|part| match part {
            Part::Bytes(begin, end) => {
                *end = (*end).min(from);
                *begin < *end
            }
            Part::Insert(_) => true,
        });
    }

    pub(super) fn insert(&mut self, words: Bytes) {
        self.parts.push(Part::Insert(words));
    }
}
