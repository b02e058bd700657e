//! What a password makes of a server's challenge, by plugin.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use curve25519_dalek::{EdwardsPoint, Scalar};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

use crate::greeting::{CACHING_SHA2, NATIVE};

/// MariaDB's plugin.
const ED25519: &[u8] = b"client_ed25519";

/// How the gateway proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    Native,
    CachingSha2,
    Ed25519,
}

impl Plugin {
    /// The plugin of this name; none where the gateway has none.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        match name {
            NATIVE => Some(Self::Native),
            CACHING_SHA2 => Some(Self::CachingSha2),
            ED25519 => Some(Self::Ed25519),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static [u8] {
        match self {
            Self::Native => NATIVE,
            Self::CachingSha2 => CACHING_SHA2,
            Self::Ed25519 => ED25519,
        }
    }

    /// The answer to a challenge. Without a password it is empty.
    pub(super) fn answer(self, password: &[u8], scramble: &[u8]) -> Vec<u8> {
        match self {
            _ if password.is_empty() => Vec::new(),
            Self::Native => native(password, scramble),
            Self::CachingSha2 => caching_sha2(password, scramble),
            Self::Ed25519 => ed25519(password, scramble),
        }
    }
}

/// `SHA1(password) XOR SHA1(scramble, SHA1(SHA1(password)))`.
fn native(password: &[u8], scramble: &[u8]) -> Vec<u8> {
    let sha1 = |parts: &[&[u8]]| hash(&SHA1_FOR_LEGACY_USE_ONLY, parts);
    let once = sha1(&[password]);
    let twice = sha1(&[once.as_ref()]);
    xor(once.as_ref(), sha1(&[scramble, twice.as_ref()]).as_ref())
}

/// `SHA256(password) XOR SHA256(SHA256(SHA256(password)), scramble)`.
fn caching_sha2(password: &[u8], scramble: &[u8]) -> Vec<u8> {
    let once = hash(&SHA256, &[password]);
    let twice = hash(&SHA256, &[once.as_ref()]);
    xor(once.as_ref(), hash(&SHA256, &[twice.as_ref(), scramble]).as_ref())
}

/// An Ed25519 signature whose secret key is the password, of any length: not the 32 bytes of RFC 8032, so that no ready
/// implementation takes it.
fn ed25519(password: &[u8], message: &[u8]) -> Vec<u8> {
    let expanded = hash(&SHA512, &[password]);
    let (low, high) = expanded.as_ref().split_at(32);
    let mut clamped = [0_u8; 32];
    clamped.copy_from_slice(low);
    clamped[0] &= 248;
    clamped[31] &= 63;
    clamped[31] |= 64;
    let secret = Scalar::from_bytes_mod_order(clamped);
    let public = EdwardsPoint::mul_base(&secret).compress();
    let nonce = wide(&[high, message]);
    let commitment = EdwardsPoint::mul_base(&nonce).compress();
    let challenge = wide(&[commitment.as_bytes(), public.as_bytes(), message]);
    let response = challenge * secret + nonce;
    [*commitment.as_bytes(), response.to_bytes()].concat()
}

fn wide(parts: &[&[u8]]) -> Scalar {
    let mut bytes = [0_u8; 64];
    bytes.copy_from_slice(hash(&SHA512, parts).as_ref());
    Scalar::from_bytes_mod_order_wide(&bytes)
}

/// The password for full authentication without TLS: mixed with the challenge, and encrypted with the server's key (PEM).
/// None where the key is no RSA key, or too short for the password.
pub(super) fn encrypted(password: &[u8], scramble: &[u8], pem: &[u8]) -> Option<Vec<u8>> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    let key = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(der.as_ref()).ok()?).ok()?;
    let mut plain = password.to_vec();
    plain.push(0);
    if scramble.is_empty() {
        return None;
    }
    for (byte, mask) in plain.iter_mut().zip(scramble.iter().cycle()) {
        *byte ^= mask;
    }
    let mut out = vec![0; key.ciphertext_size()];
    let written = key.encrypt(&OAEP_SHA1_MGF1SHA1, &plain, &mut out, None).ok()?.len();
    out.truncate(written);
    Some(out)
}

fn hash(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    context.finish()
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 8032, section 7.1, test 2: there the secret is of 32 bytes, so that both ways agree.
    #[test]
    fn an_ed25519_signature_is_the_standards_where_the_secret_is_of_its_length() {
        let secret = [
            0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f,
            0x5b, 0x8a, 0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb,
        ];
        assert_eq!(
            hex(&ed25519(&secret, &[0x72])),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
    }

    #[test]
    fn no_password_is_an_empty_answer() {
        for plugin in [Plugin::Native, Plugin::CachingSha2, Plugin::Ed25519] {
            assert_eq!(plugin.answer(b"", &[1; 20]), b"");
            assert_eq!(Plugin::named(plugin.name()), Some(plugin));
        }
        assert_eq!(Plugin::named(b"mysql_clear_password"), None);
        assert_eq!(Plugin::named(b"dialog"), None);
    }

    #[test]
    fn a_key_that_is_none_encrypts_nothing() {
        assert_eq!(
            encrypted(b"secret", &[1; 20], b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
            None
        );
        assert_eq!(encrypted(b"secret", &[1; 20], b""), None);
    }
}
