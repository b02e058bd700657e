//! Proofs that entries are in the ledger, checkable offline with nothing but the node's public key.
//!
//! One operation is proved by a text file of the C2SP form `tlog-proof@v1`: its `extra` line holds, in base64, a JSON
//! object with the envelope and the payload (`{"envelope":…,"payload":[{"part":0,"salt_b64":…,"bytes_b64":…}]}`). A session
//! is proved by one JSON document with all of its entries, each with the hashes that lead to the same checkpoint.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use verbatim_core::event::kind;
use verbatim_core::{AuditEvent, SessionId};

use crate::disk::{Disk, FileSystem};
use crate::envelope::{self, Head};
use crate::hash::Hash;
use crate::note::Checkpoint;
use crate::payload::{self, Place};
use crate::reader::{Entry, Item, Reader};
use crate::tree::{self, Frontier, Node};
use crate::{ReadError, profile};

/// The first line of a proof of one entry.
const TLOG_PROOF: &str = "c2sp.org/tlog-proof@v1";
/// What a session's proof says of its format.
const SESSION_PROOF: &str = "verbatim-session-proof@v1";

/// The proof of one operation of a session: the text of a file that `verify` takes. The entry is the operation's `intent`,
/// or its `denied`.
///
/// # Errors
/// The ledger can't be read, or has no such operation under a checkpoint.
pub fn operation(ledger_dir: &Path, session: SessionId, sequence: u64) -> Result<String, ReadError> {
    operation_on(Arc::new(FileSystem), ledger_dir, session, sequence)
}

/// As [`operation`], on another disk than the machine's.
///
/// # Errors
/// As for [`operation`].
pub fn operation_on(
    disk: Arc<dyn Disk>,
    ledger_dir: &Path,
    session: SessionId,
    sequence: u64,
) -> Result<String, ReadError> {
    let wanted = |entry: &Entry| {
        let head = Head::parse(entry.envelope().as_bytes());
        matches!(entry.kind(), kind::INTENT | kind::DENIED)
            && entry.session() == Some(session)
            && head.is_some_and(|head| head.operation() == Some(sequence))
    };
    let (checkpoint, entries) = collect(disk, ledger_dir, wanted)?;
    let Some(proved) = entries.first() else {
        return Err(ReadError::NotFound { what: format!("operation {sequence} of session {session}") });
    };
    let extra = serde_json::to_vec(&proved.content()).map_err(|error| not_written(&error))?;
    let mut text = format!("{TLOG_PROOF}\nextra {}\nindex {}\n", STANDARD.encode(extra), proved.index);
    for hash in &proved.proof {
        text += &STANDARD.encode(hash);
        text.push('\n');
    }
    Ok(format!("{text}\n{}", checkpoint.note))
}

/// The proof of a whole session: the text of a file that `verify` takes.
///
/// # Errors
/// The ledger can't be read, or has no such session under a checkpoint.
pub fn session(ledger_dir: &Path, session: SessionId) -> Result<String, ReadError> {
    session_on(Arc::new(FileSystem), ledger_dir, session)
}

/// As [`session`], on another disk than the machine's.
///
/// # Errors
/// As for [`session`].
pub fn session_on(disk: Arc<dyn Disk>, ledger_dir: &Path, session: SessionId) -> Result<String, ReadError> {
    let (checkpoint, entries) = collect(disk, ledger_dir, |entry| entry.session() == Some(session))?;
    if entries.is_empty() {
        return Err(ReadError::NotFound { what: format!("session {session}") });
    }
    let document = Document {
        format: SESSION_PROOF.to_owned(),
        origin: checkpoint.origin.clone(),
        session: session.to_string(),
        checkpoint: checkpoint.note,
        entries: entries.iter().map(Proved::document).collect(),
    };
    let mut text = serde_json::to_string_pretty(&document).map_err(|error| not_written(&error))?;
    text.push('\n');
    Ok(text)
}

fn not_written(error: &serde_json::Error) -> ReadError {
    ReadError::NotFound { what: format!("a JSON form of the proof: {error}") }
}

/// The wanted entries with their proofs, and the newest checkpoint. Keeps every leaf hash: 32 bytes an entry.
fn collect(
    disk: Arc<dyn Disk>,
    ledger_dir: &Path,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<(Checkpoint, Vec<Proved>), ReadError> {
    let mut reader = Reader::open_on(disk, ledger_dir)?;
    let limit = reader.committed()?;
    let (mut leaves, mut found, mut newest) = (Vec::new(), Vec::new(), None);
    while let Some(item) = reader.next(limit)? {
        match item {
            Item::Entry(entry) => {
                leaves.push(entry.leaf);
                if wanted(&entry) {
                    found.push(entry);
                }
            }
            Item::Checkpoint(checkpoint) => newest = Some(checkpoint),
        }
    }
    let checkpoint = newest.ok_or(ReadError::NotFound { what: "a checkpoint".to_owned() })?;
    let size = checkpoint.size;
    let mut nodes: HashMap<Node, Option<Hash>> = HashMap::new();
    for entry in &found {
        tree::inclusion(entry.index, size, |node| {
            nodes.insert(node, None);
            None
        });
    }
    let mut frontier = Frontier::default();
    for leaf in leaves.into_iter().take(usize::try_from(size).unwrap_or(usize::MAX)) {
        frontier.push_seen(leaf, |node, hash| {
            if let Some(slot) = nodes.get_mut(&node) {
                *slot = Some(*hash);
            }
        });
    }
    let prove = |entry: Entry| {
        let proof = tree::inclusion(entry.index, size, |node| nodes.get(&node).copied().flatten());
        proof.map(|proof| Proved::new(&entry, proof)).ok_or(ReadError::NoSuchEntry(entry.index))
    };
    Ok((checkpoint, found.into_iter().map(prove).collect::<Result<_, _>>()?))
}

/// A session's proof, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    origin: String,
    session: String,
    checkpoint: String,
    entries: Vec<EntryDocument>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryDocument {
    index: u64,
    proof: Vec<String>,
    content: Content,
}

/// What is proved.
#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct Content {
    envelope: String,
    payload: Vec<PartDocument>,
}

