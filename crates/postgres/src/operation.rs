//! Messages from the client → operations: which bytes may go to the target together, and what they ask for.
//!
//! Bytes are cut at the ends of batches (Sync, Flush, Query, FunctionCall, Terminate), because only there is it known
//! whether a Parse is executed (`execute`) or not (`prepare`); a batch that grows beyond [`HELD_MAX`] is cut where it is,
//! and one whose client pauses before its end where [`Held`] says.
//! Nothing is re-encoded: a [`Batch`] is the bytes as they came, and for each message in them what it does.
//!
//! ```text
//! read → scan (headers alone) → cut → chunk (messages of one batch) → resolve (names → texts, parameters) → Batch
//! ```
//!
//! Where a name's meaning depends on an answer that has not come, or COPY data on whether the target wants any, parsing
//! stalls until it has ([`Turn::Stall`]).

mod held;
mod message;
mod names;
mod renames;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use verbatim_core::{Operation, Parameter, Refusal, trace};

use crate::frame::{self, HEADER, Malformed, Reader, client};
use held::Held;
use message::{Asks, Message, asks, ends_batch, is_copy};
pub(crate) use names::{Arguments, Change, Meaning, Names, Portal, Settled, Statement};
pub(crate) use renames::{Rename, renames};

/// How many bytes of an unfinished batch are held back for its Sync or Flush.
pub(crate) const HELD_MAX: usize = 256 << 10;
/// How much of an unreadable message is recorded.
const UNREADABLE_MAX: usize = 64 << 10;

/// What both directions know of a session's names.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) statements: Names<Statement>,
    pub(crate) portals: Names<Portal>,
}

/// What a message asks the target to do.
#[derive(Debug)]
pub(crate) enum Step {
    /// With its text, if that may change what names mean.
    Query(Option<Bytes>),
    FunctionCall,
    Parse(Change),
    Bind(Change),
    CloseStatement(Change),
    ClosePortal(Change),
    /// Of the statement of this name: what the target says of its parameters is kept there.
    DescribeStatement(Bytes),
    DescribePortal,
    /// With its text, if that may change what names mean.
    Execute(Option<Bytes>),
    Sync,
    Flush,
    Terminate,
    /// Nothing: its operation is refused by the gateway's own limits.
    Refused,
}

/// An operation before it has its number.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) kind: &'static str,
    pub(crate) text: Option<Bytes>,
    pub(crate) parameters: Option<Vec<Parameter>>,
    pub(crate) refused: Option<Refusal>,
}

impl Draft {
    pub(crate) const fn new(kind: &'static str, text: Option<Bytes>) -> Self {
        Self { kind, text, parameters: None, refused: None }
    }

    pub(crate) fn numbered(self, sequence: u64) -> Operation {
        Operation {
            trace_id: self.text.as_deref().and_then(trace::in_comment),
            text: self.text,
            parameters: self.parameters,
            refused: self.refused,
            ..Operation::new(sequence, self.kind)
        }
    }
}

/// One message of a batch.
#[derive(Debug)]
pub(crate) struct Item {
    /// Where it ends in the batch's bytes; it begins where the one before it ends.
    pub(crate) end: usize,
    pub(crate) step: Step,
    /// The operation that it is; most messages are none.
    pub(crate) operation: Option<Draft>,
}

impl Item {
    /// Whether it is SQL that may change what names mean.
    const fn renames(&self) -> bool {
        matches!(self.step, Step::Query(Some(_)) | Step::Execute(Some(_)))
    }
}

/// Messages that may go to the target together, once every operation among them is recorded.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) items: Vec<Item>,
}

/// COPY data from the client.
#[derive(Debug, Default)]
pub(crate) struct CopyBatch {
    pub(crate) bytes: Bytes,
    /// The data in it, without the messages' headers.
    pub(crate) content: Bytes,
    /// How many Syncs were among it, which the target ignores while it takes data.
    pub(crate) syncs: usize,
    /// Whether the client ended its data, well (CopyDone) or not (CopyFail).
    pub(crate) ended: bool,
}

/// What can be done with what was read.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nothing: more must be read.
    Read,
    /// Nothing until the target has answered something.
    Stall,
    /// The client said goodbye in the middle of its COPY data.
    Left,
    /// These may be decided and forwarded.
    Batch(Batch),
    /// This data may be recorded and forwarded.
    Copy(CopyBatch),
    /// The client broke the protocol: what was wrong, and the bytes, as many as are kept.
    Broken(Refusal, Bytes),
}

