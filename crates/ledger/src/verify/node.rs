//! The node's own entries: heartbeats, what they say of earlier checkpoints and of the sinks, and the clocks.

use std::collections::VecDeque;
use std::time::Duration;

use verbatim_core::event::kind;

use crate::envelope::Head;
use crate::hash::{Hash, parse_hex};
use crate::heartbeat::kind as own;
use crate::profile::Json;
use crate::sequencer::CLOCK_BOUND_NANOS;
use crate::verify::report::Finding;

/// How far wall clock and boot clock may part between two heartbeats.
const DRIFT_NANOS: u128 = 2_000_000_000;
/// How much longer than its interval a heartbeat may take, where three intervals are less.
const LATE_NANOS: u64 = 5_000_000_000;
/// How many checkpoints are remembered for the heartbeats that name one. A heartbeat names the newest at its time, and
/// fewer than these fit the queue behind it.
const COMMITS_MAX: usize = 4096;

/// What a heartbeat says that its process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is the first of its process.
    Started,
    /// Neither the first nor the last.
    Running,
    /// It is the last of its process.
    Stopped,
}

/// A heartbeat that was seen.
#[derive(Clone)]
pub(super) struct Beat {
    pub(super) time: u64,
    mono: u64,
    every: Duration,
    pub(super) state: State,
}

impl Beat {
    /// How long until the next one is missed, in nanoseconds.
    pub(super) fn patience(&self) -> u64 {
        let every = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        every.saturating_mul(3).max(every.saturating_add(LATE_NANOS))
    }
}

/// What is known of the node so far.
#[derive(Default)]
pub(super) struct Node {
    pub(super) boot: String,
    last_time: u64,
    last_mono: u64,
    pub(super) beat: Option<Beat>,
    /// A `clock` or `recovery` since the last heartbeat explains a gap.
    explained: bool,
    /// The clock went back and nothing said so yet; the heartbeats since.
    back: Option<(Finding, u32)>,
    /// This process wrote a heartbeat.
    beats: bool,
    /// The last entry is a heartbeat that says that the process stops.
    pub(super) stopped: bool,
    /// The newest checkpoints of the log, by their size.
    commits: VecDeque<(u64, Hash)>,
    /// Older ones were forgotten.
    forgot: bool,
}

impl Node {
    /// Takes a checkpoint of the log.
    pub(super) fn committed(&mut self, size: u64, root: Hash) {
        if self.commits.len() == COMMITS_MAX {
            self.commits.pop_front();
            self.forgot = true;
        }
        self.commits.push_back((size, root));
    }

    /// Takes an entry that explains a gap or a step.
    pub(super) fn explained(&mut self) {
        self.explained = true;
        self.back = None;
    }

    /// Judges an entry's clocks.
    pub(super) fn clocks(&mut self, head: &Head<'_>, report: &mut impl FnMut(&'static str, String)) {
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
            (self.explained, self.beats) = (true, false);
        } else if head.mono < self.last_mono {
            report("CLOCKBACK", format!("entry {index}: the boot clock went back"));
        }
        if head.time.saturating_add(CLOCK_BOUND_NANOS) < self.last_time && self.back.is_none() {
            let seconds = (self.last_time - head.time) / 1_000_000_000;
            let message = format!("entry {index}: the clock went back by {seconds} s, and no entry says so");
            self.back = Some((Finding::new("CLOCKBACK", message), 0));
        }
        // A process begins with a heartbeat, before it takes any session.
        if head.kind == kind::SESSION_OPEN && !std::mem::replace(&mut self.beats, true) {
            report("HBGAP", format!("entry {index}: a session of a process that wrote no heartbeat"));
        }
        (self.last_time, self.last_mono) = (head.time, head.mono);
        self.stopped = false;
    }

    /// Judges a heartbeat; says what state it states.
    pub(super) fn heartbeat(
        &mut self,
        head: &Head<'_>,
        json: &Json<'_>,
        report: &mut impl FnMut(&'static str, String),
    ) -> State {
        let index = head.index;
        let state = match json.get("state").and_then(Json::text) {
            Some("started") => State::Started,
            Some("stopped") => State::Stopped,
            _ => State::Running,
        };
        self.stopped = state == State::Stopped;
        self.beats = true;
        let every = Duration::from_millis(json.get("every_ms").and_then(Json::unsigned).unwrap_or_default());
        let beat = Beat { time: head.time, mono: head.mono, every, state };
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
        self.earlier_checkpoint(index, json, report);
        acknowledged(index, json, report);
        state
    }

    /// A heartbeat names the newest checkpoint of its time: who rewrites what stands before it and signs that again has
    /// to rewrite every heartbeat too.
    fn earlier_checkpoint(&self, index: u64, json: &Json<'_>, report: &mut impl FnMut(&'static str, String)) {
        let stated = match json.get("prev") {
            Some(Json::Null) if self.commits.is_empty() => return,
            Some(Json::Null) => {
                return report("FORK", format!("entry {index}: a heartbeat that knows no checkpoint"));
            }
            prev => prev.and_then(|prev| {
                Some((prev.get("size")?.unsigned()?, parse_hex(prev.get("root")?.text()?)?))
            }),
        };
        let Some((size, root)) = stated else {
            return report("PROFILE", format!("entry {index}: prev is not as it is written"));
        };
        let oldest = self.commits.front().map_or(0, |(size, _)| *size);
        match self.commits.iter().rev().find(|(known, _)| *known == size) {
            Some((_, known)) if *known == root => {}
            None if self.forgot && size < oldest => {}
            _ => {
                let message = format!(
                    "entry {index}: the heartbeat names a checkpoint of {size} entries that is none of this log's: \
                     what stands before it was written anew"
                );
                report("FORK", message);
            }
        }
    }

    /// Judges the end of a log that is not in use.
    pub(super) fn end(&mut self, report: &mut impl FnMut(&'static str, String)) {
        if let Some((finding, _)) = self.back.take() {
            report(finding.code, finding.message);
        }
        if let Some(beat) = self.beat.as_ref().filter(|_| !self.explained) {
            let passed = self.last_mono.saturating_sub(beat.mono);
            if passed > beat.patience() {
                let seconds = passed / 1_000_000_000;
                report("HBGAP", format!("the log went on for {seconds} s after its last heartbeat"));
            }
        }
    }
}

/// A sink can have acknowledged nothing that was not there yet.
fn acknowledged(index: u64, json: &Json<'_>, report: &mut impl FnMut(&'static str, String)) {
    for sink in json.get("sinks").and_then(Json::list).unwrap_or_default() {
        let acknowledged = sink.get("acked").and_then(Json::unsigned).unwrap_or_default();
        if acknowledged > index {
            let name = sink.get("name").and_then(Json::text).unwrap_or_default();
            let message = format!(
                "entry {index}: sink {name:?} had {acknowledged} entries by then: the log was put back to an older state"
            );
            report("ROLLBACK", message);
        }
    }
}
