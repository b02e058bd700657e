//! Throwaway MariaDB servers: a fresh data directory and a free port of 127.0.0.1 each, gone when dropped.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use verbatim_testkit::mariadb::{MariaDb, Options};
//! let server = MariaDb::start(Options::default())?;
//! server.run("CREATE USER app@'%' IDENTIFIED BY 'secret'")?;
//! println!("127.0.0.1:{}: {:?}", server.port(), server.general_log()?);
//! # Ok(()) }
//! ```

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// How often another port is tried when someone else took the one that was free a moment ago.
const PORT_ATTEMPTS: u32 = 5;
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVER: &str = "/usr/sbin/mariadbd";
const HOW: &str = "apt-get install mariadb-server mariadb-client";

/// What server to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether it offers TLS, with a certificate for `localhost` and 127.0.0.1.
    pub tls: bool,
    /// Further settings, as in the `[mariadbd]` group of `my.cnf`: `max_allowed_packet = 64M`.
    pub settings: Vec<String>,
}

/// A running server.
#[derive(Debug)]
pub struct MariaDb {
    dir: TempDir,
    port: u16,
    child: Mutex<Option<Child>>,
}

/// A line of the general log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The session, by the server's thread id.
    pub thread_id: u64,
    /// `Connect`, `Query`, `Prepare`, `Execute`, `Quit`, …
    pub command: String,
    /// What stands behind it.
    pub text: String,
}

impl MariaDb {
    /// Makes a data directory and starts a server on it. Blocks until it takes connections.
    ///
    /// # Errors
    /// The programs are missing (the error says how to install them), or the server does not start.
    pub fn start(options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("verbatim-maria").tempdir()?;
        // The server runs as another user where the tests run as root.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let mut server = Self { dir, port: 0, child: Mutex::default() };
        fs::create_dir(server.run_dir())?;
        // A server that starts removes what it takes for another's leavings from the folder that it shares.
        fs::create_dir(server.run_dir().join("tmp"))?;
        if options.tls {
            server.certificates()?;
        }
        server.own()?;
        let data = server.data_dir();
        let mut install = server.server_command("/usr/bin/mariadb-install-db")?;
        install.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
        install.arg(format!("--tmpdir={}", server.run_dir().join("tmp").display())).args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            // The system has only so many of those for all servers that tests start at once.
            "--innodb-use-native-aio=0",
        ]);
        finish(&mut install)?;
        for attempt in 1.. {
            server.port = crate::gateway::free_port()?;
            server.configure(&options)?;
            match server.launch() {
                Ok(()) => break,
                Err(error) if attempt == PORT_ATTEMPTS || !server.error_log()?.contains("bind") => {
                    return Err(error.context(server.error_log()?));
                }
                Err(_) => fs::remove_file(server.run_dir().join("error.log"))?,
            }
        }
        Ok(server)
    }

    /// Its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The authority's certificate (PEM); there with [`Options::tls`].
    pub fn ca(&self) -> PathBuf {
        self.run_dir().join("ca.crt")
    }

    /// Runs statements as `root`, over the Unix socket; returns rows, columns separated by tabs.
    ///
    /// # Errors
    /// The client is missing, or a statement fails: the error is what it printed.
    pub fn run(&self, sql: &str) -> Result<String> {
        let mut client = Command::new("mariadb");
        client.arg("--no-defaults").arg(format!("--socket={}", self.socket().display()));
        client.args(["--user=root", "--batch", "--skip-column-names", "--execute", sql]);
        Ok(finish(&mut client)?.trim_end_matches('\n').to_owned())
    }

    /// What was logged of sessions over TCP, in order; everything that was written when this is called.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn general_log(&self) -> Result<Vec<Logged>> {
        Ok(parse_log(&fs::read(self.run_dir().join("general.log"))?))
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn error_log(&self) -> Result<String> {
        fs::read_to_string(self.run_dir().join("error.log")).context("the server's log")
    }

    /// Ends it as a crash would; [`restart`](Self::restart) brings it back.
    ///
    /// # Errors
    /// It was not running.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child.lock().take().context("the server does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), on the same port.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&self) -> Result<()> {
        self.launch()
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn data_dir(&self) -> PathBuf {
        self.run_dir().join("data")
    }

    fn socket(&self) -> PathBuf {
        self.run_dir().join("socket")
    }

    fn config(&self) -> PathBuf {
        self.run_dir().join("my.cnf")
    }

    fn configure(&self, options: &Options) -> Result<()> {
        let run_dir = self.run_dir();
        let dir = run_dir.display();
        let mut text = format!(
            "[mariadbd]\ndatadir = {}\nsocket = {}\nport = {}\nbind_address = 127.0.0.1\ntmpdir = {dir}/tmp\n\
             pid_file = {dir}/pid\nlog_error = {dir}/error.log\ngeneral_log = 1\ngeneral_log_file = {dir}/general.log\n\
             skip_name_resolve\ndefault_time_zone = +00:00\ncharacter_set_server = utf8mb4\nlocal_infile = 1\n\
             innodb_flush_log_at_trx_commit = 0\ninnodb_buffer_pool_size = 32M\ninnodb_log_file_size = 64M\ninnodb_use_native_aio = 0\n\
             plugin_load_add = auth_ed25519\nplugin_dir = /usr/lib/mysql/plugin\nsecure_file_priv =\n",
            self.data_dir().display(),
            self.socket().display(),
            self.port,
        );
        if options.tls {
            text +=
                &format!("ssl_ca = {dir}/ca.crt\nssl_cert = {dir}/server.crt\nssl_key = {dir}/server.key\n");
        }
        for setting in &options.settings {
            text += setting;
            text.push('\n');
        }
        File::create(self.config())?.write_all(text.as_bytes())?;
        self.own()
    }

    fn launch(&self) -> Result<()> {
        ensure!(fs::exists(SERVER)?, "no MariaDB: {HOW}");
        let mut command = self.server_command(SERVER)?;
        command.arg(format!("--defaults-file={}", self.config().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().context(HOW)?;
        let started = Instant::now();
        while self.run("SELECT 1").is_err() {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("mariadbd: {status}");
            }
            ensure!(started.elapsed() < PATIENCE, "mariadbd is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.child.lock() = Some(child);
        Ok(())
    }

    /// A program of the server, run as a user that is not root: the server refuses to be.
    fn server_command(&self, program: &str) -> Result<Command> {
        let mut command = match self.is_root()? {
            false => Command::new(program),
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=mysql", "--regid=mysql", "--clear-groups", "--"]).arg(program);
                command
            }
        };
        command.current_dir("/").env("LC_ALL", "C.UTF-8");
        Ok(command)
    }

    fn is_root(&self) -> Result<bool> {
        Ok(fs::metadata(self.dir.path())?.uid() == 0)
    }

    fn own(&self) -> Result<()> {
        match self.is_root()? {
            true => finish(Command::new("chown").args(["-R", "mysql:mysql"]).arg(self.run_dir())).map(drop),
            false => Ok(()),
        }
    }

    /// Writes `ca.crt` and `server.{crt,key}`.
    fn certificates(&self) -> Result<()> {
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A certificate of the same name as its authority's would be taken for one that signed itself.
        authority.distinguished_name.push(rcgen::DnType::CommonName, "throwaway authority");
        fs::write(self.ca(), authority.self_signed(&authority_key)?.pem())?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "throwaway server");
        let certificate = params.signed_by(&key, &issuer)?;
        fs::write(self.run_dir().join("server.crt"), certificate.pem())?;
        let path = self.run_dir().join("server.key");
        fs::write(&path, key.serialize_pem())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        // A server that is not running any more is as good.
        let _ = self.kill();
    }
}

