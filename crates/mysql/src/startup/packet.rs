//! What a client says of itself: the HandshakeResponse41, the SSLRequest that is its beginning, and COM_CHANGE_USER.

use bytes::{BufMut, Bytes, BytesMut};

use crate::capability::{
    CONNECT_ATTRS, CONNECT_WITH_DB, MYSQL, PLUGIN_AUTH, PLUGIN_AUTH_LENENC, SECURE_CONNECTION,
};
use crate::frame::{Malformed, Reader, put_bytes, put_lenenc, put_text, readable};

/// Bytes of an SSLRequest's payload, and of a response before the user.
pub(crate) const FIXED: usize = 32;
/// How much of the connection attributes is taken; the server's own limit.
const ATTRIBUTES_MAX: usize = 64 << 10;

/// What stands at the beginning of an SSLRequest and of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fixed {
    /// What the client asks for; MariaDB's own in the upper half.
    pub(crate) capabilities: u64,
    /// The longest packet that it takes.
    pub(crate) packet_max: u32,
    pub(crate) charset: u8,
}

impl Fixed {
    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let mut capabilities = u64::from(reader.u32("capabilities")?);
        let packet_max = reader.u32("packet size")?;
        let charset = reader.u8("character set")?;
        reader.take(19, "reserved")?;
        let extended = u64::from(reader.u32("reserved")?);
        if capabilities & MYSQL == 0 {
            capabilities |= extended << 32;
        }
        Ok(Self { capabilities, packet_max, charset })
    }

    /// Its bytes, for the target.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_u32_le(self.capabilities as u32);
        out.put_u32_le(self.packet_max);
        out.put_u8(self.charset);
        out.put_bytes(0, 19);
        out.put_u32_le((self.capabilities >> 32) as u32);
    }
}

/// Connection attributes: names and values as sent.
pub(crate) type Attributes = Vec<(Bytes, Bytes)>;

/// A client's answer to the greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) fixed: Fixed,
    pub(crate) login: Login,
}

/// Who a client says it is, in a response or a COM_CHANGE_USER.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: Bytes,
    /// What the plugin makes of the password.
    pub(crate) answer: Bytes,
    pub(crate) schema: Bytes,
    /// Only COM_CHANGE_USER has one here.
    pub(crate) charset: u16,
    pub(crate) plugin: Bytes,
    pub(crate) attributes: Attributes,
}

/// Prints no answer: it may be a token.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, answer of {} bytes)", readable(&self.user), self.answer.len())
    }
}

impl Response {
    /// Reads a response's payload.
    pub(crate) fn read(payload: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let fixed = Fixed::read(&mut reader)?;
        let has = |flag| fixed.capabilities & flag != 0;
        let user = reader.text("user")?;
        let answer = if has(PLUGIN_AUTH_LENENC) {
            reader.bytes("authentication")?
        } else if has(SECURE_CONNECTION) {
            let length = usize::from(reader.u8("authentication")?);
            reader.take(length, "authentication")?
        } else {
            reader.text("authentication")?
        };
        let schema = if has(CONNECT_WITH_DB) { reader.last_text() } else { Bytes::new() };
        let plugin = if has(PLUGIN_AUTH) { reader.last_text() } else { Bytes::new() };
        let attributes = if has(CONNECT_ATTRS) { attributes(&mut reader)? } else { Vec::new() };
        Ok(Self { fixed, login: Login { user, answer, schema, charset: 0, plugin, attributes } })
    }
}

impl Login {
    /// Reads the payload of a COM_CHANGE_USER behind its first byte.
    pub(crate) fn change_user(payload: Bytes, capabilities: u64) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let user = reader.text("user")?;
        let length = usize::from(reader.u8("authentication")?);
        let answer = reader.take(length, "authentication")?;
        let schema = reader.text("schema")?;
        // Older clients end here.
        let charset = if reader.rest().is_empty() { 0 } else { reader.u16("character set")? };
        let plugin = if capabilities & PLUGIN_AUTH != 0 { reader.last_text() } else { Bytes::new() };
        let attributes =
            if capabilities & CONNECT_ATTRS != 0 { attributes(&mut reader)? } else { Vec::new() };
        Ok(Self { user, answer, schema, charset, plugin, attributes })
    }

    /// The value of a connection attribute, if it is there and not empty.
    pub(crate) fn attribute(&self, name: &[u8]) -> Option<String> {
        let (_, value) = self.attributes.iter().find(|(key, _)| key == name)?;
        Some(readable(value)).filter(|value| !value.is_empty())
    }
}

