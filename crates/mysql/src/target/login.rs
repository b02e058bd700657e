//! The exchange with a target: greeting, TLS, response, and whatever its plugin asks.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use secrecy::ExposeSecret;
use tokio::io::AsyncWriteExt;
use verbatim_wire::{Shared, TargetStream, connect_tcp};

use super::auth::{Plugin, encrypted};
use super::{Ask, Connected, MysqlTarget, TargetError, stream_error};
use crate::answer::{EOF, ERR, ErrPacket, OK};
use crate::capability::{
    CONNECT_ATTRS, CONNECT_WITH_DB, MYSQL, NEEDED, OWN, PLUGIN_AUTH_LENENC, RELAYED, SSL,
};
use crate::frame::{self, HEADER, put_bytes, put_text};
use crate::greeting::{Greeting, Offer};
use crate::startup::packet::{Attributes, Fixed, Login, put_attributes};

/// How long a packet of the login may be.
const PACKET_MAX: usize = 64 << 10;
/// How many packets the server may send after the response.
const PACKETS_MAX: usize = 16;
/// How much is read at once.
const READ: usize = 4 << 10;
/// A credential shorter than this is not searched for in the server's errors: it would be found in any.
const CREDENTIAL_SEARCHED_MIN: usize = 8;

const COM_QUIT: u8 = 0x01;
const COM_QUERY: u8 = 0x03;
const COM_CHANGE_USER: u8 = 0x11;
const AUTH_MORE_DATA: u8 = 0x01;
/// What `caching_sha2_password` says in AuthMoreData, and is asked.
const FAST_AUTH_SUCCESS: u8 = 3;
const FULL_AUTHENTICATION: u8 = 4;
const REQUEST_PUBLIC_KEY: u8 = 2;

/// What another login on a stream begins with.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    plugin: Plugin,
    scramble: Bytes,
    /// What this stream settled.
    capabilities: u64,
    charset: u8,
    tls: bool,
}

/// Packets of a login, both ways.
struct Exchange<'a> {
    stream: &'a Shared<TargetStream>,
    buffer: BytesMut,
    /// The sequence of the next packet, whoever sends it.
    sequence: u8,
}

