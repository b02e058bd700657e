//! The strict profile of JSON that envelopes are in, and nothing else is: UTF-8, no spaces, no duplicate keys, integers
//! within ±(2^53 − 1) and no other numbers, strings escaped in the one way in which the writer escapes them.
//!
//! So an envelope has exactly one reading, whatever parser an auditor uses.

use std::borrow::Cow;

/// The largest integer.
pub const INTEGER_MAX: i64 = (1 << 53) - 1;
/// How deep lists and objects nest.
const DEPTH_MAX: u32 = 16;
/// Room for the fields of an envelope.
const FIELDS_USUAL: usize = 24;

/// A value; objects keep their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A string, unescaped.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Json<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// An object's fields, in order.
pub type Object<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

impl<'a> Json<'a> {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number, if it is one and not negative.
    pub fn unsigned(&self) -> Option<u64> {
        if let Self::Integer(number) = self { u64::try_from(*number).ok() } else { None }
    }

    /// The list, if it is one.
    pub fn list(&self) -> Option<&[Json<'a>]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    /// The field of this name, if it is an object with one.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        let Self::Object(fields) = self else { return None };
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// Where the bytes leave the profile, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}, at byte {at} of the JSON")]
pub struct Violation {
    /// Bytes from the beginning.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Parses one value that is all of `bytes`.
///
/// # Errors
/// The bytes are outside of the profile.
pub fn parse(bytes: &[u8]) -> Result<Json<'_>, Violation> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Violation { at: error.valid_up_to(), what: "invalid UTF-8" })?;
    let mut parser = Parser { text, at: 0, only: None, keys: Vec::with_capacity(FIELDS_USUAL) };
    let value = parser.value(0, true)?;
    if parser.at == text.len() { Ok(value) } else { Err(parser.wrong("something after the end")) }
}

/// Judges the rest of an object, whose keys so far are `keys` as they are stored, as [`parse`] does; of its fields it keeps
/// the keys, and what stands under `kept`: lists and objects elsewhere come back empty, strings as they are stored. For
/// whoever judges many envelopes.
///
/// # Errors
/// As for [`parse`].
pub(crate) fn outline_rest<'a>(
    rest: &'a str,
    keys: &[&'static str],
    kept: &str,
) -> Result<Object<'a>, Violation> {
    let mut stored = Vec::with_capacity(FIELDS_USUAL);
    stored.extend_from_slice(keys);
    let mut parser = Parser { text: rest, at: 0, only: Some(kept), keys: stored };
    let fields = parser.fields(0, true, 0)?;
    if parser.at == rest.len() { Ok(fields) } else { Err(parser.wrong("something after the end")) }
}

struct Parser<'a, 'k> {
    text: &'a str,
    at: usize,
    /// The key of the outermost object under which values are kept; none: all are.
    only: Option<&'k str>,
    /// The keys of the objects that are open, as they are stored: each has one way to be written.
    keys: Vec<&'a str>,
}

impl<'a> Parser<'a, '_> {
    const fn wrong(&self, what: &'static str) -> Violation {
        Violation { at: self.at, what }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, literal: &str) -> bool {
        let there =
            self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(literal.as_bytes()));
        if there {
            self.at += literal.len();
        }
        there
    }

    /// Passes over one byte, if it is next.
    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self, depth: u32, keep: bool) -> Result<Json<'a>, Violation> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        match self.peek() {
            Some(b'"') => self.string(keep).map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.integer().map(Json::Integer),
            Some(b'{') => self.object(depth, keep).map(Json::Object),
            Some(b'[') => self.list(depth, keep),
            Some(b'n') if self.skip("null") => Ok(Json::Null),
            Some(b't') if self.skip("true") => Ok(Json::Bool(true)),
            Some(b'f') if self.skip("false") => Ok(Json::Bool(false)),
            _ => Err(self.wrong("no value of the profile")),
        }
    }

    fn object(&mut self, depth: u32, keep: bool) -> Result<Object<'a>, Violation> {
        self.at += 1;
        if self.eat(b'}') {
            return Ok(Vec::new());
        }
        self.fields(depth, keep, self.keys.len())
    }

    /// The fields of an object, from a key on; its keys are those behind the first `outer`.
    fn fields(&mut self, depth: u32, keep: bool, outer: usize) -> Result<Object<'a>, Violation> {
        let expected = if depth == 0 { FIELDS_USUAL } else { FIELDS_USUAL / 3 };
        let mut fields: Object<'a> = Vec::with_capacity(if keep { expected } else { 0 });
        loop {
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a key is expected"));
            }
            let key = self.string(keep)?;
            let stored = self.text.get(key_at..self.at).unwrap_or_default();
            if self.keys.get(outer..).is_some_and(|keys| keys.iter().any(|other| same(other, stored))) {
                return Err(Violation { at: key_at, what: "a duplicate key" });
            }
            self.keys.push(stored);
            if !self.eat(b':') {
                return Err(self.wrong("a colon is expected"));
            }
            let keep_value = keep && (depth > 0 || self.only.is_none_or(|only| only == key));
            let value = self.value(depth + 1, keep_value)?;
            if key.ends_with("_b64") && !is_base64url(&value) {
                return Err(Violation { at: key_at, what: "no base64url under a key that ends in _b64" });
            }
            if keep {
                fields.push((key, value));
            }
            if self.eat(b'}') {
                self.keys.truncate(outer);
                return Ok(fields);
            }
            if !self.eat(b',') {
                return Err(self.wrong("a comma or the object's end is expected"));
            }
        }
    }

    fn list(&mut self, depth: u32, keep: bool) -> Result<Json<'a>, Violation> {
        self.at += 1;
        let mut items = Vec::new();
        if self.eat(b']') {
            return Ok(Json::List(items));
        }
        loop {
            let item = self.value(depth + 1, keep)?;
            if keep {
                items.push(item);
            }
            if self.eat(b']') {
                return Ok(Json::List(items));
            }
            if !self.eat(b',') {
                return Err(self.wrong("a comma or the list's end is expected"));
            }
        }
    }

    fn integer(&mut self) -> Result<i64, Violation> {
        let negative = self.skip("-");
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let text = self.rest().get(..digits).unwrap_or_default();
        if digits == 0 || digits > 16 || (text.starts_with('0') && (digits > 1 || negative)) {
            return Err(self.wrong("an integer in another form, or out of range"));
        }
        let number: i64 = text.parse().map_err(|_| self.wrong("an integer out of range"))?;
        if number > INTEGER_MAX {
            return Err(self.wrong("an integer out of range"));
        }
        self.at += digits;
        if matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err(self.wrong("a number that is no integer"));
        }
        Ok(if negative { -number } else { number })
    }

    /// A string, whose first quote is at the current place; as it is stored where it is not kept.
    fn string(&mut self, keep: bool) -> Result<Cow<'a, str>, Violation> {
        self.at += 1;
        let start = self.at;
        let mut owned: Option<String> = None;
        loop {
            let rest = self.rest();
            let clean = memchr::memchr2(b'"', b'\\', rest.as_bytes()).unwrap_or(rest.len());
            let piece = rest.get(..clean).unwrap_or_default();
            if let Some(place) = control(piece) {
                self.at += place;
                return Err(self.wrong("a control character, or no end of the string"));
            }
            self.at += piece.len();
            match self.peek() {
                Some(b'"') => {
                    let stored = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(match owned {
                        Some(text) if keep => Cow::Owned(text + piece),
                        _ => Cow::Borrowed(stored),
                    });
                }
                Some(_) => {
                    let escaped = self.escape()?;
                    if keep {
                        let text = owned.get_or_insert_default();
                        text.push_str(piece);
                        text.push(escaped);
                    }
                }
                None => return Err(self.wrong("a control character, or no end of the string")),
            }
        }
    }

    /// An escape, in the form in which the writer writes it.
    fn escape(&mut self) -> Result<char, Violation> {
        const SHORT: [(&str, char); 7] = [
            ("\\\"", '"'),
            ("\\\\", '\\'),
            ("\\n", '\n'),
            ("\\r", '\r'),
            ("\\t", '\t'),
            ("\\b", '\u{8}'),
            ("\\f", '\u{c}'),
        ];
        for (literal, meaning) in SHORT {
            if self.skip(literal) {
                return Ok(meaning);
            }
        }
        let digits = self.rest().strip_prefix("\\u00").and_then(|rest| rest.get(..2));
        // Digits alone: what reads numbers takes a sign as well.
        let lower =
            digits.filter(|digits| digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        let code = lower.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) if code < 0x20 && !matches!(code, b'\n' | b'\r' | b'\t' | 0x08 | 0x0c) => {
                self.at += 6;
                Ok(char::from(code))
            }
            _ => Err(self.wrong("an escape that the writer does not use")),
        }
    }
}

