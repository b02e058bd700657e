//! What an answer does: outcomes, and what the session is in the middle of from then on.

use verbatim_core::Status;

use super::entry::{Entry, Open, Passed, failure};
use super::walk::{OutOfStep, Walk};
use super::{Broken, Results};
use crate::operation::{Reply, Role, Topic};

impl Results {
    /// The gateway's own command was answered.
    pub(super) fn own_ended(&mut self, walk: &Walk, passed: &mut Passed) -> Result<(), Broken> {
        let Some(Entry::Own(role, words)) = self.queue.pop_front() else { return Ok(()) };
        match role {
            Role::Login if failure(walk).is_some() => return Err(Broken::Login),
            Role::Discard => self.transaction_skipped(),
            _ => {}
        }
        words.map_or(Ok(()), |words| {
            passed.insert(words);
            Ok(())
        })
    }

    /// A command was answered.
    pub(super) fn answered(&mut self, open: Open, walk: &Walk) -> Result<(), OutOfStep> {
        let failed = failure(walk);
        let about_reply = failed.as_ref().is_some_and(|error| error.message.contains("client|reply"));
        if about_reply && !matches!(open.role, Role::Reply(_)) {
            // A `CLIENT REPLY OFF` that was taken to be silent was refused, so its answers are not where they seem.
            return Err(OutOfStep("CLIENT REPLY was refused".to_owned()));
        }
        match open.role {
            Role::Multi => self.multis = self.multis.saturating_sub(1),
            Role::Monitor => self.monitors = self.monitors.saturating_sub(1),
            Role::Subscribe { ends: false, .. } => self.subscriptions = self.subscriptions.saturating_sub(1),
            _ => {}
        }
        if self.in_transaction && walk.kind() == Some(b'+') && walk.word() == b"QUEUED" {
            self.transaction.push_back(Open { bytes: 0, ..open });
            return Ok(());
        }
        match open.role {
            Role::Exec => {
                // An array was taken apart before this: nothing ran.
                if !walk.is_null() && failed.is_none() {
                    return Err(OutOfStep("EXEC has no such answer".to_owned()));
                }
                self.transaction_skipped();
            }
            Role::Discard => self.transaction_skipped(),
            _ => match &failed {
                None => self.took_effect(open.role),
                // An EXEC that is wrong in itself.
                Some(error) if error.code == "EXECABORT" => self.transaction_skipped(),
                Some(_) => {}
            },
        }
        self.complete(open, walk, failed.is_none());
        Ok(())
    }

    /// A command did what it asks for.
    fn took_effect(&mut self, role: Role) {
        match role {
            Role::Multi => self.in_transaction = true,
            Role::Monitor => self.monitoring = true,
            Role::Hello(version) => self.protocol = version,
            Role::Reply(reply) => self.reply = reply,
            Role::Reset => {
                self.transaction_skipped();
                self.monitoring = false;
                self.reply = Reply::On;
                self.protocol = 2;
                (self.channels, self.patterns, self.shards) = (0, 0, 0);
                self.end_stream();
            }
            _ => {}
        }
    }

    fn complete(&mut self, open: Open, walk: &Walk, went_well: bool) {
        let streams =
            matches!(open.role, Role::Monitor | Role::Tracking | Role::Subscribe { ends: false, .. });
        if streams && went_well && self.keeps {
            self.end_stream();
            self.stream = Some(open);
        } else {
            open.answered(walk);
        }
    }

    pub(super) fn end_stream(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.ended(Status::Ok);
        }
    }

    /// One channel of a command was confirmed; gives the command back if more are to come.
    pub(super) fn confirmed(&mut self, mut open: Open, walk: &Walk) -> Option<Open> {
        let Role::Subscribe { topic, ends, left } = &mut open.role else { return None };
        let total = walk.integer().and_then(|total| u64::try_from(total).ok()).unwrap_or(0);
        let of_topic = match topic {
            Topic::Channel => {
                self.channels = total.saturating_sub(self.patterns);
                self.channels
            }
            Topic::Pattern => {
                self.patterns = total.saturating_sub(self.channels);
                self.patterns
            }
            Topic::Shard => {
                self.shards = total;
                self.shards
            }
        };
        let done = match *left {
            // All of them: the last says that none is left.
            0 => *ends && of_topic == 0,
            _ => {
                *left -= 1;
                *left == 0
            }
        };
        if !done {
            return Some(open);
        }
        if !*ends {
            self.subscriptions = self.subscriptions.saturating_sub(1);
        }
        self.complete(open, walk, true);
        None
    }

    /// An element of EXEC's array ended.
    pub(super) fn element_ended(&mut self, walk: &Walk, bytes: u64, passed: &mut Passed) {
        let Some(mut open) = self.transaction.pop_front() else { return };
        open.bytes = open.bytes.saturating_add(bytes);
        let went_well = failure(walk).is_none();
        if went_well {
            self.took_effect(open.role);
        }
        self.complete(open, walk, went_well);
        if let Some(elements) = &mut self.elements {
            *elements = elements.saturating_sub(1);
        }
        self.exec_ended(passed);
    }

    /// After the last element of its array, EXEC is complete.
    pub(super) fn exec_ended(&mut self, passed: &mut Passed) {
        if self.elements != Some(0) {
            return;
        }
        self.elements = None;
        if let Some(Entry::Sent(exec)) = self.queue.pop_front() {
            exec.ended(Status::Ok);
        }
        self.settle(passed);
    }

    pub(super) fn transaction_skipped(&mut self) {
        self.in_transaction = false;
        for open in self.transaction.drain(..) {
            open.ended(Status::Skipped);
        }
    }
}
