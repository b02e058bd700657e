//! The example of a protocol of one's own, as its users would run it: `verbatim` with one more protocol, a real memcached
//! that wants a login, and a real client.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tokio::runtime::Runtime;
use verbatim_testkit::gateway::{Config, Gateway, PATIENCE, free_port, printed, wait_for};
use verbatim_testkit::idp::{self, Idp, Wish};
use verbatim_testkit::memcached::{Memcached, Options};

use crate::world::{OUTSIDER, WORKLOAD, WORKLOAD_OBJECT, all, repository, tool};

/// A memcached, a simulated Entra, and a gateway between a client and both.
struct World {
    _runtime: Runtime,
    idp: Idp,
    server: Memcached,
    gateway: Gateway,
    port: u16,
}

impl World {
    fn start() -> Self {
        let login = Some("app:target-secret".to_owned());
        let server = Memcached::start(&Options { login, ..Options::default() }).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let idp = runtime.block_on(Idp::start(idp::Options::default())).unwrap();
        let port = free_port().unwrap();
        let gateway = Gateway::start(config(&idp, &server, port, "group:billing-agents")).unwrap();
        Self { _runtime: runtime, idp, server, gateway, port }
    }

    fn token(&self) -> String {
        self.idp.token(WORKLOAD).unwrap()
    }

    fn connect(&self) -> Wire {
        let mut wire = Wire::connect(self.port);
        wire.send(&login(&format!("cache {}", self.token())));
        assert_eq!(wire.line(), "STORED");
        wire
    }

    /// Compares, line by line, what the server read on each stream with what is recorded: nothing more, nothing less, in the same
    /// order. The first `before` streams were not the gateway's. The gateway's own are its `mn` at the login and behind what may have no answer.
    fn agree(&self, before: usize, sessions: &[Value]) {
        let mut expected = Vec::new();
        for session in sessions.iter().filter(|session| session["session"]["refusal"].is_null()) {
            let mut lines = vec!["mn".to_owned()];
            for operation in session["operations"].as_array().unwrap() {
                let text = operation["text"].as_str().unwrap();
                if operation["outcome"]["status"] == "refused" {
                    continue;
                }
                // The server's log is read a character a byte.
                lines.push(text.bytes().map(char::from).collect());
                if text.ends_with(" noreply") || text.starts_with('m') && text.ends_with(" q") {
                    lines.push("mn".to_owned());
                }
            }
            expected.push(lines);
        }
        assert_eq!(self.server.commands().unwrap().split_off(before), expected);
    }

    fn intact(&self) {
        let verified = self.gateway.cli(&["verify"]).unwrap();
        assert_eq!(verified.status.code(), Some(0), "{}", all(&verified));
    }
}

fn config(idp: &Idp, server: &Memcached, port: u16, access: &str) -> Config {
    let target = format!("memcached://app@127.0.0.1:{}", server.port());
    // Nobody asks for the connection to PostgreSQL that every configuration here begins with.
    Config::new(&idp.authority(), &idp.graph(), 1)
        .program("verbatim-memcached")
        .with("listen", &format!("memcached = \"127.0.0.1:{port}\""))
        .and(&format!(
            "[[connection]]\nname = \"cache\"\ntype = \"memcached\"\ntarget = \"{target}\"\n\
             credential = {{ env = \"TARGET_PASSWORD\" }}\naccess = [\"{access}\"]"
        ))
}

fn login(words: &str) -> String {
    format!("set auth 0 0 {}\r\n{words}\r\n", words.len())
}

/// A stream to the gateway, without anything between a test and the bytes.
struct Wire(BufReader<TcpStream>);

