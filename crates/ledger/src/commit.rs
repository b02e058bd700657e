//! Group commit without a timer: while one sync runs, the next batch fills.
//!
//! With [`SyncMode::Always`] one thread takes the oldest batch, writes it with its commit in one call, syncs, and wakes
//! those who wait for it, each once. What nobody waits for (an outcome) is committed with the next batch that somebody
//! waits for, or after [`UNWANTED_MAX`]. With [`SyncMode::Within`] whoever waits first writes all that is pending, in its
//! own thread; the committer signs and syncs within the time given.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::log::Inner;
use crate::note::Checkpoint;
use crate::sequencer::Batch;
use crate::settings::SYNC_BOUNDS;
use crate::writer::{Writer, Written};
use crate::{LedgerError, SyncMode};

/// How long an entry that nobody waits for may stay uncommitted.
const UNWANTED_MAX: Duration = Duration::from_millis(10);

/// What waiters and the committer share.
#[derive(Default)]
pub(crate) struct Control {
    waiters: Vec<(u64, Waker)>,
    /// How many entries somebody waits for.
    wanted: u64,
    pub(crate) stop: bool,
}

impl Inner {
    /// The committer's thread.
    pub(crate) fn commit_until_stopped(&self) {
        let _guard = DiesWithThread(self);
        while self.wait_for_work() {
            if self.commit_round().is_err() {
                return;
            }
        }
        // What was appended before the end is committed too.
        while self.pending() && self.commit_round().is_ok() {}
    }

    fn pending(&self) -> bool {
        self.appended.load(SeqCst) > self.committed.load(SeqCst)
    }

    /// Sleeps until there is something to commit; false once the log is closed.
    fn wait_for_work(&self) -> bool {
        let patience = match self.settings.sync {
            SyncMode::Always => UNWANTED_MAX,
            SyncMode::Within(time) => time,
        };
        let mut control = self.control.lock();
        let mut waited = false;
        loop {
            if control.stop {
                return false;
            }
            let pending = self.pending();
            if pending && (waited || control.wanted > self.committed.load(SeqCst)) {
                return true;
            }
            if pending || !waited {
                waited = self.signal.wait_for(&mut control, patience).timed_out();
                continue;
            }
            // Whoever appends from now on sees `idle`, or is seen here.
            self.idle.store(true, SeqCst);
            if !self.pending() {
                self.signal.wait(&mut control);
            }
            self.idle.store(false, SeqCst);
            waited = false;
        }
    }

    /// Wakes the committer if it sleeps without an end in sight.
    pub(crate) fn nudge(&self) {
        if self.idle.load(SeqCst) {
            let _control = self.control.lock();
            self.signal.notify_one();
        }
    }

    /// Writes, signs, syncs and publishes: one batch, or with [`SyncMode::Within`] all there is.
    pub(crate) fn commit_round(&self) -> Result<(), LedgerError> {
        self.check_alive()?;
        let written = match self.settings.sync {
            SyncMode::Always => self.write_one(),
            SyncMode::Within(_) => self.flush().and_then(|()| self.commit_written()),
        }?;
        let Written { file, checkpoint } = written;
        let began = Instant::now();
        self.alive(file.sync())?;
        self.count_sync(began.elapsed());
        if let Some(checkpoint) = checkpoint {
            self.publish(checkpoint);
        }
        self.look_at_space();
        Ok(())
    }

    fn write_one(&self) -> Result<Written, LedgerError> {
        let mut writer = self.writer.lock();
        let Some(batch) = self.take_batch() else { return self.alive(writer.commit()) };
        let written = self.alive(writer.write(&batch, true, &self.spares))?;
        self.segment_room.store(writer.room(), SeqCst);
        self.written.store(writer.frontier.size(), SeqCst);
        self.counters.lock().bytes += batch.bytes;
        let mut sequencer = self.sequencer.lock();
        sequencer.recycle(batch);
        Ok(written)
    }

    fn take_batch(&self) -> Option<Batch> {
        let mut sequencer = self.sequencer.lock();
        let batch = sequencer.take();
        self.queued.store(sequencer.queued_bytes(), SeqCst);
        self.room.notify_all();
        batch
    }

    /// Signs what is written.
    fn commit_written(&self) -> Result<Written, LedgerError> {
        let written = self.alive(self.writer.lock().commit())?;
        if let Some(writer) = self.let_go() {
            self.flush_with(writer)?;
        }
        Ok(written)
    }

    /// Writes all that is pending, without a commit.
    pub(crate) fn flush(&self) -> Result<(), LedgerError> {
        self.flush_with(self.writer.lock())
    }

