//! One request from its head to its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use verbatim_core::{BoxFuture, CloseReason, Credential, Operation, Refusal, Token};
use verbatim_wire::{Limits, Listener, downcast};

use crate::body::{ClientBody, Passed, Source, Streamed, TargetBody};
use crate::exchange::Exchange;
use crate::guard::head::{self, Head};
use crate::guard::{BadHead, Heads};
use crate::mcp::{self, Registry};
use crate::operation::{self, Fields, INLINE_MAX};
use crate::pool::{Lease, SendError};
use crate::refusal::{self, Context};
use crate::route::Target;
use crate::session::{Asked, HttpSession, Live, Refused, Sessions};
use crate::target::{HttpTarget, Wanted};
use crate::{discovery, fields, upgrade};

/// One client stream.
pub(crate) struct Stream {
    pub(crate) listener: Arc<Listener>,
    pub(crate) mcp: Arc<Registry>,
    pub(crate) sessions: Sessions,
    peer: SocketAddr,
    secure: bool,
    /// In clear, where a token must not be.
    exposed: bool,
    /// Of HTTP/1.
    heads: Option<Arc<Heads>>,
    known: AtomicBool,
    identified: Notify,
    running: AtomicUsize,
    last: Mutex<Instant>,
    drained: CancellationToken,
    closes: Mutex<Option<CloseReason>>,
    upgraded: Mutex<Option<BoxFuture<'static, ()>>>,
    /// The host that was last asked for, and the connection that it names.
    host: Mutex<Option<(String, Option<String>)>>,
}

/// A request on its way.
pub(crate) struct Call {
    pub(crate) request: Request<Incoming>,
    /// Of HTTP/1.
    pub(crate) head: Option<Head>,
    /// `METHOD target`, as sent.
    pub(crate) text: Bytes,
    pub(crate) target: Target,
    pub(crate) route: Route,
    pub(crate) began: Instant,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// The connection.
    pub(crate) wanted: String,
    /// The path without the connection's name.
    pub(crate) rest: String,
    /// What the client writes before paths of this connection.
    pub(crate) home: String,
}

impl Call {
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// What the target gets as the request's target.
    pub(crate) fn path(&self, target: &HttpTarget) -> Result<PathAndQuery, &'static str> {
        let prefix = if self.route.rest == "*" { "" } else { &target.prefix };
        self.target.behind(prefix, &self.route.rest)
    }

    /// The operation that this request is; `body` where it stands inline.
    fn operation(&self, sequence: u64, body: Option<&Bytes>) -> Operation {
        let fields = match &self.head {
            Some(head) => Fields::Head(head),
            None => Fields::Map(self.headers()),
        };
        let body = body.map(|body| (operation::media_type(self.headers()), &**body));
        Operation {
            text: Some(self.text.clone()),
            parts: vec![operation::request_part(&self.text, &fields, body)],
            trace_id: trace_id(self.headers()),
            ..Operation::new(sequence, "request")
        }
    }
}

pub(crate) fn trace_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(verbatim_core::trace::NAME)?.to_str().ok()?;
    verbatim_core::trace::traceparent(value)
}

/// What a request's `Authorization` holds.
enum Claim {
    Nothing,
    Token(Token),
    Wrong(Refusal),
}

impl Stream {
    pub(crate) fn new(
        listener: Arc<Listener>,
        mcp: Arc<Registry>,
        peer: SocketAddr,
        secure: bool,
        exposed: bool,
        heads: Option<Arc<Heads>>,
    ) -> Self {
        Self {
            listener,
            mcp,
            sessions: Sessions::default(),
            peer,
            secure,
            exposed,
            heads,
            known: AtomicBool::new(false),
            identified: Notify::new(),
            running: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            drained: CancellationToken::new(),
            closes: Mutex::new(None),
            upgraded: Mutex::new(None),
            host: Mutex::new(None),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.listener.limits
    }

    pub(crate) fn junk(&self) {
        self.listener.metrics.junk();
    }

    /// Whether somebody was let in.
    pub(crate) fn is_identified(&self) -> bool {
        self.known.load(Relaxed)
    }

    pub(crate) async fn identified(&self) {
        while !self.is_identified() {
            self.identified.notified().await;
        }
    }

    /// Whether no request runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.load(Relaxed) == 0 && self.sessions.all().iter().all(|live| live.is_idle())
    }

