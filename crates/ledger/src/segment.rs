//! Segment files: their names, their first and last frame, and a window for walking over one.
//!
//! ```text
//! seg/00000042.vbl    header, then ((payload* envelope)* commit)*, then seal
//!                     while it is written: as long as its header says, zeros behind the last frame
//!                     once sealed: the same, or cut at the end of the seal
//! ```
//!
//! A segment has its usual length unless one entry needs more: then it is made as long as that entry needs.

use std::io;
use std::sync::Arc;

use verbatim_core::json;

use crate::disk::DiskFile;
use crate::frame::{self, Found, HEADER_BYTES};
use crate::hash::{Hash, parse_hex, put_hex};
use crate::profile::{self, Json};

/// The shortest segment on a real disk, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// The shortest segment that works, in bytes: what tests use.
pub const SEGMENT_BYTES_LEAST: u64 = 16 << 10;
/// The longest segment, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 40;
/// Room that is kept in a segment for one more commit.
pub(crate) const COMMIT_ROOM: u64 = 2 << 10;
/// Room that is kept in a segment for its seal.
pub(crate) const SEAL_ROOM: u64 = 1 << 10;
/// Room that the header takes at most.
pub(crate) const HEADER_ROOM: u64 = 2 << 10;

/// How many bytes of a segment of `length` entries can take.
pub(crate) const fn capacity(length: u64) -> u64 {
    length.saturating_sub(HEADER_ROOM + COMMIT_ROOM + SEAL_ROOM)
}

/// The file name of a segment.
pub fn file_name(number: u64) -> String {
    format!("{number:08}.vbl")
}

/// The number of the segment with this file name.
pub fn number(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".vbl")?;
    let number = digits.parse().ok()?;
    (self::file_name(number) == file_name).then_some(number)
}

/// A segment's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The log.
    pub origin: String,
    /// The segment's number, from 0.
    pub segment: u64,
    /// The index of its first entry.
    pub first: u64,
    /// SHA-256 of the note in the last commit before it; none in the first segment.
    pub previous_commit: Option<Hash>,
    /// How long the file is, in bytes.
    pub length: u64,
}

