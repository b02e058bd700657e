//! Long streamed content, written into a document piece by piece: no more than a chunk of it is in memory.

use std::io::Write;

use verbatim_core::event::part;
use verbatim_core::json;
use verbatim_ledger::{Location, Reader};

use crate::fold;
use crate::index::StoreError;

/// The content of one operation, by the places of its chunks.
pub(crate) struct Content<'a> {
    pub(crate) reader: &'a mut Reader,
    pub(crate) chunks: Vec<Location>,
}

impl Content<'_> {
    /// Writes the members that an operation's document has for its text: `"text":"…"`, or `"text":null,"base64":"…"`
    /// where the bytes, taken together, are no UTF-8. Reads everything once to learn which.
    pub(crate) fn write(&mut self, out: &mut dyn Write) -> Result<(), StoreError> {
        let mut valid = true;
        let mut rest = self.pieces(characters, &mut |piece| {
            valid = valid && std::str::from_utf8(piece).is_ok();
            Ok(())
        })?;
        valid = valid && std::str::from_utf8(&rest).is_ok();
        let mut encoded = Vec::new();
        if valid {
            out.write_all(b"\"text\":\"")?;
            rest = self.pieces(characters, &mut |piece| {
                encoded.clear();
                json::string(&mut encoded, std::str::from_utf8(piece).unwrap_or_default());
                Ok(out.write_all(unquoted(&encoded))?)
            })?;
            debug_assert!(rest.is_empty(), "valid text ends with a whole character");
        } else {
            out.write_all(b"\"text\":null,\"base64\":\"")?;
            rest = self.pieces(triples, &mut |piece| {
                encoded.clear();
                json::base64(&mut encoded, piece);
                Ok(out.write_all(unquoted(&encoded))?)
            })?;
            encoded.clear();
            json::base64(&mut encoded, &rest);
            out.write_all(unquoted(&encoded))?;
        }
        Ok(out.write_all(b"\"")?)
    }

    /// Gives the content to `each` in pieces that end where `whole` says, and returns what is left at the end.
    fn pieces(
        &mut self,
        whole: fn(&[u8]) -> usize,
        each: &mut dyn FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<Vec<u8>, StoreError> {
        let mut pending = Vec::new();
        for chunk in &self.chunks {
            let entry = self.reader.read_at(*chunk)?;
            pending.extend_from_slice(fold::bytes(&entry, part::CONTENT).unwrap_or_default());
            let rest = pending.split_off(whole(&pending));
            each(&pending)?;
            pending = rest;
        }
        Ok(pending)
    }
}

/// How much of `bytes` is whole characters, or is no text whatever follows.
fn characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// How much of `bytes` encodes to base64 without padding.
fn triples(bytes: &[u8]) -> usize {
    bytes.len() - bytes.len() % 3
}

fn unquoted(encoded: &[u8]) -> &[u8] {
    encoded.get(1..encoded.len().saturating_sub(1)).unwrap_or_default()
}
