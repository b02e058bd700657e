//! The token in what a client sends: as a clear password, or by OpenID Connect.

use bytes::Bytes;
use verbatim_core::{Refusal, Token};

use crate::frame::Reader;

/// The plugin by which a client sends its password as it is, with a NUL behind it.
pub(crate) const CLEAR: &[u8] = b"mysql_clear_password";
/// The plugin by which a client (9.1 and later) sends an identity token.
pub(crate) const OPENID_CONNECT: &[u8] = b"authentication_openid_connect_client";
/// The one capability that the plugin has.
const OPENID_CAPABILITY: u8 = 1;
/// Bytes that either form has beside the token.
pub(crate) const OVERHEAD: usize = 1 + 9;

/// How a client sends its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Clear,
    OpenIdConnect,
}

impl Form {
    /// The form that a client's own plugin has; the others are asked for a clear password.
    pub(crate) fn of(plugin: &[u8]) -> Option<Self> {
        match plugin {
            CLEAR => Some(Self::Clear),
            OPENID_CONNECT => Some(Self::OpenIdConnect),
            _ => None,
        }
    }

    pub(crate) const fn plugin(self) -> &'static [u8] {
        match self {
            Self::Clear => CLEAR,
            Self::OpenIdConnect => OPENID_CONNECT,
        }
    }

    /// Takes the token out of the answer.
    ///
    /// # Errors
    /// It is not of this form, or longer than `limit`.
    pub(crate) fn token(self, answer: Bytes, limit: usize) -> Result<Token, Refusal> {
        let token = match self {
            // Some drivers leave the NUL out.
            Self::Clear => answer.strip_suffix(b"\0").unwrap_or(&answer).to_vec(),
            Self::OpenIdConnect => {
                let mut reader = Reader::new(answer);
                if reader.u8("OpenID Connect capability")? != OPENID_CAPABILITY {
                    return Err(Refusal::Protocol { reason: "an unknown OpenID Connect capability".into() });
                }
                let token = reader.bytes("OpenID Connect token")?;
                reader.end("OpenID Connect token")?;
                token.to_vec()
            }
        };
        if token.len() > limit {
            return Err(too_long(token.len()));
        }
        Ok(Token::new(token))
    }
}

/// A token over the limit.
pub(crate) fn too_long(length: usize) -> Refusal {
    Refusal::NotAuthenticated {
        code: "size",
        reason: format!("a credential of {length} bytes, over the limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Form, answer: &'static [u8]) -> Result<Vec<u8>, &'static str> {
        match form.token(Bytes::from_static(answer), 8) {
            Ok(token) => Ok(token.expose().to_vec()),
            Err(refusal) => Err(refusal.code()),
        }
    }

    #[test]
    fn a_token_is_taken_in_its_form_alone() {
        assert_eq!(check(Form::Clear, b"token\0"), Ok(b"token".to_vec()));
        assert_eq!(check(Form::Clear, b"token"), Ok(b"token".to_vec()));
        assert_eq!(check(Form::Clear, b"to\0en\0"), Ok(b"to\0en".to_vec()), "and judged as it came");
        assert_eq!(check(Form::Clear, b"too long!\0"), Err("size"));
        assert_eq!(check(Form::OpenIdConnect, b"\x01\x05token"), Ok(b"token".to_vec()));
        assert_eq!(check(Form::OpenIdConnect, b"\x02\x05token"), Err("protocol"), "another capability");
        assert_eq!(check(Form::OpenIdConnect, b"\x01\x06token"), Err("protocol"), "cut short");
        assert_eq!(check(Form::OpenIdConnect, b"\x01\x04token"), Err("protocol"), "bytes behind it");
        assert_eq!(check(Form::OpenIdConnect, b"\x01\x09too long!"), Err("size"));
        assert_eq!(check(Form::OpenIdConnect, b""), Err("protocol"));
    }

    #[test]
    fn other_plugins_are_asked_for_a_clear_password() {
        assert_eq!(Form::of(CLEAR), Some(Form::Clear));
        assert_eq!(Form::of(OPENID_CONNECT), Some(Form::OpenIdConnect));
        assert_eq!(Form::of(b"mysql_native_password"), None);
        assert_eq!(Form::of(b""), None);
    }
}
