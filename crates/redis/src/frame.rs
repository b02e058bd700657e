//! One request of the client: an array of bulk strings, or an inline line.
//!
//! ```text
//! *3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n        SET k value\r\n
//! ```
//!
//! Lengths are read as the server reads them (no sign but `-`, no leading zeros) and checked against what is allowed
//! before anything is kept. Only lengths say where something ends: what an argument holds is never looked into for
//! that. Where the server is lenient (it skips the two bytes behind an argument unread), the gateway is not, since a
//! request that can be read in two ways is refused. What has not arrived yet is a value, not an error.
//! (Redis serialization protocol specification; `processMultibulkBuffer` and `processInlineBuffer` of `networking.c`.)

use std::borrow::Cow;

use verbatim_core::Refusal;

/// How long an inline line may be (`PROTO_INLINE_MAX_SIZE`).
pub(crate) const INLINE_MAX: usize = 64 << 10;
/// How much of a request is held before it is decided; what is longer streams.
pub(crate) const WHOLE_MAX: usize = 1 << 20;
/// How many arguments of a request are held.
pub(crate) const ARGUMENTS_MAX: usize = 64 << 10;
/// For how many arguments room is kept between requests.
const ARGUMENTS_KEPT: usize = 64;
/// A length's sign and digits.
const NUMBER_MAX: usize = 20;
/// What an argument takes at least: `$0\r\n\r\n`.
const ARGUMENT_MIN: u64 = 6;

/// What a request may measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// All of it, in bytes.
    pub(crate) bytes: u64,
    /// How many arguments, the name among them.
    pub(crate) arguments: u64,
    /// One argument, in bytes.
    pub(crate) argument: u64,
    /// An inline line, in bytes.
    pub(crate) inline: usize,
    /// Nobody is logged in: what is over a limit is called as the server calls it then, and nothing streams.
    pub(crate) unauthenticated: bool,
}

impl Limits {
    /// Those of a session.
    pub(crate) const fn session(bytes: u64) -> Self {
        Self {
            bytes,
            arguments: i32::MAX as u64,
            argument: bytes,
            inline: INLINE_MAX,
            unauthenticated: false,
        }
    }

    /// Those before a login, as the server has them, but for the length of a token.
    pub(crate) const fn login(token: usize) -> Self {
        Self {
            bytes: 2 * token as u64 + 4096,
            arguments: 10,
            argument: token as u64,
            inline: token + 1024,
            unauthenticated: true,
        }
    }
}

/// What is at the front of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Not all of a request.
    Incomplete,
    /// A request that asks for nothing (an empty line, `*0`): the server has no answer to it.
    Nothing,
    /// A request, whole.
    Command,
    /// A request whose next argument, of so many bytes, is not held: see [`Requests::rest`].
    Large(u64),
}

/// An argument: where it lies, or what an inline line made of it.
#[derive(Debug)]
enum Argument {
    Span(usize, usize),
    Text(Vec<u8>),
}

/// Reads requests, one after the other, from bytes that come in pieces; what was read of an incomplete one is not read
/// again.
#[derive(Debug)]
pub(crate) struct Requests {
    limits: Limits,
    /// Where the current request begins, and where reading goes on.
    start: usize,
    at: usize,
    /// Arguments to come; none before the count was read.
    left: Option<u64>,
    arguments: Vec<Argument>,
    /// How many bytes must be there before reading on makes sense.
    wanted: usize,
    finished: bool,
}

