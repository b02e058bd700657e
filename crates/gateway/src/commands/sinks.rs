//! `sinks status` and `sinks replay`.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Result;
use verbatim_core::Timestamp;

use crate::config::Config;
use crate::control;
use crate::delivery;
use crate::records::Question;
use crate::render;

/// What each sink has got: of a running gateway from itself, of a stopped one from its cursors.
pub(crate) fn status(config: &Config, json: bool) -> Result<ExitCode> {
    let mut document = Vec::new();
    match control::ask(&config.gateway.data_dir, &Question::SinksStatus)? {
        Some(mut answer) => {
            answer.read_to_end(&mut document)?;
        }
        None => document = serde_json::to_vec(&delivery::status_from_files(config)?)?,
    }
    if json {
        super::print_document(&*document)?;
    } else {
        render::sinks(&document)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends events again, from a time or from the beginning.
pub(crate) fn replay(config: &Config, name: &str, from: Option<Timestamp>) -> Result<ExitCode> {
    let question = Question::SinksReplay { name: name.to_owned(), from: from.map(|from| from.to_string()) };
    let begins = match control::ask(&config.gateway.data_dir, &question)? {
        Some(mut answer) => {
            let mut begins = String::new();
            answer.read_to_string(&mut begins)?;
            begins.trim().to_owned()
        }
        None => delivery::replay_from_files(config, name, from)?.to_string(),
    };
    eprintln!("{name} gets everything again from entry {begins} on");
    Ok(ExitCode::SUCCESS)
}