/// What the other direction knows at this moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// The target takes COPY data.
    pub(crate) copy_in: bool,
    /// Something was forwarded that the target has not answered.
    pub(crate) pending: bool,
    /// SQL was forwarded that may change what names mean, and the target has not answered it.
    pub(crate) renaming: bool,
}

/// Reads what the client sends.
#[derive(Debug)]
pub(crate) struct Frontend {
    /// Read, and not cut.
    pub(crate) input: BytesMut,
    /// How much of `input` is whole messages.
    scanned: usize,
    /// How much of it is whole batches.
    boundary: usize,
    /// Of the rest, what may go before its batch ends; made when it is first asked for.
    held: Option<Box<Held>>,
    /// An Execute is held that it was not asked about.
    executes: bool,
    /// How much of a CopyData's body the scan has not seen.
    data_unseen: usize,
    /// Cut, and not parsed.
    ready: Bytes,
    /// How much of a CopyData's body `ready` lacks the header of.
    data_left: usize,
    /// Parsed, and waiting for an answer of the target.
    stalled: Option<Chunk>,
    broken: Option<Refusal>,
    message_max: u64,
    /// Counts Syncs, Queries and FunctionCalls: what the target skips after an error ends with the segment.
    segment: u64,
}

/// The messages of one batch, their names not looked up.
#[derive(Debug, Default)]
struct Chunk {
    messages: Vec<Message>,
    length: usize,
}

impl Frontend {
    /// `message_max` is how long a message may be, without its kind.
    pub(crate) fn new(message_max: u64) -> Self {
        Self {
            input: BytesMut::new(),
            scanned: 0,
            boundary: 0,
            held: None,
            executes: false,
            data_unseen: 0,
            ready: Bytes::new(),
            data_left: 0,
            stalled: None,
            broken: None,
            message_max,
            segment: 1,
        }
    }

    /// Looks at the headers of what was read, and cuts off what can be parsed.
    pub(crate) fn scan(&mut self) {
        while self.broken.is_none() {
            if self.data_unseen > 0 {
                let here = self.data_unseen.min(self.input.len() - self.scanned);
                self.scanned += here;
                self.boundary = self.scanned;
                self.data_unseen -= here;
                if here == 0 {
                    break;
                }
                continue;
            }
            let rest = self.input.get(self.scanned..).unwrap_or_default();
            match frame::client_head(rest, self.message_max) {
                Err(refusal) => {
                    self.broken = Some(refusal);
                    self.boundary = self.scanned;
                }
                Ok(Some(head)) if head.kind == client::COPY_DATA => {
                    self.scanned += HEADER;
                    self.boundary = self.scanned;
                    self.data_unseen = head.length - HEADER;
                }
                Ok(Some(head)) if head.length <= rest.len() => {
                    self.scanned += head.length;
                    self.executes |= head.kind == client::EXECUTE;
                    if ends_batch(head.kind) || self.scanned - self.boundary > HELD_MAX {
                        self.boundary = self.scanned;
                    }
                }
                Ok(_) => break,
            }
        }
        self.cut();
    }

    /// The client sends no more: what is held back goes to the target, which would have had it by now.
    pub(crate) fn end_of_input(&mut self) {
        self.boundary = self.scanned;
        self.cut();
    }

    /// Whether [`release`](Self::release) may find something.
    pub(crate) const fn may_release(&self) -> bool {
        self.executes
    }

