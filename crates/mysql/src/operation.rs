//! Commands from the client → operations: which bytes may go to the target together, and what they ask for.
//!
//! Nothing is re-encoded: a [`Batch`] is the bytes as they came, and for each command in them what it does. Commands that
//! came together are decided together, up to one whose fate decides how the next is read (a new statement, new types,
//! long data).
//!
//! ```text
//! read → scan (packets' headers) → cut (whole commands) → command (text, parameters by what is remembered) → Batch
//! ```
//!
//! Where a command's meaning depends on an answer that has not come, reading stalls until it has ([`Turn::Stall`]): those
//! that use a prepared statement wait for what may prepare it, and everything waits for a statement that may ask for a
//! file of the client, since what follows it would be the file.

mod command;
mod lexer;
mod statement;

use bytes::{Buf, Bytes, BytesMut};
use verbatim_core::{Operation, Parameter, Part, Refusal};

use crate::frame::{self, HEADER, PAYLOAD_MAX, Scanned};
use crate::refusal::ErrorWords;
use crate::startup::packet::Login;
use crate::values::ValueType;
pub(crate) use lexer::{File, Kill};
pub(crate) use statement::Memory;

/// How many bytes of commands are decided together, unless one is longer.
const BATCH_BYTES: usize = 256 << 10;
/// How many are.
const BATCH_COMMANDS: usize = 256;
/// How much of an unreadable command is recorded.
pub(crate) const UNREADABLE_MAX: usize = 64 << 10;

/// What a command asks the target to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// It may ask for these files.
    Query(Vec<File>),
    Prepare(Bytes),
    Execute {
        statement: u32,
        types: Option<Vec<ValueType>>,
        cursor: bool,
        files: Vec<File>,
    },
    /// COM_STMT_BULK_EXECUTE.
    Bulk {
        statement: u32,
        types: Option<Vec<ValueType>>,
    },
    Fetch,
    /// COM_STMT_RESET.
    Reset(u32),
    /// COM_STMT_CLOSE, which has no answer.
    Close(u32),
    /// COM_STMT_SEND_LONG_DATA, which has no answer.
    LongData {
        statement: u32,
        parameter: u16,
        data: Bytes,
    },
    FieldList,
    /// What is answered by rows, and changes nothing here.
    Rows,
    /// What is answered by one packet, and changes nothing here.
    Simple,
    ResetConnection,
    /// Nothing: its operation is refused by the gateway itself, in these words if not in the usual ones.
    Refused(Option<ErrorWords>),
    /// The same, of a command that has no answer.
    RefusedSilently,
}

impl Step {
    /// Whether what uses a prepared statement has to wait for its answer.
    const fn decides_statements(&self) -> bool {
        matches!(self, Self::Prepare(_) | Self::ResetConnection)
    }

    /// Whether the command has no answer.
    pub(crate) const fn is_silent(&self) -> bool {
        matches!(self, Self::Close(_) | Self::LongData { .. } | Self::RefusedSilently)
    }
}

/// An operation before it has its number.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: &'static str,
    pub(crate) text: Option<Bytes>,
    pub(crate) parameters: Option<Vec<Parameter>>,
    pub(crate) parts: Vec<Part>,
    pub(crate) trace_id: Option<String>,
    pub(crate) refused: Option<Refusal>,
}

impl Draft {
    pub(crate) const fn new(kind: &'static str, text: Option<Bytes>) -> Self {
        Self { kind, text, parameters: None, parts: Vec::new(), trace_id: None, refused: None }
    }

    pub(crate) fn numbered(self, sequence: u64) -> Operation {
        Operation {
            text: self.text,
            parameters: self.parameters,
            parts: self.parts,
            trace_id: self.trace_id,
            refused: self.refused,
            ..Operation::new(sequence, self.kind)
        }
    }
}

/// One command of a batch.
#[derive(Debug)]
pub(crate) struct Item {
    /// Where it ends in the batch's bytes; it begins where the one before it ends.
    pub(crate) end: usize,
    /// The sequence of its answer's first packet.
    pub(crate) answer: u8,
    pub(crate) step: Step,
    pub(crate) draft: Draft,
}

/// Commands that may go to the target together, once they are recorded.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) items: Vec<Item>,
}

/// A piece of a file that the target asked for.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) bytes: Bytes,
    /// Where the contents of its packets are in it.
    pub(crate) contents: Vec<Bytes>,
    /// Whether the client ended it.
    pub(crate) ended: bool,
    /// The sequence behind its packets.
    pub(crate) next: u8,
}

/// What can be done with what was read.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nothing: more must be read.
    Read,
    /// Nothing until the target has answered something.
    Stall,
    /// These may be decided and forwarded.
    Batch(Batch),
    /// This file's piece may be recorded and forwarded.
    Data(Data),
    /// A KILL of a session that the gateway may know; if not, its bytes are the target's. `wire` tells whether it was
    /// COM_PROCESS_KILL.
    Kill { kill: Kill, wire: bool, draft: Draft, bytes: Bytes },
    /// A login in the middle of a session, with the sequence of its answer; everything before it is answered.
    ChangeUser { login: Result<Login, Refusal>, answer: u8 },
    /// COM_QUIT.
    Quit,
    /// The client broke the protocol: what was wrong, and the bytes, as many as are kept.
    Broken(Refusal, Bytes),
}

/// What the other direction knows at this moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct View {
    /// The target asked for a file: this is the sequence of its first packet.
    pub(crate) takes_data: Option<u8>,
    /// Something was forwarded that the target has not answered.
    pub(crate) pending: bool,
    /// What was forwarded may prepare or drop statements.
    pub(crate) preparing: bool,
    /// What was forwarded may ask for a file.
    pub(crate) may_load: bool,
}

