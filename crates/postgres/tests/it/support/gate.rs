//! A gate that lets everybody in but whom a test names, and logs everything in the order in which it happens.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use tower::util::BoxCloneSyncService;
use verbatim_core::{
    BoxFuture, ChunkStream, CloseReason, ConnectionName, Credential, Gate, Held, Identity, IdentityKind,
    Journal, Login, OnBehalfOf, OpenSession, Opened, Operation, Operations, Outcome, Parameter, Permit,
    Principal, RecordMode, Refusal, SessionId, Timestamp, Visitor,
};

type Judge = Box<dyn Fn(&Operation) -> Option<Refusal> + Send + Sync>;

/// See the module.
pub(crate) struct FakeGate {
    record: RecordMode,
    log: Arc<Mutex<Vec<String>>>,
    judge: Arc<Mutex<Judge>>,
    pub(crate) refuse_login: Mutex<Option<Refusal>>,
    /// Nothing beyond this entry is durable.
    durable: watch::Sender<u64>,
    /// How many operations wait to be durable.
    waiting: watch::Sender<u64>,
    ended: watch::Sender<Option<CloseReason>>,
}

impl fmt::Debug for FakeGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeGate")
    }
}

impl FakeGate {
    pub(crate) fn new(record: RecordMode) -> Self {
        Self {
            record,
            log: Arc::default(),
            judge: Arc::new(Mutex::new(Box::new(|_| None))),
            refuse_login: Mutex::new(None),
            durable: watch::Sender::new(u64::MAX),
            waiting: watch::Sender::new(0),
            ended: watch::Sender::new(None),
        }
    }

    pub(crate) fn note(&self, line: String) {
        self.log.lock().push(line);
    }

    /// Everything so far, a line each.
    pub(crate) fn log(&self) -> String {
        self.log.lock().iter().map(|line| format!("{line}\n")).collect()
    }

    /// What was logged that begins so.
    pub(crate) fn lines(&self, beginning: &str) -> Vec<String> {
        self.log.lock().iter().filter(|line| line.starts_with(beginning)).cloned().collect()
    }

    /// Operations that this names a refusal for are refused.
    pub(crate) fn judge(&self, judge: impl Fn(&Operation) -> Option<Refusal> + Send + Sync + 'static) {
        *self.judge.lock() = Box::new(judge);
    }

    /// Holds back the durability of what is beyond `entry`.
    pub(crate) fn durable_to(&self, entry: u64) {
        self.durable.send_replace(entry);
    }

    /// Waits until somebody waits for the durability of an operation.
    pub(crate) async fn somebody_waits(&self) {
        self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.unwrap();
    }

    /// Ends the session.
    pub(crate) fn end(&self, reason: CloseReason) {
        self.ended.send_replace(Some(reason));
    }

    fn operations(&self, journal: Arc<Notes>) -> Operations {
        let judge = self.judge.clone();
        BoxCloneSyncService::new(tower::service_fn(move |operation: Operation| {
            let journal = journal.clone();
            let refusal = judge.lock()(&operation).or_else(|| operation.refused.clone());
            let sequence = operation.sequence;
            let shown = show(&operation);
            let answer = match refusal {
                Some(refusal) => {
                    journal.note(format!("{shown} refused {}", refusal.code()));
                    Err(refusal)
                }
                None => {
                    journal.note(shown);
                    Ok(Permit::new(journal, sequence, sequence, Instant::now()))
                }
            };
            std::future::ready(answer)
        }))
    }
}

fn show(operation: &Operation) -> String {
    let mut shown = format!("{} {}", operation.sequence, operation.kind);
    match &operation.text {
        Some(text) => shown.push_str(&format!(" {:?}", text.escape_ascii().to_string())),
        None => shown.push_str(" -"),
    }
    if let Some(parameters) = &operation.parameters {
        let mut list = Vec::new();
        Parameter::write_list(parameters, &mut list);
        shown.push(' ');
        shown.push_str(&String::from_utf8(list).unwrap());
    }
    shown
}

