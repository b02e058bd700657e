//! `verify` and `prove`: what needs files and a public key alone.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use verbatim_core::SessionId;
use verbatim_ledger::verify::{Inputs, Progress, Report, verify_watched};

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
    let mut meter = Meter::new();
    let report = verify_watched(&inputs, &mut |progress| meter.show(progress));
    meter.clear();
    if args.json {
        print_json(&report)?;
    } else {
        render::verification(&report)?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// How long a verification takes before it says how far it is, and how often it says so.
const PATIENCE: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_millis(200);

/// How far it is, on standard error where that is a terminal.
struct Meter {
    began: Instant,
    shown: Option<Instant>,
    on: bool,
}

impl Meter {
    fn new() -> Self {
        Self { began: Instant::now(), shown: None, on: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: Progress) {
        let due = self.shown.map_or(self.began + PATIENCE, |shown| shown + PACE);
        if !self.on || Instant::now() < due {
            return;
        }
        self.shown = Some(Instant::now());
        let Progress { bytes, of } = progress;
        let percent = bytes.saturating_mul(100) / of.max(1);
        let rate = u128::from(bytes >> 20) * 1000 / self.began.elapsed().as_millis().max(1);
        // What can't be shown is missed by nobody.
        let _ = write!(std::io::stderr(), "\r\x1b[Kverifying: {percent} % of {} MiB, {rate} MiB/s", of >> 20);
    }

    /// Leaves the line to what follows.
    fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
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
