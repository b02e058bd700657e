//! What a line asks for, and the operation that is recorded for it.
//!
//! A line that announces data has to be exactly as the specification writes it. memcached itself takes `set k 0 0 +5`; a key
//! of 251 bytes it answers with an error, and then reads the data block behind it as commands. If gateway and target
//! disagreed on where the data ends, commands could reach the target as data that nobody decided on.

use verbatim_core::{ConnectionName, Operation, Parameter, ParameterValue, Refusal};

use crate::frame::Frame;

/// How long a key may be.
const KEY_MAX: usize = 250;
/// How many flags of an `ms` are taken: above 16, memcached drops the line and reads the data as commands.
const META_FLAGS_MAX: usize = 16;
/// How many words of a line are looked at; only keys to get are more.
const WORDS_MAX: usize = 24;
/// How a JSON Web Token begins.
const TOKEN_START: &[u8] = b"eyJ";

/// What is to be known of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Command {
    /// How many bytes of data follow its line.
    pub(crate) data: Option<u64>,
    /// What the target answers.
    pub(crate) reply: Reply,
    /// The gateway does not pass it on.
    pub(crate) unsupported: Option<&'static str>,
}

/// What the target answers to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// One answer.
    Due,
    /// An answer, or none where all is well (a meta command's `q`).
    Quiet,
    /// None (`noreply`); an error may come all the same.
    Never,
    /// The end of the stream (`quit`).
    End,
}

impl Command {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// What makes the line unreadable.
    pub(crate) fn read(line: &[u8]) -> Result<Self, &'static str> {
        if line.iter().any(u8::is_ascii_control) {
            return Err("a control character in a command line");
        }
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let verb = words.next().ok_or("an empty command line")?;
        let rest: Vec<&[u8]> = words.take(WORDS_MAX).collect();
        let noreply = if rest.last() == Some(&&b"noreply"[..]) { Reply::Never } else { Reply::Due };
        let quiet = match rest.iter().skip(1).any(|flag| flag.starts_with(b"q")) {
            true => Reply::Quiet,
            false => Reply::Due,
        };
        let (data, reply) = match verb {
            b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => {
                (Some(storage(verb, &rest)?), noreply)
            }
            b"ms" => (Some(meta_set(&rest)?), quiet),
            b"mg" | b"md" | b"ma" => (None, quiet),
            b"delete" | b"incr" | b"decr" | b"touch" | b"flush_all" | b"verbosity" => (None, noreply),
            b"get" | b"gets" | b"gat" | b"gats" | b"stats" | b"version" | b"mn" | b"me" => (None, Reply::Due),
            b"quit" => (None, Reply::End),
            _ => return Self::unsupported(verb).ok_or("an unknown command"),
        };
        Ok(Self { data, reply, unsupported: None })
    }

    fn unsupported(verb: &[u8]) -> Option<Self> {
        const NAMES: [&str; 8] = [
            "shutdown",
            "watch",
            "lru_crawler",
            "lru",
            "slabs",
            "cache_memlimit",
            "extstore",
            "refresh_certs",
        ];
        let name = NAMES.into_iter().find(|name| name.as_bytes() == verb)?;
        Some(Self { data: None, reply: Reply::Due, unsupported: Some(name) })
    }
}

/// `KEY FLAGS EXPTIME BYTES [UNIQUE] [noreply]`.
fn storage(verb: &[u8], rest: &[&[u8]]) -> Result<u64, &'static str> {
    let rest = rest.strip_suffix(&[&b"noreply"[..]]).unwrap_or(rest);
    let (key, flags, exptime, bytes) = match (verb, rest) {
        (b"cas", [key, flags, exptime, bytes, unique]) if number::<u64>(unique).is_some() => {
            (key, flags, exptime, bytes)
        }
        (b"cas", _) => return Err("cas takes a key, flags, an expiry, a length and a unique number"),
        (_, [key, flags, exptime, bytes]) => (key, flags, exptime, bytes),
        _ => return Err("a storage command takes a key, flags, an expiry and a length"),
    };
    let expiry = number::<i32>(exptime.strip_prefix(b"-").unwrap_or(exptime));
    if key.len() > KEY_MAX || number::<u32>(flags).is_none() || expiry.is_none() {
        return Err("a storage command whose key, flags or expiry memcached does not take");
    }
    length(bytes)
}

/// `KEY BYTES FLAG…`.
fn meta_set(rest: &[&[u8]]) -> Result<u64, &'static str> {
    match rest {
        [key, bytes, flags @ ..] if key.len() <= KEY_MAX && flags.len() <= META_FLAGS_MAX => length(bytes),
        _ => Err("ms takes a key, a length and at most 16 flags"),
    }
}

