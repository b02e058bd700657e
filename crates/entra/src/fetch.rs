//! The one HTTP client: no redirects, bounded answers, https but on loopback.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::settings::{Common, Roots, SettingsError};

/// The longest answer that is read, in bytes: 1,000 keys with their certificates, or 11,000 group ids.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Fetches documents from issuers and directories.
#[derive(Debug)]
pub(crate) struct Fetcher {
    /// For hosts that the system's proxy settings apply to.
    outside: Client,
    /// For loopback, which no proxy can reach.
    loopback: Client,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The seconds of `Retry-After`; a date is not understood.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

/// Why there is no answer. The text is for the operator; it holds no part of what was sent.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{host} cannot be reached: {problem}")]
    Unreachable { host: String, problem: String },
    #[error("{host} answered with status {status}")]
    Status { host: String, status: u16 },
    #[error("{host} sent more than {ANSWER_BYTES_MAX} bytes")]
    TooLong { host: String },
    #[error("{host} sent no usable document: {problem}")]
    Document { host: String, problem: String },
}

impl Fetcher {
    pub(crate) fn new(common: &Common) -> Result<Self, SettingsError> {
        let tls = tls(roots(&common.ca)?)?;
        let client = || {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .timeout(common.timeout)
                .connect_timeout(common.timeout)
                .user_agent("verbatim")
        };
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| SettingsError::Client { problem: error.to_string() })
        };
        Ok(Self { outside: build(client())?, loopback: build(client().no_proxy())? })
    }

    pub(crate) fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        let client = if is_loopback(url) { &self.loopback } else { &self.outside };
        client.request(method, url.clone())
    }

    /// Sends a request and reads its whole answer, whatever its status.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; nothing else is left behind.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer, FetchError> {
        let mut response = request.send().await.map_err(|error| unreachable(&error))?;
        let host = host(response.url());
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(FetchError::TooLong { host });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }

    /// Gets a document that must be there.
    pub(crate) async fn document(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let answer = self.send(self.request(Method::GET, url)).await?;
        if answer.status != StatusCode::OK {
            return Err(FetchError::Status { host: host(url), status: answer.status.as_u16() });
        }
        Ok(answer.body)
    }
}

/// The host and port, for messages.
pub(crate) fn host(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::from("?"),
    }
}

fn unreachable(error: &reqwest::Error) -> FetchError {
    let mut problem = String::new();
    // reqwest says the reason in its sources alone, and the URL, which we have, in itself.
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        problem = cause.to_string();
        source = cause.source();
    }
    if error.is_timeout() {
        problem = String::from("no answer in time");
    } else if problem.is_empty() {
        problem = String::from("the connection failed");
    }
    FetchError::Unreachable { host: error.url().map_or_else(|| String::from("?"), host), problem }
}

/// Reads a URL that the configuration or a discovery document gave.
pub(crate) fn checked_url(text: &str) -> Result<Url, SettingsError> {
    let wrong = |problem| SettingsError::Url { url: text.to_owned(), problem };
    let url = Url::parse(text).map_err(|_| wrong("not a URL"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err(wrong("https is needed anywhere but on loopback")),
        _ => return Err(wrong("https is needed")),
    }
    if url.host_str().is_none() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a host and no user are needed"));
    }
    if url.fragment().is_some() {
        return Err(wrong("a fragment means nothing here"));
    }
    Ok(url)
}

/// Whether the host is this machine by its address, or by the one name that always means it.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// TLS that trusts the system's authorities and these.
fn tls(extra: Vec<CertificateDer<'static>>) -> Result<rustls::ClientConfig, SettingsError> {
    let problem = |error: rustls::Error| SettingsError::Roots { problem: error.to_string() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(problem)?;
    let nothing_asked = extra.is_empty();
    match rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider) {
        Ok(verifier) => {
            Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
        }
        // A bare container has no authorities. Then nobody is trusted, which matters only where https is used.
        Err(error) if nothing_asked => {
            tracing::warn!(%error, "the system has no certificate authorities: every https host will be refused");
            Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        }
        Err(error) => Err(problem(error)),
    }
}

fn roots(roots: &Roots) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let problem = |problem: String| SettingsError::Roots { problem };
    let certificates: Vec<_> = match roots {
        Roots::None => return Ok(Vec::new()),
        Roots::Der(list) => list.iter().cloned().map(CertificateDer::from).collect(),
        Roots::Pem(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| problem(format!("{}: {error}", path.display())))?,
    };
    if certificates.is_empty() {
        return Err(problem(String::from("the file holds no certificate")));
    }
    // The platform verifier skips what it cannot read; a certificate that was asked for must count.
    let mut store = rustls::RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|error| problem(error.to_string()))?;
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_loopback() {
        for good in
            ["https://login.example", "http://127.0.0.1:9000", "http://[::1]:1/x", "http://localhost:9"]
        {
            assert!(checked_url(good).is_ok(), "{good}");
        }
        for wrong in [
            "http://login.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "https://user@login.example",
            "https://login.example/#x",
            "http://localhost.example",
            "nothing",
        ] {
            assert!(checked_url(wrong).is_err(), "{wrong}");
        }
    }
}
