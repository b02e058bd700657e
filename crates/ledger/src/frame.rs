//! Frames: what a segment file is made of.
//!
//! ```text
//!  offset  size  field
//!       0     4  magic     "VBF1"
//!       4     1  type      1 envelope, 2 commit, 3 segment header, 4 pad, 5 payload part, 6 seal
//!       5     1  flags     0 (room for later)
//!       6     2  reserved  0
//!       8     4  length    of the body, little endian
//!      12     4  crc32c    over bytes 4 to 11 and the body, little endian
//!      16     …  body
//!       …  0…7  padding    zero, so that the next frame begins at a multiple of 8
//! ```

/// What a frame begins with.
pub const MAGIC: [u8; 4] = *b"VBF1";
/// Bytes before the body.
pub const HEADER_BYTES: usize = 16;
/// Frames begin at multiples of this.
pub const ALIGNMENT: usize = 8;
/// The longest envelope: it fits a C2SP entry bundle and a 64 KiB field of a log collector.
pub const ENVELOPE_BYTES_MAX: usize = 60_000;
/// The longest body of a payload frame.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The longest body of a commit, header or seal.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One entry's envelope: a leaf of the tree.
    Envelope = 1,
    /// The signed note over all entries before it.
    Commit = 2,
    /// What the segment is.
    Header = 3,
    /// Nothing.
    Pad = 4,
    /// A part of the payload of the next envelope.
    Payload = 5,
    /// What the segment was; its last frame.
    Seal = 6,
}

impl Kind {
    /// The kind with this number.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Envelope),
            2 => Some(Self::Commit),
            3 => Some(Self::Header),
            4 => Some(Self::Pad),
            5 => Some(Self::Payload),
            6 => Some(Self::Seal),
            _ => None,
        }
    }

    /// The longest body that this kind may have.
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::Envelope => ENVELOPE_BYTES_MAX,
            Self::Payload | Self::Pad => PAYLOAD_BYTES_MAX,
            Self::Commit | Self::Header | Self::Seal => CONTROL_BYTES_MAX,
        }
    }
}

/// How many bytes a frame with a body of this length takes.
pub const fn frame_bytes(body: usize) -> usize {
    (HEADER_BYTES + body).next_multiple_of(ALIGNMENT)
}

