//! A target: its URL, how the gateway proves itself there, and streams to it.
//!
//! `http://host[:port][/path]` or `https://…`; of `https` the certificate is verified (`?sslmode=require` or `verify-ca`
//! weaken that, as elsewhere), HTTP/2 is offered by ALPN. To an `http` target HTTP/1.1 is spoken, or HTTP/2 with prior
//! knowledge for a gRPC request that came by HTTP/2. The credential is in no error and no `Debug`.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use verbatim_core::BoxFuture;
use verbatim_wire::{
    HostPort, InvalidTarget, SslMode, Target, TargetSettings, TargetStream, TargetUrl, connect_tcp,
};

use crate::body::TargetBody;

/// What `[[connection]]` may say beside what all have.
pub(crate) const OPTIONS: &[&str] = &["hosts", "credential_as", "tools_changed"];
const H2: &[u8] = b"h2";
const HTTP_11: &[u8] = b"http/1.1";
/// How many header lines an answer may have.
const FIELDS_MAX: usize = 256;
/// What an HTTP/2 stream, and all of a connection's together, may have under way.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What happens to a tool whose description has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ToolsChanged {
    /// The change is recorded.
    #[default]
    Record,
    /// And its calls are refused. Also what `approve` is, as long as there are no approvals.
    Refuse,
}

/// An HTTP server, and how the gateway proves itself there.
pub(crate) struct HttpTarget {
    pub(crate) kind: &'static str,
    host: String,
    port: u16,
    /// Goes before every path; empty, or `/…` without a slash at its end.
    pub(crate) prefix: String,
    /// What `Host` says.
    pub(crate) authority: HeaderValue,
    secure: bool,
    /// The configuration that offers HTTP/2, and the one that does not.
    tls: Option<(Arc<ClientConfig>, Arc<ClientConfig>, ServerName<'static>)>,
    /// The field that the credential stands in.
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    /// Hosts whose requests are for this connection, in lower case.
    pub(crate) hosts: Vec<String>,
    pub(crate) tools_changed: ToolsChanged,
    connect_timeout: Duration,
}

impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpTarget({}, credential: {})", self.url(), self.credential.is_some())
    }
}

/// Why there is no stream to the target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the target cannot be reached: {0}")]
    Unreachable(io::Error),
    #[error("no TLS with the target: {0}")]
    Tls(io::Error),
    #[error("the target did not take the connection within {0:?}")]
    Timeout(Duration),
    #[error("the target does not speak HTTP: {0}")]
    Handshake(hyper::Error),
}

/// How requests are sent on a new stream.
pub(crate) enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<TargetBody>),
    Http2(hyper::client::conn::http2::SendRequest<TargetBody>),
}

/// Which version a stream is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What ALPN settles on; HTTP/1.1 without TLS.
    Any,
    /// An upgrade needs it.
    Http1,
    /// gRPC needs it.
    Http2,
}

impl HttpTarget {
    pub(crate) fn new(settings: TargetSettings<'_>) -> Result<Self, InvalidTarget> {
        let url = TargetUrl::parse(settings.url, &["http", "https"])?;
        let secure = url.scheme == "https";
        let sslmode = match (secure, url.sslmode) {
            (true, None) => SslMode::VerifyFull,
            (true, Some(SslMode::Disable)) => {
                return Err(other("https:// is TLS: leave sslmode=disable out"));
            }
            (true, Some(mode)) => mode,
            (false, None | Some(SslMode::Disable)) => SslMode::Disable,
            (false, Some(_)) => return Err(other("http:// has no TLS: write https://")),
        };
        let tls = if secure {
            let name = ServerName::try_from(url.host.clone())
                .map_err(|_| InvalidTarget::Host { host: url.host.clone() })?;
            let both = settings.tls.client_config(sslmode, &[H2, HTTP_11])?;
            Some((both, settings.tls.client_config(sslmode, &[HTTP_11])?, name))
        } else {
            None
        };
        let port = url.port.unwrap_or(if secure { 443 } else { 80 });
        let authority = match url.port {
            None if url.host.contains(':') => format!("[{}]", url.host),
            None => url.host.clone(),
            Some(port) => HostPort(&url.host, port).to_string(),
        };
        let options = Options::read(&settings);
        Ok(Self {
            kind: settings.kind,
            prefix: prefix(settings.url)?,
            authority: HeaderValue::try_from(authority)
                .map_err(|_| InvalidTarget::Host { host: url.host.clone() })?,
            credential: options.credential(settings.credential.as_ref(), url.user.as_deref())?,
            host: url.host,
            port,
            secure,
            tls,
            hosts: options.hosts,
            tools_changed: options.tools_changed,
            connect_timeout: settings.connect_timeout,
        })
    }

