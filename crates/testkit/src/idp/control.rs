//! Test-only controls, each a POST with a JSON object (an empty body is `{}`); GET for `counters`.
//!
//! | path | body | what it does |
//! | --- | --- | --- |
//! | `rotate` | | publishes the next key, signs with it, and drops the one that signed so far |
//! | `drop` | `{"kid"}` | takes a key out at once |
//! | `publish` | `{"kid", "key", "use", "issuer"}` | adds an entry; `key` is a test key's name |
//! | `freeze` | `{"on"}` | the keys document stays as it is, whatever happens to the keys |
//! | `fail` | `{"endpoint", "status", "retry_after", "code", "hang", "times"}` | a fault; without `status` and `hang`, healed |
//! | `counters` | `{"reset": true}` | requests each endpoint had |
//! | `membership` | `{"tenant", "object_id", "add": […], "remove": […]}` | group ids |
//! | `subject` | `{"tenant", "object_id", "enabled", "gone", "user"}` | disables, deletes or makes a user or service principal |
//! | `clock` | `{"offset"}` | seconds by which its clock is off |
//! | `mint` | `{"claims", "header", "key", "algorithm"}` | `{"token"}`: any claims, signed with any test key |
//!
//! `tenant` is the state's first unless given.

use anyhow::{Context as _, Result, bail};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::Shared;
use super::routes::Incoming;
use super::state::{Fault, Published};

/// The keys that a rotation goes through.
const ROTATION: [&str; 4] = ["k1", "k2", "k3", "k4"];

pub(super) fn handle(shared: &Shared, path: &[&str], incoming: &Incoming) -> Response {
    let body = if incoming.body.is_empty() { b"{}".as_slice() } else { &incoming.body };
    let result = match serde_json::from_slice::<Value>(body) {
        Ok(body) => control(shared, path, &body),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => {
            (StatusCode::BAD_REQUEST, Json(json!({ "error": format!("{error:#}") }))).into_response()
        }
    }
}

fn control(shared: &Shared, path: &[&str], body: &Value) -> Result<Value> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let needed = |name: &'static str| text(name).context(name);
    let flag = |name: &str| body.get(name).and_then(Value::as_bool);
    match *path {
        ["rotate"] => return rotate(shared),
        ["mint"] => return mint(shared, body),
        ["membership" | "subject"] => return directory(shared, body),
        _ => {}
    }
    let mut state = shared.state.lock();
    match *path {
        ["drop"] => {
            let kid = needed("kid")?;
            state.published.retain(|key| key.kid != kid);
        }
        ["publish"] => {
            let kid = needed("kid")?;
            let mut entry = Published::signing(text("key").unwrap_or(kid));
            shared.keys.get(&entry.key)?;
            kid.clone_into(&mut entry.kid);
            text("use").unwrap_or("sig").clone_into(&mut entry.usage);
            entry.issuer = text("issuer").map(str::to_owned);
            state.published.push(entry);
        }
        ["freeze"] => {
            state.frozen = flag("on").unwrap_or(true).then(|| state.published.clone());
        }
        ["fail"] => {
            let endpoint = needed("endpoint")?.to_owned();
            let mut fault = body.clone();
            if let Value::Object(members) = &mut fault {
                members.remove("endpoint");
            }
            let fault: Fault = serde_json::from_value(fault)?;
            if fault.status == 0 && !fault.hang {
                state.faults.remove(&endpoint);
            } else {
                state.faults.insert(endpoint, fault);
            }
        }
        ["counters"] => {
            let counters = json!(state.counters);
            if flag("reset") == Some(true) {
                state.counters.clear();
            }
            return Ok(counters);
        }
        ["clock"] => {
            state.clock_offset = body.get("offset").and_then(Value::as_i64).context("offset")?;
        }
        _ => bail!("no such control"),
    }
    Ok(json!({}))
}

fn rotate(shared: &Shared) -> Result<Value> {
    let mut state = shared.state.lock();
    let old = state.signing.clone();
    let next = ROTATION
        .iter()
        .find(|key| !state.published.iter().any(|published| published.key == **key))
        .or_else(|| ROTATION.iter().find(|key| **key != old))
        .context("no key to rotate to")?;
    state.published.retain(|key| key.key != old);
    state.published.push(Published::signing(next));
    (*next).clone_into(&mut state.signing);
    Ok(json!({ "signing": next, "dropped": old }))
}

fn directory(shared: &Shared, body: &Value) -> Result<Value> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let flag = |name: &str| body.get(name).and_then(Value::as_bool);
    let mut state = shared.state.lock();
    let first = state.declared.tenants.first().map(|tenant| tenant.id.clone());
    let tenant = text("tenant").map(str::to_owned).or(first).context("tenant")?;
    let object_id = text("object_id").context("object_id")?.to_ascii_lowercase();
    let subject = state.subjects.entry((tenant, object_id)).or_default();
    let ids = |name: &str| -> Vec<String> {
        let list = body.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    subject.groups.extend(ids("add"));
    for id in ids("remove") {
        subject.groups.remove(&id);
    }
    subject.disabled = flag("enabled").map_or(subject.disabled, |enabled| !enabled);
    subject.gone = flag("gone").unwrap_or(subject.gone);
    subject.is_user = flag("user").unwrap_or(subject.is_user);
    Ok(json!({ "groups": subject.groups, "enabled": !subject.disabled, "gone": subject.gone }))
}

fn mint(shared: &Shared, body: &Value) -> Result<Value> {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let claims = body.get("claims").context("claims")?;
    let signing = shared.state.lock().signing.clone();
    let key = text("key").unwrap_or(&signing);
    let algorithm = text("algorithm").unwrap_or("RS256");
    let header = match body.get("header") {
        Some(header) => header.clone(),
        None => json!({ "typ": "JWT", "alg": algorithm, "kid": key }),
    };
    let token = shared.sign(&header, &serde_json::to_vec(claims)?, key, algorithm)?;
    Ok(json!({ "token": token }))
}
