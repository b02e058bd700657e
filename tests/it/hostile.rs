//! Peers that do not keep to the protocol: a clear answer or an end, bounded memory and time, and the process lives.

use verbatim_testkit::gateway::{CONNECTION, wait_for};

use crate::wire::{Wire, message, query, sqlstate, startup};
use crate::world::World;

/// The gateway still serves others.
fn lives(world: &World) {
    assert_eq!(world.connect().one("SELECT 'lives'").unwrap(), "lives");
}

#[test]
fn junk_ends_the_stream_and_nothing_else() {
    let world = World::start();
    let junk: [&[u8]; 10] = [
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0",
        b"\0\0\0\x03abcdefgh",
        b"\0\0\0\x07abc",
        b"\xff\xff\xff\xff\0\x03\0\0",
        b"\x7f\xff\xff\xff\0\x03\0\0user\0app\0\0",
        b"\0\0\0\x08\0\0\0\0",
        b"\0\0\0\x08\x04\xd2\x16\x2e",
        &[0xaa; 20_000],
    ];
    for bytes in junk {
        let mut wire = Wire::connect(&world);
        wire.push(bytes);
        let _ = wire.0.shutdown(std::net::Shutdown::Write);
        let answers = wire.rest();
        assert!(answers.is_empty() || answers == "E", "{answers} to {:?}", &bytes[..8]);
    }
    lives(&world);
    assert_eq!(world.gateway.closed_sessions().unwrap().len(), 1, "what claimed nothing is no session");
    world.intact();
}

#[test]
fn a_startup_without_an_end_is_refused() {
    let world = World::start();
    for parameters in ["user\0app\0database\0customers\0", "user", "user\0", "\0\0\0\0\0"] {
        let mut wire = Wire::connect(&world);
        let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
        body.extend_from_slice(parameters.as_bytes());
        let mut bytes = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        wire.push(&bytes);
        assert_eq!(wire.rest(), "E", "{parameters:?}");
    }
    lives(&world);
}

#[test]
fn half_open_startups_meet_a_deadline() {
    let world = World::with(|config| config.with("limits", "login = \"2s\""));
    let mut waiting: Vec<Wire> = (0..300).map(|_| Wire::connect(&world)).collect();
    for (n, wire) in waiting.iter_mut().enumerate() {
        let bytes = startup(0x0003_0000, &[("user", "app"), ("database", CONNECTION)]);
        wire.push(&bytes[..n % bytes.len()]);
    }
    lives(&world);
    for mut wire in waiting {
        let answers = wire.rest();
        assert!(answers.chars().all(|kind| "RE".contains(kind)), "{answers}");
    }
}

#[test]
fn commands_before_the_identity_is_known_go_nowhere() {
    let world = World::start();
    let mut wire = Wire::connect(&world);
    let mut bytes = startup(0x0003_0000, &[("user", "app"), ("database", CONNECTION)]);
    bytes.extend_from_slice(&query("SELECT 'smuggled'"));
    wire.push(&bytes);
    assert!(!wire.rest().contains('D'));
    let log = world.server_log().unwrap();
    assert!(log.is_empty(), "{log:?}");
}

#[test]
fn replication_is_refused_and_on_record() {
    let world = World::start();
    for value in ["true", "database", "on", "1"] {
        let mut wire = Wire::connect(&world);
        wire.send(&startup(
            0x0003_0000,
            &[("user", "app"), ("database", CONNECTION), ("replication", value)],
        ));
        if wire.message().unwrap().0 == b'R' {
            wire.push(&message(b'p', format!("{}\0", world.token()).as_bytes()));
            let answers = wire.rest();
            assert!(answers.contains('E') && !answers.contains('Z'), "{value}: {answers}");
        }
    }
    assert!(world.server_log().unwrap().is_empty());
    lives(&world);
}

#[test]
fn a_message_that_nobody_knows_ends_the_session_on_record() {
    let world = World::start();
    for kind in [b'z', b'\0', b'R', b'!', b'y'] {
        let mut wire = Wire::ready(&world);
        wire.push(&message(kind, b"whatever"));
        assert!(wire.rest().contains('E'), "{kind}");
    }
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions.len(), 5);
    for session in &sessions {
        assert_eq!(session["session"]["close_reason"], "protocol", "{session:#}");
    }
    world.agree().unwrap();
}

