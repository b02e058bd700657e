//! Redis: every driver, with small and large tokens, as without the gateway, and the server's MONITOR agrees with the
//! record, command by command, in order, with all arguments; who gets in and for how long; large values, a crash, a full
//! disk.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use serde_json::Value;
use tokio::runtime::Runtime;
use verbatim_testkit::gateway::{
    CONNECTION, Config, Gateway, PATIENCE, TARGET_PASSWORD, free_port, printed, wait_for,
};
use verbatim_testkit::idp::{self, Idp, Wish};
use verbatim_testkit::redis::{self as server, Options, Redis};

use crate::faults::SmallDisk;
use crate::world::{AGENT, OUTSIDER, WORKLOAD, WORKLOAD_OBJECT, repository, tool};

/// How much the gateway may grow while it passes any amount on.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// A Redis server, a simulated Entra, and a gateway between a client and both.
struct World {
    _runtime: Runtime,
    idp: Idp,
    server: Redis,
    gateway: Gateway,
    port: u16,
}

impl World {
    fn start() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let options = Options { password: Some(TARGET_PASSWORD.to_owned()), ..Options::default() };
        let server = Redis::start(options).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let idp = runtime.block_on(Idp::start(idp::Options::default())).unwrap();
        let port = free_port().unwrap();
        let config = Config::new(&idp.authority(), &idp.graph(), server.port())
            .with("[connection]", "type = \"redis\"")
            .with("[connection]", &format!("target = \"redis://127.0.0.1:{}\"", server.port()))
            .with("listen", &format!("redis = \"127.0.0.1:{port}\""));
        let gateway = Gateway::start(change(config)).unwrap();
        Self { _runtime: runtime, idp, server, gateway, port }
    }

    fn token(&self) -> String {
        self.idp.token(WORKLOAD).unwrap()
    }

    /// A client that gets in.
    fn connect(&self) -> Client {
        let mut client = Client::dial(self.port);
        assert_eq!(client.ask(&["AUTH", CONNECTION, &self.token()]), "+OK");
        client
    }

    fn intact(&self) {
        let output = self.gateway.cli(&["verify"]).unwrap();
        assert!(output.status.success(), "{}{}", printed(&output.stdout), printed(&output.stderr));
    }
}

/// A client of RESP2 that waits for its answers.
struct Client(BufReader<TcpStream>);

impl Client {
    fn dial(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, words: &[&str]) {
        self.0.get_mut().write_all(&request(words)).unwrap();
    }

    /// A reply's line; of a bulk string the string.
    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let line = line.trim_end().to_owned();
        match line.strip_prefix('$').map(|length| length.parse::<usize>()) {
            Some(Ok(length)) => {
                let mut bulk = vec![0; length + 2];
                self.0.read_exact(&mut bulk).unwrap();
                printed(&bulk[..length])
            }
            _ => line,
        }
    }

    fn ask(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.reply()
    }
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

/// What the record says that a client sent, and whether the server ran it.
struct Recorded {
    arguments: Vec<Vec<u8>>,
    /// The arguments are those up to one of so many bytes.
    cut: Option<usize>,
    /// It certainly ran. If not, it may have.
    ran: bool,
}

impl Recorded {
    fn read(operation: &Value) -> Result<Option<Self>> {
        if operation["outcome"]["status"] == "refused" {
            return Ok(None);
        }
        let text = operation["text"].as_str().context("no text")?;
        let name = text.split(' ').next().unwrap_or_default();
        ensure!(
            operation["kind"] == "command" && operation["statement"] == name.to_lowercase(),
            "{operation:#}"
        );
        let mut arguments = vec![name.as_bytes().to_vec()];
        let mut cut = None;
        for parameter in operation["parameters"].as_array().context("no parameters")? {
            let value = parameter["value"].as_str();
            match (parameter["type"].as_str(), value) {
                (Some("content"), Some(length)) => cut = Some(length.parse()?),
                (_, Some(value)) => arguments.push(value.as_bytes().to_vec()),
                (_, None) => {
                    let base64 = parameter["base64"].as_str().context("no value")?;
                    arguments.push(base64::engine::general_purpose::STANDARD.decode(base64)?);
                }
            }
        }
        Ok(Some(Self { arguments, cut, ran: operation["outcome"]["status"] == "ok" }))
    }

