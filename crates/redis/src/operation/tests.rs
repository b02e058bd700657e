use expect_test::{Expect, expect};
use verbatim_core::{Operation, Parameter};

use super::*;

const VIEW: View =
    View { transaction: false, transaction_full: false, monitoring: false, subscribed: false, room: 1000 };

fn frontend(input: &[u8]) -> Frontend {
    let mut frontend = Frontend::new(1 << 30, Allowed::default(), None);
    frontend.input.extend_from_slice(input);
    frontend
}

/// A line an operation: text, parameters, how it is answered.
fn check(lines: &[&str], expected: Expect) {
    let input: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let mut frontend = frontend(input.as_bytes());
    let mut shown = String::new();
    loop {
        match frontend.turn(View { transaction: true, monitoring: true, ..VIEW }) {
            Turn::Read => break,
            Turn::Batch(batch) => {
                for item in batch.items {
                    let refused = item.draft.as_ref().unwrap().refused.clone();
                    shown += &show(item.draft.unwrap().numbered(1));
                    shown += &format!(" {:?}", item.role);
                    shown += &refused.map_or(String::new(), |refusal| format!(" !{}", refusal.code()));
                    shown.push('\n');
                }
            }
            Turn::Renew(renewal) => shown += &format!("login {}\n", show(renewal.draft.numbered(1))),
            other => shown += &format!("{other:?}\n"),
        }
    }
    expected.assert_eq(&shown);
}

fn show(operation: Operation) -> String {
    let mut list = Vec::new();
    Parameter::write_list(operation.parameters.as_deref().unwrap_or_default(), &mut list);
    let text = operation.text.unwrap();
    format!("{} {}", std::str::from_utf8(&text).unwrap(), String::from_utf8(list).unwrap())
}

