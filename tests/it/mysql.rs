//! MySQL and MariaDB: every driver, with small and large tokens, as without the gateway, and MariaDB's general log agrees
//! with the record, command by command, in order, with all values; who gets in; a crash of the gateway.

use std::fs;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use serde_json::Value;
use tokio::runtime::Runtime;
use verbatim_testkit::gateway::{
    CONNECTION, Config, Gateway, TARGET_PASSWORD, TARGET_USER, free_port, printed, wait_for,
};
use verbatim_testkit::idp::{self, Idp, Wish};
use verbatim_testkit::mariadb::{Logged, MariaDb, Options};

use crate::faults::SmallDisk;
use crate::tls::Certificates;
use crate::world::{OUTSIDER, WORKLOAD, WORKLOAD_OBJECT, repository, tool};

/// How much the gateway may grow while it passes any amount on.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// A MariaDB server, a simulated Entra, and a gateway between a client and both.
struct World {
    _runtime: Runtime,
    idp: Idp,
    server: MariaDb,
    certificates: Certificates,
    gateway: Gateway,
    port: u16,
}

impl World {
    fn start() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let settings = vec!["max_allowed_packet = 64M".to_owned()];
        let server = MariaDb::start(Options { tls: true, settings }).unwrap();
        server
            .run(&format!(
                "CREATE DATABASE {CONNECTION}; CREATE USER {TARGET_USER}@'%' IDENTIFIED BY '{TARGET_PASSWORD}'; \
                 GRANT ALL ON *.* TO {TARGET_USER}@'%'"
            ))
            .unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let idp = runtime.block_on(Idp::start(idp::Options::default())).unwrap();
        let port = free_port().unwrap();
        let target = format!("mysql://{TARGET_USER}@127.0.0.1:{}/{CONNECTION}", server.port());
        let certificates = Certificates::new();
        let config = Config::new(&idp.authority(), &idp.graph(), server.port())
            .with("[connection]", "type = \"mysql\"")
            .with("[connection]", &format!("target = \"{target}\""))
            .with("listen", &format!("mysql = \"127.0.0.1:{port}\""));
        let gateway = Gateway::start(change(certificates.configure(config))).unwrap();
        Self { _runtime: runtime, idp, server, certificates, gateway, port }
    }

    fn token(&self) -> String {
        self.idp.token(WORKLOAD).unwrap()
    }

    fn token_of_size(&self, size: usize) -> String {
        let bare = self.token().len();
        let padding = size.saturating_sub(bare) * 3 / 4;
        self.idp.token_with(WORKLOAD, &Wish { padding, ..Wish::default() }).unwrap()
    }

    /// What a driver program prints, without the gateway or through it.
    fn transcript(&self, driver: &str, token: Option<&str>) -> String {
        let (port, password, ca) = match token {
            None => (self.server.port(), TARGET_PASSWORD, self.server.ca()),
            Some(token) => (self.port, token, self.certificates.ca()),
        };
        let mut program = program(driver);
        program
            .env("MYSQL_HOST", "127.0.0.1")
            .env("MYSQL_PORT", port.to_string())
            .env("MYSQL_DATABASE", CONNECTION)
            .env("MYSQL_USER", TARGET_USER)
            .env("MYSQL_PASSWORD", password)
            .env("MYSQL_CA", ca)
            .env("TZ", "UTC");
        let output = program.output().unwrap();
        let said = || format!("{}{}", printed(&output.stdout), printed(&output.stderr));
        assert!(output.status.success(), "{driver}: {}\n{}", output.status, said());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The command line client through the gateway, as this user, with this password, for this schema.
    fn client(&self, user: &str, password: &str, schema: &str, statements: &str) -> Command {
        let mut client = Command::new("mariadb");
        client.args([
            "--no-defaults",
            "--protocol=tcp",
            "--host=127.0.0.1",
            "--batch",
            "--skip-column-names",
        ]);
        client.arg(format!("--port={}", self.port)).arg(format!("--user={user}"));
        client
            .arg(format!("--password={password}"))
            .arg(format!("--ssl-ca={}", self.certificates.ca().display()));
        client.args(["--execute", statements, schema]).stdin(Stdio::null());
        client
    }

    fn intact(&self) {
        let output = self.gateway.cli(&["verify"]).unwrap();
        assert!(output.status.success(), "{}{}", printed(&output.stdout), printed(&output.stderr));
    }
}

