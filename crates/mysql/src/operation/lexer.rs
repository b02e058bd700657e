//! As much of SQL as the wire depends on: whether a statement asks for a file of the client, and whether it is a KILL.
//!
//! Comments are skipped but for those that a server executes (`/*!50000 … */`, `/*M!100000 … */`), whose version is not
//! looked at. What nobody but a parser could tell is not told: a file that is asked for otherwise is refused.

use bytes::Bytes;

/// A file that a statement asks for: as it is written, and with its escapes resolved (`NO_BACKSLASH_ESCAPES` decides
/// which of them the server means).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    written: Vec<u8>,
    resolved: Vec<u8>,
}

impl File {
    /// Whether this is the name that the server asks for.
    pub(crate) fn is(&self, name: &[u8]) -> bool {
        self.written == name || self.resolved == name
    }
}

/// A KILL of a statement or a session, alone in its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) thread_id: u32,
    /// The statement alone, not the session.
    pub(crate) query: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a [u8]),
    Text(&'a [u8]),
    Other(u8),
}

impl Token<'_> {
    fn is(&self, word: &[u8]) -> bool {
        matches!(self, Self::Word(found) if found.eq_ignore_ascii_case(word))
    }
}

/// The files of the client that `LOAD DATA LOCAL INFILE` and `LOAD XML LOCAL INFILE` in this text ask for.
pub(crate) fn local_files(text: &Bytes) -> Vec<File> {
    const WORD: &[u8] = b"infile";
    let mentioned = memchr::memchr2_iter(b'i', b'I', text)
        .any(|at| text.get(at..at + WORD.len()).is_some_and(|found| found.eq_ignore_ascii_case(WORD)));
    if !mentioned {
        return Vec::new();
    }
    let mut files = Vec::new();
    let mut tokens = Tokens { rest: text }.peekable();
    while let Some(token) = tokens.next() {
        if !token.is(b"load") || tokens.next_if(|next| next.is(b"data") || next.is(b"xml")).is_none() {
            continue;
        }
        let _ = tokens.next_if(|next| next.is(b"low_priority") || next.is(b"concurrent"));
        let local = tokens.next_if(|next| next.is(b"local")).is_some();
        if local
            && tokens.next_if(|next| next.is(WORD)).is_some()
            && let Some(Token::Text(written)) = tokens.peek()
        {
            files.push(File { written: unquoted(written, false), resolved: unquoted(written, true) });
        }
    }
    files
}

/// The KILL that this text is, if it is nothing else.
pub(crate) fn kill(text: &[u8]) -> Option<Kill> {
    const LONGEST: usize = 256;
    if text.len() > LONGEST {
        return None;
    }
    let mut tokens = Tokens { rest: text }.peekable();
    if !tokens.next()?.is(b"kill") {
        return None;
    }
    let _ = tokens.next_if(|next| next.is(b"hard") || next.is(b"soft"));
    let query = tokens.next_if(|next| next.is(b"query")).is_some();
    if !query {
        let _ = tokens.next_if(|next| next.is(b"connection"));
    }
    let Token::Word(digits) = tokens.next()? else { return None };
    let thread_id = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let _ = tokens.next_if(|next| *next == Token::Other(b';'));
    tokens.next().is_none().then_some(Kill { thread_id, query })
}