    /// Without user and query.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.authority.to_str().unwrap_or_default(), self.prefix)
    }

    pub(crate) const fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Opens a stream, ready for requests.
    pub(crate) async fn connect(&self, wanted: Wanted) -> Result<Sender, ConnectError> {
        match tokio::time::timeout(self.connect_timeout, self.open(wanted)).await {
            Ok(sender) => sender,
            Err(_) => Err(ConnectError::Timeout(self.connect_timeout)),
        }
    }

    async fn open(&self, wanted: Wanted) -> Result<Sender, ConnectError> {
        let tcp = connect_tcp(&self.host, self.port).await.map_err(ConnectError::Unreachable)?;
        let Some((any, http1, name)) = &self.tls else {
            let stream = TargetStream::Plain(tcp);
            return match wanted {
                Wanted::Http2 => http2(stream).await,
                Wanted::Any | Wanted::Http1 => http1_sender(stream).await,
            };
        };
        let config = if wanted == Wanted::Http1 { http1 } else { any };
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        let tls = connector.connect(name.clone(), tcp).await.map_err(ConnectError::Tls)?;
        let h2 = tls.get_ref().1.alpn_protocol() == Some(H2);
        let stream = TargetStream::Tls(Box::new(tls));
        if h2 { http2(stream).await } else { http1_sender(stream).await }
    }
}

async fn http1_sender(stream: TargetStream) -> Result<Sender, ConnectError> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.preserve_header_case(true).max_headers(FIELDS_MAX);
    let (sender, stream) = builder.handshake(TokioIo::new(stream)).await.map_err(ConnectError::Handshake)?;
    tokio::spawn(async move {
        if let Err(error) = stream.with_upgrades().await {
            tracing::debug!(%error, "a stream to a target ended");
        }
    });
    Ok(Sender::Http1(sender))
}

async fn http2(stream: TargetStream) -> Result<Sender, ConnectError> {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let (sender, stream) = builder.handshake(TokioIo::new(stream)).await.map_err(ConnectError::Handshake)?;
    tokio::spawn(async move {
        if let Err(error) = stream.await {
            tracing::debug!(%error, "a stream to a target ended");
        }
    });
    Ok(Sender::Http2(sender))
}

impl Target for HttpTarget {
    fn display(&self) -> String {
        self.url()
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            let sender = self.connect(Wanted::Any).await.map_err(|error| error.to_string())?;
            let path = if self.prefix.is_empty() { "/" } else { &self.prefix };
            let mut request = http::Request::new(TargetBody::Empty);
            *request.method_mut() = http::Method::HEAD;
            let words = |_| "the target's URL makes no request".to_owned();
            if let Some((name, value)) = &self.credential {
                request.headers_mut().insert(name.clone(), value.clone());
            }
            let answer = match sender {
                Sender::Http1(mut sender) => {
                    *request.uri_mut() = path.parse().map_err(words)?;
                    request.headers_mut().insert(http::header::HOST, self.authority.clone());
                    sender.send_request(request).await
                }
                Sender::Http2(mut sender) => {
                    let root = format!("{}://{}", self.scheme(), self.authority.to_str().unwrap_or_default());
                    *request.uri_mut() = format!("{root}{path}").parse().map_err(words)?;
                    sender.send_request(request).await
                }
            };
            let answer = answer.map_err(|error| format!("no answer: {error}"))?;
            match answer.status().as_u16() {
                status @ (401 | 403 | 407) => {
                    Err(format!("it answered {status}: the credential is not taken"))
                }
                status => Ok(format!("{:?}, status {status}", answer.version())),
            }
        })
    }
}

/// What `[[connection]]` says for HTTP alone.
struct Options {
    hosts: Vec<String>,
    tools_changed: ToolsChanged,
    credential_as: CredentialAs,
}

#[derive(Debug, PartialEq, Eq)]
enum CredentialAs {
    Bearer,
    Basic,
    Header(HeaderName),
}

impl Options {
    fn read(settings: &TargetSettings<'_>) -> Self {
        let options = settings.options;
        let mut hosts = Vec::new();
        for host in options.list("hosts").unwrap_or_default() {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            if host.is_empty() || !host.bytes().all(legal) {
                options.mistake("hosts", format!("{host:?} is no host name (without port or path)"));
            }
            hosts.push(host.to_ascii_lowercase());
        }
        let tools_changed = match options.word("tools_changed", &["record", "approve", "refuse"]) {
            Some(_) if settings.kind != "mcp" => {
                options.mistake("tools_changed", "only a connection of type \"mcp\" has tools".to_owned());
                ToolsChanged::Record
            }
            Some("approve" | "refuse") => ToolsChanged::Refuse,
            _ => ToolsChanged::Record,
        };
        let credential_as = match options.text("credential_as").as_deref() {
            None | Some("bearer") => CredentialAs::Bearer,
            Some("basic") => CredentialAs::Basic,
            Some(text) => match text.strip_prefix("header:").and_then(|name| name.parse().ok()) {
                Some(name) if !is_framing(&name) => CredentialAs::Header(name),
                _ => {
                    let expected = "\"bearer\", \"basic\" or \"header:NAME\" is expected".to_owned();
                    options.mistake("credential_as", expected);
                    CredentialAs::Bearer
                }
            },
        };
        Self { hosts, tools_changed, credential_as }
    }

