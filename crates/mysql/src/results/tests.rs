use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;
use proptest::prelude::*;
use verbatim_core::{BoxFuture, ChunkStream, Journal, Permit};

use super::*;
use crate::capability::COMMON;
use crate::frame;

/// Notes what came of operations.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Journal for Notes {
    fn is_durable(&self, _: u64) -> Option<Result<(), Refusal>> {
        Some(Ok(()))
    }
    fn durable(&self, _: u64) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }
    fn chunk(&self, _: u64, _: u64, stream: ChunkStream, bytes: &[u8]) -> Result<Option<u64>, Refusal> {
        self.0.lock().push(format!("{} {}", stream.as_str(), bytes.len()));
        Ok(None)
    }
    fn complete(&self, _: u64, sequence: u64, _: Instant, outcome: &Outcome) {
        self.0.lock().push(format!("{sequence} {} {:?}", outcome.status.as_str(), outcome.rows));
    }
    fn abort(&self, _: u64, sequence: u64) {
        self.0.lock().push(format!("{sequence} aborted"));
    }
}

fn expect(results: &mut Results, notes: &Arc<Notes>, sequence: u64, asked: Asked) {
    let permit = Permit::new(notes.clone(), sequence, sequence, Instant::now());
    let mut recorded = Box::pin(permit.recorded());
    let Poll::Ready(Ok(recorded)) = recorded.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        unreachable!("it is durable at once")
    };
    results.expect(Entry::Forwarded { recorded, asked, answer: 1 });
}

fn result() -> Asked {
    Asked::Result { files: Vec::new(), cursor: false }
}

/// A result of one column and these rows, with these status flags behind it.
fn rows(rows: &[&[u8]], status: u16, deprecated: bool) -> Vec<u8> {
    let eof = [&[EOF, 0, 0][..], &status.to_le_bytes()].concat();
    let end =
        if deprecated { [&[EOF, 0, 0][..], &status.to_le_bytes(), &[0, 0]].concat() } else { eof.clone() };
    let mut payloads = vec![b"\x01".to_vec(), b"\x03def".to_vec()];
    payloads.extend((!deprecated).then_some(eof));
    payloads.extend(rows.iter().map(|row| row.to_vec()));
    payloads.push(end);
    payloads.iter().enumerate().flat_map(|(place, payload)| frame::packet(place as u8 + 1, payload)).collect()
}

/// What only MySQL 8 sends by default: no EOF packets, and rows that begin like one.
#[test]
fn a_row_that_begins_like_an_eof_is_a_row() {
    for deprecated in [false, true] {
        let capabilities = if deprecated { COMMON | DEPRECATE_EOF } else { COMMON };
        let notes = Arc::new(Notes::default());
        let mut results = Results::new(capabilities, 2, false);
        expect(&mut results, &notes, 1, result());
        // A value of 16 MiB has its length in nine bytes, the first of them 0xfe.
        let mut long = vec![0xfe, 0, 0, 0, 1, 0, 0, 0, 0];
        long.resize(9 + (1 << 24), b'x');
        let bytes = Bytes::from(rows(&[b"\x01a", &long, b"\xfb"], 2, deprecated));
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + 1_000_000).min(bytes.len());
            results.receive(&bytes.slice(at..end), &mut Memory::default()).unwrap();
            at = end;
        }
        assert_eq!(*notes.0.lock(), ["1 ok Some(3)"]);
    }
}

#[test]
fn several_results_answer_one_command_and_the_next_command_is_the_next() {
    let notes = Arc::new(Notes::default());
    let mut results = Results::new(COMMON | DEPRECATE_EOF, 2, true);
    expect(&mut results, &notes, 1, result());
    results.expect(Entry::Own(Bytes::from_static(b"own")));
    expect(&mut results, &notes, 2, Asked::Simple);
    let first = rows(&[b"\x01a"], 0x0a, true);
    let second = rows(&[b"\x01b", b"\x01c"], 2, true);
    let place = first.len() + second.len();
    let ping = frame::packet(1, b"\0\0\0\x02\0\0\0");
    let inserts =
        results.receive(&[&first[..], &second, &ping].concat().into(), &mut Memory::default()).unwrap();
    assert_eq!(inserts.at, [(place, Bytes::from_static(b"own"))]);
    assert_eq!(*notes.0.lock(), [format!("result {place}"), "1 ok Some(3)".into(), "2 ok None".into()]);
    assert!(results.is_idle());
}

proptest! {
    #[test]
    fn no_bytes_of_a_target_make_it_fail_otherwise_than_by_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300), deprecated: bool, piece in 1_usize..40,
    ) {
        let notes = Arc::new(Notes::default());
        let mut results = Results::new(if deprecated { COMMON | DEPRECATE_EOF } else { COMMON }, 2, true);
        for (place, asked) in [result(), Asked::Prepare(Bytes::new()), Asked::Rows, Asked::Definitions].into_iter().enumerate() {
            expect(&mut results, &notes, place as u64 + 1, asked);
        }
        let mut memory = Memory::default();
        for piece in bytes.chunks(piece) {
            if results.receive(&Bytes::copy_from_slice(piece), &mut memory).is_err() {
                break;
            }
        }
        results.end();
        let ends = notes.0.lock().iter().filter(|note| !note.starts_with("result")).count();
        prop_assert_eq!(ends, 4, "every operation has one end");
    }
}
