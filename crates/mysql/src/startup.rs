//! From accept to the ready phase: the greeting, encryption, the response, the token, the target.
//!
//! ```text
//! Client<Startup> ── greeting, SSLRequest, HandshakeResponse41 ──▸ Client<Authenticating>
//! Client<Authenticating> ── the token, by an AuthSwitchRequest where it did not come ── gate ──▸ Client<Ready>
//! Client<Ready> ── target, OK ──▸ relay
//! ```
//!
//! Each phase consumes the one before, so that nothing of a later one can happen early. All reads up to the identity share
//! one deadline, and take no more memory than the packet's limit, as it comes. What claims nothing (junk, a port scan) is
//! counted; from the response on every refusal is recorded.

pub(crate) mod packet;
pub(crate) mod token;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use verbatim_core::{Client as Peer, CloseReason, Credential, Login, Opened, Refusal, SessionId, trace};
use verbatim_wire::{ClientStream, Shared, downcast, farewell};

use crate::answer;
use crate::capability::{COMPRESS, CONNECT_ATTRS, NEEDED, RELAYED, SSL, ZSTD};
use crate::frame::{self, HEADER, Malformed, readable};
use crate::greeting::{Offer, SCRAMBLE};
use crate::interceptor::Context;
use crate::refusal::{ErrorWords, Phase, error_words};
use crate::relay::{self, Parts};
use crate::session::MysqlSession;
use crate::target::{Ask, MysqlTarget, TargetError};
use packet::{FIXED, Fixed, Response, auth_switch};
use token::{Form, OVERHEAD, too_long};

/// The first byte of a TLS record with a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// What a response has beside the token: names, and 64 KiB of connection attributes.
const RESPONSE_OVERHEAD: usize = 72 << 10;
/// How long a client waits for targets that were never reached before it is greeted without them.
const LEARNING: Duration = Duration::from_secs(2);
/// Memory that a read is given at a time.
const READ_STEP: usize = 4096;

/// A client, in one of its phases.
struct Client<P> {
    stream: ClientStream,
    peer: SocketAddr,
    context: Arc<Context>,
    id: SessionId,
    /// The gateway's name for its session.
    thread_id: u32,
    deadline: Instant,
    /// The sequence of the next packet, whoever sends it.
    sequence: u8,
    phase: P,
}

/// Nothing is known of it.
struct Startup {
    offer: Offer,
}

/// It said who it says it is, and what it wants.
struct Authenticating {
    session: Arc<MysqlSession>,
    response: Response,
}

/// It was let in.
struct Ready {
    opened: Opened,
    response: Response,
}

/// Nothing more is to be done for the client.
struct Done;

/// Serves a client from accept to its end.
pub(crate) async fn serve(socket: TcpStream, peer: SocketAddr, context: Arc<Context>) {
    let metrics = Arc::clone(&context.listener.metrics);
    let deadline = Instant::now() + context.listener.limits.login;
    let offer = context.offer(LEARNING).await;
    let thread_id = context.mysql.registry.allot();
    let client = Client {
        stream: ClientStream::Plain(socket),
        peer,
        context,
        id: SessionId::generate(),
        thread_id,
        deadline,
        sequence: 0,
        phase: Startup { offer },
    };
    // Each phase is on the heap while it lasts: a session that idles keeps no room for those it has left behind.
    let client = match timeout_at(deadline, Box::pin(client.negotiate())).await {
        Ok(Ok(client)) => client,
        Ok(Err(_)) | Err(_) => {
            metrics.junk();
            return;
        }
    };
    let Ok(client) = Box::pin(client.authenticate()).await else { return };
    if let Ok(parts) = Box::pin(client.connect()).await {
        let reason = Box::pin(relay::relay(parts)).await;
        tracing::debug!(%peer, reason = reason.as_str(), "session closed");
    }
}

/// The session as its login tells of it.
pub(crate) fn session(
    id: SessionId,
    peer: SocketAddr,
    context: &Context,
    login: &packet::Login,
) -> Arc<MysqlSession> {
    let wanted = match &context.listener.own {
        Some(own) => own.as_str().to_owned(),
        None => readable(&login.schema),
    };
    let application = login.attribute(b"program_name");
    let trace_id = login
        .attribute(trace::NAME.as_bytes())
        .and_then(|value| trace::traceparent(&value))
        .or_else(|| application.as_deref().and_then(trace::in_text));
    let user = Some(readable(&login.user)).filter(|user| !user.is_empty());
    let client = Peer { address: peer, user, application };
    Arc::new(MysqlSession { id, wanted, client, trace_id })
}

