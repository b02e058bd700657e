//! The gateway's own login at a target: a stream that is ready for queries, under the credential of the connection.
//!
//! ```text
//! TCP ── SSLRequest, TLS ── StartupMessage ── (NegotiateProtocolVersion) ── authentication ── … ReadyForQuery
//!        as `sslmode` says  the client's        3.2 → 3.0                    SCRAM-SHA-256[-PLUS], md5, password
//!                           own parameters
//! ```
//!
//! Limits: a message of the login is at most 64 KiB, the greeting 1 MiB, SCRAM 100 000 iterations, and the whole login
//! [`Target::connect_timeout`]. Refused: TLS that is required and not offered (nothing is sent then), a password in
//! clear to another machine without TLS, a second challenge, `AuthenticationOk` before the server proved itself in
//! SCRAM, GSS, SSPI, Kerberos and SASL mechanisms other than SCRAM. The credential is in no error and no `Debug`.
//!
//! Sources: PostgreSQL 18 documentation, chapter 54 (sections 54.2.1, 54.2.10, 54.3); RFC 5802, RFC 7677 (SCRAM), RFC
//! 5929 section 4 (`tls-server-end-point`).

mod binding;
mod login;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use verbatim_core::BoxFuture;
use verbatim_wire::{HostPort, InvalidTarget, SslMode, TargetStream, TargetTls, TargetUrl, connect_tcp};

/// The protocol's name in TLS (ALPN), at the target and at the gateway's listeners.
pub(crate) const ALPN: &[u8] = b"postgresql";
/// What a target's URL begins with.
const SCHEMES: [&str; 2] = ["postgres", "postgresql"];
/// Where the URL names no port.
const PORT: u16 = 5432;

/// The code of an SSLRequest, and of a CancelRequest.
const SSL_REQUEST: u32 = 80_877_103;
const CANCEL_REQUEST: u32 = 80_877_102;
/// How long a cancel key's secret may be (protocol 3.2).
const CANCEL_SECRET_MAX: usize = 256;

/// How the *clients* of a connection log in at the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LoginMethod {
    /// The token as the password.
    #[default]
    Password,
    /// SASL OAUTHBEARER is offered too.
    OauthBearer,
}

/// What the configuration says of a target beside its URL.
#[derive(Debug, Clone)]
pub struct TargetSettings {
    /// The password; none is sent without one.
    pub credential: Option<SecretString>,
    /// How the clients log in.
    pub login: LoginMethod,
    /// Certificates.
    pub tls: TargetTls,
    /// How long a login may take, from the first packet to ReadyForQuery.
    pub connect_timeout: Duration,
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            credential: None,
            login: LoginMethod::Password,
            tls: TargetTls::default(),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// A PostgreSQL server, and how the gateway logs in there. Made by [`Target::parse`].
pub struct Target {
    /// A host name or an address (an IPv6 one without brackets).
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The gateway's user there.
    pub user: String,
    /// The database of every session.
    pub database: String,
    /// How the stream is protected.
    pub sslmode: SslMode,
    /// The password; none is sent without one.
    pub credential: Option<SecretString>,
    /// How the clients log in.
    pub login: LoginMethod,
    /// How long a login may take, from the first packet to ReadyForQuery.
    pub connect_timeout: Duration,
    /// There when `sslmode` wants TLS.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}@{}, {:?})", self.user, self.display(), self.sslmode)
    }
}

/// A stream that is ready for queries.
#[derive(Debug)]
pub struct Connected {
    /// The stream.
    pub stream: TargetStream,
    /// Every message after AuthenticationOk up to and with ReadyForQuery, as it came, without BackendKeyData.
    pub greeting: Vec<Bytes>,
    /// What cancels this session at the target.
    pub key: BackendKey,
    /// The minor protocol version that target and gateway settled on: at most the one asked for.
    pub protocol_minor: u16,
    /// What was read beyond ReadyForQuery.
    pub leftover: BytesMut,
}

/// What cancels a session at the target (BackendKeyData).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BackendKey {
    /// The server's process id.
    pub process_id: u32,
    /// 4 bytes, in protocol 3.2 up to 256; empty where the server gave none.
    pub secret: Bytes,
}

impl fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackendKey({}, {} bytes)", self.process_id, self.secret.len())
    }
}

/// Why there is no stream to the target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No TCP stream.
    #[error("the target cannot be reached: {source}")]
    Unreachable {
        /// What the system said.
        source: io::Error,
    },
    /// The stream ended or failed during the login.
    #[error("the stream to the target failed during the login: {source}")]
    Stream {
        /// What the system or TLS said.
        source: io::Error,
    },
    /// The login took too long.
    #[error("the target did not complete the login within {limit:?}")]
    Timeout {
        /// [`Target::connect_timeout`].
        limit: Duration,
    },
    /// `sslmode` wants TLS, and the target answered `N`.
    #[error("the target offers no TLS, and sslmode requires it")]
    NoTls,
    /// The TLS handshake failed; an untrusted certificate, for the most part.
    #[error("no TLS with the target: {source}")]
    Tls {
        /// What rustls said.
        source: io::Error,
    },
    /// The target wants what the gateway has not or does not do.
    #[error("the gateway cannot log in at the target: {reason}")]
    Authentication {
        /// What is wanted.
        reason: String,
    },
    /// The target broke the protocol.
    #[error("the target broke the protocol: {reason}")]
    Protocol {
        /// What was read and what was expected.
        reason: String,
    },
    /// The target answered with an ErrorResponse.
    #[error("the target refused the login ({}): {message}", sqlstate.as_deref().unwrap_or("no SQLSTATE"))]
    Refused {
        /// Five characters; none where the server left it out.
        sqlstate: Option<String>,
        /// The primary message.
        message: String,
        /// The whole ErrorResponse, which a client can be given; none where it quoted the credential.
        raw: Option<Bytes>,
    },
}

