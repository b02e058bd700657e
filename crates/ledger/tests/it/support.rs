//! A small ledger to try things on.

use std::path::Path;
use std::time::Duration;

use verbatim_core::event::{Aborted, Authorized, Completed, Requested, SessionClosed, kind};
use verbatim_core::{
    AuditEvent, AuthorizationSource, AuthorizedBy, CloseReason, Operation, Outcome, RecordMode, SessionId,
    Status, Value, Visitor,
};
use verbatim_ledger::{Ledger, Settings, SyncMode};

pub fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.to_owned(),
        organisation: "example.com".to_owned(),
        node: "n1".to_owned(),
        sync: SyncMode::Always,
        segment_bytes: 1 << 20,
        reserve_bytes: 1 << 20,
        heartbeat: Duration::from_secs(3600),
        last_checkpoint: None,
    }
}

/// `session_open` with what the ledger cares for.
pub struct Opened;

impl AuditEvent for Opened {
    fn kind(&self) -> &str {
        kind::SESSION_OPEN
    }
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("proto", Value::Text("postgres"));
        visitor.field("wanted", Value::Text("customer-db"));
        visitor.field("client", Value::Null);
        visitor.field("trace", Value::Null);
        visitor.field("id", Value::Null);
    }
}

/// An entry of no session.
pub struct Config(pub &'static str);

impl AuditEvent for Config {
    fn kind(&self) -> &str {
        kind::CONFIG
    }
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("sha256", Value::Text(self.0));
    }
    fn payload(&self, each: &mut dyn FnMut(&str, &[u8])) {
        each("text", self.0.as_bytes());
    }
}

fn operation(sequence: u64, text: &[u8]) -> Operation {
    let mut operation = Operation::new(sequence, "query");
    operation.text = Some(bytes::Bytes::copy_from_slice(text));
    operation
}

/// A session in the record, driven step by step.
pub struct Session {
    pub log: verbatim_ledger::SessionLog,
    pub id: SessionId,
    sequence: u64,
}

impl Session {
    pub fn open(ledger: &Ledger) -> Self {
        let id = SessionId::generate();
        let log = ledger.session(id);
        log.append(&Opened).unwrap();
        let by = AuthorizedBy {
            kind: "group",
            name: Some("billing".to_owned()),
            id: None,
            source: AuthorizationSource::Token,
        };
        let authorized =
            Authorized { connection: "customer-db", target: "db:5432/c", record: RecordMode::Full, by: &by };
        log.append(&authorized).unwrap();
        Self { log, id, sequence: 0 }
    }

    pub fn intent(&mut self, text: &[u8]) -> (u64, u64) {
        self.sequence += 1;
        let operation = operation(self.sequence, text);
        let event = Requested { operation: &operation, refusal: None, withheld: None };
        (self.log.append(&event).unwrap(), self.sequence)
    }

    pub fn outcome(&self, (entry, sequence): (u64, u64)) -> u64 {
        let mut outcome = Outcome::new(Status::Ok);
        outcome.rows = Some(3);
        let event =
            Completed { entry, sequence, record: RecordMode::Full, duration_us: 812, outcome: &outcome };
        self.log.append(&event).unwrap()
    }

    pub fn abort(&self, (entry, sequence): (u64, u64)) -> u64 {
        self.log.append(&Aborted { entry, sequence }).unwrap()
    }

    pub fn close(&self) -> u64 {
        self.log.append(&SessionClosed { reason: CloseReason::Client }).unwrap()
    }
}

/// Waits for an entry from a thread of its own.
pub fn wait(ledger: &Ledger, index: u64) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ledger.durable(index)).unwrap();
}
