//! Packets from the target → outcomes: each answer is matched to what was forwarded, in order.
//!
//! What was forwarded stands in a queue ([`Entry`]); the target answers it from the front. What the gateway itself answers has
//! a place in the queue too, so that it comes after the answers to what stood before it. Packets are walked by their
//! lengths, in whatever pieces they come; of rows nothing but the first byte is looked at.
//!
//! ```text
//! result    := OK | ERR | LOCAL INFILE … (OK | ERR) | columns, definitions, [EOF], rows, (EOF | OK | ERR)
//! answer    := result { result }        while SERVER_MORE_RESULTS_EXISTS
//! prepare   := ERR | OK, parameters' definitions, [EOF], columns' definitions, [EOF]
//! ```
//!
//! (MySQL 9 source documentation, "Command Phase"; MariaDB knowledge base, "Result Set Packets".)

mod entry;
mod outcome;
mod walk;

use std::collections::VecDeque;

use bytes::Bytes;
use verbatim_core::{Outcome, Recorded, Refusal, Status, TargetError};

use crate::answer::{self, CURSOR_EXISTS, Done, EOF, ERR, ErrPacket, LOCAL_INFILE, MORE_RESULTS, OK};
use crate::capability::{DEPRECATE_EOF, PROGRESS};
use crate::frame::{PAYLOAD_MAX, Reader};
use crate::operation::Memory;
pub(crate) use entry::{Asked, Entry, FileContent, Inserts};
use outcome::Progress;
pub(crate) use walk::OutOfStep;
use walk::{Walk, Walked};

/// How many commands may wait for the target's answer before nothing more is read from the client.
pub(crate) const PENDING_MAX: usize = 1024;
/// The longest payload of an EOF packet of the older form, and one more.
const EOF_END: u64 = 9;

/// Where in an answer the target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At its beginning, or at that of another result.
    Start,
    /// So many definitions are to come, then (without [`DEPRECATE_EOF`]) an EOF, then rows.
    Definitions(u64),
    DefinitionsEnd,
    Rows,
    /// The client sends a file.
    File,
    /// Of a prepared statement: so many definitions (and EOFs) of parameters, then of columns.
    Prepared {
        parameters: u64,
        columns: u64,
    },
}

/// Matches what the target sends to what was forwarded.
#[derive(Debug)]
pub(crate) struct Results {
    queue: VecDeque<Entry>,
    capabilities: u64,
    place: Place,
    progress: Progress,
    walk: Walk,
    /// The file that the target asked for: what the client sends is its content.
    file: Option<FileContent>,
    /// The sequence of the file's first packet; there while the client sends it.
    takes_data: Option<u8>,
    /// How the statement ended while the other direction had its file at hand.
    file_ended: Option<Option<TargetError>>,
    /// The server's status flags, as last heard.
    status: u16,
    /// Whether what the client gets is recorded.
    record_results: bool,
    /// The target told the client that, and why, the session ends.
    said_farewell: bool,
    /// Where what was passed on ends.
    passed: Passed,
}

/// Where in the target's packets the client is: not where the walk is, while what it looked at is not passed on.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// At the end of a payload.
    boundary: bool,
    /// The last packet's sequence.
    sequence: u8,
    /// Something of the answer at the front was passed on.
    began: bool,
}

/// Why nothing more of the target can be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    OutOfStep(#[from] OutOfStep),
    #[error(transparent)]
    NotRecorded(#[from] Refusal),
}

impl Results {
    pub(crate) fn new(capabilities: u64, status: u16, record_results: bool) -> Self {
        Self {
            queue: VecDeque::new(),
            capabilities,
            place: Place::Start,
            progress: Progress::default(),
            walk: Walk::default(),
            file: None,
            takes_data: None,
            file_ended: None,
            status,
            record_results,
            said_farewell: false,
            passed: Passed { boundary: true, sequence: 0, began: false },
        }
    }

    /// Something is about to be forwarded, or was answered in its place.
    pub(crate) fn expect(&mut self, entry: Entry) {
        self.queue.push_back(entry);
    }

    /// Whether everything that was forwarded is answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether an operation runs.
    pub(crate) fn is_running(&self) -> bool {
        self.queue.iter().any(|entry| matches!(entry, Entry::Forwarded { .. }))
    }

