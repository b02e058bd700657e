//! The real binary `verbatim`, started on a configuration of its own, with everything in a directory that goes with it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use verbatim_testkit::gateway::{Config, Gateway};
//! let config = Config::new("http://127.0.0.1:9000", "http://127.0.0.1:9000/graph/v1.0", 5432);
//! let gateway = Gateway::start(config.with("ledger", "segment = \"1MiB\""))?;
//! println!("127.0.0.1:{}", gateway.port());
//! let sessions = gateway.json(&["sessions", "list", "--json"])?;
//! # Ok(()) }
//! ```
#![expect(clippy::indexing_slicing, reason = "a JSON value answers null for a key that it does not have")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::idp::{AUDIENCE, TENANT};

/// How long a start, a stop or anything else that is waited for may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Where the ports of servers are taken from: below those that Linux gives to clients.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// How often other ports are tried when someone took the ones that were free a moment ago.
const PORT_ATTEMPTS: u32 = 5;
/// The largest answer of the admin listener that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The name of the connection that [`Config::new`] makes: the target's database bears it too.
pub const CONNECTION: &str = "customers";
/// The target's user that the gateway logs in as.
pub const TARGET_USER: &str = "app";
/// That user's password.
pub const TARGET_PASSWORD: &str = "target-secret";

/// A configuration: lines of TOML by table.
#[derive(Debug, Clone)]
pub struct Config {
    tables: BTreeMap<String, Vec<String>>,
    /// Whole tables, appended as they are.
    rest: String,
    /// The address of the Postgres listener.
    address: String,
    /// Where the record is kept; by default in the gateway's directory.
    data_dir: Option<PathBuf>,
    /// Further environment of the process.
    environment: Vec<(String, String)>,
    /// The program that is run.
    program: &'static str,
}

impl Config {
    /// One connection, [`CONNECTION`], to the database of that name on 127.0.0.1, for the group `billing-agents` of
    /// the simulator's default state.
    pub fn new(authority: &str, graph: &str, target_port: u16) -> Self {
        let empty = Self {
            tables: BTreeMap::new(),
            rest: String::new(),
            address: "127.0.0.1".to_owned(),
            data_dir: None,
            environment: Vec::new(),
            program: "verbatim",
        };
        empty
            .with("gateway", "node = \"gw-test\"")
            .with("gateway", "organisation = \"example.com\"")
            .with("gateway", "drain = \"2s\"")
            .with("identity.entra", &format!("tenants = [\"{TENANT}\"]"))
            .with("identity.entra", &format!("audiences = [\"{AUDIENCE}\"]"))
            .with("identity.entra", &format!("authority = \"{authority}\""))
            .with(
                "identity.entra",
                "groups = { billing-agents = \"e7e7e7e7-0000-4000-8000-00000000e001\", \
                 dba-oncall = \"e7e7e7e7-0000-4000-8000-00000000e002\" }",
            )
            .with(
                "identity.entra",
                &format!(
                    "graph = {{ client_id = \"{AUDIENCE}\", client_secret = {{ env = \"GRAPH_SECRET\" }}, endpoint = \"{graph}\" }}"
                ),
            )
            .with("[connection]", &format!("name = \"{CONNECTION}\""))
            .with("[connection]", "type = \"postgres\"")
            .with("[connection]", &format!("target = \"postgres://{TARGET_USER}@127.0.0.1:{target_port}/{CONNECTION}\""))
            .with("[connection]", "credential = { env = \"TARGET_PASSWORD\" }")
            .with("[connection]", "access = [\"group:billing-agents\"]")
            .environment("GRAPH_SECRET", "gateway-secret")
            .environment("TARGET_PASSWORD", TARGET_PASSWORD)
    }

    /// Adds a line to a table; one with the same key is replaced. `[connection]` is the one connection.
    pub fn with(mut self, table: &str, line: &str) -> Self {
        let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        let lines = self.tables.entry(table.to_owned()).or_default();
        lines.retain(|existing| key(existing) != key(line));
        lines.push(line.to_owned());
        self
    }

