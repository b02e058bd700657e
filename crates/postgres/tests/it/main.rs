//! The interceptor as a client and a target see it, on sockets.
//!
//! - `support`: a gate that logs what is recorded and when it is durable, a scripted target, a raw client, messages.
//! - `login`, `tls`: from accept to the greeting.
//! - `simple`, `extended`, `copy`: what becomes an operation, and what comes of it.
//! - `refused`: refusals in the protocol's own words, and the stream in step afterwards.
//! - `ending`: cancel requests and the ends of sessions.
//! - `hostile`: bytes that no client and no target should send.
//! - `real`: a real server and a real driver.
//!
//! A new test goes where its first message belongs.

#![cfg(test)]

mod copy;
mod ending;
mod extended;
mod hostile;
mod login;
mod real;
mod refused;
mod simple;
mod support;
mod tls;
