//! The ready phase: both directions of a session, in one task.
//!
//! ```text
//! client ── read ── batch ── stack: permits ── durable ── queue ── write ──▸ target        (`Relay::up`)
//! client ◂── write ── the bytes as read ── matched to the queue: outcomes ── read ── target (`Relay::down`)
//! ```
//!
//! The directions are two futures of one task, so that neither waits for the other: while a batch waits for its record or
//! for a target that does not read, replies flow; while a client does not read, nothing more is read from the target. Each
//! keeps at most one read (64 KiB, or one command that is held whole) and the queue at most [`PENDING_MAX`] entries.
//!
//! A command that is refused is answered in its place among the replies. In a transaction the target gets one in its stead
//! that no server knows: that makes EXEC abort there, by the target's own rules, and shows nowhere but in its count of
//! errors. An EXEC that is refused becomes a DISCARD.
//!
//! [`PENDING_MAX`]: crate::results::PENDING_MAX

mod ending;
mod large;
pub(crate) mod renewal;

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
    CloseReason, ConnectionName, OpenSession, Opened, Operations, Outcome, RecordMode, Recorded, Refusal,
    Status,
};
use verbatim_wire::batch::{decide, record};
use verbatim_wire::{ClientStream, Metrics, Shared, TargetStream};

use crate::operation::{Batch, Draft, Frontend, Hello, Item, Role, Turn, request};
use crate::refusal::{Phase, Words, words};
use crate::results::{Entry, Open, Part, Passed, Results};
use ending::End;

/// How much is read at once: first, and when there was more.
const READ_FIRST: usize = 16 << 10;
const READ_MORE: usize = 64 << 10;
/// How much room a long command is given at a time.
const READ_LONG: usize = 512 << 10;
/// How long the target has to answer what is open when a session ends, and the client to take its last message.
const ENDING: Duration = Duration::from_secs(2);
/// What the target gets in a transaction instead of a command that was refused: no server knows it.
const POISON: &[u8] = b"VERBATIM.REFUSED";

