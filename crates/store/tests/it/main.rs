#![cfg(test)]
//! What people see of the record.
//!
//! - `record`: writes ledgers for the others, through the ledger's own API.
//! - `documents`: what a session, a list, a search and a tail look like; checked against the published schemas.
//! - `search`: what is found, and what is not.
//! - `filters`: each filter, and their order.
//! - `derived`: the index is rebuilt whenever it does not fit the ledger, and works where none can be written.
//!
//! A test of a document's form goes to `documents`, of a question's answer to `search` or `filters`.

mod derived;
mod documents;
mod filters;
mod record;
mod search;