impl Requests {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self { limits, start: 0, at: 0, left: None, arguments: Vec::new(), wanted: 0, finished: true }
    }

    /// Reads on. After [`Next::Command`] and [`Next::Nothing`] the following call reads what follows.
    ///
    /// # Errors
    /// The bytes are no request, or one over a limit. Nothing behind them can be read.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<Next, Refusal> {
        if self.finished {
            self.start = self.at;
            self.left = None;
            self.arguments.clear();
            // A session idles more than it works.
            self.arguments.shrink_to(ARGUMENTS_KEPT);
            self.finished = false;
        }
        loop {
            let Some(left) = self.left else {
                match input.get(self.at) {
                    None => return Ok(Next::Incomplete),
                    Some(b'*') => {}
                    Some(_) => return self.inline(input),
                }
                let Some((count, after)) = header(input, self.at, "invalid multibulk length")? else {
                    return Ok(Next::Incomplete);
                };
                let count = u64::try_from(count).unwrap_or(0);
                self.check_count(count)?;
                self.at = after;
                if count == 0 {
                    self.finished = true;
                    return Ok(Next::Nothing);
                }
                self.left = Some(count);
                continue;
            };
            if left == 0 {
                self.finished = true;
                return Ok(Next::Command);
            }
            match input.get(self.at) {
                None => return Ok(Next::Incomplete),
                Some(b'$') => {}
                Some(other) => return Err(expected_bulk(*other)),
            }
            let Some((length, after)) = header(input, self.at, "invalid bulk length")? else {
                return Ok(Next::Incomplete);
            };
            let length = self.check_length(length, after)?;
            let end = usize::try_from(length).ok().and_then(|length| after.checked_add(length));
            let whole = end.and_then(|end| end.checked_add(2));
            let held = whole.is_some_and(|whole| whole - self.start <= WHOLE_MAX);
            let few = self.arguments.len() < ARGUMENTS_MAX;
            let (Some(end), Some(whole), true) = (end, whole, held && few || self.limits.unauthenticated)
            else {
                return Ok(Next::Large(length));
            };
            match input.get(end..whole) {
                None => {
                    self.wanted = whole;
                    return Ok(Next::Incomplete);
                }
                Some(b"\r\n") => {}
                Some(_) => return Err(protocol("no CRLF behind a bulk string")),
            }
            self.arguments.push(Argument::Span(after, end));
            self.at = whole;
            self.left = Some(left - 1);
        }
    }

    fn check_count(&self, count: u64) -> Result<(), Refusal> {
        if count > self.limits.arguments {
            return Err(protocol(match self.limits.unauthenticated {
                true => "unauthenticated multibulk length",
                false => "invalid multibulk length",
            }));
        }
        let length = count.saturating_mul(ARGUMENT_MIN);
        if length > self.limits.bytes {
            return Err(Refusal::TooLarge { length, limit: self.limits.bytes });
        }
        Ok(())
    }

    /// Checks an argument's length; `after` is where it begins.
    fn check_length(&self, length: i64, after: usize) -> Result<u64, Refusal> {
        let length = u64::try_from(length).map_err(|_| protocol("invalid bulk length"))?;
        if length > self.limits.argument && self.limits.unauthenticated {
            return Err(protocol("unauthenticated bulk length"));
        }
        let all = ((after - self.start) as u64).saturating_add(length);
        if all > self.limits.bytes {
            return Err(Refusal::TooLarge { length: all, limit: self.limits.bytes });
        }
        Ok(length)
    }

    fn inline(&mut self, input: &[u8]) -> Result<Next, Refusal> {
        let rest = input.get(self.start..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', rest) else {
            if rest.len() > self.limits.inline {
                return Err(protocol("too big inline request"));
            }
            return Ok(Next::Incomplete);
        };
        let line = rest.get(..end).unwrap_or_default();
        if line.len() > self.limits.inline {
            return Err(protocol("too big inline request"));
        }
        self.arguments = split(line)?.into_iter().map(Argument::Text).collect();
        self.at = self.start + end + 1;
        self.finished = true;
        Ok(if self.arguments.is_empty() { Next::Nothing } else { Next::Command })
    }

    /// The arguments read so far, the name first; those of a whole request after [`Next::Command`].
    pub(crate) fn arguments<'a>(&'a self, input: &'a [u8]) -> Vec<&'a [u8]> {
        let one = |argument: &'a Argument| match argument {
            Argument::Span(from, to) => input.get(*from..*to).unwrap_or_default(),
            Argument::Text(text) => text,
        };
        self.arguments.iter().map(one).collect()
    }

    /// Where the request begins that was read last.
    pub(crate) const fn start(&self) -> usize {
        self.start
    }

    /// Where reading goes on: behind the request that was read last.
    pub(crate) const fn end(&self) -> usize {
        self.at
    }

    /// `bytes` were taken from the front of the input, up to which everything was read.
    pub(crate) fn taken(&mut self, bytes: usize) {
        self.at = self.at.saturating_sub(bytes);
        self.start = self.start.saturating_sub(bytes);
        self.wanted = self.wanted.saturating_sub(bytes);
        for argument in &mut self.arguments {
            if let Argument::Span(from, to) = argument {
                *from = from.saturating_sub(bytes);
                *to = to.saturating_sub(bytes);
            }
        }
    }

    /// How many bytes are still to come before something can be read, as far as that is known.
    pub(crate) const fn lacking(&self, have: usize) -> usize {
        self.wanted.saturating_sub(have)
    }

    /// After [`Next::Large`]: what is to come of the request, from [`end`](Self::end) on. The next request is read as if
    /// it began there once that is taken from the input.
    pub(crate) fn rest(&mut self) -> Rest {
        let left = self.left.take().unwrap_or_default();
        let bytes = (self.at - self.start) as u64;
        self.finished = true;
        Rest { left, payload: 0, ending: false, bytes, limit: self.limits.bytes }
    }
}

/// The rest of a request that is not held: walked by length.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Arguments to come, the current one among them.
    left: u64,
    /// Bytes of the current argument to come.
    payload: u64,
    /// The current argument's CRLF is to come.
    ending: bool,
    /// All of the request so far.
    bytes: u64,
    limit: u64,
}

