//! The token endpoint.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::routes::Incoming;
use super::state::{App, Kind, Wish};
use super::{Shared, authorize};

pub(super) type Form = HashMap<String, String>;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A refusal in the endpoint's own shape.
pub(super) struct Refused(pub(super) &'static str, pub(super) String);

pub(super) fn grant(shared: &Shared, tenant: &str, incoming: &Incoming) -> Response {
    match form(incoming).and_then(|form| granted(shared, tenant, &form)) {
        Ok(answer) => Json(answer).into_response(),
        Err(Refused(code, description)) => {
            let body = json!({
                "error": code, "error_description": format!("AADSTS: {description}"), "error_codes": [],
                "timestamp": "", "trace_id": "", "correlation_id": "",
            });
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}

fn form(incoming: &Incoming) -> Result<Form, Refused> {
    let bad = |_| Refused("invalid_request", "the form cannot be read".to_owned());
    encoded(std::str::from_utf8(&incoming.body).map_err(bad)?.trim())
}

/// Reads `application/x-www-form-urlencoded`, of a form or a query.
pub(super) fn encoded(text: &str) -> Result<Form, Refused> {
    let bad = || Refused("invalid_request", "the form cannot be read".to_owned());
    let uri = format!("/?{text}").parse::<axum::http::Uri>().map_err(|_| bad())?;
    let query = axum::extract::Query::<Form>::try_from_uri(&uri).map_err(|_| bad())?;
    Ok(query.0)
}

fn granted(shared: &Shared, tenant: &str, form: &Form) -> Result<Value, Refused> {
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let tenant = {
        let state = shared.state.lock();
        let found = state.tenant(tenant).map(|tenant| tenant.id.clone());
        found.ok_or_else(|| Refused("invalid_request", "90002: tenant not found".to_owned()))?
    };
    match field("grant_type") {
        "client_credentials" => {
            let app = client(shared, &tenant, form)?;
            if field("scope").starts_with(&shared.base) {
                return graph_token(shared, &tenant, &app);
            }
            answer(shared, &tenant, &app, form, false)
        }
        JWT_BEARER => {
            // On behalf of: the client proves itself, and the assertion is the person's token.
            let app = client(shared, &tenant, form)?;
            let claims = signed_claims(shared, field("assertion"), None)
                .map_err(|error| Refused("invalid_grant", error.to_string()))?;
            let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
            let person = App {
                object_id: text("oid").unwrap_or_default(),
                name: text("name"),
                preferred_username: text("preferred_username"),
                kind: if app.kind == Kind::Agent { Kind::AgentForPerson } else { Kind::User },
                ..app
            };
            answer(shared, &tenant, &person, form, false)
        }
        DEVICE_CODE => {
            let client = {
                let mut state = shared.state.lock();
                let Some((client, polls)) = state.device_codes.get_mut(field("device_code")) else {
                    return Err(Refused("expired_token", "no such device code".to_owned()));
                };
                *polls += 1;
                if *polls < 2 {
                    return Err(Refused("authorization_pending", "70016".to_owned()));
                }
                let client = client.clone();
                state.device_codes.remove(field("device_code"));
                client
            };
            let person = person(shared, &tenant, &client)?;
            answer(shared, &tenant, &person, form, true)
        }
        "authorization_code" => {
            let code = authorize::redeemed(shared, &tenant, form)?;
            let person = person(shared, &tenant, &code.person)?;
            let mut answer = answer(shared, &tenant, &person, form, true)?;
            let id_token = authorize::id_token(shared, &code, &person)
                .map_err(|error| Refused("server_error", error.to_string()))?;
            if let Value::Object(members) = &mut answer {
                members.insert("id_token".to_owned(), id_token.into());
            }
            Ok(answer)
        }
        "refresh_token" => {
            let state = shared.state.lock();
            let known = state.refresh_tokens.get(field("refresh_token")).cloned();
            drop(state);
            let Some((_, client)) = known.filter(|(of, _)| *of == tenant) else {
                return Err(Refused("invalid_grant", "700082: no such refresh token".to_owned()));
            };
            let person = person(shared, &tenant, &client)?;
            answer(shared, &tenant, &person, form, true)
        }
        _ => Err(Refused("unsupported_grant_type", "70003".to_owned())),
    }
}

/// The app that the request proves to be, by a secret or an assertion.
fn client(shared: &Shared, tenant: &str, form: &Form) -> Result<App, Refused> {
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let wrong = || Refused("invalid_client", "7000215: invalid client".to_owned());
    let app = named(shared, tenant, field("client_id")).ok_or_else(wrong)?;
    let proved = if field("client_assertion_type") == ASSERTION_TYPE {
        asserted(shared, tenant, &app, field("client_assertion")).is_ok()
    } else {
        app.client_secret == field("client_secret")
    };
    proved.then_some(app).ok_or_else(wrong)
}

fn named(shared: &Shared, tenant: &str, client_id: &str) -> Option<App> {
    let state = shared.state.lock();
    state.tenant(tenant)?.apps.iter().find(|app| app.client_id == client_id).cloned()
}

/// The client id of the person who approves: named by a hint, or the tenant's first.
pub(super) fn approver(shared: &Shared, tenant: &str, hint: Option<&str>) -> Option<String> {
    let state = shared.state.lock();
    let mut people = state.tenant(tenant)?.apps.iter().filter(|app| app.kind == Kind::User);
    let hinted = |app: &&App| hint.is_none_or(|hint| app.preferred_username.as_deref() == Some(hint));
    people.find(hinted).map(|app| app.client_id.clone())
}

/// The person whom a device code or refresh token of this client is for: the client's own, or the tenant's first.
fn person(shared: &Shared, tenant: &str, client_id: &str) -> Result<App, Refused> {
    let state = shared.state.lock();
    let people = || state.tenant(tenant).into_iter().flat_map(|tenant| &tenant.apps);
    let mut people_only = people().filter(|app| app.kind == Kind::User);
    let own = people().find(|app| app.client_id == client_id && app.kind == Kind::User);
    let found = own.or_else(|| people_only.next());
    found.cloned().ok_or_else(|| Refused("invalid_grant", "no person in this tenant".to_owned()))
}

fn asserted(shared: &Shared, tenant: &str, app: &App, assertion: &str) -> Result<()> {
    let key = app.assertion_key.as_deref().context("this app has no assertion key")?;
    let claims = signed_claims(shared, assertion, Some(key))?;
    let says = |name: &str| claims.get(name).and_then(Value::as_str);
    let endpoint = format!("{}/{tenant}/oauth2/v2.0/token", shared.base);
    ensure!(says("iss") == Some(&app.client_id) && says("sub") == Some(&app.client_id), "iss or sub");
    ensure!(says("aud") == Some(&endpoint), "aud");
    ensure!(claims.get("exp").and_then(Value::as_i64).is_some_and(|exp| exp > shared.now()), "exp");
    Ok(())
}

/// The claims of a token that one test key (by its `kid` unless given) signed by RS256.
fn signed_claims(shared: &Shared, token: &str, key: Option<&str>) -> Result<Value> {
    let (message, signature) = token.rsplit_once('.').context("no token")?;
    let (header, payload) = message.split_once('.').context("no token")?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    let kid = header.get("kid").and_then(Value::as_str);
    let key = key.or(kid).context("no kid")?;
    // RS256 is deterministic: signing again is verifying.
    let expected = shared.keys.get(key)?.sign("RS256", message.as_bytes())?;
    ensure!(URL_SAFE_NO_PAD.encode(expected) == signature, "signature");
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

fn answer(shared: &Shared, tenant: &str, app: &App, form: &Form, refresh: bool) -> Result<Value, Refused> {
    let server = |error: anyhow::Error| Refused("server_error", error.to_string());
    let number = |name: &str| form.get(name).and_then(|value| value.parse::<i64>().ok());
    let wish = Wish {
        padding: number("padding").and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0),
        lifetime: number("lifetime"),
        v1: number("version") == Some(1),
        overage: number("overage") == Some(1),
    };
    let now = shared.now();
    let claims = shared.state.lock().claims(&shared.base, tenant, app, now, &wish);
    let token = shared.mint(&Value::Object(claims)).map_err(server)?;
    let lifetime = wish.lifetime.unwrap_or(3900);
    let mut answer = json!({
        "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token,
    });
    if refresh {
        let mut state = shared.state.lock();
        let id = format!("refresh-{}", state.next_id());
        state.refresh_tokens.insert(id.clone(), (tenant.to_owned(), app.client_id.clone()));
        if let Value::Object(members) = &mut answer {
            members.insert("refresh_token".to_owned(), id.into());
        }
    }
    Ok(answer)
}

fn graph_token(shared: &Shared, tenant: &str, app: &App) -> Result<Value, Refused> {
    if !app.graph {
        return Err(Refused(
            "invalid_scope",
            "this app may not call Graph (state: \"graph\": true)".to_owned(),
        ));
    }
    let mut state = shared.state.lock();
    let token = format!("graph-token-{}", state.next_id());
    state.graph_tokens.insert(token.clone(), tenant.to_owned());
    Ok(json!({ "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": token }))
}

pub(super) fn device_code(shared: &Shared, tenant: &str, incoming: &Incoming) -> Response {
    let Ok(form) = form(incoming) else { return StatusCode::BAD_REQUEST.into_response() };
    let client = form.get("client_id").cloned().unwrap_or_default();
    let mut state = shared.state.lock();
    if state.tenant(tenant).is_none() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let id = state.next_id();
    let device_code = format!("device-{id}");
    state.device_codes.insert(device_code.clone(), (client, 0));
    let page = format!("{}/device", shared.base);
    Json(json!({
        "device_code": device_code, "user_code": format!("TEST{id:04}"), "verification_uri": page,
        "expires_in": 900, "interval": 1, "message": format!("Open {page} and enter the code TEST{id:04}."),
    }))
    .into_response()
}
