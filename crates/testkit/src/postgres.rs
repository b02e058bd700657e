//! Throwaway PostgreSQL servers: a fresh data directory and a free port of 127.0.0.1 each, gone when dropped.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use verbatim_testkit::postgres::{Options, Postgres};
//! let server = Postgres::start(Options::default())?;
//! server.psql("CREATE ROLE app LOGIN PASSWORD 'secret'")?;
//! println!("127.0.0.1:{}: {}", server.port(), server.log()?);
//! # Ok(()) }
//! ```

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
pub use rcgen;
use tempfile::TempDir;

/// How often another port is tried when someone else took the one that was free a moment ago.
const PORT_ATTEMPTS: u32 = 5;
/// The superuser; without a password, on the Unix socket alone.
const SUPERUSER: &str = "postgres";

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// Debian's PostgreSQL 15 (`apt-get install postgresql`).
    #[default]
    Debian15,
    /// PostgreSQL 18 from npm (`tests/tools/install-pg18`), or wherever `VERBATIM_PG18_BIN` points.
    Embedded18,
}

impl Version {
    fn binaries(self) -> Result<PathBuf> {
        let (binaries, how) = match self {
            Self::Debian15 => (PathBuf::from("/usr/lib/postgresql/15/bin"), "apt-get install postgresql"),
            Self::Embedded18 => {
                let installed =
                    || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-tools/pg18/bin");
                let binaries = std::env::var_os("VERBATIM_PG18_BIN").map_or_else(installed, PathBuf::from);
                (binaries, "tests/tools/install-pg18, or set VERBATIM_PG18_BIN")
            }
        };
        let missing = || format!("no PostgreSQL ({self:?}) in {}: {how}", binaries.display());
        ensure!(binaries.join("initdb").exists(), missing());
        binaries.canonicalize().with_context(missing)
    }
}

/// The certificates of a server, all from one authority made for it.
#[derive(Debug, Clone)]
pub struct Tls {
    /// What the server's certificate is for.
    pub names: Vec<String>,
    /// What the authority signs with.
    pub algorithm: &'static rcgen::SignatureAlgorithm,
    /// The user of the client certificate (hba method `cert`).
    pub client: String,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
            client: "app".to_owned(),
        }
    }
}

/// What server to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which.
    pub version: Version,
    /// Lines of `pg_hba.conf` for TCP; the first that fits counts. By default SCRAM for everybody.
    pub auth: Vec<String>,
    /// TLS; none, and the server answers `N`.
    pub tls: Option<Tls>,
    /// Whether every statement is logged.
    pub log_statement: bool,
    /// Whether the log is CSV, in `log/server.csv` of the data directory.
    pub csvlog: bool,
    /// Further settings, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: Version::default(),
            auth: vec!["host all all 127.0.0.1/32 scram-sha-256".to_owned()],
            tls: None,
            log_statement: true,
            csvlog: false,
            settings: Vec::new(),
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    dir: TempDir,
    binaries: PathBuf,
    port: u16,
    csvlog: bool,
}

impl Postgres {
    /// Makes a data directory and starts a server on it. Blocks until it takes connections.
    ///
    /// # Errors
    /// The binaries are missing (the error says how to install them), or the server does not start.
    pub fn start(options: Options) -> Result<Self> {
        let binaries = options.version.binaries()?;
        let dir = tempfile::Builder::new().prefix("verbatim-pg").tempdir()?;
        // The server runs as another user where the tests run as root.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let mut server = Self { dir, binaries, port: 0, csvlog: options.csvlog };
        fs::create_dir(server.run_dir())?;
        server.own(&server.run_dir())?;
        let data = server.data_dir();
        let mut initdb = server.server_command("initdb")?;
        run(initdb.arg("-D").arg(&data).args([
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]))?;
        if let Some(tls) = &options.tls {
            certificates(tls, &server.run_dir())?;
        }
        server.configure(&options)?;
        server.own(&server.run_dir())?;
        for attempt in 1.. {
            server.port = crate::gateway::free_port()?;
            match server.launch() {
                Ok(()) => break,
                Err(error) if attempt == PORT_ATTEMPTS || !server.raw_log()?.contains("could not bind") => {
                    return Err(error.context(server.raw_log()?));
                }
                Err(_) => fs::remove_file(server.log_path())?,
            }
        }
        Ok(server)
    }

    /// Its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its Unix socket, on which everybody is trusted.
    pub fn socket_dir(&self) -> PathBuf {
        self.run_dir()
    }

    /// The authority's certificate (PEM); there with [`Options::tls`].
    pub fn ca(&self) -> PathBuf {
        self.run_dir().join("ca.crt")
    }

    /// The client's certificate and key (PEM); there with [`Options::tls`].
    pub fn client_certificate(&self) -> (PathBuf, PathBuf) {
        (self.run_dir().join("client.crt"), self.run_dir().join("client.key"))
    }

    /// Runs SQL as the superuser in the database `postgres`; returns unaligned rows, columns separated by `|`.
    ///
    /// # Errors
    /// `psql` is missing, or a statement fails: the error is what psql printed.
    pub fn psql(&self, sql: &str) -> Result<String> {
        self.psql_in("postgres", sql)
    }

