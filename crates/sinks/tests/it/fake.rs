//! A sink in memory that does what a test tells it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use verbatim_core::BoxFuture;
use verbatim_sinks::{Batch, Event, Sink, SinkError};

type Answer = Box<dyn FnMut(&Batch) -> Option<SinkError> + Send>;

pub(crate) struct Fake {
    taken: watch::Sender<Vec<Event>>,
    attempts: watch::Sender<usize>,
    /// What to answer to the next deliveries; afterwards everything is taken.
    answers: std::sync::Mutex<VecDeque<Answer>>,
    /// What to answer to each delivery once those are used up.
    always: std::sync::Mutex<Option<Answer>>,
    delay: Duration,
}

pub(crate) fn unavailable() -> SinkError {
    SinkError::Unavailable { reason: "down".to_owned(), retry_after: None }
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self::slow(Duration::ZERO)
    }

    pub(crate) fn slow(delay: Duration) -> Self {
        Self {
            taken: watch::channel(Vec::new()).0,
            attempts: watch::channel(0).0,
            answers: std::sync::Mutex::default(),
            always: std::sync::Mutex::default(),
            delay,
        }
    }

    pub(crate) fn next(&self, answer: impl FnMut(&Batch) -> Option<SinkError> + Send + 'static) {
        self.answers.lock().unwrap().push_back(Box::new(answer));
    }

    pub(crate) fn always(&self, answer: impl FnMut(&Batch) -> Option<SinkError> + Send + 'static) {
        *self.always.lock().unwrap() = Some(Box::new(answer));
    }

    pub(crate) fn recover(&self) {
        *self.always.lock().unwrap() = None;
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.taken.borrow().clone()
    }

    /// The ids of entries that were taken, without checkpoints.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.events().into_iter().filter(|event| event.kind != "checkpoint").map(|event| event.id).collect()
    }

    /// Waits until what was taken satisfies `enough`.
    pub(crate) async fn until(&self, mut enough: impl FnMut(&[Event]) -> bool) {
        self.taken.subscribe().wait_for(|events| enough(events)).await.unwrap();
    }

    /// Waits until the entry before `size` was taken.
    pub(crate) async fn until_entry(&self, size: u64) {
        self.until(|events| events.iter().any(|event| event.kind != "checkpoint" && event.index + 1 >= size))
            .await;
    }

    pub(crate) fn attempts_until_now(&self) -> usize {
        *self.attempts.borrow()
    }

    pub(crate) async fn attempts(&self, count: usize) {
        self.attempts.subscribe().wait_for(|attempts| *attempts >= count).await.unwrap();
    }
}

impl Sink for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            tokio::time::sleep(self.delay).await;
            let next = self.answers.lock().unwrap().pop_front();
            let answer = match next {
                Some(mut answer) => answer(batch),
                None => self.always.lock().unwrap().as_mut().and_then(|answer| answer(batch)),
            };
            self.attempts.send_modify(|attempts| *attempts += 1);
            match answer {
                Some(error) => Err(error),
                None => {
                    self.taken.send_modify(|taken| taken.extend(batch.events.iter().cloned()));
                    Ok(())
                }
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async { Ok(()) })
    }
}