fn attributes(reader: &mut Reader) -> Result<Attributes, Malformed> {
    if reader.rest().is_empty() {
        return Ok(Vec::new());
    }
    let all = reader.bytes("connection attributes")?;
    if all.len() > ATTRIBUTES_MAX {
        return Err(Malformed { field: "connection attributes" });
    }
    let mut reader = Reader::new(all);
    let mut found = Vec::new();
    while !reader.rest().is_empty() {
        found.push((reader.bytes("connection attribute")?, reader.bytes("connection attribute")?));
    }
    Ok(found)
}

/// Appends connection attributes.
pub(crate) fn put_attributes(out: &mut BytesMut, attributes: &Attributes) {
    let mut all = BytesMut::new();
    for (name, value) in attributes {
        put_bytes(&mut all, name);
        put_bytes(&mut all, value);
    }
    put_lenenc(out, all.len() as u64);
    out.put_slice(&all);
}

/// An AuthSwitchRequest's payload.
pub(crate) fn auth_switch(plugin: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(0xfe);
    put_text(&mut out, plugin);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(capabilities: u64) -> BytesMut {
        let mut out = BytesMut::new();
        Fixed { capabilities, packet_max: 1 << 24, charset: 45 }.put(&mut out);
        assert_eq!(out.len(), FIXED);
        put_text(&mut out, b"ada");
        out
    }

    #[test]
    fn a_response_is_read_by_what_it_says_that_it_has() {
        let all = SECURE_CONNECTION | PLUGIN_AUTH | CONNECT_WITH_DB | CONNECT_ATTRS | PLUGIN_AUTH_LENENC;
        let mut out = response(all);
        put_bytes(&mut out, &[7; 300]);
        put_text(&mut out, b"customers");
        put_text(&mut out, b"mysql_clear_password");
        let attributes = vec![("program_name".into(), "report".into()), ("empty".into(), Bytes::new())];
        put_attributes(&mut out, &attributes);
        let read = Response::read(out.freeze()).unwrap();
        assert_eq!(read.fixed.capabilities, all);
        assert_eq!((&*read.login.user, read.login.answer.len()), (&b"ada"[..], 300));
        assert_eq!(
            (&*read.login.schema, &*read.login.plugin),
            (&b"customers"[..], &b"mysql_clear_password"[..])
        );
        assert_eq!(read.login.attributes, attributes);
        assert_eq!(read.login.attribute(b"program_name").as_deref(), Some("report"));
        assert_eq!(read.login.attribute(b"empty"), None);

        let mut old = response(SECURE_CONNECTION);
        old.put_slice(b"\x02ab");
        assert_eq!(Response::read(old.freeze()).unwrap().login.answer, "ab");
        let mut short = response(SECURE_CONNECTION);
        short.put_slice(b"\x03ab");
        assert!(Response::read(short.freeze()).is_err());
    }

    #[test]
    fn attributes_are_read_within_their_limit() {
        let mut out = response(CONNECT_ATTRS | SECURE_CONNECTION);
        out.put_u8(0);
        put_lenenc(&mut out, 70_000);
        out.put_bytes(0, 70_000);
        assert_eq!(Response::read(out.freeze()).unwrap_err().field, "connection attributes");
    }

    #[test]
    fn change_user_is_read_with_and_without_its_newer_fields() {
        let read = Login::change_user(Bytes::from_static(b"ada\0\0db\0"), PLUGIN_AUTH).unwrap();
        assert_eq!((&*read.user, &*read.schema, read.charset), (&b"ada"[..], &b"db"[..], 0));
        let newer = b"ada\0\x02xydb\0\x2d\0mysql_native_password\0";
        let read = Login::change_user(Bytes::from_static(newer), PLUGIN_AUTH).unwrap();
        assert_eq!(
            (read.charset, &*read.plugin, &*read.answer),
            (45, &b"mysql_native_password"[..], &b"xy"[..])
        );
        assert!(Login::change_user(Bytes::from_static(b"ada"), PLUGIN_AUTH).is_err());
    }
}
