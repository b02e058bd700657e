//! The stack as the gateway holds it: the gate for all interceptors, the register of sessions, what is reloaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use futures_util::StreamExt as _;
use tower::Service as _;
use verbatim_core::event::{Authorized, LoginRefused, SessionClosed, SessionOpened, Withheld};
use verbatim_core::gate::{Gate, Login, Opened};
use verbatim_core::{
    BoxFuture, CloseReason, IdentityProvider, Operation, Parameter, RecordMode, Refusal, Session, Timestamp,
};
use verbatim_ledger::{Admission, Ledger};

use crate::counters::Counters;
use crate::flood::Floods;
use crate::journal::{SessionJournal, not_recorded};
use crate::policy::Policy;
use crate::record::OfSession;
use crate::request::{Admitted, Rejected};
use crate::session::{OpenSessions, SessionState};
use crate::{Layers, build};

/// How often the stack looks after its sessions.
const TICK: Duration = Duration::from_secs(1);
/// How many look-ups of open sessions are under way at once.
const RECHECKS_AT_ONCE: usize = 8;

/// The key that stands behind the digests of values that are not kept.
pub struct Withholding(hmac::Key);

impl Withholding {
    /// With this secret of the node.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// What stands for an operation's parameters and parts in [`RecordMode::Commands`].
    pub(crate) fn of(&self, operation: &Operation, record: RecordMode) -> Option<Withheld> {
        if record != RecordMode::Commands {
            return None;
        }
        if operation.parameters.is_none() && operation.parts.is_empty() {
            return None;
        }
        let mut list = Vec::new();
        if let Some(parameters) = &operation.parameters {
            Parameter::write_list(parameters, &mut list);
        }
        for part in &operation.parts {
            list.extend_from_slice(&part.json);
        }
        let mut withheld = Withheld { length: list.len() as u64, hmac: [0; 32] };
        withheld.hmac.copy_from_slice(hmac::sign(&self.0, &list).as_ref());
        Some(withheld)
    }
}

/// What all layers share.
pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    pub(crate) provider: Arc<dyn IdentityProvider>,
    pub(crate) policy: ArcSwap<Policy>,
    /// Grows with every reload.
    pub(crate) generation: AtomicU64,
    pub(crate) sessions: OpenSessions,
    pub(crate) counters: Arc<Counters>,
    pub(crate) withholding: Withholding,
    floods: Floods,
    draining: AtomicBool,
}

impl Shared {
    /// Whether another session may begin.
    pub(crate) fn has_room(&self) -> Result<(), Refusal> {
        if self.draining.load(Relaxed) {
            return Err(Refusal::Draining);
        }
        if self.sessions.len() >= self.policy.load().sessions_max {
            return Err(Refusal::Busy { reason: "[limits] sessions is reached".into() });
        }
        match self.ledger.admits() {
            Admission::Everything => Ok(()),
            _ => Err(Refusal::NotRecorded { reason: "the ledger's volume is nearly full".to_owned() }),
        }
    }

    /// Whether operations are taken: at the disk's reserve only what ends them is.
    pub(crate) fn takes_operations(&self) -> Result<(), Refusal> {
        match self.ledger.admits() {
            Admission::Everything | Admission::NoNewSessions => Ok(()),
            Admission::NoNewOperations => {
                Err(Refusal::NotRecorded { reason: "the ledger's volume is full".to_owned() })
            }
            Admission::Nothing => Err(Refusal::NotRecorded { reason: "the ledger failed".to_owned() }),
        }
    }

    pub(crate) async fn durable(&self, entry: u64) -> Result<(), Refusal> {
        self.ledger.durable(entry).await.map_err(|error| not_recorded(&error))
    }

    /// Writes that a session was let in, and waits until that is durable.
    pub(crate) async fn write_open(
        self: &Arc<Self>,
        admitted: Admitted,
    ) -> Result<Arc<SessionState>, Refusal> {
        let Admitted { login, identity, connection, authorized_by } = admitted;
        let log = self.ledger.session(login.session.id());
        let opened = SessionOpened { session: &*login.session, identity: Some(&*identity) };
        log.append(&opened).map_err(|error| not_recorded(&error))?;
        let journal = SessionJournal::new(
            log.clone(),
            self.ledger.clone(),
            connection.record,
            Arc::clone(&self.counters),
        );
        // From here on the session's drop closes it in the record, whatever fails.
        let session = SessionState::new(self, Arc::clone(&connection), identity, authorized_by, journal);
        let authorized = Authorized {
            connection: connection.name.as_str(),
            target: &connection.target,
            record: connection.record,
            by: session.authorized_by(),
        };
        let entry = log.append(&authorized).map_err(|error| not_recorded(&error))?;
        self.durable(entry).await?;
        self.counters.sessions_opened.fetch_add(1, Relaxed);
        Ok(session)
    }

