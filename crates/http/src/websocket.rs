//! The frames of a WebSocket client, walked by length (RFC 6455, section 5): what is a message, and what it holds.
//!
//! No extension is negotiated (the gateway leaves `Sec-WebSocket-Extensions` out), so that payloads are what they seem. A
//! short message in one frame is recorded whole, a longer one or one of several frames piece by piece. The bytes that go
//! on are those that came, mask included.

use bytes::{Buf, Bytes, BytesMut};

use crate::operation::INLINE_MAX;

/// How much of a long message is recorded at once.
const PIECE_MAX: usize = 64 << 10;
/// The longest frame header: two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;
/// A control frame's payload.
const CONTROL_MAX: u64 = 125;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// More has to be read.
    Read,
    /// A ping, a pong or a close: it goes on, and is no message.
    Control {
        /// The frame.
        raw: Bytes,
    },
    /// A whole message.
    Message {
        /// The frame.
        raw: Bytes,
        /// What it holds.
        text: Bytes,
    },
    /// A piece of a message.
    Piece {
        /// As it came.
        raw: Bytes,
        /// What it holds; the header alone holds nothing.
        content: Bytes,
        /// The message begins with it.
        first: bool,
        /// The message ends with it.
        last: bool,
    },
}

/// Walks a client's frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// In a message of several frames.
    fragmented: bool,
    /// In a frame whose payload goes on piece by piece.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    left: u64,
    mask: [u8; 4],
    /// How much of the payload has been passed, for the mask's place.
    passed: usize,
    fin: bool,
    first: bool,
}

struct Header {
    length: usize,
    opcode: u8,
    fin: bool,
    payload: u64,
    mask: [u8; 4],
}

impl Frames {
    /// Takes the next piece out of `input`.
    ///
    /// # Errors
    /// What is wrong with a frame.
    pub(crate) fn turn(&mut self, input: &mut BytesMut) -> Result<Turn, &'static str> {
        if let Some(open) = self.open.take() {
            return Ok(self.go_on(open, input));
        }
        let Some(header) = header(input)? else { return Ok(Turn::Read) };
        if header.opcode >= 8 {
            let length = header.length + usize::try_from(header.payload).unwrap_or(usize::MAX);
            if input.len() < length {
                return Ok(Turn::Read);
            }
            return Ok(Turn::Control { raw: input.split_to(length).freeze() });
        }
        match (header.opcode, self.fragmented) {
            (0, false) => return Err("a continuation of nothing"),
            (1 | 2, true) => return Err("a message within another"),
            _ => {}
        }
        let first = !self.fragmented;
        self.fragmented = !header.fin;
        if first && header.fin && header.payload <= INLINE_MAX as u64 {
            let length = header.length + usize::try_from(header.payload).unwrap_or(usize::MAX);
            if input.len() < length {
                self.fragmented = false;
                return Ok(Turn::Read);
            }
            let raw = input.split_to(length).freeze();
            let text = unmasked(raw.get(header.length..).unwrap_or_default(), header.mask, 0);
            return Ok(Turn::Message { raw, text });
        }
        let raw = input.split_to(header.length).freeze();
        let last = header.fin && header.payload == 0;
        if header.payload > 0 {
            let Header { payload: left, mask, fin, .. } = header;
            self.open = Some(Open { left, mask, passed: 0, fin, first: false });
        }
        Ok(Turn::Piece { raw, content: Bytes::new(), first, last })
    }

    fn go_on(&mut self, mut open: Open, input: &mut BytesMut) -> Turn {
        let step = usize::try_from(open.left).unwrap_or(usize::MAX).min(input.len()).min(PIECE_MAX);
        if step == 0 {
            self.open = Some(open);
            return Turn::Read;
        }
        let raw = input.split_to(step).freeze();
        let content = unmasked(&raw, open.mask, open.passed);
        open.passed = (open.passed + step) % 4;
        open.left -= step as u64;
        let (first, last) = (open.first, open.left == 0 && open.fin);
        open.first = false;
        if open.left > 0 {
            self.open = Some(open);
        }
        Turn::Piece { raw, content, first, last }
    }
}

