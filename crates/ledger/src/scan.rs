//! Walks over a ledger from its beginning when it is opened: the tree, the chains of what is open, and where the last
//! commit ends.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use verbatim_core::SessionId;

use crate::OpenError;
use crate::chain::Chain;
use crate::create::{Paths, at, damaged};
use crate::disk::Disk;
use crate::envelope::Head;
use crate::frame::{self, Found, HEADER_BYTES, Kind, MAGIC};
use crate::hash::{Hash, sha256};
use crate::heartbeat::kind;
use crate::note::{Checkpoint, Signed, VerifyingKey};
use crate::profile::{self, Json};
use crate::segment::{self, Header, Window, is_zero};
use crate::tree::{Frontier, leaf_hash};
use crate::writer::Open;

/// What a ledger holds, up to its last commit, or its last whole entry where that is kept.
pub(crate) struct Scanned {
    pub(crate) segment: Open,
    /// The last segment ends with its seal.
    pub(crate) sealed: bool,
    pub(crate) frontier: Frontier,
    pub(crate) node: Chain,
    pub(crate) sessions: Vec<(SessionId, Chain)>,
    pub(crate) newest: Option<Checkpoint>,
    pub(crate) last_commit: Option<Hash>,
    /// Entries behind the last commit that are kept.
    pub(crate) kept: u64,
    /// Signed notes behind the last good frame.
    pub(crate) notes: Vec<String>,
    /// The last entry says that the process stopped in order.
    pub(crate) stopped: bool,
    /// The name of the last boot and process.
    pub(crate) boot: String,
    /// The time of the last entry.
    pub(crate) time: u64,
}

/// An entry that no commit covers yet.
struct Staged {
    kind: String,
    index: u64,
    session: Option<SessionId>,
    answers: Option<u64>,
    operation: Option<u64>,
    leaf: Hash,
    boot: String,
    time: u64,
    /// Of a heartbeat: its state, and whether entries counted as durable once written.
    heartbeat: Option<(String, bool)>,
    /// Where its envelope's frame ends.
    end: u64,
}

struct Scan<'a> {
    key: &'a VerifyingKey,
    kept_checkpoint: Option<&'a Checkpoint>,
    file: PathBuf,
    frontier: Frontier,
    node: Chain,
    sessions: HashMap<SessionId, Chain>,
    newest: Option<Checkpoint>,
    last_commit: Option<Hash>,
    staged: Vec<Staged>,
    /// The tree with what is staged.
    ahead: Frontier,
    stopped: bool,
    within: bool,
    boot: String,
    time: u64,
}

/// How much is looked at at once for anything but zeros.
const PIECE_BYTES: usize = 4096;

/// How the walk over a segment ended.
enum End {
    Sealed,
    /// Zeros, or the end of the file.
    Blank,
    /// No whole frame.
    Broken(String),
    /// A whole entry that does not belong there.
    Wrong(String),
}

/// Scans the ledger.
///
/// # Errors
/// [`OpenError::Damaged`] where anything before the last commit isn't as it was written.
pub(crate) fn scan(
    disk: &Arc<dyn Disk>,
    paths: &Paths,
    key: &VerifyingKey,
    kept_checkpoint: Option<&Checkpoint>,
) -> Result<Scanned, OpenError> {
    let mut scan = Scan {
        key,
        kept_checkpoint,
        file: PathBuf::new(),
        frontier: Frontier::default(),
        node: Chain::default(),
        sessions: HashMap::new(),
        newest: None,
        last_commit: None,
        staged: Vec::new(),
        ahead: Frontier::default(),
        stopped: false,
        within: false,
        boot: String::new(),
        time: 0,
    };
    let names = disk.list(&paths.segments).map_err(at(&paths.segments))?;
    let mut last = None;
    for (place, name) in names.iter().enumerate() {
        scan.file = paths.segments.join(name);
        if segment::number(name) != Some(place as u64) {
            return Err(damaged(&scan.file, 0, "not the file that is expected here"));
        }
        let file = disk.open(&scan.file).map_err(at(&scan.file))?;
        let mut window = Window::new(file);
        let header = scan.header(&mut window, place as u64)?;
        let (offset, end) = scan.walk(&mut window, header.1)?;
        let is_last = place + 1 == names.len();
        match &end {
            End::Sealed if !scan.staged.is_empty() => {
                return Err(damaged(&scan.file, offset, "a seal over entries without a commit"));
            }
            End::Sealed => {}
            _ if is_last => {}
            End::Blank => return Err(damaged(&scan.file, offset, "the segment has no seal")),
            End::Broken(message) | End::Wrong(message) => {
                return Err(damaged(&scan.file, offset, message.clone()));
            }
        }
        last = Some((window, header.0, header.1, offset, end));
    }
    let Some((window, header, first_frame, offset, end)) = last else {
        return Err(damaged(&paths.segments, 0, "the ledger has no segment"));
    };
    scan.finish(window, &header, first_frame, offset, &end)
}

