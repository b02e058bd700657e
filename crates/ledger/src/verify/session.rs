//! Whether the entries make sense: each session from its opening to its close, and the node's own heartbeats and clocks.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use verbatim_core::SessionId;
use verbatim_core::event::kind;

use crate::chain::{Chain, is_of_a_session};
use crate::envelope::Head;
use crate::hash::Hash;
use crate::heartbeat::kind as own;
use crate::profile::Json;
use crate::sequencer::CLOCK_BOUND_NANOS;
use crate::verify::report::{Finding, Findings};

/// How far wall clock and boot clock may part between two heartbeats.
const DRIFT_NANOS: u128 = 2_000_000_000;
/// How much longer than its interval a heartbeat may take, where three intervals are less.
const LATE_NANOS: u64 = 5_000_000_000;

/// Where an entry stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a Path,
    pub(super) offset: u64,
}

struct OpenSession {
    chain: Chain,
    boot: String,
    /// The last entry that is no chunk: what its payload goes on in answers it.
    last_entry: u64,
}

/// A heartbeat that was seen.
#[derive(Clone)]
pub(super) struct Beat {
    pub(super) time: u64,
    mono: u64,
    pub(super) every: Duration,
    /// It is the last of its process.
    pub(super) stopped: bool,
}

impl Beat {
    /// How long until the next one is missed, in nanoseconds.
    pub(super) fn patience(&self) -> u64 {
        let every = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        every.saturating_mul(3).max(every.saturating_add(LATE_NANOS))
    }
}

/// What is known of all entries so far.
#[derive(Default)]
pub(super) struct Sense {
    node: Chain,
    open: HashMap<SessionId, OpenSession>,
    pub(super) sessions: u64,
    pub(super) operations: u64,
    boot: String,
    last_time: u64,
    last_mono: u64,
    pub(super) beat: Option<Beat>,
    /// A `clock` or `recovery` since the last heartbeat explains a gap.
    explained: bool,
    /// The clock went back and nothing said so yet; the heartbeats since.
    back: Option<(Finding, u32)>,
    /// The last entry is a heartbeat that says that the process stops.
    stopped: bool,
    /// The log was ended.
    pub(super) closed: bool,
}

impl Sense {
    /// How many sessions are open.
    pub(super) fn open_sessions(&self) -> usize {
        self.open.len()
    }

    /// Judges an entry.
    pub(super) fn entry(
        &mut self,
        head: &Head<'_>,
        json: &Json<'_>,
        leaf: Hash,
        place: Place<'_>,
        findings: &mut Findings,
    ) {
        let mut report = |code, message: String| {
            let finding = Finding::new(code, message).at(place.file, place.offset);
            findings.push(finding.of(head.session, head.operation()));
        };
        self.clocks(head, &mut report);
        match head.session {
            None => {
                place_in_chain(&mut self.node, head, leaf, &mut report);
                if is_of_a_session(head.kind) {
                    report("STATE", format!("entry {}: a {} of no session", head.index, head.kind));
                }
            }
            Some(id) => self.of_session(id, head, json, leaf, &mut report),
        }
        self.stopped = false;
        match head.kind {
            own::HEARTBEAT => self.heartbeat(head, json, &mut report),
            own::CLOCK | own::RECOVERY => {
                self.explained = true;
                self.back = None;
            }
            own::LOG_CLOSE => {
                self.closed = true;
                self.unclosed(|_| true, "when the log was closed", &mut report);
            }
            _ => {}
        }
    }

    fn of_session(
        &mut self,
        id: SessionId,
        head: &Head<'_>,
        json: &Json<'_>,
        leaf: Hash,
        report: &mut impl FnMut(&'static str, String),
    ) {
        let index = head.index;
        if head.kind == kind::SESSION_OPEN {
            self.sessions += 1;
        }
        let counts = matches!(head.kind, kind::INTENT | kind::DENIED);
        self.operations += u64::from(counts && head.operation().is_some());
        let known = self.open.contains_key(&id);
        if known == (head.kind == kind::SESSION_OPEN) {
            let what =
                if known { "a second session_open" } else { "before session_open, or after the close" };
            report("STATE", format!("entry {index}: {} {what}", head.kind));
            if !known {
                return;
            }
        }
        let session = self.open.entry(id).or_insert_with(|| OpenSession {
            chain: Chain::default(),
            boot: head.boot.to_owned(),
            last_entry: index,
        });
        let chain = &mut session.chain;
        place_in_chain(chain, head, leaf, report);
        let answered = head.answers.filter(|entry| chain.intents.contains_key(entry));
        match head.kind {
            kind::INTENT if !chain.authorized => {
                report("NOAUTHZ", format!("entry {index}: an operation before anything let the session in"));
            }
            kind::OUTCOME | kind::ABORT if answered.is_none() => {
                report("ORPHAN", format!("entry {index}: {} of no open operation", head.kind));
            }
            kind::CHUNK if answered.is_none() && head.answers != Some(session.last_entry) => {
                report("ORPHAN", format!("entry {index}: a chunk of no open operation"));
            }
            kind::SESSION_CLOSE => close(chain, head, json, report),
            _ => {}
        }
        if head.kind != kind::CHUNK {
            session.last_entry = index;
        }
        let (next, last) = (chain.next, chain.last);
        chain.advance(head.kind, index, head.answers, head.operation(), leaf);
        (chain.next, chain.last) = (next, last);
        if chain.closed {
            self.open.remove(&id);
        }
    }

    fn clocks(&mut self, head: &Head<'_>, report: &mut impl FnMut(&'static str, String)) {
        let index = head.index;
        if head.boot != self.boot {
            let first = self.boot.is_empty();
            if !first && !self.stopped && head.kind != own::RECOVERY {
                report(
                    "HBGAP",
                    format!("entry {index}: a new process began, and nothing says how the one before ended"),
                );
            }
            head.boot.clone_into(&mut self.boot);
            self.explained = true;
        } else if head.mono < self.last_mono {
            report("CLOCKBACK", format!("entry {index}: the boot clock went back"));
        }
        if head.time.saturating_add(CLOCK_BOUND_NANOS) < self.last_time && self.back.is_none() {
            let seconds = (self.last_time - head.time) / 1_000_000_000;
            let message = format!("entry {index}: the clock went back by {seconds} s, and no entry says so");
            self.back = Some((Finding::new("CLOCKBACK", message), 0));
        }
        (self.last_time, self.last_mono) = (head.time, head.mono);
    }

