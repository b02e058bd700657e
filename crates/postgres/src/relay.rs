//! The ready phase: both directions of a session, in one task.
//!
//! ```text
//! client ── read ── batch ── stack: permits ── durable ── queue ── write ──▸ target        (`Relay::up`)
//! client ◂── write ── the bytes as read ── matched to the queue: outcomes ── read ── target (`Relay::down`)
//! ```
//!
//! The directions are two futures of one task, so that neither waits for the other: while a batch waits for its record or
//! for a target that does not read, results flow; while a client does not read, nothing more is read from the target. Each
//! keeps at most one read (64 KiB, or one message of the client) and the queue at most [`PENDING_MAX`] entries.
//!
//! [`PENDING_MAX`]: crate::results::PENDING_MAX

mod ending;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;
use verbatim_core::{
    CloseReason, OpenSession, Opened, Operation, Operations, Outcome, RecordMode, Recorded, Refusal, Status,
};
use verbatim_wire::{ClientStream, Metrics, Shared, TargetStream, decide};

use crate::cancel::Registration;
use crate::frame::{self, client};
use crate::operation::{Batch, CopyBatch, Frontend, Item, Memory, Settled, Step, Turn, View};
use crate::refusal::{Phase, error_fields};
use crate::results::{Answer, Copy, Entry, Inserts, Results};
use ending::End;

/// How much is read at once: first, and when there was more.
const READ_FIRST: usize = 16 << 10;
const READ_MORE: usize = 64 << 10;
/// How much COPY data is read at once.
const READ_DATA: usize = 512 << 10;
/// How much room a message that is longer is given at a time.
const READ_LONG: usize = 1 << 20;
/// How large a recorded piece of content may be.
const CONTENT_MAX: usize = 1 << 20;
/// How long the target has to answer what is open when a session ends, and the client to take its last message.
const ENDING: Duration = Duration::from_secs(2);

/// What a relay is made of.
pub(crate) struct Parts {
    pub(crate) client: ClientStream,
    /// What was read from the client after its login.
    pub(crate) early: BytesMut,
    pub(crate) target: TargetStream,
    /// What was read from the target after its greeting.
    pub(crate) leftover: BytesMut,
    pub(crate) opened: Opened,
    pub(crate) registration: Registration,
    pub(crate) message_max: u64,
    pub(crate) idle: Option<Duration>,
    pub(crate) metrics: Arc<dyn Metrics>,
}

/// One session in its ready phase.
struct Relay {
    client: Shared<ClientStream>,
    target: Shared<TargetStream>,
    session: Arc<dyn OpenSession>,
    state: Mutex<State>,
    /// The target answered something that the way up may wait for.
    progress: Notify,
    /// Something is due to the client that the target does not bring.
    due: Notify,
    /// The way up should stop where it next could.
    stop: Notify,
    stopping: AtomicBool,
    /// The client sends no more: once everything is answered, the session is over.
    alone: AtomicBool,
    /// The client takes nothing more: outcomes are still gathered.
    deaf: AtomicBool,
    /// A write to the client is on its way: dropped then, it may leave half a message there.
    writing: AtomicBool,
    idle: Option<Duration>,
    metrics: Arc<dyn Metrics>,
}

/// What both directions share; locked for moments, never across a wait.
struct State {
    memory: Memory,
    results: Results,
}

/// The way up's own.
struct Up {
    frontend: Frontend,
    operations: Operations,
    /// After a refusal in a batch: nothing up to the next Sync is forwarded.
    discarding: bool,
    /// Messages were forwarded after which the target does not flush its answers by itself.
    unflushed: bool,
    /// The client sends no more.
    ended: bool,
    /// When the bytes that are being worked on were read.
    read_at: Instant,
}

