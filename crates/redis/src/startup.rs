//! From accept to the ready phase: encryption, the token, the target.
//!
//! ```text
//! Client<Startup> ── TLS from the first byte, or none ──▸ Client<Authenticating>
//! Client<Authenticating> ── AUTH, HELLO … AUTH ── gate ──▸ Client<Ready> ── target ──▸ relay
//! ```
//!
//! Each phase consumes the one before, so that nothing of a later one can happen early. All reads up to the identity share
//! one deadline. Before it nothing but AUTH, HELLO, QUIT and RESET is looked at: anything else is answered `-NOAUTH`, and the
//! target hears of none of it. A refused login leaves the stream as it was, as the server does, for [`LOGINS_MAX`] times; each
//! is on record as a session of its own. What claims nothing (junk, a port scan) is counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use verbatim_core::{
    Client as Peer, CloseReason, Credential, Login as Asked, Opened, Refusal, SessionId, Token, trace,
};
use verbatim_wire::{ClientStream, Listener, downcast, farewell};

use crate::frame::{Limits, Next, Requests, protocol};
use crate::operation::{Frontend, Hello, Login, NoLogin, introduced, is_http, read_login};
use crate::refusal::{NOAUTH, Phase, Words, words};
use crate::relay::renewal::one_argument;
use crate::relay::{self, Parts};
use crate::session::RedisSession;
use crate::target::{RedisTarget, TargetError};

/// The first byte of a TLS record with a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// How many logins one stream may try.
const LOGINS_MAX: usize = 8;
/// Memory that a read is given at a time.
const READ_STEP: usize = 4096;
/// How many commands behind the login are looked at for what the client calls itself.
const AHEAD_MAX: usize = 16;
/// What the server says to a HELLO without AUTH before the login.
const HELLO_FIRST: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
<proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
same time";

/// A client, in one of its phases.
struct Client<P> {
    peer: SocketAddr,
    listener: Arc<Listener>,
    deadline: Instant,
    phase: P,
}

/// Nothing is known of it.
struct Startup(TcpStream);

/// It may log in.
struct Authenticating {
    stream: ClientStream,
    /// Nobody between can read along, or nobody cares.
    private: bool,
    input: BytesMut,
    requests: Requests,
    logins: usize,
}

/// It was let in.
struct Ready {
    stream: ClientStream,
    opened: Opened,
    /// What was read behind the login.
    input: BytesMut,
    hello: Option<Hello>,
    trace: Option<String>,
}

/// Nothing more is to be done for the client.
struct Done;

/// What comes of a request before the login.
enum Answer {
    /// Words, and the next.
    Words(Words),
    Reset,
    /// It leaves.
    Quit,
    /// It is none of Redis.
    Http,
    Login(Result<Login, NoLogin>),
}