    fn credential(
        &self,
        credential: Option<&SecretString>,
        user: Option<&str>,
    ) -> Result<Option<(HeaderName, HeaderValue)>, InvalidTarget> {
        if user.is_some() && self.credential_as != CredentialAs::Basic {
            return Err(other("a user in the URL goes with credential_as = \"basic\""));
        }
        let Some(credential) = credential.map(ExposeSecret::expose_secret) else { return Ok(None) };
        let (name, value) = match &self.credential_as {
            CredentialAs::Bearer => (AUTHORIZATION, format!("Bearer {credential}")),
            CredentialAs::Header(name) => (name.clone(), credential.to_owned()),
            CredentialAs::Basic => {
                let pair = match user {
                    Some(user) => format!("{user}:{credential}"),
                    None if credential.contains(':') => credential.to_owned(),
                    None => {
                        return Err(other(
                            "credential_as = \"basic\" needs a user in the URL, or user:password as the credential",
                        ));
                    }
                };
                let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
                (AUTHORIZATION, format!("Basic {encoded}"))
            }
        };
        let mut value =
            HeaderValue::try_from(value).map_err(|_| other("the credential holds what no header can"))?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }
}

/// Fields that hyper writes.
fn is_framing(name: &HeaderName) -> bool {
    use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
    [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE].contains(name)
}

/// The URL's path as written.
fn prefix(url: &str) -> Result<String, InvalidTarget> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let path = rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    let legal = http::uri::PathAndQuery::try_from(path).is_ok_and(|legal| legal.path() == path);
    if legal { Ok(path.to_owned()) } else { Err(other("the path of the URL is not percent-encoded")) }
}

fn other(reason: &str) -> InvalidTarget {
    InvalidTarget::Other { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given(Option<&'static str>);

    impl verbatim_wire::Options for Given {
        fn word(&self, _: &'static str, _: &[&'static str]) -> Option<&'static str> {
            None
        }
        fn text(&self, key: &'static str) -> Option<String> {
            self.0.filter(|_| key == "credential_as").map(str::to_owned)
        }
        fn list(&self, _: &'static str) -> Option<Vec<String>> {
            None
        }
        fn mistake(&self, key: &'static str, message: String) {
            panic!("{key}: {message}");
        }
    }

    fn target(url: &str, credential: Option<&str>, how: Option<&'static str>) -> Result<HttpTarget, String> {
        let settings = TargetSettings {
            kind: "http",
            url,
            credential: credential.map(|credential| SecretString::from(credential.to_owned())),
            tls: verbatim_wire::TargetTls::default(),
            connect_timeout: Duration::from_secs(1),
            options: &Given(how),
        };
        HttpTarget::new(settings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_is_read_and_shown_without_what_is_secret() {
        let plain = target("http://api.internal:8080/v1/", Some("t0ken"), None).unwrap();
        assert_eq!((plain.url().as_str(), plain.prefix.as_str()), ("http://api.internal:8080/v1", "/v1"));
        assert_eq!(plain.credential.as_ref().unwrap().1, "Bearer t0ken");
        assert!(!format!("{plain:?}").contains("t0ken"));
        let secure = target("https://[::1]", None, None).unwrap();
        assert_eq!((secure.authority.to_str().unwrap(), secure.port), ("[::1]", 443));
        let basic = target("http://ada@api/", Some("pw"), Some("basic")).unwrap();
        assert_eq!(basic.credential.as_ref().unwrap().1, "Basic YWRhOnB3");
        let header = target("http://api/", Some("k"), Some("header:X-Api-Key")).unwrap();
        assert_eq!(header.credential.as_ref().unwrap().0, "x-api-key");
    }

    #[test]
    fn mistakes_have_words() {
        for (url, credential, how) in [
            ("ftp://a", None, None),
            ("http://ada:pw@a", None, None),
            ("http://ada@a", None, None),
            ("http://a", Some("pw"), Some("basic")),
            ("http://a", Some("a\nb"), None),
            ("http://a?sslmode=require", None, None),
            ("https://a?sslmode=disable", None, None),
            ("http://a/ä b", None, None),
        ] {
            let error = target(url, credential, how).err().unwrap();
            assert!(!error.contains("pw"), "{error}");
        }
    }
}
