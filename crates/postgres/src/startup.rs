//! From accept to the ready phase: encryption, the StartupMessage, the token, the target.
//!
//! ```text
//! Client<Startup> ── SSLRequest, direct TLS, GSSENCRequest ── StartupMessage ──▸ Client<Authenticating>
//! Client<Authenticating> ── password or OAUTHBEARER ── gate ──▸ Client<Ready> ── target, greeting ──▸ relay
//! ```
//!
//! Each phase consumes the one before, so that nothing of a later one can happen early. All reads up to the identity share
//! one deadline, and take no more memory than the packet's limit, as it comes. What claims nothing (junk, a port scan) is
//! counted; from the StartupMessage on every refusal is recorded.

pub(crate) mod bearer;
pub(crate) mod packet;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use verbatim_core::{
    Client as Peer, CloseReason, Credential, Login, Opened, Refusal, SessionId, Token, trace,
};
use verbatim_wire::{ClientStream, farewell};

use crate::Context;
use crate::cancel::Requested;
use crate::frame::{self, HEADER, Malformed, Reader, client, readable};
use crate::refusal::{ErrorFields, Phase, error_fields};
use crate::relay::{self, Parts};
use crate::session::PostgresSession;
use crate::target::{ALPN, LoginMethod, Target, TargetError};
use bearer::Initial;
use packet::{MINOR_MAX, PACKET_MAX, Packet, StartupMessage};

/// The first byte of a TLS record with a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
const AUTHENTICATION: u8 = b'R';
const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
const MECHANISM: &[u8] = b"OAUTHBEARER";
/// What a SASL message has beside the token.
const SASL_OVERHEAD: usize = 4096;
/// How long a client has at least for what is said to it near its deadline.
const LINGER: Duration = Duration::from_secs(1);
/// Memory that a read is given at a time.
const READ_STEP: usize = 4096;

/// A client, in one of its phases.
struct Client<P> {
    stream: ClientStream,
    peer: SocketAddr,
    context: Arc<Context>,
    id: SessionId,
    deadline: Instant,
    phase: P,
}

/// Nothing is known of it.
struct Startup {
    /// A GSSENCRequest was declined, and may not come again.
    gss_declined: bool,
    /// An SSLRequest was answered, or TLS is there.
    ssl_answered: bool,
}

/// It said who it says it is, and what it wants.
struct Authenticating {
    session: Arc<PostgresSession>,
    startup: StartupMessage,
    user: String,
    minor: u16,
}

/// It was let in.
struct Ready {
    opened: Opened,
    startup: StartupMessage,
    minor: u16,
}

/// Nothing more is to be done for the client.
struct Done;

/// What a client came for.
enum Came {
    ToLogIn(Box<Client<Authenticating>>),
    /// Its stream ends when the request is carried out: a client may count on that before it asks for more.
    ToCancel {
        stream: ClientStream,
        context: Arc<Context>,
        process_id: u32,
        secret: Bytes,
    },
}

/// Serves a client from accept to its end.
pub(crate) async fn serve(socket: TcpStream, peer: SocketAddr, context: Arc<Context>) {
    let metrics = Arc::clone(&context.listener.metrics);
    let deadline = Instant::now() + context.listener.limits.login;
    let client = Client {
        stream: ClientStream::Plain(socket),
        peer,
        context,
        id: SessionId::generate(),
        deadline,
        phase: Startup { gss_declined: false, ssl_answered: false },
    };
    // Each phase is on the heap while it lasts: a session that idles keeps no room for those it has left behind.
    let came = match timeout_at(deadline, Box::pin(client.negotiate())).await {
        Ok(Ok(came)) => came,
        Ok(Err(_)) | Err(_) => {
            metrics.junk();
            return;
        }
    };
    match came {
        Came::ToCancel { mut stream, context, process_id, secret } => {
            if Box::pin(context.cancels.request(process_id, &secret)).await == Requested::Unknown {
                metrics.junk();
            }
            // That it did not hear of it changes nothing.
            let _ = timeout(LINGER, stream.shutdown()).await;
        }
        Came::ToLogIn(client) => {
            let Ok(client) = Box::pin(client.authenticate()).await else { return };
            if let Ok(parts) = Box::pin(client.connect()).await {
                let reason = Box::pin(relay::relay(parts)).await;
                tracing::debug!(%peer, reason = reason.as_str(), "session closed");
            }
        }
    }
}