/// What a relay is made of.
pub(crate) struct Parts {
    pub(crate) client: ClientStream,
    pub(crate) target: TargetStream,
    pub(crate) opened: Opened,
    /// What was read from the client behind its login, and what reads it.
    pub(crate) frontend: Frontend,
    /// The HELLO of the login, for the target.
    pub(crate) hello: Option<Hello>,
    /// The gateway's login at the target, by command.
    pub(crate) login: Vec<(&'static str, Bytes)>,
    /// A listener of one connection: any user name is as good.
    pub(crate) own: Option<ConnectionName>,
    pub(crate) idle: Option<Duration>,
    pub(crate) metrics: Arc<dyn Metrics>,
}

/// One session in its ready phase.
struct Relay {
    client: Shared<ClientStream>,
    target: Shared<TargetStream>,
    session: Arc<dyn OpenSession>,
    results: Mutex<Results>,
    login: Vec<(&'static str, Bytes)>,
    own: bool,
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
    /// A write to the client is on its way: dropped then, it may leave half a reply there.
    writing: AtomicBool,
    idle: Option<Duration>,
    metrics: Arc<dyn Metrics>,
}

/// The way up's own.
struct Up {
    frontend: Frontend,
    operations: Operations,
    /// MULTI was forwarded, and neither EXEC nor DISCARD.
    transaction: bool,
    /// The client sends no more.
    ended: bool,
    /// When the bytes that are being worked on were read.
    read_at: Instant,
}

/// Carries a session from its login to its end, and closes it.
pub(crate) async fn relay(parts: Parts) -> CloseReason {
    let Parts { client, target, opened, frontend, hello, login, own, idle, metrics } = parts;
    let Opened { session, operations } = opened;
    let relay = Relay {
        client: Shared::new(client),
        target: Shared::new(target),
        results: Mutex::new(Results::new(session.record() == RecordMode::Results)),
        session,
        login,
        own: own.is_some(),
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
    let up = Up { frontend, operations, transaction: false, ended: false, read_at: Instant::now() };
    let reason = relay.run(up, hello).await;
    relay.results.lock().end();
    relay.session.close(reason);
    let farewell = async {
        let _ = relay.target.shutdown().await;
        let _ = relay.client.shutdown().await;
    };
    // Neither side is waited for.
    let _ = timeout(ENDING, farewell).await;
    reason
}

impl Relay {
    async fn run(&self, mut up: Up, hello: Option<Hello>) -> CloseReason {
        let ended = self.session.ended();
        let mut down = pin!(self.down());
        let end = {
            let mut going_up = pin!(async {
                if let Some(hello) = hello {
                    self.results.lock().expect(Entry::Sent(Open::new(
                        None,
                        Role::Hello(hello.version),
                        None,
                    )));
                    let _ = self.target.write(&hello.request()).await;
                }
                self.up(&mut up).await
            });
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
        Box::pin(self.conclude(end, down)).await
    }

    /// From the client to the target.
    async fn up(&self, up: &mut Up) -> End {
        loop {
            let view = self.results.lock().view();
            up.transaction &= view.transaction;
            let turn = if view.room > 0 { up.frontend.turn(view) } else { Turn::Stall };
            let done = match turn {
                Turn::Read => self.read(up).await,
                Turn::Stall => self.stall().await,
                Turn::Batch(batch) => self.batch(up, batch).await,
                // What is rare is on the heap, so that an idle session keeps no room for it.
                Turn::Renew(renewal) => Box::pin(self.renew(up, *renewal)).await,
                Turn::Large(large) => Box::pin(self.large(up, *large)).await,
                Turn::Broken(broken) => Box::pin(self.broken(up, broken.0, broken.1)).await,
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
        let input = &up.frontend.input;
        let room = match up.frontend.lacking() {
            0 if input.is_empty() => READ_FIRST,
            lacking => lacking.clamp(READ_MORE, READ_LONG),
        };
        let input = &mut up.frontend.input;
        if !input.is_empty() {
            input.reserve(room);
        }
        let reading = async {
            match self.idle {
                None => self.client.fill(input, room).await.map(Some),
                Some(limit) => match timeout(limit, self.client.fill(input, room)).await {
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
            Ok(None) if self.results.lock().is_idle() => return Ok(Some(End::Idle)),
            Ok(None) => {}
            Ok(Some(1..)) => up.read_at = Instant::now(),
            // What the server was not sent whole it does not run.
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
    async fn batch(&self, up: &mut Up, mut batch: Batch) -> io::Result<Option<End>> {
        let drafts = batch.items.iter_mut().filter_map(|item| item.draft.take());
        let operations = drafts.map(|draft| draft.numbered(self.session.next_sequence())).collect();
        let recorded = record(&mut up.operations, operations).await;
        let forwarding = self.admit(up, batch.items, recorded);
        for piece in &forwarding.pieces {
            self.target.write(piece.of(&batch.bytes)).await?;
        }
        self.metrics.added_latency(up.read_at.elapsed());
        Ok(forwarding.end)
    }

    /// Decides one operation that is no batch's, and waits for the record.
    async fn decide(&self, up: &mut Up, draft: Draft) -> Result<Recorded, Refusal> {
        let operation = draft.numbered(self.session.next_sequence());
        decide(&mut up.operations, operation).await?.recorded().await
    }

    /// Puts what is forwarded into the queue, and what is refused into its place there.
    fn admit(&self, up: &mut Up, items: Vec<Item>, recorded: Vec<Result<Recorded, Refusal>>) -> Forwarding {
        let mut results = self.results.lock();
        let mut forwarding = Forwarding::default();
        for (item, recorded) in items.into_iter().zip(recorded) {
            match recorded {
                // The session ends before it.
                Ok(recorded) if forwarding.end.is_some() => recorded.complete(&Outcome::new(Status::Skipped)),
                Err(_) if forwarding.end.is_some() => {}
                Ok(recorded) => {
                    forwarding.pieces.push(Piece::Client(item.from, item.to));
                    let open = Open::new(Some(recorded), item.role, None);
                    self.forwarded(up, open, &mut forwarding, &mut results);
                }
                Err(refusal) => self.refuse(up, item.role, &refusal, &mut forwarding, &mut results),
            }
        }
        forwarding.join();
        forwarding
    }

    /// A command is forwarded: what it does to the session is followed, and its answer expected.
    fn forwarded(&self, up: &mut Up, open: Open, forwarding: &mut Forwarding, results: &mut Results) {
        let role = open.role;
        results.expect(Entry::Sent(open));
        match role {
            Role::Multi => up.transaction = true,
            Role::Exec | Role::Discard => up.transaction = false,
            Role::Quit => forwarding.end = Some(End::Client),
            Role::Reset => {
                up.transaction = false;
                // RESET logs the gateway out at the target.
                for (_, command) in &self.login {
                    forwarding.pieces.push(Piece::Own(command.clone()));
                    results.expect(Entry::Own(Role::Login, None));
                }
            }
            _ => {}
        }
    }

    /// One command is refused: its words wait in the queue for their turn.
    fn refuse(
        &self,
        up: &mut Up,
        role: Role,
        refusal: &Refusal,
        forwarding: &mut Forwarding,
        results: &mut Results,
    ) {
        let words = words(refusal, Phase::Ready, self.session.id());
        if words.is_fatal() {
            forwarding.end = Some(End::Last(refusal.close_reason()));
            results.expect(Entry::Last(words.reply()));
            self.due.notify_one();
            return;
        }
        if let Some(command) = self.answer(up, role, words, results) {
            forwarding.pieces.push(Piece::Own(command));
        }
    }

    /// Answers a command that is not forwarded in its place, and says what the target gets instead.
    fn answer(&self, up: &mut Up, role: Role, words: Words, results: &mut Results) -> Option<Bytes> {
        let (entry, command) = match role {
            _ if !up.transaction => {
                results.expect(Entry::Words(words.reply()));
                self.due.notify_one();
                return None;
            }
            Role::Exec => {
                up.transaction = false;
                (Entry::Own(Role::Discard, Some(words.of_exec().reply())), request(&[b"DISCARD"]))
            }
            _ => (Entry::Own(Role::Plain, Some(words.reply())), request(&[POISON])),
        };
        results.expect(entry);
        Some(command)
    }

    /// The client sent what cannot be read: its bytes are recorded, and the session ends.
    async fn broken(&self, up: &mut Up, refusal: Refusal, draft: Draft) -> io::Result<Option<End>> {
        // Whatever the stack answers, it is not forwarded.
        let answer = self.decide(up, draft).await;
        let refusal = answer.err().unwrap_or(refusal);
        self.say_last(words(&refusal, Phase::Ready, self.session.id()));
        Ok(Some(End::Last(CloseReason::Protocol)))
    }

    /// From the target to the client.
    async fn down(&self) -> End {
        let mut buffer = BytesMut::new();
        let mut room = READ_FIRST;
        loop {
            if self.alone.load(Relaxed) && self.results.lock().is_answered() {
                return End::Settled;
            }
            let read = tokio::select! {
                biased;
                read = self.target.fill(&mut buffer, room) => Some(read),
                () = self.due.notified() => None,
            };
            let (passed, received) = match read {
                Some(Ok(1..)) => self.results.lock().receive(&buffer),
                Some(Ok(0)) | Some(Err(_)) => return End::Target,
                None => (self.results.lock().due(), Ok(())),
            };
            self.progress.notify_one();
            self.pass(&buffer, &passed).await;
            if let Err(broken) = received {
                return End::Broken(broken);
            }
            if passed.last {
                return End::Said;
            }
            if read.is_some() {
                // Full reads ask for more room; else the buffer is given back, for a session idles more than it works.
                room = if buffer.len() >= room { READ_MORE } else { READ_FIRST };
                buffer = BytesMut::new();
            }
        }
    }

    /// Writes the target's bytes to the client, and what is to stand between them.
    async fn pass(&self, bytes: &[u8], passed: &Passed) {
        for part in &passed.parts {
            self.write_client(match part {
                Part::Bytes(from, to) => bytes.get(*from..*to).unwrap_or_default(),
                Part::Insert(words) => words,
            })
            .await;
        }
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

/// Something that the target gets.
#[derive(Debug)]
enum Piece {
    /// The client's bytes, from here to there in those of its batch.
    Client(usize, usize),
    /// The gateway's.
    Own(Bytes),
}

impl Piece {
    fn of<'a>(&'a self, batch: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Client(from, to) => batch.get(*from..*to).unwrap_or_default(),
            Self::Own(bytes) => bytes,
        }
    }
}

/// What of a batch is forwarded.
#[derive(Debug, Default)]
struct Forwarding {
    pieces: Vec<Piece>,
    end: Option<End>,
}

impl Forwarding {
    /// Commands that lie side by side are one write.
    fn join(&mut self) {
        self.pieces.dedup_by(|next, before| match (next, before) {
            (Piece::Client(from, to), Piece::Client(_, end)) if from == end => {
                *end = *to;
                true
            }
            _ => false,
        });
    }
}
