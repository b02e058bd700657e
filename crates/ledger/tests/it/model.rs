//! Random histories on a disk that tears, forgets and refuses: what was acknowledged is there afterwards, and verifies.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use proptest::prelude::*;
use verbatim_ledger::verify::Inputs;
use verbatim_ledger::{Item, Ledger, Reader, Settings, SyncMode};

use crate::disk::SimDisk;
use crate::forge::{LEDGER, inputs, small, verify_with};
use crate::support::{Config, Session, try_wait};

#[derive(Debug, Clone)]
enum Step {
    Open,
    Intent(usize),
    Outcome,
    Abort,
    Close,
    Wait,
    Node,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        6 => (0_usize..3000).prop_map(Step::Intent),
        1 => (10_000_usize..40_000).prop_map(Step::Intent),
        4 => Just(Step::Outcome),
        1 => Just(Step::Abort),
        1 => Just(Step::Close),
        4 => Just(Step::Wait),
        1 => Just(Step::Node),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    PowerOff(u64),
    FailingSync(u64),
    ShortWrite(u64),
}

fn fault() -> impl Strategy<Value = Fault> {
    let at = || 12_u64..90;
    prop_oneof![
        Just(Fault::None),
        at().prop_map(Fault::PowerOff),
        at().prop_map(Fault::FailingSync),
        at().prop_map(Fault::ShortWrite),
    ]
}

/// What the driver remembers of the entries that it was told are durable.
#[derive(Default)]
struct Acknowledged {
    texts: BTreeMap<u64, Vec<u8>>,
    checkpoint: Option<String>,
}

/// Drives a ledger until it is done or the ledger is dead.
fn drive(ledger: &Ledger, steps: &[Step]) -> Acknowledged {
    let mut known = Acknowledged::default();
    let mut sessions: Vec<(Session, Vec<(u64, u64)>)> = Vec::new();
    let mut pending: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (count, step) in steps.iter().enumerate() {
        let turn = count % sessions.len().max(1);
        let done = match (step, sessions.get_mut(turn)) {
            (Step::Open, _) => match Session::try_open(ledger) {
                Ok(session) => {
                    sessions.push((session, Vec::new()));
                    Ok(())
                }
                Err(error) => Err(error),
            },
            (Step::Intent(size), Some((session, open))) => {
                let text: Vec<u8> = (0..*size).map(|place| (place + count) as u8).collect();
                session.try_intent(&text).map(|intent| {
                    open.push(intent);
                    pending.insert(intent.0, text);
                })
            }
            (Step::Outcome, Some((session, open))) => match open.pop() {
                Some(intent) => session.try_outcome(intent).map(drop),
                None => Ok(()),
            },
            (Step::Abort, Some((session, open))) => match open.pop() {
                Some(intent) => session.try_abort(intent).map(drop),
                None => Ok(()),
            },
            (Step::Close, Some((session, _))) => {
                let closed = session.try_close().map(drop);
                sessions.remove(turn);
                closed
            }
            (Step::Wait, _) => match pending.last_key_value() {
                Some((&last, _)) => try_wait(ledger, last).map(|()| known.texts.append(&mut pending)),
                None => Ok(()),
            },
            (Step::Node, _) => ledger.append(&Config("ff")).map(drop),
            _ => Ok(()),
        };
        if done.is_err() {
            break;
        }
    }
    known.checkpoint = ledger.checkpoint().map(|checkpoint| checkpoint.note);
    known
}

/// What is on the disk after a crash must be recovered, whole, and verify; also with what left the node before.
fn check_recovered(disk: &Arc<SimDisk>, settings: &Settings, known: &Acknowledged) {
    let opened = Ledger::open_on(settings.clone(), disk.clone());
    let (ledger, recovery) = opened.unwrap_or_else(|error| panic!("{error}"));
    let limit = *ledger.committed().borrow();
    let mut reader = Reader::open_on(disk.clone(), Path::new(LEDGER)).unwrap();
    let mut found = BTreeMap::new();
    while let Some(item) = reader.next(limit).unwrap() {
        if let Item::Entry(entry) = item {
            found.insert(entry.index, entry.parts().first().map(|part| part.bytes.to_vec()));
        }
    }
    for (index, text) in &known.texts {
        let stored = found.get(index).and_then(Option::as_ref);
        assert_eq!(stored, Some(text), "entry {index}: {recovery:?}");
    }
    ledger.close();
    let mut against = inputs();
    if let Some(note) = &known.checkpoint {
        disk.tamper("/elsewhere.note", note.clone().into_bytes());
        against = Inputs { checkpoints: vec!["/elsewhere.note".into()], ..against };
    }
    let report = verify_with(disk, &against);
    assert_eq!(report.findings, [], "{recovery:?}");
}

fn run(sync: SyncMode, steps: &[Step], fault: Fault, again: u64, keeps: &mut dyn FnMut() -> bool) {
    let disk = SimDisk::new();
    let settings = Settings { sync, ..small(16 << 10) };
    match fault {
        Fault::None => {}
        Fault::PowerOff(at) => disk.faults.power_off_at.store(at, SeqCst),
        Fault::FailingSync(at) => disk.faults.failing_sync_at.store(at, SeqCst),
        Fault::ShortWrite(at) => disk.faults.short_write_at.store(at, SeqCst),
    }
    let (ledger, _) = Ledger::open_on(settings.clone(), disk.clone()).unwrap();
    let known = drive(&ledger, steps);
    let mut crashed = disk.crashed(&mut *keeps);
    disk.faults.power_off_at.store(1, SeqCst);
    drop(ledger);
    // The power may go again while the ledger is being repaired.
    for at in 1..=again {
        crashed.faults.power_off_at.store(at, SeqCst);
        drop(Ledger::open_on(settings.clone(), crashed.clone()));
        let next = crashed.crashed(&mut *keeps);
        crashed = next;
    }
    check_recovered(&crashed, &settings, &known);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_the_loss_of_power(
        steps in proptest::collection::vec(step(), 1..80),
        fault in fault(),
        again in 0_u64..12,
        luck in any::<u64>(),
    ) {
        let mut state = luck | 1;
        let mut keeps = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state & 1 == 1
        };
        run(SyncMode::Always, &steps, fault, again, &mut keeps);
    }

    #[test]
    fn what_was_written_survives_the_death_of_the_process(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        run(SyncMode::Within(Duration::from_millis(50)), &steps, Fault::None, 0, &mut || true);
    }
}
