//! What a crash, a full disk, a lost or older ledger leave, and what opening says of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use verbatim_core::{AuditEvent, SessionId};
use verbatim_ledger::disk::Disk;
use verbatim_ledger::frame::Kind;
use verbatim_ledger::{Admission, Item, Ledger, LedgerError, OpenError, Reader, Settings, SyncMode, prove};

use crate::disk::SimDisk;
use crate::forge::{
    DATA, FIRST, LEDGER, codes, frames, frames_at, inputs, ledger, replace, small, verify, verify_with,
};
use crate::support::{Config, Opened, Session, wait};

fn reopen(disk: &Arc<SimDisk>) -> Result<(Ledger, verbatim_ledger::Recovery), OpenError> {
    Ledger::open_on(small(64 << 10), disk.clone())
}

fn kinds(disk: &Arc<SimDisk>) -> Vec<String> {
    let mut reader = Reader::open_on(disk.clone(), Path::new(LEDGER)).unwrap();
    let limit = reader.committed().unwrap();
    let mut kinds = Vec::new();
    while let Some(item) = reader.next(limit).unwrap() {
        if let Item::Entry(entry) = item {
            kinds.push(entry.kind().to_owned());
        }
    }
    kinds
}

/// A ledger whose process died with a session open and an operation unanswered; all of it committed.
fn crashed() -> (Arc<SimDisk>, SessionId) {
    let disk = SimDisk::new();
    let (ledger, _) = reopen(&disk).unwrap();
    let mut session = Session::open(&ledger);
    let intent = session.intent(b"DELETE FROM customers");
    wait(&ledger, intent.0);
    let image = disk.crashed(|| true);
    (image, session.id)
}

#[test]
fn a_crash_is_put_on_record() {
    let (disk, id) = crashed();
    assert_eq!(verify(&disk).exit_code(), 0);
    let (ledger, recovery) = reopen(&disk).unwrap();
    assert_eq!((recovery.clean, recovery.aborted_operations), (false, 1));
    assert_eq!(recovery.crashed_sessions, [id]);
    ledger.close();
    let expected = [
        "log_open",
        "heartbeat",
        "session_open",
        "authz",
        "intent",
        "recovery",
        "abort",
        "session_close",
        "heartbeat",
        "heartbeat",
    ];
    assert_eq!(kinds(&disk), expected);
    assert_eq!(verify(&disk).findings, []);
    let (_, recovery) = reopen(&disk).unwrap();
    assert!(recovery.clean);
}

#[test]
fn a_ledger_whose_making_was_cut_short_is_made_again() {
    for at in 1..12 {
        let disk = SimDisk::new();
        disk.faults.power_off_at.store(at, SeqCst);
        drop(reopen(&disk));
        let mut luck = at;
        let after = disk.crashed(|| {
            luck = luck.wrapping_mul(5).wrapping_add(3);
            luck & 4 == 0
        });
        let (ledger, _) = reopen(&after).unwrap_or_else(|error| panic!("cut at {at}: {error}"));
        ledger.close();
        assert_eq!(verify(&after).findings, [], "cut at {at}");
        assert_eq!(kinds(&after)[0], "log_open");
    }
}

