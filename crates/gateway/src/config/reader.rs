//! Reads a TOML document key by key, and remembers every mistake with its place instead of stopping at the first.
//!
//! A value is taken by the code that knows what it means, so a mistake says what to write instead; what nobody took is
//! an unknown key.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A mistake in the configuration and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// The key's path: `connection[0].target`.
    pub(crate) place: String,
    pub(crate) message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)
    }
}

/// The document being read, and the mistakes found so far.
pub(crate) struct Document<'t> {
    file: String,
    text: &'t str,
    mistakes: RefCell<Vec<(usize, Mistake)>>,
}

impl<'t> Document<'t> {
    pub(crate) fn new(file: &str, text: &'t str) -> Self {
        Self { file: file.to_owned(), text, mistakes: RefCell::default() }
    }

    /// Notes a mistake at a byte offset.
    pub(crate) fn mistake(&self, offset: usize, place: &str, message: impl Into<String>) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let mistake = Mistake {
            file: self.file.clone(),
            line,
            column,
            place: place.to_owned(),
            message: message.into(),
        };
        self.mistakes.borrow_mut().push((offset, mistake));
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    /// All mistakes, in the order of their places.
    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|(offset, _)| *offset);
        mistakes.into_iter().map(|(_, mistake)| mistake).collect()
    }
}

/// A table of the document. Call [`finish`](Self::finish) when every known key was asked for.
pub(crate) struct Table<'d, 't> {
    document: &'d Document<'t>,
    path: String,
    offset: usize,
    entries: &'d DeTable<'t>,
    known: RefCell<Vec<&'static str>>,
}

impl<'d, 't> Table<'d, 't> {
    pub(crate) fn new(
        document: &'d Document<'t>,
        path: String,
        offset: usize,
        entries: &'d DeTable<'t>,
    ) -> Self {
        Self { document, path, offset, entries, known: RefCell::default() }
    }

    /// Whether nothing is wrong so far: what seems missing may only be mistyped.
    pub(crate) fn is_clean(&self) -> bool {
        self.document.is_clean()
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a mistake about the table as a whole.
    pub(crate) fn mistake(&self, message: impl Into<String>) {
        self.document.mistake(self.offset, &self.path, message);
    }

    /// The value of `key`, if it is there.
    pub(crate) fn get(&self, key: &'static str) -> Option<Field<'d, 't>> {
        self.known.borrow_mut().push(key);
        let value = self.entries.get(key)?;
        Some(Field { document: self.document, path: self.path_of(key), value })
    }

    /// The value of `key`; a mistake if it is missing.
    pub(crate) fn require(&self, key: &'static str, example: &str) -> Option<Field<'d, 't>> {
        let field = self.get(key);
        if field.is_none() {
            self.mistake(format!("`{key}` is missing; write for instance `{key} = {example}`"));
        }
        field
    }

    /// The table under `key`.
    pub(crate) fn table(&self, key: &'static str) -> Option<Self> {
        self.get(key)?.table()
    }

    /// The tables under `key`, an array of tables (`[[key]]`).
    pub(crate) fn tables(&self, key: &'static str) -> Vec<Self> {
        let Some(field) = self.get(key) else { return Vec::new() };
        let Some(array) = field.value.get_ref().as_array() else {
            field.mistake(format!("expected tables, each beginning with `[[{}]]`", field.path));
            return Vec::new();
        };
        let item = |(place, value): (usize, &'d Spanned<DeValue<'t>>)| {
            Field { document: field.document, path: format!("{}[{place}]", field.path), value }.table()
        };
        array.iter().enumerate().filter_map(item).collect()
    }

    /// Every key with its value, for tables whose keys are names.
    pub(crate) fn each(&self) -> impl Iterator<Item = (String, Field<'d, 't>)> + '_ {
        self.entries.iter().map(|(key, value)| {
            let name = key.get_ref().to_string();
            let path = self.path_of(&name);
            (name, Field { document: self.document, path, value })
        })
    }

    /// Keys that the contract has and this version not yet: refused with just that said.
    pub(crate) fn not_yet(&self, keys: &[&'static str]) {
        for key in keys {
            // An empty list, `false` or no time at all asks for nothing.
            if let Some(field) = self.get(key).filter(|field| !field.asks_nothing()) {
                field.mistake(format!("`{key}` is not part of this version yet; remove it"));
            }
        }
    }

    /// Notes every key that nobody asked for.
    pub(crate) fn finish(&self) {
        let known = self.known.borrow();
        for (key, _) in self.entries {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known keys: {}", known.join(", ")),
            };
            let place = self.path_of(name);
            self.document.mistake(key.span().start, &place, format!("unknown key `{name}`; {hint}"));
        }
    }
}

/// A value of the document.
#[derive(Clone)]
pub(crate) struct Field<'d, 't> {
    document: &'d Document<'t>,
    pub(crate) path: String,
    value: &'d Spanned<DeValue<'t>>,
}

