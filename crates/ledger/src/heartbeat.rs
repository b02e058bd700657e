//! The ledger's own entries: `log_open`, `heartbeat`, `clock`, `recovery`; and the thread that writes heartbeats, idle or
//! busy, so that silence is signed and not implied.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use verbatim_core::{AuditEvent, Fields, SessionId, Timestamp, Value, Visitor};

use crate::hash::hex;
use crate::log::Inner;
use crate::sequencer::{CLOCK_BOUND_NANOS, mono_now};
use crate::{Admission, HeartbeatFacts, LedgerError, SyncMode};

/// The kinds of the ledger's own entries.
pub mod kind {
    /// The first entry of a log.
    pub const LOG_OPEN: &str = "log_open";
    /// The node lives: every few seconds, at start and at stop.
    pub const HEARTBEAT: &str = "heartbeat";
    /// The wall clock was set, or the process or machine stood still.
    pub const CLOCK: &str = "clock";
    /// What the process before left behind, and what was done about it.
    pub const RECOVERY: &str = "recovery";
    /// The last entry of a log.
    pub const LOG_CLOSE: &str = "log_close";
}

/// The most sessions that a heartbeat lists.
const SESSIONS_LISTED_MAX: usize = 256;
/// The most sinks that a heartbeat lists.
const SINKS_LISTED_MAX: usize = 64;
/// How far wall clock and boot clock may part between two heartbeats without mention.
const STEP_BOUND: Duration = Duration::from_secs(1);

/// What a heartbeat says of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The first of a process.
    Started,
    /// The usual one; what a full disk leaves is said in its place.
    Running,
    /// The last of a process that stops in order.
    Stopped,
}

/// `log_open`: `format, vkey, prev_log`.
pub(crate) struct LogOpened {
    pub(crate) vkey: String,
}

impl AuditEvent for LogOpened {
    fn kind(&self) -> &str {
        kind::LOG_OPEN
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("format", Value::Unsigned(crate::envelope::VERSION));
        visitor.field("vkey", Value::Text(&self.vkey));
        visitor.field("prev_log", Value::Null);
    }
}

/// `recovery`: `reason, prev_boot, last_idx, discarded_bytes, sha256, kept, sessions, aborts, notes[]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recovered {
    pub(crate) previous_boot: String,
    pub(crate) last_index: Option<u64>,
    pub(crate) discarded_bytes: u64,
    /// Of the discarded bytes, in hexadecimal.
    pub(crate) sha256: Option<String>,
    pub(crate) kept: u64,
    pub(crate) sessions: u64,
    pub(crate) aborts: u64,
    /// Signed notes that stood among the discarded bytes.
    pub(crate) notes: Vec<String>,
}

impl AuditEvent for Recovered {
    fn kind(&self) -> &str {
        kind::RECOVERY
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("reason", Value::Text("crash"));
        visitor.field("prev_boot", Value::Text(&self.previous_boot));
        visitor.field("last_idx", self.last_index.into());
        visitor.field("discarded_bytes", Value::Unsigned(self.discarded_bytes));
        visitor.field("sha256", self.sha256.as_deref().into());
        visitor.field("kept", Value::Unsigned(self.kept));
        visitor.field("sessions", Value::Unsigned(self.sessions));
        visitor.field("aborts", Value::Unsigned(self.aborts));
        let notes: Vec<_> = self.notes.iter().map(|note| Value::Text(note)).collect();
        visitor.field("notes", Value::List(&notes));
    }
}

/// `clock`: `reason` (`step` or `standstill`), `wall_ms, mono_ms`: how far each clock went since it was last looked at.
struct ClockStepped {
    reason: &'static str,
    wall: i128,
    mono: u64,
}

impl AuditEvent for ClockStepped {
    fn kind(&self) -> &str {
        kind::CLOCK
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("reason", Value::Text(self.reason));
        visitor
            .field("wall_ms", Value::Signed(i64::try_from(self.wall / 1_000_000).unwrap_or(i64::MAX >> 11)));
        visitor.field("mono_ms", Value::Unsigned(self.mono / 1_000_000));
    }
}

/// `heartbeat`: `state, every_ms, sync_ms, prev{size,root}, sessions, open[{sid,sseq}], sinks[{name,acked}]`.
struct Heartbeat {
    state: &'static str,
    every: Duration,
    sync: SyncMode,
    previous: Option<Previous>,
    count: u64,
    open: Vec<OpenSession>,
    facts: HeartbeatFacts,
}

struct Previous(u64, String);

impl Fields for Previous {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("size", Value::Unsigned(self.0));
        visitor.field("root", Value::Text(&self.1));
    }
}

struct OpenSession(SessionId, u64);