    /// The client pauses within a batch: what the target would have run by now need not wait for the batch's end.
    pub(crate) fn release(&mut self) {
        self.executes = false;
        let held = self.input.get(..self.scanned).unwrap_or_default();
        let free = self.held.get_or_insert_default().free(held, self.message_max);
        if self.boundary == 0 && free > 0 {
            self.boundary = free;
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.boundary == 0 || !self.ready.is_empty() {
            return;
        }
        self.ready = self.input.split_to(self.boundary).freeze();
        self.scanned -= self.boundary;
        self.boundary = 0;
        self.held = None;
        self.executes &= self.scanned > 0;
        if self.input.is_empty() {
            // The rest of the buffer belongs to what was cut; a session that idles keeps none.
            self.input = BytesMut::new();
        }
    }

    /// How many bytes the message that is being read still lacks; 0 where not even its header is whole.
    pub(crate) fn lacking(&self) -> usize {
        let rest = self.input.get(self.scanned..).unwrap_or_default();
        match frame::client_head(rest, self.message_max) {
            Ok(Some(head)) => head.length.saturating_sub(rest.len()),
            _ => 0,
        }
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.input.is_empty() && self.ready.is_empty()
    }

    /// What can be done next.
    pub(crate) fn turn(&mut self, memory: &mut Memory, view: View) -> Turn {
        let mut batch = Batch::default();
        let mut whole = self.ready.clone();
        let mut taken = 0;
        let mut renaming = view.renaming;
        loop {
            if view.copy_in {
                // What waits is not what the target waits for; its bytes are still in `ready`.
                self.stalled = None;
            }
            let at_data = self.data_left > 0 || self.ready.first().is_some_and(|kind| is_copy(*kind));
            if self.stalled.is_none() && (at_data || view.copy_in) {
                if taken > 0 || self.ready.is_empty() {
                    break;
                }
                if view.copy_in {
                    return self.copy_batch();
                }
                if view.pending {
                    return Turn::Stall;
                }
                // The target takes none and would discard it.
                self.drop_data();
                whole = self.ready.clone();
                continue;
            }
            let chunk = match self.stalled.take() {
                Some(chunk) => chunk,
                None if self.ready.is_empty() => break,
                None => match self.chunk() {
                    Ok(chunk) => chunk,
                    Err(malformed) => {
                        if self.broken.is_none() {
                            self.broken = Some(malformed.into());
                        }
                        break;
                    }
                },
            };
            if self.must_wait(&chunk, memory, renaming) {
                self.stalled = Some(chunk);
                if taken == 0 {
                    return Turn::Stall;
                }
                break;
            }
            if chunk.length == 0 {
                break;
            }
            self.ready.advance(chunk.length);
            let before = batch.items.len();
            self.resolve(chunk, taken, &mut batch.items, memory);
            renaming |= batch.items.iter().skip(before).any(Item::renames);
            taken = batch.items.last().map_or(taken, |item| item.end);
        }
        if taken > 0 {
            batch.bytes = whole.split_to(taken);
            return Turn::Batch(batch);
        }
        match (self.broken.take(), self.ready.is_empty()) {
            (Some(refusal), true) => Turn::Broken(refusal, self.unreadable(&self.input)),
            (Some(refusal), false) => Turn::Broken(refusal, self.unreadable(&self.ready)),
            (None, empty) => {
                if empty {
                    // An empty slice still holds on to its buffer; a session that idles keeps none.
                    self.ready = Bytes::new();
                }
                Turn::Read
            }
        }
    }

    fn unreadable(&self, bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes.get(..UNREADABLE_MAX).unwrap_or(bytes))
    }

    /// Reads the messages up to the end of a batch; takes nothing from `ready`.
    fn chunk(&self) -> Result<Chunk, Malformed> {
        let mut chunk = Chunk::default();
        let mut rest = self.ready.clone();
        while let Ok(Some(head)) = frame::client_head(&rest, self.message_max) {
            if is_copy(head.kind) || head.length > rest.len() {
                break;
            }
            let mut body = rest.split_to(head.length);
            body.advance(HEADER);
            match asks(head.kind, body) {
                Ok(asks) => {
                    chunk.length += head.length;
                    chunk.messages.push(Message { end: chunk.length, asks });
                }
                // What stands before it is served first.
                Err(_) if !chunk.messages.is_empty() => break,
                Err(malformed) => return Err(malformed),
            }
            if ends_batch(head.kind) {
                break;
            }
        }
        Ok(chunk)
    }

