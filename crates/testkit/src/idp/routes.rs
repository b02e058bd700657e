//! Which path is which, discovery and keys.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::state::{Fault, Published};
use super::{Shared, authorize, control, graph, token};

/// The longest request body that is read, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A request, read whole.
pub(super) struct Incoming {
    pub(super) method: Method,
    pub(super) authorization: Option<String>,
    pub(super) query: String,
    pub(super) body: Vec<u8>,
}

pub(super) async fn handle(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let incoming = Incoming {
        method: head.method,
        authorization: authorization.map(str::to_owned),
        query: head.uri.query().unwrap_or_default().to_owned(),
        body: body.to_vec(),
    };
    let path: Vec<&str> = head.uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    match path.as_slice() {
        ["control", rest @ ..] => control::handle(&shared, rest, &incoming),
        ["graph", "v1.0", rest @ ..] => match befallen(&shared, "graph").await {
            Some(response) => response,
            None => graph::handle(&shared, rest, &incoming),
        },
        ["oidc", name, ".well-known", "openid-configuration"] => match befallen(&shared, "discovery").await {
            Some(response) => response,
            None => other_issuer(&shared, name),
        },
        ["oidc", _, "keys"] => match befallen(&shared, "jwks").await {
            Some(response) => response,
            None => other_keys(&shared),
        },
        [tenant, "v2.0", ".well-known", "openid-configuration"] => discovery(&shared, tenant, false).await,
        [tenant, ".well-known", "openid-configuration"] => discovery(&shared, tenant, true).await,
        [tenant, "discovery", "v2.0", "keys"] => jwks(&shared, tenant, false).await,
        [tenant, "discovery", "keys"] => jwks(&shared, tenant, true).await,
        [tenant, "oauth2", "v2.0", "token"] => match befallen(&shared, "token").await {
            Some(response) => response,
            None => token::grant(&shared, tenant, &incoming),
        },
        [tenant, "oauth2", "v2.0", "devicecode"] => token::device_code(&shared, tenant, &incoming),
        [tenant, "oauth2", "v2.0", "authorize"] => authorize::page(&shared, tenant, &incoming),
        _ => {
            shared.state.lock().count("other");
            StatusCode::NOT_FOUND.into_response()
        }
    }
}

/// Counts the request, and answers instead of the endpoint where a fault is set.
async fn befallen(shared: &Shared, endpoint: &str) -> Option<Response> {
    let fault = {
        let mut state = shared.state.lock();
        state.count(endpoint);
        state.fault(endpoint)?
    };
    let Fault { status, code, retry_after, hang, .. } = fault;
    if hang {
        std::future::pending::<()>().await;
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let code = code.unwrap_or_else(|| "Fault".to_owned());
    let mut response = error(status, &code, "a fault was asked for");
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    Some(response)
}

/// An error in Graph's shape.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "error": { "code": code, "message": message, "innerError": {} } }))).into_response()
}

async fn discovery(shared: &Shared, tenant: &str, v1: bool) -> Response {
    if let Some(response) = befallen(shared, "discovery").await {
        return response;
    }
    let base = &shared.base;
    let common = matches!(tenant, "common" | "organizations");
    if !common && shared.state.lock().tenant(tenant).is_none() {
        let text = "AADSTS90002: Tenant not found.";
        return (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": "invalid_tenant", "error_description": text })),
        )
            .into_response();
    }
    let stated = if common { "{tenantid}" } else { tenant };
    let (issuer, keys, oauth) = if v1 {
        (format!("{base}/{stated}/"), format!("{base}/{tenant}/discovery/keys"), "oauth2/v2.0")
    } else {
        (format!("{base}/{stated}/v2.0"), format!("{base}/{tenant}/discovery/v2.0/keys"), "oauth2/v2.0")
    };
    let document = json!({
        "issuer": issuer,
        "token_endpoint": format!("{base}/{tenant}/{oauth}/token"),
        "authorization_endpoint": format!("{base}/{tenant}/{oauth}/authorize"),
        "device_authorization_endpoint": format!("{base}/{tenant}/{oauth}/devicecode"),
        "jwks_uri": keys,
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "cloud_instance_name": "test-only.invalid",
        "msgraph_host": "test-only.invalid",
    });
    ([(header::CACHE_CONTROL, "max-age=86400, private")], Json(document)).into_response()
}

async fn jwks(shared: &Shared, tenant: &str, v1: bool) -> Response {
    if let Some(response) = befallen(shared, "jwks").await {
        return response;
    }
    let own = if matches!(tenant, "common" | "organizations") { "{tenantid}" } else { tenant };
    let issuer = format!("{}/{own}{}", shared.base, if v1 { "/" } else { "/v2.0" });
    let published = {
        let state = shared.state.lock();
        state.frozen.clone().unwrap_or_else(|| state.published.clone())
    };
    let keys: Vec<Value> = published
        .iter()
        .filter_map(|Published { kid, key, usage, issuer: stated }| {
            let stated = stated.as_ref().unwrap_or(&issuer);
            Some(shared.keys.get(key).ok()?.jwk(kid, usage, Some(stated)))
        })
        .collect();
    Json(json!({ "keys": keys })).into_response()
}

fn other_issuer(shared: &Shared, name: &str) -> Response {
    let issuer = format!("{}/oidc/{name}", shared.base);
    Json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/keys"),
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
    }))
    .into_response()
}

fn other_keys(shared: &Shared) -> Response {
    let keys: Vec<Value> = ["k1", "es256", "ed25519"]
        .iter()
        .filter_map(|key| Some(shared.keys.get(key).ok()?.jwk(key, "sig", None)))
        .collect();
    Json(json!({ "keys": keys })).into_response()
}
