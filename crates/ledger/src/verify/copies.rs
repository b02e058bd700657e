//! What sinks were given, read back: the JSON lines of a file sink, or an export of what a collector holds.
//!
//! A checkpoint in it anchors the ledger. An entry in it has to be in the ledger, as it is here; and a native event has
//! to be as it was made: its `id` and `leaf` are those of its `envelope`, its `payload` is what the envelope commits to.
//! What is *not* in it says nothing: sinks have filters.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::envelope::{self, Head};
use crate::hash::{Hash, hex};
use crate::note::Checkpoint;
use crate::payload::{Place, salt_commit};
use crate::tree::leaf_hash;
use crate::verify::report::{Finding, Findings};

/// What every envelope begins with.
const ENVELOPE: &str = r#"{"v":1,"origin":""#;
/// Under which names the encodings (native, ECS, OCSF) hold the envelope or the note.
const CARRIERS: [&str; 3] = ["envelope", "original", "raw_data"];
/// The kind of an event that carries a checkpoint.
const CHECKPOINT: &str = "checkpoint";

/// A sink's copy of an entry.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) file: Arc<Path>,
    /// Where its event begins, in bytes.
    pub(crate) offset: u64,
    pub(crate) origin: Arc<str>,
    pub(crate) index: u64,
    /// The hash of the envelope that the sink has.
    pub(crate) leaf: Hash,
}

/// A native event, as far as it is judged.
#[derive(Deserialize)]
struct Native<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    leaf: Cow<'a, str>,
    #[serde(borrow)]
    envelope: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// Reads the events in `text`: the checkpoints among them, each with its place, and the copies of entries. What is wrong with one in itself is
/// a finding.
pub(super) fn read(
    file: &Path,
    text: &str,
    findings: &mut Findings,
) -> (Vec<(Checkpoint, u64)>, Vec<Copied>) {
    let mut reading =
        Reading { file: file.into(), origins: HashMap::new(), notes: Vec::new(), copies: Vec::new() };
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    // A line that a crash of the collector cut short ends the file.
    while let Some(Ok(value)) = values.next() {
        let offset = (values.byte_offset() - value.get().len()) as u64;
        for (code, message, whose) in reading.event(value.get(), offset) {
            let finding = Finding::new(code, message).at(file, offset);
            findings.push(match whose.as_deref().and_then(|envelope| Head::parse(envelope.as_bytes())) {
                Some(head) => finding.of(head.session, head.operation()),
                None => finding,
            });
        }
    }
    (reading.notes, reading.copies)
}

struct Reading {
    file: Arc<Path>,
    origins: HashMap<String, Arc<str>>,
    notes: Vec<(Checkpoint, u64)>,
    copies: Vec<Copied>,
}

/// Code, meaning, and the envelope that it is about.
type Wrong<'a> = (&'static str, String, Option<Cow<'a, str>>);

impl Reading {
    fn event<'a>(&mut self, text: &'a str, offset: u64) -> Vec<Wrong<'a>> {
        if let Ok(native) = serde_json::from_str::<Native<'_>>(text) {
            if native.kind == CHECKPOINT {
                return self.checkpoint(&native, offset);
            }
            let wrong = judge(&native);
            self.copy(&native.envelope, offset);
            return wrong.map(|message| ("SINKDIFF", message, Some(native.envelope))).into_iter().collect();
        }
        // Other encodings, and what collectors wrap around events, carry notes and envelopes as they are.
        let value = serde_json::from_str::<Value>(text).unwrap_or_default();
        match carried(&value) {
            Some(envelope) if envelope.starts_with(ENVELOPE) && self.copy(envelope, offset) => {}
            Some(envelope) if envelope.starts_with(ENVELOPE) => {
                return vec![("SINKDIFF", "the event's envelope is none".to_owned(), None)];
            }
            Some(note) => self.notes.extend(Checkpoint::parse(note).map(|note| (note, offset))),
            None => {}
        }
        Vec::new()
    }

    fn checkpoint<'a>(&mut self, event: &Native<'a>, offset: u64) -> Vec<Wrong<'a>> {
        let Ok(checkpoint) = Checkpoint::parse(&event.envelope) else {
            return vec![("SINKDIFF", "the event's checkpoint is none".to_owned(), None)];
        };
        let stated = event.id == format!("{}/checkpoint#{}", checkpoint.origin, checkpoint.size)
            && event.leaf == hex(&checkpoint.root);
        self.notes.push((checkpoint, offset));
        let wrong = || ("SINKDIFF", "the event says otherwise than the checkpoint in it".to_owned(), None);
        if stated { Vec::new() } else { vec![wrong()] }
    }

    /// Keeps what is to be compared with the ledger; false where this is no envelope.
    fn copy(&mut self, envelope: &str, offset: u64) -> bool {
        let Some(head) = Head::parse(envelope.as_bytes()) else { return false };
        let origin = match self.origins.get(head.origin) {
            Some(origin) => Arc::clone(origin),
            None => {
                let origin: Arc<str> = head.origin.into();
                self.origins.insert(head.origin.to_owned(), Arc::clone(&origin));
                origin
            }
        };
        let leaf = leaf_hash(envelope.as_bytes());
        self.copies.push(Copied { file: Arc::clone(&self.file), offset, origin, index: head.index, leaf });
        true
    }
}

