//! The head of an HTTP/1 request, checked byte by byte before hyper reads it.
//!
//! hyper takes some heads that others read differently: a line that ends in a bare LF, a length beside a transfer coding,
//! the same length twice. What two readers could frame differently is refused here, so that no request hides in
//! another's body, whatever the target makes of it. Parsing is still hyper's; the same bytes go to both.
//!
//! RFC 9112: request line (3), field lines (5), obs-fold (5.2), transfer coding and length (6.1, 6.2), body length (6.3).

use bytes::Bytes;

/// How many field lines a head may have.
pub(crate) const FIELDS_MAX: usize = 200;

/// A head that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// The request line and the field lines as they came, with the empty line.
    pub(crate) raw: Bytes,
    /// What follows it.
    pub(crate) framing: Framing,
    /// The client asks for another protocol on this stream.
    pub(crate) upgrade: bool,
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// This many bytes, more than none.
    Length(u64),
    /// Until the last chunk says so.
    Chunked,
}

impl Head {
    /// Checks a head that ends with its empty line.
    ///
    /// # Errors
    /// What is wrong with it, in words without any of its bytes.
    pub(crate) fn check(raw: Bytes) -> Result<Self, &'static str> {
        let mut lines = lines(&raw);
        let minor = request_line(lines.next().unwrap_or_default())?;
        let mut facts = Facts::default();
        for (number, line) in lines.enumerate() {
            if number == FIELDS_MAX {
                return Err("too many header lines");
            }
            let (name, value) = field_line(line)?;
            facts.field(name, value, minor)?;
        }
        let framing = facts.framing(minor)?;
        Ok(Self { raw, framing, upgrade: facts.upgrade })
    }

    /// `METHOD target`, as sent.
    pub(crate) fn text(&self) -> Bytes {
        let end = memchr::memchr(b'\r', &self.raw).unwrap_or(0);
        let line = self.raw.slice(..end);
        let end = memchr::memrchr(b' ', &line).unwrap_or(0);
        line.slice(..end)
    }

    /// Every field, its name and value as sent.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        lines(&self.raw).skip(1).filter_map(|line| field_line(line).ok())
    }
}

/// The lines up to the empty one, without their ends.
fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)?;
        let (line, after) = rest.split_at_checked(end + 1)?;
        rest = after;
        let line = line.strip_suffix(b"\r\n")?;
        (!line.is_empty()).then_some(line)
    })
}

/// A method, one space, a target, one space, `HTTP/1.0` or `HTTP/1.1`; the minor version.
fn request_line(line: &[u8]) -> Result<u8, &'static str> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, words.next()) else {
        return Err("the request line is not three words with a space between each");
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err("the method is no token");
    }
    let legal = |byte: &u8| *byte > b' ' && *byte != 0x7f && *byte != b'#';
    if target.is_empty() || !target.iter().all(legal) || std::str::from_utf8(target).is_err() {
        return Err("the request target is no URI reference");
    }
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        _ => Err("the version is neither HTTP/1.0 nor HTTP/1.1"),
    }
}

/// A name that is a token, a colon right behind it, and a value without control characters.
fn field_line(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("a folded header line");
    }
    let colon = memchr::memchr(b':', line).ok_or("a header line without a colon")?;
    let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
    if matches!(name.last(), Some(b' ' | b'\t')) {
        return Err("a space before a header's colon");
    }
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err("a header name that is no token");
    }
    if value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 0x7f)) {
        return Err("a control character in a header");
    }
    Ok((name, value.trim_ascii()))
}

