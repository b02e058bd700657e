//! The command line, as the contract has it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use verbatim_core::Timestamp;

const EXAMPLES: &str = "\
Examples:
  verbatim init --config verbatim.toml       write a commented configuration to begin with
  verbatim check --connect                   is it right, and can everything be reached?
  verbatim serve                             run the gateway
  verbatim sessions list --since 7d          who was in
  verbatim sessions show 0199                one session, whole (the beginning of an id will do)
  verbatim verify                            try to find a gap in the record";

/// The gateway that answers what an AI agent actually did, with evidence.
#[derive(Debug, Parser)]
#[command(name = "verbatim", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// The configuration [default: verbatim.toml here, else /etc/verbatim/verbatim.toml]
    #[arg(long, global = true, env = "VERBATIM_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a commented starter configuration, never over a file that is there
    Init,
    /// Read the configuration and say every mistake: exit 0 or 2 (1 where --connect or --token finds a failure)
    #[command(
        after_help = "Examples:\n  verbatim check --config verbatim.toml\n  verbatim check --connect\n  verbatim check --token token.txt"
    )]
    Check {
        /// Also reach the identity provider, each target and each sink
        #[arg(long)]
        connect: bool,
        /// Say what the token in this file lacks
        #[arg(long, value_name = "FILE")]
        token: Option<PathBuf>,
    },
    /// Run the gateway: SIGTERM drains, SIGHUP reloads (so does a changed file); exit 3 if the ledger is damaged
    Serve,
    /// Look at sessions
    Sessions {
        #[command(subcommand)]
        command: Sessions,
    },
    /// Search the commands' texts
    #[command(
        after_help = "Examples:\n  verbatim search 'drop table'\n  verbatim search customer_id --connection customer-db --since 24h --json"
    )]
    Search {
        /// What to look for: any part of a command's text
        text: String,
        #[command(flatten)]
        filters: FilterArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Check a ledger with a public key alone: exit 0 intact, 1 findings, 2 could not tell
    #[command(
        after_help = "Examples:\n  verbatim verify\n  verbatim verify --ledger /mnt/copy/ledger --public-key node.vkey --checkpoint events.jsonl\n  verbatim verify proof.txt --public-key node.vkey"
    )]
    Verify(VerifyArgs),
    /// Prove a session, or one operation of it, to somebody who has the public key alone
    #[command(
        after_help = "Examples:\n  verbatim prove 0199 > session.proof\n  verbatim prove 0199 7 > operation.proof\n  verbatim verify operation.proof --public-key node.vkey"
    )]
    Prove {
        /// The session (the beginning of its id will do)
        id: String,
        /// One operation
        sequence: Option<u64>,
    },
    /// Look at sinks, and send them events again
    Sinks {
        #[command(subcommand)]
        command: Sinks,
    },
    /// Print a completion script for your shell
    #[command(after_help = "Example:\n  verbatim completion bash > /etc/bash_completion.d/verbatim")]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// List sessions, newest first, refused logins included
    #[command(
        after_help = "Examples:\n  verbatim sessions list --open\n  verbatim sessions list --group billing-agents --since 7d --json"
    )]
    List {
        #[command(flatten)]
        filters: FilterArgs,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show one session, whole: who, by which group, when, every operation and its outcome
    Show {
        /// The session (the beginning of its id will do)
        id: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Follow what happens, live
    Tail {
        /// Print one JSON document a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sinks {
    /// What each sink has got, and what keeps it
    Status {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Send events again (they are delivered at least once; each has its id)
    #[command(
        after_help = "Examples:\n  verbatim sinks replay siem\n  verbatim sinks replay siem --from 2026-11-23T00:00:00Z"
    )]
    Replay {
        /// The sink
        name: String,
        /// From when: RFC 3339, or `7d` for ago [default: the beginning]
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: Option<Timestamp>,
    },
}

/// Which sessions.
#[derive(Debug, Default, Args)]
pub(crate) struct FilterArgs {
    /// Of this connection
    #[arg(long, value_name = "NAME")]
    pub(crate) connection: Option<String>,
    /// Of this identity: an object id or a name
    #[arg(long, value_name = "ID")]
    pub(crate) identity: Option<String>,
    /// Let in by this group: its name or object id
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// With this trace id
    #[arg(long, value_name = "TRACE")]
    pub(crate) trace: Option<String>,
    /// Since then: RFC 3339, or `7d` for ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<Timestamp>,
    /// Until then: RFC 3339, or `7d` for ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<Timestamp>,
    /// Still open
    #[arg(long)]
    pub(crate) open: bool,
    /// Refused logins, and sessions with a refused operation
    #[arg(long)]
    pub(crate) refused: bool,
    /// With a masked result
    #[arg(long)]
    pub(crate) masked: bool,
    /// With an approved operation
    #[arg(long)]
    pub(crate) approved: bool,
    /// At most this many [default: 50 for people, no limit with --json]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Proofs to check in place of a ledger
    #[arg(value_name = "PROOF")]
    pub(crate) proofs: Vec<PathBuf>,
    /// A ledger's folder; may be repeated [default: the configuration's]
    #[arg(long, value_name = "DIR")]
    pub(crate) ledger: Vec<PathBuf>,
    /// The node's public key [default: keys/node.vkey beside the ledger]
    #[arg(long, value_name = "FILE")]
    pub(crate) public_key: Option<PathBuf>,
    /// Checkpoints from elsewhere: a signed note, or what a sink got; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Vec<PathBuf>,
    /// A file of public keys to trust
    #[arg(long, value_name = "FILE")]
    pub(crate) trust: Option<PathBuf>,
    /// The time to judge freshness by: RFC 3339 or `now`
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) now: Option<Timestamp>,
    /// A record that nothing outside the node vouches for is a finding
    #[arg(long)]
    pub(crate) require_anchor: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time: RFC 3339, `now`, or a duration ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(Timestamp::now());
    }
    if let Some(ago) = crate::config::reader::parse_duration(text) {
        return Ok(Timestamp::now().minus(ago));
    }
    Timestamp::parse(text).map_err(|_| {
        "expected a time such as 2026-11-23T20:41:00Z, or a duration ago such as 7d or 12h".to_owned()
    })
}