impl Header {
    /// The body of the frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = br#"{"v":1,"origin":"#.to_vec();
        json::string(&mut out, &self.origin);
        out.extend_from_slice(br#","seg":"#);
        json::unsigned(&mut out, self.segment);
        out.extend_from_slice(br#","first_idx":"#);
        json::unsigned(&mut out, self.first);
        out.extend_from_slice(br#","prev_commit_sha256":"#);
        put_hash(&mut out, self.previous_commit.as_ref());
        out.extend_from_slice(br#","bytes":"#);
        json::unsigned(&mut out, self.length);
        out.push(b'}');
        out
    }

    /// Reads the body. None where it is anything else than what the ledger writes.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let parsed = profile::parse(body).ok()?;
        let header = Self {
            origin: parsed.get("origin")?.text()?.to_owned(),
            segment: parsed.get("seg")?.unsigned()?,
            first: parsed.get("first_idx")?.unsigned()?,
            previous_commit: nullable_hash(parsed.get("prev_commit_sha256")?)?,
            length: parsed.get("bytes")?.unsigned()?,
        };
        (header.encode() == body).then_some(header)
    }
}

/// A segment's last frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The index of its first entry.
    pub first: u64,
    /// The index of its last entry; none where it has no entry.
    pub last: Option<u64>,
    /// The tree's root over all entries up to here.
    pub root: Hash,
    /// SHA-256 of all bytes before the seal.
    pub sha256: Hash,
}

impl Seal {
    /// The body of the frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = br#"{"first_idx":"#.to_vec();
        json::unsigned(&mut out, self.first);
        out.extend_from_slice(br#","last_idx":"#);
        match self.last {
            None => out.extend_from_slice(b"null"),
            Some(last) => json::unsigned(&mut out, last),
        }
        out.extend_from_slice(br#","root":"#);
        put_hash(&mut out, Some(&self.root));
        out.extend_from_slice(br#","sha256":"#);
        put_hash(&mut out, Some(&self.sha256));
        out.push(b'}');
        out
    }

    /// Reads the body. None where it is anything else than what the ledger writes.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let parsed = profile::parse(body).ok()?;
        let last = parsed.get("last_idx")?;
        let seal = Self {
            first: parsed.get("first_idx")?.unsigned()?,
            last: if *last == Json::Null { None } else { Some(last.unsigned()?) },
            root: parse_hex(parsed.get("root")?.text()?)?,
            sha256: parse_hex(parsed.get("sha256")?.text()?)?,
        };
        (seal.encode() == body).then_some(seal)
    }
}

fn put_hash(out: &mut Vec<u8>, hash: Option<&Hash>) {
    match hash {
        None => out.extend_from_slice(b"null"),
        Some(hash) => {
            out.push(b'"');
            put_hex(out, hash);
            out.push(b'"');
        }
    }
}

fn nullable_hash(value: &Json<'_>) -> Option<Option<Hash>> {
    if *value == Json::Null { Some(None) } else { parse_hex(value.text()?).map(Some) }
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(ZEROS.len()).all(|piece| ZEROS.get(..piece.len()) == Some(piece))
}

/// How much is read at once, in bytes.
const WINDOW_BYTES: usize = 256 << 10;

/// A window on a file that is read from front to back, a frame at a time.
pub(crate) struct Window {
    file: Arc<dyn DiskFile>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, start: 0, bytes: Vec::new() }
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Forgets what was read: a live file may have more by now.
    pub(crate) fn forget(&mut self) {
        self.bytes.clear();
    }

    /// `length` bytes at `offset`; fewer where the file ends.
    pub(crate) fn get(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let held = offset
            .checked_sub(self.start)
            .and_then(|from| usize::try_from(from).ok())
            .filter(|from| from.checked_add(length).is_some_and(|to| to <= self.bytes.len()));
        let from = match held {
            Some(from) => from,
            None => {
                if length <= WINDOW_BYTES {
                    // One long frame must not keep its room for ever.
                    self.bytes.shrink_to(WINDOW_BYTES);
                }
                self.bytes.resize(length.max(WINDOW_BYTES), 0);
                let count = self.file.read_at(offset, &mut self.bytes)?;
                self.bytes.truncate(count);
                self.start = offset;
                0
            }
        };
        let to = self.bytes.len().min(from + length);
        Ok(self.bytes.get(from..to).unwrap_or_default())
    }

    /// Judges what stands at `offset`.
    pub(crate) fn frame(&mut self, offset: u64) -> io::Result<Found<'_>> {
        let extent = frame::extent(self.get(offset, HEADER_BYTES)?).unwrap_or(HEADER_BYTES);
        Ok(frame::parse(self.get(offset, extent)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_headers_and_seals_are_read_back() {
        assert_eq!(number(&file_name(42)), Some(42));
        assert_eq!((number("42.vbl"), number("00000042.vbe"), number("+0000042.vbl")), (None, None, None));
        let header = Header {
            origin: "a/verbatim/b/1".to_owned(),
            segment: 1,
            first: 7,
            previous_commit: Some([1; 32]),
            length: 1 << 20,
        };
        assert_eq!(Header::parse(&header.encode()), Some(header.clone()));
        let first = Header { previous_commit: None, ..header };
        assert_eq!(Header::parse(&first.encode()), Some(first));
        let seal = Seal { first: 7, last: Some(9), root: [2; 32], sha256: [3; 32] };
        assert_eq!(Seal::parse(&seal.encode()), Some(seal.clone()));
        let mut spaced = seal.encode();
        spaced.push(b' ');
        assert_eq!(Seal::parse(&spaced), None);
    }
}
