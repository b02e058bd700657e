//! The gateway's own login at a target: a stream that is ready for commands, under the credential of the connection.
//!
//! `redis://[user@]host[:port][/database]` is in clear, `rediss://` with TLS, whose `sslmode` is `verify-full` unless the URL
//! says `require` or `verify-ca`. With a credential the gateway sends `AUTH [user] credential`, with a database
//! `SELECT database`; after a client's RESET it sends both again.
//!
//! Limits: an answer of the login is at most 16 KiB, and the whole login takes at most `connect_timeout`.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use verbatim_core::BoxFuture;
use verbatim_wire::{
    HostPort, InvalidTarget, SslMode, Target, TargetSettings, TargetStream, TargetUrl, connect_tcp,
};

use crate::operation::{Allowed, request};
use crate::results::walk::{Event, Walk};

/// The key of `[[connection]]` that names commands which are refused otherwise.
pub(crate) const ALLOW_COMMANDS: &str = "allow_commands";
const PORT: u16 = 6379;
/// How much the answers to the login may measure.
const ANSWER_MAX: usize = 16 << 10;

/// A Redis server, and how the gateway logs in there.
pub(crate) struct RedisTarget {
    host: String,
    port: u16,
    user: Option<String>,
    /// The database of every session at its beginning.
    database: u32,
    credential: Option<SecretString>,
    /// There where TLS is.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    connect_timeout: Duration,
    pub(crate) allowed: Allowed,
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisTarget({}, TLS: {})", self.display(), self.tls.is_some())
    }
}

/// Why there is no stream to the target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("the target cannot be reached: {source}")]
    Unreachable { source: io::Error },
    #[error("no TLS with the target: {source}")]
    Tls { source: io::Error },
    #[error("the stream to the target failed during the login: {source}")]
    Stream { source: io::Error },
    #[error("the target did not complete the login within {limit:?}")]
    Timeout { limit: Duration },
    #[error("the target broke the protocol: {reason}")]
    Protocol { reason: String },
    /// No text of the credential is in it: the server quotes none.
    #[error("the target refused {command}: {message}")]
    Refused { command: &'static str, message: String },
}

impl RedisTarget {
    pub(crate) fn read(settings: TargetSettings<'_>) -> Result<Self, InvalidTarget> {
        let url = TargetUrl::parse(settings.url, &["redis", "rediss"])?;
        let wrong = |reason: &str| InvalidTarget::Other { reason: reason.to_owned() };
        let sslmode = match (url.scheme.as_str(), url.sslmode) {
            ("rediss", None) => SslMode::VerifyFull,
            ("rediss", Some(SslMode::Disable)) => {
                return Err(wrong("rediss:// is TLS, and sslmode=disable is none: write redis://"));
            }
            ("rediss", Some(mode)) => mode,
            (_, None | Some(SslMode::Disable)) => SslMode::Disable,
            _ => return Err(wrong("redis:// is without TLS: write rediss://")),
        };
        let database = match url.path.as_deref() {
            None => 0,
            Some(path) => {
                path.parse().map_err(|_| wrong("a database of Redis is a number: redis://host/0"))?
            }
        };
        if url.user.is_some() && settings.credential.is_none() {
            return Err(wrong("a user of Redis logs in with a credential: set `credential`"));
        }
        let tls = match sslmode {
            SslMode::Disable => None,
            mode => {
                let name = ServerName::try_from(url.host.clone())
                    .map_err(|_| InvalidTarget::Host { host: url.host.clone() })?;
                Some((settings.tls.client_config(mode, &[])?, name))
            }
        };
        let allowed = settings.options.list(ALLOW_COMMANDS).unwrap_or_default();
        let allowed = Allowed::read(&allowed).unwrap_or_else(|mistake| {
            settings.options.mistake(ALLOW_COMMANDS, mistake);
            Allowed::default()
        });
        Ok(Self {
            host: url.host,
            port: url.port.unwrap_or(PORT),
            user: url.user,
            database,
            credential: settings.credential,
            tls,
            connect_timeout: settings.connect_timeout,
            allowed,
        })
    }

    /// The commands of the login, in order, by name.
    pub(crate) fn login(&self) -> Vec<(&'static str, Bytes)> {
        let mut commands = Vec::new();
        if let Some(credential) = &self.credential {
            let credential = credential.expose_secret().as_bytes();
            commands.push((
                "AUTH",
                match &self.user {
                    None => request(&[b"AUTH", credential]),
                    Some(user) => request(&[b"AUTH", user.as_bytes(), credential]),
                },
            ));
        }
        if self.database != 0 {
            commands.push(("SELECT", request(&[b"SELECT", self.database.to_string().as_bytes()])));
        }
        commands
    }

