//! PostgreSQL's protocol by hand: for what no driver would send.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use verbatim_testkit::gateway::{CONNECTION, PATIENCE};

use crate::world::World;

/// A stream to the gateway, without anything between a test and the bytes.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    pub(crate) fn connect(world: &World) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", world.gateway.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Sends what may not be wanted any more.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// One message; none at the end of the stream.
    pub(crate) fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            Err(error) => panic!("no answer and no end: {error}"),
        }
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        assert!((4..1 << 20).contains(&length), "a length of {length}");
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body).unwrap();
        Some((head[0], body))
    }

    /// Every message until the stream ends: their types.
    pub(crate) fn rest(&mut self) -> String {
        std::iter::from_fn(|| self.message()).map(|(kind, _)| char::from(kind)).collect()
    }

    /// Every message until ReadyForQuery.
    pub(crate) fn until_ready(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            let message = self.message().unwrap_or_else(|| panic!("the end, after {messages:?}"));
            messages.push(message);
            if messages.last().unwrap().0 == b'Z' {
                return messages;
            }
        }
    }

    /// Logs in.
    pub(crate) fn ready(world: &World) -> Self {
        let mut wire = Self::connect(world);
        wire.send(&startup(0x0003_0000, &[("user", "app"), ("database", CONNECTION)]));
        wire.log_in(&world.token());
        wire
    }

    pub(crate) fn log_in(&mut self, token: &str) {
        loop {
            match self.message().expect("an authentication request") {
                (b'R', body) if body == 3_u32.to_be_bytes() => break,
                (b'v', _) => {}
                other => panic!("not a request for a password: {other:?}"),
            }
        }
        self.send(&message(b'p', format!("{token}\0").as_bytes()));
        self.until_ready();
    }
}

pub(crate) fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    let mut out = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(&body);
    out
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub(crate) fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

pub(crate) fn sqlstate(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0);
    let code = fields.into_iter().find_map(|field| field.strip_prefix(b"C")).expect("a code");
    String::from_utf8(code.to_vec()).unwrap()
}
