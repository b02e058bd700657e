use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use verbatim_core::{CloseReason, Outcome, Status};
use verbatim_ledger::Ledger;
use verbatim_store::{Filters, Index};

use crate::record::{Record, labels, operation, settings};

fn count(index: &Index) -> usize {
    index.list(&Filters::default()).unwrap().sessions.len()
}

fn file(record: &Record) -> std::path::PathBuf {
    record.dir.path().join("index.sqlite")
}

#[test]
fn the_index_goes_on_where_it_was_and_is_its_owners_alone() {
    let record = Record::new();
    record.open().close(CloseReason::Client);
    let index = record.index();
    assert_eq!(count(&index), 1);
    let indexed = index.indexed();
    drop(index);
    assert_eq!(std::fs::metadata(file(&record)).unwrap().permissions().mode() & 0o777, 0o600);

    let index = record.index();
    assert_eq!(index.indexed(), indexed, "nothing is read twice");
    record.open();
    record.settle();
    assert_eq!(count(&index), 2);
}

#[test]
fn an_index_that_does_not_fit_is_made_anew() {
    let record = Record::new();
    let mut log = record.open();
    log.query(b"SELECT 1");
    log.close(CloseReason::Client);
    type Damage = fn(&std::path::Path);
    let damage: [(&str, Damage); 6] = [
        ("missing", |file| std::fs::remove_file(file).unwrap()),
        ("no database", |file| std::fs::write(file, b"this is no database at all, but long enough").unwrap()),
        ("another version", |file| sql(file, "PRAGMA user_version = 99")),
        ("another ledger", |file| sql(file, "UPDATE state SET origin = 'example.org/verbatim/other/1'")),
        ("another entry", |file| sql(file, "UPDATE state SET leaf = zeroblob(32); DELETE FROM sessions")),
        ("ahead", |file| sql(file, "UPDATE state SET cursor = 1000000")),
    ];
    for (what, damage) in damage {
        assert_eq!(count(&record.index()), 1);
        damage(&file(&record));
        let index = record.index();
        assert_eq!(count(&index), 1, "{what}");
        assert_eq!(index.search("select", &Filters::default()).unwrap().matches.len(), 1, "{what}");
    }
}

fn sql(file: &std::path::Path, sql: &str) {
    rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn without_a_place_to_write_it_answers_all_the_same() {
    let record = Record::new();
    let mut log = record.open();
    log.query(b"SELECT 1");
    let id = log.close(CloseReason::Client).to_string();
    record.settle();
    let nowhere = record.dir.path().join("no such folder");
    let index = Index::open(&nowhere, &record.ledger_dir(), labels()).unwrap();
    assert_eq!(count(&index), 1);
    assert_eq!(index.show(&id).unwrap().operations.len(), 1);
    assert_eq!(index.search("select", &Filters::default()).unwrap().matches.len(), 1);
    assert!(!nowhere.exists());
}

#[test]
fn a_stopped_gateways_record_is_read_from_the_files() {
    let record = Record::new();
    let mut log = record.open();
    log.query(b"SELECT 1");
    let id = log.close(CloseReason::Client).to_string();
    record.settle();
    record.ledger.close();
    let index = Index::open(record.dir.path(), &record.ledger_dir(), labels()).unwrap();
    assert!(index.session(&id).unwrap().complete);
}

#[test]
fn it_follows_a_running_ledger_and_shows_open_sessions() {
    let record = Record::new();
    let index = Arc::new(record.index());
    let follow = index.follow(record.ledger.committed()).unwrap();
    let mut log = record.open();
    let place = log.request(operation("query", Some(b"SELECT 1")), None);
    record.settle();
    let shown = index.show(&log.id.to_string()).unwrap();
    assert!(shown.session.closed_at.is_none() && shown.operations[0].outcome.is_none());
    log.complete(place, &Outcome::new(Status::Ok));
    record.settle();
    assert!(index.show(&log.id.to_string()).unwrap().operations[0].outcome.is_some());
    assert_eq!(index.indexed(), *record.ledger.committed().borrow());
    drop(follow);
}

#[test]
fn two_processes_can_keep_the_same_index() {
    let record = Record::new();
    let (one, two) = (record.index(), record.index());
    for sessions in 1..=20 {
        record.open().close(CloseReason::Client);
        record.settle();
        let (first, second) = if sessions % 2 == 0 { (&one, &two) } else { (&two, &one) };
        assert_eq!((count(first), count(second)), (sessions, sessions));
    }
}

#[test]
fn a_long_session_goes_in_by_batches() {
    let record = Record::new();
    let mut log = record.open();
    for place in 0..5000 {
        log.query(format!("SELECT {place}").as_bytes());
    }
    let id = log.close(CloseReason::Client).to_string();
    let index = record.index();
    let session = index.session(&id).unwrap();
    let mut expected = 1;
    index
        .each_operation(&session, &mut |operation| {
            assert_eq!(operation.sequence, expected);
            expected += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(expected, 5001);
}

#[test]
fn a_restarted_ledger_is_followed_on() {
    let record = Record::new();
    record.open().close(CloseReason::Client);
    assert_eq!(count(&record.index()), 1);
    let Record { dir, ledger } = record;
    ledger.close();
    drop(ledger);
    let (ledger, _) = Ledger::open(settings(dir.path())).unwrap();
    let record = Record { dir, ledger };
    record.open();
    assert_eq!(count(&record.index()), 2);
}
