//! `[gateway]`, `[limits]`, `[ledger]`, `[listen]`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use verbatim_ledger::SyncMode;

use super::reader::{Field, Table};
use crate::Interceptors;

/// `[gateway]`.
pub(crate) struct Gateway {
    pub(crate) node: String,
    pub(crate) organisation: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) drain: Duration,
    pub(crate) log: LogFormat,
    pub(crate) telemetry: Option<String>,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) private_key: PathBuf,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Human,
    Json,
}

pub(super) fn gateway(root: &Table<'_, '_>, folder: &Path) -> Option<Gateway> {
    let field = root.require("gateway", "{ node = \"gw-1\", data_dir = \"/var/lib/verbatim\" }")?;
    let table = field.table()?;
    let node = table.require("node", "\"gw-1\"").and_then(|field| label(&field));
    let data_dir = table.require("data_dir", "\"/var/lib/verbatim\"").and_then(|field| path(&field, folder));
    let gateway = Gateway {
        node: node.unwrap_or_default(),
        organisation: table
            .get("organisation")
            .and_then(|field| label(&field))
            .unwrap_or_else(|| "localhost".to_owned()),
        data_dir: data_dir.clone().unwrap_or_default(),
        tls: table.table("tls").and_then(|table| tls_files(&table, folder)),
        drain: duration(&table, "drain", 30),
        log: table
            .get("log")
            .and_then(|field| field.word(&[("human", LogFormat::Human), ("json", LogFormat::Json)]))
            .unwrap_or(LogFormat::Human),
        telemetry: table.get("telemetry").and_then(|field| url(&field)),
    };
    table.finish();
    data_dir.map(|_| gateway)
}

