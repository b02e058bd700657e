//! The configured sinks, and the delivery loop of each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use verbatim_core::Timestamp;
use verbatim_ledger::{HeartbeatFacts, Ledger};
use verbatim_sinks::cursor::Files;
use verbatim_sinks::{
    FileSettings, FileSink, Filter, Settings, Sink, SplunkSettings, SplunkSink, Status, StreamSink,
};

use crate::config::{Config, SinkSettings, SinkType};

/// How long Splunk gets to say that events are indexed, before they are sent again (what Splunk advises).
const SPLUNK_ACK: Duration = Duration::from_secs(300);

/// What `sinks status --json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct StatusDocument {
    pub(crate) sinks: Vec<Status>,
}

/// Every sink's delivery.
pub(crate) struct Delivery {
    sinks: Vec<(String, verbatim_sinks::Delivery)>,
}

impl Delivery {
    /// Starts them, on the current tokio runtime.
    pub(crate) fn start(config: &Config, ledger: &Ledger) -> Result<Self> {
        let start = |settings: &SinkSettings| {
            let delivery = Settings {
                name: settings.name.clone(),
                data_dir: config.gateway.data_dir.clone(),
                ledger_dir: ledger.dir().to_owned(),
                limits: settings.batch,
                filter: filter(settings, config),
                payload: settings.payload,
            };
            let sink = sink(settings, &config.gateway.node)?;
            let started = verbatim_sinks::Delivery::start(delivery, sink, ledger.committed())
                .with_context(|| format!("[sink.{}]", settings.name))?;
            Ok((settings.name.clone(), started))
        };
        Ok(Self { sinks: config.sinks.iter().map(start).collect::<Result<_>>()? })
    }

    pub(crate) fn status(&self) -> StatusDocument {
        StatusDocument { sinks: self.sinks.iter().map(|(_, sink)| sink.status()).collect() }
    }

    /// What each heartbeat states.
    pub(crate) fn facts(&self) -> HeartbeatFacts {
        let delivered =
            |(name, sink): &(String, verbatim_sinks::Delivery)| (name.clone(), sink.status().delivered);
        HeartbeatFacts { sinks: self.sinks.iter().map(delivered).collect() }
    }

    /// Delivers again from a time, or from the beginning; returns the entry it begins at. It blocks.
    pub(crate) fn replay(&self, name: &str, from: Option<Timestamp>) -> Result<u64> {
        let (_, sink) = self
            .sinks
            .iter()
            .find(|(known, _)| known == name)
            .with_context(|| format!("there is no sink named {name}"))?;
        let entry = from.map_or(Ok(0), |from| sink.entry_at(from))?;
        tokio::runtime::Handle::current().block_on(sink.replay(entry))?;
        Ok(entry)
    }

    /// Delivers what is committed, as far as `deadline` allows.
    pub(crate) async fn stop(self, deadline: Duration) {
        futures_util::future::join_all(self.sinks.into_iter().map(|(_, sink)| sink.stop(deadline))).await;
    }
}

/// Which entries a sink gets: what the sink says and what each connection's `export` says must both agree.
fn filter(settings: &SinkSettings, config: &Config) -> Filter {
    let wanted =
        |name: &str| settings.connections.as_ref().is_none_or(|names| names.iter().any(|n| n == name));
    let exported =
        |export: &Option<Vec<String>>| export.as_ref().is_none_or(|sinks| sinks.contains(&settings.name));
    let passing: BTreeSet<String> = config
        .connections
        .iter()
        .filter(|connection| wanted(connection.name.as_str()) && exported(&connection.export))
        .map(|connection| connection.name.to_string())
        .collect();
    let all = settings.connections.is_none() && passing.len() == config.connections.len();
    Filter {
        connections: (!all).then_some(passing),
        kinds: settings.kinds.as_ref().map(|kinds| kinds.iter().cloned().collect()),
    }
}

/// The one place that knows every type of sink.
pub(crate) fn sink(settings: &SinkSettings, node: &str) -> Result<Arc<dyn Sink>> {
    let of = || format!("[sink.{}]", settings.name);
    Ok(match &settings.kind {
        SinkType::Stdout => Arc::new(StreamSink::stdout()),
        SinkType::File { path, rotate, keep } => {
            let file = FileSettings { path: path.clone(), rotate: *rotate, keep: *keep };
            Arc::new(FileSink::new(file))
        }
        SinkType::Splunk { url, token, index, sourcetype, ack } => {
            let ca = settings.ca.as_ref().map(std::fs::read).transpose().with_context(of)?;
            let tls = verbatim_sinks::client::tls(ca.as_deref()).with_context(of)?;
            let client = verbatim_sinks::client::http(tls).with_context(of)?;
            let splunk = SplunkSettings {
                url: url.parse().with_context(of)?,
                token: token.clone(),
                index: index.clone(),
                sourcetype: sourcetype.clone(),
                host: node.to_owned(),
                ack: *ack,
                ack_timeout: SPLUNK_ACK,
                limits: settings.batch,
            };
            Arc::new(SplunkSink::new(splunk, client).with_context(of)?)
        }
    })
}

/// The status of a stopped gateway's sinks.
pub(crate) fn status_from_files(config: &Config) -> Result<StatusDocument> {
    let data_dir = &config.gateway.data_dir;
    let size = config.record().index().map_or(0, |index| index.indexed());
    let status = |sink: &SinkSettings| {
        let kind = match sink.kind {
            SinkType::File { .. } => "file",
            SinkType::Stdout => "stdout",
            SinkType::Splunk { .. } => "splunk",
        };
        Ok(Status::of_files(data_dir, &sink.name, kind, size)?)
    };
    Ok(StatusDocument { sinks: config.sinks.iter().map(status).collect::<Result<_>>()? })
}

/// Moves a stopped gateway's cursor back; the next start delivers from there.
pub(crate) fn replay_from_files(config: &Config, name: &str, from: Option<Timestamp>) -> Result<u64> {
    let data_dir = &config.gateway.data_dir;
    if !config.sinks.iter().any(|sink| sink.name == name) {
        anyhow::bail!("there is no sink named {name}");
    }
    let entry = match from {
        None => 0,
        Some(from) => {
            let size = config.record().index()?.indexed();
            verbatim_sinks::entry_at(&data_dir.join("ledger"), from, size)?
        }
    };
    Files::new(data_dir, name).replay(entry)?;
    Ok(entry)
}
