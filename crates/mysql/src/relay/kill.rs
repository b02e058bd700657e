//! KILL of a session that the gateway knows: carried out at its owner's target.

use std::io;

use bytes::Bytes;
use verbatim_core::{Refusal, TargetError as Failure};

use super::{Batch, End, Relay, Up};
use crate::answer::{self, ErrPacket};
use crate::cancel::Found;
use crate::frame;
use crate::operation::{Draft, Item, Kill, Step};
use crate::refusal::{ErrorWords, Phase, error_words};
use crate::results::{Entry, complete_own};
use crate::target::TargetError;

impl Relay {
    /// Kills what the id names, if it is the client's own; an unknown id in SQL is the target's to judge.
    pub(super) async fn kill(
        &self,
        up: &mut Up,
        kill: Kill,
        wire: bool,
        mut draft: Draft,
        bytes: Bytes,
    ) -> io::Result<Option<End>> {
        let found = self.context.mysql.registry.find(kill.thread_id, &self.registration);
        let (session, words) = match found {
            Found::Unknown if !wire => {
                let step = Step::Query(Vec::new());
                let item = Item { end: bytes.len(), answer: 1, step, draft };
                return self.batch(up, Batch { bytes, items: vec![item] }).await;
            }
            Found::Own(session) => (Some(session), None),
            Found::NotOwn => {
                let reason = format!("thread {} is another identity's", kill.thread_id);
                draft.refused = Some(Refusal::NotAllowed { code: "not_owner", reason });
                let words = format!("You are not owner of thread {}", kill.thread_id);
                (None, Some(ErrorWords::new(1095, "HY000", words)))
            }
            Found::Unknown => {
                let reason = format!("no session has the thread id {}", kill.thread_id);
                draft.refused = Some(Refusal::NotAllowed { code: "unknown_thread", reason });
                let words = format!("Unknown thread id: {}", kill.thread_id);
                (None, Some(ErrorWords::new(1094, "HY000", words)))
            }
        };
        let answer = match (self.record(up, draft).await, session) {
            (Ok(recorded), Some(session)) => {
                let (failure, packet) =
                    said(session.kill(kill.query).await, self.state.lock().results.status());
                complete_own(recorded, failure);
                Entry::Own(packet)
            }
            // Without a session there is always a refusal; were there none, nothing is done.
            (Ok(_), None) => return Ok(None),
            (Err(refusal), _) => {
                let usual = error_words(&refusal, Phase::Ready, self.session.id());
                if usual.is_fatal() {
                    self.say_last(usual);
                    return Ok(Some(End::Last(refusal.close_reason())));
                }
                let own = words.filter(|_| {
                    matches!(refusal, Refusal::NotAllowed { code: "not_owner" | "unknown_thread", .. })
                });
                Entry::Own(own.unwrap_or(usual).packet(1))
            }
        };
        self.state.lock().results.expect(answer);
        self.due.notify_one();
        Ok(None)
    }
}

/// What came of it, for the record and for the client.
fn said(killed: Result<Option<ErrPacket>, TargetError>, status: u16) -> (Option<Failure>, Bytes) {
    match killed {
        Ok(None) => (None, frame::packet(1, &answer::ok(status))),
        Ok(Some(error)) => {
            let payload = answer::err(error.code, error.state.as_deref().unwrap_or("HY000"), &error.message);
            (Some(error.error()), frame::packet(1, &payload))
        }
        Err(error) => {
            let failure = Failure { code: "1105".into(), message: error.to_string() };
            let words = ErrorWords::new(1105, "HY000", "The target could not be asked to kill it");
            (Some(failure), words.packet(1))
        }
    }
}
