//! The configuration: TOML in, checked settings out; every mistake at once, with its place and what to write instead.
//!
//! `check` and `serve` run the same code. What the contract has and this version not yet is refused with just that
//! said. Paths are relative to the configuration's folder.

mod connections;
mod identity;
pub(crate) mod reader;
mod secret;
mod sections;
mod sinks;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use toml::de::DeTable;

use crate::Interceptors;
use crate::records::Record;
pub(crate) use connections::Connection;
pub(crate) use reader::Mistake;
use reader::{Document, Table};
pub(crate) use sections::{Gateway, Limits, Listen, LogFormat, Recheck, TlsFiles, is_loopback};
pub(crate) use sinks::{SinkSettings, SinkType};

/// The largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// Where `--config` points when nobody says.
pub(crate) const PLACES: [&str; 2] = ["verbatim.toml", "/etc/verbatim/verbatim.toml"];

/// Everything that a gateway is told.
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    /// What it was read with.
    pub(crate) interceptors: Interceptors,
    /// SHA-256 of the file, for the record.
    pub(crate) digest: [u8; 32],
    pub(crate) gateway: Gateway,
    pub(crate) limits: Limits,
    pub(crate) ledger: verbatim_ledger::Settings,
    pub(crate) listen: Listen,
    pub(crate) recheck: Recheck,
    pub(crate) identity: verbatim_entra::Settings,
    pub(crate) connections: Vec<Connection>,
    pub(crate) sinks: Vec<SinkSettings>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It could not be read.
    #[error("{path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    /// It has mistakes.
    #[error("{}", list(.0))]
    Mistakes(Vec<Mistake>),
}

fn list(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads and checks the file.
    pub(crate) fn read(path: &Path, interceptors: &Interceptors) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.display().to_string(), source };
        let length = std::fs::metadata(path).map_err(unreadable)?.len();
        if length > FILE_BYTES_MAX {
            return Err(unreadable(std::io::Error::other("larger than a configuration may be (8 MiB)")));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(path, &text, interceptors).map_err(ConfigError::Mistakes)
    }

    /// Checks a text as if it stood in `path`.
    pub(crate) fn parse(path: &Path, text: &str, interceptors: &Interceptors) -> Result<Self, Vec<Mistake>> {
        let document = Document::new(&path.display().to_string(), text);
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            document.mistake(offset, "", error.message().trim());
        }
        // What cannot be read would only be said again as what is missing.
        if !document.is_clean() {
            return Err(document.into_mistakes());
        }
        let read = Self::sections(
            &Table::new(&document, String::new(), 0, root.get_ref()),
            path,
            text,
            interceptors,
        );
        match read {
            Some(config) if document.is_clean() => Ok(config),
            _ => Err(document.into_mistakes()),
        }
    }

    /// Every section; none where one can't be made sense of. Mistakes are in the document either way.
    fn sections(root: &Table<'_, '_>, path: &Path, text: &str, interceptors: &Interceptors) -> Option<Self> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let gateway = sections::gateway(root, folder);
        let limits = sections::limits(root);
        let (listen, mut places) = sections::listen(root, interceptors);
        let ledger = gateway.as_ref().map(|gateway| sections::ledger(root, folder, gateway));
        let (mut identity, recheck) = identity::read(root, folder, &limits);
        let connections = connections::read(root, folder, interceptors);
        let sinks = sinks::read(root, folder);
        identity::check_names(&mut identity, &connections);
        places.extend(connections.iter().flat_map(|draft| draft.listen.clone()));
        sections::check_listeners(root, gateway.as_ref(), &listen, &places);
        let sink_names = sinks::names(root);
        let connections = connections::finish(connections, &sink_names, &sinks);
        root.not_yet(&["admin", "store", "notify", "client"]);
        root.finish();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        Some(Self {
            path: path.to_owned(),
            interceptors: interceptors.clone(),
            digest: digest.as_ref().try_into().ok()?,
            gateway: gateway?,
            limits,
            ledger: ledger?,
            listen,
            recheck,
            identity,
            connections,
            sinks: sinks.into_iter().map(|(sink, _)| sink).collect(),
        })
    }

    /// The connections' own listeners.
    pub(crate) fn own_listeners(&self) -> impl Iterator<Item = (&Connection, SocketAddr)> {
        self.connections
            .iter()
            .flat_map(|connection| connection.listen.iter().map(move |address| (connection, *address)))
    }

    /// The record that it points to.
    pub(crate) fn record(&self) -> Record {
        Record { data_dir: self.gateway.data_dir.clone(), labels: self.interceptors.labels() }
    }

    /// How long the gateway waits for running operations after SIGTERM.
    pub(crate) fn drain(&self) -> Duration {
        self.gateway.drain
    }
}

/// Where the record is, by this configuration: all that reading it needs, so that it needs no secret.
pub(crate) fn data_dir(path: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let table: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let data_dir =
        table.get("gateway").and_then(|gateway| gateway.get("data_dir")).and_then(toml::Value::as_str);
    let data_dir = data_dir.with_context(|| format!("{}: [gateway] data_dir is missing", path.display()))?;
    Ok(path.parent().unwrap_or(Path::new("")).join(data_dir))
}

#[cfg(test)]
mod tests;
