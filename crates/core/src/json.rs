//! The few lines of JSON writing that the record's bytes rest on: one escaping, the same everywhere.
//!
//! Nothing here reads JSON, and nothing else writes a byte of the ledger's envelopes or payloads.

/// Appends `text` as a JSON string, quotes included. Escapes what JSON must escape and nothing else: `"`, `\` and the
/// control characters below U+0020 (short forms where JSON has them, `\u00xx` in lower case otherwise).
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut clean_from = 0;
    let bytes = text.as_bytes();
    for (place, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(bytes.get(clean_from..place).unwrap_or_default());
        clean_from = place + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend(HEX.get(usize::from(byte >> 4)));
                out.extend(HEX.get(usize::from(byte & 0xf)));
            }
        }
    }
    out.extend_from_slice(bytes.get(clean_from..).unwrap_or_default());
    out.push(b'"');
}

/// Appends `number` in decimal.
pub fn unsigned(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut from = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (number % 10) as u8;
        number /= 10;
        from -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(from..).unwrap_or_default());
}

/// Appends `bytes` as a JSON string in base64url without padding (RFC 4648 section 5), the envelope's form of bytes.
pub fn base64url(out: &mut Vec<u8>, bytes: &[u8]) {
    encoded(out, bytes, &base64::engine::general_purpose::URL_SAFE_NO_PAD);
}

/// Appends `bytes` as a JSON string in base64 with padding (RFC 4648 section 4), what people's documents use.
pub fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    encoded(out, bytes, &base64::engine::general_purpose::STANDARD);
}

fn encoded(out: &mut Vec<u8>, bytes: &[u8], engine: &impl base64::Engine) {
    out.push(b'"');
    let from = out.len();
    out.resize(from + bytes.len().div_ceil(3) * 4, 0);
    let written = out.get_mut(from..).and_then(|room| engine.encode_slice(bytes, room).ok()).unwrap_or(0);
    out.truncate(from + written);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let mut out = Vec::new();
        string(&mut out, text);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn escapes_what_json_must_escape_and_nothing_else() {
        check("", r#""""#);
        check("SELECT 'ä', \"b\"\\ -- \u{2028}", "\"SELECT 'ä', \\\"b\\\"\\\\ -- \u{2028}\"");
        check("\u{0}\u{1b}[31m\n\r\t\u{8}\u{c}\u{7f}", "\"\\u0000\\u001b[31m\\n\\r\\t\\b\\f\u{7f}\"");
    }

    #[test]
    fn writes_numbers_and_bytes() {
        let mut out = Vec::new();
        for number in [0, 9, 10, 1234, u64::MAX] {
            unsigned(&mut out, number);
            out.push(b' ');
        }
        base64url(&mut out, &[0xfb, 0xff]);
        base64(&mut out, &[0xfb, 0xff]);
        assert_eq!(String::from_utf8(out).unwrap(), "0 9 10 1234 18446744073709551615 \"-_8\"\"+/8=\"");
    }
}
