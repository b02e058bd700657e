//! Why a token did not pass, before it is known whom the refusal is about.

use std::sync::Arc;

use verbatim_core::{Identity, IdentityError, Verdict};

/// The longest piece of a token's claims that a reason quotes, in characters.
const QUOTED_CHARS_MAX: usize = 120;

/// A refusal: its class, its stable code, and words for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) verdict: Verdict,
    pub(crate) code: &'static str,
    pub(crate) reason: String,
}

impl Refused {
    /// A: the token proves no identity.
    pub(crate) fn not_authenticated(code: &'static str, reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotAuthenticated, code, reason: reason.into() }
    }

    /// Z: the identity is proved and not allowed.
    pub(crate) fn not_allowed(code: &'static str, reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotAllowed, code, reason: reason.into() }
    }

    /// T: it cannot be decided now.
    pub(crate) fn undecided(code: &'static str, reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Undecided, code, reason: reason.into() }
    }

    pub(crate) fn with(self, identity: Option<Arc<dyn Identity>>) -> IdentityError {
        IdentityError { verdict: self.verdict, code: self.code, reason: self.reason, identity }
    }
}

/// What a token says, for a reason: escaped, and of bounded length.
pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
