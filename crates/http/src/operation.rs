//! From a request to an operation: its text, and the part `request`, with credentials blotted out.
//!
//! ```json
//! { "method": "POST", "target": "/files/a?b=c", "headers": [ { "name": "Content-Type", "value": "text/plain" } ],
//!   "body": { "type": "text/plain", "value": "hello" } }
//! ```
//!
//! Names, values and order are the client's (of HTTP/2 the order of different names is not kept). A value that is no UTF-8
//! is `base64` instead. `body` is null where there is none, or where it is recorded in chunks as it streams.

use bytes::Bytes;
use http::HeaderMap;
use verbatim_core::{Part, json};

/// How long a body may be to stand in the operation itself.
pub(crate) const INLINE_MAX: usize = 64 << 10;

/// Where the fields of a request stand: as the stream brought them, or as HTTP/2 did.
pub(crate) enum Fields<'a> {
    /// The head of an HTTP/1 request.
    Head(&'a crate::guard::head::Head),
    /// The fields of an HTTP/2 request.
    Map(&'a HeaderMap),
}

impl Fields<'_> {
    fn each(&self, mut each: impl FnMut(&[u8], &[u8])) {
        match self {
            Self::Head(head) => head.fields().for_each(|(name, value)| each(name, value)),
            Self::Map(map) => {
                map.iter().for_each(|(name, value)| each(name.as_str().as_bytes(), value.as_bytes()));
            }
        }
    }
}

/// Names of fields that hold credentials, beside those in [`CREDENTIAL_WORDS`].
const CREDENTIAL_NAMES: [&str; 4] = ["x-auth", "x-auth-user", "x-session", "x-session-id"];
/// What the name of a field that holds a credential has in it.
const CREDENTIAL_WORDS: [&str; 12] = [
    "authoriz",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "api-key",
    "apikey",
    "api_key",
    "credential",
    "subscription-key",
    "functions-key",
];

/// Whether the value of a field is a credential, to go by its name. Better one too many than one in the record.
pub(crate) fn is_credential(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    CREDENTIAL_NAMES.contains(&lower.as_str()) || CREDENTIAL_WORDS.iter().any(|word| lower.contains(word))
}

/// The part `request`. `body` is the whole body where it stands inline.
pub(crate) fn request_part(text: &[u8], fields: &Fields<'_>, body: Option<(&str, &[u8])>) -> Part {
    let (method, target) = match memchr::memchr(b' ', text).and_then(|at| text.split_at_checked(at)) {
        Some((method, target)) => (method, target.get(1..).unwrap_or_default()),
        None => (text, &[][..]),
    };
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"method\":");
    bytes_value(&mut out, method);
    out.extend_from_slice(b",\"target\":");
    bytes_value(&mut out, target);
    out.extend_from_slice(b",\"headers\":");
    headers(&mut out, fields);
    out.extend_from_slice(b",\"body\":");
    match body {
        None => out.extend_from_slice(b"null"),
        Some((kind, body)) => parameter(&mut out, kind, body),
    }
    out.push(b'}');
    Part { name: "request", json: out.into() }
}

/// The part `response` of an outcome: `{ "status", "headers" }`.
pub(crate) fn response_part(status: u16, map: &HeaderMap) -> Part {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"status\":");
    json::unsigned(&mut out, u64::from(status));
    out.extend_from_slice(b",\"headers\":");
    headers(&mut out, &Fields::Map(map));
    out.push(b'}');
    Part { name: "response", json: out.into() }
}

/// Method and target as HTTP/2 brought them.
pub(crate) fn text_of(method: &http::Method, uri: &http::Uri) -> Bytes {
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    format!("{method} {target}").into()
}