    fn is(&self, command: &server::Command) -> bool {
        match self.cut {
            None => command.arguments == self.arguments,
            Some(length) => {
                command.arguments.starts_with(&self.arguments)
                    && command.arguments.get(self.arguments.len()).is_some_and(|next| next.len() == length)
            }
        }
    }
}

/// Logins are no commands of their own for the server's MONITOR, or those of the gateway.
fn is_login(arguments: &[Vec<u8>]) -> bool {
    ["AUTH", "HELLO"].iter().any(|name| arguments[0].eq_ignore_ascii_case(name.as_bytes()))
}

/// Holds what the server says that one client had run against one session: all of it is there, in this order.
fn agrees(ran: &[&server::Command], session: &Value) -> Result<()> {
    let mut ran = ran.iter().filter(|command| !is_login(&command.arguments)).peekable();
    for operation in session["operations"].as_array().context("no operations")? {
        let Some(recorded) = Recorded::read(operation)? else { continue };
        if ran.next_if(|command| recorded.is(command)).is_none() {
            ensure!(!recorded.ran || is_login(&recorded.arguments), "the server did not run {operation:#}");
        }
    }
    if let Some(command) = ran.next() {
        bail!("not recorded, or elsewhere: {command:?}");
    }
    Ok(())
}

/// Every client that the server saw is a session of the record.
fn all_agree(ran: &[server::Command], sessions: &[Value]) -> Result<()> {
    let mut by_client: BTreeMap<&str, Vec<&server::Command>> = BTreeMap::new();
    for command in ran.iter().filter(|command| command.client != "lua" && !is_login(&command.arguments)) {
        by_client.entry(&command.client).or_default().push(command);
    }
    let mut left: Vec<&Value> = sessions.iter().collect();
    for (client, commands) in by_client {
        let mut why = String::new();
        let found = left.iter().position(|session| match agrees(&commands, session) {
            Ok(()) => true,
            Err(error) => {
                why += &format!("\n{error}");
                false
            }
        });
        let found = found.with_context(|| format!("no session is that of {client}: {why}"))?;
        left.remove(found);
    }
    left.into_iter().try_for_each(|session| agrees(&[], session))
}

/// The program of a driver, ready but for the environment.
fn program(driver: &str) -> Command {
    let drivers = repository().join("tests/drivers/redis");
    let mut command = match driver {
        "redis-cli" => Command::new(drivers.join("cli/run")),
        "redis-py" => {
            let mut command = Command::new(tool("redis-venv/bin/python"));
            command.arg(drivers.join("python/work.py"));
            command
        }
        "node-redis" => {
            let mut command = Command::new("node");
            command.arg(drivers.join("node/work.cjs")).env("NODE_PATH", tool("redis-node/node_modules"));
            command
        }
        rust => Command::new(tool(&format!("redis-rust/debug/work-{rust}"))),
    };
    command.stdin(Stdio::null());
    command
}

