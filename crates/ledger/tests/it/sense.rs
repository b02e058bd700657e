//! The table of tamperings, rows 27 to 39: what makes no sense, although it is signed with the node's own key. A writer with
//! a mistake leaves the same, so each finding says where.

use verbatim_core::event::{Renewed, kind};
use verbatim_core::{CloseReason, Refusal};
use verbatim_ledger::frame::Kind;
use verbatim_ledger::{Ledger, LedgerError};

use crate::disk::SimDisk;
use crate::forge::{
    FIRST, Frames, codes, edit, expect, find, frames, key, ledger, offset_of, renumber, replace, resign,
    small, text, verify,
};
use crate::support::Session;

/// Does something to the frames of a small ledger, signs all of it again, and expects a finding at the frame whose place
/// `change` returns.
#[track_caller]
fn signed(code: &str, change: impl FnOnce(&mut Frames) -> usize) {
    let (disk, _) = ledger(64 << 10, 2);
    let mut frames = frames(&disk, FIRST);
    let place = change(&mut frames);
    resign(&mut frames, &key(&disk));
    let offset = offset_of(&frames, place);
    replace(&disk, &frames);
    let report = verify(&disk);
    expect(&report, code, FIRST, offset);
    assert!(!codes(&report).contains(&"ROOT"), "{:#?}", report.findings);
}

/// Changes the n-th entry of a kind; says where it is.
fn change(frames: &mut Frames, kind: &str, n: usize, from: &str, to: &str) -> usize {
    let place = find(frames, kind, n);
    edit(frames, place, from, to);
    place
}