/// A part of the ledger's origin: a host name or a like word.
fn label(field: &Field<'_, '_>) -> Option<String> {
    let text = field.string()?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > 200 || !text.bytes().all(legal) {
        field.mistake(
            "expected a name of letters, digits, '.', '-', '_', such as \"gw-1\" or \"example.com\"",
        );
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn path(field: &Field<'_, '_>, folder: &Path) -> Option<PathBuf> {
    let text = field.string()?;
    if text.is_empty() {
        field.mistake("expected a path");
        return None;
    }
    Some(folder.join(text))
}

/// An `http` or `https` URL.
pub(super) fn url(field: &Field<'_, '_>) -> Option<String> {
    let text = field.string()?;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    if host.is_empty() || host.starts_with(['/', ':']) || text.contains(char::is_whitespace) {
        field.mistake("expected a URL that begins with https:// or http://");
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

pub(super) fn duration(table: &Table<'_, '_>, key: &'static str, default_seconds: u64) -> Duration {
    table.get(key).and_then(|field| field.duration()).unwrap_or(Duration::from_secs(default_seconds))
}

fn tls_files(table: &Table<'_, '_>, folder: &Path) -> Option<TlsFiles> {
    let certificate = table.require("certificate", "\"/etc/verbatim/tls.crt\"");
    let private_key = table.require("private_key", "\"/etc/verbatim/tls.key\"");
    table.finish();
    let files = TlsFiles {
        certificate: certificate.as_ref().and_then(|field| path(field, folder))?,
        private_key: private_key.as_ref().and_then(|field| path(field, folder))?,
    };
    // Read here for the sake of the mistake's place; the listeners read them again.
    if let Err(error) = crate::tls::server_config(&files) {
        table.mistake(format!("{error:#}"));
    }
    Some(files)
}

/// `[limits]`.
pub(crate) struct Limits {
    pub(crate) message: u64,
    pub(crate) token: usize,
    pub(crate) login: Duration,
    pub(crate) idle: Option<Duration>,
    pub(crate) sessions: usize,
}

pub(super) fn limits(root: &Table<'_, '_>) -> Limits {
    let mut limits = Limits {
        message: 1 << 30,
        token: 65_535,
        login: Duration::from_secs(30),
        idle: None,
        sessions: 10_000,
    };
    let Some(table) = root.table("limits") else { return limits };
    if let Some(field) = table.get("message")
        && let Some(size) = field.size()
    {
        limits.message = size;
        if !(1 << 10..=1 << 30).contains(&size) {
            field.mistake("expected 1KiB to 1GiB (the length that a PostgreSQL server takes)");
        }
    }
    if let Some(field) = table.get("token")
        && let Some(size) = field.size()
    {
        limits.token = usize::try_from(size).unwrap_or(usize::MAX);
        if !(256..=65_535).contains(&size) {
            field.mistake("expected 256B to 65535B (the longest password that PostgreSQL's protocol takes)");
        }
    }
    limits.login = duration(&table, "login", 30);
    limits.idle = Some(duration(&table, "idle", 0)).filter(|idle| !idle.is_zero());
    if let Some(count) = table.get("sessions").and_then(|field| field.count()) {
        limits.sessions = usize::try_from(count).unwrap_or(usize::MAX);
    }
    table.finish();
    limits
}

pub(super) fn ledger(root: &Table<'_, '_>, folder: &Path, gateway: &Gateway) -> verbatim_ledger::Settings {
    let mut settings = verbatim_ledger::Settings {
        data_dir: gateway.data_dir.clone(),
        organisation: gateway.organisation.clone(),
        node: gateway.node.clone(),
        sync: SyncMode::Always,
        segment_bytes: 64 << 20,
        reserve_bytes: 128 << 20,
        heartbeat: Duration::from_secs(10),
        last_checkpoint: None,
    };
    let Some(table) = root.table("ledger") else { return settings };
    if let Some(field) = table.get("sync")
        && let Some(text) = field.string()
        && text != "always"
    {
        match super::reader::parse_duration(text) {
            Some(within) if !within.is_zero() => settings.sync = SyncMode::Within(within),
            _ => field.mistake("expected \"always\" or a duration such as \"50ms\""),
        }
    }
    if let Some(field) = table.get("segment")
        && let Some(size) = field.size()
    {
        settings.segment_bytes = size;
        if !(1 << 20..=4 << 30).contains(&size) {
            field.mistake("expected 1MiB to 4GiB");
        }
    }
    if let Some(size) = table.get("reserve").and_then(|field| field.size()) {
        settings.reserve_bytes = size;
    }
    if let Some(field) = table.get("heartbeat")
        && let Some(interval) = field.duration()
    {
        settings.heartbeat = interval;
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&interval) {
            field.mistake("expected \"1s\" to \"60s\"");
        }
    }
    settings.last_checkpoint = table.get("last_checkpoint").and_then(|field| path(&field, folder));
    table.not_yet(&["witnesses", "max_unanchored", "retention", "encrypt", "archive", "replicate"]);
    table.finish();
    settings
}

/// `[listen]`.
#[derive(Default)]
pub(crate) struct Listen {
    /// Each interceptor's, by its name.
    pub(crate) protocols: Vec<(&'static str, Vec<SocketAddr>)>,
    pub(crate) admin: Vec<SocketAddr>,
}

/// An address and its place in the document.
pub(super) type Place<'d, 't> = (Field<'d, 't>, SocketAddr);

pub(super) fn addresses<'d, 't>(field: &Field<'d, 't>) -> Vec<Place<'d, 't>> {
    let parse = |item: Field<'d, 't>| {
        let text = item.string()?;
        let parsed = text.replace("localhost:", "127.0.0.1:").parse();
        if parsed.is_err() {
            item.mistake("expected an address and a port, such as \"127.0.0.1:5432\" or \"[::]:5432\"");
        }
        parsed.ok().map(|address| (item, address))
    };
    field.items(true).into_iter().filter_map(parse).collect()
}

pub(super) fn listen<'d, 't>(
    root: &Table<'d, 't>,
    interceptors: &Interceptors,
) -> (Listen, Vec<Place<'d, 't>>) {
    let Some(table) = root.table("listen") else { return (Listen::default(), Vec::new()) };
    let mut all = Vec::new();
    let mut read = |key| {
        let places = table.get(key).map(|field| addresses(&field)).unwrap_or_default();
        let only = places.iter().map(|(_, address)| *address).collect();
        all.extend(places);
        only
    };
    let protocols = interceptors.iter().map(|interceptor| (interceptor.name(), read(interceptor.name())));
    let protocols = protocols.collect();
    let admin = read("admin");
    table.finish();
    (Listen { protocols, admin }, all)
}

/// Without TLS every listener is on loopback; none is there twice, and one at least takes clients.
pub(super) fn check_listeners(
    root: &Table<'_, '_>,
    gateway: Option<&Gateway>,
    listen: &Listen,
    places: &[Place<'_, '_>],
) {
    if places.len() == listen.admin.len() && root.is_clean() {
        root.mistake("nothing listens; write for instance `postgres = \"127.0.0.1:5432\"` under [listen]");
    }
    let mut seen = std::collections::HashSet::new();
    let tls = gateway.is_none_or(|gateway| gateway.tls.is_some());
    for (field, address) in places {
        if !seen.insert(*address) {
            field.mistake(format!("{address} is listened on twice"));
        }
        if !tls && !is_loopback(address.ip()) {
            field.mistake(
                "it is not loopback, so it needs `tls = { certificate = \"…\", private_key = \"…\" }` under [gateway]",
            );
        }
    }
}

/// Whether an address can be reached from this machine alone.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// What `[identity]` says of open sessions.
pub(crate) struct Recheck {
    pub(crate) grace: Duration,
    pub(crate) every: Duration,
}
