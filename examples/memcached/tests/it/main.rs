#![cfg(test)]
//! The interceptor on the wire, without a stack and a ledger: a gate that logs everything in the order in which it happens.
//!
//! | module | holds |
//! | --- | --- |
//! | [`session`] | what is recorded, forwarded and answered, in which order |
//! | [`hostile`] | peers that do not keep to the protocol |
//! | [`real`] | a real memcached behind it |

mod support;

mod hostile;
mod real;
mod session;