    /// Writes all that is pending, also what those wait for who found the writer taken meanwhile.
    fn flush_with<'w>(&'w self, mut writer: MutexGuard<'w, Writer>) -> Result<(), LedgerError> {
        loop {
            self.write_pending(&mut writer)?;
            let sealed = writer.sealed.take();
            drop(writer);
            if let Some(checkpoint) = sealed {
                self.publish(checkpoint);
            }
            match self.let_go() {
                Some(again) => writer = again,
                None => return Ok(()),
            }
        }
    }

    fn write_pending(&self, writer: &mut Writer) -> Result<(), LedgerError> {
        loop {
            self.check_alive()?;
            let Some(batch) = self.sequencer.lock().take() else { break };
            self.room.notify_all();
            self.alive(writer.write(&batch, false, &self.spares))?;
            self.counters.lock().bytes += batch.bytes;
            self.sequencer.lock().recycle(batch);
        }
        self.segment_room.store(writer.room(), SeqCst);
        self.written.store(writer.frontier.size(), SeqCst);
        Ok(())
    }

    /// After the writer was let go: wakes those whose entries are written. Where others are left, takes it again, unless
    /// somebody has it: whoever that is comes here after.
    fn let_go(&self) -> Option<MutexGuard<'_, Writer>> {
        if self.settings.sync == SyncMode::Always {
            return None;
        }
        let left = self.wake_below(self.written.load(SeqCst));
        if left { self.writer.try_lock() } else { None }
    }

    /// Wakes those who wait for the first `reached` entries, each once; says whether others still wait.
    fn wake_below(&self, reached: u64) -> bool {
        let mut ready = Vec::new();
        let left = {
            let mut control = self.control.lock();
            control.waiters.retain(|(index, waker)| {
                let waits = *index >= reached;
                if !waits {
                    ready.push(waker.clone());
                }
                waits
            });
            !control.waiters.is_empty()
        };
        ready.into_iter().for_each(Waker::wake);
        left
    }

    /// A checkpoint is durable: those who wait for its entries go on, those who deliver it may.
    fn publish(&self, checkpoint: Checkpoint) {
        let size = checkpoint.size;
        {
            let mut newest = self.newest.lock();
            if newest.as_ref().is_some_and(|newest| newest.size >= size) {
                return;
            }
            *newest = Some(checkpoint);
            self.committed.store(size, SeqCst);
        }
        self.counters.lock().batches += 1;
        self.published.send_replace(size);
        self.wake_below(size);
        self.wake_maintenance();
    }

    fn count_sync(&self, time: Duration) {
        let bucket = SYNC_BOUNDS.iter().position(|bound| time <= *bound).unwrap_or(SYNC_BOUNDS.len());
        let mut counters = self.counters.lock();
        counters.sync_total += time;
        if let Some(count) = counters.sync_counts.get_mut(bucket) {
            *count += 1;
        }
    }

    /// Passes a result on; a failure is the end of the log: what the disk holds is not known any more, and a sync that
    /// failed once may succeed the next time although data is lost.
    fn alive<T>(&self, result: std::io::Result<T>) -> Result<T, LedgerError> {
        result.map_err(|error| self.die(error.to_string()))
    }

    fn die(&self, reason: String) -> LedgerError {
        if self.dead.set(reason.clone()).is_ok() {
            tracing::error!(
                reason,
                "the ledger is dead: nothing is recorded, and nothing forwarded, any more"
            );
        }
        let waiters = std::mem::take(&mut self.control.lock().waiters);
        waiters.into_iter().for_each(|(_, waker)| waker.wake());
        self.room.notify_all();
        LedgerError::Dead { reason }
    }

    pub(crate) fn check_alive(&self) -> Result<(), LedgerError> {
        match self.dead.get() {
            None => Ok(()),
            Some(reason) => Err(LedgerError::Dead { reason: reason.clone() }),
        }
    }

    /// Whether the entry is durable in the sense of the mode; none while that is not known.
    pub(crate) fn is_durable(&self, index: u64) -> Option<Result<(), LedgerError>> {
        let reached = match self.settings.sync {
            SyncMode::Always => self.committed.load(SeqCst),
            SyncMode::Within(_) => self.written.load(SeqCst),
        };
        if index < reached {
            return Some(Ok(()));
        }
        self.check_alive().err().map(Err)
    }
}

/// A committer that panics takes the log with it: nobody must wait for ever.
struct DiesWithThread<'a>(&'a Inner);

impl Drop for DiesWithThread<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.die("the committer panicked".to_owned());
        }
    }
}

/// Resolves when an entry is durable.
pub(crate) struct Durable {
    pub(crate) inner: Arc<Inner>,
    pub(crate) index: u64,
    pub(crate) registered: Option<Waker>,
    /// It let the others of its thread go first.
    pub(crate) yielded: bool,
}

impl Future for Durable {
    type Output = Result<(), LedgerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(known) = this.inner.is_durable(this.index) {
            return Poll::Ready(known);
        }
        if this.index >= this.inner.appended.load(SeqCst) {
            return Poll::Ready(Err(LedgerError::OutOfOrder { what: "there is no such entry yet" }));
        }
        let writes = matches!(this.inner.settings.sync, SyncMode::Within(_));
        // Whatever else its thread has at hand is appended first: one write then does for all of it.
        if writes && !std::mem::replace(&mut this.yielded, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Who finds nobody writing writes for all; who finds somebody is woken by them, and its thread goes on meanwhile.
        if writes && let Some(writer) = this.inner.writer.try_lock() {
            return Poll::Ready(this.inner.flush_with(writer));
        }
        let mut control = this.inner.control.lock();
        // It may have become durable, or the log dead, just before the lock was had.
        if let Some(known) = this.inner.is_durable(this.index) {
            return Poll::Ready(known);
        }
        if !this.registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            this.registered = Some(context.waker().clone());
            control.waiters.push((this.index, context.waker().clone()));
        }
        if writes {
            drop(control);
            // Whoever wrote may have looked for waiters just before this one was there.
            return match this.inner.writer.try_lock() {
                Some(writer) => Poll::Ready(this.inner.flush_with(writer)),
                None => Poll::Pending,
            };
        }
        control.wanted = control.wanted.max(this.index + 1);
        this.inner.signal.notify_one();
        Poll::Pending
    }
}
