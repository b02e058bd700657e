//! Events that a sink will never take: what they are and why, a line each. The events themselves are in the ledger,
//! from where `sinks replay` delivers them again.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use serde::Serialize;
use verbatim_core::Timestamp;

use crate::cursor::Files;
use crate::event::Event;

/// How long a file of dead letters gets: 8 MiB. Then it is kept as `….dead.jsonl.1`, and a new one begins.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// A reason is not kept beyond this many characters.
const REASON_CHARS_MAX: usize = 1000;

#[derive(Serialize)]
struct DeadLetter<'a> {
    at: String,
    id: &'a str,
    kind: &'a str,
    session: Option<&'a str>,
    time: String,
    bytes: usize,
    reason: String,
}

/// Puts `event` aside; durable when this returns.
pub(crate) fn put(files: &Files, event: &Event, reason: &str) -> io::Result<()> {
    files.make_dir()?;
    let path = files.dead();
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    if file.metadata()?.len() >= FILE_BYTES_MAX {
        let mut older = path.clone().into_os_string();
        older.push(".1");
        std::fs::rename(&path, older)?;
        file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    }
    let mut line = serde_json::to_vec(&DeadLetter {
        at: Timestamp::now().to_string(),
        id: &event.id,
        kind: &event.kind,
        session: event.session.as_deref(),
        time: event.time.to_string(),
        bytes: event.json.len(),
        reason: reason.chars().take(REASON_CHARS_MAX).collect(),
    })?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_data()
}
