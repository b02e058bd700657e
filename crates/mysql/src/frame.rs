//! One packet: its length, its place in the exchange, its payload as a slice.
//!
//! A packet is three bytes of length, one of sequence, and a payload; a payload of 16 MiB − 1 bytes or more goes on in
//! the next packet, up to and with one that is shorter, an empty one if need be. Lengths are checked against what is
//! allowed before anything is allocated; what has not arrived yet is a value, not an error. (MySQL 9 source
//! documentation, "MySQL Packets"; MariaDB knowledge base, "0-packet".)

use bytes::{Buf, BufMut, Bytes, BytesMut};
use verbatim_core::Refusal;

/// Bytes before a packet's payload.
pub(crate) const HEADER: usize = 4;
/// The longest payload of one packet: a payload that goes on has this much in every packet but its last.
pub(crate) const PAYLOAD_MAX: usize = 0xff_ffff;

/// The length of the payload behind a header.
pub(crate) const fn length_of(head: [u8; HEADER]) -> usize {
    u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize
}

/// What the beginning of some bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// A whole command, of this many bytes, in this many packets.
    Whole { wire: usize, packets: usize },
    /// A part of one, which lacks at least this many bytes.
    Partial { lacking: usize },
}

/// Finds the end of the command that begins `bytes`. `limit` is what its payload may measure.
///
/// # Errors
/// A packet is out of order, or the payload is over the limit.
pub(crate) fn command(bytes: &[u8], limit: u64) -> Result<Scanned, Refusal> {
    let mut at = 0_usize;
    let mut payload = 0_u64;
    for place in 0_usize.. {
        let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) else {
            return Ok(Scanned::Partial { lacking: 0 });
        };
        if usize::from(head[3]) != place % 256 {
            return Err(out_of_order(head[3], place));
        }
        let length = length_of(*head);
        payload += length as u64;
        if payload > limit {
            return Err(Refusal::TooLarge { length: payload, limit });
        }
        at += HEADER + length;
        match bytes.len().checked_sub(at) {
            None => return Ok(Scanned::Partial { lacking: at - bytes.len() }),
            Some(_) if length < PAYLOAD_MAX => {
                return Ok(Scanned::Whole { wire: at, packets: place + 1 });
            }
            Some(_) => {}
        }
    }
    Ok(Scanned::Partial { lacking: 0 })
}

/// A packet whose sequence is not the one that is due.
pub(crate) fn out_of_order(came: u8, due: usize) -> Refusal {
    Refusal::Protocol { reason: format!("packet {came} where packet {} was due", due % 256).into() }
}

/// The payload of a whole command: a slice of it, or joined where it is in several packets.
pub(crate) fn payload(wire: &Bytes) -> Bytes {
    let mut rest = wire.clone();
    let mut joined = BytesMut::new();
    while let Some(head) = rest.first_chunk::<HEADER>() {
        let length = length_of(*head);
        rest.advance(HEADER);
        let part = rest.split_to(length.min(rest.len()));
        if joined.is_empty() && rest.is_empty() {
            return part;
        }
        joined.extend_from_slice(&part);
    }
    joined.freeze()
}

/// Appends a payload of the gateway's own, in as many packets as it takes, and returns the next sequence.
pub(crate) fn put_packets(out: &mut BytesMut, mut sequence: u8, mut payload: &[u8]) -> u8 {
    loop {
        let (part, rest) = payload.split_at(payload.len().min(PAYLOAD_MAX));
        let [a, b, c, _] = u32::try_from(part.len()).unwrap_or(0).to_le_bytes();
        out.put_slice(&[a, b, c, sequence]);
        out.put_slice(part);
        sequence = sequence.wrapping_add(1);
        payload = rest;
        if part.len() < PAYLOAD_MAX {
            return sequence;
        }
    }
}

/// A payload of the gateway's own as packets.
pub(crate) fn packet(sequence: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + payload.len());
    put_packets(&mut out, sequence, payload);
    out.freeze()
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

/// Reads a payload from front to back; every slice shares the memory of the payload. Integers are little-endian.
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(payload: Bytes) -> Self {
        Self { rest: payload }
    }

    /// `length` bytes.
    pub(crate) fn take(&mut self, length: usize, field: &'static str) -> Result<Bytes, Malformed> {
        if length > self.rest.len() {
            return Err(Malformed { field });
        }
        Ok(self.rest.split_to(length))
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N, field)?;
        bytes.first_chunk().copied().ok_or(Malformed { field })
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A length-encoded integer. `0xfb` (NULL) and `0xff` are none.
    pub(crate) fn lenenc(&mut self, field: &'static str) -> Result<u64, Malformed> {
        match self.u8(field)? {
            small @ 0..=0xfa => Ok(small.into()),
            0xfc => Ok(self.u16(field)?.into()),
            0xfd => {
                let [a, b, c] = self.array(field)?;
                Ok(u32::from_le_bytes([a, b, c, 0]).into())
            }
            0xfe => self.u64(field),
            _ => Err(Malformed { field }),
        }
    }

    /// Bytes behind their length-encoded length.
    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<Bytes, Malformed> {
        let length = self.lenenc(field)?;
        self.take(usize::try_from(length).map_err(|_| Malformed { field })?, field)
    }

    /// Bytes up to a NUL, which is taken too.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<Bytes, Malformed> {
        let end = memchr::memchr(0, &self.rest).ok_or(Malformed { field })?;
        let text = self.rest.split_to(end);
        self.take(1, field)?;
        Ok(text)
    }

    /// Bytes up to a NUL, or to the end: some clients leave the last NUL out, and servers let them.
    pub(crate) fn last_text(&mut self) -> Bytes {
        self.text("text").unwrap_or_else(|_| std::mem::take(&mut self.rest))
    }

    /// Nothing may be left.
    pub(crate) fn end(&self, field: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed { field }) }
    }

    pub(crate) fn rest(&self) -> &Bytes {
        &self.rest
    }
}

