//! TLS on both sides: by SSLRequest, direct with ALPN, reloaded, and never less than was asked for.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use verbatim_testkit::gateway::{Config, PATIENCE, TARGET_PASSWORD, wait_for};
use verbatim_testkit::postgres::{Options, Tls};

use crate::world::{World, all, refused, repository, tool};

/// Asks for TLS, or for GSSAPI's encryption, before anything else.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

/// A certificate for localhost, its key, and the authority behind it.
pub(crate) struct Certificates(TempDir);

impl Certificates {
    pub(crate) fn new() -> Self {
        let certificates = Self(tempfile::tempdir().unwrap());
        certificates.renew();
        certificates
    }

    /// Replaces all of them.
    fn renew(&self) {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "throwaway authority");
        fs::write(self.ca(), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        fs::write(self.path("gateway.key"), key.serialize_pem()).unwrap();
        fs::write(self.path("gateway.crt"), certificate.pem()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.crt")
    }

    pub(crate) fn configure(&self, config: Config) -> Config {
        config.with(
            "gateway",
            &format!(
                "tls = {{ certificate = \"{}\", private_key = \"{}\" }}",
                self.path("gateway.crt").display(),
                self.path("gateway.key").display()
            ),
        )
    }
}

fn environment(world: &World, mode: &str, ca: &Path) -> Vec<(&'static str, String)> {
    let mut environment = World::driver_environment(world.gateway.port(), &world.token());
    environment.retain(|(name, _)| !matches!(*name, "PGHOST" | "PGSSLMODE"));
    environment.extend([
        ("PGHOST", "localhost".to_owned()),
        ("PGSSLMODE", mode.to_owned()),
        ("PGSSLROOTCERT", ca.display().to_string()),
    ]);
    environment
}

fn psql(world: &World, mode: &str, ca: &Path, text: &str) -> Output {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-A", "-t", "-c", text]).envs(environment(world, mode, ca));
    psql.output().unwrap()
}

#[test]
fn tls_by_ssl_request_is_verified_by_name() {
    let certificates = Certificates::new();
    let world = World::with(|config| certificates.configure(config));
    let output = psql(&world, "verify-full", &certificates.ca(), "SELECT 'over tls'");
    assert!(output.status.success() && output.stdout == b"over tls\n", "{}", all(&output));
    let others = Certificates::new();
    let output = psql(&world, "verify-full", &others.ca(), "SELECT 1");
    assert!(!output.status.success(), "a certificate of another authority");
    // A loopback listener takes both.
    world.connect().simple("SELECT 'in clear'").unwrap();
    world.intact();
}

#[test]
fn drivers_work_over_tls() {
    let certificates = Certificates::new();
    let world = World::with(|config| certificates.configure(config));
    let drivers = repository().join("tests/drivers");
    let mut psycopg = Command::new(tool("venv/bin/python"));
    psycopg.arg(drivers.join("psycopg/work.py"));
    let mut node = Command::new("node");
    node.arg(drivers.join("node/work.cjs")).env("NODE_PATH", tool("node/node_modules"));
    node.env("NODE_EXTRA_CA_CERTS", certificates.ca());
    let mut jdbc = Command::new("java");
    jdbc.arg("-cp").arg(format!("{}:/usr/share/java/postgresql.jar", tool("jdbc").display())).arg("Work");
    for mut command in [psycopg, node, jdbc, Command::new(tool("go/work"))] {
        let output = command.envs(environment(&world, "verify-full", &certificates.ca())).output().unwrap();
        let program = command.get_program();
        assert!(output.status.success(), "{program:?}: {}", all(&output));
    }
    world.agree().unwrap();
}

#[test]
fn direct_tls_is_accepted_with_alpn() {
    let certificates = Certificates::new();
    let world = World::with(|config| certificates.configure(config));
    let program = "import psycopg; c = psycopg.connect(sslnegotiation='direct'); print(c.execute('SELECT 7').fetchone()[0])";
    let mut python = Command::new(tool("venv/bin/python"));
    let output = python
        .args(["-c", program])
        .envs(environment(&world, "verify-full", &certificates.ca()))
        .output()
        .unwrap();
    assert!(output.status.success() && output.stdout == b"7\n", "{}", all(&output));
    world.agree().unwrap();
}

#[test]
fn what_came_before_tls_is_never_session_data() {
    let certificates = Certificates::new();
    let world = World::with(|config| certificates.configure(config));
    let mut stream = TcpStream::connect(("127.0.0.1", world.gateway.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = SSL_REQUEST.to_vec();
    bytes.extend_from_slice(b"\0\0\0\x27\0\x03\0\0user\0app\0database\0customers\0\0");
    stream.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    // However the stream ends, no request for a password is among what came.
    let _ = stream.take(4096).read_to_end(&mut answer);
    assert!(!answer.contains(&b'R'), "{}", answer.escape_ascii());
    assert!(world.server_log().unwrap().is_empty());
}

#[test]
fn without_a_certificate_ssl_request_is_declined() {
    let world = World::start();
    let mut stream = TcpStream::connect(("127.0.0.1", world.gateway.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0];
    for request in [GSSENC_REQUEST, SSL_REQUEST] {
        stream.write_all(&request).unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"N");
    }
    let output = psql(&world, "require", Path::new("/nonexistent"), "SELECT 1");
    assert!(!output.status.success());
    let output = psql(&world, "prefer", Path::new("/nonexistent"), "SELECT 1");
    assert!(output.status.success(), "{}", all(&output));
}

#[test]
fn gssapi_is_declined_and_tls_follows() {
    let certificates = Certificates::new();
    let world = World::with(|config| certificates.configure(config));
    let mut stream = TcpStream::connect(("127.0.0.1", world.gateway.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0];
    stream.write_all(&GSSENC_REQUEST).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    stream.write_all(&SSL_REQUEST).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"S");
}

#[test]
fn a_listener_that_is_not_loopback_takes_no_token_in_clear() {
    let certificates = Certificates::new();
    let world = World::with(|config| certificates.configure(config).listen("0.0.0.0"));
    let (code, message) = refused(&world.connect_as(&world.token()).err().unwrap());
    assert!(code.starts_with("28") || code.starts_with("08"), "{code} {message}");
    let output = psql(&world, "verify-full", &certificates.ca(), "SELECT 1");
    assert!(output.status.success(), "{}", all(&output));
}

#[test]
fn certificates_are_reloaded_when_the_files_change() {
    let certificates = Certificates::new();
    let world = World::with(|config| certificates.configure(config));
    let ca_before = certificates.path("ca-before.crt");
    fs::copy(certificates.ca(), &ca_before).unwrap();
    assert!(psql(&world, "verify-full", &ca_before, "SELECT 1").status.success());
    let open = world.connect();
    open.simple("SELECT 'before'").unwrap();
    certificates.renew();
    let renewed =
        || Ok(psql(&world, "verify-full", &certificates.ca(), "SELECT 1").status.success().then_some(()));
    wait_for("the new certificate", renewed).unwrap();
    assert!(!psql(&world, "verify-full", &ca_before, "SELECT 1").status.success());
    open.simple("SELECT 'still open'").unwrap();
}

#[test]
fn the_targets_certificate_is_verified() {
    let world = World::on(Options { tls: Some(Tls::default()), ..Options::default() }, |config| config);
    let port = world.server.port();
    let try_with = |target: &str, tls: Option<&Path>| {
        let mut config = world.config().with("[connection]", &format!("target = \"{target}\""));
        if let Some(ca) = tls {
            config = config.with("[connection]", &format!("target_tls = {{ ca = \"{}\" }}", ca.display()));
        }
        let gateway = verbatim_testkit::gateway::Gateway::start(config).unwrap();
        let mut client = tokio_postgres::Config::new();
        client.host("127.0.0.1").port(gateway.port()).dbname("customers").user("app").password(world.token());
        let client = crate::world::Client::connect(&world.runtime, &client);
        client.map(|client| {
            client.one("SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()").unwrap()
        })
    };
    let ca = world.server.ca();
    let target = |host: &str, mode: &str| format!("postgres://app@{host}:{port}/customers?sslmode={mode}");
    assert_eq!(try_with(&target("localhost", "verify-full"), Some(&ca)).unwrap(), "true");
    assert_eq!(try_with(&target("127.0.0.1", "verify-ca"), Some(&ca)).unwrap(), "true");
    assert_eq!(try_with(&target("127.0.0.1", "require"), None).unwrap(), "true");
    let others = Certificates::new();
    for mode in ["verify-ca", "verify-full"] {
        assert!(
            try_with(&target("localhost", mode), Some(&others.ca())).is_err(),
            "{mode}: another authority"
        );
        assert!(
            try_with(&target("localhost", mode), None).is_err(),
            "{mode}: an authority that the system does not know"
        );
    }
}

#[test]
fn a_target_without_tls_never_sees_the_credential_where_tls_is_asked_for() {
    let world = World::with(|config| config);
    for mode in ["require", "verify-ca", "verify-full"] {
        let target =
            format!("target = \"postgres://app@localhost:{}/customers?sslmode={mode}\"", world.server.port());
        let gateway =
            verbatim_testkit::gateway::Gateway::start(world.config().with("[connection]", &target)).unwrap();
        let mut client = tokio_postgres::Config::new();
        client.host("127.0.0.1").port(gateway.port()).dbname("customers").user("app").password(world.token());
        let error = crate::world::Client::connect(&world.runtime, &client).err().unwrap();
        let (_, message) = refused(&error);
        assert!(!message.contains(TARGET_PASSWORD));
    }
    assert!(world.server_log().unwrap().is_empty());
}