fn transcript(driver: &str, port: u16, user: &str, password: &str) -> String {
    let output = program(driver)
        .env("REDIS_HOST", "127.0.0.1")
        .env("REDIS_PORT", port.to_string())
        .env("REDIS_USER", user)
        .env("REDIS_PASSWORD", password)
        .output()
        .unwrap();
    let said = printed(&output.stderr);
    assert!(output.status.success(), "{driver}: {}\n{}{said}", output.status, printed(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

fn check(driver: &str, token_bytes: usize) {
    let world = World::start();
    let direct = transcript(driver, world.server.port(), "default", TARGET_PASSWORD);
    let bare = world.token().len();
    let padding = token_bytes.saturating_sub(bare) * 3 / 4;
    let token = world.idp.token_with(WORKLOAD, &Wish { padding, ..Wish::default() }).unwrap();
    let mut monitor = world.server.monitor().unwrap();
    let through = transcript(driver, world.port, CONNECTION, &token);
    let differs = direct.lines().zip(through.lines()).find(|(direct, through)| direct != through);
    assert_eq!(differs, None, "{driver} sees a difference");
    assert_eq!(direct, through);

    let sessions = world.gateway.closed_sessions().unwrap();
    let ran = monitor.commands().unwrap();
    assert!(ran.len() > 20, "the driver did its work");
    all_agree(&ran, &sessions).unwrap();
    for session in &sessions {
        assert_eq!(session["session"]["complete"], true, "{session:#}");
        assert_eq!(session["session"]["protocol"], "redis");
    }
    let (server, gateway) = (world.server.log().unwrap(), world.gateway.log().unwrap());
    assert!(!server.contains(&token) && !gateway.contains(&token), "the token is nowhere in the clear");
    assert!(!gateway.contains(TARGET_PASSWORD), "nor is the target's credential");
    world.intact();
}

macro_rules! drivers {
    ($($test:ident: $driver:literal;)*) => {
        $(
            mod $test {
                #[test]
                fn token_of_2_kb() {
                    super::check($driver, 2 * 1024);
                }

                #[test]
                fn token_of_12_kb() {
                    super::check($driver, 12 * 1024);
                }
            }
        )*
    };
}

drivers! {
    redis_cli: "redis-cli";
    redis_py: "redis-py";
    node_redis: "node-redis";
    redis_rs: "redis-rs";
    fred: "fred";
}

#[test]
fn a_session_is_shown_with_all_that_the_contract_says() {
    let world = World::start();
    let mut client = world.connect();
    assert_eq!(client.ask(&["SET", "k", "a value"]), "+OK");
    assert_eq!(client.ask(&["INCR", "k"]), "-ERR value is not an integer or out of range");
    assert!(client.ask(&["ShutDown"]).starts_with("-NOPERM "));
    assert_eq!(client.ask(&["CONFIG", "SET", "masterauth", "hunter2"]), "+OK");
    assert_eq!(client.ask(&["QUIT"]), "+OK");
    let sessions = world.gateway.closed_sessions().unwrap();
    let [session] = sessions.as_slice() else { panic!("{sessions:#?}") };
    let about = &session["session"];
    assert_eq!(about["connection"], CONNECTION);
    assert_eq!(about["target"], format!("127.0.0.1:{}", world.server.port()));
    assert_eq!(about["identity"]["object_id"], WORKLOAD_OBJECT);
    assert_eq!((&about["client"]["user"], &about["close_reason"]), (&CONNECTION.into(), &"client".into()));
    let operations = session["operations"].as_array().unwrap();
    let statements: Vec<&str> =
        operations.iter().map(|operation| operation["statement"].as_str().unwrap()).collect();
    assert_eq!(statements, ["set", "incr", "shutdown", "config", "quit"]);
    assert_eq!(operations[0]["text"], "SET k \"a value\"");
    assert_eq!(operations[0]["parameters"][1]["value"], "a value");
    assert_eq!(operations[0]["outcome"]["bytes"], 5);
    assert_eq!(operations[1]["outcome"]["error"]["code"], "ERR");
    assert_eq!(operations[2]["outcome"]["status"], "refused");
    assert_eq!(operations[2]["outcome"]["refusal"]["code"], "command");
    assert!(!format!("{session}").contains("hunter2"), "{session:#}");
    world.intact();
}

#[test]
fn who_has_no_access_is_told_so_and_recorded() {
    let world = World::start();
    let mut client = Client::dial(world.port);
    let outsider = world.idp.token(OUTSIDER).unwrap();
    assert!(client.ask(&["AUTH", CONNECTION, &outsider]).starts_with("-NOPERM "));
    assert!(client.ask(&["AUTH", CONNECTION, "nonsense"]).starts_with("-WRONGPASS "));
    assert!(client.ask(&["AUTH", "elsewhere", &world.token()]).starts_with("-NOPERM "));
    assert!(client.ask(&["GET", "k"]).starts_with("-NOAUTH "));
    assert_eq!(client.ask(&["AUTH", CONNECTION, &world.token()]), "+OK");
    drop(client);
    let sessions = world.gateway.closed_sessions().unwrap();
    let refused = sessions.iter().filter(|session| session["session"]["close_reason"] == "refused").count();
    assert_eq!((sessions.len(), refused), (4, 3), "{sessions:#?}");
    world.intact();
}

#[test]
fn a_session_is_renewed_by_the_same_identity_and_no_other_and_ends_with_its_token() {
    let world = World::start();
    let mut client = Client::dial(world.port);
    let short = Wish { lifetime: Some(4), ..Wish::default() };
    let token = world.idp.token_with(WORKLOAD, &short).unwrap();
    assert_eq!(client.ask(&["AUTH", CONNECTION, &token]), "+OK");
    let other = world.idp.token(AGENT).unwrap();
    assert!(client.ask(&["AUTH", CONNECTION, &other]).starts_with("-WRONGPASS "));
    let longer = world.idp.token_with(WORKLOAD, &Wish { lifetime: Some(8), ..Wish::default() }).unwrap();
    assert_eq!(client.ask(&["AUTH", CONNECTION, &longer]), "+OK");
    // Past the first token's end, up to the second's.
    let told = wait_for("the end of the token", || {
        let answer = client.ask(&["PING"]);
        Ok((answer != "+PONG").then_some(answer))
    })
    .unwrap();
    assert!(told.starts_with("-NOAUTH the access token expired"), "{told}");
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["session"]["close_reason"], "expired");
    let operations = sessions[0]["operations"].as_array().unwrap();
    assert_eq!(operations[0]["outcome"]["error"]["code"], "WRONGPASS");
    assert_eq!(operations[1]["outcome"]["status"], "ok");
    let shown = format!("{}", sessions[0]);
    assert!(!shown.contains(&longer) && !shown.contains(&other), "{shown}");
    world.intact();
}

/// The most memory that the process ever had, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_value_of_hundreds_of_megabytes_takes_constant_memory_both_ways() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 200;
    let world = World::start();
    let mut client = world.connect();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    let pid = world.gateway.pid().unwrap();
    let before = peak(pid);
    let stream = client.0.get_mut();
    stream.write_all(format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n", PIECE * PIECES).as_bytes()).unwrap();
    let piece = vec![b'v'; PIECE];
    for _ in 0..PIECES {
        stream.write_all(&piece).unwrap();
    }
    stream.write_all(b"\r\n").unwrap();
    assert_eq!(client.reply(), "+OK");
    client.send(&["GET", "big"]);
    let mut line = String::new();
    client.0.read_line(&mut line).unwrap();
    let read = std::io::copy(&mut (&mut client.0).take((PIECE * PIECES + 2) as u64), &mut std::io::sink());
    assert_eq!(read.unwrap(), (PIECE * PIECES + 2) as u64);
    let grown = peak(pid) - before;
    assert!(grown < GROWTH_BYTES_MAX, "{} MiB more for {PIECES} MiB", grown >> 20);
    drop(client);
    let sessions = world.gateway.closed_sessions().unwrap();
    let operation = &sessions[0]["operations"][1];
    assert_eq!(operation["parameters"][1]["type"], "content", "{operation:#}");
    let on_the_wire = format!("${}\r\n", PIECE * PIECES).len() + PIECE * PIECES + 2;
    assert_eq!(operation["content"]["length"], on_the_wire, "{operation:#}");
    world.intact();
}

#[test]
fn a_crash_under_load_leaves_nothing_unrecorded_that_the_server_ran() {
    let mut world = World::start();
    let mut monitor = world.server.monitor().unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| world.connect()).collect();
    for round in 0..50 {
        for (number, client) in clients.iter_mut().enumerate() {
            for n in 0..20 {
                client.send(&["SET", &format!("crash:{number}"), &format!("{round}:{n}")]);
            }
        }
        for client in &mut clients {
            assert_eq!(client.reply(), "+OK");
        }
    }
    // Most of what was sent is on its way.
    world.gateway.kill().unwrap();
    drop(clients);
    let ran = monitor.commands().unwrap();
    world.gateway.restart().unwrap();
    let sessions = world.gateway.closed_sessions().unwrap();
    all_agree(&ran, &sessions).unwrap();
    assert!(sessions.iter().all(|session| session["session"]["close_reason"] == "crash"), "{sessions:#?}");
    world.connect();
    world.intact();
}

#[test]
fn a_full_disk_refuses_commands_and_the_server_sees_none_of_them() {
    let disk = SmallDisk::mount(24);
    let data = disk.path().join("data");
    let world = World::with(|config| {
        config.with("ledger", "segment = \"1MiB\"").with("ledger", "reserve = \"2MiB\"").data_dir(&data)
    });
    let mut monitor = world.server.monitor().unwrap();
    let mut client = world.connect();
    assert_eq!(client.ask(&["SET", "before", "1"]), "+OK");
    disk.fill();
    let padding = "x".repeat(50_000);
    let mut sent = 0;
    let told = wait_for("a refusal", || {
        sent += 1;
        let answer = client.ask(&["SET", &format!("full:{sent}"), &padding]);
        Ok((answer != "+OK").then_some(answer))
    })
    .unwrap();
    assert!(told.starts_with("-MISCONF "), "{told}");
    assert!(client.ask(&["SET", "refused", "1"]).starts_with("-MISCONF "));
    let ran = monitor.commands().unwrap();
    let reached = ran.iter().filter(|command| command.arguments[1].starts_with(b"full:")).count();
    assert_eq!(reached, sent - 1, "the refused command did not reach the server");
    assert!(!ran.iter().any(|command| command.arguments[1] == b"refused"));
}

#[test]
fn one_trace_names_what_an_agent_did() {
    let world = World::start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut client = Client::dial(world.port);
    let named = request(&["CLIENT", "SETNAME", &format!("traceparent=00-{trace}-00f067aa0ba902b7-01")]);
    client.0.get_mut().write_all(&[request(&["AUTH", CONNECTION, &world.token()]), named].concat()).unwrap();
    assert_eq!((client.reply(), client.reply()), ("+OK".to_owned(), "+OK".to_owned()));
    assert_eq!(client.ask(&["GET", "k"]), "$-1");
    drop(client);
    world.gateway.closed_sessions().unwrap();
    let listed = world.gateway.json(&["sessions", "list", "--trace", trace, "--json"]).unwrap();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1, "{listed:#}");
    assert_eq!(listed["sessions"][0]["trace_id"], trace);
}

#[test]
fn redis_cli_over_tls_and_a_check_that_connects() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let world = World::with(|config| {
        let (certificate, key) = (certificate.display(), key.display());
        config
            .with("gateway", &format!("tls = {{ certificate = \"{certificate}\", private_key = \"{key}\" }}"))
    });
    let output = Command::new("redis-cli")
        .args(["--tls", "--cacert"])
        .arg(&certificate)
        .args(["-h", "localhost", "-p", &world.port.to_string(), "--user", CONNECTION, "--no-auth-warning"])
        .args(["--pass", &world.token(), "-3", "SET", "k", "over tls"])
        .output()
        .unwrap();
    assert_eq!(printed(&output.stdout), "OK\n", "{}", printed(&output.stderr));
    assert_eq!(world.server.cli(&["GET", "k"]).unwrap(), "over tls");
    let output = world.gateway.cli(&["check", "--connect"]).unwrap();
    let said = format!("{}{}", printed(&output.stdout), printed(&output.stderr));
    assert!(output.status.success() && said.contains("Redis 7."), "{said}");
}
