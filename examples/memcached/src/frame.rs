//! One command of the client: its line, and the data block where one belongs to it.
//!
//! ```text
//! get a b\r\n                     set a 0 0 5\r\nhello\r\n
//! ```
//!
//! A line ends at the first `\n`, with or without a `\r` before it, as memcached reads it; a data block by its length, and
//! only `\r\n` may stand behind it. What has not arrived yet is a value, not an error.

use bytes::{Bytes, BytesMut};
use verbatim_core::Refusal;

use crate::operation::{Command, Reply};

/// How long a line may be, with its end.
pub(crate) const LINE_MAX: usize = 2048;
/// How long one that gets many keys may be.
const GET_LINE_MAX: usize = 256 << 10;
/// How much of a data block is held; a longer one streams.
pub(crate) const DATA_HELD_MAX: u64 = 64 << 10;
/// What ends a data block.
pub(crate) const DATA_END: &[u8] = b"\r\n";

/// A command of the client.
pub(crate) struct Frame {
    /// As it came: the line, and the data block unless that streams.
    pub(crate) bytes: Bytes,
    /// The line without its end.
    pub(crate) line: Bytes,
    /// The data block without its end, if it is held.
    pub(crate) data: Option<Bytes>,
    /// What it asks for.
    pub(crate) command: Command,
    /// So many bytes of data follow, and their end.
    pub(crate) streams: Option<u64>,
    /// Nobody can read what it is, or what comes after it.
    pub(crate) refused: Option<Refusal>,
}

impl Frame {
    /// Whether nothing can be taken from the client's bytes before this one is done with.
    pub(crate) const fn is_last(&self) -> bool {
        self.streams.is_some() || self.refused.is_some() || matches!(self.command.reply, Reply::End)
    }
}

/// Takes the next command from what was read, if all of it is there. `message_max` is how long a data block may be.
pub(crate) fn next(input: &mut BytesMut, message_max: u64) -> Option<Frame> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return (input.len() >= line_max(input))
            .then(|| broken(input.split().freeze(), protocol("a line without an end")));
    };
    if end >= line_max(input) {
        return Some(broken(input.split_to(end + 1).freeze(), protocol("a line over the limit")));
    }
    let command = match Command::read(without_end(input.get(..=end)?)) {
        Ok(command) => command,
        Err(reason) => return Some(broken(input.split_to(end + 1).freeze(), protocol(reason))),
    };
    let held = match command.data {
        Some(length) if length > message_max => {
            let refusal = Refusal::TooLarge { length, limit: message_max };
            return Some(broken(input.split_to(end + 1).freeze(), refusal));
        }
        Some(length) if length <= DATA_HELD_MAX => Some(usize::try_from(length).ok()?),
        _ => None,
    };
    let whole = end + 1 + held.map_or(0, |length| length + DATA_END.len());
    if input.len() < whole {
        return None;
    }
    let bytes = input.split_to(whole).freeze();
    let line = bytes.slice_ref(without_end(bytes.get(..=end)?));
    let data = held.map(|length| bytes.slice(end + 1..end + 1 + length));
    let refused = (data.is_some() && !bytes.ends_with(DATA_END)).then(|| protocol(BAD_END));
    Some(Frame { bytes, line, data, command, streams: command.data.filter(|_| held.is_none()), refused })
}

/// The length of the login that a line announces, read before anybody is let in; none where the line is another command.
pub(crate) fn login_length(line: &[u8]) -> Option<u64> {
    let line = without_end(line);
    let command = Command::read(line).ok().filter(|command| command.reply == Reply::Due)?;
    command.data.filter(|_| line.starts_with(b"set "))
}

/// memcached takes the bytes of a data block that does not end as it should, and goes on behind them. What a client meant
/// that got its length wrong is another question.
pub(crate) const BAD_END: &str = "a data block that is longer or shorter than its line says";

/// The line without `\n` or `\r\n`.
pub(crate) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn line_max(input: &[u8]) -> usize {
    let many = [&b"get "[..], b"gets "].iter().any(|verb| input.starts_with(verb));
    if many { GET_LINE_MAX } else { LINE_MAX }
}

