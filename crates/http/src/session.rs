//! Sessions: what one identity does on one connection, on one stream or (MCP) under one `Mcp-Session-Id`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::constant_time;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use verbatim_core::{
    Client, CloseReason, Credential, Login, OpenSession, Operation, Operations, Recorded, Refusal, Session,
    SessionId, Token,
};
use verbatim_wire::Listener;

use crate::mcp::pending::Pending;
use crate::pool::Pool;
use crate::target::HttpTarget;

/// How long what runs may go on when its session ends for another reason than a drain.
const ENDING: Duration = Duration::from_secs(2);
/// How many tokens of its identity a session knows again without asking.
const TOKENS_MAX: usize = 4;
/// How many sessions there can be on one stream.
const SESSIONS_MAX: usize = 64;

/// What a request says of a session before it is let in.
#[derive(Debug, Clone)]
pub(crate) struct HttpSession {
    pub(crate) id: SessionId,
    pub(crate) protocol: &'static str,
    pub(crate) wanted: String,
    pub(crate) client: Client,
    pub(crate) trace_id: Option<String>,
}

impl HttpSession {
    /// A session that a request asks for.
    pub(crate) fn new(
        protocol: &'static str,
        wanted: &str,
        address: SocketAddr,
        headers: &http::HeaderMap,
    ) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let application = text("user-agent").map(str::to_owned).filter(|agent| !agent.is_empty());
        Self {
            id: SessionId::generate(),
            protocol,
            wanted: wanted.to_owned(),
            client: Client { address, user: None, application },
            trace_id: text(verbatim_core::trace::NAME).and_then(verbatim_core::trace::traceparent),
        }
    }
}

impl Session for HttpSession {
    fn id(&self) -> SessionId {
        self.id
    }

    fn protocol(&self) -> &'static str {
        self.protocol
    }

    fn wanted(&self) -> &str {
        &self.wanted
    }

    fn client(&self) -> &Client {
        &self.client
    }

    fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }
}

/// An open session in use.
pub(crate) struct Live {
    pub(crate) session: Arc<dyn OpenSession>,
    pub(crate) connection: String,
    pub(crate) target: Arc<HttpTarget>,
    pub(crate) pool: Arc<Pool>,
    /// JSON-RPC requests that wait for their answers.
    pub(crate) pending: Pending,
    /// What still streams is cut off.
    pub(crate) cut: CancellationToken,
    /// Nothing new is taken.
    pub(crate) over: CancellationToken,
    operations: Operations,
    tokens: Mutex<Vec<Token>>,
    reason: OnceLock<CloseReason>,
    running: AtomicUsize,
    /// Of what runs, what stays open for as long as both sides like.
    standing: AtomicUsize,
    settled: Notify,
    last: Mutex<Instant>,
    watcher: OnceLock<AbortHandle>,
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.abort();
        }
        // Whoever waits for its end waits no longer.
        self.over.cancel();
    }
}

impl Live {
    /// Asks to be let in. The error has the id of the refused session, for the client's reference.
    pub(crate) async fn open(
        listener: &Listener,
        session: HttpSession,
        target: Option<Arc<HttpTarget>>,
        credential: Credential,
    ) -> Result<Arc<Self>, Refused> {
        let id = session.id;
        let refused = |refusal| Refused { session: id, refusal };
        let token = match &credential {
            Credential::Token(token) => Some(copy(token)),
            Credential::Refused(_) => None,
        };
        let connection = session.wanted.clone();
        let login = Login { session: Arc::new(session), credential, unsupported: None };
        let deadline = Instant::now() + listener.limits.login;
        let opened = listener.open(login, deadline).await.map_err(refused)?;
        let Some(target) = target else {
            // Let in to what a reload has just taken away.
            opened.session.close(CloseReason::Target);
            let reason = "the connection has no target any more".to_owned();
            return Err(refused(Refusal::Undecided { code: "no_target", reason }));
        };
        let live = Arc::new(Self {
            session: opened.session,
            connection,
            pool: Pool::new(Arc::clone(&target)),
            target,
            pending: Pending::default(),
            cut: CancellationToken::new(),
            over: CancellationToken::new(),
            operations: opened.operations,
            tokens: Mutex::new(token.into_iter().collect()),
            reason: OnceLock::new(),
            running: AtomicUsize::new(0),
            standing: AtomicUsize::new(0),
            settled: Notify::new(),
            last: Mutex::new(Instant::now()),
            watcher: OnceLock::new(),
        });
        let ended = live.session.ended();
        let weak = Arc::downgrade(&live);
        let watcher = tokio::spawn(async move {
            let reason = ended.await;
            if let Some(live) = weak.upgrade() {
                live.end(reason).await;
            }
        });
        // Set once, here.
        drop(live.watcher.set(watcher.abort_handle()));
        Ok(live)
    }

