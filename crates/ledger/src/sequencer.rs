//! The one order of the log: what is done to every entry under the shared lock, about a microsecond each.

use std::collections::VecDeque;

use verbatim_core::{Timestamp, json};

use crate::envelope;
use crate::frame::{self, HEADER_BYTES, Kind};
use crate::hash::Hash;
use crate::prepare::Prepared;
use crate::tree::leaf_hash;

/// A batch takes no more entries when it has this many.
pub(crate) const BATCH_ENTRIES_MAX: usize = 1024;
/// A batch takes no more entries when it has this many bytes; one larger entry is a batch of its own.
pub(crate) const BATCH_BYTES_MAX: u64 = 1 << 20;
/// Payload beyond this is moved into the batch, not copied.
const MOVED_BYTES_MIN: usize = 64 << 10;
/// Batches whose buffers are kept for the next ones.
const RECYCLED_MAX: usize = 4;

/// Entries that are written and signed together.
#[derive(Default)]
pub(crate) struct Batch {
    /// The frames, in order.
    pub(crate) buffers: Vec<Vec<u8>>,
    /// How many bytes they are.
    pub(crate) bytes: u64,
    /// The entries' leaves, in order.
    pub(crate) leaves: Vec<Hash>,
    closed: bool,
}

impl Batch {
    fn clear(&mut self) {
        self.buffers.truncate(1);
        for buffer in &mut self.buffers {
            buffer.clear();
            buffer.shrink_to(2 * MOVED_BYTES_MIN);
        }
        self.bytes = 0;
        self.leaves.clear();
        self.closed = false;
    }

    /// The buffer to which small frames are appended.
    fn open_buffer(&mut self) -> &mut Vec<u8> {
        if self.buffers.is_empty() {
            self.buffers.push(Vec::new());
        }
        let last = self.buffers.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "the list is not empty, and this is its last")]
        &mut self.buffers[last]
    }

    fn put_payload(&mut self, payload: &mut Vec<u8>) {
        self.bytes += payload.len() as u64;
        if payload.len() < MOVED_BYTES_MIN {
            self.open_buffer().extend_from_slice(payload);
        } else {
            self.buffers.push(std::mem::take(payload));
            self.buffers.push(Vec::new());
        }
    }
}

/// Gives entries their index and time, and collects them in batches.
pub(crate) struct Sequencer {
    next: u64,
    last_time: u64,
    queue: VecDeque<Batch>,
    queued_bytes: u64,
    recycled: Vec<Batch>,
    /// The most bytes of a batch of several entries.
    batch_bytes: u64,
    /// What every envelope begins with, and what stands between `mono` and `kind`.
    prefix: Vec<u8>,
    boot: Vec<u8>,
    /// Nothing is taken any more.
    pub(crate) closed: bool,
}

/// What became of a group.
pub(crate) struct Sequenced {
    /// The index of its first entry.
    pub(crate) first: u64,
    /// The leaf of its last one.
    pub(crate) leaf: Hash,
    /// The index of the next entry.
    pub(crate) next: u64,
    /// The wall clock was set back since the entry before.
    pub(crate) clock_back: bool,
}

/// How far the wall clock may go back without mention.
pub(crate) const CLOCK_BOUND_NANOS: u64 = 1_000_000_000;

impl Sequencer {
    pub(crate) fn new(origin: &str, boot: &str, next: u64, batch_bytes: u64) -> Self {
        let mut between = br#","boot":"#.to_vec();
        json::string(&mut between, boot);
        Self {
            next,
            last_time: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            recycled: Vec::new(),
            batch_bytes,
            prefix: envelope::prefix(origin),
            boot: between,
            closed: false,
        }
    }

    /// Bytes that wait for being written.
    pub(crate) const fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// The oldest batch that was not taken yet.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let batch = self.queue.pop_front()?;
        self.queued_bytes -= batch.bytes;
        Some(batch)
    }

    /// Takes a written batch's buffers back.
    pub(crate) fn recycle(&mut self, mut batch: Batch) {
        if self.recycled.len() < RECYCLED_MAX {
            batch.clear();
            self.recycled.push(batch);
        }
    }

    /// Appends a group whose frames take up to `bytes`.
    pub(crate) fn append(
        &mut self,
        entries: &mut [Prepared],
        bytes: u64,
        mut previous: Option<Hash>,
        answers: Option<u64>,
    ) -> Sequenced {
        let first = self.next;
        let mut batch = self.batch_for(bytes, entries.len());
        let before = batch.bytes;
        let mut answers = answers;
        let mut clock_back = false;
        let mut leaf = Hash::default();
        for entry in entries {
            let time = Timestamp::now().as_nanos();
            clock_back |= time.saturating_add(CLOCK_BOUND_NANOS) < self.last_time;
            self.last_time = time;
            batch.put_payload(&mut entry.payload);
            let out = batch.open_buffer();
            let from = out.len();
            let start = frame::begin(out, Kind::Envelope);
            out.extend_from_slice(&self.prefix);
            json::unsigned(out, self.next);
            out.extend_from_slice(br#","ts":"#);
            envelope::quoted(out, time);
            out.extend_from_slice(br#","mono":"#);
            envelope::quoted(out, mono_now());
            out.extend_from_slice(&self.boot);
            out.extend_from_slice(&entry.head);
            envelope::put_links(out, previous.as_ref(), answers);
            out.extend_from_slice(&entry.tail);
            leaf = leaf_hash(out.get(start + HEADER_BYTES..).unwrap_or_default());
            frame::finish(out, start);
            let length = out.len() - from;
            batch.bytes += length as u64;
            batch.leaves.push(leaf);
            previous = Some(leaf);
            // What goes on in further entries answers the first.
            answers = Some(first);
            self.next += 1;
        }
        self.queued_bytes += batch.bytes - before;
        self.queue.push_back(batch);
        Sequenced { first, leaf, next: self.next, clock_back }
    }

    /// The batch that takes a group; it is put back behind the others.
    fn batch_for(&mut self, bytes: u64, entries: usize) -> Batch {
        let fits = |batch: &Batch| {
            !batch.closed
                && batch.bytes + bytes <= self.batch_bytes
                && batch.leaves.len() + entries <= BATCH_ENTRIES_MAX
        };
        if let Some(batch) = self.queue.pop_back_if(|batch| fits(batch)) {
            return batch;
        }
        let mut batch = self.recycled.pop().unwrap_or_default();
        batch.closed = bytes > self.batch_bytes;
        batch
    }
}

/// Nanoseconds since the machine was booted, time asleep included.
pub(crate) fn mono_now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or_default())
}
