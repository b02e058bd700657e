//! The PostgreSQL interceptor: lets a client in by its token, and carries its session to the target, every operation
//! recorded before its bytes are forwarded.
//!
//! It holds no policy, opens no files and writes no events: what decides and records is behind
//! [`Gate`](verbatim_core::Gate) and the [`Operations`](verbatim_core::Operations) of a session. It re-encodes nothing: what is forwarded is
//! forwarded as the bytes that came, and it asks nothing of the target by itself but its own login, a Flush where an answer
//! must not wait for a Sync, the end of a COPY that it refused or whose client left, and a cancel.
//!
//! ```text
//!  client                                    gateway                                             target
//!    │ SSLRequest, TLS, StartupMessage         startup   who, and for which connection
//!    │ password or OAUTHBEARER                 Gate      identity, access, session opened
//!    │                                         target    the gateway's own login                    │
//!    │ ◂─ AuthenticationOk, greeting, own BackendKeyData                                            │
//!    │ Query, Parse … Sync                     operation what is asked, batch by batch              │
//!    │                                         Operations permits, durable                          │
//!    │                                         relay     the original bytes                       ─▸ │
//!    │ ◂─ results, as they came                results   matched to what was asked: outcomes         │
//! ```
//!
//! Limits: a startup packet 10 000 bytes, a credential and a message as [`Limits`](verbatim_wire::Limits) says; 65 536 prepared statements and as
//! many portals a session, and 256 MiB for each; 16 384 messages without an answer; 256 KiB of a batch without its Sync.
//!
//! Held back: a Parse until it is executed or its batch ends, for only then it is known whether it is an operation of its own;
//! an Execute goes at once. So the target's `statement_timeout` does not run while a client pauses right after a Parse.
//!
//! Refused: replication, protocols other than 3.x, messages of unknown types, logins and cancel requests in clear where TLS
//! is configured and the listener is not loopback. (Before version 17, libpq sends every cancel request in clear, psql's Ctrl-C
//! too: whoever reads along could repeat it, so it has no effect there; statements end by `statement_timeout`, or with
//! clients that cancel over TLS.) Not seen: what SQL hides from the wire. A statement that a function or a `DO` block
//! prepares or deallocates changes what a name means without a word in the protocol.
//!
//! Specification: PostgreSQL 18 documentation, chapter 54 (frontend/backend protocol); RFC 7628 (OAUTHBEARER).

pub mod cancel;
mod frame;
mod operation;
mod refusal;
mod relay;
mod results;
mod session;
mod startup;
pub mod target;
pub mod values;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use verbatim_wire::{Interceptor, InvalidTarget, Listener, Serve, TargetSettings};

pub use target::{LoginMethod, Target, TargetError};

/// What all streams of one listener share.
pub struct Context {
    /// What the gateway gives.
    pub listener: Listener,
    /// The cancel keys; one for all listeners, since a cancel request may come to any.
    pub cancels: Arc<cancel::Registry>,
}

impl Context {
    fn target(&self, connection: &str) -> Option<Arc<Target>> {
        self.listener.targets.get(connection).and_then(|(_, target)| verbatim_wire::downcast(target))
    }
}

/// The protocol, for the gateway's list.
pub fn interceptor() -> Arc<dyn Interceptor> {
    Arc::new(Postgres::default())
}

/// What all listeners of a gateway share.
#[derive(Default)]
struct Postgres {
    cancels: Arc<cancel::Registry>,
}

impl Interceptor for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn types(&self) -> &'static [&'static str] {
        &["postgres"]
    }

    fn example(&self) -> &'static str {
        "postgres://user@db.internal:5432/database?sslmode=verify-full"
    }

    fn alpn(&self) -> &'static [&'static [u8]] {
        &[target::ALPN]
    }

    fn options(&self) -> &'static [&'static str] {
        &["login"]
    }

    fn statement(&self, text: &str) -> Option<String> {
        verbatim_sql::statement(text, verbatim_sql::Dialect::Postgres).map(|label| label.word().to_owned())
    }

    fn target(&self, settings: TargetSettings<'_>) -> Result<Arc<dyn verbatim_wire::Target>, InvalidTarget> {
        let login = match settings.options.word("login", &["password", "oauthbearer"]) {
            Some("oauthbearer") => LoginMethod::OauthBearer,
            _ => LoginMethod::Password,
        };
        let own = target::TargetSettings {
            credential: settings.credential,
            login,
            tls: settings.tls,
            connect_timeout: settings.connect_timeout,
        };
        Ok(Arc::new(Target::parse(settings.url, own)?))
    }

    fn listen(self: Arc<Self>, listener: Listener) -> Serve {
        let context = Arc::new(Context { listener, cancels: Arc::clone(&self.cancels) });
        Arc::new(move |socket, peer| Box::pin(serve(socket, peer, Arc::clone(&context))))
    }
}

/// Serves one accepted stream to its end, and closes the session if there was one.
pub async fn serve(socket: TcpStream, peer: SocketAddr, context: Arc<Context>) {
    startup::serve(socket, peer, context).await;
}

// What peers reach is private here, and fuzzing has to reach it too; cargo-fuzz sets this, nothing else does.
#[cfg(fuzzing)]
pub mod fuzzing;
