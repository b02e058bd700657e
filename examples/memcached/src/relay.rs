//! The ready phase: both directions of a session, in one task.
//!
//! ```text
//! client ── read ── batch ── permits ── durable ── queue ── write ──▸ target      (`Relay::up`)
//! client ◂── write ── matched to the queue: outcomes ── read ── target            (`Relay::down`)
//! ```
//!
//! Whatever the gateway has to say goes through the queue too, so that it stands where its turn is. What is dropped halfway
//! harms nothing: memcached runs no command whose line or data block is not whole, and a permit that is dropped records
//! that the operation was aborted.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::timeout;
use verbatim_core::{
    CloseReason, Content, OpenSession, Opened, Operations, Outcome, RecordMode, Recorded, Refusal, Status,
};
use verbatim_wire::{ClientStream, Limits, Metrics, Shared, TargetStream, farewell, record};

use crate::frame::{self, BAD_END, DATA_END, Frame};
use crate::operation::{Reply, operation};
use crate::refusal::{ends_with, last_words, words};
use crate::results::{Answers, Broken, Entry, FENCE};

/// How much is read at once; of a long data block, so that fewer pieces are waited for.
const READ: usize = 16 << 10;
const READ_LONG: usize = 512 << 10;
/// How many commands are decided together, and how many may be without an answer.
const BATCH_MAX: usize = 512;
const WAITING_MAX: usize = 4096;
/// How long the target has to answer what is open when a session ends.
const ENDING: Duration = Duration::from_secs(2);

/// What a relay is made of.
pub(crate) struct Parts {
    pub(crate) client: ClientStream,
    /// What was read from the client behind its token.
    pub(crate) input: BytesMut,
    pub(crate) target: TargetStream,
    pub(crate) opened: Opened,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<dyn Metrics>,
}

struct Relay {
    client: Shared<ClientStream>,
    target: Shared<TargetStream>,
    session: Arc<dyn OpenSession>,
    answers: Mutex<Answers>,
    /// Something was put into the queue.
    asked: Notify,
    /// Something was answered.
    answered: Notify,
    /// A data block is on its way whose operation is not in the queue yet.
    streaming: AtomicBool,
    /// Nothing more will be asked.
    ending: AtomicBool,
    limits: Limits,
    metrics: Arc<dyn Metrics>,
}

/// How a direction ended, or why the session does.
enum End {
    /// The client left.
    Client,
    /// The session's last words are in the queue.
    Said(CloseReason),
    /// The session's last words are the gateway's.
    Because(CloseReason),
    /// The target left.
    Target,
    /// The target's bytes cannot be passed on.
    Broken(Broken),
    /// Everything is answered.
    Settled,
}

/// Carries a session to its end, and closes it.
pub(crate) async fn relay(parts: Parts) -> CloseReason {
    let Parts { client, input, target, opened: Opened { session, operations }, limits, metrics } = parts;
    let relay = Relay {
        client: Shared::new(client),
        target: Shared::new(target),
        answers: Mutex::new(Answers::new(session.record() == RecordMode::Results)),
        session,
        asked: Notify::new(),
        answered: Notify::new(),
        streaming: AtomicBool::new(false),
        ending: AtomicBool::new(false),
        limits,
        metrics,
    };
    let (reason, last) = relay.run(input, operations).await;
    relay.answers.lock().end();
    relay.session.close(reason);
    let _ = timeout(ENDING, relay.target.shutdown()).await;
    farewell(&mut relay.client.into_inner(), &last).await;
    reason
}

