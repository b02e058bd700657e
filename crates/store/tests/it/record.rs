//! A ledger with what a test says in it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use verbatim_core::event::{
    Aborted, Authorized, Chunk, Completed, LoginRefused, Requested, SessionClosed, SessionOpened, kind, part,
};
use verbatim_core::{
    AuditEvent, AuthorizationSource, AuthorizedBy, ChunkStream, Client, CloseReason, Content, Held, Identity,
    IdentityKind, OnBehalfOf, Operation, Outcome, Parameter, ParameterValue, Principal, RecordMode, Refusal,
    Session, SessionId, Status, TargetError, Timestamp, Value, Visitor,
};
use verbatim_ledger::{Ledger, SessionLog, Settings, SyncMode};
use verbatim_store::{Index, Labels};

/// Nobody in particular.
#[derive(Debug)]
pub(crate) struct Somebody {
    pub(crate) object_id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) person: Option<OnBehalfOf>,
}

pub(crate) const AGENT: Somebody =
    Somebody { object_id: "aaaa0000-0000-4000-8000-000000000001", name: "report-agent", person: None };

impl Identity for Somebody {
    fn provider(&self) -> &str {
        "entra"
    }
    fn tenant(&self) -> &str {
        "11110000-0000-4000-8000-000000000001"
    }
    fn object_id(&self) -> &str {
        self.object_id
    }
    fn kind(&self) -> IdentityKind {
        IdentityKind::Agent
    }
    fn name(&self) -> Option<&str> {
        Some(self.name)
    }
    fn app_id(&self) -> Option<&str> {
        Some("c0ffee00-0000-4000-8000-000000000001")
    }
    fn on_behalf_of(&self) -> Option<&OnBehalfOf> {
        self.person.as_ref()
    }
    fn token_id(&self) -> Option<&str> {
        Some("uti-1")
    }
    fn expires_at(&self) -> Timestamp {
        Timestamp::from_unix_seconds(1_795_466_460)
    }
    fn holds(&self, _: &Principal) -> Option<Held> {
        None
    }
    fn answers_to(&self, _: &str) -> bool {
        true
    }
    fn details(&self, _: &mut dyn Visitor) {}
}

struct Opening {
    id: SessionId,
    client: Client,
    trace: Option<&'static str>,
}

impl Session for Opening {
    fn id(&self) -> SessionId {
        self.id
    }
    fn protocol(&self) -> &'static str {
        "postgres"
    }
    fn wanted(&self) -> &str {
        "customer-db"
    }
    fn client(&self) -> &Client {
        &self.client
    }
    fn trace_id(&self) -> Option<&str> {
        self.trace
    }
}

/// A ledger in a folder of its own.
pub(crate) struct Record {
    pub(crate) dir: TempDir,
    pub(crate) ledger: Ledger,
}

pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.to_owned(),
        organisation: "example.com".to_owned(),
        node: "gw-1".to_owned(),
        sync: SyncMode::Always,
        segment_bytes: 1 << 20,
        reserve_bytes: 2 << 20,
        heartbeat: Duration::from_secs(3600),
        last_checkpoint: None,
    }
}

/// Says of a text what its first word is, in lower case, where that is a word of SQL.
pub(crate) fn labels() -> Labels {
    Arc::new(|protocol, text| {
        assert_eq!(protocol, "postgres");
        let word = text.split_whitespace().next()?.to_lowercase();
        ["select", "insert", "update", "copy"].contains(&word.as_str()).then_some(word)
    })
}

impl Record {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (ledger, _) = Ledger::open(settings(dir.path())).unwrap();
        Self { dir, ledger }
    }

    pub(crate) fn ledger_dir(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    /// The index, opened as a command line opens it: from the files.
    pub(crate) fn index(&self) -> Index {
        self.settle();
        Index::open(self.dir.path(), &self.ledger_dir(), labels()).unwrap()
    }

    /// Waits until everything that was appended is committed.
    pub(crate) fn settle(&self) {
        struct Mark;
        impl AuditEvent for Mark {
            fn kind(&self) -> &str {
                "config"
            }
            fn visit(&self, _: &mut dyn Visitor) {}
        }
        let last = self.ledger.append(&Mark).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut committed = self.ledger.committed();
            committed.wait_for(|size| *size > last).await.unwrap();
        });
    }

    /// A session that is let in by the group `billing-agents`.
    pub(crate) fn open(&self) -> Log {
        self.open_as("customer-db", &AGENT, "billing-agents", None)
    }

    pub(crate) fn open_as(
        &self,
        connection: &str,
        identity: &dyn Identity,
        group: &str,
        trace: Option<&'static str>,
    ) -> Log {
        let log = self.claim(Some(identity), trace);
        let by = AuthorizedBy {
            kind: "group",
            name: Some(group.to_owned()),
            id: Some(format!("id-of-{group}")),
            source: AuthorizationSource::Graph,
        };
        let target = "db.internal:5432/customers";
        log.log.append(&Authorized { connection, target, record: RecordMode::Full, by: &by }).unwrap();
        log
    }

    /// A session whose opening is on record, and nothing else.
    pub(crate) fn claim(&self, identity: Option<&dyn Identity>, trace: Option<&'static str>) -> Log {
        let id = SessionId::generate();
        let client = Client {
            address: "10.0.0.7:51324".parse().unwrap(),
            user: Some("report".to_owned()),
            application: Some("psql".to_owned()),
        };
        let log = self.ledger.session(id);
        log.append(&SessionOpened { session: &Opening { id, client, trace }, identity }).unwrap();
        Log { id, log, sequence: 0 }
    }

    /// A refused login.
    pub(crate) fn refuse(&self, identity: Option<&dyn Identity>) -> SessionId {
        let log = self.claim(identity, None);
        let refusal =
            Refusal::NotAllowed { code: "no_group", reason: "in no group that has access".to_owned() };
        let connection = identity.map(|_| "customer-db");
        let target = identity.map(|_| "db.internal:5432/customers");
        log.log.append(&LoginRefused { connection, target, refusal: &refusal }).unwrap();
        log.close(CloseReason::Refused)
    }
}

