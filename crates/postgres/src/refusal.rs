//! A refusal as PostgreSQL says it: an ErrorResponse.
//!
//! The client learns the class of a refusal and the session's id as a reference; the reason is in the record alone.
//!
//! | refusal | at login | in the session |
//! | --- | --- | --- |
//! | `NotAuthenticated`, `Discovery` | FATAL 28P01 by password, 28000 by OAUTHBEARER | FATAL 28000 |
//! | `NotAllowed` | FATAL 42501 | ERROR 42501 |
//! | `Undecided` | FATAL 57P03 | ERROR 57P03 |
//! | `Protocol` | FATAL 08P01 | FATAL 08P01 |
//! | `TooLarge` | FATAL 54000 | FATAL 54000 |
//! | `Unsupported` | FATAL 0A000 | ERROR 0A000 |
//! | `Expired`, `Revoked` | FATAL 57P01 | FATAL 57P01 |
//! | `NotRecorded` | FATAL 53100 where the disk is full, else 58030 | ERROR, the same |
//! | `Busy` | FATAL 53300 | ERROR 53400 |
//! | `Draining` | FATAL 57P03 | FATAL 57P01 |

use std::borrow::Cow;
use std::fmt;

use bytes::{BufMut, Bytes};
use verbatim_core::{Refusal, SessionId};

use crate::frame::{self, target};

/// What the client is in the middle of.
#[derive(Clone, Copy)]
pub(crate) enum Phase<'a> {
    /// It logs in, as the user it named, for the connection it named, by password or OAUTHBEARER.
    Login { user: &'a str, wanted: &'a str, bearer: bool },
    /// It was let in.
    Ready,
}

/// The fields of an ErrorResponse.
pub(crate) struct ErrorFields {
    fatal: bool,
    code: &'static str,
    message: Cow<'static, str>,
    hint: Option<String>,
}

impl ErrorFields {
    pub(crate) fn fatal(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { fatal: true, code, message: message.into(), hint: None }
    }

    fn error(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { fatal: false, code, message: message.into(), hint: None }
    }

    /// Where the reason can be found.
    pub(crate) fn reference(mut self, session: SessionId) -> Self {
        self.hint = Some(format!("The reason is in the record of session {session}."));
        self
    }

    /// The same, as the session's last words.
    pub(crate) fn into_fatal(self) -> Self {
        Self { fatal: true, ..self }
    }

    /// Whether the session ends with it.
    pub(crate) const fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// The ErrorResponse.
    pub(crate) fn message(&self) -> Bytes {
        let severity: &[u8] = if self.fatal { b"FATAL" } else { b"ERROR" };
        frame::message(target::ERROR_RESPONSE, |out| {
            for (field, value) in [
                (b'S', severity),
                (b'V', severity),
                (b'C', self.code.as_bytes()),
                (b'M', self.message.as_bytes()),
            ] {
                out.put_u8(field);
                frame::put_text(out, value);
            }
            if let Some(hint) = &self.hint {
                out.put_u8(b'H');
                frame::put_text(out, hint.as_bytes());
            }
            out.put_u8(0);
        })
    }
}

/// Prints no message: it may name what a client sent.
impl fmt::Debug for ErrorFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorFields({}, fatal {})", self.code, self.fatal)
    }
}

