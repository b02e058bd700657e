use verbatim_testkit::postgres::rcgen::{self, CertificateParams, KeyPair, SignatureAlgorithm};

use super::*;

fn certificate(algorithm: &'static SignatureAlgorithm, ca: bool) -> (CertificateDer<'static>, String) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::new(vec!["db.internal".to_owned()]).unwrap();
    if ca {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().clone(), certificate.pem())
}

/// What a verifier that trusts a server's own certificate says of it, at a time and under a name.
fn pinned(ca: bool, sslmode: SslMode, name: &str, seconds: u64) -> Result<(), String> {
    let (der, pem) = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, ca);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let tls = TargetTls::load(Some(file.path()), None, None).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let verifier = tls.verifier(sslmode, &provider).unwrap();
    verifier.verify_server_cert(&der, &[], &name, &[], now).map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_server_that_signed_its_own_certificate_can_be_trusted_by_it() {
    const IN_2025: u64 = 1_750_000_000;
    for ca in [false, true] {
        assert_eq!(pinned(ca, SslMode::VerifyFull, "db.internal", IN_2025), Ok(()));
        assert_eq!(pinned(ca, SslMode::VerifyCa, "other", IN_2025), Ok(()));
        assert_eq!(pinned(ca, SslMode::Require, "other", IN_2025), Ok(()));
        assert!(
            pinned(ca, SslMode::VerifyFull, "other", IN_2025).unwrap_err().contains("not valid for name")
        );
        assert!(pinned(ca, SslMode::VerifyCa, "other", IN_2025 * 2).unwrap_err().contains("Expired"));
        assert!(pinned(ca, SslMode::VerifyCa, "other", 0).unwrap_err().contains("NotValidYet"));
    }
}

#[test]
fn files_are_named_in_what_is_wrong_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let (missing, empty) = (dir.path().join("missing.pem"), dir.path().join("empty.pem"));
    std::fs::write(&empty, "").unwrap();
    for path in [&missing, &empty] {
        let error = TargetTls::load(Some(path), None, None).unwrap_err();
        assert!(
            matches!(&error, TargetTlsError::File { key: "ca", path: named, .. } if named == path),
            "{error}"
        );
        let error = TargetTls::load(None, Some(path), Some(path)).unwrap_err();
        assert!(matches!(&error, TargetTlsError::File { key: "private_key", .. }), "{error}");
    }
    assert_eq!(TargetTls::load(None, Some(&missing), None).unwrap_err(), TargetTlsError::Half);
    assert_eq!(TargetTls::load(None, None, Some(&missing)).unwrap_err(), TargetTlsError::Half);
}
