//! A refusal as HTTP says it: a status and a problem document (RFC 9457); to an MCP client, a JSON-RPC error.
//!
//! The client learns the class of a refusal and the session's id as a reference; the reason is in the record alone.
//!
//! | refusal | status | JSON-RPC code |
//! | --- | --- | --- |
//! | `NotAuthenticated`, `Discovery`, `Expired` | 401 with `WWW-Authenticate` | -32001 |
//! | `NotAllowed`, `Revoked` | 403 | -32003 |
//! | `Undecided`, `NotRecorded`, `Busy`, `Draining` | 503 with `Retry-After` | -32002 |
//! | `Protocol` | 400, and the stream is closed | -32600 |
//! | `TooLarge` | 413 (a head: 431), and the stream is closed | -32600 |
//! | `Unsupported` | 501 | -32601 |
//!
//! A refusal of one JSON-RPC request in an open session (`NotAllowed`, `Unsupported`) comes with status 200, as the answer
//! that it is.

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use verbatim_core::{Refusal, SessionId, json};

use crate::body::ClientBody;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// How soon a client may come again, in seconds.
const RETRY: HeaderValue = HeaderValue::from_static("5");

/// The words for a refusal.
struct Words {
    status: StatusCode,
    title: &'static str,
    rpc_code: i32,
}

/// The one place where refusals get their words in this protocol.
fn words(refusal: &Refusal) -> Words {
    let (status, title, rpc_code) = match refusal {
        Refusal::NotAuthenticated { .. } | Refusal::Discovery => {
            (StatusCode::UNAUTHORIZED, "An access token is needed", -32001)
        }
        Refusal::Expired => (StatusCode::UNAUTHORIZED, "The access token expired", -32001),
        Refusal::NotAllowed { .. } => (StatusCode::FORBIDDEN, "Permission denied by the gateway", -32003),
        Refusal::Revoked { .. } => (StatusCode::FORBIDDEN, "Access was revoked", -32003),
        Refusal::Undecided { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "The identity service is unavailable, try again later", -32002)
        }
        Refusal::NotRecorded { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "The gateway cannot record this, so it is not done", -32002)
        }
        Refusal::Masking { .. } => (StatusCode::FORBIDDEN, "A mask protects what this asks for", -32003),
        Refusal::Busy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "The gateway is at its limit", -32002),
        Refusal::Draining => (StatusCode::SERVICE_UNAVAILABLE, "The gateway is shutting down", -32002),
        Refusal::Protocol { .. } => {
            (StatusCode::BAD_REQUEST, "The request is malformed or ambiguous", -32600)
        }
        Refusal::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "The request is too large", -32600),
        Refusal::Unsupported { .. } => (StatusCode::NOT_IMPLEMENTED, "Not supported by the gateway", -32601),
    };
    Words { status, title, rpc_code }
}

/// What a refusal is said with beside its words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    /// The value of `WWW-Authenticate`, for a 401.
    pub(crate) challenge: Option<HeaderValue>,
    /// The session in whose record the reason is.
    pub(crate) session: Option<SessionId>,
}

/// A refusal as a response.
pub(crate) fn response(refusal: &Refusal, context: &Context) -> Response<ClientBody> {
    let words = words(refusal);
    let mut body = Vec::new();
    problem(&mut body, words.status, words.title, context.session);
    let mut response = own(words.status, PROBLEM, body);
    finish(&mut response, refusal, context);
    response
}

