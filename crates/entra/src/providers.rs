//! Every configured issuer behind one [`IdentityProvider`].

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use verbatim_core::{AuthorizationSource, BoxFuture, Identity, IdentityError, IdentityProvider, Token};

use crate::cache::Bounded;
use crate::claims::{Claims, Collection, Expected};
use crate::clock::{Clock, SystemClock};
use crate::fetch::{Fetcher, checked_url};
use crate::graph::{Directory, NoAnswer, Subject};
use crate::identity::{EntraIdentity, GroupNames, Membership};
use crate::keys::{Algorithm, Key, KeyFault};
use crate::metrics::{Counters, Metrics};
use crate::oidc::{self, Limits, OidcIdentity};
use crate::refusal::{Refused, quoted};
use crate::settings::{Common, Entra, Oidc, Settings, SettingsError};
use crate::source::{Net, NoKey, Source};
use crate::token::{Parts, guid};

/// How often keys are fetched anew.
const REFRESH_EVERY: Duration = Duration::from_secs(3600);
/// How soon they are asked for again after a failure; twice as long after each further one, up to the second of these.
const REFRESH_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How many verified tokens are remembered.
const VERIFIED_MAX: usize = 10_000;

/// Every configured issuer: verifies tokens and looks up groups.
///
/// One instance serves all runtimes of a process. A token that was verified is remembered by its digest until it ends
/// (at most 10,000 of them), so that a pool's thousand connections cost one signature check; that its key is still
/// published is asked each time.
#[derive(Debug)]
pub struct Providers {
    pub(crate) net: Arc<Net>,
    pub(crate) common: Common,
    pub(crate) issuers: Vec<Issuer>,
    by_issuer: HashMap<String, usize>,
    /// Version 1 issuers of tenants that are not ours, or that are not to be taken.
    v1_base: Option<String>,
    pub(crate) entra: Option<Entra>,
    pub(crate) names: Arc<GroupNames>,
    pub(crate) directory: Option<Directory>,
    /// Every algorithm that some issuer may use, for tokens of an unknown one.
    algorithms: Vec<Algorithm>,
    verified: Mutex<Bounded<[u8; 32], Arc<Verified>>>,
    /// Once is enough: it is the registration, not this token.
    warned_of_groups: AtomicBool,
}

/// One issuer URL and how its tokens are read.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) source: Source,
    pub(crate) kind: IssuerKind,
    algorithms: Vec<Algorithm>,
}

impl Issuer {
    pub(crate) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }
}

#[derive(Debug)]
pub(crate) enum IssuerKind {
    Entra { tenant: String, v1: bool, other_issuer: String },
    Oidc(Oidc),
}

/// What a token proved, and by which key.
#[derive(Debug)]
struct Verified {
    issuer: usize,
    kid: String,
    key: Arc<Key>,
    who: Who,
}

#[derive(Debug)]
enum Who {
    Entra(Arc<Claims>),
    Oidc(Arc<OidcIdentity>),
}

impl Providers {
    /// Makes them from their settings, with the system's clock; nothing is fetched yet.
    ///
    /// # Errors
    /// The settings contradict themselves, or certificate authorities cannot be read.
    pub fn new(settings: Settings) -> Result<Arc<Self>, SettingsError> {
        Self::with_clock(settings, Arc::new(SystemClock::default()))
    }

