//! The ready phase: both directions of a session, in one task.
//!
//! ```text
//! client ── read ── batch ── stack: permits ── durable ── queue ── write ──▸ target        (`Relay::up`)
//! client ◂── write ── the bytes as read ── matched to the queue: outcomes ── read ── target (`Relay::down`)
//! ```
//!
//! The directions are two futures of one task, so that neither waits for the other: while a batch waits for its record or
//! for a target that does not read, results flow; while a client does not read, nothing more is read from the target. Each
//! keeps at most one read (64 KiB, or one command of the client) and the queue at most [`PENDING_MAX`] entries. A
//! COM_CHANGE_USER ends a session and begins the next on the same streams.
//!
//! [`PENDING_MAX`]: crate::results::PENDING_MAX

mod change_user;
mod ending;
mod file;
mod kill;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;
use verbatim_core::{
    CloseReason, OpenSession, Opened, Operations, Outcome, Permit, RecordMode, Recorded, Refusal, Status,
};
use verbatim_wire::{ClientStream, Shared, TargetStream, decide};

use crate::cancel::Registration;
use crate::interceptor::Context;
use crate::operation::{Batch, Draft, Frontend, Item, Memory, Step, Turn, View};
use crate::refusal::{Phase, error_words};
use crate::results::{Asked, Entry, Inserts, Results};
use crate::target::{Connected, MysqlTarget, Seat};
use ending::End;

/// How much is read at once: first, and when there was more.
const READ_FIRST: usize = 16 << 10;
const READ_MORE: usize = 64 << 10;
/// How much of a file is read at once.
const READ_DATA: usize = 512 << 10;
/// How much room a command that is longer is given at a time.
const READ_LONG: usize = 1 << 20;
/// How long the target has to answer what is open when a session ends, and the client to take its last packet.
const ENDING: Duration = Duration::from_secs(2);
/// COM_QUIT, as a packet.
const QUIT: [u8; 5] = [1, 0, 0, 0, 1];

/// What a relay is made of.
pub(crate) struct Parts {
    pub(crate) client: Shared<ClientStream>,
    pub(crate) connected: Connected,
    /// The server's status flags at the login.
    pub(crate) status: u16,
    pub(crate) opened: Opened,
    pub(crate) registration: Registration,
    pub(crate) target: Arc<MysqlTarget>,
    pub(crate) peer: SocketAddr,
    pub(crate) context: Arc<Context>,
}

/// One session in its ready phase.
struct Relay {
    client: Shared<ClientStream>,
    target: Shared<TargetStream>,
    session: Arc<dyn OpenSession>,
    registration: Registration,
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
    /// A write to the client is on its way: dropped then, it may leave half a packet there.
    writing: AtomicBool,
    idle: Option<Duration>,
    peer: SocketAddr,
    context: Arc<Context>,
    /// What another login of this stream needs.
    mysql_target: Arc<MysqlTarget>,
    capabilities: u64,
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
    seat: Seat,
    /// The client sends no more.
    ended: bool,
    /// When the bytes that are being worked on were read.
    read_at: Instant,
}

/// Carries sessions from the login to the stream's end, and closes them.
pub(crate) async fn relay(parts: Parts) -> CloseReason {
    let Parts { client, connected, status, opened, registration, target, peer, context } = parts;
    let Connected { stream, capabilities, leftover, seat, .. } = connected;
    let Opened { session, operations } = opened;
    let limits = context.listener.limits;
    let results = Results::new(capabilities, status, session.record() == RecordMode::Results);
    let mut relay = Relay {
        client,
        target: stream,
        session,
        registration,
        state: Mutex::new(State { memory: Memory::default(), results }),
        progress: Notify::new(),
        due: Notify::new(),
        stop: Notify::new(),
        stopping: AtomicBool::new(false),
        alone: AtomicBool::new(false),
        deaf: AtomicBool::new(false),
        writing: AtomicBool::new(false),
        idle: limits.idle,
        peer,
        context,
        mysql_target: target,
        capabilities,
    };
    let frontend = Frontend::new(limits.message_bytes, capabilities);
    let mut up = Up { frontend, operations, seat, ended: false, read_at: Instant::now() };
    let mut leftover = leftover;
    let reason = loop {
        match relay.run(&mut up, std::mem::take(&mut leftover)).await {
            Run::Over(reason) => break reason,
            Run::Next(opened, status) => relay.begin_next(&mut up, opened, status),
        }
    };
    let loading = {
        let mut state = relay.state.lock();
        let loading = state.results.is_loading();
        state.results.end();
        loading
    };
    relay.session.close(reason);
    // Neither side is waited for: the target ends with the stream, as it would without COM_QUIT.
    let farewell = async {
        if !loading {
            let _ = relay.target.write(&QUIT).await;
        }
        let _ = relay.target.shutdown().await;
        let _ = relay.client.shutdown().await;
    };
    let _ = timeout(ENDING, farewell).await;
    reason
}

/// How a session ended.
enum Run {
    /// And the stream with it.
    Over(CloseReason),
    /// By a login to another, with these status flags.
    Next(Opened, u16),
}

