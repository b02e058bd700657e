//! Checkpoints as signed notes (C2SP tlog-checkpoint and signed-note), and the Ed25519 keys that sign them.
//!
//! ```text
//! example.com/verbatim/gw-1/1                      the origin
//! 5                                                entries
//! QEPIStJy7XUmP1B0Fdnkp/DJIbfjKZnd6kpQGhO9yWw=     root, base64
//!
//! — example.com/verbatim/gw-1/1 v70bcUUe…          name, then base64(key id, 4 bytes ‖ signature, 64 bytes)
//! ```

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand::SecureRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::hash::{Hash, hex, sha256};

/// The longest note that is read.
pub const NOTE_BYTES_MAX: usize = 64 << 10;
/// The most signature lines that are looked at.
const SIGNATURES_MAX: usize = 64;
/// Signed-note's number of the Ed25519 algorithm.
const ED25519_NOTE: u8 = 1;
const SECRET_PREFIX: &str = "PRIVATE+KEY+";

/// A signed statement of how many entries the ledger has and what they hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The tree's root over them.
    pub root: Hash,
    /// The signed note, whole.
    pub note: String,
}

/// The text is no key or no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidNote(&'static str);

/// What a note says of one key's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// The key signed this note.
    Good,
    /// There is a signature in the key's name, and it is not the key's.
    Bad,
    /// There is a signature with the key's name, by another key.
    OtherKey,
    /// There is none in the key's name.
    Absent,
}

impl Checkpoint {
    /// Reads a note without judging its signatures.
    ///
    /// # Errors
    /// The text is no checkpoint: at least three lines, an empty one, at least one signature line, and no more.
    pub fn parse(note: &str) -> Result<Self, InvalidNote> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(InvalidNote("the note is too long"));
        }
        let (text, signatures) =
            note.split_once("\n\n").ok_or(InvalidNote("a note has an empty line before its signatures"))?;
        if !signatures.ends_with('\n') || signatures.lines().any(|line| signature_line(line).is_none()) {
            return Err(InvalidNote("a signature line is malformed"));
        }
        let mut lines = text.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty());
        let origin = origin.ok_or(InvalidNote("a checkpoint begins with its origin"))?;
        let size = lines.next().and_then(parse_decimal).ok_or(InvalidNote("a checkpoint states its size"))?;
        let root = lines.next().and_then(|line| STANDARD.decode(line).ok());
        let root = root.and_then(|root| Hash::try_from(root).ok());
        let root = root.ok_or(InvalidNote("a checkpoint states its root"))?;
        if lines.any(str::is_empty) {
            return Err(InvalidNote("a checkpoint has no empty lines"));
        }
        Ok(Self { origin: origin.to_owned(), size, root, note: note.to_owned() })
    }

    /// How many signature lines there are, whosoever.
    pub(crate) fn signatures(&self) -> usize {
        self.note.split_once("\n\n").map_or(0, |(_, signatures)| signatures.lines().count())
    }

    /// Judges the signature of `key`.
    pub fn signed_by(&self, key: &VerifyingKey) -> Signed {
        let Some((text, signatures)) = self.note.split_once("\n\n") else { return Signed::Absent };
        let mut signed = Signed::Absent;
        for line in signatures.lines().take(SIGNATURES_MAX) {
            let Some((name, id, signature)) = signature_line(line) else { continue };
            if name != key.name {
                continue;
            }
            if id != key.id() {
                signed = Signed::OtherKey;
                continue;
            }
            let message = [text.as_bytes(), b"\n"].concat();
            let public = UnparsedPublicKey::new(&ED25519, key.key);
            return if public.verify(&message, &signature).is_ok() { Signed::Good } else { Signed::Bad };
        }
        signed
    }
}

fn signature_line(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    Some((name, *id, signature.to_vec()))
}

/// A decimal number without leading zeros.
fn parse_decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    text.parse().ok().filter(|_| canonical)
}

/// The public key of a log, in the form `name+hex(id)+base64(0x01 ‖ key)`.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    /// Whose it is: the log's origin.
    pub name: String,
    key: [u8; 32],
}

impl VerifyingKey {
    /// The first four bytes of `SHA-256(name ‖ "\n" ‖ 0x01 ‖ key)`.
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[self.name.as_bytes(), b"\n", &[ED25519_NOTE], &self.key]);
        [a, b, c, d]
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ED25519_NOTE], self.key.as_slice()].concat());
        write!(f, "{}+{}+{key}", self.name, hex(&self.id()))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifyingKey {
    type Err = InvalidNote;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = InvalidNote("not a public key (NAME+ID+BASE64 is expected)");
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed);
        };
        let bytes = STANDARD.decode(key).map_err(|_| malformed)?;
        let Some((&ED25519_NOTE, key)) = bytes.split_first() else {
            return Err(InvalidNote("not an Ed25519 key"));
        };
        let key = Self { name: name.to_owned(), key: key.try_into().map_err(|_| malformed)? };
        if name.is_empty() || hex(&key.id()) != id {
            return Err(InvalidNote("the key's id is not that of its name and bytes"));
        }
        Ok(key)
    }
}

/// The private key of a log. Its text form is `PRIVATE+KEY+name+hex(id)+base64(0x01 ‖ seed)`, as Go's note package
/// writes it.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerifyingKey,
    id: [u8; 4],
}

