//! Walks over one ledger, frame by frame, and never stops at a finding.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use verbatim_core::{SessionId, Timestamp};

use crate::disk::Disk;
use crate::envelope::{self, Commitment, Head};
use crate::frame::{self, Fault, Found, HEADER_BYTES, Kind, MAGIC};
use crate::hash::{Hash, sha256};
use crate::note::{Checkpoint, Signed, VerifyingKey};
use crate::payload::{self, Body};
use crate::profile;
use crate::segment::{self, Header, Seal, Window, is_zero};
use crate::tree::{Frontier, leaf_hash};
use crate::verify::anchors::Anchor;
use crate::verify::report::{Finding, Findings};
use crate::verify::session::{Place, Sense};

/// What a walk found out, besides findings.
pub(super) struct Walked {
    pub(super) size: u64,
    pub(super) root: Hash,
    pub(super) sense: Sense,
    /// The time of the last committed entry.
    pub(super) until: Option<Timestamp>,
    /// The newest anchor that agrees: its size, and the time of its last entry.
    pub(super) anchored: Option<(u64, Timestamp)>,
    /// Entries of a ledger in use that no commit covers yet.
    pub(super) uncommitted: u64,
}

/// A payload frame whose envelope is still to come.
struct Payload {
    place: payload::Place,
    length: u64,
    ct_sha256: Hash,
    salt_commit: Hash,
    offset: u64,
}

