//! The gateway's own login at a target: a stream that takes commands, under the credential of the connection.
//!
//! ```text
//! TCP ── greeting ── SSLRequest, TLS ── HandshakeResponse41 ── (AuthSwitchRequest, AuthMoreData) ── OK
//!                    as `sslmode` says   the client's flags,    mysql_native_password,
//!                                        attributes             caching_sha2_password, client_ed25519
//! ```
//!
//! The client's capability flags are asked for, so that what either side sends is of the form that the other expects, and can
//! be passed on as it is.
//!
//! Limits: a packet of the login is at most 64 KiB, the exchange 16 packets, and the whole login
//! `connect_timeout`. Refused: TLS that is required and not offered (nothing is sent then), plugins that want the
//! password in clear, a second AuthSwitchRequest. Without TLS, `caching_sha2_password` sends the password encrypted with the
//! key that the server shows; who stands between could show another, which is why that is done only where the
//! configuration says `sslmode=disable`, or the target is loopback. The credential is in no error and no `Debug`.
//!
//! Sources: MySQL 9 source documentation, "Connection Phase", "Caching_sha2 authentication"; MariaDB knowledge base,
//! "Connecting", "authentication plugin ed25519".

mod auth;
mod login;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use verbatim_core::BoxFuture;
use verbatim_wire::{InvalidTarget, Shared, SslMode, Target, TargetSettings, TargetStream, TargetUrl};

use crate::answer::ErrPacket;
use crate::capability::{COMMON, CONNECT_WITH_DB};
use crate::frame::readable;
use crate::greeting::Greeting;
use crate::startup::packet::{Attributes, Fixed, Login};
pub(crate) use login::Seat;

const PORT: u16 = 3306;
const SCHEMES: [&str; 2] = ["mysql", "mariadb"];
/// How long a target that could not be asked for its greeting is left alone.
const RETRY: Duration = Duration::from_secs(5);
/// `utf8mb4_general_ci`, for what the gateway itself says to a target.
const CHARSET: u8 = 45;
/// The longest packet that the gateway itself takes from a target.
const PACKET_MAX: u32 = 1 << 24;

/// A MySQL or MariaDB server, and how the gateway logs in there.
pub struct MysqlTarget {
    host: String,
    port: u16,
    user: String,
    /// The schema of every session, but where a listener's clients choose.
    schema: Option<String>,
    sslmode: SslMode,
    credential: Option<SecretString>,
    connect_timeout: Duration,
    /// There when `sslmode` wants TLS.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    learned: Mutex<Learned>,
    /// One asks at a time.
    asking: tokio::sync::Mutex<()>,
}

/// What is known of a target before a client's login.
#[derive(Default)]
struct Learned {
    greeting: Option<Greeting>,
    failed_at: Option<Instant>,
}

impl fmt::Debug for MysqlTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MysqlTarget({}@{}, {:?})", self.user, self.display(), self.sslmode)
    }
}

/// What the gateway asks a target for on behalf of a client.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) fixed: Fixed,
    pub(crate) schema: Option<Bytes>,
    pub(crate) attributes: Attributes,
}

impl Ask {
    /// For what the gateway itself has to say.
    fn own() -> Self {
        let fixed =
            Fixed { capabilities: COMMON & !CONNECT_WITH_DB, packet_max: PACKET_MAX, charset: CHARSET };
        let attributes = vec![(Bytes::from_static(b"program_name"), Bytes::from_static(b"verbatim"))];
        Self { fixed, schema: None, attributes }
    }
}

/// A stream that takes commands.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Shared<TargetStream>,
    /// The target's name for the session.
    pub(crate) thread_id: u32,
    /// What the target was asked for, of what it offered.
    pub(crate) capabilities: u64,
    /// The payload of its OK.
    pub(crate) ok: Bytes,
    /// What was read beyond it.
    pub(crate) leftover: BytesMut,
    /// What another login on this stream begins with.
    pub(crate) seat: Seat,
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
        /// The limit.
        limit: Duration,
    },
    /// `sslmode` wants TLS, and the target's greeting does not offer it.
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
    /// The target answered with an ERR packet.
    #[error("the target refused the login ({code}): {message}")]
    Refused {
        /// Its number.
        code: u16,
        /// Five characters; none where the server left it out.
        state: Option<String>,
        /// Its message; empty where it quoted the credential.
        message: String,
    },
    /// The target has not what its greeting promised the client.
    #[error("the target's capabilities changed since the client was greeted")]
    Changed,
}

