use verbatim_core::{CloseReason, Outcome, Status};
use verbatim_store::{Filters, StoreError};

use crate::record::{Record, operation};

/// The texts that a search finds among some commands, newest first.
fn found(record: &Record, search: &str) -> Vec<String> {
    let document = record.index().search(search, &Filters::default()).unwrap();
    document.matches.into_iter().map(|found| found.operation.text.unwrap_or_default()).collect()
}

#[test]
fn any_substring_of_a_command_is_found() {
    let record = Record::new();
    let mut log = record.open();
    let update = "UPDATE customers SET email = 'ann.b@example.com' WHERE customer_id = 4711";
    log.query(update.as_bytes());
    log.query(b"SELECT 1");
    log.refused("SELECT 'Grüße', 100%".as_bytes());
    log.close(CloseReason::Client);

    for search in [
        "ann.b@example.com",
        "customer_id",
        "omer_i",
        "4711",
        "UPDATE",
        "update CUSTOMERS",
        "customers update",
        "\"SET email\"",
        "= '",
        "ID",
    ] {
        assert_eq!(found(&record, search), [update], "{search}");
    }
    assert_eq!(found(&record, "grüße"), ["SELECT 'Grüße', 100%"]);
    assert_eq!(found(&record, "0%"), ["SELECT 'Grüße', 100%"], "wildcards are characters");
    assert_eq!(found(&record, "1"), ["SELECT 'Grüße', 100%", "SELECT 1", update]);
    for nothing in ["\"customers update\"", "custom_r", "ann.c@example.com", "delete", "_T"] {
        assert_eq!(found(&record, nothing), [""; 0], "{nothing}");
    }
}

#[test]
fn a_text_that_runs_often_is_stored_once_and_found_each_time() {
    let record = Record::new();
    let mut log = record.open();
    for _ in 0..50 {
        log.query(b"SELECT balance FROM accounts");
    }
    log.close(CloseReason::Client);
    assert_eq!(found(&record, "balance").len(), 50);
    let index = record.index();
    let limited = index.search("balance", &Filters { limit: Some(7), ..Filters::default() }).unwrap();
    let sequences: Vec<u64> = limited.matches.iter().map(|found| found.operation.sequence).collect();
    assert_eq!(sequences, [50, 49, 48, 47, 46, 45, 44], "the newest");
    let db = rusqlite::Connection::open(record.dir.path().join("index.sqlite")).unwrap();
    let texts: i64 = db.query_row("SELECT count(*) FROM pieces", [], |row| row.get(0)).unwrap();
    assert_eq!(texts, 1);
}

#[test]
fn what_stands_behind_padding_a_nul_or_bad_bytes_is_found() {
    let record = Record::new();
    let mut log = record.open();
    let padded = format!("/*{}*/ DELETE FROM needles", " ".repeat(5 << 20));
    log.query(padded.as_bytes());
    log.query(b"SELECT 1 -- \0 haystack_one");
    log.query(b"SELECT '\xff\xff' -- haystack_two");
    log.close(CloseReason::Client);
    assert_eq!(found(&record, "needles").len(), 1);
    assert_eq!(found(&record, "delete needles /*").len(), 1, "across pieces");
    assert_eq!(found(&record, "haystack").len(), 2);
}

#[test]
fn a_search_without_words_is_refused() {
    let record = Record::new();
    let index = record.index();
    for search in ["", "  ", "\"\""] {
        assert!(matches!(index.search(search, &Filters::default()), Err(StoreError::Search { .. })));
    }
    let long = "x".repeat(2000);
    assert!(matches!(index.search(&long, &Filters::default()), Err(StoreError::Search { .. })));
    // What looks like the search engine's own language is text.
    for search in ["NEAR(a b)", "words: x", "a* OR b", "'; DROP TABLE texts; --", "\"unclosed"] {
        assert!(index.search(search, &Filters::default()).unwrap().matches.is_empty(), "{search}");
    }
}

#[test]
fn operations_without_a_text_are_not_found_by_their_content() {
    let record = Record::new();
    let mut log = record.open();
    log.copy(&[b"a secret row"]);
    log.request(operation("cancel", None), None);
    log.close(CloseReason::Client);
    assert_eq!(found(&record, "secret"), [""; 0], "the search is over commands");
}

#[test]
fn a_text_that_goes_on_in_chunks_is_whole_and_found() {
    let record = Record::new();
    let mut log = record.open();
    log.query(b"SELECT 'the begin");
    let place = log.request(operation("query", Some(b"SELECT 'the begin")), None);
    log.go_on(place, b"ning', 'and the m\xc3");
    log.go_on(place, b"\xb6ddle', 'end'");
    log.complete(place, &Outcome::new(Status::Ok));
    log.close(CloseReason::Client);

    let whole = "SELECT 'the beginning', 'and the m\u{f6}ddle', 'end'";
    for search in ["\"the beginning\"", "ddle end", "'end'", "beginning end"] {
        assert_eq!(found(&record, search), [whole], "{search}");
    }
    assert_eq!(found(&record, "\"the begin\""), [whole, "SELECT 'the begin"]);
}