fn header(input: &[u8]) -> Result<Option<Header>, &'static str> {
    let mut rest = input.get(..HEADER_MAX.min(input.len())).unwrap_or_default();
    if rest.len() < 2 {
        return Ok(None);
    }
    let (one, two) = (rest.get_u8(), rest.get_u8());
    if one & 0x70 != 0 {
        return Err("a reserved bit without an extension");
    }
    let (fin, opcode) = (one & 0x80 != 0, one & 0x0f);
    if !matches!(opcode, 0..=2 | 8..=10) {
        return Err("an unknown opcode");
    }
    if two & 0x80 == 0 {
        return Err("a client's frame without a mask");
    }
    let payload = match two & 0x7f {
        126 if rest.len() < 2 => return Ok(None),
        127 if rest.len() < 8 => return Ok(None),
        126 => u64::from(rest.get_u16()),
        127 => rest.get_u64(),
        short => u64::from(short),
    };
    if opcode >= 8 && (!fin || payload > CONTROL_MAX) {
        return Err("a control frame that is long or cut");
    }
    if payload > i64::MAX as u64 {
        return Err("a frame's length with its highest bit set");
    }
    if rest.len() < 4 {
        return Ok(None);
    }
    let mut mask = [0; 4];
    rest.copy_to_slice(&mut mask);
    let length = input.len().min(HEADER_MAX) - rest.len();
    Ok(Some(Header { length, opcode, fin, payload, mask }))
}

/// `passed` bytes of the payload came before.
fn unmasked(payload: &[u8], mask: [u8; 4], passed: usize) -> Bytes {
    payload.iter().zip(mask.iter().cycle().skip(passed % 4)).map(|(byte, mask)| byte ^ mask).collect()
}

/// A close frame of the gateway's own, to the client.
pub(crate) fn close(code: u16, reason: &str) -> Bytes {
    let mut out = BytesMut::new();
    let length = u8::try_from(reason.len() + 2).unwrap_or(2);
    out.extend_from_slice(&[0x88, length]);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes().get(..usize::from(length) - 2).unwrap_or_default());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame.
    fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![opcode | if fin { 0x80 } else { 0 }];
        match payload.len() {
            short @ 0..126 => out.push(0x80 | short as u8),
            middle @ 126..65_536 => {
                out.push(0x80 | 126);
                out.extend((middle as u16).to_be_bytes());
            }
            long => {
                out.push(0x80 | 127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend(mask);
        out.extend(unmasked(payload, mask, 0));
        out
    }

    /// Everything that is forwarded, and each message.
    fn walk(bytes: &[u8], step: usize) -> Result<(Vec<u8>, Vec<Vec<u8>>), &'static str> {
        let (mut frames, mut input) = (Frames::default(), BytesMut::new());
        let (mut forwarded, mut messages) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            input.extend_from_slice(piece);
            loop {
                match frames.turn(&mut input)? {
                    Turn::Read => break,
                    Turn::Control { raw } => forwarded.extend(raw),
                    Turn::Message { raw, text } => {
                        forwarded.extend(raw);
                        messages.push(text.to_vec());
                    }
                    Turn::Piece { raw, content, first, .. } => {
                        forwarded.extend(raw);
                        if first {
                            messages.push(Vec::new());
                        }
                        messages.last_mut().unwrap().extend(content);
                    }
                }
            }
        }
        assert!(input.is_empty() || forwarded.len() < bytes.len());
        Ok((forwarded, messages))
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let long = vec![b'x'; INLINE_MAX + 10];
        let bytes = [
            frame(true, 1, b"hello"),
            frame(true, 9, b"ping"),
            frame(false, 2, b"in "),
            frame(true, 10, b""),
            frame(false, 0, b""),
            frame(true, 0, b"pieces"),
            frame(true, 2, &long),
            frame(true, 1, b""),
        ]
        .concat();
        let expected = [b"hello".to_vec(), b"in pieces".to_vec(), long, Vec::new()];
        for step in [1, 7, 4096, bytes.len()] {
            let (forwarded, messages) = walk(&bytes, step).unwrap();
            assert_eq!(messages, expected);
            assert!(forwarded == bytes, "every byte goes on as it came");
        }
    }

    #[test]
    fn frames_that_no_client_sends_are_refused() {
        let mut unmasked_frame = frame(true, 1, b"x");
        unmasked_frame[1] &= 0x7f;
        for bytes in [
            unmasked_frame,
            frame(true, 0, b"x"),
            frame(true, 3, b"x"),
            frame(false, 9, b"x"),
            frame(true, 9, &[0; 126]),
            [frame(false, 1, b"x"), frame(true, 1, b"y")].concat(),
            vec![0xc1, 0x80, 0, 0, 0, 0],
            vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(walk(&bytes, bytes.len()).is_err(), "{bytes:?}");
        }
        assert_eq!(&close(1008, "no")[..], b"\x88\x04\x03\xf0no");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300), step in 1_usize..50) {
            drop(walk(&bytes, step));
        }
    }
}
