//! The loop that every sink shares: read, deliver, retry, move the cursor.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use verbatim_core::Timestamp;
use verbatim_ledger::ReadError;

use crate::backoff::Backoff;
use crate::cursor::{Cursor, Files};
use crate::dead;
use crate::event::{Batch, Event, Payload};
use crate::sink::{Limits, Sink, SinkError};
use crate::source::{self, Filled, Filter, Source};

/// How long to wait where somebody has to change something first, at least.
const MISCONFIGURED_WAIT: Duration = Duration::from_secs(30);

/// What is delivered, and from where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The sink's name in the configuration.
    pub name: String,
    /// Where `sinks/<name>.cursor` lives.
    pub data_dir: PathBuf,
    /// The ledger's folder.
    pub ledger_dir: PathBuf,
    /// What one request holds.
    pub limits: Limits,
    /// Which entries.
    pub filter: Filter,
    /// How much of them.
    pub payload: Payload,
}

/// Where a sink is, as `sinks status --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The sink's name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many entries of the ledger are delivered, or passed over by its filter.
    pub delivered: u64,
    /// How many entries are committed.
    pub ledger: u64,
    /// How old the oldest event is that waits for delivery; 0 where none does.
    pub lag_seconds: u64,
    /// How many events were put aside since the sink was set up.
    pub dead_letters: u64,
    /// What went wrong last; null once a delivery worked again.
    pub last_error: Option<String>,
}

impl Status {
    /// The status of a sink of a stopped gateway, from its files; `ledger` is how many entries are committed.
    ///
    /// # Errors
    /// The cursor cannot be read.
    pub fn of_files(data_dir: &std::path::Path, name: &str, kind: &str, ledger: u64) -> io::Result<Self> {
        let cursor = Files::new(data_dir, name).load()?;
        Ok(Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            delivered: cursor.next,
            ledger,
            lag_seconds: 0,
            dead_letters: cursor.dead_letters,
            last_error: None,
        })
    }
}

/// What the loop tells about itself.
#[derive(Debug, Default)]
struct Progress {
    delivered: u64,
    dead_letters: u64,
    last_error: Option<String>,
    oldest: Option<Timestamp>,
}

/// A sink's delivery, running as a task of its own.
#[derive(Debug)]
pub struct Delivery {
    name: String,
    kind: &'static str,
    ledger_dir: PathBuf,
    committed: watch::Receiver<u64>,
    progress: Arc<Mutex<Progress>>,
    replays: mpsc::Sender<u64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Delivery {
    /// Starts delivering from where the cursor is. Call it within a tokio runtime.
    ///
    /// # Errors
    /// The cursor is there and cannot be read; nothing runs then.
    pub fn start(
        settings: Settings,
        sink: Arc<dyn Sink>,
        committed: watch::Receiver<u64>,
    ) -> io::Result<Self> {
        let files = Files::new(&settings.data_dir, &settings.name);
        let cursor = files.load()?;
        let progress = Arc::new(Mutex::new(Progress {
            delivered: cursor.next,
            dead_letters: cursor.dead_letters,
            ..Progress::default()
        }));
        let (replays, asked) = mpsc::channel(1);
        let (stop, stopping) = watch::channel(false);
        let (name, kind, ledger_dir) = (settings.name.clone(), sink.kind(), settings.ledger_dir.clone());
        let state = Loop {
            settings,
            sink,
            files,
            cursor,
            source: None,
            committed: committed.clone(),
            progress: Arc::clone(&progress),
            replays: asked,
            stopping,
            backoff: Backoff::default(),
        };
        let task = tokio::spawn(state.run());
        Ok(Self { name, kind, ledger_dir, committed, progress, replays, stop, task })
    }

    /// Where the sink is.
    pub fn status(&self) -> Status {
        let ledger = *self.committed.borrow();
        let progress = self.progress.lock();
        let age = progress.oldest.map_or(0, |oldest| Timestamp::now().since(oldest).as_secs());
        Status {
            name: self.name.clone(),
            kind: self.kind.to_owned(),
            delivered: progress.delivered,
            ledger,
            lag_seconds: if progress.delivered < ledger { age } else { 0 },
            dead_letters: progress.dead_letters,
            last_error: progress.last_error.clone(),
        }
    }

    /// Delivers again (or goes on) from the entry `next`; everything after it follows.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the replay may or may not happen.
    ///
    /// # Errors
    /// The delivery has ended.
    pub async fn replay(&self, next: u64) -> io::Result<()> {
        self.replays.send(next).await.map_err(|_| io::Error::other("the sink's delivery has ended"))
    }

    /// The first entry that was appended at `time` or later: what [`replay`](Self::replay) takes. It blocks.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn entry_at(&self, time: Timestamp) -> Result<u64, ReadError> {
        let size = *self.committed.borrow();
        source::entry_at(&self.ledger_dir, time, size)
    }