    /// As [`psql`](Self::psql), in another database.
    ///
    /// # Errors
    /// As there.
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = Command::new("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            SUPERUSER,
            "-d",
            database,
            "-c",
            sql,
        ]);
        psql.arg("-h").arg(self.run_dir()).args(["-p", &self.port.to_string()]);
        Ok(run(&mut psql)?.trim_end_matches('\n').to_owned())
    }

    /// Everything in its log so far.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn log(&self) -> Result<String> {
        match self.csvlog {
            true => Ok(fs::read_to_string(self.csv_path())?),
            false => self.raw_log(),
        }
    }

    /// The file of its CSV log; there with [`Options::csvlog`].
    pub fn csv_path(&self) -> PathBuf {
        self.data_dir().join("log/server.csv")
    }

    /// Stops it at once, as a crash would; [`restart`](Self::restart) brings it back.
    ///
    /// # Errors
    /// It was not running.
    pub fn kill(&self) -> Result<()> {
        self.pg_ctl(&["stop", "-m", "immediate", "-w"])
    }

    /// Starts it again after [`kill`](Self::kill), on the same port.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&self) -> Result<()> {
        self.launch()
    }

    fn data_dir(&self) -> PathBuf {
        self.run_dir().join("data")
    }

    /// What belongs to the server's user: data, socket, certificates, log.
    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn log_path(&self) -> PathBuf {
        self.run_dir().join("server.log")
    }

    fn raw_log(&self) -> Result<String> {
        fs::read_to_string(self.log_path()).context("the server's log")
    }

    fn configure(&self, options: &Options) -> Result<()> {
        let run_dir = self.run_dir();
        let mut settings: Vec<(&str, String)> = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", run_dir.display().to_string()),
            ("fsync", "off".to_owned()),
            ("log_line_prefix", "%m [%p] %c %q%u@%d ".to_owned()),
            ("log_statement", if options.log_statement { "all" } else { "none" }.to_owned()),
            ("log_timezone", "UTC".to_owned()),
            ("timezone", "UTC".to_owned()),
        ];
        if options.csvlog {
            settings.extend([
                ("logging_collector", "on".to_owned()),
                ("log_destination", "csvlog".to_owned()),
                ("log_directory", "log".to_owned()),
                ("log_filename", "server.log".to_owned()),
            ]);
        }
        if options.tls.is_some() {
            settings.extend([
                ("ssl", "on".to_owned()),
                ("ssl_ca_file", run_dir.join("ca.crt").display().to_string()),
                ("ssl_cert_file", run_dir.join("server.crt").display().to_string()),
                ("ssl_key_file", run_dir.join("server.key").display().to_string()),
            ]);
        }
        settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let lines =
            settings.iter().map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")));
        let conf = self.data_dir().join("postgresql.conf");
        fs::write(&conf, lines.collect::<String>())?;
        let hba = format!("local all all trust\n{}\n", options.auth.join("\n"));
        fs::write(self.data_dir().join("pg_hba.conf"), hba)?;
        Ok(())
    }

    fn launch(&self) -> Result<()> {
        let log = self.log_path();
        let log = log.to_str().context("a path in UTF-8")?;
        self.pg_ctl(&["start", "-w", "-t", "60", "-l", log, "-o", &format!("-p {}", self.port)])
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Result<()> {
        let mut pg_ctl = self.server_command("pg_ctl")?;
        pg_ctl.arg("-D").arg(self.data_dir()).args(arguments);
        run(pg_ctl.arg("-s")).map(drop)
    }

    /// A program of the server, run as a user that is not root: the server refuses to be.
    fn server_command(&self, program: &str) -> Result<Command> {
        let program = self.binaries.join(program);
        let mut command = match self.is_root()? {
            false => Command::new(program),
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
                command
            }
        };
        // From a directory that every user can enter, in messages that tests can read.
        command.current_dir("/").env("LC_ALL", "C.UTF-8").env_remove("PGDATA");
        Ok(command)
    }

    fn is_root(&self) -> Result<bool> {
        Ok(fs::metadata(self.dir.path())?.uid() == 0)
    }

    fn own(&self, path: &Path) -> Result<()> {
        match self.is_root()? {
            true => run(Command::new("chown").args(["-R", "postgres:postgres"]).arg(path)).map(drop),
            false => Ok(()),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A server that is not running any more is as good.
        let _ = self.kill();
    }
}

/// Runs a program to its end. Its output goes through files, since a server that it leaves behind keeps pipes open.
fn run(command: &mut Command) -> Result<String> {
    let program = format!("{:?}", command.get_program());
    let (stdout, stderr) = (tempfile::NamedTempFile::new()?, tempfile::NamedTempFile::new()?);
    let status = command
        .stdin(Stdio::null())
        .stdout(stdout.reopen()?)
        .stderr(stderr.reopen()?)
        .status()
        .with_context(|| format!("{program} (apt-get install postgresql)"))?;
    let stdout = fs::read_to_string(stdout.path())?;
    if !status.success() {
        bail!("{program}: {status}\n{stdout}{}", fs::read_to_string(stderr.path())?);
    }
    Ok(stdout)
}

/// Writes `ca.crt`, `server.{crt,key}` and `client.{crt,key}`.
pub(crate) fn certificates(tls: &Tls, dir: &Path) -> Result<()> {
    let authority_key = rcgen::KeyPair::generate_for(tls.algorithm)?;
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name = common_name("throwaway authority");
    let certificate = authority.self_signed(&authority_key)?;
    fs::write(dir.join("ca.crt"), certificate.pem())?;
    let issuer = rcgen::Issuer::new(authority, authority_key);

    let write = |stem: &str, names: &[String], name: &str| -> Result<()> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(names)?;
        params.distinguished_name = common_name(name);
        let certificate = params.signed_by(&key, &issuer)?;
        fs::write(dir.join(format!("{stem}.crt")), certificate.pem())?;
        let path = dir.join(format!("{stem}.key"));
        fs::write(&path, key.serialize_pem())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    };
    write("server", &tls.names, "throwaway server")?;
    write("client", &[], &tls.client)
}

fn common_name(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(rcgen::DnType::CommonName, name);
    distinguished
}
