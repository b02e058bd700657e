//! The target's answers, matched to what was asked: passed on as they came, and gathered into outcomes.
//!
//! ```text
//! VALUE a 0 5\r\nhello\r\nEND\r\n        STORED\r\n        VA 5 t0\r\nhello\r\n        STAT pid 7\r\nEND\r\n
//! ```
//!
//! Lines that begin with `VALUE`, `STAT`, `ITEM` or `PREFIX` have another behind them, every other line ends an answer; `VALUE`
//! and `VA` have a data block. Behind what may have no answer stands the gateway's own `mn`: up to its `MN` every line is
//! an answer to that, and none says that it was run and there was nothing to say.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use verbatim_core::{Content, Outcome, Recorded, Refusal, Status, TargetError};

use crate::frame::{DATA_END, without_end};
use crate::operation::Reply;

/// What the gateway sends behind a command that may have no answer, and what comes back.
pub(crate) const FENCE: &[u8] = b"mn\r\n";
pub(crate) const FENCE_ANSWER: &[u8] = b"MN";
/// How long a line of an answer may be.
const LINE_MAX: usize = 8 << 10;

/// What the client waits for.
pub(crate) enum Entry {
    /// The target's answer to an operation, and what was streamed with it.
    Asked(Recorded, Reply, Option<Content>),
    /// Words of the gateway's own, at their place.
    Said(Bytes),
}

/// Why the target's bytes cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// They are not the protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// They have to be recorded, and cannot be.
    #[error(transparent)]
    NotRecorded(#[from] Refusal),
}

/// What is waited for, and how much of the first answer has come.
#[derive(Default)]
pub(crate) struct Answers {
    queue: VecDeque<Entry>,
    /// So many bytes of a data block are still to come.
    block: usize,
    /// Another line belongs to the answer.
    goes_on: bool,
    rows: Option<u64>,
    bytes: u64,
    error: Option<TargetError>,
    /// What the client receives is recorded.
    keep: bool,
}

impl Answers {
    pub(crate) fn new(keep: bool) -> Self {
        Self { keep, ..Self::default() }
    }

