//! What a sink is.

use std::time::Duration;

use verbatim_core::BoxFuture;

use crate::event::Batch;

/// Takes events, and says when they are where they belong.
pub trait Sink: Send + Sync {
    /// The `type` in the configuration.
    fn kind(&self) -> &'static str;

    /// How many requests' worth of events one delivery may hold: more than one where the sink confirms late, and
    /// waiting for each request alone would bound its speed.
    fn requests(&self) -> usize {
        1
    }

    /// Delivers the whole batch, in order. `Ok` means that all of it is durable there, as far as the sink can tell;
    /// after an error, none of it counts as delivered and all of it may come again.
    ///
    /// # Cancel safety
    /// Dropped midway, some of the batch may have been delivered.
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), SinkError>>;

    /// Whether the sink can be reached, without delivering anything (`check --connect`).
    fn check(&self) -> BoxFuture<'_, Result<(), SinkError>>;
}

/// Why a batch was not delivered. The texts are for people, and hold no secret and no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It may work later: down, slow, busy.
    #[error("{reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// How long the sink asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// It will not work until somebody changes something: a wrong token, a wrong address, no permission. Nothing is
    /// wrong with the events, so they wait.
    #[error("{reason}")]
    Misconfigured {
        /// What is wrong.
        reason: String,
    },
    /// The sink will never take one of these events.
    #[error("{reason}")]
    Rejected {
        /// Why.
        reason: String,
        /// Which of the batch, where the sink says so.
        event: Option<usize>,
    },
}

/// What one request to a sink holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events.
    pub events: usize,
    /// Bytes of their encoding; one event may be longer, and is then alone.
    pub bytes: usize,
    /// How long an event waits for others.
    pub wait: Duration,
}

impl Default for Limits {
    /// 1,000 events, 900,000 bytes (what every server takes), 200 milliseconds.
    fn default() -> Self {
        Self { events: 1000, bytes: 900_000, wait: Duration::from_millis(200) }
    }
}
