//! Checkpoints from elsewhere, and the keys to judge by.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::disk::Disk;
use crate::note::{Checkpoint, VerifyingKey};

/// The largest file of checkpoints or keys, in bytes.
const FILE_BYTES_MAX: usize = 256 << 20;

/// A checkpoint that left the node.
#[derive(Debug, Clone)]
pub(crate) struct Anchor {
    pub(crate) file: PathBuf,
    pub(crate) checkpoint: Checkpoint,
}

/// Reads the checkpoints in a file: signed notes, one after the other, or JSON lines of which those of kind `checkpoint`
/// carry a note. The error is for people.
pub(crate) fn read(disk: &dyn Disk, file: &Path) -> Result<Vec<Anchor>, String> {
    let bytes = disk.get(file, FILE_BYTES_MAX).map_err(|error| format!("{}: {error}", file.display()))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| format!("{}: {error}", file.display()))?;
    let notes = if text.trim_start().starts_with('{') { from_json(text) } else { from_notes(text) };
    let anchors = notes.into_iter().map(|checkpoint| Anchor { file: file.to_owned(), checkpoint });
    let anchors: Vec<_> = anchors.collect();
    if anchors.is_empty() {
        return Err(format!("{}: there is no checkpoint in it", file.display()));
    }
    Ok(anchors)
}

fn from_json(text: &str) -> Vec<Checkpoint> {
    let mut found = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        // A line that a crash of the collector cut short ends the file.
        let Ok(value) = value else { break };
        if value.get("kind").and_then(Value::as_str) == Some("checkpoint") {
            found.extend(note_within(&value));
        }
    }
    found
}

/// The first text in a JSON value that is a checkpoint.
fn note_within(value: &Value) -> Option<Checkpoint> {
    match value {
        Value::String(text) => Checkpoint::parse(text).ok(),
        Value::Array(items) => items.iter().find_map(note_within),
        Value::Object(fields) => fields.values().find_map(note_within),
        _ => None,
    }
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
