//! How a protocol is registered with the gateway, and what it is given.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use verbatim_core::{
    BoxFuture, ColumnName, ConnectionName, Credential, Gate, Lineage, Login, Opened, Refusal,
};

use crate::stream::ClientStream;
use crate::tls::TargetTls;
use crate::url::InvalidTarget;

/// A protocol, as the gateway registers it. There is one instance a gateway: what all of its listeners share lives in it.
pub trait Interceptor: Send + Sync {
    /// Its key under `[listen]`: `postgres`.
    fn name(&self) -> &'static str;

    /// The types of connections that it serves: for the most part its name alone.
    fn types(&self) -> &'static [&'static str];

    /// A target's URL, to show people what one looks like.
    fn example(&self) -> &'static str;

    /// The protocol names (ALPN) that its TLS listeners offer; none where there is none.
    fn alpn(&self) -> &'static [&'static [u8]] {
        &[]
    }

    /// The keys of `[[connection]]` that only it knows; it asks for them in [`target`](Self::target).
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// What its masks may name under `[[connection.mask]]`: `columns`, `detect`, `fields`, `keys`; none where results of this
    /// protocol cannot be masked.
    fn masks(&self) -> &'static [&'static str] {
        &[]
    }

    /// What a command is, for people and rules: its verb in lower case (`select`, `get`); none where nothing can be made
    /// of its text. It is asked when a record is read, never on a command's way.
    fn statement(&self, _text: &str) -> Option<String> {
        None
    }

    /// Reads what the configuration says of a target. Nothing is connected.
    ///
    /// # Errors
    /// The URL, the credential or the certificates make no target. Mistakes in [`TargetSettings::options`] are noted there.
    fn target(&self, settings: TargetSettings<'_>) -> Result<Arc<dyn Target>, InvalidTarget>;

    /// What is run for each stream that a listener accepts, on the thread that owns it to its end.
    fn listen(self: Arc<Self>, listener: Listener) -> Serve;
}

/// Serves one accepted stream to its end, and closes its session if there was one.
pub type Serve = Arc<dyn Fn(TcpStream, SocketAddr) -> BoxFuture<'static, ()> + Send + Sync>;

/// What the configuration says of one target.
pub struct TargetSettings<'a> {
    /// The connection's type, one of [`Interceptor::types`].
    pub kind: &'static str,
    /// `target`.
    pub url: &'a str,
    /// `credential`; none is sent without one.
    pub credential: Option<SecretString>,
    /// `target_tls`.
    pub tls: TargetTls,
    /// How long a login may take.
    pub connect_timeout: Duration,
    /// The protocol's own keys of `[[connection]]`.
    pub options: &'a dyn Options,
}

/// Keys of `[[connection]]` that only one protocol knows, as they stand in the file. A value that is no such thing is
/// noted as a mistake, with its place, and answered like one that is not there.
pub trait Options {
    /// One of some words.
    fn word(&self, key: &'static str, known: &[&'static str]) -> Option<&'static str>;
    /// A text.
    fn text(&self, key: &'static str) -> Option<String>;
    /// A list of texts.
    fn list(&self, key: &'static str) -> Option<Vec<String>>;
    /// Notes a mistake about the value of `key`.
    fn mistake(&self, key: &'static str, message: String);
}

/// For tests and tools: nothing was configured.
impl Options for () {
    fn word(&self, _: &'static str, _: &[&'static str]) -> Option<&'static str> {
        None
    }
    fn text(&self, _: &'static str) -> Option<String> {
        None
    }
    fn list(&self, _: &'static str) -> Option<Vec<String>> {
        None
    }
    fn mistake(&self, _: &'static str, _: String) {}
}

/// A target, as its interceptor made it.
pub trait Target: Any + Send + Sync {
    /// `host:port[/database]`, for HTTP the URL; as the record names it.
    fn display(&self) -> String;

    /// Logs in and out again (`check --connect`); what was found, or what is wrong, in words.
    fn check(&self) -> BoxFuture<'_, Result<String, String>>;

    /// What its definitions say, where it has any that masks rest on.
    fn definitions(&self) -> Option<&dyn Definitions> {
        None
    }
}

/// What a target's definitions say: what `check --connect` holds the mask rules against, and `mask test` asks. Errors are words
/// for people.
pub trait Definitions: Send + Sync {
    /// Every column that a rule could name, the server's own left out.
    fn columns(&self) -> BoxFuture<'_, Result<Vec<ColumnName>, String>>;
    /// What a statement would show, store and change, in a session that has just begun.
    fn lineage<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Arc<Lineage>, String>>;
    /// What the gateway's account at the target may do that masks cannot stand against.
    fn powers(&self) -> BoxFuture<'_, Result<Vec<Power>, String>>;
}

/// Something that the gateway's account at a target may do and should not, where masks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Power {
    /// What it may do: `is a superuser`.
    pub what: String,
    /// The statement that takes it away.
    pub remedy: String,
}