    /// The same with another clock.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(settings: Settings, clock: Arc<dyn Clock>) -> Result<Arc<Self>, SettingsError> {
        let Settings { entra, oidc, common } = settings;
        let net = Arc::new(Net { fetcher: Fetcher::new(&common)?, clock, metrics: Metrics::default() });
        let mut issuers = Vec::new();
        let (mut names, mut directory, mut v1_base) = (GroupNames::default(), None, None);
        let entra = entra.map(normalized).transpose()?;
        if let Some(entra) = &entra {
            names = GroupNames::new(&entra.tenants, &entra.groups, &common.named_groups)?;
            v1_base = Some(entra_issuers(entra, &net, &mut issuers)?);
            if let Some(graph) = &entra.graph {
                let client = Arc::clone(&net);
                directory = Some(Directory::new(client, graph, entra.cloud.graph(), common.graph_budget)?);
            }
        }
        for other in oidc {
            issuers.push(oidc_issuer(other, &net)?);
        }
        let mut by_issuer = HashMap::new();
        let mut provider_names = HashSet::from([String::from("entra")]);
        for (place, issuer) in issuers.iter().enumerate() {
            let taken = by_issuer.insert(issuer.source.issuer.clone(), place).is_some();
            let named_twice = match &issuer.kind {
                IssuerKind::Oidc(settings) => !provider_names.insert(settings.name.clone()),
                IssuerKind::Entra { .. } => false,
            };
            if taken || named_twice {
                return Err(SettingsError::Duplicate { name: issuer.source.issuer.clone() });
            }
        }
        let mut algorithms: Vec<Algorithm> = vec![Algorithm::Rs256];
        algorithms.extend(issuers.iter().flat_map(|issuer| &issuer.algorithms));
        Ok(Arc::new(Self {
            net,
            common,
            issuers,
            by_issuer,
            v1_base,
            entra,
            names: Arc::new(names),
            directory,
            algorithms,
            verified: Mutex::new(Bounded::new(VERIFIED_MAX)),
            warned_of_groups: AtomicBool::new(false),
        }))
    }

    /// Loads every issuer's keys and keeps them fresh (each hour), on the current tokio runtime, until the providers are
    /// dropped.
    pub fn start(self: &Arc<Self>) {
        let providers = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut retry = REFRESH_RETRY.0;
            loop {
                let Some(providers) = providers.upgrade() else { return };
                let refreshed = providers.refresh().await;
                drop(providers);
                if refreshed {
                    retry = REFRESH_RETRY.0;
                    tokio::time::sleep(REFRESH_EVERY).await;
                } else {
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(REFRESH_RETRY.1);
                }
            }
        });
    }

    /// Fetches every issuer's discovery document and keys now; whether all of them came.
    pub async fn refresh(&self) -> bool {
        let all = join_all(self.issuers.iter().map(|issuer| issuer.source.refresh())).await;
        all.iter().all(Result::is_ok)
    }

    /// Whether the keys of every issuer are loaded.
    pub fn ready(&self) -> bool {
        self.issuers.iter().all(|issuer| issuer.source.ready())
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.net.metrics.read()
    }

    async fn verified(&self, token: &[u8]) -> Result<Arc<Verified>, Refused> {
        if token.len() > self.common.token_limit {
            let reason =
                format!("the token has {} bytes, more than {}", token.len(), self.common.token_limit);
            return Err(Refused::not_authenticated("size", reason));
        }
        let sha256 = sha256(token);
        if let Some(verified) = self.remembered(&sha256)? {
            self.net.metrics.tokens_cached.count();
            return Ok(verified);
        }
        let parts = Parts::parse(token, self.common.token_limit)?;
        let place = parts.unverified_issuer().map(|issuer| (issuer, self.by_issuer.get(issuer).copied()));
        let known =
            place.as_ref().ok().and_then(|(_, place)| *place).and_then(|place| self.issuers.get(place));
        let (algorithm, kid) = parts.header(known.map_or(&self.algorithms, |issuer| &issuer.algorithms))?;
        let (stated, place) = place?;
        let (Some(place), Some(issuer)) = (place, known) else { return Err(self.unknown_issuer(stated)) };
        let key = self.key(issuer, kid, &parts).await?;
        key.verify(algorithm, parts.message, &parts.signature).map_err(|fault| match fault {
            KeyFault::Unusable(why) => Refused::not_authenticated("key", why),
            KeyFault::Signature => Refused::not_authenticated("signature", "the signature is not the key's"),
        })?;
        self.net.metrics.tokens_verified.count();
        let who = self.read(issuer, &parts, sha256)?;
        let verified = Arc::new(Verified { issuer: place, kid: kid.to_owned(), key, who });
        self.verified.lock().insert(sha256, Arc::clone(&verified));
        Ok(verified)
    }

    /// A token that was verified before, if its key is still published and its times still hold.
    fn remembered(&self, sha256: &[u8; 32]) -> Result<Option<Arc<Verified>>, Refused> {
        let Some(verified) = self.verified.lock().get(sha256) else { return Ok(None) };
        let issuer = self.issuers.get(verified.issuer);
        let key = issuer.and_then(|issuer| issuer.source.known(&verified.kid));
        if key.is_none_or(|key| *key != *verified.key) {
            self.verified.lock().remove(sha256);
            return Ok(None);
        }
        let now = self.net.clock.now().unix_seconds();
        match &verified.who {
            Who::Entra(claims) => claims.current(now, self.common.skew)?,
            Who::Oidc(identity) => identity.current(now, self.common.skew)?,
        }
        Ok(Some(verified))
    }

    fn unknown_issuer(&self, stated: &str) -> Refused {
        let v1 = self.v1_base.as_deref().and_then(|base| stated.strip_prefix(base));
        match (v1.and_then(|tenant| tenant.strip_suffix('/')).and_then(guid), &self.entra) {
            (Some(tenant), Some(entra)) if entra.tenants.contains(&tenant) => {
                Refused::not_authenticated("version", "version 1 tokens are not taken (v1 = false)")
            }
            (Some(_), Some(entra)) if entra.v1 => {
                Refused::not_authenticated("tenant", "the token is of another tenant")
            }
            _ => {
                let reason = format!("{} is not a configured issuer", quoted(stated));
                Refused::not_authenticated("issuer", reason)
            }
        }
    }

    async fn key(&self, issuer: &Issuer, kid: &str, parts: &Parts<'_>) -> Result<Arc<Key>, Refused> {
        let key = issuer.source.key(kid).await.map_err(|no_key| match no_key {
            NoKey::Unknown => {
                Refused::not_authenticated("kid", format!("the issuer has no key {}", quoted(kid)))
            }
            NoKey::Unavailable(reason) => Refused::undecided("keys", reason),
        })?;
        if let Err(KeyFault::Unusable(why)) = key.usable() {
            return Err(Refused::not_authenticated("key", why));
        }
        if let (Some(of), IssuerKind::Entra { tenant, .. }) = (&key.issuer, &issuer.kind) {
            // A key for all tenants has a template; what it is filled with is the token's own claim.
            let claimed = parts.payload.text("tid").and_then(guid);
            let of = of.replace("{tenantid}", claimed.as_deref().unwrap_or(tenant));
            if of != issuer.source.issuer {
                let reason = format!("the key is for tokens of {}", quoted(&of));
                return Err(Refused::not_authenticated("key_issuer", reason));
            }
        }
        Ok(key)
    }

    fn read(&self, issuer: &Issuer, parts: &Parts<'_>, sha256: [u8; 32]) -> Result<Who, Refused> {
        let now = self.net.clock.now().unix_seconds();
        let Common { skew, max_lifetime, .. } = self.common;
        match (&issuer.kind, &self.entra) {
            (IssuerKind::Entra { tenant, v1, other_issuer }, Some(entra)) => {
                let expected = Expected {
                    issuer: &issuer.source.issuer,
                    other_issuer,
                    tenant,
                    v1: *v1,
                    audiences: &entra.audiences,
                    scopes: &entra.scopes,
                    guests: entra.guests,
                    skew,
                    max_lifetime,
                    now,
                };
                let mut claims = Claims::read(&parts.payload, &expected, sha256)?;
                // Of 200 groups the few that mean something here are kept.
                if let Some(groups) = &mut claims.groups {
                    let named = self.names.ids(tenant);
                    groups.retain(|group| named.contains(group));
                }
                Ok(Who::Entra(Arc::new(claims)))
            }
            (IssuerKind::Entra { .. }, None) => Err(Refused::undecided("keys", "Entra is not configured")),
            (IssuerKind::Oidc(settings), _) => {
                let limits = Limits { skew, max_lifetime, now };
                let identity = OidcIdentity::read(&parts.payload, settings, limits, sha256)?;
                Ok(Who::Oidc(Arc::new(identity)))
            }
        }
    }

    /// The identity that the claims prove, with its groups, or why it cannot be let in.
    async fn entra_identity(&self, claims: &Arc<Claims>, anew: bool) -> Result<EntraIdentity, IdentityError> {
        let mut identity = EntraIdentity {
            claims: Arc::clone(claims),
            names: Arc::clone(&self.names),
            membership: self.token_groups(claims),
        };
        let refuse = |refused: Refused, identity: &EntraIdentity| {
            let proved: Arc<dyn Identity> = Arc::new(identity.clone());
            refused.with(Some(proved))
        };
        if let Some(refused) = &claims.refused {
            return Err(refuse(refused.clone(), &identity));
        }
        match self.graph_groups(claims, anew).await {
            Ok(Some(membership)) => identity.membership = membership,
            Ok(None) => {}
            Err(refused) => return Err(refuse(refused, &identity)),
        }
        Ok(identity)
    }

    fn token_groups(&self, claims: &Claims) -> Membership {
        let groups = claims.groups.iter().flatten().cloned().collect();
        let at = self.net.clock.now();
        Membership { ids: Arc::new(groups), source: AuthorizationSource::Token, at }
    }

    /// Asks the directory where the token does not say: for apps, managed identities and agents on their own always, for
    /// users above the limit, and when an open session is looked at again.
    async fn graph_groups(&self, claims: &Claims, anew: bool) -> Result<Option<Membership>, Refused> {
        let service = claims.collection == Collection::ServicePrincipals;
        let asked_for = self.names.ids(&claims.tenant);
        if asked_for.is_empty() {
            return Ok(None);
        }
        let Some(directory) = &self.directory else {
            if claims.overage {
                let reason = "the token leaves groups to the directory, and no graph is configured";
                tracing::warn!("{reason}");
                return Err(Refused::undecided("groups", reason));
            }
            return Ok(None);
        };
        if !(anew || service || claims.overage) {
            if claims.groups.is_none() && !self.warned_of_groups.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "a person's token has no groups at all: does the API's registration request the claim?"
                );
            }
            return Ok(None);
        }
        let subject = subject(claims);
        let source = self.tenant_source(&claims.tenant)?;
        let found = directory.groups(source, &subject, &asked_for, anew).await.map_err(refused_groups)?;
        Ok(Some(Membership { ids: found.groups, source: AuthorizationSource::Graph, at: found.at }))
    }

    /// The issuer whose token endpoint serves this tenant.
    pub(crate) fn tenant_source(&self, tenant: &str) -> Result<&Source, Refused> {
        let of_tenant = |issuer: &&Issuer| match &issuer.kind {
            IssuerKind::Entra { tenant: of, v1, .. } => of == tenant && !v1,
            IssuerKind::Oidc(_) => false,
        };
        let found = self.issuers.iter().find(of_tenant).map(|issuer| &issuer.source);
        found.ok_or_else(|| Refused::undecided("groups", "the tenant is not configured"))
    }

    async fn look_again(&self, identity: &EntraIdentity) -> Result<Arc<dyn Identity>, IdentityError> {
        let claims = &identity.claims;
        if let Some(directory) = &self.directory {
            let proved = || -> Option<Arc<dyn Identity>> { Some(Arc::new(identity.clone())) };
            let source = self.tenant_source(&claims.tenant).map_err(|refused| refused.with(proved()))?;
            let mut accounts = vec![subject(claims)];
            if claims.on_behalf_of.is_some() {
                accounts.push(Subject {
                    tenant: claims.tenant.clone(),
                    collection: Collection::ServicePrincipals,
                    id: claims.object_id.clone(),
                });
            }
            for account in &accounts {
                let enabled = directory.enabled(source, account).await;
                enabled.map_err(|no_answer| refused_groups(no_answer).with(proved()))?;
            }
        }
        let again = self.entra_identity(claims, true).await?;
        Ok(Arc::new(again))
    }
}

