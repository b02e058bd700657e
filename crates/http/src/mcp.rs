//! The Model Context Protocol: the streamable HTTP transport, and the older one of HTTP and server-sent events.
//!
//! ```text
//!  POST, JSON-RPC ── message  read so that there is one way to read it; each message an operation
//!                 ── Registry the session that its `Mcp-Session-Id` or endpoint stands for
//!                 ── answer   JSON or events, passed on as they come; each answer is its request's outcome
//!  GET, DELETE    ── as HTTP: the stream of events is passed on, and a DELETE ends the session
//! ```
//!
//! Of a batch with a refused message nothing goes on: the others are recorded as skipped, and all are answered.

pub(crate) mod answer;
pub(crate) mod message;
pub(crate) mod pending;
pub(crate) mod scan;
pub(crate) mod sse;
pub(crate) mod tools;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use verbatim_core::{
    CloseReason, Credential, Operation, Outcome, Recorded, Refusal, Status, TargetError, Token,
};

use crate::body::{ClientBody, Source, TargetBody};
use crate::exchange::Exchange;
use crate::fields;
use crate::pool::{Lease, SendError};
use crate::relay::{Call, Shell, Stream, read_whole, trace_id};
use crate::session::{Live, Running, copy};
use crate::target::{ToolsChanged, Wanted};
use answer::Answered;
use message::{Message, Messages};
use pending::Waiting;
use scan::key_of;
use tools::Pins;

const SESSION_ID: &str = "mcp-session-id";
/// Silence after which a session is over.
const SILENCE: Duration = Duration::from_secs(30 * 60);

/// What all streams of a gateway share: the sessions that are not bound to one of them, and the tools that are pinned.
#[derive(Default)]
pub(crate) struct Registry {
    sessions: Mutex<HashMap<Key, Arc<Live>>>,
    pub(crate) pins: Pins,
}

/// What a session is known by, on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    SessionId(String, String),
    Endpoint(String, String),
}

impl Registry {
    fn find(&self, key: &Key) -> Option<Arc<Live>> {
        let mut sessions = self.sessions.lock();
        let live = sessions.get(key)?;
        if live.is_over() {
            sessions.remove(key);
            return None;
        }
        Some(Arc::clone(live))
    }

    /// From now on the session goes by this id, until it ends: by a DELETE, by silence, or as any session does.
    fn register(self: &Arc<Self>, live: &Arc<Live>, id: &str) {
        let key = Key::SessionId(live.connection.clone(), id.to_owned());
        self.sessions.lock().insert(key.clone(), Arc::clone(live));
        let (registry, live) = (Arc::downgrade(self), Arc::clone(live));
        tokio::spawn(async move {
            loop {
                let due = live.last() + SILENCE;
                tokio::select! {
                    () = live.over.cancelled() => break,
                    () = sleep_until(due) => {}
                }
                if Instant::now() >= live.last() + SILENCE && live.is_idle() {
                    live.close(CloseReason::Idle);
                    break;
                }
                if !live.is_idle() {
                    live.touch();
                }
            }
            if let Some(registry) = registry.upgrade() {
                registry.sessions.lock().remove(&key);
            }
        });
    }

    /// Messages to this path belong to the session of the stream that named it.
    pub(crate) fn endpoint(&self, live: &Arc<Live>, path: &str) {
        let key = Key::Endpoint(live.connection.clone(), path.to_owned());
        self.sessions.lock().insert(key, Arc::clone(live));
    }

    pub(crate) fn forget_endpoint(&self, connection: &str, path: &str) {
        self.sessions.lock().remove(&Key::Endpoint(connection.to_owned(), path.to_owned()));
    }
}

/// The session of a request.
enum Found {
    /// Of the stream, as for HTTP.
    Stream(Arc<Live>),
    /// Known by its id or endpoint.
    Named(Arc<Live>),
    /// The id is one that the gateway does not know: what comes of it decides.
    Unknown(Arc<Live>, String),
    /// The id is another identity's.
    Foreign(Arc<Live>),
}

impl Found {
    const fn live(&self) -> &Arc<Live> {
        match self {
            Self::Stream(live) | Self::Named(live) | Self::Unknown(live, _) | Self::Foreign(live) => live,
        }
    }
}

