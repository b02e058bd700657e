//! Throwaway Redis servers: a directory and a free port of 127.0.0.1 each, gone when dropped.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use verbatim_testkit::redis::{Options, Redis};
//! let server = Redis::start(Options::default())?;
//! let mut monitor = server.monitor()?;
//! server.cli(&["SET", "key", "value"])?;
//! assert_eq!(monitor.commands()?[0].arguments, ["SET", "key", "value"].map(|word| word.as_bytes().to_vec()));
//! # Ok(()) }
//! ```

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::gateway::{PATIENCE, wait_for};
use crate::postgres::{Tls, certificates};

/// How often another port is tried when someone else took the one that was free a moment ago.
const PORT_ATTEMPTS: u32 = 5;
const INSTALL: &str = "apt-get install redis-server redis-tools";

/// What server to start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The password of the user `default`; none is asked for without one.
    pub password: Option<String>,
    /// TLS alone; in clear without.
    pub tls: Option<Tls>,
    /// Further settings, as in `redis.conf`.
    pub settings: Vec<(String, String)>,
}

/// A running server.
#[derive(Debug)]
pub struct Redis {
    dir: TempDir,
    options: Options,
    port: u16,
    child: Child,
}

/// What a server ran, as MONITOR tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The database.
    pub database: String,
    /// `ip:port` of the client, or `lua` for what a script called.
    pub client: String,
    /// Name and arguments.
    pub arguments: Vec<Vec<u8>>,
}

/// A stream that shows what the server runs.
#[derive(Debug)]
pub struct Monitor<'a> {
    server: &'a Redis,
    lines: BufReader<TcpStream>,
    markers: u32,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// The programs are missing (the error says how to get them), or the server does not start.
    pub fn start(options: Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("verbatim-redis").tempdir()?;
        if let Some(tls) = &options.tls {
            certificates(tls, dir.path())?;
        }
        let (port, child) = launch(dir.path(), &options)?;
        let mut server = Self { dir, options, port, child };
        for attempt in 1.. {
            // Running, and answering; or ended, since somebody took the port.
            let up = wait_for("Redis", || {
                Ok(match server.child.try_wait()? {
                    Some(_) => Some(false),
                    None => server.cli(&["PING"]).is_ok().then_some(true),
                })
            });
            match up {
                Ok(true) => break,
                Ok(false) if attempt < PORT_ATTEMPTS => {
                    (server.port, server.child) = launch(server.dir.path(), &server.options)?;
                }
                Ok(false) => bail!("redis-server ended: {}", server.log()?),
                Err(error) => return Err(error.context(server.log()?)),
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
        self.dir.path().join("ca.crt")
    }

    /// Runs a command by redis-cli, and returns what it prints.
    ///
    /// # Errors
    /// redis-cli is missing, or the server answers with an error.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut cli = Process::new("redis-cli");
        cli.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-e"]);
        if let Some(password) = &self.options.password {
            cli.env("REDISCLI_AUTH", password);
        }
        if self.options.tls.is_some() {
            cli.arg("--tls").arg("--cacert").arg(self.ca());
        }
        let output = cli.args(arguments).stdin(Stdio::null()).output().context(INSTALL)?;
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        ensure!(output.status.success(), "{}{}", shown(&output.stdout), shown(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim_end_matches('\n').to_owned())
    }

    /// A stream that shows what the server runs from now on. Not with TLS.
    ///
    /// # Errors
    /// The server cannot be reached, or does not let in.
    pub fn monitor(&self) -> Result<Monitor<'_>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut ask = |request: String| -> Result<()> {
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            lines.read_line(&mut answer)?;
            ensure!(answer == "+OK\r\n", "{answer}");
            Ok(())
        };
        if let Some(password) = &self.options.password {
            ask(format!("AUTH {password}\r\n"))?;
        }
        ask("MONITOR\r\n".to_owned())?;
        Ok(Monitor { server: self, lines, markers: 0 })
    }

    /// Everything in its log so far.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.dir.path().join("log")).context("the server's log")
    }

    /// Stops it at once, as a crash would; [`restart`](Self::restart) brings it back.
    ///
    /// # Errors
    /// It was not running.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), empty, on the same port.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(self.dir.path(), &self.options, self.port)?;
        wait_for("Redis", || Ok(self.cli(&["PING"]).ok().map(drop)))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // One that is not running any more is as good.
        let _ = self.kill();
    }
}

