//! A login in an open session: another token of the same identity.
//!
//! The gateway answers it; the target gets a HELLO without the token, where the client asks for another version of the
//! protocol by it.

use std::io;

use bytes::Bytes;
use verbatim_core::{Credential, Outcome, Recorded, Refusal, Status, TargetError, Token};

use super::{End, Forwarding, Relay, Up};
use crate::operation::{Hello, Login, NoLogin, Renewal, Role};
use crate::refusal::{Phase, Words, words};
use crate::results::{Entry, Open};

const OK: &[u8] = b"+OK\r\n";

impl Relay {
    /// Renews the session, answers the client, and forwards what of it is for the target.
    pub(super) async fn renew(&self, up: &mut Up, renewal: Renewal) -> io::Result<Option<End>> {
        let Renewal { draft, login } = renewal;
        let recorded = match self.decide(up, draft).await {
            Ok(recorded) => recorded,
            Err(refusal) => return self.refuse_alone(up, Role::Plain, &refusal).await,
        };
        match self.renewed(login).await {
            Ok(hello) => {
                up.frontend.authenticated();
                self.accept(recorded, hello).await
            }
            Err(words) => {
                self.decline(up, recorded, words).await;
                Ok(None)
            }
        }
    }

    async fn renewed(&self, login: Result<Login, NoLogin>) -> Result<Option<Hello>, Words> {
        let refused = |refusal: &Refusal| words(refusal, Phase::Login, self.session.id());
        let login = login.map_err(|error| match error {
            NoLogin::OneArgument => refused(&one_argument()),
            NoLogin::Words(words) => Words::error(words),
        })?;
        let connection = self.session.connection().as_str().as_bytes();
        if !self.own && login.user.as_deref() != Some(connection) {
            return Err(refused(&Refusal::NotAuthenticated {
                code: "connection",
                reason: "a login for another connection".to_owned(),
            }));
        }
        let credential = Credential::Token(Token::new(login.token));
        self.session.renew(credential).await.map_err(|refusal| refused(&refusal))?;
        Ok(login.hello)
    }

    async fn accept(&self, recorded: Recorded, hello: Option<Hello>) -> io::Result<Option<End>> {
        match hello {
            None => {
                let outcome = Outcome { bytes: Some(OK.len() as u64), ..Outcome::new(Status::Ok) };
                recorded.complete(&outcome);
                self.results.lock().expect(Entry::Words(Bytes::from_static(OK)));
                self.due.notify_one();
            }
            Some(hello) => {
                let role = Role::Hello(hello.version);
                self.results.lock().expect(Entry::Sent(Open::new(Some(recorded), role, None)));
                self.target.write(&hello.request()).await?;
            }
        }
        Ok(None)
    }

    /// The session goes on with the token that it had.
    async fn decline(&self, up: &mut Up, recorded: Recorded, words: Words) {
        let (code, message) = words.parts();
        let error = TargetError { code: code.to_owned(), message: message.to_owned() };
        let bytes = Some(words.reply().len() as u64);
        recorded.complete(&Outcome { bytes, error: Some(error), ..Outcome::new(Status::Error) });
        // There is no transaction here, so the target gets nothing.
        let _ = self.answer(up, Role::Plain, words, &mut self.results.lock());
    }

    /// Refuses a command that is no batch's.
    pub(super) async fn refuse_alone(
        &self,
        up: &mut Up,
        role: Role,
        refusal: &Refusal,
    ) -> io::Result<Option<End>> {
        let mut forwarding = Forwarding::default();
        self.refuse(up, role, refusal, &mut forwarding, &mut self.results.lock());
        for piece in &forwarding.pieces {
            self.target.write(piece.of(&[])).await?;
        }
        Ok(forwarding.end)
    }
}

/// `AUTH token`.
pub(crate) fn one_argument() -> Refusal {
    Refusal::NotAuthenticated { code: "user", reason: "AUTH without a user name".to_owned() }
}
