//! The Graph stub: memberships and accounts of the simulator's directory.
//!
//! `POST users|servicePrincipals|directoryObjects/{id}/checkMemberGroups`, `…/getMemberGroups`, `…/getMemberObjects`;
//! `GET users|servicePrincipals/{id}` (`accountEnabled`), `…/{id}/transitiveMemberOf/microsoft.graph.group`,
//! `groups/{id}`. Every call needs a bearer token that the token endpoint issued for Graph.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::Shared;
use super::routes::{Incoming, error};
use super::state::{State, Subject};

/// The most ids that one `checkMemberGroups` takes.
const CHECK_IDS_MAX: usize = 20;
/// The most groups that `getMemberGroups` lists.
const LISTED_MAX: usize = 11_000;

pub(super) fn handle(shared: &Shared, path: &[&str], incoming: &Incoming) -> Response {
    let mut state = shared.state.lock();
    let token = incoming.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
    let Some(tenant) = token.and_then(|token| state.graph_tokens.get(token).cloned()) else {
        return error(StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken", "no token of this simulator");
    };
    let post = incoming.method == Method::POST;
    match *path {
        [collection, id, "checkMemberGroups"] if post => {
            state.count("check_member_groups");
            check(&state, &tenant, collection, id, &incoming.body)
        }
        [collection, id, "getMemberGroups" | "getMemberObjects"] if post => {
            state.count("get_member_groups");
            with_subject(&state, &tenant, collection, id, |subject| {
                if subject.groups.len() > LISTED_MAX {
                    let code = "Directory_ResultSizeLimitExceeded";
                    return error(StatusCode::BAD_REQUEST, code, "too many groups");
                }
                strings(subject.groups.iter())
            })
        }
        [collection, id, "transitiveMemberOf", "microsoft.graph.group"] => {
            state.count("get_member_groups");
            with_subject(&state, &tenant, collection, id, |subject| {
                let groups: Vec<Value> = subject
                    .groups
                    .iter()
                    .map(|id| json!({ "@odata.type": "#microsoft.graph.group", "id": id }))
                    .collect();
                Json(json!({ "value": groups })).into_response()
            })
        }
        ["groups", id] => {
            state.count("group");
            group(&state, &tenant, id)
        }
        [collection @ ("users" | "servicePrincipals"), id] => {
            state.count("account");
            with_subject(&state, &tenant, collection, id, |subject| {
                Json(json!({ "id": id, "accountEnabled": !subject.disabled })).into_response()
            })
        }
        _ => error(StatusCode::BAD_REQUEST, "BadRequest", "this stub has no such call"),
    }
}

fn with_subject(
    state: &State,
    tenant: &str,
    collection: &str,
    id: &str,
    answer: impl FnOnce(&Subject) -> Response,
) -> Response {
    let subject = state.subjects.get(&(tenant.to_owned(), id.to_ascii_lowercase()));
    let fits = |subject: &&Subject| match collection {
        "users" => subject.is_user,
        "servicePrincipals" => !subject.is_user,
        _ => collection == "directoryObjects",
    };
    match subject.filter(|subject| !subject.gone).filter(fits) {
        Some(subject) => answer(subject),
        None => error(StatusCode::NOT_FOUND, "Request_ResourceNotFound", "no such object"),
    }
}

fn check(state: &State, tenant: &str, collection: &str, id: &str, body: &[u8]) -> Response {
    let bad = |message| error(StatusCode::BAD_REQUEST, "Request_BadRequest", message);
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return bad("no JSON") };
    let Some(asked) = body.get("groupIds").and_then(Value::as_array) else { return bad("no groupIds") };
    if asked.len() > CHECK_IDS_MAX {
        return bad("more than 20 groupIds");
    }
    let asked: BTreeSet<&str> = asked.iter().filter_map(Value::as_str).collect();
    with_subject(state, tenant, collection, id, |subject| {
        strings(subject.groups.iter().filter(|group| asked.contains(group.as_str())))
    })
}

fn strings<'a>(values: impl Iterator<Item = &'a String>) -> Response {
    let values: Vec<&String> = values.collect();
    Json(json!({ "@odata.context": "$metadata#Collection(Edm.String)", "value": values })).into_response()
}

fn group(state: &State, tenant: &str, id: &str) -> Response {
    let name = state
        .tenant(tenant)
        .and_then(|tenant| tenant.groups.iter().find(|(_, of)| of.eq_ignore_ascii_case(id)))
        .map(|(name, _)| name);
    match name {
        Some(name) => Json(json!({ "id": id, "displayName": name })).into_response(),
        None => error(StatusCode::NOT_FOUND, "Request_ResourceNotFound", "no such group"),
    }
}
