//! How a session ends: who is told what, and what still runs.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::time::timeout;
use verbatim_core::{CloseReason, Opened};

use super::{ENDING, Relay};
use crate::refusal::{ErrorWords, Phase, error_words};
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
    /// The same, and why.
    Over(CloseReason),
    /// The target's stream cannot be used any more, and the client knows why.
    Lost,
    /// The target's stream is given up in the middle of a file; the client's last packet.
    Cut(Bytes, CloseReason),
    /// Everything is answered, and the client is gone.
    Settled,
    /// The target's bytes cannot be passed on.
    Broken(Broken),
    /// The gateway ends the session.
    Ended(CloseReason),
    /// The same, while the target does not take what is being forwarded.
    Stuck(CloseReason),
    /// Another session begins on the stream, with these status flags.
    Next(Box<(Opened, u16)>),
}

impl Relay {
    /// The gateway ends the session: what is being forwarded is forwarded whole, or the target would get half a command.
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
        mut down: Pin<&mut impl Future<Output = End>>,
    ) -> CloseReason {
        let reason = reason_of(&end);
        match end {
            End::Client => {
                self.alone.store(true, Relaxed);
                self.due.notify_one();
                let _ = timeout(ENDING, down).await;
            }
            End::Last(_) => {
                let _ = timeout(ENDING, down).await;
            }
            End::Idle => {
                self.say_last(ErrorWords::new(
                    4031,
                    "HY000",
                    "The client was disconnected by the gateway because of inactivity",
                ));
                let _ = timeout(ENDING, down).await;
            }
            End::Ended(CloseReason::Drained) => {
                self.say_last(farewell(reason).reference(self.session.id()));
                // How long what runs may take is the gateway's to say, which drops this session at its deadline.
                let _ = down.await;
            }
            End::Ended(_) => {
                let running = self.state.lock().results.is_running();
                self.say_last(farewell(reason).reference(self.session.id()));
                let killed = async {
                    if running {
                        self.registration.kill().await;
                    }
                    std::future::pending::<()>().await;
                };
                let answered = async {
                    tokio::select! {
                        _ = &mut down => {}
                        () = killed => {}
                    }
                };
                if timeout(ENDING, answered).await.is_err() {
                    self.explain(farewell(reason)).await;
                }
            }
            // The target takes nothing, so there is no place for words of the protocol's order.
            End::Stuck(_) => {
                let _ = timeout(ENDING, self.registration.kill()).await;
                self.explain(farewell(reason)).await;
            }
            End::Cut(words, _) => {
                let _ = timeout(ENDING, self.registration.kill()).await;
                let _ = timeout(ENDING, self.client.write(&words)).await;
            }
            End::Target => {
                self.explain(ErrorWords::new(1105, "HY000", "The target closed the connection")).await;
            }
            End::Broken(broken) => {
                tracing::warn!(session.id = %self.session.id(), error = %broken, "the session cannot go on");
                let words = match broken {
                    Broken::OutOfStep(_) => ErrorWords::new(1105, "HY000", "The target broke the protocol"),
                    Broken::NotRecorded(refusal) => error_words(&refusal, Phase::Ready, self.session.id()),
                };
                self.explain(words).await;
            }
            End::Stopped | End::Said | End::Settled | End::Over(_) | End::Lost | End::Next(_) => {}
        }
        reason
    }

    /// Puts the session's last words behind what is open.
    pub(super) fn say_last(&self, words: ErrorWords) {
        self.state.lock().results.expect(Entry::Last(words.packet(1)));
        self.due.notify_one();
    }

    /// Says why the session ends, if the client's stream is at the end of a packet.
    pub(super) async fn explain(&self, words: ErrorWords) {
        let sequence = self.state.lock().results.can_say_why();
        if let Some(sequence) = sequence.filter(|_| !self.writing.load(Relaxed)) {
            let _ = timeout(ENDING, self.client.write(&words.packet(sequence))).await;
        }
    }
}

fn reason_of(end: &End) -> CloseReason {
    match end {
        End::Client | End::Settled | End::Next(_) => CloseReason::Client,
        End::Last(reason)
        | End::Ended(reason)
        | End::Stuck(reason)
        | End::Over(reason)
        | End::Cut(_, reason) => *reason,
        End::Idle => CloseReason::Idle,
        End::Target | End::Lost => CloseReason::Target,
        End::Stopped | End::Said | End::Broken(_) => CloseReason::Protocol,
    }
}

fn farewell(reason: CloseReason) -> ErrorWords {
    match reason {
        CloseReason::Expired => {
            ErrorWords::new(3169, "HY000", "The session was killed: the access token expired")
        }
        CloseReason::AccessRevoked => {
            ErrorWords::new(3169, "HY000", "The session was killed: access was revoked")
        }
        CloseReason::Drained => ErrorWords::new(1053, "08S01", "Server shutdown in progress"),
        _ => ErrorWords::new(3169, "HY000", "The session was killed"),
    }
}
