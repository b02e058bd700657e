//! `[sink.NAME]`.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::reader::{Field, Table};
use super::secret;
use super::sections::{path, url};

/// A checked sink.
#[derive(Clone)]
pub(crate) struct SinkSettings {
    pub(crate) name: String,
    pub(crate) kind: SinkType,
    pub(crate) payload: verbatim_sinks::Payload,
    /// The connections whose events it takes; none: all.
    pub(crate) connections: Option<Vec<String>>,
    /// The kinds of events that it takes; none: all.
    pub(crate) kinds: Option<Vec<String>>,
    pub(crate) batch: verbatim_sinks::Limits,
    pub(crate) ca: Option<PathBuf>,
}

/// What only one type of sink has.
#[derive(Clone)]
pub(crate) enum SinkType {
    File { path: PathBuf, rotate: u64, keep: Option<usize> },
    Stdout,
    Splunk { url: String, token: SecretString, index: Option<String>, sourcetype: String, ack: bool },
}

const KNOWN: [(&str, bool); 12] = [
    ("file", true),
    ("stdout", true),
    ("splunk", true),
    ("syslog", false),
    ("elasticsearch", false),
    ("otlp", false),
    ("sentinel", false),
    ("datadog", false),
    ("s3", false),
    ("kafka", false),
    ("nats", false),
    ("webhook", false),
];

/// The names of all sinks, those with mistakes too.
pub(super) fn names(root: &Table<'_, '_>) -> Vec<String> {
    root.table("sink").map(|table| table.each().map(|(name, _)| name).collect()).unwrap_or_default()
}

/// Each sink with the places of the connections it names.
pub(super) fn read<'d, 't>(root: &Table<'d, 't>, folder: &Path) -> Vec<(SinkSettings, Vec<Field<'d, 't>>)> {
    let Some(table) = root.table("sink") else { return Vec::new() };
    let legal = |name: &str| {
        !name.is_empty()
            && name.len() <= 63
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    let mut sinks = Vec::new();
    for (name, field) in table.each() {
        if !legal(&name) || name.starts_with('.') {
            field.mistake("a sink's name is 1 to 63 letters, digits, '-', '_', '.', and begins with no dot");
        }
        sinks.extend(field.table().and_then(|table| one(name, &table, folder)));
    }
    sinks
}

fn one<'d, 't>(
    name: String,
    table: &Table<'d, 't>,
    folder: &Path,
) -> Option<(SinkSettings, Vec<Field<'d, 't>>)> {
    let kind = table.require("type", "\"file\"").and_then(|field| {
        let supported = field.word(&KNOWN)?;
        if !supported {
            field.mistake(
                "sinks of this type are not part of this version yet; \"file\", \"stdout\", \"splunk\" are",
            );
        }
        field.string().filter(|_| supported)
    })?;
    let kind = match kind {
        "file" => file(table, folder),
        "splunk" => splunk(table, folder),
        _ => Some(SinkType::Stdout),
    };
    if let Some(field) = table.get("encoding")
        && let Some(false) = field.word(&[("native", true), ("ocsf", false), ("ecs", false), ("cef", false)])
    {
        field.mistake("this encoding is not part of this version yet; \"native\" is");
    }
    let payloads = [
        ("full", verbatim_sinks::Payload::Full),
        ("summary", verbatim_sinks::Payload::Summary),
        ("digest", verbatim_sinks::Payload::Digest),
    ];
    let payload = table.get("payload").and_then(|field| field.word(&payloads));
    let connections = table.get("connections");
    let sink = SinkSettings {
        name,
        payload: payload.unwrap_or(verbatim_sinks::Payload::Full),
        connections: connections.as_ref().map(|field| field.strings()),
        kinds: table.get("kinds").map(|field| field.strings()),
        batch: batch(table),
        ca: table.get("ca").and_then(|field| path(&field, folder)),
        kind: kind.clone().unwrap_or(SinkType::Stdout),
    };
    table.finish();
    kind.map(|_| (sink, connections.map(|field| field.items(false)).unwrap_or_default()))
}

fn batch(table: &Table<'_, '_>) -> verbatim_sinks::Limits {
    let mut batch = verbatim_sinks::Limits::default();
    let Some(table) = table.table("batch") else { return batch };
    if let Some(field) = table.get("events")
        && let Some(count) = field.count()
    {
        batch.events = usize::try_from(count).unwrap_or(usize::MAX);
        if !(1..=100_000).contains(&count) {
            field.mistake("expected 1 to 100000");
        }
    }
    if let Some(field) = table.get("bytes")
        && let Some(size) = field.size()
    {
        batch.bytes = usize::try_from(size).unwrap_or(usize::MAX);
        if !(1 << 10..=64 << 20).contains(&size) {
            field.mistake("expected 1KiB to 64MiB");
        }
    }
    batch.wait = table.get("wait").and_then(|field| field.duration()).unwrap_or(batch.wait);
    table.finish();
    batch
}

fn file(table: &Table<'_, '_>, folder: &Path) -> Option<SinkType> {
    let place =
        table.require("path", "\"/var/log/verbatim/events.jsonl\"").and_then(|field| path(&field, folder));
    let rotate = table.get("rotate").and_then(|field| field.size()).unwrap_or(100 << 20);
    let keep =
        table.get("keep").and_then(|field| field.count()).and_then(|count| usize::try_from(count).ok());
    Some(SinkType::File { path: place?, rotate, keep })
}

fn splunk(table: &Table<'_, '_>, folder: &Path) -> Option<SinkType> {
    let text = |key| table.get(key).and_then(|field| field.string().map(str::to_owned));
    let url = table.require("url", "\"https://splunk.example.com:8088\"").and_then(|field| url(&field));
    let token = table.require("token", "{ env = \"SPLUNK_TOKEN\" }");
    let token = token.and_then(|field| secret::read(&field, folder));
    let index = text("index");
    let sourcetype = text("sourcetype").unwrap_or_else(|| "verbatim".to_owned());
    let ack = table.get("ack").and_then(|field| field.boolean()).unwrap_or(true);
    Some(SinkType::Splunk { url: url?, token: token?, index, sourcetype, ack })
}
