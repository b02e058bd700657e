//! The HTTP and MCP interceptor: knows a client by the bearer token of each request, and carries its requests to the
//! target, every one recorded before a byte of it is forwarded.
//!
//! It holds no policy, opens no files and writes no events: what decides and records is behind
//! [`Gate`](verbatim_core::Gate) and the [`Operations`](verbatim_core::Operations) of a session. HTTP itself is hyper's, on
//! both sides.
//!
//! ```text
//!  client                                 gateway                                                target
//!    │ TLS, ALPN (h2, http/1.1)             startup   which HTTP it is
//!    │ request                              guard     HTTP/1: heads that two readers could read differently end here
//!    │                                      route     which connection, and the path behind it
//!    │                                      session   the token's session on this stream, or a new one
//!    │                                      operation METHOD target, fields, body; of MCP each JSON-RPC message
//!    │                                      Operations permits, durable
//!    │                                      relay     the request, with the gateway's own credential           ─▸ │
//!    │ ◂─ response                          exchange  passed on as it comes, counted: the outcome                 │
//!    │ ⇄ WebSocket, other upgrades          upgrade   each message of the client recorded, then passed on       ⇄ │
//! ```
//!
//! # Sessions
//! What one identity sends on one stream to one connection is a session; another token of the same identity renews it,
//! one of another identity is another session on the same stream. Of MCP, what one identity does under one
//! `Mcp-Session-Id` (or with one endpoint of the older HTTP+SSE transport) is a session, on however many streams.
//!
//! # Limits
//! A head: the token's limit and 16 KiB more, 200 fields, `[limits] login` to arrive. A body: `[limits] message`; up to 64
//! KiB of known length it stands in the operation, else it is recorded in chunks before it goes on. A JSON-RPC message is
//! held whole, up to the same limit, 128 levels deep. 64 identities and 100 concurrent HTTP/2 requests a stream.
//!
//! # Refused
//! `CONNECT` and `TRACE`, heads and bodies of ambiguous framing, hosts that are none or disagree, paths with `.` or `..` in
//! whatever encoding, several `Authorization` fields, tokens in clear where TLS is configured and the listener is not
//! loopback; of MCP bodies that are no JSON-RPC, keys that are there twice.
//!
//! Specifications: RFC 9110, 9112, 9113, 6455 (WebSocket), 6750 (bearer tokens), 9728 (resource metadata), 9457 (problem
//! documents), HTML section 9.2 (server-sent events), JSON-RPC 2.0, Model Context Protocol.

mod body;
mod discovery;
mod exchange;
mod fields;
mod guard;
mod mcp;
mod operation;
mod pool;
mod refusal;
mod relay;
mod route;
mod session;
mod startup;
mod target;
mod upgrade;
mod websocket;

use std::sync::Arc;

use verbatim_wire::{Interceptor, InvalidTarget, Listener, Serve, Target, TargetSettings};

use target::HttpTarget;

/// The interceptor for connections of the types `http` and `mcp`.
pub fn interceptor() -> Arc<dyn Interceptor> {
    Arc::new(Http { mcp: Arc::default() })
}

/// What all listeners of a gateway share.
struct Http {
    mcp: Arc<mcp::Registry>,
}

impl Interceptor for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn types(&self) -> &'static [&'static str] {
        &["http", "mcp"]
    }

    fn example(&self) -> &'static str {
        "https://api.internal/v1"
    }

    fn alpn(&self) -> &'static [&'static [u8]] {
        &[b"h2", b"http/1.1"]
    }

    fn options(&self) -> &'static [&'static str] {
        target::OPTIONS
    }

    fn target(&self, settings: TargetSettings<'_>) -> Result<Arc<dyn Target>, InvalidTarget> {
        Ok(Arc::new(HttpTarget::new(settings)?))
    }

    fn listen(self: Arc<Self>, listener: Listener) -> Serve {
        let listener = Arc::new(listener);
        let mcp = Arc::clone(&self.mcp);
        Arc::new(move |socket, peer| {
            Box::pin(startup::serve(socket, peer, Arc::clone(&listener), Arc::clone(&mcp)))
        })
    }
}

/// The one normal form of a request's path, for rules: unreserved characters decoded, what stays encoded in upper case,
/// slashes merged, parameters (`;…`) of segments left out. The target gets the path as it was sent.
pub fn normal_path(path: &str) -> String {
    route::normal_form(path)
}
