//! Both machines of a MySQL session in its ready phase, by a script of what client and target send.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| verbatim_mysql::fuzzing::session(bytes));
