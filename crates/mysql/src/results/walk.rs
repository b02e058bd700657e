//! Finds the packets in what the target sends, in whatever pieces they come, without buffering them: of rows only the
//! beginning matters, of the others no more than [`KEPT_MAX`] does.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::frame::{HEADER, PAYLOAD_MAX, length_of};

/// How much of a payload that came in pieces is looked at.
const KEPT_MAX: usize = 8 << 10;

/// The target broke the protocol: nothing after this can be matched to what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the target is out of step: {0}")]
pub(crate) struct OutOfStep(pub(crate) String);

/// What a step along the bytes found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// The bytes ended within a payload.
    Within,
    /// A payload ended.
    Packet {
        /// Its length.
        payload: u64,
        /// Its length with its headers.
        length: u64,
        /// How many of the given bytes belong to it.
        used: usize,
        /// Where it is in the given bytes; where it began in earlier ones, or is longer than a packet, [`Walk::kept`] has
        /// its beginning.
        body: Option<Range<usize>>,
    },
}

/// Where in the target's stream of packets it is.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    head: [u8; HEADER],
    /// How much of `head` is there.
    have: usize,
    /// How much of the packet is still to come.
    left: usize,
    /// The payload goes on in another packet.
    continued: bool,
    payload: u64,
    length: u64,
    kept: BytesMut,
}

impl Walk {
    /// Whether the last payload that began has ended.
    pub(crate) const fn at_boundary(&self) -> bool {
        self.have == 0 && !self.continued
    }

    /// The sequence of the last packet.
    pub(crate) const fn sequence(&self) -> u8 {
        self.head[3]
    }

    /// The beginning of a payload that came in pieces.
    pub(crate) fn kept(&mut self) -> Bytes {
        std::mem::take(&mut self.kept).freeze()
    }

    /// Goes on to the end of a payload, or of the bytes, which must not be empty.
    ///
    /// # Errors
    /// Packets that belong together are not in order.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Walked, OutOfStep> {
        // A payload that is here as a whole, as most are.
        if self.at_boundary()
            && let Some((head, rest)) = bytes.split_first_chunk::<HEADER>()
        {
            let length = length_of(*head);
            if length < PAYLOAD_MAX && rest.len() >= length {
                self.head = *head;
                let used = HEADER + length;
                return Ok(Walked::Packet {
                    payload: length as u64,
                    length: used as u64,
                    used,
                    body: Some(HEADER..used),
                });
            }
        }
        self.piecewise(bytes)
    }

    fn piecewise(&mut self, bytes: &[u8]) -> Result<Walked, OutOfStep> {
        let mut used = 0;
        loop {
            let began = self.have;
            while self.have < HEADER {
                let (Some(slot), Some(byte)) = (self.head.get_mut(self.have), bytes.get(used)) else {
                    return Ok(Walked::Within);
                };
                let before = *slot;
                *slot = *byte;
                self.have += 1;
                used += 1;
                if self.have == HEADER && self.continued && *byte != before.wrapping_add(1) {
                    return Err(OutOfStep(format!("packet {byte} behind packet {before} of one payload")));
                }
            }
            if began < HEADER {
                self.open();
            }
            let rest = bytes.get(used..).unwrap_or_default();
            let here = rest.len().min(self.left);
            let room = KEPT_MAX.saturating_sub(self.kept.len()).min(here);
            self.kept.extend_from_slice(rest.get(..room).unwrap_or_default());
            self.left -= here;
            used += here;
            if self.left > 0 {
                return Ok(Walked::Within);
            }
            self.have = 0;
            if !self.continued {
                return Ok(Walked::Packet { payload: self.payload, length: self.length, used, body: None });
            }
        }
    }

    /// A header is whole.
    fn open(&mut self) {
        if !self.continued {
            self.payload = 0;
            self.length = 0;
            self.kept.clear();
        }
        self.left = length_of(self.head);
        self.payload += self.left as u64;
        self.length += (HEADER + self.left) as u64;
        self.continued = self.left == PAYLOAD_MAX;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame;

    /// Every payload's length and beginning, walked in pieces of this size.
    fn walk(wire: &[u8], piece: usize) -> Vec<(u64, Vec<u8>)> {
        let mut walk = Walk::default();
        let mut found = Vec::new();
        for piece in wire.chunks(piece) {
            let mut at = 0;
            while at < piece.len() {
                match walk.step(&piece[at..]).unwrap() {
                    Walked::Within => at = piece.len(),
                    Walked::Packet { payload, used, body, .. } => {
                        let body = match body {
                            Some(range) => piece[at + range.start..at + range.end].to_vec(),
                            None => walk.kept().to_vec(),
                        };
                        found.push((payload, body));
                        at += used;
                    }
                }
            }
        }
        assert!(walk.at_boundary());
        found
    }

    /// Attack 6, attack 30.
    #[test]
    fn payloads_of_any_length_are_found_in_any_pieces() {
        let long = vec![7; PAYLOAD_MAX];
        let mut wire = BytesMut::new();
        for payload in [&b"abc"[..], b"", &long, b"x"] {
            frame::put_packets(&mut wire, 1, payload);
        }
        for piece in [4096, 65_536, wire.len()] {
            let found = walk(&wire, piece);
            let lengths: Vec<u64> = found.iter().map(|(length, _)| *length).collect();
            assert_eq!(lengths, [3, 0, PAYLOAD_MAX as u64, 1]);
            assert_eq!((&*found[0].1, &*found[3].1), (&b"abc"[..], &b"x"[..]));
            assert!(found[2].1.len() <= KEPT_MAX);
        }
    }

    #[test]
    fn packets_of_one_payload_are_in_order() {
        let mut wire = frame::packet(1, &vec![7; PAYLOAD_MAX]).to_vec();
        let at = wire.len() - 1;
        wire[at] = 9;
        let mut walk = Walk::default();
        assert!(walk.step(&wire).is_err());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..8), piece in 1_usize..20) {
            let mut wire = BytesMut::new();
            for payload in &payloads {
                frame::put_packets(&mut wire, 1, payload);
            }
            let found = walk(&wire, piece);
            let bodies: Vec<Vec<u8>> = found.into_iter().map(|(_, body)| body).collect();
            prop_assert_eq!(bodies, payloads);
        }
    }
}
