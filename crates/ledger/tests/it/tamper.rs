//! The table of tamperings, row by row: each is done to a small ledger, and `verify` must name it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use verbatim_core::Timestamp;
use verbatim_ledger::frame::Kind;
use verbatim_ledger::note::SigningKey;
use verbatim_ledger::verify::{Inputs, Outcome};

use crate::disk::SimDisk;
use crate::forge::{
    FIRST, Frames, LEDGER, codes, edit, find, frames, frames_at, inputs, key, ledger, replace, resign, small,
    verify, verify_anchored, verify_with,
};

/// Does something to the frames of a small ledger, with right checksums but without the key, and expects a finding.
#[track_caller]
fn unsigned(expected: &str, change: impl FnOnce(&mut Frames)) {
    let (disk, _) = ledger(64 << 10, 2);
    let mut frames = frames(&disk, FIRST);
    change(&mut frames);
    replace(&disk, &frames);
    let report = verify(&disk);
    assert!(codes(&report).contains(&expected), "{expected} is not in {:#?}", report.findings);
    assert_eq!(report.exit_code(), 1);
}

/// The same, by somebody who has the key, and signs everything again.
#[track_caller]
fn signed(expected: &str, change: impl FnOnce(&mut Frames)) {
    let (disk, _) = ledger(64 << 10, 2);
    let mut frames = frames(&disk, FIRST);
    change(&mut frames);
    resign(&mut frames, &key(&disk));
    replace(&disk, &frames);
    let report = verify(&disk);
    assert!(codes(&report).contains(&expected), "{expected} is not in {:#?}", report.findings);
    assert!(!codes(&report).contains(&"ROOT"), "{:#?}", report.findings);
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
    let (offset, ..) =
        frames_at(&bytes).into_iter().filter(|(_, kind, _)| *kind == Kind::Envelope).nth(4).unwrap();
    disk.flip(Path::new(FIRST), offset + 16 + 500, 1);
    let report = verify(&disk);
    assert!(codes(&report).contains(&"LEAF") && codes(&report).contains(&"ROOT"), "{:#?}", report.findings);
    let first = &report.findings[0];
    assert_eq!((first.offset, first.sequence), (Some(offset as u64), Some(1)));
    assert!(first.session.is_some());
}

