//! The running gateway: what its parts share, and what a reload swaps.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use arc_swap::ArcSwap;
use verbatim_core::event::kind;
use verbatim_core::{
    AuditEvent, BoxFuture, ConnectionName, Gate, Identity, IdentityError, IdentityProvider, Token, Value,
    Visitor,
};
use verbatim_entra::Providers;
use verbatim_ledger::{Admission, Ledger, SyncMode};
use verbatim_stack::{Connection, Policy, Stack};
use verbatim_store::Index;
use verbatim_wire::{Discovery, Interceptor, Limits, Listener, Target};

use crate::config::{Config, is_loopback};
use crate::delivery::Delivery;
use crate::metrics::{Measures, SinkMeasures, Streams};
use crate::tls::Certificate;

/// How long a reload waits for the keys of new identity settings.
const KEYS_WAIT: Duration = Duration::from_secs(15);

/// The identity providers in force: swapped as a whole on reload.
pub(crate) struct Provider(ArcSwap<Providers>);

impl Provider {
    pub(crate) fn new(providers: Arc<Providers>) -> Self {
        Self(ArcSwap::new(providers))
    }

    pub(crate) fn ready(&self) -> bool {
        self.0.load().ready()
    }
}

impl IdentityProvider for Provider {
    fn verify<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Arc<dyn Identity>, IdentityError>> {
        let providers = self.0.load_full();
        Box::pin(async move { providers.verify(token).await })
    }

    fn recheck<'a>(
        &'a self,
        identity: &'a Arc<dyn Identity>,
    ) -> BoxFuture<'a, Result<Arc<dyn Identity>, IdentityError>> {
        let providers = self.0.load_full();
        Box::pin(async move { providers.recheck(identity).await })
    }
}

/// The targets in force, by connection, each with its type.
type Targets = HashMap<ConnectionName, (&'static str, Arc<dyn Target>)>;

/// What one interceptor sees of them.
struct OwnTargets {
    types: &'static [&'static str],
    all: Arc<ArcSwap<Targets>>,
}

impl verbatim_wire::Targets for OwnTargets {
    fn get(&self, connection: &str) -> Option<(&'static str, Arc<dyn Target>)> {
        let name = connection.parse::<ConnectionName>().ok()?;
        self.all.load().get(&name).filter(|(kind, _)| self.types.contains(kind)).cloned()
    }

    fn all(&self) -> Vec<(ConnectionName, &'static str, Arc<dyn Target>)> {
        let all = self.all.load();
        let own = all.iter().filter(|(_, (kind, _))| self.types.contains(kind));
        own.map(|(name, (kind, target))| (name.clone(), *kind, Arc::clone(target))).collect()
    }
}

/// Everything that runs.
pub(crate) struct Gateway {
    pub(crate) ledger: Ledger,
    pub(crate) stack: Arc<Stack>,
    pub(crate) provider: Arc<Provider>,
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) index: Arc<Index>,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) listening: AtomicBool,
    pub(crate) binary: [u8; 32],
    streams: Arc<Streams>,
    targets: Arc<ArcSwap<Targets>>,
    discovery: Arc<ArcSwap<Option<Discovery>>>,
    config: ArcSwap<Config>,
}