/// The program of a driver, ready but for the environment.
fn program(driver: &str) -> Command {
    let drivers = repository().join("tests/drivers/mysql");
    let mut command = match driver {
        "cli" => Command::new(drivers.join("cli/run")),
        "pymysql" | "connector" => {
            let mut command = Command::new(tool("mysql-venv/bin/python"));
            command.arg("-Wignore").arg(drivers.join("python/work.py")).arg(driver);
            command
        }
        "node" => {
            let mut command = Command::new("node");
            command.arg(drivers.join("node/work.cjs")).env("NODE_PATH", tool("mysql-node/node_modules"));
            command
        }
        "jdbc" => {
            let mut command = Command::new("java");
            let classes = tool("mysql-jdbc");
            command.arg("-cp").arg(format!("{}:/usr/share/java/mariadb-java-client.jar", classes.display()));
            command.arg("MysqlWork");
            command
        }
        "go" => Command::new(tool("mysql-go/work")),
        other => Command::new(tool(&format!("mysql-rust/debug/work-{other}"))),
    };
    command.stdin(Stdio::null());
    command
}

fn check(driver: &str, token_bytes: usize) {
    let world = World::start();
    let direct = world.transcript(driver, None);
    let before = world.server.general_log().unwrap().len();
    let token = world.token_of_size(token_bytes);
    let through = world.transcript(driver, Some(&token));
    for (line, (direct, through)) in direct.lines().zip(through.lines()).enumerate() {
        assert_eq!(direct, through, "{driver} sees a difference in line {}", line + 1);
    }
    assert_eq!(direct.lines().count(), through.lines().count());

    let sessions = world.gateway.closed_sessions().unwrap();
    let log = world.server.general_log().unwrap();
    compare(&log[before..], &sessions).unwrap();
    for session in &sessions {
        assert_eq!(session["session"]["complete"], true, "{:#}", session["session"]);
        assert_eq!(session["session"]["protocol"], "mysql");
    }
    let named = format!("driver-{driver}");
    let application = |session: &Value| session["session"]["client"]["application"] == named;
    let names_itself = ["pymysql", "connector", "node", "jdbc"].contains(&driver);
    assert!(!names_itself || sessions.iter().any(application), "no session of {named}");
    let gateway = world.gateway.log().unwrap();
    assert!(!gateway.contains(&token) && !gateway.contains(TARGET_PASSWORD), "no secret is in the log");
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
    cli: "cli";
    pymysql: "pymysql";
    connector_python: "connector";
    node: "node";
    jdbc: "jdbc";
    mysql_async: "mysql-async";
    sqlx: "sqlx-mysql";
}

/// Debian's go-sql-driver (1.5) panics by itself at a password over 4 KiB, whoever asks for it.
#[test]
fn go_with_a_token_of_2_kb() {
    check("go", 2 * 1024);
}

/// Compares what the server logged with what is recorded.
fn compare(log: &[Logged], sessions: &[Value]) -> Result<()> {
    let mut threads: Vec<(u64, Vec<&Logged>)> = Vec::new();
    for entry in log {
        match threads.iter_mut().rev().find(|(thread, _)| *thread == entry.thread_id) {
            // Another login on the same stream is another session.
            Some((_, entries)) if entry.command != "Change user" => entries.push(entry),
            _ => threads.push((entry.thread_id, vec![entry])),
        }
    }
    // The gateway's own: to learn the greeting, and to kill what it was asked to.
    threads.retain(|(_, entries)| !entries[0].text.contains(" on  using"));
    let mut total = 0;
    ensure!(threads.len() == sessions.len(), "{} threads, {} sessions", threads.len(), sessions.len());
    for ((thread, entries), session) in threads.iter().zip(sessions) {
        let entries = entries.iter().filter(|entry| {
            !matches!(
                entry.command.as_str(),
                "Connect" | "Change user" | "Quit" | "Ping" | "Statistics" | "Fetch"
            )
        });
        let logged: Vec<(&str, &str)> =
            entries.map(|entry| (entry.command.as_str(), entry.text.as_str())).collect();
        let operations = session["operations"].as_array().context("operations")?;
        total += operations.len();
        let expected: Vec<(&str, String)> = operations.iter().filter_map(expected).collect();
        same(&logged, &expected).with_context(|| format!("thread {thread}, {:#}", session["session"]))?;
    }
    ensure!(total > 15, "the driver did its work: {total} operations");
    Ok(())
}

