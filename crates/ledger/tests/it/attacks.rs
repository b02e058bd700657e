//! Tamperings that the table doesn't have, by somebody who can write everything but has not the key, and knows the format:
//! checksums, seals and places are put right.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use verbatim_core::{AuditEvent, Visitor};
use verbatim_ledger::frame::Kind;
use verbatim_ledger::hash::{hex, sha256};
use verbatim_ledger::note::SigningKey;
use verbatim_ledger::verify::{Inputs, Outcome, verify as verify_real};
use verbatim_ledger::{Ledger, ReadError, Reader, Settings};

use crate::disk::SimDisk;
use crate::forge::{
    FIRST, Frames, LEDGER, assemble, codes, commit_behind, edit, expect, find, frames, inputs, ledger,
    offset_of, payload, replace, resign, small, text, verify, verify_anchored, verify_with,
};
use crate::support::{Config, wait};

const ORIGIN: &str = "example.com/verbatim/n1/1";

/// An entry with two parts.
struct Two;

impl AuditEvent for Two {
    fn kind(&self) -> &str {
        "config"
    }
    fn visit(&self, _visitor: &mut dyn Visitor) {}
    fn payload(&self, each: &mut dyn FnMut(&str, &[u8])) {
        each("text", b"SELECT $1");
        each("parameters", b"[1, 2, 3]");
    }
}

/// A ledger of these entries of no session, stopped in order.
fn of_entries(entries: &[&dyn AuditEvent]) -> (Arc<SimDisk>, Frames) {
    let disk = SimDisk::new();
    let (ledger, _) = Ledger::open_on(small(64 << 10), disk.clone()).unwrap();
    for entry in entries {
        wait(&ledger, ledger.append(*entry).unwrap());
    }
    ledger.close();
    let frames = frames(&disk, FIRST);
    (disk, frames)
}

#[test]
fn two_parts_of_one_entry_swapped_with_their_places_put_right() {
    let (disk, mut all) = of_entries(&[&Two]);
    let (first, second) = (payload(&all, 0), payload(&all, 1));
    all.swap(first, second);
    for (place, part) in [(first, 0_u8), (second, 1)] {
        all[place].1[24] = part;
    }
    replace(&disk, &all);
    let report = verify(&disk);
    expect(&report, "PAYCT", FIRST, offset_of(&all, first));
    expect(&report, "PAYCT", FIRST, offset_of(&all, second));
}

#[test]
fn two_parts_of_one_entry_in_another_order() {
    let (disk, mut all) = of_entries(&[&Two]);
    let (first, second) = (payload(&all, 0), payload(&all, 1));
    // Each is what the envelope commits to; a reader would show the one under the other's name.
    all.swap(first, second);
    replace(&disk, &all);
    expect(&verify(&disk), "PAYCT", FIRST, offset_of(&all, second));
    let mut reader = Reader::open_on(disk.clone(), Path::new(LEDGER)).unwrap();
    let mut read = || (0..5).try_for_each(|_| reader.next(3).map(drop));
    assert!(matches!(read(), Err(ReadError::Damaged { .. })));
}

#[test]
fn the_payload_of_another_entry_of_the_same_length() {
    let (disk, mut all) = of_entries(&[&Config("aaaa"), &Config("bbbb")]);
    let (first, second) = (payload(&all, 0), payload(&all, 1));
    // Its salt and text, in the place of the other.
    let stored = all[second].1[28..].to_vec();
    all[first].1[28..].copy_from_slice(&stored);
    replace(&disk, &all);
    expect(&verify(&disk), "PAYCT", FIRST, offset_of(&all, first));
}

#[test]
fn a_payload_twice_and_one_that_belongs_to_no_entry() {
    let (disk, mut all) = of_entries(&[&Config("aaaa")]);
    let place = payload(&all, 0);
    all.insert(place, all[place].clone());
    replace(&disk, &all);
    expect(&verify(&disk), "PAYCT", FIRST, offset_of(&all, place + 2));

    let (disk, mut all) = of_entries(&[&Config("aaaa")]);
    let commit = commit_behind(&all, payload(&all, 0));
    let mut stray = all[payload(&all, 0)].clone();
    stray.1[16] += 1;
    all.insert(commit, stray);
    replace(&disk, &all);
    expect(&verify(&disk), "PAYCT", FIRST, offset_of(&all, commit));
}

