//! What stands between a client's HTTP/1 stream and hyper: every head is checked before hyper gets a byte of it.
//!
//! ```text
//!  stream ── head ── checked ──▸ hyper           the head as it came is kept for the record
//!         ── body ── walked by length ──▸ hyper  so that the next head is found
//!         ── a bad head ──▸ a stand-in request that the service answers with 400, and nothing after it
//! ```
//!
//! At most one head is held (its limit is given), and what was read beyond it. A head that does not end in time, or not
//! within its limit, is a bad one. After a request that asks for an upgrade nothing is read on until its answer is known.

pub(crate) mod chunked;
pub(crate) mod head;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use chunked::Chunked;
use head::{Framing, Head};

/// How much is read at once.
const READ: usize = 8 << 10;
/// How much of what follows an upgrade is read before its answer, so that the client's end is noticed.
const HELD_MAX: usize = 16 << 10;
/// How much of what a client still sends is read when the stream ends, and for how long, so that it sees the answer.
const LINGER_BYTES: usize = 256 << 10;
const LINGER: Duration = Duration::from_secs(1);
/// What hyper reads instead of a head that is not to be read.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

/// Why a head was not passed on.
#[derive(Debug, Clone)]
pub(crate) struct BadHead {
    /// In words, without any of its bytes.
    pub(crate) reason: &'static str,
    /// It was longer than allowed.
    pub(crate) too_large: bool,
    /// What was read of it.
    pub(crate) raw: Bytes,
}

