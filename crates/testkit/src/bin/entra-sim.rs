//! The Entra simulator as a program, for scripts and for the quickstart. Test-only: its signing keys are public.
//!
//! It prints one line of JSON, `{"authority", "graph", "tenant", "audience", "ca"}`, and serves until it is ended. See
//! `verbatim_testkit::idp` for what it answers.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;
use verbatim_testkit::idp::{Declared, Idp, Options};

/// Answers like Microsoft Entra and Graph, for tests.
#[derive(Parser)]
#[command(name = "entra-sim")]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Who is there: a JSON file in the shape of the default state.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Serve https, under an authority made for this run.
    #[arg(long, requires = "ca_out")]
    https: bool,
    /// Where to write that authority's certificate (PEM).
    #[arg(long)]
    ca_out: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let declared = match &arguments.state {
        None => Declared::default_state()?,
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
            Declared::parse(&text)?
        }
    };
    let tenant = declared.tenants.first().map(|tenant| tenant.id.clone());
    let audience = declared.audience.clone();
    let options = Options { listen: arguments.listen, https: arguments.https, state: Some(declared) };
    let idp = Idp::start(options).await?;
    if let (Some(path), Some(pem)) = (&arguments.ca_out, idp.ca_pem()) {
        std::fs::write(path, pem).with_context(|| format!("{}", path.display()))?;
    }
    let line = json!({
        "authority": idp.authority(), "graph": idp.graph(), "tenant": tenant, "audience": audience,
        "ca": arguments.ca_out.filter(|_| arguments.https),
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    drop(out);
    idp.run().await;
    Ok(())
}