/// Serves one request to a connection of type `mcp`.
pub(crate) async fn serve(stream: &Arc<Stream>, mut call: Call, token: Token) -> Response<ClientBody> {
    let found = match find(stream, &call, &token).await {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let live = Arc::clone(found.live());
    // An answer that is compressed could not be read in passing.
    call.request.headers_mut().remove(ACCEPT_ENCODING);
    let foreign = matches!(found, Found::Foreign(_));
    match *call.request.method() {
        Method::POST => Box::pin(post(stream, found, call, token)).await,
        Method::GET | Method::HEAD | Method::OPTIONS if !foreign => stream.forward(live, call).await,
        Method::DELETE if !foreign => {
            let response = stream.forward(Arc::clone(&live), call).await;
            if response.status().is_success() && !matches!(found, Found::Stream(_)) {
                stream.sessions.release(&live);
                // Its last answer is still on its way, and has its outcome only then.
                tokio::spawn(async move { live.end(CloseReason::Client).await });
            }
            response
        }
        ref method => {
            let refusal = match foreign {
                true => foreign_id(),
                false => Refusal::Unsupported { what: format!("the method {method}").into() },
            };
            let mut operation = Operation::new(live.session.next_sequence(), "request");
            operation.text = Some(call.text.clone());
            operation.refused = Some(refusal.clone());
            // Whatever the stack answers, it is not forwarded.
            let refusal = live.decide(operation).await.err().unwrap_or(refusal);
            stream.refused(&call, &live, &refusal)
        }
    }
}

fn foreign_id() -> Refusal {
    let reason = "the Mcp-Session-Id is another identity's".to_owned();
    Refusal::NotAllowed { code: "mcp_session", reason }
}

/// The session that a request belongs to; who asks is verified in any case.
async fn find(stream: &Arc<Stream>, call: &Call, token: &Token) -> Result<Found, Box<Response<ClientBody>>> {
    let connection = call.route.wanted.clone();
    let id = call.headers().get(SESSION_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let key = match &id {
        Some(id) => Key::SessionId(connection, id.clone()),
        None => {
            let query = call.target.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
            Key::Endpoint(connection, format!("{}{query}", call.route.rest))
        }
    };
    let mut foreign = false;
    if let Some(live) = stream.mcp.find(&key) {
        if live.knows(token) || live.renew(token).await.is_ok() {
            stream.let_in(&live);
            return Ok(Found::Named(live));
        }
        foreign = true;
    }
    let live = match stream.find_or_open(call, token).await {
        Ok(live) => live,
        Err(refused) => return Err(Box::new(stream.not_let_in(call, refused))),
    };
    Ok(match id {
        _ if foreign => Found::Foreign(live),
        Some(id) => Found::Unknown(live, id),
        None => Found::Stream(live),
    })
}

/// A body of JSON-RPC messages.
async fn post(stream: &Arc<Stream>, found: Found, mut call: Call, token: Token) -> Response<ClientBody> {
    let live = Arc::clone(found.live());
    let limit = stream.limits().message_bytes;
    let body = match read_whole(call.request.body_mut(), limit).await {
        Ok(body) => body,
        Err(refusal) => return unreadable(stream, &call, &live, Bytes::new(), refusal).await,
    };
    let messages = match message::read(&body) {
        Ok(messages) => messages,
        Err(reason) => {
            return unreadable(stream, &call, &live, body, Refusal::Protocol { reason: reason.into() }).await;
        }
    };
    let (live, _running) = match own_session(stream, &found, &messages, &call, &token).await {
        Ok(own) => own,
        Err(response) => return *response,
    };
    let foreign = matches!(found, Found::Foreign(_));
    let recorded = match decide(stream, &live, &messages, &call, foreign).await {
        Ok(recorded) => recorded,
        Err(refusal) => {
            let ids: Vec<&str> = messages.all.iter().filter_map(|message| message.id.as_deref()).collect();
            return stream.rpc_refused(&call, &live, &refusal, &ids, messages.batch);
        }
    };
    let exchange = Posted::new(&live, &messages, recorded);
    forward(stream, &found, live, call, body, exchange).await
}

/// The session for these messages: one that begins with `initialize` is a session of its own, which may get an id. What is
/// returned with it keeps another such request of the stream from taking it too.
async fn own_session(
    stream: &Arc<Stream>,
    found: &Found,
    messages: &Messages,
    call: &Call,
    token: &Token,
) -> Result<(Arc<Live>, Option<Running>), Box<Response<ClientBody>>> {
    let Found::Stream(live) = found else { return Ok((Arc::clone(found.live()), None)) };
    if !messages.all.iter().any(|message| message.is("initialize")) {
        return Ok((Arc::clone(live), None));
    }
    if live.is_idle() {
        return Ok((Arc::clone(live), Some(live.runs())));
    }
    let session = stream.session(call, Some(&live.target));
    let target = Some(Arc::clone(&live.target));
    let opened = Live::open(&stream.listener, session, target, Credential::Token(copy(token))).await;
    match opened {
        Ok(live) => {
            stream.let_in(&live);
            stream.sessions.adopt(Arc::clone(&live));
            let running = live.runs();
            Ok((live, Some(running)))
        }
        Err(refused) => Err(Box::new(stream.not_let_in(call, refused))),
    }
}

/// What becomes of a session once the target answered: with an id it is known by that, on whatever stream.
fn settle_owner(stream: &Arc<Stream>, found: &Found, live: &Arc<Live>, headers: &HeaderMap) {
    let given = headers.get(SESSION_ID).and_then(|id| id.to_str().ok());
    let id = match (found, given) {
        (Found::Stream(_), Some(id)) => id,
        (Found::Unknown(_, id), _) => id,
        _ => return,
    };
    stream.sessions.release(live);
    stream.mcp.register(live, id);
}

/// Has every message decided; one that is refused holds up all.
async fn decide(
    stream: &Stream,
    live: &Arc<Live>,
    messages: &Messages,
    call: &Call,
    foreign: bool,
) -> Result<Vec<Recorded>, Refusal> {
    let from_header = trace_id(call.headers());
    let operations = messages.all.iter().map(|message| Operation {
        text: Some(message.raw.clone()),
        parts: message.part.clone().into_iter().collect(),
        trace_id: message.trace_id.clone().or_else(|| from_header.clone()),
        refused: if foreign { Some(foreign_id()) } else { changed_tool(stream, live, message) },
        ..Operation::new(live.session.next_sequence(), message.kind())
    });
    let decided = live.decide_all(operations.collect()).await;
    let mut recorded = Vec::with_capacity(decided.len());
    let mut refusal = None;
    for one in decided {
        match one {
            Ok(one) => recorded.push(one),
            Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    let Some(refusal) = refusal else { return Ok(recorded) };
    for one in recorded {
        one.complete(&Outcome::new(Status::Skipped));
    }
    Err(refusal)
}

fn changed_tool(stream: &Stream, live: &Live, message: &Message) -> Option<Refusal> {
    let tool = message.tool.as_deref()?;
    let changed = live.target.tools_changed == ToolsChanged::Refuse
        && stream.mcp.pins.has_changed(&live.connection, tool);
    changed.then(|| {
        let reason = format!("the description of the tool {tool:?} is another than when it was first seen");
        Refusal::NotAllowed { code: "tool_changed", reason }
    })
}

/// A body that is no JSON-RPC: recorded as it came, and refused.
async fn unreadable(
    stream: &Stream,
    call: &Call,
    live: &Arc<Live>,
    body: Bytes,
    refusal: Refusal,
) -> Response<ClientBody> {
    let operation = Operation {
        text: Some(if body.is_empty() { call.text.clone() } else { body }),
        refused: Some(refusal.clone()),
        trace_id: trace_id(call.headers()),
        ..Operation::new(live.session.next_sequence(), "request")
    };
    // Whatever the stack answers, it is not forwarded.
    let refusal = live.decide(operation).await.err().unwrap_or(refusal);
    stream.rpc_refused(call, live, &refusal, &[], false)
}

/// Messages that are on their way.
struct Posted {
    /// The ids of requests that wait for their answers, as sent.
    ids: Vec<String>,
    /// Notifications, and answers to the server's own requests: settled by the response's status.
    silent: Vec<Recorded>,
    batch: bool,
}

impl Posted {
    fn new(live: &Arc<Live>, messages: &Messages, recorded: Vec<Recorded>) -> Self {
        let mut posted = Self { ids: Vec::new(), silent: Vec::new(), batch: messages.batch };
        for (message, recorded) in messages.all.iter().zip(recorded) {
            match (&message.id, &message.method) {
                (Some(id), Some(_)) => {
                    posted.ids.push(id.clone());
                    live.pending.add(Waiting::new(id, recorded, message.is("tools/list"), live.runs()));
                }
                _ => posted.silent.push(recorded),
            }
        }
        posted
    }

    fn keys(&self) -> Vec<String> {
        self.ids.iter().map(|id| key_of(id)).collect()
    }

    /// The target took the messages, or did not.
    fn taken(&mut self, status: StatusCode, message: &str) {
        for recorded in std::mem::take(&mut self.silent) {
            let mut outcome = Outcome::new(Status::Ok);
            if status.as_u16() >= 400 {
                outcome.status = Status::Error;
                outcome.error =
                    Some(TargetError { code: status.as_str().to_owned(), message: message.to_owned() });
            }
            recorded.complete(&outcome);
        }
    }

    /// No answer will come.
    fn failed(&mut self, live: &Live, status: StatusCode, message: &str) {
        self.taken(status, message);
        for key in self.keys() {
            if let Some(waiting) = live.pending.take(&key) {
                waiting.failed(status.as_str(), message);
            }
        }
    }
}

/// Sends recorded messages to the target.
async fn forward(
    stream: &Arc<Stream>,
    found: &Found,
    live: Arc<Live>,
    call: Call,
    body: Bytes,
    mut posted: Posted,
) -> Response<ClientBody> {
    let path = match call.path(&live.target) {
        Ok(path) => path,
        Err(reason) => {
            posted.failed(&live, StatusCode::BAD_REQUEST, reason);
            let ids: Vec<&str> = posted.ids.iter().map(String::as_str).collect();
            let refusal = Refusal::Protocol { reason: reason.into() };
            return stream.rpc_refused(&call, &live, &refusal, &ids, posted.batch);
        }
    };
    let (home, began) = (call.route.home.clone(), call.began);
    let request = to_target(&live, call, body);
    stream.listener.metrics.added_latency(began.elapsed());
    let sent = tokio::select! {
        sent = live.pool.send(request, &path, Wanted::Any) => Some(sent),
        () = live.cut.cancelled() => None,
    };
    match sent {
        Some(Ok((response, lease))) => answered(stream, found, live, response, lease, posted, &home),
        Some(Err(error)) => unanswered(&live, posted, &error),
        None => unreachable_words(&live, &posted, StatusCode::UNAUTHORIZED, "the session ended"),
    }
}

fn to_target(live: &Live, call: Call, body: Bytes) -> Request<TargetBody> {
    let (mut parts, _) = call.request.into_parts();
    fields::to_target(&mut parts.headers, &live.target);
    // The body is held whole, whatever it came as.
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(http::header::TRAILER);
    Request::from_parts(parts, TargetBody::Whole(Some(body)))
}

fn answered(
    stream: &Arc<Stream>,
    found: &Found,
    live: Arc<Live>,
    mut response: Response<Incoming>,
    lease: Lease,
    mut posted: Posted,
    home: &str,
) -> Response<ClientBody> {
    let status = response.status();
    posted.taken(status, status.canonical_reason().unwrap_or_default());
    settle_owner(stream, found, &live, response.headers());
    fields::to_client(response.headers_mut(), &live.target, home);
    *response.version_mut() = Version::HTTP_11;
    let (parts, incoming) = response.into_parts();
    let source = Source::new(incoming, lease, live.cut.clone());
    let registry = Arc::clone(&stream.mcp);
    let mut keys = posted.keys();
    // The older transport answers on its stream of events.
    if matches!(found, Found::Named(_)) && status == StatusCode::ACCEPTED {
        keys.clear();
    }
    let body = Answered::new(live, registry, &parts, source, keys, None);
    Response::from_parts(parts, ClientBody::Answered(Box::new(body)))
}

fn unanswered(live: &Live, mut posted: Posted, error: &SendError) -> Response<ClientBody> {
    let status = if error.is_timeout() { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
    tracing::warn!(connection = live.connection, %error, "no answer from the target");
    posted.failed(live, status, &error.to_string());
    unreachable_words(live, &posted, status, "the target cannot be reached")
}

/// A JSON-RPC error of the gateway's own for every request.
fn unreachable_words(
    live: &Live,
    posted: &Posted,
    status: StatusCode,
    message: &str,
) -> Response<ClientBody> {
    let ids: Vec<&str> = posted.ids.iter().map(String::as_str).collect();
    crate::refusal::rpc_failure(status, message, &ids, posted.batch, live.session.id())
}

/// A response to what is no POST: events are read in passing, for they may hold answers.
pub(crate) fn passed(
    stream: &Arc<Stream>,
    live: &Arc<Live>,
    shell: &Shell,
    exchange: Arc<Exchange>,
    parts: &Parts,
    source: Source,
) -> ClientBody {
    let registry = Arc::clone(&stream.mcp);
    let body = Answered::new(Arc::clone(live), registry, parts, source, Vec::new(), Some(exchange));
    ClientBody::Answered(Box::new(if shell.method == Method::GET {
        body.with_first(&shell.home)
    } else {
        body
    }))
}