impl Gateway {
    #[expect(clippy::too_many_arguments, reason = "the parts, each made before it by `serve`")]
    pub(crate) fn new(
        config: Arc<Config>,
        binary: [u8; 32],
        ledger: Ledger,
        stack: Arc<Stack>,
        provider: Arc<Provider>,
        certificate: Option<Arc<Certificate>>,
        index: Arc<Index>,
        delivery: Arc<Delivery>,
    ) -> Self {
        Self {
            ledger,
            stack,
            provider,
            certificate,
            index,
            delivery,
            listening: AtomicBool::new(false),
            binary,
            streams: Arc::default(),
            targets: Arc::new(ArcSwap::from_pointee(targets(&config))),
            discovery: Arc::new(ArcSwap::from_pointee(discovery(&config))),
            config: ArcSwap::new(config),
        }
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// What all streams of a listener share; `own` is the connection whose own listener it is.
    pub(crate) fn listener(
        &self,
        interceptor: &dyn Interceptor,
        address: SocketAddr,
        own: Option<&crate::config::Connection>,
    ) -> Listener {
        let config = self.config.load();
        let discovery = Arc::clone(&self.discovery);
        Listener {
            gate: Arc::clone(&self.stack) as Arc<dyn Gate>,
            tls: self.certificate.as_ref().map(|certificate| certificate.source(interceptor.alpn())),
            loopback: is_loopback(address.ip()),
            targets: Arc::new(OwnTargets { types: interceptor.types(), all: Arc::clone(&self.targets) }),
            own: own.map(|connection| connection.name.clone()),
            limits: Limits {
                message_bytes: config.limits.message,
                token_bytes: config.limits.token,
                login: config.limits.login,
                idle: config.limits.idle,
            },
            discovery: Arc::new(move || (**discovery.load()).clone()),
            metrics: Arc::clone(&self.streams) as Arc<dyn verbatim_wire::Metrics>,
        }
    }

    /// Puts another configuration in force, as far as that can be done without a restart; returns what can't.
    ///
    /// New identity settings count once their keys are loaded; where that fails the old ones stay, and groups that only
    /// the new ones know let nobody in.
    pub(crate) async fn reload(&self, config: Config) -> Result<Vec<&'static str>> {
        let config = Arc::new(config);
        let old = self.config.load_full();
        let providers = Providers::new(config.identity.clone())?;
        if tokio::time::timeout(KEYS_WAIT, providers.refresh()).await.unwrap_or(false) {
            providers.start();
            self.provider.0.store(providers);
        } else {
            tracing::error!("the keys of the new [identity] could not be loaded; the settings in force stay");
        }
        if let Some(certificate) = &self.certificate {
            certificate.reload()?;
        }
        self.targets.store(Arc::new(targets(&config)));
        self.discovery.store(Arc::new(discovery(&config)));
        self.stack.reload(policy(&config));
        let needs_restart = restart_keys(&old, &config);
        self.config.store(Arc::clone(&config));
        self.ledger.append(&ConfigInForce::new(&config, self.binary, "reload"))?;
        Ok(needs_restart)
    }

    /// What keeps the gateway from being ready.
    pub(crate) fn lacks(&self) -> Option<&'static str> {
        if !self.listening.load(Relaxed) {
            return Some("the listeners are not open");
        }
        if !self.provider.ready() {
            return Some("the keys of an identity provider are not loaded");
        }
        (self.ledger.admits() != Admission::Everything).then_some("the ledger takes no new sessions")
    }

    pub(crate) fn measures(&self) -> Measures {
        let (counters, stats) = (self.stack.counters(), self.ledger.stats());
        let operations = &counters.operations;
        let committed = *self.ledger.committed().borrow();
        let sinks = self.delivery.status().sinks.into_iter().map(|sink| SinkMeasures {
            lag: sink.ledger.saturating_sub(sink.delivered),
            lag_seconds: Duration::from_secs(sink.lag_seconds).as_secs_f64(),
            dead_letters: sink.dead_letters,
            name: sink.name,
        });
        Measures {
            sessions_open: self.stack.sessions().len() as u64,
            sessions_opened: counters.sessions_opened.load(Relaxed),
            logins_refused: counters.logins_refused.load(Relaxed),
            logins_flooded: counters.logins_flooded.load(Relaxed),
            operations: [
                ("ok", operations.ok.load(Relaxed)),
                ("error", operations.error.load(Relaxed)),
                ("refused", operations.refused.load(Relaxed)),
                ("skipped", operations.skipped.load(Relaxed)),
                ("aborted", operations.aborted.load(Relaxed)),
            ],
            takes_operations: self.ledger.admits() >= Admission::NoNewSessions,
            index_lag: committed.saturating_sub(self.index.indexed()),
            ledger: stats,
            sinks: sinks.collect(),
            streams: Arc::clone(&self.streams),
        }
    }
}

