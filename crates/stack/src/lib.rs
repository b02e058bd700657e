//! The tower layers that decide and record every login and every operation, and the one function that puts them in
//! order (`build`).
//!
//! The stack knows no protocol and no identity provider, and carries no bytes of a result. What passes through it:
//!
//! ```text
//!   Login ─▶ Record ( Authenticate → Authorize → Permits ) ─▶ Opened      or Refusal, both on record
//!   Asked ─▶ Record ( Authenticate → Authorize → Permits ) ─▶ Permit      or Refusal, both on record
//! ```
//!
//! `Record` is outermost, so a refusal is recorded by the same line of code as a permit. What happens later (chunks,
//! the outcome, an abort, the close) reaches the record through the permit, see `journal.rs`.
//!
//! Limits: `[limits] sessions` open sessions; per address 300 refused logins a minute on record one by one, the rest
//! counted ([`flood`]).

mod authenticate;
mod authorize;
pub mod counters;
pub mod flood;
mod gate;
mod journal;
mod permits;
pub mod policy;
mod record;
mod request;
pub mod session;

#[cfg(test)]
mod tests;

pub use counters::Counters;
pub use gate::{Stack, Withholding};
pub use policy::{Connection, Policy};
pub use session::{OpenSessions, SessionState};

use std::sync::Arc;

use tower::ServiceBuilder;

use crate::gate::Shared;

/// The whole stack; a clone is a few reference counts.
pub(crate) type Layers = record::Record<authenticate::Authenticate<authorize::Authorize<permits::Permits>>>;

/// Puts the layers in order, as a login or an operation meets them.
pub(crate) fn build(shared: &Arc<Shared>) -> Layers {
    ServiceBuilder::new()
        // Outermost: permit or refusal, what comes back is what gets written.
        .layer(record::RecordLayer::new(Arc::clone(shared)))
        // Verifies the token at login; an open session's token can end.
        .layer(authenticate::AuthenticateLayer::new(Arc::clone(shared)))
        // No identity, no access: which entry of the connection's list lets it in, and whether it still does.
        .layer(authorize::AuthorizeLayer::new(Arc::clone(shared)))
        // Hands on what the layers above decided.
        .service(permits::Permits)
}
