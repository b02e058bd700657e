//! COM_CHANGE_USER: another login on the same stream. It takes a token of the same identity, for the same connection;
//! then it ends the session and begins the next.
//!
//! The token is judged first, as for any login, so that a refused one is on record as a session too; the command itself is
//! the last operation of the session that it ends, or a refused one of a session that goes on.

use std::io;

use bytes::BytesMut;
use tokio::time::timeout;
use verbatim_core::{CloseReason, Credential, Login, Opened, Refusal, SessionId};

use super::{End, Relay, Up};
use crate::answer::Done;
use crate::cancel::same;
use crate::frame;
use crate::operation::Draft;
use crate::refusal::{ErrorWords, Phase, error_words};
use crate::results::complete_own;
use crate::startup::packet::{self, auth_switch};
use crate::startup::token::{Form, OVERHEAD};
use crate::startup::{self, chosen_schema, shared_packet, target_words};

impl Relay {
    /// Logs the client in anew; everything before it is answered.
    pub(super) async fn change_user(
        &self,
        up: &mut Up,
        login: Result<packet::Login, Refusal>,
        answer: u8,
    ) -> io::Result<Option<End>> {
        let mut sequence = answer;
        let mut draft = Draft::new("change_user", None);
        let opened = match login {
            Ok(login) => {
                let within = self.context.listener.limits.login;
                match timeout(within, self.log_in(up, &login, &mut sequence)).await {
                    Ok(Ok(opened)) => Ok((opened, login)),
                    Ok(Err(refusal)) => Err(refusal),
                    Err(_) => Err(Refusal::Protocol { reason: "no credential came in time".into() }),
                }
            }
            Err(refusal) => Err(refusal),
        };
        let (opened, login) = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                draft.refused = Some(refusal.clone());
                let refusal = self.decide(up, draft).await.err().unwrap_or(refusal);
                return self.refused(&refusal, sequence).await;
            }
        };
        let recorded = match self.record(up, draft).await {
            Ok(recorded) => recorded,
            Err(refusal) => {
                opened.session.close(CloseReason::Refused);
                return self.refused(&refusal, sequence).await;
            }
        };
        let schema = chosen_schema(&self.context, &self.mysql_target, &login);
        let seat = up.seat.clone();
        match self.mysql_target.change_user(&self.target, seat, &login, schema).await {
            Ok((ok, seat)) => {
                complete_own(recorded, None);
                up.seat = seat;
                let status =
                    Done::ok(ok.clone(), self.capabilities).map(|done| done.status).unwrap_or_default();
                self.write_client(&frame::packet(sequence, &ok)).await;
                Ok(Some(End::Next(Box::new((opened, status)))))
            }
            Err(error) => {
                tracing::warn!(session.id = %self.session.id(), %error, "no second session at the target");
                let failure = verbatim_core::TargetError { code: "1105".into(), message: error.to_string() };
                complete_own(recorded, Some(failure));
                opened.session.close(CloseReason::Target);
                // Servers end the stream of a user that could not be changed.
                let words = target_words(error).reference(self.session.id());
                self.write_client(&words.packet(sequence)).await;
                Ok(Some(End::Lost))
            }
        }
    }

    /// The token, and the session that it opens.
    async fn log_in(&self, up: &mut Up, login: &packet::Login, sequence: &mut u8) -> Result<Opened, Refusal> {
        let limit = self.context.listener.limits.token_bytes;
        let form = Form::of(&login.plugin);
        let (form, answer) = match form {
            Some(form) if !login.answer.is_empty() => (form, login.answer.clone()),
            form => {
                let form = form.unwrap_or(Form::Clear);
                self.write_client(&frame::packet(*sequence, &auth_switch(form.plugin()))).await;
                *sequence = sequence.wrapping_add(1);
                let buffer: &mut BytesMut = &mut up.frontend.input;
                let most = limit.saturating_add(OVERHEAD);
                let answer = shared_packet(&self.client, buffer, *sequence, most).await?;
                *sequence = sequence.wrapping_add(1);
                (form, answer)
            }
        };
        let credential = match form.token(answer, limit) {
            Ok(token) => Credential::Token(token),
            Err(refusal) => Credential::Refused(refusal),
        };
        let session = startup::session(SessionId::generate(), self.peer, &self.context, login);
        let request = Login { session, credential, unsupported: None };
        let opened = self.context.listener.gate.open(request).await?;
        let refusal = if !same(&*opened.session.identity(), &*self.session.identity()) {
            Refusal::NotAuthenticated {
                code: "identity",
                reason: "another identity than the session's".into(),
            }
        } else if opened.session.connection() != self.session.connection() {
            Refusal::NotAllowed { code: "connection", reason: "another connection than the session's".into() }
        } else {
            return Ok(opened);
        };
        opened.session.close(CloseReason::Refused);
        Err(refusal)
    }

    /// The session goes on as it was, unless it is over anyway.
    async fn refused(&self, refusal: &Refusal, sequence: u8) -> io::Result<Option<End>> {
        let words = match refusal {
            Refusal::NotAuthenticated { .. } => {
                ErrorWords::new(1045, "28000", "Access denied by the gateway")
            }
            Refusal::NotAllowed { .. } => {
                ErrorWords::new(1044, "42000", "Access denied to this database by the gateway")
            }
            other => {
                let words = error_words(other, Phase::Ready, self.session.id());
                self.write_client(&words.packet(sequence)).await;
                return Ok(words.is_fatal().then_some(End::Over(other.close_reason())));
            }
        };
        self.write_client(&words.reference(self.session.id()).packet(sequence)).await;
        Ok(None)
    }
}
