//! `verify` and `prove`: what needs files and a public key alone.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use verbatim_core::SessionId;
use verbatim_ledger::verify::{Inputs, Report, verify};

use super::USAGE;
use crate::cli::VerifyArgs;
use crate::records::{Question, Record};
use crate::render;

/// Tries to find a gap.
pub(crate) fn run(config: Option<PathBuf>, args: VerifyArgs) -> Result<ExitCode> {
    let explicit = config.is_some();
    let mut inputs = Inputs {
        ledgers: args.ledger,
        proofs: args.proofs,
        public_key: args.public_key,
        checkpoints: args.checkpoint,
        trust: args.trust,
        now: args.now,
        require_anchor: args.require_anchor,
    };
    // Only where nothing else says which ledger, or where its key is, is the configuration looked at.
    let lacks_ledger = inputs.ledgers.is_empty() && inputs.proofs.is_empty();
    if lacks_ledger || (explicit && inputs.public_key.is_none()) {
        let path = super::config_path(config);
        let data_dir = match crate::config::data_dir(&path) {
            Ok(data_dir) => data_dir,
            Err(error) => {
                eprintln!("{error:#}\nhint: name a ledger with --ledger DIR");
                return Ok(ExitCode::from(USAGE));
            }
        };
        if lacks_ledger {
            inputs.ledgers.push(data_dir.join("ledger"));
        }
        inputs.public_key.get_or_insert_with(|| data_dir.join("keys").join("node.vkey"));
    }
    let report = verify(&inputs);
    if args.json {
        print_json(&report)?;
    } else {
        render::verification(&report)?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn print_json(report: &Report) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    writeln!(out)?;
    eprintln!("{}", report.last_line);
    Ok(())
}

/// Prints a proof that needs nothing but the public key to be checked.
pub(crate) fn prove(record: &Record, id: &str, sequence: Option<u64>) -> Result<ExitCode> {
    let question = Question::Prove { id: id.to_owned(), sequence };
    let whole = match crate::control::ask(&record.data_dir, &question)? {
        Some(mut answer) => {
            let mut whole = String::new();
            std::io::Read::read_to_string(&mut answer, &mut whole)?;
            whole
        }
        None => record.index()?.session(id)?.id,
    };
    let session: SessionId = whole.trim().parse()?;
    let ledger = record.ledger();
    let proof = match sequence {
        None => verbatim_ledger::prove::session(&ledger, session),
        Some(sequence) => verbatim_ledger::prove::operation(&ledger, session, sequence),
    };
    let proof = proof.with_context(|| format!("session {session}"))?;
    std::io::stdout().write_all(proof.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
