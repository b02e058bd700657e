//! Splunk's HTTP Event Collector, with indexer acknowledgement where the server offers it.
//!
//! ```text
//!  POST /services/collector/event      objects one after the other        → { "code": 0, "ackId": 7 }
//!  POST /services/collector/ack        { "acks": [7] }, until all are true → { "acks": { "7": true } }
//! ```
//!
//! A 200 to the first means accepted, not indexed, so the cursor waits for the second. What is not acknowledged in time
//! is sent again, on a new channel. A server that has no acknowledgement (it says so, or gives no `ackId`) is taken at
//! its 200. The same event can therefore come twice; its `id` is an indexed field, for removing doubles in a search.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};
use verbatim_core::{BoxFuture, json};

use crate::client::body;
use crate::event::{Batch, Event};
use crate::sink::{Limits, Sink, SinkError};

/// Names the channel of a request; acknowledgements are counted by channel.
const CHANNEL: &str = "x-splunk-request-channel";

/// How many requests are sent before their acknowledgements are waited for together: indexing takes seconds, and one
/// request at a time would make them the speed.
const REQUESTS: usize = 16;

/// The first question for acknowledgements comes after this; each one after it takes twice as long.
const POLL_FIRST: Duration = Duration::from_millis(250);

/// Until they are this far apart. Splunk forgets a channel that is idle for 10 minutes.
const POLL_LONGEST: Duration = Duration::from_secs(10);

/// How much of the server's words is kept in an error, in characters.
const WORDS_MAX: usize = 200;

/// The collector's own codes that this sink tells apart.
mod code {
    pub(super) const DATA_FORMAT: u64 = 6;
    pub(super) const CHANNEL_INVALID: u64 = 11;
    pub(super) const EVENT_MISSING: u64 = 12;
    pub(super) const EVENT_BLANK: u64 = 13;
    pub(super) const ACK_DISABLED: u64 = 14;
    pub(super) const INDEXED_FIELDS: u64 = 15;
}

/// How to reach a collector.
#[derive(Debug, Clone)]
pub struct SplunkSettings {
    /// The collector's host: `https://splunk.example.com:8088`. A path is put before the collector's own.
    pub url: Url,
    /// The collector's token.
    pub token: SecretString,
    /// The index; the token's own where none is given.
    pub index: Option<String>,
    /// The source type.
    pub sourcetype: String,
    /// The host that events are from: the gateway's node.
    pub host: String,
    /// Whether to wait for the indexer's acknowledgement, where the server has it.
    pub ack: bool,
    /// How long to wait for it before events are sent again; Splunk advises 5 minutes.
    pub ack_timeout: Duration,
    /// What one request holds.
    pub limits: Limits,
}

/// Delivers to an HTTP Event Collector.
pub struct SplunkSink {
    settings: SplunkSettings,
    client: reqwest::Client,
    authorization: HeaderValue,
    channel: Mutex<String>,
    /// The server has no acknowledgement.
    ack_is_off: AtomicBool,
}

impl std::fmt::Debug for SplunkSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SplunkSink").field("url", &self.settings.url.as_str()).finish_non_exhaustive()
    }
}

/// What the collector answers.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    text: String,
    code: Option<u64>,
    #[serde(rename = "ackId")]
    ack_id: Option<u64>,
    #[serde(rename = "invalid-event-number")]
    invalid_event: Option<usize>,
}

/// What it answers to the question for acknowledgements.
#[derive(Debug, Deserialize)]
struct Acks {
    acks: std::collections::HashMap<String, bool>,
}

/// Why a request failed, before it is known what that means for the batch.
enum Failure {
    /// The server has no acknowledgement: send it again without.
    AckDisabled,
    /// The error.
    Sink(SinkError),
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

impl SplunkSink {
    /// A sink over `client` (see [`client::http`](crate::client::http)).
    ///
    /// # Errors
    /// The token cannot stand in a header, or the URL cannot have a path.
    pub fn new(settings: SplunkSettings, client: reqwest::Client) -> Result<Self, SinkError> {
        let wrong = |what: &str| SinkError::Misconfigured { reason: what.to_owned() };
        let header = format!("Splunk {}", settings.token.expose_secret());
        let mut authorization = HeaderValue::from_str(&header)
            .map_err(|_| wrong("the token has characters that no header can hold"))?;
        authorization.set_sensitive(true);
        if settings.url.cannot_be_a_base() {
            return Err(wrong("`url` is no https:// or http:// URL"));
        }
        Ok(Self {
            settings,
            client,
            authorization,
            channel: Mutex::new(new_channel()),
            ack_is_off: AtomicBool::new(false),
        })
    }

