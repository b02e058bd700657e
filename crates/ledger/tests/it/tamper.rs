//! The table of tamperings, row by row, as far as it is about the bytes: each is done to a small ledger by somebody who
//! has not the key, and `verify` must name it, and where. What makes no sense though it is signed is in `sense`, what the
//! table doesn't have in `attacks`, what sinks hold in `copies`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use verbatim_core::Timestamp;
use verbatim_ledger::frame::Kind;
use verbatim_ledger::note::SigningKey;
use verbatim_ledger::verify::{Inputs, Outcome};

use crate::disk::SimDisk;
use crate::forge::{
    FIRST, Frames, LEDGER, codes, commit_behind, edit, expect, find, frames, frames_at, inputs, key, ledger,
    offset_of, payload, renumber, replace, resign, small, verify, verify_anchored, verify_with,
};

/// Does something to the frames of a small ledger, with right checksums but without the key, and expects a finding at the
/// frame whose place `change` returns.
#[track_caller]
fn unsigned(code: &str, change: impl FnOnce(&mut Frames) -> usize) {
    let (disk, _) = ledger(64 << 10, 2);
    let mut frames = frames(&disk, FIRST);
    let place = change(&mut frames);
    let offset = offset_of(&frames, place);
    replace(&disk, &frames);
    expect(&verify(&disk), code, FIRST, offset);
}

#[test]
fn an_untouched_ledger_is_intact() {
    let (disk, checkpoints) = ledger(64 << 10, 2);
    let report = verify(&disk);
    assert_eq!(report.findings, []);
    assert_eq!(report.result, Outcome::Intact);
    assert!(report.last_line.contains("nothing outside the node vouches"), "{}", report.last_line);
    assert_eq!((report.ledgers[0].sessions, report.ledgers[0].operations), (2, 4));
    let report = verify_anchored(&disk, checkpoints.last().unwrap());
    assert_eq!(report.findings, []);
    assert!(report.last_line.contains("its last entry"), "{}", report.last_line);
    assert!(report.ledgers[0].anchored_until.is_some());
}

#[test]
fn row_1_a_bit_of_an_envelope() {
    let (disk, _) = ledger(64 << 10, 2);
    let bytes = disk.bytes(FIRST);
    let all = frames_at(&bytes);
    let place = all.iter().enumerate().filter(|(_, frame)| frame.1 == Kind::Envelope).nth(4).unwrap().0;
    let offset = all[place].0;
    disk.flip(Path::new(FIRST), offset + 16 + 500, 1);
    let report = verify(&disk);
    let first = &report.findings[0];
    assert_eq!((first.code, first.offset, first.sequence), ("LEAF", Some(offset as u64), Some(1)));
    assert!(first.session.is_some());
    let commit = all[place..].iter().find(|frame| frame.1 == Kind::Commit).unwrap().0;
    expect(&report, "ROOT", FIRST, commit as u64);
}