/// Whether two keys, as they are stored, are the same. Most that are as long differ in their first letter.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.as_bytes().get(1) == other.as_bytes().get(1) && one == other
}

/// Where the first control character is. Most texts have none: then it is one pass without a branch a byte.
fn control(text: &str) -> Option<usize> {
    let any = text.bytes().fold(false, |any, byte| any | (byte < 0x20));
    if any { text.bytes().position(|byte| byte < 0x20) } else { None }
}

fn is_base64url(value: &Json<'_>) -> bool {
    match value {
        Json::Null => true,
        Json::Text(text) => {
            base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text.as_bytes()).is_ok()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<(), &str>) {
        assert_eq!(parse(text.as_bytes()).map(|_| ()).map_err(|wrong| wrong.what), expected, "{text}");
    }

    #[test]
    fn the_profile_and_nothing_else() {
        for good in [
            r#"{"v":1,"a":null,"b":[true,false,-9007199254740991],"c":{"d_b64":"-_8"}}"#,
            r#"{}"#,
            r#""\u0000\n\"\\ä""#,
        ] {
            check(good, Ok(()));
        }
        for (bad, what) in [
            (r#"{"a":1,"a":2}"#, "a duplicate key"),
            (r#"{"a":1.0}"#, "a number that is no integer"),
            (r#"{"a":1e3}"#, "a number that is no integer"),
            (r#"{"a":01}"#, "an integer in another form, or out of range"),
            (r#"{"a":-0}"#, "an integer in another form, or out of range"),
            (r#"{"a":9007199254740992}"#, "an integer out of range"),
            (r#"{ "a":1}"#, "a key is expected"),
            (r#"{"a": 1}"#, "no value of the profile"),
            ("{\"a\":1}\n", "something after the end"),
            (r#"{"a":"\u0041"}"#, "an escape that the writer does not use"),
            (r#"{"a":"\u000a"}"#, "an escape that the writer does not use"),
            (r#"{"a":"\u001F"}"#, "an escape that the writer does not use"),
            (r#"{"a":"\u00+1"}"#, "an escape that the writer does not use"),
            (r#"{"a":"\/"}"#, "an escape that the writer does not use"),
            ("{\"a\":\"\n\"}", "a control character, or no end of the string"),
            (r#"{"a_b64":"+/8="}"#, "no base64url under a key that ends in _b64"),
            (r#"{"a":1,}"#, "a key is expected"),
        ] {
            check(bad, Err(what));
        }
        assert_eq!(parse(b"\"\xff\"").unwrap_err().what, "invalid UTF-8");
        let deep = "[".repeat(100);
        check(&deep, Err("nested too deep"));
    }

    proptest! {
        #[test]
        fn what_the_writer_writes_is_read_back(text in any::<String>(), number in 0..=INTEGER_MAX) {
            let mut out = b"[".to_vec();
            verbatim_core::json::string(&mut out, &text);
            out.push(b',');
            verbatim_core::json::unsigned(&mut out, number.unsigned_abs());
            out.push(b']');
            prop_assert_eq!(parse(&out), Ok(Json::List(vec![Json::Text(text.into()), Json::Integer(number)])));
        }

        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn an_outline_is_judged_as_the_whole_is(
            rest in r#""(pay|a_b64|a|v)":[\[\]{}",:\\0-9a-z.ntfu\x00-]{0,40}\}"#,
        ) {
            let text = format!(r#"{{"v":1,{rest}"#);
            let whole = parse(text.as_bytes()).map_err(|wrong| wrong.what);
            let outlined = outline_rest(&rest, &[r#""v""#], "pay").map_err(|wrong| wrong.what);
            prop_assert_eq!(whole.as_ref().err(), outlined.as_ref().err());
            if let (Ok(whole), Ok(outlined)) = (whole, outlined) {
                let outlined = Json::Object(outlined);
                prop_assert_eq!(whole.get("pay"), outlined.get("pay"));
            }
        }

        #[test]
        fn what_passes_is_what_serde_reads(text in r#"[\[\]{}",:\\0-9a-z.ntfu\x00-]{0,40}"#) {
            if parse(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }
    }
}
