//! The packets before the ready phase, which have no kind: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage.

use bytes::Bytes;

use crate::frame::{Malformed, Reader};

/// How long such a packet may be, as the server has it (`MAX_STARTUP_PACKET_LENGTH`).
pub(crate) const PACKET_MAX: u32 = 10_000;
/// The newest protocol that the gateway speaks: 3.2.
pub(crate) const MINOR_MAX: u16 = 2;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
/// How long a cancel key's secret may be (protocol 3.2).
const SECRET_MAX: usize = 256;

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    SslRequest,
    GssEncRequest,
    CancelRequest {
        process_id: u32,
        secret: Bytes,
    },
    StartupMessage(StartupMessage),
    /// A protocol of another major version.
    Version {
        major: u16,
        minor: u16,
    },
}

/// What a client says of the session that it wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StartupMessage {
    /// The minor protocol version that it asks for.
    pub(crate) minor: u16,
    /// Names and values, in order.
    pub(crate) parameters: Vec<(Bytes, Bytes)>,
}

impl Packet {
    /// Reads a packet's body: what follows its length.
    pub(crate) fn read(body: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        match reader.u32("protocol version")? {
            SSL_REQUEST => reader.end("SSLRequest").map(|()| Self::SslRequest),
            GSSENC_REQUEST => reader.end("GSSENCRequest").map(|()| Self::GssEncRequest),
            CANCEL_REQUEST => {
                let process_id = reader.u32("process id")?;
                let secret = reader.rest().clone();
                if !(4..=SECRET_MAX).contains(&secret.len()) {
                    return Err(Malformed { field: "secret" });
                }
                Ok(Self::CancelRequest { process_id, secret })
            }
            version => {
                let [a, b, c, d] = version.to_be_bytes();
                let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                if major != 3 {
                    return Ok(Self::Version { major, minor });
                }
                StartupMessage::read(minor, &mut reader).map(Self::StartupMessage)
            }
        }
    }
}

impl StartupMessage {
    fn read(minor: u16, reader: &mut Reader) -> Result<Self, Malformed> {
        let mut parameters: Vec<(Bytes, Bytes)> = Vec::new();
        loop {
            let name = reader.text("startup parameters")?;
            if name.is_empty() {
                reader.end("startup parameters")?;
                return Ok(Self { minor, parameters });
            }
            // Who a session is for must not depend on who reads it.
            if matches!(&*name, b"user" | b"database" | b"replication")
                && parameters.iter().any(|(known, _)| *known == name)
            {
                return Err(Malformed { field: "startup parameter that is given twice" });
            }
            parameters.push((name, reader.text("startup parameters")?));
        }
    }

    /// The value of a parameter; empty where it is not given.
    pub(crate) fn parameter(&self, name: &[u8]) -> &[u8] {
        self.parameters.iter().find(|(known, _)| known == name).map_or(&[], |(_, value)| value)
    }

    /// The names of the protocol's options, none of which the gateway knows.
    pub(crate) fn options(&self) -> impl Iterator<Item = &Bytes> {
        self.parameters.iter().map(|(name, _)| name).filter(|name| name.starts_with(b"_pq_."))
    }

    /// Whether a replication stream is asked for: anything but a word for no, as the server reads it.
    pub(crate) fn wants_replication(&self) -> bool {
        let value = self.parameter(b"replication").to_ascii_lowercase();
        !matches!(
            &*value,
            b"" | b"0" | b"f" | b"fa" | b"fal" | b"fals" | b"false" | b"of" | b"off" | b"n" | b"no"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<Packet, Malformed> {
        Packet::read(Bytes::copy_from_slice(body))
    }

    #[test]
    fn packets_are_told_apart_by_their_codes() {
        assert_eq!(read(&80_877_103_u32.to_be_bytes()), Ok(Packet::SslRequest));
        assert_eq!(read(&80_877_104_u32.to_be_bytes()), Ok(Packet::GssEncRequest));
        assert_eq!(read(&[0, 2, 0, 0]), Ok(Packet::Version { major: 2, minor: 0 }));
        assert!(read(b"GET").is_err());
        let cancel = [&80_877_102_u32.to_be_bytes()[..], &7_u32.to_be_bytes(), &[9; 32]].concat();
        let secret = Bytes::from_static(&[9; 32]);
        assert_eq!(read(&cancel), Ok(Packet::CancelRequest { process_id: 7, secret }));
        assert!(read(&cancel[..11]).is_err());
    }

    #[test]
    fn a_startup_message_says_each_thing_once() {
        let Ok(Packet::StartupMessage(startup)) =
            read(b"\0\x03\0\0user\0ada\0replication\0database\0_pq_.x\0yes\0\0")
        else {
            panic!("a StartupMessage");
        };
        assert_eq!(startup.parameter(b"user"), b"ada");
        assert_eq!(startup.parameter(b"database"), b"");
        assert!(startup.wants_replication());
        assert_eq!(startup.options().collect::<Vec<_>>(), ["_pq_.x"]);
        assert!(read(b"\0\x03\0\0user\0ada\0user\0bob\0\0").is_err());
        assert!(read(b"\0\x03\0\0user\0ada\0").is_err());
        assert!(read(b"\0\x03\0\0user\0ada\0\0more").is_err());
    }
}
