//! Judges one ledger, frame by frame in its order, and never stops at a finding.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use verbatim_core::{SessionId, Timestamp};

use crate::disk::Disk;
use crate::envelope::{Commitment, Head};
use crate::frame::{Fault, Kind};
use crate::hash::Hash;
use crate::heartbeat::kind;
use crate::note::{Checkpoint, Signed, VerifyingKey};
use crate::payload::Body;
use crate::profile::{self, Json};
use crate::segment::{self, Header, Seal};
use crate::tree::Frontier;
use crate::verify::Progress;
use crate::verify::against::Against;
use crate::verify::frames::{self, Facts, Frame, Payload, Read, Step, Stretch};
use crate::verify::node::State;
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

/// Of a link, a folder or a device where a file of the ledger is to be.
pub(super) const NOT_PLAIN: &str = "this is no file of its own";

/// The segment that is walked over.
#[derive(Clone, Copy, Default)]
struct Segment {
    length: u64,
    is_last: bool,
    /// The length that its header states.
    stated: Option<u64>,
}

pub(super) struct Walk<'a> {
    disk: &'a Arc<dyn Disk>,
    key: &'a VerifyingKey,
    live: bool,
    findings: &'a mut Findings,
    against: Against<'a>,
    file: PathBuf,
    segment: Segment,
    /// The next segment's number.
    due: u64,
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
    walked: Walked,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        disk: &'a Arc<dyn Disk>,
        key: &'a VerifyingKey,
        live: bool,
        against: Against<'a>,
        findings: &'a mut Findings,
    ) -> Self {
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
            against,
            file: PathBuf::new(),
            segment: Segment::default(),
            due: 0,
            tree,
            expected: 0,
            first: 0,
            diverged: false,
            last_commit: None,
            payload: Vec::new(),
            time: Timestamp::from_nanos(0),
            tail: 0,
            broken: false,
            walked,
        }
    }

    /// Walks over all segments in `dir`.
    pub(super) fn ledger(mut self, dir: &Path, watch: &mut dyn FnMut(Progress)) -> io::Result<Walked> {
        let names = self.disk.list(dir)?;
        let numbered = |name: &String| segment::number(name).map(|number| (number, dir.join(name)));
        let mut segments: Vec<_> = names.iter().filter_map(numbered).collect();
        for name in names.iter().filter(|name| segment::number(name).is_none()) {
            self.findings
                .push(Finding::new("TRAIL", "this file is none of the ledger's").at(&dir.join(name), 0));
        }
        if segments.is_empty() {
            self.findings.push(Finding::new("SEGGAP", "there is no segment").at(dir, 0));
        }
        segments.retain(|(_, path)| {
            let plain = self.disk.is_plain(path);
            if !plain {
                self.findings.push(Finding::new("TRAIL", NOT_PLAIN).at(path, 0));
            }
            plain
        });
        let mut progress = Progress { bytes: 0, of: 0 };
        for (_, path) in &segments {
            progress.of += self.disk.open_read(path)?.length()?;
        }
        self.against.reached(&self.tree, self.time, self.findings);
        let (disk, key, live) = (self.disk, self.key, self.live);
        frames::read(disk, &segments, key, live, |read| match read {
            Read::Begin { file, number, length, header, is_last } => {
                self.file = file;
                self.begin(number, length, is_last, header);
            }
            Read::Stretch(stretch) => {
                progress.bytes += stretch.len();
                watch(progress);
                self.stretch(stretch);
            }
            Read::End { offset, sealed } => self.segment_end(offset, sealed),
        })?;
        self.against.end(self.tree.size(), self.findings);
        self.walked.anchored = self.against.anchored();
        Ok(self.walked)
    }

    fn report(&mut self, code: &'static str, offset: u64, message: impl Into<String>) {
        self.findings.push(Finding::new(code, message).at(&self.file, offset));
    }

    fn begin(&mut self, number: u64, length: u64, is_last: bool, header: Option<(Header, u64)>) {
        if number != self.due {
            let message = format!("segments {} to {} are missing", self.due, number.saturating_sub(1));
            self.report("SEGGAP", 0, message);
        }
        self.due = number.saturating_add(1);
        self.first = self.expected;
        self.segment = Segment { length, is_last, stated: header.as_ref().map(|(header, _)| header.length) };
        let Some((header, end)) = header else {
            self.tail = 0;
            self.report("SEGORDER", 0, "the segment does not begin with its header");
            return;
        };
        self.tail = end;
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
    }

    fn segment_end(&mut self, offset: u64, sealed: bool) {
        let Segment { length, is_last, stated } = self.segment;
        // Files are listed before they are read, so that a live ledger's segments but the last are sealed.
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
        } else if let Some(first) = self.payload.first() {
            self.report("PAYCT", first.offset, "payload without an entry");
            self.payload.clear();
        }
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

    fn stretch(&mut self, mut stretch: Stretch) {
        for step in std::mem::take(&mut stretch.steps) {
            match step {
                Step::Frame(frame) => {
                    let body = stretch.body(&frame);
                    self.frame(frame, body);
                }
                Step::Broken { offset, fault, kind } => {
                    self.broken = true;
                    let code = if fault == Fault::Cut { "TORN" } else { kind.map_or("LEAF", code_of) };
                    self.report(code, offset, fault.to_string());
                }
                Step::Stray { offset, sealed } => {
                    let code = if sealed { "SEAL" } else { "TRAIL" };
                    self.report(code, offset, "data where there is none");
                }
            }
        }
    }

    fn frame(&mut self, frame: Frame, body: &[u8]) {
        let Frame { kind, fault, offset, length, facts, .. } = frame;
        if let Some(fault) = fault {
            self.broken = true;
            let code = if fault == Fault::Checksum { code_of(kind) } else { "TRAIL" };
            let finding = Finding::new(code, fault.to_string()).at(&self.file, offset);
            self.findings.push(whose(finding, kind, body));
        }
        match facts {
            Facts::Entry { leaf, commitments } => self.envelope(body, offset, leaf, commitments),
            Facts::Payload(Some(payload)) => self.payload.push(payload),
            Facts::Payload(None) => {
                self.report("PAYCT", offset, "a payload frame without a place and a salt");
            }
            Facts::Commit { sha256, checkpoint } => {
                self.last_commit = Some(sha256);
                self.commit(checkpoint, offset, offset + length);
            }
            Facts::Seal(sha256) => self.seal(body, offset, sha256),
            Facts::None if kind == Kind::Header => self.report("SEGORDER", offset, "a second header"),
            // The format has room for pads; version 1 writes none.
            Facts::None => self.report("TRAIL", offset, "a pad, which nobody wrote"),
        }
    }

    fn envelope(
        &mut self,
        body: &[u8],
        offset: u64,
        leaf: Hash,
        commitments: Result<Vec<Commitment>, String>,
    ) {
        self.tree.push(leaf);
        let read = commitments.and_then(|commitments| {
            let head = Head::parse(body);
            let head = head.ok_or("the envelope has not the keys of one, in their order")?;
            Ok((head, commitments))
        });
        let (head, commitments) = match read {
            Ok(read) => read,
            Err(message) => {
                self.report("PROFILE", offset, message);
                self.against.entry(self.expected, leaf, (None, None), self.findings);
                self.payload.clear();
                self.expected = self.expected.saturating_add(1);
                return self.against.reached(&self.tree, self.time, self.findings);
            }
        };
        let operation = head.operation();
        let finding = |code, message: String| Finding::new(code, message).of(head.session, operation);
        let mut found = Vec::new();
        if head.origin != self.key.name {
            found.push(finding("ORIGIN", format!("entry {} is of {}", head.index, head.origin)));
        }
        if (head.kind == kind::LOG_OPEN) != (head.index == 0) {
            found.push(finding("STATE", format!("entry {}: a log begins with log_open, once", head.index)));
        } else if head.kind == kind::LOG_OPEN && !names_key(body, self.key) {
            found.push(finding("KEY", "the log was opened with another key".to_owned()));
        }
        if head.index < self.expected {
            found.push(finding("DUP", format!("entry {} is here twice, or out of order", head.index)));
        } else if head.index > self.expected {
            let message = format!("entries {} to {} are missing", self.expected, head.index - 1);
            found.push(finding("IDXGAP", message));
        }
        for (code, message, at) in self.compare_payload(&head, &commitments) {
            self.findings.push(finding(code, message).at(&self.file, at.unwrap_or(offset)));
        }
        for finding in found {
            self.findings.push(finding.at(&self.file, offset));
        }
        self.payload.clear();
        self.expected = head.index.saturating_add(1);
        self.time = Timestamp::from_nanos(head.time);
        let place = Place { file: &self.file, offset };
        if self.walked.sense.entry(&head, body, leaf, place, self.findings) == Some(State::Started) {
            self.against.started(head.index);
        }
        self.against.entry(head.index, leaf, (head.session, operation), self.findings);
        self.against.reached(&self.tree, self.time, self.findings);
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
        // Readers take the parts in the order in which they stand.
        let pairs = self.payload.iter().zip(self.payload.iter().skip(1));
        for (_, later) in pairs.filter(|(one, other)| one.place.part >= other.place.part) {
            let message = format!("the parts of entry {} are not in their order", head.index);
            found.push(("PAYCT", message, Some(later.offset)));
        }
        if self.payload.len() > commitments.len() {
            found.push(("PAYCT", format!("more payload than entry {} has", head.index), None));
        }
        found
    }

    fn commit(&mut self, checkpoint: Option<(Checkpoint, Signed)>, offset: u64, end: u64) {
        let Some((checkpoint, signed)) = checkpoint else {
            self.walked.sense.committed(self.tree.size(), self.tree.root());
            self.report("SIG", offset, "the commit is no signed checkpoint");
            return;
        };
        if checkpoint.origin != self.key.name {
            self.report("ORIGIN", offset, format!("a checkpoint of {}", checkpoint.origin));
        }
        match signed {
            Signed::Good => {}
            Signed::OtherKey => self.report("KEY", offset, "the checkpoint is signed by another key"),
            Signed::Bad => self.report("SIG", offset, "the checkpoint's signature is not the key's"),
            Signed::Absent => {
                self.report("SIG", offset, "the checkpoint has no signature in this log's name")
            }
        }
        if checkpoint.signatures() != 1 {
            self.report("SIG", offset, "the checkpoint has other signatures than the log's own");
        }
        if let Some(first) = self.payload.first() {
            self.report("PAYCT", first.offset, "payload without an entry");
            self.payload.clear();
        }
        let root = self.tree.root();
        if self.tree.size() == self.walked.size && self.walked.size > 0 {
            self.report("DUP", offset, "a second commit over the same entries");
        }
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
        // As it is stated: what was changed before it is found by the root, once, and not by each heartbeat again.
        self.walked.sense.committed(checkpoint.size, checkpoint.root);
        self.walked.size = self.tree.size();
        self.walked.root = root;
        self.walked.until = Some(self.time);
        self.tail = end;
        self.broken = false;
        self.findings_committed = self.findings.len();
    }

    fn seal(&mut self, body: &[u8], offset: u64, sha256: Hash) {
        let Some(seal) = Seal::parse(body) else {
            self.report("SEAL", offset, "the seal is not as it is written");
            return;
        };
        let last = self.expected.checked_sub(1).filter(|last| *last >= self.first);
        let root_differs = seal.root != self.tree.root() && !self.diverged;
        if seal.sha256 != sha256 || seal.first != self.first || seal.last != last || root_differs {
            self.report("SEAL", offset, "the segment is not as it was sealed");
        }
        if self.walked.size != self.tree.size() {
            self.report("SEAL", offset, "a seal over entries without a commit");
        }
    }
}

/// Whether a `log_open` names this key.
fn names_key(body: &[u8], key: &VerifyingKey) -> bool {
    let json = profile::parse(body).unwrap_or(Json::Null);
    json.get("vkey").and_then(Json::text) == Some(&key.to_string())
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
