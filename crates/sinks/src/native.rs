//! The native encoding: the stored envelope as a string, beside it what a search needs (schema:
//! `docs/contract/native-event.schema.json`).
//!
//! ```text
//! { "id": "<origin>#<index>", "kind", "session", "sequence", "time", "leaf", "envelope", "payload" }
//! ```
//!
//! `leaf` is the hash of the envelope's bytes as a leaf of the ledger's tree (RFC 6962), in hexadecimal. A checkpoint
//! is an event of kind `checkpoint`: its `id` is `<origin>/checkpoint#<size>`, its `leaf` the tree's root, its
//! `envelope` the signed note, whole, as `verify --checkpoint` takes it.
//!
//! `payload` is an object with a member a part: `text`, `parameters`, `error`, … as a string, as the list that was
//! stored (`parameters`, `messages`), or as `{ "base64": "…" }` where the bytes are no UTF-8; and `salts`, in base64, one
//! for each frame that the envelope's `pay` lists, so that the texts can be checked against the envelope. It is null
//! where the entry has no payload, or the sink gets none.

use serde_json::value::RawValue;
use verbatim_core::event::{AuditEvent as _, part};
use verbatim_core::{Timestamp, json};
use verbatim_ledger::{Checkpoint, Entry};

use crate::event::{Event, Payload};

/// The kind of a checkpoint's event.
pub const CHECKPOINT: &str = "checkpoint";

/// Encodes an entry.
pub fn entry(entry: &Entry, payload: Payload) -> Event {
    let id = entry.id();
    let session = entry.session().map(|session| session.to_string());
    let sequence = entry.fields().get("seq").and_then(serde_json::Value::as_u64);
    let mut out = Head {
        id: &id,
        kind: entry.kind(),
        session: session.as_deref(),
        sequence,
        time: entry.time(),
        leaf: &entry.leaf,
        envelope: entry.envelope(),
    }
    .encode();
    match payload {
        Payload::Full if !entry.parts().is_empty() => parts(entry, &mut out),
        _ => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    let kind = entry.kind().to_owned();
    Event { index: entry.index, id, kind, session, time: entry.time(), json: out.into() }
}

/// Encodes a checkpoint; `time` is that of the last entry that it covers.
pub fn checkpoint(checkpoint: &Checkpoint, time: Timestamp) -> Event {
    let id = format!("{}/checkpoint#{}", checkpoint.origin, checkpoint.size);
    let mut out = Head {
        id: &id,
        kind: CHECKPOINT,
        session: None,
        sequence: None,
        time,
        leaf: &checkpoint.root,
        envelope: &checkpoint.note,
    }
    .encode();
    out.extend_from_slice(b"null}");
    Event { index: checkpoint.size, id, kind: CHECKPOINT.to_owned(), session: None, time, json: out.into() }
}

/// Everything before the payload.
struct Head<'a> {
    id: &'a str,
    kind: &'a str,
    session: Option<&'a str>,
    sequence: Option<u64>,
    time: Timestamp,
    leaf: &'a [u8; 32],
    envelope: &'a str,
}

impl Head<'_> {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + self.envelope.len() + self.envelope.len() / 4);
        member(&mut out, b"{\"id\":", self.id);
        member(&mut out, b",\"kind\":", self.kind);
        out.extend_from_slice(b",\"session\":");
        match self.session {
            None => out.extend_from_slice(b"null"),
            Some(session) => json::string(&mut out, session),
        }
        out.extend_from_slice(b",\"sequence\":");
        match self.sequence {
            None => out.extend_from_slice(b"null"),
            Some(sequence) => json::unsigned(&mut out, sequence),
        }
        member(&mut out, b",\"time\":", &self.time.to_string());
        member(&mut out, b",\"leaf\":", &hexadecimal(self.leaf));
        member(&mut out, b",\"envelope\":", self.envelope);
        out.extend_from_slice(b",\"payload\":");
        out
    }
}

fn member(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    json::string(out, value);
}

/// Lower case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parts(entry: &Entry, out: &mut Vec<u8>) {
    out.push(b'{');
    for (place, stored) in entry.parts().iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        json::string(out, &stored.name);
        out.push(b':');
        let is_json = matches!(stored.name.as_str(), part::PARAMETERS | part::MESSAGES);
        match std::str::from_utf8(&stored.bytes) {
            // A list that was cut (it goes on in a chunk) is no JSON, and goes as the string that it is.
            Ok(list) if is_json && serde_json::from_str::<&RawValue>(list).is_ok() => {
                out.extend_from_slice(list.as_bytes());
            }
            Ok(text) => json::string(out, text),
            Err(_) => {
                out.extend_from_slice(b"{\"base64\":");
                json::base64(out, &stored.bytes);
                out.push(b'}');
            }
        }
    }
    out.extend_from_slice(b",\"salts\":[");
    for (place, (salt, _)) in entry.pieces().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        json::base64(out, salt);
    }
    out.extend_from_slice(b"]}");
}
