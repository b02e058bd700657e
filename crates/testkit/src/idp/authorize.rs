//! The authorization endpoint and its codes, for consoles: nobody is asked, everything is approved.

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::Shared;
use super::routes::Incoming;
use super::state::{App, Code, Wish};
use super::token::{Form, Refused, approver, encoded};

/// Redirects back with a code at once.
pub(super) fn page(shared: &Shared, tenant: &str, incoming: &Incoming) -> Response {
    match approved(shared, tenant, &incoming.query) {
        Ok(location) => (StatusCode::FOUND, [(header::LOCATION, location)]).into_response(),
        Err(Refused(_, description)) => (StatusCode::BAD_REQUEST, description).into_response(),
    }
}

fn approved(shared: &Shared, tenant: &str, query: &str) -> Result<String, Refused> {
    let wrong = |what: &str| Refused("invalid_request", format!("{what} is missing or wrong"));
    let query = encoded(query)?;
    let needed = |name: &str| query.get(name).filter(|value| !value.is_empty()).ok_or_else(|| wrong(name));
    if needed("response_type")? != "code" {
        return Err(wrong("response_type"));
    }
    if needed("code_challenge_method")? != "S256" {
        return Err(wrong("code_challenge_method"));
    }
    let redirect_uri = needed("redirect_uri")?;
    redirect_uri.parse::<Uri>().map_err(|_| wrong("redirect_uri"))?;
    let hint = query.get("login_hint").map(String::as_str);
    let person = approver(shared, tenant, hint).ok_or_else(|| wrong("login_hint"))?;
    let code = Code {
        tenant: tenant.to_owned(),
        client_id: needed("client_id")?.clone(),
        redirect_uri: redirect_uri.clone(),
        challenge: needed("code_challenge")?.clone(),
        nonce: query.get("nonce").cloned(),
        person,
    };
    let mut state = shared.state.lock();
    let id = format!("code-{}", state.next_id());
    state.codes.insert(id.clone(), code);
    let mark = if redirect_uri.contains('?') { '&' } else { '?' };
    let mut location = format!("{redirect_uri}{mark}code={id}");
    if let Some(value) = query.get("state") {
        location.push_str("&state=");
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    location.push(char::from(byte));
                }
                _ => location.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    Ok(location)
}

/// Takes a code back, once, from the client that it was for and that knows the verifier.
pub(super) fn redeemed(shared: &Shared, tenant: &str, form: &Form) -> Result<Code, Refused> {
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let wrong = |what: &str| Refused("invalid_grant", format!("{what} does not fit the code"));
    let code = shared.state.lock().codes.remove(field("code")).ok_or_else(|| wrong("code"))?;
    let verifier = URL_SAFE_NO_PAD.encode(digest(&SHA256, field("code_verifier").as_bytes()));
    if verifier != code.challenge {
        return Err(wrong("code_verifier"));
    }
    if code.tenant != tenant || code.redirect_uri != field("redirect_uri") {
        return Err(wrong("redirect_uri"));
    }
    // The client's id is in the form, or it proved itself by HTTP basic authentication, which is not looked at.
    if form.get("client_id").is_some_and(|client| *client != code.client_id) {
        return Err(wrong("client_id"));
    }
    Ok(code)
}

/// The ID token: for the client, not for the gateway's API.
pub(super) fn id_token(shared: &Shared, code: &Code, person: &App) -> Result<String> {
    let now = shared.now();
    let mut claims = shared.state.lock().claims(&shared.base, &code.tenant, person, now, &Wish::default());
    for of_access_tokens in ["azp", "azpacr", "idtyp", "scp"] {
        claims.remove(of_access_tokens);
    }
    claims.insert("aud".to_owned(), code.client_id.clone().into());
    if let Some(nonce) = &code.nonce {
        claims.insert("nonce".to_owned(), nonce.clone().into());
    }
    shared.mint(&Value::Object(claims))
}
