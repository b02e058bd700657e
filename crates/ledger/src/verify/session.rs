//! Whether the entries make sense: each session from its opening to its close, operation by operation.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use verbatim_core::event::kind;
use verbatim_core::{CloseReason, SessionId};

use crate::chain::{Chain, is_of_a_session};
use crate::envelope::Head;
use crate::hash::Hash;
use crate::heartbeat::kind as own;
use crate::profile::{self, Json};
use crate::verify::node::{Beat, Node, State};
use crate::verify::report::{Finding, Findings};

/// How many operations of a session may be recorded before one that came earlier: those of a session that has several
/// under way.
const AHEAD_MAX: usize = 4096;
/// How many sessions that closed since a heartbeat are remembered; with more, its list is not judged.
const CLOSED_MAX: usize = 1 << 16;

/// Where an entry stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a Path,
    pub(super) offset: u64,
}

struct OpenSession {
    chain: Chain,
    boot: String,
    /// The last entry that is no chunk, and its operation: what its payload goes on in answers it.
    last_entry: (u64, Option<u64>),
    /// The last chunk of an operation.
    last_chunk: Option<u64>,
    numbers: Numbers,
}

/// The operations' places in their session: each once, without gaps, not always in order.
struct Numbers {
    next: u64,
    /// Those behind `next`.
    ahead: BTreeSet<u64>,
}

impl Numbers {
    /// Takes a number; says what is wrong with it.
    fn take(&mut self, number: u64) -> Option<(&'static str, String)> {
        if number < self.next || !self.ahead.insert(number) {
            return Some(("DUP", format!("operation {number} is here twice")));
        }
        let missing = self.missing().filter(|_| self.ahead.len() > AHEAD_MAX);
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
        missing.map(|(from, to)| {
            self.next = to;
            ("SSEQGAP", gap(from, to))
        })
    }

    /// The first gap, up to where it ends.
    fn missing(&self) -> Option<(u64, u64)> {
        self.ahead.first().filter(|first| **first > self.next).map(|first| (self.next, *first))
    }
}

fn gap(from: u64, to: u64) -> String {
    if to - from == 1 {
        format!("operation {from} of the session is missing")
    } else {
        format!("operations {from} to {} of the session are missing", to - 1)
    }
}

/// What is known of all entries so far.
#[derive(Default)]
pub(super) struct Sense {
    node: Node,
    /// The entries of no session.
    chain: Chain,
    open: HashMap<SessionId, OpenSession>,
    /// Sessions that closed since the last heartbeat, and since the one before it.
    closed_lately: [HashSet<SessionId>; 2],
    pub(super) sessions: u64,
    pub(super) operations: u64,
    /// The log was ended.
    pub(super) closed: bool,
}

impl Sense {
    /// How many sessions are open.
    pub(super) fn open_sessions(&self) -> usize {
        self.open.len()
    }

    /// The last heartbeat.
    pub(super) const fn beat(&self) -> Option<&Beat> {
        self.node.beat.as_ref()
    }

    /// Takes a checkpoint of the log.
    pub(super) fn committed(&mut self, size: u64, root: Hash) {
        self.node.committed(size, root);
    }

    /// Judges an entry, `body` being its envelope; says what state it states, if it is a heartbeat.
    pub(super) fn entry(
        &mut self,
        head: &Head<'_>,
        body: &[u8],
        leaf: Hash,
        place: Place<'_>,
        findings: &mut Findings,
    ) -> Option<State> {
        let mut report = |code, message: String| {
            let finding = Finding::new(code, message).at(place.file, place.offset);
            findings.push(finding.of(head.session, head.operation()));
        };
        self.node.clocks(head, &mut report);
        match head.session {
            None => {
                place_in_chain(&mut self.chain, head, leaf, &mut report);
                if is_of_a_session(head.kind) {
                    report("STATE", format!("entry {}: a {} of no session", head.index, head.kind));
                }
            }
            Some(id) => self.of_session(id, head, body, leaf, &mut report),
        }
        match head.kind {
            own::HEARTBEAT => return self.heartbeat(head, body, &mut report),
            own::CLOCK | own::RECOVERY => self.node.explained(),
            own::LOG_CLOSE => {
                self.closed = true;
                self.unclosed(|_| true, "when the log was closed", &mut report);
            }
            _ => {}
        }
        None
    }

