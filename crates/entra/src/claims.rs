//! What a verified Entra token says: steps 6 to 12 of validation, in their order, and the kind of its subject.
//!
//! Known claims are read strictly, unknown ones ignored: Entra adds claims without notice.

use std::time::Duration;

use verbatim_core::{IdentityKind, OnBehalfOf};

use crate::json::{Json, Object};
use crate::refusal::{Refused, quoted};
use crate::token::guid;

/// The facet of an agent identity, in `xms_act_fct` and `xms_sub_fct`.
const FACET_AGENT: u32 = 11;
/// The facet of an agent's own user account.
const FACET_AGENT_USER: u32 = 13;

/// What is allowed, for one tenant's issuer of one version.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    /// The other version's issuer, which `idp` may name for those who are at home here.
    pub(crate) other_issuer: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) v1: bool,
    pub(crate) audiences: &'a [String],
    pub(crate) scopes: &'a [String],
    pub(crate) guests: bool,
    pub(crate) skew: Duration,
    pub(crate) max_lifetime: Duration,
    /// The wall clock, in seconds since 1970.
    pub(crate) now: i64,
}

/// Where in the directory a subject is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Collection {
    Users,
    ServicePrincipals,
}

/// What a token says, verified.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) tenant: String,
    /// The subject's `oid`: whose groups count.
    pub(crate) subject: String,
    pub(crate) collection: Collection,
    /// For an agent that acts for a person the agent's id, else the subject.
    pub(crate) object_id: String,
    pub(crate) kind: IdentityKind,
    pub(crate) name: Option<String>,
    pub(crate) app_id: String,
    pub(crate) on_behalf_of: Option<OnBehalfOf>,
    pub(crate) token_id: Option<String>,
    pub(crate) not_before: i64,
    pub(crate) expires: i64,
    /// Ids of groups; none where the claim is absent.
    pub(crate) groups: Option<Vec<String>>,
    /// The token says that the directory has to be asked.
    pub(crate) overage: bool,
    pub(crate) roles: Vec<String>,
    /// Names that the subject goes by, in lower case; display and comparison with a claimed user name only.
    pub(crate) logins: Vec<String>,
    /// Text claims for the record, under the record's names.
    pub(crate) recorded: Vec<(&'static str, String)>,
    pub(crate) sha256: [u8; 32],
    /// Proved, and yet not allowed.
    pub(crate) refused: Option<Refused>,
}

/// Who acts, and for whom.
struct Actor {
    app_only: bool,
    agent: bool,
    /// The subject itself is an agent identity, or its user account.
    subject_agent: bool,
    subject_agent_user: bool,
}

impl Claims {
    pub(crate) fn read(payload: &Object, expected: &Expected<'_>, sha256: [u8; 32]) -> Result<Self, Refused> {
        let tenant = tenant(payload, expected)?;
        audience(payload, expected.audiences)?;
        version(payload, expected.v1)?;
        let (not_before, expires) = times(payload, expected)?;
        let (app_id, idtyp, scopes) = access_token(payload, expected.v1)?;
        let actor = actor(payload, idtyp.as_deref())?;
        let subject = guid_claim(payload, "oid")?;
        let logins = logins(payload)?;
        let name = first_text(payload, &["name", "preferred_username", "upn", "unique_name"])?;
        let (kind, object_id, on_behalf_of, name) = subject_of(&actor, &subject, &app_id, name, payload)?;
        // An agent identity is a service principal even in a token that was issued for it as a user.
        let service = actor.app_only || (actor.subject_agent && !actor.subject_agent_user);
        let mut claims = Self {
            tenant,
            collection: if service { Collection::ServicePrincipals } else { Collection::Users },
            object_id,
            kind,
            name,
            app_id,
            on_behalf_of,
            token_id: text(payload, "uti")?.or(text(payload, "jti")?).map(str::to_owned),
            not_before,
            expires,
            groups: guids(payload, "groups")?,
            overage: overage(payload)?,
            roles: texts(payload, "roles")?.unwrap_or_default(),
            logins,
            recorded: recorded(payload),
            sha256,
            refused: None,
            subject,
        };
        if !actor.app_only {
            claims.refused = not_allowed(payload, expected, &scopes)?;
        }
        Ok(claims)
    }

