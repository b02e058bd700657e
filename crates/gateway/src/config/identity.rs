//! `[identity]`, `[identity.entra]`, `[[identity.oidc]]`.

use std::path::Path;
use std::time::Duration;

use verbatim_core::{IdentityKind, PrincipalKind};
use verbatim_entra::{Cloud, Common, Entra, Graph, Oidc, Roots, Settings};

use super::connections::Draft;
use super::reader::{Table, nearest};
use super::secret;
use super::sections::{Limits, Recheck, duration, path, url};

pub(super) fn read(root: &Table<'_, '_>, folder: &Path, limits: &Limits) -> (Settings, Recheck) {
    let mut settings = Settings::default();
    settings.common.token_limit = limits.token;
    let mut recheck = Recheck { grace: Duration::ZERO, every: Duration::from_secs(300) };
    let Some(table) = root.require("identity", "{ entra = { tenants = [\"…\"], audiences = [\"…\"] } }")
    else {
        return (settings, recheck);
    };
    let Some(table) = table.table() else { return (settings, recheck) };
    recheck.grace = duration(&table, "grace", 0);
    recheck.every = duration(&table, "recheck", 300);
    settings.common = Common {
        skew: duration(&table, "skew", 60),
        max_lifetime: duration(&table, "max_lifetime", 29 * 3600),
        ca: table.get("ca").and_then(|field| path(&field, folder)).map_or(Roots::None, Roots::Pem),
        ..settings.common
    };
    settings.entra = table.table("entra").map(|table| entra(&table, folder));
    settings.oidc = table.tables("oidc").iter().filter_map(|table| oidc(table)).collect();
    if settings.entra.is_none() && settings.oidc.is_empty() {
        table.mistake("nobody could log in; write [identity.entra] with `tenants` and `audiences`");
    }
    table.finish();
    (settings, recheck)
}

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn entra(table: &Table<'_, '_>, folder: &Path) -> Entra {
    let mut tenants = Vec::new();
    if let Some(field) = table.require("tenants", "[\"00000000-0000-0000-0000-000000000000\"]") {
        for item in field.items(false) {
            match item.string() {
                Some(text) if is_guid(text) => tenants.push(text.to_ascii_lowercase()),
                Some(_) => {
                    item.mistake("expected a tenant's GUID (not a domain, `common` or `organizations`)")
                }
                None => {}
            }
        }
        if field.items(false).is_empty() {
            field.mistake("name at least one tenant");
        }
    }
    let audiences = table.require("audiences", "[\"the API's client id\"]").map(|field| {
        if field.items(false).is_empty() {
            field.mistake("name at least one audience: the client id of the gateway's API registration");
        }
        field.strings()
    });
    let cloud = [("public", Cloud::Public), ("usgov", Cloud::UsGov), ("china", Cloud::China)];
    let entra = Entra {
        groups: table.table("groups").map(|table| groups(&table, &tenants)).unwrap_or_default(),
        tenants,
        audiences: audiences.unwrap_or_default(),
        cloud: table.get("cloud").and_then(|field| field.word(&cloud)).unwrap_or_default(),
        authority: table.get("authority").and_then(|field| login_base(&field)),
        graph: table.table("graph").and_then(|table| graph(&table, folder)),
        v1: table.get("v1").and_then(|field| field.boolean()).unwrap_or(false),
        scopes: table.get("scopes").map(|field| field.strings()).unwrap_or_default(),
        guests: table.get("guests").and_then(|field| field.boolean()).unwrap_or(true),
    };
    table.finish();
    entra
}

/// A login base: https, or plain http on loopback.
fn login_base(field: &super::reader::Field<'_, '_>) -> Option<String> {
    let base = url(field)?;
    if let Some(host) = base.strip_prefix("http://") {
        let host = host.split(['/', '?']).next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let address = name.trim_matches(['[', ']']).parse();
        if name != "localhost" && !address.is_ok_and(super::sections::is_loopback) {
            field.mistake("plain http is taken on loopback alone; write https://");
            return None;
        }
    }
    Some(base)
}

