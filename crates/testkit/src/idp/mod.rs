//! An Entra simulator: discovery, keys, tokens and a Graph stub, over real sockets, with faults on request.
//!
//! It is built from Microsoft's public documents, not from their service. Everything it signs, it signs with keys that
//! are in this tree for all to read ([`keys`]).
//!
//! As a library, for tests in Rust:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use verbatim_testkit::idp::{Idp, Options};
//!
//! let idp = Idp::start(Options::default()).await?; // a port of its own, plain http on loopback
//! let authority = idp.authority(); // [identity.entra] authority
//! let graph = idp.graph(); // graph.endpoint
//! let token = idp.token("b1b1b1b1-0000-4000-8000-00000000b001")?; // the default state's workload
//! # Ok(()) }
//! ```
//!
//! As a program, for scripts: `entra-sim [--listen 127.0.0.1:0] [--state FILE] [--https --ca-out FILE]` prints one
//! line of JSON with its authority, then serves until it is ended.
//!
//! ```sh
//! T=11111111-aaaa-4aaa-8aaa-000000000001
//! curl -s "$AUTHORITY/$T/oauth2/v2.0/token" -d grant_type=client_credentials \
//!     -d client_id=d4d4d4d4-0000-4000-8000-00000000d004 -d client_secret=agent-secret \
//!     -d scope=api://verbatim-gateway/.default | jq -r .access_token
//! ```
//!
//! | path | what |
//! | --- | --- |
//! | `GET /{t}/v2.0/.well-known/openid-configuration`, `/{t}/.well-known/…` | discovery, versions 2 and 1; `common` has the template |
//! | `GET /{t}/discovery/v2.0/keys`, `/{t}/discovery/keys` | the keys |
//! | `POST /{t}/oauth2/v2.0/token` | client credentials (secret or assertion), authorization code, device code, refresh token, jwt-bearer |
//! | `GET /{t}/oauth2/v2.0/authorize` | approves at once, as the person of `login_hint` or the first one; PKCE is needed |
//! | `POST /{t}/oauth2/v2.0/devicecode` | a device code; the second poll succeeds, as the `user` of the state |
//! | `/graph/v1.0/…` | the Graph stub ([`graph`]): asks for a token that this simulator issued |
//! | `GET /oidc/{name}/.well-known/openid-configuration` | another issuer, with RSA, P-256 and Ed25519 keys |
//! | `/control/…` | test-only ([`control`]): faults, keys, memberships, counters, minting |
//!
//! A token request may carry test-only fields: `padding=N` (bytes of an extra claim), `lifetime=SECONDS`, `version=1`,
//! `overage=1`. Client credentials work for people too, so that a script needs no browser.

mod authorize;
pub mod control;
pub mod graph;
pub mod keys;
mod routes;
mod serve;
pub mod state;
mod token;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use verbatim_core::Timestamp;

pub use state::{App, Declared, Fault, Kind, Published, Subject, Wish};

/// The first tenant of the default state.
pub const TENANT: &str = "11111111-aaaa-4aaa-8aaa-000000000001";
/// The gateway's API in the default state: the audience of version 2 tokens.
pub const AUDIENCE: &str = "a0a0a0a0-0000-4000-8000-00000000a001";

/// How a simulator starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; a port of its own on loopback.
    pub listen: SocketAddr,
    /// TLS, with an authority of its own.
    pub https: bool,
    /// Who is there; the default state unless given.
    pub state: Option<Declared>,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), https: false, state: None }
    }
}

/// A running simulator; it ends when this is dropped.
pub struct Idp {
    shared: Arc<Shared>,
    ca_pem: Option<String>,
    task: JoinHandle<()>,
}

/// What every request sees.
pub(crate) struct Shared {
    pub(crate) base: String,
    pub(crate) keys: keys::Keys,
    pub(crate) state: Mutex<state::State>,
}

impl Idp {
    /// Starts one on the current tokio runtime.
    ///
    /// # Errors
    /// The address is taken, or the state file is damaged.
    pub async fn start(options: Options) -> Result<Self> {
        let declared = match options.state {
            Some(declared) => declared,
            None => Declared::default_state()?,
        };
        let listener = tokio::net::TcpListener::bind(options.listen).await.context("listen")?;
        let address = listener.local_addr()?;
        let (tls, ca_pem) = if options.https {
            let (acceptor, ca) = serve::acceptor()?;
            (Some(acceptor), Some(ca))
        } else {
            (None, None)
        };
        let base = format!("{}://{address}", if options.https { "https" } else { "http" });
        let shared = Arc::new(Shared {
            base,
            keys: keys::Keys::load()?,
            state: Mutex::new(state::State::new(declared)?),
        });
        let task = tokio::spawn(serve::serve(listener, tls, Arc::clone(&shared)));
        Ok(Self { shared, ca_pem, task })
    }

