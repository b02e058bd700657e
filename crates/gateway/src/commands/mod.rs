//! One file a command; each returns the process's exit status.

pub(crate) mod check;
pub(crate) mod init;
pub(crate) mod records;
pub(crate) mod sinks;
pub(crate) mod verify;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::Interceptors;
use crate::config::{Config, ConfigError, PLACES};

/// Usage or configuration.
pub(crate) const USAGE: u8 = 2;

/// The configuration that is asked for, or the first place that has one.
pub(crate) fn config_path(asked: Option<PathBuf>) -> PathBuf {
    asked.unwrap_or_else(|| {
        let there = PLACES.iter().map(PathBuf::from).find(|path| path.exists());
        there.unwrap_or_else(|| PathBuf::from("verbatim.toml"))
    })
}

/// Reads the configuration, or says what is wrong with it.
pub(crate) fn read_config(asked: Option<PathBuf>, interceptors: &Interceptors) -> Result<Config, ExitCode> {
    Config::read(&config_path(asked), interceptors).map_err(|error| {
        match &error {
            ConfigError::Unreadable { .. } => {
                eprintln!("{error}\nhint: `verbatim init` writes a configuration to begin with");
            }
            ConfigError::Mistakes(mistakes) => {
                let count = mistakes.len();
                eprintln!("{error}\n{count} mistake{}", if count == 1 { "" } else { "s" });
            }
        }
        ExitCode::from(USAGE)
    })
}

/// Copies a document to standard output and ends it with a line break.
pub(crate) fn print_document(mut document: impl Read) -> Result<()> {
    let mut out = std::io::stdout().lock();
    std::io::copy(&mut document, &mut out)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}
