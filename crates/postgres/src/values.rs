//! Bound values, as the server would print them with its default settings (time zone UTC).
//!
//! What is in the text format is the text that was sent. The binary formats of the built-in types are decoded, with
//! their arrays, ranges and multiranges. Those of all other types (composites, enumerations, what extensions bring) stay
//! bytes, for what they mean is in the target's catalog; and so does what does not decode: a wrong length, a count over
//! what is there, invalid UTF-8, a value that the server would refuse. Nothing here panics, whatever the bytes.
//!
//! A value is shown as it was sent where the server would rewrite it on the way in: the spacing of `jsonb`, the bounds
//! of a discrete range (`[1,3]` and not `[1,4)`), the order of a `tsvector`. What depends on the target is shown
//! without it: `regclass` and its like as the object id, `money` as in the locale `C`.
//!
//! Limits: six dimensions, 4096 nodes of a `tsquery`, and a text of at most 256 KiB and 8 bytes a byte that was sent.
//!
//! Source: the `…_recv` and `…_out` functions of PostgreSQL, `src/backend/utils/adt`.

mod composed;
mod geometry;
mod network;
mod number;
mod search;
mod time;
mod types;

use std::fmt::Write as _;

use bytes::{Buf, Bytes};
use verbatim_core::{Parameter, ParameterValue};

use types::Shape;

const TEXT: i16 = 0;
const BINARY: i16 = 1;

/// Decodes a bound value: `format` as in Bind (0 text, 1 binary), none for NULL. Takes any bytes and never panics; see
/// the [module](self) for what it makes of them.
pub fn decode(type_oid: u32, format: i16, bytes: Option<&[u8]>) -> Parameter {
    let known = types::find(type_oid);
    let type_name = known.map_or("unknown", |(name, _)| name).into();
    let Some(bytes) = bytes else { return Parameter { type_name, value: ParameterValue::Null } };
    let shape = known.map_or(Shape::Opaque, |(_, shape)| shape);
    let value = match (format, shape) {
        (TEXT, Shape::Bytea) => match bytea(bytes) {
            Some(bytes) => ParameterValue::Binary(bytes.into()),
            None => text_or_bytes(bytes),
        },
        (TEXT, _) => text_or_bytes(bytes),
        (BINARY, Shape::Bytea) => ParameterValue::Binary(Bytes::copy_from_slice(bytes)),
        (BINARY, shape) => match print(shape, bytes) {
            Some(text) => ParameterValue::Text(text),
            None => ParameterValue::Binary(Bytes::copy_from_slice(bytes)),
        },
        _ => ParameterValue::Binary(Bytes::copy_from_slice(bytes)),
    };
    Parameter { type_name, value }
}

/// The server's name of a built-in type: `int4`, `_int4`, …
pub fn type_name(oid: u32) -> Option<&'static str> {
    types::find(oid).map(|(name, _)| name)
}

fn text_or_bytes(bytes: &[u8]) -> ParameterValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => ParameterValue::Text(text.to_owned()),
        Err(_) => ParameterValue::Binary(Bytes::copy_from_slice(bytes)),
    }
}

/// The bytes that a `bytea` in text means: `\x…` in hexadecimal, else with `\\` and `\ooo` escapes.
fn bytea(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 2);
    if let Some(hex) = text.strip_prefix(b"\\x") {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let mut digits = hex.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
        while let Some(high) = digits.next() {
            out.push(digit(high)? << 4 | digit(digits.next()?)?);
        }
        return Some(out);
    }
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Some(out),
            [b'\\', b'\\', rest @ ..] => {
                out.push(b'\\');
                rest
            }
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                out.push(*byte);
                rest
            }
        };
    }
}

/// What the server would print for a value in the binary format.
fn print(shape: Shape, bytes: &[u8]) -> Option<String> {
    let mut out =
        Printer { text: String::new(), limit: bytes.len().saturating_mul(8).saturating_add(256 * 1024) };
    out.value(shape, bytes)?;
    Some(out.text)
}

/// The text so far, and how long it may get: a few bytes can stand for a hundred thousand digits, and an array holds
/// many of them.
struct Printer {
    text: String,
    limit: usize,
}

