//! Which connection a request is for, and what its target looks like to the server behind it.
//!
//! ```text
//!  own listener    /a/b?c   → the listener's connection, /a/b?c
//!  a `hosts` name  /a/b?c   → that host's connection,    /a/b?c
//!  else            /x/a/b?c → connection x,              /a/b?c
//! ```
//!
//! The rest of the target goes on byte for byte, behind the path of the connection's own target. What a server could read
//! as another path than a rule does is refused instead: segments that are `.` or `..` after decoding (they would climb out
//! of the connection's path, or out of its name), a backslash, an encoded NUL.

use http::uri::{Authority, PathAndQuery};
use http::{Uri, Version};

/// A request's target, split where routing needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The host that the client asked, as it wrote it; none in HTTP/1.0 without Host.
    pub(crate) authority: Option<Authority>,
    /// The path, which begins with `/`; `*` of OPTIONS.
    pub(crate) path: String,
    /// Behind `?`.
    pub(crate) query: Option<String>,
}

impl Target {
    /// Reads the target of a request whose `Host` fields are `hosts`.
    ///
    /// # Errors
    /// What is ambiguous or illegal about it.
    pub(crate) fn read(uri: &Uri, version: Version, hosts: &[&[u8]]) -> Result<Self, &'static str> {
        let host = match hosts {
            [] => None,
            [host] => Some(authority(host)?),
            _ => return Err("more than one Host"),
        };
        if uri.authority().is_some() && uri.scheme().is_none() {
            return Err("a request target of a form that is for proxies alone");
        }
        let asked = match uri.authority() {
            None => None,
            Some(named) => Some(authority(named.as_str().as_bytes())?),
        };
        let authority = match (asked, host) {
            // RFC 9112 has the absolute form win; a difference is nobody's honest request.
            (Some(asked), Some(host)) if !same(&asked, &host) => {
                return Err("the request target and Host name different hosts");
            }
            (Some(asked), _) => Some(asked),
            (None, host) => host,
        };
        if authority.is_none() && version != Version::HTTP_10 {
            return Err("no Host");
        }
        let path = match uri.path() {
            "" => "/",
            path => path,
        };
        if path != "*" {
            check_path(path)?;
        }
        Ok(Self { authority, path: path.to_owned(), query: uri.query().map(str::to_owned) })
    }

    /// The host's name in lower case, without its port.
    pub(crate) fn host(&self) -> Option<String> {
        self.authority.as_ref().map(|authority| authority.host().to_ascii_lowercase())
    }

    /// The path's first segment, and what follows it.
    pub(crate) fn first_segment(&self) -> (&str, &str) {
        let path = self.path.strip_prefix('/').unwrap_or(&self.path);
        match path.find('/').and_then(|at| path.split_at_checked(at)) {
            Some((segment, rest)) => (segment, rest),
            None => (path, "/"),
        }
    }

    /// The target behind a prefix: what the server gets. `rest` is the path without the connection's name.
    ///
    /// # Errors
    /// It is no URI any more: too long.
    pub(crate) fn behind(&self, prefix: &str, rest: &str) -> Result<PathAndQuery, &'static str> {
        let whole = match (&self.query, prefix.is_empty()) {
            (None, true) => rest.to_owned(),
            (None, false) => format!("{prefix}{rest}"),
            (Some(query), _) => format!("{prefix}{rest}?{query}"),
        };
        PathAndQuery::try_from(whole).map_err(|_| "the request target is no URI reference")
    }
}

/// A host, with a port or without: no user, no empty name, none of the characters that servers disagree about.
fn authority(text: &[u8]) -> Result<Authority, &'static str> {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(byte);
    if text.is_empty() || !text.iter().all(legal) {
        return Err("Host is no host name");
    }
    let authority = Authority::try_from(text).map_err(|_| "Host is no host name")?;
    let port = authority.as_str().get(authority.host().len()..).unwrap_or_default();
    let number = port.is_empty() || port == ":" || authority.port_u16().is_some_and(|port| port > 0);
    if authority.host().is_empty() || !number {
        return Err("Host is no host name");
    }
    Ok(authority)
}

fn same(one: &Authority, other: &Authority) -> bool {
    let port = |authority: &Authority| authority.port_u16().filter(|port| !matches!(port, 80 | 443));
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("the request target is no path");
    }
    let mut rest = path;
    while let Some((_, after)) = rest.split_once('%') {
        let digits = after.as_bytes().get(..2).unwrap_or_default();
        if digits.len() < 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("a percent sign without two hexadecimal digits");
        }
        if digits == b"00" {
            return Err("an encoded NUL in the path");
        }
        rest = after;
    }
    if path.contains('\\') {
        return Err("a backslash in the path");
    }
    // Encoded slashes and backslashes are slashes to some servers, and what follows `;` is a parameter to some.
    let decoded = decode(path);
    let climbs = decoded.split(['/', '\\']).any(|segment| {
        let name = segment.split(';').next().unwrap_or_default();
        name == "." || name == ".."
    });
    if climbs { Err("a path with . or .. as a segment") } else { Ok(()) }
}

