//! One issuer's discovery document and keys: fetched, cached, refreshed, and never oftener than allowed.
//!
//! A fetched set replaces the one before it, so that a key which vanished verifies nothing any more; where a fetch fails,
//! the last good set stays, for at most [`KEYS_AGE_MAX`]. An unknown `kid` asks for a refresh out of a small budget
//! ([`Bucket`]); with none left it is refused at once, so that invented `kid`s cannot make the gateway flood the issuer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use reqwest::Url;

use crate::clock::Clock;
use crate::fetch::{self, FetchError, Fetcher};
use crate::json::Object;
use crate::keys::{Key, KeySet};
use crate::metrics::Metrics;

/// How long keys verify without a successful refresh.
pub(crate) const KEYS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How many fetches unknown `kid`s may ask for at once.
const REFRESHES_MAX: u32 = 3;
/// How long until they may ask for one more.
const REFRESH_EVERY: Duration = Duration::from_secs(300);

/// What every part of the providers needs for talking to issuers.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) fetcher: Fetcher,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
}

/// A budget of refreshes.
#[derive(Debug)]
struct Bucket {
    left: u32,
    /// When the last one came back, or the first was taken out of a full bucket.
    since: Duration,
}

impl Bucket {
    fn take(&mut self, now: Duration) -> bool {
        while self.left < REFRESHES_MAX && now.saturating_sub(self.since) >= REFRESH_EVERY {
            self.left += 1;
            self.since += REFRESH_EVERY;
        }
        if self.left == REFRESHES_MAX {
            self.since = now;
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

/// What a discovery document says that is of use here.
#[derive(Debug, Clone)]
pub(crate) struct Discovered {
    jwks: Url,
    token_endpoint: Option<Url>,
}

#[derive(Debug)]
struct Loaded {
    keys: KeySet,
    at: Duration,
}

/// Where one issuer's keys come from.
#[derive(Debug)]
pub(crate) struct Source {
    net: Arc<Net>,
    /// What the discovery document must state, byte for byte.
    pub(crate) issuer: String,
    document: Url,
    /// Whether keys and tokens must be at the document's own origin (a cloud's), or may be anywhere by https.
    own_origin: bool,
    discovered: ArcSwapOption<Discovered>,
    loaded: ArcSwapOption<Loaded>,
    /// Why the last attempt failed, if it did.
    failure: Mutex<Option<FetchError>>,
    /// Attempts that ended, either way.
    attempts: AtomicU64,
    flight: tokio::sync::Mutex<()>,
    bucket: Mutex<Bucket>,
}

/// Why there is no key of this `kid`.
#[derive(Debug)]
pub(crate) enum NoKey {
    /// The issuer does not publish it.
    Unknown,
    /// It could not be asked.
    Unavailable(String),
}

impl Source {
    pub(crate) fn new(net: Arc<Net>, issuer: String, document: Url, own_origin: bool) -> Self {
        Self {
            net,
            issuer,
            document,
            own_origin,
            discovered: ArcSwapOption::empty(),
            loaded: ArcSwapOption::empty(),
            failure: Mutex::new(None),
            attempts: AtomicU64::new(0),
            flight: tokio::sync::Mutex::new(()),
            bucket: Mutex::new(Bucket { left: REFRESHES_MAX, since: Duration::ZERO }),
        }
    }

    /// The key of this `kid` as it is known now, without asking anybody.
    pub(crate) fn known(&self, kid: &str) -> Option<Arc<Key>> {
        let loaded = self.loaded.load();
        let loaded = loaded.as_ref()?;
        let age = self.net.clock.elapsed().saturating_sub(loaded.at);
        if age > KEYS_AGE_MAX {
            return None;
        }
        loaded.keys.get(kid).cloned()
    }

    /// Whether keys are loaded and still young enough.
    pub(crate) fn ready(&self) -> bool {
        let loaded = self.loaded.load();
        loaded.as_ref().is_some_and(|loaded| {
            loaded.keys.usable() > 0 && self.net.clock.elapsed().saturating_sub(loaded.at) <= KEYS_AGE_MAX
        })
    }

    /// How many usable keys are loaded.
    pub(crate) fn usable_keys(&self) -> usize {
        self.loaded.load().as_ref().map_or(0, |loaded| loaded.keys.usable())
    }

    /// The key of this `kid`, after at most one refresh.
    ///
    /// # Cancel safety
    /// A dropped future leaves the keys as they were; the refresh that it took from the budget is spent.
    pub(crate) async fn key(&self, kid: &str) -> Result<Arc<Key>, NoKey> {
        let seen = self.attempts.load(Ordering::Acquire);
        if let Some(key) = self.known(kid) {
            return Ok(key);
        }
        let _flight = self.flight.lock().await;
        // Whoever waited here for another's refresh has had the one it may ask for.
        if self.attempts.load(Ordering::Acquire) == seen {
            let allowed = self.bucket.lock().take(self.net.clock.elapsed());
            if allowed {
                // The failure is kept, and told below.
                let _failed = self.fetch(false).await;
            }
        }
        self.known(kid).ok_or_else(|| self.absent())
    }

    fn absent(&self) -> NoKey {
        match &*self.failure.lock() {
            Some(failure) => NoKey::Unavailable(failure.to_string()),
            None if self.ready() => NoKey::Unknown,
            None => NoKey::Unavailable(String::from("no keys are loaded")),
        }
    }

    /// Fetches discovery and keys, whatever the budget: at start, each hour, and for checks.
    pub(crate) async fn refresh(&self) -> Result<(), FetchError> {
        let _flight = self.flight.lock().await;
        self.fetch(true).await
    }

    /// Where this issuer gives out tokens.
    pub(crate) async fn token_endpoint(&self) -> Result<Url, FetchError> {
        if self.discovered.load().is_none() {
            let _flight = self.flight.lock().await;
            if self.discovered.load().is_none() {
                self.discover().await?;
            }
        }
        let endpoint = self.discovered.load().as_ref().and_then(|found| found.token_endpoint.clone());
        endpoint.ok_or_else(|| self.bad_document("no token_endpoint"))
    }

    /// Only with the flight held.
    async fn fetch(&self, anew: bool) -> Result<(), FetchError> {
        let result = self.fetch_keys(anew).await;
        if let Err(failure) = &result {
            tracing::warn!(issuer = %self.issuer, error = %failure, "keys could not be refreshed");
        }
        *self.failure.lock() = result.as_ref().err().cloned();
        self.attempts.fetch_add(1, Ordering::Release);
        result
    }

    async fn fetch_keys(&self, anew: bool) -> Result<(), FetchError> {
        let known = self.discovered.load_full().filter(|_| !anew);
        let discovered = match known {
            Some(discovered) => discovered,
            None => self.discover().await?,
        };
        self.net.metrics.jwks_fetches.count();
        let document = self.net.fetcher.document(&discovered.jwks).await?;
        let keys = KeySet::parse(&document).map_err(|problem| FetchError::Document {
            host: fetch::host(&discovered.jwks),
            problem: problem.to_owned(),
        })?;
        self.loaded.store(Some(Arc::new(Loaded { keys, at: self.net.clock.elapsed() })));
        Ok(())
    }

    async fn discover(&self) -> Result<Arc<Discovered>, FetchError> {
        self.net.metrics.discovery_fetches.count();
        let document = self.net.fetcher.document(&self.document).await?;
        let document = Object::parse(&document).ok_or_else(|| self.bad_document("no JSON object"))?;
        let issuer = document.text("issuer").unwrap_or_default();
        if issuer != self.issuer {
            let problem =
                format!("it states the issuer {}, not {}", crate::refusal::quoted(issuer), self.issuer);
            return Err(self.bad_document(&problem));
        }
        let jwks = self.endpoint(&document, "jwks_uri")?;
        let jwks = jwks.ok_or_else(|| self.bad_document("no jwks_uri"))?;
        let discovered =
            Arc::new(Discovered { jwks, token_endpoint: self.endpoint(&document, "token_endpoint")? });
        self.discovered.store(Some(Arc::clone(&discovered)));
        Ok(discovered)
    }

    /// A URL of the document; it must not lead elsewhere than such a document may.
    fn endpoint(&self, document: &Object, name: &str) -> Result<Option<Url>, FetchError> {
        let Some(text) = document.text(name) else { return Ok(None) };
        let url = fetch::checked_url(text).map_err(|error| self.bad_document(&error.to_string()))?;
        let own = url.origin() == self.document.origin();
        // A public issuer must not send the gateway to a service on the gateway's own machine either.
        let inwards = fetch::is_loopback(&url) && !fetch::is_loopback(&self.document);
        if !own && (self.own_origin || inwards) {
            return Err(self.bad_document(&format!("{name} leads to another host")));
        }
        Ok(Some(url))
    }

    fn bad_document(&self, problem: &str) -> FetchError {
        FetchError::Document { host: fetch::host(&self.document), problem: problem.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_at_once_and_one_more_each_five_minutes() {
        let mut bucket = Bucket { left: REFRESHES_MAX, since: Duration::ZERO };
        let at = Duration::from_secs;
        let taken = |bucket: &mut Bucket, seconds| (0..10).filter(|_| bucket.take(at(seconds))).count();
        assert_eq!(taken(&mut bucket, 5000), 3);
        assert_eq!(taken(&mut bucket, 5299), 0);
        assert_eq!(taken(&mut bucket, 5300), 1);
        assert_eq!(taken(&mut bucket, 5900), 2);
        assert_eq!(taken(&mut bucket, 90_000), 3);
    }
}
