//! Messages from the target → outcomes: each is matched to what was forwarded, in order.
//!
//! What was forwarded stands in a queue ([`Entry`]); the target answers it from the front. After an ErrorResponse in the
//! extended protocol it skips everything up to the next Sync, and so does the queue (`skipped`). What the gateway itself
//! refused has a place in the queue too, so that its ErrorResponse comes after the answers to what stood before it and,
//! as the target's own would, only if none of them failed.
//!
//! Choices where the protocol leaves one: an error at Parse or Bind is the outcome of the Execute that follows in the
//! batch; an error at Sync (a deferred constraint) is the outcome of the last Execute before it.

mod entry;
mod outcome;
mod walk;

use std::collections::VecDeque;

use bytes::{BufMut, Bytes};
use verbatim_core::{Outcome, Recorded, Refusal, Status, TargetError};

use crate::frame::{self, Reader, target};
use crate::operation::{Change, Memory, Portal, Rename, Settled, Statement, renames};
pub(crate) use entry::{Answer, Copy, Entry, Inserts};
use entry::{CopyIn, answers_something, ends_operation, is_result};
use outcome::{Fields, Progress};
pub(crate) use walk::OutOfStep;
use walk::{Walk, Walked};

/// How many messages may wait for the target's answer before nothing more is read from the client.
pub(crate) const PENDING_MAX: usize = 16_384;

/// Matches what the target sends to what was forwarded.
#[derive(Debug)]
pub(crate) struct Results {
    queue: VecDeque<Entry>,
    /// An error came, and no Sync yet: the target skips what it gets.
    skipping: bool,
    /// An error at Parse or Bind, for the Execute that follows.
    failed: Option<TargetError>,
    /// The transaction's state by the last ReadyForQuery: `I`, `T` or `E`.
    status: u8,
    progress: Progress,
    /// The last Execute before a Sync, whose outcome the Sync may still change.
    answered: Option<(Recorded, Outcome)>,
    walk: Walk,
    copy_in: CopyIn,
    /// The data's operation; none where the other direction has it at hand, or where no data came.
    copy: Option<Copy>,
    /// How the COPY ended while the other direction had its data at hand.
    copy_ended: Option<Option<TargetError>>,
    /// Whether what the client gets is recorded.
    record_results: bool,
    /// What is left of the names that the operation at the front changes by SQL.
    renames: Option<VecDeque<Rename>>,
    /// What was passed on ends with a message.
    clean: bool,
    /// The target told the client that, and why, the session ends.
    said_farewell: bool,
}

impl Results {
    pub(crate) fn new(record_results: bool) -> Self {
        Self {
            queue: VecDeque::new(),
            skipping: false,
            failed: None,
            status: b'I',
            progress: Progress::default(),
            answered: None,
            walk: Walk::default(),
            copy_in: CopyIn::No,
            copy: None,
            copy_ended: None,
            record_results,
            renames: None,
            clean: true,
            said_farewell: false,
        }
    }

    /// Whether a message of the gateway's own can be put where the target's bytes end, and is not one too many.
    pub(crate) const fn can_say_why(&self) -> bool {
        self.clean && !self.said_farewell
    }

    /// Something is about to be forwarded, or was refused in its place.
    pub(crate) fn expect(&mut self, entry: Entry, memory: &mut Memory) {
        match entry {
            Entry::Last(_) => self.queue.push_back(entry),
            Entry::Sync(Answer::Due) => {
                let answer = match self.queue.back() {
                    Some(Entry::Sync(Answer::IfCopyFails)) => Answer::Perhaps,
                    _ => Answer::Due,
                };
                self.queue.push_back(Entry::Sync(answer));
            }
            Entry::Sync(_) => self.queue.push_back(entry),
            _ if self.skipping && !self.queue.iter().any(|entry| matches!(entry, Entry::Sync(_))) => {
                self.skip(entry, memory);
            }
            _ => self.queue.push_back(entry),
        }
    }

    /// Whether everything that was forwarded is answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether an operation runs.
    pub(crate) fn is_running(&self) -> bool {
        self.queue.iter().any(|entry| {
            matches!(
                entry,
                Entry::Query(..) | Entry::FunctionCall(_) | Entry::Execute(..) | Entry::Parse(_, Some(_))
            )
        })
    }

    /// Whether SQL that may change what names mean is not answered yet.
    pub(crate) fn is_renaming(&self) -> bool {
        self.queue.iter().any(|entry| matches!(entry, Entry::Query(_, Some(_)) | Entry::Execute(_, Some(_))))
    }

