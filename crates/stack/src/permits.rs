//! The innermost service: nothing above it spoke against the request. What the interceptor itself cannot let through is
//! refused here, after identity and access were judged.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tower::Service;
use verbatim_core::Refusal;

use crate::request::{Admitted, Asked, Grant, Rejected};

/// Answers every request with what the layers above decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permits;

impl Service<Admitted> for Permits {
    type Response = Admitted;
    type Error = Rejected;
    type Future = Ready<Result<Admitted, Rejected>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        always_ready()
    }

    fn call(&mut self, admitted: Admitted) -> Self::Future {
        ready(Ok(admitted))
    }
}

impl Service<Asked> for Permits {
    type Response = Grant;
    type Error = Refusal;
    type Future = Ready<Result<Grant, Refusal>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        always_ready()
    }

    fn call(&mut self, asked: Asked) -> Self::Future {
        // What its interceptor cannot pass on is refused like anything else, so that it is recorded like it.
        ready(match &asked.operation.refused {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(Grant { operation: asked.operation }),
        })
    }
}

fn always_ready<E>() -> Poll<Result<(), E>> {
    let never_fails: Result<(), Infallible> = Ok(());
    Poll::Ready(never_fails.map_err(|never| match never {}))
}
