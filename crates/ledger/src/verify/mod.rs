//! Whether a ledger is as it was written, and complete, as far as its files and what left the node can show.
//!
//! Reads files alone, and follows no links. A ledger that a gateway has locked is in use: what its last commit doesn't
//! cover yet is no finding then, and the last line says so. The lock is asked for an instant, on the folder that holds
//! `ledger/`.
//!
//! ```text
//! anchors, copies   what left the node: keys, checkpoints, sinks' events
//! frames            reads ahead; hashes, profile, signatures, in threads
//! walk              the judge: order, tree, commits, segments; with
//!   session, node     whether sessions, heartbeats and clocks make sense
//!   against           whether what left the node says the same
//! proof             what `prove` made, in place of a ledger
//! report            what comes of it
//! ```

mod against;
mod anchors;
mod copies;
mod frames;
mod node;
mod proof;
mod report;
mod session;
mod walk;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use verbatim_core::Timestamp;

pub use report::{Finding, LedgerSummary, Outcome, Report};

use crate::disk::{Disk, FileSystem};
use crate::note::{NOTE_BYTES_MAX, VerifyingKey};
use against::Against;
use anchors::Anchor;
use copies::Copied;
use node::State;
use report::Findings;
use walk::{Walk, Walked};

/// How far an anchor may be behind the last entry, in nanoseconds, before it counts as stale.
const ANCHOR_LAG_NANOS: u64 = 70_000_000_000;

/// How often a ledger in use is read again before a finding counts.
const LIVE_TRIES: u32 = 3;

/// What is verified, and against what.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Folders named `ledger/`, or copies of one.
    pub ledgers: Vec<PathBuf>,
    /// Files that [`prove`](crate::prove) made.
    pub proofs: Vec<PathBuf>,
    /// The file with the node's public key; else `keys/node.vkey` beside each ledger.
    pub public_key: Option<PathBuf>,
    /// Files with what left the node: signed notes, or the JSON lines of a sink, whose entries are compared too.
    pub checkpoints: Vec<PathBuf>,
    /// A file with the public keys, one a line, of all nodes that there are.
    pub trust: Option<PathBuf>,
    /// What time it is, where the age of the record matters.
    pub now: Option<Timestamp>,
    /// A missing or stale anchor is a finding.
    pub require_anchor: bool,
}

/// How far a ledger is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are judged.
    pub bytes: u64,
    /// Bytes that there are.
    pub of: u64,
}

/// Verifies, on the machine's own disk.
pub fn verify(inputs: &Inputs) -> Report {
    verify_watched(inputs, &mut |_| {})
}

/// As [`verify`], and shows how far it is, many times a second.
pub fn verify_watched(inputs: &Inputs, watch: &mut dyn FnMut(Progress)) -> Report {
    run(&(Arc::new(FileSystem) as Arc<dyn Disk>), inputs, watch)
}

/// Verifies, on any disk.
pub fn verify_on(disk: &Arc<dyn Disk>, inputs: &Inputs) -> Report {
    run(disk, inputs, &mut |_| {})
}

fn run(disk: &Arc<dyn Disk>, inputs: &Inputs, watch: &mut dyn FnMut(Progress)) -> Report {
    let mut run = Run {
        disk,
        inputs,
        watch,
        findings: Findings::default(),
        ledgers: Vec::new(),
        unknown: Vec::new(),
        lines: Vec::new(),
        keys: Vec::new(),
        anchors: Vec::new(),
        copies: Vec::new(),
    };
    run.read_inputs();
    for dir in &inputs.ledgers {
        run.ledger(dir);
    }
    for file in &inputs.proofs {
        run.proof(file);
    }
    run.complete();
    run.report()
}

/// Where the node keeps its public key.
fn key_beside(ledger: &Path) -> PathBuf {
    ledger.parent().unwrap_or(Path::new("")).join("keys/node.vkey")
}

struct Run<'a> {
    disk: &'a Arc<dyn Disk>,
    inputs: &'a Inputs,
    watch: &'a mut dyn FnMut(Progress),
    findings: Findings,
    ledgers: Vec<LedgerSummary>,
    /// Why something could not be told.
    unknown: Vec<String>,
    /// What the last line says.
    lines: Vec<String>,
    keys: Vec<VerifyingKey>,
    anchors: Vec<Anchor>,
    copies: Vec<Copied>,
}

