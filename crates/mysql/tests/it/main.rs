//! The interceptor as a client and a target see it, on sockets.
//!
//! - `support`: a scripted target, a raw client, packets; the gate is the testkit's.
//! - `login`: from accept to the OK, TLS and the target's own login included.
//! - `text`, `prepared`, `file`: what becomes an operation, and what comes of it.
//! - `refused`: refusals in the protocol's own words, and the stream in step afterwards.
//! - `ending`: thread ids, logins in the middle of a session, and the ends of sessions.
//! - `hostile`: bytes that no client and no target should send.
//! - `real`: a real MariaDB, and the log of what it did.
//!
//! What only MySQL 8 and 9 do is tested against the scripted target, which greets as they do and takes no byte that
//! differs from what is expected.
//!
//! A new test goes where its first packet belongs.

#![cfg(test)]

mod ending;
mod file;
mod hostile;
mod login;
mod prepared;
mod real;
mod refused;
mod support;
mod text;