    /// Whether the token's times hold at this moment, in seconds since 1970.
    pub(crate) fn current(&self, now: i64, skew: Duration) -> Result<(), Refused> {
        in_time(self.not_before, self.expires, now, skew)
    }
}

pub(crate) fn in_time(not_before: i64, expires: i64, now: i64, skew: Duration) -> Result<(), Refused> {
    let skew = i64::try_from(skew.as_secs()).unwrap_or(i64::MAX);
    if now >= expires.saturating_add(skew) {
        let reason = format!("the token ended {} s ago", now.saturating_sub(expires));
        return Err(Refused::not_authenticated("expired", reason));
    }
    if not_before > now.saturating_add(skew) {
        let reason = format!("the token begins in {} s", not_before.saturating_sub(now));
        return Err(Refused::not_authenticated("not_yet", reason));
    }
    Ok(())
}

fn wrong(reason: impl Into<String>) -> Refused {
    Refused::not_authenticated("claims", reason)
}

/// A claim that is text if it is there.
fn text<'a>(payload: &'a Object, name: &str) -> Result<Option<&'a str>, Refused> {
    match payload.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(format!("{name} is not a string"))),
    }
}

fn first_text(payload: &Object, names: &[&str]) -> Result<Option<String>, Refused> {
    for name in names {
        if let Some(found) = text(payload, name)? {
            return Ok(Some(found.to_owned()));
        }
    }
    Ok(None)
}

fn texts(payload: &Object, name: &str) -> Result<Option<Vec<String>>, Refused> {
    match payload.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(list) => {
            let list = list.as_texts().ok_or_else(|| wrong(format!("{name} is not a list of strings")))?;
            Ok(Some(list.into_iter().map(str::to_owned).collect()))
        }
    }
}

/// Object ids alone: names of groups are not unique, and anybody may make one.
fn guids(payload: &Object, name: &str) -> Result<Option<Vec<String>>, Refused> {
    let list = texts(payload, name)?;
    Ok(list.map(|list| list.iter().filter_map(|id| guid(id)).collect()))
}

fn guid_claim(payload: &Object, name: &str) -> Result<String, Refused> {
    let stated = text(payload, name)?.ok_or_else(|| wrong(format!("{name} is missing")))?;
    guid(stated).ok_or_else(|| wrong(format!("{name} is not a GUID")))
}

pub(crate) fn seconds(payload: &Object, name: &str) -> Result<Option<i64>, Refused> {
    match payload.get(name) {
        None => Ok(None),
        Some(Json::Integer(seconds)) if *seconds >= 0 => Ok(Some(*seconds)),
        Some(_) => Err(wrong(format!("{name} is not a number of seconds"))),
    }
}

fn tenant(payload: &Object, expected: &Expected<'_>) -> Result<String, Refused> {
    let refuse = |reason| Refused::not_authenticated("tenant", reason);
    let stated = text(payload, "tid")?.ok_or_else(|| refuse(String::from("tid is missing")))?;
    guid(stated).filter(|tenant| tenant == expected.tenant).ok_or_else(|| {
        refuse(format!("tid is {}, the issuer's tenant is {}", quoted(stated), expected.tenant))
    })
}

fn audience(payload: &Object, audiences: &[String]) -> Result<(), Refused> {
    let stated = text(payload, "aud")?.ok_or_else(|| wrong("aud is missing"))?;
    if audiences.iter().any(|audience| audience == stated) {
        return Ok(());
    }
    Err(Refused::not_authenticated("aud", format!("the token is for {}", quoted(stated))))
}

fn version(payload: &Object, v1: bool) -> Result<(), Refused> {
    let expected = if v1 { "1.0" } else { "2.0" };
    match text(payload, "ver")? {
        Some(stated) if stated == expected => Ok(()),
        stated => {
            let stated = stated.map_or_else(|| String::from("missing"), quoted);
            Err(Refused::not_authenticated("version", format!("ver is {stated}, the issuer's is {expected}")))
        }
    }
}

