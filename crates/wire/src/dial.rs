//! How a target is reached, where TLS stands from the first byte.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use crate::{HostPort, InvalidTarget, SslMode, TargetStream, TargetTls, TargetUrl, connect_tcp};

/// Where a target is, and how the stream there is protected.
pub struct Dial {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Dial {
    /// What a URL and `target_tls` say; `port` stands for one that is left out. For `alpn` see
    /// [`TargetTls::client_config`].
    ///
    /// # Errors
    /// The host is none that TLS can check, or the certificates are of no use.
    pub fn new(url: &TargetUrl, port: u16, tls: &TargetTls, alpn: &[&[u8]]) -> Result<Self, InvalidTarget> {
        let tls = match url.sslmode_or_default() {
            SslMode::Disable => None,
            sslmode => {
                let name = ServerName::try_from(url.host.clone())
                    .map_err(|_| InvalidTarget::Host { host: url.host.clone() })?;
                Some((tls.client_config(sslmode, alpn)?, name))
            }
        };
        Ok(Self { host: url.host.clone(), port: url.port.unwrap_or(port), tls })
    }

    /// Opens a stream. How long that may take is the caller's to say.
    ///
    /// # Errors
    /// The target cannot be reached, or its certificate is not trusted.
    pub async fn connect(&self) -> io::Result<TargetStream> {
        let tcp = connect_tcp(&self.host, self.port).await?;
        let Some((config, name)) = &self.tls else { return Ok(TargetStream::Plain(tcp)) };
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
        Ok(TargetStream::Tls(Box::new(connector.connect(name.clone(), tcp).await?)))
    }
}

/// `host:port`, as the record names targets.
impl fmt::Display for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HostPort(&self.host, self.port).fmt(f)
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dial({self}, TLS {})", self.tls.is_some())
    }
}
