//! Who gets in, by what, for how long. What a token must be is tested case by case in `verbatim-entra`; here is what a
//! client sees of it, and the record.

use serde_json::{Value, json};
use verbatim_core::Timestamp;
use verbatim_testkit::gateway::{CONNECTION, Config, wait_for};
use verbatim_testkit::idp::{Fault, TENANT, Wish};

use crate::wire::{Wire, message, query, startup};
use crate::world::{AGENT, BILLING_AGENTS, OUTSIDER, WORKLOAD, WORKLOAD_OBJECT, World, refused, the_one};

fn expiring(world: &World, seconds: i64) -> String {
    world.idp.token_with(WORKLOAD, &Wish { lifetime: Some(seconds), ..Wish::default() }).unwrap()
}

#[test]
fn tokens_that_prove_nothing_are_refused_and_on_record() {
    let world = World::start();
    let now = Timestamp::now().unix_seconds();
    let claims = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut claims = world.idp.claims(WORKLOAD, now, &Wish::default()).unwrap();
        change(&mut claims);
        world.idp.mint(&Value::Object(claims)).unwrap()
    };
    let good = world.token();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') {
        signature.replacen('A', "B", 1)
    } else {
        format!("A{}", signature.get(1..).unwrap())
    };
    let wrong = [
        ("no token", "hunter2".to_owned()),
        ("three dots", "a.b.c".to_owned()),
        ("a signature of something else", format!("{head}.{flipped}")),
        ("no signature", format!("{head}.")),
        (
            "another audience",
            claims(&|claims| drop(claims.insert("aud".to_owned(), json!("https://graph.microsoft.com")))),
        ),
        (
            "another issuer",
            claims(&|claims| drop(claims.insert("iss".to_owned(), json!("https://example.com/v2.0")))),
        ),
        ("expired an hour ago", claims(&|claims| drop(claims.insert("exp".to_owned(), json!(now - 3600))))),
        ("not valid yet", claims(&|claims| drop(claims.insert("nbf".to_owned(), json!(now + 3600))))),
        (
            "another tenant",
            claims(&|claims| {
                drop(claims.insert("tid".to_owned(), json!("22222222-aaaa-4aaa-8aaa-000000000002")))
            }),
        ),
        ("larger than the limit", world.token_of_size(70_000)),
    ];
    for (what, token) in &wrong {
        let error = world.connect_as(token).err().unwrap_or_else(|| panic!("{what} was let in"));
        let (code, message) = refused(&error);
        assert!(code.starts_with("28") || code == "08P01", "{what}: {code} {message}");
        assert!(!message.contains(token.as_str()), "{what}");
    }
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions.len(), wrong.len(), "each is a session");
    for session in &sessions {
        let session = &session["session"];
        assert_eq!(session["close_reason"], "refused", "{session:#}");
        assert!(session["refusal"]["code"].is_string(), "{session:#}");
        assert_eq!(session["authorized_by"], Value::Null, "{session:#}");
    }
    assert_eq!(world.server_log().unwrap(), [], "the target heard of none");
    let record = world.gateway.json(&["sessions", "list", "--refused", "--json"]).unwrap().to_string();
    assert!(
        wrong.iter().all(|(_, token)| token.len() < 20 || !record.contains(token.as_str())),
        "no token is kept"
    );
    world.connect().simple("SELECT 1").unwrap();
    world.intact();
}

#[test]
fn the_empty_password_is_refused() {
    let world = World::start();
    refused(&world.connect_as("").err().unwrap());
    assert_eq!(world.gateway.closed_sessions().unwrap()[0]["session"]["close_reason"], "refused");
}

#[test]
fn a_user_name_that_claims_someone_else_is_refused() {
    let world = World::start();
    let connect = |user: &str| {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(world.gateway.port())
            .dbname("customers")
            .user(user)
            .password(world.token());
        crate::world::Client::connect(&world.runtime, &config)
    };
    connect(WORKLOAD_OBJECT).unwrap().simple("SELECT 1").unwrap();
    connect("anything").unwrap().simple("SELECT 1").unwrap();
    refused(&connect(AGENT).err().unwrap());
    refused(&connect("ada@example.test").err().unwrap());
}

#[test]
fn a_person_gets_in_by_the_groups_of_the_token() {
    let world = World::start();
    world
        .connect_as(&world.idp.token("c4c4c4c4-0000-4000-8000-00000000c004").unwrap())
        .unwrap()
        .simple("SELECT 1")
        .unwrap();
    world.connect_as(&world.idp.token("agent-for-person").unwrap()).unwrap().simple("SELECT 2").unwrap();
    let sessions = world.gateway.closed_sessions().unwrap();
    let person =
        &the_one(&sessions, |session| session["session"]["identity"]["kind"] == "user").unwrap()["session"];
    assert_eq!(person["identity"]["name"], "Ada Example");
    assert_eq!(person["authorization_source"], "token");
    let agent =
        &the_one(&sessions, |session| session["session"]["identity"]["kind"] == "agent").unwrap()["session"];
    assert_eq!(agent["identity"]["object_id"], AGENT);
    assert_eq!(agent["identity"]["on_behalf_of"]["object_id"], "c3c3c3c3-0000-4000-8000-00000000c003");
    assert_eq!(agent["authorized_by"]["id"], BILLING_AGENTS);
}