/// Percent-decodes once; bytes that are no ASCII become a replacement, since only dots and slashes are looked for.
fn decode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let value = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match value {
            Some(byte) if byte.is_ascii() => out.push(char::from(byte)),
            _ => out.push(char::REPLACEMENT_CHARACTER),
        }
        rest = after.get(2..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The one normal form of a path, for rules: unreserved characters decoded, the digits of what stays encoded in upper case,
/// repeated slashes merged, parameters (`;…`) of segments left out. The server gets the path as sent.
///
/// What passed [`Target::read`] has no `.` and `..` segments left that this could resolve.
pub(crate) fn normal_form(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.get(..2).unwrap_or_default();
        match u8::from_str_radix(digits, 16) {
            Ok(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = after.get(digits.len()..).unwrap_or_default();
    }
    out.push_str(rest);
    let segments: Vec<&str> = out
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default())
        .filter(|segment| !segment.is_empty())
        .collect();
    let end = if out.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str, hosts: &[&str]) -> Result<Target, &'static str> {
        let hosts: Vec<&[u8]> = hosts.iter().map(|host| host.as_bytes()).collect();
        Target::read(&target.parse().unwrap(), Version::HTTP_11, &hosts)
    }

    #[test]
    fn a_target_is_split_without_a_change() {
        let target = read("/files/a%2Fb//c;d?e=%41&f", &["gw:8443"]).unwrap();
        assert_eq!(target.first_segment(), ("files", "/a%2Fb//c;d"));
        assert_eq!(target.behind("", "/a%2Fb//c;d").unwrap().as_str(), "/a%2Fb//c;d?e=%41&f");
        assert_eq!(target.behind("/v1", "/a%2Fb//c;d").unwrap().as_str(), "/v1/a%2Fb//c;d?e=%41&f");
        assert_eq!(read("/files", &["gw"]).unwrap().first_segment(), ("files", "/"));
        let target = read("/files?q", &["gw"]).unwrap();
        assert_eq!(target.behind("", target.first_segment().1).unwrap().as_str(), "/?q");
        assert_eq!(read("http://gw:80/x", &["GW"]).unwrap().host().as_deref(), Some("gw"));
        assert_eq!(read("/x", &["[::1]:80"]).unwrap().host().as_deref(), Some("[::1]"));
    }

    #[test]
    fn bad_hosts_are_refused() {
        for hosts in [
            &[][..],
            &["a", "a"],
            &[""],
            &["a b"],
            &["a/b"],
            &["u@a"],
            &["a:"],
            &["a:0"],
            &["a:x"],
            &["a:99999"],
            &["a,b"],
            &["a\tb"],
            &["[::1"],
            &[":80"],
        ] {
            // An empty port is legal, and the same host.
            let legal = hosts == ["a:"];
            assert_eq!(read("/x", hosts).is_ok(), legal, "{hosts:?}");
        }
        assert!(read("http://b/x", &["a"]).is_err());
        assert!(read("http://a:81/x", &["a"]).is_err());
        assert!(read("http://u@a/x", &["a"]).is_err());
    }

    #[test]
    fn what_climbs_is_refused_however_it_is_written() {
        for path in [
            "/x/..",
            "/x/../y",
            "/./x",
            "/x/%2e%2e/y",
            "/x/%2E./y",
            "/x/..;a=b/y",
            "/x/..%2fy",
            "/x/%2e%2e%5cy",
            "/x\\..\\y",
            "/x%00",
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
        for path in ["/x/...", "/x/.hidden", "/x/a..b", "/x/%252e%252e", "//x", "/"] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        assert!(check_path("/x%2").is_err() && check_path("/x%zz").is_err());
    }

    #[test]
    fn rules_see_one_form() {
        for (path, form) in [
            ("/a/b", "/a/b"),
            ("//a///b/", "/a/b/"),
            ("/%61/%42%7e", "/a/B~"),
            ("/a%2fb", "/a%2Fb"),
            ("/a;x=1/b;y", "/a/b"),
            ("/", "/"),
            ("/%c3%a4", "/%C3%A4"),
        ] {
            assert_eq!(normal_form(path), form);
            assert_eq!(normal_form(form), form, "it is a fixed point");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_makes_it_fail(path in "/[a%2eEfF./;\\\\ä]{0,30}") {
            if check_path(&path).is_ok() {
                let form = normal_form(&path);
                proptest::prop_assert!(form.starts_with('/'));
                proptest::prop_assert!(!form.split('/').any(|segment| segment == ".." || segment == "."));
                proptest::prop_assert_eq!(normal_form(&form), form.clone());
            }
        }
    }
}
