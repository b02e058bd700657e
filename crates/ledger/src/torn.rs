//! The torn end of the last segment: set aside, overwritten, remembered until it is on record.

use sha2::{Digest, Sha256};
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use verbatim_core::json;

use crate::OpenError;
use crate::create::{Paths, at, damaged};
use crate::disk::{Disk, DiskFile};
use crate::hash::hex;
use crate::profile;
use crate::scan::Scanned;
use crate::segment::is_zero;

/// What was set aside.
pub(crate) struct Torn {
    pub(crate) bytes: u64,
    /// Of those bytes, in hexadecimal.
    pub(crate) sha256: String,
    /// Signed notes among them.
    pub(crate) notes: Vec<String>,
}

const PIECE: usize = 1 << 20;
/// The longest text that remembers what was set aside.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// Copies what stands behind the last good frame to `quarantine/` and overwrites it with zeros. What was set aside
/// before, and did not get on record, counts too.
pub(crate) fn set_aside(
    disk: &dyn Disk,
    paths: &Paths,
    scanned: &Scanned,
) -> Result<Option<Torn>, OpenError> {
    let pending = paths.quarantine.join("pending");
    let segment = &scanned.segment;
    let from = segment.offset;
    let file = &segment.file;
    let to = last_nonzero(file, from).map_err(at(&paths.segments))?;
    let before = remembered(disk, &pending)?;
    let Some(to) = to else { return Ok(before) };
    let mut copies =
        (0_u32..).map(|copy| paths.quarantine.join(format!("{:08}-{from}.{copy}", segment.number)));
    let Some(path) = copies.find(|path| !disk.exists(path)) else { return Ok(before) };
    let copy = disk.create(&path, to - from).map_err(at(&path))?;
    let sha256 = copy_out(&**file, &*copy, from, to).map_err(at(&path))?;
    let mut torn = Torn { bytes: to - from, sha256, notes: scanned.notes.clone() };
    if let Some(before) = before {
        torn.bytes += before.bytes;
        torn.notes.extend(before.notes);
    }
    // On record later; remembered now, so that a crash in between loses nothing of it.
    disk.put(&pending, &encode(&torn), true).map_err(at(&pending))?;
    blank(&**file, from, to).map_err(at(&paths.segments))?;
    Ok(Some(torn))
}

/// Forgets what is on record now.
pub(crate) fn forget(disk: &dyn Disk, paths: &Paths) -> Result<(), OpenError> {
    let pending = paths.quarantine.join("pending");
    if disk.exists(&pending) { disk.remove(&pending).map_err(at(&pending)) } else { Ok(()) }
}

/// The end of the last byte behind `from` that isn't zero, rounded up to a frame's alignment.
fn last_nonzero(file: &Arc<dyn DiskFile>, from: u64) -> std::io::Result<Option<u64>> {
    let length = file.length()?;
    let mut buffer = vec![0; PIECE];
    let (mut at, mut end) = (from, None);
    while at < length {
        let count = file.read_at(at, &mut buffer)?;
        let read = buffer.get(..count).unwrap_or_default();
        if !is_zero(read)
            && let Some(place) = read.iter().rposition(|byte| *byte != 0)
        {
            end = Some((at + place as u64 + 1).next_multiple_of(8).min(length));
        }
        if count == 0 {
            break;
        }
        at += count as u64;
    }
    Ok(end)
}

fn copy_out(file: &dyn DiskFile, copy: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; PIECE];
    let mut at = from;
    while at < to {
        let wanted = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
        let count = file.read_at(at, buffer.get_mut(..wanted).unwrap_or_default())?;
        let piece = buffer.get(..count).unwrap_or_default();
        hasher.update(piece);
        put_all(copy, at - from, piece)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        at += count as u64;
    }
    copy.sync()?;
    Ok(hex(&hasher.finalize()))
}

fn blank(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0; PIECE];
    let mut at = from;
    while at < to {
        let wanted = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
        put_all(file, at, zeros.get(..wanted).unwrap_or_default())?;
        at += wanted as u64;
    }
    file.sync()
}

fn put_all(file: &dyn DiskFile, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    let written = file.write_at(offset, &[IoSlice::new(bytes)])?;
    if written == bytes.len() { Ok(()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
}

fn encode(torn: &Torn) -> Vec<u8> {
    let mut out = br#"{"bytes":"#.to_vec();
    json::unsigned(&mut out, torn.bytes);
    out.extend_from_slice(br#","sha256":"#);
    json::string(&mut out, &torn.sha256);
    out.extend_from_slice(br#","notes":["#);
    for (place, note) in torn.notes.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        json::string(&mut out, note);
    }
    out.extend_from_slice(b"]}");
    out
}

fn remembered(disk: &dyn Disk, pending: &Path) -> Result<Option<Torn>, OpenError> {
    if !disk.exists(pending) {
        return Ok(None);
    }
    let bytes = disk.get(pending, PENDING_BYTES_MAX).map_err(at(pending))?;
    let read = || {
        let json = profile::parse(&bytes).ok()?;
        let notes = json.get("notes")?.list()?.iter().map(|note| note.text().map(str::to_owned));
        Some(Torn {
            bytes: json.get("bytes")?.unsigned()?,
            sha256: json.get("sha256")?.text()?.to_owned(),
            notes: notes.collect::<Option<_>>()?,
        })
    };
    read().map(Some).ok_or_else(|| damaged(pending, 0, "what was set aside before can't be read"))
}
