//! How long to wait before the next attempt.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The first wait is between [`LEAST`] and this.
const FIRST: Duration = Duration::from_secs(1);

/// No wait is longer, unless the sink asked for it.
const LONGEST: Duration = Duration::from_secs(300);

/// No wait is shorter.
const LEAST: Duration = Duration::from_millis(50);

/// How long a sink can ask to be left alone.
const ASKED_LONGEST: Duration = Duration::from_secs(3600);

/// Exponential, with full jitter: any wait up to a ceiling that doubles, so that many gateways that lost one sink do not
/// come back to it together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure; at least what the sink asked for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // The standard library's hash keys are random: enough to spread waits.
        let random = RandomState::new().hash_one(self.failures) >> 32;
        let fraction = random as f64 / f64::from(u32::MAX);
        let wait = ceiling.mul_f64(fraction).max(LEAST);
        wait.max(asked.unwrap_or_default().min(ASKED_LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_honour_what_was_asked() {
        let mut backoff = Backoff::default();
        for failure in 0..40 {
            let wait = backoff.next(None);
            let ceiling = Duration::from_secs(1 << failure.min(9)).min(LONGEST);
            assert!(wait >= LEAST && wait <= ceiling, "{wait:?} after {failure}");
        }
        assert!(backoff.next(Some(Duration::from_secs(400))) >= Duration::from_secs(400));
        assert_eq!(backoff.next(Some(Duration::MAX)), ASKED_LONGEST);
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
    }
}
