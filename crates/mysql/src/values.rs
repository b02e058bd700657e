//! Values in the binary protocol → the text that the server would print.
//!
//! Strings are in the session's character set, which the record does not convert: where they are no UTF-8 they are kept
//! as bytes. A `FLOAT` is printed as the double that the server makes of it. (MySQL 9 source documentation, "Binary
//! Protocol Value"; MariaDB knowledge base, "COM_STMT_EXECUTE".)

use std::borrow::Cow;

use verbatim_core::ParameterValue;

use crate::frame::{Malformed, Reader};

/// Beyond these, either way, the server writes an exponent.
const FIXED_DIGITS_MAX: i32 = 15;

/// The type of a value, as it stands before the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueType {
    code: u8,
    unsigned: bool,
}

impl ValueType {
    pub(crate) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let code = reader.u8("type")?;
        let unsigned = reader.u8("type")? & 0x80 != 0;
        Ok(Self { code, unsigned })
    }

    /// The server's name of it.
    pub(crate) fn name(self) -> Cow<'static, str> {
        let (name, number) = match self.code {
            0x00 | 0xf6 => ("decimal", false),
            0x01 => ("tinyint", true),
            0x02 => ("smallint", true),
            0x03 => ("int", true),
            0x04 => ("float", false),
            0x05 => ("double", false),
            0x06 => ("null", false),
            0x07 | 0x11 => ("timestamp", false),
            0x08 => ("bigint", true),
            0x09 => ("mediumint", true),
            0x0a | 0x0e => ("date", false),
            0x0b | 0x13 => ("time", false),
            0x0c | 0x12 => ("datetime", false),
            0x0d => ("year", false),
            0x0f | 0xfd => ("varchar", false),
            0x10 => ("bit", false),
            0xf2 => ("vector", false),
            0xf5 => ("json", false),
            0xf7 => ("enum", false),
            0xf8 => ("set", false),
            0xf9 => ("tinyblob", false),
            0xfa => ("mediumblob", false),
            0xfb => ("longblob", false),
            0xfc => ("blob", false),
            0xfe => ("char", false),
            0xff => ("geometry", false),
            _ => ("unknown", false),
        };
        match number && self.unsigned {
            true => Cow::Owned(format!("{name} unsigned")),
            false => Cow::Borrowed(name),
        }
    }

    /// Whether a value of this type is bytes, whatever they spell.
    const fn is_binary(self) -> bool {
        matches!(self.code, 0x10 | 0xf2 | 0xf9..=0xfc | 0xff)
    }

    /// A string of this type, or a long value that was sent by itself.
    pub(crate) fn string(self, bytes: &bytes::Bytes) -> ParameterValue {
        match std::str::from_utf8(bytes) {
            Ok(text) if !self.is_binary() => ParameterValue::Text(text.to_owned()),
            _ => ParameterValue::Binary(bytes.clone()),
        }
    }

    /// Reads a value of this type.
    pub(crate) fn value(self, reader: &mut Reader) -> Result<ParameterValue, Malformed> {
        let text = match self.code {
            0x06 => return Ok(ParameterValue::Null),
            0x01 => {
                let byte = reader.u8("tinyint")?;
                if self.unsigned { byte.to_string() } else { byte.cast_signed().to_string() }
            }
            0x02 | 0x0d => {
                let number = reader.u16("smallint")?;
                if self.unsigned { number.to_string() } else { number.cast_signed().to_string() }
            }
            0x03 | 0x09 => {
                let number = reader.u32("int")?;
                if self.unsigned { number.to_string() } else { number.cast_signed().to_string() }
            }
            0x08 => {
                let number = reader.u64("bigint")?;
                if self.unsigned { number.to_string() } else { number.cast_signed().to_string() }
            }
            0x04 => double(f32::from_bits(reader.u32("float")?).into()),
            0x05 => double(f64::from_bits(reader.u64("double")?)),
            0x0a | 0x0e => moment(reader, false)?,
            0x07 | 0x0c | 0x11 | 0x12 => moment(reader, true)?,
            0x0b | 0x13 => time(reader)?,
            0x00 | 0x0f | 0x10 | 0xf2 | 0xf5..=0xff => return Ok(self.string(&reader.bytes("value")?)),
            _ => return Err(Malformed { field: "type" }),
        };
        Ok(ParameterValue::Text(text))
    }
}

/// A double, in as few digits as say exactly which it is.
fn double(number: f64) -> String {
    let scientific = format!("{number:e}");
    let exponent = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    match exponent {
        Some(exponent) if !(-FIXED_DIGITS_MAX..FIXED_DIGITS_MAX).contains(&exponent) => scientific,
        Some(_) if number == 0.0 => "0".to_owned(),
        _ => number.to_string(),
    }
}

/// A date, with the time of day where it has one.
fn moment(reader: &mut Reader, with_time: bool) -> Result<String, Malformed> {
    let length = reader.u8("date")?;
    let (mut year, mut month, mut day) = (0, 0, 0);
    let (mut hour, mut minute, mut second, mut micros) = (0, 0, 0, 0);
    if !matches!(length, 0 | 4 | 7 | 11) {
        return Err(Malformed { field: "date" });
    }
    if length >= 4 {
        (year, month, day) = (reader.u16("date")?, reader.u8("date")?, reader.u8("date")?);
    }
    if length >= 7 {
        (hour, minute, second) = (reader.u8("date")?, reader.u8("date")?, reader.u8("date")?);
    }
    if length == 11 {
        micros = reader.u32("date")?;
    }
    let mut text = format!("{year:04}-{month:02}-{day:02}");
    if with_time || length >= 7 {
        text.push_str(&format!(" {hour:02}:{minute:02}:{second:02}"));
    }
    if length == 11 {
        text.push_str(&format!(".{micros:06}"));
    }
    Ok(text)
}

