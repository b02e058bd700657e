#![cfg(test)]
//! End to end: the real binary, a real PostgreSQL, real drivers, a simulated Entra.
//!
//! `tests/setup` installs what they need; a test that misses something fails and says so. Every test starts servers
//! and a gateway of its own ([`world`]), on free ports, so that all can run at once. A new test goes where its promise is:
//!
//! | module | holds |
//! | --- | --- |
//! | [`quick`] | the thin path: a session from login to its record and proof; the first to run when anything is broken |
//! | [`drivers`] | every driver, with small and large tokens: as without the gateway, and the server's log agrees with the record |
//! | [`identity`] | who gets in, by what, for how long |
//! | [`record`] | nothing is lost: kill -9 under load, clients that vanish, drains |
//! | [`faults`] | a full disk, a failing sync, a target or an identity provider that is away |
//! | [`tamper`] | `verify` finds what was done to a ledger |
//! | [`cli`] | the commands: arguments, exit codes, JSON documents against their schemas |
//! | [`tls`] | both sides' TLS: SSLRequest, direct, ALPN, reload, downgrades |
//! | [`large`] | results and content far larger than the memory that they may take |
//! | [`hostile`] | peers that do not keep to the protocol |
//! | [`memcached`] | the example of a protocol of one's own: its driver, the server's log against the record, who gets in |
//! | [`mysql`] | MySQL and MariaDB: every driver, the server's general log against the record, who gets in, a crash |
//! | [`http`] | HTTP: curl by both versions, h2load, node; nginx's access log against the record; who gets in |
//! | [`mcp`] | MCP: the SDK for Python, its server's own log against the record |
//! | [`redis`] | Redis: every driver, the server's MONITOR against the record, renewal, large values, a crash, a full disk |
//! | [`tidy`] | the repository's own rules: names, inheritance, crate docs, direction of dependencies |

mod wire;
mod world;

mod cli;
mod drivers;
mod faults;
mod hostile;
mod http;
mod identity;
mod large;
mod mcp;
mod memcached;
mod mysql;
mod quick;
mod record;
mod redis;
mod tamper;
mod tidy;
mod tls;
