//! A refusal as MySQL says it: an ERR packet.
//!
//! The client learns the class of a refusal and the session's id as a reference; the reason is in the record alone.
//!
//! | refusal | at login | in the session |
//! | --- | --- | --- |
//! | `NotAuthenticated`, `Discovery` | 1045 (28000) | 1045 (28000), the last |
//! | `NotAllowed` | 1044 (42000) | 1227 (42000) |
//! | `Undecided` | 1105 (HY000) | 1105 (HY000) |
//! | `Protocol` | 1043 (08S01) | 1835 (HY000), the last where the stream is out of step |
//! | `TooLarge` | 1153 (08S01) | 1153 (08S01), the last |
//! | `Unsupported` | 1235 (42000) | 1235 (42000), of unknown commands 1047 (08S01) |
//! | `Expired`, `Revoked` | 1045 (28000) | 3169 (HY000), the last |
//! | `NotRecorded` | 1021 (HY000) where the disk is full, else 1026 (HY000) | the same |
//! | `Busy` | 1040 (08004) | 1226 (42000) |
//! | `Draining` | 1053 (08S01) | 1053 (08S01), the last |

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use verbatim_core::{Refusal, SessionId};

use crate::{answer, frame};

/// What the client is in the middle of.
#[derive(Clone, Copy)]
pub(crate) enum Phase<'a> {
    /// It logs in, as the user it named, from where, for the connection it named.
    Login { user: &'a str, address: IpAddr, wanted: &'a str },
    /// It was let in.
    Ready,
}

/// The fields of an ERR packet.
#[derive(Clone)]
pub(crate) struct ErrorWords {
    fatal: bool,
    code: u16,
    state: &'static str,
    message: Cow<'static, str>,
}

impl ErrorWords {
    pub(crate) fn new(code: u16, state: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { fatal: false, code, state, message: message.into() }
    }

    /// Where the reason can be found.
    pub(crate) fn reference(self, session: SessionId) -> Self {
        Self { message: format!("{} (record {session})", self.message).into(), ..self }
    }

    /// The same, as the session's last words.
    pub(crate) fn into_fatal(self) -> Self {
        Self { fatal: true, ..self }
    }

    /// Whether the session ends with it.
    pub(crate) const fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// The payload of the ERR packet.
    pub(crate) fn payload(&self) -> Bytes {
        answer::err(self.code, self.state, &self.message)
    }

    /// The ERR packet.
    pub(crate) fn packet(&self, sequence: u8) -> Bytes {
        frame::packet(sequence, &self.payload())
    }
}

/// Prints no message: it may name what a client sent.
impl fmt::Debug for ErrorWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorWords({}, fatal {})", self.code, self.fatal)
    }
}