fn targets(config: &Config) -> Targets {
    let target = |connection: &crate::config::Connection| {
        (connection.name.clone(), (connection.kind, Arc::clone(&connection.target)))
    };
    config.connections.iter().map(target).collect()
}

/// What the stack is told of the configuration.
pub(crate) fn policy(config: &Config) -> Policy {
    let connection = |connection: &crate::config::Connection| {
        let known = Connection {
            name: connection.name.clone(),
            protocol: connection.kind,
            target: connection.target.display(),
            access: connection.access.clone(),
            kinds: connection.kinds.clone(),
            record: connection.record,
        };
        (connection.name.clone(), Arc::new(known))
    };
    Policy {
        connections: config.connections.iter().map(connection).collect(),
        grace: config.recheck.grace,
        recheck: config.recheck.every,
        sessions_max: config.limits.sessions,
    }
}

/// Where a client that has no token is sent (SASL OAUTHBEARER, RFC 9728): the first tenant, and the gateway's API.
fn discovery(config: &Config) -> Option<Discovery> {
    let entra = config.identity.entra.as_ref()?;
    let (tenant, audience) = entra.tenants.first().zip(entra.audiences.first())?;
    let base = entra.authority.as_deref().unwrap_or_else(|| entra.cloud.login());
    let api = if audience.contains("://") { audience.clone() } else { format!("api://{audience}") };
    Some(Discovery {
        issuer: format!("{base}/{tenant}/v2.0"),
        openid_configuration: format!("{base}/{tenant}/v2.0/.well-known/openid-configuration"),
        scope: format!("{api}/{}", entra.scopes.first().map_or(".default", String::as_str)),
    })
}

/// The settings that differ and that only a restart puts in force.
fn restart_keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let ports = |config: &Config| config.own_listeners().map(|(_, address)| address).collect::<Vec<_>>();
    let sinks = |config: &Config| config.sinks.iter().map(|sink| sink.name.clone()).collect::<Vec<_>>();
    let checks = [
        ("[gateway] node", old.gateway.node == new.gateway.node),
        ("[gateway] data_dir", old.gateway.data_dir == new.gateway.data_dir),
        ("[gateway] tls", old.gateway.tls == new.gateway.tls),
        ("[ledger]", format!("{:?}", old.ledger) == format!("{:?}", new.ledger)),
        ("[listen]", old.listen.protocols == new.listen.protocols && old.listen.admin == new.listen.admin),
        ("[[connection]] listen", ports(old) == ports(new)),
        ("[sink]", sinks(old) == sinks(new)),
    ];
    checks.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}

/// `config`: `reason, config_b64, binary_b64, version, sync`.
pub(crate) struct ConfigInForce {
    reason: &'static str,
    config: [u8; 32],
    binary: [u8; 32],
    sync: String,
}

impl ConfigInForce {
    pub(crate) fn new(config: &Config, binary: [u8; 32], reason: &'static str) -> Self {
        let sync = match config.ledger.sync {
            SyncMode::Always => "always".to_owned(),
            SyncMode::Within(within) => format!("{}ms", within.as_millis()),
        };
        Self { reason, config: config.digest, binary, sync }
    }
}

impl AuditEvent for ConfigInForce {
    fn kind(&self) -> &str {
        kind::CONFIG
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("reason", Value::Text(self.reason));
        visitor.field("config_b64", Value::Bytes(&self.config));
        visitor.field("binary_b64", Value::Bytes(&self.binary));
        visitor.field("version", Value::Text(env!("CARGO_PKG_VERSION")));
        visitor.field("sync", Value::Text(&self.sync));
    }
}