impl<'d, 't> Field<'d, 't> {
    /// Notes a mistake about this value.
    pub(crate) fn mistake(&self, message: impl Into<String>) {
        let Range { start, .. } = self.value.span();
        self.document.mistake(start, &self.path, message);
    }

    fn asks_nothing(&self) -> bool {
        match self.value.get_ref() {
            DeValue::Array(list) => list.is_empty(),
            DeValue::Boolean(wanted) => !wanted,
            DeValue::String(text) => parse_duration(text).is_some_and(|duration| duration.is_zero()),
            _ => false,
        }
    }

    fn expected(&self, what: &str) {
        self.mistake(format!("expected {what}, found {}", article(self.value.get_ref().type_str())));
    }

    pub(crate) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(crate) fn table(&self) -> Option<Table<'d, 't>> {
        match self.value.get_ref().as_table() {
            Some(entries) => {
                Some(Table::new(self.document, self.path.clone(), self.value.span().start, entries))
            }
            None => {
                self.expected("a table");
                None
            }
        }
    }

    pub(crate) fn string(&self) -> Option<&'d str> {
        let text = self.value.get_ref().as_str();
        if text.is_none() {
            self.expected("text in quotes");
        }
        text
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        let value = self.value.get_ref().as_bool();
        if value.is_none() {
            self.expected("true or false");
        }
        value
    }

    pub(crate) fn count(&self) -> Option<u64> {
        let number =
            self.value.get_ref().as_integer().and_then(|number| {
                u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
            });
        if number.is_none() {
            self.expected("a whole number of 0 or more");
        }
        number
    }

    /// One value that parses as a `T`, whose error says what was expected.
    pub(crate) fn parse<T: FromStr<Err: fmt::Display>>(&self) -> Option<T> {
        match self.string()?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(error.to_string());
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.string()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let choices: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.mistake(format!("\"{text}\" is none of {}", choices.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// The items of a list; with `or_one`, a single value is a list of one.
    pub(crate) fn items(&self, or_one: bool) -> Vec<Self> {
        match self.value.get_ref().as_array() {
            Some(array) => array
                .iter()
                .enumerate()
                .map(|(place, value)| Field {
                    document: self.document,
                    path: format!("{}[{place}]", self.path),
                    value,
                })
                .collect(),
            None if or_one => vec![self.clone()],
            None => {
                self.expected("a list in square brackets");
                Vec::new()
            }
        }
    }

    /// A list of texts.
    pub(crate) fn strings(&self) -> Vec<String> {
        self.items(false).iter().filter_map(|item| item.string().map(str::to_owned)).collect()
    }

    /// A duration such as `"15m"`: a number and `ms`, `s`, `m`, `h`, `d` or `y` (365 days).
    pub(crate) fn duration(&self) -> Option<Duration> {
        let duration = parse_duration(self.string()?);
        if duration.is_none() {
            self.mistake("expected a duration such as \"50ms\", \"30s\", \"15m\", \"24h\" or \"7d\"");
        }
        duration
    }

    /// A size such as `"64MiB"`: a number and `B`, `KiB`, `MiB` or `GiB`.
    pub(crate) fn size(&self) -> Option<u64> {
        let size = parse_size(self.string()?);
        if size.is_none() {
            self.mistake("expected a size such as \"65535B\", \"512KiB\", \"64MiB\" or \"1GiB\"");
        }
        size
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// The number in front and the unit behind it.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

/// Reads `"15m"`, also for the command line's `7d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "y" => 31_536_000_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// The known word nearest to a mistyped one, if any is near: at most two letters changed, added or left out.
pub(crate) fn nearest<'w>(wrong: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let near = words.map(|word| (distance(wrong, word), word)).min()?;
    (near.0 <= 2 && near.0 < wrong.len()).then_some(near.1)
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (place, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(row.first_mut().unwrap_or(&mut 0), place + 1);
        let mut previous = place + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(right.chars()) {
            let substituted = diagonal + usize::from(a != b);
            diagonal = *cell;
            previous = substituted.min(*cell + 1).min(previous + 1);
            *cell = previous;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(parse_duration("50ms"), Some(Duration::from_millis(50)));
        assert_eq!(parse_duration("29h"), Some(Duration::from_secs(29 * 3600)));
        for wrong in
            ["", "5", "m", "-5m", "1.5h", "5 m", "5M", "99999999999999999999s", "18446744073709551615y"]
        {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("64MB"), None);
    }

    #[test]
    fn near_words() {
        assert_eq!(nearest("targe", ["target", "type"].into_iter()), Some("target"));
        assert_eq!(nearest("tagret", ["target", "type"].into_iter()), Some("target"));
        assert_eq!(nearest("x", ["target", "type"].into_iter()), None);
    }
}