/// What the guard and the service share: a head for each request, in order.
#[derive(Debug, Default)]
pub(crate) struct Heads(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    heads: VecDeque<Result<Head, BadHead>>,
    /// What is to be done after a request that asked for an upgrade.
    after_upgrade: Option<AfterUpgrade>,
    waker: Option<Waker>,
    /// Bytes came behind a request that asks for an upgrade.
    early: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterUpgrade {
    NextRequest,
    OtherProtocol,
}

impl Heads {
    /// The head of the request that the service is called with, or why there is none.
    pub(crate) fn next(&self) -> Option<Result<Head, BadHead>> {
        self.0.lock().heads.pop_front()
    }

    /// Whether bytes were there behind a request that asks for an upgrade, before it was answered.
    pub(crate) fn came_early(&self) -> bool {
        self.0.lock().early
    }

    /// Says what came of a request that asked for an upgrade.
    pub(crate) fn upgraded(&self, yes: bool) {
        let mut queue = self.0.lock();
        queue.after_upgrade = Some(if yes { AfterUpgrade::OtherProtocol } else { AfterUpgrade::NextRequest });
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }
}

#[derive(Debug)]
enum State {
    /// Up to the empty line; so much is known to have none.
    Head {
        scanned: usize,
    },
    /// So much of the buffer goes out next.
    Deliver {
        left: usize,
        then: Then,
    },
    Length(u64),
    Chunked(Chunked),
    /// Behind a request that asks for an upgrade.
    Held,
    /// No HTTP/1 (any more).
    Other,
    /// Nothing more is read.
    Over,
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Body(Framing),
    Over,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Guard<S> {
    stream: S,
    heads: Arc<Heads>,
    buffer: BytesMut,
    state: State,
    head_max: usize,
    head_time: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
    upgrade: bool,
    linger: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> Guard<S> {
    /// Guards an HTTP/1 stream, of which `early` was read already. A head may have `head_max` bytes and take `head_time`.
    pub(crate) fn new(
        stream: S,
        early: BytesMut,
        heads: Arc<Heads>,
        head_max: usize,
        head_time: Duration,
    ) -> Self {
        Self {
            stream,
            heads,
            buffer: early,
            state: State::Head { scanned: 0 },
            head_max,
            head_time,
            deadline: None,
            upgrade: false,
            linger: None,
        }
    }

    /// Lets everything through: for HTTP/2, which hyper frames without help.
    pub(crate) fn open(stream: S, early: BytesMut) -> Self {
        let mut guard = Self::new(stream, early, Arc::default(), 0, Duration::ZERO);
        guard.state = State::Other;
        guard
    }

    /// Looks for the end of the head in what is there.
    fn scan(&mut self) {
        let State::Head { scanned } = &mut self.state else { return };
        if *scanned == 0 {
            // One empty line before a request is left over from the one before.
            if self.buffer.starts_with(b"\r\n") {
                self.buffer.advance(2);
            }
        }
        let mut from = *scanned;
        while let Some(step) = self.buffer.get(from..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let at = from + step;
            let line = self.buffer.get(from..=at).unwrap_or_default();
            if !line.ends_with(b"\r\n") {
                return self.bad("a line that does not end in CR LF", false);
            }
            if line == b"\r\n" {
                return self.found(at + 1);
            }
            from = at + 1;
            if from > self.head_max {
                break;
            }
        }
        if self.buffer.len() > self.head_max {
            return self.bad("the head is too long", true);
        }
        self.state = State::Head { scanned: from };
    }

    fn found(&mut self, end: usize) {
        if end > self.head_max {
            return self.bad("the head is too long", true);
        }
        self.deadline = None;
        let raw = Bytes::copy_from_slice(self.buffer.get(..end).unwrap_or_default());
        match Head::check(raw) {
            Ok(head) => {
                self.upgrade = head.upgrade;
                self.state = State::Deliver { left: end, then: Then::Body(head.framing) };
                let mut queue = self.heads.0.lock();
                if head.upgrade {
                    queue.after_upgrade = None;
                    queue.early = head.framing == Framing::Empty && self.buffer.len() > end;
                }
                queue.heads.push_back(Ok(head));
            }
            Err(reason) => self.bad(reason, false),
        }
    }

    fn bad(&mut self, reason: &'static str, too_large: bool) {
        self.deadline = None;
        let raw = std::mem::take(&mut self.buffer).freeze();
        self.heads.0.lock().heads.push_back(Err(BadHead { reason, too_large, raw }));
        self.buffer.extend_from_slice(STAND_IN);
        self.state = State::Deliver { left: STAND_IN.len(), then: Then::Over };
    }

    /// After the last byte of a request.
    fn next(&mut self) {
        self.state = if self.upgrade { State::Held } else { State::Head { scanned: 0 } };
        self.upgrade = false;
    }

    /// How much of `bytes` belongs to the body.
    fn walk(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (used, ended) = match &mut self.state {
            State::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= used as u64;
                (used, *left == 0)
            }
            State::Chunked(walker) => match walker.walk(bytes) {
                Ok(walked) => walked,
                Err(reason) => {
                    self.state = State::Over;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
            },
            _ => (bytes.len(), false),
        };
        if ended {
            self.next();
        }
        Ok(used)
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Reads into the own buffer; how much came.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [0_u8; READ];
        let mut read = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Reads on until a head is whole. False: the stream ended.
    fn head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            self.scan();
            if !matches!(self.state, State::Head { .. }) {
                return Poll::Ready(Ok(true));
            }
            if self.buffer.is_empty() {
                self.deadline = None;
            } else if self.deadline.is_none() {
                self.deadline = Some(Box::pin(sleep_until(Instant::now() + self.head_time)));
            }
            if let Some(deadline) = &mut self.deadline
                && deadline.as_mut().poll(cx).is_ready()
            {
                self.bad("the head took too long", false);
                return Poll::Ready(Ok(true));
            }
            if ready!(self.fill(cx))? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
    }

    /// Waits until it is known what came of a request that asked for an upgrade. False: the stream ended.
    fn held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let known = {
            let mut queue = self.heads.0.lock();
            match queue.after_upgrade.take() {
                None => {
                    queue.waker = Some(cx.waker().clone());
                    None
                }
                known => known,
            }
        };
        match known {
            Some(AfterUpgrade::NextRequest) => {
                self.state = State::Head { scanned: 0 };
                Poll::Ready(Ok(true))
            }
            Some(AfterUpgrade::OtherProtocol) => {
                self.state = State::Other;
                Poll::Ready(Ok(true))
            }
            None if self.buffer.len() >= HELD_MAX => Poll::Pending,
            None => loop {
                if ready!(self.fill(cx))? == 0 {
                    return Poll::Ready(Ok(false));
                }
                if self.buffer.len() >= HELD_MAX {
                    return Poll::Pending;
                }
            },
        }
    }

    /// A part of a body, or of what is no HTTP/1: from the buffer, else straight from the stream.
    fn body(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() {
            let mut held = std::mem::take(&mut self.buffer);
            let there = held.len().min(out.remaining());
            let used = self.walk(held.get(..there).unwrap_or_default())?;
            out.put_slice(held.get(..used).unwrap_or_default());
            held.advance(used);
            if !held.is_empty() {
                self.buffer = held;
            }
            return Poll::Ready(Ok(()));
        }
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        let read = out.filled().get(before..).unwrap_or_default();
        let used = self.walk(read)?;
        self.buffer.extend_from_slice(read.get(used..).unwrap_or_default());
        out.set_filled(before + used);
        Poll::Ready(Ok(()))
    }

    /// Hands out what was found.
    fn deliver(&mut self, out: &mut ReadBuf<'_>, left: usize, then: Then) {
        let step = left.min(out.remaining()).min(self.buffer.len());
        out.put_slice(self.buffer.get(..step).unwrap_or_default());
        self.buffer.advance(step);
        if self.buffer.is_empty() {
            // An idle stream keeps no buffer.
            self.buffer = BytesMut::new();
        }
        if step < left {
            self.state = State::Deliver { left: left - step, then };
            return;
        }
        match then {
            Then::Over => self.state = State::Over,
            Then::Body(Framing::Empty) => self.next(),
            Then::Body(Framing::Length(length)) => self.state = State::Length(length),
            Then::Body(Framing::Chunked) => self.state = State::Chunked(Chunked::default()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.state {
                State::Head { .. } => {
                    if !ready!(this.head(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Deliver { left, then } => {
                    this.deliver(out, left, then);
                    return Poll::Ready(Ok(()));
                }
                State::Held => {
                    if !ready!(this.held(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Length(_) | State::Chunked(_) | State::Other => return this.body(cx, out),
                // Woken by nobody: the answer is written, and the stream ends.
                State::Over => return Poll::Pending,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says that nothing more comes, and where the client may still be sending reads some of it, so that the last answer
    /// is not lost in a reset.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if matches!(this.state, State::Other | State::Head { .. }) {
                return Poll::Ready(Ok(()));
            }
            this.linger = Some((0, Box::pin(sleep_until(Instant::now() + LINGER))));
        }
        let Some((taken, until)) = &mut this.linger else { return Poll::Ready(Ok(())) };
        loop {
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut scratch = [0_u8; READ];
            let mut read = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !read.filled().is_empty() && *taken < LINGER_BYTES => {
                    *taken += read.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
