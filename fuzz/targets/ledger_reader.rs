//! A ledger's segment. The first byte says how the rest is taken: as it is (`r`), or as a script of frames (`s`: a byte of
//! kind, two of length, the body), since no fuzzer finds a checksum.
#![no_main]

use verbatim_ledger::frame::{self, Kind};
use verbatim_ledger::reader::check_bytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match bytes.split_first() {
    Some((b'r', segment)) => {
        let _ = check_bytes(segment);
    }
    Some((b's', script)) => {
        let (segment, count) = written(script);
        assert_eq!(check_bytes(&segment), count, "what was written cannot be read");
    }
    _ => {}
});

fn written(mut script: &[u8]) -> (Vec<u8>, usize) {
    let (mut segment, mut count) = (Vec::new(), 0);
    while let Some(([kind, high, low], rest)) = script.split_first_chunk::<3>() {
        let Some(kind) = Kind::from_byte(kind % 7) else { break };
        let (body, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
        frame::put(&mut segment, kind, body);
        count += 1;
        script = rest;
    }
    (segment, count)
}
