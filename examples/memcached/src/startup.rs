//! From accept to the ready phase: TLS, the token, the target.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use verbatim_core::{Client, CloseReason, Credential, Login, Opened, Refusal, Session, SessionId, Token};
use verbatim_wire::{ClientStream, Listener, TargetStream, downcast, farewell};

use crate::frame::{self, DATA_END};
use crate::operation::split_login;
use crate::refusal::{line, words};
use crate::relay::{self, Parts};
use crate::target::Target;

/// How many lines are answered before the token comes.
const LINES_MAX: usize = 16;
/// What a login has beside the token: a connection's name and a space.
const USER_MAX: u64 = 64;
/// Memory that a read is given at a time.
const READ_STEP: usize = 4096;

/// What the wire tells of a session before it is let in.
struct MemcachedSession {
    id: SessionId,
    wanted: String,
    client: Client,
}

impl Session for MemcachedSession {
    fn id(&self) -> SessionId {
        self.id
    }

    fn protocol(&self) -> &'static str {
        crate::NAME
    }

    fn wanted(&self) -> &str {
        &self.wanted
    }

    fn client(&self) -> &Client {
        &self.client
    }
}

/// Serves a client from accept to its end.
pub(crate) async fn serve(tcp: TcpStream, address: SocketAddr, listener: Arc<Listener>) {
    let deadline = Instant::now() + listener.limits.login;
    let asking = async {
        let mut stream = ClientStream::accept(tcp, listener.tls.as_ref()).await?;
        let mut input = BytesMut::new();
        let (user, credential) = ask(&mut stream, &mut input, &listener).await?;
        Ok::<_, io::Error>((stream, input, user, credential))
    };
    // Who sent no token claimed nothing: junk, a port scan, a browser.
    let Ok(Ok((mut stream, input, user, credential))) = timeout_at(deadline, Box::pin(asking)).await else {
        return listener.metrics.junk();
    };
    let id = SessionId::generate();
    let own = listener.own.as_ref().map(|own| own.as_str().to_owned());
    let wanted = own.or_else(|| user.clone()).unwrap_or_default();
    let client = Client { address, user, application: None };
    let session = Arc::new(MemcachedSession { id, wanted, client });
    let opened = match listener.open(Login { session, credential, unsupported: None }, deadline).await {
        Ok(opened) => opened,
        Err(refusal) => return farewell(&mut stream, &words(&refusal, id)).await,
    };
    let target = match connect(&opened, &listener).await {
        Ok(target) => target,
        Err(reason) => {
            tracing::warn!(session.id = %id, reason, "no session at the target");
            farewell(&mut stream, &line("SERVER_ERROR the target cannot be reached", id)).await;
            return opened.session.close(CloseReason::Target);
        }
    };
    if stream.write_all(b"STORED\r\n").await.is_err() || stream.flush().await.is_err() {
        return opened.session.close(CloseReason::Client);
    }
    let Listener { limits, metrics, .. } = &*listener;
    let parts =
        Parts { client: stream, input, target, opened, limits: *limits, metrics: Arc::clone(metrics) };
    let reason = Box::pin(relay::relay(parts)).await;
    tracing::debug!(session.id = %id, reason = reason.as_str(), "session closed");
}

/// Reads up to the token: the user word, and the credential or why there is none.
///
/// An error is a client that left, or that sent no token.
async fn ask(
    stream: &mut ClientStream,
    input: &mut BytesMut,
    listener: &Listener,
) -> io::Result<(Option<String>, Credential)> {
    let refused = |code, reason: &str| {
        Credential::Refused(Refusal::NotAuthenticated { code, reason: reason.to_owned() })
    };
    for _ in 0..LINES_MAX {
        let Some(length) = login_length(stream, input).await? else {
            stream.write_all(b"CLIENT_ERROR unauthenticated\r\n").await?;
            stream.flush().await?;
            continue;
        };
        if !listener.is_private(stream) {
            return Ok((None, refused("clear", "a login without TLS, not on loopback")));
        }
        if length > listener.limits.token_bytes as u64 + USER_MAX {
            return Ok((None, refused("size", "a credential over the limit")));
        }
        let block = read(stream, input, usize::try_from(length).unwrap_or(0) + DATA_END.len()).await?;
        let login = block.strip_suffix(DATA_END).and_then(split_login);
        let Some((Ok(user), token)) = login.map(|(user, token)| (std::str::from_utf8(user), token)) else {
            return Ok((
                None,
                refused("malformed", "a login is the connection's name, a space and the token"),
            ));
        };
        return Ok((Some(user.to_owned()), Credential::Token(Token::new(token.to_vec()))));
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Reads a line: the length of the login that it announces, none where it is another command.
async fn login_length(stream: &mut ClientStream, input: &mut BytesMut) -> io::Result<Option<u64>> {
    loop {
        if let Some(end) = memchr::memchr(b'\n', input) {
            let line = input.split_to(end + 1);
            return Ok(frame::login_length(&line));
        }
        if input.len() >= frame::LINE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        fill(stream, input).await?;
    }
}

/// Reads exactly so many bytes; memory is taken as they come.
async fn read(stream: &mut ClientStream, input: &mut BytesMut, length: usize) -> io::Result<Bytes> {
    while input.len() < length {
        fill(stream, input).await?;
    }
    Ok(input.split_to(length).freeze())
}

async fn fill(stream: &mut ClientStream, input: &mut BytesMut) -> io::Result<()> {
    input.reserve(READ_STEP);
    match stream.read_buf(input).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn connect(opened: &Opened, listener: &Listener) -> Result<TargetStream, String> {
    let found = listener.targets.get(opened.session.connection().as_str());
    let target = found.and_then(|(_, target)| downcast::<Target>(target));
    let target = target.ok_or("the connection is no longer configured")?;
    target.connect().await.map_err(|error| error.to_string())
}