/// Appends a length-encoded integer.
pub(crate) fn put_lenenc(out: &mut BytesMut, number: u64) {
    match number {
        0..=0xfa => out.put_u8(number as u8),
        0xfb..=0xffff => {
            out.put_u8(0xfc);
            out.put_u16_le(number as u16);
        }
        0x1_0000..=0xff_ffff => {
            out.put_u8(0xfd);
            out.put_uint_le(number, 3);
        }
        _ => {
            out.put_u8(0xfe);
            out.put_u64_le(number);
        }
    }
}

/// Appends bytes behind their length-encoded length.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Appends `text` and a NUL; what follows a NUL inside of it is left out, since the wire cannot say it.
pub(crate) fn put_text(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text.split(|byte| *byte == 0).next().unwrap_or_default());
    out.put_u8(0);
}

/// Bytes as text. Where they are not UTF-8 (a peer may use any character set), what is none is shown as `\\xNN`, so that
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
    use proptest::prelude::*;

    use super::*;

    fn packets(payload: &[u8]) -> Bytes {
        packet(0, payload)
    }

    /// Attack 30: a payload of exactly 16 MiB − 1 has an empty packet behind it.
    #[test]
    fn payloads_over_a_packet_are_joined_and_their_last_packet_is_waited_for() {
        for (length, count) in
            [(PAYLOAD_MAX - 1, 1), (PAYLOAD_MAX, 2), (PAYLOAD_MAX + 5, 2), (2 * PAYLOAD_MAX, 3)]
        {
            let sent = vec![b'x'; length];
            let wire = packets(&sent);
            assert_eq!(wire.len(), length + count * HEADER);
            let whole = Scanned::Whole { wire: wire.len(), packets: count };
            assert_eq!(command(&wire, u64::MAX), Ok(whole));
            assert!(matches!(command(&wire[..wire.len() - 1], u64::MAX), Ok(Scanned::Partial { .. })));
            assert_eq!(payload(&wire), sent);
        }
    }

    #[test]
    fn lengths_and_sequences_are_judged_by_the_header_alone() {
        assert_eq!(command(b"\xff\xff\xff", 100), Ok(Scanned::Partial { lacking: 0 }));
        assert_eq!(command(b"\xff\xff\xff\0", 100), Err(Refusal::TooLarge { length: 0xff_ffff, limit: 100 }));
        assert_eq!(command(b"\x01\0\0\x01\x03", 100).unwrap_err().code(), "protocol");
        assert_eq!(command(b"\x05\0\0\0\x03ab", 100), Ok(Scanned::Partial { lacking: 2 }));
        assert_eq!(command(b"\x01\0\0\0\x0e\x01", 100), Ok(Scanned::Whole { wire: 5, packets: 1 }));
    }

    #[test]
    fn the_reader_gives_nothing_that_is_not_there() {
        let mut reader = Reader::new(Bytes::from_static(b"\xfc\x02\x01name\0\x02ab\xfb\xfe\x01"));
        assert_eq!(reader.lenenc("number"), Ok(0x102));
        assert_eq!(reader.text("name").unwrap(), "name");
        assert_eq!(reader.bytes("bytes").unwrap(), "ab");
        assert_eq!(reader.lenenc("null"), Err(Malformed { field: "null" }));
        assert_eq!(reader.lenenc("long"), Err(Malformed { field: "long" }));
        assert_eq!(reader.text("more"), Err(Malformed { field: "more" }));
        assert_eq!(
            Reader::new(Bytes::from_static(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff")).bytes("x").ok(),
            None
        );
        assert_eq!(Reader::new(Bytes::from_static(b"plugin")).last_text(), "plugin");
    }

    proptest! {
        #[test]
        fn a_length_is_read_as_it_was_written(number in any::<u64>()) {
            let mut out = BytesMut::new();
            put_lenenc(&mut out, number);
            let mut reader = Reader::new(out.freeze());
            prop_assert_eq!(reader.lenenc("number"), Ok(number));
            prop_assert_eq!(reader.end("number"), Ok(()));
        }

        #[test]
        fn no_bytes_make_the_scan_fail_otherwise_than_by_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Scanned::Whole { wire, .. }) = command(&bytes, 1 << 30) {
                prop_assert!(wire <= bytes.len());
            }
        }
    }
}
