//! Counters, for whoever exports metrics.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) discovery_fetches: Counter,
    pub(crate) jwks_fetches: Counter,
    pub(crate) graph_tokens: Counter,
    pub(crate) graph_calls: Counter,
    pub(crate) tokens_verified: Counter,
    pub(crate) tokens_cached: Counter,
    pub(crate) tokens_refused: Counter,
}

/// What the providers did since they were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Discovery documents that were asked for.
    pub discovery_fetches: u64,
    /// Key documents that were asked for.
    pub jwks_fetches: u64,
    /// Access tokens for the directory that were asked for.
    pub graph_tokens: u64,
    /// Calls to the directory.
    pub graph_calls: u64,
    /// Tokens whose signature was verified.
    pub tokens_verified: u64,
    /// Tokens that had been verified before.
    pub tokens_cached: u64,
    /// Tokens that did not pass.
    pub tokens_refused: u64,
}

impl Metrics {
    pub(crate) fn read(&self) -> Counters {
        Counters {
            discovery_fetches: self.discovery_fetches.read(),
            jwks_fetches: self.jwks_fetches.read(),
            graph_tokens: self.graph_tokens.read(),
            graph_calls: self.graph_calls.read(),
            tokens_verified: self.tokens_verified.read(),
            tokens_cached: self.tokens_cached.read(),
            tokens_refused: self.tokens_refused.read(),
        }
    }
}