/// A head that is too long (431), else a malformed one.
pub(crate) fn bad_head(refusal: &Refusal, too_large: bool, context: &Context) -> Response<ClientBody> {
    let mut response = response(refusal, context);
    if too_large {
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A refusal as the answer to JSON-RPC requests with these ids (as they were sent); none: the id is not known. A batch is
/// answered with a batch.
pub(crate) fn rpc_response(
    refusal: &Refusal,
    ids: &[&str],
    batch: bool,
    context: &Context,
) -> Response<ClientBody> {
    let words = words(refusal);
    let mut body = Vec::new();
    if batch {
        body.push(b'[');
    }
    let unknown = ["null"];
    for (place, id) in if ids.is_empty() { &unknown[..] } else { ids }.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        rpc_error(&mut body, id, words.rpc_code, words.title, context.session);
    }
    if batch {
        body.push(b']');
    }
    let answered =
        !ids.is_empty() && matches!(refusal, Refusal::NotAllowed { .. } | Refusal::Unsupported { .. });
    let status = if answered { StatusCode::OK } else { words.status };
    let mut response = own(status, JSON, body);
    finish(&mut response, refusal, context);
    response
}

/// JSON-RPC requests that got no answer from the target.
pub(crate) fn rpc_failure(
    status: StatusCode,
    message: &str,
    ids: &[&str],
    batch: bool,
    session: SessionId,
) -> Response<ClientBody> {
    let unknown = ["null"];
    let ids = if ids.is_empty() { &unknown[..] } else { ids };
    let mut body = Vec::new();
    for (place, id) in ids.iter().enumerate() {
        body.push(if place > 0 { b',' } else { b'[' });
        rpc_error(&mut body, id, -32002, message, Some(session));
    }
    body.push(b']');
    if !batch {
        body = body.strip_prefix(b"[").and_then(|body| body.strip_suffix(b"]")).unwrap_or(&body).to_vec();
    }
    own(status, JSON, body)
}

/// A target that cannot be asked, as a response.
pub(crate) fn bad_gateway(status: StatusCode, session: SessionId) -> Response<ClientBody> {
    let title = match status {
        StatusCode::GATEWAY_TIMEOUT => "The target did not answer in time",
        _ => "The target cannot be reached",
    };
    let mut body = Vec::new();
    problem(&mut body, status, title, Some(session));
    own(status, PROBLEM, body)
}

/// A response of the gateway's own with a JSON body.
pub(crate) fn own(status: StatusCode, kind: HeaderValue, body: Vec<u8>) -> Response<ClientBody> {
    let mut response = Response::new(ClientBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// As [`own`], for what is not there.
pub(crate) fn not_found() -> Response<ClientBody> {
    let mut body = Vec::new();
    problem(&mut body, StatusCode::NOT_FOUND, "The gateway has no such document", None);
    own(StatusCode::NOT_FOUND, PROBLEM, body)
}

/// As [`own`], for a document that can only be read.
pub(crate) fn read_only() -> Response<ClientBody> {
    let mut body = Vec::new();
    problem(&mut body, StatusCode::METHOD_NOT_ALLOWED, "The document can only be read", None);
    let mut response = own(StatusCode::METHOD_NOT_ALLOWED, PROBLEM, body);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn finish(response: &mut Response<ClientBody>, refusal: &Refusal, context: &Context) {
    let status = response.status();
    let headers = response.headers_mut();
    if let (StatusCode::UNAUTHORIZED, Some(challenge)) = (status, &context.challenge) {
        headers.insert(WWW_AUTHENTICATE, challenge.clone());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, RETRY);
    }
    // What cannot be read, or was not read to its end, leaves the stream in no known state.
    if matches!(refusal, Refusal::Protocol { .. } | Refusal::TooLarge { .. } | Refusal::Draining) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn problem(out: &mut Vec<u8>, status: StatusCode, title: &str, session: Option<SessionId>) {
    out.extend_from_slice(b"{\"type\":\"about:blank\",\"title\":");
    json::string(out, title);
    out.extend_from_slice(b",\"status\":");
    json::unsigned(out, u64::from(status.as_u16()));
    if let Some(session) = session {
        out.extend_from_slice(b",\"detail\":");
        json::string(out, &format!("The reason is in the record of session {session}."));
    }
    out.push(b'}');
}

fn rpc_error(out: &mut Vec<u8>, id: &str, code: i32, title: &str, session: Option<SessionId>) {
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(b",\"error\":{\"code\":");
    out.extend_from_slice(code.to_string().as_bytes());
    out.extend_from_slice(b",\"message\":");
    json::string(out, title);
    if let Some(session) = session {
        out.extend_from_slice(b",\"data\":{\"session\":");
        json::string(out, &session.to_string());
        out.push(b'}');
    }
    out.extend_from_slice(b"}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_status_and_not_its_reason() {
        let reason = "secret reason".to_owned();
        for (refusal, status) in [
            (Refusal::NotAuthenticated { code: "signature", reason: reason.clone() }, 401),
            (Refusal::NotAllowed { code: "no_group", reason: reason.clone() }, 403),
            (Refusal::Undecided { code: "keys", reason: reason.clone() }, 503),
            (Refusal::NotRecorded { reason: reason.clone() }, 503),
            (Refusal::Protocol { reason: reason.clone().into() }, 400),
            (Refusal::TooLarge { length: 2, limit: 1 }, 413),
            (Refusal::Unsupported { what: "TRACE".into() }, 501),
            (Refusal::Expired, 401),
            (Refusal::Draining, 503),
        ] {
            let response = response(&refusal, &Context::default());
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503);
            let ClientBody::Whole(Some(body)) = response.body() else { panic!("a body") };
            assert!(!body.escape_ascii().to_string().contains("secret"));
            drop(serde_json::from_slice::<serde_json::Value>(body).unwrap());
        }
    }

    #[test]
    fn a_refused_call_is_answered_under_its_id() {
        let refusal = Refusal::NotAllowed { code: "rule", reason: String::new() };
        let response = rpc_response(&refusal, &["7", "\"a\""], true, &Context::default());
        assert_eq!(response.status(), 200);
        let ClientBody::Whole(Some(body)) = response.body() else { panic!("a body") };
        let answers: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(answers[0]["id"], 7);
        assert_eq!(answers[1]["id"], "a");
        assert_eq!(answers[1]["error"]["code"], -32003);
    }
}
