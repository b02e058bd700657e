//! The URL of a target.

use super::{SslMode, TargetTlsError};

const PORT: u16 = 5432;
const KNOWN: &str = "sslmode";

/// What a target's URL says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) user: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: Option<String>,
    pub(super) sslmode: Option<SslMode>,
}

/// What is wrong with a target. No variant holds the URL, since a password may be in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// Another scheme, or none.
    #[error("a target of type postgres is postgres://user@host:5432/database?sslmode=verify-full")]
    Scheme,
    /// `user:password@`.
    #[error(
        "a password does not belong in the URL: put it into `credential`, as {{ env = … }} or {{ file = … }}"
    )]
    Password,
    /// No user.
    #[error("the URL names no user: postgres://user@host/…")]
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
}

pub(super) fn parse(url: &str) -> Result<Parts, InvalidTarget> {
    let (scheme, rest) = url.split_once("://").ok_or(InvalidTarget::Scheme)?;
    if !["postgres", "postgresql"].contains(&scheme) {
        return Err(InvalidTarget::Scheme);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let (user, address) = authority.rsplit_once('@').ok_or(InvalidTarget::User)?;
    // Before anything that an error could quote.
    if user.contains(':') {
        return Err(InvalidTarget::Password);
    }
    if rest.contains('#') {
        return Err(InvalidTarget::Fragment);
    }
    let user = decoded(user, "user")?;
    if user.is_empty() {
        return Err(InvalidTarget::User);
    }
    let (host, port) = host_and_port(address)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let database = match path.strip_prefix('/').unwrap_or(path) {
        "" => None,
        database => Some(decoded(database, "database")?),
    };
    Ok(Parts { user, host, port, database, sslmode: sslmode(query)? })
}

fn host_and_port(address: &str) -> Result<(String, u16), InvalidTarget> {
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
        None => PORT,
        Some(port) => match port.parse() {
            Ok(number @ 1..) => number,
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
