//! An entry as it is read back.

use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use verbatim_core::{AuditEvent, Fields, SessionId, Timestamp, Value, Visitor};

use crate::envelope::{COMMON, Head, commitments_of};
use crate::hash::Hash;
use crate::payload::Body;
use crate::profile::{self, Json};
use crate::tree::leaf_hash;

/// Where an entry's first frame is: its first payload frame, else its envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The segment's number.
    pub segment: u64,
    /// Bytes from the segment's beginning.
    pub offset: u64,
}

/// A part of an entry's payload. Pieces of one name are joined, within the entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name: one of [`verbatim_core::event::part`].
    pub name: String,
    /// Its bytes, as they were sent.
    pub bytes: Bytes,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Part({}, {} bytes)", self.name, self.bytes.len())
    }
}

/// An entry, as stored. Clones share its bytes.
#[derive(Clone)]
pub struct Entry {
    /// Its place in the ledger, from 0.
    pub index: u64,
    /// Its leaf hash: SHA-256 of a zero byte and the envelope.
    pub leaf: Hash,
    /// Where its first frame is.
    pub location: Location,
    envelope: Bytes,
    origin: Bytes,
    kind: Bytes,
    time: Timestamp,
    session: Option<SessionId>,
    sequence: u64,
    answers: Option<u64>,
    parts: Arc<[Part]>,
    /// The bodies of the payload frames.
    pieces: Arc<[Bytes]>,
    fields: Arc<OnceLock<serde_json::Value>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({}, {})", self.index, self.kind())
    }
}

impl Entry {
    /// Puts an entry together from its envelope and the bodies of its payload frames. None where they do not fit.
    pub(crate) fn new(envelope: Bytes, payload: &[Bytes], location: Location) -> Option<Self> {
        let head = Head::parse(&envelope)?;
        let pay = envelope_pay(head.rest)?;
        let session = head.session.map_or([0; 16], |id| *id.as_bytes());
        let parts = join(payload, &pay, (session, head.sequence))?;
        Some(Self {
            index: head.index,
            leaf: leaf_hash(&envelope),
            location,
            origin: envelope.slice_ref(head.origin.as_bytes()),
            kind: envelope.slice_ref(head.kind.as_bytes()),
            time: Timestamp::from_nanos(head.time),
            session: head.session,
            sequence: head.sequence,
            answers: head.answers,
            parts: parts.into(),
            pieces: payload.into(),
            fields: Arc::new(OnceLock::new()),
            envelope,
        })
    }

    /// The bytes whose hash is the leaf.
    pub fn envelope(&self) -> &str {
        text(&self.envelope)
    }

    /// The log.
    pub fn origin(&self) -> &str {
        text(&self.origin)
    }

    /// `origin#index`: the same wherever the entry goes.
    pub fn id(&self) -> String {
        format!("{}#{}", self.origin(), self.index)
    }

    /// When it was appended.
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// Its session.
    pub const fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Its place among its session's entries, from 0; none where it has no session.
    pub fn session_sequence(&self) -> Option<u64> {
        self.session.map(|_| self.sequence)
    }

    /// The entry that it answers.
    pub const fn answers(&self) -> Option<u64> {
        self.answers
    }

    /// The envelope, parsed: an object. Parsed once, when it is asked for.
    pub fn fields(&self) -> &serde_json::Value {
        self.fields.get_or_init(|| serde_json::from_slice(&self.envelope).unwrap_or_default())
    }

    /// The payload, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The payload frames' salts and texts, in their order: with its salt a text can be checked against the envelope.
    pub fn pieces(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pieces.iter().filter_map(|frame| Body::parse(frame)).map(|body| (body.salt, body.text))
    }
}

fn text(bytes: &[u8]) -> &str {
    // An envelope that is no UTF-8 was refused when the entry was put together.
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The names in `pay`, from the end of an envelope.
fn envelope_pay(rest: &str) -> Option<Vec<String>> {
    // Quotes within strings are escaped, so the last of these is the key.
    let start = rest.rfind(r#""pay":["#)?;
    let list = rest.get(start + 6..)?.strip_suffix('}')?;
    let list = profile::parse(list.as_bytes()).ok()?;
    Some(commitments_of(&list)?.into_iter().map(|commitment| commitment.name).collect())
}

fn join(payload: &[Bytes], names: &[String], of: ([u8; 16], u64)) -> Option<Vec<Part>> {
    if payload.len() != names.len() {
        return None;
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut pieces: Vec<Bytes> = Vec::new();
    for (place, (frame, name)) in payload.iter().zip(names).enumerate() {
        let body = Body::parse(frame)?;
        let stated = ((body.place.session, body.place.sequence), u64::from(body.place.part));
        if stated != (of, place as u64) {
            return None;
        }
        pieces.push(frame.slice_ref(body.text));
        if names.get(place + 1) == Some(name) {
            continue;
        }
        let bytes = match &mut *pieces {
            [whole] => std::mem::take(whole),
            several => several.concat().into(),
        };
        pieces.clear();
        parts.push(Part { name: name.clone(), bytes });
    }
    Some(parts)
}

impl AuditEvent for Entry {
    fn kind(&self) -> &str {
        text(&self.kind)
    }

    fn answers(&self) -> Option<u64> {
        self.answers
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        let Ok(Json::Object(fields)) = profile::parse(&self.envelope) else { return };
        for (name, value) in &fields {
            if !COMMON.contains(&name.as_ref()) && name != "pay" {
                show(name, value, visitor);
            }
        }
    }

    fn payload(&self, each: &mut dyn FnMut(&str, &[u8])) {
        for part in self.parts() {
            each(&part.name, &part.bytes);
        }
    }
}

impl Fields for Json<'_> {
    fn visit(&self, visitor: &mut dyn Visitor) {
        if let Self::Object(fields) = self {
            for (name, value) in fields {
                show(name, value, visitor);
            }
        }
    }
}

fn show(name: &str, value: &Json<'_>, visitor: &mut dyn Visitor) {
    match value {
        Json::Text(encoded) if name.ends_with("_b64") => match URL_SAFE_NO_PAD.decode(encoded.as_bytes()) {
            Ok(bytes) => visitor.field(name, Value::Bytes(&bytes)),
            Err(_) => visitor.field(name, Value::Text(encoded)),
        },
        // No event has lists directly within lists.
        Json::List(items) => {
            let values: Vec<_> = items.iter().map(plain).collect();
            visitor.field(name, Value::List(&values));
        }
        other => visitor.field(name, plain(other)),
    }
}

fn plain<'a>(value: &'a Json<'_>) -> Value<'a> {
    match value {
        Json::Null | Json::List(_) => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Integer(number) => u64::try_from(*number).map_or(Value::Signed(*number), Value::Unsigned),
        Json::Text(text) => Value::Text(text),
        Json::Object(_) => Value::Object(value),
    }
}
