//! `[[connection]]`.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use verbatim_core::{ConnectionName, IdentityKind, Principal, RecordMode};
use verbatim_postgres::target::{TargetSettings, TargetTls};
use verbatim_postgres::{LoginMethod, Target};

use super::reader::{Field, Table};
use super::secret;
use super::sections::{Place, addresses, path};
use super::sinks::SinkSettings;

/// The longest that a login at a target may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A checked connection.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) name: ConnectionName,
    pub(crate) target: Arc<Target>,
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

pub(super) fn read<'d, 't>(root: &Table<'d, 't>, folder: &Path) -> Vec<Draft<'d, 't>> {
    let mut names = HashSet::new();
    let tables = root.tables("connection");
    if tables.is_empty() {
        root.mistake("there is no [[connection]], so there is nothing to connect to");
    }
    tables.iter().map(|table| one(table, folder, &mut names)).collect()
}

fn one<'d, 't>(table: &Table<'d, 't>, folder: &Path, names: &mut HashSet<ConnectionName>) -> Draft<'d, 't> {
    let name = table.require("name", "\"customer-db\"").and_then(|field| {
        let name = field.parse::<ConnectionName>()?;
        if !names.insert(name.clone()) {
            field.mistake(format!("there is another connection named \"{name}\""));
        }
        Some(name)
    });
    let supported = table.require("type", "\"postgres\"").and_then(|field| protocol(&field)).is_some();
    let target = target(table, folder, supported);
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
    table.not_yet(&["hosts", "credential_as", "allow_commands", "tools_changed"]);
    table.finish();
    let connection = match (name, target) {
        (Some(name), Some(target)) => Some(Connection {
            name,
            target: Arc::new(target),
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

fn protocol(field: &Field<'_, '_>) -> Option<()> {
    let protocols = [("postgres", true), ("mysql", false), ("redis", false), ("http", false), ("mcp", false)];
    let supported = field.word(&protocols)?;
    if !supported {
        field.mistake("connections of this type are not part of this version yet; \"postgres\" is");
    }
    supported.then_some(())
}

fn target(table: &Table<'_, '_>, folder: &Path, supported: bool) -> Option<Target> {
    let field = table.require("target", "\"postgres://user@db.internal:5432/database\"");
    let credential = table.get("credential").map(|field| secret::read(&field, folder));
    let methods = [("password", LoginMethod::Password), ("oauthbearer", LoginMethod::OauthBearer)];
    let login = table.get("login").and_then(|field| field.word(&methods)).unwrap_or_default();
    let tls = match table.table("target_tls") {
        None => TargetTls::default(),
        Some(table) => target_tls(&table, folder)?,
    };
    let field = field?;
    if !supported {
        return None;
    }
    // A credential that could not be read is a mistake already; the target is still checked.
    let credential = credential.flatten();
    let settings = TargetSettings { credential, login, tls, connect_timeout: CONNECT_TIMEOUT };
    match Target::parse(field.string()?, settings) {
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