impl Client<Startup> {
    /// Up to a response. An error is junk: nothing was claimed, or a refusal is on record.
    async fn negotiate(mut self) -> io::Result<Box<Client<Authenticating>>> {
        if let ClientStream::Plain(tcp) = &self.stream {
            tcp.set_nodelay(true)?;
        }
        let mut scramble = [0; SCRAMBLE];
        aws_lc_rs::rand::fill(&mut scramble).map_err(|_| io::Error::other("no random numbers"))?;
        // A NUL would end it for clients that read it as text.
        scramble.iter_mut().for_each(|byte| *byte = *byte & 0x7f | 0x40);
        let tls = self.context.listener.tls.is_some();
        let greeting = self.phase.offer.payload(self.thread_id, &scramble, tls);
        self.send(&greeting).await?;

        let mut payload = self.first_packet().await?;
        if payload.len() == FIXED {
            if !tls {
                return Err(self.misread("TLS is not offered here").await);
            }
            self = self.tls().await?;
            payload = self.first_packet().await?;
        }
        match Response::read(payload) {
            Ok(response) => self.begin(response).await,
            Err(Malformed { field }) => Err(self.misread(field).await),
        }
    }

    /// The SSLRequest or response. What is of no such length is junk.
    async fn first_packet(&mut self) -> io::Result<Bytes> {
        let limit = self.context.listener.limits.token_bytes.saturating_add(RESPONSE_OVERHEAD);
        match self.packet(limit).await {
            Ok(payload) if payload.len() >= FIXED => Ok(payload),
            Ok(_) | Err(NoPacket::Refused(_)) => Err(self.misread("the response").await),
            Err(NoPacket::Gone(error)) => Err(error),
        }
    }

    async fn misread(&mut self, what: &str) -> io::Error {
        self.say(&ErrorWords::new(1043, "08S01", "Bad handshake")).await;
        io::Error::new(io::ErrorKind::InvalidData, what)
    }

    /// Goes over to TLS. What was sent in clear behind the SSLRequest is no TLS, and never read as the session's.
    async fn tls(self) -> io::Result<Self> {
        let config = self.context.listener.tls.as_ref().map(|tls| tls());
        let (Some(config), ClientStream::Plain(tcp)) = (config, &self.stream) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut first = [0];
        if tcp.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
            let reason = "bytes in clear after SSLRequest, before TLS";
            let nobody = packet::Login {
                user: Bytes::new(),
                answer: Bytes::new(),
                schema: Bytes::new(),
                charset: 0,
                plugin: Bytes::new(),
                attributes: Vec::new(),
            };
            let session = session(self.id, self.peer, &self.context, &nobody);
            self.record_refusal(session, Refusal::Protocol { reason: reason.into() }).await;
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Self { stream, peer, context, id, thread_id, deadline, sequence, phase } = self;
        let ClientStream::Plain(tcp) = stream else { return Err(io::ErrorKind::Unsupported.into()) };
        let tls = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await?;
        let stream = ClientStream::Tls(Box::new(tls));
        Ok(Self { stream, peer, context, id, thread_id, deadline, sequence, phase })
    }

    /// Takes a response: what is wrong with it from here on is a refused login.
    async fn begin(mut self, mut response: Response) -> io::Result<Box<Client<Authenticating>>> {
        let session = session(self.id, self.peer, &self.context, &response.login);
        let asked = response.fixed.capabilities;
        let refused = if !self.context.listener.is_private(&self.stream) {
            let reason = "a login without TLS, not on loopback".into();
            let words = "Connections using insecure transport are prohibited by the gateway";
            let refusal = Refusal::NotAuthenticated { code: "clear", reason };
            Some((refusal, ErrorWords::new(3159, "HY000", words)))
        } else if asked & NEEDED != NEEDED {
            let refusal = Refusal::Unsupported { what: "clients without authentication plugins".into() };
            let words = "Client does not support authentication protocol requested by server";
            Some((refusal, ErrorWords::new(1251, "08004", words)))
        } else if asked & (COMPRESS | ZSTD) != 0 {
            // It was not offered, so that what follows could be of any form.
            let refusal = Refusal::Unsupported { what: "compression".into() };
            Some((refusal, ErrorWords::new(1043, "08S01", "Bad handshake")))
        } else {
            None
        };
        if let Some((refusal, words)) = refused {
            self.record_refusal(session, refusal).await;
            self.say(&words.reference(self.id)).await;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // As a server does: what it did not offer is not settled.
        response.fixed.capabilities = asked & (self.phase.offer.capabilities | SSL);
        let Self { stream, peer, context, id, thread_id, deadline, sequence, .. } = self;
        let phase = Authenticating { session, response };
        Ok(Box::new(Client { stream, peer, context, id, thread_id, deadline, sequence, phase }))
    }
}

/// Why there is no packet.
enum NoPacket {
    /// The client left, or its stream failed.
    Gone(io::Error),
    /// What it sent is none.
    Refused(Refusal),
}

impl From<io::Error> for NoPacket {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

impl<P> Client<P> {
    async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::with_capacity(HEADER + payload.len());
        self.sequence = frame::put_packets(&mut out, self.sequence, payload);
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }

    /// The next packet's payload, of at most `limit` bytes.
    async fn packet(&mut self, limit: usize) -> Result<Bytes, NoPacket> {
        let mut head = [0; HEADER];
        self.stream.read_exact(&mut head).await?;
        if head[3] != self.sequence {
            return Err(NoPacket::Refused(frame::out_of_order(head[3], self.sequence.into())));
        }
        let length = frame::length_of(head);
        if length > limit {
            return Err(NoPacket::Refused(too_long(length)));
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(read_bytes(&mut self.stream, length).await?)
    }

    /// Puts a refusal that needs no judgement on record.
    async fn record_refusal(&self, session: Arc<MysqlSession>, refusal: Refusal) {
        let login = Login { session, credential: Credential::Refused(refusal), unsupported: None };
        // It is refused in any case.
        let _ = self.context.listener.gate.open(login).await;
    }

    /// The last words to a client that was not let in.
    async fn say(&mut self, words: &ErrorWords) {
        farewell(&mut self.stream, &words.packet(self.sequence)).await;
    }
}

impl Client<Authenticating> {
    /// Asks for the token, if it has not come, and hands it to the gate.
    async fn authenticate(mut self) -> Result<Client<Ready>, Done> {
        let credential = match timeout_at(self.deadline, self.ask_token()).await {
            Ok(Ok(credential)) => credential,
            Ok(Err(NoPacket::Refused(refusal))) => Credential::Refused(refusal),
            Ok(Err(NoPacket::Gone(_))) => {
                // A client that does not send passwords in clear leaves when it is asked for one.
                self.context.listener.metrics.junk();
                return Err(Done);
            }
            Err(_) => Credential::Refused(Refusal::Protocol { reason: "no credential came in time".into() }),
        };
        let session = Arc::clone(&self.phase.session);
        let login = Login { session, credential, unsupported: None };
        let opened = self.context.listener.open(login, self.deadline).await;
        match opened {
            Ok(opened) => {
                let Self { stream, peer, context, id, thread_id, deadline, sequence, phase } = self;
                let phase = Ready { opened, response: phase.response };
                Ok(Client { stream, peer, context, id, thread_id, deadline, sequence, phase })
            }
            Err(refusal) => {
                let user = readable(&self.phase.response.login.user);
                let address = self.peer.ip();
                let phase = Phase::Login { user: &user, address, wanted: &self.phase.session.wanted };
                let words = error_words(&refusal, phase, self.id);
                self.say(&words).await;
                Err(Done)
            }
        }
    }

    async fn ask_token(&mut self) -> Result<Credential, NoPacket> {
        let limit = self.context.listener.limits.token_bytes;
        let login = &self.phase.response.login;
        let form = Form::of(&login.plugin);
        let answer = std::mem::take(&mut self.phase.response.login.answer);
        let (form, answer) = match form {
            Some(form) if !answer.is_empty() => (form, answer),
            form => {
                let form = form.unwrap_or(Form::Clear);
                self.send(&auth_switch(form.plugin())).await?;
                (form, self.packet(limit.saturating_add(OVERHEAD)).await?)
            }
        };
        form.token(answer, limit).map(Credential::Token).map_err(NoPacket::Refused)
    }
}

impl Client<Ready> {
    /// Logs in at the target and lets the client in. Without a target the session is closed, and on record.
    async fn connect(mut self) -> Result<Parts, Done> {
        let name = self.phase.opened.session.connection().clone();
        let target = self.context.listener.targets.get(name.as_str());
        let Some(target) = target.and_then(|(_, target)| downcast::<MysqlTarget>(target)) else {
            return self.fail(ErrorWords::new(1105, "HY000", "The connection is no longer configured")).await;
        };
        let ask = ask(&self.context, &target, &self.phase.response);
        let mut connected = match target.connect(&ask).await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::warn!(session.id = %self.id, %error, "no session at the target");
                return self.fail(target_words(error)).await;
            }
        };
        let identity = self.phase.opened.session.identity();
        let registry = &self.context.mysql.registry;
        let registration =
            registry.register(self.thread_id, Arc::clone(&target), connected.thread_id, identity);
        let ok = std::mem::take(&mut connected.ok);
        if timeout(self.context.listener.limits.login, self.send(&ok))
            .await
            .map_or(true, |sent| sent.is_err())
        {
            self.phase.opened.session.close(CloseReason::Client);
            return Err(Done);
        }
        let status = answer::Done::ok(ok, connected.capabilities).map(|done| done.status).unwrap_or_default();
        Ok(Parts {
            client: Shared::new(self.stream),
            connected,
            status,
            opened: self.phase.opened,
            registration,
            target,
            peer: self.peer,
            context: self.context,
        })
    }