#[test]
fn a_payload_that_was_moved_behind_the_last_commit_of_a_segment() {
    let (disk, _) = ledger(16 << 10, 8);
    let second = format!("{LEDGER}/seg/00000001.vbl");
    let (mut before, mut after) = (frames(&disk, FIRST), frames(&disk, &second));
    // The payload right behind the second segment's header goes in front of the first one's seal, which is made anew.
    let Some(place) = after.iter().position(|(kind, _)| *kind == Kind::Payload) else { panic!("a payload") };
    let moved = after.remove(place);
    let seal = before.len() - 1;
    before.insert(seal, moved);
    disk.tamper(FIRST, assemble(&before, 0));
    disk.tamper(&second, assemble(&after, 0));
    expect(&verify(&disk), "PAYCT", FIRST, offset_of(&before, seal));
}

#[test]
fn a_signature_added_to_a_checkpoint() {
    let (disk, _) = ledger(64 << 10, 2);
    let mut all = frames(&disk, FIRST);
    let commit = commit_behind(&all, find(&all, "outcome", 0));
    all[commit].1.extend_from_slice("— example.com/somebody AAAAAAAA\n".as_bytes());
    replace(&disk, &all);
    expect(&verify(&disk), "SIG", FIRST, offset_of(&all, commit));
}

#[test]
fn all_of_it_signed_by_a_new_key_that_is_put_beside_it() {
    let (disk, checkpoints) = ledger(64 << 10, 2);
    let own = disk.bytes("/data/keys/node.vkey");
    let other = SigningKey::generate(ORIGIN).unwrap().0;
    let vkey = format!("{}\n", other.public());
    let mut all = frames(&disk, FIRST);
    let open = find(&all, "log_open", 0);
    edit(&mut all, open, String::from_utf8(own.clone()).unwrap().trim(), vkey.trim());
    resign(&mut all, &other);
    replace(&disk, &all);
    disk.tamper("/data/keys/node.vkey", vkey.clone().into_bytes());
    disk.tamper("/data/ledger/log.vkey", vkey.into_bytes());
    // The entry behind it still names the true one.
    assert_eq!(codes(&verify(&disk)), ["SSEQGAP", "FORK"]);
    // The true key, from elsewhere, or a checkpoint that it signed.
    disk.tamper("/elsewhere.vkey", own);
    let report = verify_with(&disk, &Inputs { public_key: Some("/elsewhere.vkey".into()), ..inputs() });
    expect(&report, "KEY", "/data/ledger/log.vkey", 0);
    expect(&report, "KEY", FIRST, offset_of(&all, commit_behind(&all, 0)));
    expect(&report, "KEY", FIRST, offset_of(&all, open));
    expect(&verify_anchored(&disk, checkpoints.last().unwrap()), "SIG", "/elsewhere.note", 0);
}

#[test]
fn whose_key_it_is_judged_by_is_said() {
    let (disk, _) = ledger(64 << 10, 1);
    assert!(verify(&disk).last_line.contains("the node's own copy of its key"));
    disk.tamper("/elsewhere.vkey", disk.bytes("/data/keys/node.vkey"));
    let report = verify_with(&disk, &Inputs { public_key: Some("/elsewhere.vkey".into()), ..inputs() });
    assert!(!report.last_line.contains("own copy"), "{}", report.last_line);
}

