//! A command as redis-cli would take it: the text of an operation.
//!
//! Long and binary arguments are shortened in it, with their length; the operation's parameters have them whole. The
//! name, which is no parameter, never is.

use std::fmt::Write as _;

/// How many bytes of a text are shown, and of an argument that is none.
const TEXT_SHOWN: usize = 1024;
const BINARY_SHOWN: usize = 32;
/// How long a line may become before further arguments are only counted.
const LINE_MAX: usize = 16 << 10;

/// Writes a line, argument by argument.
#[derive(Debug, Default)]
pub(super) struct Line {
    text: String,
    /// Arguments that are only counted.
    more: usize,
}

impl Line {
    /// The name, whole.
    pub(super) fn name(&mut self, name: &[u8]) {
        self.quoted(name, None);
    }

    pub(super) fn argument(&mut self, argument: &[u8]) {
        let shown = match std::str::from_utf8(argument) {
            Ok(text) if text.len() <= TEXT_SHOWN => argument,
            Ok(text) => text.get(..text.floor_char_boundary(TEXT_SHOWN)).unwrap_or_default().as_bytes(),
            Err(_) => argument.get(..BINARY_SHOWN).unwrap_or(argument),
        };
        let cut = (shown.len() < argument.len()).then_some(argument.len() as u64);
        if self.has_room() {
            self.text.push(' ');
            self.quoted(shown, cut);
        }
    }

    /// An argument of which only `kept` is recorded, and how many bytes the rest measures.
    pub(super) fn redacted(&mut self, kept: &[u8], length: usize) {
        if self.has_room() {
            self.text.push_str(" \"");
            self.escaped(kept);
            self.note(&format!("(redacted, {length} bytes)\""));
        }
    }

    /// An argument of so many bytes that is the operation's content, like all that follow.
    pub(super) fn content(&mut self, length: u64) {
        self.note(&format!(" \"({length} bytes and what follows, in the content)\""));
    }

    pub(super) fn end(mut self) -> String {
        if self.more > 0 {
            let more = self.more;
            self.note(&format!(" … ({more} more arguments)"));
        }
        self.text
    }

    fn has_room(&mut self) -> bool {
        let room = self.text.len() < LINE_MAX;
        self.more += usize::from(!room);
        room
    }

    fn note(&mut self, note: &str) {
        self.text.push_str(note);
    }

    /// As redis-cli takes it: bare where that reads the same, else between double quotes. `whole` is the length of what is
    /// not all here.
    fn quoted(&mut self, bytes: &[u8], whole: Option<u64>) {
        match std::str::from_utf8(bytes) {
            Ok(text) if whole.is_none() && !text.is_empty() && !text.bytes().any(needs_quotes) => {
                self.text.push_str(text);
                return;
            }
            _ => {}
        }
        self.text.push('"');
        self.escaped(bytes);
        if let Some(whole) = whole {
            // Writing to a string cannot fail.
            let _ = write!(self.text, "…({whole} bytes)");
        }
        self.text.push('"');
    }

    fn escaped(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\n' => self.text.push_str("\\n"),
                    '\r' => self.text.push_str("\\r"),
                    '\t' => self.text.push_str("\\t"),
                    '\u{7}' => self.text.push_str("\\a"),
                    '\u{8}' => self.text.push_str("\\b"),
                    '"' => self.text.push_str("\\\""),
                    '\\' => self.text.push_str("\\\\"),
                    control if control.is_ascii_control() => self.hexadecimal(&[control as u8]),
                    other => self.text.push(other),
                }
            }
            self.hexadecimal(chunk.invalid());
        }
    }

    fn hexadecimal(&mut self, bytes: &[u8]) {
        for byte in bytes {
            // Writing to a string cannot fail.
            let _ = write!(self.text, "\\x{byte:02x}");
        }
    }
}

const fn needs_quotes(byte: u8) -> bool {
    byte.is_ascii_control() || matches!(byte, b' ' | b'"' | b'\'' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&[u8]], expected: &str) {
        let mut line = Line::default();
        line.name(arguments[0]);
        for argument in &arguments[1..] {
            line.argument(argument);
        }
        assert_eq!(line.end(), expected);
    }

    #[test]
    fn a_line_is_what_redis_cli_takes() {
        check(&[b"SET", b"k", b"v"], "SET k v");
        check(&[b"SET", b"k", b""], "SET k \"\"");
        check(&[b"SET", "schl\u{fc}ssel".as_bytes(), b"two words"], "SET schl\u{fc}ssel \"two words\"");
        check(&[b"SET", b"k", b"\"q\" \\ \r\n\t\x07\x08\x00\x1b"], r#"SET k "\"q\" \\ \r\n\t\a\b\x00\x1b""#);
        check(&[b"SET", b"k", b"\xff\xfea"], r#"SET k "\xff\xfea""#);
        check(&[b"\xff"], r#""\xff""#);
    }

    #[test]
    fn long_and_binary_arguments_are_shortened_with_their_length() {
        let long = "ä".repeat(2000);
        let shown = "ä".repeat(512);
        check(&[b"SET", b"k", long.as_bytes()], &format!("SET k \"{shown}…(4000 bytes)\""));
        let shown = r"\xff".repeat(32);
        check(&[b"SET", b"k", &[0xff; 100]], &format!("SET k \"{shown}…(100 bytes)\""));
    }

    #[test]
    fn a_line_has_an_end() {
        let value = "v".repeat(1000);
        let mut line = Line::default();
        line.name(b"MSET");
        for _ in 0..1000 {
            line.argument(value.as_bytes());
        }
        let text = line.end();
        assert!(text.len() < LINE_MAX + 2000 && text.ends_with(" … (983 more arguments)"), "{}", text.len());
    }
}
