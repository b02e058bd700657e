//! Bound values of any type in either format: four bytes of object id, one of format, and the value.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(([a, b, c, d, format], value)) =
        bytes.split_first_chunk::<5>().map(|(head, value)| (*head, value))
    {
        let oid = u32::from_be_bytes([a, b, c, d]);
        let _ = verbatim_postgres::values::decode(oid, i16::from(format & 1), Some(value));
    }
});
