//! SHA-256, and its lower-case hexadecimal form, in which the envelope states hashes.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The hash of `parts`, one after the other.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Appends `bytes` in lower-case hexadecimal.
pub fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend(DIGITS.get(usize::from(byte >> 4)));
        out.extend(DIGITS.get(usize::from(byte & 0xf)));
    }
}

/// `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    put_hex(&mut out, bytes);
    String::from_utf8(out).unwrap_or_default()
}

/// Reads 64 lower-case hexadecimal digits.
pub fn parse_hex(text: &str) -> Option<Hash> {
    parse_digits(text.as_bytes())
}

/// What a digit is worth; above 15 for what is none.
const fn worth(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => 0xff,
    }
}

/// Reads two lower-case hexadecimal digits for each byte.
pub(crate) fn parse_digits<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let mut read = [0; BYTES];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != BYTES || !rest.is_empty() {
        return None;
    }
    // One pass without a branch a digit: most texts are as they should be.
    let mut all = 0;
    for (slot, [high, low]) in read.iter_mut().zip(pairs) {
        let (high, low) = (worth(*high), worth(*low));
        all |= high | low;
        *slot = (high << 4) | low;
    }
    (all < 16).then_some(read)
}