impl Relay {
    /// Runs both directions; then why the session ends, and what is still to be said.
    async fn run(&self, input: BytesMut, operations: Operations) -> (CloseReason, Bytes) {
        let mut down = pin!(self.down());
        let end = tokio::select! {
            biased;
            end = self.up(input, operations) => end,
            end = &mut down => end,
            reason = self.session.ended() => End::Because(reason),
        };
        let reason = match &end {
            End::Client | End::Settled => CloseReason::Client,
            End::Said(reason) | End::Because(reason) => *reason,
            End::Target => CloseReason::Target,
            End::Broken(_) => CloseReason::Protocol,
        };
        let last = match end {
            End::Client | End::Said(_) | End::Because(_) => {
                if let End::Because(reason) = end {
                    self.say(last_words(reason, self.session.id()));
                }
                // What runs is answered, then what is to be said is said, or both are given up.
                self.ending.store(true, Relaxed);
                self.asked.notify_one();
                let _ = timeout(ENDING, down).await;
                Bytes::new()
            }
            End::Broken(Broken::NotRecorded(refusal)) => words(&refusal, self.session.id()),
            End::Broken(broken) => {
                tracing::warn!(session.id = %self.session.id(), error = %broken, "the session cannot go on");
                last_words(reason, self.session.id())
            }
            End::Target => last_words(reason, self.session.id()),
            End::Settled => Bytes::new(),
        };
        // In the middle of an answer nothing can be said.
        let between = self.answers.lock().is_between();
        (reason, if between { last } else { Bytes::new() })
    }

    /// Puts words of the gateway's own behind what is waited for.
    fn say(&self, words: Bytes) {
        self.answers.lock().expect(Entry::Said(words));
        self.asked.notify_one();
    }

