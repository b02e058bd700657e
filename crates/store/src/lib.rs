//! The session index and full-text search, derived from the ledger, and the documents that people see.
//!
//! ```text
//!  ledger files ── Reader ── ingest ── index.sqlite (sessions, operations' places, distinct texts)
//!        │                                   │
//!        └──── read_at ── fold ── view ──────┴── list, show, search, tail
//! ```
//!
//! The ledger is the truth: the index holds where things are and what they can be found by, every document's texts and
//! values are read from the ledger's files. `index.sqlite` is rebuilt when it is missing, of another version, of another
//! ledger, or says something that the ledger does not. It holds the texts of commands (for the search), so its file is
//! its owner's alone.
//!
//! This crate writes no event and decides nothing; who may read is the caller's business.
//!
//! Limits: a text is indexed in pieces of 1 MiB that overlap by 4 KiB; a search term has at most 1,024 characters;
//! streamed content is in a document that is built in memory up to 16 MiB ([`fold::CONTENT_SHOWN_BYTES_MAX`]), in one
//! that is written whole. Lists and documents are written entry by entry, so their length takes no memory.

mod content;
pub mod fold;
pub mod index;
mod ingest;
mod list;
mod place;
mod query;
mod schema;
mod search;
mod tail;
pub mod view;
mod writer;

pub use fold::Labels;
pub use index::{Follow, Index, StoreError};
pub use query::Filters;
pub use tail::{Start, Tail};
pub use view::{
    Match, OperationView, SearchDocument, SessionDocument, SessionView, SessionsDocument, TailLine,
};