    pub(crate) fn expect(&mut self, entry: Entry) {
        self.queue.push_back(entry);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether the client's stream is between two answers.
    pub(crate) const fn is_between(&self) -> bool {
        self.block == 0 && !self.goes_on
    }

    /// Moves what the client can be given from `input` to `out`; what is left there is not whole, or nobody asked for it.
    ///
    /// # Errors
    /// See [`Broken`]; `out` has what came before.
    pub(crate) fn receive(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<(), Broken> {
        loop {
            while let Some(Entry::Said(words)) = self.queue.front() {
                out.extend_from_slice(words);
                self.queue.pop_front();
            }
            let Some(Entry::Asked(_, reply, _)) = self.queue.front() else { return Ok(()) };
            let reply = *reply;
            if self.block > 0 && !input.is_empty() {
                let piece = input.split_to(self.block.min(input.len()));
                self.block -= piece.len();
                self.pass(&piece, out)?;
                self.end_of_line(reply);
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', input) else {
                let endless = input.len() > LINE_MAX;
                return if endless { Err(Broken::Protocol("a line without an end")) } else { Ok(()) };
            };
            let line = input.split_to(end + 1);
            match reply {
                Reply::End => return Err(Broken::Protocol("an answer to quit")),
                Reply::Quiet | Reply::Never if without_end(&line) == FENCE_ANSWER && !self.goes_on => {
                    self.complete()
                }
                _ => {
                    self.read(without_end(&line))?;
                    self.pass(&line, out)?;
                    self.end_of_line(reply);
                }
            }
        }
    }

    /// What a line says.
    fn read(&mut self, line: &[u8]) -> Result<(), Broken> {
        let mut words = line.split(|byte| *byte == b' ');
        let first = words.next().unwrap_or_default();
        self.block = match first {
            b"VALUE" => block(words.nth(2))?,
            b"VA" => block(words.next())?,
            _ => 0,
        };
        self.goes_on = matches!(first, b"VALUE" | b"STAT" | b"ITEM" | b"PREFIX");
        match first {
            b"VALUE" | b"STAT" | b"ITEM" | b"PREFIX" => self.rows = Some(self.rows.unwrap_or(0) + 1),
            b"END" => self.rows = self.rows.or(Some(0)),
            b"VA" | b"HD" | b"ME" | b"STORED" | b"DELETED" | b"TOUCHED" => self.rows = Some(1),
            b"EN" | b"NF" | b"NS" | b"EX" | b"NOT_FOUND" | b"NOT_STORED" | b"EXISTS" => self.rows = Some(0),
            b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => {
                let message = line.get(first.len() + 1..).unwrap_or(line);
                let (code, message) = (readable(first), readable(message));
                self.error = Some(TargetError { code, message });
            }
            number if !number.is_empty() && number.iter().all(u8::is_ascii_digit) => self.rows = Some(1),
            _ => {}
        }
        Ok(())
    }

    /// Hands bytes of the answer on, recorded first where that is wanted.
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
        if let (true, Some(Entry::Asked(recorded, ..))) = (self.keep, self.queue.front()) {
            recorded.result(bytes)?;
        }
        self.bytes += bytes.len() as u64;
        out.extend_from_slice(bytes);
        Ok(())
    }

    /// A line, or what is there of its data block, was passed on.
    fn end_of_line(&mut self, reply: Reply) {
        if self.is_between() && reply == Reply::Due {
            self.complete();
        }
    }

    /// The first operation is answered.
    fn complete(&mut self) {
        let Some(Entry::Asked(recorded, reply, content)) = self.queue.pop_front() else { return };
        let error = self.error.take();
        let status = if error.is_some() { Status::Error } else { Status::Ok };
        let silent = self.bytes == 0 && reply != Reply::End;
        recorded.complete(&Outcome {
            rows: self.rows.take(),
            bytes: Some(std::mem::take(&mut self.bytes)),
            messages: silent.then(|| "run without an answer, as asked".to_owned()).into_iter().collect(),
            content,
            error,
            ..Outcome::new(status)
        });
    }

    /// The target closed its stream: to `quit` that is the answer. What else was asked stays without one.
    pub(crate) fn end(&mut self) {
        if let Some(Entry::Asked(_, Reply::End, _)) = self.queue.front() {
            self.complete();
        }
        self.queue.clear();
    }
}

/// The length of a data block, with its end.
fn block(digits: Option<&[u8]>) -> Result<usize, Broken> {
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    let length = digits.and_then(|digits| digits.parse::<u32>().ok());
    length.map(|length| length as usize + DATA_END.len()).ok_or(Broken::Protocol("a value without a length"))
}

/// Text, escaped where it is none.
fn readable(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.escape_ascii().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use parking_lot::Mutex;
    use proptest::prelude::*;
    use verbatim_core::{BoxFuture, ChunkStream, Journal, Permit};

    use super::*;

    /// What came of each operation.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Journal for Notes {
        fn is_durable(&self, _: u64) -> Option<Result<(), Refusal>> {
            Some(Ok(()))
        }
        fn durable(&self, _: u64) -> BoxFuture<'_, Result<(), Refusal>> {
            Box::pin(std::future::ready(Ok(())))
        }
        fn chunk(&self, _: u64, _: u64, _: ChunkStream, _: &[u8]) -> Result<Option<u64>, Refusal> {
            Ok(None)
        }
        fn complete(&self, entry: u64, _: u64, _: Instant, outcome: &Outcome) {
            let Outcome { status, rows, bytes, .. } = outcome;
            self.0.lock().push(format!("{entry} {} {rows:?} {bytes:?}", status.as_str()));
        }
        fn abort(&self, entry: u64, _: u64) {
            self.0.lock().push(format!("{entry} aborted"));
        }
    }

    /// What the client gets of these bytes, and what came of what was asked.
    fn receive(replies: &[Reply], pieces: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
        let notes = Arc::new(Notes::default());
        let mut answers = Answers::new(true);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (entry, reply) in (1..).zip(replies) {
            let permit = Permit::new(notes.clone(), entry, entry, Instant::now());
            let recorded = runtime.block_on(permit.recorded()).unwrap();
            answers.expect(Entry::Asked(recorded, *reply, None));
        }
        let (mut input, mut out) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            if answers.receive(&mut input, &mut out).is_err() {
                break;
            }
        }
        drop(answers);
        let notes = std::mem::take(&mut *notes.0.lock());
        (out, notes)
    }

    fn replies() -> impl Strategy<Value = Vec<Reply>> {
        let reply = prop_oneof![Just(Reply::Due), Just(Reply::Quiet), Just(Reply::Never), Just(Reply::End)];
        proptest::collection::vec(reply, 0..5)
    }

    proptest! {
        #[test]
        fn any_bytes_of_a_target_in_any_split_come_to_the_same(
            replies in replies(),
            bytes in "(VALUE a 0 3( 9)?\r\nabc\r\n|VA 2\r\nhi\r\n|END\r\n|MN\r\n|STORED\r\n|EN\r\n|ERROR\r\n|STAT a 1\r\n|[0-9]{1,12}|\r\n|VALUE |VA |\\PC){0,12}",
            split in 0_usize..100,
        ) {
            let bytes = bytes.as_bytes();
            let (first, second) = bytes.split_at(split.min(bytes.len()));
            let whole = receive(&replies, &[bytes]);
            prop_assert_eq!(&receive(&replies, &[first, second]), &whole);
            // Nothing is made up, and every operation has one outcome.
            prop_assert!(whole.0.len() <= bytes.len());
            prop_assert_eq!(whole.1.len(), replies.len());
        }
    }
}
