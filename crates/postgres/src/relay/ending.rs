//! How a session ends: who is told what, and what still runs.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::timeout;
use verbatim_core::CloseReason;

use super::{ENDING, Relay, State, Up, copy_fail, flush};
use crate::cancel::Registration;
use crate::refusal::{ErrorFields, Phase, error_fields};
use crate::results::{Broken, Entry};

/// How one direction ended, or why the session does.
#[derive(Debug)]
pub(super) enum End {
    /// The client left.
    Client,
    /// The client's last words stand in the queue.
    Last(CloseReason),
    /// The way up came to a stop, as it was asked to.
    Stopped,
    /// Nothing came for too long.
    Idle,
    /// The target left.
    Target,
    /// The last words were written.
    Said,
    /// Everything is answered, and the client is gone.
    Settled,
    /// The target's bytes cannot be passed on.
    Broken(Broken),
    /// The gateway ends the session.
    Ended(CloseReason),
    /// The same, while the target does not take what is being forwarded.
    Stuck(CloseReason),
}

impl Relay {
    /// The gateway ends the session: what is being forwarded is forwarded whole, or the target would get half a message.
    pub(super) async fn stop(
        &self,
        reason: CloseReason,
        up: Pin<&mut impl Future<Output = End>>,
        down: Pin<&mut impl Future<Output = End>>,
    ) -> End {
        self.stopping.store(true, Relaxed);
        self.stop.notify_one();
        let stopped = async {
            tokio::select! {
                biased;
                _ = up => End::Ended(reason),
                end = down => end,
            }
        };
        timeout(ENDING, stopped).await.unwrap_or(End::Stuck(reason))
    }

    /// Sees a session off: what runs is answered or given up, and the client told why, where it can be.
    pub(super) async fn conclude(
        &self,
        end: End,
        up: &Up,
        mut down: Pin<&mut impl Future<Output = End>>,
        registration: &Registration,
    ) -> CloseReason {
        let reason = reason_of(&end);
        match end {
            End::Client => {
                // What ran without a Sync has its answer in the target's buffer.
                if up.unflushed {
                    let _ = timeout(ENDING, self.target.write(&flush())).await;
                }
                self.alone.store(true, Relaxed);
                self.due.notify_one();
                let _ = timeout(ENDING, down).await;
            }
            End::Last(_) => {
                let _ = timeout(ENDING, down).await;
            }
            End::Idle => {
                let words = ErrorFields::fatal("57P05", "terminating connection due to idle-session timeout");
                self.say_last(up, words).await;
                let _ = timeout(ENDING, down).await;
            }
            End::Ended(CloseReason::Drained) => {
                self.say_last(up, farewell(reason).reference(self.session.id())).await;
                // How long what runs may take is the gateway's to say, which drops this session at its deadline.
                let _ = down.await;
            }
            End::Ended(_) => {
                let running = self.state.lock().results.is_running();
                self.say_last(up, farewell(reason).reference(self.session.id())).await;
                let cancelled = async {
                    if running {
                        registration.cancel().await;
                    }
                    std::future::pending::<()>().await;
                };
                let answered = async {
                    tokio::select! {
                        _ = &mut down => {}
                        () = cancelled => {}
                    }
                };
                if timeout(ENDING, answered).await.is_err() {
                    self.explain(farewell(reason)).await;
                }
            }
            // The target takes nothing, so there is no place for words of the protocol's order.
            End::Stuck(_) => {
                let _ = timeout(ENDING, registration.cancel()).await;
                self.explain(farewell(reason)).await;
            }
            End::Target => {
                self.explain(ErrorFields::fatal("08006", "the target closed the connection")).await;
            }
            End::Broken(broken) => {
                tracing::warn!(session.id = %self.session.id(), error = %broken, "the session cannot go on");
                let words = match broken {
                    Broken::OutOfStep(_) => ErrorFields::fatal("08P01", "the target broke the protocol"),
                    Broken::NotRecorded(refusal) => error_fields(&refusal, Phase::Ready, self.session.id()),
                };
                self.explain(words.into_fatal()).await;
            }
            End::Stopped | End::Said | End::Settled => {}
        }
        reason
    }

    /// The client is gone, and the target may be waiting for its data: as on a stream that ends, its COPY fails.
    pub(super) async fn end_data(&self) {
        let waits = {
            let results = &mut self.state.lock().results;
            let waits = results.takes_data() && !results.data_is_refused();
            if waits {
                results.data_ended(true);
            }
            waits
        };
        if waits {
            // A target that takes nothing is given up with the session.
            let _ = self.target.write(&copy_fail(b"the client left")).await;
        }
    }

    /// Puts the session's last words behind what is open.
    pub(super) async fn say_last(&self, up: &Up, words: ErrorFields) {
        let takes_data = {
            let mut state = self.state.lock();
            let State { memory, results } = &mut *state;
            results.expect(Entry::Last(words.into_fatal().message()), memory);
            results.takes_data()
        };
        let nudge =
            if takes_data { Some(copy_fail(b"refused by the gateway")) } else { up.unflushed.then(flush) };
        if let Some(nudge) = nudge {
            let _ = timeout(ENDING, self.target.write(&nudge)).await;
        }
        self.due.notify_one();
    }

    /// Says why the session ends, if the client's stream is at the end of a message.
    pub(super) async fn explain(&self, words: ErrorFields) {
        if !self.writing.load(Relaxed) && self.state.lock().results.can_say_why() {
            let _ = timeout(ENDING, self.client.write(&words.message())).await;
        }
    }
}

fn reason_of(end: &End) -> CloseReason {
    match end {
        End::Client | End::Settled => CloseReason::Client,
        End::Last(reason) | End::Ended(reason) | End::Stuck(reason) => *reason,
        End::Idle => CloseReason::Idle,
        End::Target => CloseReason::Target,
        End::Stopped | End::Said | End::Broken(_) => CloseReason::Protocol,
    }
}

fn farewell(reason: CloseReason) -> ErrorFields {
    let why = match reason {
        CloseReason::Expired => "the access token expired",
        CloseReason::AccessRevoked => "access was revoked",
        CloseReason::Drained => "the gateway is shutting down",
        _ => "of an administrator's command",
    };
    ErrorFields::fatal("57P01", format!("terminating connection because {why}"))
}