/// Carries a session from its greeting to its end, and closes it.
pub(crate) async fn relay(parts: Parts) -> CloseReason {
    let Parts { client, early, target, leftover, opened, registration, message_max, idle, metrics } = parts;
    let Opened { session, operations } = opened;
    let relay = Relay {
        client: Shared::new(client),
        target: Shared::new(target),
        state: Mutex::new(State {
            memory: Memory::default(),
            results: Results::new(session.record() == RecordMode::Results),
        }),
        session,
        progress: Notify::new(),
        due: Notify::new(),
        stop: Notify::new(),
        stopping: AtomicBool::new(false),
        alone: AtomicBool::new(false),
        deaf: AtomicBool::new(false),
        writing: AtomicBool::new(false),
        idle,
        metrics,
    };
    let mut frontend = Frontend::new(message_max);
    frontend.input = early;
    frontend.scan();
    let up = Up {
        frontend,
        operations,
        discarding: false,
        unflushed: false,
        ended: false,
        read_at: Instant::now(),
    };
    let reason = relay.run(up, leftover, &registration).await;
    Box::pin(registration.settle()).await;
    relay.state.lock().results.end();
    relay.session.close(reason);
    // Neither side is waited for: the target ends with the stream, as it would without Terminate.
    let terminate = frame::message(client::TERMINATE, |_| {});
    let farewell = async {
        let _ = relay.target.write(&terminate).await;
        let _ = relay.client.shutdown().await;
    };
    let _ = timeout(ENDING, farewell).await;
    reason
}

impl Relay {
    async fn run(&self, mut up: Up, leftover: BytesMut, registration: &Registration) -> CloseReason {
        let ended = self.session.ended();
        let mut down = pin!(self.down(leftover));
        let end = {
            let mut going_up = pin!(self.up(&mut up));
            let end = tokio::select! {
                biased;
                end = &mut going_up => end,
                end = &mut down => end,
                reason = ended => End::Ended(reason),
            };
            match end {
                End::Ended(reason) => Box::pin(self.stop(reason, going_up, down.as_mut())).await,
                end => end,
            }
        };
        Box::pin(self.conclude(end, &up, down, registration)).await
    }

