//! Logins at real servers, in every way that they offer.

use expect_test::{Expect, expect};
use verbatim_testkit::postgres::{Options, Postgres, Tls, Version, rcgen};

use super::*;

/// A server with a user of each method; `app` is SCRAM's.
fn server(options: Options) -> Postgres {
    let auth = [
        "host all trusted 127.0.0.1/32 trust",
        "host all hashed 127.0.0.1/32 md5",
        "host all clear 127.0.0.1/32 password",
        "hostssl all certified 127.0.0.1/32 cert",
        "host all app 127.0.0.1/32 scram-sha-256",
    ];
    let auth = auth.map(str::to_owned).to_vec();
    let server = Postgres::start(Options { auth, ..options }).unwrap();
    server
        .psql(&format!(
            "CREATE ROLE app LOGIN PASSWORD '{CREDENTIAL}'; CREATE ROLE clear LOGIN PASSWORD '{CREDENTIAL}';
             CREATE ROLE trusted LOGIN; CREATE ROLE certified LOGIN;
             SET password_encryption = 'md5'; CREATE ROLE hashed LOGIN PASSWORD '{CREDENTIAL}'"
        ))
        .unwrap();
    server
}

fn with_tls() -> Options {
    Options { tls: Some(Tls { client: "certified".to_owned(), ..Tls::default() }), ..Options::default() }
}

/// The outcome of a login, and who and where the server says the gateway is.
async fn login(server: &Postgres, url: &str, settings: TargetSettings) -> String {
    let url = url.replace("PORT", &server.port().to_string());
    let target = Target::parse(&url, settings).unwrap();
    let mut connected = match target.connect(&parameters(&[("application_name", "agent")]), 2).await {
        Ok(connected) => connected,
        Err(error) => {
            tells_nothing(&error);
            return error.to_string();
        }
    };
    assert!(connected.leftover.is_empty());
    let tags: String = connected.greeting.iter().map(|message| char::from(message[0])).collect();
    assert!(tags.starts_with('S') && tags.ends_with("SZ"), "{tags}");
    let who = "SELECT concat_ws(' ', current_user, current_database(), current_setting('application_name'), \
               (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()))";
    let answer = query(&mut connected.stream, who).await;
    format!("{answer}, protocol 3.{}, key of {}", connected.protocol_minor, connected.key.secret.len())
}

/// The one value of a simple query's result, or its error's SQLSTATE.
async fn query(stream: &mut TargetStream, sql: &str) -> String {
    let mut message = BytesMut::new();
    message.put_u8(b'Q');
    message.put_u32(u32::try_from(sql.len()).unwrap() + 5);
    message.put_slice(sql.as_bytes());
    message.put_u8(0);
    stream.write_all(&message).await.unwrap();
    let mut answer = String::new();
    loop {
        let mut header = [0; 5];
        stream.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        match header[0] {
            b'D' => answer.push_str(std::str::from_utf8(&body[6..]).unwrap()),
            b'E' => {
                let fields = String::from_utf8(body).unwrap();
                answer.extend(fields.split('\0').filter_map(|field| field.strip_prefix('C')));
            }
            b'Z' => return answer,
            _ => {}
        }
    }
}

async fn check(server: &Postgres, url: &str, credential: Option<&str>, expected: Expect) {
    expected.assert_eq(&login(server, url, settings(credential)).await);
}

