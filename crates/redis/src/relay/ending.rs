//! How a session ends: who is told what, and what still runs.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use tokio::time::timeout;
use verbatim_core::CloseReason;

use super::{ENDING, READ_MORE, Relay};
use crate::refusal::{Phase, Words, words};
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
                // What blocks would go on blocking, and take what nobody receives.
                if !self.results.lock().is_blocked() {
                    let _ = timeout(ENDING, down).await;
                }
                let _ = timeout(ENDING, self.read_out()).await;
            }
            End::Last(_) => {
                let _ = timeout(ENDING, down).await;
            }
            End::Idle => {
                self.say_last(Words::fatal("ERR the session was idle for too long"));
                let _ = timeout(ENDING, down).await;
            }
            End::Ended(CloseReason::Drained) => {
                self.say_last(farewell(reason).reference(self.session.id()));
                // How long what runs may take is the gateway's to say, which drops this session at its deadline. What
                // streams has no end of its own.
                if self.results.lock().is_blocked() {
                    self.explain(farewell(reason)).await;
                } else {
                    let _ = down.await;
                }
            }
            End::Ended(_) => {
                self.say_last(farewell(reason).reference(self.session.id()));
                let blocked = self.results.lock().is_blocked();
                if blocked || timeout(ENDING, &mut down).await.is_err() {
                    self.explain(farewell(reason)).await;
                }
            }
            End::Stuck(_) => self.explain(farewell(reason)).await,
            End::Target => {
                self.explain(Words::fatal("ERR the target closed the connection")).await;
            }
            End::Broken(broken) => {
                tracing::warn!(session.id = %self.session.id(), error = %broken, "the session cannot go on");
                let words = match broken {
                    Broken::OutOfStep(_) => Words::fatal("ERR the target broke the protocol"),
                    Broken::NotRecorded(refusal) => words(&refusal, Phase::Ready, self.session.id()),
                    Broken::Login => Words::fatal("ERR the target did not accept the gateway"),
                };
                self.explain(words.into_fatal()).await;
            }
            End::Stopped | End::Said | End::Settled => {}
        }
        reason
    }

    /// Tells the target that nothing more comes, and waits until it closed: it has read all it was sent then.
    async fn read_out(&self) {
        let idle = self.results.lock().is_idle();
        if idle || self.target.shutdown().await.is_err() {
            return;
        }
        let mut rest = BytesMut::new();
        loop {
            match self.target.fill(&mut rest, READ_MORE).await {
                Ok(0) => break self.results.lock().all_read(),
                Ok(_) => {
                    // Nobody gets it, but what it answers is answered.
                    if self.results.lock().receive(&rest).1.is_err() {
                        break;
                    }
                    rest.clear();
                }
                Err(_) => break,
            }
        }
    }

    /// Puts the session's last words behind what is open.
    pub(super) fn say_last(&self, words: Words) {
        self.results.lock().expect(Entry::Last(words.into_fatal().reply()));
        self.due.notify_one();
    }

    /// Says why the session ends, if the client's stream is between two replies.
    async fn explain(&self, words: Words) {
        if !self.writing.load(Relaxed) && self.results.lock().can_say_why() {
            let _ = timeout(ENDING, self.client.write(&words.reply())).await;
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

fn farewell(reason: CloseReason) -> Words {
    Words::fatal(match reason {
        CloseReason::Expired => "NOAUTH the access token expired",
        CloseReason::AccessRevoked => "NOAUTH access was revoked",
        CloseReason::Drained => "ERR the gateway is shutting down",
        _ => "ERR the session was ended by an administrator",
    })
}
