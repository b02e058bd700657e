//! The label of a SQL text, in both dialects.
#![no_main]

use verbatim_sql::{Dialect, statement};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for dialect in [Dialect::Postgres, Dialect::MySql] {
        if let Some(label) = statement(text, dialect) {
            assert!(!label.word().is_empty(), "a label without a word");
        }
    }
});
