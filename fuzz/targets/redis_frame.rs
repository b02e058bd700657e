//! The readers of the client's requests and of the target's replies.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| verbatim_redis::fuzzing::frames(bytes));
