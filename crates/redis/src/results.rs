//! The target's bytes, matched to what was asked: whose reply is it, and where does it end?
//!
//! ```text
//!  queue     GET ─ MULTI ─ SET ─ (refused) ─ EXEC ─ SUBSCRIBE a b
//!  replies   $3…    +OK   +QUEUED   ▲        *1…     *3 subscribe a 1 ── *3 subscribe b 2 ── *3 message a … (nobody's)
//!                                   └ its words are put here
//! ```
//!
//! Replies come in the order of their commands; what else comes is told apart by what it is: a push by its type, in RESP2 a
//! message while something is subscribed to, a line of MONITOR by its digits. What a session is in the middle of
//! (transaction, subscriptions, `CLIENT REPLY`, the protocol's version) is followed here, reply by reply, and not where
//! commands are sent: only the answer says whether a command did what it asks for.
//!
//! | command | its operation is complete |
//! | --- | --- |
//! | most | with its reply |
//! | in MULTI | with its element of EXEC's array; `skipped` by DISCARD, a failed EXEC, RESET, or the end |
//! | SUBSCRIBE and its like | with the last confirmation |
//! | without a reply (`CLIENT REPLY OFF`, `SKIP`) | `ok`, without bytes, once the target answered something behind it |
//! | SYNC, PSYNC (where allowed) | at the end: all that comes is its own |

mod answer;
mod entry;
pub(crate) mod walk;

use std::collections::VecDeque;

use verbatim_core::{Refusal, Status};

use crate::operation::{Reply, Role, Topic, View};
pub(crate) use entry::{Entry, Open, Part, Passed};
pub(crate) use walk::OutOfStep;
use walk::{Event, Walk};

/// How many commands may wait for their answers.
pub(crate) const PENDING_MAX: usize = 16_384;
/// How many may be queued in a transaction.
pub(crate) const TRANSACTION_MAX: usize = 1 << 20;
/// For how many commands room is kept while nothing is waited for.
const QUEUE_KEPT: usize = 64;
/// How many commands without an answer may wait for the proof that the target read them.
const SILENT_MAX: usize = 1024;

/// Whose the bytes are that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The command's at the front of the queue.
    Front,
    /// The command's at the front of the transaction.
    Element,
    /// Nobody's: a push, a message, a line of MONITOR.
    Nobody,
    /// The gateway's own.
    Gateway,
    /// Its first element says.
    Undecided,
    /// Its text says.
    Line,
    /// An error that answers nothing: the target's last words.
    Farewell,
}

/// What the target's answers have to do with what was asked.
#[derive(Debug)]
pub(crate) struct Results {
    queue: VecDeque<Entry>,
    /// How many of them are words for the client, and how many MULTI, MONITOR and SUBSCRIBE.
    words: usize,
    multis: usize,
    monitors: usize,
    subscriptions: usize,
    /// The reply that is being read: whose, how far, how long.
    whose: Option<Whose>,
    walk: Walk,
    bytes: u64,
    /// It confirms a subscription.
    confirms: bool,
    /// What came of it before it was known whose it is, where results are recorded.
    undecided: Vec<u8>,
    in_transaction: bool,
    transaction: VecDeque<Open>,
    /// Elements of EXEC's array to come.
    elements: Option<u64>,
    reply: Reply,
    protocol: u8,
    channels: u64,
    patterns: u64,
    shards: u64,
    monitoring: bool,
    /// All that comes is the front's.
    opaque: bool,
    said_farewell: bool,
    /// What the client receives is recorded.
    keeps: bool,
    /// With it, what began the stream that nobody's replies are of.
    stream: Option<Open>,
}

impl Results {
    /// `keeps`: what the client receives is recorded.
    pub(crate) fn new(keeps: bool) -> Self {
        Self {
            queue: VecDeque::new(),
            words: 0,
            multis: 0,
            monitors: 0,
            subscriptions: 0,
            whose: None,
            walk: Walk::default(),
            bytes: 0,
            confirms: false,
            undecided: Vec::new(),
            in_transaction: false,
            transaction: VecDeque::new(),
            elements: None,
            reply: Reply::On,
            protocol: 2,
            channels: 0,
            patterns: 0,
            shards: 0,
            monitoring: false,
            opaque: false,
            said_farewell: false,
            keeps,
            stream: None,
        }
    }

    /// What the other direction has to know.
    pub(crate) fn view(&self) -> View {
        View {
            transaction: self.in_transaction || self.multis > 0,
            transaction_full: self.transaction.len() + self.queue.len() >= TRANSACTION_MAX,
            monitoring: self.monitoring || self.monitors > 0,
            subscribed: self.protocol == 2 && (self.subscribed() || self.subscriptions > 0),
            room: PENDING_MAX.saturating_sub(self.queue.len()),
        }
    }

