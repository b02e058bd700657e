//! `init`: a commented configuration to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

/// What is written; a test reads it back.
pub(crate) const STARTER: &str = include_str!("starter.toml");

/// Writes the starter configuration, never over a file that is there.
pub(crate) fn run(path: Option<PathBuf>) -> Result<ExitCode> {
    let path = path.unwrap_or_else(|| PathBuf::from("verbatim.toml"));
    match OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path) {
        Ok(mut file) => file.write_all(STARTER.as_bytes()).with_context(|| path.display().to_string())?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            eprintln!("{} is there already; nothing was written", path.display());
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    eprintln!("wrote {0}; fill in what is marked, then run: verbatim check --config {0}", path.display());
    Ok(ExitCode::SUCCESS)
}
