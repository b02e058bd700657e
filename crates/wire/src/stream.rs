//! A stream that both directions of a session use from one task, and that keeps no buffer while nothing comes.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

/// How much of a TLS stream is read at first, before a buffer is allocated.
const SCRATCH: usize = 4 << 10;

/// The client's stream.
#[derive(Debug)]
pub enum ClientStream {
    /// In clear.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<server::TlsStream<TcpStream>>),
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A stream to the target.
#[derive(Debug)]
pub enum TargetStream {
    /// In clear.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<client::TlsStream<TcpStream>>),
}

impl TargetStream {
    /// The socket beneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for TargetStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for TargetStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A stream whose socket may be asked whether there is something to read.
pub trait Peer: AsyncRead + AsyncWrite + Unpin + Send {
    /// The socket, where no TLS lies between.
    fn plain(&self) -> Option<&TcpStream>;
}

impl Peer for ClientStream {
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(_) => None,
        }
    }
}

impl Peer for TargetStream {
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(_) => None,
        }
    }
}

/// One stream, two users of one task: the lock is held within a poll alone, so it is never contended.
#[derive(Debug)]
pub struct Shared<S>(Mutex<S>);

impl<S: Peer> Shared<S> {
    /// Takes the stream over.
    pub fn new(stream: S) -> Self {
        Self(Mutex::new(stream))
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> S {
        self.0.into_inner()
    }

    /// Reads what is there, at least a byte, into `buffer`, which is given `room` bytes only once something is there. 0
    /// is the end.
    ///
    /// # Cancel safety
    /// What was read is in `buffer`.
    pub async fn fill(&self, buffer: &mut BytesMut, room: usize) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut stream = self.0.lock();
            if buffer.capacity() == buffer.len() {
                match stream.plain() {
                    Some(tcp) => ready!(tcp.poll_read_ready(cx))?,
                    None => {
                        let mut scratch = [0_u8; SCRATCH];
                        let mut read = ReadBuf::new(&mut scratch);
                        ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
                        buffer.extend_from_slice(read.filled());
                        return Poll::Ready(Ok(read.filled().len()));
                    }
                }
                buffer.reserve(room);
            }
            let read = pin!((*stream).read_buf(buffer)).poll(cx);
            if read.is_pending() && buffer.is_empty() {
                *buffer = BytesMut::new();
            }
            read
        })
        .await
    }

    /// Writes all of `bytes`; a first attempt is made at once.
    ///
    /// # Cancel safety
    /// None: dropped, it may have written a part.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        poll_fn(|cx| {
            let mut stream = self.0.lock();
            while !bytes.is_empty() {
                let written = ready!(Pin::new(&mut *stream).poll_write(cx, bytes))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                bytes = bytes.get(written..).unwrap_or_default();
            }
            Pin::new(&mut *stream).poll_flush(cx)
        })
        .await
    }

    /// Says that nothing more is written.
    pub async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.0.lock()).poll_shutdown(cx)).await
    }
}