pub(super) struct Walk<'a> {
    disk: &'a Arc<dyn Disk>,
    key: &'a VerifyingKey,
    live: bool,
    findings: &'a mut Findings,
    /// Anchors that are still to be compared, the smallest first.
    anchors: VecDeque<&'a Anchor>,
    file: PathBuf,
    tree: Frontier,
    expected: u64,
    /// The first entry of the segment.
    first: u64,
    /// The root was found wrong once: it is wrong from there on.
    diverged: bool,
    last_commit: Option<Hash>,
    payload: Vec<Payload>,
    time: Timestamp,
    /// Where the first frame behind the last commit is.
    tail: u64,
    /// There is a damaged frame behind the last commit.
    broken: bool,
    /// How many findings there were at the last commit.
    findings_committed: usize,
    /// Entry indexes at which processes began.
    starts: Vec<u64>,
    walked: Walked,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        disk: &'a Arc<dyn Disk>,
        key: &'a VerifyingKey,
        live: bool,
        anchors: &'a [Anchor],
        findings: &'a mut Findings,
    ) -> Self {
        let mut anchors: Vec<_> = anchors.iter().filter(|a| a.checkpoint.origin == key.name).collect();
        anchors.sort_by_key(|anchor| anchor.checkpoint.size);
        let tree = Frontier::default();
        let root = tree.root();
        let walked =
            Walked { size: 0, root, sense: Sense::default(), until: None, anchored: None, uncommitted: 0 };
        Self {
            disk,
            key,
            live,
            findings_committed: findings.len(),
            findings,
            anchors: anchors.into(),
            file: PathBuf::new(),
            tree,
            expected: 0,
            first: 0,
            diverged: false,
            last_commit: None,
            payload: Vec::new(),
            time: Timestamp::from_nanos(0),
            tail: 0,
            broken: false,
            starts: Vec::new(),
            walked,
        }
    }

    /// Walks over all segments in `dir`.
    pub(super) fn ledger(mut self, dir: &Path) -> io::Result<Walked> {
        let names = self.disk.list(dir)?;
        let numbers: Vec<_> = names.iter().filter_map(|name| segment::number(name)).collect();
        for name in names.iter().filter(|name| segment::number(name).is_none()) {
            self.findings
                .push(Finding::new("TRAIL", "this file is none of the ledger's").at(&dir.join(name), 0));
        }
        if numbers.is_empty() {
            self.findings.push(Finding::new("SEGGAP", "there is no segment").at(dir, 0));
        }
        let mut due = 0;
        self.compare_anchors();
        for number in &numbers {
            self.file = dir.join(segment::file_name(*number));
            if *number != due {
                let message = format!("segments {due} to {} are missing", number.saturating_sub(1));
                self.report("SEGGAP", 0, message);
            }
            due = number + 1;
            let window = Window::new(self.disk.open_read(&self.file)?);
            self.segment(window, *number, numbers.last() == Some(number))?;
        }
        self.finish();
        Ok(self.walked)
    }

    fn report(&mut self, code: &'static str, offset: u64, message: impl Into<String>) {
        self.findings.push(Finding::new(code, message).at(&self.file, offset));
    }

    fn segment(&mut self, mut window: Window, number: u64, is_last: bool) -> io::Result<()> {
        let file = Arc::clone(window.file());
        let length = file.length()?;
        self.first = self.expected;
        let header = self.header(&mut window, number)?;
        let mut offset = header.as_ref().map_or(0, |(_, length)| *length);
        self.tail = offset;
        let mut sealed = false;
        // Files are listed before they are read, so that a live ledger's segments but the last are sealed.
        while offset < length {
            let step = self.step(&mut window, offset, length, sealed)?;
            sealed |= step.seal;
            match step.next {
                Some(next) => offset = next,
                None => break,
            }
        }
        let stated = header.map(|(header, _)| header.length);
        let whole = stated.is_none_or(|stated| stated == length) || (sealed && offset == length);
        if !whole {
            let stated = stated.unwrap_or_default();
            self.report("SEAL", length, format!("the file has {length} bytes instead of {stated}"));
        }
        if !sealed && !is_last {
            self.report("SEGGAP", offset, "the segment has no seal, and is not the last");
        }
        if is_last {
            self.end_of_last();
        }
        Ok(())
    }

    /// Judges what stands behind the last commit of the last segment.
    fn end_of_last(&mut self) {
        let uncommitted = self.tree.size() - self.walked.size;
        if self.live {
            // Half a batch, a frame that is being written: none of it is said to be durable.
            self.findings.truncate(self.findings_committed);
            self.walked.uncommitted = uncommitted;
            return;
        }
        if uncommitted > 0 || !self.payload.is_empty() || self.broken {
            let message = format!(
                "behind the last commit there are {uncommitted} entries that no signature covers, or parts of one: \
                 a crash leaves this, and so does a cut"
            );
            self.report("TORN", self.tail, message);
        } else if self.last_commit.is_none() {
            let message =
                "nothing here is signed: a crash in the very first start leaves this, and so does a cut";
            self.report("TORN", self.tail, message);
        }
        let file = self.file.clone();
        self.walked.sense.end(Place { file: &file, offset: self.tail }, self.findings);
    }

    fn header(&mut self, window: &mut Window, number: u64) -> io::Result<Option<(Header, u64)>> {
        let parsed = match window.frame(0)? {
            Found::Frame(frame) if frame.kind == Kind::Header => {
                Header::parse(frame.body).map(|header| (header, frame.length as u64))
            }
            _ => None,
        };
        let Some((header, length)) = parsed else {
            self.report("SEGORDER", 0, "the segment does not begin with its header");
            return Ok(None);
        };
        if header.origin != self.key.name {
            self.report("ORIGIN", 0, format!("the segment is of {}", header.origin));
        }
        if header.segment != number {
            self.report("SEGORDER", 0, format!("this is segment {}", header.segment));
        }
        if header.first != self.expected {
            let message = format!("begins with entry {} instead of {}", header.first, self.expected);
            self.report("SEGORDER", 0, message);
        }
        if header.previous_commit != self.last_commit {
            self.report("SEGORDER", 0, "the last commit before it is not the one it names");
        }
        Ok(Some((header, length)))
    }

    /// Judges what stands at `offset`; says where to go on.
    fn step(&mut self, window: &mut Window, offset: u64, length: u64, sealed: bool) -> io::Result<Step> {
        if sealed {
            return self.rest(window, offset, length, "SEAL");
        }
        let mut owned = Vec::new();
        let (kind, fault, extent) = match window.frame(offset)? {
            Found::End => return Ok(Step::END),
            Found::Blank => return self.rest(window, offset, length, "TRAIL"),
            Found::Broken(fault) => return self.broken(window, offset, length, fault),
            Found::Frame(frame) => {
                owned.extend_from_slice(frame.body);
                (frame.kind, None, frame.length as u64)
            }
            Found::Damaged(frame, fault) => {
                owned.extend_from_slice(frame.body);
                (frame.kind, Some(fault), frame.length as u64)
            }
        };
        if let Some(fault) = fault {
            self.broken = true;
            let code = if fault == Fault::Checksum { code_of(kind) } else { "TRAIL" };
            let finding = Finding::new(code, fault.to_string()).at(&self.file, offset);
            self.findings.push(whose(finding, kind, &owned));
        }
        match kind {
            Kind::Envelope => self.envelope(&owned, offset),
            Kind::Payload => self.payload_frame(&owned, offset),
            Kind::Commit => self.commit(&owned, offset, offset + extent),
            Kind::Header => self.report("SEGORDER", offset, "a second header"),
            Kind::Pad if owned.iter().any(|byte| *byte != 0) => {
                self.report("TRAIL", offset, "a pad that is not zero");
            }
            Kind::Pad => {}
            Kind::Seal => self.seal(window, &owned, offset)?,
        }
        Ok(Step { next: Some(offset + extent), seal: kind == Kind::Seal })
    }

    /// Looks for anything but zeros from `offset` on; goes on at the next frame.
    fn rest(
        &mut self,
        window: &mut Window,
        offset: u64,
        length: u64,
        code: &'static str,
    ) -> io::Result<Step> {
        let mut at = offset;
        while at < length {
            let piece = window.get(at, 64 << 10)?;
            if piece.is_empty() {
                break;
            }
            if !is_zero(piece)
                && let Some(place) = piece.iter().position(|byte| *byte != 0)
            {
                let found = at + place as u64;
                if self.live {
                    return Ok(Step::END);
                }
                self.report(code, found, "data where there is none");
                let next = self.next_frame(window, found, length)?;
                return Ok(Step { next, seal: false });
            }
            at += piece.len() as u64;
        }
        Ok(Step::END)
    }

    fn broken(&mut self, window: &mut Window, offset: u64, length: u64, fault: Fault) -> io::Result<Step> {
        let kind = window.get(offset, HEADER_BYTES)?.get(4).copied().and_then(Kind::from_byte);
        self.broken = true;
        let code = if fault == Fault::Cut { "TORN" } else { kind.map_or("LEAF", code_of) };
        self.report(code, offset, fault.to_string());
        let next = self.next_frame(window, offset + 1, length)?;
        Ok(Step { next, seal: false })
    }

    /// Where the next whole frame begins.
    fn next_frame(&self, window: &mut Window, from: u64, length: u64) -> io::Result<Option<u64>> {
        let mut offset = from.next_multiple_of(frame::ALIGNMENT as u64);
        while offset < length {
            let head = window.get(offset, HEADER_BYTES)?;
            if head.starts_with(&MAGIC) && matches!(window.frame(offset)?, Found::Frame(_)) {
                return Ok(Some(offset));
            }
            offset += frame::ALIGNMENT as u64;
        }
        Ok(None)
    }

    fn payload_frame(&mut self, body: &[u8], offset: u64) {
        let Some(body) = Body::parse(body) else {
            self.report("PAYCT", offset, "a payload frame without a place and a salt");
            return;
        };
        self.payload.push(Payload {
            place: body.place,
            length: body.text.len() as u64,
            ct_sha256: sha256(&[body.stored]),
            salt_commit: payload::salt_commit(&self.key.name, &body.place, body.salt, body.text),
            offset,
        });
    }

    fn envelope(&mut self, body: &[u8], offset: u64) {
        let leaf = leaf_hash(body);
        self.tree.push(leaf);
        let json = match profile::parse(body) {
            Ok(json) => json,
            Err(violation) => {
                self.report("PROFILE", offset, violation.to_string());
                self.skip_entry();
                return;
            }
        };
        let head = Head::parse(body).filter(|_| envelope::has_the_keys(&json));
        let Some(head) = head else {
            self.report("PROFILE", offset, "the envelope has not the keys of one, in their order");
            self.skip_entry();
            return;
        };
        let operation = head.operation();
        let finding = |code, message: String| Finding::new(code, message).of(head.session, operation);
        let mut found = Vec::new();
        if head.origin != self.key.name {
            found.push(finding("ORIGIN", format!("entry {} is of {}", head.index, head.origin)));
        }
        if head.index < self.expected {
            found.push(finding("DUP", format!("entry {} is here twice, or out of order", head.index)));
        } else if head.index > self.expected {
            let message = format!("entries {} to {} are missing", self.expected, head.index - 1);
            found.push(finding("IDXGAP", message));
        }
        match envelope::commitments(&json) {
            None => found.push(finding("PROFILE", "pay is not as it is written".to_owned())),
            Some(commitments) => {
                for (code, message, at) in self.compare_payload(&head, &commitments) {
                    let place = at.unwrap_or(offset);
                    self.findings.push(finding(code, message).at(&self.file, place));
                }
            }
        }
        for finding in found {
            self.findings.push(finding.at(&self.file, offset));
        }
        self.payload.clear();
        self.expected = head.index.saturating_add(1);
        self.time = Timestamp::from_nanos(head.time);
        if head.kind == crate::heartbeat::kind::HEARTBEAT
            && json.get("state").and_then(profile::Json::text) == Some("started")
        {
            self.starts.push(head.index);
        }
        self.walked.sense.entry(&head, &json, leaf, Place { file: &self.file, offset }, self.findings);
        self.compare_anchors();
    }

    /// Passes over an entry that can't be read.
    fn skip_entry(&mut self) {
        self.payload.clear();
        self.expected = self.expected.saturating_add(1);
        self.compare_anchors();
    }

    fn compare_payload(
        &self,
        head: &Head<'_>,
        commitments: &[Commitment],
    ) -> Vec<(&'static str, String, Option<u64>)> {
        let mut found = Vec::new();
        let session = head.session.map_or([0; 16], |id| *id.as_bytes());
        for (place, commitment) in commitments.iter().enumerate() {
            let part = commitment.part;
            let index = head.index;
            if part != place as u64 || commitment.algorithm != "none" {
                found.push(("PROFILE", format!("entry {index}: pay is not as it is written"), None));
            }
            let stored = self.payload.iter().find(|stored| {
                stored.place.session == session
                    && stored.place.sequence == head.sequence
                    && u64::from(stored.place.part) == part
            });
            let Some(stored) = stored else {
                found.push((
                    "PAYMISSING",
                    format!("entry {index}: part {part} of its payload is missing"),
                    None,
                ));
                continue;
            };
            let same = stored.ct_sha256 == commitment.ct_sha256
                && stored.salt_commit == commitment.salt_commit
                && stored.length == commitment.length;
            if !same {
                let message = format!("entry {index}: part {part} of its payload is not what was recorded");
                found.push(("PAYCT", message, Some(stored.offset)));
            }
        }
        let of_another = |stored: &&Payload| {
            stored.place.session != session
                || stored.place.sequence != head.sequence
                || u64::from(stored.place.part) >= commitments.len() as u64
        };
        for stray in self.payload.iter().filter(of_another) {
            let message = format!("payload of another entry, in front of entry {}", head.index);
            found.push(("PAYCT", message, Some(stray.offset)));
        }
        if self.payload.len() > commitments.len() {
            found.push(("PAYCT", format!("more payload than entry {} has", head.index), None));
        }
        found
    }

    fn commit(&mut self, body: &[u8], offset: u64, end: u64) {
        self.last_commit = Some(sha256(&[body]));
        let parsed = std::str::from_utf8(body).ok().map(Checkpoint::parse);
        let Some(Ok(checkpoint)) = parsed else {
            self.report("SIG", offset, "the commit is no signed checkpoint");
            return;
        };
        if checkpoint.origin != self.key.name {
            self.report("ORIGIN", offset, format!("a checkpoint of {}", checkpoint.origin));
        }
        match checkpoint.signed_by(self.key) {
            Signed::Good => {}
            Signed::OtherKey => self.report("KEY", offset, "the checkpoint is signed by another key"),
            Signed::Bad => self.report("SIG", offset, "the checkpoint's signature is not the key's"),
            Signed::Absent => {
                self.report("SIG", offset, "the checkpoint has no signature in this log's name")
            }
        }
        if !self.payload.is_empty() {
            self.report("PAYCT", offset, "payload without an entry");
            self.payload.clear();
        }
        let root = self.tree.root();
        if (checkpoint.size != self.tree.size() || checkpoint.root != root) && !self.diverged {
            self.diverged = true;
            let message = format!(
                "the entries {} to {} are not those that were signed as {} entries; so it is with all checkpoints \
                 from here on",
                self.walked.size,
                self.tree.size().saturating_sub(1),
                checkpoint.size,
            );
            self.report("ROOT", offset, message);
        }
        self.walked.size = self.tree.size();
        self.walked.root = root;
        self.walked.until = Some(self.time);
        self.tail = end;
        self.broken = false;
        self.findings_committed = self.findings.len();
    }

    fn seal(&mut self, window: &mut Window, body: &[u8], offset: u64) -> io::Result<()> {
        let Some(seal) = Seal::parse(body) else {
            self.report("SEAL", offset, "the seal is not as it is written");
            return Ok(());
        };
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < offset {
            let wanted = usize::try_from(offset - at).unwrap_or(64 << 10).min(64 << 10);
            let piece = window.get(at, wanted)?;
            if piece.is_empty() {
                break;
            }
            hasher.update(piece);
            at += piece.len() as u64;
        }
        let sha256: Hash = hasher.finalize().into();
        let last = self.expected.checked_sub(1).filter(|last| *last >= self.first);
        let root_differs = seal.root != self.tree.root() && !self.diverged;
        if seal.sha256 != sha256 || seal.first != self.first || seal.last != last || root_differs {
            self.report("SEAL", offset, "the segment is not as it was sealed");
        }
        if self.walked.size != self.tree.size() {
            self.report("SEAL", offset, "a seal over entries without a commit");
        }
        Ok(())
    }

    /// Compares with the anchors of the size that was just reached.
    fn compare_anchors(&mut self) {
        while let Some(anchor) = self.anchors.front()
            && anchor.checkpoint.size <= self.tree.size()
        {
            let anchor = *anchor;
            self.anchors.pop_front();
            let size = anchor.checkpoint.size;
            match anchor.checkpoint.signed_by(self.key) {
                Signed::Good => {}
                _ => {
                    let message = format!("the checkpoint of {size} entries is not signed by this log's key");
                    self.findings.push(Finding::new("SIG", message).at(&anchor.file, 0));
                    continue;
                }
            }
            if size == self.tree.size() && anchor.checkpoint.root == self.tree.root() {
                self.walked.anchored = Some((size, self.time));
                continue;
            }
            let message = format!(
                "a checkpoint of {size} entries says otherwise than the ledger: there are two histories; see {}",
                anchor.file.display()
            );
            self.findings.push(Finding::new("FORK", message).at(&anchor.file, 0));
            let agreed = self.walked.anchored.map_or(0, |(size, _)| size);
            if let Some(start) =
                self.starts.iter().find(|start| (agreed..size).contains(*start) && **start > 1)
            {
                let message = format!(
                    "the node went on at entry {start} from an older state than it had signed before"
                );
                self.findings.push(Finding::new("ROLLBACK", message).at(&anchor.file, 0));
            }
        }
    }

    /// Judges the anchors that the ledger does not reach.
    fn finish(&mut self) {
        for anchor in std::mem::take(&mut self.anchors) {
            let size = anchor.checkpoint.size;
            let reached = self.tree.size();
            let finding = if anchor.checkpoint.signed_by(self.key) == Signed::Good {
                Finding::new(
                    "TRUNC",
                    format!("the log had {size} entries, here are {reached}: its end is cut off"),
                )
            } else {
                Finding::new(
                    "SIG",
                    format!("the checkpoint of {size} entries is not signed by this log's key"),
                )
            };
            self.findings.push(finding.at(&anchor.file, 0));
        }
    }
}

/// Says of a damaged frame whose it seems to be, as far as it can still be read.
fn whose(finding: Finding, kind: Kind, body: &[u8]) -> Finding {
    match kind {
        Kind::Envelope => match Head::parse(body) {
            Some(head) => finding.of(head.session, head.operation()),
            None => finding,
        },
        Kind::Payload => {
            let place = Body::parse(body).map(|body| body.place.session);
            let session = place.filter(|id| *id != [0; 16]).map(SessionId::from_bytes);
            finding.of(session, None)
        }
        _ => finding,
    }
}

/// Where to go on.
struct Step {
    next: Option<u64>,
    seal: bool,
}

impl Step {
    const END: Self = Self { next: None, seal: false };
}

/// What a damaged frame of this kind is called.
const fn code_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Envelope => "LEAF",
        Kind::Commit => "SIG",
        Kind::Header => "SEGORDER",
        Kind::Pad => "TRAIL",
        Kind::Payload => "PAYCT",
        Kind::Seal => "SEAL",
    }
}
