use serde_json::{Value, json};
use verbatim_ledger::{Item, Reader};
use verbatim_sinks::{Event, Payload, native};

use crate::record::Record;

fn valid(event: &Event) -> Value {
    let document: Value = serde_json::from_slice(&event.json).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/contract/native-event.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mistakes: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}\n{document:#}");
    assert!(!event.json.contains(&b'\n') && event.json.iter().all(|byte| *byte >= 0x20), "one clean line");
    document
}

#[tokio::test]
async fn entries_carry_the_stored_bytes_and_payloads_only_where_asked() {
    let record = Record::new();
    let text = "SELECT '\n\u{1b}[31m\u{202e}|=\\\"' -- \0";
    let mut log = record.open("customer-db");
    log.query(text.as_bytes());
    log.query(b"SELECT '\xff'");
    let session = log.close().to_string();
    let size = record.settle().await;

    let mut reader = Reader::open(&record.ledger_dir()).unwrap();
    let mut intents = Vec::new();
    let mut last = None;
    while let Some(item) = reader.next(size).unwrap() {
        match item {
            Item::Entry(entry) => {
                let mut full = valid(&native::entry(&entry, Payload::Full));
                assert_eq!(full["envelope"], entry.envelope());
                let leaf: String = entry.leaf.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(full["leaf"], leaf);
                assert_eq!(full["id"], format!("example.com/verbatim/gw-1/1#{}", entry.index));
                for less in [Payload::Summary, Payload::Digest] {
                    let mut expected = full.clone();
                    expected["payload"] = Value::Null;
                    assert_eq!(valid(&native::entry(&entry, less)), expected);
                }
                // Random, a frame each.
                if let Some(payload) = full["payload"].as_object_mut() {
                    let salts = payload.remove("salts").unwrap();
                    assert_eq!(salts.as_array().unwrap().len(), entry.pieces().count());
                }
                if full["kind"] == "intent" {
                    intents.push(full);
                } else if full["kind"] == "outcome" {
                    assert_eq!(full["payload"], json!({ "messages": ["NOTICE 00000: x"] }));
                } else {
                    assert_eq!(full["payload"], Value::Null);
                    assert_eq!(full["sequence"], Value::Null);
                }
            }
            Item::Checkpoint(checkpoint) => last = Some(checkpoint),
        }
    }
    assert_eq!(intents.len(), 2);
    assert_eq!((&intents[0]["session"], &intents[0]["sequence"]), (&json!(session), &json!(1)));
    let parameters = json!([{ "type": "int4", "value": "7" }]);
    assert_eq!(intents[0]["payload"], json!({ "text": text, "parameters": parameters }));
    let bytes = json!({ "base64": "U0VMRUNUICf/Jw==" });
    assert_eq!(intents[1]["payload"], json!({ "text": bytes, "parameters": parameters }));

    let checkpoint = last.unwrap();
    let time = verbatim_core::Timestamp::from_nanos(0);
    let document = valid(&native::checkpoint(&checkpoint, time));
    assert_eq!(document["kind"], "checkpoint");
    assert_eq!(document["envelope"], checkpoint.note);
    assert_eq!(document["id"], format!("example.com/verbatim/gw-1/1/checkpoint#{}", checkpoint.size));
    assert_eq!(document["payload"], Value::Null);
}
