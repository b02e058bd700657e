//! A refusal as Redis says it: an error reply.
//!
//! The client learns the class of a refusal and the session's id as a reference; the reason is in the record alone. What is
//! wrong with the client's own bytes is told as the server tells it.
//!
//! | refusal | at login | in the session |
//! | --- | --- | --- |
//! | `NotAuthenticated`, `Discovery` | `-WRONGPASS` | `-NOAUTH` |
//! | `NotAllowed` | `-NOPERM` | `-NOPERM` |
//! | `Undecided` | `-TRYAGAIN` | `-TRYAGAIN` |
//! | `Protocol`, `TooLarge` | `-ERR Protocol error`, closes | the same |
//! | `Unsupported` | `-ERR` | `-ERR` |
//! | `Expired`, `Revoked` | `-NOAUTH` | `-NOAUTH`, closes |
//! | `NotRecorded` | `-MISCONF` | `-MISCONF` |
//! | `Busy` | `-ERR max number of clients reached` | `-ERR` |
//! | `Draining` | `-ERR`, closes | `-ERR`, closes |
//!
//! `MISCONF` is what the server itself answers where it cannot write what it should persist.

use bytes::Bytes;
use verbatim_core::{Refusal, SessionId};

/// What a command outside of a session is answered.
pub(crate) const NOAUTH: &str = "NOAUTH Authentication required.";
/// What EXEC is answered after something in its transaction was refused.
const EXECABORT: &str = "EXECABORT Transaction discarded because of: ";

/// What the client is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It logs in, or renews its login.
    Login,
    /// It was let in.
    Ready,
}

/// An error reply.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    text: String,
    fatal: bool,
}

impl Words {
    /// The last words of a session.
    pub(crate) fn fatal(text: impl Into<String>) -> Self {
        Self { text: text.into(), fatal: true }
    }

    /// Words after which the stream goes on.
    pub(crate) fn error(text: impl Into<String>) -> Self {
        Self { text: text.into(), fatal: false }
    }

    /// Whether the stream ends with it.
    pub(crate) const fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// The same, as the last words.
    pub(crate) fn into_fatal(self) -> Self {
        Self { fatal: true, ..self }
    }

    /// The same, as EXEC's answer.
    pub(crate) fn of_exec(self) -> Self {
        Self { text: format!("{EXECABORT}{}", self.text), ..self }
    }

    /// Where the reason can be found.
    pub(crate) fn reference(mut self, session: SessionId) -> Self {
        self.text.push_str(&format!(" (the reason is in the record of session {session})"));
        self
    }

    /// Its first word, and the rest.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.text.split_once(' ').unwrap_or((self.text.as_str(), ""))
    }

    /// The reply.
    pub(crate) fn reply(&self) -> Bytes {
        let mut out = String::with_capacity(self.text.len() + 3);
        out.push('-');
        out.extend(self.text.chars().map(|character| if character.is_control() { ' ' } else { character }));
        out.push_str("\r\n");
        out.into()
    }
}

/// The one place where refusals get their words in this protocol.
pub(crate) fn words(refusal: &Refusal, phase: Phase, session: SessionId) -> Words {
    let login = phase == Phase::Login;
    let words = match refusal {
        Refusal::NotAuthenticated { .. } | Refusal::Discovery if login => {
            Words::error("WRONGPASS invalid username-password pair or user is disabled.")
        }
        Refusal::NotAuthenticated { .. } | Refusal::Discovery => Words::error(NOAUTH),
        Refusal::NotAllowed { .. } if login => {
            Words::error("NOPERM this identity has no access to the connection that it asks for")
        }
        Refusal::NotAllowed { .. } => Words::error("NOPERM the gateway does not pass this command on"),
        Refusal::Undecided { .. } => {
            Words::error("TRYAGAIN the identity service is unavailable, try again later")
        }
        Refusal::Protocol { reason } => return Words::fatal(format!("ERR Protocol error: {reason}")),
        Refusal::TooLarge { length, limit } => Words::fatal(format!(
            "ERR Protocol error: {length} bytes are over the gateway's limit of {limit} bytes"
        )),
        Refusal::Unsupported { what } => {
            Words::error(format!("ERR not supported through the gateway: {what}"))
        }
        Refusal::Expired => Words::fatal("NOAUTH the access token expired"),
        Refusal::Revoked { .. } => Words::fatal("NOAUTH access was revoked"),
        Refusal::NotRecorded { .. } => {
            Words::error("MISCONF the gateway cannot record this command, so it is not done")
        }
        Refusal::Masking { reason, .. } => Words::error(format!("NOPERM masking: {reason}")),
        Refusal::Busy { .. } if login => Words::fatal("ERR max number of clients reached"),
        Refusal::Busy { reason } => Words::error(format!("ERR the gateway is at its limit: {reason}")),
        Refusal::Draining => Words::fatal("ERR the gateway is shutting down"),
    };
    words.reference(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(refusal: &Refusal, phase: Phase) -> (bool, String) {
        let words = words(refusal, phase, SessionId::from_bytes([0; 16]));
        (words.is_fatal(), String::from_utf8(words.reply().to_vec()).unwrap())
    }

    #[test]
    fn a_refusal_has_the_servers_word_and_not_its_reason() {
        let unproved = Refusal::NotAuthenticated { code: "signature", reason: "secret reason".into() };
        assert!(said(&unproved, Phase::Login).1.starts_with("-WRONGPASS "));
        assert!(said(&unproved, Phase::Ready).1.starts_with("-NOAUTH Authentication required. "));
        let denied = Refusal::NotAllowed { code: "no_group", reason: "secret reason".into() };
        for phase in [Phase::Login, Phase::Ready] {
            let (fatal, said) = said(&denied, phase);
            assert!(!fatal && said.starts_with("-NOPERM ") && !said.contains("secret"), "{said}");
        }
        assert!(said(&Refusal::Expired, Phase::Ready).0);
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        let reply = Words::error("ERR a\r\n+OK\r\n").reply();
        assert_eq!(reply, "-ERR a  +OK  \r\n");
    }
}