    /// Whether the session is open, and this is a token that it was opened or renewed with.
    pub(crate) fn knows(&self, token: &Token) -> bool {
        let same =
            |known: &Token| constant_time::verify_slices_are_equal(known.expose(), token.expose()).is_ok();
        !self.is_over() && self.tokens.lock().iter().any(same)
    }

    /// Takes another token of the same identity.
    pub(crate) async fn renew(&self, token: &Token) -> Result<(), Refusal> {
        self.session.renew(Credential::Token(copy(token))).await?;
        let mut tokens = self.tokens.lock();
        if tokens.len() >= TOKENS_MAX {
            tokens.remove(0);
        }
        tokens.push(copy(token));
        Ok(())
    }

    /// Whether the session has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Has the stack decide an operation, and waits until it is recorded.
    pub(crate) async fn decide(&self, operation: Operation) -> Result<Recorded, Refusal> {
        let mut operations = self.operations.clone();
        operations.ready().await?.call(operation).await?.recorded().await
    }

    /// As [`decide`](Self::decide), for several at once: decided one by one, waited for once.
    pub(crate) async fn decide_all(&self, all: Vec<Operation>) -> Vec<Result<Recorded, Refusal>> {
        let mut operations = self.operations.clone();
        let mut permits = Vec::with_capacity(all.len());
        for operation in all {
            permits.push(match operations.ready().await {
                Ok(ready) => ready.call(operation).await,
                Err(refusal) => Err(refusal),
            });
        }
        let mut decided = Vec::with_capacity(permits.len());
        for permit in permits {
            decided.push(match permit {
                Ok(permit) => permit.recorded().await,
                Err(refusal) => Err(refusal),
            });
        }
        decided
    }

    /// Something runs, until this is dropped.
    pub(crate) fn runs(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Relaxed);
        self.touch();
        Running { live: Arc::clone(self), stands: false }
    }

    fn one_less(&self, count: &AtomicUsize) {
        self.touch();
        if count.fetch_sub(1, Relaxed) == 1 {
            self.settled.notify_waiters();
            self.settled.notify_one();
        }
    }

    /// Whether nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.load(Relaxed) == 0
    }

    pub(crate) fn touch(&self) {
        *self.last.lock() = Instant::now();
    }

    /// When something last began or ended.
    pub(crate) fn last(&self) -> Instant {
        *self.last.lock()
    }

    /// Why the session has ended.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        self.reason.get().copied()
    }

    /// Ends the session once what runs has ended: of a drain it may, else it has [`ENDING`].
    pub(crate) async fn end(&self, reason: CloseReason) {
        let reason = *self.reason.get_or_init(|| reason);
        self.over.cancel();
        match reason {
            CloseReason::Drained => self.none(&self.running).await,
            _ => drop(timeout(ENDING, self.none(&self.running)).await),
        }
        // What only stands ends by itself where the client has left, and is cut off otherwise; its outcome is what came of it.
        if reason == CloseReason::Client {
            drop(timeout(ENDING, self.none(&self.standing)).await);
        }
        self.cut.cancel();
        drop(timeout(ENDING, self.none(&self.standing)).await);
        self.close(reason);
    }

    /// Waits until a count is zero.
    async fn none(&self, count: &AtomicUsize) {
        while count.load(Relaxed) > 0 {
            self.settled.notified().await;
        }
    }

    /// Ends the session at once.
    pub(crate) fn close(&self, reason: CloseReason) {
        let reason = *self.reason.get_or_init(|| reason);
        self.over.cancel();
        self.cut.cancel();
        self.pending.clear();
        self.session.close(reason);
    }
}

