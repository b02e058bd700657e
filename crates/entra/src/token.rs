//! A token's outer form (RFC 7515, compact serialization): three segments, two JSON objects, one signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{Json, Object};
use crate::keys::Algorithm;
use crate::refusal::{Refused, quoted};

/// The longest `kid`, in bytes.
const KID_BYTES_MAX: usize = 256;

/// A token taken apart; nothing in it is verified.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) header: Object,
    pub(crate) payload: Object,
    /// What is signed.
    pub(crate) message: &'a [u8],
    pub(crate) signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    pub(crate) fn parse(token: &'a [u8], limit: usize) -> Result<Self, Refused> {
        let malformed = |why: &str| Refused::not_authenticated("malformed", why);
        if token.len() > limit {
            let reason = format!("the token has {} bytes, more than {limit}", token.len());
            return Err(Refused::not_authenticated("size", reason));
        }
        let mut segments = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(malformed("a token has three segments"));
        };
        let message = token.get(..header.len() + 1 + payload.len()).unwrap_or_default();
        let decode = |segment: &[u8]| {
            URL_SAFE_NO_PAD
                .decode(segment)
                .map_err(|_| malformed("a segment is no base64url without padding"))
        };
        let object = |segment: &[u8]| {
            let why = "a segment is no JSON object, or says something twice";
            Object::parse(&decode(segment)?).ok_or_else(|| malformed(why))
        };
        let (header, payload, signature) = (object(header)?, object(payload)?, decode(signature)?);
        Ok(Self { header, payload, message, signature })
    }

    /// What the header may say, by the algorithms that the issuer may use: the one to verify by, and the `kid`.
    /// `jku`, `x5u`, `x5c`, `jwk` and all else are not looked at.
    pub(crate) fn header(&self, allowed: &[Algorithm]) -> Result<(Algorithm, &str), Refused> {
        let refuse = |code, reason: String| Err(Refused::not_authenticated(code, reason));
        let stated = self.header.text("alg");
        let algorithm = stated.and_then(Algorithm::named).filter(|algorithm| allowed.contains(algorithm));
        let Some(algorithm) = algorithm else {
            let stated = stated.map_or_else(|| String::from("no algorithm"), quoted);
            return refuse("alg", format!("the header states {stated}, which is not taken"));
        };
        if self.signature.is_empty() {
            return refuse("malformed", String::from("the signature is empty"));
        }
        if self.header.get("crit").is_some() {
            return refuse("crit", String::from("the header demands extensions (crit)"));
        }
        if self.header.get("nonce").is_some() {
            let reason = "the header has a nonce: this token is for Microsoft Graph, not for this gateway";
            return refuse("nonce_header", String::from(reason));
        }
        match self.header.text("kid") {
            Some(kid) if is_kid(kid) => Ok((algorithm, kid)),
            Some(kid) => refuse("kid", format!("{} is no key id", quoted(kid))),
            None => refuse("kid", String::from("the header names no key")),
        }
    }

    /// The issuer as stated: good for choosing whom to ask, and for nothing else.
    pub(crate) fn unverified_issuer(&self) -> Result<&str, Refused> {
        match self.payload.get("iss") {
            Some(Json::Text(issuer)) => Ok(issuer),
            Some(_) => Err(Refused::not_authenticated("claims", "iss is not a string")),
            None => Err(Refused::not_authenticated("claims", "iss is missing")),
        }
    }
}

/// Key ids are thumbprints, GUIDs or short names; what is none is not worth asking an issuer for.
fn is_kid(kid: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+:.".contains(&byte);
    !kid.is_empty() && kid.len() <= KID_BYTES_MAX && kid.bytes().all(fits) && !kid.starts_with('.')
}

/// A GUID in its canonical form, in lower case.
pub(crate) fn guid(text: &str) -> Option<String> {
    let dashes = [8, 13, 18, 23];
    let fits = |(place, byte): (usize, u8)| {
        if dashes.contains(&place) { byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    (text.len() == 36 && text.bytes().enumerate().all(fits)).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(token: &[u8]) -> &'static str {
        match Parts::parse(token, 65_535).and_then(|parts| parts.header(&[Algorithm::Rs256]).map(|_| ())) {
            Ok(()) => "passes",
            Err(refused) => refused.code,
        }
    }

    #[test]
    fn guids() {
        assert!(guid("C3C3C3C3-0000-4000-8000-00000000C003").is_some());
        for wrong in
            ["", "c3c3c3c300004000800000000000c003", "{3c3c3c3-0000-4000-8000-00000000c00}", "billing"]
        {
            assert_eq!(guid(wrong), None);
        }
    }

    #[test]
    fn segments() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"k1"}"#);
        assert_eq!(code(format!("{header}.e30.AAAA").as_bytes()), "passes");
        for wrong in
            ["", ".", "..", "a.b", "e30.e30.AAAA.AAAA", "e30.e30.AA==", "e30.e30.AA\r\n", "e30 .e30.AA"]
        {
            assert_eq!(code(wrong.as_bytes()), "malformed", "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _code = code(&bytes);
        }

        #[test]
        fn never_panics_on_json(header in ".{0,80}", payload in ".{0,80}", signature in ".{0,20}") {
            let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
            let token = format!("{}.{}.{}", encode(header), encode(payload), encode(signature));
            let _code = code(token.as_bytes());
        }
    }
}