    /// When a request last began or ended.
    pub(crate) fn last(&self) -> Instant {
        let lives = self.sessions.all();
        lives.iter().map(|live| live.last()).chain([*self.last.lock()]).max().unwrap_or_else(Instant::now)
    }

    pub(crate) async fn drained(&self) {
        self.drained.cancelled().await;
    }

    /// Why the stream is about to end.
    pub(crate) fn closes(&self, reason: CloseReason) {
        *self.closes.lock() = Some(reason);
    }

    pub(crate) fn take_upgraded(&self) -> Option<BoxFuture<'static, ()>> {
        self.upgraded.lock().take()
    }

    /// The stream has ended: so have its sessions. A head that hyper would not take is left in the queue.
    pub(crate) async fn end(&self, reason: CloseReason) {
        let left = self.heads.as_ref().and_then(|heads| heads.next());
        if let Some(Ok(head)) = left {
            let reason = "a request that cannot be read";
            self.malformed(reason, &head.raw, &Context::default()).await;
        }
        self.sessions.close(self.closes.lock().unwrap_or(reason));
    }

    /// Answers a request.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<ClientBody> {
        self.running.fetch_add(1, Relaxed);
        let head = match self.heads.as_ref().and_then(|heads| heads.next()) {
            Some(Ok(head)) => Ok(Some(head)),
            Some(Err(bad)) => Err(bad),
            None => Ok(None),
        };
        let asks_upgrade = matches!(&head, Ok(Some(head)) if head.upgrade);
        let response = match head {
            Ok(head) => Box::pin(self.respond(request, head)).await,
            Err(bad) => self.bad_head(bad).await,
        };
        if let (true, Some(heads)) = (asks_upgrade, &self.heads) {
            heads.upgraded(response.status() == StatusCode::SWITCHING_PROTOCOLS);
        }
        *self.last.lock() = Instant::now();
        self.running.fetch_sub(1, Relaxed);
        response
    }

    async fn respond(
        self: &Arc<Self>,
        request: Request<Incoming>,
        head: Option<Head>,
    ) -> Response<ClientBody> {
        let began = Instant::now();
        let text = match &head {
            Some(head) => head.text(),
            None => operation::text_of(request.method(), request.uri()),
        };
        let hosts: Vec<&[u8]> = request.headers().get_all(HOST).iter().map(|host| host.as_bytes()).collect();
        let target = match Target::read(request.uri(), request.version(), &hosts) {
            Ok(target) => target,
            Err(reason) => {
                let raw = match &head {
                    Some(head) => head.raw.clone(),
                    None => remains(&text, request.headers()),
                };
                return self.malformed(reason, &raw, &Context::default()).await;
            }
        };
        if target.path.starts_with(discovery::WELL_KNOWN) {
            let discovery = (self.listener.discovery)();
            return discovery::answer(request.method(), &target, self.secure, discovery.as_ref());
        }
        let route = self.route(&target);
        let call = Call { request, head, text, target, route, began };
        match self.claim(call.headers()) {
            Claim::Nothing => {
                self.junk();
                self.challenge(&call, None)
            }
            Claim::Wrong(refusal) => self.refuse_login(&call, refusal).await,
            Claim::Token(token) => self.identified_call(call, token).await,
        }
    }

    /// A request with a token.
    async fn identified_call(self: &Arc<Self>, call: Call, token: Token) -> Response<ClientBody> {
        let known = self.sessions.known(&call.route.wanted, &token);
        let is_mcp = match &known {
            Some(live) => live.target.kind == "mcp",
            None => self.target(&call.route.wanted).is_some_and(|target| target.kind == "mcp"),
        };
        if is_mcp {
            return mcp::serve(self, call, token).await;
        }
        let live = match known {
            Some(live) => live,
            None => match self.find_or_open(&call, &token).await {
                Ok(live) => live,
                Err(refused) => return self.not_let_in(&call, refused),
            },
        };
        self.forward(live, call).await
    }

    /// The target of a connection that exists.
    pub(crate) fn target(&self, wanted: &str) -> Option<Arc<HttpTarget>> {
        let (_, target) = self.listener.targets.get(wanted)?;
        downcast::<HttpTarget>(target)
    }

    /// The session of a token on this stream.
    pub(crate) async fn find_or_open(&self, call: &Call, token: &Token) -> Result<Arc<Live>, Refused> {
        let target = self.target(&call.route.wanted);
        let session = self.session(call, target.as_deref());
        let asked = Asked { listener: &self.listener, session, target, token };
        let live = self.sessions.find_or_open(asked).await?;
        self.let_in(&live);
        Ok(live)
    }

    /// What a request says of a new session.
    pub(crate) fn session(&self, call: &Call, target: Option<&HttpTarget>) -> HttpSession {
        let protocol = target.map_or("http", |target| target.kind);
        HttpSession::new(protocol, &call.route.wanted, self.peer, call.headers())
    }

    /// Somebody was let in: the stream minds the end of the session.
    pub(crate) fn let_in(&self, live: &Arc<Live>) {
        if !self.known.swap(true, Relaxed) {
            self.identified.notify_waiters();
            self.identified.notify_one();
        }
        let (over, drained, live) = (live.over.clone(), self.drained.clone(), Arc::downgrade(live));
        // A drain ends the stream too, once what runs has ended; the other ends are the session's alone.
        tokio::spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = drained.cancelled() => {}
            }
            if live.upgrade().is_some_and(|live| live.reason() == Some(CloseReason::Drained)) {
                drained.cancel();
            }
        });
    }

    /// Which connection a request is for.
    fn route(&self, target: &Target) -> Route {
        let whole = |wanted: &str| Route {
            wanted: wanted.to_owned(),
            rest: target.path.clone(),
            home: String::new(),
        };
        if let Some(own) = &self.listener.own {
            return whole(own.as_str());
        }
        if let Some(host) = target.host()
            && let Some(wanted) = self.by_host(host)
        {
            return whole(&wanted);
        }
        let (segment, rest) = target.first_segment();
        Route { wanted: segment.to_owned(), rest: rest.to_owned(), home: format!("/{segment}") }
    }

    /// The connection that has this host among its `hosts`; on one stream the answer is kept.
    fn by_host(&self, host: String) -> Option<String> {
        let mut last = self.host.lock();
        if let Some((known, wanted)) = &*last
            && *known == host
        {
            return wanted.clone();
        }
        let found = self.listener.targets.all().into_iter().find_map(|(name, _, target)| {
            let target = downcast::<HttpTarget>(target)?;
            target.hosts.contains(&host).then(|| name.as_str().to_owned())
        });
        *last = Some((host, found.clone()));
        found
    }

    /// The token of a request: a bearer token in one `Authorization`, and nowhere else.
    fn claim(&self, headers: &HeaderMap) -> Claim {
        let mut claims = headers.get_all(AUTHORIZATION).iter();
        let (Some(claim), another) = (claims.next(), claims.next()) else { return Claim::Nothing };
        if another.is_some() {
            return Claim::Wrong(Refusal::Protocol { reason: "several Authorization fields".into() });
        }
        if self.exposed {
            let reason = "a token in clear, where TLS is configured";
            return Claim::Wrong(Refusal::Protocol { reason: reason.into() });
        }
        let value = claim.as_bytes();
        let space = memchr::memchr(b' ', value).unwrap_or(value.len());
        let (scheme, token) = value.split_at_checked(space).unwrap_or((value, &[]));
        let token = token.trim_ascii();
        let unproved =
            |code, reason: &str| Claim::Wrong(Refusal::NotAuthenticated { code, reason: reason.to_owned() });
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return unproved("scheme", "Authorization is not of the scheme Bearer");
        }
        if token.is_empty() || token.len() > self.limits().token_bytes {
            return unproved("malformed", "the token is empty or longer than [limits] token");
        }
        Claim::Token(Token::new(token.to_vec()))
    }

    /// A 401 for somebody who brought nothing, or nothing that holds.
    fn challenge(&self, call: &Call, error: Option<&str>) -> Response<ClientBody> {
        let refusal = Refusal::NotAuthenticated { code: "missing", reason: String::new() };
        refusal::response(&refusal, &self.context(call, error, None))
    }

    fn context(
        &self,
        call: &Call,
        error: Option<&str>,
        session: Option<verbatim_core::SessionId>,
    ) -> Context {
        Context { challenge: discovery::challenge(&call.target, self.secure, error), session }
    }

    /// What a client is told that was not let in.
    pub(crate) fn not_let_in(&self, call: &Call, refused: Refused) -> Response<ClientBody> {
        let Refused { session, refusal } = refused;
        refusal::response(&refusal, &self.context(call, Some("invalid_token"), Some(session)))
    }

    /// What a client is told whose operation was refused.
    pub(crate) fn refused(&self, call: &Call, live: &Live, refusal: &Refusal) -> Response<ClientBody> {
        refusal::response(refusal, &self.context(call, Some("invalid_token"), Some(live.session.id())))
    }

    /// As [`refused`](Self::refused), to JSON-RPC requests.
    pub(crate) fn rpc_refused(
        &self,
        call: &Call,
        live: &Live,
        refusal: &Refusal,
        ids: &[&str],
        batch: bool,
    ) -> Response<ClientBody> {
        let context = self.context(call, Some("invalid_token"), Some(live.session.id()));
        refusal::rpc_response(refusal, ids, batch, &context)
    }

    /// Records a login that proves nothing.
    async fn refuse_login(&self, call: &Call, refusal: Refusal) -> Response<ClientBody> {
        let session = self.session(call, None);
        let opened = Live::open(&self.listener, session, None, Credential::Refused(refusal)).await;
        match opened {
            Err(refused) => self.not_let_in(call, refused),
            // No gate opens on a refused credential.
            Ok(_) => self.challenge(call, None),
        }
    }

    async fn bad_head(&self, bad: BadHead) -> Response<ClientBody> {
        let mut response = self.malformed(bad.reason, &bad.raw, &Context::default()).await;
        if bad.too_large {
            let refusal = Refusal::Protocol { reason: bad.reason.into() };
            let headers = std::mem::take(response.headers_mut());
            response = refusal::bad_head(&refusal, true, &Context::default());
            response.headers_mut().extend(headers);
        }
        response
    }

    /// What cannot be read, or could be read in two ways: recorded where somebody is known on the stream, or tried to say
    /// who it is; 400, and the stream ends.
    async fn malformed(&self, reason: &'static str, raw: &[u8], context: &Context) -> Response<ClientBody> {
        let refusal = Refusal::Protocol { reason: reason.into() };
        let lives = self.sessions.all();
        let open: Vec<_> = lives.iter().filter(|live| !live.is_over()).collect();
        let mut context = context.clone();
        match open.as_slice() {
            [live] => {
                let operation = Operation {
                    text: Some(head::readable_remains(raw)),
                    refused: Some(refusal.clone()),
                    ..Operation::new(live.session.next_sequence(), "request")
                };
                // Whatever the stack answers, it is not forwarded.
                drop(live.decide(operation).await);
                context.session = Some(live.session.id());
            }
            _ if head::claims_identity(raw) => {
                let session = HttpSession::new("http", "", self.peer, &HeaderMap::new());
                let credential = Credential::Refused(refusal.clone());
                if let Err(refused) = Live::open(&self.listener, session, None, credential).await {
                    context.session = Some(refused.session);
                }
            }
            _ => self.junk(),
        }
        refusal::bad_head(&refusal, false, &context)
    }

    /// Records a request and forwards it.
    pub(crate) async fn forward(self: &Arc<Self>, live: Arc<Live>, mut call: Call) -> Response<ClientBody> {
        let asks = fields::upgrade(call.headers()).filter(|_| call.request.version() == Version::HTTP_11);
        let upgrade = asks.and_then(upgrade::Protocol::read);
        let body = match self.body(&mut call).await {
            Ok(body) => body,
            Err(refusal) => return self.refuse(&live, &call, refusal).await,
        };
        if let Some(refusal) = self.unfit(&call, upgrade.is_some()) {
            return self.refuse(&live, &call, refusal).await;
        }
        let path = match call.path(&live.target) {
            Ok(path) => path,
            Err(reason) => {
                return self.refuse(&live, &call, Refusal::Protocol { reason: reason.into() }).await;
            }
        };
        let inline = match &body {
            Whole::Inline(bytes) => Some(bytes),
            Whole::None | Whole::Streams => None,
        };
        let operation = call.operation(live.session.next_sequence(), inline);
        let exchange = match live.decide(operation).await {
            Ok(recorded) => Exchange::new(recorded, &live),
            Err(refusal) => return self.refused(&call, &live, &refusal),
        };
        let client_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut call.request));
        let (request, shell) = self.to_target(&live, call, body, &exchange, upgrade.as_ref());
        self.listener.metrics.added_latency(shell.began.elapsed());
        let wanted = shell.wanted(upgrade.is_some());
        let sent = tokio::select! {
            sent = live.pool.send(request, &path, wanted) => sent,
            () = live.cut.cancelled() => {
                exchange.partial("the session ended before the response came");
                return self.cut_off(&shell, &live);
            }
        };
        match sent {
            Ok((response, lease)) => match (upgrade, client_upgrade) {
                (Some(protocol), Some(client)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    self.switch(&live, exchange, client, response, protocol)
                }
                _ => self.pass_on(&live, &shell, exchange, response, lease),
            },
            Err(error) => self.unanswered(&live, &shell, &exchange, &error),
        }
    }

    /// What the gateway itself does not pass on.
    fn unfit(&self, call: &Call, upgrade: bool) -> Option<Refusal> {
        let method = call.request.method();
        if *method == Method::TRACE
            || *method == Method::CONNECT
            || method.as_str().eq_ignore_ascii_case("track")
        {
            return Some(Refusal::Unsupported { what: format!("the method {method}").into() });
        }
        let early = upgrade && self.heads.as_ref().is_some_and(|heads| heads.came_early());
        early.then(|| Refusal::Protocol { reason: "bytes behind a request that asks for an upgrade".into() })
    }

    /// Records a request that the gateway refuses by itself.
    async fn refuse(&self, live: &Live, call: &Call, refusal: Refusal) -> Response<ClientBody> {
        let mut operation = call.operation(live.session.next_sequence(), None);
        operation.refused = Some(refusal.clone());
        // Whatever the stack answers, it is not forwarded.
        let refusal = live.decide(operation).await.err().unwrap_or(refusal);
        self.refused(call, live, &refusal)
    }

    /// A short body of known length is read whole.
    async fn body(&self, call: &mut Call) -> Result<Whole, Refusal> {
        let body = call.request.body_mut();
        if body.is_end_stream() {
            return Ok(Whole::None);
        }
        let limit = self.limits().message_bytes;
        match body.size_hint().exact() {
            Some(length) if length > limit => Err(Refusal::TooLarge { length, limit }),
            Some(length) if length <= INLINE_MAX as u64 => {
                Ok(Whole::Inline(read_whole(body, INLINE_MAX as u64).await?))
            }
            _ => Ok(Whole::Streams),
        }
    }

    /// The request as the target gets it, and what is left of the call.
    fn to_target(
        &self,
        live: &Arc<Live>,
        call: Call,
        body: Whole,
        exchange: &Arc<Exchange>,
        upgrade: Option<&upgrade::Protocol>,
    ) -> (Request<TargetBody>, Shell) {
        let Call { request, target, route, began, .. } = call;
        let (mut parts, incoming) = request.into_parts();
        let shell = Shell {
            target,
            home: route.home,
            rest: route.rest,
            began,
            method: parts.method.clone(),
            grpc: parts.version == Version::HTTP_2
                && operation::media_type(&parts.headers).starts_with("application/grpc"),
        };
        fields::to_target(&mut parts.headers, &live.target);
        if let Some(protocol) = upgrade {
            protocol.ask(&mut parts.headers);
        }
        let body = match body {
            Whole::None => TargetBody::Empty,
            Whole::Inline(bytes) => TargetBody::Whole(Some(bytes)),
            Whole::Streams => {
                let limit = self.limits().message_bytes;
                TargetBody::Streamed(Box::new(Streamed::new(incoming, Arc::clone(exchange), limit)))
            }
        };
        (Request::from_parts(parts, body), shell)
    }

    /// The target's answer, to the client.
    fn pass_on(
        self: &Arc<Self>,
        live: &Arc<Live>,
        shell: &Shell,
        exchange: Arc<Exchange>,
        mut response: Response<Incoming>,
        lease: Lease,
    ) -> Response<ClientBody> {
        exchange.answered(response.status(), response.headers());
        let events = operation::media_type(response.headers()).eq_ignore_ascii_case("text/event-stream");
        fields::to_client(response.headers_mut(), &live.target, &shell.home);
        *response.version_mut() = Version::HTTP_11;
        let cut = live.cut.clone();
        let (parts, incoming) = response.into_parts();
        let source = Source::new(incoming, lease, cut);
        if events && shell.method == Method::GET {
            exchange.stands();
        }
        let body = if live.target.kind == "mcp" {
            mcp::passed(self, live, shell, exchange, &parts, source)
        } else {
            ClientBody::Passed(Box::new(Passed::new(source, exchange)))
        };
        Response::from_parts(parts, body)
    }

    /// The target speaks another protocol from here on.
    fn switch(
        &self,
        live: &Arc<Live>,
        exchange: Arc<Exchange>,
        client: hyper::upgrade::OnUpgrade,
        mut response: Response<Incoming>,
        protocol: upgrade::Protocol,
    ) -> Response<ClientBody> {
        exchange.answered(response.status(), response.headers());
        exchange.stands();
        let target = hyper::upgrade::on(&mut response);
        let (parts, _) = response.into_parts();
        *self.upgraded.lock() =
            Some(Box::pin(upgrade::relay(Arc::clone(live), exchange, protocol, client, target)));
        Response::from_parts(parts, ClientBody::Empty)
    }

    /// The target cannot be reached, or gave no answer; or the body could not go on.
    fn unanswered(
        &self,
        live: &Live,
        shell: &Shell,
        exchange: &Exchange,
        error: &SendError,
    ) -> Response<ClientBody> {
        if let Some(refusal) = exchange.refusal() {
            let context = Context { challenge: None, session: Some(live.session.id()) };
            let response = refusal::response(&refusal, &context);
            exchange.failed(response.status(), "the request's body did not go on".to_owned());
            return response;
        }
        let status = if error.is_timeout() { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
        tracing::warn!(connection = live.connection, path = shell.rest.len(), %error, "no answer from the target");
        exchange.failed(status, error.to_string());
        refusal::bad_gateway(status, live.session.id())
    }

    /// The session ended while the request ran.
    fn cut_off(&self, shell: &Shell, live: &Live) -> Response<ClientBody> {
        let challenge = discovery::challenge(&shell.target, self.secure, Some("invalid_token"));
        refusal::response(&Refusal::Expired, &Context { challenge, session: Some(live.session.id()) })
    }
}