impl Run<'_> {
    fn read_inputs(&mut self) {
        for file in self.inputs.trust.iter().chain(&self.inputs.public_key) {
            match anchors::keys(&**self.disk, file) {
                Ok(keys) => self.keys.extend(keys),
                Err(error) => self.unknown.push(error),
            }
        }
        for file in &self.inputs.checkpoints {
            match anchors::read(&**self.disk, file, &mut self.findings) {
                Ok((anchors, copies)) => {
                    self.anchors.extend(anchors);
                    self.copies.extend(copies);
                }
                Err(error) => self.unknown.push(error),
            }
        }
        if self.inputs.ledgers.is_empty() && self.inputs.proofs.is_empty() {
            self.unknown.push("nothing to verify was named".to_owned());
        }
    }

    fn ledger(&mut self, dir: &Path) {
        let names = match self.disk.list(dir) {
            Ok(names) => names,
            Err(error) => return self.unknown.push(format!("{}: {error}", dir.display())),
        };
        let Some(key) = self.key_of(dir) else { return };
        self.identity(dir, &names, &key);
        let live = dir.parent().is_some_and(|parent| {
            self.disk.is_locked(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
        });
        let segments = dir.join("seg");
        if let Err(error) = self.disk.list(&segments)
            && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        {
            return self.findings.push(Finding::new("SEGGAP", "there is no segment").at(&segments, 0));
        }
        let mut tries = 0;
        let (walked, found) = loop {
            tries += 1;
            let mut found = Findings::default();
            let against = Against::new(&key, &self.anchors, &self.copies);
            let walk = Walk::new(self.disk, &key, live, against, &mut found);
            let walked = walk.ledger(&segments, &mut *self.watch);
            // What is being written while it is read may look broken once; what is broken stays so.
            if found.len() == 0 || !live || tries == LIVE_TRIES {
                break (walked, found);
            }
        };
        found.into_list().into_iter().for_each(|finding| self.findings.push(finding));
        match walked {
            Ok(walked) => self.conclude(dir, &key, live, &walked),
            Err(error) => self.unknown.push(format!("{}: {error}", dir.display())),
        }
    }

    /// The key that a ledger must be signed with: by its name among those given, else the one beside it.
    fn key_of(&mut self, dir: &Path) -> Option<VerifyingKey> {
        let origin = self.small(&dir.join("origin")).unwrap_or_default();
        let origin = std::str::from_utf8(&origin).unwrap_or_default().trim_end();
        if let Some(key) = self.keys.iter().find(|key| key.name == origin) {
            return Some(key.clone());
        }
        // The origin itself may be what was changed.
        if let ([key], true) = (&*self.keys, self.inputs.public_key.is_some()) {
            return Some(key.clone());
        }
        match anchors::keys(&**self.disk, &key_beside(dir)) {
            Ok(keys) => keys.into_iter().next(),
            Err(error) => {
                self.unknown.push(format!("no public key is given, and none is beside the ledger: {error}"));
                None
            }
        }
    }

    /// A small file of the ledger, where it is one.
    fn small(&self, path: &Path) -> Option<Vec<u8>> {
        // What is no plain file may never end, or not even begin.
        if self.disk.is_plain(path) { self.disk.get(path, NOTE_BYTES_MAX).ok() } else { None }
    }

    /// The files beside the segments.
    fn identity(&mut self, dir: &Path, names: &[String], key: &VerifyingKey) {
        let expected = [
            ("origin", "ORIGIN", format!("{}\n", key.name), "this is not the origin that the key belongs to"),
            ("log.vkey", "KEY", format!("{key}\n"), "this is not the public key that was given"),
        ];
        for (name, code, content, wrong) in expected {
            let path = dir.join(name);
            let finding = if !names.iter().any(|there| there == name) {
                Finding::new(code, "this file is missing")
            } else if !self.disk.is_plain(&path) {
                Finding::new("TRAIL", walk::NOT_PLAIN)
            } else if self.small(&path).is_none_or(|bytes| bytes != content.as_bytes()) {
                Finding::new(code, wrong)
            } else {
                continue;
            };
            self.findings.push(finding.at(&path, 0));
        }
        for name in names.iter().filter(|name| !["origin", "log.vkey", "seg"].contains(&name.as_str())) {
            let finding = Finding::new("TRAIL", "this file is none of the ledger's");
            self.findings.push(finding.at(&dir.join(name), 0));
        }
    }

    fn conclude(&mut self, dir: &Path, key: &VerifyingKey, live: bool, walked: &Walked) {
        let until = walked.until.map(|time| time.to_string());
        let anchored = walked.anchored.map(|(_, time)| time.to_string());
        self.judge_age(dir, walked);
        self.judge_anchor(dir, walked);
        let size = walked.size;
        let until_text = until.as_deref().unwrap_or("never");
        let mut line = format!("{}: {size} entries until {until_text}; ", key.name);
        line += &match (walked.anchored, &anchored) {
            (Some((to, _)), Some(time)) if to >= size => {
                format!("anchored outside the node up to {time}, its last entry")
            }
            (Some((to, _)), Some(time)) => format!(
                "anchored outside the node up to {time} (entry {}); nothing outside the node vouches for the {} \
                 entries after it",
                to.saturating_sub(1),
                size - to
            ),
            _ => "not anchored: nothing outside the node vouches for its tail".to_owned(),
        };
        let open = walked.sense.open_sessions();
        if live {
            line += &format!(
                "; in use: {} entries are not committed yet, {open} sessions are open",
                walked.uncommitted
            );
        } else if open > 0 {
            line +=
                &format!("; {open} sessions were never closed, the next start of the gateway will say so");
        }
        let given = self.inputs.public_key.iter().chain(&self.inputs.trust);
        if given.into_iter().all(|file| *file == key_beside(dir)) {
            line += "; judged by the node's own copy of its key";
        }
        self.lines.push(line);
        self.ledgers.push(LedgerSummary {
            origin: key.name.clone(),
            size,
            root: STANDARD.encode(walked.root),
            sessions: walked.sense.sessions,
            operations: walked.sense.operations,
            anchored_until: anchored,
        });
    }

    /// With the time given, a log that fell silent is one whose end may be missing.
    fn judge_age(&mut self, dir: &Path, walked: &Walked) {
        let (Some(now), Some(beat)) = (self.inputs.now, walked.sense.beat()) else { return };
        let age = now.as_nanos().saturating_sub(beat.time);
        if walked.sense.closed || age <= beat.patience() {
            return;
        }
        let last = Timestamp::from_nanos(beat.time);
        let why = if beat.state == State::Stopped {
            "it says that the gateway stopped"
        } else {
            "the end may be cut off"
        };
        let message = format!("the last heartbeat is of {last}, {} s ago: {why}", age / 1_000_000_000);
        self.findings.push(Finding::new("TRUNC", message).at(dir, 0));
    }

    fn judge_anchor(&mut self, dir: &Path, walked: &Walked) {
        if !self.inputs.require_anchor {
            return;
        }
        let until = self.inputs.now.or(walked.until).map_or(0, Timestamp::as_nanos);
        let message = match walked.anchored {
            None => "no checkpoint from outside the node agrees with it".to_owned(),
            Some((size, time)) if until.saturating_sub(time.as_nanos()) > ANCHOR_LAG_NANOS => {
                format!("the newest checkpoint from outside the node is of {size} entries, until {time}")
            }
            Some(_) => return,
        };
        self.findings.push(Finding::new("ANCHOR", message).at(dir, 0));
    }

    fn proof(&mut self, file: &Path) {
        let keys = match (&*self.keys, self.inputs.ledgers.first()) {
            ([], Some(dir)) => self.key_of(&dir.clone()).into_iter().collect(),
            (keys, _) => keys.to_vec(),
        };
        if keys.is_empty() {
            self.unknown.push("a proof is judged by a public key: --public-key".to_owned());
            return;
        }
        match proof::check(&**self.disk, file, &keys, &self.anchors, &mut self.findings) {
            Ok(proved) => {
                self.lines.push(proved.line);
                self.ledgers.push(proved.summary);
            }
            Err(error) => self.unknown.push(format!("{}: {error}", file.display())),
        }
    }

    /// What was to be there and isn't.
    fn complete(&mut self) {
        if self.inputs.trust.is_some() && !self.inputs.ledgers.is_empty() {
            for key in &self.keys {
                if !self.ledgers.iter().any(|ledger| ledger.origin == key.name) {
                    let message = format!("the ledger {} is trusted, and not among those given", key.name);
                    self.findings.push(Finding::new("NODEMISSING", message));
                }
            }
        }
        for file in &self.inputs.checkpoints {
            let notes = self.anchors.iter().filter(|anchor| anchor.file == *file);
            let notes = notes.map(|anchor| &*anchor.checkpoint.origin);
            let copies = self.copies.iter().filter(|copy| *copy.file == **file).map(|copy| &*copy.origin);
            let mut of_file = notes.chain(copies).peekable();
            let known = |origin: &str| self.ledgers.iter().any(|ledger| ledger.origin == origin);
            let read = of_file.peek().is_some();
            if read && !self.ledgers.is_empty() && !of_file.any(known) {
                let message = "nothing in this file is of a ledger that was given";
                self.findings.push(Finding::new("ORIGIN", message).at(file, 0));
            }
        }
    }

    fn report(self) -> Report {
        let findings = self.findings.into_list();
        let result = match (findings.is_empty(), self.unknown.is_empty()) {
            (false, _) => Outcome::Findings,
            (true, false) => Outcome::Unknown,
            (true, true) => Outcome::Intact,
        };
        let mut lines = self.lines;
        lines.extend(self.unknown.into_iter().map(|why| format!("could not tell: {why}")));
        Report { result, ledgers: self.ledgers, findings, last_line: lines.join(" | ") }
    }
}
