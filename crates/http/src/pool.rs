//! A session's streams to its target. No other session ever sends on one of them.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use parking_lot::Mutex;

use crate::body::TargetBody;
use crate::target::{ConnectError, HttpTarget, Sender, Wanted};

/// Idle streams that a session keeps.
const IDLE_MAX: usize = 16;

/// See the module.
pub(crate) struct Pool {
    target: Arc<HttpTarget>,
    idle: Mutex<Vec<http1::SendRequest<TargetBody>>>,
    shared: Mutex<Option<http2::SendRequest<TargetBody>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the target gave no answer: {0}")]
    Answer(#[from] hyper::Error),
}

impl SendError {
    /// Whether the target took too long, rather than failed.
    pub(crate) const fn is_timeout(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::Timeout(_)))
    }
}

/// The stream that an answer comes on; of HTTP/1 it can be used again once the answer was read to its end.
pub(crate) struct Lease(Option<(Arc<Pool>, http1::SendRequest<TargetBody>)>);

impl Lease {
    /// The answer was read to its end.
    pub(crate) fn give_back(self) {
        if let Some((pool, sender)) = self.0
            && !sender.is_closed()
        {
            let mut idle = pool.idle.lock();
            if idle.len() < IDLE_MAX {
                idle.push(sender);
            }
        }
    }
}

type Answer = (Response<Incoming>, Lease);

impl Pool {
    pub(crate) fn new(target: Arc<HttpTarget>) -> Arc<Self> {
        Arc::new(Self { target, idle: Mutex::default(), shared: Mutex::default() })
    }

    /// Sends a request, whose URI is `target`, on a stream of its own or one that is free. A request that a stream gave
    /// back unsent (the target had closed it meanwhile) goes out on another; one of which a byte may be out never does.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: Request<TargetBody>,
        target: &PathAndQuery,
        wanted: Wanted,
    ) -> Result<Answer, SendError> {
        loop {
            let (sender, is_new) = match self.free(wanted).await {
                Some(sender) => (sender, false),
                None => (self.target.connect(wanted).await?, true),
            };
            let sent = match sender {
                Sender::Http1(sender) => self.send_http1(sender, request, target).await,
                Sender::Http2(sender) => self.send_http2(sender, request, target).await,
            };
            match sent {
                Ok(answer) => return Ok(answer),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
    }

    /// A stream that is there already.
    async fn free(&self, wanted: Wanted) -> Option<Sender> {
        if wanted != Wanted::Http1 {
            let shared = self.shared.lock().clone();
            if let Some(mut shared) = shared.filter(|shared| !shared.is_closed())
                && shared.ready().await.is_ok()
            {
                return Some(Sender::Http2(shared));
            }
        }
        if wanted == Wanted::Http2 {
            return None;
        }
        loop {
            let mut sender = self.idle.lock().pop()?;
            if sender.ready().await.is_ok() {
                return Some(Sender::Http1(sender));
            }
        }
    }

    async fn send_http1(
        self: &Arc<Self>,
        mut sender: http1::SendRequest<TargetBody>,
        mut request: Request<TargetBody>,
        target: &PathAndQuery,
    ) -> Result<Answer, TrySendError<Request<TargetBody>>> {
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = Uri::from(target.clone());
        request.headers_mut().insert(http::header::HOST, self.target.authority.clone());
        let response = sender.try_send_request(request).await?;
        Ok((response, Lease(Some((Arc::clone(self), sender)))))
    }

    async fn send_http2(
        &self,
        mut sender: http2::SendRequest<TargetBody>,
        mut request: Request<TargetBody>,
        target: &PathAndQuery,
    ) -> Result<Answer, TrySendError<Request<TargetBody>>> {
        *self.shared.lock() = Some(sender.clone());
        *request.version_mut() = Version::HTTP_2;
        let mut parts = http::uri::Parts::default();
        parts.scheme = self.target.scheme().parse().ok();
        parts.authority = self.target.authority.to_str().ok().and_then(|authority| authority.parse().ok());
        parts.path_and_query = Some(target.clone());
        // These three make a URI: each was one before.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request.headers_mut().remove(http::header::HOST);
        let response = sender.try_send_request(request).await?;
        Ok((response, Lease(None)))
    }
}