impl Exchange<'_> {
    async fn send(&mut self, payload: &[u8]) -> Result<(), TargetError> {
        let mut out = BytesMut::with_capacity(HEADER + payload.len());
        self.sequence = frame::put_packets(&mut out, self.sequence, payload);
        self.stream.write(&out).await.map_err(stream_error)
    }

    /// The next packet's payload.
    async fn packet(&mut self) -> Result<Bytes, TargetError> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<HEADER>() {
                let length = frame::length_of(*head);
                let sequence = head[3];
                if length > PACKET_MAX {
                    return Err(protocol(format!("a packet of {length} bytes")));
                }
                if sequence != self.sequence {
                    return Err(protocol(format!("packet {sequence} where {} was due", self.sequence)));
                }
                if self.buffer.len() - HEADER >= length {
                    self.buffer.advance(HEADER);
                    self.sequence = self.sequence.wrapping_add(1);
                    return Ok(self.buffer.split_to(length).freeze());
                }
            }
            if self.stream.fill(&mut self.buffer, READ).await.map_err(stream_error)? == 0 {
                return Err(stream_error(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// Opens a stream to the target and logs in.
pub(super) async fn log_in(target: &MysqlTarget, ask: &Ask) -> Result<Connected, TargetError> {
    let unreachable = |source| TargetError::Unreachable { source };
    let tcp = connect_tcp(&target.host, target.port).await.map_err(unreachable)?;
    let mut stream = Shared::new(TargetStream::Plain(tcp));
    let mut exchange = Exchange { stream: &stream, buffer: BytesMut::new(), sequence: 0 };
    let first = exchange.packet().await?;
    if first.first() == Some(&ERR) {
        return Err(refused(target, &first));
    }
    let greeting = Greeting::read(first).map_err(|malformed| protocol(malformed.to_string()))?;
    if greeting.capabilities & NEEDED != NEEDED {
        return Err(protocol("a server from before version 5.5".to_owned()));
    }
    target.note(&greeting);
    if !Offer::holds_at(ask.fixed.capabilities, &greeting) {
        return Err(TargetError::Changed);
    }
    let fixed = Fixed { capabilities: settled(ask, &greeting), ..ask.fixed };
    let mut sequence = exchange.sequence;
    if target.tls.is_some() {
        // What the server sent beyond its greeting would be read as if TLS had protected it.
        if !exchange.buffer.is_empty() {
            return Err(protocol("bytes behind the greeting".to_owned()));
        }
        drop(exchange);
        (stream, sequence) = secure(target, stream, fixed, &greeting, sequence).await?;
        exchange = Exchange { stream: &stream, buffer: BytesMut::new(), sequence };
    }
    let plugin = Plugin::named(&greeting.plugin).unwrap_or(Plugin::Native);
    let seat = Seat {
        plugin,
        scramble: greeting.scramble.clone(),
        capabilities: fixed.capabilities,
        charset: fixed.charset,
        tls: target.tls.is_some(),
    };
    exchange.send(&response(target, ask, fixed, &seat)).await?;
    let (ok, seat) = authenticate(target, &mut exchange, seat).await?;
    let leftover = exchange.buffer;
    Ok(Connected {
        stream,
        thread_id: greeting.thread_id,
        capabilities: fixed.capabilities,
        ok,
        leftover,
        seat,
    })
}

/// What the target is asked for: what the client asked for, as far as the target has it, and what the login needs.
fn settled(ask: &Ask, greeting: &Greeting) -> u64 {
    let own = if ask.schema.is_some() { OWN } else { OWN & !CONNECT_WITH_DB };
    let mut capabilities = (ask.fixed.capabilities & RELAYED | own & !MYSQL) & greeting.capabilities;
    // The bit says whether the upper half counts; a client that spoke to a MySQL before a MariaDB has no upper half.
    capabilities |= ask.fixed.capabilities & MYSQL;
    if capabilities & MYSQL != 0 {
        capabilities &= u64::from(u32::MAX);
    }
    capabilities
}

/// Asks for TLS, and takes nothing less.
async fn secure(
    target: &MysqlTarget,
    stream: Shared<TargetStream>,
    fixed: Fixed,
    greeting: &Greeting,
    sequence: u8,
) -> Result<(Shared<TargetStream>, u8), TargetError> {
    let Some((config, name)) = &target.tls else { return Ok((stream, sequence)) };
    if greeting.capabilities & SSL == 0 {
        return Err(TargetError::NoTls);
    }
    let TargetStream::Plain(mut tcp) = stream.into_inner() else {
        return Err(protocol("TLS within TLS".to_owned()));
    };
    let mut request = BytesMut::new();
    Fixed { capabilities: fixed.capabilities | SSL, ..fixed }.put(&mut request);
    tcp.write_all(&frame::packet(sequence, &request)).await.map_err(stream_error)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let tls = connector.connect(name.clone(), tcp).await.map_err(|source| TargetError::Tls { source })?;
    Ok((Shared::new(TargetStream::Tls(Box::new(tls))), sequence.wrapping_add(1)))
}

fn response(target: &MysqlTarget, ask: &Ask, mut fixed: Fixed, seat: &Seat) -> BytesMut {
    let mut out = BytesMut::with_capacity(256);
    if seat.tls {
        fixed.capabilities |= SSL;
    }
    fixed.put(&mut out);
    put_text(&mut out, target.user.as_bytes());
    let answer = seat.plugin.answer(password(target), &seat.scramble);
    match fixed.capabilities & PLUGIN_AUTH_LENENC {
        0 => {
            out.put_u8(answer.len() as u8);
            out.put_slice(&answer);
        }
        _ => put_bytes(&mut out, &answer),
    }
    if let Some(schema) = ask.schema.as_deref().filter(|_| fixed.capabilities & CONNECT_WITH_DB != 0) {
        put_text(&mut out, schema);
    }
    put_text(&mut out, seat.plugin.name());
    if fixed.capabilities & CONNECT_ATTRS != 0 {
        put_attributes(&mut out, &ask.attributes);
    }
    out
}

/// Logs in again on a stream that has a session (COM_CHANGE_USER), as the gateway's user; nothing else may be on its way.
/// The payload of the OK, and what the next login begins with.
pub(super) async fn change_user(
    target: &MysqlTarget,
    stream: &Shared<TargetStream>,
    seat: Seat,
    login: &Login,
    schema: Option<Bytes>,
) -> Result<(Bytes, Seat), TargetError> {
    let mut payload = BytesMut::with_capacity(256);
    payload.put_u8(COM_CHANGE_USER);
    put_text(&mut payload, target.user.as_bytes());
    let answer = seat.plugin.answer(password(target), &seat.scramble);
    payload.put_u8(answer.len() as u8);
    payload.put_slice(&answer);
    put_text(&mut payload, schema.as_deref().unwrap_or_default());
    payload.put_u16_le(if login.charset == 0 { seat.charset.into() } else { login.charset });
    put_text(&mut payload, seat.plugin.name());
    if seat.capabilities & CONNECT_ATTRS != 0 {
        let attributes: &Attributes = &login.attributes;
        put_attributes(&mut payload, attributes);
    }
    let mut exchange = Exchange { stream, buffer: BytesMut::new(), sequence: 0 };
    exchange.send(&payload).await?;
    let done = authenticate(target, &mut exchange, seat).await?;
    match exchange.buffer.is_empty() {
        true => Ok(done),
        false => Err(protocol("bytes behind the OK".to_owned())),
    }
}

/// Answers what the server asks until it is satisfied.
async fn authenticate(
    target: &MysqlTarget,
    exchange: &mut Exchange<'_>,
    mut seat: Seat,
) -> Result<(Bytes, Seat), TargetError> {
    let mut switched = false;
    for _ in 0..PACKETS_MAX {
        let payload = exchange.packet().await?;
        match (payload.first(), seat.plugin) {
            (Some(&OK), _) => return Ok((payload, seat)),
            (Some(&ERR), _) => return Err(refused(target, &payload)),
            (Some(&EOF), _) if !switched => {
                switched = true;
                (seat.plugin, seat.scramble) = switch(payload)?;
                let answer = seat.plugin.answer(password(target), &seat.scramble);
                exchange.send(&answer).await?;
            }
            (Some(&AUTH_MORE_DATA), Plugin::CachingSha2) => match payload.get(1..) {
                Some([FAST_AUTH_SUCCESS]) => {}
                Some([FULL_AUTHENTICATION]) => full_authentication(target, exchange, &seat).await?,
                _ => return Err(protocol("an answer of caching_sha2_password that is none".to_owned())),
            },
            (first, _) => return Err(protocol(format!("packet {first:02x?} during the login"))),
        }
    }
    Err(protocol("the login does not end".to_owned()))
}

/// An AuthSwitchRequest: the plugin and its challenge.
fn switch(payload: Bytes) -> Result<(Plugin, Bytes), TargetError> {
    let mut reader = frame::Reader::new(payload.slice(1..));
    let name = reader.text("plugin").unwrap_or_default();
    let Some(plugin) = Plugin::named(&name) else {
        let reason = match name.is_empty() {
            true => "it wants the hashes from before version 4.1".to_owned(),
            false => format!("it wants the plugin {:?}", frame::readable(&name)),
        };
        return Err(TargetError::Authentication { reason });
    };
    let challenge = reader.rest();
    let challenge = match challenge.strip_suffix(b"\0") {
        Some(without) => challenge.slice_ref(without),
        None => challenge.clone(),
    };
    // A signature must not be made of just anything.
    if plugin == Plugin::Ed25519 && challenge.len() != 32 {
        return Err(protocol(format!("a challenge of {} bytes for client_ed25519", challenge.len())));
    }
    Ok((plugin, challenge))
}

/// The server has not cached the password: it wants it whole, protected by TLS or by its RSA key.
async fn full_authentication(
    target: &MysqlTarget,
    exchange: &mut Exchange<'_>,
    seat: &Seat,
) -> Result<(), TargetError> {
    let password = password(target);
    if seat.tls {
        let mut clear = password.to_vec();
        clear.push(0);
        return exchange.send(&clear).await;
    }
    exchange.send(&[REQUEST_PUBLIC_KEY]).await?;
    let key = exchange.packet().await?;
    if key.first() == Some(&ERR) {
        return Err(refused(target, &key));
    }
    let pem = key.strip_prefix(&[AUTH_MORE_DATA]).unwrap_or_default();
    match encrypted(password, &seat.scramble, pem) {
        Some(encrypted) => exchange.send(&encrypted).await,
        None => Err(protocol("a public key that is none".to_owned())),
    }
}

/// Says goodbye on a stream of the gateway's own.
pub(super) async fn quit(stream: &Shared<TargetStream>) {
    // It ends with the stream in any case.
    let _ = stream.write(&frame::packet(0, &[COM_QUIT])).await;
    let _ = stream.shutdown().await;
}

/// One statement whose answer is one packet, and goodbye; the payload of the answer.
pub(super) async fn ask(connected: Connected, statement: &[u8]) -> Result<Bytes, TargetError> {
    let Connected { stream, leftover, .. } = connected;
    let mut exchange = Exchange { stream: &stream, buffer: leftover, sequence: 0 };
    exchange.send(&[&[COM_QUERY], statement].concat()).await?;
    let answer = exchange.packet().await?;
    quit(&stream).await;
    Ok(answer)
}

fn password(target: &MysqlTarget) -> &[u8] {
    target.credential.as_ref().map(|credential| credential.expose_secret().as_bytes()).unwrap_or_default()
}

fn refused(target: &MysqlTarget, payload: &[u8]) -> TargetError {
    let ErrPacket { code, state, message } = ErrPacket::read(payload);
    let password = password(target);
    let quoted = password.len() >= CREDENTIAL_SEARCHED_MIN
        && memchr::memmem::find(message.as_bytes(), password).is_some();
    TargetError::Refused { code, state, message: if quoted { String::new() } else { message } }
}

fn protocol(reason: String) -> TargetError {
    TargetError::Protocol { reason }
}
