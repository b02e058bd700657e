//! A ledger to tamper with, and the tools of whoever does: frames taken apart and put together again, checksums right,
//! signed again with the node's own key if need be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use verbatim_ledger::disk::Disk;
use verbatim_ledger::frame::{self, Found, Kind};
use verbatim_ledger::note::SigningKey;
use verbatim_ledger::tree::{Frontier, leaf_hash};
use verbatim_ledger::verify::{Finding, Inputs, Report, verify_on};
use verbatim_ledger::{Checkpoint, Ledger, Settings};

use crate::disk::SimDisk;
use crate::support::{Config, Session, settings, wait};

pub(crate) const DATA: &str = "/data";
pub(crate) const LEDGER: &str = "/data/ledger";
pub(crate) const FIRST: &str = "/data/ledger/seg/00000000.vbl";

/// Frames of a segment: kind and body.
pub(crate) type Frames = Vec<(Kind, Vec<u8>)>;

pub(crate) fn small(segment_bytes: u64) -> Settings {
    Settings { segment_bytes, reserve_bytes: segment_bytes, ..settings(Path::new(DATA)) }
}

/// A ledger that was stopped in order: `sessions` sessions of two operations, one entry of no session, and the
/// checkpoints on the way.
pub(crate) fn ledger(segment_bytes: u64, sessions: usize) -> (Arc<SimDisk>, Vec<Checkpoint>) {
    let disk = SimDisk::new();
    let (ledger, _) = Ledger::open_on(small(segment_bytes), disk.clone()).unwrap();
    let mut checkpoints = Vec::new();
    for _ in 0..sessions {
        let mut session = Session::open(&ledger);
        let first = session.intent(b"SELECT 1");
        let second = session.intent(b"SELECT name FROM customers");
        session.outcome(first);
        session.abort(second);
        wait(&ledger, session.close());
        checkpoints.extend(ledger.checkpoint());
    }
    wait(&ledger, ledger.append(&Config("0a1b")).unwrap());
    ledger.close();
    checkpoints.extend(ledger.checkpoint());
    (disk, checkpoints)
}

pub(crate) fn inputs() -> Inputs {
    Inputs { ledgers: vec![PathBuf::from(LEDGER)], ..Inputs::default() }
}

pub(crate) fn verify(disk: &Arc<SimDisk>) -> Report {
    verify_with(disk, &inputs())
}

pub(crate) fn verify_with(disk: &Arc<SimDisk>, inputs: &Inputs) -> Report {
    verify_on(&(disk.clone() as Arc<dyn Disk>), inputs)
}

/// With a checkpoint that left the node.
pub(crate) fn verify_anchored(disk: &Arc<SimDisk>, checkpoint: &Checkpoint) -> Report {
    disk.tamper("/elsewhere.note", checkpoint.note.clone().into_bytes());
    verify_with(disk, &Inputs { checkpoints: vec!["/elsewhere.note".into()], ..inputs() })
}

pub(crate) fn codes(report: &Report) -> Vec<&'static str> {
    let mut codes: Vec<_> = report.findings.iter().map(|finding| finding.code).collect();
    codes.dedup();
    codes
}

pub(crate) fn key(disk: &SimDisk) -> SigningKey {
    let text = String::from_utf8(disk.bytes("/data/keys/node.key")).unwrap();
    SigningKey::parse(&text).unwrap()
}

/// The frames of a segment, and where each begins.
pub(crate) fn frames_at(bytes: &[u8]) -> Vec<(usize, Kind, Vec<u8>)> {
    let (mut frames, mut offset) = (Vec::new(), 0);
    while let Found::Frame(frame) = frame::parse(&bytes[offset..]) {
        frames.push((offset, frame.kind, frame.body.to_vec()));
        offset += frame.length;
    }
    frames
}

pub(crate) fn frames(disk: &SimDisk, path: &str) -> Frames {
    frames_at(&disk.bytes(path)).into_iter().map(|(_, kind, body)| (kind, body)).collect()
}

/// Puts frames together, with zeros up to `length`.
pub(crate) fn assemble(frames: &Frames, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, body) in frames {
        frame::put(&mut out, *kind, body);
    }
    out.resize(length.max(out.len()), 0);
    out
}

/// Puts frames back into the first segment, which stays as long as it was.
pub(crate) fn replace(disk: &SimDisk, frames: &Frames) {
    let length = disk.bytes(FIRST).len();
    disk.tamper(FIRST, assemble(frames, length));
}

/// Signs every commit again, over the entries that are there now.
pub(crate) fn resign(frames: &mut Frames, key: &SigningKey) {
    let mut tree = Frontier::default();
    for (kind, body) in frames {
        match kind {
            Kind::Envelope => tree.push(leaf_hash(body)),
            Kind::Commit => *body = key.checkpoint(tree.size(), tree.root()).note.into_bytes(),
            _ => {}
        }
    }
}

/// The place of the n-th entry of this kind among the frames.
pub(crate) fn find(frames: &Frames, kind: &str, n: usize) -> usize {
    let name = format!(r#""kind":"{kind}""#);
    let mut found = (0..frames.len())
        .filter(|place| frames[*place].0 == Kind::Envelope && text(&frames[*place].1).contains(&name));
    found.nth(n).unwrap()
}

pub(crate) fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

/// Changes the text of an envelope.
pub(crate) fn edit(frames: &mut Frames, place: usize, from: &str, to: &str) {
    let edited = text(&frames[place].1).replacen(from, to, 1);
    assert_ne!(edited.as_bytes(), frames[place].1, "{from} is not in {edited}");
    frames[place].1 = edited.into_bytes();
}

/// Gives the entries indexes without gaps.
pub(crate) fn renumber(frames: &mut Frames) {
    let mut index = 0;
    for (kind, body) in frames {
        if *kind == Kind::Envelope {
            let text = String::from_utf8(body.clone()).unwrap();
            let (before, rest) = text.split_once(r#""idx":"#).unwrap();
            let (_, after) = rest.split_once(',').unwrap();
            *body = format!(r#"{before}"idx":{index},{after}"#).into_bytes();
            index += 1;
        }
    }
}

/// The place of the n-th payload frame.
pub(crate) fn payload(frames: &Frames, n: usize) -> usize {
    (0..frames.len()).filter(|place| frames[*place].0 == Kind::Payload).nth(n).unwrap()
}

/// The place of the first commit behind a frame.
pub(crate) fn commit_behind(frames: &Frames, place: usize) -> usize {
    (place..frames.len()).find(|place| frames[*place].0 == Kind::Commit).unwrap()
}

/// Where the frame at a place begins in the file.
pub(crate) fn offset_of(frames: &Frames, place: usize) -> u64 {
    frames[..place].iter().map(|(_, body)| frame::frame_bytes(body.len()) as u64).sum()
}

/// Expects a finding with this code at this place.
#[track_caller]
pub(crate) fn expect(report: &Report, code: &str, file: &str, offset: u64) {
    let there = |finding: &&Finding| {
        finding.code == code && finding.file.as_deref() == Some(file) && finding.offset == Some(offset)
    };
    let found = report.findings.iter().find(there);
    assert!(found.is_some(), "no {code} at {file} {offset}: {:#?}", report.findings);
    assert_eq!(report.exit_code(), 1);
}