    /// Nothing is waited for, and nothing streams.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.whose.is_none() && !self.monitoring && !self.subscribed()
    }

    /// Nothing is waited for that has an answer.
    pub(crate) fn is_answered(&self) -> bool {
        let mut reply = self.reply;
        self.whose.is_none()
            && self.queue.iter().all(|entry| {
                let silent = entry.role().is_some_and(|role| is_silent(reply, role));
                reply = entry.role().map_or(reply, |role| reply_after(reply, role));
                silent
            })
    }

    /// What is waited for may take for ever.
    pub(crate) fn is_blocked(&self) -> bool {
        matches!(self.queue.front().and_then(Entry::role), Some(Role::Blocking | Role::Replication))
    }

    /// The client's stream is between two replies, and the target did not say why it leaves.
    pub(crate) fn can_say_why(&self) -> bool {
        self.whose.is_none() && self.elements.is_none() && !self.said_farewell && !self.opaque
    }

    fn subscribed(&self) -> bool {
        self.channels > 0 || self.patterns > 0 || self.shards > 0
    }

    /// Something was forwarded, or stands in its place.
    pub(crate) fn expect(&mut self, entry: Entry) {
        match entry {
            Entry::Words(_) | Entry::Last(_) => self.words += 1,
            _ => match entry.role() {
                Some(Role::Multi) => self.multis += 1,
                Some(Role::Monitor) => self.monitors += 1,
                Some(Role::Subscribe { ends: false, .. }) => self.subscriptions += 1,
                _ => {}
            },
        }
        self.queue.push_back(entry);
        while self.queue.len() > SILENT_MAX && self.retire_silent() {}
    }

    /// What is due to the client without the target.
    pub(crate) fn due(&mut self) -> Passed {
        let mut passed = Passed::default();
        if self.whose.is_none() && self.elements.is_none() {
            self.settle(&mut passed);
        }
        passed
    }

    /// Takes what the target sent, and says what of it is passed on: also where it says that nothing more can be, whole
    /// replies that came before.
    ///
    /// # Errors
    /// It answers nothing that was asked, or what the client is to receive can't be recorded.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> (Passed, Result<(), Broken>) {
        let mut passed = Passed::default();
        let mut begun = None;
        let received = self.read(bytes, &mut passed, &mut begun);
        if let (Err(_), Some(from)) = (&received, begun) {
            passed.cut(from);
            self.whose = None;
        }
        (passed, received)
    }

    /// `begun` is where the reply begins that is being read, if that is in these bytes.
    fn read(&mut self, bytes: &[u8], passed: &mut Passed, begun: &mut Option<usize>) -> Result<(), Broken> {
        let mut at = 0;
        loop {
            if self.whose.is_none() {
                let Some(kind) = bytes.get(at) else { return Ok(()) };
                *begun = Some(at);
                self.whose = self.begin(*kind, passed)?;
                if passed.last {
                    return Ok(());
                }
            }
            if self.opaque {
                self.take_opaque(bytes, at)?;
                passed.pass(at, bytes.len());
                return Ok(());
            }
            let (used, event) = self.walk.advance(bytes.get(at..).unwrap_or_default())?;
            self.account(bytes.get(at..at + used).unwrap_or_default())?;
            if self.whose != Some(Whose::Gateway) {
                passed.pass(at, at + used);
            }
            at += used;
            match event {
                Event::More => return Ok(()),
                Event::Head(kind, count) => self.head(kind, count, passed)?,
                Event::First => self.decide()?,
                Event::End => self.end_reply(passed)?,
            }
            if passed.last {
                return Ok(());
            }
        }
    }

    /// A reply begins: whose is it?
    fn begin(&mut self, kind: u8, passed: &mut Passed) -> Result<Option<Whose>, OutOfStep> {
        if self.elements.is_some() {
            return Ok(Some(if kind == b'>' { Whose::Nobody } else { Whose::Element }));
        }
        self.settle(passed);
        if passed.last {
            return Ok(None);
        }
        if kind == b'>' || kind == b'*' && self.protocol == 2 && self.subscribed() {
            return Ok(Some(Whose::Undecided));
        }
        if kind == b'+' && self.monitoring {
            return Ok(Some(Whose::Line));
        }
        while self.retire_silent() {}
        match self.queue.front() {
            Some(Entry::Sent(open)) => {
                self.opaque = open.role == Role::Replication && kind != b'-';
                let peek = kind == b'*' && matches!(open.role, Role::Subscribe { .. });
                Ok(Some(if peek { Whose::Undecided } else { Whose::Front }))
            }
            Some(Entry::Own(..)) => Ok(Some(Whose::Gateway)),
            None if kind == b'-' => Ok(Some(Whose::Farewell)),
            _ => Err(OutOfStep(format!("a reply of type {:?} answers nothing", char::from(kind)))),
        }
    }

    fn take_opaque(&mut self, bytes: &[u8], from: usize) -> Result<(), Refusal> {
        let Some(Entry::Sent(open)) = self.queue.front_mut() else { return Ok(()) };
        let bytes = bytes.get(from..).unwrap_or_default();
        open.bytes = open.bytes.saturating_add(bytes.len() as u64);
        if self.keeps { open.result(bytes) } else { Ok(()) }
    }

    fn account(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if !self.keeps || bytes.is_empty() {
            return Ok(());
        }
        let open = match self.whose {
            Some(Whose::Front) => match self.queue.front() {
                Some(Entry::Sent(open)) => Some(open),
                _ => None,
            },
            Some(Whose::Element) => self.transaction.front(),
            Some(Whose::Nobody) => self.stream.as_ref(),
            Some(Whose::Undecided | Whose::Line) => {
                self.undecided.extend_from_slice(bytes);
                None
            }
            Some(Whose::Gateway | Whose::Farewell) | None => None,
        };
        open.map_or(Ok(()), |open| open.result(bytes))
    }

    /// EXEC's array is the replies of what was queued.
    fn head(&mut self, kind: u8, count: u64, passed: &mut Passed) -> Result<(), OutOfStep> {
        let is_exec = self.whose == Some(Whose::Front)
            && self.queue.front().and_then(Entry::role) == Some(Role::Exec)
            && kind == b'*';
        if !is_exec {
            return Ok(());
        }
        if count != self.transaction.len() as u64 {
            let queued = self.transaction.len();
            return Err(OutOfStep(format!("EXEC answers {count} commands, and {queued} were queued")));
        }
        self.in_transaction = false;
        self.elements = Some(count);
        if let Some(Entry::Sent(exec)) = self.queue.front_mut() {
            exec.bytes = std::mem::take(&mut self.bytes);
        }
        self.walk = Walk::default();
        self.whose = None;
        self.exec_ended(passed);
        Ok(())
    }

    /// The first element of an undecided aggregate is there.
    fn decide(&mut self) -> Result<(), Refusal> {
        if self.whose != Some(Whose::Undecided) {
            return Ok(());
        }
        let named = confirmation(self.walk.word());
        if named.is_some() {
            while self.retire_silent() {}
        }
        self.confirms = match (named, self.queue.front().and_then(Entry::role)) {
            (Some(named), Some(Role::Subscribe { topic, ends, .. })) => named == (topic, ends),
            _ => false,
        };
        let message = matches!(self.walk.word(), b"message" | b"pmessage" | b"smessage" | b"sunsubscribe");
        let nobodys = !self.confirms && (self.walk.kind() == Some(b'>') || message && self.subscribed());
        if !nobodys {
            while self.retire_silent() {}
        }
        self.settle_whose(if nobodys { Whose::Nobody } else { Whose::Front })
    }

    /// It is known whose the reply is, of which something came already.
    fn settle_whose(&mut self, whose: Whose) -> Result<(), Refusal> {
        self.whose = Some(whose);
        let came = std::mem::take(&mut self.undecided);
        // Its bytes were counted when they came.
        let counted = self.bytes;
        let recorded = self.account(&came);
        self.bytes = counted;
        recorded
    }

    /// A reply ended.
    fn end_reply(&mut self, passed: &mut Passed) -> Result<(), Broken> {
        match self.whose {
            Some(Whose::Undecided) => self.decide()?,
            Some(Whose::Line) => {
                let line = self.walk.word().first().is_some_and(u8::is_ascii_digit);
                if !line {
                    while self.retire_silent() {}
                }
                self.settle_whose(if line { Whose::Nobody } else { Whose::Front })?;
            }
            _ => {}
        }
        let walk = std::mem::take(&mut self.walk);
        let bytes = std::mem::take(&mut self.bytes);
        let confirms = std::mem::take(&mut self.confirms);
        match self.whose.take() {
            Some(Whose::Gateway) => self.own_ended(&walk, passed)?,
            Some(Whose::Nobody) => {
                if let Some(stream) = &mut self.stream {
                    stream.bytes = stream.bytes.saturating_add(bytes);
                }
            }
            Some(Whose::Farewell) => self.said_farewell = true,
            Some(Whose::Element) => self.element_ended(&walk, bytes, passed),
            _ => {
                let Some(Entry::Sent(mut open)) = self.queue.pop_front() else {
                    return Err(OutOfStep("a reply answers nothing".to_owned()).into());
                };
                open.bytes = open.bytes.saturating_add(bytes);
                match confirms {
                    false => self.answered(open, &walk)?,
                    true => {
                        if let Some(open) = self.confirmed(open, &walk) {
                            self.queue.push_front(Entry::Sent(open));
                        }
                    }
                }
            }
        }
        if self.elements.is_none() {
            self.settle(passed);
        }
        if self.queue.is_empty() {
            // A session idles more than it works.
            self.queue.shrink_to(QUEUE_KEPT);
            self.transaction.shrink_to(QUEUE_KEPT);
        }
        Ok(())
    }

    /// Takes a command without a reply off the front, if one is there: the target has read it.
    fn retire_silent(&mut self) -> bool {
        let Some(role) = self.queue.front().and_then(Entry::role).filter(|role| is_silent(self.reply, *role))
        else {
            return false;
        };
        self.reply = reply_after(self.reply, role);
        let entry = self.queue.pop_front();
        match role {
            Role::Multi => {
                self.multis = self.multis.saturating_sub(1);
                self.in_transaction = true;
            }
            Role::Exec => {
                self.in_transaction = false;
                for open in self.transaction.drain(..) {
                    open.ended(Status::Ok);
                }
            }
            Role::Discard => self.transaction_skipped(),
            _ if self.in_transaction => {
                if let Some(Entry::Sent(open)) = entry {
                    self.transaction.push_back(open);
                }
                return true;
            }
            _ => {}
        }
        if let Some(Entry::Sent(open)) = entry {
            open.ended(Status::Ok);
        }
        true
    }

    /// Says what is to be said at the front of the queue.
    fn settle(&mut self, passed: &mut Passed) {
        while self.words > 0 {
            match self.queue.front() {
                Some(Entry::Words(_)) => {
                    self.words -= 1;
                    let Some(Entry::Words(words)) = self.queue.pop_front() else { return };
                    match self.reply {
                        Reply::On => passed.insert(words),
                        Reply::Skip => self.reply = Reply::On,
                        Reply::Off => {}
                    }
                }
                Some(Entry::Last(words)) => {
                    passed.insert(words.clone());
                    passed.last = true;
                    return;
                }
                _ => {
                    if !self.retire_silent() {
                        return;
                    }
                }
            }
        }
    }

    /// The target read all that it was sent, and closed: what has no answer was done.
    pub(crate) fn all_read(&mut self) {
        while self.retire_silent() {}
    }

    /// The session is over. What was queued in a transaction and not executed was not run; what was not answered is
    /// dropped with its permits, and so recorded as aborted.
    pub(crate) fn end(&mut self) {
        self.end_stream();
        if self.opaque
            && let Some(Entry::Sent(open)) = self.queue.pop_front()
        {
            open.ended(Status::Ok);
        }
        let executed = self.queue.iter().any(|entry| entry.role() == Some(Role::Exec));
        if self.elements.is_none() && !executed {
            self.transaction_skipped();
        }
        self.transaction.clear();
        self.queue.clear();
    }
}

