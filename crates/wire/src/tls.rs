//! TLS to a target: which certificates are trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How a stream to the target is protected, libpq's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS, with any certificate; with `target_tls.ca`, as [`VerifyCa`](Self::VerifyCa) (so does libpq).
    Require,
    /// TLS, with a certificate that chains to a trusted root.
    VerifyCa,
    /// TLS, with a certificate that chains to a trusted root and is for the target's host.
    VerifyFull,
}

/// The certificates of `target_tls`, read and parsed.
#[derive(Default)]
pub struct TargetTls {
    /// What is trusted instead of the system's roots.
    ca: Option<Vec<CertificateDer<'static>>>,
    /// The gateway's own certificate.
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Clone for TargetTls {
    fn clone(&self) -> Self {
        let client = self.client.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        Self { ca: self.ca.clone(), client }
    }
}

impl std::fmt::Debug for TargetTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let roots = self.ca.as_ref().map(Vec::len);
        write!(f, "TargetTls(roots: {roots:?}, client certificate: {})", self.client.is_some())
    }
}

/// What is wrong with the TLS settings of a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetTlsError {
    /// A file cannot be read, or holds no such thing.
    #[error("target_tls.{key} = {path:?}: {reason}")]
    File {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// One without the other.
    #[error("target_tls.certificate and target_tls.private_key belong together")]
    Half,
    /// They do not fit each other, or rustls takes none of it.
    #[error("target_tls: {reason}")]
    Unusable {
        /// Why.
        reason: String,
    },
}

impl TargetTls {
    /// Reads the PEM files of `target_tls`.
    ///
    /// # Errors
    /// A file is missing, empty or no PEM, or a certificate comes without its key.
    pub fn load(
        ca: Option<&Path>,
        certificate: Option<&Path>,
        private_key: Option<&Path>,
    ) -> Result<Self, TargetTlsError> {
        let ca = ca.map(|path| certificates("ca", path)).transpose()?;
        let client = match (certificate, private_key) {
            (None, None) => None,
            (Some(certificate), Some(private_key)) => {
                let key = PrivateKeyDer::from_pem_file(private_key)
                    .map_err(|error| unreadable("private_key", private_key, &error))?;
                Some((certificates("certificate", certificate)?, key))
            }
            _ => return Err(TargetTlsError::Half),
        };
        Ok(Self { ca, client })
    }

    /// What `sslmode` makes of these certificates. `alpn` are the protocol's names in TLS, which keep another service's
    /// certificate and port from standing in; none is offered where there is none.
    ///
    /// # Errors
    /// rustls takes none of it.
    pub fn client_config(
        &self,
        sslmode: SslMode,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, TargetTlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = self.verifier(sslmode, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(unusable)?
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // A resumed stream would bind SCRAM to the certificate of an earlier one.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn verifier(
        &self,
        sslmode: SslMode,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TargetTlsError> {
        let names = match (sslmode, &self.ca) {
            (SslMode::Disable | SslMode::Require, None) => {
                return Ok(Arc::new(AnyCertificate(Arc::clone(provider))));
            }
            (SslMode::VerifyFull, _) => true,
            (SslMode::Disable | SslMode::Require | SslMode::VerifyCa, _) => false,
        };
        let inner: Arc<dyn ServerCertVerifier> = match &self.ca {
            None => {
                Arc::new(rustls_platform_verifier::Verifier::new(Arc::clone(provider)).map_err(unusable)?)
            }
            Some(roots) => {
                let mut store = RootCertStore::empty();
                for root in roots {
                    store.add(root.clone()).map_err(unusable)?;
                }
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                    .build()
                    .map_err(unusable)?
            }
        };
        Ok(Arc::new(TrustedCertificate { inner, pinned: self.ca.clone().unwrap_or_default(), names }))
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TargetTlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(key, path, &error))?;
    match found.is_empty() {
        true => Err(unreadable(key, path, &"it holds no certificate")),
        false => Ok(found),
    }
}

fn unreadable(key: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> TargetTlsError {
    TargetTlsError::File { key, path: path.to_owned(), reason: reason.to_string() }
}

fn unusable(error: impl std::fmt::Display) -> TargetTlsError {
    TargetTlsError::Unusable { reason: error.to_string() }
}

/// Takes a certificate that chains to a root, or is itself in the `ca` file (a server that signed its own).
#[derive(Debug)]
struct TrustedCertificate {
    inner: Arc<dyn ServerCertVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    /// Whether it must be for the target's host, too.
    names: bool,
}

impl TrustedCertificate {
    fn pinned(
        &self,
        end_entity: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let bad = |_| TlsError::InvalidCertificate(CertificateError::BadEncoding);
        let (_, certificate) = X509Certificate::from_der(end_entity).map_err(|_| bad(()))?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < certificate.validity().not_before.timestamp() {
            return Err(TlsError::InvalidCertificate(CertificateError::NotValidYet));
        }
        if now > certificate.validity().not_after.timestamp() {
            return Err(TlsError::InvalidCertificate(CertificateError::Expired));
        }
        if self.names {
            let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for TrustedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) {
            return self.pinned(end_entity, server_name, now);
        }
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // rustls checks the name last, so the chain is good here.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Takes any certificate whose key the peer holds (`sslmode=require`).
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
