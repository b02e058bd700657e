//! The gateway: configuration, listeners, command line, admin.
//!
//! The one crate that knows all the others, and the one place where protocols, providers and sinks are registered:
//! `serve` starts the gateway, `gateway::Gateway` is what runs, `commands` is one file a command. It is a library so that
//! a binary with one more protocol is three lines: [`run`] with [`Interceptors::with`].

mod admin;
mod cli;
mod commands;
mod config;
mod control;
mod delivery;
mod gateway;
mod interceptors;
mod listen;
mod metrics;
mod records;
mod render;
mod serve;
mod telemetry;
mod tls;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Cli, Command, Sessions, Sinks};
use crate::records::Record;
pub use interceptors::Interceptors;

/// Runs the command line of a gateway that speaks these protocols, and says with which status the process ends.
pub fn run(interceptors: &Interceptors) -> ExitCode {
    // One provider of cryptography in the whole process; a second call would be a mistake of ours.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("verbatim: another provider of cryptography is installed already");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    match command(cli, interceptors) {
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

fn command(cli: Cli, interceptors: &Interceptors) -> anyhow::Result<ExitCode> {
    let path = cli.config;
    match cli.command {
        Command::Init => commands::init::run(path),
        Command::Check { connect, token } => {
            commands::check::run(path, interceptors, connect, token.as_deref())
        }
        Command::Serve => match commands::read_config(path, interceptors) {
            Ok(config) => serve::run(config),
            Err(status) => Ok(status),
        },
        Command::Verify(args) => commands::verify::run(path, args),
        Command::Sinks { command: Sinks::Status { json } } => {
            commands::sinks::status(path, interceptors, json)
        }
        Command::Sinks { command: Sinks::Replay { name, from } } => {
            commands::sinks::replay(path, interceptors, &name, from)
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
            let record = Record { data_dir, labels: interceptors.labels() };
            read_record(cli.command, &record)
        }
    }
}

/// The commands that need nothing but the record.
fn read_record(command: Command, record: &Record) -> anyhow::Result<ExitCode> {
    match command {
        Command::Sessions { command: Sessions::List { filters, json } } => {
            commands::records::list(record, filters, json)
        }
        Command::Sessions { command: Sessions::Show { id, json } } => {
            commands::records::show(record, id, json)
        }
        Command::Sessions { command: Sessions::Tail { json } } => commands::records::follow(record, json),
        Command::Search { text, filters, json } => commands::records::search(record, text, filters, json),
        Command::Prove { id, sequence } => commands::verify::prove(record, &id, sequence),
        _ => Ok(ExitCode::from(commands::USAGE)),
    }
}