pub(crate) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// What the fields say of the framing.
#[derive(Default)]
struct Facts {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Facts {
    fn field(&mut self, name: &[u8], value: &[u8], minor: u8) -> Result<(), &'static str> {
        // Names of these lengths alone matter, and most have another one.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade |= minor == 1,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let length =
                    std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
                let length = length.filter(|length| *length <= i64::MAX as u64);
                if self.length.replace(length.ok_or("a Content-Length that is no number")?).is_some() {
                    return Err("more than one Content-Length");
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if minor == 0 {
                    return Err("a Transfer-Encoding in HTTP/1.0");
                }
                if !value.eq_ignore_ascii_case(b"chunked") || std::mem::replace(&mut self.chunked, true) {
                    return Err("a Transfer-Encoding that is not chunked alone");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, minor: u8) -> Result<Framing, &'static str> {
        match self.hosts {
            1 => {}
            0 if minor == 0 => {}
            0 => return Err("no Host"),
            _ => return Err("more than one Host"),
        }
        match (self.length, self.chunked) {
            (Some(_), true) => Err("a Content-Length beside a Transfer-Encoding"),
            (None, true) => Ok(Framing::Chunked),
            (None | Some(0), false) => Ok(Framing::Empty),
            (Some(length), false) => Ok(Framing::Length(length)),
        }
    }
}

/// What is left of a head that cannot be read, for the record: its lines, with the credentials in them blotted out.
pub(crate) fn readable_remains(raw: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(raw.len());
    for line in raw.split_inclusive(|byte| *byte == b'\n') {
        match memchr::memchr(b':', line) {
            Some(colon) if is_secret(line.get(..colon).unwrap_or_default()) => {
                let value = line.get(colon + 1..).unwrap_or_default();
                out.extend_from_slice(line.get(..=colon).unwrap_or_default());
                out.extend_from_slice(
                    format!(" [redacted, {} bytes]\r\n", value.trim_ascii().len()).as_bytes(),
                );
            }
            // A folded line may be the rest of a credential.
            _ if matches!(line.first(), Some(b' ' | b'\t')) => {
                out.extend_from_slice(
                    format!(" [redacted, {} bytes]\r\n", line.trim_ascii().len()).as_bytes(),
                );
            }
            _ => out.extend_from_slice(line),
        }
    }
    out.into()
}

/// Whether somebody tried to say who it is in a head that cannot be read.
pub(crate) fn claims_identity(raw: &[u8]) -> bool {
    raw.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"authorization")
    })
}

fn is_secret(name: &[u8]) -> bool {
    match std::str::from_utf8(name.trim_ascii()) {
        Ok(name) => crate::operation::is_credential(name),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str) -> Result<Framing, &'static str> {
        Head::check(Bytes::copy_from_slice(head.as_bytes())).map(|head| head.framing)
    }

    #[test]
    fn what_everybody_frames_alike_passes() {
        for (head, framing) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty),
            ("GET / HTTP/1.0\r\n\r\n", Framing::Empty),
            ("POST /ä?b HTTP/1.1\r\nHost: a\r\ncontent-length:  5 \r\n\r\n", Framing::Length(5)),
            ("POST / HTTP/1.1\r\nhost:\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\nX-Empty:\r\n\r\n", Framing::Empty),
        ] {
            assert_eq!(check(head), Ok(framing), "{head:?}");
        }
    }

    #[test]
    fn what_two_readers_could_frame_differently_does_not() {
        let post = |fields: &str| check(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: identity, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "X: y\r\n Transfer-Encoding: chunked",
            "X: y\r\n\tz",
            "X: y\0z",
            "X: y\rz",
            "X\0: y",
            ": y",
            "X",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: 0x5",
            "Content-Length: -1",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Host: b",
        ] {
            assert!(post(fields).is_err(), "{fields:?}");
        }
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "G\u{e4}T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(check(head).is_err(), "{head:?}");
        }
    }

    #[test]
    fn the_remains_of_a_head_hold_no_credential() {
        let raw = b"GET / HTTP/1.1\nAuthorization : Bearer abc\r\n def\r\nX: y\r\n";
        assert!(claims_identity(raw));
        let remains = String::from_utf8(readable_remains(raw).to_vec()).unwrap();
        assert!(
            !remains.contains("abc") && !remains.contains("def") && remains.contains("X: y"),
            "{remains}"
        );
    }

    #[test]
    fn text_and_fields_are_as_sent() {
        let raw = "PoST /a/../b?c=%41 HTTP/1.1\r\nHOST: a\r\nX-Thing:  y \r\n\r\n";
        let head = Head::check(Bytes::copy_from_slice(raw.as_bytes())).unwrap();
        assert_eq!(head.text(), "PoST /a/../b?c=%41");
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields, [(&b"HOST"[..], &b"a"[..]), (b"X-Thing", b"y")]);
    }
}
