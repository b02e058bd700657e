//! One request and its answer: the recorded permit, and what becomes its outcome.
//!
//! Both directions hold the exchange. When the last lets go of it, the outcome is written; without an answer there is none,
//! and the permit's drop records "aborted".

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use verbatim_core::{Content, Outcome, RecordMode, Recorded, Refusal, Status, TargetError};

use crate::operation::{media_type, response_part};
use crate::session::{Live, Running};

/// How large a recorded piece of content may be.
const CONTENT_MAX: usize = 1 << 20;
/// How much of a problem document is kept to find its title.
const PROBLEM_MAX: usize = 8 << 10;

/// See the module.
pub(crate) struct Exchange {
    recorded: Option<Recorded>,
    results: bool,
    state: Mutex<State>,
    running: Mutex<Option<Running>>,
}

struct State {
    outcome: Outcome,
    answered: bool,
    bytes: u64,
    /// Of what the client streamed.
    content: Option<(u64, digest::Context)>,
    /// Why the request's body did not go on.
    refusal: Option<Refusal>,
    /// The beginning of a problem document.
    problem: Option<Vec<u8>>,
}

impl Exchange {
    pub(crate) fn new(recorded: Recorded, live: &Arc<Live>) -> Arc<Self> {
        Arc::new(Self {
            recorded: Some(recorded),
            results: live.session.record() == RecordMode::Results,
            state: Mutex::new(State {
                outcome: Outcome::new(Status::Ok),
                answered: false,
                bytes: 0,
                content: None,
                refusal: None,
                problem: None,
            }),
            running: Mutex::new(Some(live.runs())),
        })
    }

    /// Records a piece of what the client streams, and waits until it is durable.
    pub(crate) async fn content(&self, data: &Bytes) -> Result<(), Refusal> {
        if let Some(recorded) = &self.recorded {
            for piece in data.chunks(CONTENT_MAX) {
                recorded.content(piece).await?;
            }
        }
        let mut state = self.state.lock();
        let (length, digest) =
            state.content.get_or_insert_with(|| (0, digest::Context::new(&digest::SHA256)));
        *length += data.len() as u64;
        digest.update(data);
        Ok(())
    }

    /// The client's body came to its end, if there was anything in it or not.
    pub(crate) fn sent_whole(&self) {
        self.state.lock().content.get_or_insert_with(|| (0, digest::Context::new(&digest::SHA256)));
    }

    /// The request's body does not go on.
    pub(crate) fn refused(&self, refusal: Refusal) {
        let mut state = self.state.lock();
        state.outcome.messages.push(format!("ERROR {}: {refusal}", refusal.code()));
        state.refusal.get_or_insert(refusal);
    }

    /// Why the request's body did not go on.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.state.lock().refusal.clone()
    }

    /// The target answered.
    pub(crate) fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        let mut state = self.state.lock();
        state.answered = true;
        state.outcome.parts.push(response_part(status.as_u16(), headers));
        if status.as_u16() >= 400 {
            state.outcome.status = Status::Error;
            let message = status.canonical_reason().unwrap_or_default().to_owned();
            state.outcome.error = Some(TargetError { code: status.as_u16().to_string(), message });
            let encoded = headers.contains_key(http::header::CONTENT_ENCODING);
            if media_type(headers).eq_ignore_ascii_case("application/problem+json") && !encoded {
                state.problem = Some(Vec::new());
            }
        }
    }

    /// The target could not be asked, or did not answer: the client gets this status.
    pub(crate) fn failed(&self, status: StatusCode, reason: String) {
        let mut state = self.state.lock();
        state.answered = true;
        state.outcome.status = Status::Error;
        state.outcome.error = Some(TargetError { code: status.as_u16().to_string(), message: reason });
    }

    /// What the client receives.
    pub(crate) fn passes(&self, data: &Bytes) -> Result<(), Refusal> {
        if self.results
            && let Some(recorded) = &self.recorded
        {
            for piece in data.chunks(CONTENT_MAX) {
                recorded.result(piece)?;
            }
        }
        let mut state = self.state.lock();
        state.bytes += data.len() as u64;
        if let Some(problem) = &mut state.problem {
            let room = PROBLEM_MAX.saturating_sub(problem.len());
            problem.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        }
        Ok(())
    }

    /// The answer was passed on to its end.
    pub(crate) fn answered_whole(&self) {
        let mut state = self.state.lock();
        state.outcome.bytes = Some(state.bytes);
        let title = state.problem.take().and_then(|problem| title(&problem));
        if let (Some(title), Some(error)) = (title, &mut state.outcome.error) {
            error.message = title;
        }
    }

    /// The answer was passed on in part.
    pub(crate) fn partial(&self, why: &str) {
        let mut state = self.state.lock();
        state.outcome.bytes = Some(state.bytes);
        state.outcome.messages.push(format!("WARNING partial: {why}"));
    }

    /// The target's answer broke off.
    pub(crate) fn broken_off(&self) {
        self.partial("the target broke off");
        let mut state = self.state.lock();
        state.outcome.status = Status::Error;
        let message = "the target's response broke off".to_owned();
        state.outcome.error = Some(TargetError { code: "502".to_owned(), message });
    }

    /// It stays open for as long as both sides like: the end of its session does not wait for it.
    pub(crate) fn stands(&self) {
        if let Some(running) = &mut *self.running.lock() {
            running.stands();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(recorded) = self.recorded.take() else { return };
        let state = self.state.get_mut();
        if !state.answered {
            return;
        }
        state.outcome.content = state.content.take().map(|(length, digest)| {
            let mut content = Content { length, sha256: [0; 32] };
            content.sha256.copy_from_slice(digest.finish().as_ref());
            content
        });
        recorded.complete(&state.outcome);
    }
}

/// The title of a problem document (RFC 9457).
fn title(problem: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Problem {
        title: String,
    }
    let problem: Problem = serde_json::from_slice(problem).ok()?;
    Some(problem.title).filter(|title| !title.is_empty())
}