/// A string without its quotes' doubling and, where they count, its escapes.
fn unquoted(written: &[u8], escapes: bool) -> Vec<u8> {
    let (Some(&quote), Some(inner)) = (written.first(), written.get(1..written.len().saturating_sub(1)))
    else {
        return Vec::new();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if escapes => match bytes.next() {
                Some(b'n') => out.push(b'\n'),
                Some(b't') => out.push(b'\t'),
                Some(b'r') => out.push(b'\r'),
                Some(b'b') => out.push(8),
                Some(b'0') => out.push(0),
                Some(b'Z') => out.push(26),
                Some(escaped @ (b'%' | b'_')) => out.extend([b'\\', escaped]),
                Some(escaped) => out.push(escaped),
                None => {}
            },
            _ if byte == quote && bytes.next_if_eq(&quote).is_some() => out.push(quote),
            _ => out.push(byte),
        }
    }
    out
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    fn skip(&mut self, length: usize) -> &'a [u8] {
        let (skipped, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        skipped
    }

    fn skip_past(&mut self, end: &[u8]) {
        let length = memchr::memmem::find(self.rest, end).map_or(self.rest.len(), |at| at + end.len());
        self.skip(length);
    }

    /// A string or a quoted name, its quotes included.
    fn quoted(&mut self, quote: u8) -> &'a [u8] {
        let mut at = 1;
        while let Some(&byte) = self.rest.get(at) {
            at += 1;
            if byte == b'\\' && quote != b'`' {
                at += 1;
            } else if byte == quote {
                if self.rest.get(at) != Some(&quote) {
                    break;
                }
                at += 1;
            }
        }
        self.skip(at)
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            match self.rest {
                [] => return None,
                [b' ' | b'\t'..=b'\r' | 0, ..] => drop(self.skip(1)),
                [b'#', ..] | [b'-', b'-'] | [b'-', b'-', 0..=b' ', ..] => self.skip_past(b"\n"),
                // What a server executes is read as if the comment's signs were not there.
                [b'/', b'*', b'!', ..] | [b'/', b'*', b'M', b'!', ..] => {
                    let signs = if self.rest.get(2) == Some(&b'!') { 3 } else { 4 };
                    self.skip(signs);
                    let digits = self.rest.iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
                    self.skip(digits);
                }
                [b'*', b'/', ..] => drop(self.skip(2)),
                [b'/', b'*', ..] => {
                    self.skip(2);
                    self.skip_past(b"*/");
                }
                [quote @ (b'\'' | b'"'), ..] => return Some(Token::Text(self.quoted(*quote))),
                [b'`', ..] => {
                    self.quoted(b'`');
                    return Some(Token::Other(b'`'));
                }
                [byte, ..] if is_word(*byte) => {
                    let length = self.rest.iter().take_while(|byte| is_word(**byte)).count();
                    return Some(Token::Word(self.skip(length)));
                }
                [byte, ..] => {
                    let byte = *byte;
                    self.skip(1);
                    return Some(Token::Other(byte));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> Vec<String> {
        let found = local_files(&Bytes::copy_from_slice(text.as_bytes()));
        found.into_iter().map(|file| String::from_utf8(file.resolved).unwrap()).collect()
    }

    #[test]
    fn a_statement_asks_for_a_file_only_where_it_says_so() {
        assert_eq!(files("LOAD DATA LOCAL INFILE '/tmp/a.csv' INTO TABLE t"), ["/tmp/a.csv"]);
        assert_eq!(files("SELECT 1;load/**/xml low_priority\nlocal infile\"b\"\"c\" into table t"), ["b\"c"]);
        assert_eq!(
            files("/*!50000 LOAD DATA */ LOCAL /*M!100100 INFILE*/ 'a\\\\b\\'c' INTO TABLE t"),
            ["a\\b'c"]
        );
        assert_eq!(files("-- x\nLOAD DATA CONCURRENT LOCAL INFILE 'a' REPLACE INTO TABLE t"), ["a"]);
        for none in [
            "LOAD DATA INFILE '/etc/passwd' INTO TABLE t",
            "SELECT 'LOAD DATA LOCAL INFILE \\'x\\' '",
            "SELECT 1 -- LOAD DATA LOCAL INFILE 'x'",
            "SELECT 1 /* LOAD DATA LOCAL INFILE 'x' */",
            "SELECT `LOAD DATA LOCAL INFILE 'x'`",
            "LOAD DATA LOCAL INFILE",
            "LOAD DATA LOCAL INFILE x",
        ] {
            assert_eq!(files(none), [""; 0], "{none}");
        }
        let file = &local_files(&Bytes::from_static(br"LOAD DATA LOCAL INFILE 'C:\temp\x' INTO TABLE t"))[0];
        assert!(file.is(br"C:\temp\x") && file.is(b"C:\tempx") && !file.is(b"/etc/passwd"));
    }

    #[test]
    fn a_kill_is_read_alone() {
        let of = |text: &str| kill(text.as_bytes()).map(|kill| (kill.thread_id, kill.query));
        assert_eq!(of("KILL 7"), Some((7, false)));
        assert_eq!(of("kill query 7;"), Some((7, true)));
        assert_eq!(of("KILL /* now */ SOFT CONNECTION 7 -- please"), Some((7, false)));
        for none in [
            "KILL",
            "KILL x",
            "KILL 7; SELECT 1",
            "KILL QUERY ID 7",
            "SELECT 1",
            "KILL 4294967296",
            "KILL 1+1",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_fail(text: Vec<u8>) {
            let _ = (local_files(&text.clone().into()), kill(&text));
            assert!(Tokens { rest: &text }.count() <= text.len());
        }

        #[test]
        fn no_sql_makes_it_fail(text in "(LOAD|DATA|LOCAL|INFILE|'|\"|`|/\\*!|\\*/|--|#|\\\\| |\n){0,30}") {
            let _ = local_files(&text.into_bytes().into());
        }
    }
}
