//! The gateway's own login at a target: `memcached://[user@]host[:port][?sslmode=…]`.

use std::io;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use verbatim_core::BoxFuture;
use verbatim_wire::{Dial, InvalidTarget, TargetSettings, TargetStream, TargetUrl};

use crate::results::{FENCE, FENCE_ANSWER};

/// Where the URL names no port.
const PORT: u16 = 11_211;
/// How long an answer to the login may be.
const ANSWER_MAX: usize = 512;

/// A memcached server, and how the gateway logs in there.
pub struct Target {
    dial: Dial,
    /// User and password of a server that was started with `-Y`.
    login: Option<(String, SecretString)>,
    connect_timeout: Duration,
}

/// Why there is no stream to the target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It cannot be reached, or the stream failed.
    #[error("the target cannot be reached: {0}")]
    Stream(#[from] io::Error),
    /// The login took too long.
    #[error("the target did not complete the login within {0:?}")]
    Timeout(Duration),
    /// It answered something else.
    #[error("the target answered {answer:?} to {asked}")]
    Refused {
        /// What it was asked.
        asked: &'static str,
        /// Its answer, which never quotes what was sent.
        answer: String,
    },
}

impl Target {
    /// Reads what the configuration says.
    ///
    /// # Errors
    /// The URL has a mistake, or there is a user without a credential or the other way round.
    pub(crate) fn parse(settings: TargetSettings<'_>) -> Result<Self, InvalidTarget> {
        let other = |reason: &str| InvalidTarget::Other { reason: reason.to_owned() };
        let url = TargetUrl::parse(settings.url, &["memcached"])?;
        if url.path.is_some() {
            return Err(other("a memcached server has no databases: the URL ends with the port"));
        }
        let login = match (url.user.clone(), settings.credential) {
            (None, None) => None,
            (Some(user), _) if user.contains(char::is_whitespace) => {
                return Err(other("a user of memcached has no spaces"));
            }
            (Some(user), Some(password)) => Some((user, password)),
            _ => return Err(other("a user and a `credential` belong together")),
        };
        let dial = Dial::new(&url, PORT, &settings.tls, &[])?;
        Ok(Self { dial, login, connect_timeout: settings.connect_timeout })
    }

    /// Opens a stream, logs in, and makes sure that the target knows the command that the relay relies on.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub(crate) async fn connect(&self) -> Result<TargetStream, TargetError> {
        let login = async {
            let mut stream = self.dial.connect().await?;
            if let Some((user, password)) = &self.login {
                let login = format!("{user} {}", password.expose_secret());
                let command = format!("set auth 0 0 {}\r\n{login}\r\n", login.len());
                ask(&mut stream, "the login", command.as_bytes(), b"STORED").await?;
            }
            ask(&mut stream, "mn", FENCE, FENCE_ANSWER).await?;
            Ok(stream)
        };
        let timeout = self.connect_timeout;
        tokio::time::timeout(timeout, login).await.map_err(|_| TargetError::Timeout(timeout))?
    }
}

/// Sends a command, and takes one answer alone.
async fn ask(
    stream: &mut TargetStream,
    asked: &'static str,
    command: &[u8],
    expected: &[u8],
) -> Result<(), TargetError> {
    stream.write_all(command).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") && answer.len() < ANSWER_MAX {
        answer.push(stream.read_u8().await?);
    }
    match answer.trim_ascii_end() {
        answer if answer == expected => Ok(()),
        other => Err(TargetError::Refused { asked, answer: other.escape_ascii().to_string() }),
    }
}

impl verbatim_wire::Target for Target {
    fn display(&self) -> String {
        self.dial.to_string()
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            let reached = self.connect().await.map_err(|error| error.to_string())?;
            drop(reached);
            Ok(if self.login.is_some() { "logged in" } else { "it answers" }.to_owned())
        })
    }
}