/// Serves a client from accept to its end.
pub(crate) async fn serve(socket: TcpStream, peer: SocketAddr, listener: Arc<Listener>) {
    let metrics = Arc::clone(&listener.metrics);
    let deadline = Instant::now() + listener.limits.login;
    let client = Client { peer, listener, deadline, phase: Startup(socket) };
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

impl Client<Startup> {
    /// TLS, where the client begins with it. An error is junk.
    async fn negotiate(self) -> io::Result<Client<Authenticating>> {
        let Self { peer, listener, deadline, phase: Startup(tcp) } = self;
        tcp.set_nodelay(true)?;
        let mut first = [0];
        if tcp.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let stream = match (&listener.tls, first) {
            (Some(tls), [TLS_HANDSHAKE]) => {
                let tls = tokio_rustls::TlsAcceptor::from(tls()).accept(tcp).await?;
                ClientStream::Tls(Box::new(tls))
            }
            _ => ClientStream::Plain(tcp),
        };
        let private = listener.is_private(&stream);
        let requests = Requests::new(Limits::login(listener.limits.token_bytes));
        let phase = Authenticating { stream, private, input: BytesMut::new(), requests, logins: 0 };
        Ok(Client { peer, listener, deadline, phase })
    }
}

impl Client<Authenticating> {
    /// Answers what comes until a login is let in.
    async fn authenticate(mut self) -> Result<Client<Ready>, Done> {
        loop {
            let answer = match self.phase.requests.next(&self.phase.input) {
                Ok(Next::Incomplete) => {
                    self.read().await?;
                    continue;
                }
                Ok(Next::Nothing) => continue,
                Ok(Next::Command) => self.answer(),
                // Nothing streams before the login, so this is no request either.
                Ok(Next::Large(_)) => return self.broken(protocol("unauthenticated bulk length")).await,
                Err(refusal) => return self.broken(refusal).await,
            };
            match answer {
                Answer::Words(words) => self.write(&words.reply()).await?,
                Answer::Reset => self.write(b"+RESET\r\n").await?,
                Answer::Quit => {
                    self.count();
                    self.farewell(b"+OK\r\n").await;
                    return Err(Done);
                }
                Answer::Http => {
                    self.count();
                    return Err(Done);
                }
                Answer::Login(login) => {
                    if let Some((opened, hello, trace)) = self.log_in(login).await? {
                        let Self { peer, listener, deadline, phase } = self;
                        let mut input = phase.input;
                        let input = input.split_off(phase.requests.end().min(input.len()));
                        let phase = Ready { stream: phase.stream, opened, input, hello, trace };
                        return Ok(Client { peer, listener, deadline, phase });
                    }
                }
            }
        }
    }

    /// What a request is answered.
    fn answer(&self) -> Answer {
        let arguments = self.phase.requests.arguments(&self.phase.input);
        let name = arguments.first().copied().unwrap_or_default();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is_http(&arguments) {
            return Answer::Http;
        }
        if is("AUTH") {
            return Answer::Login(read_login(&arguments));
        }
        if is("HELLO") {
            return match read_login(&arguments) {
                _ if arguments.len() < 2 => Answer::Words(Words::error(HELLO_FIRST)),
                Ok(login) if login.user.is_none() => Answer::Words(Words::error(HELLO_FIRST)),
                Err(NoLogin::Words(words)) => Answer::Words(Words::error(words)),
                login => Answer::Login(login),
            };
        }
        match () {
            () if is("QUIT") => Answer::Quit,
            () if is("RESET") => Answer::Reset,
            () => Answer::Words(Words::error(NOAUTH)),
        }
    }

    async fn read(&mut self) -> Result<(), Done> {
        // What was answered is not kept.
        let done = self.phase.requests.start().min(self.phase.input.len());
        drop(self.phase.input.split_to(done));
        self.phase.requests.taken(done);
        self.phase.input.reserve(READ_STEP);
        let read = timeout_at(self.deadline, self.phase.stream.read_buf(&mut self.phase.input)).await;
        match read {
            Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0) | Err(_)) | Err(_) => {
                self.count();
                Err(Done)
            }
        }
    }

    async fn write(&mut self, reply: &[u8]) -> Result<(), Done> {
        let written = timeout_at(self.deadline, async {
            self.phase.stream.write_all(reply).await?;
            self.phase.stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Done),
        }
    }

    /// A stream on which nobody tried to log in.
    fn count(&self) {
        if self.phase.logins == 0 {
            self.listener.metrics.junk();
        }
    }

    /// What cannot be read: a refused login where it began as one.
    async fn broken(mut self, refusal: Refusal) -> Result<Client<Ready>, Done> {
        let arguments = self.phase.requests.arguments(&self.phase.input);
        let name = arguments.first().copied().unwrap_or_default();
        let user = arguments.get(1).map(|user| user.to_vec());
        let id = SessionId::generate();
        if name.eq_ignore_ascii_case(b"AUTH") {
            self.phase.logins += 1;
            let (session, _) = self.session(id, user.as_deref(), None);
            self.record_refusal(session, refusal.clone()).await;
        } else {
            self.count();
        }
        let reply = words(&refusal, Phase::Login, id).reply();
        self.farewell(&reply).await;
        Err(Done)
    }

    /// Asks the gate. None where the client may try again.
    async fn log_in(
        &mut self,
        login: Result<Login, NoLogin>,
    ) -> Result<Option<(Opened, Option<Hello>, Option<String>)>, Done> {
        self.phase.logins += 1;
        let id = SessionId::generate();
        let login = match login {
            Ok(login) => login,
            Err(NoLogin::Words(words)) => {
                self.write(&Words::error(words).reply()).await?;
                return Ok(None);
            }
            Err(NoLogin::OneArgument) => {
                let (session, _) = self.session(id, None, None);
                self.record_refusal(session, one_argument()).await;
                return self.refuse(&one_argument(), id).await.map(|()| None);
            }
        };
        let name = login.hello.as_ref().and_then(|hello| hello.name.as_deref());
        let (session, trace) = self.session(id, login.user.as_deref(), name);
        if !self.phase.private {
            let reason = "a login without TLS, not on loopback".to_owned();
            self.record_refusal(session, Refusal::NotAuthenticated { code: "clear", reason }).await;
            self.farewell(&Words::error("ERR this port takes logins over TLS alone").reply()).await;
            return Err(Done);
        }
        let credential = Credential::Token(Token::new(login.token));
        let asked = Asked { session, credential, unsupported: None };
        match self.listener.open(asked, self.deadline).await {
            Ok(opened) => Ok(Some((opened, login.hello, trace))),
            Err(refusal) => self.refuse(&refusal, id).await.map(|()| None),
        }
    }

    /// Tells a client that it is not let in.
    async fn refuse(&mut self, refusal: &Refusal, id: SessionId) -> Result<(), Done> {
        let words = words(refusal, Phase::Login, id);
        if words.is_fatal() || self.phase.logins >= LOGINS_MAX {
            self.farewell(&words.reply()).await;
            return Err(Done);
        }
        self.write(&words.reply()).await
    }

    /// The session that a login asks for, and the trace that it names.
    fn session(
        &self,
        id: SessionId,
        user: Option<&[u8]>,
        name: Option<&[u8]>,
    ) -> (Arc<RedisSession>, Option<String>) {
        let user = user.map(readable);
        let wanted = match &self.listener.own {
            Some(own) => own.as_str().to_owned(),
            None => user.clone().unwrap_or_default(),
        };
        let ahead = self.introductions();
        let named = ahead.iter().find(|(is_name, _)| *is_name).map(|(_, name)| name.clone());
        let application = name.map(readable).or(named).filter(|name| !name.is_empty());
        let trace = application
            .iter()
            .chain(ahead.iter().map(|(_, value)| value))
            .find_map(|value| trace::in_text(value));
        let client = Peer { address: self.peer, user, application };
        (Arc::new(RedisSession { id, wanted, client, trace: trace.clone() }), trace)
    }

    /// What the client says of itself in the commands that came with its login.
    fn introductions(&self) -> Vec<(bool, String)> {
        let rest = self.phase.input.get(self.phase.requests.end()..).unwrap_or_default();
        let mut requests = Requests::new(Limits::session(self.listener.limits.message_bytes));
        let mut found = Vec::new();
        for _ in 0..AHEAD_MAX {
            match requests.next(rest) {
                Ok(Next::Command) => found.extend(introduced(&requests.arguments(rest))),
                Ok(Next::Nothing) => {}
                _ => break,
            }
        }
        found
    }

    /// Puts a refusal that needs no judgement on record.
    async fn record_refusal(&self, session: Arc<RedisSession>, refusal: Refusal) {
        let login = Asked { session, credential: Credential::Refused(refusal), unsupported: None };
        // It is refused in any case.
        let _ = self.listener.gate.open(login).await;
    }

    async fn farewell(&mut self, reply: &[u8]) {
        farewell(&mut self.phase.stream, reply).await;
    }
}

