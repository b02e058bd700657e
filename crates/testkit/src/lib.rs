//! Throwaway real servers, the Entra simulator and clients for tests; never a dependency of what ships.
//!
//! Nothing here stands in for what is tested: servers and the gateway are the real programs, on free ports of loopback,
//! in directories of their own that go with them. A program that is missing is an error that says how to get it.
//!
//! ```text
//!  postgres::Postgres ◂── gateway::Gateway ◂── a test's clients
//!     its log               its record            ▲ tokens
//!        └── record::compare_all ──┘          idp::Idp (also the program entra-sim)
//! ```
//!
//! [`gate`] is for the tests that an interceptor has of its own, where the order of things on the wire is looked at without a
//! stack and a ledger. [`relay`] is no part of that path: the benchmark's measure of what passing bytes on costs by itself.

pub mod gate;
pub mod gateway;
pub mod http;
pub mod idp;
pub mod mariadb;
pub mod memcached;
pub mod postgres;
pub mod record;
pub mod redis;
pub mod relay;
