use proptest::prelude::*;

use super::*;

/// A reply, made of what RESP has.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    let line = "[a-zA-Z0-9 ]{0,40}";
    let leaf = prop_oneof![
        line.prop_map(|text| format!("+{text}\r\n").into_bytes()),
        line.prop_map(|text| format!("-ERR {text}\r\n").into_bytes()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        Just(b"_\r\n".to_vec()),
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        Just(b"#t\r\n".to_vec()),
        Just(b",1.5e10\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| [
            format!("${}\r\n", bytes.len()).as_bytes(),
            &bytes,
            b"\r\n"
        ]
        .concat()),
        Just(b"=7\r\ntxt:abc\r\n".to_vec()),
        Just(b"!5\r\nERR x\r\n".to_vec()),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|parts| [
                format!("*{}\r\n", parts.len()).into_bytes(),
                parts.concat()
            ]
            .concat()),
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|parts| [
                format!(">{}\r\n", parts.len()).into_bytes(),
                parts.concat()
            ]
            .concat()),
            proptest::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(|pairs| {
                let entries: Vec<u8> =
                    pairs.iter().flat_map(|(key, value)| [&key[..], value].concat()).collect();
                [format!("%{}\r\n", pairs.len()).into_bytes(), entries].concat()
            }),
            (inner.clone(), inner)
                .prop_map(|(attribute, reply)| { [b"|1\r\n+k\r\n".to_vec(), attribute, reply].concat() }),
        ]
    })
}

/// How many bytes the first reply measures.
fn measure(bytes: &[u8], step: usize) -> Result<Option<usize>, OutOfStep> {
    let mut walk = Walk::default();
    let mut at = 0;
    for to in (step..bytes.len() + step).step_by(step) {
        let piece = &bytes[..to.min(bytes.len())];
        loop {
            let (used, event) = walk.advance(&piece[at..])?;
            at += used;
            match event {
                Event::End => return Ok(Some(at)),
                Event::More => break,
                Event::Head(..) | Event::First => {}
            }
        }
    }
    Ok(None)
}

fn words(bytes: &[u8]) -> (Option<u8>, String, Option<i64>, bool) {
    let mut walk = Walk::default();
    let mut at = 0;
    loop {
        let (used, event) = walk.advance(&bytes[at..]).unwrap();
        at += used;
        assert_ne!(event, Event::More);
        if event == Event::End {
            return (walk.kind(), walk.word().escape_ascii().to_string(), walk.integer(), walk.is_null());
        }
    }
}

#[test]
fn the_little_that_is_looked_at_is_kept() {
    assert_eq!(words(b"+OK\r\n"), (Some(b'+'), "OK".into(), None, false));
    assert_eq!(words(b"-ERR a b\r\n"), (Some(b'-'), "ERR a b".into(), None, false));
    assert_eq!(words(b"!6\r\nERR ab\r\n"), (Some(b'!'), "ERR ab".into(), None, false));
    assert_eq!(words(b"*-1\r\n"), (Some(b'*'), "-1".into(), None, true));
    assert_eq!(words(b"_\r\n"), (Some(b'_'), String::new(), None, true));
    assert_eq!(words(b"$2\r\n-1\r\n"), (Some(b'$'), "-1".into(), None, false));
    assert_eq!(
        words(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:7\r\n"),
        (Some(b'*'), "subscribe".into(), Some(7), false)
    );
    assert_eq!(words(b"|1\r\n+x\r\n:1\r\n>2\r\n+message\r\n*1\r\n+z\r\n").1, "message");
    let long = format!("-ERR {}\r\n", "x".repeat(10_000));
    assert_eq!(words(long.as_bytes()).1.len(), ERROR_MAX - 1);
}

#[test]
fn nesting_costs_nothing() {
    let mut bytes = b"*1\r\n".repeat(200_000);
    bytes.extend_from_slice(b":1\r\n");
    assert_eq!(measure(&bytes, 4096).unwrap(), Some(bytes.len()));
}

#[test]
fn what_is_no_reply_is_an_error() {
    for bytes in [&b"hello\r\n"[..], b"$-2\r\n", b"$x\r\n", b"*01\r\n", b"$?\r\n", b"*?\r\n", b"~-1\r\n"] {
        assert!(measure(bytes, 100).is_err(), "{}", bytes.escape_ascii());
    }
    // Sums that do not fit are no lengths either.
    assert!(
        measure(b"*2\r\n*9223372036854775807\r\n*9223372036854775807\r\n*9223372036854775807\r\n", 100)
            .is_err()
    );
}

proptest! {
    #[test]
    fn a_reply_ends_where_it_ends_however_it_is_cut(reply in reply(), more in reply(), step in 1_usize..30) {
        let both = [&reply[..], &more].concat();
        prop_assert_eq!(measure(&both, step).unwrap(), Some(reply.len()));
        prop_assert_eq!(measure(&reply[..reply.len() - 1], step).unwrap(), None);
    }

    #[test]
    fn any_bytes_are_walked_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100), step in 1_usize..10) {
        prop_assert_eq!(measure(&bytes, step).is_ok(), measure(&bytes, 1000).is_ok());
    }
}
