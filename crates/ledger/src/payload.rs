//! Payload: the bytes that were sent, apart from the envelope that commits to them.
//!
//! Each part of at most [`PART_BYTES_MAX`] is one frame in front of the entry's envelope; a longer text is several parts
//! of one name. The body of the frame:
//!
//! ```text
//!  offset  size  field
//!       0    16  the session's id, big endian; zeros for an entry of no session
//!      16     8  sseq, little endian: the entry's place in its session, or among those of none
//!      24     4  part, little endian: from 0 within the entry
//!      28    32  salt   ⎫ as they are with alg "none";
//!      60     …  bytes  ⎭ encrypted together otherwise
//! ```
//!
//! The envelope has two hashes of it: `ct_sha256` over what stands behind offset 28, and `salt_commit`, which binds salt
//! and bytes to log, session and place. The salt keeps a short text from being guessed from its hash once it is erased.

use aws_lc_rs::rand::SecureRandom;
use verbatim_core::json;

use crate::LedgerError;
use crate::frame::{self, Kind};
use crate::hash::{Hash, put_hex, sha256};

/// The longest part: with salt and place it fits a frame.
pub const PART_BYTES_MAX: usize = frame::PAYLOAD_BYTES_MAX - 64;
/// The most parts that one entry has; what is longer continues in `chunk` entries.
pub const PARTS_MAX: u32 = 128;
/// Bytes of a payload frame's body before salt and text.
pub const PLACE_BYTES: usize = 28;
/// Bytes of the salt.
pub const SALT_BYTES: usize = 32;
/// The longest name of a part.
pub const NAME_BYTES_MAX: usize = 64;

/// Where a part belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The session's id; zeros for none.
    pub session: [u8; 16],
    /// The entry's place in it.
    pub sequence: u64,
    /// The part's place in the entry.
    pub part: u32,
}

/// A payload frame's body, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body<'a> {
    /// Where it belongs.
    pub place: Place,
    /// What stands behind the place: salt and text.
    pub stored: &'a [u8],
    /// The salt.
    pub salt: &'a [u8],
    /// The text.
    pub text: &'a [u8],
}

impl<'a> Body<'a> {
    /// Takes a body apart. None where it is too short.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        let (session, rest) = body.split_first_chunk::<16>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (part, stored) = rest.split_first_chunk::<4>()?;
        let (salt, text) = stored.split_at_checked(SALT_BYTES)?;
        let place = Place {
            session: *session,
            sequence: u64::from_le_bytes(*sequence),
            part: u32::from_le_bytes(*part),
        };
        Some(Self { place, stored, salt, text })
    }
}

/// What binds a text to its place: `SHA-256("verbatim/pay/v1\0" ‖ u32le len(origin) ‖ origin ‖ sid ‖ u64le sseq ‖
/// u32le part ‖ salt ‖ text)`.
pub fn salt_commit(origin: &str, place: &Place, salt: &[u8], text: &[u8]) -> Hash {
    sha256(&[
        b"verbatim/pay/v1\0",
        &u32::try_from(origin.len()).unwrap_or(u32::MAX).to_le_bytes(),
        origin.as_bytes(),
        &place.session,
        &place.sequence.to_le_bytes(),
        &place.part.to_le_bytes(),
        salt,
        text,
    ])
}

/// Appends a part's frame to `frames`, and its entry of `pay` to `pay`.
pub(crate) fn put(
    frames: &mut Vec<u8>,
    pay: &mut Vec<u8>,
    origin: &str,
    place: &Place,
    name: &str,
    text: &[u8],
) -> Result<(), LedgerError> {
    let mut salt = [0; SALT_BYTES];
    aws_lc_rs::rand::SystemRandom::new().fill(&mut salt).map_err(|_| LedgerError::NoRandom)?;
    let start = frame::begin(frames, Kind::Payload);
    frames.extend_from_slice(&place.session);
    frames.extend_from_slice(&place.sequence.to_le_bytes());
    frames.extend_from_slice(&place.part.to_le_bytes());
    frames.extend_from_slice(&salt);
    frames.extend_from_slice(text);
    frame::finish(frames, start);

    if pay.last() != Some(&b'[') {
        pay.push(b',');
    }
    pay.extend_from_slice(br#"{"part":"#);
    json::unsigned(pay, u64::from(place.part));
    pay.extend_from_slice(br#","name":"#);
    json::string(pay, name);
    pay.extend_from_slice(br#","len":"#);
    json::unsigned(pay, text.len() as u64);
    pay.extend_from_slice(br#","salt_commit":""#);
    put_hex(pay, &salt_commit(origin, place, &salt, text));
    pay.extend_from_slice(br#"","ct_sha256":""#);
    put_hex(pay, &sha256(&[&salt, text]));
    pay.extend_from_slice(br#"","alg":"none","kid":null}"#);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hex;

    #[test]
    fn matches_the_published_vector() {
        let session: verbatim_core::SessionId = "0192f5a0-0000-7000-8000-000000000001".parse().unwrap();
        let place = Place { session: *session.as_bytes(), sequence: 2, part: 0 };
        assert_eq!(
            hex(&salt_commit("example.com/verbatim/n1/1", &place, &[0xaa; 32], b"SELECT 1")),
            "23d40a1652edf60724b4612419d8e55b6e4f6e9321bc219c2c9c94a8370422ac"
        );
    }

    #[test]
    fn a_frame_is_taken_apart_again() {
        let place = Place { session: [7; 16], sequence: 3, part: 1 };
        let (mut frames, mut pay) = (Vec::new(), b"[".to_vec());
        put(&mut frames, &mut pay, "o", &place, "text", b"SELECT 1").unwrap();
        let frame::Found::Frame(frame) = frame::parse(&frames) else { panic!("a frame") };
        let body = Body::parse(frame.body).unwrap();
        assert_eq!((body.place, body.text), (place, &b"SELECT 1"[..]));
        pay.push(b']');
        let list = crate::profile::parse(&pay).unwrap();
        let item = &list.list().unwrap()[0];
        assert_eq!(item.get("ct_sha256").unwrap().text(), Some(hex(&sha256(&[body.stored])).as_str()));
    }
}
