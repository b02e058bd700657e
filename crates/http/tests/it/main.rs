//! The interceptor as a client and a target see it, on sockets.
//!
//! - `support`: a gateway with one connection, the target behind it, a raw client.
//! - `plain`: what becomes an operation, what goes on to the target, and what comes of it.
//! - `sessions`: tokens, renewals, other identities, the ends of sessions.
//! - `http2`: the same by HTTP/2.
//! - `upgrades`: WebSocket and other protocols after a 101.
//! - `mcp`: JSON-RPC, batches, events, tools, sessions by `Mcp-Session-Id` and by endpoint.
//! - `hostile`: what no client should send, each line of RFC 9112 that others read differently among it.
//!
//! A new test goes where its first request belongs.

#![cfg(test)]

mod hostile;
mod http2;
mod mcp;
mod plain;
mod sessions;
mod support;
mod upgrades;