#[test]
fn lengths_that_lie_are_refused_before_memory_is_taken() {
    let world = World::with(|config| config.with("limits", "message = \"1MiB\""));
    for length in [0_u32, 3, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, (1 << 20) + 5] {
        for kind in *b"QPBEDdFX" {
            let mut wire = Wire::ready(&world);
            let mut bytes = vec![kind];
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(b"SELECT 1\0");
            wire.push(&bytes);
            // A Terminate may just end.
            let answers = wire.rest();
            assert!(
                answers == "E" || (kind == b'X' && answers.is_empty()),
                "{} {length}: {answers:?}",
                char::from(kind)
            );
        }
    }
    lives(&world);
    let mut wire = Wire::ready(&world);
    wire.send(&query(&format!("SELECT 1 /* {} */", "x".repeat(1_000_000))));
    assert_eq!(wire.until_ready().last().unwrap().0, b'Z', "what is within the limit passes");
    drop(wire);
    world.agree().unwrap();
    world.intact();
}

#[test]
fn messages_split_at_every_byte_make_the_same_record() {
    let world = World::start();
    let mut bytes = query("SELECT 'split'");
    bytes.extend_from_slice(&message(b'P', b"s\0SELECT $1::int4\0\0\0"));
    bytes.extend_from_slice(&message(b'B', b"\0s\0\0\0\0\x01\0\0\0\x017\0\0"));
    bytes.extend_from_slice(&message(b'E', b"\0\0\0\0\0"));
    bytes.extend_from_slice(&message(b'S', b""));
    let answers = |wire: &mut Wire| {
        let mut kinds: Vec<u8> = wire.until_ready().into_iter().map(|(kind, _)| kind).collect();
        kinds.extend(wire.until_ready().into_iter().map(|(kind, _)| kind));
        String::from_utf8(kinds).unwrap()
    };
    let mut whole = Wire::ready(&world);
    whole.send(&bytes);
    let expected = answers(&mut whole);
    drop(whole);
    for place in 1..bytes.len() {
        let mut wire = Wire::ready(&world);
        let (head, tail) = bytes.split_at(place);
        wire.send(head);
        // The first answer tells that the head was read, where it is enough for one.
        wire.send(tail);
        assert_eq!(answers(&mut wire), expected, "split at {place}");
    }
    let mut byte_by_byte = Wire::ready(&world);
    for byte in &bytes {
        byte_by_byte.send(&[*byte]);
    }
    assert_eq!(answers(&mut byte_by_byte), expected);
    drop(byte_by_byte);
    let sessions = world.gateway.closed_sessions().unwrap();
    let texts = |session: &serde_json::Value| {
        let operations = session["operations"].as_array().unwrap().iter();
        operations
            .map(|operation| {
                [operation["kind"].clone(), operation["text"].clone(), operation["parameters"].clone()]
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(sessions.len(), bytes.len() + 1);
    assert!(sessions.iter().all(|session| texts(session) == texts(&sessions[0])));
    world.agree().unwrap();
}

#[test]
fn a_cancel_request_reaches_only_its_owners_command() {
    let world = World::start();
    let mut wire = Wire::connect(&world);
    wire.send(&startup(0x0003_0000, &[("user", "app"), ("database", CONNECTION)]));
    assert_eq!(wire.message().unwrap().0, b'R');
    wire.send(&message(b'p', format!("{}\0", world.token()).as_bytes()));
    let greeting = wire.until_ready();
    let (_, key) = greeting.iter().find(|(kind, _)| *kind == b'K').expect("BackendKeyData");
    assert_eq!(key.len(), 8, "a key as protocol 3.0 has it");
    let cancel = |key: &[u8]| {
        let mut canceller = Wire::connect(&world);
        let mut bytes = u32::try_from(8 + key.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(&80_877_102_u32.to_be_bytes());
        bytes.extend_from_slice(key);
        canceller.push(&bytes);
        let answers = canceller.rest();
        assert!(
            answers.is_empty() || (key.len() != 8 && answers == "E"),
            "no answer to a cancel request: {answers}"
        );
    };
    wire.send(&query("SELECT pg_sleep(600)"));
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_for("the command", || Ok((world.server.psql(sleeping)? == "1").then_some(()))).unwrap();
    let mut wrong = key.clone();
    wrong[7] ^= 1;
    cancel(&wrong);
    cancel(&key[..4]);
    cancel(&[0; 300]);
    lives(&world);
    assert_eq!(world.server.psql(sleeping).unwrap(), "1", "a wrong key cancels nothing");
    cancel(key);
    let answers = wire.until_ready();
    let error = answers.iter().find(|(kind, _)| *kind == b'E').expect("an error");
    assert_eq!(sqlstate(&error.1), "57014");
    drop(wire);
    let sessions = world.gateway.closed_sessions().unwrap();
    let session =
        sessions.iter().find(|session| session["operations"][0]["text"] == "SELECT pg_sleep(600)").unwrap();
    let cancels = session["operations"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|operation| operation["kind"] == "cancel")
        .count();
    assert_eq!(cancels, 1, "the owner's, in the session whose key it held: {session:#}");
    // The session is over, and so is its key.
    cancel(key);
    lives(&world);
    world.intact();
}

#[test]
fn unknown_protocol_options_are_negotiated() {
    let world = World::start();
    let mut wire = Wire::connect(&world);
    wire.send(&startup(0x0003_0063, &[("user", "app"), ("database", CONNECTION), ("_pq_.unheard_of", "1")]));
    let (kind, body) = wire.message().unwrap();
    assert_eq!(kind, b'v', "NegotiateProtocolVersion first");
    assert!(body.windows(15).any(|window| window == b"_pq_.unheard_of"));
    wire.log_in(&world.token());
    wire.send(&query("SELECT 1"));
    wire.until_ready();
    let mut wire = Wire::connect(&world);
    wire.push(&startup(0x0002_0000, &[("user", "app")]));
    assert_eq!(wire.rest(), "E", "version 2 is not spoken");
}

#[test]
fn deeply_nested_text_is_the_servers_to_judge() {
    let world = World::start();
    let depth = 50_000;
    let text = format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
    let _ = world.connect().simple(&text);
    let _ = world.connect().simple(&format!("SELECT {}", "- ".repeat(depth)));
    let _ = world.connect().simple(&format!("SELECT 1 {}", "/*".repeat(depth)));
    lives(&world);
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["operations"][0]["text"], text.as_str());
    world.agree().unwrap();
    world.intact();
}

#[test]
fn text_that_would_fool_a_terminal_or_a_parser_is_kept_byte_for_byte() {
    let world = World::start();
    let client = world.connect();
    let texts = [
        "SELECT '\u{1b}[2J\u{1b}[31mred'",
        "SELECT 'a\r\nb' -- \u{202e}bidi",
        "SELECT '|=\\\"'",
        "SELECT '\u{7f}\u{9b}'",
    ];
    for text in texts {
        client.simple(text).unwrap();
    }
    drop(client);
    let sessions = world.gateway.closed_sessions().unwrap();
    for (operation, text) in sessions[0]["operations"].as_array().unwrap().iter().zip(texts) {
        assert_eq!(operation["text"], text);
    }
    let shown =
        world.gateway.cli(&["sessions", "show", sessions[0]["session"]["id"].as_str().unwrap()]).unwrap();
    assert!(!shown.stdout.contains(&0x1b) && !shown.stdout.contains(&b'\r'), "inert in a terminal");
    assert!(!String::from_utf8(shown.stdout).unwrap().contains('\u{202e}'));
    world.agree().unwrap();
}

#[test]
fn text_that_is_no_utf_8_is_recorded_as_bytes() {
    let world = World::start();
    let mut wire = Wire::ready(&world);
    wire.send(&query("SET client_encoding = 'LATIN1'"));
    wire.until_ready();
    wire.send(&message(b'Q', b"SELECT '\xe4\xf6\xfc'\0"));
    wire.until_ready();
    drop(wire);
    let sessions = world.gateway.closed_sessions().unwrap();
    let operation = &sessions[0]["operations"][1];
    assert!(operation["text"].is_null(), "{operation:#}");
    use base64::Engine as _;
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(operation["base64"].as_str().unwrap()).unwrap();
    assert_eq!(bytes, b"SELECT '\xe4\xf6\xfc'");
    world.intact();
}

#[test]
fn more_sessions_than_the_limit_are_refused() {
    let world = World::with(|config| config.with("limits", "sessions = 3"));
    let open: Vec<_> = (0..3).map(|_| world.connect()).collect();
    let (code, message) = crate::world::refused(&world.connect_as(&world.token()).err().unwrap());
    assert_eq!(code, "53300", "{message}");
    drop(open);
    wait_for("room", || Ok(world.connect_as(&world.token()).ok().map(drop))).unwrap();
}

#[test]
fn a_silent_session_meets_its_limit() {
    let world = World::with(|config| config.with("limits", "idle = \"1s\""));
    let mut wire = Wire::ready(&world);
    assert!(wire.rest().chars().all(|kind| "EN".contains(kind)));
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["session"]["close_reason"], "idle", "{:#}", sessions[0]);
}

#[test]
fn a_flood_of_refusals_does_not_flood_the_record() {
    let world = World::start();
    let attempts = 400;
    for _ in 0..attempts {
        assert!(world.connect_as("no token").is_err());
    }
    lives(&world);
    let recorded = world.gateway.sessions().unwrap().len();
    assert!((2..attempts).contains(&recorded), "{recorded} of {attempts} are sessions of their own");
    world.intact();
}