impl IdentityProvider for Providers {
    fn verify<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Arc<dyn Identity>, IdentityError>> {
        Box::pin(async move {
            let result = match self.verified(token.expose()).await {
                Err(refused) => Err(refused.with(None)),
                Ok(verified) => match &verified.who {
                    Who::Oidc(identity) => Ok(oidc::shared(identity)),
                    Who::Entra(claims) => match self.entra_identity(claims, false).await {
                        Ok(identity) => Ok(Arc::new(identity) as Arc<dyn Identity>),
                        Err(error) => Err(error),
                    },
                },
            };
            if result.is_err() {
                self.net.metrics.tokens_refused.count();
            }
            result
        })
    }

    fn recheck<'a>(
        &'a self,
        identity: &'a Arc<dyn Identity>,
    ) -> BoxFuture<'a, Result<Arc<dyn Identity>, IdentityError>> {
        Box::pin(async move {
            let any: &dyn Any = identity.as_ref();
            match any.downcast_ref::<EntraIdentity>() {
                Some(entra) => self.look_again(entra).await,
                // Another issuer's claims are all there is to know.
                None => Ok(Arc::clone(identity)),
            }
        })
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest.as_ref());
    sha256
}

fn subject(claims: &Claims) -> Subject {
    Subject { tenant: claims.tenant.clone(), collection: claims.collection, id: claims.subject.clone() }
}

