//! Verifies what `prove` made, in place of a ledger.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use verbatim_core::Timestamp;

use crate::disk::Disk;
use crate::hash::Hash;
use crate::note::{Checkpoint, Signed, VerifyingKey};
use crate::prove::{Bundle, Proof, Proved};
use crate::tree::inclusion_root;
use crate::verify::anchors::Anchor;
use crate::verify::report::{Finding, Findings, LedgerSummary};

/// The largest proof, in bytes.
const PROOF_BYTES_MAX: usize = 1 << 30;

pub(super) struct Checked {
    pub(super) line: String,
    pub(super) summary: LedgerSummary,
}

/// Judges the proof in `file`. The error says why it is none.
pub(super) fn check(
    disk: &dyn Disk,
    file: &Path,
    keys: &[VerifyingKey],
    anchors: &[Anchor],
    findings: &mut Findings,
) -> Result<Checked, String> {
    let bytes = disk.get(file, PROOF_BYTES_MAX).map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    let bundle =
        if text.starts_with('{') { Bundle::parse(text) } else { Proof::parse(text).map(Bundle::from) };
    let bundle = bundle.ok_or("this is no proof")?;
    let checkpoint = Checkpoint::parse(&bundle.checkpoint).map_err(|error| error.to_string())?;
    let report = |code, message: String| Finding::new(code, message).at(file, 0);
    let signed = keys.iter().map(|key| checkpoint.signed_by(key)).find(|signed| *signed != Signed::Absent);
    match signed {
        Some(Signed::Good) => {}
        Some(Signed::OtherKey) => {
            findings.push(report("KEY", "the checkpoint is signed by another key".into()))
        }
        _ => findings.push(report("SIG", "the checkpoint is not signed by a key that was given".into())),
    }
    for anchor in anchors.iter().filter(|anchor| anchor.checkpoint.origin == checkpoint.origin) {
        if anchor.checkpoint.size == checkpoint.size && anchor.checkpoint.root != checkpoint.root {
            findings.push(report("FORK", format!("{} says otherwise", anchor.file.display())));
        }
    }
    let (mut sessions, mut operations, mut last): (_, u64, Option<Hash>) = (0, 0, None);
    for (place, proved) in bundle.entries.iter().enumerate() {
        let expected = bundle.is_session.then_some((place as u64, last));
        for (code, message) in judge(proved, &checkpoint, expected) {
            findings.push(report(code, message).of(proved.session(), proved.operation()));
        }
        last = Some(proved.leaf());
        sessions += u64::from(proved.is("session_open"));
        operations += u64::from(proved.operation().is_some() && (proved.is("intent") || proved.is("denied")));
    }
    let closed = bundle.entries.last().is_some_and(|entry| entry.is("session_close"));
    let until = bundle.entries.iter().filter_map(Proved::time).max();
    let until = until.map_or_else(String::new, |nanos| Timestamp::from_nanos(nanos).to_string());
    let whole = match (bundle.is_session, closed) {
        (true, true) => ", from its opening to its close",
        (true, false) => ", which was not closed when this was made",
        (false, _) => "",
    };
    let count = bundle.entries.len();
    let line = format!(
        "{}: {count} entries of a log of {}, until {until}{whole}; the proof itself is their only anchor",
        checkpoint.origin, checkpoint.size
    );
    let root = STANDARD.encode(checkpoint.root);
    let summary = LedgerSummary {
        origin: checkpoint.origin,
        size: checkpoint.size,
        root,
        sessions,
        operations,
        anchored_until: None,
    };
    Ok(Checked { line, summary })
}

/// What is wrong with one entry of a proof.
fn judge(
    proved: &Proved,
    checkpoint: &Checkpoint,
    expected: Option<(u64, Option<Hash>)>,
) -> Vec<(&'static str, String)> {
    let index = proved.index;
    let Some(head) = proved.head() else {
        return vec![("PROFILE", format!("entry {index} is no envelope"))];
    };
    let mut found = Vec::new();
    if head.origin != checkpoint.origin || head.index != index {
        found.push(("ORIGIN", format!("entry {index} is another log's, or another entry")));
    }
    let root = inclusion_root(index, checkpoint.size, proved.leaf(), &proved.proof);
    if root != Some(checkpoint.root) {
        found.push(("ROOT", format!("entry {index} is not in the log that was signed")));
    }
    if let Some((sequence, previous)) = expected
        && (head.sequence != sequence || head.previous != previous)
    {
        found.push(("SSEQGAP", format!("entry {index} is not the session's entry {sequence}")));
    }
    for part in proved.wrong_parts() {
        found.push((
            "PAYCT",
            format!("entry {index}: part {part} of its payload is missing, or not what was recorded"),
        ));
    }
    found
}
