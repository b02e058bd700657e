//! Bodies on their way: what the client streams is recorded piece by piece before it goes on; what the target streams is
//! passed on as it comes, and counted.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use verbatim_core::{BoxFuture, Refusal};

use crate::exchange::Exchange;
use crate::mcp::answer::Answered;
use crate::pool::Lease;

/// Why a body does not go on; what is behind it is in the exchange.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BodyError(pub(crate) &'static str);

impl From<Infallible> for BodyError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A request's body, to the target.
pub(crate) enum TargetBody {
    /// There is none.
    Empty,
    /// All of it is in the record with the operation.
    Whole(Option<Bytes>),
    /// It is recorded as it comes.
    Streamed(Box<Streamed>),
}

impl Body for TargetBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed(streamed) => streamed.client.size_hint(),
        }
    }
}

/// A body that is recorded as it comes.
pub(crate) struct Streamed {
    client: Incoming,
    exchange: Arc<Exchange>,
    /// A piece that waits to be durable.
    step: Option<BoxFuture<'static, Result<Frame<Bytes>, Refusal>>>,
    /// How many bytes may still come.
    left: u64,
    limit: u64,
}

impl Streamed {
    pub(crate) fn new(client: Incoming, exchange: Arc<Exchange>, limit: u64) -> Self {
        Self { client, exchange, step: None, left: limit, limit }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(step) = &mut self.step {
                let recorded = ready!(step.as_mut().poll(cx));
                self.step = None;
                return Poll::Ready(Some(recorded.map_err(|refusal| {
                    self.exchange.refused(refusal);
                    BodyError("it cannot be recorded")
                })));
            }
            let frame = match ready!(Pin::new(&mut self.client).poll_frame(cx)) {
                None => {
                    self.exchange.sent_whole();
                    return Poll::Ready(None);
                }
                Some(Ok(frame)) => frame,
                Some(Err(_)) => {
                    let reason = "the request's body cannot be read to its end".into();
                    self.exchange.refused(Refusal::Protocol { reason });
                    return Poll::Ready(Some(Err(BodyError("the client's body broke off"))));
                }
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    let length = data.len() as u64;
                    match self.left.checked_sub(length) {
                        Some(left) => self.left = left,
                        None => {
                            let length = self.limit.saturating_add(length);
                            self.exchange.refused(Refusal::TooLarge { length, limit: self.limit });
                            return Poll::Ready(Some(Err(BodyError("the body is too large"))));
                        }
                    }
                    let exchange = Arc::clone(&self.exchange);
                    self.step = Some(Box::pin(async move {
                        exchange.content(&data).await?;
                        Ok(Frame::data(data))
                    }));
                }
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else { continue };
                    let exchange = Arc::clone(&self.exchange);
                    self.step = Some(Box::pin(async move {
                        let trailers = crate::fields::trailers(trailers);
                        exchange.content(&written(&trailers)).await?;
                        Ok(Frame::trailers(trailers))
                    }));
                }
            }
        }
    }
}

/// A trailer section as it stands in a chunked body; credentials are blotted out.
fn written(trailers: &HeaderMap) -> Bytes {
    let mut out = Vec::new();
    for (name, value) in trailers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        if crate::operation::is_credential(name.as_str()) {
            out.extend_from_slice(format!("[redacted, {} bytes]", value.len()).as_bytes());
        } else {
            out.extend_from_slice(value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}

/// A response's body, to the client.
pub(crate) enum ClientBody {
    /// There is none.
    Empty,
    /// The gateway's own words.
    Whole(Option<Bytes>),
    /// The target's.
    Passed(Box<Passed>),
    /// The target's, with JSON-RPC in it.
    Answered(Box<Answered>),
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passed(passed) => passed.poll_frame(cx),
            Self::Answered(answered) => answered.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Passed(passed) => passed.source.is_end(),
            Self::Answered(answered) => answered.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passed(passed) => passed.source.size_hint(),
            Self::Answered(answered) => answered.size_hint(),
        }
    }
}

/// The target's body, until its end or the session's.
pub(crate) struct Source {
    target: Incoming,
    lease: Option<Lease>,
    cut: tokio_util::sync::CancellationToken,
    /// Made when the body is waited for the first time.
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
}

/// What comes of asking for more.
pub(crate) enum More {
    Frame(Frame<Bytes>),
    /// The body was read to its end.
    End,
    /// The target broke off.
    Broken,
    /// The session ended.
    Cut,
}

impl Source {
    pub(crate) fn new(target: Incoming, lease: Lease, cut: tokio_util::sync::CancellationToken) -> Self {
        let mut source = Self { target, lease: Some(lease), cut, waiting: None, ended: false };
        if source.target.is_end_stream() {
            source.end();
        }
        source
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<More> {
        if self.ended {
            return Poll::Ready(More::End);
        }
        match Pin::new(&mut self.target).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if self.target.is_end_stream() {
                    self.end();
                }
                Poll::Ready(More::Frame(frame))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(More::End)
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(More::Broken),
            Poll::Pending => {
                let cut = &self.cut;
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(cut.clone().cancelled_owned()));
                waiting.as_mut().poll(cx).map(|()| More::Cut)
            }
        }
    }

    /// Whether everything was read.
    pub(crate) const fn is_end(&self) -> bool {
        self.ended
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.target.size_hint()
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

/// A body that is passed on as it comes.
pub(crate) struct Passed {
    source: Source,
    exchange: Arc<Exchange>,
    over: bool,
}

impl Passed {
    pub(crate) fn new(source: Source, exchange: Arc<Exchange>) -> Self {
        let over = source.is_end();
        if over {
            exchange.answered_whole();
        }
        Self { source, exchange, over }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let broken = match ready!(self.source.poll(cx)) {
            More::Frame(frame) => {
                if let Some(data) = frame.data_ref()
                    && self.exchange.passes(data).is_err()
                {
                    self.over = true;
                    return Poll::Ready(Some(Err(BodyError("it cannot be recorded"))));
                }
                if self.source.is_end() {
                    self.over = true;
                    self.exchange.answered_whole();
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            More::End => {
                if !std::mem::replace(&mut self.over, true) {
                    self.exchange.answered_whole();
                }
                return Poll::Ready(None);
            }
            More::Broken => {
                self.exchange.broken_off();
                "the target's body broke off"
            }
            More::Cut => {
                self.exchange.partial("the session ended before the response did");
                "the session ended"
            }
        };
        self.over = true;
        Poll::Ready(Some(Err(BodyError(broken))))
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if !self.over {
            self.exchange.partial("the client left before the response ended");
        }
    }
}