/// A request's body, as far as it is known.
enum Whole {
    None,
    Inline(Bytes),
    Streams,
}

/// What is left of a call once its request is on its way.
pub(crate) struct Shell {
    pub(crate) target: Target,
    pub(crate) home: String,
    pub(crate) rest: String,
    pub(crate) began: Instant,
    pub(crate) method: Method,
    grpc: bool,
}

impl Shell {
    const fn wanted(&self, upgrade: bool) -> Wanted {
        match (upgrade, self.grpc) {
            (true, _) => Wanted::Http1,
            (false, true) => Wanted::Http2,
            (false, false) => Wanted::Any,
        }
    }
}

/// Reads a body to its end, up to a limit.
pub(crate) async fn read_whole(body: &mut Incoming, limit: u64) -> Result<Bytes, Refusal> {
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_frame(cx)).await;
        let data = match frame {
            None => break,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_) => continue,
            },
            Some(Err(_)) => {
                let reason = "the request's body cannot be read to its end".into();
                return Err(Refusal::Protocol { reason });
            }
        };
        let length = (first.as_ref().map_or(0, Bytes::len) + more.len() + data.len()) as u64;
        if length > limit {
            return Err(Refusal::TooLarge { length, limit });
        }
        // One piece, for the most part: then nothing is copied.
        match &first {
            None => first = Some(data),
            Some(_) => more.extend_from_slice(&data),
        }
    }
    Ok(match (first, more.is_empty()) {
        (None, _) => Bytes::new(),
        (Some(only), true) => only,
        (Some(first), false) => [&first[..], &more[..]].concat().into(),
    })
}

/// An HTTP/2 request's head, as HTTP/1 would have it, for the record of one that is refused.
fn remains(text: &[u8], headers: &HeaderMap) -> Bytes {
    let mut out = text.to_vec();
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}