fn length(digits: &[u8]) -> Result<u64, &'static str> {
    number::<i32>(digits).and_then(|length| u64::try_from(length).ok()).ok_or("no length of a data block")
}

/// Digits and nothing else.
fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// What is recorded of a frame.
pub(crate) fn operation(frame: &Frame, sequence: u64) -> Operation {
    let mut operation = Operation { text: Some(frame.line.clone()), ..Operation::new(sequence, "command") };
    let unsupported = |what: &'static str| Refusal::Unsupported { what: what.into() };
    operation.refused = frame.refused.clone().or_else(|| frame.command.unsupported.map(unsupported));
    if let Some(data) = &frame.data {
        let value = match std::str::from_utf8(data) {
            _ if is_login(data) => {
                // A token goes neither into the record nor to the target.
                operation.refused.get_or_insert_with(|| unsupported("a login in an open session"));
                ParameterValue::Text(format!("redacted, {} bytes", data.len()))
            }
            Ok(text) => ParameterValue::Text(text.to_owned()),
            Err(_) => ParameterValue::Binary(data.clone()),
        };
        operation.parameters = Some(vec![Parameter { type_name: "data".into(), value }]);
    }
    operation
}

/// `CONNECTION TOKEN`: a client that logs in once more.
fn is_login(data: &[u8]) -> bool {
    let Some((connection, token)) = split_login(data) else { return false };
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let named = std::str::from_utf8(connection).is_ok_and(|name| name.parse::<ConnectionName>().is_ok());
    named && token.starts_with(TOKEN_START) && token.iter().all(legal)
}

/// A login's user word, and what is behind it.
pub(crate) fn split_login(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let (user, rest) = data.split_at_checked(space)?;
    Some((user, rest.strip_prefix(b" ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<(Option<u64>, Reply), &str>) {
        let read = Command::read(line.as_bytes()).map(|command| (command.data, command.reply));
        assert_eq!(read, expected, "{line:?}");
    }

    #[test]
    fn a_line_says_how_much_data_follows_and_whether_an_answer_does() {
        check("get a", Ok((None, Reply::Due)));
        check("get noreply", Ok((None, Reply::Due)));
        check("  set  a 0 -1   5 ", Ok((Some(5), Reply::Due)));
        check("append a 4294967295 0 0 noreply", Ok((Some(0), Reply::Never)));
        check("cas a 0 0 5 18446744073709551615 noreply", Ok((Some(5), Reply::Never)));
        check("delete a noreply", Ok((None, Reply::Never)));
        check("ms a 5 T0 q", Ok((Some(5), Reply::Quiet)));
        check("mg q v", Ok((None, Reply::Due)));
        check("mg a q v", Ok((None, Reply::Quiet)));
        check("mn", Ok((None, Reply::Due)));
        check("quit", Ok((None, Reply::End)));
        assert_eq!(Command::read(b"shutdown graceful").unwrap().unsupported, Some("shutdown"));
    }

    /// Some of these memcached takes all the same; behind the others it reads the data block as commands.
    #[test]
    fn a_line_whose_data_could_be_read_as_commands_is_unreadable() {
        let long = "k".repeat(KEY_MAX + 1);
        let flags = " c".repeat(META_FLAGS_MAX + 1);
        for line in [
            "set a 0 0",
            "set a 0 0 5 9",
            "set a 0 0 5 noreply noreply",
            "set a 0 0 +5",
            "set a 0 0 -5",
            "set a 0 0 5x",
            "set a 0 0 2147483648",
            "set a 4294967296 0 5",
            "set a -1 0 5",
            "set a 0 2147483648 5",
            "set a 0 0 5\t",
            "set a 0 0 5\0",
            "cas a 0 0 5",
            "cas a 0 0 5 18446744073709551616",
            "ms a",
            "ms a S5",
            &format!("set {long} 0 0 5"),
            &format!("ms {long} 5"),
            &format!("ms a 5{flags}"),
            "SET a 0 0 5",
            "POST / HTTP/1.1",
            "",
            " ",
        ] {
            assert!(Command::read(line.as_bytes()).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_login_in_an_open_session_is_told_from_other_data() {
        assert!(is_login(b"cache eyJhbGciOiJSUzI1NiJ9.eyJzdWIi.c2ln"));
        for other in [&b"eyJhbGciOiJSUzI1NiJ9"[..], b"cache secret", b"{\"a\": \"eyJ\"}", b"a eyJ b", b""] {
            assert!(!is_login(other), "{}", other.escape_ascii());
        }
    }
}
