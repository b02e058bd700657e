//! A command that is too large to hold: decided by what is known of it, then recorded and forwarded piece by piece.

use std::io;

use sha2::{Digest, Sha256};
use verbatim_core::{CloseReason, Content, Recorded, Refusal};

use super::{End, Forwarding, Relay, Up};
use crate::frame::Rest;
use crate::operation::{Large, Role};
use crate::refusal::{Phase, words};
use crate::results::Open;

impl Relay {
    pub(super) async fn large(&self, up: &mut Up, large: Large) -> io::Result<Option<End>> {
        let Large { draft, role, bytes, rest } = large;
        match self.decide(up, draft).await {
            Ok(recorded) => {
                self.target.write(&bytes).await?;
                self.stream(up, role, rest, recorded).await
            }
            Err(refusal) => self.discard(up, role, rest, &refusal).await,
        }
    }

    /// Each piece is in the record before the target gets it. The target runs nothing before it has the last.
    async fn stream(
        &self,
        up: &mut Up,
        role: Role,
        mut rest: Rest,
        recorded: Recorded,
    ) -> io::Result<Option<End>> {
        let mut digest = Sha256::new();
        let mut length = 0_u64;
        loop {
            let (used, ended) = match rest.walk(&up.frontend.input) {
                Ok(walked) => walked,
                Err(refusal) => return Ok(Some(self.half(recorded, &refusal))),
            };
            let piece = up.frontend.input.split_to(used);
            if !piece.is_empty() {
                if let Err(refusal) = recorded.content(&piece).await {
                    return Ok(Some(self.half(recorded, &refusal)));
                }
                digest.update(&piece);
                length = length.saturating_add(piece.len() as u64);
            }
            if ended {
                let content = Content { length, sha256: digest.finalize().into() };
                let mut forwarding = Forwarding::default();
                let open = Open::new(Some(recorded), role, Some(content));
                self.forwarded(up, open, &mut forwarding, &mut self.results.lock());
                self.target.write(&piece).await?;
                return Ok(forwarding.end);
            }
            self.target.write(&piece).await?;
            drop(piece);
            if let Some(end) = self.read_more(up).await? {
                return Ok(Some(end));
            }
        }
    }

    /// The target has half a command, and gets no more: it will not run it.
    fn half(&self, recorded: Recorded, refusal: &Refusal) -> End {
        drop(recorded);
        self.say_last(words(refusal, Phase::Ready, self.session.id()));
        End::Last(CloseReason::Protocol)
    }

    /// What is refused is read to its end, and dropped.
    async fn discard(
        &self,
        up: &mut Up,
        role: Role,
        mut rest: Rest,
        refusal: &Refusal,
    ) -> io::Result<Option<End>> {
        loop {
            match rest.walk(&up.frontend.input) {
                Ok((used, ended)) => {
                    drop(up.frontend.input.split_to(used));
                    if ended {
                        return self.refuse_alone(up, role, refusal).await;
                    }
                }
                Err(broken) => {
                    self.say_last(words(&broken, Phase::Ready, self.session.id()));
                    return Ok(Some(End::Last(CloseReason::Protocol)));
                }
            }
            if let Some(end) = self.read_more(up).await? {
                return Ok(Some(end));
            }
        }
    }

    async fn read_more(&self, up: &mut Up) -> io::Result<Option<End>> {
        // Pieces are waited for one by one: larger ones are fewer waits.
        up.frontend.input.reserve(super::READ_LONG);
        let end = self.read(up).await?;
        Ok(end.or_else(|| up.ended.then_some(End::Client)))
    }
}