impl Wire {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &str) {
        self.0.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// A line; empty at the end of the stream.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

fn transcript(port: u16, login: &str) -> String {
    let output = Command::new(tool("pymemcache/bin/python"))
        .arg(repository().join("tests/drivers/pymemcache/work.py"))
        .env("MEMCACHED_PORT", port.to_string())
        .env("MEMCACHED_LOGIN", login)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}{}", printed(&output.stdout), printed(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether a file under a folder holds this.
fn holds(folder: &Path, text: &str) -> bool {
    let found = Command::new("grep").args(["-rqF", "-e", text]).arg(folder).status().unwrap();
    found.success()
}

#[test]
fn a_driver_works_as_without_the_gateway_and_the_servers_log_is_the_record() {
    let world = World::start();
    let direct = transcript(world.server.port(), "app target-secret");
    let before = world.server.commands().unwrap().len();
    let padded = world.idp.token_with(WORKLOAD, &Wish { padding: 8000, ..Wish::default() }).unwrap();
    let login = format!("cache {padded}");
    assert_eq!(transcript(world.port, &login), direct);

    let sessions = world.gateway.closed_sessions().unwrap();
    assert!(world.server.commands().unwrap().concat().len() > 2000, "the driver did its work");
    let shown: Vec<&Value> =
        sessions.iter().flat_map(|session| session["operations"].as_array().unwrap()).collect();
    for (operation, status) in shown.iter().map(|operation| (operation, &operation["outcome"]["status"])) {
        assert!(status == "ok" || status == "error", "{operation}");
    }
    assert_eq!(shown[0]["text"], "set greeting 0 0 5");
    assert_eq!(shown[0]["kind"], "command");
    assert_eq!(shown[0]["statement"], "set");
    assert_eq!(shown[0]["parameters"], serde_json::json!([{ "type": "data", "value": "hello" }]));
    assert_eq!(shown[0]["outcome"]["rows"], 1);
    let large = shown.iter().find(|operation| operation["text"] == "set large 0 0 900000").unwrap();
    assert_eq!(large["content"]["length"], 900_000);
    let failed = shown.iter().find(|operation| operation["text"] == "set large 0 0 2000000").unwrap();
    let error = serde_json::json!({ "code": "SERVER_ERROR", "message": "object too large for cache" });
    assert_eq!(failed["outcome"]["error"], error);
    world.agree(before, &sessions);
    world.intact();
    let stored = |text| holds(&world.gateway.data_dir(), text);
    assert!(
        stored("set greeting 0 0 5") && !stored(&padded) && !stored("target-secret"),
        "secrets are not stored"
    );
}

#[test]
fn a_session_says_who_it_was_and_who_let_it_in() {
    let world = World::start();
    let mut wire = world.connect();
    wire.send("set customer 0 0 3\r\nada\r\nget customer\r\nshutdown\r\nincr customer 1\r\n");
    assert_eq!(wire.line(), "STORED");
    assert_eq!([wire.line(), wire.line(), wire.line()], ["VALUE customer 0 3", "ada", "END"]);
    assert!(wire.line().starts_with("SERVER_ERROR not supported through the gateway: shutdown (session "));
    assert!(wire.line().starts_with("CLIENT_ERROR cannot increment"));
    drop(wire);
    let sessions = world.gateway.closed_sessions().unwrap();
    let session = &sessions[0]["session"];
    assert_eq!((&session["connection"], &session["protocol"]), (&"cache".into(), &"memcached".into()));
    assert_eq!(session["target"], format!("127.0.0.1:{}", world.server.port()));
    assert_eq!(session["identity"]["object_id"], WORKLOAD_OBJECT);
    assert_eq!(session["authorized_by"]["name"], "billing-agents");
    assert_eq!((&session["close_reason"], &session["complete"]), (&"client".into(), &true.into()));
    let operations = sessions[0]["operations"].as_array().unwrap();
    let outcomes: Vec<_> =
        operations.iter().map(|operation| operation["outcome"]["status"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["ok", "ok", "refused", "error"]);
    let found = world.gateway.json(&["search", "get customer", "--json"]).unwrap();
    assert_eq!(found["matches"].as_array().unwrap().len(), 1);
    world.agree(0, &sessions);
    world.intact();
}

#[test]
fn who_has_no_access_is_refused_in_the_protocols_words_and_on_record() {
    let world = World::start();
    let outsider = world.idp.token(OUTSIDER).unwrap();
    for (words, said) in [
        (format!("cache {outsider}"), "CLIENT_ERROR permission denied"),
        (format!("nowhere {}", world.token()), "CLIENT_ERROR permission denied"),
        (format!("customers {}", world.token()), "CLIENT_ERROR permission denied"),
        ("cache secret".to_owned(), "CLIENT_ERROR authentication failure"),
        ("nothing".to_owned(), "CLIENT_ERROR authentication failure"),
    ] {
        let mut wire = Wire::connect(world.port);
        wire.send("get a\r\n");
        assert_eq!(wire.line(), "CLIENT_ERROR unauthenticated");
        wire.send(&(login(&words) + "flush_all\r\n"));
        let line = wire.line();
        assert!(line.starts_with(said), "{line}");
        assert_eq!(wire.line(), "", "the end");
    }
    let sessions = world.gateway.closed_sessions().unwrap();
    let reasons: Vec<_> = sessions.iter().map(|shown| shown["session"]["close_reason"].clone()).collect();
    assert_eq!(reasons, ["refused"; 5]);
    assert!(world.server.commands().unwrap().is_empty(), "nobody got as far as the server");
    world.intact();
}

#[test]
fn access_that_is_taken_away_ends_an_open_session() {
    let mut world = World::start();
    let mut wire = world.connect();
    wire.send("get a\r\n");
    assert_eq!(wire.line(), "END");
    world.gateway.reconfigure(config(&world.idp, &world.server, world.port, "group:dba-oncall")).unwrap();
    let said = wire.line();
    assert!(said.starts_with("SERVER_ERROR access was revoked (session "), "{said}");
    assert_eq!(wire.line(), "");
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["session"]["close_reason"], "access_revoked");
    world.agree(0, &sessions);
}

#[test]
fn what_the_server_saw_before_a_kill_is_on_record() {
    let mut world = World::start();
    let mut wire = world.connect();
    let work: String = (0..2000).map(|number| format!("set key-{number} 0 0 1 noreply\r\nx\r\n")).collect();
    wire.send(&work);
    wait_for("the server's first commands", || {
        Ok(world.server.commands()?.concat().iter().any(|line| line.starts_with("set")).then_some(()))
    })
    .unwrap();
    world.gateway.kill().unwrap();
    world.gateway.restart().unwrap();
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["session"]["close_reason"], "crash");
    let operations = sessions[0]["operations"].as_array().unwrap();
    let read = world.server.commands().unwrap().concat();
    let read: Vec<&String> = read.iter().filter(|line| *line != "mn").collect();
    assert!(!read.is_empty() && read.len() <= operations.len(), "{} of {}", operations.len(), read.len());
    for (line, operation) in read.into_iter().zip(operations) {
        assert_eq!(operation["text"], line.as_str());
    }
    world.intact();
}
