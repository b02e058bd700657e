//! `[[connection]]`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use verbatim_core::{ConnectionName, IdentityKind, Principal, RecordMode};
use verbatim_wire::{Interceptor, Target, TargetSettings, TargetTls};

use super::reader::{Field, Table};
use super::secret;
use super::sections::{Place, addresses, path};
use super::sinks::SinkSettings;
use crate::Interceptors;

/// The longest that a login at a target may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A checked connection.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) name: ConnectionName,
    /// One of its interceptor's types.
    pub(crate) kind: &'static str,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) access: Vec<Principal>,
    pub(crate) kinds: Vec<IdentityKind>,
    pub(crate) record: RecordMode,
    /// The sinks that get its events; none: every sink.
    pub(crate) export: Option<Vec<String>>,
}

/// A connection as read, with the places of what is checked against other sections.
pub(super) struct Draft<'d, 't> {
    connection: Option<Connection>,
    pub(super) access: Vec<(Field<'d, 't>, Principal)>,
    export: Vec<Field<'d, 't>>,
    pub(super) listen: Vec<Place<'d, 't>>,
}

pub(super) fn read<'d, 't>(
    root: &Table<'d, 't>,
    folder: &Path,
    interceptors: &Interceptors,
) -> Vec<Draft<'d, 't>> {
    let mut names = HashSet::new();
    let tables = root.tables("connection");
    if tables.is_empty() {
        root.mistake("there is no [[connection]], so there is nothing to connect to");
    }
    tables.iter().map(|table| one(table, folder, &mut names, interceptors)).collect()
}

fn one<'d, 't>(
    table: &Table<'d, 't>,
    folder: &Path,
    names: &mut HashSet<ConnectionName>,
    interceptors: &Interceptors,
) -> Draft<'d, 't> {
    let name = table.require("name", "\"customer-db\"").and_then(|field| {
        let name = field.parse::<ConnectionName>()?;
        if !names.insert(name.clone()) {
            field.mistake(format!("there is another connection named \"{name}\""));
        }
        Some(name)
    });
    let kind = table.require("type", "\"postgres\"").and_then(|field| kind(&field, interceptors));
    let target = target(table, folder, kind);
    let access = access(table);
    let kinds = kinds(table);
    let modes =
        [("full", RecordMode::Full), ("commands", RecordMode::Commands), ("results", RecordMode::Results)];
    let record = table.get("record").and_then(|field| field.word(&modes)).unwrap_or_default();
    // Without rules and masks nothing has to understand a text, so the setting has nothing to decide yet.
    table.get("unparsed").and_then(|field| field.word(&[("refuse", ()), ("approve", ()), ("allow", ())]));
    let export = table.get("export");
    let listen = table.get("listen").map(|field| addresses(&field)).unwrap_or_default();
    table.not_yet(&["masking", "rule", "mask", "request", "explain"]);
    if let Some((kind, interceptor)) = kind {
        others(table, kind, &**interceptor, interceptors);
    }
    table.finish();
    let connection = match (name, kind, target) {
        (Some(name), Some((kind, _)), Some(target)) => Some(Connection {
            name,
            kind,
            target,
            listen: listen.iter().map(|(_, address)| *address).collect(),
            access: access.iter().map(|(_, principal)| principal.clone()).collect(),
            kinds,
            record,
            export: export.as_ref().map(|field| field.strings()),
        }),
        _ => None,
    };
    let export = export.map(|field| field.items(false)).unwrap_or_default();
    Draft { connection, access, export, listen }
}

type Kind<'i> = (&'static str, &'i Arc<dyn Interceptor>);

fn kind<'i>(field: &Field<'_, '_>, interceptors: &'i Interceptors) -> Option<Kind<'i>> {
    let types: Vec<_> = interceptors.iter().flat_map(|interceptor| interceptor.types()).collect();
    let words: Vec<_> = types.iter().map(|known| (**known, **known)).collect();
    interceptors.of_type(field.word(&words)?)
}

/// Keys that only another protocol knows.
fn others(table: &Table<'_, '_>, kind: &str, own: &dyn Interceptor, interceptors: &Interceptors) {
    for interceptor in interceptors.iter() {
        for key in interceptor.options() {
            if !own.options().contains(key)
                && let Some(field) = table.get(key)
            {
                let types = interceptor.types().join(" and ");
                field.mistake(format!(
                    "`{key}` is for connections of type {types}, and this one is of type {kind}"
                ));
            }
        }
    }
}

