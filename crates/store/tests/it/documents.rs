use std::sync::Arc;

use bytes::Bytes;
use expect_test::{Expect, expect};
use serde::Serialize;
use serde_json::Value;
use verbatim_core::{CloseReason, OnBehalfOf, Outcome, ParameterValue, Status};
use verbatim_store::{Filters, Index, Start, Tail};

use crate::record::{AGENT, Record, Somebody, operation, parameter};

/// Checks a document against its published schema.
fn valid(schema: &str, document: &Value) {
    let path = format!("{}/../../docs/contract/{schema}.schema.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mistakes: Vec<String> = validator.iter_errors(document).map(|error| error.to_string()).collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}\n{document:#}");
}

fn json(document: &impl Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(document).unwrap()).unwrap()
}

/// What changes from run to run, named: ids and times.
fn named(text: &str) -> String {
    let mut named = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once('"') {
        let (word, after) = from.split_once('"').unwrap();
        let is_time = word.len() == 27 && word.ends_with('Z') && !word.starts_with("2026-11-23T20:41");
        let is_id = word.len() == 36 && word.as_bytes()[14] == b'7';
        named.push_str(before);
        named.push_str(&format!(
            "\"{}\"",
            if is_time {
                "TIME"
            } else if is_id {
                "ID"
            } else {
                word
            }
        ));
        rest = after;
    }
    named + rest
}

fn check(document: &impl Serialize, expected: Expect) {
    expected.assert_eq(&named(&serde_json::to_string_pretty(document).unwrap()));
}

