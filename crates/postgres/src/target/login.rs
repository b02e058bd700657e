//! The login at a target: StartupMessage, authentication, and what the server says before it is ready.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    BackendKey, CANCEL_SECRET_MAX, Connected, Target, TargetError, TargetStream, binding, stream_error,
};

/// How long a message of the login may be, its header included.
const MESSAGE_MAX: usize = 64 * 1024;
/// How much the server may say (notices, parameters) before it is ready.
const GREETING_MAX: usize = 1024 * 1024;
/// A credential shorter than this is not searched for in the server's errors: it would be found in any.
const CREDENTIAL_SEARCHED_MIN: usize = 8;

const PROTOCOL_3_0: u32 = 3 << 16;
/// The newest minor version that the gateway asks for.
const MINOR_MAX: u16 = 2;

const SCRAM: &str = "SCRAM-SHA-256";
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Logs in on a fresh stream.
pub(super) async fn log_in(
    target: &Target,
    stream: TargetStream,
    parameters: &[(Bytes, Bytes)],
    protocol_minor: u16,
) -> Result<Connected, TargetError> {
    let asked = if protocol_minor >= MINOR_MAX { MINOR_MAX } else { 0 };
    let mut login =
        Login { target, stream, buffer: BytesMut::new(), greeting: Vec::new(), greeting_bytes: 0 };
    login.send(&startup_message(target, parameters, asked)?).await?;
    let minor = login.authenticate(asked).await?;
    let key = login.until_ready().await?;
    let Login { stream, buffer, greeting, .. } = login;
    Ok(Connected { stream, greeting, key, protocol_minor: minor, leftover: buffer })
}

/// The StartupMessage: the gateway's user and database, and the client's other parameters.
pub(super) fn startup_message(
    target: &Target,
    parameters: &[(Bytes, Bytes)],
    minor: u16,
) -> Result<BytesMut, TargetError> {
    let mut message = BytesMut::new();
    message.put_u32(0);
    message.put_u32(PROTOCOL_3_0 | u32::from(minor));
    let own = [(&b"user"[..], target.user.as_bytes()), (b"database", target.database.as_bytes())];
    let passed = parameters
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()))
        .filter(|(name, _)| !matches!(*name, b"user" | b"database" | b"replication"))
        .filter(|(name, _)| !name.starts_with(b"_pq_."));
    for (name, value) in own.into_iter().chain(passed) {
        // An empty name would end the list, a NUL would begin another parameter.
        if name.is_empty() || name.contains(&0) || value.contains(&0) {
            let reason = "a startup parameter has no name or holds a NUL".to_owned();
            return Err(TargetError::Authentication { reason });
        }
        message.put_slice(name);
        message.put_u8(0);
        message.put_slice(value);
        message.put_u8(0);
    }
    message.put_u8(0);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message.get_mut(..4).unwrap_or_default().copy_from_slice(&length.to_be_bytes());
    Ok(message)
}

/// One message of the server, whole.
struct Message {
    tag: u8,
    frame: Bytes,
}

impl Message {
    /// What follows tag and length.
    fn body(&self) -> Bytes {
        let mut body = self.frame.clone();
        body.advance(body.len().min(5));
        body
    }
}

struct Login<'a> {
    target: &'a Target,
    stream: TargetStream,
    buffer: BytesMut,
    greeting: Vec<Bytes>,
    greeting_bytes: usize,
}

