//! One reply of the target, walked by length: where it ends, and the little of it that is looked at.
//!
//! Aggregates are counted, not followed, so that nesting costs nothing; what a blob holds is skipped. RESP2 and RESP3 are
//! told apart by their type bytes alone. Streamed types (`$?`, `*?`), which no server sends, are not taken.
//! (Redis serialization protocol specification; RESP3 by antirez.)

/// How much of an error is kept.
const ERROR_MAX: usize = 4 << 10;
/// How much of another line, and of an aggregate's first element.
const WORD_MAX: usize = 32;
/// A length's sign and digits.
const NUMBER_MAX: usize = 20;

/// The target's bytes answer nothing that was asked, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the target is out of step: {0}")]
pub(crate) struct OutOfStep(pub(crate) String);

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// All bytes; the reply goes on.
    More,
    /// The header of an aggregate: its type, and how many elements (of a map twice as many as entries).
    Head(u8, u64),
    /// The first element of an aggregate; [`Walk::word`] has it.
    First,
    /// The reply ends.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Step {
    /// A line: a type byte, and what is behind it.
    #[default]
    Line,
    /// A blob of so many bytes, its CRLF among them.
    Blob(u64),
    /// Nothing is left of the reply.
    Done,
}

/// Where a reply stands.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    step: Step,
    /// The reply's own type; none before its header.
    kind: Option<u8>,
    /// Elements to come, and those of attributes before the reply.
    open: u64,
    attributes: u64,
    /// The line that is being read: how many bytes, and whether the last was CR.
    line: Vec<u8>,
    read: u64,
    cr: bool,
    /// What is kept of the reply: an error whole, else the beginning of its text or of its first element.
    word: Vec<u8>,
    elements: u64,
    integer: Option<i64>,
}

impl Walk {
    /// The reply's type; none before that was read.
    pub(crate) const fn kind(&self) -> Option<u8> {
        self.kind
    }

    /// The text of a simple reply or an error; of an aggregate its first element.
    pub(crate) fn word(&self) -> &[u8] {
        &self.word
    }

    /// The last integer in it.
    pub(crate) const fn integer(&self) -> Option<i64> {
        self.integer
    }

    /// Whether it is the null of either protocol that stands for an array.
    pub(crate) fn is_null(&self) -> bool {
        match self.kind {
            Some(b'_') => true,
            Some(b'*') => self.elements == 0 && self.word == b"-1",
            _ => false,
        }
    }

