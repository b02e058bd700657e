#![cfg(test)]
//! Tests of the ledger through its public interface.
//!
//! - `append`: appending, durability, sessions, rotation, reading back
//! - `format`: ledgers of earlier format versions
//! - `live`: heartbeats, followers, checkpoints that left the node, the report
//! - `model`: random histories on a disk that fails, and what must survive
//! - `recover`: what a crash, a full disk, a lost or older ledger leave, and what opening says
//! - `tamper`, `sense`, `copies`: the table of tamperings, row by row: bytes; what makes no sense though signed; sinks
//! - `attacks`: tamperings that the table doesn't have
//! - `disk`, `forge`, `support`: a disk in memory, the forger's tools, a small ledger
//!
//! A new test goes where its subject is; a subject of its own gets a module.

mod append;
mod attacks;
mod copies;
mod disk;
mod forge;
mod format;
mod live;
mod model;
mod recover;
mod sense;
mod support;
mod tamper;