#[test]
fn a_segment_twice_or_under_other_numbers() {
    let (disk, _) = ledger(16 << 10, 8);
    let files = disk.files("/data/ledger/seg");
    let last = files.len();
    let twice = disk.copy();
    let path = format!("{LEDGER}/seg/{last:08}.vbl");
    twice.tamper(&path, disk.bytes(FIRST));
    let report = verify(&twice);
    expect(&report, "SEGORDER", &path, 0);
    assert!(codes(&report).contains(&"DUP"), "{:#?}", report.findings);

    // All of them one further, and one in front of them.
    let shifted = disk.copy();
    for (place, file) in files.iter().enumerate() {
        shifted.tamper(format!("{LEDGER}/seg/{:08}.vbl", place + 1), disk.bytes(file));
    }
    expect(&verify(&shifted), "SEGORDER", &path, 0);
    verbatim_ledger::Disk::remove(&*shifted, Path::new(FIRST)).unwrap();
    expect(&verify(&shifted), "SEGGAP", &format!("{LEDGER}/seg/00000001.vbl"), 0);

    // The highest number there is.
    let highest = disk.copy();
    let path = format!("{LEDGER}/seg/{}.vbl", u64::MAX);
    highest.tamper(&path, disk.bytes(FIRST));
    expect(&verify(&highest), "SEGGAP", &path, 0);
}

#[test]
fn a_hole_where_frames_were() {
    let (disk, _) = ledger(64 << 10, 3);
    let all = frames(&disk, FIRST);
    for place in [2, 5, 9, all.len() - 2] {
        let holed = disk.copy();
        let mut bytes = disk.bytes(FIRST);
        let range = [place, place + 1].map(|place| usize::try_from(offset_of(&all, place)).unwrap());
        bytes[range[0]..range[1]].fill(0);
        holed.tamper(FIRST, bytes);
        expect(&verify(&holed), "TRAIL", FIRST, range[1] as u64);
    }
}

#[test]
fn zeros_pushed_in_between_frames() {
    let (disk, _) = ledger(64 << 10, 1);
    let all = frames(&disk, FIRST);
    let mut bytes = disk.bytes(FIRST);
    let place = usize::try_from(offset_of(&all, 6)).unwrap();
    bytes.splice(place..place, [0; 64]);
    bytes.truncate(64 << 10);
    disk.tamper(FIRST, bytes);
    expect(&verify(&disk), "TRAIL", FIRST, place as u64 + 64);
}

#[test]
fn something_behind_the_last_frame() {
    let (disk, _) = ledger(64 << 10, 1);
    let all = frames(&disk, FIRST);
    let end = offset_of(&all, all.len());
    // Bytes that are no frame; a frame that was there before; a whole entry.
    for (code, what) in [("LEAF", vec![b'x'; 24]), ("DUP", assemble(&vec![all[all.len() - 1].clone()], 0))] {
        let more = disk.copy();
        let mut bytes = disk.bytes(FIRST);
        let from = usize::try_from(end).unwrap();
        bytes[from..from + what.len()].copy_from_slice(&what);
        more.tamper(FIRST, bytes);
        expect(&verify(&more), code, FIRST, end);
    }
    let mut longer = all.clone();
    longer.push(all[find(&all, "heartbeat", 1)].clone());
    replace(&disk, &longer);
    let report = verify(&disk);
    expect(&report, "DUP", FIRST, end);
    expect(&report, "TORN", FIRST, end);
}

#[test]
fn whole_frames_behind_a_seal() {
    let (disk, _) = ledger(16 << 10, 8);
    let mut all = frames(&disk, FIRST);
    assert_eq!(all.last().unwrap().0, Kind::Seal);
    let end = offset_of(&all, all.len());
    for more in [find(&all, "outcome", 0), commit_behind(&all, 0), all.len() - 1] {
        all.push(all[more].clone());
    }
    disk.tamper(FIRST, assemble(&all, 0));
    let report = verify(&disk);
    expect(&report, "SEAL", FIRST, end);
    assert_eq!(codes(&report), ["SEAL"]);
}

#[test]
fn a_whole_segment_of_another_node_of_the_organisation() {
    let (disk, _) = ledger(16 << 10, 8);
    let other = SimDisk::new();
    let settings = Settings { node: "n2".to_owned(), ..small(16 << 10) };
    let (theirs, _) = Ledger::open_on(settings, other.clone()).unwrap();
    for _ in 0..40 {
        wait(&theirs, theirs.append(&Config("0a1b")).unwrap());
    }
    theirs.close();
    // In the middle, its own name and number in its header changed to ours, which nobody signed.
    let second = format!("{LEDGER}/seg/00000001.vbl");
    let ours = frames(&disk, &second);
    let mut mixed = frames(&other, FIRST);
    mixed[0] = ours[0].clone();
    disk.tamper(&second, assemble(&mixed, 0));
    let report = verify(&disk);
    for place in [find(&mixed, "log_open", 0), commit_behind(&mixed, 0)] {
        expect(&report, "ORIGIN", &second, offset_of(&mixed, place));
    }
}

