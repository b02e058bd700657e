//! One message: its kind, its length, its body as a slice.
//!
//! A message of the ready phase is one byte of kind, four of length (themselves included), and a body. Lengths are
//! checked against what is allowed before anything is allocated; what has not arrived yet is a value, not an error.
//! (PostgreSQL 18 documentation, sections 54.1 and 54.7.)

use bytes::{BufMut, Bytes, BytesMut};
use verbatim_core::Refusal;

/// Bytes before a message's body.
pub(crate) const HEADER: usize = 5;
/// How long the server lets messages be whose body is a name or nothing (`PQ_SMALL_MESSAGE_LIMIT`).
const SMALL_MAX: u64 = 10_000;

/// Kinds of messages from the client.
pub(crate) mod client {
    pub(crate) const BIND: u8 = b'B';
    pub(crate) const CLOSE: u8 = b'C';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_FAIL: u8 = b'f';
    pub(crate) const DESCRIBE: u8 = b'D';
    pub(crate) const EXECUTE: u8 = b'E';
    pub(crate) const FLUSH: u8 = b'H';
    pub(crate) const FUNCTION_CALL: u8 = b'F';
    pub(crate) const PARSE: u8 = b'P';
    pub(crate) const PASSWORD: u8 = b'p';
    pub(crate) const QUERY: u8 = b'Q';
    pub(crate) const SYNC: u8 = b'S';
    pub(crate) const TERMINATE: u8 = b'X';
}

/// Kinds of messages from the target.
pub(crate) mod target {
    pub(crate) const BIND_COMPLETE: u8 = b'2';
    pub(crate) const CLOSE_COMPLETE: u8 = b'3';
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    pub(crate) const COPY_BOTH_RESPONSE: u8 = b'W';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_IN_RESPONSE: u8 = b'G';
    pub(crate) const COPY_OUT_RESPONSE: u8 = b'H';
    pub(crate) const DATA_ROW: u8 = b'D';
    pub(crate) const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub(crate) const ERROR_RESPONSE: u8 = b'E';
    pub(crate) const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub(crate) const NO_DATA: u8 = b'n';
    pub(crate) const NOTICE_RESPONSE: u8 = b'N';
    pub(crate) const NOTIFICATION_RESPONSE: u8 = b'A';
    pub(crate) const PARAMETER_DESCRIPTION: u8 = b't';
    pub(crate) const PARAMETER_STATUS: u8 = b'S';
    pub(crate) const PARSE_COMPLETE: u8 = b'1';
    pub(crate) const PORTAL_SUSPENDED: u8 = b's';
    pub(crate) const READY_FOR_QUERY: u8 = b'Z';
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';
}

/// A message whose header was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its kind.
    pub(crate) kind: u8,
    /// Its length, header included.
    pub(crate) length: usize,
}

/// Reads the header of the client's message that begins `bytes`; `None` until enough of it is there. `limit` is what a
/// whole message may measure.
///
/// # Errors
/// The kind is none that a logged-in client may send, or the length is none that a message of this kind can have.
pub(crate) fn client_head(bytes: &[u8], limit: u64) -> Result<Option<Head>, Refusal> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let small = match kind {
        client::CLOSE
        | client::COPY_DONE
        | client::DESCRIBE
        | client::EXECUTE
        | client::FLUSH
        | client::SYNC
        | client::TERMINATE => true,
        client::BIND
        | client::COPY_DATA
        | client::COPY_FAIL
        | client::FUNCTION_CALL
        | client::PARSE
        | client::QUERY => false,
        client::PASSWORD => {
            return Err(Refusal::Protocol { reason: "a password message after the login".into() });
        }
        unknown => {
            return Err(Refusal::Protocol {
                reason: format!("an unknown message type {unknown:#04x}").into(),
            });
        }
    };
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    // The wire's length is signed; what is negative there is far over every limit here.
    let length = u64::from(u32::from_be_bytes(*length));
    if length < 4 {
        return Err(Refusal::Protocol {
            reason: format!("a message length of {length}, less than 4").into(),
        });
    }
    let limit = if small { SMALL_MAX } else { limit.min(i32::MAX.unsigned_abs().into()) };
    match usize::try_from(length + 1) {
        Ok(whole) if length <= limit => Ok(Some(Head { kind, length: whole })),
        _ => Err(Refusal::TooLarge { length, limit }),
    }
}

/// What a reader wanted is not there, or not of its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {field} is cut short or malformed")]
pub(crate) struct Malformed {
    pub(crate) field: &'static str,
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol { reason: malformed.to_string().into() }
    }
}

