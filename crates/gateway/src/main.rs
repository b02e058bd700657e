//! The binary `verbatim`: configuration, listeners, command line, admin.
//!
//! The one crate that knows all the others, and the one place where protocols, providers and sinks are registered:
//! [`serve`] starts the gateway, [`gateway::Gateway`] is what runs, `commands` is one file a command.

mod admin;
mod cli;
mod commands;
mod config;
mod control;
mod delivery;
mod gateway;
mod listen;
mod metrics;
mod records;
mod render;
mod serve;
mod telemetry;
mod tls;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Cli, Command, Sessions, Sinks};

fn main() -> ExitCode {
    // One provider of cryptography in the whole process; a second call would be a mistake of ours.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("verbatim: another provider of cryptography is installed already");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    match run(cli) {
        Ok(status) => status,
        // Whoever reads our output may stop reading, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("verbatim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let path = cli.config;
    match cli.command {
        Command::Init => commands::init::run(path),
        Command::Check { connect, token } => commands::check::run(path, connect, token.as_deref()),
        Command::Serve => match commands::read_config(path) {
            Ok(config) => serve::run(config),
            Err(status) => Ok(status),
        },
        Command::Verify(args) => commands::verify::run(path, args),
        Command::Sinks { command: Sinks::Status { json } } => commands::sinks::status(path, json),
        Command::Sinks { command: Sinks::Replay { name, from } } => {
            commands::sinks::replay(path, &name, from)
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "verbatim", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Prove { .. } | Command::Search { .. } | Command::Sessions { .. } => {
            let data_dir = match config::data_dir(&commands::config_path(path)) {
                Ok(data_dir) => data_dir,
                Err(error) => {
                    eprintln!("verbatim: {error:#}");
                    return Ok(ExitCode::from(commands::USAGE));
                }
            };
            read_record(cli.command, &data_dir)
        }
    }
}

/// The commands that need nothing but the record.
fn read_record(command: Command, data_dir: &Path) -> anyhow::Result<ExitCode> {
    match command {
        Command::Sessions { command: Sessions::List { filters, json } } => {
            commands::records::list(data_dir, filters, json)
        }
        Command::Sessions { command: Sessions::Show { id, json } } => {
            commands::records::show(data_dir, id, json)
        }
        Command::Sessions { command: Sessions::Tail { json } } => commands::records::follow(data_dir, json),
        Command::Search { text, filters, json } => commands::records::search(data_dir, text, filters, json),
        Command::Prove { id, sequence } => commands::verify::prove(data_dir, &id, sequence),
        _ => Ok(ExitCode::from(commands::USAGE)),
    }
}
