//! What a sink holds against the ledger: row 40 of the table of tamperings.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use verbatim_core::AuditEvent;
use verbatim_ledger::hash::hex;
use verbatim_ledger::verify::{Inputs, Report};
use verbatim_ledger::{Checkpoint, Entry, Item, Reader};

use crate::disk::SimDisk;
use crate::forge::{LEDGER, codes, expect, inputs, ledger, verify_with};

const SINK: &str = "/sink.jsonl";

/// A native event, as a sink that gets payload holds it.
fn native(entry: &Entry) -> Value {
    let mut payload = serde_json::Map::new();
    for part in entry.parts() {
        payload.insert(part.name.clone(), std::str::from_utf8(&part.bytes).unwrap().into());
    }
    let salts: Vec<_> = entry.pieces().map(|(salt, _)| STANDARD.encode(salt)).collect();
    payload.insert("salts".to_owned(), salts.into());
    json!({
        "id": entry.id(),
        "kind": entry.kind(),
        "session": entry.session().map(|session| session.to_string()),
        "sequence": entry.fields().get("seq"),
        "time": entry.time().to_string(),
        "leaf": hex(&entry.leaf),
        "envelope": entry.envelope(),
        "payload": if entry.parts().is_empty() { Value::Null } else { payload.into() },
    })
}

fn of_checkpoint(checkpoint: &Checkpoint) -> Value {
    json!({
        "id": format!("{}/checkpoint#{}", checkpoint.origin, checkpoint.size),
        "kind": "checkpoint", "session": null, "sequence": null, "time": "",
        "leaf": hex(&checkpoint.root), "envelope": checkpoint.note, "payload": null,
    })
}

/// A ledger, and what a sink got of it: the events, the last of them a checkpoint of all.
fn delivered() -> (Arc<SimDisk>, Vec<Value>) {
    let (disk, checkpoints) = ledger(16 << 10, 4);
    let mut reader = Reader::open_on(disk.clone(), Path::new(LEDGER)).unwrap();
    let mut events = Vec::new();
    while let Some(item) = reader.next(reader.committed().unwrap()).unwrap() {
        if let Item::Entry(entry) = item {
            events.push(native(&entry));
        }
    }
    events.push(of_checkpoint(checkpoints.last().unwrap()));
    (disk, events)
}

fn against(disk: &Arc<SimDisk>, events: &[Value]) -> Report {
    let lines: Vec<_> = events.iter().map(|event| format!("{event}\n")).collect();
    disk.tamper(SINK, lines.concat().into_bytes());
    verify_with(disk, &Inputs { checkpoints: vec![SINK.into()], ..inputs() })
}

/// Where an event begins in the sink's file.
fn offset(events: &[Value], place: usize) -> u64 {
    events[..place].iter().map(|event| event.to_string().len() as u64 + 1).sum()
}

/// The place of the first event of a kind.
fn first(events: &[Value], kind: &str) -> usize {
    events.iter().position(|event| event["kind"] == kind).unwrap()
}

#[test]
fn what_a_sink_was_given_is_what_the_ledger_has() {
    let (disk, mut events) = delivered();
    let report = against(&disk, &events);
    assert_eq!(report.findings, []);
    assert!(report.last_line.contains("its last entry"), "{}", report.last_line);
    // At least once, and perhaps not all of it, nor in the log's order.
    events.push(events[3].clone());
    events.remove(1);
    assert_eq!(against(&disk, &events).findings, []);
    // Without a checkpoint it is compared all the same; it anchors nothing.
    events.retain(|event| event["kind"] != "checkpoint");
    let report = against(&disk, &events);
    assert_eq!(report.findings, []);
    assert!(report.last_line.contains("not anchored"), "{}", report.last_line);
}