    /// Writes that a login was refused, as a session that was opened and closed at once, and waits until that is
    /// durable; past a number from one address it is counted instead.
    pub(crate) async fn write_refused_login(&self, session: &dyn Session, rejected: &Rejected) {
        self.counters.logins_refused.fetch_add(1, Relaxed);
        if !self.floods.admits(session.client().address.ip(), Timestamp::now()) {
            self.counters.logins_flooded.fetch_add(1, Relaxed);
            return;
        }
        let log = self.ledger.session(session.id());
        let connection = rejected.connection.as_deref();
        let opened = SessionOpened { session, identity: rejected.identity.as_deref() };
        let denied = LoginRefused {
            connection: connection.map(|connection| connection.name.as_str()),
            target: connection.map(|connection| connection.target.as_str()),
            refusal: &rejected.refusal,
        };
        let closed = SessionClosed { reason: CloseReason::Refused };
        let written = log.append(&opened).and_then(|_| log.append(&denied)).and_then(|_| log.append(&closed));
        let durable = match written {
            Ok(entry) => self.durable(entry).await,
            Err(error) => Err(not_recorded(&error)),
        };
        if let Err(error) = durable {
            tracing::error!(session.id = %session.id(), %error, "a refused login could not be recorded");
        }
    }
}

/// The gate that the gateway gives to every interceptor.
pub struct Stack {
    shared: Arc<Shared>,
    layers: Layers,
}

impl Stack {
    /// A stack over this ledger, with this provider and policy.
    pub fn new(
        ledger: Ledger,
        provider: Arc<dyn IdentityProvider>,
        policy: Policy,
        withholding: Withholding,
    ) -> Self {
        let shared = Arc::new(Shared {
            ledger,
            provider,
            policy: ArcSwap::from_pointee(policy),
            generation: AtomicU64::new(0),
            sessions: OpenSessions::default(),
            counters: Arc::default(),
            withholding,
            floods: Floods::default(),
            draining: AtomicBool::new(false),
        });
        let layers = build(&shared);
        Self { shared, layers }
    }

    #[cfg(test)]
    pub(crate) fn shared_for_tests(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Puts another policy in force: for new sessions at once, for open ones with their next operation or within a
    /// second.
    pub fn reload(&self, policy: Policy) {
        self.shared.policy.store(Arc::new(policy));
        self.shared.generation.fetch_add(1, Relaxed);
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The open sessions.
    pub fn sessions(&self) -> &OpenSessions {
        &self.shared.sessions
    }

    /// Takes no more logins, and asks every session to end once its running operation has.
    pub fn drain(&self) {
        self.shared.draining.store(true, Relaxed);
        for session in self.shared.sessions.all() {
            session.end(CloseReason::Drained);
        }
    }

    /// Looks after the open sessions until it is dropped: ends those whose token has ended or whose access a reload
    /// took away, looks up groups and accounts again when due, and writes down floods that are over.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = Timestamp::now();
            self.shared.sessions.end_expired(now);
            for flood in self.shared.floods.over(now) {
                if let Err(error) = self.shared.ledger.append(&flood) {
                    tracing::error!(%error, "a flood of refused logins could not be recorded");
                }
            }
            let policy = self.shared.policy.load_full();
            futures_util::stream::iter(self.shared.sessions.all())
                .for_each_concurrent(RECHECKS_AT_ONCE, |session| {
                    let lost = session.standing(&policy).is_err();
                    async move {
                        if !lost {
                            session.recheck(now).await;
                        }
                    }
                })
                .await;
        }
    }
}

impl Gate for Stack {
    fn open(&self, login: Login) -> BoxFuture<'_, Result<Opened, Refusal>> {
        let mut layers = self.layers.clone();
        Box::pin(async move {
            let session = ServiceExtReady::ready(&mut layers).await?.call(login).await?;
            Ok(OfSession { session, layers }.opened())
        })
    }
}

/// `ready` for the login request: the layers serve two kinds, and the compiler asks which one is meant.
struct ServiceExtReady;

impl ServiceExtReady {
    async fn ready<S: tower::Service<Login>>(service: &mut S) -> Result<&mut S, S::Error> {
        tower::ServiceExt::<Login>::ready(service).await
    }
}