/// A request that runs, or whose answer stands open.
pub(crate) struct Running {
    live: Arc<Live>,
    stands: bool,
}

impl Running {
    /// From now on it stays open for as long as both sides like: nobody waits for it.
    pub(crate) fn stands(&mut self) {
        if !std::mem::replace(&mut self.stands, true) {
            self.live.standing.fetch_add(1, Relaxed);
            self.live.one_less(&self.live.running);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.live.one_less(if self.stands { &self.live.standing } else { &self.live.running });
    }
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The session in whose record the reason is.
    pub(crate) session: SessionId,
    pub(crate) refusal: Refusal,
}

/// The sessions of one stream.
#[derive(Default)]
pub(crate) struct Sessions {
    lives: Mutex<Vec<Arc<Live>>>,
    /// One login at a time: requests of one HTTP/2 stream would open a session each.
    logging_in: tokio::sync::Mutex<()>,
}

/// A request's way to its session.
pub(crate) struct Asked<'a> {
    pub(crate) listener: &'a Listener,
    pub(crate) session: HttpSession,
    pub(crate) target: Option<Arc<HttpTarget>>,
    pub(crate) token: &'a Token,
}

impl Sessions {
    /// The open session that has this token already.
    pub(crate) fn known(&self, connection: &str, token: &Token) -> Option<Arc<Live>> {
        let lives = self.lives.lock();
        lives.iter().find(|live| live.connection == connection && live.knows(token)).cloned()
    }

    /// The session that a token has on this stream: an open one, one that it renews, or a new one.
    pub(crate) async fn find_or_open(&self, asked: Asked<'_>) -> Result<Arc<Live>, Refused> {
        let Asked { listener, session, target, token } = asked;
        if let Some(live) = self.known(&session.wanted, token) {
            return Ok(live);
        }
        let _one = self.logging_in.lock().await;
        if let Some(live) = self.known(&session.wanted, token) {
            return Ok(live);
        }
        let id = session.id;
        let there: Vec<_> = {
            let mut lives = self.lives.lock();
            lives.retain(|live| !live.is_over());
            if lives.len() >= SESSIONS_MAX {
                let refusal = Refusal::Busy { reason: "too many identities on one stream".into() };
                return Err(Refused { session: id, refusal });
            }
            lives.iter().filter(|live| live.connection == session.wanted).cloned().collect()
        };
        for live in there {
            match live.renew(token).await {
                Ok(()) => return Ok(live),
                // Somebody else's: then it is another session.
                Err(Refusal::NotAuthenticated { code: "identity", .. }) => {}
                Err(refusal) => return Err(Refused { session: live.session.id(), refusal }),
            }
        }
        let live = Live::open(listener, session, target, Credential::Token(copy(token))).await?;
        self.lives.lock().push(Arc::clone(&live));
        Ok(live)
    }

    /// Takes a session out: it goes on without this stream.
    pub(crate) fn release(&self, live: &Arc<Live>) {
        self.lives.lock().retain(|other| !Arc::ptr_eq(other, live));
    }

    /// Gives one that was taken out back.
    pub(crate) fn adopt(&self, live: Arc<Live>) {
        self.lives.lock().push(live);
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        self.lives.lock().clone()
    }

    /// The stream has ended.
    pub(crate) fn close(&self, reason: CloseReason) {
        for live in std::mem::take(&mut *self.lives.lock()) {
            live.close(reason);
        }
    }
}

pub(crate) fn copy(token: &Token) -> Token {
    Token::new(token.expose().to_vec())
}