    fn heartbeat(&mut self, head: &Head<'_>, json: &Json<'_>, report: &mut impl FnMut(&'static str, String)) {
        let index = head.index;
        let state = json.get("state").and_then(Json::text).unwrap_or_default();
        let every = json.get("every_ms").and_then(Json::unsigned).unwrap_or_default();
        self.stopped = state == "stopped";
        if state == "started" {
            let boot = self.boot.clone();
            self.unclosed(|session| session.boot != boot, "when a new process began", report);
        }
        let beat = Beat {
            time: head.time,
            mono: head.mono,
            every: Duration::from_millis(every),
            stopped: self.stopped,
        };
        if let Some(last) = self.beat.replace(beat)
            && !self.explained
        {
            let passed = head.mono.saturating_sub(last.mono);
            let went = i128::from(head.time) - i128::from(last.time);
            if passed > last.patience() {
                let seconds = passed / 1_000_000_000;
                report(
                    "HBGAP",
                    format!("entry {index}: {seconds} s without a heartbeat, and no entry says why"),
                );
            }
            if (went - i128::from(passed)).unsigned_abs() > DRIFT_NANOS {
                let message = "wall clock and boot clock part, and no entry says so";
                report("HBGAP", format!("entry {index}: {message}"));
            }
        }
        self.explained = false;
        if let Some((finding, beats)) = &mut self.back {
            *beats += 1;
            if *beats > 1 {
                report(finding.code, std::mem::take(&mut finding.message));
                self.back = None;
            }
        }
    }

    fn unclosed(
        &mut self,
        which: impl Fn(&OpenSession) -> bool,
        when: &str,
        report: &mut impl FnMut(&'static str, String),
    ) {
        let mut ids: Vec<_> =
            self.open.iter().filter(|(_, session)| which(session)).map(|(id, _)| *id).collect();
        ids.sort();
        for id in ids {
            report("NOCLOSE", format!("session {id} was not closed {when}"));
            self.open.remove(&id);
        }
    }

    /// Judges the end of a log that is not in use.
    pub(super) fn end(&mut self, place: Place<'_>, findings: &mut Findings) {
        let mut report = |code, message: String| {
            findings.push(Finding::new(code, message).at(place.file, place.offset));
        };
        if self.stopped {
            self.unclosed(|_| true, "when the process stopped", &mut report);
        }
        if let Some((finding, _)) = self.back.take() {
            report(finding.code, finding.message);
        }
    }
}

/// Judges the place of an entry in its chain, and takes it.
fn place_in_chain(
    chain: &mut Chain,
    head: &Head<'_>,
    leaf: Hash,
    report: &mut impl FnMut(&'static str, String),
) {
    let index = head.index;
    let expected = chain.next;
    if head.sequence < expected {
        report("DUP", format!("entry {index}: place {} of its session is taken", head.sequence));
    } else if head.sequence > expected {
        report("SSEQGAP", format!("entry {index}: places {expected} to {} are missing", head.sequence - 1));
    } else if head.previous != chain.last {
        report(
            "SSEQGAP",
            format!("entry {index}: the entry before it in its session is not the one it names"),
        );
    }
    chain.next = head.sequence.saturating_add(1);
    chain.last = Some(leaf);
}

fn close(chain: &Chain, head: &Head<'_>, json: &Json<'_>, report: &mut impl FnMut(&'static str, String)) {
    for (entry, operation) in &chain.intents {
        report("NOOUTCOME", format!("operation {operation} (entry {entry}) has neither outcome nor abort"));
    }
    for (name, count) in chain.counts.named() {
        let stated = json.get(name).and_then(Json::unsigned);
        if stated != Some(count) {
            let stated = stated.map_or("nothing".to_owned(), |stated| stated.to_string());
            report(
                "COUNT",
                format!("entry {}: the close states {stated} {name}, there are {count}", head.index),
            );
        }
    }
}
