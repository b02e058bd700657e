//! Messages, as either side sends them.

/// One message.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// The kinds of the messages in `bytes`.
pub(crate) fn kinds(mut bytes: &[u8]) -> String {
    let mut kinds = String::new();
    while let Some((kind, rest)) = bytes.split_first() {
        kinds.push(char::from(*kind));
        let length = rest
            .get(..4)
            .map_or(rest.len(), |length| u32::from_be_bytes(length.try_into().unwrap()) as usize);
        bytes = rest.get(length..).unwrap_or_default();
    }
    kinds
}

pub(crate) fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = [3_u16.to_be_bytes(), minor.to_be_bytes()].concat();
    for (name, value) in parameters {
        body.extend(text(name));
        body.extend(text(value));
    }
    body.push(0);
    packet(&body)
}

pub(crate) fn packet(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
}

pub(crate) fn code(code: u32) -> Vec<u8> {
    packet(&code.to_be_bytes())
}

pub(crate) const CANCEL_REQUEST: u32 = 80_877_102;
pub(crate) const SSL_REQUEST: u32 = 80_877_103;
pub(crate) const GSSENC_REQUEST: u32 = 80_877_104;

pub(crate) fn password(token: &str) -> Vec<u8> {
    message(b'p', &text(token))
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

pub(crate) fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body =
        [text(name), text(sql), u16::try_from(types.len()).unwrap().to_be_bytes().to_vec()].concat();
    for oid in types {
        body.extend(oid.to_be_bytes());
    }
    message(b'P', &body)
}

/// Values in the text format.
pub(crate) fn bind(portal: &str, statement: &str, values: &[Option<&str>]) -> Vec<u8> {
    let values: Vec<Option<&[u8]>> = values.iter().map(|value| value.map(str::as_bytes)).collect();
    bind_as(portal, statement, &[], &values)
}

pub(crate) fn bind_as(portal: &str, statement: &str, formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = [text(portal), text(statement)].concat();
    body.extend(u16::try_from(formats.len()).unwrap().to_be_bytes());
    for format in formats {
        body.extend(format.to_be_bytes());
    }
    body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        match value {
            None => body.extend(u32::MAX.to_be_bytes()),
            Some(value) => {
                body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                body.extend_from_slice(value);
            }
        }
    }
    body.extend(0_u16.to_be_bytes());
    message(b'B', &body)
}

pub(crate) fn describe_statement(name: &str) -> Vec<u8> {
    message(b'D', &[b"S", &text(name)[..]].concat())
}

pub(crate) fn describe_portal(name: &str) -> Vec<u8> {
    message(b'D', &[b"P", &text(name)[..]].concat())
}

pub(crate) fn close_statement(name: &str) -> Vec<u8> {
    message(b'C', &[b"S", &text(name)[..]].concat())
}

pub(crate) fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[&text(portal)[..], &rows.to_be_bytes()].concat())
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub(crate) fn flush() -> Vec<u8> {
    message(b'H', b"")
}

pub(crate) fn terminate() -> Vec<u8> {
    message(b'X', b"")
}

pub(crate) fn copy_data(data: &[u8]) -> Vec<u8> {
    message(b'd', data)
}

pub(crate) fn copy_done() -> Vec<u8> {
    message(b'c', b"")
}

pub(crate) fn copy_fail(why: &str) -> Vec<u8> {
    message(b'f', &text(why))
}

pub(crate) fn authentication(code: u32) -> Vec<u8> {
    message(b'R', &code.to_be_bytes())
}

pub(crate) fn key(process_id: u32, secret: &[u8]) -> Vec<u8> {
    message(b'K', &[&process_id.to_be_bytes()[..], secret].concat())
}

pub(crate) fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

pub(crate) fn row_description() -> Vec<u8> {
    message(b'T', b"\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0")
}

pub(crate) fn data_row(value: &[u8]) -> Vec<u8> {
    message(b'D', &[b"\0\x01", &u32::try_from(value.len()).unwrap().to_be_bytes()[..], value].concat())
}

pub(crate) fn complete(tag: &str) -> Vec<u8> {
    message(b'C', &text(tag))
}

pub(crate) fn parse_complete() -> Vec<u8> {
    message(b'1', b"")
}

pub(crate) fn bind_complete() -> Vec<u8> {
    message(b'2', b"")
}

pub(crate) fn copy_in() -> Vec<u8> {
    message(b'G', b"\0\0\0")
}

pub(crate) fn parameter_description(types: &[u32]) -> Vec<u8> {
    let mut body = u16::try_from(types.len()).unwrap().to_be_bytes().to_vec();
    for oid in types {
        body.extend(oid.to_be_bytes());
    }
    message(b't', &body)
}

pub(crate) fn error(code: &str, why: &str) -> Vec<u8> {
    let fields = ["SERROR", "VERROR", &format!("C{code}"), &format!("M{why}"), ""].map(text).concat();
    message(b'E', &fields)
}

pub(crate) fn notice(why: &str) -> Vec<u8> {
    let fields = ["SNOTICE", "VNOTICE", "C00000", &format!("M{why}"), ""].map(text).concat();
    message(b'N', &fields)
}
