//! `/.well-known/`, which is the gateway's own on every listener: where a client gets its token (RFC 9728).

use http::uri::Authority;
use http::{HeaderValue, Method, Response, StatusCode};
use verbatim_core::json;
use verbatim_wire::Discovery;

use crate::body::ClientBody;
use crate::refusal;
use crate::route::Target;

pub(crate) const WELL_KNOWN: &str = "/.well-known/";
const RESOURCE: &str = "/.well-known/oauth-protected-resource";

/// Answers a request below `/.well-known/`.
pub(crate) fn answer(
    method: &Method,
    target: &Target,
    secure: bool,
    discovery: Option<&Discovery>,
) -> Response<ClientBody> {
    let (Some(resource), Some(discovery)) = (target.path.strip_prefix(RESOURCE), discovery) else {
        return refusal::not_found();
    };
    if !(resource.is_empty() || resource.starts_with('/')) {
        return refusal::not_found();
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return refusal::read_only();
    }
    let mut out = Vec::new();
    out.extend_from_slice(b"{\"resource\":");
    json::string(&mut out, &format!("{}{}", origin(target.authority.as_ref(), secure), resource));
    out.extend_from_slice(b",\"authorization_servers\":[");
    json::string(&mut out, &discovery.issuer);
    out.extend_from_slice(b"],\"scopes_supported\":[");
    json::string(&mut out, &discovery.scope);
    out.extend_from_slice(b"],\"bearer_methods_supported\":[\"header\"]}");
    refusal::own(StatusCode::OK, HeaderValue::from_static("application/json"), out)
}

/// What a 401 says: where the document for this very resource is, and what was wrong with a token that came.
pub(crate) fn challenge(target: &Target, secure: bool, error: Option<&str>) -> Option<HeaderValue> {
    let origin = origin(target.authority.as_ref(), secure);
    let path = if target.path == "/" { "" } else { &target.path };
    let error = error.map(|error| format!("error=\"{error}\", ")).unwrap_or_default();
    // A path that cannot stand in quotes is left out: the document is the same at the top.
    let path =
        if path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte)) { path } else { "" };
    HeaderValue::try_from(format!("Bearer {error}resource_metadata=\"{origin}{RESOURCE}{path}\"")).ok()
}

fn origin(authority: Option<&Authority>, secure: bool) -> String {
    let scheme = if secure { "https" } else { "http" };
    format!("{scheme}://{}", authority.map_or("localhost", Authority::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        Target::read(&path.parse().unwrap(), http::Version::HTTP_11, &[b"gw:8443"]).unwrap()
    }

    #[test]
    fn a_client_finds_where_its_token_comes_from() {
        let challenge = challenge(&target("/tools/mcp"), true, Some("invalid_token")).unwrap();
        assert_eq!(
            challenge,
            "Bearer error=\"invalid_token\", \
             resource_metadata=\"https://gw:8443/.well-known/oauth-protected-resource/tools/mcp\""
        );
        let discovery = Discovery {
            issuer: "https://login.example/t/v2.0".into(),
            openid_configuration: "https://login.example/t/v2.0/.well-known/openid-configuration".into(),
            scope: "api://gateway/connect".into(),
        };
        let document = |path: &str| answer(&Method::GET, &target(path), true, Some(&discovery));
        let response = document("/.well-known/oauth-protected-resource/tools/mcp");
        let ClientBody::Whole(Some(body)) = response.body() else { panic!("a body") };
        let read: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(read["resource"], "https://gw:8443/tools/mcp");
        assert_eq!(read["authorization_servers"][0], "https://login.example/t/v2.0");
        assert_eq!(document("/.well-known/openid-configuration").status(), 404);
        assert_eq!(document("/.well-known/oauth-protected-resources").status(), 404);
    }
}
