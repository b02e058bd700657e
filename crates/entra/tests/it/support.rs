//! A simulator, providers that trust it, and a clock that stands still until it is moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use verbatim_core::{
    AuthorizationSource, Identity, IdentityError, IdentityProvider, Principal, Timestamp, Token, Verdict,
};
use verbatim_entra::{Clock, Common, Entra, Graph, Providers, Settings};
pub(crate) use verbatim_testkit::idp::{AUDIENCE, TENANT};
use verbatim_testkit::idp::{Idp, Options};

/// When every test begins, in seconds since 1970.
pub(crate) const NOW: i64 = 1_790_000_100;

pub(crate) const OTHER_TENANT: &str = "22222222-aaaa-4aaa-8aaa-000000000002";
pub(crate) const WORKLOAD_APP: &str = "b1b1b1b1-0000-4000-8000-00000000b001";
pub(crate) const WORKLOAD: &str = "b2b2b2b2-0000-4000-8000-00000000b002";
pub(crate) const OUTSIDER_APP: &str = "b3b3b3b3-0000-4000-8000-00000000b003";
pub(crate) const PERSON: &str = "c3c3c3c3-0000-4000-8000-00000000c003";
pub(crate) const PERSON_APP: &str = "c4c4c4c4-0000-4000-8000-00000000c004";
pub(crate) const AGENT: &str = "d4d4d4d4-0000-4000-8000-00000000d004";
pub(crate) const AGENT_USER: &str = "d6d6d6d6-0000-4000-8000-00000000d006";
pub(crate) const GROUP_1: &str = "e7e7e7e7-0000-4000-8000-00000000e001";
pub(crate) const GROUP_2: &str = "e7e7e7e7-0000-4000-8000-00000000e002";

/// Both clocks, moved by hand.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(NOW).plus(self.elapsed())
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct Bench {
    pub(crate) idp: Idp,
    pub(crate) providers: Arc<Providers>,
    pub(crate) clock: Arc<ManualClock>,
}

pub(crate) fn settings(idp: &Idp) -> Settings {
    Settings {
        entra: Some(Entra {
            tenants: vec![TENANT.into()],
            audiences: vec![AUDIENCE.into()],
            authority: Some(idp.authority()),
            groups: vec![("billing-agents".into(), GROUP_1.into()), ("dba-oncall".into(), GROUP_2.into())],
            graph: Some(Graph {
                client_id: AUDIENCE.into(),
                client_secret: "gateway-secret".into(),
                endpoint: Some(idp.graph()),
            }),
            guests: true,
            ..Entra::default()
        }),
        oidc: Vec::new(),
        common: Common {
            named_groups: vec!["billing-agents".into(), "dba-oncall".into()],
            ..Common::default()
        },
    }
}

pub(crate) fn principal(text: &str) -> Principal {
    text.parse().unwrap()
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings for Entra.
    pub(crate) async fn with(change: impl FnOnce(&mut Entra)) -> Self {
        Self::with_settings(|settings| change(settings.entra.as_mut().unwrap())).await
    }

    pub(crate) async fn with_settings(change: impl FnOnce(&mut Settings)) -> Self {
        let idp = Idp::start(Options::default()).await.unwrap();
        let mut settings = settings(&idp);
        change(&mut settings);
        Self::on(idp, settings)
    }

    pub(crate) fn on(idp: Idp, settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::default());
        let shared = Arc::clone(&clock);
        let providers = Providers::with_clock(settings, shared).unwrap();
        Self { idp, providers, clock }
    }

    /// The issuer of version 2 tokens.
    pub(crate) fn issuer(&self) -> String {
        format!("{}/{TENANT}/v2.0", self.idp.authority())
    }

    /// The claims of a client of the default state, issued a little before the test begins.
    pub(crate) fn claims(&self, client: &str) -> Map<String, Value> {
        self.idp.claims(client, NOW - 100, &Default::default()).unwrap()
    }

    pub(crate) fn workload(&self) -> Map<String, Value> {
        self.claims(WORKLOAD_APP)
    }

    pub(crate) fn person(&self) -> Map<String, Value> {
        self.claims(PERSON_APP)
    }

    pub(crate) fn agent(&self) -> Map<String, Value> {
        self.claims(AGENT)
    }

    pub(crate) async fn verify(&self, token: &str) -> Result<Arc<dyn Identity>, IdentityError> {
        self.providers.verify(&Token::new(token.as_bytes().to_vec())).await
    }

    pub(crate) async fn recheck(
        &self,
        identity: &Arc<dyn Identity>,
    ) -> Result<Arc<dyn Identity>, IdentityError> {
        self.providers.recheck(identity).await
    }

    /// What came of these claims, signed well: `ok`, or class and code (`A aud`).
    pub(crate) async fn outcome(&self, claims: &Map<String, Value>) -> String {
        let token = self.idp.mint(&Value::Object(claims.clone())).unwrap();
        word(&self.verify(&token).await)
    }

    /// What came of a good token whose claims were changed so: a null removes.
    pub(crate) async fn changed(&self, claims: Map<String, Value>, changes: Value) -> String {
        self.outcome(&change(claims, changes)).await
    }

    /// What came of a good payload under another header.
    pub(crate) async fn headed(&self, header: Value) -> String {
        let payload = serde_json::to_vec(&self.workload()).unwrap();
        let token = self.idp.sign(&header, &payload, "k1", "RS256").unwrap();
        word(&self.verify(&token).await)
    }

    pub(crate) async fn identity(&self, claims: Map<String, Value>) -> Arc<dyn Identity> {
        let token = self.idp.mint(&Value::Object(claims)).unwrap();
        self.verify(&token).await.unwrap()
    }
}

pub(crate) fn change(mut claims: Map<String, Value>, changes: Value) -> Map<String, Value> {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.remove(name),
            value => claims.insert(name.clone(), value.clone()),
        };
    }
    claims
}

pub(crate) fn word(result: &Result<Arc<dyn Identity>, IdentityError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            let class = match error.verdict {
                Verdict::NotAuthenticated => "A",
                Verdict::NotAllowed => "Z",
                Verdict::Undecided => "T",
            };
            format!("{class} {}", error.code)
        }
    }
}

/// The groups of the two that it holds, and where from.
pub(crate) fn held(identity: &Arc<dyn Identity>) -> Vec<(&'static str, AuthorizationSource)> {
    ["billing-agents", "dba-oncall"]
        .into_iter()
        .filter_map(|name| Some((name, identity.holds(&principal(&format!("group:{name}")))?.source)))
        .collect()
}

/// A header as the simulator writes it.
pub(crate) fn header() -> Value {
    json!({ "typ": "JWT", "alg": "RS256", "kid": "k1" })
}
