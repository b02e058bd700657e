//! A small ledger to try things on.

use std::path::Path;
use std::time::Duration;

use verbatim_core::event::{Aborted, Authorized, Completed, Requested, SessionClosed, kind};
use verbatim_core::{
    AuditEvent, AuthorizationSource, AuthorizedBy, CloseReason, Operation, Outcome, RecordMode, SessionId,
    Status, Value, Visitor,
};
use verbatim_ledger::{Ledger, LedgerError, Settings, SyncMode};

pub(crate) fn settings(dir: &Path) -> Settings {
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
pub(crate) struct Opened;

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
pub(crate) struct Config(pub(crate) &'static str);

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
pub(crate) struct Session {
    pub(crate) log: verbatim_ledger::SessionLog,
    pub(crate) id: SessionId,
    sequence: u64,
}

impl Session {
    pub(crate) fn open(ledger: &Ledger) -> Self {
        Self::try_open(ledger).unwrap()
    }

    pub(crate) fn try_open(ledger: &Ledger) -> Result<Self, LedgerError> {
        let id = SessionId::generate();
        let log = ledger.session(id);
        log.append(&Opened)?;
        let by = AuthorizedBy {
            kind: "group",
            name: Some("billing".to_owned()),
            id: None,
            source: AuthorizationSource::Token,
        };
        let authorized =
            Authorized { connection: "customer-db", target: "db:5432/c", record: RecordMode::Full, by: &by };
        log.append(&authorized)?;
        Ok(Self { log, id, sequence: 0 })
    }

    pub(crate) fn intent(&mut self, text: &[u8]) -> (u64, u64) {
        self.try_intent(text).unwrap()
    }

    pub(crate) fn try_intent(&mut self, text: &[u8]) -> Result<(u64, u64), LedgerError> {
        let operation = operation(self.sequence + 1, text);
        let event = Requested { operation: &operation, refusal: None, withheld: None };
        let entry = self.log.append(&event)?;
        self.sequence += 1;
        Ok((entry, self.sequence))
    }

    pub(crate) fn outcome(&self, intent: (u64, u64)) -> u64 {
        self.try_outcome(intent).unwrap()
    }

    pub(crate) fn try_outcome(&self, (entry, sequence): (u64, u64)) -> Result<u64, LedgerError> {
        let mut outcome = Outcome::new(Status::Ok);
        outcome.rows = Some(3);
        let event =
            Completed { entry, sequence, record: RecordMode::Full, duration_us: 812, outcome: &outcome };
        self.log.append(&event)
    }

    pub(crate) fn abort(&self, intent: (u64, u64)) -> u64 {
        self.try_abort(intent).unwrap()
    }

    pub(crate) fn try_abort(&self, (entry, sequence): (u64, u64)) -> Result<u64, LedgerError> {
        self.log.append(&Aborted { entry, sequence })
    }

    pub(crate) fn close(&self) -> u64 {
        self.try_close().unwrap()
    }

    pub(crate) fn try_close(&self) -> Result<u64, LedgerError> {
        self.log.append(&SessionClosed { reason: CloseReason::Client })
    }
}

/// Waits for an entry from a thread of its own.
pub(crate) fn wait(ledger: &Ledger, index: u64) {
    try_wait(ledger, index).unwrap();
}

pub(crate) fn try_wait(ledger: &Ledger, index: u64) -> Result<(), LedgerError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ledger.durable(index))
}
