//! MCP: the official SDK for Python before its own server, by the stateful and the stateless form of the transport; the
//! messages that the server logged agree with the record, one by one, in order.

use std::process::Command;

use serde_json::Value;
use tokio::runtime::Runtime;
use verbatim_testkit::gateway::{CONNECTION, Config, Gateway, TARGET_PASSWORD, free_port, printed};
use verbatim_testkit::http::Program;
use verbatim_testkit::idp::{self, Idp};

use crate::world::{WORKLOAD, repository, tool};

/// An MCP server, a simulated Entra, and a gateway between a client and both.
struct World {
    _runtime: Runtime,
    idp: Idp,
    gateway: Gateway,
    port: u16,
    _server: Program,
    folder: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(tool("mcp/bin/python"));
        command.arg(repository().join("tests/drivers/mcp/server.py")).env("LOG", folder.path().join("log"));
        let server = Program::start(&mut command).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let idp = runtime.block_on(Idp::start(idp::Options::default())).unwrap();
        let port = free_port().unwrap();
        let config = Config::new(&idp.authority(), &idp.graph(), server.port())
            .with("[connection]", "type = \"mcp\"")
            .with("[connection]", &format!("target = \"http://127.0.0.1:{}\"", server.port()))
            .with("listen", &format!("http = \"127.0.0.1:{port}\""));
        let gateway = Gateway::start(config).unwrap();
        Self { _runtime: runtime, idp, gateway, port, _server: server, folder }
    }

    /// What the server got, message by message.
    fn log(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn work(mode: &str) -> Vec<Value> {
    let world = World::start();
    let output = Command::new(tool("mcp/bin/python"))
        .arg(repository().join("tests/drivers/mcp/client.py"))
        .env("URL", format!("http://127.0.0.1:{}/{CONNECTION}/mcp", world.port))
        .env("TOKEN", world.idp.token(WORKLOAD).unwrap())
        .env("MODE", mode)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "['add', 'fail']\nFalse 42\nTrue\n", "{}", printed(&output.stderr));
    let sessions = world.gateway.closed_sessions().unwrap();
    let mut recorded: Vec<&Value> = sessions
        .iter()
        .flat_map(|session| session["operations"].as_array().unwrap())
        .filter(|operation| operation["request"].is_null())
        .collect();
    recorded.sort_by_key(|operation| operation["requested_at"].as_str().unwrap());
    let log = world.log();
    assert_eq!(recorded.len(), log.len(), "{sessions:#?}");
    for (operation, logged) in recorded.iter().zip(&log) {
        assert_eq!(operation["text"], logged["text"]);
        assert_eq!(logged["authorization"], format!("Bearer {TARGET_PASSWORD}"));
    }
    let calls: Vec<_> = recorded
        .iter()
        .filter(|operation| operation["kind"] == "tool_call")
        .map(|operation| (operation["tool"].to_string(), operation["outcome"]["status"].to_string()))
        .collect();
    assert_eq!(
        calls,
        [
            (r#"{"arguments":{"a":2,"b":40},"name":"add"}"#.to_owned(), "\"ok\"".to_owned()),
            (r#"{"arguments":{"why":"so"},"name":"fail"}"#.to_owned(), "\"error\"".to_owned()),
        ]
    );
    let verify = world.gateway.cli(&["verify"]).unwrap();
    assert!(verify.status.success(), "{}{}", printed(&verify.stdout), printed(&verify.stderr));
    sessions
}

#[test]
fn the_python_sdk_with_a_session_id() {
    let sessions = work("legacy");
    assert_eq!(sessions.len(), 1, "one Mcp-Session-Id is one session: {sessions:#?}");
    assert_eq!(sessions[0]["session"]["protocol"], "mcp");
    assert_eq!(sessions[0]["session"]["close_reason"], "client");
}

#[test]
fn the_python_sdk_without_a_session_id() {
    work("auto");
}
