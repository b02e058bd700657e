//! The reader of the client's messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| verbatim_postgres::fuzzing::frames(bytes));