#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct PartDocument {
    part: u64,
    salt_b64: String,
    bytes_b64: String,
}

/// An entry with the hashes that lead from it to a checkpoint's root.
pub(crate) struct Proved {
    pub(crate) index: u64,
    pub(crate) proof: Vec<Hash>,
    content: Content,
}

impl Proved {
    fn new(entry: &Entry, proof: Vec<Hash>) -> Self {
        let payload = entry.pieces().enumerate().map(|(place, (salt, bytes))| PartDocument {
            part: place as u64,
            salt_b64: URL_SAFE_NO_PAD.encode(salt),
            bytes_b64: URL_SAFE_NO_PAD.encode(bytes),
        });
        let content = Content { envelope: entry.envelope().to_owned(), payload: payload.collect() };
        Self { index: entry.index, proof, content }
    }

    fn content(&self) -> Content {
        self.content.clone()
    }

    fn document(&self) -> EntryDocument {
        let proof = self.proof.iter().map(|hash| STANDARD.encode(hash)).collect();
        EntryDocument { index: self.index, proof, content: self.content() }
    }

    pub(crate) fn head(&self) -> Option<Head<'_>> {
        profile::parse(self.content.envelope.as_bytes()).ok()?;
        Head::parse(self.content.envelope.as_bytes())
    }

    pub(crate) fn leaf(&self) -> Hash {
        tree::leaf_hash(self.content.envelope.as_bytes())
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.head()?.session
    }

    pub(crate) fn operation(&self) -> Option<u64> {
        self.head()?.operation()
    }

    pub(crate) fn time(&self) -> Option<u64> {
        Some(self.head()?.time)
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.head().is_some_and(|head| head.kind == kind)
    }

    /// The parts of the payload that the envelope doesn't vouch for, or vouches for and are not there.
    pub(crate) fn wrong_parts(&self) -> Vec<u64> {
        let json = profile::parse(self.content.envelope.as_bytes()).ok();
        let commitments = json.as_ref().and_then(envelope::commitments).unwrap_or_default();
        let count = commitments.len().max(self.content.payload.len());
        let good = |place: usize| {
            let (head, commitment) = (self.head()?, commitments.get(place)?);
            let part = self.content.payload.get(place)?;
            let salt = URL_SAFE_NO_PAD.decode(&part.salt_b64).ok()?;
            let bytes = URL_SAFE_NO_PAD.decode(&part.bytes_b64).ok()?;
            let at = Place {
                session: head.session.map_or([0; 16], |id| *id.as_bytes()),
                sequence: head.sequence,
                part: u32::try_from(commitment.part).ok()?,
            };
            let commit = payload::salt_commit(head.origin, &at, &salt, &bytes);
            (part.part == commitment.part && commit == commitment.salt_commit).then_some(())
        };
        (0..count).filter(|place| good(*place).is_none()).map(|place| place as u64).collect()
    }
}

/// The proof of one entry, read back.
pub(crate) struct Proof {
    checkpoint: String,
    entry: Proved,
}

impl Proof {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(TLOG_PROOF)?.strip_prefix("\nextra ")?;
        let (extra, rest) = rest.split_once("\nindex ")?;
        let (proof, checkpoint) = rest.split_once("\n\n")?;
        let mut lines = proof.lines();
        let index = lines.next()?.parse().ok()?;
        let proof = lines.map(hash).collect::<Option<_>>()?;
        let content = serde_json::from_slice(&STANDARD.decode(extra).ok()?).ok()?;
        Some(Self { checkpoint: checkpoint.to_owned(), entry: Proved { index, proof, content } })
    }
}

fn hash(line: &str) -> Option<Hash> {
    STANDARD.decode(line).ok()?.try_into().ok()
}

/// A proof of either form, read back.
pub(crate) struct Bundle {
    pub(crate) checkpoint: String,
    /// It is to be a session from its first entry on.
    pub(crate) is_session: bool,
    pub(crate) entries: Vec<Proved>,
}

impl Bundle {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let document: Document = serde_json::from_str(text).ok()?;
        let entry = |entry: EntryDocument| {
            let proof = entry.proof.iter().map(|line| hash(line)).collect::<Option<_>>()?;
            let proved = Proved { index: entry.index, proof, content: entry.content };
            (proved.session()?.to_string() == document.session).then_some(proved)
        };
        let entries = document.entries.into_iter().map(entry).collect::<Option<Vec<_>>>()?;
        let known = document.format == SESSION_PROOF && !entries.is_empty();
        known.then_some(Self { checkpoint: document.checkpoint, is_session: true, entries })
    }
}

impl From<Proof> for Bundle {
    fn from(proof: Proof) -> Self {
        Self { checkpoint: proof.checkpoint, is_session: false, entries: vec![proof.entry] }
    }
}