/// Whether a command has no reply, as `CLIENT REPLY` stands.
fn is_silent(reply: Reply, role: Role) -> bool {
    match reply {
        Reply::On => matches!(role, Role::Reply(Reply::Off | Reply::Skip)),
        Reply::Off => !matches!(role, Role::Reply(Reply::On) | Role::Reset),
        Reply::Skip => !matches!(role, Role::Reply(Reply::On)),
    }
}

/// How `CLIENT REPLY` stands after a command without a reply.
const fn reply_after(reply: Reply, role: Role) -> Reply {
    match (reply, role) {
        (_, Role::Reply(Reply::On)) => Reply::On,
        (Reply::Off, _) | (_, Role::Reply(Reply::Off)) => Reply::Off,
        (_, Role::Reply(Reply::Skip)) => Reply::Skip,
        (Reply::Skip | Reply::On, _) => Reply::On,
    }
}

/// What a message confirms: which subscriptions, and whether they end.
fn confirmation(word: &[u8]) -> Option<(Topic, bool)> {
    Some(match word {
        b"subscribe" => (Topic::Channel, false),
        b"psubscribe" => (Topic::Pattern, false),
        b"ssubscribe" => (Topic::Shard, false),
        b"unsubscribe" => (Topic::Channel, true),
        b"punsubscribe" => (Topic::Pattern, true),
        b"sunsubscribe" => (Topic::Shard, true),
        _ => return None,
    })
}

/// Why nothing more of the target can be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    OutOfStep(#[from] OutOfStep),
    #[error(transparent)]
    NotRecorded(#[from] Refusal),
    #[error("the target does not take the gateway's login any more")]
    Login,
}

#[cfg(test)]
mod tests;