impl Printer {
    /// Appends a value; none where its bytes are not one.
    fn value(&mut self, shape: Shape, bytes: &[u8]) -> Option<()> {
        let mut rest = Reader(bytes);
        let (input, out) = (&mut rest, &mut self.text);
        match shape {
            Shape::Bool => out.push(if input.u8()? == 0 { 'f' } else { 't' }),
            Shape::Bytea => {
                out.push_str("\\x");
                for byte in input.rest() {
                    write!(out, "{byte:02x}").ok()?;
                }
            }
            Shape::Char => match input.u8()? {
                0 => {}
                byte @ 1..0x80 => out.push(char::from(byte)),
                byte => write!(out, "\\{byte:03o}").ok()?,
            },
            Shape::Text => out.push_str(std::str::from_utf8(input.rest()).ok()?),
            Shape::Versioned => match input.u8()? {
                1 => out.push_str(std::str::from_utf8(input.rest()).ok()?),
                _ => return None,
            },
            Shape::Int2 => write!(out, "{}", input.i16()?).ok()?,
            Shape::Int4 => write!(out, "{}", input.i32()?).ok()?,
            Shape::Int8 => write!(out, "{}", input.i64()?).ok()?,
            Shape::Unsigned => write!(out, "{}", input.u32()?).ok()?,
            Shape::Object => match input.u32()? {
                0 => out.push('-'),
                oid => write!(out, "{oid}").ok()?,
            },
            Shape::Xid8 => write!(out, "{}", input.u64()?).ok()?,
            Shape::Tid => write!(out, "({},{})", input.u32()?, input.u16()?).ok()?,
            Shape::Float4 => number::float4(out, input.f32()?)?,
            Shape::Float8 => number::float8(out, input.f64()?)?,
            Shape::Numeric => number::numeric(out, input)?,
            Shape::Money => number::money(out, input.i64()?)?,
            Shape::Uuid => uuid(out, input)?,
            Shape::Date => time::date(out, input)?,
            Shape::Time => time::time(out, input)?,
            Shape::TimeTz => time::time_tz(out, input)?,
            Shape::Timestamp => time::timestamp(out, input, "")?,
            Shape::TimestampTz => time::timestamp(out, input, "+00")?,
            Shape::Interval => time::interval(out, input)?,
            Shape::Inet => network::address(out, input, false)?,
            Shape::Cidr => network::address(out, input, true)?,
            Shape::MacAddr => network::mac(out, input)?,
            Shape::Bits => bits(out, input)?,
            Shape::Point => geometry::point(out, input)?,
            Shape::Lseg => geometry::lseg(out, input)?,
            Shape::Path => geometry::path(out, input)?,
            Shape::Box => geometry::corners(out, input)?,
            Shape::Polygon => geometry::polygon(out, input)?,
            Shape::Line => geometry::line(out, input)?,
            Shape::Circle => geometry::circle(out, input)?,
            Shape::TsVector => search::vector(out, input)?,
            Shape::TsQuery => search::query(out, input)?,
            Shape::Lsn => {
                let position = input.u64()?;
                write!(out, "{:X}/{:X}", position >> 32, position & 0xffff_ffff).ok()?;
            }
            Shape::Snapshot => snapshot(out, input)?,
            Shape::Array(element) => composed::array(self, input, element)?,
            Shape::Vector(element) => composed::vector(self, input, element)?,
            Shape::Range(bound) => composed::range(self, input, bound)?,
            Shape::Multirange(range) => composed::multirange(self, input, range)?,
            Shape::Opaque => return None,
        }
        (rest.0.is_empty() && self.text.len() <= self.limit).then_some(())
    }
}

fn uuid(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    for (place, byte) in input.take(16)?.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        write!(out, "{byte:02x}").ok()?;
    }
    Some(())
}

fn bits(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let count = usize::try_from(input.i32()?).ok()?;
    let bytes = input.take(count.div_ceil(8))?;
    let bit = |place: usize| bytes.get(place / 8).map(|byte| byte >> (7 - place % 8) & 1);
    out.extend((0..count).filter_map(bit).map(|bit| if bit == 1 { '1' } else { '0' }));
    Some(())
}

/// `pg_snapshot`: xmin, xmax and what was running between them.
fn snapshot(out: &mut String, input: &mut Reader<'_>) -> Option<()> {
    let running = usize::try_from(input.i32()?).ok()?;
    write!(out, "{}:{}:", input.i64()?, input.i64()?).ok()?;
    if input.0.len() != running.checked_mul(8)? {
        return None;
    }
    for place in 0..running {
        let separator = if place == 0 { "" } else { "," };
        write!(out, "{separator}{}", input.i64()?).ok()?;
    }
    Some(())
}

/// Takes values off the front of what is left; none where there is too little.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Up to a NUL, which is taken too.
    fn string(&mut self) -> Option<&'a str> {
        let text = self.take(memchr::memchr(0, self.0)?)?;
        self.u8()?;
        std::str::from_utf8(text).ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.0.try_get_u16().ok()
    }

    fn i16(&mut self) -> Option<i16> {
        self.0.try_get_i16().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    fn i32(&mut self) -> Option<i32> {
        self.0.try_get_i32().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    fn i64(&mut self) -> Option<i64> {
        self.0.try_get_i64().ok()
    }

    fn f32(&mut self) -> Option<f32> {
        self.0.try_get_f32().ok()
    }

    fn f64(&mut self) -> Option<f64> {
        self.0.try_get_f64().ok()
    }
}

#[cfg(test)]
mod tests;
