//! The HTTP client of the sinks that speak it: the system's trust and a file beside it, no redirects, deadlines.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

/// How long a TCP and TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a request may take, its answer included.
const REQUEST: Duration = Duration::from_secs(60);

/// How much of an answer is read: 64 KiB.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificates in `ca` cannot be read.
    #[error("the certificates in `ca`: {0}")]
    Certificates(String),
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The client cannot be made.
    #[error("the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// TLS that trusts what the system trusts and, if given, the certificates in `ca` (PEM). The provider is aws-lc-rs,
/// whatever the process has installed.
///
/// # Errors
/// `ca` holds no certificates, or the system's trust cannot be loaded.
pub fn tls(ca: Option<&[u8]>) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = match ca {
        None => Vec::new(),
        Some(pem) => CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ClientError::Certificates(error.to_string()))?,
    };
    if ca.is_some() && roots.is_empty() {
        return Err(ClientError::Certificates("no certificate in the file".to_owned()));
    }
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// A client over `tls`. It follows no redirect, which would carry the credential to another host.
///
/// # Errors
/// The client cannot be made.
pub fn http(tls: ClientConfig) -> Result<reqwest::Client, ClientError> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .user_agent(concat!("verbatim/", env!("CARGO_PKG_VERSION")))
        .build()?;
    Ok(client)
}

/// The beginning of an answer's body.
pub(crate) async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = ANSWER_BYTES_MAX.saturating_sub(body.len());
        body.extend(chunk.iter().take(room));
        if room <= chunk.len() {
            break;
        }
    }
    Ok(body)
}
