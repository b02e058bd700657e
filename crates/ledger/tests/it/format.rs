//! Ledgers of every format version there was: opened, read and verified for ever. A fixture is never made anew; a new
//! format gets a fixture of its own beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use verbatim_core::AuditEvent;
use verbatim_ledger::disk::Disk;
use verbatim_ledger::{Item, Ledger, Reader};

use crate::disk::SimDisk;
use crate::forge::{DATA, LEDGER, small, verify};

/// A fixture, on a disk in memory.
fn fixture(version: &str) -> Arc<SimDisk> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version);
    let disk = SimDisk::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        disk.create_dir(&Path::new(DATA).join(&folder)).unwrap();
        for entry in std::fs::read_dir(root.join(&folder)).unwrap() {
            let name = folder.join(entry.unwrap().file_name());
            if root.join(&name).is_dir() {
                folders.push(name);
            } else {
                disk.tamper(Path::new(DATA).join(&name), std::fs::read(root.join(&name)).unwrap());
            }
        }
    }
    disk
}

#[test]
fn version_1_is_verified_read_and_gone_on_with() {
    let disk = fixture("v1");
    let report = verify(&disk);
    assert_eq!(report.findings, []);
    let summary = &report.ledgers[0];
    assert_eq!((summary.size, summary.sessions, summary.operations), (32, 4, 7));
    assert_eq!(summary.origin, "example.com/verbatim/n1/1");

    let mut reader = Reader::open_on(disk.clone(), Path::new(LEDGER)).unwrap();
    let (mut kinds, mut texts) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next(summary.size).unwrap() {
        if let Item::Entry(entry) = item {
            kinds.push(entry.kind().to_owned());
            texts.extend(entry.parts().first().map(|part| part.bytes.clone()));
        }
    }
    let session = ["session_open", "authz", "intent", "outcome", "intent", "abort", "session_close"];
    assert_eq!(kinds[2..9], session);
    assert_eq!(kinds[26..], ["recovery", "abort", "session_close", "heartbeat", "config", "heartbeat"]);
    assert_eq!(texts[0], "SELECT name FROM customers WHERE id = 7");

    let (ledger, recovery) = Ledger::open_on(small(16 << 10), disk.clone()).unwrap();
    assert!(recovery.clean);
    ledger.close();
    assert_eq!(verify(&disk).findings, []);
}
