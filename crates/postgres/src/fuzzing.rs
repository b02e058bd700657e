//! What `fuzz/` feeds with any bytes: the parts of this crate that a peer reaches, without sockets. Nothing else uses it;
//! it is here because those parts are nobody else's to call.

use std::sync::Arc;

use bytes::Bytes;
use verbatim_wire::fuzzing::{Counts, pieces};

use crate::frame::{self, Reader};
use crate::operation::{Batch, CopyBatch, Frontend, Memory, Settled, Step, Turn, View};
use crate::results::{Answer, Copy, Entry, Results};
use crate::startup::{bearer, packet::Packet};

/// What a message may measure here: small, so that inputs reach the limit.
const MESSAGE_MAX: u64 = 4096;

/// Bytes as a stream of the client's messages, and a message's body by each way to read one.
pub fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(head)) = frame::client_head(rest, MESSAGE_MAX) {
        assert!(head.length >= frame::HEADER, "a message without a header");
        assert!(head.length as u64 <= MESSAGE_MAX.max(10_000) + 1, "a message over the limit");
        rest = rest.get(head.length..).unwrap_or_default();
    }
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    // Each round takes at least a byte, or fails.
    while reader.u8("kind").is_ok() {
        let count = reader.count(2, "count").unwrap_or_default();
        assert!(count.saturating_mul(2) <= reader.rest().len(), "a count of more than there is");
        let _ = (reader.text("text"), reader.value("value"), reader.u32("number"));
    }
    assert!(reader.rest().is_empty() && reader.end("end").is_ok(), "bytes were lost");
}

/// Bytes as the packet that a client begins with, and as a SASL initial response.
pub fn startup(bytes: &[u8]) {
    if let Ok(Packet::StartupMessage(message)) = Packet::read(Bytes::copy_from_slice(bytes)) {
        let _ = (message.wants_replication(), message.options().count());
        assert!(message.parameter(b"user").len() <= bytes.len(), "a name out of nowhere");
    }
    let _ = bearer::initial(bytes);
}

/// A session in its ready phase, by a script: each piece is a byte of flags (1: the target sends it; 2: operations in it
/// are refused), a byte of length, and that many bytes, which both sides' machines take as the relay would.
///
/// What must hold for any script: what is forwarded is a part of what came, every operation that was recorded gets one
/// end, and what is put between the target's bytes is put inside of them.
pub fn session(script: &[u8]) {
    let mut session = Session::new();
    for piece in pieces(script) {
        session.refusing = piece.refused;
        let goes_on = match piece.from_target {
            false => session.from_client(piece.bytes),
            true => session.from_target(piece.bytes),
        };
        if !goes_on {
            break;
        }
    }
    session.end();
}

struct Session {
    frontend: Frontend,
    memory: Memory,
    results: Results,
    counts: Arc<Counts>,
    /// What the client sent.
    sent: u64,
    /// What of it went to the target.
    forwarded: u64,
    refusing: bool,
    discarding: bool,
}

impl Session {
    fn new() -> Self {
        Self {
            frontend: Frontend::new(MESSAGE_MAX),
            memory: Memory::default(),
            results: Results::new(true),
            counts: Arc::default(),
            sent: 0,
            forwarded: 0,
            refusing: false,
            discarding: false,
        }
    }

    /// Whether the session goes on.
    fn from_client(&mut self, piece: &[u8]) -> bool {
        self.sent += piece.len() as u64;
        self.frontend.input.extend_from_slice(piece);
        self.frontend.scan();
        self.turns()
    }

    fn from_target(&mut self, piece: &[u8]) -> bool {
        let Ok(inserts) = self.results.receive(piece, &mut self.memory) else { return false };
        let mut before = 0;
        for (at, _) in &inserts.at {
            assert!(before <= *at && *at <= piece.len(), "an insert outside of what came");
            before = *at;
        }
        !inserts.last && self.turns()
    }

    fn turns(&mut self) -> bool {
        while self.results.has_room() {
            let view = View {
                copy_in: self.results.takes_data(),
                pending: !self.results.is_idle(),
                renaming: self.results.is_renaming(),
            };
            match self.frontend.turn(&mut self.memory, view) {
                Turn::Read | Turn::Stall => break,
                Turn::Broken(..) | Turn::Left => return false,
                Turn::Batch(batch) => {
                    if !self.batch(batch) {
                        return false;
                    }
                }
                Turn::Copy(batch) => self.copy(&batch),
            }
            let _ = self.results.due(&mut self.memory);
        }
        true
    }

