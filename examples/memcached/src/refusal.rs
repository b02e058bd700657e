//! A refusal as memcached would say it: `CLIENT_ERROR` or `SERVER_ERROR`, words, and the session's id as a reference.
//!
//! The client learns the class of a refusal; the reason is in the record alone.

use std::borrow::Cow;

use bytes::Bytes;
use verbatim_core::{CloseReason, Refusal, SessionId};

/// The line that a refusal is told with.
pub(crate) fn words(refusal: &Refusal, session: SessionId) -> Bytes {
    let said: Cow<'static, str> = match refusal {
        Refusal::NotAuthenticated { .. } | Refusal::Discovery => "CLIENT_ERROR authentication failure".into(),
        Refusal::NotAllowed { .. } => "CLIENT_ERROR permission denied".into(),
        Refusal::Undecided { .. } => {
            "SERVER_ERROR the identity service is unavailable, try again later".into()
        }
        Refusal::Protocol { .. } => "CLIENT_ERROR bad command line format".into(),
        Refusal::TooLarge { limit, .. } => {
            format!("SERVER_ERROR object too large for the gateway, which takes {limit} bytes").into()
        }
        Refusal::Unsupported { what } => {
            format!("SERVER_ERROR not supported through the gateway: {what}").into()
        }
        Refusal::Expired => "SERVER_ERROR the access token expired".into(),
        Refusal::Revoked { .. } => "SERVER_ERROR access was revoked".into(),
        Refusal::NotRecorded { .. } => {
            "SERVER_ERROR the gateway cannot record this, so it is not done".into()
        }
        Refusal::Masking { .. } => "SERVER_ERROR a mask protects what this asks for".into(),
        Refusal::Busy { .. } => "SERVER_ERROR the gateway is at its limit".into(),
        Refusal::Draining => "SERVER_ERROR the gateway is shutting down".into(),
    };
    line(&said, session)
}

/// The session's last words, where the gateway ends it.
pub(crate) fn last_words(reason: CloseReason, session: SessionId) -> Bytes {
    let why = match reason {
        CloseReason::Expired => return words(&Refusal::Expired, session),
        CloseReason::AccessRevoked => "access was revoked",
        CloseReason::Drained => return words(&Refusal::Draining, session),
        CloseReason::Idle => "the session was idle for too long",
        CloseReason::Target => "the target closed the connection",
        CloseReason::Protocol => "the target broke the protocol",
        _ => "an administrator ended the session",
    };
    line(&format!("SERVER_ERROR {why}"), session)
}

/// A line with the session's id behind it.
pub(crate) fn line(said: &str, session: SessionId) -> Bytes {
    format!("{said} (session {session})\r\n").into()
}

/// Why the session ends with a refusal; none where it goes on.
pub(crate) const fn ends_with(refusal: &Refusal) -> Option<CloseReason> {
    match refusal {
        Refusal::Expired
        | Refusal::Revoked { .. }
        | Refusal::Draining
        | Refusal::NotAuthenticated { .. }
        | Refusal::Discovery
        | Refusal::Protocol { .. }
        | Refusal::TooLarge { .. } => Some(refusal.close_reason()),
        Refusal::NotAllowed { .. }
        | Refusal::Undecided { .. }
        | Refusal::Unsupported { .. }
        | Refusal::NotRecorded { .. }
        | Refusal::Masking { .. }
        | Refusal::Busy { .. } => None,
    }
}