    /// From the client to the target.
    async fn up(&self, mut input: BytesMut, mut operations: Operations) -> End {
        loop {
            while self.answers.lock().waiting() >= WAITING_MAX {
                self.answered.notified().await;
            }
            let read_at = Instant::now();
            let mut batch: Vec<Frame> = Vec::new();
            while batch.len() < BATCH_MAX && !batch.last().is_some_and(Frame::is_last) {
                let Some(frame) = frame::next(&mut input, self.limits.message_bytes) else { break };
                batch.push(frame);
            }
            if batch.is_empty() {
                match self.read(&mut input, READ).await {
                    Ok(()) => continue,
                    Err(end) => return end,
                }
            }
            let mut forward = Vec::new();
            let last = self.decide(batch, &mut operations, &mut forward).await;
            if self.target.write(&forward).await.is_err() {
                return self.target_failed().await;
            }
            self.metrics.added_latency(read_at.elapsed());
            let done = match last {
                Last::None => Ok(()),
                Last::Ended(end) => Err(end),
                Last::Streams(recorded, reply, length) => {
                    self.stream(&mut input, recorded, reply, length).await
                }
                Last::Skips(length) => self.skip(&mut input, length + DATA_END.len() as u64).await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Decides every command of a batch, waits once for the record, and gathers the bytes of what may be forwarded.
    async fn decide(&self, batch: Vec<Frame>, operations: &mut Operations, forward: &mut Vec<u8>) -> Last {
        let asked = batch.iter().map(|frame| operation(frame, self.session.next_sequence()));
        let recorded = record(operations, asked.collect()).await;
        let mut last = Last::None;
        for (frame, recorded) in batch.into_iter().zip(recorded) {
            let reply = frame.command.reply;
            match (recorded, &last) {
                // The session has ended before it.
                (Ok(recorded), Last::Ended(_)) => recorded.complete(&Outcome::new(Status::Skipped)),
                (Err(_), Last::Ended(_)) => {}
                (Ok(recorded), _) => {
                    forward.extend_from_slice(&frame.bytes);
                    if let Some(length) = frame.streams {
                        self.streaming.store(true, Relaxed);
                        return Last::Streams(recorded, reply, length);
                    }
                    forward.extend_from_slice(fence(reply));
                    self.answers.lock().expect(Entry::Asked(recorded, reply, None));
                    if reply == Reply::End {
                        last = Last::Ended(End::Client);
                    }
                }
                (Err(refusal), _) => {
                    // Behind what cannot be read nothing can, whatever it was refused for.
                    let end = ends_with(&refusal).or_else(|| frame.refused.as_ref().and_then(ends_with));
                    // Whoever asked for no answer would take one for that of the next command.
                    if reply != Reply::Never || end.is_some() {
                        self.say(words(&refusal, self.session.id()));
                    }
                    match (end, frame.streams) {
                        (Some(reason), _) => last = Last::Ended(End::Said(reason)),
                        (None, Some(length)) => last = Last::Skips(length),
                        (None, None) => {}
                    }
                }
            }
        }
        last
    }

    /// Carries a long data block: each piece is recorded before it is forwarded. Its operation is put into the queue with
    /// the block's end; an answer that comes earlier (too large) waits for that.
    async fn stream(
        &self,
        input: &mut BytesMut,
        recorded: Recorded,
        reply: Reply,
        length: u64,
    ) -> Result<(), End> {
        let refused = |refusal: &Refusal| {
            // The target has half a value, which it drops when its stream ends.
            self.say(words(refusal, self.session.id()));
            End::Said(ends_with(refusal).unwrap_or(CloseReason::Protocol))
        };
        let (mut digest, mut left) = (Sha256::new(), length);
        while left > 0 {
            if input.is_empty() {
                self.read(input, READ_LONG).await?;
            }
            let piece = input.split_to(usize::try_from(left).unwrap_or(READ_LONG).min(input.len()));
            recorded.content(&piece).await.map_err(|refusal| refused(&refusal))?;
            digest.update(&piece);
            left -= piece.len() as u64;
            if self.target.write(&piece).await.is_err() {
                return Err(self.target_failed().await);
            }
        }
        while input.len() < DATA_END.len() {
            self.read(input, READ).await?;
        }
        if input.split_to(DATA_END.len()) != DATA_END {
            return Err(refused(&Refusal::Protocol { reason: BAD_END.into() }));
        }
        let content = Content { length, sha256: digest.finalize().into() };
        self.answers.lock().expect(Entry::Asked(recorded, reply, Some(content)));
        self.streaming.store(false, Relaxed);
        self.asked.notify_one();
        match self.target.write(&[DATA_END, fence(reply)].concat()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.target_failed().await),
        }
    }

    /// Reads over the data block of a command that was refused.
    async fn skip(&self, input: &mut BytesMut, mut length: u64) -> Result<(), End> {
        loop {
            let piece = input.split_to(usize::try_from(length).unwrap_or(READ_LONG).min(input.len()));
            length -= piece.len() as u64;
            if length == 0 {
                return Ok(());
            }
            self.read(input, READ_LONG).await?;
        }
    }

    /// Reads from the client, or learns that it left or idles.
    async fn read(&self, input: &mut BytesMut, room: usize) -> Result<(), End> {
        loop {
            let reading = self.client.fill(input, room);
            let read = match self.limits.idle {
                None => reading.await,
                Some(limit) => match timeout(limit, reading).await {
                    Ok(read) => read,
                    Err(_) if self.answers.lock().waiting() > 0 => continue,
                    Err(_) => return Err(End::Because(CloseReason::Idle)),
                },
            };
            return match read {
                Ok(1..) => Ok(()),
                Ok(0) | Err(_) => Err(End::Client),
            };
        }
    }

    /// The way down sees what the target still said, and its end.
    async fn target_failed(&self) -> End {
        std::future::pending().await
    }

    /// From the target to the client.
    async fn down(&self) -> End {
        let mut input = BytesMut::new();
        // A client that takes nothing more is no end by itself: outcomes are still gathered, and the way up sees that it left.
        let mut deaf = false;
        loop {
            let mut out = Vec::new();
            let received = self.answers.lock().receive(&mut input, &mut out);
            self.answered.notify_one();
            deaf = deaf || self.client.write(&out).await.is_err();
            if let Err(broken) = received {
                return End::Broken(broken);
            }
            let waiting = self.answers.lock().waiting();
            if waiting == 0 && self.ending.load(Relaxed) {
                return End::Settled;
            }
            let early = waiting == 0 && !input.is_empty();
            if early && !self.streaming.load(Relaxed) {
                return End::Broken(Broken::Protocol("an answer that nobody asked for"));
            }
            tokio::select! {
                biased;
                read = self.target.fill(&mut input, READ), if !early => if !matches!(read, Ok(1..)) {
                    return End::Target;
                },
                () = self.asked.notified() => {}
            }
        }
    }
}

/// What follows a batch.
enum Last {
    None,
    /// The session ends.
    Ended(End),
    /// The data block of a command that was permitted.
    Streams(Recorded, Reply, u64),
    /// The data block of one that was not.
    Skips(u64),
}

/// What is sent behind a command to learn that it was run.
const fn fence(reply: Reply) -> &'static [u8] {
    match reply {
        Reply::Quiet | Reply::Never => FENCE,
        Reply::Due | Reply::End => b"",
    }
}
