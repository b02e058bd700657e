//! The gateway's own certificate: read from files, and read again when they change.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use verbatim_wire::TlsSource;

use crate::config::TlsFiles;

/// The certificate in force.
pub(crate) struct Certificate {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

impl Certificate {
    pub(crate) fn load(files: &TlsFiles) -> Result<Self> {
        Ok(Self { files: files.clone(), config: ArcSwap::from_pointee(server_config(files)?) })
    }

    /// What the next handshake uses.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// What the handshakes of a protocol use, with its names in ALPN: made anew when the certificate was replaced.
    pub(crate) fn source(self: &Arc<Self>, alpn: &'static [&'static [u8]]) -> TlsSource {
        let certificate = Arc::clone(self);
        let made: ArcSwapOption<(Arc<ServerConfig>, Arc<ServerConfig>)> = ArcSwapOption::empty();
        Arc::new(move || {
            let base = certificate.config();
            if let Some(made) = &*made.load()
                && Arc::ptr_eq(&made.0, &base)
            {
                return Arc::clone(&made.1);
            }
            let mut own = ServerConfig::clone(&base);
            own.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
            let own = Arc::new(own);
            made.store(Some(Arc::new((base, Arc::clone(&own)))));
            own
        })
    }

    /// Reads the files again; with a mistake in them, the old certificate stays.
    pub(crate) fn reload(&self) -> Result<()> {
        self.config.store(Arc::new(server_config(&self.files)?));
        Ok(())
    }

    pub(crate) const fn files(&self) -> &TlsFiles {
        &self.files
    }
}

/// Reads a certificate chain and its key, and checks that they belong together.
pub(crate) fn server_config(files: &TlsFiles) -> Result<ServerConfig> {
    let chain = read(&files.certificate)?;
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{}: not a PEM certificate", files.certificate.display()))?;
    ensure!(!chain.is_empty(), "{}: there is no certificate in it", files.certificate.display());
    let key = PrivateKeyDer::from_pem_slice(&read(&files.private_key)?)
        .with_context(|| format!("{}: not a PEM private key", files.private_key.display()))?;
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and the private key don't go together")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
