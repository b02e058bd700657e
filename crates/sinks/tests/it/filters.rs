use std::sync::Arc;
use std::time::Duration;

use verbatim_sinks::{Filter, Settings};

use crate::fake::Fake;
use crate::record::Record;

const LONG: Duration = Duration::from_secs(3600);

fn of_connection(record: &Record) -> Settings {
    let connections = Some(["customer-db".to_owned()].into());
    Settings { filter: Filter { connections, kinds: None }, ..record.settings() }
}

/// The kinds of a session's entries that a sink got.
fn kinds(sink: &Fake, session: &impl ToString) -> Vec<String> {
    let session = Some(session.to_string());
    sink.events().into_iter().filter(|event| event.session == session).map(|event| event.kind).collect()
}

#[tokio::test(start_paused = true)]
async fn a_connections_entries_and_those_of_none_pass() {
    let record = Record::new();
    let mut wanted = record.open("customer-db");
    let mut other = record.open("orders");
    wanted.query(b"SELECT 1");
    other.query(b"SELECT 2");
    let (wanted, other) = (wanted.close(), other.close());
    let nowhere = record.refuse(None);
    let refused = record.refuse(Some("customer-db"));
    let refused_other = record.refuse(Some("orders"));
    record.settle().await;
    let sink = Arc::new(Fake::new());
    record.deliver_with(of_connection(&record), &sink).stop(LONG).await;

    assert_eq!(kinds(&sink, &wanted), ["session_open", "authz", "intent", "outcome", "session_close"]);
    assert_eq!(kinds(&sink, &other), [""; 0]);
    assert_eq!(kinds(&sink, &nowhere), ["session_open", "denied", "session_close"]);
    assert_eq!(kinds(&sink, &refused), ["session_open", "denied", "session_close"]);
    assert_eq!(kinds(&sink, &refused_other), [""; 0]);
    let events = sink.events();
    assert!(events.iter().any(|event| event.kind == "config"), "what belongs to no connection passes");
    assert!(events.iter().any(|event| event.kind == "checkpoint"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_sessions_forgets_no_connection() {
    let record = Record::new();
    let sink = Arc::new(Fake::new());
    let stop_and_go = async || {
        record.settle().await;
        record.deliver_with(of_connection(&record), &sink).stop(LONG).await;
    };
    let mut wanted = record.open("customer-db");
    let mut other = record.open("orders");
    // Nobody knows yet for which connection this one is: the opening waits, across the restart too.
    let undecided = record.claim();
    stop_and_go().await;
    assert_eq!(kinds(&sink, &undecided.id), [""; 0]);
    wanted.query(b"SELECT 1");
    other.query(b"SELECT 2");
    stop_and_go().await;
    let (wanted, other, undecided) = (wanted.close(), other.close(), undecided.close());
    stop_and_go().await;
    assert_eq!(kinds(&sink, &wanted), ["session_open", "authz", "intent", "outcome", "session_close"]);
    assert_eq!(kinds(&sink, &other), [""; 0]);
    assert_eq!(kinds(&sink, &undecided), ["session_open", "session_close"]);
}

#[tokio::test(start_paused = true)]
async fn kinds_are_chosen_and_checkpoints_pass_always() {
    let record = Record::new();
    record.work(3);
    record.settle().await;
    let sink = Arc::new(Fake::new());
    let filter = Filter { connections: None, kinds: Some(["intent".to_owned()].into()) };
    record.deliver_with(Settings { filter, ..record.settings() }, &sink).stop(LONG).await;
    let mut kinds: Vec<String> = sink.events().into_iter().map(|event| event.kind).collect();
    kinds.retain(|kind| kind != "checkpoint");
    assert_eq!(kinds, ["intent"; 9]);
    assert!(sink.events().len() > 9);
}
