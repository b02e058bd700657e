//! The packet that a client begins with, and the SASL initial response.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| verbatim_postgres::fuzzing::startup(bytes));
