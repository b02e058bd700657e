use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 1 << 20;

fn frontend(bytes: &[u8]) -> Frontend {
    let mut frontend = Frontend::new(LIMIT, crate::capability::COMMON);
    frontend.input.extend_from_slice(bytes);
    frontend
}

fn command(kind: u8, body: &[u8]) -> Vec<u8> {
    frame::packet(0, &[&[kind], body].concat()).to_vec()
}

/// The kinds of the operations in a batch, and what else a turn is.
fn shown(turn: Turn) -> String {
    match turn {
        Turn::Batch(batch) => batch.items.iter().map(|item| item.draft.kind).collect::<Vec<_>>().join(" "),
        Turn::Kill { kill, wire, .. } => format!("kill {} {} {wire}", kill.thread_id, kill.query),
        Turn::ChangeUser { .. } => "change_user".to_owned(),
        Turn::Broken(refusal, bytes) => format!("broken {} {}", refusal.code(), bytes.len()),
        Turn::Data(data) => format!("data {} {}", data.contents.len(), data.ended),
        other => format!("{other:?}"),
    }
}

#[test]
fn commands_are_decided_together_up_to_one_that_decides_how_the_next_is_read() {
    let memory = Memory::default();
    let mut bytes = [command(3, b"SELECT 1"), command(0x0e, b""), command(2, b"db")].concat();
    bytes.extend(command(3, b"LOAD DATA LOCAL INFILE 'x' INTO TABLE t"));
    bytes.extend(command(3, b"SELECT 2"));
    let mut frontend = frontend(&bytes);
    assert_eq!(shown(frontend.turn(&memory, View::default())), "query ping init_db query");
    let loading = View { may_load: true, pending: true, ..View::default() };
    assert_eq!(shown(frontend.turn(&memory, loading)), "Stall");
    assert_eq!(shown(frontend.turn(&memory, View::default())), "query");
    assert_eq!(shown(frontend.turn(&memory, View::default())), "Read");
}

#[test]
fn what_uses_a_statement_waits_for_what_may_prepare_it() {
    let memory = Memory::default();
    let bytes = [command(0x16, b"SELECT 1"), command(0x17, b"\x01\0\0\0\0\x01\0\0\0")].concat();
    let mut frontend = frontend(&bytes);
    assert_eq!(shown(frontend.turn(&memory, View::default())), "prepare");
    let preparing = View { preparing: true, pending: true, ..View::default() };
    assert_eq!(shown(frontend.turn(&memory, preparing)), "Stall");
    assert_eq!(shown(frontend.turn(&memory, View::default())), "execute");
}

#[test]
fn a_login_waits_until_everything_is_answered() {
    let memory = Memory::default();
    let mut frontend = frontend(&[command(0x0e, b""), command(0x11, b"ada\0\0db\0")].concat());
    assert_eq!(shown(frontend.turn(&memory, View::default())), "ping");
    assert_eq!(shown(frontend.turn(&memory, View { pending: true, ..View::default() })), "Stall");
    assert_eq!(shown(frontend.turn(&memory, View::default())), "change_user");
}

/// The server's own ids are in SQL; the gateway's are those that it can do something with.
#[test]
fn a_kill_of_the_gateways_id_stands_alone() {
    let memory = Memory::default();
    let turn = |text: &[u8]| shown(frontend(&command(3, text)).turn(&memory, View::default()));
    assert_eq!(turn(b"KILL 7"), "query");
    assert_eq!(turn(b"KILL QUERY 1073741825"), "kill 1073741825 true false");
    assert_eq!(turn(b"SELECT 1; KILL QUERY 1073741825"), "query");
    let turn = frontend(&command(0x0c, b"\x07\0\0\0")).turn(&memory, View::default());
    assert_eq!(shown(turn), "kill 7 false true");
}

#[test]
fn a_file_comes_in_any_pieces_and_ends_with_an_empty_packet() {
    let memory = Memory::default();
    let view = View { takes_data: Some(2), pending: true, ..View::default() };
    let bytes = [&frame::packet(2, b"abcdef")[..], &frame::packet(3, b""), &command(0x0e, b"")].concat();
    for size in [1, 3, 100] {
        let mut frontend = frontend(b"");
        let mut content = Vec::new();
        let mut ended = false;
        let mut chunks = bytes.chunks(size);
        while !ended {
            frontend.input.extend_from_slice(chunks.next().unwrap());
            while let Turn::Data(data) = frontend.turn(&memory, view) {
                data.contents.iter().for_each(|piece| content.extend_from_slice(piece));
                ended = data.ended;
                if ended {
                    assert_eq!(data.next, 4);
                    break;
                }
            }
        }
        chunks.for_each(|chunk| frontend.input.extend_from_slice(chunk));
        assert_eq!(content, b"abcdef");
        assert_eq!(shown(frontend.turn(&memory, View::default())), "ping", "what follows is a command again");
    }
    let mut frontend = frontend(&frame::packet(5, b"abc"));
    assert_eq!(shown(frontend.turn(&memory, view)), "broken protocol 7");
}

proptest! {
    #[test]
    fn no_bytes_make_a_turn_fail_or_lose_any(bytes in prop::collection::vec(any::<u8>(), 0..200), file: bool) {
        let mut frontend = frontend(&bytes);
        let view = View { takes_data: file.then_some(0), ..View::default() };
        for _ in 0..=bytes.len() {
            match frontend.turn(&Memory::default(), view) {
                Turn::Batch(batch) => {
                    prop_assert_eq!(batch.items.last().map(|item| item.end), Some(batch.bytes.len()));
                }
                Turn::Read | Turn::Stall | Turn::Quit | Turn::Broken(..) => break,
                Turn::Data(_) | Turn::Kill { .. } | Turn::ChangeUser { .. } => {}
            }
        }
    }

    #[test]
    fn any_body_of_any_command_is_an_operation(kind: u8, body in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut memory = Memory::default();
        memory.prepared(Some((1, Bytes::from_static(b"SELECT ?, ?"), 2)));
        for body in [body.clone(), [&1_u32.to_le_bytes()[..], &body].concat()] {
            let capabilities = crate::capability::COMMON | crate::capability::QUERY_ATTRIBUTES | crate::capability::BULK;
            let mut frontend = Frontend::new(LIMIT, capabilities);
            frontend.input.extend_from_slice(&command(kind, &body));
            let turn = frontend.turn(&memory, View::default());
            prop_assert!(!matches!(turn, Turn::Read | Turn::Stall | Turn::Broken(..)), "{:?}", turn);
        }
    }
}
