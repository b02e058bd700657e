//! A ledger at work: heartbeats, followers, what leaves the node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use verbatim_core::AuditEvent;
use verbatim_ledger::verify::Inputs;
use verbatim_ledger::{Entry, HeartbeatFacts, Item, Ledger, Reader, Settings};

use crate::disk::SimDisk;
use crate::forge::{LEDGER, codes, inputs, ledger, small, verify, verify_with};
use crate::support::{Session, wait};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn heartbeats_state_what_is_open_and_delivered() {
    let disk = SimDisk::new();
    let settings = Settings { heartbeat: Duration::from_millis(5), ..small(64 << 10) };
    let (ledger, _) = Ledger::open_on(settings, disk.clone()).unwrap();
    let session = Session::open(&ledger);
    ledger.set_heartbeat_facts(Arc::new(|| HeartbeatFacts { sinks: vec![("siem".to_owned(), 2)] }));
    let mut reader = Reader::open_on(disk.clone(), Path::new(LEDGER)).unwrap();
    let mut committed = ledger.committed();
    let beat: Entry = block_on(async {
        loop {
            let limit = *committed.borrow_and_update();
            while let Some(item) = reader.next(limit).unwrap() {
                if let Item::Entry(entry) = item
                    && entry.fields()["sinks"][0]["acked"] == 2
                {
                    return entry;
                }
            }
            committed.changed().await.unwrap();
        }
    });
    assert_eq!(beat.kind(), "heartbeat");
    assert_eq!(beat.fields()["state"], "running");
    assert_eq!(beat.fields()["sessions"], 1);
    assert_eq!(beat.fields()["open"][0]["sid"], session.id.to_string());
    assert_eq!(beat.fields()["open"][0]["sseq"], 1);
    assert!(beat.fields()["prev"]["size"].as_u64().unwrap() > 0);
    session.close();
    ledger.close();
    assert_eq!(verify(&disk).findings, []);
}

#[test]
fn a_follower_sees_every_entry_and_checkpoint_across_segments() {
    let disk = SimDisk::new();
    let (ledger, _) = Ledger::open_on(small(16 << 10), disk.clone()).unwrap();
    let mut reader = Reader::open_on(disk.clone(), Path::new(LEDGER)).unwrap();
    let (mut next, mut signed) = (0, 0);
    for _ in 0..12 {
        let mut session = Session::open(&ledger);
        let intent = session.intent(&[b'x'; 1500]);
        session.outcome(intent);
        wait(&ledger, session.close());
        let limit = *ledger.committed().borrow();
        while let Some(item) = reader.next(limit).unwrap() {
            match item {
                Item::Entry(entry) => {
                    assert_eq!(entry.index, next);
                    next += 1;
                }
                Item::Checkpoint(checkpoint) => {
                    assert_eq!(checkpoint.size, next);
                    signed = checkpoint.size;
                }
            }
        }
        assert_eq!((next, signed), (limit, limit));
    }
    let mut late = Reader::open_on(disk, Path::new(LEDGER)).unwrap();
    late.seek(next).unwrap();
    assert!(late.next(next).unwrap().is_none());
    assert!(late.seek(next + 1).is_err());
}

#[test]
fn a_ledger_is_verified_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(crate::support::settings(dir.path())).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut session = Session::open(&ledger);
                    for size in [10, 30_000, 700] {
                        let intent = session.intent(&vec![b'x'; size]);
                        wait(&ledger, intent.0);
                        session.outcome(intent);
                    }
                    session.close();
                }
            });
        }
        let inputs = Inputs { ledgers: vec![ledger.dir().to_owned()], ..Inputs::default() };
        for _ in 0..8 {
            let report = verbatim_ledger::verify::verify(&inputs);
            assert_eq!(report.findings, []);
            assert!(report.last_line.contains("in use"), "{}", report.last_line);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn what_a_file_sink_wrote_anchors_the_ledger() {
    let (disk, checkpoints) = ledger(64 << 10, 2);
    let mut lines = String::from("{\"kind\":\"intent\",\"envelope\":\"{}\"}\n");
    for checkpoint in &checkpoints {
        let line = serde_json::json!({ "kind": "checkpoint", "envelope": checkpoint.note, "payload": null });
        lines += &format!("{line}\n");
    }
    // What the collector was writing when it stopped.
    lines += "{\"kind\":\"check";
    disk.tamper("/sink.jsonl", lines.into_bytes());
    let against = Inputs { checkpoints: vec!["/sink.jsonl".into()], require_anchor: true, ..inputs() };
    let report = verify_with(&disk, &against);
    assert_eq!(report.findings, []);
    assert!(report.last_line.contains("its last entry"), "{}", report.last_line);

    let notes: String = checkpoints.iter().map(|checkpoint| format!("{}\n", checkpoint.note)).collect();
    disk.tamper("/auditor.notes", notes.into_bytes());
    let against = Inputs { checkpoints: vec!["/auditor.notes".into()], require_anchor: true, ..inputs() };
    assert_eq!(verify_with(&disk, &against).findings, []);

    disk.tamper("/empty", Vec::new());
    let against = Inputs { checkpoints: vec!["/empty".into()], ..inputs() };
    assert_eq!(verify_with(&disk, &against).exit_code(), 2);
}

#[test]
fn a_trusted_node_whose_ledger_is_not_given_is_missing() {
    let (disk, _) = ledger(64 << 10, 1);
    let other = verbatim_ledger::note::SigningKey::generate("example.com/verbatim/n2/1").unwrap().0;
    let own = String::from_utf8(disk.bytes("/data/keys/node.vkey")).unwrap();
    disk.tamper("/trust", format!("# all nodes\n{own}{}\n", other.public()).into_bytes());
    let against = Inputs { trust: Some("/trust".into()), ..inputs() };
    assert_eq!(codes(&verify_with(&disk, &against)), ["NODEMISSING"]);
}

#[test]
fn the_report_is_the_contracts_document() {
    let (disk, _) = ledger(64 << 10, 1);
    let report = serde_json::to_value(verify(&disk)).unwrap();
    let mut keys: Vec<_> = report["ledgers"][0].as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["anchored_until", "operations", "origin", "root", "sessions", "size"]);
    assert_eq!(report["result"], "intact");
    assert_eq!(report["findings"], serde_json::json!([]));
    assert_eq!(report.as_object().unwrap().len(), 3);
}
