//! Checkpoints from elsewhere, and the keys to judge by.

use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::note::{Checkpoint, VerifyingKey};
use crate::verify::copies::{self, Copied};
use crate::verify::report::Findings;

/// The largest file of checkpoints, events or keys, in bytes; it is held in memory.
const FILE_BYTES_MAX: usize = 1 << 30;

/// A checkpoint that left the node.
#[derive(Debug, Clone)]
pub(crate) struct Anchor {
    pub(crate) file: PathBuf,
    /// Where the event begins that carries it, in bytes.
    pub(crate) offset: u64,
    pub(crate) checkpoint: Checkpoint,
}

/// Reads what left the node: signed notes, one after the other, or events, of which those of kind `checkpoint` carry a
/// note. The error is for people.
pub(super) fn read(
    disk: &dyn Disk,
    file: &Path,
    findings: &mut Findings,
) -> Result<(Vec<Anchor>, Vec<Copied>), String> {
    let bytes = disk.get(file, FILE_BYTES_MAX).map_err(|error| format!("{}: {error}", file.display()))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    let (notes, copies) = if text.trim_start().starts_with('{') {
        copies::read(file, text, findings)
    } else {
        (from_notes(text).into_iter().map(|note| (note, 0)).collect(), Vec::new())
    };
    let anchor = |(checkpoint, offset)| Anchor { file: file.to_owned(), offset, checkpoint };
    let anchors: Vec<_> = notes.into_iter().map(anchor).collect();
    if anchors.is_empty() && copies.is_empty() {
        return Err(format!("{}: there is no checkpoint in it, and no entry", file.display()));
    }
    Ok((anchors, copies))
}

fn from_notes(text: &str) -> Vec<Checkpoint> {
    let mut found = Vec::new();
    let mut note = String::new();
    let mut signed = false;
    for line in text.lines() {
        if signed && !line.starts_with("— ") {
            found.extend(Checkpoint::parse(&note));
            note.clear();
            signed = false;
        }
        if note.is_empty() && line.is_empty() {
            continue;
        }
        note.push_str(line);
        note.push('\n');
        signed |= line.starts_with("— ");
    }
    found.extend(Checkpoint::parse(&note));
    found
}

/// Reads public keys, one a line; empty lines and what follows `#` don't count. The error is for people.
pub(crate) fn keys(disk: &dyn Disk, file: &Path) -> Result<Vec<VerifyingKey>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let bytes = disk.get(file, FILE_BYTES_MAX).map_err(|error| wrong(&error))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| wrong(&error))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let keys = lines.filter(|line| !line.is_empty()).map(|line| line.parse().map_err(|error| wrong(&error)));
    let keys: Vec<VerifyingKey> = keys.collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(wrong(&"there is no public key in it"));
    }
    Ok(keys)
}
