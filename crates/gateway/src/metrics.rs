//! `/metrics`: OpenMetrics text, made of counters where they are kept, at the moment they are asked for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::gateway::Gateway;

/// Names, so that each stands once.
mod name {
    pub(super) const SESSIONS_OPEN: &str = "verbatim_sessions_open";
    pub(super) const SESSIONS_OPENED: &str = "verbatim_sessions_opened";
    pub(super) const LOGINS_REFUSED: &str = "verbatim_logins_refused";
    pub(super) const LOGINS_FLOODED: &str = "verbatim_logins_flooded";
    pub(super) const JUNK: &str = "verbatim_streams_junk";
    pub(super) const OPERATIONS: &str = "verbatim_operations";
    pub(super) const ADDED_LATENCY: &str = "verbatim_added_latency_seconds";
    pub(super) const LEDGER_ENTRIES: &str = "verbatim_ledger_entries";
    pub(super) const LEDGER_COMMITS: &str = "verbatim_ledger_commits";
    pub(super) const LEDGER_BYTES: &str = "verbatim_ledger_bytes";
    pub(super) const LEDGER_SYNC: &str = "verbatim_ledger_sync_seconds";
    pub(super) const LEDGER_ADMITS: &str = "verbatim_ledger_takes_operations";
    pub(super) const INDEX_LAG: &str = "verbatim_index_lag_entries";
    pub(super) const SINK_LAG: &str = "verbatim_sink_lag_entries";
    pub(super) const SINK_LAG_SECONDS: &str = "verbatim_sink_lag_seconds";
    pub(super) const SINK_DEAD: &str = "verbatim_sink_dead_letters";
}

/// What the interceptors report.
#[derive(Debug)]
pub(crate) struct Streams {
    junk: AtomicU64,
    added: Histogram,
}

impl Default for Streams {
    fn default() -> Self {
        let bounds =
            [25e-6, 50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3, 0.05, 0.2, 1.0];
        Self { junk: AtomicU64::new(0), added: Histogram::new(bounds) }
    }
}

impl verbatim_wire::Metrics for Streams {
    fn junk(&self) {
        self.junk.fetch_add(1, Relaxed);
    }

    fn added_latency(&self, added: Duration) {
        self.added.observe(added.as_secs_f64());
    }
}

/// Everything as text.
pub(crate) fn encode(gateway: &Gateway) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(gateway.measures())));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// A moment's figures.
#[derive(Debug)]
pub(crate) struct Measures {
    pub(crate) sessions_open: u64,
    pub(crate) sessions_opened: u64,
    pub(crate) logins_refused: u64,
    pub(crate) logins_flooded: u64,
    pub(crate) operations: [(&'static str, u64); 5],
    pub(crate) ledger: verbatim_ledger::Stats,
    pub(crate) takes_operations: bool,
    pub(crate) index_lag: u64,
    pub(crate) sinks: Vec<SinkMeasures>,
    pub(crate) streams: std::sync::Arc<Streams>,
}

/// One sink's.
#[derive(Debug)]
pub(crate) struct SinkMeasures {
    pub(crate) name: String,
    pub(crate) lag: u64,
    pub(crate) lag_seconds: f64,
    pub(crate) dead_letters: u64,
}

#[derive(Debug)]
struct Snapshot(Measures);

impl Snapshot {
    fn sinks(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut lag = encoder.encode_descriptor(
            name::SINK_LAG,
            "Entries not delivered yet",
            None,
            MetricType::Gauge,
        )?;
        for sink in &self.0.sinks {
            ConstGauge::new(sink.lag).encode(lag.encode_family(&[("sink", &*sink.name)])?)?;
        }
        let mut seconds = encoder.encode_descriptor(
            name::SINK_LAG_SECONDS,
            "Age of the oldest of them",
            None,
            MetricType::Gauge,
        )?;
        for sink in &self.0.sinks {
            ConstGauge::new(sink.lag_seconds).encode(seconds.encode_family(&[("sink", &*sink.name)])?)?;
        }
        let help = "Events that a sink refused for good";
        let mut dead = encoder.encode_descriptor(name::SINK_DEAD, help, None, MetricType::Counter)?;
        for sink in &self.0.sinks {
            ConstCounter::new(sink.dead_letters).encode(dead.encode_family(&[("sink", &*sink.name)])?)?;
        }
        Ok(())
    }

    /// The time of a sync, as a histogram of the ledger's own counts.
    fn syncs(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = &self.0.ledger;
        let bounds = verbatim_ledger::settings::SYNC_BOUNDS.iter().map(Duration::as_secs_f64);
        let buckets: Vec<(f64, u64)> =
            bounds.chain([f64::MAX]).zip(stats.sync_counts.iter().copied()).collect();
        let count = stats.sync_counts.iter().sum();
        let mut syncs = encoder.encode_descriptor(
            name::LEDGER_SYNC,
            "How long syncs took",
            None,
            MetricType::Histogram,
        )?;
        syncs.encode_histogram::<NoLabelSet>(stats.sync_total.as_secs_f64(), count, &buckets, None)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let of = &self.0;
        let gauges = [
            (name::SESSIONS_OPEN, "Open sessions", of.sessions_open),
            (name::LEDGER_ADMITS, "1 while operations can be recorded", u64::from(of.takes_operations)),
            (name::INDEX_LAG, "Entries that are not in the session index yet", of.index_lag),
        ];
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        let counters = [
            (name::SESSIONS_OPENED, "Sessions that were let in", of.sessions_opened),
            (name::LOGINS_REFUSED, "Logins that were refused", of.logins_refused),
            (name::LOGINS_FLOODED, "Refused logins that were counted instead of recorded", of.logins_flooded),
            (name::JUNK, "Streams that claimed nothing", of.streams.junk.load(Relaxed)),
            (name::LEDGER_ENTRIES, "Entries appended", of.ledger.entries),
            (name::LEDGER_COMMITS, "Signed commits", of.ledger.batches),
            (name::LEDGER_BYTES, "Bytes written", of.ledger.bytes),
        ];
        for (name, help, value) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let mut operations = encoder.encode_descriptor(
            name::OPERATIONS,
            "Operations by outcome",
            None,
            MetricType::Counter,
        )?;
        for (outcome, count) in of.operations {
            ConstCounter::new(count).encode(operations.encode_family(&[("outcome", outcome)])?)?;
        }
        let help = "From an operation's arrival to its being forwarded";
        let added = encoder.encode_descriptor(name::ADDED_LATENCY, help, None, MetricType::Histogram)?;
        of.streams.added.encode(added)?;
        self.syncs(&mut encoder)?;
        self.sinks(&mut encoder)
    }
}