    /// The target cannot be had: the client is told, and the session closed.
    async fn fail(&mut self, words: ErrorWords) -> Result<Parts, Done> {
        self.say(&words.reference(self.id)).await;
        self.phase.opened.session.close(CloseReason::Target);
        Err(Done)
    }
}

/// What the target is asked for: the client's flags, attributes and character set, and its schema on a listener of one
/// connection.
fn ask(context: &Context, target: &MysqlTarget, response: &Response) -> Ask {
    let Response { fixed, login } = response;
    let fixed = Fixed {
        capabilities: fixed.capabilities & (RELAYED | CONNECT_ATTRS | crate::capability::MYSQL),
        ..*fixed
    };
    Ask { fixed, schema: chosen_schema(context, target, login), attributes: login.attributes.clone() }
}

/// A client chooses a schema on a listener of one connection; elsewhere its schema names the connection.
pub(crate) fn chosen_schema(context: &Context, target: &MysqlTarget, login: &packet::Login) -> Option<Bytes> {
    let chosen =
        context.listener.own.is_some().then(|| login.schema.clone()).filter(|schema| !schema.is_empty());
    target.schema(chosen)
}

/// What a client is told of a target that did not let the gateway in: the target's own words, unless they are of the
/// gateway's login, which is none of the client's; else a class.
pub(crate) fn target_words(error: TargetError) -> ErrorWords {
    /// `ER_ACCESS_DENIED_ERROR` and those that say the same otherwise.
    const NOT_LET_IN: [u16; 6] = [1045, 1130, 1251, 1698, 1862, 3118];
    match error {
        TargetError::Refused { code, state, message }
            if !NOT_LET_IN.contains(&code) && !message.is_empty() =>
        {
            let state = match state.as_deref() {
                Some("42000") => "42000",
                Some("08004") => "08004",
                Some("08S01") => "08S01",
                Some("28000") => "28000",
                _ => "HY000",
            };
            ErrorWords::new(code, state, message)
        }
        TargetError::Refused { .. } | TargetError::Authentication { .. } => {
            ErrorWords::new(1105, "HY000", "The target did not accept the gateway")
        }
        TargetError::Stream { .. } | TargetError::Protocol { .. } => {
            ErrorWords::new(1105, "HY000", "The target failed while the gateway logged in")
        }
        TargetError::Unreachable { .. }
        | TargetError::Timeout { .. }
        | TargetError::NoTls
        | TargetError::Tls { .. } => ErrorWords::new(1105, "HY000", "The target cannot be reached"),
        TargetError::Changed => {
            ErrorWords::new(1105, "HY000", "The target has changed since the greeting: connect again")
        }
    }
}

/// Reads exactly `length` bytes; memory is taken as they come.
async fn read_bytes(stream: &mut ClientStream, length: usize) -> io::Result<Bytes> {
    let mut bytes = BytesMut::new();
    while bytes.len() < length {
        let left = length - bytes.len();
        bytes.reserve(left.min(READ_STEP));
        if (&mut *stream).take(left as u64).read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes.freeze())
}

/// The next packet's payload on a stream that is in use, of at most `limit` bytes; what is beyond it stays in `buffer`.
pub(crate) async fn shared_packet(
    stream: &Shared<ClientStream>,
    buffer: &mut BytesMut,
    due: u8,
    limit: usize,
) -> Result<Bytes, Refusal> {
    loop {
        if let Some(head) = buffer.first_chunk::<HEADER>() {
            let length = frame::length_of(*head);
            if head[3] != due {
                return Err(frame::out_of_order(head[3], due.into()));
            }
            if length > limit {
                return Err(too_long(length));
            }
            if buffer.len() - HEADER >= length {
                buffer.advance(HEADER);
                return Ok(buffer.split_to(length).freeze());
            }
        }
        match stream.fill(buffer, READ_STEP).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(Refusal::Protocol { reason: "the client left".into() }),
        }
    }
}