impl Fields for OpenSession {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("sid", Value::Text(&self.0.to_string()));
        visitor.field("sseq", Value::Unsigned(self.1));
    }
}

struct Sink<'a>(&'a str, u64);

impl Fields for Sink<'_> {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("name", Value::Text(self.0));
        visitor.field("acked", Value::Unsigned(self.1));
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX >> 12)
}

impl AuditEvent for Heartbeat {
    fn kind(&self) -> &str {
        kind::HEARTBEAT
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("state", Value::Text(self.state));
        visitor.field("every_ms", Value::Unsigned(millis(self.every)));
        match self.sync {
            SyncMode::Always => visitor.field("sync_ms", Value::Null),
            SyncMode::Within(time) => visitor.field("sync_ms", Value::Unsigned(millis(time))),
        }
        match &self.previous {
            None => visitor.field("prev", Value::Null),
            Some(previous) => visitor.field("prev", Value::Object(previous)),
        }
        visitor.field("sessions", Value::Unsigned(self.count));
        let open: Vec<_> = self.open.iter().map(|session| Value::Object(session)).collect();
        visitor.field("open", Value::List(&open));
        let sinks = self.facts.sinks.iter().take(SINKS_LISTED_MAX);
        let sinks: Vec<_> = sinks.map(|(name, acked)| Sink(name, *acked)).collect();
        let sinks: Vec<_> = sinks.iter().map(|sink| Value::Object(sink)).collect();
        visitor.field("sinks", Value::List(&sinks));
    }
}

/// Appends a heartbeat.
pub(crate) fn beat(inner: &Inner, state: State) -> Result<u64, LedgerError> {
    let facts = inner.facts.lock().clone();
    let state = match (state, inner.admits()) {
        (State::Started, _) => "started",
        (State::Stopped, _) => "stopped",
        (State::Running, Admission::Everything) => "running",
        (State::Running, Admission::NoNewSessions) => "low_space",
        (State::Running, _) => "fail_closed",
    };
    let (count, open) = {
        let sessions = inner.sessions.lock();
        // A session whose first entry is on its way has nothing to state yet.
        let last = |next: u64| next.checked_sub(1);
        let listed = sessions
            .iter()
            .filter_map(|(id, shared)| last(shared.next.load(SeqCst)).map(|last| OpenSession(*id, last)));
        (sessions.len() as u64, listed.take(SESSIONS_LISTED_MAX).collect())
    };
    let previous =
        inner.newest.lock().as_ref().map(|checkpoint| Previous(checkpoint.size, hex(&checkpoint.root)));
    inner.append_to_node(&Heartbeat {
        state,
        every: inner.settings.heartbeat,
        sync: inner.settings.sync,
        previous,
        count,
        open,
        facts: facts.map(|facts| facts()).unwrap_or_default(),
    })
}

/// Says so where the wall clock is behind the last entry of the process before.
pub(crate) fn mention_clock_set_back(inner: &Inner, last_time: u64) -> Result<(), LedgerError> {
    let now = Timestamp::now().as_nanos();
    if now.saturating_add(CLOCK_BOUND_NANOS) >= last_time {
        return Ok(());
    }
    let wall = i128::from(now) - i128::from(last_time);
    inner.append_to_node(&ClockStepped { reason: "step", wall, mono: 0 }).map(drop)
}

/// The heartbeats' thread. It is woken to stop, and when an append saw the clock go back.
pub(crate) fn run(inner: &Inner, wakes: &Receiver<()>) {
    let every = inner.settings.heartbeat;
    let (mut wall, mut mono) = (Timestamp::now().as_nanos(), mono_now());
    loop {
        let woken = wakes.recv_timeout(every);
        if inner.stopped.load(SeqCst) || woken == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        let (wall_now, mono_now) = (Timestamp::now().as_nanos(), mono_now());
        let went = i128::from(wall_now) - i128::from(wall);
        let passed = mono_now.saturating_sub(mono);
        let stepped = (went - i128::from(passed)).unsigned_abs() > STEP_BOUND.as_nanos();
        let stood_still = u128::from(passed) > 2 * every.as_nanos();
        let clock_back = inner.clock_back.swap(false, SeqCst);
        let mut result = Ok(0);
        if stepped || stood_still || clock_back {
            let reason = if stepped || clock_back { "step" } else { "standstill" };
            result = inner.append_to_node(&ClockStepped { reason, wall: went, mono: passed });
        }
        result = result.and_then(|_| beat(inner, State::Running));
        if let Err(error) = result {
            tracing::warn!(%error, "no heartbeat");
        }
        (wall, mono) = (wall_now, mono_now);
        inner.look_at_space();
    }
}
