//! Bytes that no client and no target should send.

use proptest::test_runner::{Config, TestRunner};

use crate::support::wire::*;
use crate::support::{Gateway, Setup};

/// Attack 9, and out of phase.
#[tokio::test]
async fn a_message_that_nobody_knows_is_recorded_as_bytes_and_ends_the_session() {
    for (bytes, logged) in [
        (message(b'z', b"?"), r#"1 message "z\\x00\\x00\\x00\\x05?" refused protocol"#),
        (password("again"), r#"1 message "p\\x00\\x00\\x00\\nagain\\x00" refused protocol"#),
        (message(b'Q', b"no end"), r#"1 message "Q\\x00\\x00\\x00\\nno end" refused protocol"#),
        (
            [message(b'D', b"X\0"), sync()].concat(),
            r#"1 message "D\\x00\\x00\\x00\\x06X\\x00S\\x00\\x00\\x00\\x04" refused protocol"#,
        ),
        (
            [message(b'B', b"\0\0\0\0\x7f\xff"), sync()].concat(),
            r#"1 message "B\\x00\\x00\\x00\\n\\x00\\x00\\x00\\x00\\x7f\\xffS\\x00\\x00\\x00\\x04" refused protocol"#,
        ),
    ] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        ends.client.send(&bytes).await;
        assert_eq!(ends.client.error().await, "FATAL 08P01 protocol violation");
        ends.client.end().await;
        ends.target.expect(&terminate()).await;
        ends.target.end().await;
        ends.task.await.unwrap();
        assert_eq!(gateway.gate.lines("1 "), [logged]);
        assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
    }
}

/// Attack 4.
#[tokio::test]
async fn lengths_that_cannot_be_are_refused_before_memory_is_taken() {
    for (length, error) in [
        (0_u32, "FATAL 08P01 protocol violation"),
        (3, "FATAL 08P01 protocol violation"),
        (
            0x8000_0000,
            "FATAL 54000 a message of 2147483648 bytes is over the gateway's limit of 1000000 bytes",
        ),
        (
            0x7fff_ffff,
            "FATAL 54000 a message of 2147483647 bytes is over the gateway's limit of 1000000 bytes",
        ),
        (u32::MAX, "FATAL 54000 a message of 4294967295 bytes is over the gateway's limit of 1000000 bytes"),
    ] {
        let gateway = Gateway::new(Setup { message_bytes: 1_000_000, ..Setup::default() }).await;
        let mut ends = gateway.session().await;
        // What stands before it is served.
        let bytes = [query("SELECT 1"), b"Q".to_vec(), length.to_be_bytes().to_vec()].concat();
        ends.client.send(&bytes).await;
        ends.target.expect(&query("SELECT 1")).await;
        ends.target.send(&[complete("SELECT 1"), ready(b'I')].concat()).await;
        ends.client.expect(&[complete("SELECT 1"), ready(b'I')].concat()).await;
        assert_eq!(ends.client.error().await, error);
        ends.client.end().await;
        ends.task.await.unwrap();
        assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
    }
}

/// Attack 12.
#[tokio::test]
async fn a_target_out_of_step_ends_the_session() {
    for wrong in [
        complete("SELECT 1"),
        ready(b'I'),
        data_row(b"1"),
        message(b'?', b""),
        parse_complete(),
        b"C\0\0\0\x03".to_vec(),
        b"D\xff\xff\xff\xff".to_vec(),
    ] {
        let gateway = Gateway::new(Setup::default()).await;
        let mut ends = gateway.session().await;
        ends.target.send(&wrong).await;
        assert_eq!(ends.client.error().await, "FATAL 08P01 the target broke the protocol");
        ends.client.end().await;
        ends.target.expect(&terminate()).await;
        ends.task.await.unwrap();
        assert_eq!(gateway.gate.lines("closed"), ["closed protocol"]);
    }
}

/// Attack 5: fields inside of a row are not read, so that no length in them can do harm.
#[tokio::test]
async fn rows_with_impossible_fields_pass_as_they_came() {
    let gateway = Gateway::new(Setup::default()).await;
    let mut ends = gateway.session().await;
    ends.client.send(&query("SELECT 1")).await;
    ends.target.expect(&query("SELECT 1")).await;
    let answer =
        [message(b'D', b"\x7f\xff\xff\xff\xff\xf0"), message(b'D', b""), complete("SELECT 2"), ready(b'I')]
            .concat();
    ends.target.send(&answer).await;
    ends.client.expect(&answer).await;
    ends.finish().await;
}

/// Any bytes of either side end in a session that is closed, and nothing unrecorded at the target.
#[test]
fn any_bytes_of_a_client_end_well() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let kinds = proptest::sample::select(b"QPBEDCSHFXcdfpz\0".to_vec());
    let messages = proptest::collection::vec((kinds, proptest::collection::vec(0_u8..4, 0..12)), 0..12);
    runner
        .run(&(messages, proptest::bool::ANY), |(messages, cut)| {
            runtime.block_on(async {
                let gateway = Gateway::new(Setup::default()).await;
                let mut ends = gateway.session().await;
                let mut bytes: Vec<u8> =
                    messages.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
                if cut {
                    bytes.pop();
                }
                ends.client.send(&bytes).await;
                // The target never answers; the client leaves, and so does the target.
                drop(ends.client);
                drop(ends.target);
                ends.task.await.unwrap();
            });
            Ok(())
        })
        .unwrap();
}
