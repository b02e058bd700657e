//! The thin path: a session from login to its record and proof.

use serde_json::{Value, json};
use verbatim_testkit::gateway::free_port;

use crate::world::{AGENT, BILLING_AGENTS, Client, OUTSIDER, WORKLOAD, WORKLOAD_OBJECT, World, all, refused};

#[test]
fn a_session_is_recorded_whole() {
    let world = World::start();
    let client = world.connect();
    assert_eq!(client.one("SELECT 'hello ' || 'world'").unwrap(), "hello world");
    client
        .simple("CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        .unwrap();
    let rows = client.query("SELECT name FROM t WHERE id = $1", &[&2]).unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "b");
    let (code, _) = refused(&client.simple("SELECT 1 / 0").unwrap_err());
    assert_eq!(code, "22012");
    drop(client);

    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:#?}");
    let session = &sessions[0]["session"];
    assert_eq!(session["connection"], "customers");
    assert_eq!(session["protocol"], "postgres");
    assert_eq!(session["target"], format!("127.0.0.1:{}/customers", world.server.port()));
    assert_eq!(session["identity"]["provider"], "entra");
    assert_eq!(session["identity"]["object_id"], WORKLOAD_OBJECT);
    assert_eq!(session["identity"]["app_id"], WORKLOAD);
    assert_eq!(session["identity"]["kind"], "workload");
    assert_eq!(
        session["authorized_by"],
        json!({ "kind": "group", "name": "billing-agents", "id": BILLING_AGENTS })
    );
    assert_eq!(session["authorization_source"], "graph");
    assert_eq!(session["client"]["user"], "app");
    assert_eq!(session["client"]["application"], "it");
    assert_eq!(session["close_reason"], "client");
    assert_eq!(session["refusal"], Value::Null);
    assert_eq!(session["node"], "gw-test");
    assert_eq!(session["complete"], true);

    let operations = sessions[0]["operations"].as_array().unwrap();
    let kinds: Vec<_> = operations.iter().map(|operation| operation["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["query", "query", "prepare", "execute", "query"]);
    assert_eq!(operations[0]["text"], "SELECT 'hello ' || 'world'");
    assert_eq!(operations[0]["statement"], "select");
    assert_eq!(operations[0]["outcome"]["rows"], 1);
    assert_eq!(operations[1]["outcome"]["rows"], 2, "the sum over its statements");
    assert_eq!(operations[3]["parameters"], json!([{ "type": "int4", "value": "2" }]));
    assert_eq!(operations[4]["outcome"]["error"], json!({ "code": "22012", "message": "division by zero" }));
    world.agree().unwrap();
    world.intact();
}

#[test]
fn an_agent_is_known_as_one() {
    let world = World::start();
    world.connect_as(&world.idp.token(AGENT).unwrap()).unwrap().simple("SELECT 1").unwrap();
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["session"]["identity"]["kind"], "agent");
    assert_eq!(sessions[0]["session"]["identity"]["object_id"], AGENT);
}

#[test]
fn who_has_no_access_reaches_nothing_and_is_on_record() {
    let world = World::start();
    let error = world.connect_as(&world.idp.token(OUTSIDER).unwrap()).err().unwrap();
    let (code, message) = refused(&error);
    assert!(code.starts_with("28") || code == "42501", "{code} {message}");
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions.len(), 1);
    let session = &sessions[0]["session"];
    assert_eq!(session["close_reason"], "refused");
    assert!(session["refusal"]["code"].is_string(), "{session:#}");
    assert_eq!(session["authorized_by"], Value::Null);
    assert_eq!(
        session["identity"]["object_id"], "b4b4b4b4-0000-4000-8000-00000000b004",
        "the token proved who it is"
    );
    assert_eq!(sessions[0]["operations"], json!([]));
    assert_eq!(world.server_log().unwrap(), [], "the target never heard of it");
    world.intact();
}