#[test]
fn a_change_in_a_sealed_segment_with_seal_and_headers_put_right() {
    let (disk, _) = ledger(16 << 10, 8);
    let mut all = frames(&disk, FIRST);
    let place = find(&all, "outcome", 0);
    edit(&mut all, place, r#""rows":3"#, r#""rows":4"#);
    let sealed = all.len() - 1;
    let before = sha256(&[&assemble(&all[..sealed].to_vec(), 0)]);
    let was =
        text(&all[sealed].1).split(r#""sha256":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
    edit(&mut all, sealed, &was, &hex(&before));
    disk.tamper(FIRST, assemble(&all, 0));
    let report = verify(&disk);
    expect(&report, "ROOT", FIRST, offset_of(&all, commit_behind(&all, place)));
    assert!(!codes(&report).contains(&"SEAL"), "{:#?}", report.findings);
}

#[test]
fn a_checkpoint_replaced_by_an_older_one() {
    let (disk, _) = ledger(64 << 10, 3);
    let mut all = frames(&disk, FIRST);
    let commits: Vec<_> = (0..all.len()).filter(|place| all[*place].0 == Kind::Commit).collect();
    let (older, newer) = (commits[commits.len() - 3], commits[commits.len() - 1]);
    all[newer].1 = all[older].1.clone();
    replace(&disk, &all);
    expect(&verify(&disk), "ROOT", FIRST, offset_of(&all, newer));

    // The true one, twice: nothing was committed in between.
    let (disk, _) = ledger(64 << 10, 3);
    let mut all = frames(&disk, FIRST);
    all.insert(newer, all[newer].clone());
    replace(&disk, &all);
    expect(&verify(&disk), "DUP", FIRST, offset_of(&all, newer + 1));
}

#[test]
fn what_explains_a_step_of_the_clock_rewritten() {
    let (disk, mut all) = of_entries(&[&Config("aaaa")]);
    let place = find(&all, "config", 0);
    edit(&mut all, place, r#""kind":"config""#, r#""kind":"clock""#);
    replace(&disk, &all);
    expect(&verify(&disk), "ROOT", FIRST, offset_of(&all, commit_behind(&all, place)));
}

#[test]
fn links_folders_and_pipes_in_place_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(crate::support::settings(dir.path())).unwrap();
    wait(&ledger, ledger.append(&Config("aaaa")).unwrap());
    ledger.close();
    let inputs = Inputs { ledgers: vec![dir.path().join("ledger")], ..Inputs::default() };
    assert_eq!(verify_real(&inputs).result, Outcome::Intact);
    for name in ["origin", "log.vkey", "seg/00000000.vbl"] {
        let (path, moved) = (dir.path().join("ledger").join(name), dir.path().join("moved"));
        std::fs::rename(&path, &moved).unwrap();
        let shown = path.to_str().unwrap();
        // The very same bytes, but where somebody else may change them.
        symlink(&moved, &path).unwrap();
        expect(&verify_real(&inputs), "TRAIL", shown, 0);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        expect(&verify_real(&inputs), "TRAIL", shown, 0);
        std::fs::remove_dir(&path).unwrap();
        // A pipe that nobody writes to would be read for ever.
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        expect(&verify_real(&inputs), "TRAIL", shown, 0);
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&moved, &path).unwrap();
    }
    let more = dir.path().join("ledger/seg/more");
    std::fs::create_dir(&more).unwrap();
    expect(&verify_real(&inputs), "TRAIL", more.to_str().unwrap(), 0);
    std::fs::remove_dir(&more).unwrap();
    let segments = dir.path().join("ledger/seg");
    std::fs::remove_dir_all(&segments).unwrap();
    std::fs::write(&segments, b"").unwrap();
    expect(&verify_real(&inputs), "SEGGAP", segments.to_str().unwrap(), 0);
}
