//! How fast a ledger is verified and opened again, by what its entries are like.
//!
//! ```text
//! cargo run --profile bench-fast -p verbatim-ledger --example speed -- make DIR commands|content GIB
//! cargo run --profile bench-fast -p verbatim-ledger --example speed -- verify DIR
//! cargo run --profile bench-fast -p verbatim-ledger --example speed -- open DIR
//! ```
//!
//! `commands`: eight sessions at a time, texts of 120 bytes, a commit for eight of them. `content`: the same with texts of
//! 64 KiB. A folder in memory (`/dev/shm`) leaves the disk out of it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use verbatim_core::event::{Authorized, Completed, Requested, SessionClosed, kind};
use verbatim_core::{
    AuditEvent, AuthorizationSource, AuthorizedBy, CloseReason, Operation, Outcome, RecordMode, SessionId,
    Status, Value, Visitor,
};
use verbatim_ledger::verify::{Inputs, verify};
use verbatim_ledger::{Ledger, SessionLog, Settings, SyncMode};

/// Sessions that are open at a time.
const SESSIONS: usize = 8;
/// Operations of a session.
const OPERATIONS: u64 = 200;

struct Opened;

impl AuditEvent for Opened {
    fn kind(&self) -> &str {
        kind::SESSION_OPEN
    }
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("proto", Value::Text("postgres"));
        for name in ["wanted", "client", "trace", "id"] {
            visitor.field(name, Value::Null);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["make", dir, shape, gib] => make(Path::new(dir), shape == "content", gib.parse::<u64>()? << 30),
        ["verify", dir] => measure("verified", Path::new(dir), |dir| {
            let ledgers = vec![dir.join("ledger")];
            let report = verify(&Inputs { ledgers, ..Inputs::default() });
            println!("{:?}, {} findings: {}", report.result, report.findings.len(), report.last_line);
            Ok(())
        }),
        ["open", dir] => measure("opened", Path::new(dir), |dir| {
            let (ledger, recovery) = Ledger::open(settings(dir))?;
            println!("{} entries", recovery.entries);
            drop(ledger);
            Ok(())
        }),
        _ => Err("make DIR commands|content GIB, verify DIR, or open DIR".into()),
    }
}

fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.to_owned(),
        organisation: "example.com".to_owned(),
        node: "n1".to_owned(),
        sync: SyncMode::Always,
        segment_bytes: 64 << 20,
        reserve_bytes: 128 << 20,
        heartbeat: Duration::from_secs(10),
        last_checkpoint: None,
    }
}

fn make(dir: &Path, content: bool, bytes: u64) -> Result<(), Box<dyn Error>> {
    let (ledger, _) = Ledger::open(settings(dir))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let filler = if content { " ".repeat(64 << 10) } else { String::new() };
    while ledger.stats().bytes < bytes {
        let sessions = (0..SESSIONS).map(|_| open(&ledger)).collect::<Result<Vec<_>, _>>()?;
        for sequence in 1..=OPERATIONS {
            let mut intents = Vec::with_capacity(SESSIONS);
            for session in &sessions {
                let mut operation = Operation::new(sequence, "query");
                let text = format!(
                    "UPDATE pgbench_accounts SET abalance = abalance + {sequence} WHERE aid = 4711 \
                     AND bid IN (SELECT bid FROM pgbench_branches){filler}"
                );
                operation.text = Some(text.into());
                let event = Requested { operation: &operation, refusal: None, withheld: None };
                intents.push(session.append(&event)?);
            }
            if let Some(last) = intents.last() {
                runtime.block_on(ledger.durable(*last))?;
            }
            for (session, entry) in sessions.iter().zip(intents) {
                let outcome = Outcome::new(Status::Ok);
                let event = Completed {
                    entry,
                    sequence,
                    record: RecordMode::Full,
                    duration_us: 812,
                    outcome: &outcome,
                };
                session.append(&event)?;
            }
        }
        for session in &sessions {
            session.append(&SessionClosed { reason: CloseReason::Client })?;
        }
    }
    let stats = ledger.stats();
    println!("{} entries, {} commits, {} bytes", stats.entries, stats.batches, stats.bytes);
    ledger.close();
    Ok(())
}

fn open(ledger: &Ledger) -> Result<SessionLog, Box<dyn Error>> {
    let session = ledger.session(SessionId::generate());
    session.append(&Opened)?;
    let source = AuthorizationSource::Token;
    let by = AuthorizedBy { kind: "group", name: Some("agents".to_owned()), id: None, source };
    let record = RecordMode::Full;
    session.append(&Authorized { connection: "db", target: "db:5432/c", record, by: &by })?;
    Ok(session)
}

/// Does it, and says how long it took for the bytes in the segments.
fn measure(
    what: &str,
    dir: &Path,
    work: impl FnOnce(&Path) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut bytes = 0;
    let mut paths: Vec<PathBuf> = Vec::new();
    for file in std::fs::read_dir(dir.join("ledger/seg"))? {
        paths.push(file?.path());
    }
    for path in paths {
        bytes += path.metadata()?.len();
    }
    let began = Instant::now();
    work(dir)?;
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rounded figure for people")]
    let rate = bytes as f64 / 1e6 / seconds;
    println!("{what} {bytes} bytes in {seconds:.2} s: {rate:.0} MB/s");
    Ok(())
}
