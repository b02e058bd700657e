//! Tokens in, identities out: Microsoft Entra and other OpenID Connect issuers, and the groups that tokens leave out.
//!
//! ```text
//!  token ── form ── header ── issuer picked ── key ── signature ── claims ── kind ── groups ── Identity
//!          token::Parts        providers   source::Source   claims::Claims      graph::Directory
//! ```
//!
//! [`Providers`] is made from [`Settings`] and is the gateway's [`IdentityProvider`](verbatim_core::IdentityProvider).
//! The algorithm is never the token's choice, no URL is ever taken from a token, and whatever cannot be decided is a
//! refusal: no key, no identity; no answer from the directory, no group.
//!
//! What this crate does not do: it does not decide who may use what (it answers
//! [`holds`](verbatim_core::Identity::holds)), it does not see whether a token came over TLS, and it keeps no token.
//!
//! | limit | value |
//! | --- | --- |
//! | token | `token_limit`, 65,535 bytes |
//! | keys of an issuer | 1,000; used for 24 h after the last successful fetch; fetched each hour |
//! | fetches that unknown `kid`s cause | 3 at once, one more each 5 minutes, for each issuer |
//! | an answer of an issuer or of Graph | 2 MiB, `timeout` |
//! | group answers | kept 5 minutes, 20,000 subjects; failures 5 s, missing subjects 30 s |
//! | verified tokens | 10,000, by digest, until they end |
//!
//! ```
//! use verbatim_entra::{Entra, Providers, Settings};
//!
//! let settings = Settings {
//!     entra: Some(Entra {
//!         tenants: vec!["11111111-aaaa-4aaa-8aaa-000000000001".into()],
//!         audiences: vec!["a0a0a0a0-0000-4000-8000-00000000a001".into()],
//!         guests: true,
//!         ..Entra::default()
//!     }),
//!     ..Settings::default()
//! };
//! let providers = Providers::new(settings)?;
//! assert!(!providers.ready()); // no keys yet: `start` fetches them
//! # Ok::<_, verbatim_entra::SettingsError>(())
//! ```
//!
//! Specifications: RFC 7515 (JWS), 7517 (JWK), 7518 (algorithms), 7519 (claims), 8037 (Ed25519); OpenID Connect Discovery
//! 1.0; Microsoft's access token claims reference and agent token claims.

mod cache;
mod check;
mod claims;
mod clock;
mod fetch;
mod graph;
mod identity;
mod json;
mod keys;
mod metrics;
mod oidc;
mod providers;
mod refusal;
mod settings;
mod source;
mod token;

pub use check::CheckResult;
pub use clock::{Clock, SystemClock};
pub use metrics::Counters;
pub use providers::Providers;
pub use settings::{Cloud, Common, Entra, Graph, Oidc, Roots, Settings, SettingsError};

// What peers reach is private here, and fuzzing has to reach it too; cargo-fuzz sets this, nothing else does.
#[cfg(fuzzing)]
pub mod fuzzing;
