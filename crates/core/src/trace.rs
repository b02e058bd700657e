//! Trace ids that clients claim: W3C Trace Context, wherever a protocol has room for one.
//!
//! A claimed id is recorded and trusted for nothing: it joins what one run of an agent did across connections.

/// The name under which every carrier holds it.
pub const NAME: &str = "traceparent";

/// How much of either end of a statement is searched for a comment: sqlcommenter writes at the end, some drivers at the
/// front.
const SEARCHED_BYTES: usize = 4 << 10;

/// `00-` 32 digits `-` 16 digits `-` 2 digits.
const VERSION_0_BYTES: usize = 55;

/// The trace id of a `traceparent` value (W3C Trace Context, section 3.2): 32 hexadecimal digits in lower case. None where
/// it is malformed or all zero.
pub fn traceparent(value: &str) -> Option<String> {
    let value = value.trim_ascii();
    let mut fields = value.splitn(4, '-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let hexadecimal = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let set = |text: &str| text.bytes().any(|byte| byte != b'0');
    // A later version may have more behind the flags, version 0 has not.
    let flags = match version {
        "00" => flags,
        _ => flags.split('-').next()?,
    };
    let legal = hexadecimal(version, 2)
        && version != "ff"
        && hexadecimal(trace, 32)
        && set(trace)
        && hexadecimal(parent, 16)
        && set(parent)
        && hexadecimal(flags, 2);
    legal.then(|| trace.to_owned())
}

/// The trace id in a comment of a statement, as sqlcommenter writes it: `/*…,traceparent='00-…-01',…*/`.
///
/// Only the statement's first and last 4 KiB are looked at, and no SQL is parsed: the id is a claim either way.
pub fn in_comment(statement: &[u8]) -> Option<String> {
    let commented = |part: &[u8]| find(part, b"/*").and_then(|_| in_bytes(part));
    let tail = statement.get(statement.len().saturating_sub(SEARCHED_BYTES)..)?;
    // Of a statement that is no longer than that, the tail is all.
    let head =
        || statement.get(..SEARCHED_BYTES).filter(|head| head.len() < statement.len()).and_then(commented);
    commented(tail).or_else(head)
}

/// The trace id in a text that has room for one among other words: an application name, a list of options.
pub fn in_text(text: &str) -> Option<String> {
    in_bytes(text.as_bytes()).or_else(|| text.split_ascii_whitespace().find_map(traceparent))
}

/// Behind `traceparent`, then `=` or `:`, then an optional quote, percent-encoded or not.
fn in_bytes(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes;
    while let Some(place) = find(rest, NAME.as_bytes()) {
        rest = rest.get(place + NAME.len()..)?;
        let value = rest.trim_ascii_start();
        let Some(value) = value.strip_prefix(b"=").or_else(|| value.strip_prefix(b":")) else { continue };
        let value = value.trim_ascii_start();
        let value =
            [&b"'"[..], b"\"", b"%27"].iter().find_map(|quote| value.strip_prefix(*quote)).unwrap_or(value);
        let value = value.get(..VERSION_0_BYTES)?;
        if let Some(trace) = std::str::from_utf8(value).ok().and_then(traceparent) {
            return Some(trace);
        }
    }
    None
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // The first letter is looked for with the standard library's search; `/*` and a name of eleven letters are rare.
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(step) = haystack.get(from..)?.iter().position(|byte| *byte == first) {
        let place = from + step;
        if haystack.get(place..place + needle.len()) == Some(needle) {
            return Some(place);
        }
        from = place + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_taken_as_the_standard_writes_it_and_not_otherwise() {
        assert_eq!(traceparent(PARENT).as_deref(), Some(TRACE));
        assert_eq!(traceparent(&format!("  {PARENT} ")).as_deref(), Some(TRACE));
        assert_eq!(
            traceparent(&PARENT.replacen("00", "01", 1).replace("-01", "-01-more")).as_deref(),
            Some(TRACE)
        );
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(traceparent(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_comment_carries_it_at_either_end_of_a_statement() {
        let end = format!("SELECT 1 /*action='x',traceparent='{PARENT}',tracestate=''*/");
        assert_eq!(in_comment(end.as_bytes()).as_deref(), Some(TRACE));
        let front = format!("/* traceparent: {PARENT} */ SELECT '{}'", "x".repeat(10_000));
        assert_eq!(in_comment(front.as_bytes()).as_deref(), Some(TRACE));
        assert_eq!(
            in_comment(format!("SELECT 1 /*traceparent=%27{PARENT}%27*/").as_bytes()).as_deref(),
            Some(TRACE)
        );
        assert_eq!(
            in_comment(format!("SELECT 'traceparent={PARENT}'").as_bytes()),
            None,
            "there is no comment"
        );
        assert_eq!(in_comment(b"/* traceparent='00-4bf9"), None);
    }

    #[test]
    fn an_application_name_carries_it_among_other_words() {
        assert_eq!(in_text(&format!("report-agent traceparent={PARENT}")).as_deref(), Some(TRACE));
        assert_eq!(in_text(&format!("report-agent {PARENT}")).as_deref(), Some(TRACE));
        assert_eq!(in_text("report-agent"), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_client_claims_makes_it_fail(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(in_comment(&bytes));
            drop(in_bytes(&bytes));
        }
    }
}