impl Relay {
    async fn run(&self, up: &mut Up, leftover: BytesMut) -> Run {
        let ended = self.session.ended();
        let mut down = pin!(self.down(leftover));
        let end = {
            let mut going_up = pin!(self.up(up));
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
        if let End::Next(next) = end {
            return Run::Next(next.0, next.1);
        }
        Run::Over(Box::pin(self.conclude(end, down)).await)
    }

    /// The stream's next session begins where the one before it ended.
    fn begin_next(&mut self, up: &mut Up, opened: Opened, status: u16) {
        self.session.close(CloseReason::Client);
        let Opened { session, operations } = opened;
        let record_results = session.record() == RecordMode::Results;
        self.session = session;
        up.operations = operations;
        *self.state.lock() = State {
            memory: Memory::default(),
            results: Results::new(self.capabilities, status, record_results),
        };
    }

    /// From the client to the target.
    async fn up(&self, up: &mut Up) -> End {
        loop {
            let turn = {
                let state = self.state.lock();
                let State { memory, results } = &*state;
                if results.has_room() {
                    let view = View {
                        takes_data: results.takes_data(),
                        pending: !results.is_idle(),
                        preparing: results.is_preparing(),
                        may_load: results.may_load(),
                    };
                    up.frontend.turn(memory, view)
                } else {
                    Turn::Stall
                }
            };
            let done = match turn {
                Turn::Read => self.read(up).await,
                Turn::Stall => self.stall().await,
                Turn::Batch(batch) => self.batch(up, batch).await,
                // What is rare is on the heap, so that an idle session keeps no room for it.
                Turn::Data(data) => Box::pin(self.data(up, data)).await,
                Turn::Kill { kill, wire, draft, bytes } => {
                    Box::pin(self.kill(up, kill, wire, draft, bytes)).await
                }
                Turn::ChangeUser { login, answer } => Box::pin(self.change_user(up, login, answer)).await,
                Turn::Quit => Ok(Some(End::Client)),
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
            // A file is waited for piece by piece: larger pieces are fewer waits.
            _ if self.state.lock().results.takes_data().is_some() => READ_DATA,
            0 if up.frontend.is_empty() => READ_FIRST,
            lacking => lacking.clamp(READ_MORE, READ_LONG),
        };
        if !up.frontend.is_empty() {
            up.frontend.input.reserve(room);
        }
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
        };
        match read {
            Ok(None) if self.state.lock().results.is_idle() => return Ok(Some(End::Idle)),
            Ok(None) => {}
            Ok(Some(1..)) => up.read_at = Instant::now(),
            Ok(Some(0)) | Err(_) => up.ended = true,
        }
        Ok(None)
    }

    /// Waits until the target answered something.
    async fn stall(&self) -> io::Result<Option<End>> {
        tokio::select! {
            biased;
            () = self.stop.notified() => Ok(Some(End::Stopped)),
            () = self.progress.notified() => Ok(None),
        }
    }

    /// Decides every operation of a batch, waits once for the record, and forwards what may be.
    async fn batch(&self, up: &mut Up, batch: Batch) -> io::Result<Option<End>> {
        let Batch { bytes, items } = batch;
        let mut decided = Vec::with_capacity(items.len());
        for item in items {
            let Item { end, answer, step, draft } = item;
            let decision = self.decide(up, draft).await;
            decided.push((end, answer, step, decision));
        }
        let mut recorded = Vec::with_capacity(decided.len());
        for (end, answer, step, decision) in decided {
            let decision = match decision {
                Ok(permit) => permit.recorded().await,
                Err(refusal) => Err(refusal),
            };
            recorded.push((end, answer, step, decision));
        }
        let forwarding = self.admit(recorded);
        for (from, to) in &forwarding.runs {
            self.target.write(bytes.get(*from..*to).unwrap_or_default()).await?;
        }
        for recorded in forwarding.silent {
            recorded.complete(&Outcome::new(Status::Ok));
        }
        self.context.listener.metrics.added_latency(up.read_at.elapsed());
        Ok(forwarding.end)
    }

    /// Puts what is forwarded into the queue, and what is refused into its place there.
    fn admit(&self, items: Vec<(usize, u8, Step, Result<Recorded, Refusal>)>) -> Forwarding {
        let mut state = self.state.lock();
        let State { memory, results } = &mut *state;
        let mut forwarding = Forwarding::default();
        let mut from = 0;
        for (end, answer, step, recorded) in items {
            let run = (from, end);
            from = end;
            if forwarding.end.is_some() {
                // Behind the session's last words nothing is run.
                if let Ok(recorded) = recorded {
                    recorded.complete(&Outcome::new(Status::Skipped));
                }
                continue;
            }
            match recorded {
                Ok(recorded) => {
                    let Some(asked) = asked(step, memory) else {
                        forwarding.silent.push(recorded);
                        forwarding.forward(run);
                        continue;
                    };
                    forwarding.forward(run);
                    results.expect(Entry::Forwarded { recorded, asked, answer });
                }
                Err(refusal) => self.refuse(step, &refusal, answer, &mut forwarding, memory, results),
            }
        }
        forwarding
    }

    /// One command is refused: its words wait in the queue for their turn.
    fn refuse(
        &self,
        step: Step,
        refusal: &Refusal,
        answer: u8,
        forwarding: &mut Forwarding,
        memory: &mut Memory,
        results: &mut Results,
    ) {
        if let Step::LongData { statement, .. } = &step {
            memory.poison(*statement, refusal);
        }
        // The gateway's own reason is the command's alone, and the client hears nothing of it.
        if matches!((&step, refusal), (Step::RefusedSilently, Refusal::Protocol { .. })) {
            return;
        }
        let usual = error_words(refusal, Phase::Ready, self.session.id());
        let words = match &step {
            // The gateway's own reason was the reason: it has better words.
            Step::Refused(Some(own))
                if matches!(refusal, Refusal::Protocol { .. } | Refusal::Unsupported { .. }) =>
            {
                own.clone().reference(self.session.id())
            }
            _ => usual,
        };
        if words.is_fatal() {
            forwarding.end = Some(End::Last(refusal.close_reason()));
            // Behind a command without an answer the words are those to the next.
            let answer = if step.is_silent() { 1 } else { answer };
            results.expect(Entry::Last(words.packet(answer)));
        } else if !step.is_silent() {
            results.expect(Entry::Own(words.packet(answer)));
        }
        self.due.notify_one();
    }

    async fn decide(&self, up: &mut Up, draft: Draft) -> Result<Permit, Refusal> {
        let operation = draft.numbered(self.session.next_sequence());
        decide(&mut up.operations, operation).await
    }

    /// Decides an operation, and waits until it is on record.
    async fn record(&self, up: &mut Up, draft: Draft) -> Result<Recorded, Refusal> {
        self.decide(up, draft).await?.recorded().await
    }

    /// The client sent what cannot be read: its bytes are recorded, and the session ends.
    async fn broken(&self, up: &mut Up, refusal: Refusal, bytes: Bytes) -> io::Result<Option<End>> {
        let mut draft = Draft::new("command", Some(bytes));
        draft.refused = Some(refusal.clone());
        // Whatever the stack answers, it is not forwarded.
        let refusal = self.decide(up, draft).await.err().unwrap_or(refusal);
        let words = error_words(&refusal, Phase::Ready, self.session.id()).into_fatal();
        self.say_last(words);
        Ok(Some(End::Last(CloseReason::Protocol)))
    }

    /// From the target to the client.
    async fn down(&self, leftover: BytesMut) -> End {
        let mut buffer = leftover;
        let mut room = READ_FIRST;
        loop {
            if buffer.is_empty() {
                if self.alone.load(Relaxed) && self.state.lock().results.is_idle() {
                    return End::Settled;
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
                        let inserts = self.state.lock().results.due();
                        self.progress.notify_one();
                        if let Err(end) = self.pass(&[], inserts).await {
                            return end;
                        }
                        continue;
                    }
                }
            }
            let full = buffer.len() >= room;
            // The buffer is given away, for a session idles more than it works; full reads ask for more room.
            let bytes = std::mem::take(&mut buffer).freeze();
            let received = {
                let mut state = self.state.lock();
                let State { memory, results } = &mut *state;
                results.receive(&bytes, memory)
            };
            self.progress.notify_one();
            let inserts = match received {
                Ok(inserts) => inserts,
                Err(broken) => return End::Broken(broken),
            };
            if let Err(end) = self.pass(&bytes, inserts).await {
                return end;
            }
            room = if full { READ_MORE } else { READ_FIRST };
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
    /// What has no answer, and is done once it is written.
    silent: Vec<Recorded>,
    end: Option<End>,
}

impl Forwarding {
    fn forward(&mut self, (from, to): (usize, usize)) {
        match self.runs.last_mut() {
            Some(run) if run.1 == from => run.1 = to,
            _ => self.runs.push((from, to)),
        }
    }
}

/// A command is about to be forwarded: what it changes, and the form of its answer, if it has one.
pub(crate) fn asked(step: Step, memory: &mut Memory) -> Option<Asked> {
    Some(match step {
        Step::Query(files) => Asked::Result { files, cursor: false },
        Step::Execute { statement, types, cursor, files } => {
            memory.executed(statement, types);
            Asked::Result { files, cursor }
        }
        Step::Bulk { statement, types } => {
            memory.executed(statement, types);
            Asked::Result { files: Vec::new(), cursor: false }
        }
        Step::Rows => Asked::Result { files: Vec::new(), cursor: false },
        Step::Prepare(text) => Asked::Prepare(text),
        Step::Fetch => Asked::Rows,
        Step::FieldList => Asked::Definitions,
        Step::Reset(statement) => {
            memory.executed(statement, None);
            Asked::Simple
        }
        Step::Simple | Step::Refused(_) => Asked::Simple,
        Step::ResetConnection => Asked::ResetConnection,
        Step::Close(statement) => {
            memory.close(statement);
            return None;
        }
        Step::LongData { statement, parameter, data } => {
            memory.long_data(statement, parameter, &data);
            return None;
        }
        Step::RefusedSilently => return None,
    })
}
