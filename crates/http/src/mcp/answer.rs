//! A target's response with JSON-RPC in it: passed on as it comes, and read in passing.
//!
//! Each answer in it settles the request that it is for. What it does not answer is settled when the response ends: by the
//! response's status where that is an error, and else not at all. A request whose event stream ended without its answer
//! waits on where the client can resume the stream; where it cannot, it is recorded as aborted.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::response::Parts;
use hyper::body::{Frame, SizeHint};
use verbatim_core::RecordMode;

use super::Registry;
use super::scan::{Answer, Scanner};
use super::sse::{self, Events, Piece};
use crate::body::{BodyError, More, Source};
use crate::exchange::Exchange;
use crate::operation::media_type;
use crate::session::Live;

/// How large an answer may be that has to be held beside being passed on: a list of tools, a result that is recorded.
const HELD_MAX: usize = 16 << 20;
/// How long the first event of a stream may be that could be the endpoint of the older transport.
const FIRST_EVENT_MAX: usize = 8 << 10;

/// What is in a response.
enum Content {
    /// A message, or an array of some.
    Json,
    /// Events with messages.
    Events(Box<Events>),
    /// Nothing that is read.
    Opaque,
}

/// The first event of a stream that may name an endpoint.
pub(crate) struct First {
    pub(crate) held: BytesMut,
    /// The path of the stream's own request, and what the client writes before paths.
    pub(crate) home: String,
}

/// See the module.
pub(crate) struct Answered {
    source: Source,
    live: Arc<Live>,
    registry: Arc<Registry>,
    content: Content,
    scanner: Scanner,
    answers: Vec<Answer>,
    /// The message that goes by, where it has to be held.
    held: Option<Vec<u8>>,
    /// The requests that this response should answer.
    ids: Vec<String>,
    status: StatusCode,
    /// Of a request that is no JSON-RPC: its own outcome.
    exchange: Option<Arc<Exchange>>,
    first: Option<First>,
    /// Bytes that go out next.
    out: Option<Bytes>,
    /// A client can resume the stream.
    resumable: bool,
    over: bool,
    endpoint: Option<(String, String)>,
}

impl Answered {
    /// `ids` are those of the requests that the response should answer, `exchange` is that of a request of another kind.
    pub(crate) fn new(
        live: Arc<Live>,
        registry: Arc<Registry>,
        parts: &Parts,
        source: Source,
        ids: Vec<String>,
        exchange: Option<Arc<Exchange>>,
    ) -> Self {
        let kind = media_type(&parts.headers);
        let content = if parts.headers.contains_key(http::header::CONTENT_ENCODING) {
            Content::Opaque
        } else if kind.eq_ignore_ascii_case("text/event-stream") {
            Content::Events(Box::default())
        } else if kind.eq_ignore_ascii_case("application/json") {
            Content::Json
        } else {
            Content::Opaque
        };
        let mut answered = Self {
            source,
            live,
            registry,
            content,
            scanner: Scanner::default(),
            answers: Vec::new(),
            held: None,
            ids,
            status: parts.status,
            exchange,
            first: None,
            out: None,
            resumable: false,
            over: false,
            endpoint: None,
        };
        if answered.source.is_end() {
            answered.ends(None);
        }
        answered
    }

    /// The stream may be of the older transport: its first event is looked at.
    pub(crate) fn with_first(mut self, home: &str) -> Self {
        if matches!(self.content, Content::Events(_)) && !self.over {
            self.first = Some(First { held: BytesMut::new(), home: home.to_owned() });
        }
        self
    }

    pub(crate) fn is_end(&self) -> bool {
        self.source.is_end() && self.out.is_none() && self.first.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.first.is_some() || self.endpoint.is_some() {
            SizeHint::default()
        } else {
            self.source.size_hint()
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(out) = self.out.take() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
            let why = match ready!(self.source.poll(cx)) {
                More::Frame(frame) => {
                    let data = match frame.into_data() {
                        Ok(data) => data,
                        Err(frame) => return Poll::Ready(Some(Ok(frame))),
                    };
                    if !self.takes(&data) {
                        self.ends(Some("it could not be recorded"));
                        return Poll::Ready(Some(Err(BodyError("it cannot be recorded"))));
                    }
                    if self.source.is_end() {
                        self.flush_first();
                        self.ends(None);
                    }
                    continue;
                }
                More::End => {
                    self.flush_first();
                    if self.out.is_some() {
                        continue;
                    }
                    self.ends(None);
                    return Poll::Ready(None);
                }
                More::Broken => "the target broke off",
                More::Cut => "the session ended before the response did",
            };
            self.ends(Some(why));
            return Poll::Ready(Some(Err(BodyError("the response broke off"))));
        }
    }

