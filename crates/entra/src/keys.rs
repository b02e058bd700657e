//! Public keys as issuers publish them (RFC 7517), and verifying with them.
//!
//! The algorithm is always the configuration's; neither the token nor the key chooses it.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{Json, Object};

/// The most keys that a document may hold.
const KEYS_MAX: usize = 1000;
/// The shortest and longest RSA modulus, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A signature algorithm (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// By its name, whose case counts.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 | Self::Es384 | Self::EdDsa => return None,
        })
    }
}

/// The numbers of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// One entry of a key document. Unusable ones are kept, so that a token which names one is refused for the right reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    public: Result<Public, &'static str>,
    /// Whose tokens it signs, where the document says so.
    pub(crate) issuer: Option<String>,
    algorithm: Option<String>,
}

/// What a key said to a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFault {
    /// The key must not be used.
    Unusable(&'static str),
    /// The signature is not this key's.
    Signature,
}

impl Key {
    /// Whether the key may be used at all.
    pub(crate) fn usable(&self) -> Result<(), KeyFault> {
        self.public.as_ref().map(|_| ()).map_err(|why| KeyFault::Unusable(why))
    }

    /// Verifies by this algorithm and no other.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), KeyFault> {
        let public = self.public.as_ref().map_err(|why| KeyFault::Unusable(why))?;
        if self.algorithm.as_deref().is_some_and(|stated| Algorithm::named(stated) != Some(algorithm)) {
            return Err(KeyFault::Unusable("the key is for another algorithm"));
        }
        let plain = |by: &'static dyn VerificationAlgorithm, bytes: &[u8]| {
            UnparsedPublicKey::new(by, bytes).verify(message, signature).map_err(|_| KeyFault::Signature)
        };
        match (public, algorithm.rsa(), algorithm) {
            (Public::Rsa { n, e }, Some(parameters), _) => RsaPublicKeyComponents { n, e }
                .verify(parameters, message, signature)
                .map_err(|_| KeyFault::Signature),
            (Public::P256(point), _, Algorithm::Es256) => plain(&ECDSA_P256_SHA256_FIXED, point),
            (Public::P384(point), _, Algorithm::Es384) => plain(&ECDSA_P384_SHA384_FIXED, point),
            (Public::Ed25519(bytes), _, Algorithm::EdDsa) => plain(&ED25519, bytes),
            _ => Err(KeyFault::Unusable("the key is of another type than the algorithm")),
        }
    }

    fn parse(entry: &Object) -> Self {
        let usage = entry.text("use");
        let public = match usage {
            None | Some("sig") => public(entry),
            Some(_) => Err("the key is not for signatures"),
        };
        Self {
            public,
            issuer: entry.text("issuer").map(str::to_owned),
            algorithm: entry.text("alg").map(str::to_owned),
        }
    }
}

fn public(entry: &Object) -> Result<Public, &'static str> {
    let bytes = |name: &str| {
        let text = entry.text(name).ok_or("the key is incomplete")?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| "the key is no base64url")
    };
    match (entry.text("kty"), entry.text("crv")) {
        (Some("RSA"), _) => {
            let n: Vec<u8> = bytes("n")?.into_iter().skip_while(|byte| *byte == 0).collect();
            let leading = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
            let bits = (n.len() * 8).saturating_sub(leading);
            if !RSA_BITS.contains(&bits) {
                return Err("the RSA key is shorter than 2,048 or longer than 8,192 bits");
            }
            Ok(Public::Rsa { n, e: bytes("e")? })
        }
        (Some("EC"), Some("P-256")) => point(&bytes("x")?, &bytes("y")?, 32).map(Public::P256),
        (Some("EC"), Some("P-384")) => point(&bytes("x")?, &bytes("y")?, 48).map(Public::P384),
        (Some("OKP"), Some("Ed25519")) => Ok(Public::Ed25519(bytes("x")?)),
        _ => Err("the key is of an unknown type"),
    }
}

fn point(x: &[u8], y: &[u8], length: usize) -> Result<Vec<u8>, &'static str> {
    if x.len() != length || y.len() != length {
        return Err("the key's coordinates have a wrong length");
    }
    Ok([&[4], x, y].concat())
}

/// The keys of one document, by `kid`.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeySet(HashMap<String, Arc<Key>>);

impl KeySet {
    /// Reads a document. Entries without a `kid` are of no use here.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, &'static str> {
        let document = Object::parse(document).ok_or("no JSON object")?;
        let Some(Json::List(entries)) = document.get("keys") else { return Err("no list of keys") };
        if entries.len() > KEYS_MAX {
            return Err("more than 1,000 keys");
        }
        let mut keys: HashMap<String, Arc<Key>> = HashMap::new();
        for entry in entries.iter().filter_map(Json::as_object) {
            let Some(kid) = entry.text("kid") else { continue };
            let key = Key::parse(entry);
            // The same `kid` for a signing and another key: the signing one. For two signing keys: the first.
            if keys.get(kid).is_none_or(|first| first.public.is_err() && key.public.is_ok()) {
                keys.insert(kid.to_owned(), Arc::new(key));
            }
        }
        Ok(Self(keys))
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&Arc<Key>> {
        self.0.get(kid)
    }

    /// How many keys could verify something.
    pub(crate) fn usable(&self) -> usize {
        self.0.values().filter(|key| key.public.is_ok()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_nine_algorithms_have_names() {
        for name in ["none", "None", "HS256", "rs256", "", "RS256 "] {
            assert_eq!(Algorithm::named(name), None, "{name:?}");
        }
        assert_eq!(Algorithm::named("RS256"), Some(Algorithm::Rs256));
    }

    #[test]
    fn unusable_keys_are_known_as_such() {
        let document = br#"{"keys":[
            {"kty":"RSA","kid":"short","use":"sig","n":"AQAB","e":"AQAB"},
            {"kty":"RSA","kid":"enc","use":"enc","n":"AQAB","e":"AQAB"},
            {"kty":"EC","crv":"P-256","kid":"bent","x":"AQAB","y":"AQAB"},
            {"kty":"oct","kid":"shared","k":"AQAB"}, {"kty":"RSA"}, 7]}"#;
        let keys = KeySet::parse(document).unwrap();
        assert_eq!(keys.usable(), 0);
        for kid in ["short", "enc", "bent", "shared"] {
            assert!(matches!(keys.get(kid).unwrap().usable(), Err(KeyFault::Unusable(_))), "{kid}");
        }
        assert!(KeySet::parse(b"{}").is_err());
        assert!(KeySet::parse(b"[]").is_err());
    }
}