fn times(payload: &Object, expected: &Expected<'_>) -> Result<(i64, i64), Refused> {
    let needed = |name| seconds(payload, name)?.ok_or_else(|| wrong(format!("{name} is missing")));
    let (expires, not_before, _) = (needed("exp")?, needed("nbf")?, needed("iat")?);
    in_time(not_before, expires, expected.now, expected.skew)?;
    lifetime(expires.saturating_sub(not_before), expected.max_lifetime)?;
    Ok((not_before, expires))
}

pub(crate) fn lifetime(seconds: i64, longest: Duration) -> Result<(), Refused> {
    if u64::try_from(seconds).is_ok_and(|seconds| seconds <= longest.as_secs()) {
        return Ok(());
    }
    let reason = format!("the token lives {seconds} s, at most {} s are taken", longest.as_secs());
    Err(Refused::not_authenticated("lifetime", reason))
}

/// Step 11: an access token, not an ID token. The client's id, `idtyp`, and the delegated scopes.
fn access_token(payload: &Object, v1: bool) -> Result<(String, Option<String>, Vec<String>), Refused> {
    let refuse = |reason: &str| Err(Refused::not_authenticated("type", reason));
    for of_id_token in ["nonce", "at_hash", "c_hash"] {
        if payload.get(of_id_token).is_some() {
            return refuse("this is an ID token; an access token is needed");
        }
    }
    let (client, other) = if v1 { ("appid", "azp") } else { ("azp", "appid") };
    if payload.get(other).is_some() {
        return refuse("the client is named as in tokens of the other version");
    }
    let Some(app_id) = text(payload, client)? else {
        return refuse("the token names no client (azp, appid): it is no access token");
    };
    let app_id = guid(app_id).unwrap_or_else(|| app_id.to_owned());
    let idtyp = text(payload, "idtyp")?;
    if !matches!(idtyp, None | Some("user" | "app")) {
        let reason = format!("idtyp is {}", quoted(idtyp.unwrap_or_default()));
        return Err(Refused::not_authenticated("kind", reason));
    }
    // Agents' app-only tokens may say `""` or `/`, which grants nothing.
    let scopes: Vec<String> = text(payload, "scp")?
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter(|scope| *scope != "/")
        .map(str::to_owned)
        .collect();
    match (idtyp, scopes.is_empty()) {
        (Some("app"), true) | (Some("user") | None, false) => {}
        (Some(_), false) => return refuse("an app-only token has delegated scopes"),
        (Some(_), true) => return refuse("the token of a user has no scope"),
        (None, true) => {
            return refuse(
                "neither idtyp nor scp: request the optional claim idtyp in the API's registration",
            );
        }
    }
    Ok((app_id, idtyp.map(str::to_owned), scopes))
}

/// The facets: strings of numbers. One that cannot be read is a refusal, since ignoring it could turn an agent into a person.
fn facets(payload: &Object, name: &str) -> Result<Vec<u32>, Refused> {
    let list = text(payload, name)?.unwrap_or_default();
    let numbers: Option<Vec<u32>> = list.split_ascii_whitespace().map(|item| item.parse().ok()).collect();
    numbers.ok_or_else(|| wrong(format!("{name} is no list of numbers")))
}

fn actor(payload: &Object, idtyp: Option<&str>) -> Result<Actor, Refused> {
    let (act, sub) = (facets(payload, "xms_act_fct")?, facets(payload, "xms_sub_fct")?);
    facets(payload, "xms_tnt_fct")?;
    let blueprint = text(payload, "xms_par_app_azp")?.is_some();
    let is_agent = |facets: &[u32]| facets.contains(&FACET_AGENT) || facets.contains(&FACET_AGENT_USER);
    Ok(Actor {
        app_only: idtyp == Some("app"),
        agent: blueprint || is_agent(&act) || is_agent(&sub),
        subject_agent: is_agent(&sub),
        subject_agent_user: sub.contains(&FACET_AGENT_USER),
    })
}

type Subject = (IdentityKind, String, Option<OnBehalfOf>, Option<String>);

