//! Which header fields go on, and which are between two neighbours alone.
//!
//! Dropped both ways: `Connection` and what it names, `Keep-Alive`, `Proxy-*`, `Transfer-Encoding`, `Upgrade`, `TE` but for
//! `trailers` (RFC 9110, section 7.6.1). To the target also: `Authorization` (the client's token is the gateway's
//! alone), the field of the gateway's own credential, `Host`, `Expect` (the gateway answered it), and what clients claim
//! about the way a request took or should have taken (`Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `X-Original-URL`, …).
//! To the client also: `Alt-Svc`, which would lead it around the gateway.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, LOCATION, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::target::HttpTarget;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const ALT_SVC: HeaderName = HeaderName::from_static("alt-svc");
const CONTENT_LOCATION: HeaderName = HeaderName::from_static("content-location");

/// Claims about a request's way.
const CLAIMS: [&str; 9] = [
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "http2-settings",
];

/// Whether a request asks for another protocol on its stream; which.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    names(headers).iter().any(|name| name == "upgrade").then(|| headers.get(UPGRADE).cloned()).flatten()
}

/// What `Connection` names, in lower case.
fn names(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

fn drop_neighbours(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in names(headers) {
            headers.remove(name.as_str());
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    let trailers = headers.remove(TE).is_some_and(|value| {
        value
            .to_str()
            .is_ok_and(|te| te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
    });
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Makes a request's fields the target's: see the module.
pub(crate) fn to_target(headers: &mut HeaderMap, target: &HttpTarget) {
    drop_neighbours(headers);
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION, EXPECT, HOST, FORWARDED] {
        headers.remove(name);
    }
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-forwarded") || CLAIMS.contains(&name.as_str()))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
    if let Some((name, value)) = &target.credential {
        headers.insert(name.clone(), value.clone());
    }
}

/// Makes a response's fields the client's. `home` is where the connection is for the client: what stands before paths.
pub(crate) fn to_client(headers: &mut HeaderMap, target: &HttpTarget, home: &str) {
    drop_neighbours(headers);
    headers.remove(ALT_SVC);
    for name in [LOCATION, CONTENT_LOCATION] {
        let moved = headers.get(&name).and_then(|value| at_home(value.to_str().ok()?, target, home));
        if let Some(moved) = moved.and_then(|moved| HeaderValue::try_from(moved).ok()) {
            headers.insert(name, moved);
        }
    }
}

/// A reference into the target as the client has to write it; none where it can stay, or leads elsewhere.
pub(crate) fn at_home(reference: &str, target: &HttpTarget, home: &str) -> Option<String> {
    let authority = target.authority.to_str().ok()?;
    let absolute = reference
        .strip_prefix(target.scheme())
        .and_then(|rest| rest.strip_prefix("://"))
        .and_then(|rest| rest.strip_prefix(authority))
        .filter(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
    let path = match absolute {
        Some("") => "/",
        Some(path) => path,
        None if reference.starts_with('/') && !reference.starts_with("//") => reference,
        None => return None,
    };
    let inside = match path.strip_prefix(target.prefix.as_str()) {
        Some("") => "/",
        Some(inside) if inside.starts_with(['/', '?', '#']) => inside,
        // Outside of what the connection shows: it cannot be reached, and stays as it is.
        _ => return None,
    };
    Some(format!("{home}{inside}"))
}

/// A trailer section without the fields that may not stand there (RFC 9110, section 6.5.1).
pub(crate) fn trailers(mut trailers: HeaderMap) -> HeaderMap {
    for name in [
        AUTHORIZATION,
        PROXY_AUTHORIZATION,
        CONNECTION,
        CONTENT_LENGTH,
        COOKIE,
        EXPECT,
        HOST,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        trailers.remove(name);
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    fn target() -> HttpTarget {
        let settings = verbatim_wire::TargetSettings {
            kind: "http",
            url: "http://api:81/v1",
            credential: Some("own".to_owned().into()),
            tls: verbatim_wire::TargetTls::default(),
            connect_timeout: std::time::Duration::from_secs(1),
            options: &(),
        };
        HttpTarget::new(settings).unwrap()
    }

    #[test]
    fn what_is_between_neighbours_or_claimed_does_not_go_on() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "1"),
            ("te", "trailers, deflate"),
            ("authorization", "Bearer of the client"),
            ("proxy-authorization", "x"),
            ("host", "gw"),
            ("expect", "100-continue"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "evil"),
            ("x-original-url", "/admin"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("accept", "*/*"),
            ("cookie", "a=b"),
        ]);
        to_target(&mut headers, &target());
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(left, ["accept: */*", "authorization: Bearer own", "cookie: a=b", "te: trailers"]);
    }

    #[test]
    fn redirections_lead_back_through_the_gateway() {
        for (location, home) in [
            ("/v1/x?y", Some("/api/x?y")),
            ("/v1", Some("/api/")),
            ("http://api:81/v1/x", Some("/api/x")),
            ("/other", None),
            ("/v12/x", None),
            ("//elsewhere/v1/x", None),
            ("http://api:812/v1/x", None),
            ("https://login.example/", None),
            ("x", None),
        ] {
            assert_eq!(at_home(location, &target(), "/api").as_deref(), home, "{location}");
        }
        let mut headers = map(&[("location", "/v1/x"), ("alt-svc", "h3=\":443\""), ("connection", "close")]);
        to_client(&mut headers, &target(), "");
        assert_eq!((headers.len(), headers.get(LOCATION).unwrap().to_str().unwrap()), (1, "/x"));
    }
}
