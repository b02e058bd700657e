//! The packets that end an answer: OK, ERR and EOF, as far as the record and the relay mind them.

use bytes::{BufMut, Bytes, BytesMut};
use verbatim_core::TargetError;

use crate::capability::SESSION_TRACK;
use crate::frame::{Malformed, Reader, readable};

/// The first bytes of packets.
pub(crate) const OK: u8 = 0x00;
pub(crate) const LOCAL_INFILE: u8 = 0xfb;
pub(crate) const EOF: u8 = 0xfe;
pub(crate) const ERR: u8 = 0xff;

/// `SERVER_MORE_RESULTS_EXISTS`: another answer follows.
pub(crate) const MORE_RESULTS: u16 = 0x0008;
/// `SERVER_STATUS_CURSOR_EXISTS`: the rows are fetched.
pub(crate) const CURSOR_EXISTS: u16 = 0x0040;
/// The code of an ERR packet that only says how far a statement is (MariaDB).
pub(crate) const PROGRESS: u16 = 0xffff;

/// How many bytes of an error's or an OK's text are kept; servers stop at 512 and 4096.
const TEXT_MAX: usize = 4 << 10;

/// An ERR packet.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ErrPacket {
    pub(crate) code: u16,
    /// Five characters; none where the server left it out, as it does before the login.
    pub(crate) state: Option<String>,
    pub(crate) message: String,
}

/// Prints no message: it may quote data.
impl std::fmt::Debug for ErrPacket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ErrPacket({}, {} bytes)", self.code, self.message.len())
    }
}

impl ErrPacket {
    /// Reads a payload that begins with [`ERR`]; what is missing stays empty.
    pub(crate) fn read(payload: &[u8]) -> Self {
        let rest = payload.get(1..).unwrap_or_default();
        let (code, rest) = match rest.split_first_chunk::<2>() {
            Some((code, rest)) => (u16::from_le_bytes(*code), rest),
            None => (0, rest),
        };
        let (state, text) = match rest.strip_prefix(b"#").and_then(|rest| rest.split_at_checked(5)) {
            Some((state, text)) => (Some(readable(state)), text),
            None => (None, rest),
        };
        let message = readable(text.get(..TEXT_MAX).unwrap_or(text));
        Self { code, state, message }
    }

    /// As the record holds it.
    pub(crate) fn error(self) -> TargetError {
        TargetError { code: self.code.to_string(), message: self.message }
    }
}

/// An ERR packet's payload.
pub(crate) fn err(code: u16, state: &str, message: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(16 + message.len());
    out.put_u8(ERR);
    out.put_u16_le(code);
    out.put_u8(b'#');
    out.put_slice(state.as_bytes());
    out.put_slice(message.as_bytes());
    out.freeze()
}

/// An OK packet's payload: nothing affected.
pub(crate) fn ok(status: u16) -> Bytes {
    let mut out = BytesMut::with_capacity(8);
    out.put_slice(&[OK, 0, 0]);
    out.put_u16_le(status & !MORE_RESULTS);
    out.put_u16_le(0);
    out.freeze()
}

/// What an OK or EOF packet says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// Rows affected; none in an EOF.
    pub(crate) affected: Option<u64>,
    pub(crate) status: u16,
    pub(crate) warnings: u16,
    /// `Rows matched: 1  Changed: 1  Warnings: 0`, for the most part nothing.
    pub(crate) info: String,
}

impl Done {
    /// Reads an OK packet, which a result set's end begins with [`EOF`] if that is deprecated.
    pub(crate) fn ok(payload: Bytes, capabilities: u64) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        reader.u8("OK")?;
        let affected = reader.lenenc("affected rows")?;
        reader.lenenc("last insert id")?;
        let status = reader.u16("status")?;
        let warnings = reader.u16("warnings")?;
        let rest = reader.rest().clone();
        let info = match reader.bytes("info") {
            // Of a long packet only the beginning is here.
            _ if rest.is_empty() => Bytes::new(),
            Ok(info) if capabilities & SESSION_TRACK != 0 || reader.rest().is_empty() => info,
            Err(_) if capabilities & SESSION_TRACK != 0 => Bytes::new(),
            // Documentation has it without a length there, servers write one all the same.
            _ => rest,
        };
        let info = readable(info.get(..TEXT_MAX).unwrap_or(&info));
        Ok(Self { affected: Some(affected), status, warnings, info })
    }

    /// Reads an EOF packet of the older form.
    pub(crate) fn eof(payload: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        reader.u8("EOF")?;
        let warnings = reader.u16("warnings")?;
        let status = reader.u16("status")?;
        Ok(Self { affected: None, status, warnings, info: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_with_and_without_their_state_and_in_any_character_set() {
        let read = ErrPacket::read(b"\xff\x26\x04#23000Duplicate entry '\xe4'");
        assert_eq!((read.code, read.state.as_deref()), (1062, Some("23000")));
        assert_eq!(read.message, "Duplicate entry '\\xe4'");
        let early = ErrPacket::read(b"\xff\x10\x04Too many connections");
        assert_eq!((early.code, early.state, &*early.message), (1040, None, "Too many connections"));
        assert_eq!(ErrPacket::read(b"\xff").code, 0);
        assert_eq!(ErrPacket::read(&err(1062, "23000", "no")).message, "no");
    }

    #[test]
    fn what_came_of_a_statement_is_read() {
        let done = Done::ok(Bytes::from_static(b"\0\x02\0\x0a\0\x01\0Records: 2"), 0).unwrap();
        let expected = Done { affected: Some(2), status: 10, warnings: 1, info: "Records: 2".into() };
        assert_eq!(done, expected);
        let counted = Done::ok(Bytes::from_static(b"\0\x02\0\x0a\0\x01\0\x0aRecords: 2"), 0).unwrap();
        assert_eq!(counted, expected);
        let tracked =
            Done::ok(Bytes::from_static(b"\xfe\0\0\x02\x40\0\0\x02hi\x03\x01\x01\x00"), SESSION_TRACK);
        assert_eq!(tracked.unwrap().info, "hi");
        let eof = Done::eof(Bytes::from_static(b"\xfe\x03\0\x42\0")).unwrap();
        assert_eq!((eof.affected, eof.warnings, eof.status), (None, 3, 0x42));
        assert!(Done::ok(Bytes::from_static(b"\0\x02"), 0).is_err() && Done::eof(Bytes::new()).is_err());
        assert_eq!(Done::ok(ok(0x000a), 0).unwrap().status, 2);
    }
}