#[tokio::test]
async fn logs_in_by_every_method() {
    let server = server(Options::default());
    let right = Some(CREDENTIAL);
    check(
        &server,
        "postgres://app@127.0.0.1:PORT/postgres",
        right,
        expect!["app postgres agent f, protocol 3.0, key of 4"],
    )
    .await;
    check(
        &server,
        "postgres://hashed@localhost:PORT/postgres",
        right,
        expect!["hashed postgres agent f, protocol 3.0, key of 4"],
    )
    .await;
    check(
        &server,
        "postgres://clear@127.0.0.1:PORT/postgres",
        right,
        expect!["clear postgres agent f, protocol 3.0, key of 4"],
    )
    .await;
    check(
        &server,
        "postgres://trusted@127.0.0.1:PORT/postgres",
        None,
        expect!["trusted postgres agent f, protocol 3.0, key of 4"],
    )
    .await;
    for user in ["app", "hashed", "clear"] {
        let url = format!("postgres://{user}@127.0.0.1:PORT/postgres");
        let wrong = login(&server, &url, settings(Some("wrong-password"))).await;
        assert_eq!(
            wrong,
            format!(
                "the target refused the login (28P01): password authentication failed for user \"{user}\""
            )
        );
        let none = login(&server, &url, settings(None)).await;
        assert_eq!(
            none,
            "the gateway cannot log in at the target: it asks for a password, and the connection has no `credential`"
        );
    }
    check(
        &server,
        "postgres://app@127.0.0.1:PORT/nowhere",
        right,
        expect![[r#"the target refused the login (3D000): database "nowhere" does not exist"#]],
    )
    .await;
    check(
        &server,
        "postgres://app@127.0.0.1:PORT/postgres?sslmode=require",
        right,
        expect!["the target offers no TLS, and sslmode requires it"],
    )
    .await;
}

#[tokio::test]
async fn cancels_what_runs() {
    let server = server(Options::default());
    let target = target(server.port(), "");
    let mut connected = target.connect(&[], 0).await.unwrap();
    let key = connected.key.clone();
    let wrong = BackendKey { secret: Bytes::from_static(&[0; 4]), ..key.clone() };
    target.cancel(&wrong).await.unwrap();
    target.cancel(&BackendKey::default()).await.unwrap();
    let running = tokio::spawn(async move { query(&mut connected.stream, "SELECT pg_sleep(600)").await });
    // A cancel that comes before the query has begun cancels nothing, so it is asked until one did.
    while !running.is_finished() {
        target.cancel(&key).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(running.await.unwrap(), "57014");
}

/// Settings with `credential`, whose TLS trusts the server's authority.
fn trusting(server: &Postgres, credential: Option<&str>) -> TargetSettings {
    TargetSettings { tls: TargetTls::load(Some(&server.ca()), None, None).unwrap(), ..settings(credential) }
}

/// The outcome of a login over TLS as `user`.
async fn check_tls(server: &Postgres, query: &str, settings: TargetSettings, expected: Expect) {
    let url = format!("postgres://app@{}", query.replace(' ', ":PORT/postgres?sslmode="));
    expected.assert_eq(&login(server, &url, settings).await);
}

#[tokio::test]
async fn tls_as_sslmode_says() {
    let names = vec!["localhost".to_owned()];
    let server = server(Options { tls: Some(Tls { names, ..Tls::default() }), ..Options::default() });
    let right = Some(CREDENTIAL);
    check_tls(
        &server,
        "127.0.0.1 require",
        settings(right),
        expect!["app postgres agent t, protocol 3.0, key of 4"],
    )
    .await;
    check_tls(
        &server,
        "127.0.0.1 verify-ca",
        trusting(&server, right),
        expect!["app postgres agent t, protocol 3.0, key of 4"],
    )
    .await;
    check_tls(
        &server,
        "localhost verify-full",
        trusting(&server, right),
        expect!["app postgres agent t, protocol 3.0, key of 4"],
    )
    .await;
    check_tls(&server, "127.0.0.1 verify-full", trusting(&server, right), expect![[r#"no TLS with the target: invalid peer certificate: certificate not valid for name "127.0.0.1"; certificate is only valid for DnsName("localhost")"#]]).await;
    check_tls(
        &server,
        "localhost verify-full",
        settings(right),
        expect!["no TLS with the target: invalid peer certificate: UnknownIssuer"],
    )
    .await;
    check_tls(
        &server,
        "localhost verify-ca",
        settings(right),
        expect!["no TLS with the target: invalid peer certificate: UnknownIssuer"],
    )
    .await;
    check_tls(
        &server,
        "localhost require",
        settings(Some("wrong")),
        expect![[r#"the target refused the login (28P01): password authentication failed for user "app""#]],
    )
    .await;

    // Another authority of the same name is another authority, with `require` too.
    let other = Postgres::start(with_tls()).unwrap();
    for query in ["localhost require", "localhost verify-ca", "localhost verify-full"] {
        check_tls(
            &server,
            query,
            trusting(&other, right),
            expect!["no TLS with the target: invalid peer certificate: BadSignature"],
        )
        .await;
    }
    let target = Target::parse(
        &format!("postgres://app@localhost:{}/postgres?sslmode=verify-full", server.port()),
        trusting(&server, right),
    );
    let target = target.unwrap();
    let connected = target.connect(&[], 0).await.unwrap();
    target.cancel(&connected.key).await.unwrap();
}

#[tokio::test]
async fn scram_is_bound_to_every_kind_of_certificate() {
    for algorithm in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512]
    {
        let server = server(Options { tls: Some(Tls { algorithm, ..Tls::default() }), ..Options::default() });
        check_tls(
            &server,
            "localhost verify-full",
            trusting(&server, Some(CREDENTIAL)),
            expect!["app postgres agent t, protocol 3.0, key of 4"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let server = server(with_tls());
    let (certificate, key) = server.client_certificate();
    let tls = TargetTls::load(Some(&server.ca()), Some(&certificate), Some(&key)).unwrap();
    let shown = TargetSettings { tls, ..settings(None) };
    let url = "postgres://certified@localhost:PORT/postgres?sslmode=verify-full";
    expect!["certified postgres agent t, protocol 3.0, key of 4"]
        .assert_eq(&login(&server, url, shown).await);
    expect!["the target refused the login (28000): connection requires a valid client certificate"]
        .assert_eq(&login(&server, url, trusting(&server, None)).await);
}

#[tokio::test]
async fn speaks_protocol_3_2_where_the_client_and_the_server_do() {
    let server = server(Options { version: Version::Embedded18, ..Options::default() });
    let right = Some(CREDENTIAL);
    let url = "postgres://app@127.0.0.1:PORT/postgres";
    check(&server, url, right, expect!["app postgres agent f, protocol 3.2, key of 32"]).await;
    let target = target(server.port(), "");
    let connected = target.connect(&[], 2).await.unwrap();
    target.cancel(&connected.key).await.unwrap();
    let older = target.connect(&[], 1).await.unwrap();
    assert_eq!((older.protocol_minor, older.key.secret.len()), (0, 4));
}
