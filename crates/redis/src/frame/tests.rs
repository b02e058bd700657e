use proptest::prelude::*;

use super::*;
use crate::operation::request;

fn limits() -> Limits {
    Limits::session(1 << 30)
}

/// Everything in `input`, as it comes in pieces of `step`.
fn read(input: &[u8], step: usize) -> Result<Vec<Vec<Vec<u8>>>, Refusal> {
    let mut requests = Requests::new(limits());
    let mut have = Vec::new();
    let mut found = Vec::new();
    for piece in input.chunks(step.max(1)) {
        have.extend_from_slice(piece);
        loop {
            match requests.next(&have)? {
                Next::Incomplete => break,
                Next::Nothing => {}
                Next::Command => {
                    found.push(requests.arguments(&have).iter().map(|argument| argument.to_vec()).collect());
                    // What was read is taken away, as a relay does.
                    let end = requests.end();
                    have.drain(..end);
                    requests.taken(end);
                }
                Next::Large(_) => {
                    let start = requests.end();
                    let mut rest = requests.rest();
                    let (used, ended) = rest.walk(&have[start..])?;
                    assert!(used <= have.len() - start);
                    if !ended {
                        return Ok(found);
                    }
                    have.drain(..start + used);
                    requests.taken(start + used);
                }
            }
        }
    }
    Ok(found)
}

fn inline(line: &str) -> Result<Vec<String>, String> {
    let found = read(format!("{line}\r\n").as_bytes(), 1000).map_err(|refusal| refusal.reason())?;
    let words = found.into_iter().next().unwrap_or_default();
    Ok(words.into_iter().map(|word| word.escape_ascii().to_string()).collect())
}

#[test]
fn an_inline_line_is_split_as_the_server_splits_it() {
    let ok = |line, words: &[&str]| assert_eq!(inline(line).unwrap(), words, "{line}");
    ok("  set\tk   v ", &["set", "k", "v"]);
    ok(r#"set "a b" 'c d'"#, &["set", "a b", "c d"]);
    ok(r#"set "\x41\x4g\n\"\\" 'it\'s \n'"#, &["set", r#"Ax4g\n\"\\"#, r"it\'s \\n"]);
    ok(r#"set pre"fix" """#, &["set", "prefix", ""]);
    ok(r#"echo "\x""#, &["echo", "x"]);
    for line in [r#"set "a"#, "set 'a", r#"set "a"b"#, "set 'a'b", r#"set "a\"#] {
        assert!(inline(line).unwrap_err().contains("unbalanced quotes"), "{line}");
    }
}

#[test]
fn numbers_are_read_as_the_server_reads_them() {
    for (text, expected) in
        [("0", Some(0)), ("-1", Some(-1)), ("10", Some(10)), ("9223372036854775807", Some(i64::MAX))]
    {
        assert_eq!(number(text.as_bytes()), expected, "{text}");
    }
    for text in ["", "-", "+1", "01", "-0", "-01", " 1", "1 ", "0x1", "9223372036854775808", "1\n"] {
        assert_eq!(number(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn a_request_over_a_limit_is_refused_by_its_header_alone() {
    let mut requests = Requests::new(Limits { bytes: 1000, ..limits() });
    assert!(matches!(
        requests.next(b"*2\r\n$1\r\na\r\n$1000\r\n"),
        Err(Refusal::TooLarge { limit: 1000, .. })
    ));
    let mut requests = Requests::new(Limits { bytes: 1000, ..limits() });
    assert!(matches!(requests.next(b"*200\r\n"), Err(Refusal::TooLarge { limit: 1000, .. })));
    let mut requests = Requests::new(Limits::login(100));
    assert!(requests.next(b"*11\r\n").is_err());
    let mut requests = Requests::new(Limits::login(100));
    assert!(requests.next(b"*1\r\n$101\r\n").is_err());
}

#[test]
fn an_error_stays_an_error() {
    let mut requests = Requests::new(limits());
    for bytes in [&b"*1000000000000\r\n$4\r\nPING\r\n"[..], b"*1\r\n$-5\r\n$4\r\nPING\r\n"] {
        assert!(requests.next(bytes).is_err());
        assert!(requests.next(bytes).is_err());
    }
}

#[test]
fn the_rest_of_a_large_request_is_walked_to_its_end_and_no_further() {
    let bytes = request(&[b"SET", b"k", &vec![b'v'; WHOLE_MAX], b"EX", b"1"]);
    for step in [1 << 20, 70_001] {
        let mut requests = Requests::new(limits());
        assert_eq!(requests.next(&bytes), Ok(Next::Large(WHOLE_MAX as u64)));
        assert_eq!(requests.arguments(&bytes), [&b"SET"[..], b"k"]);
        let from = requests.end();
        let mut rest = requests.rest();
        let mut at = from;
        let mut to = from;
        loop {
            to = (to + step).min(bytes.len());
            let (used, ended) = rest.walk(&bytes[at..to]).unwrap();
            at += used;
            if ended {
                break;
            }
        }
        assert_eq!(at, bytes.len());
    }
    let mut rest = Rest { left: 1, payload: 0, ending: false, bytes: 0, limit: 10 };
    assert!(matches!(rest.walk(b"$100\r\n"), Err(Refusal::TooLarge { .. })));
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        commands in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..6), 0..6),
        step in 1_usize..50,
    ) {
        let bytes: Vec<u8> = commands
            .iter()
            .flat_map(|command| request(&command.iter().map(Vec::as_slice).collect::<Vec<_>>()))
            .collect();
        prop_assert_eq!(read(&bytes, step).unwrap(), commands);
    }

    #[test]
    fn any_bytes_are_read_or_refused_the_same_way_however_they_are_cut(
        bytes in proptest::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b'1'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..80),
        step in 1_usize..10,
    ) {
        let (whole, pieces) = (read(&bytes, 1000), read(&bytes, step));
        prop_assert_eq!(whole.is_ok(), pieces.is_ok());
        if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
            prop_assert_eq!(whole, pieces);
        }
    }
}