    /// Whether a name in `chunk` means what only an answer to an earlier segment can tell, or to SQL that may change names.
    fn must_wait(&self, chunk: &Chunk, memory: &Memory, renaming: bool) -> bool {
        if !renaming && memory.statements.is_settled() && memory.portals.is_settled() {
            return false;
        }
        let mut parsed = HashSet::new();
        let mut bound = HashSet::new();
        chunk.messages.iter().any(|message| match &message.asks {
            Asks::Parse { name, .. } | Asks::Close { statement: true, name } => {
                parsed.insert(name);
                false
            }
            Asks::Close { statement: false, name } => {
                bound.insert(name);
                false
            }
            Asks::Bind { portal, statement, .. } => {
                bound.insert(portal);
                !parsed.contains(statement)
                    && (renaming && !statement.is_empty() || self.is_unsettled(&memory.statements, statement))
            }
            Asks::Execute { portal } => {
                !bound.contains(portal)
                    && (renaming && !portal.is_empty() || self.is_unsettled(&memory.portals, portal))
            }
            _ => false,
        })
    }

    fn is_unsettled<T: names::Named>(&self, names: &Names<T>, name: &[u8]) -> bool {
        matches!(names.look_up(name, self.segment), Meaning::Unsettled)
    }

    /// Looks up the names of `chunk` and makes its operations.
    fn resolve(&mut self, chunk: Chunk, offset: usize, items: &mut Vec<Item>, memory: &mut Memory) {
        let mut parses = Vec::new();
        // Names after SQL of the same batch that may change them: what they mean is the target's to know.
        let mut renamed: Vec<Rename> = Vec::new();
        for message in chunk.messages {
            let segment = self.segment;
            let (step, operation) = match message.asks {
                Asks::Query { text } => {
                    self.segment += 1;
                    (Step::Query(renaming_text(Some(&text))), Some(Draft::new("query", Some(text))))
                }
                Asks::FunctionCall { body } => {
                    self.segment += 1;
                    (Step::FunctionCall, Some(function_call(body)))
                }
                Asks::Parse { name, statement } => {
                    let text = statement.text.clone();
                    match memory.statements.propose(&name, segment, Some(statement)) {
                        Ok(change) => {
                            if let Some(statement) = memory.statements.proposed(&change) {
                                parses.push((items.len(), statement));
                            }
                            (Step::Parse(change), None)
                        }
                        Err(refusal) => (Step::Refused, Some(refused("prepare", Some(text), refusal))),
                    }
                }
                Asks::Bind { portal, statement, arguments } => {
                    let hidden = renamed.iter().any(|rename| rename.concerns(&statement));
                    let statement = known(memory.statements.look_up(&statement, segment)).filter(|_| !hidden);
                    let text = statement.as_ref().map(|statement| statement.text.clone());
                    let bound = Portal::bound(statement, arguments);
                    match memory.portals.propose(&portal, segment, Some(bound)) {
                        Ok(change) => (Step::Bind(change), None),
                        Err(refusal) => (Step::Refused, Some(refused("execute", text, refusal))),
                    }
                }
                Asks::Execute { portal } => {
                    let portal = known(memory.portals.look_up(&portal, segment));
                    let draft = execute(portal.as_deref());
                    let renaming = renaming_text(draft.text.as_ref());
                    renamed.extend(renaming.iter().flat_map(renames));
                    (Step::Execute(renaming), Some(draft))
                }
                Asks::Close { statement: true, name } => {
                    match memory.statements.propose(&name, segment, None) {
                        Ok(change) => (Step::CloseStatement(change), None),
                        Err(refusal) => (Step::Refused, Some(refused("prepare", None, refusal))),
                    }
                }
                Asks::Close { statement: false, name } => {
                    match memory.portals.propose(&name, segment, None) {
                        Ok(change) => (Step::ClosePortal(change), None),
                        Err(refusal) => (Step::Refused, Some(refused("execute", None, refusal))),
                    }
                }
                Asks::Describe { statement: true, name } => {
                    (Step::DescribeStatement(Bytes::copy_from_slice(&name)), None)
                }
                Asks::Describe { statement: false, .. } => (Step::DescribePortal, None),
                Asks::Sync => {
                    self.segment += 1;
                    (Step::Sync, None)
                }
                Asks::Flush => (Step::Flush, None),
                Asks::Terminate => (Step::Terminate, None),
            };
            items.push(Item { end: offset + message.end, step, operation });
        }
        for (place, statement) in parses {
            if !statement.was_executed()
                && let Some(item) = items.get_mut(place)
            {
                item.operation = Some(Draft::new("prepare", Some(statement.text.clone())));
            }
        }
    }

