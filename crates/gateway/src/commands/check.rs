//! `check`: whether the configuration is right, and with `--connect` whether everything can be reached.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use verbatim_core::Token;
use verbatim_entra::Providers;

use crate::Interceptors;
use crate::config::Config;
use crate::delivery;

/// Reads the configuration, then does what was asked beyond that.
pub(crate) fn run(
    path: Option<PathBuf>,
    interceptors: &Interceptors,
    connect: bool,
    token: Option<&Path>,
) -> Result<ExitCode> {
    let config = match super::read_config(path, interceptors) {
        Ok(config) => config,
        Err(status) => return Ok(status),
    };
    let (connections, sinks) = (config.connections.len(), config.sinks.len());
    eprintln!("{}: right ({connections} connections, {sinks} sinks)", config.path.display());
    if !connect && token.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut failures = 0;
    if let Some(file) = token {
        failures += runtime.block_on(lacking(&config, file))?;
    }
    if connect {
        failures += runtime.block_on(reach(&config))?;
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what a sample token lacks; returns how much that is.
async fn lacking(config: &Config, file: &Path) -> Result<usize> {
    let mut bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    bytes.truncate(bytes.trim_ascii_end().len());
    let providers = Providers::new(config.identity.clone())?;
    let lacks = providers.lacking(&Token::new(bytes));
    if lacks.is_empty() {
        println!("ok    token: has everything");
    }
    for lack in &lacks {
        println!("FAIL  token: {lack}");
    }
    Ok(lacks.len())
}

/// Reaches everything that is configured, and says line by line what came of it; returns how much failed.
async fn reach(config: &Config) -> Result<usize> {
    let mut failures = 0;
    let mut say = |what: String, outcome: Result<String, String>| match outcome {
        Ok(found) => println!("ok    {what}: {found}"),
        Err(wrong) => {
            failures += 1;
            println!("FAIL  {what}: {wrong}");
        }
    };
    for result in Providers::new(config.identity.clone())?.check().await {
        say(result.what, result.outcome);
    }
    for connection in &config.connections {
        let what = format!("connection {} ({})", connection.name, connection.target.display());
        say(what, connection.target.check().await);
    }
    for settings in &config.sinks {
        let reached = match delivery::sink(settings, &config.gateway.node) {
            Ok(sink) => sink.check().await.map_err(|error| error.to_string()),
            Err(error) => Err(format!("{error:#}")),
        };
        say(format!("sink {}", settings.name), reached.map(|()| "reached".to_owned()));
    }
    Ok(failures)
}