impl Login<'_> {
    async fn send(&mut self, message: &[u8]) -> Result<(), TargetError> {
        self.stream.write_all(message).await.map_err(stream_error)?;
        self.stream.flush().await.map_err(stream_error)
    }

    /// Sends a message of type `p`: a password, or a step of SASL.
    async fn respond(&mut self, parts: &[&[u8]]) -> Result<(), TargetError> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + 4;
        let mut message = BytesMut::with_capacity(length + 1);
        message.put_u8(b'p');
        message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        for part in parts {
            message.put_slice(part);
        }
        self.send(&message).await
    }

    /// The next message; an ErrorResponse is an error.
    async fn message(&mut self) -> Result<Message, TargetError> {
        let length = loop {
            if let Some(&[tag, a, b, c, d]) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if !(4..MESSAGE_MAX).contains(&length) {
                    return Err(protocol(format!("message {:?} of {length} bytes", char::from(tag))));
                }
                if self.buffer.len() > length {
                    break length + 1;
                }
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(stream_error)? == 0 {
                return Err(stream_error(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        let frame = self.buffer.split_to(length).freeze();
        let tag = frame.first().copied().unwrap_or_default();
        match tag {
            b'E' => Err(self.refused(Message { tag, frame })),
            tag => Ok(Message { tag, frame }),
        }
    }

    /// What an ErrorResponse says, unless it quotes the credential.
    fn refused(&self, message: Message) -> TargetError {
        let quotes = |credential: &SecretString| {
            let credential = credential.expose_secret();
            let public = self.target.user.contains(credential) || self.target.database.contains(credential);
            credential.len() >= CREDENTIAL_SEARCHED_MIN
                && !public
                && memchr::memmem::find(&message.frame, credential.as_bytes()).is_some()
        };
        if self.target.credential.as_ref().is_some_and(quotes) {
            let message = "its message quotes the credential and is withheld".to_owned();
            return TargetError::Refused { sqlstate: None, message, raw: None };
        }
        let (mut sqlstate, mut text) = (None, None);
        let body = message.body();
        for field in body.split(|&byte| byte == 0) {
            match field.split_first() {
                Some((b'C', value)) => sqlstate = Some(value.escape_ascii().to_string()),
                Some((b'M', value)) => {
                    text = Some(match std::str::from_utf8(value) {
                        Ok(value) => value.to_owned(),
                        Err(_) => value.escape_ascii().to_string(),
                    });
                }
                _ => {}
            }
        }
        let text = text.unwrap_or_else(|| "an error without a message".to_owned());
        TargetError::Refused { sqlstate, message: text, raw: Some(message.frame) }
    }

    /// Keeps a message for the client.
    fn keep(&mut self, message: Message) -> Result<(), TargetError> {
        self.greeting_bytes += message.frame.len();
        if self.greeting_bytes > GREETING_MAX {
            return Err(protocol(format!("more than {GREETING_MAX} bytes before ReadyForQuery")));
        }
        self.greeting.push(message.frame);
        Ok(())
    }

    /// The next Authentication… message: its code, and what follows it.
    async fn challenge(&mut self) -> Result<(u32, Bytes), TargetError> {
        loop {
            let message = self.message().await?;
            match message.tag {
                b'R' => {
                    let mut body = message.body();
                    let code = body.try_get_u32().map_err(|_| malformed("Authentication"))?;
                    return Ok((code, body));
                }
                b'N' => self.keep(message)?,
                tag => return Err(unexpected(tag, "Authentication")),
            }
        }
    }

    /// Until AuthenticationOk; returns the minor version that both speak.
    async fn authenticate(&mut self, asked: u16) -> Result<u16, TargetError> {
        let mut minor = asked;
        let (mut code, mut body) = loop {
            let message = self.message().await?;
            match message.tag {
                b'v' if minor == asked => minor = negotiated(message.body(), asked)?,
                b'N' => self.keep(message)?,
                b'R' => {
                    let mut body = message.body();
                    break (body.try_get_u32().map_err(|_| malformed("Authentication"))?, body);
                }
                tag => return Err(unexpected(tag, "Authentication")),
            }
        };
        if code != 0 {
            self.answer(code, body).await?;
            (code, body) = self.challenge().await?;
        }
        match code {
            0 if body.is_empty() => Ok(minor),
            0 => Err(malformed("AuthenticationOk")),
            code => Err(protocol(format!("a second authentication request (type {code})"))),
        }
    }

    /// Answers an authentication request.
    async fn answer(&mut self, code: u32, body: Bytes) -> Result<(), TargetError> {
        let unsupported = match code {
            3 | 5 | 10 => None,
            2 => Some("Kerberos V5"),
            6 => Some("SCM credentials"),
            7 | 8 => Some("GSSAPI"),
            9 => Some("SSPI"),
            _ => Some("an unknown method"),
        };
        if let Some(method) = unsupported {
            let reason = format!("it asks for {method} (type {code}), which the gateway does not speak");
            return Err(TargetError::Authentication { reason });
        }
        let Some(credential) = self.target.credential.clone() else {
            let reason = "it asks for a password, and the connection has no `credential`".to_owned();
            return Err(TargetError::Authentication { reason });
        };
        match code {
            3 => self.clear_text(&credential).await,
            5 => {
                let salt =
                    <[u8; 4]>::try_from(body.as_ref()).map_err(|_| malformed("AuthenticationMD5Password"))?;
                let password = credential.expose_secret().as_bytes();
                let hash = md5_hash(self.target.user.as_bytes(), password, salt);
                self.respond(&[hash.as_bytes(), &[0]]).await
            }
            _ => self.scram(&body, credential).await,
        }
    }

    /// Sends the password itself, which no one on the way may read.
    async fn clear_text(&mut self, credential: &SecretString) -> Result<(), TargetError> {
        let own_machine =
            self.stream.tcp().peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        if matches!(self.stream, TargetStream::Plain(_)) && !own_machine {
            let reason = "it asks for the password in clear, and the stream has no TLS".to_owned();
            return Err(TargetError::Authentication { reason });
        }
        self.respond(&[credential.expose_secret().as_bytes(), &[0]]).await
    }

    /// SCRAM-SHA-256, bound to the server's certificate where there is one. Ends when the server has proved that it
    /// knows the password, too.
    async fn scram(&mut self, mechanisms: &[u8], credential: SecretString) -> Result<(), TargetError> {
        let offers = |name: &str| mechanisms.split(|&byte| byte == 0).any(|offer| offer == name.as_bytes());
        let end_point = match &self.stream {
            TargetStream::Plain(_) => None,
            TargetStream::Tls(stream) => {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                certificates.first().and_then(binding::server_end_point)
            }
        };
        let (mechanism, binding) = match end_point {
            Some(end_point) if offers(SCRAM_PLUS) => {
                (SCRAM_PLUS, ChannelBinding::tls_server_end_point(end_point))
            }
            // Says "I could have": a server that did offer PLUS then knows that someone took it away.
            Some(_) if offers(SCRAM) => (SCRAM, ChannelBinding::unrequested()),
            None if offers(SCRAM) => (SCRAM, ChannelBinding::unsupported()),
            _ => {
                let offered = mechanisms.strip_suffix(b"\0\0").unwrap_or(mechanisms).escape_ascii();
                let reason = format!("of its SASL mechanisms ({offered}), the gateway speaks none");
                return Err(TargetError::Authentication { reason });
            }
        };
        let mut scram = ScramSha256::new(credential.expose_secret().as_bytes(), binding);
        let first = scram.message().to_vec();
        let length = u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.respond(&[mechanism.as_bytes(), &[0], &length, &first]).await?;

        let server_first = self.sasl(11, "AuthenticationSASLContinue").await?;
        // Thousands of hashes, as many as the server says: not on the thread that other sessions are on.
        let hashed = tokio::task::spawn_blocking(move || scram.update(&server_first).map(|()| scram)).await;
        let mut scram = match hashed {
            Ok(Ok(scram)) => scram,
            Ok(Err(error)) => return Err(protocol(format!("SCRAM: {error}"))),
            Err(_) => return Err(protocol("SCRAM was not computed".to_owned())),
        };
        let proof = scram.message().to_vec();
        self.respond(&[&proof]).await?;
        let server_final = self.sasl(12, "AuthenticationSASLFinal").await?;
        scram.finish(&server_final).map_err(|error| protocol(format!("SCRAM: {error}")))
    }

    async fn sasl(&mut self, expected: u32, name: &'static str) -> Result<Bytes, TargetError> {
        match self.challenge().await? {
            (code, body) if code == expected => Ok(body),
            (code, _) => Err(protocol(format!("authentication message {code}, where {name} is expected"))),
        }
    }

    /// From AuthenticationOk to ReadyForQuery.
    async fn until_ready(&mut self) -> Result<BackendKey, TargetError> {
        let mut key = None;
        loop {
            let message = self.message().await?;
            match message.tag {
                b'S' | b'N' => self.keep(message)?,
                b'K' if key.is_none() => key = Some(backend_key(message.body())?),
                b'Z' => {
                    self.keep(message)?;
                    return Ok(key.unwrap_or_default());
                }
                tag => return Err(unexpected(tag, "ReadyForQuery")),
            }
        }
    }
}

/// Reads NegotiateProtocolVersion. The documentation speaks of a minor version, servers send the whole (3 in the upper
/// half); both are taken.
fn negotiated(mut body: Bytes, asked: u16) -> Result<u16, TargetError> {
    let wrong = |_| malformed("NegotiateProtocolVersion");
    let version = body.try_get_u32().map_err(wrong)?;
    let options = body.try_get_u32().map_err(wrong)?;
    let minor = match version.checked_sub(PROTOCOL_3_0).unwrap_or(version).try_into() {
        Ok(minor) if minor <= asked => minor,
        _ => return Err(protocol(format!("protocol version {version:#x}, which nobody asked for"))),
    };
    match options {
        0 if body.is_empty() => Ok(minor),
        // The gateway asks for none.
        options => Err(protocol(format!("{options} unknown protocol options, and none was asked for"))),
    }
}

fn backend_key(mut body: Bytes) -> Result<BackendKey, TargetError> {
    let process_id = body.try_get_u32().map_err(|_| malformed("BackendKeyData"))?;
    match body.len() {
        4..=CANCEL_SECRET_MAX => Ok(BackendKey { process_id, secret: body }),
        _ => Err(malformed("BackendKeyData")),
    }
}

fn protocol(reason: String) -> TargetError {
    TargetError::Protocol { reason }
}

fn malformed(name: &str) -> TargetError {
    protocol(format!("malformed {name}"))
}

fn unexpected(tag: u8, expected: &str) -> TargetError {
    protocol(format!("message {:?}, where {expected} is expected", char::from(tag)))
}