#[test]
fn an_unknown_connection_is_answered_like_one_without_access() {
    let world = World::start();
    let outsider = world.idp.token(OUTSIDER).unwrap();
    let without_access = refused(&world.connect_as(&outsider).err().unwrap());
    let unknown = refused(&world.connect_to("no-such", &outsider).err().unwrap());
    let unknown_to_a_member = refused(&world.connect_to("no-such", &world.token()).err().unwrap());
    assert_eq!(without_access.0, unknown.0);
    assert_eq!(without_access.0, unknown_to_a_member.0);
    let without_names = |message: &str| message.replace("no-such", "_").replace("customers", "_");
    assert_eq!(without_names(&without_access.1), without_names(&unknown.1));
    assert_eq!(world.gateway.closed_sessions().unwrap().len(), 3);
}

#[test]
fn a_proof_stands_without_the_ledger() {
    let world = World::start();
    world.connect().simple("SELECT 'prove me'").unwrap();
    let sessions = world.gateway.closed_sessions().unwrap();
    let id = sessions[0]["session"]["id"].as_str().unwrap();
    for arguments in [vec!["prove", id], vec!["prove", id, "1"]] {
        let output = world.gateway.cli(&arguments).unwrap();
        assert!(output.status.success(), "{}", all(&output));
        let path = world.gateway.dir().join("proof");
        std::fs::write(&path, &output.stdout).unwrap();
        let key = world.gateway.data_dir().join("keys/node.vkey");
        let arguments = ["verify", path.to_str().unwrap(), "--public-key", key.to_str().unwrap()];
        let verified = world.gateway.cli(&arguments).unwrap();
        assert_eq!(verified.status.code(), Some(0), "{}", all(&verified));
        let mut changed = output.stdout.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        let verified = world.gateway.cli(&arguments).unwrap();
        assert_ne!(verified.status.code(), Some(0), "a changed proof: {}", all(&verified));
    }
}

#[test]
fn a_connections_own_port_needs_no_database_name() {
    let mut world = World::start();
    let port = free_port().unwrap();
    let config = world.config().with("[connection]", &format!("listen = \"127.0.0.1:{port}\""));
    world.gateway.reconfigure(config).unwrap();
    world.gateway.restart().unwrap();
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).dbname("whatever").user("app").password(world.token());
    let client = Client::connect(&world.runtime, &config).unwrap();
    assert_eq!(
        client.one("SELECT current_database()").unwrap(),
        "customers",
        "the database is always the target's"
    );
}

#[test]
fn what_is_recorded_is_configured() {
    for mode in ["commands", "full", "results"] {
        let world = World::with(|config| config.with("[connection]", &format!("record = \"{mode}\"")));
        let client = world.connect();
        client.simple("CREATE TABLE t (name text)").unwrap();
        client.query("INSERT INTO t VALUES ($1)", &[&"a secret value"]).unwrap();
        client.query("SELECT name || ' comes back' FROM t", &[]).unwrap();
        client.simple("SELECT 1 / 0").unwrap_err();
        drop(client);
        let sessions = world.gateway.closed_sessions().unwrap();
        let operations = sessions[0]["operations"].as_array().unwrap();
        let insert = operations.iter().find(|operation| operation["kind"] == "execute").unwrap();
        assert_eq!(insert["text"], "INSERT INTO t VALUES ($1)", "{mode}");
        assert_eq!(operations.last().unwrap()["outcome"]["error"]["code"], "22012", "{mode}");
        world.gateway.closed_sessions().unwrap();
        let kept = |text: &str| {
            crate::faults::segments(&world.gateway.ledger_dir()).iter().any(|segment| {
                let bytes = std::fs::read(segment).unwrap();
                bytes.windows(text.len()).any(|window| window == text.as_bytes())
            })
        };
        assert_eq!(kept("a secret value"), mode != "commands", "{mode}: parameters");
        assert_eq!(kept("a secret value comes back"), mode == "results", "{mode}: what came back");
        assert!(kept("INSERT INTO t"), "{mode}: texts");
        world.intact();
    }
}