fn protocol(reason: &'static str) -> Refusal {
    Refusal::Protocol { reason: reason.into() }
}

/// What cannot be read is recorded as the bytes that it is.
fn broken(bytes: Bytes, refusal: Refusal) -> Frame {
    let command = Command { data: None, reply: Reply::Due, unsupported: None };
    let line = bytes.slice_ref(without_end(&bytes));
    Frame { bytes, line, data: None, command, streams: None, refused: Some(refusal) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MESSAGE_MAX: u64 = 1 << 20;

    /// What came of the bytes, a line each.
    fn read(input: &mut BytesMut, shown: &mut String) -> bool {
        while let Some(frame) = next(input, MESSAGE_MAX) {
            let refused = frame.refused.as_ref().map(Refusal::reason);
            let data = frame.data.as_ref().map(|data| data.escape_ascii().to_string());
            *shown += &format!("{:?} {data:?} {:?} {refused:?}\n", frame.line.escape_ascii(), frame.streams);
            if frame.is_last() {
                return false;
            }
        }
        true
    }

    fn shown(bytes: &[u8]) -> String {
        let mut shown = String::new();
        read(&mut BytesMut::from(bytes), &mut shown);
        shown
    }

    #[test]
    fn commands_are_the_same_however_they_are_split() {
        let bytes = b"get a b\r\nset a 0 0 5\r\nhe\r\no\r\nversion\nms b 0 q\r\n\r\nset c 0 0 1\r\nxy\r\n";
        let whole = shown(bytes);
        assert_eq!(whole.lines().count(), 5, "{whole}");
        assert!(whole.ends_with(&format!("Some({:?})\n", protocol(BAD_END).reason())), "{whole}");
        for split in 0..=bytes.len() {
            let (mut input, mut parts) = (BytesMut::new(), String::new());
            for part in [&bytes[..split], &bytes[split..]] {
                input.extend_from_slice(part);
                if !read(&mut input, &mut parts) {
                    break;
                }
            }
            assert_eq!(parts, whole, "split at {split}");
        }
        let (mut input, mut bytewise) = (BytesMut::new(), String::new());
        for byte in bytes {
            input.extend_from_slice(&[*byte]);
            if !read(&mut input, &mut bytewise) {
                break;
            }
        }
        assert_eq!(bytewise, whole);
    }

    #[test]
    fn limits_hold_before_anything_is_kept() {
        let refused =
            |bytes: &[u8]| next(&mut BytesMut::from(bytes), MESSAGE_MAX).unwrap().refused.unwrap().code();
        assert_eq!(refused(&[b'a'; LINE_MAX]), "protocol");
        assert_eq!(refused(format!("delete {}\r\n", "a".repeat(LINE_MAX)).as_bytes()), "protocol");
        assert_eq!(refused(b"set a 0 0 1048577\r\n"), "too_large");
        assert_eq!(refused(b"set a 0 0 99999999999999999999\r\n"), "protocol");
        let many = format!("get{}\r\n", " key".repeat(10_000));
        assert!(next(&mut BytesMut::from(many.as_bytes()), MESSAGE_MAX).unwrap().refused.is_none());
        assert_eq!(refused(format!("get {}", "a".repeat(GET_LINE_MAX)).as_bytes()), "protocol");
        let long = next(&mut BytesMut::from(&b"set a 0 0 65537\r\nxx"[..]), MESSAGE_MAX).unwrap();
        assert_eq!((long.streams, &long.bytes[..]), (Some(65_537), &b"set a 0 0 65537\r\n"[..]));
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_came(bytes in "([gs]et |\\r\\n|[a-c0-9 ]|[a-z]{1,4} |\\PC){0,40}") {
            let mut input = BytesMut::from(bytes.as_bytes());
            let mut seen = Vec::new();
            while let Some(frame) = next(&mut input, MESSAGE_MAX) {
                seen.extend_from_slice(&frame.bytes);
            }
            seen.extend_from_slice(&input);
            prop_assert_eq!(seen, bytes.into_bytes());
        }
    }
}