impl MysqlTarget {
    /// Reads `mysql://user@host[:port][/schema][?sslmode=…]`. The port defaults to 3306, `sslmode` to `verify-full`, or to
    /// `disable` where the host is loopback.
    ///
    /// # Errors
    /// The URL has a mistake, or the TLS settings do not fit; no text of a password is in the error.
    pub fn parse(settings: TargetSettings<'_>) -> Result<Self, InvalidTarget> {
        let url = TargetUrl::parse(settings.url, &SCHEMES)?;
        let sslmode = url.sslmode_or_default();
        let TargetSettings { credential, tls, connect_timeout, .. } = settings;
        if credential.as_ref().is_some_and(|credential| credential.expose_secret().contains('\0')) {
            return Err(InvalidTarget::CredentialNul);
        }
        let tls = match sslmode {
            SslMode::Disable => None,
            _ => {
                let name = ServerName::try_from(url.host.clone())
                    .map_err(|_| InvalidTarget::Host { host: url.host.clone() })?;
                Some((tls.client_config(sslmode, &[])?, name))
            }
        };
        Ok(Self {
            user: url.user.ok_or(InvalidTarget::User)?,
            host: url.host,
            port: url.port.unwrap_or(PORT),
            schema: url.path,
            sslmode,
            credential,
            connect_timeout,
            tls,
            learned: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        })
    }

    /// The schema of a session: the client's where it may choose one, else the target's.
    pub(crate) fn schema(&self, chosen: Option<Bytes>) -> Option<Bytes> {
        chosen.or_else(|| self.schema.as_ref().map(|schema| Bytes::copy_from_slice(schema.as_bytes())))
    }

    /// What the target greets with, as far as it is known by now.
    pub(crate) fn greeting(&self) -> Option<Greeting> {
        self.learned.lock().greeting.clone()
    }

    /// Asks the target for its greeting, if it is not known yet and there was no trying a moment ago. The target is
    /// logged in to and out of: a stream that is given up before counts against the gateway's host there.
    ///
    /// # Cancel safety
    /// It can be dropped; the target then sees a stream that was given up.
    pub(crate) async fn learn(&self) {
        let _one = self.asking.lock().await;
        {
            let learned = self.learned.lock();
            let lately = learned.failed_at.is_some_and(|failed| failed.elapsed() < RETRY);
            if learned.greeting.is_some() || lately {
                return;
            }
        }
        match self.connect(&Ask::own()).await {
            Ok(connected) => login::quit(&connected.stream).await,
            Err(error) => {
                tracing::debug!(target = %self.display(), %error, "the target's greeting is not known");
                let mut learned = self.learned.lock();
                if learned.greeting.is_none() {
                    learned.failed_at = Some(Instant::now());
                }
            }
        }
    }

    fn note(&self, greeting: &Greeting) {
        let mut learned = self.learned.lock();
        learned.failed_at = None;
        if learned.greeting.as_ref() != Some(greeting) {
            learned.greeting = Some(greeting.clone());
        }
    }

    /// Opens a stream and logs in.
    ///
    /// # Cancel safety
    /// Dropping the future closes the stream.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub(crate) async fn connect(&self, ask: &Ask) -> Result<Connected, TargetError> {
        self.in_time(login::log_in(self, ask)).await
    }

    /// Ends the statement that runs in a session of the target, or the session, by a KILL on a stream of its own. An ERR
    /// of the target is an answer.
    ///
    /// # Errors
    /// It could not be asked.
    pub(crate) async fn kill(&self, thread_id: u32, query: bool) -> Result<Option<ErrPacket>, TargetError> {
        let word = if query { "QUERY" } else { "CONNECTION" };
        self.in_time(async {
            let connected = login::log_in(self, &Ask::own()).await?;
            let answer = login::ask(connected, format!("KILL {word} {thread_id}").as_bytes()).await?;
            Ok((answer.first() == Some(&crate::answer::ERR)).then(|| ErrPacket::read(&answer)))
        })
        .await
    }

    /// Logs in again on a stream that has a session; nothing else may be on its way. The payload of the OK, and what the
    /// next login begins with.
    ///
    /// # Errors
    /// See [`TargetError`]; the stream is of no more use then.
    pub(crate) async fn change_user(
        &self,
        stream: &Shared<TargetStream>,
        seat: Seat,
        login: &Login,
        schema: Option<Bytes>,
    ) -> Result<(Bytes, Seat), TargetError> {
        self.in_time(login::change_user(self, stream, seat, login, schema)).await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, TargetError>>) -> Result<T, TargetError> {
        match tokio::time::timeout(self.connect_timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(TargetError::Timeout { limit: self.connect_timeout }),
        }
    }
}

impl Target for MysqlTarget {
    fn display(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match &self.schema {
            Some(schema) => format!("{host}:{}/{schema}", self.port),
            None => format!("{host}:{}", self.port),
        }
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async {
            let mut ask = Ask::own();
            ask.schema = self.schema(None);
            if ask.schema.is_some() {
                ask.fixed.capabilities |= CONNECT_WITH_DB;
            }
            let connected = self.connect(&ask).await.map_err(|error| error.to_string())?;
            login::quit(&connected.stream).await;
            let version = self.greeting().map(|greeting| readable(&greeting.version)).unwrap_or_default();
            Ok(format!("{version}, as {}", self.user))
        })
    }
}

fn stream_error(source: io::Error) -> TargetError {
    TargetError::Stream { source }
}

#[cfg(test)]
mod tests;
