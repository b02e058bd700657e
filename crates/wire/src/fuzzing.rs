//! What fuzzing shares among the interceptors: a journal that counts, and scripts of what two peers send. Nothing else uses
//! it; it is here because those who do are each in a crate of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use verbatim_core::{BoxFuture, ChunkStream, Journal, Outcome, Permit, Recorded, Refusal};

/// A piece of a script.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// What is left to a target's own use, from 4 on.
    pub flags: u8,
    /// The target sends it, not the client.
    pub from_target: bool,
    /// Operations in it are refused.
    pub refused: bool,
    /// What is sent.
    pub bytes: &'a [u8],
}

/// The pieces of a script: each is a byte of flags (1: the target sends it; 2: operations in it are refused), a byte of
/// length, and that many bytes, or what is left.
pub fn pieces(script: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = script;
    std::iter::from_fn(move || {
        let [flags, length, tail @ ..] = rest else { return None };
        let (bytes, tail) = tail.split_at_checked(usize::from(*length)).unwrap_or((tail, &[]));
        rest = tail;
        Some(Piece { flags: *flags, from_target: flags & 1 != 0, refused: flags & 2 != 0, bytes })
    })
}

/// A journal that finds everything durable at once, and counts what was recorded and what ended.
#[derive(Debug, Default)]
pub struct Counts {
    opened: AtomicU64,
    ended: AtomicU64,
}

impl Counts {
    /// One more operation that was permitted and is durable.
    pub fn recorded(self: &Arc<Self>) -> Option<Recorded> {
        let number = self.opened.fetch_add(1, Relaxed) + 1;
        let permit = Permit::new(Arc::clone(self) as _, number, number, Instant::now());
        let mut recorded = Box::pin(permit.recorded());
        match recorded.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(recorded) => recorded.ok(),
            Poll::Pending => None,
        }
    }

    /// Asserts that every operation got one end: for when nothing holds one any more.
    ///
    /// # Panics
    /// One did not, or got two.
    pub fn assert_ended(&self) {
        let (opened, ended) = (self.opened.load(Relaxed), self.ended.load(Relaxed));
        assert!(opened == ended, "of {opened} recorded operations {ended} ended");
    }
}

impl Journal for Counts {
    fn is_durable(&self, _: u64) -> Option<Result<(), Refusal>> {
        Some(Ok(()))
    }

    fn durable(&self, _: u64) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }

    fn chunk(&self, _: u64, _: u64, _: ChunkStream, _: &[u8]) -> Result<Option<u64>, Refusal> {
        Ok(None)
    }

    fn complete(&self, _: u64, _: u64, _: Instant, _: &Outcome) {
        self.ended.fetch_add(1, Relaxed);
    }

    fn abort(&self, _: u64, _: u64) {
        self.ended.fetch_add(1, Relaxed);
    }
}
