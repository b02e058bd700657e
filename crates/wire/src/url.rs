//! The URL of a target: `scheme://[user@]host[:port][/path][?sslmode=…]`.

use std::fmt;
use std::net::IpAddr;

use crate::{SslMode, TargetTlsError};

const KNOWN: &str = "sslmode";

/// What a target's URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUrl {
    /// One of those that were asked for.
    pub scheme: String,
    /// The gateway's user there.
    pub user: Option<String>,
    /// A name or an address (an IPv6 one without brackets).
    pub host: String,
    /// From 1; none where the URL names none.
    pub port: Option<u16>,
    /// Behind the `/`, decoded: a database; none where it is empty.
    pub path: Option<String>,
    /// As written.
    pub sslmode: Option<SslMode>,
}

/// What is wrong with a target. No variant holds the URL, since a password may be in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// Another scheme, or none.
    #[error("a target of this type begins with {}", .known.join(" or "))]
    Scheme {
        /// Those that are taken, with `://`.
        known: Vec<String>,
    },
    /// `user:password@`.
    #[error(
        "a password does not belong in the URL: put it into `credential`, as {{ env = … }} or {{ file = … }}"
    )]
    Password,
    /// No user.
    #[error("the URL names no user: …://user@host/…")]
    User,
    /// No host, several hosts, a path of a socket, or no name that TLS can check.
    #[error("{host:?} is no host: one name, IPv4 address or [IPv6 address] is expected")]
    Host {
        /// As written.
        host: String,
    },
    /// No number from 1 to 65535.
    #[error("{port:?} is no port")]
    Port {
        /// As written.
        port: String,
    },
    /// A `%` without two hexadecimal digits, bytes that are no UTF-8, or a NUL.
    #[error("the {part} is not percent-encoded UTF-8")]
    Encoding {
        /// Which part of the URL.
        part: &'static str,
    },
    /// A query parameter that nobody here reads.
    #[error("unknown parameter {name:?} in the URL; known: {KNOWN}")]
    Parameter {
        /// Its name.
        name: String,
    },
    /// A query parameter that is there twice.
    #[error("parameter {name:?} is in the URL twice")]
    Twice {
        /// Its name.
        name: &'static str,
    },
    /// Another `sslmode`.
    #[error("sslmode {value:?} is none of disable, require, verify-ca, verify-full")]
    SslMode {
        /// As written.
        value: String,
    },
    /// `#…`.
    #[error("a target's URL has no fragment; write # as %23")]
    Fragment,
    /// The credential cannot be sent.
    #[error("the credential holds a NUL")]
    CredentialNul,
    /// The TLS settings.
    #[error(transparent)]
    Tls(#[from] TargetTlsError),
    /// What only one protocol minds.
    #[error("{reason}")]
    Other {
        /// In words, without the URL.
        reason: String,
    },
}

impl TargetUrl {
    /// Reads a URL with one of these schemes.
    ///
    /// # Errors
    /// The URL has a mistake; no text of a password in it is in the error.
    pub fn parse(url: &str, schemes: &[&str]) -> Result<Self, InvalidTarget> {
        let another =
            || InvalidTarget::Scheme { known: schemes.iter().map(|scheme| format!("{scheme}://")).collect() };
        let (scheme, rest) = url.split_once("://").ok_or_else(another)?;
        if !schemes.contains(&scheme) {
            return Err(another());
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        // Before anything that an error could quote.
        if user.is_some_and(|user| user.contains(':')) {
            return Err(InvalidTarget::Password);
        }
        if rest.contains('#') {
            return Err(InvalidTarget::Fragment);
        }
        let user = match user.map(|user| decoded(user, "user")).transpose()? {
            Some(empty) if empty.is_empty() => return Err(InvalidTarget::User),
            user => user,
        };
        let (host, port) = host_and_port(address)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = match path.strip_prefix('/').unwrap_or(path) {
            "" => None,
            path => Some(decoded(path, "path")?),
        };
        Ok(Self { scheme: scheme.to_owned(), user, host, port, path, sslmode: sslmode(query)? })
    }

    /// `sslmode`, or what it is where the URL leaves it out: `disable` where the host is loopback, else `verify-full`.
    pub fn sslmode_or_default(&self) -> SslMode {
        self.sslmode.unwrap_or(match self.is_loopback() {
            true => SslMode::Disable,
            false => SslMode::VerifyFull,
        })
    }

    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

/// `host:port`, an IPv6 address in brackets, as the record names targets.
pub struct HostPort<'a>(pub &'a str, pub u16);

impl fmt::Display for HostPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.contains(':') {
            true => write!(f, "[{}]:{}", self.0, self.1),
            false => write!(f, "{}:{}", self.0, self.1),
        }
    }
}

fn host_and_port(address: &str) -> Result<(String, Option<u16>), InvalidTarget> {
    let wrong = || InvalidTarget::Host { host: address.to_owned() };
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or_else(wrong)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or_else(wrong)?),
            };
            (host.to_owned(), port)
        }
        None => {
            let (host, port) = match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            };
            (decoded(host, "host")?, port)
        }
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(legal) {
        return Err(wrong());
    }
    let port = match port {
        None => None,
        Some(port) => match port.parse() {
            Ok(number @ 1..) => Some(number),
            _ => return Err(InvalidTarget::Port { port: port.to_owned() }),
        },
    };
    Ok((host, port))
}

fn sslmode(query: &str) -> Result<Option<SslMode>, InvalidTarget> {
    let mut sslmode = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name, "query")?;
        match name.as_str() {
            "sslmode" => {}
            "password" | "sslpassword" => return Err(InvalidTarget::Password),
            _ => return Err(InvalidTarget::Parameter { name }),
        }
        let value = decoded(value, "query")?;
        let mode = match value.as_str() {
            "disable" => SslMode::Disable,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return Err(InvalidTarget::SslMode { value }),
        };
        if sslmode.replace(mode).is_some() {
            return Err(InvalidTarget::Twice { name: "sslmode" });
        }
    }
    Ok(sslmode)
}

fn decoded(text: &str, part: &'static str) -> Result<String, InvalidTarget> {
    let wrong = InvalidTarget::Encoding { part };
    let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8);
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => match (hex(bytes.next()), hex(bytes.next())) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(wrong),
            },
            byte => byte,
        });
    }
    match String::from_utf8(out) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(wrong),
    }
}

#[cfg(test)]
mod tests;