    /// The login base: what `authority` is in the configuration.
    pub fn authority(&self) -> String {
        self.shared.base.clone()
    }

    /// The base of the Graph stub: what `graph.endpoint` is in the configuration.
    pub fn graph(&self) -> String {
        format!("{}/graph/v1.0", self.shared.base)
    }

    /// The issuer of the other OpenID Connect provider of this name.
    pub fn oidc(&self, name: &str) -> String {
        format!("{}/oidc/{name}", self.shared.base)
    }

    /// The authority behind its certificate, with https.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Waits until the simulator ends, which it does not by itself.
    pub async fn run(mut self) {
        let _ended = (&mut self.task).await;
    }

    /// Changes the state.
    pub fn change<R>(&self, change: impl FnOnce(&mut Changes<'_>) -> R) -> R {
        change(&mut Changes { state: &mut self.shared.state.lock() })
    }

    /// How many requests each endpoint had: `discovery`, `jwks`, `token`, `graph`, `check_member_groups`,
    /// `get_member_groups`, `account`, `group`, `other`.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.shared.state.lock().counters.clone()
    }

    /// How many requests this endpoint had.
    pub fn count(&self, endpoint: &str) -> u64 {
        self.shared.state.lock().counters.get(endpoint).copied().unwrap_or(0)
    }

    /// A token as this client id gets it, without the way through the socket.
    ///
    /// # Errors
    /// The state has no such client.
    pub fn token(&self, client_id: &str) -> Result<String> {
        self.token_with(client_id, &Wish::default())
    }

    /// The same with wishes.
    ///
    /// # Errors
    /// The state has no such client.
    pub fn token_with(&self, client_id: &str, wish: &Wish) -> Result<String> {
        let now = self.shared.now();
        let claims = self.claims(client_id, now, wish)?;
        self.mint(&Value::Object(claims))
    }

    /// The claims of such a token, to change before [`mint`](Self::mint).
    ///
    /// # Errors
    /// The state has no such client.
    pub fn claims(&self, client_id: &str, now: i64, wish: &Wish) -> Result<Map<String, Value>> {
        let mut state = self.shared.state.lock();
        let (tenant, app) = state
            .declared
            .tenants
            .iter()
            .find_map(|tenant| {
                let app = tenant.apps.iter().find(|app| app.client_id == client_id)?;
                Some((tenant.id.clone(), app.clone()))
            })
            .context("no such client")?;
        Ok(state.claims(&self.shared.base, &tenant, &app, now, wish))
    }

    /// Signs these claims with the key that is in use.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn mint(&self, claims: &Value) -> Result<String> {
        self.shared.mint(claims)
    }

    /// Signs any header and any payload, byte for byte, with any test key.
    ///
    /// # Errors
    /// The key cannot sign by this algorithm.
    pub fn sign(&self, header: &Value, payload: &[u8], key: &str, algorithm: &str) -> Result<String> {
        self.shared.sign(header, payload, key, algorithm)
    }

    /// The public half of a test key as PEM, and its modulus in base64url.
    ///
    /// # Errors
    /// There is no such key.
    pub fn public_forms(&self, key: &str) -> Result<(String, String)> {
        Ok(self.shared.keys.get(key)?.public_forms())
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The state, while it is changed.
pub struct Changes<'a> {
    state: &'a mut state::State,
}

impl Changes<'_> {
    /// Replaces the published keys, and which of them signs.
    pub fn keys(&mut self, published: Vec<Published>, signing: &str) {
        self.state.published = published;
        signing.clone_into(&mut self.state.signing);
    }

    /// Befalls an endpoint (`discovery`, `jwks`, `token`, `graph`); none to heal it.
    pub fn fault(&mut self, endpoint: &str, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.state.faults.insert(endpoint.to_owned(), fault),
            None => self.state.faults.remove(endpoint),
        };
    }

    /// The user or service principal of this id, made if it is not there.
    pub fn subject(&mut self, tenant: &str, object_id: &str) -> &mut Subject {
        self.state.subjects.entry((tenant.to_owned(), object_id.to_owned())).or_default()
    }

    /// Moves the simulator's clock.
    pub fn clock_offset(&mut self, seconds: i64) {
        self.state.clock_offset = seconds;
    }
}

impl Shared {
    pub(crate) fn now(&self) -> i64 {
        Timestamp::now().unix_seconds().saturating_add(self.state.lock().clock_offset)
    }

    pub(crate) fn mint(&self, claims: &Value) -> Result<String> {
        let signing = self.state.lock().signing.clone();
        let header = json!({ "typ": "JWT", "alg": "RS256", "kid": signing });
        self.sign(&header, &serde_json::to_vec(claims)?, &signing, "RS256")
    }

    pub(crate) fn sign(&self, header: &Value, payload: &[u8], key: &str, algorithm: &str) -> Result<String> {
        let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(header)?);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
        let signature = self.keys.get(key)?.sign(algorithm, message.as_bytes())?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
