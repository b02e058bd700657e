//! Throwaway memcached servers: a port of 127.0.0.1 of their own choice each, gone when dropped.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use verbatim_testkit::memcached::{Memcached, Options};
//! let server = Memcached::start(&Options { login: Some("app:secret".into()), ..Options::default() })?;
//! println!("127.0.0.1:{}: {:?}", server.port(), server.commands()?);
//! # Ok(()) }
//! ```

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::gateway::wait_for;
use crate::postgres::{Tls, certificates};

/// Where Debian's package puts it.
const PROGRAM: &str = "/usr/bin/memcached";

/// What server to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `user:password`, as a file for `-Y` has it; none, and everybody is let in.
    pub login: Option<String>,
    /// TLS; none, and there is none.
    pub tls: Option<Tls>,
}

/// A running server, which logs every command.
#[derive(Debug)]
pub struct Memcached {
    dir: TempDir,
    child: Child,
    port: u16,
}

impl Memcached {
    /// Starts a server. Blocks until it listens.
    ///
    /// # Errors
    /// The program is missing (the error says how to install it), or does not start.
    pub fn start(options: &Options) -> Result<Self> {
        if !Path::new(PROGRAM).exists() {
            bail!("no {PROGRAM}: apt-get install memcached");
        }
        let dir = tempfile::Builder::new().prefix("verbatim-mc").tempdir()?;
        // It runs as another user where the tests run as root.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = Command::new(PROGRAM);
        command.args(["-p", "-1", "-U", "0", "-l", "127.0.0.1", "-vv"]);
        if rustix::process::getuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        if let Some(login) = &options.login {
            let file = dir.path().join("login");
            fs::write(&file, format!("{login}\n"))?;
            command.arg("-Y").arg(file);
        }
        if let Some(tls) = &options.tls {
            certificates(tls, dir.path())?;
            let (chain, key) = (dir.path().join("server.crt"), dir.path().join("server.key"));
            fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
            let files = format!("ssl_chain_cert={},ssl_key={}", chain.display(), key.display());
            command.args(["-Z", "-o", &files]);
        }
        let ports = dir.path().join("ports");
        command.env("MEMCACHED_PORT_FILENAME", &ports);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self { dir, child, port: 0 };
        server.port = wait_for("memcached", || match server.child.try_wait()? {
            Some(status) => bail!("memcached: {status}\n{}", server.log()?),
            None => Ok(port(&ports)),
        })?;
        Ok(server)
    }

    /// Its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The authority's certificate (PEM); there with [`Options::tls`].
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Everything that it logged, one character a byte: what clients send is in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<String> {
        let path: PathBuf = self.dir.path().join("log");
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(bytes.into_iter().map(char::from).collect())
    }

    /// The command lines that it read: of each stream, in the order in which they were opened.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn commands(&self) -> Result<Vec<Vec<String>>> {
        let mut streams: Vec<(u32, Vec<String>)> = Vec::new();
        for line in self.log()?.split('\n') {
            let Some((number, said)) = line.strip_prefix('<').and_then(|rest| rest.split_once(' ')) else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            if said.starts_with("new ") {
                streams.push((number, Vec::new()));
            } else if said != "connection closed."
                // A number is used again once its stream is closed, so the last one counts.
                && let Some((_, commands)) = streams.iter_mut().rev().find(|(known, _)| *known == number)
            {
                commands.push(said.to_owned());
            }
        }
        Ok(streams.into_iter().map(|(_, commands)| commands).collect())
    }
}

/// What the server wrote of its ports: `TCP INET: 40123`. It moves the file into place when it is whole.
fn port(file: &Path) -> Option<u16> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("TCP INET: "))?.parse().ok()
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