    /// Takes a piece of the target's response, and sets what goes out.
    fn takes(&mut self, data: &Bytes) -> bool {
        if let Some(exchange) = &self.exchange
            && exchange.passes(data).is_err()
        {
            return false;
        }
        self.reads(data);
        match &mut self.first {
            None => self.out = Some(data.clone()),
            Some(first) => {
                first.held.extend_from_slice(data);
                if first.held.len() > FIRST_EVENT_MAX || sse::first_event(&first.held).is_some() {
                    self.flush_first();
                }
            }
        }
        true
    }

    /// Passes the first event on; an endpoint as the client has to write it.
    fn flush_first(&mut self) {
        let Some(First { held, home }) = self.first.take() else { return };
        let end = sse::first_event(&held).unwrap_or(held.len());
        let event = held.get(..end).unwrap_or_default();
        let found = sse::endpoint(event).and_then(|(range, uri)| {
            let moved = crate::fields::at_home(uri, &self.live.target, &home)?;
            Some((range, uri.to_owned(), moved))
        });
        let Some((range, uri, moved)) = found else {
            self.out = Some(held.freeze()).filter(|held| !held.is_empty());
            return;
        };
        let (before, after) = (held.get(..range.start), held.get(range.end..));
        let out = [before.unwrap_or_default(), moved.as_bytes(), after.unwrap_or_default()].concat();
        self.out = Some(out.into());
        // The client's messages come to that path, on other streams, and belong to the session of this one.
        let inside = crate::fields::at_home(&uri, &self.live.target, "").unwrap_or(uri);
        self.registry.endpoint(&self.live, &inside);
        self.endpoint = Some((self.live.connection.clone(), inside));
    }

    /// Reads a piece in passing.
    fn reads(&mut self, data: &[u8]) {
        if matches!(self.content, Content::Opaque) {
            return;
        }
        let holds = self.live.session.record() == RecordMode::Results || self.live.pending.lists_tools();
        let Self { content, scanner, answers, held, .. } = self;
        let mut settled = Vec::new();
        let mut take = |scanner: &mut Scanner, bytes: &[u8], held: &mut Option<Vec<u8>>| {
            if holds {
                let kept = held.get_or_insert_default();
                if kept.len() + bytes.len() <= HELD_MAX {
                    kept.extend_from_slice(bytes);
                }
            }
            scanner.push(bytes, answers);
        };
        match content {
            Content::Json => take(scanner, data, held),
            Content::Events(events) => events.push(data, |piece| match piece {
                Piece::Data(bytes) => take(scanner, bytes, held),
                Piece::End { id } => {
                    self.resumable |= id;
                    settled.push(());
                    scanner.reset();
                }
            }),
            Content::Opaque => {}
        }
        self.settle();
        if !settled.is_empty() {
            self.held = None;
        }
    }

    /// Each answer that went by settles its request.
    fn settle(&mut self) {
        for answer in std::mem::take(&mut self.answers) {
            let Some(key) = &answer.id else { continue };
            let Some(waiting) = self.live.pending.take(key) else { continue };
            self.ids.retain(|id| id != key);
            let held = self.held.as_deref();
            let mut messages = Vec::new();
            if waiting.lists_tools() {
                messages = match held.filter(|held| held.len() < HELD_MAX) {
                    Some(held) => self.registry.pins.see(&self.live.connection, held),
                    None => vec!["WARNING tools_unread: the list of tools is too long".to_owned()],
                };
            }
            let result = held.filter(|_| self.live.session.record() == RecordMode::Results);
            waiting.answered(&answer, result, messages);
        }
    }

    /// The response has ended, or has broken off.
    fn ends(&mut self, broken: Option<&str>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if let Some(exchange) = &self.exchange {
            match broken {
                None => exchange.answered_whole(),
                Some(why) => exchange.partial(why),
            }
        }
        if let Some((connection, endpoint)) = self.endpoint.take() {
            self.registry.forget_endpoint(&connection, &endpoint);
        }
        for key in std::mem::take(&mut self.ids) {
            if self.resumable && self.status.is_success() {
                continue;
            }
            let Some(waiting) = self.live.pending.take(&key) else { continue };
            if self.status.as_u16() >= 400 {
                let reason = self.status.canonical_reason().unwrap_or_default();
                waiting.failed(self.status.as_str(), reason);
            } else if let (Content::Opaque, None) = (&self.content, broken) {
                waiting.failed("unread", "the response holds no JSON-RPC that can be read");
            }
        }
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.ends(Some("the client left before the response ended"));
    }
}
