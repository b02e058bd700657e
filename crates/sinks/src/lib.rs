//! Where the record is delivered: one file a sink, one shared delivery loop.
//!
//! ```text
//!  ledger files ── source (filters, encoding) ── delivery (batch, retry, cursor) ── Sink: file, stdout, splunk
//! ```
//!
//! A sink gets entries of the ledger once or more, in order a session, and checkpoints. It is behind the ledger and
//! never in its way: one that is slow, down or gone delays nothing but itself, and goes on where it was, after a
//! restart too. What a sink refuses for good is put aside (the dead letters) and stays in the ledger like everything.
//!
//! A sink knows events, and neither protocols nor policy. Nothing here installs a TLS provider or a logger.
//!
//! Limits: a delivery is at most [`Limits::events`] and [`Limits::bytes`] (one event may be longer), one at a time; a
//! server's answer is read up to 64 KiB; a wait between attempts is at most 5 minutes, or an hour where the server
//! asked for it; the dead letters are two files of 8 MiB.

mod backoff;
pub mod client;
pub mod cursor;
mod dead;
mod deliver;
pub mod event;
mod file;
pub mod native;
mod sink;
mod source;
mod splunk;
mod stdout;

pub use deliver::{Delivery, Settings, Status};
pub use event::{Batch, Event, Payload};
pub use file::{FileSettings, FileSink};
pub use sink::{Limits, Sink, SinkError};
pub use source::{Filter, entry_at};
pub use splunk::{SplunkSettings, SplunkSink};
pub use stdout::StreamSink;