    /// A stream that is logged in.
    ///
    /// # Cancel safety
    /// Dropping the future closes the stream.
    pub(crate) async fn connect(&self) -> Result<TargetStream, TargetError> {
        self.in_time(async {
            let mut stream = self.open().await?;
            for (command, request) in self.login() {
                let answer = ask(&mut stream, &request).await?;
                if let Some(message) = answer.error() {
                    return Err(TargetError::Refused { command, message });
                }
            }
            Ok(stream)
        })
        .await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, TargetError>>) -> Result<T, TargetError> {
        match tokio::time::timeout(self.connect_timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(TargetError::Timeout { limit: self.connect_timeout }),
        }
    }

    async fn open(&self) -> Result<TargetStream, TargetError> {
        let tcp =
            connect_tcp(&self.host, self.port).await.map_err(|source| TargetError::Unreachable { source })?;
        let Some((config, name)) = &self.tls else { return Ok(TargetStream::Plain(tcp)) };
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let tls = connector.connect(name.clone(), tcp).await.map_err(|source| TargetError::Tls { source })?;
        Ok(TargetStream::Tls(Box::new(tls)))
    }

    /// Logs in, and asks for the server's version.
    async fn version(&self) -> Result<String, TargetError> {
        let mut stream = self.connect().await?;
        let answer = self.in_time(ask(&mut stream, &request(&[b"HELLO"]))).await?;
        // Older servers do not know HELLO, and are there all the same.
        Ok(answer.after("version").map_or_else(|| "Redis".to_owned(), |version| format!("Redis {version}")))
    }
}

impl Target for RedisTarget {
    fn display(&self) -> String {
        match self.database {
            0 => HostPort(&self.host, self.port).to_string(),
            database => format!("{}/{database}", HostPort(&self.host, self.port)),
        }
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { self.version().await.map_err(|error| error.to_string()) })
    }
}

/// An answer of the target to the gateway, whole.
struct Answer(BytesMut);

impl Answer {
    fn error(&self) -> Option<String> {
        let text = self.0.strip_prefix(b"-")?.trim_ascii_end();
        Some(text.escape_ascii().to_string())
    }

    /// The line two behind that of a word: the blob that follows it.
    fn after(&self, word: &str) -> Option<String> {
        let mut lines = self.0.as_ref().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        lines.find(|line| *line == word.as_bytes())?;
        let value = lines.nth(1)?;
        Some(value.escape_ascii().to_string())
    }
}

/// Sends a command and reads its answer.
async fn ask(stream: &mut TargetStream, request: &[u8]) -> Result<Answer, TargetError> {
    let failed = |source| TargetError::Stream { source };
    stream.write_all(request).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut walk = Walk::default();
    let mut answer = BytesMut::new();
    let mut walked = 0;
    loop {
        let step = walk.advance(answer.get(walked..).unwrap_or_default());
        let (used, event) = step.map_err(|error| TargetError::Protocol { reason: error.to_string() })?;
        walked += used;
        match event {
            Event::End if walked == answer.len() => return Ok(Answer(answer)),
            Event::End => {
                return Err(TargetError::Protocol { reason: "it says more than was asked".to_owned() });
            }
            Event::Head(..) | Event::First => {}
            Event::More if answer.len() >= ANSWER_MAX => {
                return Err(TargetError::Protocol { reason: "a long answer to the login".to_owned() });
            }
            Event::More => {
                let mut piece = (&mut *stream).take((ANSWER_MAX - answer.len()) as u64);
                if piece.read_buf(&mut answer).await.map_err(failed)? == 0 {
                    return Err(failed(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use verbatim_wire::TargetTls;

    use super::*;

    fn read(url: &str, credential: bool) -> Result<RedisTarget, InvalidTarget> {
        RedisTarget::read(TargetSettings {
            kind: "redis",
            url,
            credential: credential.then(|| "s3cret".to_owned().into()),
            tls: TargetTls::default(),
            connect_timeout: Duration::from_secs(1),
            options: &(),
        })
    }

    #[test]
    fn a_url_names_host_port_user_and_database() {
        let target = read("redis://app@cache.internal/2", true).unwrap();
        assert_eq!(target.display(), "cache.internal:6379/2");
        let login: Vec<_> = target.login().into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(
            login,
            ["*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$6\r\ns3cret\r\n", "*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n"]
        );
        assert!(!format!("{target:?}").contains("s3cret"));
        let target = read("redis://[::1]:7000", false).unwrap();
        assert_eq!(target.display(), "[::1]:7000");
        assert!(target.login().is_empty() && target.tls.is_none());
        assert!(read("rediss://cache.internal", true).unwrap().tls.is_some());
    }

    #[test]
    fn a_url_that_says_two_things_is_a_mistake() {
        for url in [
            "redis://h?sslmode=require",
            "rediss://h?sslmode=disable",
            "redis://h/zero",
            "redis://h/-1",
            "redis://user:s3cret@h",
            "postgres://h",
        ] {
            let error = read(url, true).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        assert!(read("redis://user@h", false).is_err());
    }
}