#[test]
fn a_torn_tail_is_set_aside_and_said() {
    let (disk, _) = crashed();
    let whole = disk.bytes(FIRST);
    let last = frames_at(&whole).pop().unwrap();
    let end = (last.0 + 16 + last.2.len()).next_multiple_of(8);
    let mut torn = whole.clone();
    // Half of an envelope's frame, as a crash leaves it.
    torn[end..end + 40].copy_from_slice(&whole[frames_at(&whole)[1].0..][..40]);
    disk.tamper(FIRST, torn);
    assert_eq!(codes(&verify(&disk)).last(), Some(&"TORN"));
    let (ledger, recovery) = reopen(&disk).unwrap();
    assert_eq!(recovery.discarded_bytes, 40);
    ledger.close();
    assert_eq!(verify(&disk).findings, []);
    assert_eq!(disk.files("/data/quarantine").len(), 1);
    let all = frames(&disk, FIRST);
    let said = crate::forge::text(&all[crate::forge::find(&all, "recovery", 0)].1).to_owned();
    assert!(said.contains(r#""discarded_bytes":40"#), "{said}");
}

#[test]
fn damage_before_the_last_commit_is_never_repaired() {
    let (disk, _) = ledger(64 << 10, 3);
    let (offset, ..) = frames_at(&disk.bytes(FIRST))[6];
    disk.flip(Path::new(FIRST), offset + 30, 4);
    let Err(OpenError::Damaged { offset: at, .. }) = reopen(&disk) else { panic!("damaged") };
    assert_eq!(at, offset as u64);

    // A hole of zeros with commits behind it is no torn tail either.
    let (disk, _) = ledger(64 << 10, 3);
    let mut holed = disk.bytes(FIRST);
    let (offset, _, body) = frames_at(&holed).remove(6);
    holed[offset..offset + 16 + body.len()].fill(0);
    disk.tamper(FIRST, holed);
    assert!(matches!(reopen(&disk), Err(OpenError::Damaged { .. })));

    let (disk, _) = ledger(64 << 10, 1);
    let mut all = frames(&disk, FIRST);
    let commit = all.iter().rposition(|(kind, _)| *kind == Kind::Commit).unwrap();
    all[commit].1[60] ^= 1;
    replace(&disk, &all);
    assert!(matches!(reopen(&disk), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_ledger_that_is_lost_older_or_in_use_is_not_opened() {
    let (disk, _) = ledger(64 << 10, 1);
    let kept = Settings { last_checkpoint: Some("/other/last.ckpt".into()), ..small(64 << 10) };
    let older = disk.copy();
    Ledger::open_on(kept.clone(), disk.clone()).unwrap().0.close();
    older.tamper("/other/last.ckpt", disk.bytes("/other/last.ckpt"));
    assert!(matches!(Ledger::open_on(kept.clone(), older), Err(OpenError::Damaged { .. })));
    assert!(Ledger::open_on(kept, disk.clone()).is_ok());

    let lost = disk.copy();
    lost.remove(Path::new(LEDGER)).unwrap();
    assert!(matches!(reopen(&lost), Err(OpenError::Damaged { .. })));

    let _opened = reopen(&disk).unwrap();
    assert!(matches!(reopen(&disk), Err(OpenError::InUse { .. })));
    let elsewhere = Settings { node: "n2".to_owned(), ..small(64 << 10) };
    assert!(matches!(Ledger::open_on(elsewhere, disk.copy()), Err(OpenError::Setting { name: "node", .. })));
}

#[test]
fn whole_entries_behind_the_last_commit_are_kept_where_they_counted() {
    let disk = SimDisk::new();
    let within = Settings { sync: SyncMode::Within(Duration::from_secs(600)), ..small(64 << 10) };
    let (ledger, _) = Ledger::open_on(within.clone(), disk.clone()).unwrap();
    let mut session = Session::open(&ledger);
    let intent = session.intent(b"SELECT 1");
    wait(&ledger, intent.0);
    assert_eq!(*ledger.committed().borrow(), 2);
    let image = disk.crashed(|| true);
    let (_, recovery) = Ledger::open_on(within, image.clone()).unwrap();
    assert_eq!((recovery.kept_entries, recovery.entries), (3, 5));
    assert_eq!(recovery.crashed_sessions, [session.id]);
    let after = kinds(&image).split_off(5);
    assert_eq!(after, ["recovery", "abort", "session_close", "heartbeat", "heartbeat"]);
    assert_eq!(verify(&image).findings, []);
}

#[test]
fn a_failed_sync_is_the_end() {
    let disk = SimDisk::new();
    let (ledger, _) = reopen(&disk).unwrap();
    let mut session = Session::open(&ledger);
    disk.faults.power_off_at.store(1, SeqCst);
    let intent = session.intent(b"SELECT 1");
    let failed = crate::support::try_wait(&ledger, intent.0);
    assert!(matches!(failed, Err(LedgerError::Dead { .. })), "{failed:?}");
    disk.faults.power_off_at.store(0, SeqCst);
    assert!(matches!(session.try_intent(b"SELECT 2"), Err(LedgerError::Dead { .. })));
    assert_eq!(ledger.admits(), Admission::Nothing);
    assert!(matches!(ledger.is_durable(intent.0), Some(Err(LedgerError::Dead { .. }))));
}

#[test]
fn a_full_disk_ends_sessions_then_operations_but_not_what_must_still_be_said() {
    let disk = SimDisk::new();
    disk.capacity.store(400 << 10, SeqCst);
    let settings = Settings { reserve_bytes: 64 << 10, ..small(32 << 10) };
    let (ledger, _) = Ledger::open_on(settings.clone(), disk.clone()).unwrap();
    let mut session = Session::open(&ledger);
    let (mut intents, mut sessions_ended) = (Vec::new(), false);
    let full = loop {
        match session.try_intent(&[b'x'; 4000]) {
            Ok(intent) => {
                wait(&ledger, intent.0);
                intents.push(intent);
            }
            Err(error) => break error,
        }
        sessions_ended |= ledger.admits() == Admission::NoNewSessions;
    };
    assert_eq!(full, LedgerError::Full);
    assert!(sessions_ended);
    assert_eq!(ledger.admits(), Admission::NoNewOperations);
    assert_eq!(ledger.session(SessionId::generate()).append(&Opened), Err(LedgerError::Full));
    for intent in intents {
        session.outcome(intent);
    }
    wait(&ledger, session.close());
    ledger.close();
    assert_eq!(verify(&disk).findings, []);
    disk.capacity.store(4 << 20, SeqCst);
    let (ledger, recovery) = Ledger::open_on(settings, disk).unwrap();
    assert!(recovery.clean);
    assert_eq!(ledger.admits(), Admission::Everything);
}

#[test]
fn a_ledger_in_use_is_verified_up_to_its_last_commit() {
    let disk = SimDisk::new();
    let within = Settings { sync: SyncMode::Within(Duration::from_secs(600)), ..small(64 << 10) };
    let (ledger, _) = Ledger::open_on(within, disk.clone()).unwrap();
    let mut session = Session::open(&ledger);
    wait(&ledger, session.intent(b"SELECT 1").0);
    let report = verify(&disk);
    assert_eq!(report.findings, []);
    assert!(report.last_line.contains("in use: 3 entries are not committed yet"), "{}", report.last_line);
    let stopped = disk.copy();
    assert_eq!(codes(&verify(&stopped)), ["TORN"]);
}

#[test]
fn proofs_are_judged_in_place_of_a_ledger() {
    let (disk, _) = ledger(32 << 10, 9);
    let mut reader = Reader::open_on(disk.clone(), Path::new(LEDGER)).unwrap();
    reader.seek(30).unwrap();
    let Some(Item::Entry(entry)) = reader.next(u64::MAX).unwrap() else { panic!("an entry") };
    let id = entry.session().unwrap();
    let operation = prove::operation_on(disk.clone(), Path::new(LEDGER), id, 2).unwrap();
    let session = prove::session_on(disk.clone(), Path::new(LEDGER), id).unwrap();
    let key = Path::new(DATA).join("keys/node.vkey");
    let judge = |text: &str| {
        disk.tamper("/proof", text.as_bytes().to_vec());
        let proofs = vec!["/proof".into()];
        verify_with(
            &disk,
            &verbatim_ledger::verify::Inputs {
                ledgers: Vec::new(),
                proofs,
                public_key: Some(key.clone()),
                ..inputs()
            },
        )
    };
    for proof in [&operation, &session] {
        let report = judge(proof);
        assert_eq!((report.exit_code(), &*report.findings), (0, &[][..]), "{}", report.last_line);
    }
    assert!(operation.starts_with("c2sp.org/tlog-proof@v1\nextra "));
    assert!(judge(&session).last_line.contains("from its opening to its close"));
    assert!(codes(&judge(&session.replacen(r#"\"rows\":3"#, r#"\"rows\":4"#, 1))).contains(&"ROOT"));
    assert_eq!(judge("hello").exit_code(), 2);
    assert!(prove::operation_on(disk.clone(), Path::new(LEDGER), id, 3).is_err());
}

#[test]
fn what_is_out_of_order_is_refused_and_leaves_no_trace() {
    let disk = SimDisk::new();
    let (ledger, _) = reopen(&disk).unwrap();
    let stray = ledger.session(SessionId::generate());
    let operation = verbatim_core::Operation::new(1, "query");
    let intent = verbatim_core::event::Requested { operation: &operation, refusal: None, withheld: None };
    assert!(matches!(stray.append(&intent), Err(LedgerError::OutOfOrder { .. })));
    stray.append(&Opened).unwrap();
    assert!(matches!(stray.append(&intent), Err(LedgerError::OutOfOrder { .. })), "nothing let it in");
    assert!(matches!(ledger.append(&intent), Err(LedgerError::OutOfOrder { .. })));
    let session = Session::open(&ledger);
    assert!(session.try_outcome((0, 1)).is_err());
    let huge: &'static str = Box::leak("x".repeat(70_000).into_boxed_str());
    struct Wide(&'static str);
    impl AuditEvent for Wide {
        fn kind(&self) -> &str {
            "config"
        }
        fn visit(&self, visitor: &mut dyn verbatim_core::Visitor) {
            visitor.field("wide", verbatim_core::Value::Text(self.0));
        }
    }
    assert!(matches!(ledger.append(&Wide(huge)), Err(LedgerError::TooLarge { .. })));
    ledger.append(&Config("aa")).unwrap();
    session.close();
    drop(ledger);
    assert_eq!(verify(&disk).findings, []);
}

#[test]
fn many_threads_append_and_each_waits_for_its_own() {
    let disk = SimDisk::new();
    let (ledger, _) = reopen(&disk).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut session = Session::open(&ledger);
                for _ in 0..50 {
                    let intent = session.intent(b"SELECT 1");
                    wait(&ledger, intent.0);
                    assert_eq!(ledger.is_durable(intent.0), Some(Ok(())));
                    session.outcome(intent);
                }
                wait(&ledger, session.close());
            });
        }
    });
    let stats = ledger.stats();
    assert!(stats.batches <= stats.entries);
    ledger.close();
    let report = verify(&disk);
    assert_eq!(report.findings, []);
    assert_eq!((report.ledgers[0].sessions, report.ledgers[0].operations), (8, 400));
}
