//! The greeting (Protocol::HandshakeV10), which comes before anything is known of the client: read from targets, and
//! written to clients as what their targets have in common.
//!
//! A listener of one connection shows its target's version and character set; a shared one what fits all: the version if
//! it is the same, else the lowest, and of MySQL and MariaDB together the lowest of MySQL. Capabilities are those that all have and the gateway relays.

use bytes::{BufMut, Bytes, BytesMut};

use crate::capability::{self, COMMON, FORM, MYSQL, OWN, RELAYED, SSL};
use crate::frame::{Malformed, Reader, put_text};

/// The protocol that is spoken here, by both sides.
const PROTOCOL_VERSION: u8 = 10;
/// Random bytes of a greeting, which answers to it are made from.
pub(crate) const SCRAMBLE: usize = 20;
/// The plugin that every client has.
pub(crate) const NATIVE: &[u8] = b"mysql_native_password";
/// MySQL 8's.
pub(crate) const CACHING_SHA2: &[u8] = b"caching_sha2_password";
/// What a client is told where no target could be asked.
const VERSION: &[u8] = b"8.0.0-verbatim";
/// `utf8mb4_general_ci`.
const CHARSET: u8 = 45;
/// `SERVER_STATUS_AUTOCOMMIT`.
const STATUS: u16 = 2;

/// A target's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) version: Bytes,
    pub(crate) thread_id: u32,
    pub(crate) scramble: Bytes,
    pub(crate) capabilities: u64,
    pub(crate) charset: u8,
    pub(crate) status: u16,
    /// The authentication plugin that it would begin with.
    pub(crate) plugin: Bytes,
}

impl Greeting {
    /// Reads a greeting's payload.
    pub(crate) fn read(payload: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.u8("protocol version")? != PROTOCOL_VERSION {
            return Err(Malformed { field: "protocol version" });
        }
        let version = reader.text("server version")?;
        let thread_id = reader.u32("thread id")?;
        let first = reader.take(8, "scramble")?;
        reader.take(1, "filler")?;
        let mut capabilities = u64::from(reader.u16("capabilities")?);
        let charset = reader.u8("character set")?;
        let status = reader.u16("status")?;
        capabilities |= u64::from(reader.u16("capabilities")?) << 16;
        let length = usize::from(reader.u8("scramble length")?);
        reader.take(6, "reserved")?;
        let extended = u64::from(reader.u32("reserved")?);
        if capabilities & MYSQL == 0 {
            capabilities |= extended << 32;
        }
        let mut scramble = BytesMut::from(&*first);
        let rest = reader.take(length.saturating_sub(8).max(13), "scramble")?;
        scramble.put_slice(rest.strip_suffix(b"\0").unwrap_or(&rest));
        let plugin = match capabilities & capability::PLUGIN_AUTH {
            0 => Bytes::from_static(NATIVE),
            _ => reader.last_text(),
        };
        Ok(Self { version, thread_id, scramble: scramble.freeze(), capabilities, charset, status, plugin })
    }

    /// Whether it is MariaDB, which names itself.
    pub(crate) fn is_mariadb(&self) -> bool {
        memchr::memmem::find(&self.version, b"MariaDB").is_some()
    }
}

/// What clients of a listener are told, before it is known which target they want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    version: Bytes,
    /// What a client may ask for.
    pub(crate) capabilities: u64,
    charset: u8,
    status: u16,
    plugin: &'static [u8],
}

impl Offer {
    /// What all these targets have in common.
    pub(crate) fn of(greetings: &[Greeting]) -> Self {
        let Some(first) = greetings.first() else {
            return Self {
                version: Bytes::from_static(VERSION),
                capabilities: COMMON,
                charset: CHARSET,
                status: STATUS,
                plugin: NATIVE,
            };
        };
        let all = greetings.iter().fold(u64::MAX, |all, greeting| all & greeting.capabilities);
        let mixed = greetings.iter().any(|greeting| greeting.is_mariadb() != first.is_mariadb());
        // Where one shows the bit, it stands for none of MariaDB's own.
        let mysql = greetings.iter().any(|greeting| greeting.capabilities & MYSQL != 0);
        let mut capabilities = (OWN & !MYSQL) | (all & RELAYED);
        if mysql {
            capabilities = (capabilities & u64::from(u32::MAX)) | MYSQL;
        }
        let lowest = greetings
            .iter()
            .filter(|greeting| !mixed || !greeting.is_mariadb())
            .min_by_key(|greeting| version_number(&greeting.version))
            .unwrap_or(first);
        let same = |plugin: &[u8]| greetings.iter().all(|greeting| greeting.plugin == plugin);
        Self {
            version: lowest.version.clone(),
            capabilities,
            charset: lowest.charset,
            status: lowest.status,
            plugin: if same(CACHING_SHA2) { CACHING_SHA2 } else { NATIVE },
        }
    }

