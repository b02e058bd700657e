//! Tokens, their claims without base64 around them, and issuers' keys; the first byte says which.
#![no_main]

use verbatim_entra::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match bytes.split_first() {
    Some((b'c', claims)) => fuzzing::claims(claims),
    Some((b'k', keys)) => fuzzing::keys(keys),
    Some((b't', token)) => fuzzing::token(token),
    _ => {}
});