impl Target {
    /// Reads `postgres://user@host[:port][/database][?sslmode=…]`. The database defaults to the user's name, the port to
    /// 5432, `sslmode` to `verify-full`, or to `disable` where the host is loopback.
    ///
    /// # Errors
    /// The URL has a mistake, or the TLS settings do not fit; no text of the URL's password is in the error.
    pub fn parse(url: &str, settings: TargetSettings) -> Result<Self, InvalidTarget> {
        let parts = TargetUrl::parse(url, &SCHEMES)?;
        let sslmode = parts.sslmode_or_default();
        let user = parts.user.ok_or(InvalidTarget::User)?;
        let TargetSettings { credential, login, tls, connect_timeout } = settings;
        if credential.as_ref().is_some_and(|credential| credential.expose_secret().contains('\0')) {
            return Err(InvalidTarget::CredentialNul);
        }
        let tls = match sslmode {
            SslMode::Disable => None,
            _ => {
                let name = ServerName::try_from(parts.host.clone())
                    .map_err(|_| InvalidTarget::Host { host: parts.host.clone() })?;
                Some((tls.client_config(sslmode, &[ALPN])?, name))
            }
        };
        Ok(Self {
            host: parts.host,
            port: parts.port.unwrap_or(PORT),
            database: parts.path.unwrap_or_else(|| user.clone()),
            user,
            sslmode,
            credential,
            login,
            connect_timeout,
            tls,
        })
    }

    /// `host:port/database`, as the record names the target.
    pub fn display(&self) -> String {
        format!("{}/{}", HostPort(&self.host, self.port), self.database)
    }

    /// Opens a stream and logs in, with the startup parameters of the client; `user` and `database` are replaced,
    /// `replication` and `_pq_.…` left out. `protocol_minor` is the client's: 3.2 is asked for from 2 up, else 3.0.
    ///
    /// # Cancel safety
    /// Dropping the future closes the stream.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub async fn connect(
        &self,
        parameters: &[(Bytes, Bytes)],
        protocol_minor: u16,
    ) -> Result<Connected, TargetError> {
        let login = async {
            let stream = self.open().await?;
            login::log_in(self, stream, parameters, protocol_minor).await
        };
        self.in_time(login).await
    }

    /// Sends a CancelRequest on a stream of its own and waits until the target closed it, which it does once the
    /// request is delivered. Whether it cancelled anything is not known. Without a secret there is nothing to send.
    ///
    /// # Errors
    /// The request could not be sent.
    pub async fn cancel(&self, key: &BackendKey) -> Result<(), TargetError> {
        let length = match u32::try_from(key.secret.len()) {
            Ok(secret @ 1..) if key.secret.len() <= CANCEL_SECRET_MAX => 12 + secret,
            _ => return Ok(()),
        };
        let mut request = BytesMut::new();
        request.put_u32(length);
        request.put_u32(CANCEL_REQUEST);
        request.put_u32(key.process_id);
        request.put_slice(&key.secret);
        let send = async {
            let mut stream = self.open().await?;
            stream.write_all(&request).await.map_err(stream_error)?;
            stream.flush().await.map_err(stream_error)?;
            // The answer is the end of the stream, by a reset too.
            let mut nothing = [0_u8; 16];
            while let Ok(1..) = stream.read(&mut nothing).await {}
            Ok(())
        };
        self.in_time(send).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, TargetError>>) -> Result<T, TargetError> {
        match tokio::time::timeout(self.connect_timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(TargetError::Timeout { limit: self.connect_timeout }),
        }
    }

    /// A TCP stream, with TLS where `sslmode` wants it.
    async fn open(&self) -> Result<TargetStream, TargetError> {
        let unreachable = |source| TargetError::Unreachable { source };
        let mut tcp = connect_tcp(&self.host, self.port).await.map_err(unreachable)?;
        let Some((config, name)) = &self.tls else { return Ok(TargetStream::Plain(tcp)) };

        let mut request = [0_u8; 8];
        let (length, code) = request.split_at_mut(4);
        length.copy_from_slice(&8_u32.to_be_bytes());
        code.copy_from_slice(&SSL_REQUEST.to_be_bytes());
        tcp.write_all(&request).await.map_err(stream_error)?;
        // One byte and no more: whatever follows it must be TLS (CVE-2021-23222).
        match tcp.read_u8().await.map_err(stream_error)? {
            b'S' => {}
            b'N' => return Err(TargetError::NoTls),
            // An ErrorResponse in clear may be anyone's, so it is not shown.
            other => {
                let reason = format!("it answered SSLRequest with byte {other:#04x}");
                return Err(TargetError::Protocol { reason });
            }
        }
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let tls = connector.connect(name.clone(), tcp).await.map_err(|source| TargetError::Tls { source })?;
        Ok(TargetStream::Tls(Box::new(tls)))
    }
}

fn stream_error(source: io::Error) -> TargetError {
    TargetError::Stream { source }
}

impl verbatim_wire::Target for Target {
    fn display(&self) -> String {
        self.display()
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            let reached = self.connect(&[], 0).await;
            reached.map(|_| "logged in".to_owned()).map_err(|error| error.to_string())
        })
    }
}

#[cfg(test)]
mod tests;