    /// Whether more may be forwarded before answers come.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < PENDING_MAX
    }

    pub(crate) const fn takes_data(&self) -> bool {
        !matches!(self.copy_in, CopyIn::No)
    }

    pub(crate) const fn data_is_refused(&self) -> bool {
        matches!(self.copy_in, CopyIn::Refused)
    }

    /// What is due at the front without any word of the target, if the last message of the target is whole.
    pub(crate) fn due(&mut self, memory: &mut Memory) -> Inserts {
        let mut inserts = Inserts::default();
        if self.walk.at_boundary() {
            self.insert(0, &mut inserts, memory);
        }
        inserts
    }

    fn insert(&mut self, at: usize, inserts: &mut Inserts, memory: &mut Memory) {
        loop {
            match self.queue.front() {
                Some(Entry::Refused(_)) => {
                    if let Some(Entry::Refused(error)) = self.queue.pop_front() {
                        inserts.at.push((at, error));
                        self.skip_to_sync(memory);
                    }
                }
                Some(Entry::RefusedAlone(_)) => {
                    if let Some(Entry::RefusedAlone(error)) = self.queue.pop_front() {
                        inserts.at.push((at, error));
                        let status = self.status;
                        let ready = frame::message(target::READY_FOR_QUERY, |out| out.put_u8(status));
                        inserts.at.push((at, ready));
                    }
                }
                Some(Entry::Last(_)) => {
                    if let Some(Entry::Last(error)) = self.queue.pop_front() {
                        inserts.at.push((at, error));
                        inserts.last = true;
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Takes what the target sent, and says what is to be put between it on its way to the client.
    ///
    /// # Errors
    /// The target is out of step; of these bytes, none may be passed on. Or what the client would get cannot be recorded.
    pub(crate) fn receive(&mut self, bytes: &[u8], memory: &mut Memory) -> Result<Inserts, Broken> {
        let mut inserts = Inserts::default();
        let mut at = 0;
        // Where the part of a result that is not recorded yet begins.
        let mut result = None;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.walk.step(rest)? {
                Walked::Within(kind) => {
                    if is_result(kind) && result.is_none() {
                        result = Some(at);
                    } else if !is_result(kind) {
                        self.record(bytes, result.take(), at)?;
                    }
                    at = bytes.len();
                }
                Walked::Message { kind, length, used, body } => {
                    let end = at + used;
                    if is_result(kind) {
                        result.get_or_insert(at);
                        self.progress.sent(length);
                        if kind == target::DATA_ROW {
                            self.pass_soft_syncs();
                            self.progress.row();
                            self.check_result(kind)?;
                            at = end;
                            continue;
                        }
                    }
                    if is_result(kind) && ends_operation(kind) || !is_result(kind) {
                        let until = if is_result(kind) { end } else { at };
                        self.record(bytes, result.take(), until)?;
                    }
                    let kept;
                    let body = match body {
                        Some(range) => rest.get(range).unwrap_or_default(),
                        None => {
                            kept = self.walk.kept();
                            &kept
                        }
                    };
                    self.message(kind, body, memory)?;
                    at = end;
                    self.insert(at, &mut inserts, memory);
                    if inserts.last {
                        return Ok(inserts);
                    }
                }
            }
        }
        self.record(bytes, result, at)?;
        self.clean = self.walk.at_boundary();
        Ok(inserts)
    }

    /// Records a part of what the client gets of the operation at the front.
    fn record(&self, bytes: &[u8], from: Option<usize>, to: usize) -> Result<(), Refusal> {
        let (true, Some(from)) = (self.record_results, from) else { return Ok(()) };
        let part = bytes.get(from..to).unwrap_or_default();
        match self.queue.front() {
            Some(Entry::Query(recorded, _) | Entry::FunctionCall(recorded) | Entry::Execute(recorded, _))
                if !part.is_empty() =>
            {
                recorded.result(part)
            }
            _ => Ok(()),
        }
    }

    /// Rows come only in answer to something that can have some.
    fn check_result(&self, kind: u8) -> Result<(), OutOfStep> {
        match self.queue.front() {
            Some(Entry::Query(..) | Entry::Execute(..)) => Ok(()),
            _ => Err(out_of_step(kind)),
        }
    }

    fn message(&mut self, kind: u8, body: &[u8], memory: &mut Memory) -> Result<(), OutOfStep> {
        if answers_something(kind) {
            self.pass_soft_syncs();
        }
        match (kind, self.queue.front()) {
            (target::NOTIFICATION_RESPONSE | target::PARAMETER_STATUS, _) => Ok(()),
            (target::NOTICE_RESPONSE, _) => {
                if !self.queue.is_empty() {
                    self.progress.notice(body);
                }
                Ok(())
            }
            (target::ERROR_RESPONSE, _) => {
                self.error(Fields::read(body), memory);
                Ok(())
            }
            (target::READY_FOR_QUERY, _) => self.ready(body, memory),
            (target::COMMAND_COMPLETE, Some(Entry::Query(..))) => {
                self.progress.command(body);
                self.end_copy(None);
                self.rename(body, memory);
                Ok(())
            }
            (target::COMMAND_COMPLETE, Some(Entry::Execute(..))) => {
                self.progress.command(body);
                self.end_copy(None);
                self.rename(body, memory);
                self.executed();
                Ok(())
            }
            (target::EMPTY_QUERY_RESPONSE, Some(Entry::Query(..))) => Ok(()),
            (target::EMPTY_QUERY_RESPONSE, Some(Entry::Execute(..))) => {
                self.executed();
                Ok(())
            }
            (target::PORTAL_SUSPENDED, Some(Entry::Execute(..))) => {
                self.progress.suspended();
                self.executed();
                Ok(())
            }
            (
                target::COPY_IN_RESPONSE | target::COPY_BOTH_RESPONSE,
                Some(Entry::Query(..) | Entry::Execute(..)),
            ) => self.begin_copy(),
            (
                target::COPY_OUT_RESPONSE | target::COPY_DATA | target::COPY_DONE,
                Some(Entry::Query(..) | Entry::Execute(..)),
            ) => Ok(()),
            (target::ROW_DESCRIPTION, Some(Entry::Query(..))) => Ok(()),
            (target::FUNCTION_CALL_RESPONSE, Some(Entry::FunctionCall(_))) => Ok(()),
            (target::PARAMETER_DESCRIPTION, Some(Entry::DescribeStatement(name))) => {
                // The answers to what stood before are in, so the name means what it meant to the target.
                if let Some(statement) = memory.statements.settled(name) {
                    statement.describe(types(body));
                }
                Ok(())
            }
            _ => self.answer_to_extended(kind, memory),
        }
    }

    /// The answers that only take one entry off the queue.
    fn answer_to_extended(&mut self, kind: u8, memory: &mut Memory) -> Result<(), OutOfStep> {
        match (kind, self.queue.pop_front()) {
            (target::PARSE_COMPLETE, Some(Entry::Parse(change, recorded))) => {
                memory.statements.settle(&change, Settled::Applied);
                if let Some(recorded) = recorded {
                    recorded.complete(&std::mem::take(&mut self.progress).outcome());
                }
                Ok(())
            }
            (target::BIND_COMPLETE, Some(Entry::Bind(change))) => {
                memory.portals.settle(&change, Settled::Applied);
                Ok(())
            }
            (target::CLOSE_COMPLETE, Some(Entry::CloseStatement(change))) => {
                memory.statements.settle(&change, Settled::Applied);
                Ok(())
            }
            (target::CLOSE_COMPLETE, Some(Entry::ClosePortal(change))) => {
                memory.portals.settle(&change, Settled::Applied);
                Ok(())
            }
            (
                target::ROW_DESCRIPTION | target::NO_DATA,
                Some(Entry::DescribeStatement(_) | Entry::DescribePortal),
            ) => {
                self.progress = Progress::default();
                Ok(())
            }
            (kind, _) => Err(out_of_step(kind)),
        }
    }

    /// The Execute at the front has its answer.
    fn executed(&mut self) {
        let outcome = std::mem::take(&mut self.progress).outcome();
        let Some(Entry::Execute(recorded, _)) = self.queue.pop_front() else { return };
        self.renames = None;
        self.complete_answered();
        let sync_next = matches!(self.queue.front(), Some(Entry::Sync(_)));
        match sync_next {
            true => self.answered = Some((recorded, outcome)),
            false => recorded.complete(&outcome),
        }
    }

    /// A command of the operation at the front completed; if it was one that changes names, its text says which.
    fn rename(&mut self, tag: &[u8], memory: &mut Memory) {
        let Some(Entry::Query(_, Some(text)) | Entry::Execute(_, Some(text))) = self.queue.front() else {
            return;
        };
        let wanted: fn(&Rename) -> bool = match tag.strip_suffix(b"\0").unwrap_or(tag) {
            b"PREPARE" => |rename| matches!(rename, Rename::Prepare(_)),
            b"DEALLOCATE" => |rename| matches!(rename, Rename::Deallocate(_)),
            b"DECLARE CURSOR" => |rename| matches!(rename, Rename::Declare(_)),
            b"DEALLOCATE ALL" => return memory.statements.forget(|name, _| name.is_empty()),
            b"DISCARD ALL" => {
                memory.statements.forget(|name, _| name.is_empty());
                return memory.portals.forget(|_, _| false);
            }
            _ => return,
        };
        let renames = self.renames.get_or_insert_with(|| renames(text).into());
        while let Some(rename) = renames.pop_front() {
            if !wanted(&rename) {
                continue;
            }
            let statement = Statement::new(text, Vec::new());
            match rename {
                Rename::Prepare(name) => memory.statements.set(&name, Some(statement)),
                Rename::Deallocate(name) => memory.statements.set(&name, None),
                Rename::Declare(name) => memory.portals.set(&name, Some(Portal::declared(statement))),
                Rename::All => {}
            }
            return;
        }
    }

    fn complete_answered(&mut self) {
        if let Some((recorded, outcome)) = self.answered.take() {
            recorded.complete(&outcome);
        }
    }

    fn error(&mut self, fields: Fields, memory: &mut Memory) {
        self.said_farewell |= matches!(fields.severity.as_str(), "FATAL" | "PANIC");
        let error = fields.error();
        self.end_copy(Some(&error));
        match self.queue.front() {
            // Out of the blue: the target says why it is about to leave.
            None => {}
            Some(Entry::Query(..) | Entry::FunctionCall(_)) => {
                self.progress.failed(error);
                if self.said_farewell {
                    self.last_answer();
                }
            }
            Some(Entry::Sync(_)) => {
                if let Some((_, outcome)) = &mut self.answered {
                    outcome.status = Status::Error;
                    outcome.error = Some(error);
                }
            }
            Some(_) => {
                let mut progress = std::mem::take(&mut self.progress);
                match self.queue.pop_front() {
                    Some(Entry::Execute(recorded, _)) => {
                        progress.failed(error);
                        recorded.complete(&progress.outcome());
                    }
                    Some(Entry::Parse(change, Some(recorded))) => {
                        memory.statements.settle(&change, lost(&change));
                        progress.failed(error);
                        recorded.complete(&progress.outcome());
                    }
                    Some(Entry::Parse(change, None)) => {
                        memory.statements.settle(&change, lost(&change));
                        self.failed = Some(error);
                    }
                    Some(Entry::Bind(change)) => {
                        memory.portals.settle(&change, lost(&change));
                        self.failed = Some(error);
                    }
                    Some(other) => self.skip(other, memory),
                    None => {}
                }
                self.skip_to_sync(memory);
            }
        }
    }

    /// The target leaves: there will be no ReadyForQuery for the operation at the front.
    fn last_answer(&mut self) {
        if let Some(Entry::Query(recorded, _) | Entry::FunctionCall(recorded)) = self.queue.pop_front() {
            recorded.complete(&std::mem::take(&mut self.progress).outcome());
        }
    }

    /// An error came: what was forwarded up to the next Sync is not run.
    fn skip_to_sync(&mut self, memory: &mut Memory) {
        self.complete_answered();
        self.skipping = true;
        while let Some(entry) = self.queue.pop_front() {
            if matches!(entry, Entry::Sync(_) | Entry::Last(_)) {
                self.queue.push_front(entry);
                return;
            }
            self.skip(entry, memory);
        }
    }

    fn skip(&mut self, entry: Entry, memory: &mut Memory) {
        match entry {
            Entry::Parse(change, recorded) => {
                memory.statements.settle(&change, Settled::Kept);
                if let Some(recorded) = recorded {
                    recorded.complete(&Outcome::new(Status::Skipped));
                }
            }
            Entry::Bind(change) | Entry::ClosePortal(change) => memory.portals.settle(&change, Settled::Kept),
            Entry::CloseStatement(change) => memory.statements.settle(&change, Settled::Kept),
            Entry::Execute(recorded, _) => match self.failed.take() {
                Some(error) => {
                    recorded.complete(&Outcome { error: Some(error), ..Outcome::new(Status::Error) });
                }
                None => recorded.complete(&Outcome::new(Status::Skipped)),
            },
            Entry::Query(recorded, _) | Entry::FunctionCall(recorded) => {
                recorded.complete(&Outcome::new(Status::Skipped));
            }
            Entry::DescribeStatement(_)
            | Entry::DescribePortal
            | Entry::Sync(_)
            | Entry::Refused(_)
            | Entry::RefusedAlone(_)
            | Entry::Last(_) => {}
        }
    }

    fn ready(&mut self, body: &[u8], memory: &mut Memory) -> Result<(), OutOfStep> {
        let status = match body {
            [status @ (b'I' | b'T' | b'E')] => *status,
            _ => return Err(out_of_step(target::READY_FOR_QUERY)),
        };
        match self.queue.pop_front() {
            Some(Entry::Query(recorded, _) | Entry::FunctionCall(recorded)) => {
                recorded.complete(&std::mem::take(&mut self.progress).outcome());
                // A simple query replaces the unnamed statement and portal by nothing.
                if !memory.statements.is_empty() {
                    memory.statements.forget(|name, _| !name.is_empty());
                }
            }
            Some(Entry::Sync(_)) => {
                self.complete_answered();
                self.progress = Progress::default();
            }
            _ => return Err(out_of_step(target::READY_FOR_QUERY)),
        }
        self.skipping = false;
        self.failed = None;
        self.renames = None;
        self.status = status;
        if status == b'I' && !memory.portals.is_empty() {
            // A cursor WITH HOLD outlives its transaction.
            memory.portals.forget(|_, portal| portal.is_declared());
        }
        Ok(())
    }

    /// Syncs that the target read while it took COPY data have no answer: the answer to something behind them says so.
    fn pass_soft_syncs(&mut self) {
        let mut passed = false;
        while let Some(Entry::Sync(Answer::IfCopyFails | Answer::Perhaps)) = self.queue.front() {
            self.queue.pop_front();
            passed = true;
        }
        if passed {
            self.complete_answered();
            self.skipping = false;
            self.failed = None;
        }
    }

    /// The target takes data now.
    ///
    /// # Errors
    /// Something else is on its way to it already: servers differ in what they make of that, so the session ends.
    fn begin_copy(&mut self) -> Result<(), OutOfStep> {
        self.copy_in = CopyIn::Taking;
        self.copy = Some(Copy::default());
        self.copy_ended = None;
        // Syncs that are on their way already are read, and ignored, unless the COPY fails first.
        for entry in self.queue.iter_mut().skip(1) {
            match entry {
                Entry::Sync(answer) => *answer = Answer::IfCopyFails,
                Entry::Refused(_) | Entry::RefusedAlone(_) | Entry::Last(_) => break,
                _ => {
                    return Err(OutOfStep(
                        "it takes COPY data, and the client sent something else".to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The other direction takes the data's operation to add to it.
    pub(crate) fn lend_copy(&mut self) -> Option<Copy> {
        self.copy.take()
    }

    /// The other direction gives it back.
    pub(crate) fn return_copy(&mut self, copy: Copy) {
        match self.copy_ended.take() {
            Some(error) => copy.complete(error.as_ref()),
            None => self.copy = Some(copy),
        }
    }

    /// The client ended its data, or the gateway refused it.
    pub(crate) fn data_ended(&mut self, refused: bool) {
        if self.takes_data() {
            self.copy_in = if refused { CopyIn::Refused } else { CopyIn::No };
        }
    }

    /// The COPY's command has its answer.
    fn end_copy(&mut self, error: Option<&TargetError>) {
        let taking = !matches!(std::mem::take(&mut self.copy_in), CopyIn::No);
        match self.copy.take() {
            Some(copy) => copy.complete(error),
            None if taking => self.copy_ended = Some(error.cloned()),
            None => {}
        }
        if error.is_none() {
            // It went well, so every Sync that came with the data was ignored, and the one after it was not.
            while let Some(Entry::Sync(Answer::IfCopyFails)) = self.queue.get(1) {
                self.queue.remove(1);
            }
            if let Some(Entry::Sync(answer @ Answer::Perhaps)) = self.queue.get_mut(1) {
                *answer = Answer::Due;
            }
        }
    }

    /// The session is over: what was answered is completed; what was not is dropped with its permits, and so recorded
    /// as aborted.
    pub(crate) fn end(&mut self) {
        self.complete_answered();
        self.queue.clear();
    }
}

/// Why nothing more of the target can be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    OutOfStep(#[from] OutOfStep),
    #[error(transparent)]
    NotRecorded(#[from] Refusal),
}

fn lost(change: &Change) -> Settled {
    if change.is_unnamed() { Settled::Lost } else { Settled::Kept }
}

fn out_of_step(kind: u8) -> OutOfStep {
    OutOfStep(format!("message type {kind:#04x} answers nothing that was asked"))
}

/// The types in a ParameterDescription; none where it is not of its form.
fn types(body: &[u8]) -> Vec<u32> {
    let mut reader = Reader::new(Bytes::copy_from_slice(body));
    let Ok(count) = reader.count(4, "types") else { return Vec::new() };
    (0..count).map_while(|_| reader.u32("types").ok()).collect()
}

#[cfg(test)]
mod tests;