    fn of_session(
        &mut self,
        id: SessionId,
        head: &Head<'_>,
        body: &[u8],
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
            last_entry: (index, None),
            last_chunk: None,
            numbers: Numbers { next: 1, ahead: BTreeSet::new() },
        });
        place_in_chain(&mut session.chain, head, leaf, report);
        session.judge(head, body, report);
        let chain = &mut session.chain;
        let (next, last) = (chain.next, chain.last);
        chain.advance(head.kind, index, head.answers, head.operation(), leaf);
        (chain.next, chain.last) = (next, last);
        if chain.closed {
            self.open.remove(&id);
            if let [lately, _] = &mut self.closed_lately
                && lately.len() <= CLOSED_MAX
            {
                lately.insert(id);
            }
        }
    }

    fn heartbeat(
        &mut self,
        head: &Head<'_>,
        body: &[u8],
        report: &mut impl FnMut(&'static str, String),
    ) -> Option<State> {
        let json = profile::parse(body).ok()?;
        let state = self.node.heartbeat(head, &json, report);
        if state == State::Started {
            let boot = self.node.boot.clone();
            self.unclosed(|session| session.boot != boot, "when a new process began", report);
        }
        self.listed(head, &json, report);
        Some(state)
    }

    /// The sessions that a heartbeat lists as open were, with at least the entries that it says.
    fn listed(&mut self, head: &Head<'_>, json: &Json<'_>, report: &mut impl FnMut(&'static str, String)) {
        let index = head.index;
        let [lately, before] = &mut self.closed_lately;
        let judged = lately.len() <= CLOSED_MAX && before.len() <= CLOSED_MAX;
        for listed in json.get("open").and_then(Json::list).unwrap_or_default().iter().filter(|_| judged) {
            let id = listed.get("sid").and_then(Json::text).and_then(|id| id.parse::<SessionId>().ok());
            let (Some(id), Some(last)) = (id, listed.get("sseq").and_then(Json::unsigned)) else {
                report("PROFILE", format!("entry {index}: open is not as it is written"));
                continue;
            };
            match self.open.get(&id) {
                Some(session) if session.chain.next <= last => {
                    let there = session.chain.next;
                    let message = format!("session {id} had {} entries by then, here are {there}", last + 1);
                    report("SSEQGAP", format!("entry {index}: {message}"));
                }
                Some(_) => {}
                // It closed while the heartbeat was on its way.
                None if lately.contains(&id) || before.contains(&id) => {}
                None => {
                    let message = format!("session {id} was open by then, and is not in the record");
                    report("STATE", format!("entry {index}: {message}"));
                }
            }
        }
        std::mem::swap(lately, before);
        lately.clear();
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
            if let Some(session) = self.open.remove(&id) {
                unanswered(&session.chain, report);
            }
        }
    }

    /// Judges the end of a log that is not in use.
    pub(super) fn end(&mut self, place: Place<'_>, findings: &mut Findings) {
        let mut report = |code, message: String| {
            findings.push(Finding::new(code, message).at(place.file, place.offset));
        };
        if self.node.stopped {
            self.unclosed(|_| true, "when the process stopped", &mut report);
        }
        self.node.end(&mut report);
    }
}

impl OpenSession {
    /// Judges an entry of the session by those before it.
    fn judge(&mut self, head: &Head<'_>, body: &[u8], report: &mut impl FnMut(&'static str, String)) {
        let (index, operation) = (head.index, head.operation());
        let answered = head.answers.and_then(|entry| self.chain.intents.get(&entry)).copied();
        match head.kind {
            kind::INTENT | kind::DENIED => {
                if head.kind == kind::INTENT && !self.chain.authorized {
                    report(
                        "NOAUTHZ",
                        format!("entry {index}: an operation before anything let the session in"),
                    );
                }
                // A login that is refused has no operation.
                let wrong = match operation {
                    Some(number) => self.numbers.take(number),
                    None if head.kind == kind::DENIED => None,
                    None => Some(("STATE", "an operation without its place in the session".to_owned())),
                };
                if let Some((code, message)) = wrong {
                    report(code, format!("entry {index}: {message}"));
                }
            }
            kind::OUTCOME | kind::ABORT if answered.is_none() => {
                report("ORPHAN", format!("entry {index}: {} of no open operation", head.kind));
            }
            kind::CHUNK if answered.is_none() => {
                let (entry, of_entry) = self.last_entry;
                let goes_on = head.answers == Some(entry) && operation == of_entry;
                if !goes_on && (head.answers.is_none() || head.answers != self.last_chunk) {
                    report("ORPHAN", format!("entry {index}: a chunk of no open operation"));
                }
            }
            kind::OUTCOME | kind::ABORT | kind::CHUNK if answered != operation => {
                let (says, answered) = (operation.unwrap_or_default(), answered.unwrap_or_default());
                let message =
                    format!("it says that it is of operation {says}, and answers operation {answered}");
                report("ORPHAN", format!("entry {index}: {message}"));
            }
            kind::CHUNK => self.last_chunk = Some(index),
            kind::SESSION_CLOSE => self.close(head, body, report),
            _ => {}
        }
        if head.kind != kind::CHUNK {
            self.last_entry = (index, operation);
        }
    }

    fn close(&self, head: &Head<'_>, body: &[u8], report: &mut impl FnMut(&'static str, String)) {
        let json = profile::parse(body).unwrap_or(Json::Null);
        unanswered(&self.chain, report);
        for (name, count) in self.chain.counts.named() {
            let stated = json.get(name).and_then(Json::unsigned);
            if stated != Some(count) {
                let stated = stated.map_or("nothing".to_owned(), |stated| stated.to_string());
                report(
                    "COUNT",
                    format!("entry {}: the close states {stated} {name}, there are {count}", head.index),
                );
            }
        }
        // What was on its way to being recorded when the process ended was never forwarded.
        let cut_short = [CloseReason::Crash, CloseReason::Drained].map(CloseReason::as_str);
        let reason = json.get("reason").and_then(Json::text).unwrap_or_default();
        if let Some((from, to)) = self.numbers.missing()
            && !cut_short.contains(&reason)
        {
            report("SSEQGAP", format!("entry {}: {}", head.index, gap(from, to)));
        }
    }
}

fn unanswered(chain: &Chain, report: &mut impl FnMut(&'static str, String)) {
    for (entry, operation) in &chain.intents {
        report("NOOUTCOME", format!("operation {operation} (entry {entry}) has neither outcome nor abort"));
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