    /// Ends when all that is committed is delivered, or after `deadline`; what is left then waits for the next start.
    pub async fn stop(mut self, deadline: Duration) {
        self.stop.send_replace(true);
        match timeout(deadline, &mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(sink = self.name, %error, "the delivery ended badly"),
            Err(_) => {
                let status = self.status();
                tracing::warn!(
                    sink = self.name,
                    status.delivered,
                    status.ledger,
                    "stopped before all was delivered"
                );
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a wait ended.
enum Woken {
    /// Its time was over, or there is more to deliver.
    Again,
    /// Deliver from this entry.
    Replay(u64),
    /// Nothing will come any more.
    End,
}

struct Loop {
    settings: Settings,
    sink: Arc<dyn Sink>,
    files: Files,
    cursor: Cursor,
    /// None until the ledger is open, and after a failure to read it.
    source: Option<Source>,
    committed: watch::Receiver<u64>,
    progress: Arc<Mutex<Progress>>,
    replays: mpsc::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    backoff: Backoff,
}

impl Loop {
    async fn run(mut self) {
        loop {
            let woken = match self.fill().await {
                Err(reason) => {
                    self.failed(&reason);
                    let wait = self.backoff.next(None);
                    self.wait(wait).await
                }
                Ok(filled) if !filled.moved(&self.cursor) => self.idle().await,
                Ok(filled) => self.hand_over(filled).await,
            };
            match woken {
                Woken::Again => {}
                Woken::Replay(next) => self.move_to(next).await,
                Woken::End => return,
            }
        }
    }

    /// Reads the next events, off the runtime's threads.
    async fn fill(&mut self) -> Result<Filled, String> {
        let limit = *self.committed.borrow_and_update();
        let requests = self.sink.requests().max(1);
        let events_max = self.settings.limits.events.max(1).saturating_mul(requests);
        let bytes_max = self.settings.limits.bytes.max(1).saturating_mul(requests);
        let settings = self.settings.clone();
        let (cursor, source) = (self.cursor.clone(), self.source.take());
        let read = tokio::task::spawn_blocking(move || {
            let mut source = match source {
                Some(source) => source,
                None => Source::open(&settings.ledger_dir, cursor, settings.filter, settings.payload)?,
            };
            let start = source.cursor().clone();
            let filled = source.fill(limit, events_max, bytes_max)?;
            Ok::<_, ReadError>((source, start, filled))
        });
        let (source, start, filled) =
            read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        // Opening it may have moved the beginning (another ledger), which is no progress of its own.
        self.cursor = Cursor { dead_letters: self.cursor.dead_letters, ..start };
        self.source = Some(source);
        Ok(filled)
    }

    /// Waits for more to be committed, then a little for more of it.
    async fn idle(&mut self) -> Woken {
        self.progress.lock().oldest = None;
        if *self.stopping.borrow() {
            // What was committed since it last read is still to come.
            let more = match self.committed.has_changed() {
                Ok(changed) => changed,
                Err(_) => *self.committed.borrow() > self.cursor.next,
            };
            return if more { Woken::Again } else { Woken::End };
        }
        tokio::select! {
            changed = self.committed.changed() => match changed {
                Ok(()) => self.wait(self.settings.limits.wait).await,
                // The ledger is closed: what it committed last is read above, once more for what came between.
                Err(_) => if *self.committed.borrow() > self.cursor.next { Woken::Again } else { Woken::End },
            },
            Some(next) = self.replays.recv() => Woken::Replay(next),
            _ = self.stopping.changed() => Woken::Again,
        }
    }

    /// Delivers what was read, however long it takes, and moves the cursor.
    async fn hand_over(&mut self, filled: Filled) -> Woken {
        self.progress.lock().oldest = filled.events.first().map(|event| event.time);
        let mut parts = VecDeque::from([Batch { events: filled.events }]);
        while let Some(part) = parts.pop_front() {
            if part.events.is_empty() {
                continue;
            }
            let Err(error) = self.sink.deliver(&part).await else {
                self.backoff.reset();
                self.progress.lock().last_error = None;
                continue;
            };
            match self.after_failure(part, error, &mut parts).await {
                Woken::Again => {}
                other => return other,
            }
        }
        let dead_letters = self.cursor.dead_letters;
        self.cursor = Cursor { dead_letters, ..filled.cursor };
        self.store_cursor().await;
        Woken::Again
    }

    /// Puts back what is to be tried again, whole or in halves; puts aside what will never be taken.
    async fn after_failure(
        &mut self,
        mut part: Batch,
        error: SinkError,
        parts: &mut VecDeque<Batch>,
    ) -> Woken {
        self.failed(&error.to_string());
        let wait = match error {
            SinkError::Unavailable { retry_after, .. } => self.backoff.next(retry_after),
            SinkError::Misconfigured { .. } => self.backoff.next(Some(MISCONFIGURED_WAIT)),
            SinkError::Rejected { reason, event } => {
                let place = event
                    .filter(|place| *place < part.events.len())
                    .or((part.events.len() == 1).then_some(0));
                let Some(place) = place else {
                    let second = part.events.split_off(part.events.len() / 2);
                    parts.push_front(Batch { events: second });
                    parts.push_front(part);
                    return Woken::Again;
                };
                let event = part.events.remove(place);
                match self.put_aside(event.clone(), reason).await {
                    Ok(()) => {
                        parts.push_front(part);
                        return Woken::Again;
                    }
                    Err(error) => {
                        self.failed(&format!("a dead letter could not be written: {error}"));
                        part.events.insert(place, event);
                        self.backoff.next(None)
                    }
                }
            }
        };
        parts.push_front(part);
        self.wait(wait).await
    }

    async fn put_aside(&mut self, event: Event, reason: String) -> io::Result<()> {
        tracing::warn!(
            sink = self.settings.name,
            event = event.id,
            reason,
            "an event was refused for good and put aside"
        );
        let files = self.files.clone();
        blocking(move || dead::put(&files, &event, &reason)).await?;
        self.cursor.dead_letters += 1;
        self.progress.lock().dead_letters = self.cursor.dead_letters;
        Ok(())
    }

    /// A cursor that cannot be stored costs a second delivery after a restart, and nothing else.
    async fn store_cursor(&mut self) {
        let (files, cursor) = (self.files.clone(), self.cursor.clone());
        let stored = blocking(move || files.store(&cursor)).await;
        self.progress.lock().delivered = self.cursor.next;
        if let Err(error) = stored {
            self.failed(&format!("the cursor could not be stored: {error}"));
        }
    }

    async fn move_to(&mut self, next: u64) {
        self.cursor = self.cursor.clone().moved_to(next.min(*self.committed.borrow()));
        self.source = None;
        self.store_cursor().await;
    }

    /// Waits, unless something else is to be done before.
    async fn wait(&mut self, time: Duration) -> Woken {
        tokio::select! {
            () = tokio::time::sleep(time) => Woken::Again,
            Some(next) = self.replays.recv() => Woken::Replay(next),
        }
    }

    fn failed(&self, reason: &str) {
        let mut progress = self.progress.lock();
        if progress.last_error.as_deref() != Some(reason) {
            tracing::warn!(sink = self.settings.name, reason, "not delivered");
        }
        progress.last_error = Some(reason.to_owned());
    }
}

/// Runs `work`, which blocks, off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