    fn endpoint(&self, path: &str) -> Url {
        let mut url = self.settings.url.clone();
        let before = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{before}/services/collector/{path}"));
        url
    }

    fn acknowledges(&self) -> bool {
        self.settings.ack && !self.ack_is_off.load(Ordering::Relaxed)
    }

    /// Sends a request and reads what came of it.
    async fn send(&self, request: RequestBuilder) -> Result<Bytes, Failure> {
        let response = request
            .header(AUTHORIZATION, self.authorization.clone())
            .send()
            .await
            .map_err(|error| unreachable(&error))?;
        let status = response.status();
        let retry_after = retry_after(&response);
        let body = body(response).await.map_err(|error| unreachable(&error))?;
        if status == StatusCode::OK {
            return Ok(body.into());
        }
        // A proxy in between answers in its own words: those are no JSON, and the status says enough.
        let answer: Answer = serde_json::from_slice(&body).unwrap_or_default();
        Err(self.meaning(status, retry_after, &answer))
    }

    /// What a refusal means for the events.
    fn meaning(&self, status: StatusCode, retry_after: Option<Duration>, answer: &Answer) -> Failure {
        let words: String = answer.text.chars().take(WORDS_MAX).filter(|c| !c.is_control()).collect();
        let reason = match answer.code {
            None => format!("HTTP {}", status.as_u16()),
            Some(code) => format!("HTTP {}, code {code}: {words}", status.as_u16()),
        };
        let error = match (status.as_u16(), answer.code) {
            (400, Some(code::ACK_DISABLED)) => return Failure::AckDisabled,
            (400, Some(code::CHANNEL_INVALID)) => {
                *self.channel.lock() = new_channel();
                SinkError::Unavailable { reason, retry_after }
            }
            (
                400,
                Some(code::DATA_FORMAT | code::EVENT_MISSING | code::EVENT_BLANK | code::INDEXED_FIELDS),
            ) => SinkError::Rejected { reason, event: answer.invalid_event },
            (413, _) => SinkError::Rejected { reason, event: None },
            (408 | 425 | 429 | 500..=599, _) => SinkError::Unavailable { reason, retry_after },
            // A wrong token, index or address. Nothing is wrong with the events.
            _ => SinkError::Misconfigured { reason },
        };
        Failure::Sink(error)
    }

    /// Posts one request's events; its acknowledgement's number, where there will be one.
    async fn post(&self, events: &[Event], channel: &str) -> Result<Option<u64>, Failure> {
        let mut payload = Vec::new();
        for event in events {
            self.encode(event, &mut payload);
        }
        // The channel goes along in any case: a token that acknowledges refuses events without one.
        let request = self.client.post(self.endpoint("event")).header(CHANNEL, channel).body(payload);
        let body = self.send(request).await?;
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| no_collector())?;
        match answer.code {
            Some(0) => Ok(answer.ack_id),
            _ => Err(no_collector().into()),
        }
    }

    fn encode(&self, event: &Event, out: &mut Vec<u8>) {
        let micros = event.time.as_nanos() / 1000;
        out.extend_from_slice(
            format!("{{\"time\":{}.{:06},\"host\":", micros / 1_000_000, micros % 1_000_000).as_bytes(),
        );
        json::string(out, &self.settings.host);
        out.extend_from_slice(b",\"source\":\"verbatim\",\"sourcetype\":");
        json::string(out, &self.settings.sourcetype);
        if let Some(index) = &self.settings.index {
            out.extend_from_slice(b",\"index\":");
            json::string(out, index);
        }
        out.extend_from_slice(b",\"fields\":{\"id\":");
        json::string(out, &event.id);
        out.extend_from_slice(b"},\"event\":");
        out.extend_from_slice(&event.json);
        out.extend_from_slice(b"}\n");
    }

    /// Posts everything, then waits until all of it is acknowledged.
    async fn deliver_all(&self, batch: &Batch) -> Result<(), Failure> {
        let channel = self.channel.lock().clone();
        let mut waiting = Vec::new();
        let mut from = 0;
        for events in requests(&batch.events, &self.settings.limits) {
            match self.post(events, &channel).await {
                Ok(ack) => waiting.extend(ack),
                Err(Failure::Sink(SinkError::Rejected { reason, event })) => {
                    return Err(rejected(reason, event, from, events.len(), batch.events.len()).into());
                }
                Err(other) => return Err(other),
            }
            from += events.len();
        }
        if !self.acknowledges() || waiting.is_empty() {
            return Ok(());
        }
        self.acknowledged(waiting, &channel).await
    }