/// The entry that an operation should have in the log.
fn expected(operation: &Value) -> Option<(&'static str, String)> {
    let text = &text_of(operation);
    if operation["outcome"]["status"] == "refused" {
        return None;
    }
    // A thread id of the gateway's own: it is killed at the target under another, on a stream of the gateway's.
    let killed = text.strip_prefix("KILL QUERY ").and_then(|id| id.parse().ok());
    if killed.is_some_and(|id: u32| id >= 1 << 30) {
        return None;
    }
    Some(match operation["kind"].as_str()? {
        // The server does not log what it could not prepare.
        "prepare" if operation["outcome"]["status"] == "error" => return None,
        // The server cuts these off before it looks at a statement.
        "query" => ("Query", trimmed(text).to_owned()),
        "prepare" => ("Prepare", text.to_owned()),
        "execute" => ("Execute", executed(text, operation["parameters"].as_array()?)),
        "bulk_execute" => ("Execute", text.to_owned()),
        "init_db" => ("Init DB", text.to_owned()),
        // Nor what it could not close, since it was gone.
        "close" if text.is_empty() => return None,
        "close" => ("Close stmt", String::new()),
        "reset" => ("Reset stmt", String::new()),
        "long_data" => ("Long Data", String::new()),
        "field_list" => ("Field List", text.trim_end_matches('\0').to_owned()),
        _ => return None,
    })
}

