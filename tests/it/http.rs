//! HTTP: curl by HTTP/1.1 and HTTP/2, and node's fetch, before a real nginx, whose access log agrees with the record,
//! request by request, in order, with bodies; who gets in.

use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::runtime::Runtime;
use verbatim_testkit::gateway::{CONNECTION, Config, Gateway, TARGET_PASSWORD, free_port, printed};
use verbatim_testkit::http::{Logged, Nginx};
use verbatim_testkit::idp::{self, Idp};

use crate::world::{OUTSIDER, WORKLOAD, WORKLOAD_OBJECT};

/// An nginx, a simulated Entra, and a gateway between a client and both.
struct World {
    _runtime: Runtime,
    idp: Idp,
    server: Nginx,
    gateway: Gateway,
    port: u16,
}

impl World {
    fn start() -> Self {
        let server = Nginx::start().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let idp = runtime.block_on(Idp::start(idp::Options::default())).unwrap();
        let port = free_port().unwrap();
        let config = Config::new(&idp.authority(), &idp.graph(), server.port())
            .with("[connection]", "type = \"http\"")
            .with("[connection]", &format!("target = \"http://127.0.0.1:{}\"", server.port()))
            .with("listen", &format!("http = \"127.0.0.1:{port}\""));
        let gateway = Gateway::start(config).unwrap();
        Self { _runtime: runtime, idp, server, gateway, port }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{CONNECTION}{path}", self.port)
    }

    fn token(&self) -> String {
        self.idp.token(WORKLOAD).unwrap()
    }