impl Rest {
    /// How many of `input`'s bytes belong to the request and were read, and whether it ends there. A header of which only
    /// a part is there is not read.
    ///
    /// # Errors
    /// As [`Requests::next`].
    pub(crate) fn walk(&mut self, input: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        loop {
            if self.payload > 0 {
                let there = (input.len() - at) as u64;
                let step = self.payload.min(there);
                self.payload -= step;
                // At most the length of the input.
                at += usize::try_from(step).unwrap_or(0);
                if self.payload > 0 {
                    return Ok((at, false));
                }
            }
            if self.ending {
                match input.get(at..at + 2) {
                    None => return Ok((at, false)),
                    Some(b"\r\n") => {}
                    Some(_) => return Err(protocol("no CRLF behind a bulk string")),
                }
                at += 2;
                self.ending = false;
                self.left = self.left.saturating_sub(1);
            }
            if self.left == 0 {
                return Ok((at, true));
            }
            match input.get(at) {
                None => return Ok((at, false)),
                Some(b'$') => {}
                Some(other) => return Err(expected_bulk(*other)),
            }
            let Some((length, after)) = header(input, at, "invalid bulk length")? else {
                return Ok((at, false));
            };
            let length = u64::try_from(length).map_err(|_| protocol("invalid bulk length"))?;
            self.bytes = self.bytes.saturating_add(length).saturating_add((after - at) as u64 + 2);
            if self.bytes > self.limit {
                return Err(Refusal::TooLarge { length: self.bytes, limit: self.limit });
            }
            at = after;
            self.payload = length;
            self.ending = true;
        }
    }
}

pub(crate) fn protocol(reason: &'static str) -> Refusal {
    Refusal::Protocol { reason: Cow::Borrowed(reason) }
}

fn expected_bulk(got: u8) -> Refusal {
    Refusal::Protocol { reason: format!("expected '$', got '{}'", got.escape_ascii()).into() }
}

/// The number behind the type byte at `at`, and where its line ends; none until that is there.
pub(crate) fn header(bytes: &[u8], at: usize, wrong: &'static str) -> Result<Option<(i64, usize)>, Refusal> {
    let rest = bytes.get(at + 1..).unwrap_or_default();
    let window = rest.get(..NUMBER_MAX + 2).unwrap_or(rest);
    let Some(end) = memchr::memchr(b'\r', window) else {
        return if window.len() > NUMBER_MAX { Err(protocol(wrong)) } else { Ok(None) };
    };
    match window.get(end + 1) {
        None if rest.len() > end + 1 => Err(protocol(wrong)),
        None => Ok(None),
        Some(b'\n') => {
            let number = window.get(..end).and_then(number).ok_or_else(|| protocol(wrong))?;
            Ok(Some((number, at + end + 3)))
        }
        Some(_) => Err(protocol(wrong)),
    }
}

/// A number as the server reads it (`string2ll`).
pub(crate) fn number(digits: &[u8]) -> Option<i64> {
    let plain = match digits {
        [b'-', rest @ ..] => rest,
        all => all,
    };
    let canonical = match plain {
        [b'0'] => digits.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The words of an inline line, as the server splits it (`sdssplitargs`): quotes as in a shell, with C's escapes between
/// double ones.
fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    // The server's own search for the end of the line stops at a NUL.
    if line.contains(&0) {
        return Err(protocol("a NUL in an inline request"));
    }
    let unbalanced = || protocol("unbalanced quotes in request");
    let mut words = Vec::new();
    let mut rest = line.iter().copied().peekable();
    loop {
        while rest.next_if(|byte| is_space(*byte)).is_some() {}
        if rest.peek().is_none() {
            return Ok(words);
        }
        let mut word = Vec::new();
        let mut quote = None;
        loop {
            match (quote, rest.next()) {
                (Some(_), None) => return Err(unbalanced()),
                (None, None) => break,
                (Some(open), Some(byte)) if byte == open => {
                    // Something has to separate it from what follows.
                    if rest.peek().is_some_and(|next| !is_space(*next)) {
                        return Err(unbalanced());
                    }
                    break;
                }
                (Some(b'"'), Some(b'\\')) => word.push(escaped(&mut rest).ok_or_else(unbalanced)?),
                (Some(b'\''), Some(b'\\')) if rest.peek() == Some(&b'\'') => {
                    rest.next();
                    word.push(b'\'');
                }
                (Some(_), Some(byte)) => word.push(byte),
                (None, Some(byte)) if is_space(byte) => break,
                (None, Some(open @ (b'"' | b'\''))) => quote = Some(open),
                (None, Some(byte)) => word.push(byte),
            }
        }
        words.push(word);
    }
}

fn escaped(rest: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>) -> Option<u8> {
    let digit =
        |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8);
    Some(match rest.next()? {
        b'x' => {
            let mut ahead = rest.clone();
            match (digit(ahead.next()), digit(ahead.next())) {
                (Some(high), Some(low)) => {
                    *rest = ahead;
                    high << 4 | low
                }
                _ => b'x',
            }
        }
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    })
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests;
