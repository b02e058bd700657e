//! Packets, as either side sends them.

/// Capability flags.
pub(crate) mod flag {
    pub(crate) const MYSQL: u64 = 1;
    pub(crate) const CONNECT_WITH_DB: u64 = 1 << 3;
    pub(crate) const COMPRESS: u64 = 1 << 5;
    pub(crate) const LOCAL_FILES: u64 = 1 << 7;
    pub(crate) const PROTOCOL_41: u64 = 1 << 9;
    pub(crate) const SSL: u64 = 1 << 11;
    pub(crate) const TRANSACTIONS: u64 = 1 << 13;
    pub(crate) const SECURE_CONNECTION: u64 = 1 << 15;
    pub(crate) const MULTI_STATEMENTS: u64 = 1 << 16;
    pub(crate) const MULTI_RESULTS: u64 = 1 << 17;
    pub(crate) const PS_MULTI_RESULTS: u64 = 1 << 18;
    pub(crate) const PLUGIN_AUTH: u64 = 1 << 19;
    pub(crate) const CONNECT_ATTRS: u64 = 1 << 20;
    pub(crate) const LENENC: u64 = 1 << 21;
    pub(crate) const SESSION_TRACK: u64 = 1 << 23;
    pub(crate) const DEPRECATE_EOF: u64 = 1 << 24;
    pub(crate) const QUERY_ATTRIBUTES: u64 = 1 << 27;
    pub(crate) const PROGRESS: u64 = 1 << 32;
    pub(crate) const BULK: u64 = 1 << 34;

    /// What an ordinary client asks for.
    pub(crate) const PLAIN: u64 = MYSQL
        | CONNECT_WITH_DB
        | LOCAL_FILES
        | PROTOCOL_41
        | TRANSACTIONS
        | SECURE_CONNECTION
        | MULTI_STATEMENTS
        | MULTI_RESULTS
        | PS_MULTI_RESULTS
        | PLUGIN_AUTH
        | CONNECT_ATTRS
        | LENENC;
}

pub(crate) const OK: &[u8] = b"\0\0\0\x02\0\0\0";

/// A payload as packets, and the sequence behind them.
pub(crate) fn packets(mut sequence: u8, mut payload: &[u8]) -> (Vec<u8>, u8) {
    let mut out = Vec::new();
    loop {
        let (part, rest) = payload.split_at(payload.len().min(0xff_ffff));
        out.extend_from_slice(&u32::try_from(part.len()).unwrap().to_le_bytes()[..3]);
        out.push(sequence);
        out.extend_from_slice(part);
        sequence = sequence.wrapping_add(1);
        payload = rest;
        if part.len() < 0xff_ffff {
            return (out, sequence);
        }
    }
}

pub(crate) fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    packets(sequence, payload).0
}

/// A command.
pub(crate) fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    packet(0, &[&[kind], body].concat())
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    command(3, sql.as_bytes())
}

pub(crate) fn prepare(sql: &str) -> Vec<u8> {
    command(0x16, sql.as_bytes())
}

/// COM_STMT_EXECUTE, with what is behind the number of iterations.
pub(crate) fn execute(statement: u32, flags: u8, rest: &[u8]) -> Vec<u8> {
    command(0x17, &[&statement.to_le_bytes()[..], &[flags], &1_u32.to_le_bytes(), rest].concat())
}

pub(crate) fn long_data(statement: u32, parameter: u16, data: &[u8]) -> Vec<u8> {
    command(0x18, &[&statement.to_le_bytes()[..], &parameter.to_le_bytes(), data].concat())
}

pub(crate) fn close(statement: u32) -> Vec<u8> {
    command(0x19, &statement.to_le_bytes())
}

pub(crate) fn lenenc(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let head = if length < 0xfb { vec![length as u8] } else { [&[0xfc], &length.to_le_bytes()[..]].concat() };
    [&head, bytes].concat()
}

/// A HandshakeResponse41's payload.
pub(crate) fn response(
    capabilities: u64,
    user: &str,
    answer: &[u8],
    schema: &str,
    plugin: &str,
    attributes: &[(&str, &str)],
) -> Vec<u8> {
    let mut out = fixed(capabilities);
    out.extend_from_slice(user.as_bytes());
    out.push(0);
    out.extend(lenenc(answer));
    if capabilities & flag::CONNECT_WITH_DB != 0 {
        out.extend_from_slice(schema.as_bytes());
        out.push(0);
    }
    out.extend_from_slice(plugin.as_bytes());
    out.push(0);
    if capabilities & flag::CONNECT_ATTRS != 0 {
        let all: Vec<u8> = attributes
            .iter()
            .flat_map(|(name, value)| [lenenc(name.as_bytes()), lenenc(value.as_bytes())].concat())
            .collect();
        out.extend(lenenc(&all));
    }
    out
}

/// What an SSLRequest is, and a response begins with.
pub(crate) fn fixed(capabilities: u64) -> Vec<u8> {
    let mut out = (capabilities as u32).to_le_bytes().to_vec();
    out.extend_from_slice(&(1_u32 << 24).to_le_bytes());
    out.push(45);
    out.extend_from_slice(&[0; 19]);
    out.extend_from_slice(&((capabilities >> 32) as u32).to_le_bytes());
    out
}

/// A greeting's payload, with a scramble of twenty `A`.
pub(crate) fn greeting(version: &str, thread_id: u32, capabilities: u64, plugin: &str) -> Vec<u8> {
    let mut out = vec![10];
    out.extend_from_slice(version.as_bytes());
    out.push(0);
    out.extend_from_slice(&thread_id.to_le_bytes());
    out.extend_from_slice(b"AAAAAAAA\0");
    out.extend_from_slice(&(capabilities as u16).to_le_bytes());
    out.push(45);
    out.extend_from_slice(&2_u16.to_le_bytes());
    out.extend_from_slice(&((capabilities >> 16) as u16).to_le_bytes());
    out.push(21);
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(&((capabilities >> 32) as u32).to_le_bytes());
    out.extend_from_slice(b"AAAAAAAAAAAA\0");
    out.extend_from_slice(plugin.as_bytes());
    out.push(0);
    out
}

/// An ERR packet's payload.
pub(crate) fn err(code: u16, state: &str, message: &str) -> Vec<u8> {
    [&[0xff][..], &code.to_le_bytes(), b"#", state.as_bytes(), message.as_bytes()].concat()
}

/// An EOF packet's payload of the older form.
pub(crate) fn eof(status: u16) -> Vec<u8> {
    [&[0xfe, 0, 0][..], &status.to_le_bytes()].concat()
}

/// A column's definition.
pub(crate) fn column(name: &str) -> Vec<u8> {
    let parts = ["def", "", "", "", name, ""].map(|text| lenenc(text.as_bytes())).concat();
    [&parts[..], b"\x0c\x3f\0\x01\0\0\0\x03\0\0\0\0\0"].concat()
}

/// A result of one column, without DEPRECATE_EOF, from this sequence on; and the sequence behind it.
pub(crate) fn rows(mut sequence: u8, values: &[&str], status: u16) -> (Vec<u8>, u8) {
    let mut payloads = vec![b"\x01".to_vec(), column("a"), eof(status)];
    payloads.extend(values.iter().map(|value| lenenc(value.as_bytes())));
    payloads.push(eof(status));
    let mut out = Vec::new();
    for payload in payloads {
        out.extend(packet(sequence, &payload));
        sequence = sequence.wrapping_add(1);
    }
    (out, sequence)
}
