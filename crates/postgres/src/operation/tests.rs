//! The client's side as a machine: bytes in, batches out.

use bytes::BufMut;
use proptest::prelude::*;

use super::*;
use crate::frame::message;

const NOTHING_OPEN: View = View { copy_in: false, pending: false, renaming: false };

/// Everything that a client's bytes, in pieces, come to; the target grants every change at once.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    forwarded: Vec<u8>,
    operations: Vec<String>,
    refused: Option<&'static str>,
}

fn feed(pieces: &[&[u8]], view: View, pauses: bool) -> Seen {
    let mut frontend = Frontend::new(1 << 20);
    let mut memory = Memory::default();
    let mut seen = Seen::default();
    for piece in pieces {
        frontend.input.extend_from_slice(piece);
        frontend.scan();
        take(&mut frontend, &mut memory, view, &mut seen);
        if pauses && frontend.may_release() {
            frontend.release();
            take(&mut frontend, &mut memory, view, &mut seen);
        }
    }
    frontend.end_of_input();
    take(&mut frontend, &mut memory, view, &mut seen);
    seen
}

fn take(frontend: &mut Frontend, memory: &mut Memory, view: View, seen: &mut Seen) {
    loop {
        match frontend.turn(memory, view) {
            Turn::Read => return,
            Turn::Stall | Turn::Left => panic!("nothing is open that could hold it up"),
            Turn::Broken(refusal, _) => {
                seen.refused.get_or_insert(refusal.code());
                return;
            }
            Turn::Copy(batch) => {
                seen.forwarded.extend_from_slice(&batch.bytes);
                let text = String::from_utf8(batch.content.to_vec()).unwrap();
                match seen.operations.last_mut() {
                    Some(content) => content.push_str(&text),
                    None => seen.operations.push(text),
                }
            }
            Turn::Batch(batch) => {
                assert_eq!(batch.items.last().unwrap().end, batch.bytes.len());
                seen.forwarded.extend_from_slice(&batch.bytes);
                for item in batch.items {
                    if let Some(draft) = item.operation {
                        seen.operations
                            .push(format!("{} {:?} {:?}", draft.kind, draft.text, draft.parameters));
                    }
                    match item.step {
                        Step::Parse(change) | Step::CloseStatement(change) => {
                            memory.statements.settle(&change, Settled::Applied);
                        }
                        Step::Bind(change) | Step::ClosePortal(change) => {
                            memory.portals.settle(&change, Settled::Applied);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["", "a", "b"]).prop_map(str::to_owned)
}

/// A message that means something.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let text = |kind: u8, parts: Vec<String>, rest: &'static [u8]| {
        message(kind, |out| {
            for part in parts {
                frame::put_text(out, part.as_bytes());
            }
            out.put_slice(rest);
        })
        .to_vec()
    };
    let sql = "[a-z ;]{0,20}";
    prop_oneof![
        sql.prop_map(move |sql| text(client::QUERY, vec![sql], b"")),
        (name(), sql).prop_map(move |(name, sql)| text(client::PARSE, vec![name, sql], b"\0\x01\0\0\0\x17")),
        (name(), name()).prop_map(move |(portal, name)| {
            text(client::BIND, vec![portal, name], b"\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x07\0\0")
        }),
        name().prop_map(move |portal| text(client::EXECUTE, vec![portal], b"\0\0\0\0")),
        name().prop_map(move |name| text(client::CLOSE, vec![format!("S{name}")], b"")),
        name().prop_map(move |name| text(client::DESCRIBE, vec![format!("P{name}")], b"")),
        Just(text(client::SYNC, vec![], b"")),
        Just(text(client::FLUSH, vec![], b"")),
    ]
}

fn any_data() -> impl Strategy<Value = Vec<u8>> {
    "[a-z]{0,40}".prop_map(|text| message(client::COPY_DATA, |out| out.put_slice(text.as_bytes())).to_vec())
}

/// Cuts `bytes` at `cuts`.
fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

proptest! {
    /// Attack 6: however the bytes come, the same is forwarded, namely all of it, and the same is recorded.
    #[test]
    fn any_split_gives_the_same_bytes_and_operations(
        messages in proptest::collection::vec(any_message(), 0..20),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = messages.concat();
        let whole = feed(&[&bytes], NOTHING_OPEN, false);
        prop_assert_eq!(&whole.forwarded, &bytes);
        prop_assert_eq!(&feed(&cut(&bytes, &cuts), NOTHING_OPEN, false), &whole);
        prop_assert_eq!(&feed(&cut(&bytes, &cuts), NOTHING_OPEN, true), &whole, "with pauses");
    }

    #[test]
    fn any_split_of_copy_data_gives_the_same_content(
        messages in proptest::collection::vec(any_data(), 0..20),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = messages.concat();
        let view = View { copy_in: true, ..NOTHING_OPEN };
        let whole = feed(&[&bytes], view, false);
        prop_assert_eq!(&whole.forwarded, &bytes);
        let split = feed(&cut(&bytes, &cuts), view, true);
        prop_assert_eq!(&split.forwarded, &bytes);
        prop_assert_eq!(split.operations.concat(), whole.operations.concat());
    }

    /// Hostile bytes end in a refusal or wait for more; nothing panics, and what is forwarded is a beginning of what came.
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), proptest::sample::select(b"QPBEDCHSFX".to_vec())], 0..200),
        copy_in in any::<bool>(),
    ) {
        let mut frontend = Frontend::new(64);
        let mut memory = Memory::default();
        frontend.input.extend_from_slice(&bytes);
        frontend.scan();
        let mut forwarded = Vec::new();
        loop {
            match frontend.turn(&mut memory, View { copy_in, ..NOTHING_OPEN }) {
                Turn::Batch(batch) => forwarded.extend_from_slice(&batch.bytes),
                Turn::Copy(batch) => forwarded.extend_from_slice(&batch.bytes),
                Turn::Read | Turn::Stall | Turn::Left | Turn::Broken(..) => break,
            }
        }
        if copy_in || !bytes.iter().any(|byte| is_copy(*byte)) {
            prop_assert!(bytes.starts_with(&forwarded));
        }
    }
}

/// A message that is longer than allowed is refused by its header; one that is read is given room as it comes.
#[test]
fn how_much_is_lacking_is_known_from_the_header() {
    let mut frontend = Frontend::new(1000);
    frontend.input.extend_from_slice(b"Q\0\0\0\x64SELECT");
    frontend.scan();
    assert_eq!(frontend.lacking(), 101 - 11);
    let mut frontend = Frontend::new(99);
    frontend.input.extend_from_slice(b"Q\0\0\0\x64");
    frontend.scan();
    let turn = frontend.turn(&mut Memory::default(), NOTHING_OPEN);
    assert!(matches!(turn, Turn::Broken(Refusal::TooLarge { length: 100, limit: 99 }, _)));
}