#[test]
fn row_2_an_envelope_with_its_checksum_repaired() {
    unsigned("ROOT", |frames| {
        let place = find(frames, "outcome", 0);
        edit(frames, place, r#""rows":3"#, r#""rows":4"#);
        commit_behind(frames, place)
    });
}

#[test]
fn row_3_a_bit_of_a_payload() {
    let (disk, _) = ledger(64 << 10, 2);
    let (offset, _, body) =
        frames_at(&disk.bytes(FIRST)).into_iter().find(|frame| frame.1 == Kind::Payload).unwrap();
    disk.flip(Path::new(FIRST), offset + 16 + body.len() - 1, 0x20);
    let report = verify(&disk);
    expect(&report, "PAYCT", FIRST, offset as u64);
    assert!(!codes(&report).contains(&"ROOT"), "no leaf covers it: {:#?}", report.findings);
}

#[test]
fn row_4_another_payload_in_a_whole_frame() {
    unsigned("PAYCT", |frames| {
        let place = payload(frames, 0);
        let length = frames[place].1.len();
        frames[place].1[length - 8..].copy_from_slice(b"SELECT 2");
        place
    });
}

#[test]
fn row_5_two_payloads_swapped() {
    unsigned("PAYCT", |frames| {
        let (first, second) = (payload(frames, 0), payload(frames, 1));
        frames.swap(first, second);
        first
    });
}

#[test]
fn row_6_a_payload_is_gone() {
    unsigned("PAYMISSING", |frames| {
        let place = payload(frames, 0);
        frames.remove(place);
        place
    });
}

#[test]
fn row_7_an_entry_in_the_middle_is_gone() {
    for (code, is_commit) in [("IDXGAP", false), ("SSEQGAP", false), ("ROOT", true)] {
        unsigned(code, |frames| {
            let place = find(frames, "outcome", 0);
            frames.remove(place);
            if is_commit { commit_behind(frames, place) } else { find(frames, "abort", 0) }
        });
    }
}

#[test]
fn row_8_an_entry_is_gone_and_the_rest_renumbered() {
    for (code, is_commit) in [("SSEQGAP", false), ("ROOT", true)] {
        unsigned(code, |frames| {
            let place = find(frames, "outcome", 0);
            frames.remove(place);
            renumber(frames);
            if is_commit { commit_behind(frames, place) } else { find(frames, "abort", 0) }
        });
    }
}

/// Takes out a session's entries, and the payload and commits among them; says where they were.
fn without_session(frames: &mut Frames) -> usize {
    let (open, close) = (find(frames, "session_open", 0), find(frames, "session_close", 0));
    frames.drain(open..=close);
    renumber(frames);
    open
}

#[test]
fn row_9_a_whole_session_is_gone() {
    unsigned("ROOT", |frames| {
        let place = without_session(frames);
        commit_behind(frames, place)
    });
}

#[test]
fn row_10_two_entries_reordered() {
    for (code, is_commit) in [("IDXGAP", false), ("ROOT", true)] {
        unsigned(code, |frames| {
            let (abort, close) = (find(frames, "abort", 0), find(frames, "session_close", 0));
            frames.swap(abort, close);
            if is_commit { commit_behind(frames, close) } else { abort }
        });
    }
    unsigned("DUP", |frames| {
        let (abort, close) = (find(frames, "abort", 0), find(frames, "session_close", 0));
        frames.swap(abort, close);
        close
    });
}

#[test]
fn row_11_an_entry_twice() {
    unsigned("DUP", |frames| {
        let place = find(frames, "outcome", 0);
        frames.insert(place, frames[place].clone());
        place + 1
    });
}

#[test]
fn row_12_a_forged_entry() {
    unsigned("ROOT", |frames| {
        let place = find(frames, "heartbeat", 0);
        let mut forged = frames[place].clone();
        forged.1 = String::from_utf8(forged.1).unwrap().replace("started", "running").into_bytes();
        frames.insert(place + 1, forged);
        renumber(frames);
        commit_behind(frames, place)
    });
}

/// Cuts the ledger at the n-th last commit and fills the file with zeros again.
fn cut_at_commit(disk: &SimDisk, from_the_end: usize) {
    let mut all = frames(disk, FIRST);
    let commits: Vec<_> = (0..all.len()).filter(|place| all[*place].0 == Kind::Commit).collect();
    all.truncate(commits[commits.len() - 1 - from_the_end] + 1);
    replace(disk, &all);
}

#[test]
fn row_13_a_torn_tail() {
    let (disk, _) = ledger(64 << 10, 2);
    let mut all = frames(&disk, FIRST);
    all.pop();
    let before = all.iter().rposition(|(kind, _)| *kind == Kind::Commit).unwrap();
    replace(&disk, &all);
    let report = verify(&disk);
    assert_eq!(codes(&report), ["TORN"]);
    expect(&report, "TORN", FIRST, offset_of(&all, before + 1));

    // Within a frame: the rest is zeros, as a crash leaves them.
    let last = offset_of(&all, all.len() - 1);
    let mut bytes = disk.bytes(FIRST);
    bytes[usize::try_from(last).unwrap() + 100..].fill(0);
    disk.tamper(FIRST, bytes);
    expect(&verify(&disk), "TORN", FIRST, offset_of(&all, before + 1));
}

#[test]
fn row_14_a_tail_cut_at_an_earlier_commit_and_filled_up_again() {
    let (disk, checkpoints) = ledger(64 << 10, 3);
    cut_at_commit(&disk, 2);
    let report = verify(&disk);
    assert_eq!(report.exit_code(), 0);
    assert!(
        report.last_line.contains("nothing outside the node vouches for its tail"),
        "{}",
        report.last_line
    );
    assert_eq!(codes(&verify_anchored(&disk, checkpoints.last().unwrap())), ["TRUNC"]);
    let now = Timestamp::now().plus(std::time::Duration::from_secs(5 * 3600));
    assert_eq!(codes(&verify_with(&disk, &Inputs { now: Some(now), ..inputs() })), ["TRUNC"]);
    assert_eq!(codes(&verify_with(&disk, &Inputs { require_anchor: true, ..inputs() })), ["ANCHOR"]);
}

#[test]
fn row_15_a_cut_with_a_checkpoint_of_another_key() {
    let (disk, _) = ledger(64 << 10, 2);
    let mut all = frames(&disk, FIRST);
    let other = SigningKey::generate("example.com/verbatim/n1/1").unwrap().0;
    resign(&mut all, &other);
    replace(&disk, &all);
    let report = verify(&disk);
    assert_eq!(codes(&report), ["KEY"]);
    expect(&report, "KEY", FIRST, offset_of(&all, commit_behind(&all, 0)));

    let (disk, _) = ledger(64 << 10, 2);
    let mut all = frames(&disk, FIRST);
    let commit = all.iter().rposition(|(kind, _)| *kind == Kind::Commit).unwrap();
    let note = String::from_utf8(all[commit].1.clone()).unwrap();
    let before = all.iter().position(|(kind, _)| *kind == Kind::Commit).unwrap();
    let signature = String::from_utf8(all[before].1.clone()).unwrap();
    let forged =
        format!("{}\n\n{}", note.split("\n\n").next().unwrap(), signature.split("\n\n").nth(1).unwrap());
    all[commit].1 = forged.into_bytes();
    replace(&disk, &all);
    let report = verify(&disk);
    assert_eq!(codes(&report), ["SIG"]);
    expect(&report, "SIG", FIRST, offset_of(&all, commit));
}

#[test]
fn row_16_an_end_rewritten_and_signed_again() {
    let (disk, checkpoints) = ledger(64 << 10, 2);
    let mut all = frames(&disk, FIRST);
    let last = find(&all, "heartbeat", 1);
    edit(&mut all, last, r#""sessions":0"#, r#""sessions":9"#);
    resign(&mut all, &key(&disk));
    replace(&disk, &all);
    let report = verify(&disk);
    assert_eq!(report.exit_code(), 0, "{:#?}", report.findings);
    assert!(report.last_line.contains("nothing outside the node vouches"), "{}", report.last_line);
    let anchored = verify_anchored(&disk, checkpoints.last().unwrap());
    assert_eq!(codes(&anchored), ["FORK"]);
    expect(&anchored, "FORK", "/elsewhere.note", 0);
    let required = Inputs { require_anchor: true, ..inputs() };
    assert_eq!(codes(&verify_with(&disk, &required)), ["ANCHOR"]);
}

#[test]
fn row_18_history_rewritten_and_signed_again() {
    let (disk, checkpoints) = ledger(64 << 10, 2);
    let mut all = frames(&disk, FIRST);
    without_session(&mut all);
    resign(&mut all, &key(&disk));
    replace(&disk, &all);
    // A heartbeat behind it still names a checkpoint of the history that was.
    let report = verify(&disk);
    expect(&report, "FORK", FIRST, offset_of(&all, find(&all, "heartbeat", 1)));
    assert!(codes(&verify_anchored(&disk, &checkpoints[0])).contains(&"FORK"));
}

#[test]
fn rows_17_and_19_an_older_snapshot_that_was_gone_on_with() {
    let disk = SimDisk::new();
    let opened = verbatim_ledger::Ledger::open_on(small(64 << 10), disk.clone()).unwrap().0;
    opened.close();
    let snapshot = disk.copy();
    let go_on = |disk: &Arc<SimDisk>, config| {
        let (ledger, _) = verbatim_ledger::Ledger::open_on(small(64 << 10), disk.clone()).unwrap();
        crate::support::wait(&ledger, ledger.append(&crate::support::Config(config)).unwrap());
        ledger.close();
        ledger.checkpoint().unwrap()
    };
    let left_the_node = go_on(&disk, "aa");
    assert_eq!(codes(&verify_anchored(&snapshot, &left_the_node)), ["TRUNC"]);
    go_on(&snapshot, "bb");
    assert_eq!(codes(&verify_anchored(&snapshot, &left_the_node)), ["FORK", "ROLLBACK"]);
}

#[test]
fn row_20_a_segment_of_another_node() {
    let (disk, _) = ledger(64 << 10, 2);
    let other = SimDisk::new();
    let settings = verbatim_ledger::Settings { node: "n2".to_owned(), ..small(64 << 10) };
    verbatim_ledger::Ledger::open_on(settings, other.clone()).unwrap().0.close();
    disk.tamper(FIRST, other.bytes(FIRST));
    expect(&verify(&disk), "ORIGIN", FIRST, 0);
}

#[test]
fn rows_21_and_22_segments_swapped_renamed_removed() {
    let (disk, _) = ledger(16 << 10, 12);
    assert_eq!(verify(&disk).findings, []);
    let files = disk.files("/data/ledger/seg");
    assert!(files.len() > 3, "{files:?}");
    for (place, file) in files.iter().enumerate() {
        for other in &files[place + 1..] {
            let swapped = disk.copy();
            swapped.tamper(file, disk.bytes(other));
            swapped.tamper(other, disk.bytes(file));
            expect(&verify(&swapped), "SEGORDER", file.to_str().unwrap(), 0);
        }
        let removed = disk.copy();
        verbatim_ledger::Disk::remove(&*removed, file).unwrap();
        let report = verify(&removed);
        match files.get(place + 1) {
            Some(next) => expect(&report, "SEGGAP", next.to_str().unwrap(), 0),
            // The seal before it is the end of what is there: only an anchor shows that there was more.
            None => assert!(report.last_line.contains("nothing outside the node vouches for its tail")),
        }
    }
}

#[test]
fn row_25_a_time_changed() {
    unsigned("ROOT", |frames| {
        let place = find(frames, "authz", 0);
        edit(frames, place, r#""ts":"1"#, r#""ts":"2"#);
        commit_behind(frames, place)
    });
}

#[test]
fn row_26_a_group_a_target_a_status_changed() {
    for (kind, from, to) in [
        ("authz", "billing", "support"),
        ("authz", "db:5432/c", "db:5432/d"),
        ("outcome", r#""status":"ok""#, r#""status":"error""#),
        ("session_open", r#""wanted":"customer-db""#, r#""wanted":"customers""#),
    ] {
        unsigned("ROOT", |frames| {
            let place = find(frames, kind, 0);
            edit(frames, place, from, to);
            commit_behind(frames, place)
        });
    }
}

#[test]
fn row_36_another_key_in_place_of_the_logs() {
    let (disk, _) = ledger(64 << 10, 1);
    let other = SigningKey::generate("example.com/verbatim/n1/1").unwrap().0;
    disk.tamper("/data/ledger/log.vkey", format!("{}\n", other.public()).into_bytes());
    let report = verify(&disk);
    assert_eq!(codes(&report), ["KEY"]);
    expect(&report, "KEY", "/data/ledger/log.vkey", 0);
}

#[test]
fn row_42_a_seal_or_a_files_length_changed() {
    let (disk, _) = ledger(16 << 10, 8);
    let first = disk.bytes(FIRST);
    let mut all: Frames = frames_at(&first).into_iter().map(|(_, kind, body)| (kind, body)).collect();
    let sealed = offset_of(&all, all.len() - 1);
    let seal = all.last_mut().unwrap();
    let place = seal.1.iter().position(|byte| *byte == b':').unwrap();
    seal.1[place + 1] ^= 1;
    let changed = disk.copy();
    changed.tamper(FIRST, crate::forge::assemble(&all, 0));
    expect(&verify(&changed), "SEAL", FIRST, sealed);

    let longer = disk.copy();
    longer.tamper(FIRST, [first.clone(), vec![0; 8]].concat());
    let report = verify(&longer);
    assert_eq!(codes(&report), ["SEAL"]);
    expect(&report, "SEAL", FIRST, first.len() as u64 + 8);

    let last = disk.files("/data/ledger/seg").pop().unwrap();
    let shorter = disk.copy();
    let length = disk.bytes(&last).len() - 8;
    shorter.tamper(&last, disk.bytes(&last)[..length].to_vec());
    expect(&verify(&shorter), "SEAL", last.to_str().unwrap(), length as u64);
}

#[test]
fn row_43_data_where_zeros_are_due() {
    let (disk, _) = ledger(64 << 10, 2);
    let bytes = disk.bytes(FIRST);
    let trailing = disk.copy();
    trailing.flip(Path::new(FIRST), bytes.len() - 1, 0x80);
    let report = verify(&trailing);
    assert_eq!(codes(&report), ["TRAIL"]);
    expect(&report, "TRAIL", FIRST, bytes.len() as u64 - 1);

    // The padding of a frame; flags and reserved bits, with the checksum repaired.
    let all = frames_at(&bytes);
    let (offset, _, body) = all.iter().find(|frame| frame.2.len() % 8 != 0).unwrap();
    let padded = disk.copy();
    padded.flip(Path::new(FIRST), offset + 16 + body.len(), 1);
    expect(&verify(&padded), "TRAIL", FIRST, *offset as u64);
    for reserved in [5, 6, 7] {
        let flagged = disk.copy();
        let mut changed = bytes.clone();
        changed[offset + reserved] = 1;
        let covered = [&changed[offset + 4..offset + 12], &changed[offset + 16..offset + 16 + body.len()]];
        let crc = crc32c::crc32c_append(crc32c::crc32c(covered[0]), covered[1]);
        changed[offset + 12..offset + 16].copy_from_slice(&crc.to_le_bytes());
        flagged.tamper(FIRST, changed);
        expect(&verify(&flagged), "TRAIL", FIRST, *offset as u64);
    }

    unsigned("TRAIL", |frames| {
        let place = find(frames, "outcome", 0);
        frames.insert(place, (Kind::Pad, vec![0; 40]));
        place
    });

    for name in ["notes.txt", "seg/notes.txt", "seg/00000000.vbe", "seg/0.vbl", ".hidden"] {
        let stranger = disk.copy();
        let path = format!("{LEDGER}/{name}");
        stranger.tamper(&path, b"hello".to_vec());
        let report = verify(&stranger);
        assert_eq!(codes(&report), ["TRAIL"]);
        expect(&report, "TRAIL", &path, 0);
    }
}

#[test]
fn frames_as_long_as_what_is_read_at_once() {
    let disk = SimDisk::new();
    let (ledger, _) = verbatim_ledger::Ledger::open_on(small(8 << 20), disk.clone()).unwrap();
    let mut session = crate::support::Session::open(&ledger);
    for length in [3_000_000, 900_000, 1_048_000, 70, 2_000_000] {
        let intent = session.intent(&vec![b'x'; length]);
        session.outcome(intent);
    }
    session.close();
    ledger.close();
    assert_eq!(verify(&disk).findings, []);
    let long = |frame: &&(usize, Kind, Vec<u8>)| frame.1 == Kind::Payload && frame.2.len() > 500_000;
    let mut seen = 0;
    for file in disk.files("/data/ledger/seg") {
        for (offset, _, body) in frames_at(&disk.bytes(&file)).iter().filter(long) {
            let flipped = disk.copy();
            flipped.flip(&file, offset + 16 + body.len() / 2, 1);
            let report = verify(&flipped);
            assert_eq!(report.findings[0].code, "PAYCT");
            expect(&report, "PAYCT", file.to_str().unwrap(), *offset as u64);
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
}

#[test]
fn every_file_cut_at_every_frame_and_within_is_found() {
    let (disk, _) = ledger(16 << 10, 4);
    for file in disk.files(LEDGER) {
        let whole = disk.bytes(&file);
        let mut cuts: Vec<usize> = frames_at(&whole)
            .iter()
            .flat_map(|(offset, _, body)| [*offset, offset + 16 + body.len() / 2])
            .collect();
        cuts.extend([0, whole.len() / 2, whole.len() - 1]);
        for cut in cuts {
            let cut_off = disk.copy();
            cut_off.tamper(&file, whole[..cut].to_vec());
            assert_eq!(verify(&cut_off).exit_code(), 1, "{} cut at {cut}", file.display());
        }
    }
}

#[test]
fn every_file_that_is_missing_is_found() {
    let (disk, _) = ledger(16 << 10, 1);
    for file in disk.files(LEDGER) {
        let removed = disk.copy();
        verbatim_ledger::Disk::remove(&*removed, &file).unwrap();
        assert_eq!(verify(&removed).exit_code(), 1, "{}", file.display());
    }
    let elsewhere = Inputs { ledgers: vec!["/nowhere".into()], ..Inputs::default() };
    assert_eq!(verify_with(&disk, &elsewhere).exit_code(), 2);
    let keyless = disk.copy();
    verbatim_ledger::Disk::remove(&*keyless, Path::new("/data/keys/node.vkey")).unwrap();
    assert_eq!(verify(&keyless).exit_code(), 2);
}

/// Flips bytes of every file in turn, on both cores.
fn flip_all(disk: &SimDisk, stride: usize) {
    let places: Vec<_> = disk
        .files(LEDGER)
        .into_iter()
        .flat_map(|file| (0..disk.bytes(&file).len()).step_by(stride).map(move |place| (file.clone(), place)))
        .collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let mine = disk.copy();
                while let Some((file, place)) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mask = 1 << (place % 8);
                    mine.flip(file, *place, mask);
                    assert_eq!(verify(&mine).exit_code(), 1, "{} at {place}", file.display());
                    mine.flip(file, *place, mask);
                }
            });
        }
    });
}

#[test]
fn every_flipped_byte_of_a_small_ledger_is_found() {
    let (disk, _) = ledger(16 << 10, 1);
    flip_all(&disk, 1);
}

#[test]
fn flipped_bytes_of_a_ledger_of_two_hundred_entries_are_found() {
    let (disk, _) = ledger(32 << 10, 28);
    assert!(verify(&disk).ledgers[0].size > 195);
    flip_all(&disk, 31);
}
