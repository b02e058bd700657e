#![cfg(test)]
//! The providers against the Entra simulator, over real sockets.
//!
//! - `cases`: the numbered cases of validation, one test each, named by its number.
//! - `keys`: discovery, rollover, emergency drop, outages, clouds.
//! - `groups`: every kind of subject, the directory, its cache and its failures, looking again.
//! - `oidc`: other issuers.
//! - `operator`: settings, checks, what a sample token lacks.
//! - `hostile`: any bytes at all.
//! - `simulator`: the simulator itself, as scripts use it.
//!
//! A new test goes where its subject is; what all of them share is in `support`.

mod cases;
mod groups;
mod hostile;
mod keys;
mod oidc;
mod operator;
mod simulator;
mod support;
