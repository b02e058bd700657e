//! What `fuzz/` feeds with any bytes: the parts of this crate that a client or an issuer reaches. Nothing else uses it; it
//! is here because those parts are nobody else's to call.

use std::time::Duration;

use crate::claims::{Claims, Expected};
use crate::json::Object;
use crate::keys::{Algorithm, KeySet};
use crate::token::Parts;

/// What a token may measure here.
const LIMIT: usize = 4096;

/// Bytes as a token: taken apart, its header and its claims read as though the signature were good.
pub fn token(bytes: &[u8]) {
    let Ok(parts) = Parts::parse(bytes, LIMIT) else { return };
    assert!(bytes.len() <= LIMIT && bytes.starts_with(parts.message), "a token out of nowhere");
    if let Ok((_, kid)) = parts.header(&[Algorithm::Rs256]) {
        assert!(!kid.is_empty(), "a key without an id");
    }
    let _ = parts.unverified_issuer();
    read(&parts.payload);
}

/// Bytes as a token's claims: a fuzzer finds its way into them more easily without base64 around them.
pub fn claims(bytes: &[u8]) {
    if let Some(payload) = Object::parse(bytes) {
        read(&payload);
    }
}

/// Bytes as an issuer's keys.
pub fn keys(bytes: &[u8]) {
    if let Ok(keys) = KeySet::parse(bytes) {
        let _ = keys.usable();
    }
}

fn read(payload: &Object) {
    let audiences = [String::from("a0a0a0a0-0000-4000-8000-00000000a001")];
    for (v1, guests) in [(false, false), (true, true)] {
        let expected = Expected {
            issuer: "https://login.microsoftonline.com/11111111-aaaa-4aaa-8aaa-000000000001/v2.0",
            other_issuer: "https://sts.windows.net/11111111-aaaa-4aaa-8aaa-000000000001/",
            tenant: "11111111-aaaa-4aaa-8aaa-000000000001",
            v1,
            audiences: &audiences,
            scopes: &[],
            guests,
            skew: Duration::from_secs(60),
            max_lifetime: Duration::from_secs(29 * 3600),
            now: 1_767_225_600,
        };
        if let Ok(claims) = Claims::read(payload, &expected, [0; 32]) {
            assert!(claims.tenant == expected.tenant, "another tenant's token");
            assert!(claims.expires > expected.now - 60, "a token that has ended");
        }
    }
}