/// What one command is.
enum Next {
    Item { step: Step, draft: Draft, cut: bool },
    Alone(Turn),
    Stall,
}

/// Where in a file's packets the client is.
#[derive(Debug, Clone, Copy)]
struct FilePlace {
    sequence: u8,
    /// What the packet lacks.
    left: usize,
    /// The packet is as long as can be, so that the next one goes on with it.
    full: bool,
}

/// Reads what the client sends.
#[derive(Debug)]
pub(crate) struct Frontend {
    /// Read, and not cut.
    pub(crate) input: BytesMut,
    /// Whole commands, not looked at.
    ready: Bytes,
    file: Option<FilePlace>,
    broken: Option<Refusal>,
    message_max: u64,
    capabilities: u64,
}

impl Frontend {
    /// `message_max` is how long a command may be; `capabilities` what the stream settled.
    pub(crate) fn new(message_max: u64, capabilities: u64) -> Self {
        Self {
            input: BytesMut::new(),
            ready: Bytes::new(),
            file: None,
            broken: None,
            message_max,
            capabilities,
        }
    }

    /// How many bytes the command that is being read still lacks; 0 where not even its header is whole.
    pub(crate) fn lacking(&self) -> usize {
        match frame::command(&self.input, self.message_max) {
            Ok(Scanned::Partial { lacking }) => lacking,
            _ => 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// The next thing to do.
    pub(crate) fn turn(&mut self, memory: &Memory, view: View) -> Turn {
        if let Some(sequence) = view.takes_data {
            return self.file_turn(sequence);
        }
        self.file = None;
        self.cut();
        if self.ready.is_empty() {
            return match self.broken.take() {
                Some(refusal) => Turn::Broken(refusal, self.unreadable()),
                None => Turn::Read,
            };
        }
        self.batch(memory, view)
    }

    /// Cuts off what is whole.
    fn cut(&mut self) {
        if !self.ready.is_empty() || self.broken.is_some() {
            return;
        }
        let mut whole = 0;
        while whole < BATCH_BYTES {
            match frame::command(self.input.get(whole..).unwrap_or_default(), self.message_max) {
                Ok(Scanned::Whole { wire, .. }) => whole += wire,
                Ok(Scanned::Partial { .. }) => break,
                // What came before it is done first.
                Err(refusal) => {
                    if whole == 0 {
                        self.broken = Some(refusal);
                    }
                    break;
                }
            }
        }
        self.ready = self.input.split_to(whole).freeze();
        if self.input.is_empty() {
            // The rest of the buffer belongs to what was cut; a session that idles keeps none.
            self.input = BytesMut::new();
        }
    }

    /// Commands, as many as may be decided together.
    fn batch(&mut self, memory: &Memory, view: View) -> Turn {
        let whole = self.ready.clone();
        let mut items: Vec<Item> = Vec::new();
        let mut end = 0;
        while items.len() < BATCH_COMMANDS {
            let rest = whole.get(end..).unwrap_or_default();
            let Ok(Scanned::Whole { wire, packets }) = frame::command(rest, u64::MAX) else { break };
            let bytes = whole.slice(end..end + wire);
            let preparing = view.preparing || items.iter().any(|item| item.step.decides_statements());
            let pending = view.pending || !items.is_empty();
            let now = View { preparing, pending, ..view };
            let answer = (packets % 256) as u8;
            let next = command::read(bytes, answer, memory, now, self.capabilities);
            match next {
                Next::Item { step, draft, cut } => {
                    end += wire;
                    items.push(Item { end, answer, step, draft });
                    if cut {
                        break;
                    }
                }
                Next::Alone(turn) if items.is_empty() => {
                    self.ready.advance(wire);
                    return turn;
                }
                Next::Stall if items.is_empty() => return Turn::Stall,
                Next::Alone(_) | Next::Stall => break,
            }
        }
        self.ready.advance(end);
        Turn::Batch(Batch { bytes: whole.slice(..end), items })
    }

    /// Pieces of the file that the target asked for.
    fn file_turn(&mut self, sequence: u8) -> Turn {
        if !self.ready.is_empty() {
            let reason = "a command where a file's content was due".into();
            return Turn::Broken(Refusal::Protocol { reason }, std::mem::take(&mut self.ready));
        }
        let mut place = self.file.unwrap_or(FilePlace { sequence, left: 0, full: false });
        let mut lengths = Vec::new();
        let mut ended = false;
        let mut at = 0;
        while !ended {
            let rest = self.input.get(at..).unwrap_or_default();
            if place.left > 0 {
                let here = place.left.min(rest.len());
                if here == 0 {
                    break;
                }
                lengths.push((at, here));
                at += here;
                place.left -= here;
                continue;
            }
            let Some(head) = rest.first_chunk::<HEADER>() else { break };
            if head[3] != place.sequence {
                let refusal = frame::out_of_order(head[3], place.sequence.into());
                return Turn::Broken(refusal, self.unreadable());
            }
            let length = frame::length_of(*head);
            // An empty packet ends the file, but for one that ends a packet of full length.
            ended = length == 0 && !place.full;
            place = FilePlace {
                sequence: place.sequence.wrapping_add(1),
                left: length,
                full: length == PAYLOAD_MAX,
            };
            at += HEADER;
        }
        self.file = (!ended).then_some(place);
        if at == 0 {
            return Turn::Read;
        }
        let bytes = self.input.split_to(at).freeze();
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        let contents = lengths.into_iter().map(|(from, length)| bytes.slice(from..from + length)).collect();
        Turn::Data(Data { bytes, contents, ended, next: place.sequence })
    }

    fn unreadable(&mut self) -> Bytes {
        let length = self.input.len().min(UNREADABLE_MAX);
        self.input.split_to(length).freeze()
    }
}

#[cfg(test)]
mod tests;