/// The first text in a JSON value under a name that holds what was stored. What a client sent is under none of them, and
/// can't pose as it.
fn carried(value: &Value) -> Option<&str> {
    match value {
        Value::Array(items) => items.iter().find_map(carried),
        Value::Object(fields) => {
            let own = CARRIERS.iter().find_map(|name| fields.get(*name).and_then(Value::as_str));
            own.or_else(|| fields.values().find_map(carried))
        }
        _ => None,
    }
}

/// What is wrong with a native event in itself.
fn judge(event: &Native<'_>) -> Option<String> {
    let Some(head) = Head::parse(event.envelope.as_bytes()) else {
        return Some("the event's envelope is none".to_owned());
    };
    let id = format!("{}#{}", head.origin, head.index);
    if event.id != id || event.kind != head.kind || event.leaf != hex(&leaf_hash(event.envelope.as_bytes())) {
        return Some(format!("the event says otherwise than the envelope in it, which is of {id}"));
    }
    let payload = event.payload.filter(|payload| payload.get() != "null")?;
    if payload_fits(&head, &event.envelope, payload.get()) {
        return None;
    }
    Some(format!("the payload of entry {} is not what its envelope commits to", head.index))
}

/// Whether the texts in `payload` are, with their salts, what the envelope commits to.
fn payload_fits(head: &Head<'_>, envelope: &str, payload: &str) -> bool {
    let Ok(commitments) = envelope::judged(envelope.as_bytes()) else { return false };
    let Ok(fields) = serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(payload) else { return false };
    let salts = fields.get("salts").and_then(|salts| serde_json::from_str::<Vec<String>>(salts.get()).ok());
    let Some(salts) = salts.filter(|salts| salts.len() == commitments.len()) else { return false };
    let mut rest: HashMap<&str, Vec<u8>> = HashMap::new();
    for (name, value) in fields.iter().filter(|(name, _)| *name != "salts") {
        let Some(bytes) = stored_bytes(value.get()) else { return false };
        rest.insert(name, bytes);
    }
    let session = head.session.map_or([0; 16], |id| *id.as_bytes());
    for (commitment, salt) in commitments.iter().zip(&salts) {
        let Some(bytes) = rest.get_mut(commitment.name.as_str()) else { return false };
        let (Ok(length), Ok(salt)) = (usize::try_from(commitment.length), STANDARD.decode(salt)) else {
            return false;
        };
        let Some(piece) = bytes.get(..length) else { return false };
        let Ok(part) = u32::try_from(commitment.part) else { return false };
        let place = Place { session, sequence: head.sequence, part };
        if salt_commit(head.origin, &place, &salt, piece) != commitment.salt_commit {
            return false;
        }
        bytes.drain(..length);
    }
    rest.values().all(Vec::is_empty)
}

/// The bytes that were recorded, of what a native event shows of them: a text, bytes in base64, or a list as it is.
fn stored_bytes(shown: &str) -> Option<Vec<u8>> {
    if shown.starts_with('"') {
        return serde_json::from_str::<String>(shown).ok().map(String::into_bytes);
    }
    if shown.starts_with('{') {
        let fields: HashMap<String, String> = serde_json::from_str(shown).ok()?;
        return STANDARD.decode(fields.get("base64")?).ok();
    }
    Some(shown.as_bytes().to_vec())
}
