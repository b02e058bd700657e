//! What a sink gets: encoded events, in order.

use bytes::Bytes;
use verbatim_core::Timestamp;

/// How much of the commands a sink gets. The envelope and its leaf hash always go: an envelope holds no literals of a
/// command, but the length and a digest of each text and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Payload {
    /// Texts and values.
    #[default]
    Full,
    /// No texts, no values.
    Summary,
    /// What tells whether a text is the recorded one, and nothing else; in the native encoding the same as a summary.
    Digest,
}

/// An entry or a checkpoint, encoded.
#[derive(Clone)]
pub struct Event {
    /// The entry's index; for a checkpoint, how many entries it covers.
    pub index: u64,
    /// What it is known by for good: `<origin>#<index>`, `<origin>/checkpoint#<size>`.
    pub id: String,
    /// The entry's kind, or `checkpoint`.
    pub kind: String,
    /// The session's id.
    pub session: Option<String>,
    /// When it was appended.
    pub time: Timestamp,
    /// The encoding: one JSON object on one line, without a line end.
    pub json: Bytes,
}

/// Prints what it is, never content.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Event({} {}, {} bytes)", self.kind, self.id, self.json.len())
    }
}

/// Events for one delivery.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// In the ledger's order.
    pub events: Vec<Event>,
}

impl Batch {
    /// Bytes of all encodings.
    pub fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.json.len()).sum()
    }
}
