//! Outermost: whatever the inner layers answer to a login or an operation, permit or refusal, is written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tower::{Layer, Service};
use verbatim_core::gate::{Login, Opened};
use verbatim_core::{BoxFuture, Operation, Permit, Refusal};

use crate::gate::Shared;
use crate::request::{Admitted, Asked, Grant, Rejected};
use crate::session::SessionState;

/// Makes [`Record`].
pub(crate) struct RecordLayer {
    shared: Arc<Shared>,
}

impl RecordLayer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<S> Layer<S> for RecordLayer {
    type Service = Record<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Record { inner, shared: Arc::clone(&self.shared) }
    }
}

/// Writes every login and every operation with what came of it.
#[derive(Clone)]
pub(crate) struct Record<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Login> for Record<S>
where
    S: Service<Login, Response = Admitted, Error = Rejected> + Clone + Send + 'static,
    S::Future: Send,
{
    /// The session, and its state for the operations' stack.
    type Response = Arc<SessionState>;
    type Error = Refusal;
    type Future = BoxFuture<'static, Result<Arc<SessionState>, Refusal>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Service::<Login>::poll_ready(&mut self.inner, cx).map_err(|rejected| rejected.refusal)
    }

    fn call(&mut self, login: Login) -> Self::Future {
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let session = Arc::clone(&login.session);
            let decided = match shared.has_room() {
                Ok(()) => inner.call(login).await,
                Err(refusal) => Err(refusal.into()),
            };
            match decided {
                Ok(admitted) => shared.write_open(admitted).await,
                Err(rejected) => {
                    shared.write_refused_login(&*session, &rejected).await;
                    Err(rejected.refusal)
                }
            }
        })
    }
}

impl<S> Service<Asked> for Record<S>
where
    S: Service<Asked, Response = Grant, Error = Refusal>,
    S::Future: Unpin,
{
    type Response = Permit;
    type Error = Refusal;
    type Future = Recording<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Service::<Asked>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, asked: Asked) -> Self::Future {
        Recording::Deciding {
            session: Arc::clone(&asked.session),
            operation: Arc::clone(&asked.operation),
            requested: Instant::now(),
            shared: Arc::clone(&self.shared),
            decision: self.inner.call(asked),
        }
    }
}

/// An operation on its way into the record.
pub(crate) enum Recording<F> {
    /// The inner layers have not answered yet.
    Deciding {
        /// Whose.
        session: Arc<SessionState>,
        /// What.
        operation: Arc<Operation>,
        /// Since when.
        requested: Instant,
        /// For the record.
        shared: Arc<Shared>,
        /// Their answer to come.
        decision: F,
    },
    /// It was refused, and that is becoming durable.
    Denying(BoxFuture<'static, Refusal>),
}

impl<F: Future<Output = Result<Grant, Refusal>> + Unpin> Future for Recording<F> {
    type Output = Result<Permit, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut *self {
                Self::Deciding { session, operation, requested, shared, decision } => {
                    let decided = match Pin::new(decision).poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(decided) => decided,
                    };
                    let permitted = decided.and_then(|grant| {
                        shared.takes_operations()?;
                        session.journal.permit(&grant.operation, *requested, &shared.withholding)
                    });
                    match permitted {
                        Ok(permit) => return Poll::Ready(Ok(permit)),
                        Err(refusal) => {
                            let denied =
                                deny(Arc::clone(session), Arc::clone(operation), Arc::clone(shared), refusal);
                            *self = Self::Denying(Box::pin(denied));
                        }
                    }
                }
                Self::Denying(denied) => return denied.as_mut().poll(cx).map(Err),
            }
        }
    }
}

/// Writes a refusal and waits until it is durable. One that can't be written is still a refusal: nothing is forwarded.
async fn deny(
    session: Arc<SessionState>,
    operation: Arc<Operation>,
    shared: Arc<Shared>,
    refusal: Refusal,
) -> Refusal {
    let written = session.journal.deny(&operation, &refusal, &shared.withholding);
    let durable = match written {
        Ok(entry) => shared.durable(entry).await,
        Err(error) => Err(error),
    };
    if let Err(error) = durable {
        tracing::error!(session.id = %session.journal.id(), %error, "a refusal could not be recorded");
    }
    refusal
}

/// The stack of one session, as an interceptor calls it.
#[derive(Clone)]
pub(crate) struct OfSession<S> {
    pub(crate) session: Arc<SessionState>,
    pub(crate) layers: S,
}

impl<S: Service<Asked>> Service<Operation> for OfSession<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.layers.poll_ready(cx)
    }

    fn call(&mut self, operation: Operation) -> Self::Future {
        self.layers.call(Asked { session: Arc::clone(&self.session), operation: Arc::new(operation) })
    }
}

impl<S> OfSession<S>
where
    S: Service<Asked, Response = Permit, Error = Refusal> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// What the interceptor gets.
    pub(crate) fn opened(self) -> Opened {
        let session = Arc::clone(&self.session) as Arc<dyn verbatim_core::OpenSession>;
        Opened { session, operations: verbatim_core::Operations::new(self) }
    }
}
