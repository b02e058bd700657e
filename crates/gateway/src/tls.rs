//! The gateway's own certificate: read from files, and read again when they change.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// The protocol name that PostgreSQL clients offer with direct TLS.
const ALPN_POSTGRES: &[u8] = b"postgresql";

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
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and the private key don't go together")?;
    config.alpn_protocols = vec![ALPN_POSTGRES.to_vec()];
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