    /// Appends whole tables.
    pub fn and(mut self, toml: &str) -> Self {
        self.rest.push_str(toml);
        self.rest.push('\n');
        self
    }

    /// Listens for Postgres on another address of this machine.
    pub fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.address);
        self
    }

    /// Keeps the record elsewhere.
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.to_owned());
        self
    }

    /// Sets a variable of the gateway's environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs another program of this workspace: `verbatim` with one more protocol.
    pub fn program(mut self, name: &'static str) -> Self {
        self.program = name;
        self
    }

    /// The file's text.
    pub fn render(&self, data_dir: &Path, port: u16, admin: u16) -> String {
        let config = self
            .clone()
            .with("gateway", &format!("data_dir = \"{}\"", data_dir.display()))
            .with("listen", &format!("postgres = \"{}:{port}\"", self.address))
            .with("listen", &format!("admin = \"127.0.0.1:{admin}\""));
        let mut text = String::new();
        for (table, lines) in &config.tables {
            text += &format!("[{table}]\n{}\n\n", lines.join("\n"));
        }
        text + &config.rest
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    dir: TempDir,
    config: Config,
    child: Option<Child>,
    port: u16,
    admin: u16,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// The binary is missing, ends, or is not ready within [`PATIENCE`]; with what it logged.
    pub fn start(config: Config) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("verbatim-gw").tempdir()?;
        let mut gateway = Self { dir, config, child: None, port: 0, admin: 0 };
        for attempt in 1.. {
            (gateway.port, gateway.admin) = free_ports()?;
            gateway.write_config()?;
            match gateway.launch() {
                Ok(()) => break,
                Err(error) if attempt == PORT_ATTEMPTS || !gateway.log()?.contains("in use") => {
                    return Err(error);
                }
                Err(_) => fs::remove_file(gateway.log_path())?,
            }
        }
        Ok(gateway)
    }

    /// Its port for Postgres on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The port of its admin listener on 127.0.0.1.
    pub const fn admin_port(&self) -> u16 {
        self.admin
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("verbatim.toml")
    }

    /// `data_dir`.
    pub fn data_dir(&self) -> PathBuf {
        self.config.data_dir.clone().unwrap_or_else(|| self.dir.path().join("data"))
    }

    /// The folder of the ledger.
    pub fn ledger_dir(&self) -> PathBuf {
        self.data_dir().join("ledger")
    }

    /// A folder that goes with the gateway, for a test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it logged so far.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.log_path()).context("the gateway's log")
    }

    /// Changes the configuration file; the gateway is told by SIGHUP, and at once sees the changed file too.
    ///
    /// # Errors
    /// The file cannot be written, or the gateway does not run.
    pub fn reconfigure(&mut self, config: Config) -> Result<()> {
        self.config = config;
        self.write_config()?;
        self.signal(rustix::process::Signal::HUP)
    }

    /// The process's id.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the gateway does not run")?.id())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let child = self.child.as_ref().context("the gateway does not run")?;
        Ok(rustix::process::kill_process(rustix::process::Pid::from_child(child), signal)?)
    }

    /// Ends it as a crash would (SIGKILL).
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the gateway does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Ends it in order (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// It does not run, or does not end within [`PATIENCE`].
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(rustix::process::Signal::TERM)?;
        self.wait()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not run, or does not end within [`PATIENCE`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the gateway does not run")?;
        let ended = wait_for("the gateway's end", || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        ended
    }

    /// Starts it again, on the same ports and data.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> Result<()> {
        if self.child.is_some() {
            self.stop()?;
        }
        self.launch()
    }

    /// Starts it again without waiting until it is ready.
    ///
    /// # Errors
    /// The binary is missing.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.command(&["serve"])?;
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    /// Runs `verbatim` with these arguments and this gateway's configuration, to its end.
    ///
    /// # Errors
    /// The binary is missing.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments)?.stdin(Stdio::null()).output()?)
    }

    /// The command itself, to add to it before it is started.
    ///
    /// # Errors
    /// The binary is missing.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary(self.config.program)?);
        command.args(arguments).env("VERBATIM_CONFIG", self.config_path()).env_remove("VERBATIM_TOKEN");
        command.envs(self.config.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Runs `verbatim` with these arguments and reads the JSON that it prints.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.cli(arguments)?;
        let say = || format!("verbatim {arguments:?}: {}\n{}", output.status, printed(&output.stderr));
        ensure!(output.status.success(), say());
        serde_json::from_slice(&output.stdout).with_context(say)
    }

    /// Every session, newest first, as `sessions list --json` prints them.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub fn sessions(&self) -> Result<Vec<Value>> {
        let list = self.json(&["sessions", "list", "--json"])?;
        Ok(list["sessions"].as_array().context("sessions")?.clone())
    }

    /// One session, as `sessions show --json` prints it.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub fn session(&self, id: &str) -> Result<Value> {
        self.json(&["sessions", "show", id, "--json"])
    }

    /// Every session with its operations, oldest first, once none of them is open any more.
    ///
    /// # Errors
    /// As [`json`](Self::json), or one stays open.
    pub fn closed_sessions(&self) -> Result<Vec<Value>> {
        let list = wait_for("every session's end", || {
            let list = self.sessions()?;
            Ok(list.iter().all(|session| !session["closed_at"].is_null()).then_some(list))
        })?;
        list.iter().rev().map(|session| self.session(session["id"].as_str().context("id")?)).collect()
    }

    /// `GET path` of the admin listener: the status and the body.
    ///
    /// # Errors
    /// It cannot be reached, or its answer is no HTTP.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        let answer = String::from_utf8(answer)?;
        let status = answer.split(' ').nth(1).context("a status")?.parse()?;
        let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
        Ok((status, body.to_owned()))
    }

    /// The value of a metric, summed over its labels; 0 if it is not there.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics: {status}");
        let values = body.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            (sample.split('{').next()? == name).then(|| value.parse::<f64>().ok())?
        });
        Ok(values.sum())
    }

    fn write_config(&self) -> Result<()> {
        let text = self.config.render(&self.data_dir(), self.port, self.admin);
        let path = self.config_path();
        let new = path.with_extension("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, path)?)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("gateway.log")
    }

    fn launch(&mut self) -> Result<()> {
        self.spawn()?;
        let started = Instant::now();
        loop {
            if let Some(status) =
                self.child.as_mut().and_then(|child| child.try_wait().transpose()).transpose()?
            {
                self.child = None;
                bail!("verbatim serve: {status}\n{}", self.log()?);
            }
            if matches!(self.get("/readyz"), Ok((200, _))) {
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "verbatim serve is not ready\n{}", self.log()?);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks again and again until there is an answer, for at most [`PATIENCE`].
///
/// # Errors
/// What `ask` fails with, or that it took too long.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program of this workspace: `$VERBATIM_BIN` for the gateway, else built beside the running test.
///
/// # Errors
/// It is not built; the error says how to.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VERBATIM_BIN").filter(|_| name == "verbatim") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let candidates = test.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let found = candidates.into_iter().find(|candidate| candidate.is_file());
    found.with_context(|| format!("no {name} beside {}: cargo build --workspace --bins", test.display()))
}

/// Two ports that were free a moment ago.
fn free_ports() -> Result<(u16, u16)> {
    let (one, other) = (any_free()?, any_free()?);
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}

/// Of a range from which the system gives none to clients: what is free there is taken by another test alone, and which one
/// is a matter of chance, so that two tests do not ask for the same.
fn any_free() -> Result<TcpListener> {
    use std::hash::{BuildHasher as _, Hasher as _};
    for _ in 0..1000 {
        let chance = std::hash::RandomState::new().build_hasher().finish();
        let port = PORTS.start + u16::try_from(chance % u64::from(PORTS.end - PORTS.start))?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

/// A port of 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(free_ports()?.0)
}

/// What a program printed, for a person to read in a test's failure.
pub fn printed(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\n", "\n")
}