impl Client<Startup> {
    /// Up to a StartupMessage or a CancelRequest. An error is junk: nothing was claimed, or a refusal is on record.
    async fn negotiate(mut self) -> io::Result<Came> {
        if let ClientStream::Plain(tcp) = &self.stream {
            tcp.set_nodelay(true)?;
            let mut first = [0];
            if tcp.peek(&mut first).await? == 1 && first == [TLS_HANDSHAKE] {
                self = self.handshake(true).await?;
            }
        }
        loop {
            // A length that no packet has may be anyone's: as at the server, the stream ends without a word.
            let body = self.packet().await?;
            match Packet::read(body) {
                Ok(Packet::SslRequest) if !self.phase.ssl_answered => {
                    self.phase.ssl_answered = true;
                    if self.context.listener.tls.is_some() {
                        self = self.tls().await?;
                    } else {
                        self.stream.write_all(b"N").await?;
                    }
                }
                Ok(Packet::GssEncRequest) if !self.phase.gss_declined => {
                    self.phase.gss_declined = true;
                    self.stream.write_all(b"N").await?;
                }
                Ok(Packet::CancelRequest { process_id, secret })
                    if self.context.listener.is_private(&self.stream) =>
                {
                    let Self { stream, context, .. } = self;
                    return Ok(Came::ToCancel { stream, context, process_id, secret });
                }
                Ok(Packet::StartupMessage(startup)) => return self.begin(startup).await,
                Ok(Packet::Version { major, minor }) => {
                    let text = format!(
                        "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{MINOR_MAX}"
                    );
                    self.say(ErrorFields::fatal("0A000", text)).await;
                    return Err(io::ErrorKind::Unsupported.into());
                }
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(malformed) => {
                    self.say(ErrorFields::fatal("08P01", "invalid startup packet layout")).await;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, malformed));
                }
            }
        }
    }

    /// A packet's length and body.
    async fn packet(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        match u32::from_be_bytes(length) {
            length @ 8..=PACKET_MAX => read_bytes(&mut self.stream, length as usize - 4).await,
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Answers an SSLRequest with TLS. What was sent before is never read as the session's (CVE-2021-23214).
    async fn tls(mut self) -> io::Result<Self> {
        if let ClientStream::Plain(tcp) = &self.stream
            && matches!(tcp.try_read(&mut [0]), Ok(1..))
        {
            let reason = "bytes in clear after SSLRequest, before TLS";
            let session = self.session(String::new(), None, None, None);
            self.record_refusal(session, Refusal::Protocol { reason: reason.into() }).await;
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.stream.write_all(b"S").await?;
        self.handshake(false).await
    }

    async fn handshake(self, direct: bool) -> io::Result<Self> {
        let Self { stream, peer, context, id, deadline, phase } = self;
        let (Some(config), ClientStream::Plain(tcp)) =
            (context.listener.tls.as_ref().map(|tls| tls()), stream)
        else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let tls = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await?;
        // Without a protocol in ALPN, direct TLS could be an answer to what was meant for another one.
        if direct && tls.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let phase = Startup { ssl_answered: true, ..phase };
        Ok(Self { stream: ClientStream::Tls(Box::new(tls)), peer, context, id, deadline, phase })
    }

    /// Takes a StartupMessage: what is wrong with it from here on is a refused login.
    async fn begin(mut self, startup: StartupMessage) -> io::Result<Came> {
        let user = readable(startup.parameter(b"user"));
        let database = readable(startup.parameter(b"database"));
        let application =
            Some(readable(startup.parameter(b"application_name"))).filter(|name| !name.is_empty());
        let trace_id = application
            .as_deref()
            .and_then(trace::in_text)
            .or_else(|| trace::in_text(&readable(startup.parameter(b"options"))));
        let wanted = match &self.context.listener.own {
            Some(own) => own.as_str().to_owned(),
            None if database.is_empty() => user.clone(),
            None => database,
        };
        let session =
            self.session(wanted, Some(user.clone()).filter(|user| !user.is_empty()), application, trace_id);
        if user.is_empty() {
            let reason = "no PostgreSQL user name specified in startup packet";
            self.record_refusal(session, Refusal::Protocol { reason: reason.into() }).await;
            self.say(ErrorFields::fatal("28000", reason)).await;
            return Err(io::ErrorKind::InvalidData.into());
        }
        if !self.context.listener.is_private(&self.stream) {
            let address = self.peer.ip();
            let words = format!("connection from host \"{address}\", user \"{user}\" refused, no encryption");
            let refusal = Refusal::NotAuthenticated {
                code: "clear",
                reason: "a login without TLS, not on loopback".into(),
            };
            self.record_refusal(session, refusal).await;
            self.say(ErrorFields::fatal("28000", words)).await;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let minor = startup.minor.min(MINOR_MAX);
        let options: Vec<&Bytes> = startup.options().collect();
        if startup.minor > MINOR_MAX || !options.is_empty() {
            let message = frame::message(NEGOTIATE_PROTOCOL_VERSION, |out| {
                out.put_u32(3 << 16 | u32::from(minor));
                out.put_u32(u32::try_from(options.len()).unwrap_or(0));
                for option in options {
                    frame::put_text(out, option);
                }
            });
            self.stream.write_all(&message).await?;
        }
        let Self { stream, peer, context, id, deadline, .. } = self;
        let phase = Authenticating { session, startup, user, minor };
        Ok(Came::ToLogIn(Box::new(Client { stream, peer, context, id, deadline, phase })))
    }
}

impl<P> Client<P> {
    fn session(
        &self,
        wanted: String,
        user: Option<String>,
        application: Option<String>,
        trace_id: Option<String>,
    ) -> Arc<PostgresSession> {
        Arc::new(PostgresSession {
            id: self.id,
            wanted,
            client: Peer { address: self.peer, user, application },
            trace_id,
        })
    }

    /// Puts a refusal that needs no judgement on record.
    async fn record_refusal(&self, session: Arc<PostgresSession>, refusal: Refusal) {
        let login = Login { session, credential: Credential::Refused(refusal), unsupported: None };
        // It is refused in any case.
        let _ = self.context.listener.gate.open(login).await;
    }

    /// The last words to a client that was not let in.
    async fn say(&mut self, words: ErrorFields) {
        farewell(&mut self.stream, &words.message()).await;
    }
}

/// Why there is no credential.
enum NoCredential {
    /// The client left, or its stream failed.
    Gone,
    /// What it sent is none.
    Refused(Refusal),
}

impl From<io::Error> for NoCredential {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Malformed> for NoCredential {
    fn from(malformed: Malformed) -> Self {
        Self::Refused(malformed.into())
    }
}

impl From<bearer::Fault> for NoCredential {
    fn from(fault: bearer::Fault) -> Self {
        Self::Refused(fault.into())
    }
}

impl Client<Authenticating> {
    /// Asks for the token and hands it to the gate.
    async fn authenticate(mut self) -> Result<Client<Ready>, Done> {
        let bearer = self
            .context
            .target(&self.phase.session.wanted)
            .is_some_and(|target| target.login == LoginMethod::OauthBearer);
        let asked = timeout_at(self.deadline, async {
            if bearer { self.ask_bearer().await } else { self.ask_password().await }
        });
        let credential = match asked.await {
            Ok(Ok(credential)) => credential,
            Ok(Err(NoCredential::Refused(refusal))) => Credential::Refused(refusal),
            Ok(Err(NoCredential::Gone)) => {
                // psql leaves when it is asked for a password that it does not have, and comes back with one.
                self.context.listener.metrics.junk();
                return Err(Done);
            }
            Err(_) => Credential::Refused(Refusal::Protocol { reason: "no credential came in time".into() }),
        };
        let unsupported = self
            .phase
            .startup
            .wants_replication()
            .then(|| Refusal::Unsupported { what: "replication connections".into() });
        let session = Arc::clone(&self.phase.session);
        let login = Login { session, credential, unsupported };
        match self.context.listener.open(login, self.deadline).await {
            Ok(opened) => {
                let Self { stream, peer, context, id, deadline, phase } = self;
                let phase = Ready { opened, startup: phase.startup, minor: phase.minor };
                Ok(Client { stream, peer, context, id, deadline, phase })
            }
            Err(refusal) => {
                self.refuse(&refusal, bearer).await;
                Err(Done)
            }
        }
    }

    /// AuthenticationCleartextPassword, and the token as the password.
    async fn ask_password(&mut self) -> Result<Credential, NoCredential> {
        self.stream.write_all(&authentication(3, &[])).await?;
        self.stream.flush().await?;
        let limit = self.context.listener.limits.token_bytes;
        let body = self.password_message(limit.saturating_add(1)).await?;
        let mut token = body.to_vec();
        if token.pop() != Some(0) {
            return Err(NoCredential::Refused(Refusal::Protocol {
                reason: "a password without its NUL".into(),
            }));
        }
        Ok(Credential::Token(Token::new(token)))
    }

    /// AuthenticationSASL with OAUTHBEARER.
    async fn ask_bearer(&mut self) -> Result<Credential, NoCredential> {
        self.stream.write_all(&authentication(10, &[MECHANISM, b"\0\0"])).await?;
        self.stream.flush().await?;
        let limit = self.context.listener.limits.token_bytes.saturating_add(SASL_OVERHEAD);
        let mut reader = Reader::new(self.password_message(limit).await?);
        if reader.text("SASL mechanism")? != MECHANISM {
            return Err(NoCredential::Refused(Refusal::Protocol { reason: "another SASL mechanism".into() }));
        }
        let initial = reader.value("SASL response")?;
        reader.end("SASL response")?;
        let response = match initial {
            Some(response) => response,
            None => {
                self.stream.write_all(&authentication(11, &[])).await?;
                self.stream.flush().await?;
                self.password_message(limit).await?
            }
        };
        match bearer::initial(&response)? {
            Initial::Discovery => Err(NoCredential::Refused(Refusal::Discovery)),
            Initial::Token(token) if token.len() > self.context.listener.limits.token_bytes => {
                Err(NoCredential::Refused(too_long(token.len() as u64)))
            }
            Initial::Token(token) => Ok(Credential::Token(token)),
        }
    }

    /// The body of a PasswordMessage or SASL response.
    async fn password_message(&mut self, limit: usize) -> Result<Bytes, NoCredential> {
        let mut head = [0; HEADER];
        self.stream.read_exact(&mut head).await?;
        let [kind, length @ ..] = head;
        let length = u64::from(u32::from_be_bytes(length));
        if kind != client::PASSWORD || length < 4 {
            let reason = format!("a message of type {kind:#04x} where the credential was expected");
            return Err(NoCredential::Refused(Refusal::Protocol { reason: reason.into() }));
        }
        match usize::try_from(length - 4) {
            Ok(length) if length <= limit => Ok(read_bytes(&mut self.stream, length).await?),
            _ => Err(NoCredential::Refused(too_long(length - 4))),
        }
    }

    /// Tells a client that it is not let in.
    async fn refuse(mut self, refusal: &Refusal, bearer: bool) {
        // Past its deadline a client has a moment still, to hear why.
        let until = self.deadline.max(Instant::now() + LINGER);
        let told = async {
            match refusal {
                // The client is told where to get a token, answers with a byte, and then fails.
                Refusal::NotAuthenticated { .. } | Refusal::Discovery if bearer => {
                    let discovery = bearer::discovery((self.context.listener.discovery)().as_ref());
                    self.stream.write_all(&authentication(11, &[&discovery])).await?;
                    self.stream.flush().await?;
                    let _ = self.password_message(SASL_OVERHEAD).await;
                }
                // Who it is was proved, so it is told that first.
                Refusal::NotAllowed { .. } | Refusal::Unsupported { .. } => {
                    self.stream.write_all(&authentication(0, &[])).await?;
                }
                _ => {}
            }
            Ok::<_, io::Error>(())
        };
        // That it did not hear it changes nothing.
        let _ = timeout_at(until, told).await;
        let phase = Phase::Login { user: &self.phase.user, wanted: &self.phase.session.wanted, bearer };
        let words = error_fields(refusal, phase, self.id);
        self.say(words).await;
    }
}

impl Client<Ready> {
    /// Logs in at the target and greets the client. Without a target the session is closed, and on record.
    async fn connect(mut self) -> Result<Parts, Done> {
        let session = Arc::clone(&self.phase.opened.session);
        let Some(target) = self.context.target(session.connection().as_str()) else {
            return self
                .fail(ErrorFields::fatal("08001", "the connection is no longer configured").message())
                .await;
        };
        let connected = match target.connect(&self.phase.startup.parameters, self.phase.minor).await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::warn!(session.id = %self.id, %error, "no session at the target");
                let words = target_words(error, self.id);
                return self.fail(words).await;
            }
        };
        let secret = if self.phase.minor >= 2 { 32 } else { 4 };
        let registration = match self.register(secret, connected.key, target) {
            Ok(registration) => registration,
            Err(refusal) => {
                return self.fail(error_fields(&refusal, Phase::Ready, self.id).into_fatal().message()).await;
            }
        };
        let mut greeting = BytesMut::from(&*authentication(0, &[]));
        // BackendKeyData has its place before ReadyForQuery, which ends the greeting.
        if let Some((ready, before)) = connected.greeting.split_last() {
            for message in before.iter().chain([&registration.message(), ready]) {
                greeting.extend_from_slice(message);
            }
        }
        let greeted = async {
            self.stream.write_all(&greeting).await?;
            self.stream.flush().await
        };
        if timeout(self.context.listener.limits.login, greeted).await.map_or(true, |greeted| greeted.is_err())
        {
            session.close(CloseReason::Client);
            return Err(Done);
        }
        Ok(Parts {
            client: self.stream,
            early: BytesMut::new(),
            target: connected.stream,
            leftover: connected.leftover,
            opened: self.phase.opened,
            registration,
            message_max: self.context.listener.limits.message_bytes,
            idle: self.context.listener.limits.idle,
            metrics: Arc::clone(&self.context.listener.metrics),
        })
    }

    fn register(
        &self,
        secret: usize,
        key: crate::target::BackendKey,
        target: Arc<Target>,
    ) -> Result<crate::cancel::Registration, Refusal> {
        let Opened { session, operations } = &self.phase.opened;
        self.context.cancels.register(secret, key, target, Arc::clone(session), operations.clone())
    }

    /// The target cannot be had: the client is told after AuthenticationOk, and the session closed.
    async fn fail(&mut self, words: Bytes) -> Result<Parts, Done> {
        let told = async {
            self.stream.write_all(&authentication(0, &[])).await?;
            self.stream.write_all(&words).await?;
            self.stream.flush().await?;
            self.stream.shutdown().await
        };
        // That it did not hear them changes nothing.
        let _ = timeout(LINGER, told).await;
        self.phase.opened.session.close(CloseReason::Target);
        Err(Done)
    }
}

/// What a client is told of a target that did not let the gateway in: the target's own words, else a class.
fn target_words(error: TargetError, session: SessionId) -> Bytes {
    let (code, words) = match error {
        TargetError::Refused { raw: Some(raw), .. } => return raw,
        TargetError::Refused { .. } | TargetError::Authentication { .. } => {
            ("08004", "the target did not accept the gateway")
        }
        TargetError::Stream { .. } | TargetError::Protocol { .. } => {
            ("08006", "the target failed while the gateway logged in")
        }
        TargetError::Unreachable { .. }
        | TargetError::Timeout { .. }
        | TargetError::NoTls
        | TargetError::Tls { .. } => ("08001", "the target cannot be reached"),
    };
    ErrorFields::fatal(code, words).reference(session).message()
}

fn too_long(length: u64) -> Refusal {
    Refusal::NotAuthenticated {
        code: "size",
        reason: format!("a credential of {length} bytes, over the limit"),
    }
}

/// An authentication message: its code, then what belongs to it.
fn authentication(code: u32, parts: &[&[u8]]) -> Bytes {
    frame::message(AUTHENTICATION, |out| {
        out.put_u32(code);
        for part in parts {
            out.put_slice(part);
        }
    })
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
