//! The commands: what they print, their exit codes, and that every JSON document keeps to its published schema.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use jsonschema::Validator;
use serde_json::Value;
use verbatim_testkit::gateway::{Config, binary, wait_for};
use verbatim_testkit::idp::Wish;

use crate::world::{OUTSIDER, World, all, repository};

fn schema(name: &str) -> Validator {
    let path = repository().join(format!("docs/contract/{name}.schema.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

/// Asserts that a document keeps to its published schema.
pub(crate) fn valid(name: &str, document: &Value) {
    let errors: Vec<String> = schema(name)
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{document:#}");
}

fn verbatim(arguments: &[&str]) -> std::process::Output {
    Command::new(binary("verbatim").unwrap())
        .args(arguments)
        .env_remove("VERBATIM_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A world in which every kind of thing has happened once.
fn eventful() -> World {
    let world = World::start();
    let client = world.connect();
    client.simple("CREATE TABLE things (id int PRIMARY KEY, name text)").unwrap();
    client.query("INSERT INTO things VALUES ($1, $2)", &[&1, &"a needle in a haystack"]).unwrap();
    client.query("SELECT $1::bytea, $2::text", &[&vec![0_u8, 255], &None::<&str>]).unwrap();
    client.simple("SELEC 1").unwrap_err();
    drop(client);
    world.connect_as(&world.idp.token(OUTSIDER).unwrap()).err().unwrap();
    world.connect_as("no token at all").err().unwrap();
    world.connect().simple("SELECT 'another session'").unwrap();
    world.gateway.closed_sessions().unwrap();
    world
}

#[test]
fn every_json_document_keeps_to_its_schema() {
    let mut world = eventful();
    for running in [true, false] {
        if !running {
            world.gateway.stop().unwrap();
        }
        let list = world.gateway.json(&["sessions", "list", "--json"]).unwrap();
        valid("sessions-list", &list);
        let sessions = list["sessions"].as_array().unwrap();
        assert_eq!(sessions.len(), 4);
        for session in sessions {
            let shown = world.gateway.session(session["id"].as_str().unwrap()).unwrap();
            valid("sessions-show", &shown);
            assert_eq!(&shown["session"], session, "list and show say the same");
        }
        let found = world.gateway.json(&["search", "needle", "--json"]).unwrap();
        valid("search", &found);
        valid("verify", &world.gateway.json(&["verify", "--json"]).unwrap());
        world.gateway.json(&["sinks", "status", "--json"]).unwrap();
    }
}

#[test]
fn tail_follows_the_record() {
    let world = World::start();
    let mut tail = world
        .gateway
        .command(&["sessions", "tail", "--json"])
        .unwrap()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let schema = schema("tail");
    let mut seen = Vec::new();
    // It follows from when it has begun to, which is not known here: sessions are opened until one is seen.
    wait_for("a line", || {
        world.connect().simple("SELECT 'tailed'")?;
        let readings = world.gateway.sessions()?.len();
        Ok((readings > 2).then_some(()))
    })
    .unwrap();
    while seen.len() < 3 {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(schema.is_valid(&line), "{line:#}");
        seen.push(line);
    }
    assert!(seen.iter().any(|line| line["operation"].is_null()), "a session opens or closes: {seen:#?}");
    assert!(seen.iter().any(|line| line["operation"]["text"] == "SELECT 'tailed'"), "{seen:#?}");
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn lists_are_filtered() {
    let world = eventful();
    let count = |arguments: &[&str]| {
        let all: Vec<&str> = ["sessions", "list", "--json"].iter().chain(arguments).copied().collect();
        world.gateway.json(&all).unwrap()["sessions"].as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 4);
    assert_eq!(count(&["--refused"]), 2);
    assert_eq!(count(&["--open"]), 0);
    assert_eq!(count(&["--limit", "3"]), 3);
    assert_eq!(
        count(&["--connection", "customers"]) + count(&["--connection", "other"]),
        count(&["--connection", "customers"])
    );
    assert_eq!(count(&["--identity", crate::world::WORKLOAD_OBJECT]), 2);
    assert_eq!(count(&["--group", "billing-agents"]), 2);
    assert_eq!(count(&["--since", "7d"]), 4);
    assert_eq!(count(&["--until", "7d"]), 0);
    assert_eq!(count(&["--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"]), 0);
    assert_eq!(count(&["--masked"]) + count(&["--approved"]), 0);
    let open = world.connect();
    open.simple("SELECT 1").unwrap();
    assert_eq!(count(&["--open"]), 1);
    let newest = world.gateway.sessions().unwrap();
    let times: Vec<&str> = newest.iter().map(|session| session["opened_at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|one, other| one >= other), "newest first: {times:?}");
}

#[test]
fn people_read_who_by_which_group_when_and_what() {
    let world = eventful();
    let sessions = world.gateway.sessions().unwrap();
    let oldest = sessions.last().unwrap()["id"].as_str().unwrap();
    for id in [oldest, oldest.get(..oldest.len() - 1).unwrap()] {
        let output = world.gateway.cli(&["sessions", "show", id]).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for word in [
            "customers",
            "billing-agents",
            "INSERT INTO things",
            "a needle in a haystack",
            "SELEC 1",
            "42601",
        ] {
            assert!(text.contains(word), "{word} is not in\n{text}");
        }
    }
    let list = world.gateway.cli(&["sessions", "list"]).unwrap();
    assert!(list.status.success() && !list.stdout.is_empty(), "{}", all(&list));
}

#[test]
fn exit_codes_say_what_happened() {
    let world = eventful();
    let code = |arguments: &[&str]| world.gateway.cli(arguments).unwrap().status.code();
    assert_eq!(
        code(&["sessions", "show", "00000000-0000-7000-8000-000000000000"]),
        Some(1),
        "no such session"
    );
    assert_eq!(code(&["sessions", "show", "0"]), Some(1), "which of them?");
    assert_eq!(code(&["sessions", "list", "--no-such-flag"]), Some(2));
    assert_eq!(code(&["no-such-command"]), Some(2));
    assert_eq!(code(&["sessions", "list", "--since", "yesterday-ish"]), Some(2));
    assert_eq!(code(&["prove", "00000000-0000-7000-8000-000000000000"]), Some(1));
    assert_eq!(code(&["sinks", "replay", "no-such-sink"]), Some(1));
    assert_eq!(code(&["search", "nothing like this was ever said"]), Some(0));
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["--help"]), Some(0));
}

#[test]
fn init_writes_a_configuration_and_never_over_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("verbatim.toml");
    let config = path.to_str().unwrap();
    let output = verbatim(&["init", "--config", config]);
    assert!(output.status.success(), "{}", all(&output));
    let text = fs::read_to_string(&path).unwrap();
    text.parse::<toml::Table>().unwrap();
    assert!(text.lines().filter(|line| line.contains('#')).count() > 10, "commented:\n{text}");
    fs::write(&path, "# mine\n").unwrap();
    assert_eq!(verbatim(&["init", "--config", config]).status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n");
}

#[test]
fn check_says_every_mistake_with_its_place() {
    let world = World::start();
    let good = fs::read_to_string(world.gateway.config_path()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("verbatim.toml");
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        let mut command = world.gateway.command(&["check", "--config", path.to_str().unwrap()]).unwrap();
        let output = command.output().unwrap();
        (output.status.code(), all(&output))
    };
    let (code, text) = check(&good);
    assert_eq!(code, Some(0), "{text}");
    let bad = good
        .replace("drain = \"2s\"", "drain = \"2 fortnights\"\ncolour = \"blue\"")
        .replace("type = \"postgres\"", "type = \"oracle\"")
        .replace("access = [\"group:billing-agents\"]", "access = [\"group:no-such-group\"]");
    let (code, text) = check(&bad);
    assert_eq!(code, Some(2), "{text}");
    let line_of = |needle: &str| bad.lines().position(|line| line.contains(needle)).unwrap() + 1;
    for needle in ["2 fortnights", "colour", "oracle", "no-such-group"] {
        let place = format!("verbatim.toml:{}:", line_of(needle));
        assert!(text.contains(&place), "{needle} at {place}:\n{text}");
    }
    // What isn't there yet is refused with just that said, never half obeyed.
    let later = [
        "[[connection.mask]]\ncolumns = [\"*.email\"]\nwith = \"redact\"\n",
        "[[connection.rule]]\nname = \"none\"\naction = \"deny\"\n",
        "[sink.later]\ntype = \"kafka\"\nbrokers = [\"127.0.0.1:9092\"]\ntopic = \"t\"\n",
    ];
    for part in later {
        let (code, text) = check(&format!("{good}\n{part}"));
        assert_eq!(code, Some(2), "{part}: {text}");
    }
    let (code, text) = check(&good.replace("[gateway]", "[gateway"));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("verbatim.toml:"), "{text}");
    assert_eq!(verbatim(&["check", "--config", "/no/such/file"]).status.code(), Some(2));
    assert_eq!(verbatim(&["serve", "--config", "/no/such/file"]).status.code(), Some(2));
}

#[test]
fn check_reaches_what_it_names() {
    let mut world = World::start();
    let config = world.gateway.config_path();
    let check = |world: &World| {
        let output =
            world.gateway.cli(&["check", "--connect", "--config", config.to_str().unwrap()]).unwrap();
        (output.status.code(), all(&output))
    };
    let (code, text) = check(&world);
    assert_eq!(code, Some(0), "{text}");
    world.server.kill().unwrap();
    let (code, text) = check(&world);
    assert_eq!(code, Some(1), "{text}");
    world.server.restart().unwrap();
    let token = world.gateway.dir().join("token");
    let claims = world.idp.claims(OUTSIDER, 1_000_000_000, &Wish::default()).unwrap();
    let expired = world.idp.mint(&Value::Object(claims)).unwrap();
    for (who, expected) in [(world.token(), 0), (expired, 1)] {
        fs::write(&token, who).unwrap();
        let output = world.gateway.cli(&["check", "--token", token.to_str().unwrap()]).unwrap();
        assert_eq!(output.status.code(), Some(expected), "{}", all(&output));
    }
    world.gateway.stop().unwrap();
}

#[test]
fn a_changed_configuration_holds_for_new_sessions_and_a_wrong_one_changes_nothing() {
    let mut world = World::start();
    let open = world.connect();
    open.simple("SELECT 'allowed'").unwrap();
    let closed: Config = world.config().with("[connection]", "access = []");
    world.gateway.reconfigure(closed).unwrap();
    wait_for("the new configuration", || Ok(world.connect_as(&world.token()).err().map(drop))).unwrap();
    // For an open session it holds from its next operation on.
    open.simple("SELECT 'not any more'").unwrap_err();
    let sessions = world.gateway.closed_sessions().unwrap();
    assert!(
        sessions.iter().any(|session| session["session"]["close_reason"] == "access_revoked"),
        "{sessions:#?}"
    );
    let wrong = world.config().with("gateway", "no-such-key = true");
    world.gateway.reconfigure(wrong).unwrap();
    wait_for("the report", || Ok(world.gateway.log()?.contains("no-such-key").then_some(()))).unwrap();
    assert!(world.connect_as(&world.token()).is_err(), "the last good one holds");
    let good = world.config();
    world.gateway.reconfigure(good).unwrap();
    wait_for("the good configuration", || Ok(world.connect_as(&world.token()).ok().map(drop))).unwrap();
    world.intact();
}

#[test]
fn a_sink_gets_everything_and_can_be_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events.jsonl");
    let sink = format!("[sink.copy]\ntype = \"file\"\npath = \"{}\"\n", events.display());
    let world = World::with(|config| config.and(&sink));
    world.connect().query("SELECT $1::text", &[&"to the sink"]).unwrap();
    let session = world.gateway.closed_sessions().unwrap().remove(0);
    let id = session["session"]["id"].clone();
    let read = || -> anyhow::Result<Vec<Value>> {
        Ok(fs::read_to_string(&events)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let of_the_session = |events: &[Value]| events.iter().filter(|event| event["session"] == id).count();
    let first = wait_for("the sink", || {
        let events = read()?;
        let closed = events.iter().any(|event| event["kind"] == "session_close" && event["session"] == id);
        let checkpoint = events.iter().any(|event| event["kind"] == "checkpoint");
        Ok((closed && checkpoint).then_some(events))
    })
    .unwrap();
    for event in &first {
        valid("native-event", event);
    }
    assert!(first.iter().any(|event| event["payload"]["text"] == "SELECT $1::text"), "{first:#?}");
    let status = world.gateway.json(&["sinks", "status", "--json"]).unwrap();
    assert_eq!(status["sinks"][0]["name"], "copy");
    assert_eq!(status["sinks"][0]["dead_letters"], 0);
    let output = world.gateway.cli(&["sinks", "replay", "copy"]).unwrap();
    assert!(output.status.success(), "{}", all(&output));
    wait_for("the replay", || Ok((of_the_session(&read()?) >= 2 * of_the_session(&first)).then_some(())))
        .unwrap();
}

#[test]
fn readings_are_on_record_and_metrics_count() {
    let world = World::start();
    world.connect().simple("SELECT 1").unwrap();
    world.gateway.closed_sessions().unwrap();
    let entries = world.gateway.json(&["verify", "--json"]).unwrap()["ledgers"][0]["size"].as_u64().unwrap();
    world.gateway.sessions().unwrap();
    wait_for("the reading's entry", || {
        let now = world.gateway.json(&["verify", "--json"])?["ledgers"][0]["size"].as_u64();
        Ok((now > Some(entries)).then_some(()))
    })
    .unwrap();
    let (status, metrics) = world.gateway.get("/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(metrics.contains("verbatim_operations_total"), "{metrics}");
    assert!(!metrics.contains("SELECT"), "no statements in labels");
    assert!(world.gateway.metric("verbatim_operations_total").unwrap() >= 1.0);
    assert_eq!(world.gateway.get("/healthz").unwrap().0, 200);
}