fn groups(table: &Table<'_, '_>, tenants: &[String]) -> Vec<(String, String)> {
    let mut groups = Vec::new();
    for (name, field) in table.each() {
        let Some(id) = field.string() else { continue };
        let (tenant, object) =
            id.split_once('/').map_or((None, id), |(tenant, object)| (Some(tenant), object));
        let known =
            tenant.is_none_or(|tenant| tenants.iter().any(|known| known.eq_ignore_ascii_case(tenant)));
        if !is_guid(object) {
            field.mistake(
                "expected the group's object id, a GUID (names are not unique, so they are not taken)",
            );
        } else if !known {
            field.mistake("the tenant before the slash is none of `tenants`");
        } else if tenant.is_none() && tenants.len() > 1 {
            field.mistake("with several tenants write \"TENANT/OBJECT-ID\"");
        } else if name.contains('/') || name.is_empty() {
            field.mistake("a group's name has no slash");
        } else {
            groups.push((name, id.to_ascii_lowercase()));
        }
    }
    groups
}

fn graph(table: &Table<'_, '_>, folder: &Path) -> Option<Graph> {
    let client_id = table.require("client_id", "\"…\"").and_then(|field| field.string().map(str::to_owned));
    let secret = table.require("client_secret", "{ env = \"GRAPH_CLIENT_SECRET\" }");
    let client_secret = secret.and_then(|field| secret::read(&field, folder));
    let endpoint = table.get("endpoint").and_then(|field| login_base(&field));
    table.finish();
    Some(Graph { client_id: client_id?, client_secret: client_secret?, endpoint })
}

fn oidc(table: &Table<'_, '_>) -> Option<Oidc> {
    let text = |key, example| table.require(key, example).and_then(|field| field.string().map(str::to_owned));
    let optional = |key| table.get(key).and_then(|field| field.string().map(str::to_owned));
    let kinds =
        [("workload", IdentityKind::Workload), ("user", IdentityKind::User), ("agent", IdentityKind::Agent)];
    let name = text("name", "\"ci\"");
    if let Some(name) = &name
        && (name == "entra" || name.is_empty() || name.contains('/'))
    {
        table.mistake("an issuer's name is not `entra` and has no slash");
    }
    let issuer = table.require("issuer", "\"https://issuer.example.com\"").and_then(|field| {
        login_base(&field)?;
        field.string().map(str::to_owned)
    });
    let audiences = table.require("audiences", "[\"verbatim\"]").map(|field| field.strings());
    let algorithms = table.get("algorithms").map(|field| field.strings());
    let oidc = Oidc {
        name: name.clone().unwrap_or_default(),
        issuer: issuer.clone().unwrap_or_default(),
        audiences: audiences.unwrap_or_default(),
        groups_claim: optional("groups_claim"),
        kind: table.get("kind").and_then(|field| field.word(&kinds)).unwrap_or(IdentityKind::Workload),
        subject_claim: optional("subject_claim").unwrap_or_else(|| "sub".to_owned()),
        roles_claim: optional("roles_claim"),
        algorithms: algorithms.unwrap_or_else(|| vec!["RS256".to_owned()]),
    };
    table.finish();
    (name.is_some() && issuer.is_some()).then_some(oidc)
}

/// Every group that an access list names is one that can be looked up; and it will be, so the provider is told.
pub(super) fn check_names(identity: &mut Settings, connections: &[Draft<'_, '_>]) {
    let entra_groups: Vec<&str> =
        identity.entra.iter().flat_map(|e| &e.groups).map(|(name, _)| &**name).collect();
    let issuers: Vec<&str> = identity.oidc.iter().map(|oidc| &*oidc.name).collect();
    let mut named = Vec::new();
    let access = connections.iter().flat_map(|draft| &draft.access);
    for (field, principal) in access.filter(|(_, principal)| principal.kind == PrincipalKind::Group) {
        let value = &*principal.value;
        match &principal.qualifier {
            Some(issuer) if !issuers.contains(&&**issuer) => {
                field.mistake(format!("there is no [[identity.oidc]] with name = \"{issuer}\""));
            }
            None if !entra_groups.contains(&value) => {
                let hint = match nearest(value, entra_groups.iter().copied()) {
                    Some(near) => format!("did you mean \"group:{near}\"?"),
                    None => format!("add `{value} = \"OBJECT-ID\"` there"),
                };
                field.mistake(format!("`groups` of [identity.entra] has no \"{value}\"; {hint}"));
            }
            _ => {}
        }
        if !named.contains(&principal.name()) {
            named.push(principal.name());
        }
    }
    identity.common.named_groups = named;
}