/// A number that stands in a string under this key.
fn quoted(frames: &Frames, place: usize, key: &str) -> u64 {
    let rest = text(&frames[place].1).split(&format!(r#""{key}":""#)).nth(1).unwrap();
    rest.split('"').next().unwrap().parse().unwrap()
}

/// Moves one of an entry's clocks.
fn shift(frames: &mut Frames, place: usize, key: &str, nanos: i64) {
    let was = quoted(frames, place, key);
    let now = was.checked_add_signed(nanos).unwrap();
    edit(frames, place, &format!(r#""{key}":"{was}""#), &format!(r#""{key}":"{now}""#));
}

#[test]
fn row_27_a_gap_among_a_sessions_entries() {
    signed("SSEQGAP", |frames| change(frames, "outcome", 0, r#""sseq":4"#, r#""sseq":5"#));
    // The chain by which an entry names the one before it.
    signed("SSEQGAP", |frames| {
        change(frames, "outcome", 0, r#""rows":3"#, r#""rows":4"#);
        find(frames, "abort", 0)
    });
    // Entries of no session have a chain as well.
    signed("SSEQGAP", |frames| {
        change(frames, "config", 0, "0a1b", "0a1c");
        find(frames, "heartbeat", 1)
    });
}

#[test]
fn row_27_a_gap_among_a_sessions_operations() {
    signed("SSEQGAP", |frames| {
        change(frames, "intent", 1, r#""seq":2"#, r#""seq":3"#);
        change(frames, "abort", 0, r#""seq":2"#, r#""seq":3"#);
        find(frames, "session_close", 0)
    });
    signed("DUP", |frames| {
        change(frames, "abort", 0, r#""seq":2"#, r#""seq":1"#);
        change(frames, "intent", 1, r#""seq":2"#, r#""seq":1"#)
    });
    signed("DUP", |frames| change(frames, "intent", 0, r#""seq":1"#, r#""seq":0"#));
    signed("STATE", |frames| change(frames, "intent", 0, r#""seq":1"#, r#""seq":null"#));
}

#[test]
fn operations_that_are_recorded_out_of_order_are_no_finding() {
    let disk = SimDisk::new();
    let (ledger, _) = Ledger::open_on(small(64 << 10), disk.clone()).unwrap();
    let session = Session::open(&ledger);
    for sequence in [2, 3, 1] {
        let operation = verbatim_core::Operation::new(sequence, "request");
        let event = verbatim_core::event::Requested { operation: &operation, refusal: None, withheld: None };
        let entry = session.log.append(&event).unwrap();
        session.outcome((entry, sequence));
    }
    session.close();
    // What a crash kept from being recorded was never forwarded.
    let crashed = Session::open(&ledger);
    let operation = verbatim_core::Operation::new(2, "request");
    let event = verbatim_core::event::Requested { operation: &operation, refusal: None, withheld: None };
    crashed.log.append(&event).unwrap();
    crashed.log.append(&verbatim_core::event::SessionClosed { reason: CloseReason::Crash }).unwrap();
    ledger.close();
    assert_eq!(verify(&disk).findings, []);
}

#[test]
fn row_28_an_operation_without_an_answer() {
    signed("NOOUTCOME", |frames| {
        frames.remove(find(frames, "abort", 0));
        find(frames, "session_close", 0)
    });
    // At the end of the log, of a session that nothing will close any more.
    let (disk, _) = ledger(64 << 10, 2);
    let mut all = frames(&disk, FIRST);
    for kind in ["session_close", "abort"] {
        let place = find(&all, kind, 1);
        all.remove(place);
    }
    resign(&mut all, &key(&disk));
    replace(&disk, &all);
    let report = verify(&disk);
    let of_session =
        report.findings.iter().filter(|finding| ["NOCLOSE", "NOOUTCOME"].contains(&finding.code));
    assert_eq!(of_session.count(), 2, "{:#?}", report.findings);
}

#[test]
fn row_29_an_answer_to_nothing_or_to_another_operation() {
    signed("ORPHAN", |frames| change(frames, "outcome", 0, r#""cid":4"#, r#""cid":2"#));
    signed("ORPHAN", |frames| {
        let place = find(frames, "outcome", 0);
        frames.insert(place, frames[place].clone());
        place + 1
    });
    signed("ORPHAN", |frames| change(frames, "outcome", 0, r#""seq":1"#, r#""seq":2"#));
    signed("ORPHAN", |frames| change(frames, "abort", 0, r#""cid":5"#, r#""cid":null"#));
}

#[test]
fn row_30_a_session_that_was_never_closed() {
    signed("NOCLOSE", |frames| {
        frames.remove(find(frames, "session_close", 1));
        // Said at the end of the log, which has nothing behind its last commit.
        frames.len()
    });
}

#[test]
fn row_31_counts_that_are_not_those_of_the_session() {
    for (from, to) in [
        (r#""intents":2"#, r#""intents":1"#),
        (r#""outcomes":1"#, r#""outcomes":2"#),
        (r#""aborts":1"#, r#""aborts":0"#),
        (r#""denied":0"#, r#""denied":1"#),
    ] {
        signed("COUNT", |frames| change(frames, "session_close", 0, from, to));
    }
    signed("COUNT", |frames| {
        frames.remove(find(frames, "abort", 0));
        find(frames, "session_close", 0)
    });
}

#[test]
fn row_32_entries_outside_of_their_session() {
    signed("STATE", |frames| {
        frames.remove(find(frames, "session_open", 0));
        find(frames, "authz", 0)
    });
    signed("STATE", |frames| {
        let (close, abort) = (find(frames, "session_close", 0), find(frames, "abort", 0));
        frames.swap(close, abort);
        close
    });
    signed("STATE", |frames| change(frames, "config", 0, r#""kind":"config""#, r#""kind":"renewed""#));
    signed("STATE", |frames| {
        frames.remove(find(frames, "log_open", 0));
        renumber(frames);
        find(frames, "heartbeat", 0)
    });
}

#[test]
fn row_32_a_renewal_belongs_into_its_session() {
    let disk = SimDisk::new();
    let (ledger, _) = Ledger::open_on(small(64 << 10), disk.clone()).unwrap();
    let refusal = Refusal::NotRecorded { reason: "a test".to_owned() };
    let renewed = Renewed { identity: None, refusal: Some(&refusal) };
    assert!(matches!(ledger.append(&renewed), Err(LedgerError::OutOfOrder { .. })));
    let mut session = Session::open(&ledger);
    let intent = session.intent(b"SELECT 1");
    session.log.append(&renewed).unwrap();
    session.outcome(intent);
    session.close();
    assert_eq!(session.log.append(&renewed), Err(LedgerError::Closed));
    ledger.close();
    assert_eq!(verify(&disk).findings, []);

    let mut all = frames(&disk, FIRST);
    let (place, close) = (find(&all, kind::RENEWED, 0), find(&all, kind::SESSION_CLOSE, 0));
    let moved = all.remove(place);
    all.insert(close, moved);
    resign(&mut all, &key(&disk));
    replace(&disk, &all);
    expect(&verify(&disk), "STATE", FIRST, offset_of(&all, close));
}

#[test]
fn row_33_an_operation_before_anything_let_the_session_in() {
    signed("NOAUTHZ", |frames| {
        frames.remove(find(frames, "authz", 0));
        find(frames, "intent", 0)
    });
}

#[test]
fn row_34_a_clock_that_goes_back() {
    // The wall clock, and no entry that says so: known for sure where the log ends without one.
    signed("CLOCKBACK", |frames| {
        let place = find(frames, "config", 0);
        shift(frames, place, "ts", -3_600_000_000_000);
        frames.len()
    });
    signed("CLOCKBACK", |frames| {
        let place = find(frames, "config", 0);
        let mono = i64::try_from(quoted(frames, place, "mono")).unwrap();
        shift(frames, place, "mono", 1 - mono);
        place
    });
}

#[test]
fn row_35_silence_and_clocks_that_part() {
    const MINUTE: i64 = 60_000_000_000;
    signed("HBGAP", |frames| {
        change(frames, "heartbeat", 0, r#""every_ms":3600000"#, r#""every_ms":1"#);
        let place = find(frames, "heartbeat", 1);
        shift(frames, place, "mono", MINUTE);
        shift(frames, place, "ts", MINUTE);
        place
    });
    signed("HBGAP", |frames| {
        let place = find(frames, "heartbeat", 1);
        shift(frames, place, "mono", MINUTE);
        place
    });
    // A process that began while nothing says how the one before ended.
    signed("HBGAP", |frames| {
        let place = find(frames, "config", 0);
        let was =
            text(&frames[place].1).split(r#""boot":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
        edit(frames, place, &format!(r#""boot":"{was}""#), r#""boot":"another""#);
        place
    });
    // The heartbeats are gone: the first of a process, those at the end.
    signed("HBGAP", |frames| {
        frames.remove(find(frames, "heartbeat", 0));
        find(frames, "session_open", 0)
    });
    signed("HBGAP", |frames| {
        change(frames, "heartbeat", 0, r#""every_ms":3600000"#, r#""every_ms":1"#);
        frames.remove(find(frames, "heartbeat", 1));
        let place = find(frames, "config", 0);
        shift(frames, place, "mono", MINUTE);
        shift(frames, place, "ts", MINUTE);
        frames.len()
    });
}

#[test]
fn a_heartbeat_that_names_another_history_is_found() {
    let root = |frames: &Frames, place: usize| {
        let rest = text(&frames[place].1).split(r#""root":""#).nth(1).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    signed("FORK", |frames| {
        let place = find(frames, "heartbeat", 1);
        let named = root(frames, place);
        edit(frames, place, &named, &"0".repeat(64));
        place
    });
    signed("FORK", |frames| {
        let place = find(frames, "heartbeat", 1);
        let was = text(&frames[place].1).split(r#""prev":{"size":"#).nth(1).unwrap();
        let was = was.split(',').next().unwrap().to_owned();
        edit(frames, place, &format!(r#""size":{was}"#), r#""size":900"#);
        place
    });
    signed("ROLLBACK", |frames| {
        change(frames, "heartbeat", 1, r#""sinks":[]"#, r#""sinks":[{"name":"siem","acked":900}]"#)
    });
    let listed = r#""open":[{"sid":"0192f5a0-0000-7000-8000-000000000001","sseq":3}]"#;
    signed("STATE", |frames| change(frames, "heartbeat", 1, r#""open":[]"#, listed));
}

#[test]
fn row_36_a_log_that_was_opened_with_another_key() {
    signed("KEY", |frames| {
        let place = find(frames, "log_open", 0);
        let named = text(&frames[place].1).split(r#""vkey":""#).nth(1).unwrap().split('"').next().unwrap();
        let named = named.to_owned();
        edit(frames, place, &named, "example.com/verbatim/n1/1+00000000+AAAA");
        place
    });
}

#[test]
fn row_39_ambiguous_json() {
    for (from, to) in [
        (r#""rows":3"#, r#""rows":3,"rows":4"#),
        (r#""rows":3"#, r#""rows":3.0"#),
        (r#""rows":3"#, r#""rows": 3"#),
        (r#""v":1,"#, ""),
        (r#""status":"ok""#, r#""status":"\u006fk""#),
        (r#""pay":[]"#, r#""pay":[],"more":1"#),
        (r#""pay":[]"#, r#""pay":null"#),
        (r#""content":null"#, r#""content":{"a":[{"b":1,"b":2}]}"#),
    ] {
        signed("PROFILE", |frames| change(frames, "outcome", 0, from, to));
    }
    signed("PROFILE", |frames| {
        let place = find(frames, "outcome", 0);
        assert_eq!(frames[place].0, Kind::Envelope);
        frames[place].1 = b"{}".to_vec();
        place
    });
}
