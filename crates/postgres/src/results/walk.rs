//! Finds the messages in what the target sends, in whatever pieces it comes, without buffering them: of most kinds only
//! the length matters, of the others a bounded beginning of the body is kept.

use std::ops::Range;

use crate::frame::{HEADER, target};

/// How much of a body is looked at; no tag, error or type list that matters is longer.
pub(crate) const BODY_MAX: usize = 64 << 10;

/// The target broke the protocol: nothing after this can be matched to what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the target is out of step: {0}")]
pub(crate) struct OutOfStep(pub(crate) String);

/// What a step along the bytes found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// The bytes ended within a message of this kind.
    Within(u8),
    /// A message ended.
    Message {
        /// Its kind.
        kind: u8,
        /// Its length in all.
        length: u64,
        /// How many of the given bytes belong to it.
        used: usize,
        /// Where its body is in the given bytes; where it began in earlier ones, [`Walk::kept`] has it.
        body: Option<Range<usize>>,
    },
}

/// Where in the target's stream of messages it is.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    head: [u8; HEADER],
    /// How much of `head` is there.
    have: usize,
    /// How much of the body is still to come.
    left: u64,
    length: u64,
    kept: Vec<u8>,
}

impl Walk {
    /// Whether the last message that began has ended.
    pub(crate) const fn at_boundary(&self) -> bool {
        self.have == 0
    }

    /// The body of a message that began in earlier bytes: its first [`BODY_MAX`], where the kind matters.
    pub(crate) fn kept(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }

    /// Goes on to the end of a message, or of the bytes, which must not be empty.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Walked, OutOfStep> {
        let mut used = 0;
        if self.have == 0
            && let Some((head, _)) = bytes.split_first_chunk::<HEADER>()
        {
            self.head = *head;
            self.have = HEADER;
            used = HEADER;
            self.open()?;
            let body = usize::try_from(self.left).unwrap_or(usize::MAX);
            if bytes.len() - used >= body {
                self.have = 0;
                self.left = 0;
                let end = used + body;
                return Ok(Walked::Message {
                    kind: head[0],
                    length: self.length,
                    used: end,
                    body: Some(used..end),
                });
            }
        }
        while self.have < HEADER {
            let (Some(slot), Some(byte)) = (self.head.get_mut(self.have), bytes.get(used)) else {
                return Ok(Walked::Within(self.head[0]));
            };
            *slot = *byte;
            self.have += 1;
            used += 1;
            if self.have == HEADER {
                self.open()?;
            }
        }
        let rest = bytes.get(used..).unwrap_or_default();
        let here = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if matters(self.head[0]) {
            let room = BODY_MAX.saturating_sub(self.kept.len()).min(here);
            self.kept.extend_from_slice(rest.get(..room).unwrap_or_default());
        }
        self.left -= here as u64;
        used += here;
        if self.left > 0 {
            return Ok(Walked::Within(self.head[0]));
        }
        self.have = 0;
        Ok(Walked::Message { kind: self.head[0], length: self.length, used, body: None })
    }

    fn open(&mut self) -> Result<(), OutOfStep> {
        let [kind, length @ ..] = self.head;
        let length = i32::from_be_bytes(length);
        match u64::try_from(length) {
            Ok(length @ 4..) => {
                self.left = length - 4;
                self.length = length + 1;
                self.kept.clear();
                Ok(())
            }
            _ => Err(OutOfStep(format!("message type {kind:#04x} with a length of {length}"))),
        }
    }
}

/// Whether anything in the body of such a message is of interest here.
const fn matters(kind: u8) -> bool {
    matches!(
        kind,
        target::COMMAND_COMPLETE
            | target::ERROR_RESPONSE
            | target::NOTICE_RESPONSE
            | target::PARAMETER_DESCRIPTION
            | target::READY_FOR_QUERY
    )
}
