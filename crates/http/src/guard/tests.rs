use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that hyper would read, and the heads that were kept.
async fn pass(bytes: &[u8], step: usize) -> (Vec<u8>, Vec<Result<String, &'static str>>) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let heads = Arc::<Heads>::default();
    let mut guard = Guard::new(server, BytesMut::new(), heads.clone(), 1000, PATIENCE);
    for piece in bytes.chunks(step) {
        client.write_all(piece).await.unwrap();
    }
    drop(client);
    let mut read = Vec::new();
    loop {
        let mut some = [0; 64];
        // Behind a bad head nothing more comes, not even an end.
        match tokio::time::timeout(Duration::from_millis(50), guard.read(&mut some)).await {
            Ok(Ok(count @ 1..)) => read.extend_from_slice(&some[..count]),
            _ => break,
        }
    }
    let mut kept = Vec::new();
    while let Some(head) = heads.next() {
        kept.push(match head {
            Ok(head) => Ok(String::from_utf8(head.text().to_vec()).unwrap()),
            Err(bad) => Err(bad.reason),
        });
    }
    (read, kept)
}

#[tokio::test]
async fn requests_pass_byte_for_byte_however_they_are_cut() {
    let bytes =
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
          POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n\
          GET /4 HTTP/1.1\r\nHost: a\r\n\r\n";
    for step in [1, 3, 50, bytes.len()] {
        let (read, heads) = pass(bytes, step).await;
        assert_eq!(read.escape_ascii().to_string(), bytes.escape_ascii().to_string());
        assert_eq!(heads, ["GET /1", "POST /2", "POST /3", "GET /4"].map(|text| Ok(text.to_owned())));
    }
}

#[tokio::test]
async fn a_bad_head_becomes_a_stand_in_and_nothing_follows_it() {
    let good = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    for bad in [
        "GET /2 HTTP/1.1\nHost: a\n\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("GET /2 HTTP/1.1\r\nX: {}\r\n\r\n{good}", "y".repeat(2000)),
        "\r\n\r\n\r\n".to_owned(),
    ] {
        let (read, heads) = pass(format!("{good}{bad}").as_bytes(), 7).await;
        assert_eq!(read, [good.as_bytes(), STAND_IN].concat(), "{bad}");
        assert_eq!(heads.len(), 2);
        assert!(heads[0].is_ok() && heads[1].is_err());
    }
}

#[tokio::test]
async fn bytes_behind_an_upgrade_wait_for_its_answer() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let heads = Arc::<Heads>::default();
    let mut guard = Guard::new(server, BytesMut::new(), heads.clone(), 1000, PATIENCE);
    let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n";
    client.write_all(upgrade).await.unwrap();
    let mut read = [0; 100];
    assert_eq!(guard.read(&mut read).await.unwrap(), upgrade.len());
    assert!(!heads.came_early());
    client.write_all(b"raw \x00 bytes").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), guard.read(&mut read)).await.is_err());
    heads.upgraded(true);
    assert_eq!(guard.read(&mut read).await.unwrap(), 11);
    assert_eq!(&read[..11], b"raw \x00 bytes");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_a_bad_one() {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let heads = Arc::<Heads>::default();
    let mut guard = Guard::new(server, BytesMut::new(), heads.clone(), 1000, PATIENCE);
    client.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
    let mut read = vec![0; STAND_IN.len()];
    guard.read_exact(&mut read).await.unwrap();
    assert_eq!(read, STAND_IN);
    assert_eq!(heads.next().unwrap().unwrap_err().reason, "the head took too long");
}
