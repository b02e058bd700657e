//! What SQL itself does to the names that the protocol uses: `PREPARE`, `DEALLOCATE`, `DECLARE`, `DISCARD ALL`.
//!
//! The target's tags say which of these ran, the text says of which name. Only what stands at the beginning of a statement
//! counts, as in the server's grammar; strings, comments and dollar quotes are passed over.

use bytes::Bytes;

/// What a statement does to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rename {
    /// The name means what the text prepares.
    Prepare(Vec<u8>),
    /// The name means nothing.
    Deallocate(Vec<u8>),
    /// The portal of that name is the text's cursor.
    Declare(Vec<u8>),
    /// No name means anything (`DEALLOCATE ALL`, `DISCARD`).
    All,
}

impl Rename {
    /// Whether it changes what `name` means as a statement.
    pub(crate) fn concerns(&self, name: &[u8]) -> bool {
        match self {
            Self::Prepare(changed) | Self::Deallocate(changed) => changed == name,
            Self::All => !name.is_empty(),
            Self::Declare(_) => false,
        }
    }
}

/// Whether `text` can contain a statement that changes names; looks at words alone, wherever they stand.
pub(crate) fn may_rename(text: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"prepare", b"deallocate", b"declare", b"discard"];
    let begins = |at: usize| {
        let rest = text.get(at..).unwrap_or_default();
        WORDS.iter().any(|word| rest.get(..word.len()).is_some_and(|here| here.eq_ignore_ascii_case(word)))
    };
    memchr::memchr2_iter(b'd', b'D', text).any(begins) || memchr::memchr2_iter(b'p', b'P', text).any(begins)
}

/// The statements of `text` that change names, in order.
pub(crate) fn renames(text: &Bytes) -> Vec<Rename> {
    let mut found = Vec::new();
    let mut tokens = Tokens { rest: text };
    let mut at_start = true;
    while let Some(token) = tokens.next() {
        let starts = std::mem::replace(&mut at_start, token == Token::Semicolon);
        let Token::Word(word) = token else { continue };
        if !starts {
            continue;
        }
        let name = || match tokens.next() {
            Some(Token::Word(name)) => Some((name, false)),
            Some(Token::Quoted(name)) => Some((name, true)),
            _ => None,
        };
        match (&*word, name) {
            (b"prepare", mut name) => found.extend(name().map(|(name, _)| Rename::Prepare(name))),
            (b"declare", mut name) => found.extend(name().map(|(name, _)| Rename::Declare(name))),
            (b"deallocate", mut name) => {
                let named = match name() {
                    Some((word, false)) if word == b"prepare" => name(),
                    named => named,
                };
                found.extend(named.map(|(name, quoted)| match &*name {
                    b"all" if !quoted => Rename::All,
                    _ => Rename::Deallocate(name),
                }));
            }
            (b"discard", _) => found.push(Rename::All),
            _ => {}
        }
    }
    found
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// In lower case, as the server folds it.
    Word(Vec<u8>),
    Quoted(Vec<u8>),
    Semicolon,
    Other,
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl Tokens<'_> {
    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            match *self.rest {
                [] => return None,
                [b'-', b'-', ..] => {
                    let end = memchr::memchr2(b'\n', b'\r', self.rest).unwrap_or(self.rest.len());
                    self.skip(end);
                }
                [b'/', b'*', ..] => self.comment(),
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => self.skip(1),
                [b';', ..] => {
                    self.skip(1);
                    return Some(Token::Semicolon);
                }
                [b'\'', ..] => {
                    self.skip(1);
                    self.string(b'\'', false);
                    return Some(Token::Other);
                }
                [b'"', ..] => {
                    self.skip(1);
                    return Some(Token::Quoted(self.string(b'"', false)));
                }
                [b'e' | b'E', b'\'', ..] => {
                    self.skip(2);
                    self.string(b'\'', true);
                    return Some(Token::Other);
                }
                [b'$', ..] => {
                    self.dollar();
                    return Some(Token::Other);
                }
                [first, ..] if is_word(first) && !first.is_ascii_digit() => {
                    let inside = |byte: &u8| is_word(*byte) || *byte == b'$';
                    let end = self.rest.iter().position(|byte| !inside(byte)).unwrap_or(self.rest.len());
                    let word = self.rest.get(..end).unwrap_or_default().to_ascii_lowercase();
                    self.skip(end);
                    return Some(Token::Word(word));
                }
                _ => {
                    self.skip(1);
                    return Some(Token::Other);
                }
            }
        }
    }

    /// Comments nest.
    fn comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match *self.rest {
                [] => return,
                [b'/', b'*', ..] => {
                    depth += 1;
                    self.skip(2);
                }
                [b'*', b'/', ..] => {
                    self.skip(2);
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.skip(1),
            }
        }
    }

    /// The rest of what a quote began; two quotes are one.
    fn string(&mut self, quote: u8, backslashes: bool) -> Vec<u8> {
        let mut text = Vec::new();
        loop {
            match *self.rest {
                [] => return text,
                [a, b, ..] if a == quote && b == quote || backslashes && a == b'\\' => {
                    text.push(b);
                    self.skip(2);
                }
                [a, ..] if a == quote => {
                    self.skip(1);
                    return text;
                }
                [a, ..] => {
                    text.push(a);
                    self.skip(1);
                }
            }
        }
    }

    /// `$1`, or a dollar-quoted string.
    fn dollar(&mut self) {
        let after = self.rest.get(1..).unwrap_or_default();
        let tag = after.iter().position(|byte| !is_word(*byte)).unwrap_or(after.len());
        let opens = after.get(tag) == Some(&b'$') && !after.first().is_some_and(u8::is_ascii_digit);
        if !opens {
            self.skip(1 + tag);
            return;
        }
        let (delimiter, body) = self.rest.split_at(tag + 2);
        let end = memchr::memmem::find(body, delimiter).map_or(body.len(), |at| at + delimiter.len());
        self.rest = body.get(end..).unwrap_or_default();
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(sql: &str, expected: &[Rename]) {
        assert_eq!(renames(&Bytes::copy_from_slice(sql.as_bytes())), expected, "{sql}");
        assert!(may_rename(sql.as_bytes()) || expected.is_empty(), "{sql}");
    }

    #[test]
    fn names_are_those_of_statements_and_not_of_strings_and_comments() {
        let name = |name: &str| name.as_bytes().to_vec();
        check("PREPARE S AS SELECT 1", &[Rename::Prepare(name("s"))]);
        check("/* a /* b */ ; */ -- ;\n dealLocate PREPARE \"S\"\"x\"", &[Rename::Deallocate(name("S\"x"))]);
        check("deallocate all; DEALLOCATE \"all\"", &[Rename::All, Rename::Deallocate(name("all"))]);
        check("Discard All", &[Rename::All]);
        check("SELECT declared_at, prepare FROM discard", &[]);
        check(
            "SELECT ';prepare a', E'\\';prepare b', $x$;prepare c$x$, $1;declare c cursor for select 1",
            &[Rename::Declare(name("c"))],
        );
        check("EXPLAIN prepare", &[]);
        check("SELECT 1", &[]);
        check("", &[]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            renames(&bytes.into());
        }

        #[test]
        fn any_odd_text_is_read_to_its_end(text in "[';\"$/*\\-a e\\\\\n]{0,60}(prepare|declare)?[ ;\"a]{0,9}") {
            renames(&text.into());
        }
    }
}