/// A target as what its interceptor made it.
pub fn downcast<T: Target>(target: Arc<dyn Target>) -> Option<Arc<T>> {
    let any: Arc<dyn Any + Send + Sync> = target;
    any.downcast().ok()
}

/// The targets in force, of those types alone that the interceptor serves.
pub trait Targets: Send + Sync {
    /// The type and target of a connection.
    fn get(&self, connection: &str) -> Option<(&'static str, Arc<dyn Target>)>;
    /// Every connection: its name, type and target.
    fn all(&self) -> Vec<(ConnectionName, &'static str, Arc<dyn Target>)>;
}

/// The TLS configuration of a listener, asked for at each accept, so that certificates can be replaced.
pub type TlsSource = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;
/// Where a client is told to get its token; asked each time.
pub type DiscoverySource = Arc<dyn Fn() -> Option<Discovery> + Send + Sync>;

/// What all streams of one listener share. What can be reloaded is behind functions that are asked anew.
#[derive(Clone)]
pub struct Listener {
    /// Lets clients in.
    pub gate: Arc<dyn Gate>,
    /// TLS, with the protocol's names in its ALPN; none where the listener offers none.
    pub tls: Option<TlsSource>,
    /// The listener is loopback: it takes logins in clear although TLS is there.
    pub loopback: bool,
    /// The targets.
    pub targets: Arc<dyn Targets>,
    /// The connection of a listener that serves only one.
    pub own: Option<ConnectionName>,
    /// What clients may take.
    pub limits: Limits,
    /// Where tokens come from.
    pub discovery: DiscoverySource,
    /// Counters.
    pub metrics: Arc<dyn Metrics>,
}

impl Listener {
    /// Whether nobody between can read along, so that a login may come on this stream: TLS, a loopback listener, or one for
    /// which no TLS is configured (which the gateway's configuration allows on loopback alone).
    pub const fn is_private(&self, stream: &ClientStream) -> bool {
        self.loopback || self.tls.is_none() || matches!(stream, ClientStream::Tls(_))
    }

    /// Asks the gate, up to the login's deadline; what was not decided by then is refused, and recorded as that.
    ///
    /// # Errors
    /// The client is not let in.
    pub async fn open(&self, login: Login, deadline: Instant) -> Result<Opened, Refusal> {
        let session = Arc::clone(&login.session);
        match timeout_at(deadline, self.gate.open(login)).await {
            Ok(decided) => decided,
            Err(_) => {
                let reason = "not decided within the login limit".to_owned();
                let refusal = Refusal::Undecided { code: "timeout", reason };
                let credential = Credential::Refused(refusal.clone());
                // It is refused in any case.
                let _ = self.gate.open(Login { session, credential, unsupported: None }).await;
                Err(refusal)
            }
        }
    }
}

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The length of a message, in bytes.
    pub message_bytes: u64,
    /// The length of a token, in bytes.
    pub token_bytes: usize,
    /// From accept to identity.
    pub login: Duration,
    /// How long a session may send nothing while nothing runs; none: for ever.
    pub idle: Option<Duration>,
}

/// Where a client is told to get its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// The issuer.
    pub issuer: String,
    /// The URL of the issuer's discovery document.
    pub openid_configuration: String,
    /// The scope to ask for.
    pub scope: String,
}

/// What an interceptor counts.
pub trait Metrics: Send + Sync {
    /// A stream came that claimed nothing: a port scan, junk, a cancel request with a key that is none.
    fn junk(&self);
    /// A batch was forwarded this long after its bytes were read.
    fn added_latency(&self, latency: Duration);
}