#[test]
fn row_40_an_envelope_changed_in_the_sink() {
    let (disk, mut events) = delivered();
    let place = first(&events, "outcome");
    let changed = events[place]["envelope"].as_str().unwrap().replace(r#""rows":3"#, r#""rows":4"#);
    events[place]["envelope"] = changed.into();
    let report = against(&disk, &events);
    expect(&report, "SINKDIFF", SINK, offset(&events, place));
    let of_operation = report.findings.iter().all(|finding| finding.sequence == Some(1));
    assert!(of_operation && report.findings[0].session.is_some(), "{:#?}", report.findings);
    // With the hash in the event put right it is still another entry than the ledger's.
    let envelope = events[place]["envelope"].as_str().unwrap().to_owned();
    events[place]["leaf"] = hex(&verbatim_ledger::tree::leaf_hash(envelope.as_bytes())).into();
    let report = against(&disk, &events);
    assert_eq!(codes(&report), ["SINKDIFF"]);
    assert_eq!(report.findings.len(), 1);
}

#[test]
fn row_40_what_stands_beside_the_envelope_changed_in_the_sink() {
    for (kind, key, value) in [
        ("intent", "id", json!("example.com/verbatim/n1/1#3")),
        ("intent", "kind", json!("denied")),
        ("intent", "leaf", json!("00")),
        ("intent", "envelope", json!("{}")),
        ("checkpoint", "leaf", json!("00")),
        ("checkpoint", "envelope", json!("")),
    ] {
        let (disk, mut events) = delivered();
        let place = first(&events, kind);
        events[place][key] = value;
        expect(&against(&disk, &events), "SINKDIFF", SINK, offset(&events, place));
    }
}

#[test]
fn row_40_a_text_changed_in_the_sink() {
    let (disk, events) = delivered();
    let place = first(&events, "intent");
    for (key, value) in [
        ("text", json!("SELECT 2")),
        ("text", json!("SELECT 1;")),
        ("text", json!({ "base64": STANDARD.encode("SELECT 2") })),
        ("more", json!("SELECT 1")),
        ("salts", json!([])),
        ("salts", json!([STANDARD.encode([7; 32])])),
    ] {
        let mut changed = events.clone();
        changed[place]["payload"][key] = value.clone();
        let report = against(&disk, &changed);
        expect(&report, "SINKDIFF", SINK, offset(&changed, place));
    }
    let mut same = events;
    same[place]["payload"]["text"] = json!({ "base64": STANDARD.encode("SELECT 1") });
    assert_eq!(against(&disk, &same).findings, []);
}

#[test]
fn row_40_entries_that_the_ledger_does_not_have() {
    let (disk, mut events) = delivered();
    let size = events.len() as u64 - 1;
    let forged = |index: u64| {
        let envelope = events[2]["envelope"].as_str().unwrap();
        let envelope = envelope.replacen(r#""idx":2"#, &format!(r#""idx":{index}"#), 1);
        let leaf = hex(&verbatim_ledger::tree::leaf_hash(envelope.as_bytes()));
        let mut event = events[2].clone();
        event["id"] = format!("example.com/verbatim/n1/1#{index}").into();
        (event["envelope"], event["leaf"]) = (envelope.into(), leaf.into());
        event
    };
    let beyond = [forged(size), forged(size + 5)];
    let place = events.len();
    events.extend(beyond);
    let report = against(&disk, &events);
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    expect(&report, "SINKDIFF", SINK, offset(&events, place));
    assert!(report.findings[0].message.contains(&format!("{size} to {}", size + 5)));
}

#[test]
fn an_export_that_wraps_the_events_is_read_too() {
    let (disk, events) = delivered();
    let wrapped: Vec<_> = events.iter().map(|event| json!({ "time": 1, "event": event })).collect();
    let report = against(&disk, &wrapped);
    assert_eq!(report.findings, []);
    assert!(report.last_line.contains("its last entry"), "{}", report.last_line);

    let ecs: Vec<_> =
        events.iter().map(|event| json!({ "event": { "original": event["envelope"] } })).collect();
    assert_eq!(against(&disk, &ecs).findings, []);
    let mut changed = ecs;
    let place = first(&events, "outcome");
    let envelope = events[place]["envelope"].as_str().unwrap().replace(r#""rows":3"#, r#""rows":4"#);
    changed[place]["event"]["original"] = envelope.into();
    expect(&against(&disk, &changed), "SINKDIFF", SINK, offset(&changed, place));

    // What a client sent can't pose as what the ledger stored.
    let posing = json!({ "query": events[2]["envelope"].as_str().unwrap().replace("postgres", "mysql") });
    let with_it: Vec<_> = events.iter().cloned().chain([posing]).collect();
    assert_eq!(against(&disk, &with_it).findings, []);
}

#[test]
fn a_file_of_another_log_is_said() {
    let (disk, events) = delivered();
    let other = |event: &Value| {
        let envelope = event["envelope"].as_str().unwrap().replace("verbatim/n1", "verbatim/n2");
        json!({ "event": { "original": envelope } })
    };
    let others: Vec<_> = events[..4].iter().map(other).collect();
    expect(&against(&disk, &others), "ORIGIN", SINK, 0);
}