#[test]
fn a_person_with_too_many_groups_for_a_token_is_asked_about() {
    let world = World::start();
    let wish = Wish { overage: true, ..Wish::default() };
    let token = world.idp.token_with("c4c4c4c4-0000-4000-8000-00000000c004", &wish).unwrap();
    world.connect_as(&token).unwrap().simple("SELECT 1").unwrap();
    assert_eq!(world.gateway.closed_sessions().unwrap()[0]["session"]["authorization_source"], "graph");
}

#[test]
fn groups_that_cannot_be_learnt_let_nobody_in() {
    let world = World::start();
    world.idp.change(|state| state.fault("graph", Some(Fault { status: 503, ..Fault::default() })));
    refused(&world.connect_as(&world.token()).err().unwrap());
    world.idp.change(|state| state.fault("graph", None));
    wait_for("Graph's recovery", || Ok(world.connect_as(&world.token()).ok().map(drop))).unwrap();
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["session"]["close_reason"], "refused", "{:#}", sessions[0]);
}

#[test]
fn a_session_ends_when_its_token_does() {
    let world = World::start();
    let client = world.connect_as(&expiring(&world, 5)).unwrap();
    client.simple("SELECT 'in time'").unwrap();
    let error = wait_for("the end of the session", || Ok(client.simple("SELECT 1").err())).unwrap();
    drop(error);
    let sessions = world.gateway.closed_sessions().unwrap();
    let session = &sessions[0]["session"];
    assert_eq!(session["close_reason"], "expired", "{session:#}");
    let (closed, expires) =
        (session["closed_at"].as_str().unwrap(), session["identity"]["expires_at"].as_str().unwrap());
    assert!(closed >= expires, "{closed} is before {expires}");
    world.agree().unwrap();
}

#[test]
fn a_running_operation_ends_with_its_token() {
    let world = World::start();
    let client = world.connect_as(&expiring(&world, 5)).unwrap();
    assert!(client.simple("SELECT pg_sleep(600)").is_err());
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["session"]["close_reason"], "expired");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_for(
        "the target to give up the operation",
        || Ok((world.server.psql(running)? == "0").then_some(())),
    )
    .unwrap();
}

#[test]
fn grace_keeps_a_session_open_after_its_token() {
    let world = World::with(|config| config.with("identity", "grace = \"10m\""));
    let client = world.connect_as(&expiring(&world, 1)).unwrap();
    // The server's clock says when the token has expired.
    client.simple("SELECT pg_sleep(2)").unwrap();
    client.simple("SELECT 'still here'").unwrap();
    drop(client);
    assert_eq!(world.gateway.closed_sessions().unwrap()[0]["session"]["close_reason"], "client");
}

#[test]
fn access_that_is_taken_away_ends_open_sessions() {
    let world = World::with(|config| config.with("identity", "recheck = \"1s\""));
    let client = world.connect();
    client.simple("SELECT 'allowed'").unwrap();
    world.idp.change(|state| state.subject(TENANT, WORKLOAD_OBJECT).groups.clear());
    wait_for("the end of the session", || Ok(client.simple("SELECT 1").err().map(drop))).unwrap();
    assert_eq!(world.gateway.closed_sessions().unwrap()[0]["session"]["close_reason"], "access_revoked");
    refused(&world.connect_as(&world.token()).err().unwrap());
    world.agree().unwrap();
}

#[test]
fn an_account_that_is_disabled_ends_open_sessions() {
    let world = World::with(|config| config.with("identity", "recheck = \"1s\""));
    let client = world.connect();
    client.simple("SELECT 'allowed'").unwrap();
    world.idp.change(|state| state.subject(TENANT, WORKLOAD_OBJECT).disabled = true);
    wait_for("the end of the session", || Ok(client.simple("SELECT 1").err().map(drop))).unwrap();
    assert_eq!(world.gateway.closed_sessions().unwrap()[0]["session"]["close_reason"], "access_revoked");
}

#[test]
fn access_can_be_a_role_or_an_object() {
    for (access, kind) in
        [("role:Connection.Use".to_owned(), "role"), (format!("workload:{WORKLOAD_OBJECT}"), "workload")]
    {
        let world =
            World::with(|config: Config| config.with("[connection]", &format!("access = [\"{access}\"]")));
        world.connect().simple("SELECT 1").unwrap();
        refused(&world.connect_as(&world.idp.token(OUTSIDER).unwrap()).err().unwrap());
        let sessions = world.gateway.closed_sessions().unwrap();
        let session =
            &the_one(&sessions, |session| !session["session"]["authorized_by"].is_null()).unwrap()["session"];
        assert_eq!(session["authorized_by"]["kind"], kind, "{session:#}");
    }
}

