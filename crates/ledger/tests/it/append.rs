//! Appending and reading back.

use verbatim_core::AuditEvent;
use verbatim_ledger::{Item, Ledger, LedgerError, Reader};

use crate::support::{Config, Opened, Session, settings, wait};

fn entries(ledger: &Ledger) -> Vec<verbatim_ledger::Entry> {
    let mut reader = Reader::open(ledger.dir()).unwrap();
    let limit = *ledger.committed().borrow();
    let mut entries = Vec::new();
    while let Some(item) = reader.next(limit).unwrap() {
        if let Item::Entry(entry) = item {
            entries.push(entry);
        }
    }
    entries
}

#[test]
fn a_session_is_read_back_as_it_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, recovery) = Ledger::open(settings(dir.path())).unwrap();
    assert!(recovery.created);
    let mut session = Session::open(&ledger);
    let intent = session.intent("SELECT 'ä'\n".as_bytes());
    session.outcome(intent);
    let close = session.close();
    wait(&ledger, close);
    assert_eq!(session.log.append(&Opened), Err(LedgerError::Closed));
    let entries = entries(&ledger);
    let kinds: Vec<_> = entries.iter().map(AuditEvent::kind).collect();
    assert_eq!(
        kinds,
        ["log_open", "heartbeat", "session_open", "authz", "intent", "outcome", "session_close"]
    );
    let stored = &entries[4];
    assert_eq!(&stored.parts()[0].bytes[..], "SELECT 'ä'\n".as_bytes());
    assert_eq!(stored.session(), Some(session.id));
    assert_eq!(stored.session_sequence(), Some(2));
    assert_eq!(entries[5].answers(), Some(4));
    assert_eq!(entries[6].fields()["intents"], 1);
    let mut reader = Reader::open(ledger.dir()).unwrap();
    assert_eq!(reader.read_at(stored.location).unwrap().envelope(), stored.envelope());
}

#[test]
fn segments_rotate_and_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, _) = Ledger::open(settings(dir.path())).unwrap();
    let mut session = Session::open(&ledger);
    let text = vec![b'x'; 100_000];
    let mut last = 0;
    for _ in 0..40 {
        let intent = session.intent(&text);
        last = session.outcome(intent);
    }
    // More than a segment holds, and more than an envelope has parts for.
    let big = session.intent(&vec![b'y'; 140 << 20]);
    wait(&ledger, big.0);
    wait(&ledger, last);
    let stored = entries(&ledger);
    ledger.close();
    let total: usize =
        stored.iter().filter(|e| e.index >= big.0).flat_map(|e| e.parts()).map(|p| p.bytes.len()).sum();
    assert_eq!(total, 140 << 20);
    drop(ledger);
    let (ledger, recovery) = Ledger::open(settings(dir.path())).unwrap();
    assert!(recovery.clean, "{recovery:?}");
    let mut reader = Reader::open(ledger.dir()).unwrap();
    let all = entries(&ledger);
    // What was open when the ledger was closed has its abort and its close.
    let last: Vec<_> = all[all.len() - 4..].iter().map(AuditEvent::kind).collect();
    assert_eq!(last, ["abort", "session_close", "heartbeat", "heartbeat"]);
    for entry in all.iter().step_by(7) {
        reader.seek(entry.index).unwrap();
        let Some(Item::Entry(found)) = reader.next(u64::MAX).unwrap() else { panic!("an entry") };
        assert_eq!(found.envelope(), entry.envelope());
    }
    ledger.append(&Config("abc")).unwrap();
}