    /// Whether a client that was told this, and asked for `asked`, gets from this target what it was told.
    pub(crate) fn holds_at(asked: u64, target: &Greeting) -> bool {
        asked & FORM & !target.capabilities == 0
    }

    /// The greeting's payload.
    pub(crate) fn payload(&self, thread_id: u32, scramble: &[u8; SCRAMBLE], tls: bool) -> BytesMut {
        let capabilities = if tls { self.capabilities | SSL } else { self.capabilities };
        let (first, rest) = scramble.split_at(8);
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(PROTOCOL_VERSION);
        put_text(&mut out, &self.version);
        out.put_u32_le(thread_id);
        out.put_slice(first);
        out.put_u8(0);
        out.put_u16_le(capabilities as u16);
        out.put_u8(self.charset);
        out.put_u16_le(self.status);
        out.put_u16_le((capabilities >> 16) as u16);
        out.put_u8(SCRAMBLE as u8 + 1);
        out.put_bytes(0, 6);
        out.put_u32_le((capabilities >> 32) as u32);
        out.put_slice(rest);
        out.put_u8(0);
        put_text(&mut out, self.plugin);
        out
    }
}

/// `10.11.19` of `5.5.5-10.11.19-MariaDB`, for comparison.
fn version_number(version: &[u8]) -> (u32, u32, u32) {
    let version = version.strip_prefix(b"5.5.5-").unwrap_or(version);
    let mut numbers = version.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        digits.iter().fold(0_u32, |number, digit| {
            number.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0')))
        })
    });
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::{BULK, DEPRECATE_EOF, LOCAL_FILES, QUERY_ATTRIBUTES, SESSION_TRACK};

    fn greeting(version: &'static str, capabilities: u64) -> Greeting {
        Greeting {
            version: Bytes::from_static(version.as_bytes()),
            thread_id: 7,
            scramble: Bytes::from_static(&[1; SCRAMBLE]),
            capabilities,
            charset: 45,
            status: 2,
            plugin: Bytes::from_static(NATIVE),
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for capabilities in [COMMON, (COMMON & !MYSQL) | BULK | DEPRECATE_EOF] {
            let offer = Offer::of(&[greeting("5.5.5-10.11.19-MariaDB", capabilities)]);
            let read = Greeting::read(offer.payload(7, &[1; SCRAMBLE], false).freeze()).unwrap();
            assert_eq!(read, greeting("5.5.5-10.11.19-MariaDB", capabilities));
        }
    }

    #[test]
    fn a_shared_port_offers_what_all_of_its_targets_have() {
        let mariadb =
            greeting("5.5.5-10.11.19-MariaDB", (COMMON & !MYSQL) | BULK | DEPRECATE_EOF | SESSION_TRACK);
        let mysql = greeting("8.4.3", COMMON | QUERY_ATTRIBUTES | DEPRECATE_EOF);
        let older = greeting("8.0.11", (COMMON & !LOCAL_FILES) | DEPRECATE_EOF);
        let both = Offer::of(&[mariadb.clone(), mysql.clone()]);
        assert_eq!(both.version, "8.4.3");
        assert_eq!(both.capabilities, COMMON | DEPRECATE_EOF);
        let all = Offer::of(&[mariadb.clone(), mysql.clone(), older]);
        assert_eq!(all.version, "8.0.11");
        assert_eq!(all.capabilities, (COMMON & !LOCAL_FILES) | DEPRECATE_EOF);
        let one = Offer::of(std::slice::from_ref(&mariadb));
        assert_eq!((&one.version, one.capabilities), (&mariadb.version, mariadb.capabilities));
        assert_eq!(Offer::of(&[]).capabilities, COMMON);
        assert!(!Offer::holds_at(QUERY_ATTRIBUTES, &mariadb) && Offer::holds_at(QUERY_ATTRIBUTES, &mysql));
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(version_number(b"8.0.9") < version_number(b"8.0.10"));
        assert_eq!(version_number(b"5.5.5-10.11.19-MariaDB-0+deb12u1"), (10, 11, 19));
        assert_eq!(version_number(b"99999999999999999999"), (u32::MAX, 0, 0));
        assert_eq!(version_number(b""), (0, 0, 0));
    }

    #[test]
    fn a_greeting_that_is_cut_short_is_none() {
        let whole = Offer::of(&[]).payload(1, &[7; SCRAMBLE], true).freeze();
        // The plugin's name may lack its NUL, and be anything.
        for end in 0..whole.len() - NATIVE.len() - 1 {
            assert!(Greeting::read(whole.slice(..end)).is_err(), "{end}");
        }
        assert!(Greeting::read(Bytes::from_static(b"\xff\x10\x04Too many connections")).is_err());
    }
}
