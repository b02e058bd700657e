//! What MySQL's peers say before a session: greetings, responses, changes of user, tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| verbatim_mysql::fuzzing::startup(bytes));