/// An operation's text, as the testkit shows the log's bytes.
fn text_of(operation: &Value) -> String {
    match (operation["text"].as_str(), operation["base64"].as_str()) {
        (Some(text), _) => text.to_owned(),
        (_, Some(base64)) => printable(&base64::engine::general_purpose::STANDARD.decode(base64).unwrap()),
        _ => String::new(),
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_start().trim_end_matches(|c: char| c == ';' || c.is_ascii_whitespace())
}

/// A statement with its values in their places, as the server writes it.
fn executed(text: &str, parameters: &[Value]) -> String {
    let mut pieces = text.split('?');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for (piece, parameter) in pieces.zip(parameters) {
        out += &literal(parameter);
        out += piece;
    }
    out
}

fn literal(parameter: &Value) -> String {
    let kind = parameter["type"].as_str().unwrap_or_default();
    let bytes = match (parameter["value"].as_str(), parameter["base64"].as_str()) {
        (Some(value), _) => value.as_bytes().to_vec(),
        (_, Some(base64)) => base64::engine::general_purpose::STANDARD.decode(base64).unwrap(),
        _ => return "NULL".to_owned(),
    };
    let kind = kind.split(' ').next().unwrap_or_default();
    match kind {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "float" | "double" | "decimal" => {
            printable(&bytes)
        }
        "date" => format!("DATE'{}'", printable(&bytes)),
        "time" => format!("TIME'{}'", printable(&bytes)),
        "datetime" | "timestamp" => format!("TIMESTAMP'{}'", printable(&bytes)),
        _ => {
            let escaped: Vec<u8> = bytes
                .iter()
                .flat_map(|byte| match byte {
                    0 => b"\\0".to_vec(),
                    b'\n' => b"\\n".to_vec(),
                    b'\r' => b"\\r".to_vec(),
                    0x1a => b"\\Z".to_vec(),
                    b'\'' | b'"' | b'\\' => vec![b'\\', *byte],
                    other => vec![*other],
                })
                .collect();
            format!("'{}'", printable(&escaped))
        }
    }
}

/// As the testkit shows the log's bytes.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

fn same(logged: &[(&str, &str)], expected: &[(&str, String)]) -> Result<()> {
    let mut logged = logged.iter();
    for (place, (command, text)) in expected.iter().enumerate() {
        let Some((found, of)) = logged.next() else {
            bail!("operation {place} is not in the log: {command} {text:.300?}");
        };
        // The server puts a backslash before a byte that it takes for the first of several, in the values that it writes.
        let of = if *command == "Execute" { of.replace("\\\\x", "\\x") } else { (*of).to_owned() };
        ensure!(
            found == command && of == *text,
            "operation {place} is {command} {text:.300?}, and in the log {found} {of:.300?}"
        );
        // What SQL prepares and executes by itself is logged twice.
        let first = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        if *command == "Query" && ["prepare", "execute"].contains(&first.as_str()) {
            logged.next();
        }
    }
    if let Some((command, text)) = logged.next() {
        bail!("in the log, and not recorded: {command} {text:.300?}");
    }
    Ok(())
}

#[test]
fn who_gets_in_and_who_does_not() {
    let world = World::start();
    let run = |user: &str, token: &str, schema: &str| {
        let output = world.client(user, token, schema, "SELECT 'in'").output().unwrap();
        (output.status.success(), printed(&output.stdout) + &printed(&output.stderr))
    };
    let (_, said) = run(TARGET_USER, &world.token(), CONNECTION);
    assert_eq!(said.trim(), "in");
    let (_, said) = run(TARGET_USER, "no token", CONNECTION);
    assert!(said.contains("ERROR 1045 (28000)"), "{said}");
    let (_, said) = run(TARGET_USER, &world.idp.token(OUTSIDER).unwrap(), CONNECTION);
    assert!(said.contains("ERROR 1044 (42000)"), "{said}");
    let (_, said) = run(TARGET_USER, &world.token(), "another");
    assert!(said.contains("ERROR 1044 (42000)"), "an unknown connection is like one without access: {said}");
    let (_, said) = run("99999999-0000-4000-8000-000000000000", &world.token(), CONNECTION);
    assert!(said.contains("ERROR 1045 (28000)"), "another object id than the token's: {said}");

    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions.len(), 5);
    let first = &sessions[0]["session"];
    assert_eq!(first["identity"]["object_id"], WORKLOAD_OBJECT);
    assert_eq!(first["authorized_by"]["name"], "billing-agents");
    assert_eq!(first["client"]["user"], TARGET_USER);
    assert_eq!(sessions[0]["operations"].as_array().unwrap().last().unwrap()["statement"], "select");
    for refused in &sessions[1..] {
        assert_eq!(refused["session"]["close_reason"], "refused", "{refused:#}");
        assert!(!refused["session"]["refusal"].is_null());
    }
    let logged = world.server.general_log().unwrap();
    let logins =
        logged.iter().filter(|entry| entry.command == "Connect" && !entry.text.contains(" on  using"));
    assert_eq!(logins.count(), 1, "the refused never reached the target");
    world.intact();
}

/// A MySQL 9 client's own plugin for tokens, which it has to name as its default one.
#[test]
fn a_token_by_openid_connect() {
    const PROGRAM: &str = "import os, mysql.connector\n\
        connection = mysql.connector.connect(host='127.0.0.1', port=int(os.environ['PORT']), user='app', \
        database='customers', ssl_ca=os.environ['CA'], ssl_verify_cert=True, use_pure=True, \
        auth_plugin='authentication_openid_connect_client', openid_token_file=os.environ['TOKEN'])\n\
        cursor = connection.cursor()\n\
        cursor.execute('SELECT 7')\n\
        print(cursor.fetchall())\n";
    let world = World::start();
    let file = world.gateway.dir().join("token");
    fs::write(&file, world.token()).unwrap();
    let mut python = Command::new(tool("mysql-venv/bin/python"));
    python.args(["-Wignore", "-c", PROGRAM]).env("PORT", world.port.to_string()).env("TOKEN", file);
    let output = python.env("CA", world.certificates.ca()).stdin(Stdio::null()).output().unwrap();
    assert_eq!(printed(&output.stdout).trim(), "[(7,)]", "{}", printed(&output.stderr));
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["session"]["identity"]["object_id"], WORKLOAD_OBJECT);
}