#[test]
fn a_session_is_shown_whole_with_every_key_in_the_order_of_the_contract() {
    let record = Record::new();
    let person = OnBehalfOf { object_id: "bbbb".to_owned(), name: None };
    let identity = Somebody { person: Some(person), ..AGENT };
    let mut log = record.open_as("customer-db", &identity, "billing-agents", None);
    let mut execute = operation("execute", Some(b"SELECT name FROM customers WHERE id = $1"));
    execute.parameters = Some(vec![
        parameter("int4", ParameterValue::Text("7".to_owned())),
        parameter("text", ParameterValue::Null),
        parameter("bytea", ParameterValue::Binary(Bytes::from_static(b"\xff"))),
    ]);
    execute.trace_id = Some("0af7651916cd43dd8448eb211c80319c".to_owned());
    let place = log.request(execute, None);
    log.complete(place, &Outcome { rows: Some(3), bytes: Some(120), ..Outcome::new(Status::Ok) });
    let id = log.close(CloseReason::Client);

    let document = record.index().show(&id.to_string()).unwrap();
    valid("sessions-show", &json(&document));
    check(
        &document,
        expect![[r#"
        {
          "session": {
            "id": "ID",
            "connection": "customer-db",
            "protocol": "postgres",
            "target": "db.internal:5432/customers",
            "identity": {
              "provider": "entra",
              "tenant": "11110000-0000-4000-8000-000000000001",
              "object_id": "aaaa0000-0000-4000-8000-000000000001",
              "kind": "agent",
              "name": "report-agent",
              "app_id": "c0ffee00-0000-4000-8000-000000000001",
              "on_behalf_of": {
                "object_id": "bbbb",
                "name": null
              },
              "token_id": "uti-1",
              "expires_at": "2026-11-23T20:41:00.000000Z"
            },
            "authorized_by": {
              "kind": "group",
              "name": "billing-agents",
              "id": "id-of-billing-agents"
            },
            "authorization_source": "graph",
            "client": {
              "address": "10.0.0.7:51324",
              "user": "report",
              "application": "psql"
            },
            "trace_id": null,
            "opened_at": "TIME",
            "closed_at": "TIME",
            "close_reason": "client",
            "refusal": null,
            "node": "gw-1",
            "complete": true,
            "wanted": "customer-db"
          },
          "operations": [
            {
              "sequence": 1,
              "kind": "execute",
              "statement": "select",
              "text": "SELECT name FROM customers WHERE id = $1",
              "parameters": [{"type":"int4","value":"7"},{"type":"text","value":null},{"type":"bytea","base64":"/w=="}],
              "requested_at": "TIME",
              "completed_at": "TIME",
              "trace_id": "0af7651916cd43dd8448eb211c80319c",
              "outcome": {
                "status": "ok",
                "rows": 3,
                "bytes": 120,
                "duration_us": 812,
                "error": null,
                "refusal": null,
                "messages": []
              },
              "masked": [],
              "approval": null,
              "content": null,
              "parameters_withheld": null
            }
          ]
        }"#]],
    );
}

#[test]
fn every_outcome_has_its_form() {
    let record = Record::new();
    let mut log = record.open();
    log.error(b"SELECT * FROM x");
    log.refused(b"DROP TABLE customers");
    let skipped = log.request(operation("execute", Some(b"SELECT 1")), None);
    log.complete(skipped, &Outcome::new(Status::Skipped));
    let aborted = log.request(operation("query", Some(b"SELECT pg_sleep(9)")), None);
    log.abort(aborted);
    let running = log.request(operation("query", Some(b"SELECT 2")), None);
    let index = record.index();

    let document = json(&index.show(&log.id.to_string()).unwrap());
    valid("sessions-show", &document);
    let outcomes: Vec<&Value> =
        document["operations"].as_array().unwrap().iter().map(|operation| &operation["outcome"]).collect();
    let completed = |place: usize| &document["operations"][place]["completed_at"];
    assert_eq!(outcomes[0]["error"]["code"], "42P01");
    assert_eq!(outcomes[0]["error"]["message"], "relation \"x\" does not exist");
    assert_eq!(outcomes[0]["messages"][0], "NOTICE 00000: beware");
    assert_eq!(outcomes[1]["status"], "refused");
    assert_eq!(outcomes[1]["refusal"]["code"], "expired");
    assert_eq!(completed(1), &document["operations"][1]["requested_at"]);
    assert_eq!(outcomes[2]["status"], "skipped");
    assert_eq!(outcomes[3]["status"], "aborted");
    assert!(outcomes[3]["duration_us"].is_null() && completed(3).is_string());
    assert!(outcomes[4].is_null() && completed(4).is_null());
    assert_eq!(document["session"]["complete"], false);

    log.complete(running, &Outcome::new(Status::Ok));
    let id = log.close(CloseReason::Client).to_string();
    record.settle();
    let session = index.session(&id).unwrap();
    assert!(session.closed_at.is_some() && !session.complete, "an aborted operation keeps it incomplete");
}

#[test]
fn a_session_that_crashed_is_closed_and_not_complete() {
    let record = Record::new();
    let mut log = record.open();
    let place = log.request(operation("query", Some(b"SELECT 1")), None);
    log.abort(place);
    let id = log.close(CloseReason::Crash);
    let session = record.index().session(&id.to_string()).unwrap();
    assert_eq!(session.close_reason.as_deref(), Some("crash"));
    assert!(!session.complete);
}

#[test]
fn a_refused_login_is_a_session_without_operations() {
    let record = Record::new();
    let unproved = record.refuse(None);
    let proved = record.refuse(Some(&AGENT));
    let index = record.index();
    let document = index.list(&Filters::default()).unwrap();
    valid("sessions-list", &json(&document));
    let ids: Vec<&str> = document.sessions.iter().map(|session| session.id.as_str()).collect();
    assert_eq!(ids, [proved.to_string(), unproved.to_string()]);
    for session in &document.sessions {
        assert_eq!(session.close_reason.as_deref(), Some("refused"));
        assert_eq!(session.refusal.as_ref().unwrap().code, "no_group");
        assert!(session.complete && session.authorized_by.is_none());
        assert!(index.show(&session.id).unwrap().operations.is_empty());
    }
    assert_eq!(document.sessions[0].connection.as_deref(), Some("customer-db"));
    assert!(document.sessions[1].identity.is_none() && document.sessions[1].connection.is_none());
}

#[test]
fn hostile_texts_come_back_byte_for_byte() {
    let record = Record::new();
    let mut log = record.open();
    let text = "SELECT 1; --\n\r\u{1b}[31m\0\u{202e}drop\u{2028}|=\\\"'\u{7f}";
    log.query(text.as_bytes());
    log.query(b"SELECT '\xff\xfe'");
    log.query(b"");
    let padded = format!("/*{}*/ DELETE FROM customers", "x".repeat(3 << 20));
    log.query(padded.as_bytes());
    let id = log.close(CloseReason::Client).to_string();

    let mut out = Vec::new();
    record.index().write_session(&id, &mut out).unwrap();
    assert!(!out.contains(&0) && !out.contains(&0x1b), "control characters are escaped");
    let document: Value = serde_json::from_slice(&out).unwrap();
    valid("sessions-show", &document);
    let operations = document["operations"].as_array().unwrap();
    assert_eq!(operations[0]["text"], text);
    assert_eq!(operations[1]["text"], Value::Null);
    assert_eq!(operations[1]["base64"], "U0VMRUNUICf//ic=");
    assert_eq!(operations[1]["statement"], Value::Null);
    assert_eq!(operations[2]["text"], "");
    assert_eq!(operations[3]["text"], padded);
    assert!(operations[0].get("base64").is_none());
}

#[test]
fn streamed_content_is_the_text_of_its_operation() {
    let record = Record::new();
    let mut log = record.open();
    log.query(b"COPY customers FROM STDIN");
    log.copy(&[b"1\tAnn", b"a\n2\tJ\xc3", b"\xb6rg\n"]);
    log.copy(&[]);
    let id = log.close(CloseReason::Client).to_string();
    let document = json(&record.index().show(&id).unwrap());
    valid("sessions-show", &document);
    let copy = &document["operations"][1];
    assert_eq!(copy["text"], "1\tAnna\n2\tJörg\n");
    assert_eq!(copy["content"]["length"], 15);
    assert_eq!(copy["content"]["sha256"], "ab".repeat(32));
    assert_eq!(copy["statement"], Value::Null, "data is no statement");
    assert_eq!(document["operations"][2]["text"], Value::Null);
    assert_eq!(document["operations"][2]["content"]["length"], 0);
}

#[test]
fn content_of_any_length_is_written_whole() {
    // 20 MB in pieces that part characters and triples of bytes; with one byte more it is no text.
    let line = "1\tJ\u{f6}rg \"\\\u{1b}\n";
    let text = line.repeat((20 << 20) / line.len());
    let mut broken = text.clone().into_bytes();
    broken.push(0xff);
    for bytes in [text.as_bytes(), &broken] {
        let record = Record::new();
        let mut log = record.open();
        log.copy(&bytes.chunks(1_000_001).collect::<Vec<_>>());
        log.query(b"SELECT 1");
        let id = log.close(CloseReason::Client).to_string();
        let index = record.index();
        let mut out = Vec::new();
        index.write_session(&id, &mut out).unwrap();
        let document: Value = serde_json::from_slice(&out).unwrap();
        valid("sessions-show", &document);
        let copy = &document["operations"][0];
        if bytes.len() == text.len() {
            assert!(copy["text"] == text && copy.get("base64").is_none());
        } else {
            let mut encoded = Vec::new();
            verbatim_core::json::base64(&mut encoded, bytes);
            let encoded: Value = serde_json::from_slice(&encoded).unwrap();
            assert!(copy["text"].is_null() && copy["base64"] == encoded);
        }
        assert_eq!(document["operations"][1]["text"], "SELECT 1");
        let built = index.show(&id).unwrap();
        assert!(built.operations[0].text.is_none() && built.operations[0].content.is_some());
    }
}

#[test]
fn written_and_built_documents_are_the_same() {
    let record = Record::new();
    for place in 0..3 {
        let mut log = record.open();
        log.query(format!("SELECT {place}").as_bytes());
        log.query(b"SELECT 'always'");
        log.close(CloseReason::Client);
    }
    let index = record.index();
    let filters = Filters::default();
    let list = index.list(&filters).unwrap();
    let mut out = Vec::new();
    index.write_list(&filters, &mut out).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), json(&list));

    let matches = index.search("select", &filters).unwrap();
    assert_eq!(matches.matches.len(), 6);
    valid("search", &json(&matches));
    out.clear();
    index.write_matches("select", &filters, &mut out).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), json(&matches));

    let id = &list.sessions[0].id;
    out.clear();
    index.write_session(id, &mut out).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), json(&index.show(id).unwrap()));
}

