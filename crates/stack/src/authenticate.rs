//! Who is this: verifies the token at login, and refuses the operations of a session whose token has ended.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tower::{Layer, Service};
use verbatim_core::gate::Credential;
use verbatim_core::{BoxFuture, Identity, IdentityError, Login, Refusal, Timestamp, Verdict};

use crate::gate::Shared;
use crate::request::{Admitted, Asked, Grant, Rejected, Verified};

/// Makes [`Authenticate`].
pub(crate) struct AuthenticateLayer {
    shared: Arc<Shared>,
}

impl AuthenticateLayer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticate { inner, shared: Arc::clone(&self.shared) }
    }
}

/// Passes on logins with their identity, and operations whose session may still act.
#[derive(Clone)]
pub(crate) struct Authenticate<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// The refusal that a provider's answer amounts to.
pub(crate) fn refusal(error: &IdentityError) -> Refusal {
    let (code, reason) = (error.code, error.reason.clone());
    match error.verdict {
        Verdict::NotAuthenticated => Refusal::NotAuthenticated { code, reason },
        Verdict::NotAllowed => Refusal::NotAllowed { code, reason },
        Verdict::Undecided => Refusal::Undecided { code, reason },
    }
}

impl Shared {
    /// Who a credential proves.
    pub(crate) async fn prove(&self, credential: Credential) -> Result<Arc<dyn Identity>, Rejected> {
        let token = match credential {
            Credential::Token(token) => token,
            Credential::Refused(refusal) => return Err(refusal.into()),
        };
        self.provider.verify(&token).await.map_err(|error| Rejected {
            refusal: refusal(&error),
            identity: error.identity,
            connection: None,
        })
    }
}

impl<S> Service<Login> for Authenticate<S>
where
    S: Service<Verified, Response = Admitted, Error = Rejected> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Admitted;
    type Error = Rejected;
    type Future = BoxFuture<'static, Result<Admitted, Rejected>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Rejected>> {
        Service::<Verified>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut login: Login) -> Self::Future {
        // The one that is ready is moved out, its clone waits for the next request.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let credential = std::mem::replace(&mut login.credential, Credential::Refused(Refusal::Draining));
            let identity = shared.prove(credential).await?;
            if let Some(user) = login.session.client().user.as_deref()
                && !identity.answers_to(user)
            {
                let reason = "the user name looks like an identity and is not the token's".to_owned();
                return Err(Refusal::NotAuthenticated { code: "name", reason }.into());
            }
            let proved = Arc::clone(&identity);
            inner.call(Verified { login, identity }).await.map_err(|mut rejected| {
                rejected.identity = Some(proved);
                rejected
            })
        })
    }
}

impl<S> Service<Asked> for Authenticate<S>
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
        let deadline = asked.session.identity().expires_at().plus(self.shared.policy.load().grace);
        if Timestamp::now() >= deadline {
            return Either::Right(ready(Err(Refusal::Expired)));
        }
        Either::Left(self.inner.call(asked))
    }
}
