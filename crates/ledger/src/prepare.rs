//! What of an entry can be made before its index is known: in the caller's own thread, outside of any shared lock.

use std::cell::Cell;

use verbatim_core::event::kind;
use verbatim_core::{AuditEvent, SessionId, json};

use crate::LedgerError;
use crate::chain::Chain;
use crate::envelope::{self, FieldWriter};
use crate::frame::ENVELOPE_BYTES_MAX;
use crate::payload::{self, NAME_BYTES_MAX, PART_BYTES_MAX, PARTS_MAX, Place};

/// What index, times, `sprev`, `cid` and the keys in between take at most.
const LATER_BYTES_MAX: usize = 256;
/// An envelope that is this long takes no more parts.
const TAIL_BYTES_FULL: usize = ENVELOPE_BYTES_MAX - 4096;
/// Buffers that grew beyond this are not kept for the next entry.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// One entry, missing what only its place in the ledger gives it.
#[derive(Default)]
pub(crate) struct Prepared {
    /// The payload frames.
    pub(crate) payload: Vec<u8>,
    /// From `kind` up to the value of `sprev`.
    pub(crate) head: Vec<u8>,
    /// From the fields of the kind to the end.
    pub(crate) tail: Vec<u8>,
}

/// An entry and the `chunk` entries in which its payload goes on; they are appended together.
#[derive(Default)]
pub(crate) struct Group {
    entries: Vec<Prepared>,
    used: usize,
    /// The operation's place in its session, where the event states one.
    pub(crate) operation: Option<u64>,
}

thread_local! {
    static SCRATCH: Cell<Option<Group>> = const { Cell::new(None) };
}

impl Group {
    /// Takes this thread's buffers, so that an entry costs no allocation of its own.
    pub(crate) fn scratch() -> Self {
        SCRATCH.take().unwrap_or_default()
    }

    /// Gives them back.
    pub(crate) fn recycle(mut self) {
        self.entries.truncate(1);
        for entry in &mut self.entries {
            for buffer in [&mut entry.payload, &mut entry.head, &mut entry.tail] {
                buffer.clear();
                buffer.shrink_to(KEPT_BYTES_MAX);
            }
        }
        self.used = 0;
        SCRATCH.set(Some(self));
    }

    pub(crate) fn entries(&mut self) -> &mut [Prepared] {
        self.entries.get_mut(..self.used).unwrap_or_default()
    }

    fn begin(&mut self) {
        if self.entries.len() == self.used {
            self.entries.push(Prepared::default());
        }
        self.used += 1;
    }

    fn last(&mut self) -> Option<&mut Prepared> {
        self.entries.get_mut(self.used.checked_sub(1)?)
    }

    /// Prepares `event` as the next entry of `chain`.
    pub(crate) fn prepare(
        &mut self,
        event: &dyn AuditEvent,
        origin: &str,
        session: Option<SessionId>,
        chain: &Chain,
    ) -> Result<(), LedgerError> {
        self.used = 0;
        self.begin();
        let mut out_of_range = false;
        let mut operation = None;
        if let Some(entry) = self.last() {
            envelope::put_head(&mut entry.head, event.kind(), session, chain.next);
            let mut fields = FieldWriter::new(&mut entry.tail);
            event.visit(&mut fields);
            (out_of_range, operation) = (fields.out_of_range, fields.operation);
            if event.kind() == kind::SESSION_CLOSE {
                for (name, count) in chain.counts.named() {
                    entry.tail.push(b',');
                    json::string(&mut entry.tail, name);
                    entry.tail.push(b':');
                    json::unsigned(&mut entry.tail, count);
                }
            }
            entry.tail.extend_from_slice(br#","pay":["#);
        }
        if out_of_range {
            return Err(LedgerError::OutOfOrder { what: "a number beyond 2^53 − 1" });
        }
        self.operation = operation;
        let mut parts = Parts { group: self, origin, session, sequence: chain.next, part: 0, failed: None };
        event.payload(&mut |name, bytes| parts.put(name, bytes));
        if let Some(error) = parts.failed {
            return Err(error);
        }
        self.finish(origin)
    }

    fn finish(&mut self, origin: &str) -> Result<(), LedgerError> {
        for entry in self.entries() {
            entry.tail.extend_from_slice(b"]}");
            let length = origin.len() + LATER_BYTES_MAX + entry.head.len() + entry.tail.len();
            if length > ENVELOPE_BYTES_MAX {
                return Err(LedgerError::TooLarge { length, limit: ENVELOPE_BYTES_MAX });
            }
        }
        Ok(())
    }
}

/// Distributes an event's payload over frames, and over `chunk` entries where one envelope doesn't hold it all.
struct Parts<'a> {
    group: &'a mut Group,
    origin: &'a str,
    session: Option<SessionId>,
    sequence: u64,
    part: u32,
    failed: Option<LedgerError>,
}

impl Parts<'_> {
    fn put(&mut self, name: &str, bytes: &[u8]) {
        if name.len() > NAME_BYTES_MAX {
            self.failed = Some(LedgerError::TooLarge { length: name.len(), limit: NAME_BYTES_MAX });
        }
        if bytes.is_empty() {
            self.piece(name, bytes);
        }
        for piece in bytes.chunks(PART_BYTES_MAX) {
            self.piece(name, piece);
        }
    }

    fn piece(&mut self, name: &str, piece: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let full = self.group.last().is_none_or(|entry| entry.tail.len() > TAIL_BYTES_FULL);
        if self.part == PARTS_MAX || full {
            self.go_on(name);
        }
        let session = self.session.map_or([0; 16], |id| *id.as_bytes());
        let place = Place { session, sequence: self.sequence, part: self.part };
        let Some(entry) = self.group.last() else { return };
        let put = payload::put(&mut entry.payload, &mut entry.tail, self.origin, &place, name, piece);
        self.failed = put.err();
        self.part += 1;
    }

    /// Begins a `chunk` entry for the rest of the part `name`.
    fn go_on(&mut self, name: &str) {
        self.sequence += 1;
        self.part = 0;
        self.group.begin();
        let operation = self.group.operation;
        let (session, sequence) = (self.session, self.sequence);
        let Some(entry) = self.group.last() else { return };
        envelope::put_head(&mut entry.head, kind::CHUNK, session, sequence);
        let mut fields = FieldWriter::new(&mut entry.tail);
        verbatim_core::Visitor::field(&mut fields, "seq", operation.into());
        verbatim_core::Visitor::field(&mut fields, "stream", verbatim_core::Value::Text(name));
        entry.tail.extend_from_slice(br#","pay":["#);
    }
}