    /// From the client to the target.
    async fn up(&self, up: &mut Up) -> End {
        loop {
            let turn = {
                let mut state = self.state.lock();
                let State { memory, results } = &mut *state;
                if results.has_room() {
                    let view = View {
                        copy_in: results.takes_data(),
                        pending: !results.is_idle(),
                        renaming: results.is_renaming(),
                    };
                    up.frontend.turn(memory, view)
                } else {
                    Turn::Stall
                }
            };
            let done = match turn {
                Turn::Read => self.read(up).await,
                Turn::Stall => self.stall(up).await,
                Turn::Batch(batch) => self.batch(up, batch).await,
                // What is rare is on the heap, so that an idle session keeps no room for it.
                Turn::Copy(batch) => Box::pin(self.copy(up, batch)).await,
                Turn::Left => return End::Client,
                Turn::Broken(refusal, bytes) => Box::pin(self.broken(up, refusal, bytes)).await,
            };
            match done {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => {
                    tracing::debug!(session.id = %self.session.id(), %error, "the target's stream failed");
                    // The way down sees what the target still said, and its end.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Reads from the client, or learns that it left, idles, or is to be stopped.
    async fn read(&self, up: &mut Up) -> io::Result<Option<End>> {
        if up.ended {
            return Ok(Some(End::Client));
        }
        if self.stopping.load(Relaxed) {
            return Ok(Some(End::Stopped));
        }
        let room = match up.frontend.lacking() {
            // Data is waited for piece by piece: larger pieces are fewer waits.
            _ if self.state.lock().results.takes_data() => READ_DATA,
            0 if up.frontend.is_empty() => READ_FIRST,
            lacking => lacking.clamp(READ_MORE, READ_LONG),
        };
        if !up.frontend.is_empty() {
            up.frontend.input.reserve(room);
        }
        let may_release = up.frontend.may_release();
        let reading = async {
            match self.idle {
                None => self.client.fill(&mut up.frontend.input, room).await.map(Some),
                Some(limit) => match timeout(limit, self.client.fill(&mut up.frontend.input, room)).await {
                    Ok(read) => read.map(Some),
                    Err(_) => Ok(None),
                },
            }
        };
        let read = tokio::select! {
            biased;
            () = self.stop.notified() => return Ok(Some(End::Stopped)),
            read = reading => read,
            () = std::future::ready(()), if may_release => {
                up.frontend.release();
                return Ok(None);
            }
        };
        match read {
            Ok(None) if self.state.lock().results.is_idle() => return Ok(Some(End::Idle)),
            Ok(None) => {}
            Ok(Some(1..)) => {
                up.read_at = Instant::now();
                up.frontend.scan();
            }
            Ok(Some(0)) | Err(_) => {
                up.ended = true;
                up.frontend.end_of_input();
            }
        }
        Ok(None)
    }

    /// Waits until the target answered something.
    async fn stall(&self, up: &mut Up) -> io::Result<Option<End>> {
        if std::mem::take(&mut up.unflushed) {
            self.target.write(&flush()).await?;
        }
        tokio::select! {
            biased;
            () = self.stop.notified() => Ok(Some(End::Stopped)),
            () = self.progress.notified() => Ok(None),
        }
    }

    /// Decides every operation of a batch, waits once for the record, and forwards what may be.
    async fn batch(&self, up: &mut Up, mut batch: Batch) -> io::Result<Option<End>> {
        let mut decided = Vec::with_capacity(batch.items.len());
        for item in &mut batch.items {
            decided.push(match item.operation.take() {
                Some(draft) => {
                    let operation = draft.numbered(self.session.next_sequence());
                    Some(decide(&mut up.operations, operation).await)
                }
                None => None,
            });
        }
        let mut recorded = Vec::with_capacity(decided.len());
        for decision in decided {
            recorded.push(match decision {
                Some(Ok(permit)) => Some(permit.recorded().await),
                Some(Err(refusal)) => Some(Err(refusal)),
                None => None,
            });
        }
        let forwarding = self.admit(up, batch.items, recorded);
        for (from, to) in &forwarding.runs {
            self.target.write(batch.bytes.get(*from..*to).unwrap_or_default()).await?;
        }
        if forwarding.nudge && std::mem::take(&mut up.unflushed) {
            self.target.write(&flush()).await?;
        }
        self.metrics.added_latency(up.read_at.elapsed());
        Ok(forwarding.end)
    }

    /// Puts what is forwarded into the queue, and what is refused into its place there.
    fn admit(
        &self,
        up: &mut Up,
        items: Vec<Item>,
        recorded: Vec<Option<Result<Recorded, Refusal>>>,
    ) -> Forwarding {
        let mut state = self.state.lock();
        let State { memory, results } = &mut *state;
        let mut forwarding = Forwarding::default();
        let mut from = 0;
        for (item, recorded) in items.into_iter().zip(recorded) {
            let run = (from, item.end);
            from = item.end;
            if up.discarding && !matches!(item.step, Step::Sync | Step::Flush | Step::Terminate) {
                discard(item.step, recorded, memory);
                continue;
            }
            let recorded = match recorded.transpose() {
                Ok(recorded) => recorded,
                Err(refusal) => {
                    self.refuse(up, item.step, &refusal, &mut forwarding, memory, results);
                    if forwarding.end.is_some() {
                        break;
                    }
                    continue;
                }
            };
            forwarding.forward(run);
            up.unflushed = match item.step {
                Step::Sync | Step::Flush | Step::Query(_) | Step::FunctionCall => false,
                Step::Terminate => up.unflushed,
                _ => true,
            };
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
                    up.discarding = false;
                    Entry::Sync(Answer::Due)
                }
                // The relay says it by itself, once what came before is answered.
                (Step::Terminate, _) => {
                    forwarding.unforward(run);
                    forwarding.end = Some(End::Client);
                    break;
                }
                // These three cannot be without a record; were one, it would not be forwarded.
                (Step::Query(_) | Step::FunctionCall | Step::Execute(_), None) => {
                    forwarding.unforward(run);
                    continue;
                }
                (Step::Flush | Step::Refused, _) => continue,
            };
            results.expect(entry, memory);
        }
        forwarding
    }

    /// One operation is refused: its words wait in the queue for their turn.
    fn refuse(
        &self,
        up: &mut Up,
        step: Step,
        refusal: &Refusal,
        forwarding: &mut Forwarding,
        memory: &mut Memory,
        results: &mut Results,
    ) {
        let words = error_fields(refusal, Phase::Ready, self.session.id());
        let alone = matches!(step, Step::Query(_) | Step::FunctionCall);
        discard(step, None, memory);
        let entry = if words.is_fatal() {
            forwarding.end = Some(End::Last(refusal.close_reason()));
            Entry::Last(words.message())
        } else if alone {
            Entry::RefusedAlone(words.message())
        } else {
            up.discarding = true;
            Entry::Refused(words.message())
        };
        // Answers to what stands before it must not wait for a Sync that may never come.
        forwarding.nudge |= alone || words.is_fatal();
        results.expect(entry, memory);
        self.due.notify_one();
    }

    /// Records COPY data, and forwards it.
    async fn copy(&self, up: &mut Up, batch: CopyBatch) -> io::Result<Option<End>> {
        let lent = {
            let mut state = self.state.lock();
            if state.results.data_is_refused() { None } else { state.results.lend_copy() }
        };
        // The target ended the COPY, or the gateway refused it: nobody takes this any more.
        let Some(mut copy) = lent else {
            let mut state = self.state.lock();
            if batch.ended && !state.results.data_is_refused() {
                state.results.data_ended(false);
            }
            return Ok(None);
        };
        match self.record_data(up, &mut copy, &batch.content).await {
            Ok(()) => {
                {
                    let mut state = self.state.lock();
                    let State { memory, results } = &mut *state;
                    results.return_copy(copy);
                    for _ in 0..batch.syncs {
                        results.expect(Entry::Sync(Answer::IfCopyFails), memory);
                    }
                    if batch.ended {
                        results.data_ended(false);
                    }
                }
                up.unflushed = false;
                self.target.write(&batch.bytes).await?;
                Ok(None)
            }
            Err(refusal) => {
                // The target ends the COPY with an error of its own, and stays in step with the client.
                let words = error_fields(&refusal, Phase::Ready, self.session.id());
                let mut end = None;
                {
                    let mut state = self.state.lock();
                    let State { memory, results } = &mut *state;
                    results.data_ended(true);
                    if words.is_fatal() {
                        results.expect(Entry::Last(words.message()), memory);
                        end = Some(End::Last(refusal.close_reason()));
                    }
                }
                self.target.write(&copy_fail(b"refused by the gateway")).await?;
                Ok(end)
            }
        }
    }

    async fn record_data(&self, up: &mut Up, copy: &mut Copy, content: &Bytes) -> Result<(), Refusal> {
        if copy.recorded().is_none() {
            let operation = Operation::new(self.session.next_sequence(), "copy_data");
            let permit = decide(&mut up.operations, operation).await?;
            copy.begin(permit.recorded().await?);
        }
        if let Some(recorded) = copy.recorded() {
            for piece in content.chunks(CONTENT_MAX) {
                recorded.content(piece).await?;
            }
        }
        copy.add(content);
        Ok(())
    }

    /// The client sent what cannot be read: its bytes are recorded, and the session ends.
    async fn broken(&self, up: &mut Up, refusal: Refusal, bytes: Bytes) -> io::Result<Option<End>> {
        let operation = Operation {
            text: Some(bytes),
            refused: Some(refusal.clone()),
            ..Operation::new(self.session.next_sequence(), "message")
        };
        // Whatever the stack answers, it is not forwarded.
        let answer = decide(&mut up.operations, operation).await;
        let refusal = answer.err().unwrap_or(refusal);
        let words = error_fields(&refusal, Phase::Ready, self.session.id()).into_fatal();
        self.say_last(up, words).await;
        Ok(Some(End::Last(CloseReason::Protocol)))
    }

    /// From the target to the client.
    async fn down(&self, leftover: BytesMut) -> End {
        let mut buffer = leftover;
        let mut room = READ_FIRST;
        loop {
            if buffer.is_empty() {
                if self.alone.load(Relaxed) {
                    if self.state.lock().results.is_idle() {
                        return End::Settled;
                    }
                    self.end_data().await;
                }
                let read = tokio::select! {
                    biased;
                    read = self.target.fill(&mut buffer, room) => Some(read),
                    () = self.due.notified() => None,
                };
                match read {
                    Some(Ok(1..)) => {}
                    Some(Ok(0)) | Some(Err(_)) => return End::Target,
                    None => {
                        let inserts = {
                            let mut state = self.state.lock();
                            let State { memory, results } = &mut *state;
                            results.due(memory)
                        };
                        if let Err(end) = self.pass(&[], inserts).await {
                            return end;
                        }
                        continue;
                    }
                }
            }
            let received = {
                let mut state = self.state.lock();
                let State { memory, results } = &mut *state;
                results.receive(&buffer, memory)
            };
            self.progress.notify_one();
            let inserts = match received {
                Ok(inserts) => inserts,
                Err(broken) => return End::Broken(broken),
            };
            if let Err(end) = self.pass(&buffer, inserts).await {
                return end;
            }
            // Full reads ask for more room; else the buffer is given back, for a session idles more than it works.
            room = if buffer.len() >= room { READ_MORE } else { READ_FIRST };
            buffer = BytesMut::new();
        }
    }

    /// Writes the target's bytes to the client, and what is to stand between them.
    async fn pass(&self, bytes: &[u8], inserts: Inserts) -> Result<(), End> {
        let mut from = 0;
        for (at, insert) in &inserts.at {
            self.write_client(bytes.get(from..*at).unwrap_or_default()).await;
            self.write_client(insert).await;
            from = *at;
        }
        if inserts.last {
            return Err(End::Said);
        }
        self.write_client(bytes.get(from..).unwrap_or_default()).await;
        Ok(())
    }

    /// A client that takes nothing more is no end by itself: what it asked for is still answered, and the way up learns
    /// that it left.
    async fn write_client(&self, bytes: &[u8]) {
        if self.deaf.load(Relaxed) {
            return;
        }
        self.writing.store(true, Relaxed);
        if self.client.write(bytes).await.is_err() {
            self.deaf.store(true, Relaxed);
        }
        self.writing.store(false, Relaxed);
    }
}

/// What of a batch is forwarded.
#[derive(Default)]
struct Forwarding {
    /// From where to where in its bytes.
    runs: Vec<(usize, usize)>,
    /// The target should answer now.
    nudge: bool,
    end: Option<End>,
}

impl Forwarding {
    fn forward(&mut self, (from, to): (usize, usize)) {
        match self.runs.last_mut() {
            Some(run) if run.1 == from => run.1 = to,
            _ => self.runs.push((from, to)),
        }
    }

    fn unforward(&mut self, (from, _): (usize, usize)) {
        if let Some(run) = self.runs.last_mut() {
            run.1 = from;
        }
    }
}

/// A message that is not forwarded: what it proposed is taken back, and its operation was not run.
fn discard(step: Step, recorded: Option<Result<Recorded, Refusal>>, memory: &mut Memory) {
    match step {
        Step::Parse(change) | Step::CloseStatement(change) => {
            memory.statements.settle(&change, Settled::Kept)
        }
        Step::Bind(change) | Step::ClosePortal(change) => memory.portals.settle(&change, Settled::Kept),
        _ => {}
    }
    if let Some(Ok(recorded)) = recorded {
        recorded.complete(&Outcome::new(Status::Skipped));
    }
}

fn flush() -> Bytes {
    Bytes::from_static(b"H\0\0\0\x04")
}

fn copy_fail(why: &[u8]) -> Bytes {
    frame::message(client::COPY_FAIL, |out| frame::put_text(out, why))
}
