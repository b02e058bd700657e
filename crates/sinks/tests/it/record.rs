//! A ledger with what a test says in it, and deliveries from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use verbatim_core::event::{Authorized, Completed, LoginRefused, Requested, SessionClosed, SessionOpened};
use verbatim_core::{
    AuditEvent, AuthorizationSource, AuthorizedBy, Client, CloseReason, Operation, Outcome, Parameter,
    ParameterValue, RecordMode, Refusal, Session, SessionId, Status, Visitor,
};
use verbatim_ledger::{Ledger, SessionLog, SyncMode};
use verbatim_sinks::{Delivery, Filter, Limits, Payload, Settings, Sink};

pub(crate) struct Record {
    pub(crate) dir: TempDir,
    pub(crate) ledger: Ledger,
}

/// An entry of no session.
pub(crate) struct Mark;

impl AuditEvent for Mark {
    fn kind(&self) -> &str {
        "config"
    }
    fn visit(&self, _: &mut dyn Visitor) {}
}

struct Opening(SessionId, Client);

impl Session for Opening {
    fn id(&self) -> SessionId {
        self.0
    }
    fn protocol(&self) -> &'static str {
        "postgres"
    }
    fn wanted(&self) -> &str {
        "customer-db"
    }
    fn client(&self) -> &Client {
        &self.1
    }
}

impl Record {
    pub(crate) fn new() -> Self {
        Self::within(TempDir::new().unwrap())
    }

    pub(crate) fn within(dir: TempDir) -> Self {
        let (ledger, _) = Ledger::open(verbatim_ledger::Settings {
            data_dir: dir.path().to_owned(),
            organisation: "example.com".to_owned(),
            node: "gw-1".to_owned(),
            sync: SyncMode::Always,
            segment_bytes: 1 << 20,
            reserve_bytes: 2 << 20,
            heartbeat: Duration::from_secs(3600),
            last_checkpoint: None,
        })
        .unwrap();
        Self { dir, ledger }
    }

    pub(crate) fn ledger_dir(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    /// All committed entries, by their ids.
    pub(crate) fn ids(&self) -> Vec<String> {
        entries(&self.ledger_dir(), *self.ledger.committed().borrow())
    }

    /// Appends an entry of no session and waits until everything is committed; returns how many entries there are.
    pub(crate) async fn settle(&self) -> u64 {
        let last = self.ledger.append(&Mark).unwrap();
        *self.ledger.committed().wait_for(|size| *size > last).await.unwrap()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            name: "siem".to_owned(),
            data_dir: self.dir.path().to_owned(),
            ledger_dir: self.ledger_dir(),
            limits: Limits { events: 10, bytes: 1 << 20, wait: Duration::ZERO },
            filter: Filter::default(),
            payload: Payload::Full,
        }
    }

    pub(crate) fn deliver(&self, sink: &Arc<impl Sink + 'static>) -> Delivery {
        self.deliver_with(self.settings(), sink)
    }

    pub(crate) fn deliver_with(&self, settings: Settings, sink: &Arc<impl Sink + 'static>) -> Delivery {
        Delivery::start(settings, Arc::clone(sink) as Arc<dyn Sink>, self.ledger.committed()).unwrap()
    }

    /// A session whose opening is on record, and nothing else.
    pub(crate) fn claim(&self) -> Log {
        let id = SessionId::generate();
        let client = Client { address: "10.0.0.7:51324".parse().unwrap(), user: None, application: None };
        let log = self.ledger.session(id);
        log.append(&SessionOpened { session: &Opening(id, client), identity: None }).unwrap();
        Log { id, log, sequence: 0 }
    }

    pub(crate) fn open(&self, connection: &str) -> Log {
        let log = self.claim();
        let by = AuthorizedBy {
            kind: "user",
            name: None,
            id: Some("anna".to_owned()),
            source: AuthorizationSource::Config,
        };
        let record = RecordMode::Full;
        log.log.append(&Authorized { connection, target: "db:5432/x", record, by: &by }).unwrap();
        log
    }

    pub(crate) fn refuse(&self, connection: Option<&str>) -> SessionId {
        let log = self.claim();
        let refusal = &Refusal::Draining;
        log.log.append(&LoginRefused { connection, target: None, refusal }).unwrap();
        log.close()
    }

    /// `count` sessions with three operations each.
    pub(crate) fn work(&self, count: usize) {
        for _ in 0..count {
            let mut log = self.open("customer-db");
            for place in 0..3 {
                log.query(format!("SELECT {place}").as_bytes());
            }
            log.close();
        }
    }
}

pub(crate) struct Log {
    pub(crate) id: SessionId,
    log: SessionLog,
    sequence: u64,
}

impl Log {
    pub(crate) fn query(&mut self, text: &[u8]) {
        self.sequence += 1;
        let operation = Operation {
            text: Some(text.to_vec().into()),
            parameters: Some(vec![Parameter {
                type_name: "int4".into(),
                value: ParameterValue::Text("7".to_owned()),
            }]),
            ..Operation::new(self.sequence, "execute")
        };
        let request = Requested { operation: &operation, refusal: None, withheld: None };
        let entry = self.log.append(&request).unwrap();
        let outcome = Outcome { messages: vec!["NOTICE 00000: x".to_owned()], ..Outcome::new(Status::Ok) };
        let (sequence, record, duration_us) = (self.sequence, RecordMode::Full, 812);
        self.log.append(&Completed { entry, sequence, record, duration_us, outcome: &outcome }).unwrap();
    }

    pub(crate) fn close(self) -> SessionId {
        self.log.append(&SessionClosed { reason: CloseReason::Client }).unwrap();
        self.id
    }
}

/// The first `size` entries of a ledger, by their ids.
impl Record {
    /// How many entries each checkpoint covers, up to the one that covers `size`.
    pub(crate) fn checkpoints(&self, size: u64) -> Vec<u64> {
        let mut reader = verbatim_ledger::Reader::open(&self.ledger_dir()).unwrap();
        let mut sizes: Vec<u64> = Vec::new();
        while sizes.last().is_none_or(|last| *last < size) {
            if let Some(verbatim_ledger::Item::Checkpoint(checkpoint)) = reader.next(u64::MAX).unwrap()
                && sizes.last() != Some(&checkpoint.size)
            {
                sizes.push(checkpoint.size);
            }
        }
        sizes
    }
}

fn entries(ledger_dir: &Path, size: u64) -> Vec<String> {
    let mut reader = verbatim_ledger::Reader::open(ledger_dir).unwrap();
    let mut ids = Vec::new();
    while let Some(item) = reader.next(size).unwrap() {
        if let verbatim_ledger::Item::Entry(entry) = item {
            ids.push(entry.id());
        }
    }
    assert_eq!(ids.len() as u64, size);
    ids
}
