#![cfg(test)]
//! Tests of the ledger through its public interface.
//!
//! - `append`: appending, durability, sessions, rotation, reading back
//! - `format`: ledgers of earlier format versions
//! - `live`: heartbeats, followers, checkpoints that left the node, the report
//! - `model`: random histories on a disk that fails, and what must survive
//! - `recover`: what a crash, a full disk, a lost or older ledger leave, and what opening says
//! - `tamper`: the table of tamperings, flips, cuts
//! - `disk`, `forge`, `support`: a disk in memory, the forger's tools, a small ledger
//!
//! A new test goes where its subject is; a subject of its own gets a module.

mod append;
mod disk;
mod forge;
mod format;
mod live;
mod model;
mod recover;
mod support;
mod tamper;