    /// Runs curl with a token; what it printed.
    fn curl(&self, token: &str, arguments: &[&str]) -> String {
        let output = Command::new("curl")
            .args([
                "-sS",
                "--max-time",
                "30",
                "--path-as-is",
                "-H",
                &format!("Authorization: Bearer {token}"),
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", printed(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every session that was let in has, request by request, what nginx logged.
    fn agree(&self, count: usize) -> Vec<Value> {
        let log = self.server.log(count).unwrap();
        let sessions = self.gateway.closed_sessions().unwrap();
        let mut recorded: Vec<&Value> = Vec::new();
        for session in &sessions {
            assert_eq!(session["session"]["complete"], true, "{session:#}");
            recorded.extend(session["operations"].as_array().unwrap());
        }
        // A client may use several streams at once, each a session.
        recorded.sort_by_key(|operation| operation["requested_at"].as_str().unwrap());
        assert_eq!(recorded.len(), log.len(), "{sessions:#?}");
        for (operation, logged) in recorded.iter().zip(&log) {
            compare(operation, logged);
        }
        let verify = self.gateway.cli(&["verify"]).unwrap();
        assert!(verify.status.success(), "{}{}", printed(&verify.stdout), printed(&verify.stderr));
        sessions
    }
}

fn compare(operation: &Value, logged: &Logged) {
    let text = operation["text"].as_str().unwrap().replacen(&format!("/{CONNECTION}"), "", 1);
    assert_eq!(text, logged.text, "{operation:#}");
    assert_eq!(operation["kind"], "request");
    let body = operation["request"]["body"]["value"].as_str().unwrap_or_default();
    if operation["outcome"]["content"].is_null() {
        assert_eq!(body, logged.body, "{operation:#}");
    }
    let (status, code) = (&operation["outcome"]["status"], &operation["outcome"]["error"]["code"]);
    if logged.status >= 400 {
        assert_eq!((status.as_str(), code.as_str()), (Some("error"), Some(&*logged.status.to_string())));
    } else {
        assert_eq!(status, "ok", "{operation:#}");
    }
    // nginx counts the framing of chunks too.
    if operation["response"].to_string().contains("\"content-length\"") {
        assert_eq!(operation["outcome"]["bytes"], logged.bytes, "{operation:#}");
    }
    assert_eq!(logged.authorization, format!("Bearer {TARGET_PASSWORD}"));
    assert!(!operation.to_string().contains("eyJ"), "no token is in the record");
}

fn work(version: &str) {
    let world = World::start();
    let token = world.token();
    let (small, echo) = (world.url("/files/small.txt?x=%41&y"), world.url("/echo"));
    let (missing, empty) = (world.url("/status/404"), world.url("/status/204"));
    // curl 7.88 cannot send a second request on a stream of HTTP/2 in clear.
    let urls = [small.as_str(), &missing, &empty];
    let together = if version == "--http1.1" { 3 } else { 1 };
    let printed: String =
        urls.chunks(together).map(|urls| world.curl(&token, &[&[version], urls].concat())).collect();
    assert_eq!(printed, format!("{}no", "0123456789abcdef".repeat(64)));
    assert_eq!(world.curl(&token, &[version, "-d", "a=1&b=\u{e4}", &echo]), "a=1&b=\u{e4}");
    assert_eq!(world.curl(&token, &[version, "-X", "PUT", "-d", "{\"x\": 1}", &echo]), "{\"x\": 1}");
    let large = "x".repeat(100_000);
    let file = world.gateway.dir().join("large");
    std::fs::write(&file, &large).unwrap();
    let upload = format!("@{}", file.display());
    assert_eq!(world.curl(&token, &[version, "--data-binary", &upload, &echo]), large);
    let moved = ["-o", "/dev/null", "-w", "%{redirect_url}"];
    let moved = world.curl(&token, &[&[version], &moved[..], &[&world.url("/moved")]].concat());
    assert_eq!(moved, world.url("/files/small.txt"));
    let download = world.curl(
        &token,
        &[version, "-o", "/dev/null", "-w", "%{size_download}", &world.url("/files/large.bin")],
    );
    assert_eq!(download, (8 << 20).to_string());
    let sessions = world.agree(8);
    let session = &sessions[0]["session"];
    assert_eq!(session["protocol"], "http");
    assert_eq!(session["identity"]["object_id"], WORKLOAD_OBJECT);
    assert_eq!(session["target"], format!("http://127.0.0.1:{}", world.server.port()));
    assert!(session["client"]["application"].as_str().unwrap().starts_with("curl/"), "{session:#}");
    assert_eq!(sessions[0]["operations"].as_array().unwrap().len(), together, "a stream is a session");
}

#[test]
fn curl_by_http1() {
    work("--http1.1");
}

#[test]
fn curl_by_http2() {
    work("--http2-prior-knowledge");
}

#[test]
fn many_requests_at_once_by_http2() {
    let world = World::start();
    let token = format!("authorization: Bearer {}", world.token());
    let output = Command::new("h2load")
        .args(["-n", "40", "-c", "2", "-m", "5", "-H", &token, &world.url("/v1/x")])
        .output()
        .expect("h2load is missing: run tests/setup, or apt install nghttp2-client");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("40 succeeded, 0 failed"), "{said}");
    assert_eq!(world.agree(40).len(), 2, "a stream is a session");
}

#[test]
fn node_fetch() {
    let world = World::start();
    let script = "const [base, token] = process.argv.slice(1);\n\
        const headers = { authorization: `Bearer ${token}` };\n\
        (async () => {\n\
          for (const n of [1, 2, 3]) await (await fetch(`${base}/v1/${n}`, { headers })).text();\n\
          const answer = await fetch(`${base}/echo`, { method: 'POST', headers, body: JSON.stringify({ n: 4 }) });\n\
          console.log(await answer.text());\n\
        })();";
    let output = Command::new("node").args(["-e", script, &world.url(""), &world.token()]).output().unwrap();
    assert_eq!(output.stdout, b"{\"n\":4}\n", "{}", printed(&output.stderr));
    world.agree(4);
}

#[test]
fn who_is_not_let_in_is_told_and_recorded_and_nothing_reaches_the_server() {
    let world = World::start();
    let status = |token: &str, path: &str| {
        world.curl(token, &["-o", "/dev/null", "-w", "%{http_code}", &world.url(path)])
    };
    assert_eq!(status("no.token.atall", "/x"), "401");
    assert_eq!(status(&world.idp.token(OUTSIDER).unwrap(), "/x"), "403");
    assert_eq!(status(&world.token(), "/%2e%2e/x"), "400");
    let refused: Vec<_> = world
        .gateway
        .closed_sessions()
        .unwrap()
        .iter()
        .map(|session| session["session"]["close_reason"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(refused, ["refused", "refused", "refused"]);
    assert_eq!(world.server.log(0).unwrap(), []);
}
