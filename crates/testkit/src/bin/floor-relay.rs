//! The benchmark's floor as a program: see `verbatim_testkit::relay`.
//!
//! It prints the address that it listens on, and relays until it is ended.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use verbatim_testkit::relay::{Mode, Relay};

/// Relays streams without understanding them.
#[derive(Parser)]
#[command(name = "floor-relay")]
struct Arguments {
    /// What it does beside relaying.
    #[arg(value_enum)]
    mode: Wanted,
    /// Where streams go.
    #[arg(long)]
    target: SocketAddr,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The file that `record` and `durable` append to.
    #[arg(long, required_if_eq_any = [("mode", "record"), ("mode", "durable")])]
    record: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Wanted {
    /// Nothing.
    Pass,
    /// Appends both directions to a file, without a sync.
    Record,
    /// Forwards a client's bytes only once they are synced.
    Durable,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mode = match arguments.mode {
        Wanted::Pass => Mode::Pass,
        Wanted::Record => Mode::Record,
        Wanted::Durable => Mode::Durable,
    };
    let relay = Relay::bind(arguments.listen, arguments.target, mode, arguments.record.as_deref())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", relay.address()?)?;
    out.flush()?;
    drop(out);
    match relay.run()? {}
}
