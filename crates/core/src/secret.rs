//! Secrets, which never show in logs, errors, records or `Debug`.

use std::fmt;

use secrecy::{ExposeSecret, SecretSlice};

/// A bearer token as a client sent it: any bytes, wiped when dropped.
pub struct Token(SecretSlice<u8>);

impl Token {
    /// Takes the token's bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the identity provider alone.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.len())
    }
}
