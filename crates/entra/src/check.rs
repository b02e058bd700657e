//! For the operator: whether everything can be reached, and what a sample token lacks.

use verbatim_core::Token;

use crate::claims::seconds;
use crate::graph::NoAnswer;
use crate::json::{Json, Object};
use crate::providers::{Issuer, IssuerKind, Providers};
use crate::token::{Parts, guid};

/// What one try came to, for `check --connect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// What was tried: `keys of https://…`, `Graph for tenant …`, `group billing-agents`.
    pub what: String,
    /// What was found, or what is wrong; for people, without any secret.
    pub outcome: Result<String, String>,
}

impl Providers {
    /// Reaches every issuer's discovery document and keys, the directory's token, and each group that the configuration
    /// names, one after the other.
    pub async fn check(&self) -> Vec<CheckResult> {
        let mut results = Vec::new();
        for issuer in &self.issuers {
            let outcome = match issuer.source.refresh().await {
                Err(error) => Err(error.to_string()),
                Ok(()) => match issuer.source.usable_keys() {
                    0 => Err(String::from("no usable key is published")),
                    count => Ok(format!("{count} keys")),
                },
            };
            results.push(CheckResult { what: format!("keys of {}", issuer.source.issuer), outcome });
        }
        let Some(entra) = &self.entra else { return results };
        let Some(directory) = &self.directory else { return results };
        for tenant in &entra.tenants {
            let Ok(source) = self.tenant_source(tenant) else { continue };
            let token = directory.token(source, tenant).await;
            let reached = token.is_ok();
            let outcome = token.map(|_| String::from("token issued")).map_err(why);
            results.push(CheckResult { what: format!("Graph for tenant {tenant}"), outcome });
            for group in self.names.iter().filter(|group| reached && group.tenant == *tenant) {
                let found = directory.group_name(source, tenant, &group.id).await;
                let outcome = found.map(|name| format!("{} is {name:?}", group.id)).map_err(why);
                results.push(CheckResult { what: format!("group {}", group.name), outcome });
            }
        }
        results
    }

    /// What this sample token lacks, in sentences for people; nothing where it would do. The signature is not looked at.
    pub fn lacking(&self, token: &Token) -> Vec<String> {
        let parts = match Parts::parse(token.expose(), self.common.token_limit) {
            Ok(parts) => parts,
            Err(refused) => return vec![format!("it is no token: {}", refused.reason)],
        };
        let stated = parts.payload.text("iss").unwrap_or_default();
        let Some(issuer) = self.issuers.iter().find(|issuer| issuer.source.issuer == stated) else {
            let known: Vec<&str> = self.issuers.iter().map(|issuer| issuer.source.issuer.as_str()).collect();
            return vec![format!("iss is {stated:?}; configured are {}", known.join(", "))];
        };
        let mut lacking = Vec::new();
        self.lacking_times(&parts.payload, &mut lacking);
        match (&issuer.kind, &self.entra) {
            (IssuerKind::Entra { v1, .. }, Some(entra)) => {
                lacking_audience(&parts.payload, &entra.audiences, &mut lacking);
                self.lacking_entra(&parts.payload, *v1, &mut lacking);
            }
            (IssuerKind::Oidc(settings), _) => {
                lacking_audience(&parts.payload, &settings.audiences, &mut lacking);
                let claims = [Some(&settings.subject_claim), settings.groups_claim.as_ref()];
                for claim in claims.into_iter().flatten() {
                    if parts.payload.get(claim).is_none() && !claim.contains('.') {
                        lacking.push(format!("the claim {claim} is missing"));
                    }
                }
            }
            (IssuerKind::Entra { .. }, None) => {}
        }
        lacking_key(issuer, &parts, &mut lacking);
        lacking
    }

    fn lacking_times(&self, payload: &Object, lacking: &mut Vec<String>) {
        let read = |name| seconds(payload, name).ok().flatten();
        let (Some(expires), not_before) = (read("exp"), read("nbf").or(read("iat"))) else {
            lacking.push(String::from("exp is missing, or no number of seconds"));
            return;
        };
        let now = self.net.clock.now().unix_seconds();
        if expires <= now {
            lacking.push(format!("it expired {} s ago", now.saturating_sub(expires)));
        }
        let lifetime = expires.saturating_sub(not_before.unwrap_or(now));
        let longest = self.common.max_lifetime.as_secs();
        if u64::try_from(lifetime).is_ok_and(|lifetime| lifetime > longest) {
            lacking.push(format!("it lives {lifetime} s; [identity] max_lifetime allows {longest} s"));
        }
    }

    fn lacking_entra(&self, payload: &Object, v1: bool, lacking: &mut Vec<String>) {
        let mut say = |what: &str| lacking.push(what.to_owned());
        let version = if v1 { "1.0" } else { "2.0" };
        if payload.text("ver") != Some(version) {
            say("ver does not fit the issuer: set requestedAccessTokenVersion = 2 in the API's registration");
        }
        if payload.text("oid").and_then(guid).is_none() {
            say("oid is missing: request the scope profile");
        }
        let idtyp = payload.text("idtyp");
        let scopes = payload.text("scp").unwrap_or_default().trim();
        match (idtyp, scopes) {
            (None, "" | "/") => {
                say(
                    "neither idtyp nor scp: request the optional claim idtyp (access token) in the API's registration",
                );
            }
            (None, _) => say("idtyp is missing: request the optional claim idtyp with include_user_token"),
            (Some("user"), "") => say("scp is missing: the client asks for no scope of the API"),
            _ => {}
        }
        let marker = payload.get("hasgroups").is_some()
            || payload
                .get("_claim_names")
                .and_then(Json::as_object)
                .is_some_and(|names| names.get("groups").is_some());
        let asked = idtyp == Some("app") || marker;
        let named = self.names.iter().next().is_some();
        if named && asked && self.directory.is_none() {
            say("its groups are not in the token, and no graph is configured to ask for them");
        } else if named && !asked && payload.get("groups").is_none() {
            say("groups is missing: set groupMembershipClaims and the optional claim groups (access token)");
        }
    }
}

fn lacking_audience(payload: &Object, audiences: &[String], lacking: &mut Vec<String>) {
    let stated = payload.get("aud");
    let one = stated.and_then(Json::as_text).map(|one| vec![one]);
    let list = one.or_else(|| stated.and_then(Json::as_texts)).unwrap_or_default();
    if !list.iter().any(|stated| audiences.iter().any(|audience| audience == stated)) {
        lacking.push(format!("aud is {list:?}; configured are {audiences:?}"));
    }
}

fn lacking_key(issuer: &Issuer, parts: &Parts<'_>, lacking: &mut Vec<String>) {
    if let Err(refused) = parts.header(issuer.algorithms()) {
        lacking.push(format!("header: {}", refused.reason));
    }
}

fn why(no_answer: NoAnswer) -> String {
    match no_answer {
        NoAnswer::Gone => String::from("the directory knows no such object"),
        NoAnswer::Disabled => String::from("disabled"),
        NoAnswer::Denied(reason) | NoAnswer::Unavailable(reason) => reason,
    }
}