/// The one place where refusals get their words in this protocol.
pub(crate) fn error_words(refusal: &Refusal, phase: Phase<'_>, session: SessionId) -> ErrorWords {
    let login = match phase {
        Phase::Login { user, address, wanted } => Some((user, address, wanted)),
        Phase::Ready => None,
    };
    let words = match (refusal, login) {
        (
            Refusal::NotAuthenticated { .. }
            | Refusal::Discovery
            | Refusal::Expired
            | Refusal::Revoked { .. },
            Some((user, address, _)),
        ) => ErrorWords::new(
            1045,
            "28000",
            format!("Access denied for user '{user}'@'{address}' (using password: YES)"),
        ),
        (Refusal::NotAuthenticated { .. } | Refusal::Discovery, None) => {
            ErrorWords::new(1045, "28000", "The identity of this session is no longer proved").into_fatal()
        }
        (Refusal::NotAllowed { .. }, Some((user, address, wanted))) => ErrorWords::new(
            1044,
            "42000",
            format!("Access denied for user '{user}'@'{address}' to database '{wanted}'"),
        ),
        (Refusal::NotAllowed { .. }, None) => ErrorWords::new(1227, "42000", "Access denied by the gateway"),
        (Refusal::Undecided { .. }, _) => {
            ErrorWords::new(1105, "HY000", "The identity service is unavailable, try again later")
        }
        (Refusal::Protocol { .. }, Some(_)) => ErrorWords::new(1043, "08S01", "Bad handshake"),
        (Refusal::Protocol { .. }, None) => {
            ErrorWords::new(1835, "HY000", "Malformed communication packet.").into_fatal()
        }
        (Refusal::TooLarge { length, limit }, _) => ErrorWords::new(
            1153,
            "08S01",
            format!("Got a packet of {length} bytes, bigger than the gateway's limit of {limit} bytes"),
        )
        .into_fatal(),
        (Refusal::Unsupported { what }, _) => {
            ErrorWords::new(1235, "42000", format!("Not supported through the gateway: {what}"))
        }
        (Refusal::Expired, None) => {
            ErrorWords::new(3169, "HY000", "The session was killed: the access token expired").into_fatal()
        }
        (Refusal::Revoked { .. }, None) => {
            ErrorWords::new(3169, "HY000", "The session was killed: access was revoked").into_fatal()
        }
        (Refusal::NotRecorded { reason }, _) => ErrorWords::new(
            not_recorded(reason),
            "HY000",
            "The gateway cannot record this, so it is not done",
        ),
        (Refusal::Masking { reason, .. }, _) => ErrorWords::new(1227, "42000", format!("Masking: {reason}")),
        (Refusal::Busy { .. }, Some(_)) => ErrorWords::new(1040, "08004", "Too many connections"),
        (Refusal::Busy { reason }, None) => {
            ErrorWords::new(1226, "42000", format!("The gateway is at its limit: {reason}"))
        }
        (Refusal::Draining, _) => ErrorWords::new(1053, "08S01", "Server shutdown in progress").into_fatal(),
    };
    ErrorWords { fatal: words.fatal || login.is_some(), ..words }.reference(session)
}

/// `ER_DISK_FULL` where that is why, else `ER_ERROR_ON_WRITE`.
fn not_recorded(reason: &str) -> u16 {
    let full = ["full", "No space", "no space", "room", "reserve", "quota"];
    if full.iter().any(|word| reason.contains(word)) { 1021 } else { 1026 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(refusal: &Refusal, phase: Phase<'_>) -> (bool, u16, String) {
        let words = error_words(refusal, phase, SessionId::from_bytes([0; 16]));
        (words.is_fatal(), words.code, words.message.into_owned())
    }

    #[test]
    fn a_login_is_refused_in_the_servers_words_and_without_the_reason() {
        let login = Phase::Login { user: "ada", address: [10, 0, 0, 1].into(), wanted: "customer-db" };
        let unproved = Refusal::NotAuthenticated { code: "signature", reason: "secret reason".into() };
        let (fatal, code, message) = words(&unproved, login);
        assert!(fatal && code == 1045 && !message.contains("secret"), "{message}");
        assert!(
            message.starts_with("Access denied for user 'ada'@'10.0.0.1' (using password: YES)"),
            "{message}"
        );
        let denied = Refusal::NotAllowed { code: "no_group", reason: "secret reason".into() };
        let (fatal, code, message) = words(&denied, login);
        assert!(fatal && code == 1044 && !message.contains("secret"), "{message}");
        assert_eq!(words(&Refusal::Undecided { code: "keys", reason: "secret".into() }, login).1, 1105);
        assert_eq!(words(&Refusal::Busy { reason: "sessions".into() }, login).1, 1040);
    }

    #[test]
    fn a_full_disk_has_the_servers_code_and_leaves_the_session_open() {
        let full = Refusal::NotRecorded { reason: "No space left on device".into() };
        let (fatal, code, _) = words(&full, Phase::Ready);
        assert!(!fatal && code == 1021);
        let failed = Refusal::NotRecorded { reason: "fsync failed".into() };
        assert_eq!(words(&failed, Phase::Ready).1, 1026);
        assert!(words(&Refusal::Expired, Phase::Ready).0);
    }
}
