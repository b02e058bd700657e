//! What the simulator was told (its state file) and what it became since.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A state file: who is there at start. See `default-state.json` for an example.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// The gateway's API: what `aud` of a version 2 token is.
    pub audience: String,
    /// Its App ID URI: what `aud` of a version 1 token is.
    pub app_id_uri: String,
    /// The tenants.
    pub tenants: Vec<Tenant>,
}

/// One tenant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its GUID.
    pub id: String,
    /// Groups by name.
    #[serde(default)]
    pub groups: BTreeMap<String, String>,
    /// Who can ask for tokens.
    pub apps: Vec<App>,
}

/// Whoever can ask for tokens by a client id and a secret: apps, and, so that scripts need no browser, people.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// For the token request.
    pub client_id: String,
    /// For the token request.
    pub client_secret: String,
    /// The test key that its client assertions are signed with, if it may use them.
    pub assertion_key: Option<String>,
    /// What `azp` says; the client id unless given.
    pub app_id: Option<String>,
    /// What `oid` says: for an agent that acts for a person, the person's.
    pub object_id: String,
    /// What the token looks like.
    pub kind: Kind,
    /// `name` of people and agents' user accounts.
    pub name: Option<String>,
    /// `preferred_username`, likewise.
    pub preferred_username: Option<String>,
    /// Of an agent.
    pub blueprint: Option<String>,
    /// Names or ids of groups that the object is in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// App roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Whether it may ask for a token for Graph.
    #[serde(default)]
    pub graph: bool,
}

/// The kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An app or a managed identity.
    Workload,
    /// An autonomous agent.
    Agent,
    /// An agent acting for a person.
    AgentForPerson,
    /// An agent's own user account.
    AgentUser,
    /// A person.
    User,
}

impl Kind {
    /// Whether its object is a user, not a service principal.
    pub fn is_user(self) -> bool {
        matches!(self, Self::AgentForPerson | Self::AgentUser | Self::User)
    }

    fn is_agent(self) -> bool {
        matches!(self, Self::Agent | Self::AgentForPerson | Self::AgentUser)
    }
}

impl Declared {
    /// Reads a state file.
    ///
    /// # Errors
    /// It is no JSON of this shape.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("state file")
    }

    /// The state that the simulator has unless it is told otherwise.
    ///
    /// # Errors
    /// The file in the tree is damaged.
    pub fn default_state() -> Result<Self> {
        Self::parse(include_str!("default-state.json"))
    }
}

/// A key as the JWKS shows it.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its `kid`.
    pub kid: String,
    /// The test key behind it.
    pub key: String,
    /// `use`.
    pub usage: String,
    /// `issuer`; each document's own unless given.
    pub issuer: Option<String>,
}

impl Published {
    /// A signing key whose `kid` is the test key's name.
    pub fn signing(key: &str) -> Self {
        Self { kid: key.to_owned(), key: key.to_owned(), usage: "sig".to_owned(), issuer: None }
    }
}

/// What an endpoint does instead of its work.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The status to answer with; 0 is none.
    pub status: u16,
    /// The `code` inside `error`.
    pub code: Option<String>,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
    /// Never answer.
    pub hang: bool,
    /// How many requests it befalls; all, unless given.
    pub times: Option<u32>,
}

/// A user or service principal of the directory.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// `/users/{id}` or `/servicePrincipals/{id}`.
    pub is_user: bool,
    /// `accountEnabled`.
    pub disabled: bool,
    /// Answered with 404.
    pub gone: bool,
    /// Ids of the groups it is in.
    pub groups: BTreeSet<String>,
}

/// What a token request may ask beside what Entra knows, test-only.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Bytes of an extra claim, so that tokens of any size can be had.
    pub padding: usize,
    /// Seconds of life instead of 3,900.
    pub lifetime: Option<i64>,
    /// Version 1 instead of 2.
    pub v1: bool,
    /// The overage marker instead of groups.
    pub overage: bool,
}

/// What an authorization code was given out for.
#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) tenant: String,
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
    /// The client id under which the state knows the person.
    pub(super) person: String,
}

/// Everything that changes while the simulator runs.
pub struct State {
    pub(super) declared: Declared,
    pub(super) published: Vec<Published>,
    pub(super) signing: String,
    pub(super) frozen: Option<Vec<Published>>,
    pub(super) faults: HashMap<String, Fault>,
    pub(super) counters: BTreeMap<String, u64>,
    pub(super) subjects: HashMap<(String, String), Subject>,
    pub(super) graph_tokens: HashMap<String, String>,
    pub(super) refresh_tokens: HashMap<String, (String, String)>,
    pub(super) device_codes: HashMap<String, (String, u32)>,
    pub(super) codes: HashMap<String, Code>,
    pub(super) clock_offset: i64,
    pub(super) issued: u64,
}

