//! The vocabulary of Verbatim: what an identity, a session, an operation, a verdict, an outcome and an event are.
//!
//! This crate does no I/O, knows no protocol and no identity provider, and uses no other crate of ours. Everything
//! else plugs into the traits here:
//!
//! ```text
//!  entra ── implements Identity, IdentityProvider
//!  postgres, … ── implement Session; ask a Gate for a session, its Operations for permits
//!  stack ── implements Gate with tower layers, and Journal with the ledger
//!  ledger, sinks ── encode any dyn AuditEvent
//! ```
//!
//! The one path of a command: [`Operation`] → [`Operations`] (the stack) → [`Permit`] → [`Recorded`] → target →
//! [`Outcome`]. Only a [`Recorded`] permit may be forwarded, and one that is dropped without an outcome records
//! that the operation was aborted.

pub mod event;
pub mod gate;
pub mod id;
pub mod identity;
pub mod json;
pub mod mask;
pub mod operation;
pub mod outcome;
pub mod secret;
pub mod session;
pub mod time;
pub mod trace;
pub mod verdict;

/// A boxed, sendable future: what dyn-compatible traits here return.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub use event::{AuditEvent, Fields, Value, Visitor};
pub use gate::{Credential, Gate, Login, OpenSession, Opened, Operations};
pub use id::{ConnectionName, SessionId};
pub use identity::{
    AuthorizationSource, AuthorizedBy, Held, Identity, IdentityError, IdentityKind, IdentityProvider,
    OnBehalfOf, Principal, PrincipalKind, Verdict,
};
pub use mask::{ColumnName, Columns, Lineage, Masked, Masking, Meaning, Mode, Plan, Sources};
pub use operation::{Operation, Parameter, ParameterValue, Part, RecordMode};
pub use outcome::{Content, Outcome, Status, TargetError};
pub use secret::Token;
pub use session::{Client, CloseReason, Session};
pub use time::Timestamp;
pub use verdict::{ChunkStream, Fault, Journal, Permit, Recorded, Refusal};
