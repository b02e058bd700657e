//! Time, injected: tests own it.

use std::fmt;
use std::time::{Duration, Instant};

use verbatim_core::Timestamp;

/// Where the providers read the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock, which a token's times are compared with.
    fn now(&self) -> Timestamp;
    /// Time that only goes forward, for the age of what is cached and for the pace of requests.
    fn elapsed(&self) -> Duration;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