    /// As the relay admits a batch.
    fn batch(&mut self, batch: Batch) -> bool {
        let mut from = 0;
        assert!(!batch.items.is_empty(), "a batch of nothing");
        for item in batch.items {
            assert!(from < item.end && item.end <= batch.bytes.len(), "a message outside of its batch");
            let length = (item.end - from) as u64;
            from = item.end;
            let refused =
                item.operation.as_ref().is_some_and(|draft| draft.refused.is_some() || self.refusing);
            let recorded = if item.operation.is_some() && !refused { self.counts.recorded() } else { None };
            if self.discarding && !matches!(item.step, Step::Sync | Step::Flush | Step::Terminate) {
                self.discard(&item.step);
                continue;
            }
            if refused {
                self.discard(&item.step);
                let alone = matches!(item.step, Step::Query(_) | Step::FunctionCall);
                self.discarding |= !alone;
                let entry = if alone { Entry::RefusedAlone } else { Entry::Refused };
                self.results.expect(entry(Bytes::from_static(b"E\0\0\0\x05\0")), &mut self.memory);
                continue;
            }
            let entry = match (item.step, recorded) {
                (Step::Query(text), Some(recorded)) => Entry::Query(recorded, text),
                (Step::FunctionCall, Some(recorded)) => Entry::FunctionCall(recorded),
                (Step::Execute(text), Some(recorded)) => Entry::Execute(recorded, text),
                (Step::Parse(change), recorded) => Entry::Parse(change, recorded),
                (Step::Bind(change), _) => Entry::Bind(change),
                (Step::CloseStatement(change), _) => Entry::CloseStatement(change),
                (Step::ClosePortal(change), _) => Entry::ClosePortal(change),
                (Step::DescribeStatement(name), _) => Entry::DescribeStatement(name),
                (Step::DescribePortal, _) => Entry::DescribePortal,
                (Step::Sync, _) => {
                    self.discarding = false;
                    Entry::Sync(Answer::Due)
                }
                (Step::Terminate, _) => return false,
                (Step::Flush | Step::Refused, _) => continue,
                (Step::Query(_) | Step::FunctionCall | Step::Execute(_), None) => {
                    unreachable!("an operation without a record")
                }
            };
            self.forwarded += length;
            self.results.expect(entry, &mut self.memory);
        }
        assert!(from == batch.bytes.len(), "bytes behind the last message of a batch");
        true
    }

    fn discard(&mut self, step: &Step) {
        match step {
            Step::Parse(change) | Step::CloseStatement(change) => {
                self.memory.statements.settle(change, Settled::Kept);
            }
            Step::Bind(change) | Step::ClosePortal(change) => {
                self.memory.portals.settle(change, Settled::Kept)
            }
            _ => {}
        }
    }

    fn copy(&mut self, batch: &CopyBatch) {
        assert!(batch.content.len() <= batch.bytes.len() && !batch.bytes.is_empty(), "data out of nowhere");
        let lent = if self.results.data_is_refused() { None } else { self.results.lend_copy() };
        let Some(mut copy) = lent else {
            if batch.ended && !self.results.data_is_refused() {
                self.results.data_ended(false);
            }
            return;
        };
        if self.refusing {
            self.results.data_ended(true);
            return;
        }
        self.record(&mut copy);
        copy.add(&batch.content);
        self.results.return_copy(copy);
        for _ in 0..batch.syncs {
            self.results.expect(Entry::Sync(Answer::IfCopyFails), &mut self.memory);
        }
        if batch.ended {
            self.results.data_ended(false);
        }
        self.forwarded += batch.bytes.len() as u64;
    }

    fn record(&self, copy: &mut Copy) {
        if copy.recorded().is_none()
            && let Some(recorded) = self.counts.recorded()
        {
            copy.begin(recorded);
        }
    }

    fn end(mut self) {
        self.frontend.end_of_input();
        self.turns();
        self.results.end();
        assert!(self.forwarded <= self.sent, "more was forwarded than came");
        let counts = Arc::clone(&self.counts);
        drop(self);
        counts.assert_ended();
    }
}