/// Reads a message's body from front to back; every slice shares the memory of the message.
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(body: Bytes) -> Self {
        Self { rest: body }
    }

    /// `length` bytes.
    pub(crate) fn take(&mut self, length: usize, field: &'static str) -> Result<Bytes, Malformed> {
        if length > self.rest.len() {
            return Err(Malformed { field });
        }
        Ok(self.rest.split_to(length))
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        let bytes = self.take(1, field)?;
        bytes.first().copied().ok_or(Malformed { field })
    }

    pub(crate) fn i16(&mut self, field: &'static str) -> Result<i16, Malformed> {
        let bytes = self.take(2, field)?;
        bytes.first_chunk().map(|bytes| i16::from_be_bytes(*bytes)).ok_or(Malformed { field })
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        let bytes = self.take(4, field)?;
        bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(Malformed { field })
    }

    /// A count of what follows, each at least `size` bytes: never more than the bytes left can hold.
    pub(crate) fn count(&mut self, size: usize, field: &'static str) -> Result<usize, Malformed> {
        let count = usize::from(self.i16(field)?.cast_unsigned());
        if count.saturating_mul(size) > self.rest.len() {
            return Err(Malformed { field });
        }
        Ok(count)
    }

    /// Bytes up to a NUL, which is taken too.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<Bytes, Malformed> {
        let end = memchr::memchr(0, &self.rest).ok_or(Malformed { field })?;
        let text = self.rest.split_to(end);
        self.take(1, field)?;
        Ok(text)
    }

    /// A length of which -1 says NULL, and that many bytes.
    pub(crate) fn value(&mut self, field: &'static str) -> Result<Option<Bytes>, Malformed> {
        match self.u32(field)? {
            u32::MAX => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.take(length, field).map(Some),
                Err(_) => Err(Malformed { field }),
            },
        }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self, field: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed { field }) }
    }

    pub(crate) fn rest(&self) -> &Bytes {
        &self.rest
    }
}

/// Writes a message of the gateway's own.
pub(crate) fn message(kind: u8, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(kind);
    out.put_u32(0);
    body(&mut out);
    let length = u32::try_from(out.len().saturating_sub(1)).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(1..HEADER) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    out.freeze()
}

/// Appends `text` and a NUL; what follows a NUL inside of it is left out, since the wire cannot say it.
pub(crate) fn put_text(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text.split(|byte| *byte == 0).next().unwrap_or_default());
    out.put_u8(0);
}

/// Bytes as text. Where they are not UTF-8 (a peer may use any encoding), what is none is shown as `\\xNN`, so that
/// nothing is made up.
pub(crate) fn readable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack 4.
    #[test]
    fn lengths_that_no_message_can_have_are_refused_before_anything_is_allocated() {
        for (length, code) in
            [(0_u32, "protocol"), (3, "protocol"), (u32::MAX, "too_large"), (1 << 31, "too_large")]
        {
            let mut bytes = vec![client::QUERY];
            bytes.extend_from_slice(&length.to_be_bytes());
            assert_eq!(client_head(&bytes, u64::MAX).unwrap_err().code(), code, "length {length}");
        }
        let sync = [client::SYNC, 0, 0, 0x27, 0x11];
        assert_eq!(
            client_head(&sync, 1 << 30).unwrap_err(),
            Refusal::TooLarge { length: 10_001, limit: 10_000 }
        );
        assert_eq!(client_head(b"Q\0\0\0", 100), Ok(None));
        assert_eq!(client_head(b"Q\0\0\0\x64", 100), Ok(Some(Head { kind: b'Q', length: 101 })));
    }

    #[test]
    fn a_kind_that_nobody_knows_is_refused_by_its_first_byte() {
        for kind in 0..=u8::MAX {
            let known = b"BCDEFHPQSXcdf".contains(&kind);
            assert_eq!(client_head(&[kind], 100).is_ok(), known, "{kind}");
        }
    }

    #[test]
    fn the_reader_gives_nothing_that_is_not_there() {
        let mut reader = Reader::new(Bytes::from_static(b"\xff\xffname\0\xff\xff\xff\xff\0\0\0\x02ab"));
        assert!(Reader::new(reader.rest().clone()).count(2, "count").is_err());
        assert_eq!(reader.i16("number"), Ok(-1));
        assert_eq!(reader.text("name").unwrap(), "name");
        assert_eq!(reader.value("value"), Ok(None));
        assert_eq!(reader.value("value").unwrap().unwrap(), "ab");
        assert_eq!(reader.end("end"), Ok(()));
        assert_eq!(reader.u8("more"), Err(Malformed { field: "more" }));
        assert_eq!(reader.text("more"), Err(Malformed { field: "more" }));
    }
}