    /// Reads on, and returns how many bytes were read. [`Event::End`] may come without any.
    ///
    /// # Errors
    /// The bytes are no reply.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<(usize, Event), OutOfStep> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match self.step {
                Step::Done => return Ok((at, Event::End)),
                _ if rest.is_empty() => return Ok((at, Event::More)),
                Step::Blob(left) => {
                    let (used, event) = self.blob(rest, left);
                    at += used;
                    if let Some(event) = event {
                        return Ok((at, event));
                    }
                }
                Step::Line => {
                    let (used, ended) = self.gather(rest)?;
                    at += used;
                    if ended && let Some(event) = self.line_ended()? {
                        return Ok((at, event));
                    }
                }
            }
        }
    }

    fn blob(&mut self, rest: &[u8], left: u64) -> (usize, Option<Event>) {
        let used = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        // The CRLF is no part of the text.
        let text = usize::try_from(left.saturating_sub(2)).unwrap_or(usize::MAX).min(used);
        let limit = if self.kind == Some(b'!') { ERROR_MAX } else { WORD_MAX };
        if self.keeps() {
            let room = limit.saturating_sub(self.word.len()).min(text);
            self.word.extend_from_slice(rest.get(..room).unwrap_or_default());
        }
        let left = left - used as u64;
        if left > 0 {
            self.step = Step::Blob(left);
            return (used, None);
        }
        self.step = Step::Line;
        (used, self.element_ended())
    }

    /// Whether what is being read is kept: the reply itself, or its first element.
    fn keeps(&self) -> bool {
        self.attributes == 0 && self.elements <= 1
    }

    /// Reads up to the end of a line.
    fn gather(&mut self, rest: &[u8]) -> Result<(usize, bool), OutOfStep> {
        let (used, ended) = match memchr::memchr(b'\n', rest) {
            Some(place) => (place + 1, true),
            None => (rest.len(), false),
        };
        let piece = rest.get(..used).unwrap_or_default();
        let kind = self.line.first().or_else(|| piece.first()).copied().unwrap_or_default();
        let (limit, is_header) = match kind {
            b'-' => (ERROR_MAX, false),
            b'+' | b'#' | b',' | b'(' => (WORD_MAX, false),
            b':' | b'_' | b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|' => (NUMBER_MAX + 3, true),
            other => return Err(OutOfStep(format!("no reply begins with {other:#04x}"))),
        };
        let room = limit.saturating_sub(self.line.len()).min(piece.len());
        self.line.extend_from_slice(piece.get(..room).unwrap_or_default());
        self.read = self.read.saturating_add(piece.len() as u64);
        if is_header && self.read > (NUMBER_MAX + 3) as u64 {
            return Err(OutOfStep("a length of too many digits".to_owned()));
        }
        let cr = match piece {
            [.., before, b'\n'] => *before == b'\r',
            [b'\n'] => self.cr,
            [.., last] => {
                self.cr = *last == b'\r';
                false
            }
            [] => false,
        };
        // A line feed alone ends nothing.
        if ended && !cr {
            self.cr = false;
        }
        Ok((used, ended && cr))
    }

    /// A line is there, whole.
    fn line_ended(&mut self) -> Result<Option<Event>, OutOfStep> {
        let mut line = std::mem::take(&mut self.line);
        let read = std::mem::take(&mut self.read);
        self.cr = false;
        // What was cut has no CRLF at its end.
        if read == line.len() as u64 {
            line.truncate(line.len().saturating_sub(2));
        }
        let Some((&kind, text)) = line.split_first() else { return Ok(None) };
        let event = self.begin(kind, text);
        self.line = line;
        self.line.clear();
        event
    }

    fn begin(&mut self, kind: u8, text: &[u8]) -> Result<Option<Event>, OutOfStep> {
        let own = self.kind.is_none() && self.attributes == 0;
        if kind == b'|' {
            let count = count(text)?.saturating_mul(2);
            match own {
                true => self.attributes = count,
                false if self.attributes > 0 => self.attributes = sum(self.attributes, count)?,
                false => self.open = sum(self.open, count)?,
            }
            return Ok(None);
        }
        if own {
            self.kind = Some(kind);
            self.open = 1;
        } else if self.attributes == 0 {
            self.elements += 1;
        }
        match kind {
            b'$' | b'=' | b'!' => {
                if kind == b'$' && text == b"-1" {
                    self.keep(text);
                    return Ok(self.element_ended());
                }
                // Of its length and its CRLF.
                self.step = Step::Blob(sum(count(text)?, 2)?);
                Ok(None)
            }
            b'*' | b'~' | b'>' | b'%' => {
                if kind == b'*' && text == b"-1" {
                    self.keep(text);
                    return Ok(self.element_ended());
                }
                let count = count(text)?;
                let count = if kind == b'%' { count.saturating_mul(2) } else { count };
                if self.attributes > 0 {
                    self.attributes = sum(self.attributes, count)? - 1;
                    return Ok(None);
                }
                self.open = sum(self.open, count)? - 1;
                if own {
                    if self.open == 0 {
                        self.step = Step::Done;
                    }
                    return Ok(Some(Event::Head(kind, count)));
                }
                Ok(self.after_element())
            }
            _ => {
                if kind == b':' {
                    self.integer = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                }
                self.keep(text);
                Ok(self.element_ended())
            }
        }
    }

    fn keep(&mut self, text: &[u8]) {
        if self.keeps() && self.word.is_empty() {
            self.word.extend_from_slice(text);
        }
    }

    /// A scalar or a blob ended.
    fn element_ended(&mut self) -> Option<Event> {
        if self.attributes > 0 {
            self.attributes -= 1;
            return None;
        }
        self.open = self.open.saturating_sub(1);
        self.after_element()
    }

    fn after_element(&mut self) -> Option<Event> {
        if self.open == 0 {
            self.step = Step::Done;
        }
        if self.elements == 1 {
            return Some(Event::First);
        }
        (self.open == 0).then_some(Event::End)
    }
}

fn count(text: &[u8]) -> Result<u64, OutOfStep> {
    let number = crate::frame::number(text).and_then(|number| u64::try_from(number).ok());
    number.ok_or_else(|| OutOfStep(format!("{} is no length", text.escape_ascii())))
}

fn sum(left: u64, right: u64) -> Result<u64, OutOfStep> {
    left.checked_add(right).ok_or_else(|| OutOfStep("more elements than can be counted".to_owned()))
}

#[cfg(test)]
mod tests;