    /// Whether more may be forwarded before answers come.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < PENDING_MAX
    }

    /// Whether what was forwarded may prepare or drop statements.
    pub(crate) fn is_preparing(&self) -> bool {
        self.asked().any(|asked| matches!(asked, Asked::Prepare(_) | Asked::ResetConnection))
    }

    /// Whether what was forwarded may ask for a file.
    pub(crate) fn may_load(&self) -> bool {
        self.asked().any(|asked| matches!(asked, Asked::Result { files, .. } if !files.is_empty()))
    }

    fn asked(&self) -> impl Iterator<Item = &Asked> {
        self.queue.iter().filter_map(|entry| match entry {
            Entry::Forwarded { asked, .. } => Some(asked),
            _ => None,
        })
    }

    /// The sequence of the first packet of the file that the client sends.
    pub(crate) const fn takes_data(&self) -> Option<u8> {
        self.takes_data
    }

    /// The server's status flags, for an OK of the gateway's own.
    pub(crate) const fn status(&self) -> u16 {
        self.status
    }

    /// Whether a packet of the gateway's own can be put where the target's bytes end, and is not one too many; its
    /// sequence.
    pub(crate) fn can_say_why(&self) -> Option<u8> {
        let free = self.passed.boundary && !self.said_farewell && self.takes_data.is_none();
        free.then(|| match self.queue.front() {
            Some(Entry::Forwarded { answer, .. }) if !self.passed.began => *answer,
            Some(_) => self.passed.sequence.wrapping_add(1),
            None => 1,
        })
    }

    /// Whether the target is in the middle of a file, where a command would be content.
    pub(crate) fn is_loading(&self) -> bool {
        self.place == Place::File
    }

    /// What is due at the front without any word of the target, if its last packet is whole.
    pub(crate) fn due(&mut self) -> Inserts {
        let mut inserts = Inserts::default();
        if self.walk.at_boundary() {
            self.insert(0, &mut inserts);
        }
        inserts
    }

    fn insert(&mut self, at: usize, inserts: &mut Inserts) {
        while let Some(Entry::Own(_) | Entry::Last(_)) = self.queue.front() {
            match self.queue.pop_front() {
                Some(Entry::Own(packet)) => inserts.at.push((at, packet)),
                Some(Entry::Last(packet)) => {
                    inserts.at.push((at, packet));
                    inserts.last = true;
                    return;
                }
                _ => return,
            }
        }
    }

    /// Takes what the target sent, and says what is to be put between it on its way to the client.
    ///
    /// # Errors
    /// The target is out of step; of these bytes, none may be passed on. Or what the client would get cannot be recorded.
    pub(crate) fn receive(&mut self, bytes: &Bytes, memory: &mut Memory) -> Result<Inserts, Broken> {
        let mut inserts = Inserts::default();
        if self.walk.at_boundary() {
            self.insert(0, &mut inserts);
        }
        let mut at = 0;
        // Where the part of an answer that is not recorded yet begins.
        let mut from = 0;
        while !inserts.last
            && let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty())
        {
            match self.walk.step(rest)? {
                Walked::Within => at = bytes.len(),
                Walked::Packet { payload, length, used, body } => {
                    let end = at + used;
                    let packet = match body {
                        Some(range) => bytes.slice(at + range.start..at + range.end),
                        None => self.walk.kept(),
                    };
                    self.progress.sent(length);
                    if self.packet(&packet, payload, memory)? {
                        self.record(bytes, from, end)?;
                        from = end;
                        self.finish();
                    }
                    at = end;
                    self.insert(at, &mut inserts);
                }
            }
        }
        self.record(bytes, from, at)?;
        self.passed = Passed {
            boundary: self.walk.at_boundary(),
            sequence: self.walk.sequence(),
            began: self.progress.began(),
        };
        Ok(inserts)
    }

    /// Records a part of what the client gets of the operation at the front.
    fn record(&self, bytes: &[u8], from: usize, to: usize) -> Result<(), Refusal> {
        match (self.queue.front(), bytes.get(from..to)) {
            (Some(Entry::Forwarded { recorded, asked, .. }), Some(part))
                if self.record_results && asked.has_result() && !part.is_empty() =>
            {
                recorded.result(part)
            }
            _ => Ok(()),
        }
    }

    /// One packet of the target; whether the answer at the front ends with it.
    fn packet(&mut self, packet: &Bytes, length: u64, memory: &mut Memory) -> Result<bool, OutOfStep> {
        let first = packet.first().copied();
        let Some(Entry::Forwarded { asked, .. }) = self.queue.front() else {
            // Out of the blue: the target says why it is about to leave.
            if first != Some(ERR) {
                return Err(self.out_of_step(first));
            }
            self.said_farewell = true;
            return Ok(false);
        };
        if first == Some(ERR) {
            let error = ErrPacket::read(packet);
            if error.code == answer::PROGRESS && self.capabilities & PROGRESS != 0 {
                return Ok(false);
            }
            match asked {
                Asked::Prepare(_) => memory.prepared(None),
                Asked::Result { .. }
                | Asked::Rows
                | Asked::Definitions
                | Asked::Simple
                | Asked::ResetConnection => {}
            }
            self.progress.failed(error.error());
            return Ok(true);
        }
        match asked {
            Asked::Result { .. } => self.result(packet, length, first),
            Asked::Rows => self.row(packet, length, first),
            Asked::Definitions => {
                if self.is_end(first, length) {
                    self.end_of_rows(packet)?;
                    return Ok(true);
                }
                Ok(false)
            }
            Asked::Simple => self.simple(packet, first),
            Asked::ResetConnection => {
                memory.clear();
                self.simple(packet, first)
            }
            Asked::Prepare(_) => self.prepare(packet, first, memory),
        }
    }

    /// A packet that is the whole answer: OK, EOF, or a text.
    fn simple(&mut self, packet: &Bytes, first: Option<u8>) -> Result<bool, OutOfStep> {
        let done = match first {
            Some(EOF) if (packet.len() as u64) < EOF_END => Done::eof(packet.clone()),
            Some(OK | EOF) => Done::ok(packet.clone(), self.capabilities),
            // COM_STATISTICS.
            _ => return Ok(true),
        };
        if let Ok(done) = done {
            self.status = done.status;
            self.progress.done(Done { affected: None, ..done });
        }
        Ok(true)
    }

    fn result(&mut self, packet: &Bytes, length: u64, first: Option<u8>) -> Result<bool, OutOfStep> {
        match (self.place, first) {
            (Place::Start | Place::File, Some(OK)) => {
                let done = Done::ok(packet.clone(), self.capabilities).map_err(malformed)?;
                if self.place == Place::File {
                    self.end_file(None);
                }
                Ok(self.end_of_result(done))
            }
            (Place::Start, Some(LOCAL_INFILE)) => self.begin_file(packet),
            (Place::Start, _) => {
                let mut reader = Reader::new(packet.clone());
                let columns = reader.lenenc("column count").map_err(malformed)?;
                reader.end("column count").map_err(malformed)?;
                if columns == 0 {
                    return Err(self.out_of_step(first));
                }
                self.place = Place::Definitions(columns);
                Ok(false)
            }
            (Place::Definitions(left), _) => {
                self.place = match left {
                    2.. => Place::Definitions(left - 1),
                    _ if self.capabilities & DEPRECATE_EOF == 0 => Place::DefinitionsEnd,
                    _ => Place::Rows,
                };
                Ok(false)
            }
            (Place::DefinitionsEnd, Some(EOF)) if length < EOF_END => {
                let done = Done::eof(packet.clone()).map_err(malformed)?;
                self.status = done.status;
                let cursor = matches!(
                    self.queue.front(),
                    Some(Entry::Forwarded { asked: Asked::Result { cursor: true, .. }, .. })
                );
                if cursor && done.status & CURSOR_EXISTS != 0 {
                    return Ok(self.end_of_result(done));
                }
                self.place = Place::Rows;
                Ok(false)
            }
            (Place::Rows, _) => self.row(packet, length, first),
            (Place::DefinitionsEnd | Place::File | Place::Prepared { .. }, _) => Err(self.out_of_step(first)),
        }
    }

    /// The target asks for a file of the client: only one that the statement named (CVE-2019-2503 and its like).
    fn begin_file(&mut self, packet: &Bytes) -> Result<bool, OutOfStep> {
        let name = packet.slice(1..);
        let named = match self.queue.front() {
            Some(Entry::Forwarded { asked: Asked::Result { files, .. }, .. }) => {
                files.iter().any(|file| file.is(&name))
            }
            _ => false,
        };
        if !named {
            return Err(OutOfStep("it asks for a file that the statement does not name".to_owned()));
        }
        self.file = Some(FileContent::of(name));
        self.file_ended = None;
        self.takes_data = Some(self.walk.sequence().wrapping_add(1));
        self.place = Place::File;
        Ok(false)
    }

    /// Whether such a packet ends rows or definitions.
    fn is_end(&self, first: Option<u8>, length: u64) -> bool {
        let longest = if self.capabilities & DEPRECATE_EOF == 0 { EOF_END } else { PAYLOAD_MAX as u64 };
        first == Some(EOF) && length < longest
    }

    fn row(&mut self, packet: &Bytes, length: u64, first: Option<u8>) -> Result<bool, OutOfStep> {
        if self.is_end(first, length) {
            return self.end_of_rows(packet);
        }
        self.progress.row();
        Ok(false)
    }

    fn end_of_rows(&mut self, packet: &Bytes) -> Result<bool, OutOfStep> {
        let done = match self.capabilities & DEPRECATE_EOF {
            0 => Done::eof(packet.clone()),
            _ => Done::ok(packet.clone(), self.capabilities),
        };
        let done = done.map_err(malformed)?;
        Ok(self.end_of_result(Done { affected: None, ..done }))
    }

    /// A result ended; whether the answer did.
    fn end_of_result(&mut self, done: Done) -> bool {
        let more = done.status & MORE_RESULTS != 0;
        self.status = done.status;
        self.progress.done(done);
        self.place = Place::Start;
        !more
    }

    fn prepare(&mut self, packet: &Bytes, first: Option<u8>, memory: &mut Memory) -> Result<bool, OutOfStep> {
        let eof = self.capabilities & DEPRECATE_EOF == 0;
        let left = match self.place {
            Place::Start => {
                let mut reader = Reader::new(packet.slice(packet.len().min(1)..));
                let statement = reader.u32("statement").map_err(malformed)?;
                let columns = reader.u16("column count").map_err(malformed)?;
                let parameters = reader.u16("parameter count").map_err(malformed)?;
                let (Some(OK), Some(Entry::Forwarded { asked: Asked::Prepare(text), .. })) =
                    (first, self.queue.front_mut())
                else {
                    return Err(self.out_of_step(first));
                };
                memory.prepared(Some((statement, std::mem::take(text), parameters)));
                let of = |count: u16| u64::from(count) + u64::from(eof && count > 0);
                (of(parameters), of(columns))
            }
            Place::Prepared { parameters: 0, columns } => (0, columns.saturating_sub(1)),
            Place::Prepared { parameters, columns } => (parameters - 1, columns),
            _ => return Err(self.out_of_step(first)),
        };
        self.place = Place::Prepared { parameters: left.0, columns: left.1 };
        Ok(left == (0, 0))
    }

    /// The answer at the front is whole.
    fn finish(&mut self) {
        let loading = std::mem::replace(&mut self.place, Place::Start) == Place::File;
        let outcome = std::mem::take(&mut self.progress).outcome();
        if let Some(Entry::Forwarded { recorded, .. }) = self.queue.pop_front() {
            if loading {
                self.end_file(outcome.error.clone());
            }
            recorded.complete(&outcome);
        }
    }

    /// The statement that asked for the file has its answer; several may ask, one after the other.
    fn end_file(&mut self, error: Option<TargetError>) {
        self.takes_data = None;
        match self.file.take() {
            Some(file) => file.complete(error.as_ref()),
            None => self.file_ended = Some(error),
        }
    }

    /// The other direction takes the file's operation to add to it.
    pub(crate) fn lend_file(&mut self) -> Option<FileContent> {
        self.file_ended = None;
        self.file.take()
    }

    /// The other direction gives it back.
    pub(crate) fn return_file(&mut self, file: FileContent) {
        match self.file_ended.take() {
            Some(error) => file.complete(error.as_ref()),
            None => self.file = Some(file),
        }
    }

    /// The client ended the file.
    pub(crate) fn file_sent(&mut self) {
        self.takes_data = None;
    }

    /// The session is over: what was not answered is dropped with its permits, and so recorded as aborted.
    pub(crate) fn end(&mut self) {
        self.queue.clear();
        self.file = None;
    }

    fn out_of_step(&self, first: Option<u8>) -> OutOfStep {
        match first {
            Some(first) => {
                OutOfStep(format!("packet {first:#04x} at {:?} answers nothing that was asked", self.place))
            }
            None => OutOfStep(format!("an empty packet at {:?}", self.place)),
        }
    }
}

fn malformed(malformed: crate::frame::Malformed) -> OutOfStep {
    OutOfStep(malformed.to_string())
}

/// What an operation that the gateway carried out by itself came to.
pub(crate) fn complete_own(recorded: Recorded, error: Option<TargetError>) {
    let status = if error.is_some() { Status::Error } else { Status::Ok };
    recorded.complete(&Outcome { error, ..Outcome::new(status) });
}

#[cfg(test)]
mod tests;