/// One session of the record.
pub(crate) struct Log {
    pub(crate) id: SessionId,
    pub(crate) log: SessionLog,
    sequence: u64,
}

/// An operation without anything but a kind and a text.
pub(crate) fn operation(kind: &'static str, text: Option<&[u8]>) -> Operation {
    Operation { text: text.map(|text| text.to_vec().into()), ..Operation::new(0, kind) }
}

pub(crate) fn parameter(type_name: &'static str, value: ParameterValue) -> Parameter {
    Parameter { type_name: Cow::Borrowed(type_name), value }
}

impl Log {
    /// Records an operation and returns its entry and its sequence.
    pub(crate) fn request(&mut self, mut operation: Operation, refusal: Option<&Refusal>) -> (u64, u64) {
        self.sequence += 1;
        operation.sequence = self.sequence;
        let entry = self.log.append(&Requested { operation: &operation, refusal, withheld: None }).unwrap();
        (entry, self.sequence)
    }

    pub(crate) fn complete(&self, (entry, sequence): (u64, u64), outcome: &Outcome) {
        let completed = Completed { entry, sequence, record: RecordMode::Full, duration_us: 812, outcome };
        self.log.append(&completed).unwrap();
    }

    /// What a text goes on with that is longer than one entry holds.
    pub(crate) fn go_on(&self, (entry, sequence): (u64, u64), text: &'static [u8]) {
        struct Rest(u64, u64, &'static [u8]);
        impl AuditEvent for Rest {
            fn kind(&self) -> &str {
                kind::CHUNK
            }
            fn answers(&self) -> Option<u64> {
                Some(self.0)
            }
            fn visit(&self, visitor: &mut dyn Visitor) {
                visitor.field("seq", Value::Unsigned(self.1));
                visitor.field("stream", Value::Text(part::TEXT));
            }
            fn payload(&self, each: &mut dyn FnMut(&str, &[u8])) {
                each(part::TEXT, self.2);
            }
        }
        self.log.append(&Rest(entry, sequence, text)).unwrap();
    }

    pub(crate) fn abort(&self, (entry, sequence): (u64, u64)) {
        self.log.append(&Aborted { entry, sequence }).unwrap();
    }

    pub(crate) fn content(&self, (entry, sequence): (u64, u64), bytes: &[u8]) {
        self.log.append(&Chunk { entry, sequence, stream: ChunkStream::Content, bytes }).unwrap();
    }

    /// A query that worked.
    pub(crate) fn query(&mut self, text: &[u8]) -> (u64, u64) {
        let place = self.request(operation("query", Some(text)), None);
        let outcome = Outcome { rows: Some(3), bytes: Some(120), ..Outcome::new(Status::Ok) };
        self.complete(place, &outcome);
        place
    }

    /// One that failed.
    pub(crate) fn error(&mut self, text: &[u8]) {
        let place = self.request(operation("query", Some(text)), None);
        let error =
            TargetError { code: "42P01".to_owned(), message: "relation \"x\" does not exist".to_owned() };
        let messages = vec!["NOTICE 00000: beware".to_owned()];
        self.complete(place, &Outcome { error: Some(error), messages, ..Outcome::new(Status::Error) });
    }

    /// One that never reached the target.
    pub(crate) fn refused(&mut self, text: &[u8]) {
        let refusal = Refusal::Expired;
        self.request(operation("query", Some(text)), Some(&refusal));
    }

    /// A COPY's data.
    pub(crate) fn copy(&mut self, pieces: &[&[u8]]) {
        let place = self.request(operation("copy_data", None), None);
        for piece in pieces {
            self.content(place, piece);
        }
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let content = Some(Content { length, sha256: [0xab; 32] });
        self.complete(place, &Outcome { content, ..Outcome::new(Status::Ok) });
    }

    pub(crate) fn close(self, reason: CloseReason) -> SessionId {
        self.log.append(&SessionClosed { reason }).unwrap();
        self.id
    }
}
