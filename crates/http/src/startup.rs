//! From accept to the end of a stream: TLS, which HTTP it is, and the service behind it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use verbatim_core::CloseReason;
use verbatim_wire::{ClientStream, Listener};

use crate::guard::head::FIELDS_MAX;
use crate::guard::{Guard, Heads};
use crate::mcp::Registry;
use crate::relay::Stream;

/// The first byte of a TLS record with a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
const H2: &[u8] = b"h2";
/// How HTTP/2 begins without ALPN.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a head has beside a token.
const HEAD_OVERHEAD: usize = 16 << 10;
/// Requests under way at once on an HTTP/2 stream.
const CONCURRENT_MAX: u32 = 100;
/// What an HTTP/2 request's body, and all of a stream's together, may have under way; how much of an answer is buffered.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const SEND_BUFFER: usize = 256 << 10;
/// Streams that a client opens and resets before they are served.
const RESETS_MAX: usize = 20;
/// The first read.
const READ: usize = 4 << 10;

/// What is known of a stream once it can be served.
struct Accepted {
    stream: ClientStream,
    early: BytesMut,
    http2: bool,
    /// In clear, where a token must not be.
    exposed: bool,
}

/// Serves a stream to its end.
pub(crate) async fn serve(socket: TcpStream, peer: SocketAddr, listener: Arc<Listener>, mcp: Arc<Registry>) {
    let deadline = Instant::now() + listener.limits.login;
    // On the heap while it lasts, so that a stream that idles keeps no room for it.
    let accepted = match timeout_at(deadline, Box::pin(accept(socket, &listener))).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(_)) | Err(_) => return listener.metrics.junk(),
    };
    let heads = (!accepted.http2).then(Arc::<Heads>::default);
    let secure = matches!(accepted.stream, ClientStream::Tls(_));
    let stream = Arc::new(Stream::new(listener, mcp, peer, secure, accepted.exposed, heads.clone()));
    let reason = match heads {
        Some(heads) => http1(accepted, &stream, heads, deadline).await,
        None => http2(accepted, &stream, deadline).await,
    };
    // A stream that speaks another protocol now goes on here.
    if let Some(upgraded) = stream.take_upgraded() {
        upgraded.await;
    }
    stream.end(reason).await;
    tracing::debug!(%peer, reason = reason.as_str(), "stream ended");
}

async fn accept(socket: TcpStream, listener: &Listener) -> io::Result<Accepted> {
    socket.set_nodelay(true)?;
    let mut exposed = false;
    if let Some(tls) = &listener.tls {
        let mut first = [0];
        if socket.peek(&mut first).await? == 1 && first == [TLS_HANDSHAKE] {
            let tls = tokio_rustls::TlsAcceptor::from(tls()).accept(socket).await?;
            let http2 = tls.get_ref().1.alpn_protocol() == Some(H2);
            let stream = ClientStream::Tls(Box::new(tls));
            return Ok(Accepted { stream, early: BytesMut::new(), http2, exposed });
        }
        exposed = !listener.loopback;
    }
    let mut stream = ClientStream::Plain(socket);
    let mut early = BytesMut::with_capacity(READ);
    loop {
        if stream.read_buf(&mut early).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = early.len().min(PREFACE.len());
        let alike = early.get(..known) == PREFACE.get(..known);
        if !alike || known == PREFACE.len() {
            return Ok(Accepted { stream, early, http2: alike, exposed });
        }
    }
}

async fn http1(
    accepted: Accepted,
    stream: &Arc<Stream>,
    heads: Arc<Heads>,
    deadline: Instant,
) -> CloseReason {
    let limits = stream.limits();
    let head_max = limits.token_bytes.saturating_add(HEAD_OVERHEAD);
    let guard = Guard::new(accepted.stream, accepted.early, heads, head_max, limits.login);
    let mut builder = hyper::server::conn::http1::Builder::new();
    // The guard has judged the head's size and how long it took before hyper sees a byte of it.
    builder
        .preserve_header_case(true)
        .max_headers(FIELDS_MAX)
        .max_buf_size(head_max.max(64 << 10).saturating_add(HEAD_OVERHEAD))
        .header_read_timeout(None);
    let service = service(stream);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(guard), service).with_upgrades());
    let mut asked = false;
    let mut watch = pin!(watch(stream, deadline));
    loop {
        tokio::select! {
            served = serving.as_mut() => return ended(served),
            end = watch.as_mut(), if !asked => match end {
                End::Abrupt(reason) => return reason,
                End::Graceful(reason) => {
                    asked = true;
                    stream.closes(reason);
                    serving.as_mut().graceful_shutdown();
                }
            },
        }
    }
}

async fn http2(accepted: Accepted, stream: &Arc<Stream>, deadline: Instant) -> CloseReason {
    let head_max = stream.limits().token_bytes.saturating_add(HEAD_OVERHEAD);
    let guard = Guard::open(accepted.stream, accepted.early);
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(CONCURRENT_MAX)
        .max_header_list_size(u32::try_from(head_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS_MAX);
    let service = service(stream);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(guard), service));
    let mut asked = false;
    let mut watch = pin!(watch(stream, deadline));
    loop {
        tokio::select! {
            served = serving.as_mut() => return ended(served),
            end = watch.as_mut(), if !asked => match end {
                End::Abrupt(reason) => return reason,
                End::Graceful(reason) => {
                    asked = true;
                    stream.closes(reason);
                    serving.as_mut().graceful_shutdown();
                }
            },
        }
    }
}

type Response = http::Response<crate::body::ClientBody>;

/// The service of one stream.
fn service(
    stream: &Arc<Stream>,
) -> impl hyper::service::Service<
    http::Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future = verbatim_core::BoxFuture<'static, Result<Response, Infallible>>,
> + use<> {
    let stream = Arc::clone(stream);
    hyper::service::service_fn(move |request| {
        let stream = Arc::clone(&stream);
        let answer: verbatim_core::BoxFuture<'static, _> =
            Box::pin(async move { Ok::<_, Infallible>(stream.answer(request).await) });
        answer
    })
}

fn ended(served: hyper::Result<()>) -> CloseReason {
    match served {
        Ok(()) => CloseReason::Client,
        Err(error) if error.is_parse() => CloseReason::Protocol,
        Err(_) => CloseReason::Client,
    }
}

/// Why a stream has to end although the client did not end it.
enum End {
    /// At once.
    Abrupt(CloseReason),
    /// When what runs has ended.
    Graceful(CloseReason),
}

/// How often an idle stream is looked at, at least.
const LOOK: Duration = Duration::from_secs(60);

/// Waits for a reason to end a stream: no identity in time, nothing to do for too long, a gateway that shuts down.
async fn watch(stream: &Stream, deadline: Instant) -> End {
    tokio::select! {
        () = sleep_until(deadline), if !stream.is_identified() => {
            if !stream.is_identified() && stream.is_idle() {
                stream.junk();
                return End::Abrupt(CloseReason::Client);
            }
        }
        () = stream.drained() => return End::Graceful(CloseReason::Drained),
        () = stream.identified() => {}
    }
    let Some(limit) = stream.limits().idle else {
        stream.drained().await;
        return End::Graceful(CloseReason::Drained);
    };
    loop {
        let due = stream.last() + limit;
        if Instant::now() >= due && stream.is_idle() {
            return End::Graceful(CloseReason::Idle);
        }
        tokio::select! {
            () = sleep_until(due.max(Instant::now() + Duration::from_millis(100)).min(Instant::now() + LOOK)) => {}
            () = stream.drained() => return End::Graceful(CloseReason::Drained),
        }
    }
}
