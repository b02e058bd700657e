//! `sinks status` and `sinks replay`.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use verbatim_core::Timestamp;

use crate::Interceptors;
use crate::control;
use crate::delivery;
use crate::records::Question;
use crate::render;

/// What each sink has got: of a running gateway from itself, of a stopped one from its cursors.
pub(crate) fn status(config: Option<PathBuf>, interceptors: &Interceptors, json: bool) -> Result<ExitCode> {
    let mut document = Vec::new();
    match control::ask(&data_dir(&config)?, &Question::SinksStatus)? {
        Some(mut answer) => {
            answer.read_to_end(&mut document)?;
        }
        // Which sinks there are is in the configuration alone.
        None => match super::read_config(config, interceptors) {
            Ok(config) => document = serde_json::to_vec(&delivery::status_from_files(&config)?)?,
            Err(status) => return Ok(status),
        },
    }
    if json {
        super::print_document(&*document)?;
    } else {
        render::sinks(&document)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends events again, from a time or from the beginning.
pub(crate) fn replay(
    config: Option<PathBuf>,
    interceptors: &Interceptors,
    name: &str,
    from: Option<Timestamp>,
) -> Result<ExitCode> {
    let question = Question::SinksReplay { name: name.to_owned(), from: from.map(|from| from.to_string()) };
    let begins = match control::ask(&data_dir(&config)?, &question)? {
        Some(mut answer) => {
            let mut begins = String::new();
            answer.read_to_string(&mut begins)?;
            begins.trim().to_owned()
        }
        None => match super::read_config(config, interceptors) {
            Ok(config) => delivery::replay_from_files(&config, name, from)?.to_string(),
            Err(status) => return Ok(status),
        },
    };
    eprintln!("{name} gets everything again from entry {begins} on");
    Ok(ExitCode::SUCCESS)
}

fn data_dir(config: &Option<PathBuf>) -> Result<PathBuf> {
    crate::config::data_dir(&super::config_path(config.clone()))
}