/// Begins a frame at the end of `out`; the body is then appended, and [`finish`] called with what this returns.
pub fn begin(out: &mut Vec<u8>, kind: Kind) -> usize {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[kind as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    start
}

/// Ends the frame that began at `start`: length, checksum, padding.
pub fn finish(out: &mut Vec<u8>, start: usize) {
    let length = u32::try_from(out.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(start + 8..start + 12) {
        slot.copy_from_slice(&length.to_le_bytes());
    }
    let head = crc32c::crc32c(out.get(start + 4..start + 12).unwrap_or_default());
    let crc = crc32c::crc32c_append(head, out.get(start + HEADER_BYTES..).unwrap_or_default());
    if let Some(slot) = out.get_mut(start + 12..start + 16) {
        slot.copy_from_slice(&crc.to_le_bytes());
    }
    let padded = start + (out.len() - start).next_multiple_of(ALIGNMENT);
    out.resize(padded, 0);
}

/// Appends a whole frame.
pub fn put(out: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    let start = begin(out, kind);
    out.extend_from_slice(body);
    finish(out, start);
}

/// What is wrong with the bytes where a frame is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It does not begin with the magic.
    #[error("no frame begins here")]
    Magic,
    /// There is no such kind.
    #[error("a frame of unknown type {0}")]
    Type(u8),
    /// The length is beyond the limit of the kind.
    #[error("a frame of {0} bytes is beyond its limit")]
    Length(u32),
    /// The file ends within it.
    #[error("the file ends within a frame")]
    Cut,
    /// The checksum does not match.
    #[error("the checksum does not match")]
    Checksum,
    /// Flags or reserved bits are set.
    #[error("reserved bits are set")]
    Reserved,
    /// The padding isn't zero.
    #[error("the padding is not zero")]
    Padding,
}

/// What is found where a frame is expected.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The end of the bytes.
    End,
    /// Zeros, at least as many as a header has or as there are left.
    Blank,
    /// A frame.
    Frame(Frame<'a>),
    /// A frame whose extent is plausible, but which is not as it was written.
    Damaged(Frame<'a>, Fault),
    /// Bytes that are no frame.
    Broken(Fault),
}

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Its body.
    pub body: &'a [u8],
    /// Header, body and padding together.
    pub length: usize,
}

/// How long the frame is whose header `bytes` begin with: what has to be there before [`parse`] can judge it. None
/// where no frame begins.
pub fn extent(bytes: &[u8]) -> Option<usize> {
    let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [m0, m1, m2, m3, kind, _, _, _, l0, l1, l2, l3, ..] = *header;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
    let kind = Kind::from_byte(kind)?;
    ([m0, m1, m2, m3] == MAGIC && length <= kind.body_bytes_max()).then(|| frame_bytes(length))
}

/// Judges what `bytes`, which reach at least to the end of the frame or of the file, begin with.
pub fn parse(bytes: &[u8]) -> Found<'_> {
    if bytes.is_empty() {
        return Found::End;
    }
    let head = bytes.get(..HEADER_BYTES).unwrap_or(bytes);
    if head.iter().all(|byte| *byte == 0) {
        return Found::Blank;
    }
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Found::Broken(Fault::Cut);
    };
    let [m0, m1, m2, m3, kind, flags, r0, r1, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Found::Broken(Fault::Magic);
    }
    let Some(known) = Kind::from_byte(kind) else { return Found::Broken(Fault::Type(kind)) };
    let stated = u32::from_le_bytes([l0, l1, l2, l3]);
    let length = usize::try_from(stated).unwrap_or(usize::MAX);
    if length > known.body_bytes_max() {
        return Found::Broken(Fault::Length(stated));
    }
    let Some(body) = rest.get(..length) else { return Found::Broken(Fault::Cut) };
    let whole = frame_bytes(length);
    let Some(padding) = rest.get(length..whole - HEADER_BYTES) else { return Found::Broken(Fault::Cut) };
    let frame = Frame { kind: known, body, length: whole };
    let covered = [kind, flags, r0, r1, l0, l1, l2, l3];
    if crc32c::crc32c_append(crc32c::crc32c(&covered), body) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Found::Damaged(frame, Fault::Checksum);
    }
    if flags != 0 || r0 != 0 || r1 != 0 {
        return Found::Damaged(frame, Fault::Reserved);
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Found::Damaged(frame, Fault::Padding);
    }
    Found::Frame(frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matches_the_published_vector() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let mut out = Vec::new();
        put(&mut out, Kind::Envelope, br#"{"v":1,"idx":0}"#);
        assert_eq!(
            crate::hash::hex(&out),
            "56424631010000000f000000a444218b7b2276223a312c22696478223a307d00"
        );
        let Found::Frame(frame) = parse(&out) else { panic!("a frame") };
        assert_eq!((frame.kind, frame.body, frame.length), (Kind::Envelope, &br#"{"v":1,"idx":0}"#[..], 32));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let mut good = Vec::new();
        put(&mut good, Kind::Commit, b"12345");
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[place] ^= 1 << bit;
                assert!(!matches!(parse(&bad), Found::Frame(_)), "byte {place} bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let mut framed = MAGIC.to_vec();
            framed.extend(&bytes);
            let _ = (parse(&framed), extent(&framed));
        }

        #[test]
        fn what_is_put_is_parsed(body in proptest::collection::vec(any::<u8>(), 0..300), kind in 1_u8..=6) {
            let kind = Kind::from_byte(kind).unwrap();
            let mut out = Vec::new();
            put(&mut out, kind, &body);
            prop_assert_eq!(extent(&out), Some(out.len()));
            prop_assert_eq!(parse(&out), Found::Frame(Frame { kind, body: &body, length: out.len() }));
        }
    }
}