/// A client that inserts row after row, each printed once it is done.
fn inserting(world: &World) -> Child {
    let statements: String =
        (0..100_000).map(|place| format!("INSERT INTO killed VALUES ({place}); SELECT {place};\n")).collect();
    let file = world.gateway.dir().join("inserts.sql");
    fs::write(&file, statements).unwrap();
    let mut client = world.client(TARGET_USER, &world.token(), CONNECTION, "");
    client.args(["--execute", &format!("source {}", file.display()), "--unbuffered"]);
    client.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_gateway_that_is_killed_has_recorded_all_that_the_target_did() {
    let mut world = World::start();
    world.server.run(&format!("CREATE TABLE {CONNECTION}.killed (id INT PRIMARY KEY)")).unwrap();
    let mut client = inserting(&world);
    let count = || world.server.run(&format!("SELECT COUNT(*) FROM {CONNECTION}.killed"));
    wait_for("some rows", || Ok((count()?.parse::<u64>()? > 50).then_some(()))).unwrap();
    world.gateway.kill().unwrap();
    let mut said = String::new();
    client.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    client.wait().unwrap();
    world.gateway.restart().unwrap();

    let sessions = world.gateway.closed_sessions().unwrap();
    let session = sessions.last().unwrap();
    assert_eq!(session["session"]["close_reason"], "crash");
    let recorded = session["operations"].as_array().unwrap().iter();
    let recorded: Vec<&str> = recorded
        .filter_map(|operation| operation["text"].as_str())
        .filter(|text| text.starts_with("INSERT"))
        .collect();
    let logged = world.server.general_log().unwrap();
    let logged: Vec<&str> = logged
        .iter()
        .filter(|entry| entry.command == "Query" && entry.text.starts_with("INSERT"))
        .map(|entry| entry.text.as_str())
        .collect();
    assert!(logged.len() > 50 && recorded.len() >= logged.len(), "{} of {}", recorded.len(), logged.len());
    assert_eq!(&recorded[..logged.len()], &logged[..], "what the target did is recorded, in order");
    world.intact();
}

#[test]
fn a_full_disk_refuses_statements_and_the_server_sees_none_of_them() {
    let disk = SmallDisk::mount(24);
    let data = disk.path().join("data");
    let world = World::with(|config| {
        config.with("ledger", "segment = \"1MiB\"").with("ledger", "reserve = \"2MiB\"").data_dir(&data)
    });
    let run = |statements: &str| {
        let output = world.client(TARGET_USER, &world.token(), CONNECTION, statements).output().unwrap();
        printed(&output.stdout) + &printed(&output.stderr)
    };
    assert_eq!(run("SELECT 'before'").trim(), "before");
    disk.fill();
    let padding = "x".repeat(50_000);
    let statements: String =
        (0..2000).map(|place| format!("SELECT {place}, LENGTH('{padding}');\n")).collect();
    let file = world.gateway.dir().join("many.sql");
    fs::write(&file, statements).unwrap();
    let said = run(&format!("source {}", file.display()));
    assert!(said.contains("ERROR 1021 (HY000)"), "{said:.2000}");
    let done = said.lines().filter(|line| line.ends_with("50000")).count();
    let logged = world.server.general_log().unwrap();
    let reached = logged.iter().filter(|entry| entry.text.contains(&padding)).count();
    assert_eq!(reached, done, "the refused statement did not reach the server");
}

#[test]
fn a_result_of_any_size_and_a_value_over_a_packet_take_little_memory() {
    let world = World::start();
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", world.gateway.pid().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    let run = |statement: &str| {
        let mut client = world.client(TARGET_USER, &world.token(), CONNECTION, statement);
        client.args(["--quick", "--max-allowed-packet=64M"]).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut client = client.spawn().unwrap();
        let mut output = client.stdout.take().unwrap();
        let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0_u64);
        while let Ok(read @ 1..) = output.read(&mut buffer) {
            bytes += read as u64;
        }
        assert!(client.wait().unwrap().success());
        bytes
    };
    assert_eq!(run("SELECT 'warm'"), 5);
    let before = peak();
    assert_eq!(run("SELECT REPEAT('x', 1000000) FROM seq_1_to_300"), 300 * 1_000_001);
    assert_eq!(run("SELECT REPEAT('x', 40000000)"), 40_000_001);
    let grown = peak() - before;
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    let sessions = world.gateway.closed_sessions().unwrap();
    let outcome = &sessions[1]["operations"].as_array().unwrap().last().unwrap()["outcome"];
    assert_eq!(outcome["rows"], 300);
    world.intact();
}
