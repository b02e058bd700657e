//! How texts are made searchable, and how a search is understood.
//!
//! The words of a search, parted by white space, must all be in a command, in any order and case, each as a substring;
//! what stands between double quotes is one word. Three characters and more are found by trigrams; shorter ones by
//! looking at every distinct text.

use rusqlite::types::Value;

use crate::index::StoreError;

/// How much of a text is one piece, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// How much of a piece is in the next one again, in bytes: what a term can be long and still be found across the edge.
const OVERLAP_BYTES: usize = 4 << 10;

/// How long a term of a search can be, in characters of at most four bytes: it fits the overlap.
const TERM_CHARS_MAX: usize = 1024;

/// How many terms a search can have.
const TERMS_MAX: usize = 32;

/// Text as it is searched: what is no UTF-8 becomes U+FFFD, and NUL, at which SQLite would stop reading, becomes its
/// picture U+2400. Documents are never made from it.
pub(crate) fn searchable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for (place, clean) in chunk.valid().split('\0').enumerate() {
            if place > 0 {
                text.push('\u{2400}');
            }
            text.push_str(clean);
        }
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

/// Cuts a text into pieces that overlap, at characters.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut from = Some(0_usize);
    std::iter::from_fn(move || {
        let start = from?;
        let end = text.floor_char_boundary(start.saturating_add(PIECE_BYTES));
        from = (end < text.len()).then(|| text.floor_char_boundary(end.saturating_sub(OVERLAP_BYTES)));
        text.get(start..end)
    })
}

/// The end of a piece that the piece after it begins with.
pub(crate) fn overlap(piece: &str) -> &str {
    piece.get(piece.floor_char_boundary(piece.len().saturating_sub(OVERLAP_BYTES))..).unwrap_or_default()
}

/// A search as SQL: a query for the ids of texts, and its values.
pub(crate) fn texts(search: &str) -> Result<(String, Vec<Value>), StoreError> {
    let terms = terms(search);
    if terms.is_empty() || terms.len() > TERMS_MAX {
        return Err(StoreError::Search { message: format!("a search has 1 to {TERMS_MAX} words") });
    }
    let mut sql = Vec::new();
    let mut values = Vec::new();
    for term in terms {
        let chars = term.chars().count();
        if chars > TERM_CHARS_MAX {
            return Err(StoreError::Search {
                message: format!("a word of a search has at most {TERM_CHARS_MAX} characters"),
            });
        }
        if chars < 3 {
            sql.push("SELECT DISTINCT text FROM pieces WHERE content LIKE ? ESCAPE '\\'");
            let escaped = term.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            values.push(Value::Text(format!("%{escaped}%")));
        } else {
            sql.push(
                "SELECT DISTINCT text FROM pieces WHERE id IN (SELECT rowid FROM words WHERE words MATCH ?)",
            );
            values.push(Value::Text(format!("\"{}\"", term.replace('"', "\"\""))));
        }
    }
    Ok((sql.join(" INTERSECT "), values))
}

/// The words of a search. A quote that is not closed is a character like any other.
fn terms(search: &str) -> Vec<String> {
    let mut terms = Vec::new();
    let mut rest = search.trim_start();
    while !rest.is_empty() {
        let quoted = rest.strip_prefix('"').and_then(|inner| inner.split_once('"'));
        let (term, after) = match quoted {
            Some(quoted) => quoted,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        if !term.is_empty() {
            terms.push(searchable(term.as_bytes()));
        }
        rest = after.trim_start();
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_words_and_quoted_phrases() {
        assert_eq!(terms(" SELECT  customer_id "), ["SELECT", "customer_id"]);
        assert_eq!(terms(r#""FROM customers" x"#), ["FROM customers", "x"]);
        assert_eq!(terms(r#""ssn" FROM"#), ["ssn", "FROM"]);
        assert_eq!(terms(r#"it's "open"#), ["it's", "\"open"]);
        assert_eq!(terms(r#" "" "#), Vec::<String>::new());
    }

    #[test]
    fn pieces_cover_a_text_and_overlap() {
        let text = "ä".repeat(1_300_000);
        let pieces: Vec<&str> = pieces(&text).collect();
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
        let covered: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert!(covered >= text.len() + (pieces.len() - 1) * (OVERLAP_BYTES - 4));
        assert_eq!(super::pieces("").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn what_sqlite_could_not_search_is_replaced() {
        assert_eq!(searchable(b"a\0b\xffc"), "a\u{2400}b\u{fffd}c");
    }
}
