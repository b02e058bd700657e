//! A stream after a 101: what the client sends is recorded before it goes on, what the target sends is passed on.
//!
//! Of WebSocket each message of the client is an operation `message` of its own. Of another protocol everything that the
//! client sends is content of the request that asked for it.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, SEC_WEBSOCKET_EXTENSIONS, UPGRADE};
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use verbatim_core::{Content, Operation, Outcome, Recorded, Refusal, Status};

use crate::exchange::Exchange;
use crate::session::Live;
use crate::websocket::{self, Frames, Turn};

/// How much is read at once.
const READ: usize = 16 << 10;

/// What a client asks to speak from now on.
#[derive(Debug, Clone)]
pub(crate) enum Protocol {
    /// WebSocket.
    WebSocket,
    /// Something that nobody here reads.
    Other(HeaderValue),
}

impl Protocol {
    /// What `Upgrade` names; none for what is simply not done (HTTP/2 in clear by upgrade).
    pub(crate) fn read(value: HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?.trim();
        if text.eq_ignore_ascii_case("websocket") {
            return Some(Self::WebSocket);
        }
        let is_http = text.get(..2).is_some_and(|name| name.eq_ignore_ascii_case("h2"));
        (!is_http).then_some(Self::Other(value))
    }

    /// Asks the target for it.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::WebSocket => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.remove(SEC_WEBSOCKET_EXTENSIONS);
            }
            Self::Other(value) => drop(headers.insert(UPGRADE, value.clone())),
        }
    }
}

/// Carries both directions to their end.
pub(crate) async fn relay(
    live: Arc<Live>,
    exchange: Arc<Exchange>,
    protocol: Protocol,
    client: OnUpgrade,
    target: OnUpgrade,
) {
    let (client, target) = match tokio::try_join!(client, target) {
        Ok((client, target)) => (TokioIo::new(client), TokioIo::new(target)),
        Err(error) => {
            tracing::debug!(%error, "no upgrade");
            exchange.partial("the stream ended with its upgrade");
            return;
        }
    };
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_target, mut to_target) = tokio::io::split(target);
    let up = async {
        let end = match protocol {
            Protocol::WebSocket => messages(&live, &mut from_client, &mut to_target).await,
            Protocol::Other(_) => content(&exchange, &mut from_client, &mut to_target).await,
        };
        // The target learns that no more comes, and may still answer.
        if end.is_ok() {
            drop(to_target.shutdown().await);
        }
        end
    };
    let down = down(&exchange, &mut from_target, &mut to_client);
    let mut end = End::Done;
    {
        let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
        tokio::select! {
            biased;
            () = live.cut.cancelled() => {
                exchange.partial("the session ended before the stream did");
                end = End::Cut;
            }
            sent = &mut up => match sent {
                Ok(()) => drop(down.await),
                Err(refused) => end = refused,
            },
            _ = &mut down => {}
        }
    }
    if let End::Refused(code, reason) = end {
        drop(to_client.write_all(&websocket::close(code, reason)).await);
    } else if let End::Cut = end {
        drop(to_client.write_all(&websocket::close(1001, "the session ended")).await);
    } else {
        exchange.answered_whole();
    }
    drop(to_client.shutdown().await);
}

/// How the way up ended.
enum End {
    Done,
    Cut,
    /// The client's message is not passed on: it gets a close with this code.
    Refused(u16, &'static str),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Done
    }
}

/// A message that is under way in pieces.
struct Open {
    recorded: Recorded,
    length: u64,
    digest: digest::Context,
}

async fn messages(
    live: &Arc<Live>,
    client: &mut (impl AsyncRead + Unpin),
    target: &mut (impl AsyncWrite + Unpin),
) -> Result<(), End> {
    let (mut frames, mut input) = (Frames::default(), BytesMut::new());
    let mut open: Option<Open> = None;
    loop {
        match frames.turn(&mut input) {
            Ok(Turn::Read) => {
                input.reserve(READ);
                if client.read_buf(&mut input).await? == 0 {
                    return Ok(());
                }
            }
            Ok(Turn::Control { raw }) => target.write_all(&raw).await?,
            Ok(Turn::Message { raw, text }) => {
                live.touch();
                let recorded = begin(live, Some(text), None).await?;
                target.write_all(&raw).await?;
                recorded.complete(&Outcome::new(Status::Ok));
            }
            Ok(Turn::Piece { raw, content, first, last }) => {
                live.touch();
                if first {
                    let recorded = begin(live, None, None).await?;
                    open = Some(Open { recorded, length: 0, digest: digest::Context::new(&digest::SHA256) });
                }
                if let Some(open) = &mut open {
                    open.add(&content).await.map_err(|refusal| refused(&refusal))?;
                }
                target.write_all(&raw).await?;
                if last && let Some(open) = open.take() {
                    open.complete();
                }
            }
            Err(reason) => {
                let refusal = Refusal::Protocol { reason: reason.into() };
                // Whatever the stack answers, it is not forwarded.
                drop(begin(live, Some(input.split().freeze()), Some(refusal)).await);
                return Err(End::Refused(1002, "protocol violation"));
            }
        }
    }
}

async fn begin(live: &Arc<Live>, text: Option<Bytes>, refused_by: Option<Refusal>) -> Result<Recorded, End> {
    let operation =
        Operation { text, refused: refused_by, ..Operation::new(live.session.next_sequence(), "message") };
    live.decide(operation).await.map_err(|refusal| refused(&refusal))
}

/// A refusal as the code of a close (RFC 6455, section 7.4.1).
fn refused(refusal: &Refusal) -> End {
    match refusal {
        Refusal::Protocol { .. } => End::Refused(1002, "protocol violation"),
        Refusal::TooLarge { .. } => End::Refused(1009, "too large"),
        Refusal::NotRecorded { .. } | Refusal::Undecided { .. } | Refusal::Busy { .. } => {
            End::Refused(1011, "the gateway cannot do this now")
        }
        Refusal::Draining => End::Refused(1001, "the gateway is shutting down"),
        _ => End::Refused(1008, "refused by the gateway"),
    }
}

impl Open {
    async fn add(&mut self, content: &Bytes) -> Result<(), Refusal> {
        if content.is_empty() {
            return Ok(());
        }
        self.recorded.content(content).await?;
        self.length += content.len() as u64;
        self.digest.update(content);
        Ok(())
    }

    fn complete(self) {
        let mut content = Content { length: self.length, sha256: [0; 32] };
        content.sha256.copy_from_slice(self.digest.finish().as_ref());
        self.recorded.complete(&Outcome { content: Some(content), ..Outcome::new(Status::Ok) });
    }
}

async fn content(
    exchange: &Exchange,
    client: &mut (impl AsyncRead + Unpin),
    target: &mut (impl AsyncWrite + Unpin),
) -> Result<(), End> {
    let mut input = BytesMut::new();
    loop {
        input.reserve(READ);
        if client.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let data = input.split().freeze();
        exchange.content(&data).await.map_err(|refusal| refused(&refusal))?;
        target.write_all(&data).await?;
    }
}

async fn down(
    exchange: &Exchange,
    target: &mut (impl AsyncRead + Unpin),
    client: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut input = BytesMut::new();
    loop {
        input.reserve(READ);
        if target.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let data = input.split().freeze();
        if exchange.passes(&data).is_err() {
            return Err(io::ErrorKind::Other.into());
        }
        client.write_all(&data).await?;
    }
}
