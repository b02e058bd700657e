//! What a SQL statement is: one word for it, and what it may do.
//!
//! ```
//! use verbatim_sql::{Dialect, Effect, statement};
//!
//! let label = statement("SELECT 1; WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone", Dialect::Postgres);
//! let label = label.unwrap();
//! assert_eq!((label.word(), label.effect()), ("delete", Effect::Write));
//! assert_eq!(statement("SELECT ) FROM", Dialect::Postgres), None);
//! ```
//!
//! A label is for people who read the record, and nothing that must be safe rests on it: the parser here is not the
//! server's, and a function that a `SELECT` calls can do anything. It touches no catalog and does no I/O.
//!
//! Limits, over which a text has no label: 1 MiB, 32 levels of brackets, 512 operators in one chain (so that neither
//! parsing nor dropping a tree can exhaust the stack).

mod chains;
mod label;

pub use label::{Dialect, Effect, Label, statement};