impl Client<Ready> {
    /// Logs in at the target. Without one the session is closed, and on record.
    async fn connect(mut self) -> Result<Parts, Done> {
        let session = Arc::clone(&self.phase.opened.session);
        let name = session.connection().as_str();
        let target = self.listener.targets.get(name).and_then(|(_, target)| downcast::<RedisTarget>(target));
        let Some(target) = target else {
            return self.fail(Words::fatal("ERR the connection is no longer configured")).await;
        };
        let stream = match target.connect().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(session.id = %session.id(), %error, "no session at the target");
                return self.fail(Words::fatal(target_words(&error)).reference(session.id())).await;
            }
        };
        if self.phase.hello.is_none() {
            let greeted = async {
                self.phase.stream.write_all(b"+OK\r\n").await?;
                self.phase.stream.flush().await
            };
            if timeout(self.listener.limits.login, greeted).await.map_or(true, |greeted| greeted.is_err()) {
                session.close(CloseReason::Client);
                return Err(Done);
            }
        }
        let Ready { stream: client, opened, input, hello, trace } = self.phase;
        let mut frontend = Frontend::new(self.listener.limits.message_bytes, target.allowed.clone(), trace);
        frontend.input = input;
        Ok(Parts {
            client,
            target: stream,
            opened,
            frontend,
            hello,
            login: target.login(),
            own: self.listener.own.clone(),
            idle: self.listener.limits.idle,
            metrics: Arc::clone(&self.listener.metrics),
        })
    }

    async fn fail(&mut self, words: Words) -> Result<Parts, Done> {
        farewell(&mut self.phase.stream, &words.reply()).await;
        self.phase.opened.session.close(CloseReason::Target);
        Err(Done)
    }
}

/// What a client is told of a target that did not let the gateway in.
fn target_words(error: &TargetError) -> &'static str {
    match error {
        TargetError::Refused { .. } => "ERR the target did not accept the gateway",
        TargetError::Stream { .. } | TargetError::Protocol { .. } => {
            "ERR the target failed while the gateway logged in"
        }
        TargetError::Unreachable { .. } | TargetError::Timeout { .. } | TargetError::Tls { .. } => {
            "ERR the target cannot be reached"
        }
    }
}

/// A name as it is recorded: what is no UTF-8 is escaped.
fn readable(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(name) => name.to_owned(),
        Err(_) => name.escape_ascii().to_string(),
    }
}
