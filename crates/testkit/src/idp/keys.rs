//! The simulator's keys: signing with them, and showing their public halves as a JWKS does.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

const RSA_FILES: [(&str, &str); 6] = [
    ("k1", include_str!("keys/k1.pem")),
    ("k2", include_str!("keys/k2.pem")),
    ("k3", include_str!("keys/k3.pem")),
    ("k4", include_str!("keys/k4.pem")),
    ("rogue", include_str!("keys/rogue.pem")),
    ("weak", include_str!("keys/weak.pem")),
];

enum Private {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
    /// RSA with 1,024 bits, which the crypto library will not load: published, never signed with.
    Weak,
}

/// One key, loaded.
pub struct Key {
    private: Private,
    /// `kty` and its parameters.
    public: Vec<(&'static str, String)>,
    /// A certificate around an RSA key, as `x5c` shows it.
    certificate: Option<String>,
    /// The public key as PEM, for those who would use it as a shared secret.
    public_pem: String,
}

/// Every test-only key by the name of its file.
pub struct Keys(BTreeMap<&'static str, Key>);

impl Keys {
    /// Loads them.
    ///
    /// # Errors
    /// A file in the tree is damaged.
    pub fn load() -> Result<Self> {
        let mut keys = BTreeMap::new();
        for (name, pem) in RSA_FILES {
            keys.insert(name, rsa(name, pem).with_context(|| format!("test key {name}"))?);
        }
        keys.insert("es256", p256(include_str!("keys/es256.pem"))?);
        keys.insert("ed25519", ed25519(include_str!("keys/ed25519.pem"))?);
        Ok(Self(keys))
    }

    /// The key of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<&Key> {
        self.0.get(name).ok_or_else(|| anyhow!("no test key is named {name:?}"))
    }
}

impl Key {
    /// Signs by the algorithm of this name (`RS256`, `RS384`, `RS512`, `PS256`, `ES256`, `EdDSA`).
    ///
    /// # Errors
    /// The key is of another kind.
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        let rsa_with = |encoding: &'static dyn RsaEncoding| {
            let Private::Rsa(pair) = &self.private else { return Err(anyhow!("not an RSA key")) };
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &random, message, &mut signature).map_err(|_| anyhow!("signing failed"))?;
            Ok(signature)
        };
        match (algorithm, &self.private) {
            ("RS256", _) => rsa_with(&RSA_PKCS1_SHA256),
            ("RS384", _) => rsa_with(&RSA_PKCS1_SHA384),
            ("RS512", _) => rsa_with(&RSA_PKCS1_SHA512),
            ("PS256", _) => rsa_with(&RSA_PSS_SHA256),
            ("ES256", Private::P256(pair)) => {
                Ok(pair.sign(&random, message).map_err(|_| anyhow!("signing failed"))?.as_ref().to_vec())
            }
            ("EdDSA", Private::Ed25519(pair)) => Ok(pair.sign(message).as_ref().to_vec()),
            _ => Err(anyhow!("no key for {algorithm}")),
        }
    }

    /// Its entry in a JWKS: no `alg`, as Entra has none.
    pub fn jwk(&self, kid: &str, usage: &str, issuer: Option<&str>) -> Value {
        let mut jwk = json!({ "use": usage, "kid": kid, "x5t": kid });
        if let Value::Object(members) = &mut jwk {
            for (name, value) in &self.public {
                members.insert((*name).to_owned(), value.clone().into());
            }
            if let Some(certificate) = &self.certificate {
                members.insert("x5c".to_owned(), json!([certificate]));
            }
            if let Some(issuer) = issuer {
                members.insert("issuer".to_owned(), issuer.into());
            }
        }
        jwk
    }

    /// The public key as PEM and as the modulus in base64url: what an attacker knows.
    pub fn public_forms(&self) -> (String, String) {
        let modulus = self.public.iter().find(|(name, _)| *name == "n").map(|(_, n)| n.clone());
        (self.public_pem.clone(), modulus.unwrap_or_default())
    }
}

fn pkcs8(pem: &str) -> Result<Vec<u8>> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| anyhow!("{error}"))?;
    Ok(key.secret_der().to_vec())
}

fn rsa(name: &str, pem: &str) -> Result<Key> {
    if name == "weak" {
        // Its modulus was written down beside it, since nothing here reads so short a key.
        let n = include_str!("keys/weak.modulus").trim().to_owned();
        let public = vec![("kty", "RSA".to_owned()), ("n", n), ("e", "AQAB".to_owned())];
        return Ok(Key { private: Private::Weak, public, certificate: None, public_pem: String::new() });
    }
    let pair = RsaKeyPair::from_pkcs8(&pkcs8(pem)?).map_err(|error| anyhow!("{error}"))?;
    let der = pair.public_key().as_ref();
    let (n, e) = rsa_components(der).context("public key")?;
    let public =
        vec![("kty", "RSA".to_owned()), ("n", URL_SAFE_NO_PAD.encode(n)), ("e", URL_SAFE_NO_PAD.encode(e))];
    let public_pem =
        format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", STANDARD.encode(der));
    let certificate = Some(self_signed(name, pem)?);
    Ok(Key { private: Private::Rsa(Box::new(pair)), public, certificate, public_pem })
}

fn self_signed(name: &str, pem: &str) -> Result<String> {
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
        &rustls_pki_types::PrivatePkcs8KeyDer::from(pkcs8(pem)?),
        &rcgen::PKCS_RSA_SHA256,
    )?;
    let params = rcgen::CertificateParams::new(vec![format!("{name}.test-only.invalid")])?;
    Ok(STANDARD.encode(params.self_signed(&pair)?.der()))
}

fn p256(pem: &str) -> Result<Key> {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8(pem)?)
        .map_err(|error| anyhow!("{error}"))?;
    let point = pair.public_key().as_ref();
    let (x, y) = point.get(1..33).zip(point.get(33..65)).context("an uncompressed point")?;
    let public = vec![
        ("kty", "EC".to_owned()),
        ("crv", "P-256".to_owned()),
        ("x", URL_SAFE_NO_PAD.encode(x)),
        ("y", URL_SAFE_NO_PAD.encode(y)),
    ];
    Ok(Key { private: Private::P256(Box::new(pair)), public, certificate: None, public_pem: String::new() })
}

fn ed25519(pem: &str) -> Result<Key> {
    let pair =
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8(pem)?).map_err(|error| anyhow!("{error}"))?;
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let public = vec![("kty", "OKP".to_owned()), ("crv", "Ed25519".to_owned()), ("x", x)];
    Ok(Key {
        private: Private::Ed25519(Box::new(pair)),
        public,
        certificate: None,
        public_pem: String::new(),
    })
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017, A.1.1): a sequence of two integers.
fn rsa_components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sequence, _) = der_value(der, 0x30)?;
    let (n, rest) = der_value(sequence, 0x02)?;
    let (e, _) = der_value(rest, 0x02)?;
    Some((n.strip_prefix(&[0]).unwrap_or(n), e))
}

/// The content of the next value, which must have this tag, and what follows it.
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
    };
    rest.split_at_checked(length)
}
