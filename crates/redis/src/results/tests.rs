use proptest::prelude::*;

use super::*;
use bytes::Bytes;

/// What a target may say.
const REPLIES: &[&[u8]] = &[
    b"+OK\r\n",
    b"+QUEUED\r\n",
    b"-ERR x\r\n",
    b"*2\r\n",
    b"*1\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"+1.1 [0 lua] \"x\"\r\n",
    b"$2\r\nab\r\n",
    b"%1\r\n+a\r\n+b\r\n",
    b"\x00",
];

fn sent(role: Role) -> Entry {
    Entry::Sent(Open::new(None, role, None))
}

/// What the client gets, as text.
fn passed(bytes: &[u8], passed: &Passed) -> String {
    let part = |part: &Part| match part {
        Part::Bytes(from, to) => bytes[*from..*to].escape_ascii().to_string(),
        Part::Insert(words) => format!("<{}>", words.escape_ascii()),
    };
    passed.parts.iter().map(part).collect()
}

#[test]
fn words_and_what_the_gateway_asked_for_itself_stand_where_they_belong() {
    let mut results = Results::new(false);
    results.expect(sent(Role::Plain));
    results.expect(Entry::Words(Bytes::from_static(b"no")));
    results.expect(Entry::Own(Role::Plain, Some(Bytes::from_static(b"never"))));
    results.expect(sent(Role::Plain));
    results.expect(Entry::Last(Bytes::from_static(b"bye")));
    let bytes = b"+1\r\n-ERR unknown\r\n>1\r\n+push\r\n+2\r\n+3\r\n";
    let (got, received) = results.receive(bytes);
    assert!(received.is_ok() && got.last);
    assert_eq!(passed(bytes, &got), r"+1\r\n<no><never>>1\r\n+push\r\n+2\r\n<bye>");
}

#[test]
fn what_came_before_the_error_is_passed_on() {
    let mut results = Results::new(false);
    results.expect(sent(Role::Plain));
    let bytes = b"+1\r\n+2\r\n";
    let (got, received) = results.receive(bytes);
    assert!(received.is_err() && results.can_say_why());
    assert_eq!(passed(bytes, &got), r"+1\r\n");
}

#[test]
fn commands_without_a_reply_do_not_pile_up() {
    let mut results = Results::new(false);
    results.expect(sent(Role::Reply(Reply::Off)));
    for _ in 0..10 * PENDING_MAX {
        assert!(results.view().room > 0);
        results.expect(sent(Role::Plain));
    }
    assert!(results.queue.len() <= SILENT_MAX && results.is_answered());
    results.expect(sent(Role::Reply(Reply::On)));
    assert!(!results.is_answered());
    assert!(results.receive(b"+OK\r\n").1.is_ok());
    assert!(results.is_idle());
}

proptest! {
    /// Whatever a target says: no panic, nothing passed on twice or out of order.
    #[test]
    fn any_bytes_of_a_target_are_passed_on_in_order_or_not_at_all(
        roles in proptest::collection::vec(0_u8..14, 0..20),
        bytes in proptest::collection::vec(
            proptest::sample::select(REPLIES.to_vec()), 0..20),
    ) {
        let mut results = Results::new(true);
        for role in roles {
            results.expect(match role {
                0 => Entry::Words(Bytes::from_static(b"w")),
                1 => Entry::Own(Role::Plain, Some(Bytes::from_static(b"o"))),
                2 => Entry::Own(Role::Discard, None),
                3 => sent(Role::Multi),
                4 => sent(Role::Exec),
                5 => sent(Role::Discard),
                6 => sent(Role::Subscribe { topic: Topic::Channel, ends: false, left: 1 }),
                7 => sent(Role::Subscribe { topic: Topic::Channel, ends: true, left: 0 }),
                8 => sent(Role::Monitor),
                9 => sent(Role::Reply(Reply::Off)),
                10 => sent(Role::Reply(Reply::Skip)),
                11 => sent(Role::Reply(Reply::On)),
                12 => sent(Role::Reset),
                _ => sent(Role::Plain),
            });
        }
        for piece in bytes {
            let (passed, received) = results.receive(piece);
            let mut at = 0;
            for part in &passed.parts {
                if let Part::Bytes(from, to) = part {
                    prop_assert!(*from >= at && *from < *to && *to <= piece.len());
                    at = *to;
                }
            }
            if received.is_err() || passed.last {
                break;
            }
            results.due();
        }
        results.end();
    }
}
