#![cfg(test)]
//! What every sink owes, and what each has of its own.
//!
//! - `record`: writes ledgers for the others, through the ledger's own API.
//! - `fake`: a sink in memory that does what a test tells it.
//! - `delivery`: the shared loop on that sink: nothing lost, order kept, the record never held up, on a paused clock.
//! - `filters`: which entries a sink gets, over restarts too.
//! - `native`: the encoding, checked against the published schema.
//! - `file`: rotation, and what a crash leaves behind.
//! - `splunk`: a stand-in for the event collector, and each of its answers.
//!
//! What holds for every sink goes to `delivery`.

mod delivery;
mod fake;
mod file;
mod filters;
mod native;
mod record;
mod splunk;