impl SigningKey {
    /// A new key, and its text form.
    ///
    /// # Errors
    /// No random bytes could be had.
    pub fn generate(name: &str) -> Result<(Self, String), InvalidNote> {
        let mut seed = [0; 32];
        aws_lc_rs::rand::SystemRandom::new().fill(&mut seed).map_err(|_| InvalidNote("no random bytes"))?;
        let key = Self::from_seed(name, &seed)?;
        let encoded = STANDARD.encode([&[ED25519_NOTE], seed.as_slice()].concat());
        let text = format!("{SECRET_PREFIX}{name}+{}+{encoded}\n", hex(&key.id));
        Ok((key, text))
    }

    /// The key with this seed.
    ///
    /// # Errors
    /// The name can't be a key's, or the seed has not 32 bytes.
    pub fn from_seed(name: &str, seed: &[u8]) -> Result<Self, InvalidNote> {
        if name.is_empty() || name.contains('+') || name.contains(char::is_whitespace) {
            return Err(InvalidNote("a key's name has no space and no +"));
        }
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| InvalidNote("the seed has 32 bytes"))?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| InvalidNote("not an Ed25519 key"))?;
        let public = VerifyingKey { name: name.to_owned(), key };
        let id = public.id();
        Ok(Self { pair, public, id })
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, InvalidNote> {
        let malformed = InvalidNote("not a private key (PRIVATE+KEY+NAME+ID+BASE64 is expected)");
        let rest = text.trim_end().strip_prefix(SECRET_PREFIX).ok_or(malformed)?;
        let mut parts = rest.splitn(3, '+');
        let (Some(name), Some(id), Some(seed)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed);
        };
        let bytes = STANDARD.decode(seed).map_err(|_| malformed)?;
        let Some((&ED25519_NOTE, seed)) = bytes.split_first() else { return Err(malformed) };
        let key = Self::from_seed(name, seed)?;
        if hex(&key.id) == id { Ok(key) } else { Err(malformed) }
    }

    /// The public half.
    pub const fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs a checkpoint. The key's name is the log's origin.
    pub fn checkpoint(&self, size: u64, root: Hash) -> Checkpoint {
        let origin = &self.public.name;
        let text = format!("{origin}\n{size}\n{}\n", STANDARD.encode(root));
        let signature = self.pair.sign(text.as_bytes());
        let encoded = STANDARD.encode([self.id.as_slice(), signature.as_ref()].concat());
        let note = format!("{text}\n— {origin} {encoded}\n");
        Checkpoint { origin: origin.clone(), size, root, note }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Frontier, leaf_hash};

    const ORIGIN: &str = "example.com/verbatim/n1/1";

    fn key() -> SigningKey {
        SigningKey::from_seed(ORIGIN, &std::array::from_fn::<u8, 32, _>(|place| u8::try_from(place).unwrap()))
            .unwrap()
    }

    fn checkpoint() -> Checkpoint {
        let mut tree = Frontier::default();
        for index in 0..5 {
            tree.push(leaf_hash(format!(r#"{{"v":1,"idx":{index}}}"#).as_bytes()));
        }
        key().checkpoint(5, tree.root())
    }

    #[test]
    fn matches_the_published_vectors() {
        assert_eq!(
            key().public().to_string(),
            "example.com/verbatim/n1/1+bfbd1b71+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
        );
        assert_eq!(
            checkpoint().note,
            "example.com/verbatim/n1/1\n5\nQEPIStJy7XUmP1B0Fdnkp/DJIbfjKZnd6kpQGhO9yWw=\n\n\
             — example.com/verbatim/n1/1 v70bcUUevme1FTxfcENCNx5LE+4yU6fuWrV/29cmMxHZWPKUrq9YWed7lHHAwtMF9b6rFiat2FLr1cP1fdXb6p8EGAc=\n"
        );
    }

    #[test]
    fn a_note_is_read_back_and_its_signature_judged() {
        let checkpoint = checkpoint();
        let read = Checkpoint::parse(&checkpoint.note).unwrap();
        assert_eq!(read, checkpoint);
        assert_eq!(read.signed_by(key().public()), Signed::Good);

        let other = SigningKey::from_seed(ORIGIN, &[7; 32]).unwrap();
        assert_eq!(read.signed_by(other.public()), Signed::OtherKey);
        let elsewhere = SigningKey::from_seed("example.com/verbatim/n2/1", &[7; 32]).unwrap();
        assert_eq!(read.signed_by(elsewhere.public()), Signed::Absent);
        let changed = Checkpoint::parse(&checkpoint.note.replacen("\n5\n", "\n6\n", 1)).unwrap();
        assert_eq!(changed.signed_by(key().public()), Signed::Bad);
    }

    #[test]
    fn keys_are_read_back() {
        let (key, text) = SigningKey::generate(ORIGIN).unwrap();
        let read = SigningKey::parse(&text).unwrap();
        assert_eq!(read.public(), key.public());
        assert_eq!(key.public().to_string().parse::<VerifyingKey>().unwrap(), *key.public());
        assert!(!format!("{key:?}").contains("PRIVATE"));
        assert!(SigningKey::parse(&text.replace('+', "-")).is_err());
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let note = checkpoint().note;
        for wrong in [
            String::new(),
            note.replace("\n\n", "\n"),
            note.replacen("\n5\n", "\n05\n", 1),
            note.replacen("\n5\n", "\n-5\n", 1),
            note.replacen("\n5\n", "\n+5\n", 1),
            note.replace("— ", "- "),
            note.trim_end().to_owned(),
        ] {
            assert!(Checkpoint::parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