/// The protocol's own keys, where they stand.
struct OwnKeys<'a, 'd, 't>(&'a Table<'d, 't>);

impl verbatim_wire::Options for OwnKeys<'_, '_, '_> {
    fn word(&self, key: &'static str, known: &[&'static str]) -> Option<&'static str> {
        let words: Vec<_> = known.iter().map(|word| (*word, *word)).collect();
        self.0.get(key)?.word(&words)
    }

    fn text(&self, key: &'static str) -> Option<String> {
        self.0.get(key)?.string().map(str::to_owned)
    }

    fn list(&self, key: &'static str) -> Option<Vec<String>> {
        Some(self.0.get(key)?.strings())
    }

    fn mistake(&self, key: &'static str, message: String) {
        match self.0.get(key) {
            Some(field) => field.mistake(message),
            None => self.0.mistake(message),
        }
    }
}

fn target(table: &Table<'_, '_>, folder: &Path, kind: Option<Kind<'_>>) -> Option<Arc<dyn Target>> {
    let example = kind.map_or("postgres://user@db.internal:5432/database", |(_, own)| own.example());
    let field = table.require("target", &format!("\"{example}\""));
    let credential = table.get("credential").map(|field| secret::read(&field, folder));
    let tls = match table.table("target_tls") {
        None => TargetTls::default(),
        Some(table) => target_tls(&table, folder)?,
    };
    let ((kind, interceptor), field) = kind.zip(field)?;
    let settings = TargetSettings {
        kind,
        url: field.string()?,
        // One that could not be read is a mistake already; the target is still checked.
        credential: credential.flatten(),
        tls,
        connect_timeout: CONNECT_TIMEOUT,
        options: &OwnKeys(table),
    };
    match interceptor.target(settings) {
        Ok(target) => Some(target),
        Err(error) => {
            field.mistake(error.to_string());
            None
        }
    }
}

fn target_tls(table: &Table<'_, '_>, folder: &Path) -> Option<TargetTls> {
    let file = |key: &'static str| table.get(key).and_then(|field| path(&field, folder));
    let (ca, certificate, private_key) = (file("ca"), file("certificate"), file("private_key"));
    table.finish();
    match TargetTls::load(ca.as_deref(), certificate.as_deref(), private_key.as_deref()) {
        Ok(tls) => Some(tls),
        Err(error) => {
            table.mistake(error.to_string());
            None
        }
    }
}

fn access<'d, 't>(table: &Table<'d, 't>) -> Vec<(Field<'d, 't>, Principal)> {
    let Some(field) = table.get("access") else { return Vec::new() };
    let parse = |item: Field<'d, 't>| {
        let principal = item.parse::<Principal>()?;
        Some((item, principal))
    };
    field.items(false).into_iter().filter_map(parse).collect()
}

fn kinds(table: &Table<'_, '_>) -> Vec<IdentityKind> {
    let all =
        [("user", IdentityKind::User), ("workload", IdentityKind::Workload), ("agent", IdentityKind::Agent)];
    match table.get("kinds") {
        None => all.iter().map(|(_, kind)| *kind).collect(),
        Some(field) => field.items(false).iter().filter_map(|item| item.word(&all)).collect(),
    }
}

/// Checks what the connections say of sinks, and hands the connections over.
pub(super) fn finish(
    drafts: Vec<Draft<'_, '_>>,
    sink_names: &[String],
    sinks: &[(SinkSettings, Vec<Field<'_, '_>>)],
) -> Vec<Connection> {
    for item in drafts.iter().flat_map(|draft| &draft.export) {
        if let Some(name) = item.string()
            && !sink_names.iter().any(|known| known == name)
        {
            item.mistake(format!("there is no [sink.{name}]"));
        }
    }
    let connections: Vec<Connection> = drafts.into_iter().filter_map(|draft| draft.connection).collect();
    for item in sinks.iter().flat_map(|(_, items)| items) {
        if let Some(name) = item.string()
            && !connections.iter().any(|connection| connection.name.as_str() == name)
        {
            item.mistake(format!("there is no [[connection]] with name = \"{name}\""));
        }
    }
    connections
}
