//! What lets this identity in to this connection, and whether it still does.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tower::{Layer, Service};
use verbatim_core::{Identity, Refusal};

use crate::gate::Shared;
use crate::policy::Connection;
use crate::request::{Admitted, Asked, Grant, Rejected, Verified};

/// Makes [`Authorize`].
pub(crate) struct AuthorizeLayer {
    shared: Arc<Shared>,
}

impl AuthorizeLayer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authorize { inner, shared: Arc::clone(&self.shared) }
    }
}

/// Passes on logins with what let them in, and operations of sessions that still have access.
#[derive(Clone)]
pub(crate) struct Authorize<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Authorize<S> {
    /// The connection that is wanted, if it is one of this protocol. An unknown one is answered like one without
    /// access, so that nobody learns which names exist.
    fn connection(&self, protocol: &str, wanted: &str) -> Result<Arc<Connection>, Refusal> {
        let policy = self.shared.policy.load();
        let known = wanted.parse().ok().and_then(|name| policy.connections.get(&name).cloned());
        known.filter(|connection| connection.protocol == protocol).ok_or_else(|| Refusal::NotAllowed {
            code: "no_connection",
            reason: format!("there is no {protocol} connection of the name that was asked for"),
        })
    }
}

fn admit(connection: &Connection, identity: &dyn Identity) -> Result<verbatim_core::AuthorizedBy, Refusal> {
    connection.authorize(identity).map_err(|(code, reason)| Refusal::NotAllowed { code, reason })
}

impl<S> Service<Verified> for Authorize<S>
where
    S: Service<Admitted, Response = Admitted, Error = Rejected>,
{
    type Response = Admitted;
    type Error = Rejected;
    type Future = Either<S::Future, Ready<Result<Admitted, Rejected>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        Service::<Admitted>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, verified: Verified) -> Self::Future {
        let Verified { mut login, identity } = verified;
        let connection = match self.connection(login.session.protocol(), login.session.wanted()) {
            Ok(connection) => connection,
            Err(refusal) => return Either::Right(ready(Err(refusal.into()))),
        };
        let decision = admit(&connection, &*identity).and_then(|by| match login.unsupported.take() {
            Some(refusal) => Err(refusal),
            None => Ok(by),
        });
        match decision {
            Ok(authorized_by) => {
                Either::Left(self.inner.call(Admitted { login, identity, connection, authorized_by }))
            }
            Err(refusal) => {
                let rejected = Rejected { refusal, identity: None, connection: Some(connection) };
                Either::Right(ready(Err(rejected)))
            }
        }
    }
}

impl<S> Service<Asked> for Authorize<S>
where
    S: Service<Asked, Response = Grant, Error = Refusal>,
{
    type Response = Grant;
    type Error = Refusal;
    type Future = Either<S::Future, Ready<Result<Grant, Refusal>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Service::<Asked>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, asked: Asked) -> Self::Future {
        match asked.session.standing(&self.shared.policy.load()) {
            Ok(()) => Either::Left(self.inner.call(asked)),
            Err(refusal) => Either::Right(ready(Err(refusal))),
        }
    }
}