/// A time of day, or a span.
fn time(reader: &mut Reader) -> Result<String, Malformed> {
    let length = reader.u8("time")?;
    if !matches!(length, 0 | 8 | 12) {
        return Err(Malformed { field: "time" });
    }
    if length == 0 {
        return Ok("00:00:00".to_owned());
    }
    let sign = if reader.u8("time")? == 0 { "" } else { "-" };
    let days = u64::from(reader.u32("time")?);
    let hours = days * 24 + u64::from(reader.u8("time")?);
    let (minute, second) = (reader.u8("time")?, reader.u8("time")?);
    let mut text = format!("{sign}{hours:02}:{minute:02}:{second:02}");
    if length == 12 {
        text.push_str(&format!(".{:06}", reader.u32("time")?));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use expect_test::{Expect, expect};

    use super::*;

    fn read(code: u8, unsigned: u8, bytes: &[u8]) -> Result<(String, String), Malformed> {
        let kind = ValueType::read(&mut Reader::new(Bytes::copy_from_slice(&[code, unsigned])))?;
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
        let value = kind.value(&mut reader)?;
        reader.end("value")?;
        let shown = match value {
            ParameterValue::Null => "NULL".to_owned(),
            ParameterValue::Text(text) => text,
            ParameterValue::Binary(bytes) => format!("binary {:?}", bytes.escape_ascii().to_string()),
        };
        Ok((kind.name().into_owned(), shown))
    }

    fn check(values: &[(u8, u8, &[u8])], expected: Expect) {
        let mut shown = String::new();
        for (code, unsigned, bytes) in values {
            match read(*code, *unsigned, bytes) {
                Ok((kind, value)) => shown.push_str(&format!("{kind} {value}\n")),
                Err(malformed) => shown.push_str(&format!("{malformed}\n")),
            }
        }
        expected.assert_eq(&shown);
    }

    #[test]
    fn numbers_are_printed_as_the_server_does() {
        check(
            &[
                (1, 0, b"\xff"),
                (1, 0x80, b"\xff"),
                (2, 0, b"\x00\x80"),
                (3, 0x80, b"\xff\xff\xff\xff"),
                (8, 0, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
                (8, 0x80, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
                (5, 0, &0.1_f64.to_le_bytes()),
                (5, 0, &1e14_f64.to_le_bytes()),
                (5, 0, &1e15_f64.to_le_bytes()),
                (5, 0, &1.5e300_f64.to_le_bytes()),
                (5, 0, &1e-15_f64.to_le_bytes()),
                (5, 0, &(-1e-16_f64).to_le_bytes()),
                (5, 0, &(-0.0_f64).to_le_bytes()),
                (4, 0, &0.1_f32.to_le_bytes()),
                (0xf6, 0, b"\x0512.50"),
                (0x0d, 0, b"\xe8\x07"),
            ],
            expect![[r#"
                tinyint -1
                tinyint unsigned 255
                smallint -32768
                int unsigned 4294967295
                bigint 9223372036854775807
                bigint unsigned 18446744073709551615
                double 0.1
                double 100000000000000
                double 1e15
                double 1.5e300
                double 0.000000000000001
                double -1e-16
                double 0
                float 0.10000000149011612
                decimal 12.50
                year 2024
            "#]],
        );
    }

    #[test]
    fn dates_and_times_are_printed_in_each_of_their_lengths() {
        check(
            &[
                (0x0a, 0, b"\x00"),
                (0x0a, 0, b"\x04\xe8\x07\x02\x1d"),
                (0x0c, 0, b"\x00"),
                (0x0c, 0, b"\x04\xe8\x07\x02\x1d"),
                (0x0c, 0, b"\x07\xe8\x07\x02\x1d\x17\x3b\x3a"),
                (0x07, 0, b"\x0b\xe8\x07\x02\x1d\x17\x3b\x3a\x40\xe2\x01\x00"),
                (0x0b, 0, b"\x00"),
                (0x0b, 0, b"\x08\x01\x01\0\0\0\x02\x03\x04"),
                (0x0b, 0, b"\x0c\x00\x22\0\0\0\x16\x3b\x3b\x01\0\0\0"),
                (0x0c, 0, b"\x05\0\0\0\0\0"),
                (0x0b, 0, b"\x08\x01"),
            ],
            expect![[r#"
                date 0000-00-00
                date 2024-02-29
                datetime 0000-00-00 00:00:00
                datetime 2024-02-29 00:00:00
                datetime 2024-02-29 23:59:58
                timestamp 2024-02-29 23:59:58.123456
                time 00:00:00
                time -26:03:04
                time 838:59:59.000001
                the date is cut short or malformed
                the time is cut short or malformed
            "#]],
        );
    }

    #[test]
    fn strings_are_text_where_they_are_utf_8_and_of_no_binary_type() {
        check(
            &[
                (0xfd, 0, b"\x03\xc3\xa4b"),
                (0xfe, 0, b"\x01\xe4"),
                (0xfc, 0, b"\x02ab"),
                (0xf5, 0, b"\x02{}"),
                (0x06, 0, b""),
                (0xfd, 0, b"\x05ab"),
                (0x42, 0, b""),
            ],
            expect![[r#"
                varchar äb
                char binary "\\xe4"
                blob binary "ab"
                json {}
                null NULL
                the value is cut short or malformed
                the type is cut short or malformed
            "#]],
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise_than_by_an_error(code: u8, flags: u8, bytes: Vec<u8>) {
            let _ = read(code, flags, &bytes);
        }
    }
}