fn launch(dir: &Path, options: &Options) -> Result<(u16, Child)> {
    let port = crate::gateway::free_port()?;
    Ok((port, spawn(dir, options, port)?))
}

fn spawn(dir: &Path, options: &Options, port: u16) -> Result<Child> {
    let port = port.to_string();
    let file = |name: &str| dir.join(name).display().to_string();
    let mut settings: Vec<(&str, String)> = vec![
        ("bind", "127.0.0.1".to_owned()),
        ("dir", dir.display().to_string()),
        ("save", String::new()),
        ("appendonly", "no".to_owned()),
        ("enable-debug-command", "yes".to_owned()),
    ];
    match &options.tls {
        None => settings.push(("port", port)),
        Some(_) => settings.extend([
            ("port", "0".to_owned()),
            ("tls-port", port),
            ("tls-cert-file", file("server.crt")),
            ("tls-key-file", file("server.key")),
            ("tls-ca-cert-file", file("ca.crt")),
            ("tls-auth-clients", "no".to_owned()),
        ]),
    }
    if let Some(password) = &options.password {
        settings.push(("requirepass", password.clone()));
    }
    settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let lines = settings.iter().map(|(name, value)| format!("{name} \"{value}\"\n"));
    fs::write(dir.join("redis.conf"), lines.collect::<String>())?;
    let log = File::create(dir.join("log"))?;
    Process::new("redis-server")
        .arg(dir.join("redis.conf"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context(INSTALL)
}

impl Monitor<'_> {
    /// What the server ran since the last call, without what this asks by itself.
    ///
    /// # Errors
    /// The server left, or shows what cannot be read.
    pub fn commands(&mut self) -> Result<Vec<Command>> {
        self.markers += 1;
        let marker = format!("marker-{}", self.markers);
        self.server.cli(&["ECHO", &marker])?;
        let mut commands = Vec::new();
        loop {
            let mut line = Vec::new();
            ensure!(self.lines.read_until(b'\n', &mut line)? > 0, "the server left");
            let command = read(&line).with_context(|| format!("MONITOR: {}", line.escape_ascii()))?;
            match command.arguments.as_slice() {
                [echo, word] if echo == b"ECHO" && word == marker.as_bytes() => {
                    // The login before it.
                    commands.retain(|other: &Command| other.client != command.client);
                    return Ok(commands);
                }
                _ => commands.push(command),
            }
        }
    }
}

/// `+1700000000.123456 [0 127.0.0.1:5000] "SET" "key" "value"`.
fn read(line: &[u8]) -> Option<Command> {
    let line = line.strip_prefix(b"+")?.trim_ascii_end();
    let open = line.iter().position(|byte| *byte == b'[')?;
    let close = open + line.get(open..)?.iter().position(|byte| *byte == b']')?;
    let place = std::str::from_utf8(line.get(open + 1..close)?).ok()?;
    let (database, client) = place.split_once(' ')?;
    let mut rest = line.get(close + 1..)?.iter().copied();
    let mut arguments = Vec::new();
    while let Some(byte) = rest.next() {
        if byte == b'"' {
            arguments.push(quoted(&mut rest)?);
        }
    }
    Some(Command { database: database.to_owned(), client: client.to_owned(), arguments })
}

fn quoted(rest: &mut impl Iterator<Item = u8>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        out.push(match rest.next()? {
            b'"' => return Some(out),
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'a' => 7,
                b'b' => 8,
                b'x' => {
                    let mut digit = || char::from(rest.next()?).to_digit(16);
                    u8::try_from(digit()? << 4 | digit()?).ok()?
                }
                other => other,
            },
            byte => byte,
        });
    }
}