/// Runs a program to its end; its output.
fn finish(command: &mut Command) -> Result<String> {
    let program = format!("{:?}", command.get_program());
    let output: Output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{program} ({HOW})"))?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "{program}: {}\n{text}{}",
        output.status,
        String::from_utf8(output.stderr)?
    );
    Ok(text)
}

/// Reads a general log: `[time]\t[spaces]id command\ttext`, where text may go on over further lines. Sessions of the Unix
/// socket are left out: they are the tests' own. Bytes that are no UTF-8 are shown as `\xNN`.
pub fn parse_log(log: &[u8]) -> Vec<Logged> {
    let mut text = String::with_capacity(log.len());
    for chunk in log.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    let mut entries: Vec<Logged> = Vec::new();
    for line in text.split_inclusive('\n') {
        match head(line) {
            Some(entry) => entries.push(entry),
            None => {
                if let Some(entry) = entries.last_mut() {
                    entry.text.push_str(line);
                }
            }
        }
    }
    let local: Vec<u64> = entries
        .iter()
        .filter(|entry| entry.command == "Connect" && !entry.text.contains("using TCP/IP"))
        .filter(|entry| !entry.text.contains("using SSL"))
        .filter(|entry| entry.text.contains("using Socket"))
        .map(|entry| entry.thread_id)
        .collect();
    entries.retain(|entry| !local.contains(&entry.thread_id));
    for entry in &mut entries {
        if entry.text.ends_with('\n') {
            entry.text.pop();
        }
    }
    entries
}

/// The beginning of an entry, if this line is one.
fn head(line: &str) -> Option<Logged> {
    // The time stands only where it differs from the line's before.
    let (_, rest) = line.split_once('\t')?;
    let time = line.strip_suffix(rest)?.trim();
    let is_time = time.split_whitespace().all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    let rest = rest.strip_prefix('\t').unwrap_or(rest);
    let (head, text) = rest.split_once('\t')?;
    let mut words = head.trim_start().splitn(2, ' ');
    let thread_id = words.next()?.parse().ok()?;
    let command = words.next()?.trim().to_owned();
    let known = command.starts_with(|c: char| c.is_ascii_uppercase());
    (is_time && known).then(|| Logged { thread_id, command, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_general_log_is_read_entry_by_entry() {
        let log = "/usr/sbin/mariadbd, Version: 10.11. started with:\nTcp port: 1  Unix socket: /x\nTime\t\t    Id Command\tArgument\n\
             261124  0:00:01\t     3 Connect\troot@localhost on  using Socket\n\t\t     3 Query\tFLUSH\n\
             \t\t     4 Connect\tapp@127.0.0.1 on db using TCP/IP\n\t\t     4 Query\tSELECT 1,\n\t'two'\n\
             261124  0:00:02\t     4 Quit\t\n";
        let parsed = parse_log(log.as_bytes());
        let shown: Vec<_> =
            parsed.iter().map(|entry| format!("{} {:?}", entry.command, entry.text)).collect();
        assert_eq!(
            shown,
            ["Connect \"app@127.0.0.1 on db using TCP/IP\"", "Query \"SELECT 1,\\n\\t'two'\"", "Quit \"\""]
        );
    }
}