fn headers(out: &mut Vec<u8>, fields: &Fields<'_>) {
    out.push(b'[');
    let mut first = true;
    fields.each(|name, value| {
        out.extend_from_slice(if std::mem::take(&mut first) { b"{\"name\":" } else { b",{\"name\":" });
        let name = std::str::from_utf8(name).unwrap_or_default();
        json::string(out, name);
        if is_credential(name) {
            out.extend_from_slice(b",\"value\":");
            json::string(out, &format!("[redacted, {} bytes]", value.len()));
        } else {
            match std::str::from_utf8(value) {
                Ok(value) => {
                    out.extend_from_slice(b",\"value\":");
                    json::string(out, value);
                }
                Err(_) => {
                    out.extend_from_slice(b",\"base64\":");
                    json::base64(out, value);
                }
            }
        }
        out.push(b'}');
    });
    out.push(b']');
}

/// In the form of a parameter: `{ "type", "value" }`, or `base64` for what is no UTF-8.
fn parameter(out: &mut Vec<u8>, kind: &str, value: &[u8]) {
    out.extend_from_slice(b"{\"type\":");
    json::string(out, kind);
    match std::str::from_utf8(value) {
        Ok(text) => {
            out.extend_from_slice(b",\"value\":");
            json::string(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b",\"base64\":");
            json::base64(out, value);
        }
    }
    out.push(b'}');
}

/// What guard and hyper let through is UTF-8 here.
fn bytes_value(out: &mut Vec<u8>, value: &[u8]) {
    json::string(out, std::str::from_utf8(value).unwrap_or_default());
}

/// The media type of a body, as sent, without its parameters.
pub(crate) fn media_type(map: &HeaderMap) -> &str {
    let value =
        map.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
    value.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_request_is_shown_as_sent_and_without_its_credentials() {
        let raw = "POST /files/a?b=%41 HTTP/1.1\r\nHOST: gw\r\nAuthorization: Bearer abc\r\nX-Api-Key: k1\r\n\
                   Cookie: a=b\r\nX-Name: \"ä\"\r\nX-Name: \u{1}\r\n\r\n";
        let raw = raw.replace("\u{1}", "two");
        let head = crate::guard::head::Head::check(Bytes::from(raw.into_bytes())).unwrap();
        let part = request_part(&head.text(), &Fields::Head(&head), Some(("text/plain", b"hi\n")));
        expect![[r#"{"method":"POST","target":"/files/a?b=%41","headers":[{"name":"HOST","value":"gw"},{"name":"Authorization","value":"[redacted, 10 bytes]"},{"name":"X-Api-Key","value":"[redacted, 2 bytes]"},{"name":"Cookie","value":"[redacted, 3 bytes]"},{"name":"X-Name","value":"\"ä\""},{"name":"X-Name","value":"two"}],"body":{"type":"text/plain","value":"hi\n"}}"#]]
            .assert_eq(std::str::from_utf8(&part.json).unwrap());
    }

    #[test]
    fn values_that_are_no_text_keep_their_bytes() {
        let mut map = HeaderMap::new();
        map.insert("x-odd", http::HeaderValue::from_bytes(b"\xff\xfe").unwrap());
        map.insert("set-cookie", http::HeaderValue::from_static("session=1"));
        let part = response_part(200, &map);
        expect![[r#"{"status":200,"headers":[{"name":"x-odd","base64":"//4="},{"name":"set-cookie","value":"[redacted, 9 bytes]"}]}"#]]
            .assert_eq(std::str::from_utf8(&part.json).unwrap());
        let part = request_part(b"PUT /", &Fields::Map(&HeaderMap::new()), Some(("unknown", b"\xff")));
        expect![[r#"{"method":"PUT","target":"/","headers":[],"body":{"type":"unknown","base64":"/w=="}}"#]]
            .assert_eq(std::str::from_utf8(&part.json).unwrap());
    }

    #[test]
    fn credentials_are_known_by_their_names() {
        for name in
            ["Authorization", "PROXY-AUTHORIZATION", "Cookie", "X-Api-Key", "apikey", "X-Amz-Security-Token"]
        {
            assert!(is_credential(name), "{name}");
        }
        for name in ["Accept", "Content-Type", "Mcp-Session-Id", "traceparent", "Host"] {
            assert!(!is_credential(name), "{name}");
        }
    }
}