#[test]
fn a_kind_that_a_connection_does_not_take_is_refused() {
    let world = World::with(|config| config.with("[connection]", "kinds = [\"agent\"]"));
    refused(&world.connect_as(&world.token()).err().unwrap());
    world.connect_as(&world.idp.token(AGENT).unwrap()).unwrap().simple("SELECT 1").unwrap();
}

/// A stream that was told to log in by SASL, and which mechanisms.
fn sasl(world: &World) -> (Wire, Vec<u8>) {
    let mut wire = Wire::connect(world);
    wire.send(&startup(0x0003_0000, &[("user", "app"), ("database", CONNECTION)]));
    let (kind, body) = wire.message().unwrap();
    assert_eq!(kind, b'R');
    let (request, mechanisms) = body.split_at(4);
    assert_eq!(request, 10_u32.to_be_bytes(), "AuthenticationSASL");
    (wire, mechanisms.to_vec())
}

/// SASLInitialResponse by OAUTHBEARER.
fn initial(auth: &str) -> Vec<u8> {
    let response = format!("n,,\x01auth={auth}\x01\x01");
    let mut body = b"OAUTHBEARER\0".to_vec();
    body.extend_from_slice(&u32::try_from(response.len()).unwrap().to_be_bytes());
    body.extend_from_slice(response.as_bytes());
    message(b'p', &body)
}

#[test]
fn oauthbearer_takes_a_token_and_says_where_to_get_one() {
    let world = World::with(|config| config.with("[connection]", "login = \"oauthbearer\""));
    let (mut wire, mechanisms) = sasl(&world);
    assert_eq!(mechanisms, b"OAUTHBEARER\0\0");
    wire.send(&initial(&format!("Bearer {}", world.token())));
    wire.until_ready();
    wire.send(&query("SELECT 'by oauthbearer'"));
    wire.until_ready();
    drop(wire);

    // Without a token, the answer names the provider; then it is an error.
    let (mut wire, _) = sasl(&world);
    wire.send(&initial(""));
    let (kind, body) = wire.message().unwrap();
    assert_eq!(
        (kind, body.get(..4).unwrap()),
        (b'R', &11_u32.to_be_bytes()[..]),
        "AuthenticationSASLContinue"
    );
    let discovery: Value = serde_json::from_slice(body.get(4..).unwrap()).unwrap();
    assert_eq!(discovery["status"], "invalid_token");
    let place = discovery["openid-configuration"].as_str().unwrap();
    assert!(place.starts_with(&world.idp.authority()), "{discovery}");
    wire.send(&message(b'p', b"\x01"));
    assert_eq!(wire.rest(), "E");

    let (mut wire, _) = sasl(&world);
    wire.send(&initial("Bearer not.a.token"));
    wire.push(&message(b'p', b"\x01"));
    assert!(wire.rest().ends_with('E'));

    let sessions = world.gateway.closed_sessions().unwrap();
    let session = the_one(&sessions, |session| session["session"]["close_reason"] == "client").unwrap();
    assert_eq!(session["session"]["identity"]["object_id"], WORKLOAD_OBJECT);
    assert_eq!(session["operations"][0]["text"], "SELECT 'by oauthbearer'");
    world.agree().unwrap();
}

#[test]
fn another_issuer_lets_in_by_its_own_groups() {
    let mut world = World::start();
    let issuer = world.idp.oidc("ci");
    let oidc = format!(
        "[[identity.oidc]]\nname = \"ci\"\nissuer = \"{issuer}\"\naudiences = [\"verbatim\"]\ngroups_claim = \"groups\"\n"
    );
    let config = world.config().with("[connection]", "access = [\"group:ci/deployers\"]").and(&oidc);
    world.gateway.reconfigure(config).unwrap();
    world.gateway.restart().unwrap();
    let now = Timestamp::now().unix_seconds();
    let token = |groups: &[&str], issuer: &str| {
        let claims = json!({ "iss": issuer, "aud": "verbatim", "sub": "repo:example", "iat": now, "nbf": now, "exp": now + 600, "groups": groups });
        let header = json!({ "typ": "JWT", "alg": "RS256", "kid": "k1" });
        world.idp.sign(&header, &serde_json::to_vec(&claims).unwrap(), "k1", "RS256").unwrap()
    };
    world.connect_as(&token(&["deployers"], &issuer)).unwrap().simple("SELECT 'from elsewhere'").unwrap();
    refused(&world.connect_as(&token(&["others"], &issuer)).err().unwrap());
    refused(&world.connect_as(&token(&["deployers"], &world.idp.oidc("unheard-of"))).err().unwrap());
    // An Entra group of that name is not that issuer's.
    refused(&world.connect_as(&world.token()).err().unwrap());
    let sessions = world.gateway.closed_sessions().unwrap();
    let session =
        &the_one(&sessions, |session| session["session"]["close_reason"] == "client").unwrap()["session"];
    assert_eq!(session["identity"]["provider"], "ci");
    assert_eq!(session["identity"]["tenant"], issuer.as_str());
    assert_eq!(session["identity"]["object_id"], "repo:example");
    assert_eq!(session["authorized_by"]["kind"], "group");
}