/// Kind, object id, on whose behalf, and the name for display.
fn subject_of(
    actor: &Actor,
    oid: &str,
    app_id: &str,
    name: Option<String>,
    payload: &Object,
) -> Result<Subject, Refused> {
    let own = oid.to_owned();
    if actor.app_only {
        let kind = if actor.agent { IdentityKind::Agent } else { IdentityKind::Workload };
        return Ok((kind, own, None, text(payload, "app_displayname")?.map(str::to_owned)));
    }
    if !actor.agent {
        return Ok((IdentityKind::User, own, None, name));
    }
    if actor.subject_agent {
        return Ok((IdentityKind::Agent, own, None, name));
    }
    // An agent identity's app id is its object id.
    let agent = guid(app_id).ok_or_else(|| wrong("the agent's id is not a GUID"))?;
    Ok((IdentityKind::Agent, agent, Some(OnBehalfOf { object_id: own, name }), None))
}

/// `_claim_names` or `hasgroups`: the directory has to be asked. The address in the token is never used.
fn overage(payload: &Object) -> Result<bool, Refused> {
    let named = match payload.get("_claim_names") {
        None | Some(Json::Null) => false,
        Some(Json::Object(names)) => names.get("groups").is_some(),
        Some(_) => return Err(wrong("_claim_names is not an object")),
    };
    let flagged = match payload.get("hasgroups") {
        None | Some(Json::Null) => false,
        Some(Json::Bool(flag)) => *flag,
        Some(Json::Text(flag)) if flag == "true" || flag == "false" => flag == "true",
        Some(_) => return Err(wrong("hasgroups is not a truth value")),
    };
    Ok(named || flagged)
}

fn logins(payload: &Object) -> Result<Vec<String>, Refused> {
    let mut logins = Vec::new();
    for name in ["preferred_username", "upn", "unique_name", "email"] {
        if let Some(login) = text(payload, name)? {
            logins.push(login.to_lowercase());
        }
    }
    Ok(logins)
}

/// Z: a token for a person or a user account may lack our scope, or belong to a guest.
fn not_allowed(
    payload: &Object,
    expected: &Expected<'_>,
    scopes: &[String],
) -> Result<Option<Refused>, Refused> {
    if !expected.scopes.is_empty() && !scopes.iter().any(|scope| expected.scopes.contains(scope)) {
        let reason = format!("the token has none of the scopes {:?}", expected.scopes);
        return Ok(Some(Refused::not_allowed("scope", reason)));
    }
    let guest = match payload.get("acct") {
        None | Some(Json::Null | Json::Integer(0)) => false,
        Some(Json::Integer(_)) => true,
        Some(Json::Text(account)) => account != "0",
        Some(_) => return Err(wrong("acct is not a number")),
    };
    let home = text(payload, "idp")?;
    let elsewhere = home.is_some_and(|idp| idp != expected.issuer && idp != expected.other_issuer);
    if !expected.guests && (guest || elsewhere) {
        return Ok(Some(Refused::not_allowed("guest", "guests are not let in")));
    }
    Ok(None)
}

/// The claims that the opening entry shows beside the identity itself. None of them is trusted for anything.
fn recorded(payload: &Object) -> Vec<(&'static str, String)> {
    const SHOWN: [(&str, &str); 15] = [
        ("iss", "iss"),
        ("sub", "sub"),
        ("ver", "ver"),
        ("idtyp", "idtyp"),
        ("preferred_username", "upn"),
        ("upn", "upn"),
        ("unique_name", "upn"),
        ("azpacr", "azpacr"),
        ("appidacr", "azpacr"),
        ("idp", "home"),
        ("scp", "scp"),
        ("xms_act_fct", "act_fct"),
        ("xms_sub_fct", "sub_fct"),
        ("xms_idrel", "idrel"),
        ("xms_par_app_azp", "blueprint"),
    ];
    let mut recorded: Vec<(&'static str, String)> = Vec::new();
    for (claim, name) in SHOWN {
        if let Some(value) = payload.text(claim)
            && recorded.iter().all(|(taken, _)| *taken != name)
        {
            recorded.push((name, value.to_owned()));
        }
    }
    match payload.get("acct") {
        Some(Json::Integer(account)) => recorded.push(("acct", account.to_string())),
        Some(Json::Text(account)) => recorded.push(("acct", account.clone())),
        _ => {}
    }
    recorded
}