#[test]
fn row_2_an_envelope_with_its_checksum_repaired() {
    unsigned("ROOT", |frames| {
        let place = find(frames, "outcome", 0);
        edit(frames, place, r#""rows":3"#, r#""rows":4"#);
    });
}

#[test]
fn rows_3_and_4_another_payload() {
    unsigned("PAYCT", |frames| {
        let place = frames.iter().position(|(kind, _)| *kind == Kind::Payload).unwrap();
        *frames[place].1.last_mut().unwrap() ^= 1;
    });
}

#[test]
fn row_5_two_payloads_swapped() {
    unsigned("PAYCT", |frames| {
        let places: Vec<_> = (0..frames.len()).filter(|at| frames[*at].0 == Kind::Payload).collect();
        frames.swap(places[0], places[1]);
    });
}

#[test]
fn row_6_a_payload_is_gone() {
    unsigned("PAYMISSING", |frames| {
        let place = frames.iter().position(|(kind, _)| *kind == Kind::Payload).unwrap();
        frames.remove(place);
    });
}

#[test]
fn row_7_an_entry_in_the_middle_is_gone() {
    for code in ["IDXGAP", "ROOT", "SSEQGAP"] {
        unsigned(code, |frames| drop(frames.remove(find(frames, "outcome", 0))));
    }
}

#[test]
fn row_8_an_entry_is_gone_and_the_rest_renumbered() {
    unsigned("ROOT", |frames| {
        frames.remove(find(frames, "outcome", 0));
        renumber(frames);
    });
    signed("SSEQGAP", |frames| {
        frames.remove(find(frames, "outcome", 0));
        renumber(frames);
    });
}

fn renumber(frames: &mut Frames) {
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

#[test]
fn row_9_a_whole_session_is_gone() {
    unsigned("ROOT", |frames| {
        let open = find(frames, "session_open", 0);
        let close = find(frames, "session_close", 0);
        frames.drain(open..=close);
        renumber(frames);
    });
}

#[test]
fn row_10_two_entries_reordered() {
    unsigned("ROOT", |frames| {
        let place = find(frames, "outcome", 0);
        frames.swap(place, place + 1);
    });
}

#[test]
fn row_11_an_entry_twice() {
    unsigned("DUP", |frames| {
        let place = find(frames, "outcome", 0);
        frames.insert(place, frames[place].clone());
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
    replace(&disk, &all);
    let report = verify(&disk);
    assert_eq!(codes(&report), ["TORN"]);
    assert_eq!(report.exit_code(), 1);
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
    assert_eq!(codes(&verify(&disk)), ["KEY"]);

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
    assert_eq!(codes(&verify(&disk)), ["SIG"]);
}

#[test]
fn rows_16_and_18_history_rewritten_and_signed_again() {
    let (disk, checkpoints) = ledger(64 << 10, 2);
    let mut all = frames(&disk, FIRST);
    let last = find(&all, "heartbeat", 1);
    edit(&mut all, last, r#""sessions":0"#, r#""sessions":9"#);
    resign(&mut all, &key(&disk));
    replace(&disk, &all);
    let report = verify(&disk);
    assert_eq!(report.exit_code(), 0, "{:#?}", report.findings);
    assert!(report.last_line.contains("nothing outside the node vouches"), "{}", report.last_line);
    assert_eq!(codes(&verify_anchored(&disk, checkpoints.last().unwrap())), ["FORK"]);
    let required = Inputs { require_anchor: true, ..inputs() };
    assert_eq!(verify_with(&disk, &required).exit_code(), 1);
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
    assert!(codes(&verify(&disk)).contains(&"ORIGIN"));
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
            let report = verify(&swapped);
            assert!(codes(&report).contains(&"SEGORDER"), "{:#?}", report.findings);
        }
        let removed = disk.copy();
        verbatim_ledger::Disk::remove(&*removed, file).unwrap();
        let report = verify(&removed);
        if place + 1 < files.len() {
            assert!(codes(&report).contains(&"SEGGAP"), "{:#?}", report.findings);
        } else {
            // The seal before it is the end of what is there: only an anchor shows that there was more.
            assert!(report.last_line.contains("nothing outside the node vouches for its tail"));
        }
    }
}

#[test]
fn rows_25_and_26_a_time_or_a_group_changed() {
    unsigned("ROOT", |frames| {
        let place = find(frames, "authz", 0);
        edit(frames, place, "billing", "support");
    });
    unsigned("ROOT", |frames| {
        let place = find(frames, "authz", 0);
        edit(frames, place, r#""ts":"1"#, r#""ts":"2"#);
    });
}

#[test]
fn rows_27_to_33_what_makes_no_sense_though_signed() {
    signed("SSEQGAP", |frames| {
        let place = find(frames, "outcome", 0);
        edit(frames, place, r#""sseq":4"#, r#""sseq":5"#);
    });
    signed("NOOUTCOME", |frames| drop(frames.remove(find(frames, "abort", 0))));
    signed("COUNT", |frames| drop(frames.remove(find(frames, "abort", 0))));
    signed("ORPHAN", |frames| {
        let place = find(frames, "outcome", 0);
        edit(frames, place, r#""cid":4"#, r#""cid":2"#);
    });
    signed("ORPHAN", |frames| {
        let place = find(frames, "outcome", 0);
        frames.insert(place, frames[place].clone());
    });
    signed("NOCLOSE", |frames| drop(frames.remove(find(frames, "session_close", 1))));
    signed("COUNT", |frames| {
        let place = find(frames, "session_close", 0);
        edit(frames, place, r#""intents":2"#, r#""intents":1"#);
    });
    signed("STATE", |frames| drop(frames.remove(find(frames, "session_open", 0))));
    signed("STATE", |frames| {
        let (close, abort) = (find(frames, "session_close", 0), find(frames, "abort", 0));
        frames.swap(close, abort);
    });
    signed("NOAUTHZ", |frames| drop(frames.remove(find(frames, "authz", 0))));
}

#[test]
fn rows_34_and_35_clocks_and_silence() {
    signed("CLOCKBACK", |frames| {
        let place = find(frames, "config", 0);
        edit(frames, place, r#""ts":"1"#, r#""ts":"0"#);
    });
    signed("CLOCKBACK", |frames| {
        let place = find(frames, "config", 0);
        let text = crate::forge::text(&frames[place].1).to_owned();
        let mono = text.split(r#""mono":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
        edit(frames, place, &format!(r#""mono":"{mono}""#), r#""mono":"1""#);
    });
    signed("HBGAP", |frames| {
        let place = find(frames, "heartbeat", 0);
        edit(frames, place, r#""every_ms":3600000"#, r#""every_ms":1"#);
        let place = find(frames, "heartbeat", 1);
        let text = crate::forge::text(&frames[place].1).to_owned();
        let mono = text.split(r#""mono":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
        let later = mono.parse::<u64>().unwrap() + 60_000_000_000;
        edit(frames, place, &format!(r#""mono":"{mono}""#), &format!(r#""mono":"{later}""#));
    });
}

#[test]
fn row_36_another_key_in_place_of_the_logs() {
    let (disk, _) = ledger(64 << 10, 1);
    let other = SigningKey::generate("example.com/verbatim/n1/1").unwrap().0;
    disk.tamper("/data/ledger/log.vkey", format!("{}\n", other.public()).into_bytes());
    assert_eq!(codes(&verify(&disk)), ["KEY"]);
}

#[test]
fn row_39_ambiguous_json() {
    for (from, to) in [
        (r#""rows":3"#, r#""rows":3,"rows":4"#),
        (r#""rows":3"#, r#""rows":3.0"#),
        (r#""rows":3"#, r#""rows": 3"#),
        (r#""v":1,"#, ""),
        (r#""status":"ok""#, r#""status":"\u006fk""#),
    ] {
        signed("PROFILE", |frames| {
            let place = find(frames, "outcome", 0);
            edit(frames, place, from, to);
        });
    }
}

#[test]
fn rows_42_and_43_seals_lengths_and_what_must_be_zero() {
    let (disk, _) = ledger(16 << 10, 8);
    let first = disk.bytes(FIRST);
    let mut all: Frames = frames_at(&first).into_iter().map(|(_, kind, body)| (kind, body)).collect();
    let seal = all.last_mut().unwrap();
    let place = seal.1.iter().position(|byte| *byte == b':').unwrap();
    seal.1[place + 1] ^= 1;
    let changed = disk.copy();
    changed.tamper(FIRST, crate::forge::assemble(&all, 0));
    assert!(codes(&verify(&changed)).contains(&"SEAL"));

    let longer = disk.copy();
    longer.tamper(FIRST, [first.clone(), vec![0; 8]].concat());
    assert_eq!(codes(&verify(&longer)), ["SEAL"]);

    let last = disk.files("/data/ledger/seg").pop().unwrap();
    let zeros = disk.bytes(&last);
    let trailing = disk.copy();
    trailing.flip(&last, zeros.len() - 1, 0x80);
    assert_eq!(codes(&verify(&trailing)), ["TRAIL"]);

    let stranger = disk.copy();
    stranger.tamper(format!("{LEDGER}/notes.txt"), b"hello".to_vec());
    assert_eq!(codes(&verify(&stranger)), ["TRAIL"]);
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