fn refused_groups(no_answer: NoAnswer) -> Refused {
    match no_answer {
        NoAnswer::Gone => Refused::not_authenticated("subject_gone", "the directory knows no such subject"),
        NoAnswer::Disabled => Refused::not_authenticated("disabled", "the account is disabled"),
        NoAnswer::Denied(reason) | NoAnswer::Unavailable(reason) => Refused::undecided("groups", reason),
    }
}

/// Tenants in lower case, and nothing missing.
fn normalized(mut entra: Entra) -> Result<Entra, SettingsError> {
    if entra.audiences.is_empty() {
        return Err(SettingsError::Audiences { provider: String::from("entra") });
    }
    for tenant in &mut entra.tenants {
        *tenant = guid(tenant).ok_or_else(|| SettingsError::Tenant { tenant: tenant.clone() })?;
    }
    Ok(entra)
}

/// Adds the issuers of every tenant; the base of version 1 issuers.
fn entra_issuers(entra: &Entra, net: &Arc<Net>, issuers: &mut Vec<Issuer>) -> Result<String, SettingsError> {
    let login = entra.authority.as_deref().unwrap_or(entra.cloud.login()).trim_end_matches('/');
    let url = checked_url(login)?;
    if url.query().is_some() {
        return Err(SettingsError::Url { url: login.to_owned(), problem: "a query means nothing here" });
    }
    // Microsoft's own documents lead to their own host alone; another base may spread over several.
    let own_origin = entra.authority.is_none();
    // The cloud's version 1 issuer is another host than where one logs in; another base has none.
    let sts = if login == entra.cloud.login() { entra.cloud.sts() } else { login };
    for tenant in &entra.tenants {
        let (v2, v1) = (format!("{login}/{tenant}/v2.0"), format!("{sts}/{tenant}/"));
        let mut add = |v1_kind: bool, issuer: &str, other: &str, path: &str| {
            let document = checked_url(&format!("{login}/{tenant}{path}"))?;
            let source = Source::new(Arc::clone(net), issuer.to_owned(), document, own_origin);
            let (tenant, other_issuer) = (tenant.clone(), other.to_owned());
            let kind = IssuerKind::Entra { tenant, v1: v1_kind, other_issuer };
            issuers.push(Issuer { source, kind, algorithms: vec![Algorithm::Rs256] });
            Ok::<_, SettingsError>(())
        };
        add(false, &v2, &v1, "/v2.0/.well-known/openid-configuration")?;
        if entra.v1 {
            add(true, &v1, &v2, "/.well-known/openid-configuration")?;
        }
    }
    Ok(format!("{sts}/"))
}

fn oidc_issuer(settings: Oidc, net: &Arc<Net>) -> Result<Issuer, SettingsError> {
    if settings.audiences.is_empty() {
        return Err(SettingsError::Audiences { provider: settings.name });
    }
    if settings.name.is_empty() || settings.name.contains(['/', ':']) || guid(&settings.name).is_some() {
        return Err(SettingsError::Duplicate { name: settings.name });
    }
    let mut algorithms = Vec::new();
    for name in &settings.algorithms {
        let algorithm = Algorithm::named(name).ok_or_else(|| SettingsError::Algorithm {
            provider: settings.name.clone(),
            algorithm: name.clone(),
        })?;
        algorithms.push(algorithm);
    }
    let base = settings.issuer.trim_end_matches('/');
    let document = checked_url(&format!("{base}/.well-known/openid-configuration"))?;
    let source = Source::new(Arc::clone(net), settings.issuer.clone(), document, false);
    Ok(Issuer { source, kind: IssuerKind::Oidc(settings), algorithms })
}