impl Scan<'_> {
    /// The header, and where the frame behind it begins.
    fn header(&self, window: &mut Window, number: u64) -> Result<(Header, u64), OpenError> {
        let wrong = |message: &str| damaged(&self.file, 0, message);
        let found = window.frame(0).map_err(at(&self.file))?;
        let Found::Frame(frame) = found else {
            return Err(wrong("the segment does not begin with its header"));
        };
        let header = Header::parse(frame.body).filter(|_| frame.kind == Kind::Header);
        let header = header.ok_or_else(|| wrong("the segment does not begin with its header"))?;
        if header.origin != self.key.name {
            return Err(wrong("the segment is of another log"));
        }
        let follows = header.segment == number
            && header.first == self.ahead.size()
            && header.previous_commit == self.last_commit;
        if !follows {
            return Err(wrong("the segment does not follow the one before it"));
        }
        Ok((header, frame.length as u64))
    }

    /// Takes frame after frame; says where the first is that wasn't taken, and why.
    fn walk(&mut self, window: &mut Window, from: u64) -> Result<(u64, End), OpenError> {
        let file = self.file.clone();
        let mut offset = from;
        loop {
            let (length, is_commit, taken) = match window.frame(offset).map_err(at(&file))? {
                Found::End | Found::Blank => return Ok((offset, End::Blank)),
                Found::Broken(fault) | Found::Damaged(_, fault) => {
                    return Ok((offset, End::Broken(fault.to_string())));
                }
                Found::Frame(frame) => {
                    let length = frame.length as u64;
                    let taken = match frame.kind {
                        Kind::Envelope => self.envelope(frame.body, offset + length),
                        Kind::Commit => self.commit(frame.body),
                        Kind::Payload | Kind::Pad => Ok(()),
                        Kind::Seal => return Ok((offset + length, End::Sealed)),
                        Kind::Header => Err("a second header".to_owned()),
                    };
                    (length, frame.kind == Kind::Commit, taken)
                }
            };
            match (taken, is_commit) {
                (Ok(()), _) => {}
                // No crash writes a whole frame with another content.
                (Err(message), true) => return Err(damaged(&file, offset, message)),
                (Err(message), false) => return Ok((offset, End::Wrong(message))),
            }
            offset += length;
        }
    }

    fn envelope(&mut self, body: &[u8], end: u64) -> Result<(), String> {
        let head = Head::parse(body).ok_or("this is no envelope")?;
        if head.origin != self.key.name || head.index != self.ahead.size() {
            return Err(format!("not the entry {} of this log", self.ahead.size()));
        }
        let leaf = leaf_hash(body);
        self.ahead.push(leaf);
        if let Some(kept) = self.kept_checkpoint
            && kept.size == self.ahead.size()
            && kept.root != self.ahead.root()
        {
            return Err("up to here the ledger is not what its last checkpoint says".to_owned());
        }
        self.staged.push(Staged {
            kind: head.kind.to_owned(),
            index: head.index,
            session: head.session,
            answers: head.answers,
            operation: head.operation(),
            leaf,
            boot: head.boot.to_owned(),
            time: head.time,
            heartbeat: if head.kind == kind::HEARTBEAT { heartbeat(body) } else { None },
            end,
        });
        Ok(())
    }

    fn commit(&mut self, body: &[u8]) -> Result<(), String> {
        let note = std::str::from_utf8(body).ok().and_then(|note| Checkpoint::parse(note).ok());
        let note = note.ok_or("this is no checkpoint")?;
        if note.origin != self.key.name || note.size != self.ahead.size() || note.root != self.ahead.root() {
            return Err("the checkpoint is not of the entries before it".to_owned());
        }
        self.last_commit = Some(sha256(&[body]));
        self.newest = Some(note);
        self.apply_staged();
        Ok(())
    }

    fn apply_staged(&mut self) {
        for entry in std::mem::take(&mut self.staged) {
            self.frontier.push(entry.leaf);
            self.stopped = false;
            if let Some((state, within)) = &entry.heartbeat {
                self.stopped = state == "stopped";
                self.within = *within;
            }
            let chain = match entry.session {
                None => &mut self.node,
                Some(id) => self.sessions.entry(id).or_default(),
            };
            chain.advance(&entry.kind, entry.index, entry.answers, entry.operation, entry.leaf);
            if chain.closed
                && let Some(id) = entry.session
            {
                self.sessions.remove(&id);
            }
            self.boot = entry.boot;
            self.time = entry.time;
        }
    }

    /// Settles what of the end counts.
    fn finish(
        mut self,
        mut window: Window,
        header: &Header,
        first_frame: u64,
        stopped_at: u64,
        end: &End,
    ) -> Result<Scanned, OpenError> {
        let signed = self.newest.as_ref().is_none_or(|newest| newest.signed_by(self.key) == Signed::Good);
        if !signed {
            return Err(damaged(&self.file, 0, "the last checkpoint is not signed by the node's key"));
        }
        let actual = window.file().length().map_err(at(&self.file))?;
        if actual != header.length && !matches!(end, End::Sealed) {
            let message = format!("the file has {actual} bytes instead of {}", header.length);
            return Err(damaged(&self.file, actual, message));
        }
        // One batch at most was on its way, and its parts may have reached the disk in any order: so one commit may stand
        // behind what is missing of it. More were acknowledged, and what they cover is not there any more.
        let (message, most) = match end {
            End::Sealed => ("", 0),
            End::Blank => ("a hole among the entries", 1),
            End::Broken(message) => (message.as_str(), 1),
            End::Wrong(message) => (message.as_str(), 0),
        };
        let notes = self.notes_behind(&mut window, stopped_at)?;
        if notes.len() > most {
            return Err(damaged(&self.file, stopped_at, message));
        }
        let kept = if self.within { self.staged.len() as u64 } else { 0 };
        let kept_end = self.staged.last().map(|entry| entry.end);
        let offset = match kept_end {
            _ if matches!(end, End::Sealed) => stopped_at,
            Some(kept_end) if self.within => kept_end,
            _ => self.commit_end(&mut window, first_frame, stopped_at)?,
        };
        if self.within {
            self.apply_staged();
        }
        let hasher = hash_up_to(&mut window, offset).map_err(at(&self.file))?;
        let segment = Open {
            number: header.segment,
            file: Arc::clone(window.file()),
            offset,
            length: actual,
            first: header.first,
            hasher,
        };
        let mut sessions: Vec<_> = self.sessions.into_iter().collect();
        sessions.sort_by_key(|(id, _)| *id);
        Ok(Scanned {
            segment,
            sealed: matches!(end, End::Sealed),
            frontier: self.frontier,
            node: self.node,
            sessions,
            newest: self.newest,
            last_commit: self.last_commit,
            kept,
            notes,
            stopped: self.stopped,
            boot: self.boot,
            time: self.time,
        })
    }

    /// Where the last commit of the last segment ends; its header's end where it has none.
    fn commit_end(&self, window: &mut Window, first_frame: u64, to: u64) -> Result<u64, OpenError> {
        let (mut offset, mut end) = (first_frame, first_frame);
        while offset < to {
            let Found::Frame(frame) = window.frame(offset).map_err(at(&self.file))? else { break };
            offset += frame.length as u64;
            if frame.kind == Kind::Commit {
                end = offset;
            }
        }
        Ok(end)
    }

    /// Notes that the node's key signed, in whole commit frames anywhere behind `from`.
    fn notes_behind(&self, window: &mut Window, from: u64) -> Result<Vec<String>, OpenError> {
        let mut notes = Vec::new();
        let length = window.file().length().map_err(at(&self.file))?;
        let mut offset = from;
        while offset < length {
            let piece = window.get(offset, PIECE_BYTES).map_err(at(&self.file))?;
            if is_zero(piece) {
                offset += PIECE_BYTES as u64;
                continue;
            }
            let head = window.get(offset, HEADER_BYTES).map_err(at(&self.file))?;
            if !head.starts_with(&MAGIC) || frame::extent(head).is_none() {
                offset += frame::ALIGNMENT as u64;
                continue;
            }
            if let Found::Frame(frame) = window.frame(offset).map_err(at(&self.file))?
                && frame.kind == Kind::Commit
                && let Some(note) =
                    std::str::from_utf8(frame.body).ok().and_then(|note| Checkpoint::parse(note).ok())
                && note.signed_by(self.key) == Signed::Good
            {
                notes.push(note.note);
            }
            offset += frame::ALIGNMENT as u64;
        }
        Ok(notes)
    }
}

fn heartbeat(body: &[u8]) -> Option<(String, bool)> {
    let json = profile::parse(body).ok()?;
    Some((json.get("state")?.text()?.to_owned(), *json.get("sync_ms")? != Json::Null))
}

fn hash_up_to(window: &mut Window, to: u64) -> std::io::Result<Sha256> {
    let mut hasher = Sha256::new();
    let mut offset = 0;
    while offset < to {
        let wanted = usize::try_from(to - offset).unwrap_or(1 << 16).min(1 << 16);
        let piece = window.get(offset, wanted)?;
        if piece.is_empty() {
            break;
        }
        hasher.update(piece);
        offset += piece.len() as u64;
    }
    Ok(hasher)
}
