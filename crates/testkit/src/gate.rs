//! A gate for the tests of interceptors: it lets everybody in but whom a test names, and logs everything in the order in
//! which it happens.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tower::util::BoxCloneSyncService;
use verbatim_core::{
    BoxFuture, ChunkStream, CloseReason, ConnectionName, Credential, Gate, Held, Identity, IdentityKind,
    Journal, Login, OnBehalfOf, OpenSession, Opened, Operation, Operations, Outcome, Parameter, Permit,
    Principal, RecordMode, Refusal, SessionId, Timestamp, Visitor,
};

use verbatim_wire::{Discovery, Limits, Listener, Metrics, Target, Targets};

/// A test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Counts what is no session.
#[derive(Default)]
pub struct Counts(Mutex<usize>);

impl Counts {
    /// How many streams claimed nothing.
    pub fn junk(&self) -> usize {
        *self.0.lock()
    }
}

impl Metrics for Counts {
    fn junk(&self) {
        *self.0.lock() += 1;
    }
    fn added_latency(&self, _: Duration) {}
}

/// A fixed set of targets: name, type, target.
#[derive(Default, Clone)]
pub struct Fixed(pub Vec<(String, &'static str, Arc<dyn Target>)>);

impl Targets for Fixed {
    fn get(&self, connection: &str) -> Option<(&'static str, Arc<dyn Target>)> {
        let found = self.0.iter().find(|(name, _, _)| name == connection);
        found.map(|(_, kind, target)| (*kind, target.clone()))
    }
    fn all(&self) -> Vec<(ConnectionName, &'static str, Arc<dyn Target>)> {
        self.0.iter().map(|(name, kind, target)| (name.parse().unwrap(), *kind, target.clone())).collect()
    }
}

/// What a loopback listener without TLS is given; a test changes what it minds.
pub fn listener(gate: Arc<FakeGate>, counts: Arc<Counts>, targets: Fixed) -> Listener {
    Listener {
        gate,
        tls: None,
        loopback: true,
        targets: Arc::new(targets),
        own: None,
        limits: Limits { message_bytes: 1 << 30, token_bytes: 65_535, login: PATIENCE, idle: None },
        discovery: Arc::new(|| {
            Some(Discovery {
                issuer: "https://login.example".into(),
                openid_configuration: "https://login.example/.well-known/openid-configuration".into(),
                scope: "api://verbatim/connect".into(),
            })
        }),
        metrics: counts,
    }
}

type Judge = Box<dyn Fn(&Operation) -> Option<Refusal> + Send + Sync>;

/// See the module.
pub struct FakeGate {
    record: RecordMode,
    log: Arc<Mutex<Vec<String>>>,
    judge: Arc<Mutex<Judge>>,
    /// Every login is refused with this.
    pub refuse_login: Mutex<Option<Refusal>>,
    /// Every renewal is refused with this.
    pub refuse_renewal: Arc<Mutex<Option<Refusal>>>,
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
    /// A gate whose sessions record so much.
    pub fn new(record: RecordMode) -> Self {
        Self {
            record,
            log: Arc::default(),
            judge: Arc::new(Mutex::new(Box::new(|_| None))),
            refuse_login: Mutex::new(None),
            refuse_renewal: Arc::default(),
            durable: watch::Sender::new(u64::MAX),
            waiting: watch::Sender::new(0),
            ended: watch::Sender::new(None),
        }
    }

    /// Adds a line to the log.
    pub fn note(&self, line: String) {
        self.log.lock().push(line);
    }

    /// Everything so far, a line each.
    pub fn log(&self) -> String {
        self.log.lock().iter().map(|line| format!("{line}\n")).collect()
    }

    /// What was logged that begins so.
    pub fn lines(&self, beginning: &str) -> Vec<String> {
        self.log.lock().iter().filter(|line| line.starts_with(beginning)).cloned().collect()
    }

    /// Operations that this names a refusal for are refused.
    pub fn judge(&self, judge: impl Fn(&Operation) -> Option<Refusal> + Send + Sync + 'static) {
        *self.judge.lock() = Box::new(judge);
    }

    /// Holds back the durability of what is beyond `entry`.
    pub fn durable_to(&self, entry: u64) {
        self.durable.send_replace(entry);
    }

    /// Waits until somebody waits for the durability of an operation.
    pub async fn somebody_waits(&self) {
        self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.unwrap();
    }

    /// Ends the session.
    pub fn end(&self, reason: CloseReason) {
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
    for part in &operation.parts {
        shown.push_str(&format!(" {}={}", part.name, part.json.escape_ascii()));
    }
    if let Some(trace) = &operation.trace_id {
        shown.push_str(&format!(" trace={trace}"));
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
                    name: session.wanted().parse().unwrap_or_else(|_| "db".parse().unwrap()),
                    user: session.client().user.clone().unwrap_or_else(|| "ada".to_owned()),
                    refuse_renewal: self.refuse_renewal.clone(),
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
        for part in &outcome.parts {
            line.push_str(&format!(" {}={}", part.name, part.json.escape_ascii()));
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
    /// As the client named itself; the object id of the identity.
    user: String,
    record: RecordMode,
    refuse_renewal: Arc<Mutex<Option<Refusal>>>,
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
        Arc::new(Somebody(self.user.clone()))
    }
    fn record(&self) -> RecordMode {
        self.record
    }
    fn masks(&self) -> bool {
        false
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
    fn renew(&self, credential: Credential) -> BoxFuture<'_, Result<(), Refusal>> {
        let refusal = match credential {
            Credential::Token(_) => self.refuse_renewal.lock().clone(),
            Credential::Refused(refusal) => Some(refusal),
        };
        let answer = match refusal {
            None => {
                self.log.lock().push("renewed".to_owned());
                Ok(())
            }
            Some(refusal) => {
                self.log.lock().push(format!("renewal refused {}", refusal.code()));
                Err(refusal)
            }
        };
        Box::pin(std::future::ready(answer))
    }
    fn close(&self, reason: CloseReason) {
        if !std::mem::replace(&mut *self.closed.lock(), true) {
            self.log.lock().push(format!("closed {}", reason.as_str()));
        }
    }
}

#[derive(Debug)]
struct Somebody(String);

impl Identity for Somebody {
    fn provider(&self) -> &str {
        "entra"
    }
    fn tenant(&self) -> &str {
        "tenant"
    }
    fn object_id(&self) -> &str {
        &self.0
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
