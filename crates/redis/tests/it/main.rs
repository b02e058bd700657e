//! The interceptor as a client and a target see it, on sockets.
//!
//! - `support`: a gateway before a scripted target or a real server, raw clients.
//! - `login`: from accept to the first command; renewal, RESET.
//! - `commands`: what becomes an operation, and what comes of it.
//! - `streams`: subscriptions, MONITOR, tracking, `CLIENT REPLY`.
//! - `large`: what is not held.
//! - `refused`: refusals in the protocol's own words, and the stream in step afterwards.
//! - `hostile`: bytes that no client and no target should send.
//! - `ending`: the ends of sessions.
//! - `real`: a real server, and its MONITOR against the record.
//!
//! A new test goes where its first command belongs.

#![cfg(test)]

mod commands;
mod ending;
mod hostile;
mod large;
mod login;
mod real;
mod refused;
mod streams;
mod support;