#[test]
fn a_tail_has_a_line_an_opening_an_outcome_and_a_close() {
    fn lines(tail: &mut Tail) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = tail.next().unwrap() {
            valid("tail", &json(&line));
            let outcome = line.operation.as_ref().and_then(|operation| operation.outcome.as_ref());
            lines.push(match (line.operation.as_ref(), line.session.closed_at.is_some()) {
                (None, false) => "opened".to_owned(),
                (None, true) => format!("closed {}", line.session.close_reason.unwrap()),
                (Some(operation), false) => {
                    format!("{} {}", operation.text.as_deref().unwrap(), outcome.unwrap().status)
                }
                (Some(_), true) => "an operation of a closed session".to_owned(),
            });
        }
        lines
    }

    let record = Record::new();
    record.open().close(CloseReason::Client);
    let index: Arc<Index> = Arc::new(record.index());
    let mut tail = Tail::new(Arc::clone(&index), Start::Now, Filters::default()).unwrap();
    assert_eq!(lines(&mut tail), [""; 0], "what was before is not tailed");

    let mut log = record.open();
    log.query(b"SELECT 1");
    let running = log.request(operation("query", Some(b"SELECT 2")), None);
    record.settle();
    assert_eq!(lines(&mut tail), ["opened", "SELECT 1 ok"]);
    log.complete(running, &Outcome::new(Status::Ok));
    log.refused(b"SELECT 3");
    log.close(CloseReason::Idle);
    record.refuse(None);
    record.settle();
    assert_eq!(lines(&mut tail), ["SELECT 2 ok", "SELECT 3 refused", "closed idle", "closed refused"]);

    let mut all = Tail::new(index, Start::Entry(0), Filters { refused: true, ..Filters::default() }).unwrap();
    assert_eq!(lines(&mut all), ["SELECT 3 refused", "closed refused"]);
}
