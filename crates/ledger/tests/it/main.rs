#![cfg(test)]
//! Tests of the ledger through its public interface.
//!
//! - `append`: appending, durability, sessions, rotation, reading back
//! - `support`: a small ledger, events, ledger-wide helpers
//!
//! A new test goes where its subject is; a subject of its own gets a module.

mod append;
mod support;