    /// COPY data, as far as it is there.
    fn copy_batch(&mut self) -> Turn {
        let mut rest = self.ready.clone();
        let mut pieces = Vec::new();
        let mut batch = CopyBatch::default();
        while !batch.ended {
            if self.data_left > 0 {
                let here = self.data_left.min(rest.len());
                if here == 0 {
                    break;
                }
                pieces.push(rest.split_to(here));
                self.data_left -= here;
                continue;
            }
            let Ok(Some(head)) = frame::client_head(&rest, self.message_max) else { break };
            match head.kind {
                client::COPY_DATA => {
                    rest.advance(HEADER);
                    self.data_left = head.length - HEADER;
                    continue;
                }
                client::COPY_DONE | client::COPY_FAIL => batch.ended = true,
                client::SYNC => batch.syncs += 1,
                client::FLUSH => {}
                client::TERMINATE if self.ready.len() == rest.len() => return Turn::Left,
                client::TERMINATE => break,
                _ => {
                    let reason = "another message while the target takes COPY data".into();
                    self.broken.get_or_insert(Refusal::Protocol { reason });
                    break;
                }
            }
            rest.advance(head.length.min(rest.len()));
        }
        let taken = self.ready.len() - rest.len();
        if taken == 0 {
            let refusal = self.broken.take();
            return refusal.map_or(Turn::Read, |refusal| Turn::Broken(refusal, self.unreadable(&rest)));
        }
        batch.bytes = self.ready.split_to(taken);
        batch.content = match pieces.as_mut_slice() {
            [piece] => std::mem::take(piece),
            pieces => pieces.concat().into(),
        };
        Turn::Copy(batch)
    }

    /// Drops COPY messages that stand first.
    fn drop_data(&mut self) {
        loop {
            let here = self.data_left.min(self.ready.len());
            self.ready.advance(here);
            self.data_left -= here;
            match frame::client_head(&self.ready, self.message_max) {
                Ok(Some(head)) if head.kind == client::COPY_DATA => {
                    self.ready.advance(HEADER);
                    self.data_left = head.length - HEADER;
                }
                Ok(Some(head)) if is_copy(head.kind) => self.ready.advance(head.length.min(self.ready.len())),
                _ => return,
            }
            if self.ready.is_empty() {
                return;
            }
        }
    }
}

/// The text of an operation, if it may change what names mean.
fn renaming_text(text: Option<&Bytes>) -> Option<Bytes> {
    text.filter(|text| renames::may_rename(text) && !renames(text).is_empty()).cloned()
}

fn known<T>(meaning: Meaning<T>) -> Option<Arc<T>> {
    match meaning {
        Meaning::Known(value) => Some(value),
        Meaning::Unknown | Meaning::Unsettled => None,
    }
}

fn refused(kind: &'static str, text: Option<Bytes>, refusal: Refusal) -> Draft {
    Draft { refused: Some(refusal), ..Draft::new(kind, text) }
}

/// An Execute: the text is unknown (null in the record) where its portal was not made by a Bind that the gateway saw, or
/// from a statement that it did not see; the target alone knows it then.
fn execute(portal: Option<&Portal>) -> Draft {
    let statement = portal.and_then(Portal::statement);
    if let Some(statement) = statement {
        statement.note_executed();
    }
    let mut draft = Draft::new("execute", statement.map(|statement| statement.text.clone()));
    draft.parameters = portal.map(Portal::parameters);
    draft
}

/// A FunctionCall has no text; its parameters are the function's object id, then the arguments, whose types the target
/// alone knows.
fn function_call(body: Bytes) -> Draft {
    let mut reader = Reader::new(body.clone());
    let read = |reader: &mut Reader| -> Result<Vec<Parameter>, Malformed> {
        let function = reader.u32("function")?.to_string();
        let arguments = Portal::bound(None, Arguments::read_call(reader)?).parameters();
        let mut parameters = vec![crate::values::decode(OID_TYPE, 0, Some(function.as_bytes()))];
        parameters.extend(arguments);
        Ok(parameters)
    };
    let mut draft = Draft::new("function_call", None);
    match read(&mut reader) {
        Ok(parameters) => draft.parameters = Some(parameters),
        Err(malformed) => {
            draft.text = Some(body);
            draft.refused = Some(malformed.into());
        }
    }
    draft
}

/// The object id of the type `oid`.
const OID_TYPE: u32 = 26;

#[cfg(test)]
mod tests;