#[test]
fn commands_become_operations() {
    check(
        &[
            "SET k 'a b'",
            "GET",
            "BLPOP l 0",
            "XREAD COUNT 1 BLOCK 0 STREAMS x $",
            "HELLO 3",
            "hello",
            "CLIENT REPLY off",
            "CLIENT REPLY on",
            "SUBSCRIBE a b",
            "UNSUBSCRIBE",
            "AUTH ada s3cret",
            "HELLO 3 AUTH ada s3cret",
            "ACL SETUSER ada >s3cret",
        ],
        expect![[r#"
            SET k "a b" [{"type":"bulk","value":"k"},{"type":"bulk","value":"a b"}] Plain
            GET [] Plain
            BLPOP l 0 [{"type":"bulk","value":"l"},{"type":"bulk","value":"0"}] Blocking
            XREAD COUNT 1 BLOCK 0 STREAMS x $ [{"type":"bulk","value":"COUNT"},{"type":"bulk","value":"1"},{"type":"bulk","value":"BLOCK"},{"type":"bulk","value":"0"},{"type":"bulk","value":"STREAMS"},{"type":"bulk","value":"x"},{"type":"bulk","value":"$"}] Blocking
            HELLO 3 [{"type":"bulk","value":"3"}] Hello(3)
            hello [] Plain
            CLIENT REPLY off [{"type":"bulk","value":"REPLY"},{"type":"bulk","value":"off"}] Reply(Off)
            CLIENT REPLY on [{"type":"bulk","value":"REPLY"},{"type":"bulk","value":"on"}] Reply(On)
            SUBSCRIBE a b [{"type":"bulk","value":"a"},{"type":"bulk","value":"b"}] Subscribe { topic: Channel, ends: false, left: 2 }
            UNSUBSCRIBE [] Subscribe { topic: Channel, ends: true, left: 0 }
            login AUTH ada "(redacted, 6 bytes)" [{"type":"bulk","value":"ada"},{"type":"redacted","value":"(redacted, 6 bytes)"}]
            login HELLO 3 AUTH ada "(redacted, 6 bytes)" [{"type":"bulk","value":"3"},{"type":"bulk","value":"AUTH"},{"type":"bulk","value":"ada"},{"type":"redacted","value":"(redacted, 6 bytes)"}]
            ACL SETUSER ada ">(redacted, 6 bytes)" [{"type":"bulk","value":"SETUSER"},{"type":"bulk","value":"ada"},{"type":"redacted","value":">(redacted, 6 bytes)"}] Plain
        "#]],
    );
}

#[test]
fn what_the_interceptor_itself_objects_to() {
    check(
        &[
            "MULTI",
            "CLIENT REPLY OFF",
            "MONITOR",
            "SYNC",
            "EXEC",
            "CLIENT REPLY OFF",
            "SUBSCRIBE a",
            "MONITOR",
            "CLIENT REPLY ON",
            "SUBSCRIBE a",
            "MONITOR",
            "GET k",
            "PING",
            "RESET",
            "GET k",
            "RESET",
        ],
        expect![[r#"
            MULTI [] Multi
            CLIENT REPLY OFF [{"type":"bulk","value":"REPLY"},{"type":"bulk","value":"OFF"}] Reply(Off) !unsupported
            MONITOR [] Monitor !unsupported
            SYNC [] Replication !command
            EXEC [] Exec
            CLIENT REPLY OFF [{"type":"bulk","value":"REPLY"},{"type":"bulk","value":"OFF"}] Reply(Off)
            SUBSCRIBE a [{"type":"bulk","value":"a"}] Subscribe { topic: Channel, ends: false, left: 1 } !unsupported
            MONITOR [] Monitor !unsupported
            CLIENT REPLY ON [{"type":"bulk","value":"REPLY"},{"type":"bulk","value":"ON"}] Reply(On)
            SUBSCRIBE a [{"type":"bulk","value":"a"}] Subscribe { topic: Channel, ends: false, left: 1 }
            MONITOR [] Monitor
            GET k [{"type":"bulk","value":"k"}] Plain !unsupported
            PING [] Plain
            RESET [] Reset
            GET k [{"type":"bulk","value":"k"}] Plain !reset
            RESET [] Reset
        "#]],
    );
}

#[test]
fn a_full_transaction_takes_no_more() {
    let mut full = frontend(b"MULTI\r\nGET k\r\nEXEC\r\n");
    let Turn::Batch(batch) = full.turn(View { transaction: true, transaction_full: true, ..VIEW }) else {
        panic!("no batch")
    };
    let refused: Vec<bool> =
        batch.items.iter().map(|item| item.draft.as_ref().unwrap().refused.is_some()).collect();
    assert_eq!(refused, [false, true, false]);
}

#[test]
fn a_batch_has_an_end() {
    let mut many = frontend(&b"PING\r\n".repeat(3000));
    let mut sizes = Vec::new();
    while let Turn::Batch(batch) = many.turn(View { room: 5000, ..VIEW }) {
        sizes.push(batch.items.len());
    }
    assert_eq!(sizes, [1024, 1024, 952]);
    let mut few = frontend(&b"PING\r\n".repeat(30));
    let Turn::Batch(batch) = few.turn(View { room: 10, ..VIEW }) else { panic!("no batch") };
    assert_eq!(batch.items.len(), 10);
}

#[test]
fn what_cannot_be_read_is_recorded_as_it_came_unless_it_may_hold_a_secret() {
    for (bytes, parameters) in [
        (
            &b"*2\r\n$3\r\nGET\r\n$x\r\nrest"[..],
            r#"GET [{"type":"bytes","value":"*2\r\n$3\r\nGET\r\n$x\r\nrest"}]"#,
        ),
        (
            b"*3\r\n$4\r\nAUTH\r\n$1\r\na\r\n$x6\r\ns3cret\r\n",
            r#"AUTH "(redacted, 1 bytes)" [{"type":"redacted","value":"(redacted, 1 bytes)"}]"#,
        ),
    ] {
        let Turn::Broken(broken) = frontend(bytes).turn(VIEW) else { panic!("it could be read") };
        assert_eq!(show(broken.1.numbered(1)), parameters);
    }
}

#[test]
fn logins_are_read_in_both_forms() {
    let read = |line: &str| {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        read_login(&words).map(|login| {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let hello = login.hello.map(|hello| (hello.version, hello.name.map(text)));
            (login.user.map(text), text(login.token), hello)
        })
    };
    let ada = Some("ada".to_owned());
    assert_eq!(read("AUTH ada t"), Ok((ada.clone(), "t".into(), None)));
    assert_eq!(read("HELLO 3 AUTH ada t"), Ok((ada.clone(), "t".into(), Some((3, None)))));
    assert_eq!(read("hello 2 setname n auth ada t"), Ok((ada, "t".into(), Some((2, Some("n".into()))))));
    assert_eq!(read("AUTH t"), Err(NoLogin::OneArgument));
    for line in
        ["AUTH", "AUTH a b c", "HELLO 4 AUTH a b", "HELLO x AUTH a b", "HELLO 3 AUTH a", "HELLO 3 MORE a b"]
    {
        assert!(matches!(read(line), Err(NoLogin::Words(_))), "{line}");
    }
}
