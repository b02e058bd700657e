//! The target's side: messages in whatever pieces they come.

use proptest::prelude::*;

use super::*;

/// Every message that the walk finds, with the body where it matters.
fn walk(pieces: &[&[u8]]) -> Vec<(u8, u64, Vec<u8>)> {
    let mut walk = Walk::default();
    let mut found = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            match walk.step(rest).unwrap() {
                Walked::Within(_) => break,
                Walked::Message { kind, length, used, body } => {
                    let body = match body {
                        Some(range) if kind != target::DATA_ROW => rest[range].to_vec(),
                        Some(_) => Vec::new(),
                        None => walk.kept(),
                    };
                    found.push((kind, length, body));
                    rest = &rest[used..];
                }
            }
        }
    }
    assert!(walk.at_boundary());
    found
}

proptest! {
    #[test]
    fn any_split_gives_the_same_messages(
        messages in proptest::collection::vec(
            (proptest::sample::select(b"DCEZ".to_vec()), proptest::collection::vec(any::<u8>(), 0..40)),
            0..12,
        ),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let bytes = messages
            .iter()
            .map(|(kind, body)| frame::message(*kind, |out| out.put_slice(body)).to_vec())
            .collect::<Vec<_>>()
            .concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        let expected: Vec<_> = messages
            .into_iter()
            .map(|(kind, body)| {
                let length = body.len() as u64 + 5;
                (kind, length, if kind == target::DATA_ROW { Vec::new() } else { body })
            })
            .collect();
        prop_assert_eq!(walk(&pieces), expected);
    }

    /// Hostile bytes of a target end in an error or are passed on; nothing panics.
    #[test]
    fn any_bytes_of_a_target_are_matched_or_out_of_step(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut results = Results::new(true);
        let mut memory = Memory::default();
        results.expect(Entry::DescribePortal, &mut memory);
        results.expect(Entry::Sync(Answer::IfCopyFails), &mut memory);
        results.expect(Entry::Sync(Answer::Due), &mut memory);
        let _ = results.receive(&bytes, &mut memory);
    }
}

/// A body that nobody looks at is not kept, and one that somebody does only so far.
#[test]
fn what_is_kept_of_a_body_is_bounded() {
    let long = frame::message(target::ERROR_RESPONSE, |out| out.put_slice(&vec![b'x'; 4 * walk::BODY_MAX]));
    let mut walk = Walk::default();
    for piece in long.chunks(1000) {
        if let Ok(Walked::Message { length, .. }) = walk.step(piece) {
            assert_eq!(length, long.len() as u64);
        }
    }
    assert_eq!(walk.kept().len(), walk::BODY_MAX);
}
