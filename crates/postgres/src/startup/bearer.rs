//! SASL OAUTHBEARER (RFC 7628), as PostgreSQL 18 has it: what a client's message says.

use verbatim_core::{Refusal, Token};

/// What a client's initial response asks for.
#[derive(Debug)]
pub(crate) enum Initial {
    /// To be let in with this token.
    Token(Token),
    /// To be told where tokens are to be had.
    Discovery,
}

/// Why a message is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is none of the protocol's (08P01).
    Protocol(&'static str),
    /// It asks for what is not supported (0A000).
    Unsupported(&'static str),
    /// Its token cannot be one (as any bad token).
    Token(&'static str),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Protocol(reason) => Self::Protocol { reason: reason.into() },
            Fault::Unsupported(what) => Self::Unsupported { what: what.into() },
            Fault::Token(reason) => Self::NotAuthenticated { code: "malformed", reason: reason.into() },
        }
    }
}

/// Reads `n,,` 0x01 `auth=Bearer TOKEN` 0x01 0x01: a GS2 header without channel binding and authorization identity, then
/// key-value pairs.
pub(crate) fn initial(message: &[u8]) -> Result<Initial, Fault> {
    if message.contains(&0) {
        return Err(Fault::Protocol("a NUL in the SASL message"));
    }
    let rest = match message.split_first() {
        Some((b'n' | b'y', rest)) => rest,
        Some((b'p', _)) => return Err(Fault::Protocol("channel binding in OAUTHBEARER")),
        _ => return Err(Fault::Protocol("an unknown channel-binding flag")),
    };
    let rest = rest
        .strip_prefix(b",")
        .ok_or(Fault::Protocol("a comma is missing after the channel-binding flag"))?;
    if rest.starts_with(b"a=") {
        return Err(Fault::Unsupported("an authorization identity"));
    }
    let rest = rest.strip_prefix(b",\x01").ok_or(Fault::Protocol("a malformed GS2 header"))?;
    let pairs = rest.strip_suffix(b"\x01").ok_or(Fault::Protocol("the final separator is missing"))?;
    let mut auth = None;
    for pair in pairs.split_inclusive(|byte| *byte == 1) {
        let pair = pair.strip_suffix(b"\x01").ok_or(Fault::Protocol("a key-value pair that does not end"))?;
        let equals = memchr::memchr(b'=', pair).ok_or(Fault::Protocol("a key without a value"))?;
        let (key, value) = pair.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        if key.is_empty() || !key.iter().all(u8::is_ascii_alphabetic) {
            return Err(Fault::Protocol("a malformed key"));
        }
        if !value.iter().all(|byte| matches!(byte, 0x21..=0x7e | b' ' | b'\t' | b'\r' | b'\n')) {
            return Err(Fault::Protocol("a malformed value"));
        }
        if key == b"auth" && auth.replace(value).is_some() {
            return Err(Fault::Protocol("two auth values"));
        }
    }
    match auth {
        None => Err(Fault::Protocol("no auth value")),
        Some(b"") => Ok(Initial::Discovery),
        Some(value) => token(value).map(Initial::Token).ok_or(Fault::Token("not a bearer token")),
    }
}

/// The token after `Bearer` (in any case) and spaces: letters, digits, `-._~+/`, then `=`.
fn token(value: &[u8]) -> Option<Token> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer") || !rest.starts_with(b" ") {
        return None;
    }
    let token = rest.trim_ascii_start();
    let end = token.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let letters = token.get(..end)?;
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    (!letters.is_empty() && letters.iter().all(legal)).then(|| Token::new(token.to_vec()))
}

/// The answer that tells a client where tokens are to be had.
pub(crate) fn discovery(configuration: Option<&verbatim_wire::Discovery>) -> Vec<u8> {
    let mut out = b"{\"status\":\"invalid_token\"".to_vec();
    if let Some(configuration) = configuration {
        out.extend_from_slice(b",\"openid-configuration\":");
        verbatim_core::json::string(&mut out, &configuration.openid_configuration);
        out.extend_from_slice(b",\"scope\":");
        verbatim_core::json::string(&mut out, &configuration.scope);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &[u8]) -> String {
        match initial(message) {
            Ok(Initial::Token(token)) => String::from_utf8(token.expose().to_vec()).unwrap(),
            Ok(Initial::Discovery) => "discovery".into(),
            Err(Fault::Protocol(_)) => "protocol".into(),
            Err(Fault::Unsupported(_)) => "unsupported".into(),
            Err(Fault::Token(_)) => "token".into(),
        }
    }

    #[test]
    fn the_initial_response_is_read_as_the_server_reads_it() {
        assert_eq!(check(b"n,,\x01auth=Bearer a.b-c_d\x01\x01"), "a.b-c_d");
        assert_eq!(check(b"y,,\x01host=x\x01auth=bEARER   abc==\x01port=1\x01\x01"), "abc==");
        assert_eq!(check(b"n,,\x01auth=\x01\x01"), "discovery");
        assert_eq!(check(b"n,a=root,\x01auth=Bearer x\x01\x01"), "unsupported");
        assert_eq!(check(b"n,,\x01auth=Basic x\x01\x01"), "token");
        for broken in [
            &b"p=tls-exporter,,\x01auth=Bearer x\x01\x01"[..],
            b"n,,\x01auth=Bearer x\x01",
            b"n,,\x01auth=Bearer x\x01\x01more",
            b"n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01",
            b"n,,\x01auth=Bearer \0x\x01\x01",
            b"n,,\x01\x01",
            b"",
        ] {
            assert_eq!(check(broken), "protocol", "{broken:?}");
        }
    }
}
