//! JSON-RPC requests of a session that wait for their answers, on whatever stream these come.

use std::collections::VecDeque;

use parking_lot::Mutex;
use verbatim_core::{Outcome, Recorded, Status, TargetError};

use super::scan::{Answer, key_of};
use crate::session::Running;

/// How many requests of a session may wait; the oldest is given up (recorded as aborted) for one more.
const WAITING_MAX: usize = 1024;

/// A request that waits.
pub(crate) struct Waiting {
    key: String,
    recorded: Recorded,
    /// It asks for the list of tools.
    lists_tools: bool,
    _running: Running,
}

impl Waiting {
    pub(crate) fn new(id: &str, recorded: Recorded, lists_tools: bool, running: Running) -> Self {
        Self { key: key_of(id), recorded, lists_tools, _running: running }
    }

    pub(crate) const fn lists_tools(&self) -> bool {
        self.lists_tools
    }

    /// The answer came. `result` is kept where results are recorded.
    pub(crate) fn answered(self, answer: &Answer, result: Option<&[u8]>, messages: Vec<String>) {
        let mut outcome = Outcome::new(Status::Ok);
        outcome.bytes = Some(answer.bytes);
        outcome.messages = messages;
        if let Some((code, message)) = &answer.error {
            outcome.status = Status::Error;
            outcome.error = Some(TargetError { code: code.clone(), message: message.clone() });
        } else if answer.is_error {
            outcome.status = Status::Error;
            let message = "the tool says that it failed".to_owned();
            outcome.error = Some(TargetError { code: "isError".to_owned(), message });
        }
        for piece in result.unwrap_or_default().chunks(1 << 20) {
            if self.recorded.result(piece).is_err() {
                outcome.messages.push("WARNING result: it could not be recorded whole".to_owned());
                break;
            }
        }
        self.recorded.complete(&outcome);
    }

    /// It failed without an answer of its own.
    pub(crate) fn failed(self, code: &str, message: &str) {
        let mut outcome = Outcome::new(Status::Error);
        outcome.error = Some(TargetError { code: code.to_owned(), message: message.to_owned() });
        self.recorded.complete(&outcome);
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Pending(Mutex<VecDeque<Waiting>>);

impl Pending {
    pub(crate) fn add(&self, waiting: Waiting) {
        let mut all = self.0.lock();
        if all.len() >= WAITING_MAX {
            all.pop_front();
        }
        all.push_back(waiting);
    }

    /// The request that an answer is for; of two with one id, the older.
    pub(crate) fn take(&self, key: &str) -> Option<Waiting> {
        let mut all = self.0.lock();
        let place = all.iter().position(|waiting| waiting.key == key)?;
        all.remove(place)
    }

    /// Whether a list of tools is waited for.
    pub(crate) fn lists_tools(&self) -> bool {
        self.0.lock().iter().any(Waiting::lists_tools)
    }

    /// Nothing is waited for any more: what was is aborted.
    pub(crate) fn clear(&self) {
        drop(std::mem::take(&mut *self.0.lock()));
    }
}
