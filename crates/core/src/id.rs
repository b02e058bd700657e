//! Names and numbers that hold only legal values.

use std::fmt;
use std::str::FromStr;

/// A session's identifier: a UUID of version 7, so that identifiers sort by the time they were made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(uuid::Uuid);

impl SessionId {
    /// A new identifier, from the clock and a random number.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7())
    }

    /// The identifier with these sixteen bytes, as a ledger frame stores them (big endian).
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes, big endian.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| InvalidSessionId)
    }
}

/// The text is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a session id (a UUID is expected)")]
pub struct InvalidSessionId;

/// The name of a configured connection: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionName(std::sync::Arc<str>);

impl ConnectionName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for ConnectionName {
    type Err = InvalidConnectionName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |(place, byte): (usize, u8)| match byte {
            b'a'..=b'z' | b'0'..=b'9' => true,
            b'.' | b'_' | b'-' => place > 0,
            _ => false,
        };
        if text.is_empty() || text.len() > 63 || !text.bytes().enumerate().all(legal) {
            return Err(InvalidConnectionName);
        }
        Ok(Self(text.into()))
    }
}

/// The text is no connection name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a connection's name is 1 to 63 of a-z, 0-9, '.', '_', '-', and begins with a letter or a digit")]
pub struct InvalidConnectionName;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_names_hold_only_legal_values() {
        let longest = "a".repeat(63);
        for legal in ["a", "customer-db", "0.a_b-c", longest.as_str()] {
            assert_eq!(legal.parse::<ConnectionName>().unwrap().as_str(), legal);
        }
        let too_long = "a".repeat(64);
        for illegal in ["", "-a", ".a", "A", "a b", "a/b", "ä", "a\0", too_long.as_str()] {
            assert_eq!(illegal.parse::<ConnectionName>(), Err(InvalidConnectionName), "{illegal:?}");
        }
    }
}