impl State {
    pub(super) fn new(declared: Declared) -> Result<Self> {
        let mut subjects: HashMap<(String, String), Subject> = HashMap::new();
        for tenant in &declared.tenants {
            for app in &tenant.apps {
                let key = (tenant.id.clone(), app.object_id.clone());
                let subject = subjects.entry(key).or_default();
                subject.is_user = app.kind.is_user();
                for group in &app.groups {
                    subject.groups.insert(tenant.groups.get(group).unwrap_or(group).clone());
                }
                // The agent behind a token of a person or user account is an object of its own.
                let actor = app.app_id.as_ref().filter(|_| app.kind.is_agent());
                if let Some(actor) = actor {
                    subjects.entry((tenant.id.clone(), actor.clone())).or_default();
                }
            }
        }
        if declared.tenants.is_empty() {
            bail!("the state names no tenant");
        }
        Ok(Self {
            declared,
            published: vec![Published::signing("k1"), Published::signing("k2")],
            signing: "k1".to_owned(),
            frozen: None,
            faults: HashMap::new(),
            counters: BTreeMap::new(),
            subjects,
            graph_tokens: HashMap::new(),
            refresh_tokens: HashMap::new(),
            device_codes: HashMap::new(),
            codes: HashMap::new(),
            clock_offset: 0,
            issued: 0,
        })
    }

    pub(super) fn count(&mut self, what: &str) {
        *self.counters.entry(what.to_owned()).or_default() += 1;
    }

    /// Takes the fault that befalls this request, if any.
    pub(super) fn fault(&mut self, endpoint: &str) -> Option<Fault> {
        let fault = self.faults.get_mut(endpoint)?;
        match &mut fault.times {
            Some(0) => None,
            Some(times) => {
                *times -= 1;
                Some(fault.clone())
            }
            None => Some(fault.clone()),
        }
    }

    pub(super) fn tenant(&self, id: &str) -> Option<&Tenant> {
        self.declared.tenants.iter().find(|tenant| tenant.id.eq_ignore_ascii_case(id))
    }

    /// A number that no other token of this simulator has, for `uti`.
    pub(super) fn next_id(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    /// The claims of a token for the gateway's API, as Entra would write them.
    pub(super) fn claims(
        &mut self,
        base: &str,
        tenant: &str,
        app: &App,
        now: i64,
        wish: &Wish,
    ) -> Map<String, Value> {
        let uti = format!("sim{:019}", self.next_id());
        let azp = app.app_id.as_ref().unwrap_or(&app.client_id);
        let lifetime = wish.lifetime.unwrap_or(3900);
        let (issuer, audience, version) = if wish.v1 {
            (format!("{base}/{tenant}/"), &self.declared.app_id_uri, "1.0")
        } else {
            (format!("{base}/{tenant}/v2.0"), &self.declared.audience, "2.0")
        };
        let (client, credential) = if wish.v1 { ("appid", "appidacr") } else { ("azp", "azpacr") };
        let mut claims = Map::new();
        let mut set = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        set("aud", json!(audience));
        set("iss", json!(issuer));
        set("iat", json!(now));
        set("nbf", json!(now));
        set("exp", json!(now.saturating_add(lifetime)));
        set("aio", json!("x"));
        set(client, json!(azp));
        set(credential, json!(if app.kind == Kind::Workload { "1" } else { "2" }));
        set("oid", json!(app.object_id));
        set("rh", json!("x"));
        set("tid", json!(tenant));
        set("uti", json!(uti));
        set("ver", json!(version));
        if app.kind.is_user() {
            set("idtyp", json!("user"));
            set("scp", json!("connect"));
            set("sub", json!(format!("pairwise-{}", app.object_id)));
        } else {
            set("idtyp", json!("app"));
            set("sub", json!(app.object_id));
        }
        for (name, value) in [("name", &app.name), ("preferred_username", &app.preferred_username)] {
            if let Some(value) = value.as_ref().filter(|_| app.kind.is_user()) {
                set(if wish.v1 && name != "name" { "upn" } else { name }, json!(value));
            }
        }
        if !app.roles.is_empty() {
            set("roles", json!(app.roles));
        }
        if app.kind.is_agent() {
            set("xms_act_fct", json!("3 9 11"));
            set("xms_tnt_fct", json!("3 9"));
            set("xms_idrel", json!(if app.kind == Kind::Agent { "7 10" } else { "1" }));
            if let Some(blueprint) = &app.blueprint {
                set("xms_par_app_azp", json!(blueprint));
            }
        }
        match app.kind {
            Kind::Agent => drop(set("xms_sub_fct", json!("9 3 11"))),
            Kind::AgentUser => drop(set("xms_sub_fct", json!("13"))),
            _ => {}
        }
        if wish.padding > 0 {
            set("test_padding", json!("p".repeat(wish.padding)));
        }
        if app.kind.is_user() {
            self.groups_claim(&mut claims, tenant, app, wish);
        }
        claims
    }

    /// Groups of users, or the marker above 200 of them. Service principals get neither.
    fn groups_claim(&self, claims: &mut Map<String, Value>, tenant: &str, app: &App, wish: &Wish) {
        let Some(subject) = self.subjects.get(&(tenant.to_owned(), app.object_id.clone())) else { return };
        if subject.groups.len() <= 200 && !wish.overage {
            if !subject.groups.is_empty() {
                claims.insert("groups".to_owned(), json!(subject.groups));
            }
            return;
        }
        let endpoint = format!("https://graph.windows.net/{tenant}/users/{}/getMemberObjects", app.object_id);
        claims.insert("_claim_names".to_owned(), json!({ "groups": "src1" }));
        claims.insert("_claim_sources".to_owned(), json!({ "src1": { "endpoint": endpoint } }));
    }
}