/// The one place where refusals get their words in this protocol.
pub(crate) fn error_fields(refusal: &Refusal, phase: Phase<'_>, session: SessionId) -> ErrorFields {
    let login = match phase {
        Phase::Login { user, wanted, bearer } => Some((user, wanted, bearer)),
        Phase::Ready => None,
    };
    let fields = match (refusal, login) {
        (Refusal::NotAuthenticated { .. } | Refusal::Discovery, Some((user, _, false))) => {
            ErrorFields::fatal("28P01", format!("password authentication failed for user \"{user}\""))
        }
        (Refusal::NotAuthenticated { .. } | Refusal::Discovery, Some((user, _, true))) => {
            ErrorFields::fatal("28000", format!("OAuth bearer authentication failed for user \"{user}\""))
        }
        (Refusal::NotAuthenticated { .. } | Refusal::Discovery, None) => {
            ErrorFields::fatal("28000", "the identity of this session is no longer proved")
        }
        (Refusal::NotAllowed { .. }, Some((_, wanted, _))) => {
            ErrorFields::fatal("42501", format!("permission denied for connection \"{wanted}\""))
        }
        (Refusal::NotAllowed { .. }, None) => ErrorFields::error("42501", "permission denied by the gateway"),
        (Refusal::Undecided { .. }, _) => {
            ErrorFields::error("57P03", "the identity service is unavailable, try again later")
        }
        (Refusal::Protocol { .. }, _) => ErrorFields::fatal("08P01", "protocol violation"),
        (Refusal::TooLarge { length, limit }, _) => ErrorFields::fatal(
            "54000",
            format!("a message of {length} bytes is over the gateway's limit of {limit} bytes"),
        ),
        (Refusal::Unsupported { what }, _) => {
            ErrorFields::error("0A000", format!("not supported through the gateway: {what}"))
        }
        (Refusal::Expired, _) => {
            ErrorFields::fatal("57P01", "terminating connection because the access token expired")
        }
        (Refusal::Revoked { .. }, _) => {
            ErrorFields::fatal("57P01", "terminating connection because access was revoked")
        }
        (Refusal::NotRecorded { reason }, _) => {
            ErrorFields::error(not_recorded(reason), "the gateway cannot record this, so it is not done")
        }
        (Refusal::Masking { reason, .. }, _) => ErrorFields::error("42501", format!("masking: {reason}")),
        (Refusal::Busy { .. }, Some(_)) => ErrorFields::fatal("53300", "sorry, too many clients already"),
        (Refusal::Busy { reason }, None) => {
            ErrorFields::error("53400", format!("the gateway is at its limit: {reason}"))
        }
        (Refusal::Draining, Some(_)) => ErrorFields::fatal("57P03", "the gateway is shutting down"),
        (Refusal::Draining, None) => {
            ErrorFields::fatal("57P01", "terminating connection because the gateway is shutting down")
        }
    };
    ErrorFields { fatal: fields.fatal || login.is_some(), ..fields }.reference(session)
}

/// `disk_full` where that is why, else `io_error`.
fn not_recorded(reason: &str) -> &'static str {
    let full = ["full", "No space", "no space", "room", "reserve", "quota"];
    if full.iter().any(|word| reason.contains(word)) { "53100" } else { "58030" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(refusal: &Refusal, phase: Phase<'_>) -> (bool, &'static str, String) {
        let fields = error_fields(refusal, phase, SessionId::from_bytes([0; 16]));
        (fields.is_fatal(), fields.code, fields.message.into_owned())
    }

    #[test]
    fn a_login_is_refused_in_the_servers_words_and_without_the_reason() {
        let phase = |bearer| Phase::Login { user: "ada", wanted: "customer-db", bearer };
        let unproved = Refusal::NotAuthenticated { code: "signature", reason: "secret reason".into() };
        let expected = "password authentication failed for user \"ada\"".to_owned();
        assert_eq!(fields(&unproved, phase(false)), (true, "28P01", expected));
        let expected = "OAuth bearer authentication failed for user \"ada\"".to_owned();
        assert_eq!(fields(&unproved, phase(true)), (true, "28000", expected));
        let denied = Refusal::NotAllowed { code: "no_group", reason: "secret reason".into() };
        let (fatal, code, message) = fields(&denied, phase(false));
        assert!(fatal && code == "42501" && !message.contains("secret"), "{message}");
        let undecided = Refusal::Undecided { code: "keys", reason: "secret reason".into() };
        assert_eq!(fields(&undecided, phase(false)).1, "57P03");
    }

    #[test]
    fn a_full_disk_has_the_servers_code_and_leaves_the_session_open() {
        let full = Refusal::NotRecorded { reason: "No space left on device".into() };
        let (fatal, code, _) = fields(&full, Phase::Ready);
        assert!(!fatal && code == "53100");
        let failed = Refusal::NotRecorded { reason: "fsync failed".into() };
        assert_eq!(fields(&failed, Phase::Ready).1, "58030");
    }
}