impl Gate for FakeGate {
    fn open(&self, login: Login) -> BoxFuture<'_, Result<Opened, Refusal>> {
        let session = &login.session;
        let who = format!(
            "{} as {} by {}",
            session.wanted(),
            session.client().user.as_deref().unwrap_or("-"),
            session.client().application.as_deref().unwrap_or("-")
        );
        let token = match &login.credential {
            Credential::Token(token) => Ok(token.len()),
            Credential::Refused(refusal) => Err(refusal.clone()),
        };
        let refusal = token.clone().err().or_else(|| self.refuse_login.lock().clone()).or(login.unsupported);
        let answer = match refusal {
            Some(refusal) => {
                self.note(format!("login refused {}: {who}", refusal.code()));
                Err(refusal)
            }
            None => {
                self.note(format!("login with {} bytes: {who}", token.unwrap_or_default()));
                let journal = Arc::new(Notes {
                    log: self.log.clone(),
                    durable: self.durable.subscribe(),
                    waiting: self.waiting.clone(),
                });
                let operations = self.operations(journal.clone());
                let session = Arc::new(FakeSession {
                    id: session.id(),
                    name: "db".parse().unwrap(),
                    record: self.record,
                    sequence: AtomicU64::new(0),
                    ended: self.ended.subscribe(),
                    closed: Mutex::new(false),
                    log: self.log.clone(),
                });
                Ok(Opened { session, operations })
            }
        };
        Box::pin(std::future::ready(answer))
    }
}

struct Notes {
    log: Arc<Mutex<Vec<String>>>,
    durable: watch::Receiver<u64>,
    waiting: watch::Sender<u64>,
}

impl Notes {
    fn note(&self, line: String) {
        self.log.lock().push(line);
    }
}

impl Journal for Notes {
    fn is_durable(&self, _: u64) -> Option<Result<(), Refusal>> {
        None
    }

    fn durable(&self, entry: u64) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            self.waiting.send_modify(|waiting| *waiting += 1);
            let mut durable = self.durable.clone();
            durable.wait_for(|durable| *durable >= entry).await.unwrap();
            self.waiting.send_modify(|waiting| *waiting -= 1);
            self.note(format!("{entry} durable"));
            Ok(())
        })
    }

    fn chunk(&self, entry: u64, _: u64, stream: ChunkStream, bytes: &[u8]) -> Result<Option<u64>, Refusal> {
        self.note(format!("{entry} {} {:?}", stream.as_str(), bytes.escape_ascii().to_string()));
        Ok((stream == ChunkStream::Content).then_some(entry))
    }

    fn complete(&self, _: u64, sequence: u64, _: Instant, outcome: &Outcome) {
        let mut line = format!("{sequence} {}", outcome.status.as_str());
        if let Some(rows) = outcome.rows {
            line.push_str(&format!(" rows={rows}"));
        }
        if let Some(bytes) = outcome.bytes {
            line.push_str(&format!(" bytes={bytes}"));
        }
        if let Some(content) = &outcome.content {
            line.push_str(&format!(" content={}", content.length));
        }
        if let Some(error) = &outcome.error {
            line.push_str(&format!(" {} {}", error.code, error.message));
        }
        for message in &outcome.messages {
            line.push_str(&format!(" [{message}]"));
        }
        self.note(line);
    }

    fn abort(&self, _: u64, sequence: u64) {
        self.note(format!("{sequence} aborted"));
    }
}

struct FakeSession {
    id: SessionId,
    name: ConnectionName,
    record: RecordMode,
    sequence: AtomicU64,
    ended: watch::Receiver<Option<CloseReason>>,
    closed: Mutex<bool>,
    log: Arc<Mutex<Vec<String>>>,
}

impl OpenSession for FakeSession {
    fn id(&self) -> SessionId {
        self.id
    }
    fn connection(&self) -> &ConnectionName {
        &self.name
    }
    fn identity(&self) -> Arc<dyn Identity> {
        Arc::new(Ada)
    }
    fn record(&self) -> RecordMode {
        self.record
    }
    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }
    fn ended(&self) -> BoxFuture<'static, CloseReason> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            if let Ok(reason) = ended.wait_for(Option::is_some).await {
                return reason.unwrap();
            }
            std::future::pending().await
        })
    }
    fn close(&self, reason: CloseReason) {
        if !std::mem::replace(&mut *self.closed.lock(), true) {
            self.log.lock().push(format!("closed {}", reason.as_str()));
        }
    }
}

#[derive(Debug)]
struct Ada;

impl Identity for Ada {
    fn provider(&self) -> &str {
        "entra"
    }
    fn tenant(&self) -> &str {
        "tenant"
    }
    fn object_id(&self) -> &str {
        "ada"
    }
    fn kind(&self) -> IdentityKind {
        IdentityKind::User
    }
    fn name(&self) -> Option<&str> {
        None
    }
    fn app_id(&self) -> Option<&str> {
        None
    }
    fn on_behalf_of(&self) -> Option<&OnBehalfOf> {
        None
    }
    fn token_id(&self) -> Option<&str> {
        None
    }
    fn expires_at(&self) -> Timestamp {
        Timestamp::from_nanos(0)
    }
    fn holds(&self, _: &Principal) -> Option<Held> {
        None
    }
    fn answers_to(&self, _: &str) -> bool {
        true
    }
    fn details(&self, _: &mut dyn Visitor) {}
}