    /// Asks until every number is acknowledged.
    async fn acknowledged(&self, mut waiting: Vec<u64>, channel: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + self.settings.ack_timeout;
        let mut pause = POLL_FIRST;
        let mut last = "not yet".to_owned();
        while !waiting.is_empty() {
            if timeout_at(deadline, sleep(pause)).await.is_err() {
                // The server may have lost it or forgotten the channel: both look like "not yet".
                *self.channel.lock() = new_channel();
                let reason = format!("not acknowledged in {:?}: {last}", self.settings.ack_timeout);
                return Err(SinkError::Unavailable { reason, retry_after: None }.into());
            }
            pause = (pause * 2).min(POLL_LONGEST);
            match self.ask(&waiting, channel).await {
                Ok(acks) => waiting.retain(|ack| acks.acks.get(&ack.to_string()) != Some(&true)),
                // Asking is what failed, not the delivery: that is still to be learnt.
                Err(Failure::Sink(SinkError::Unavailable { reason, .. })) => last = reason,
                Err(Failure::AckDisabled) => {
                    // What it accepted is all that this server will ever say.
                    self.ack_is_off.store(true, Ordering::Relaxed);
                    tracing::info!("the collector has no acknowledgement: its 200 counts");
                    return Ok(());
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    async fn ask(&self, waiting: &[u64], channel: &str) -> Result<Acks, Failure> {
        let mut url = self.endpoint("ack");
        url.query_pairs_mut().append_pair("channel", channel);
        let question = serde_json::json!({ "acks": waiting });
        let body = self.send(self.client.post(url).header(CHANNEL, channel).json(&question)).await?;
        Ok(serde_json::from_slice(&body).map_err(|_| no_collector())?)
    }
}

impl Sink for SplunkSink {
    fn kind(&self) -> &'static str {
        "splunk"
    }

    fn requests(&self) -> usize {
        if self.acknowledges() { REQUESTS } else { 1 }
    }

    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(async move {
            match self.deliver_all(batch).await {
                Ok(()) => Ok(()),
                Err(Failure::Sink(error)) => Err(error),
                // Said to an event, which was not taken then: it is sent again, and not waited for.
                Err(Failure::AckDisabled) => {
                    self.ack_is_off.store(true, Ordering::Relaxed);
                    let reason = "the collector has no acknowledgement".to_owned();
                    Err(SinkError::Unavailable { reason, retry_after: None })
                }
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            match self.send(self.client.get(self.endpoint("health"))).await {
                Ok(_) => Ok(()),
                Err(Failure::Sink(error)) => Err(error),
                Err(Failure::AckDisabled) => Ok(()),
            }
        })
    }
}

fn new_channel() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The events, in requests of bounded size. One that is longer goes alone: the server may take it.
fn requests<'a>(events: &'a [Event], limits: &Limits) -> impl Iterator<Item = &'a [Event]> {
    let (events_max, bytes_max) = (limits.events.max(1), limits.bytes);
    let mut rest = events;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fitting = rest.iter().take(events_max).take_while(|event| {
            bytes = bytes.saturating_add(event.json.len());
            bytes <= bytes_max
        });
        let count = fitting.count().max(1).min(rest.len());
        let (request, after) = rest.split_at(count);
        rest = after;
        (!request.is_empty()).then_some(request)
    })
}

/// A rejection of one request, in terms of the batch. Where the request held one event, that is the one.
fn rejected(reason: String, event: Option<usize>, from: usize, length: usize, all: usize) -> SinkError {
    let event = event.filter(|event| *event < length).or((length == 1).then_some(0));
    match event {
        Some(event) => SinkError::Rejected { reason, event: Some(from + event) },
        // The batch is this request alone, or the halving finds out which it was.
        None => SinkError::Rejected { reason, event: (all == 1).then_some(0) },
    }
}

fn no_collector() -> SinkError {
    SinkError::Misconfigured { reason: "the answer is not an event collector's".to_owned() }
}

/// The error without its URL, and with its causes: "connection refused" is what people need to read.
fn unreachable(error: &reqwest::Error) -> SinkError {
    let mut reason = if error.is_timeout() { "timed out".to_owned() } else { "unreachable".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    SinkError::Unavailable { reason, retry_after: None }
}

/// `Retry-After` in seconds; a date is left to the backoff.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
