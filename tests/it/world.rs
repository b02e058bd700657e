//! What every test stands on: a server, an identity provider and a gateway between them, and clients.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::runtime::{Handle, Runtime};
use tokio_postgres::{Config as ClientConfig, NoTls, Row, SimpleQueryMessage};
use verbatim_testkit::gateway::{
    CONNECTION, Config, Gateway, TARGET_PASSWORD, TARGET_USER, printed, wait_for,
};
use verbatim_testkit::idp::{self, Idp, Wish};
use verbatim_testkit::postgres::{Options, Postgres};
use verbatim_testkit::record::{self, Backend};

/// An app in the group that has access.
pub(crate) const WORKLOAD: &str = "b1b1b1b1-0000-4000-8000-00000000b001";
/// Its object id.
pub(crate) const WORKLOAD_OBJECT: &str = "b2b2b2b2-0000-4000-8000-00000000b002";
/// An app in no group.
pub(crate) const OUTSIDER: &str = "b3b3b3b3-0000-4000-8000-00000000b003";
/// An agent in the group.
pub(crate) const AGENT: &str = "d4d4d4d4-0000-4000-8000-00000000d004";
/// The object id of `billing-agents`.
pub(crate) const BILLING_AGENTS: &str = "e7e7e7e7-0000-4000-8000-00000000e001";

/// A server with the database [`CONNECTION`], a simulated Entra, and a gateway between a client and both.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) idp: Idp,
    pub(crate) server: Postgres,
    pub(crate) gateway: Gateway,
}

/// The top of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A path under `target/test-tools`, where `tests/setup` puts things.
pub(crate) fn tool(path: &str) -> PathBuf {
    let tool = repository().join("target/test-tools").join(path);
    assert!(tool.exists(), "{} is missing: run tests/setup", tool.display());
    tool
}

impl World {
    pub(crate) fn start() -> Self {
        Self::with(|config| config)
    }

    /// As [`start`](Self::start), with a changed configuration.
    pub(crate) fn with(change: impl FnOnce(Config) -> Config) -> Self {
        Self::on(Options::default(), change)
    }

    /// With another server.
    pub(crate) fn on(mut options: Options, change: impl FnOnce(Config) -> Config) -> Self {
        options.csvlog = true;
        let server = Postgres::start(options).unwrap();
        server.psql(&format!("CREATE ROLE {TARGET_USER} LOGIN PASSWORD '{TARGET_PASSWORD}'")).unwrap();
        server.psql(&format!("CREATE DATABASE {CONNECTION} OWNER {TARGET_USER}")).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let idp = runtime.block_on(Idp::start(idp::Options::default())).unwrap();
        let config = change(Config::new(&idp.authority(), &idp.graph(), server.port()));
        let gateway = Gateway::start(config).unwrap();
        Self { runtime, idp, server, gateway }
    }

    /// The configuration that it started with, to change it.
    pub(crate) fn config(&self) -> Config {
        Config::new(&self.idp.authority(), &self.idp.graph(), self.server.port())
    }

    /// A token of the workload that has access.
    pub(crate) fn token(&self) -> String {
        self.idp.token(WORKLOAD).unwrap()
    }

    /// Such a token of about this many bytes.
    pub(crate) fn token_of_size(&self, size: usize) -> String {
        let bare = self.token().len();
        let padding = size.saturating_sub(bare) * 3 / 4;
        let token = self.idp.token_with(WORKLOAD, &Wish { padding, ..Wish::default() }).unwrap();
        assert!(token.len().abs_diff(size) < 100, "{} bytes instead of {size}", token.len());
        token
    }

    /// A client with this password.
    pub(crate) fn connect_as(&self, password: &str) -> Result<Client, tokio_postgres::Error> {
        self.connect_to(CONNECTION, password)
    }

    /// A client that asks for this database.
    pub(crate) fn connect_to(&self, database: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = ClientConfig::new();
        config
            .host("127.0.0.1")
            .port(self.gateway.port())
            .dbname(database)
            .user(TARGET_USER)
            .password(password);
        config.application_name("it");
        Client::connect(&self.runtime, &config)
    }

    /// A client that gets in.
    pub(crate) fn connect(&self) -> Client {
        self.connect_as(&self.token()).unwrap()
    }

    /// What the server logged, of sessions with the database [`CONNECTION`].
    pub(crate) fn server_log(&self) -> Result<Vec<Backend>> {
        server_log(&self.server)
    }

    /// Compares all that the server logged with all that is recorded.
    pub(crate) fn agree(&self) -> Result<()> {
        let sessions = self.gateway.closed_sessions()?;
        record::compare_all(&self.server_log()?, &sessions, &|kind, value| self.print(kind, value))
    }

    /// How the server prints a value of this type; of an unknown one, of those that it may take it for.
    pub(crate) fn print(&self, kind: &str, value: &str) -> Vec<String> {
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        let kinds = match (kind, kind.strip_prefix('_')) {
            ("unknown", _) => vec!["text[]".to_owned(), "jsonb".to_owned(), "timestamptz".to_owned()],
            (_, Some(element)) => vec![format!("{element}[]")],
            (kind, None) => vec![kind.to_owned()],
        };
        let print = |kind| {
            self.server.psql(&format!("SELECT convert_from(decode('{hex}', 'hex'), 'UTF8')::{kind}")).ok()
        };
        kinds.into_iter().filter_map(print).collect()
    }

    /// Runs `verify` on the gateway's ledger; its exit code and what it printed.
    pub(crate) fn verify(&self) -> (Option<i32>, String) {
        let output = self.gateway.cli(&["verify"]).unwrap();
        (output.status.code(), all(&output))
    }

    /// Asserts that the ledger is intact.
    pub(crate) fn intact(&self) {
        let (code, text) = self.verify();
        assert_eq!(code, Some(0), "{text}");
    }

    /// The environment that a driver program connects with.
    pub(crate) fn driver_environment(port: u16, password: &str) -> Vec<(&'static str, String)> {
        vec![
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", port.to_string()),
            ("PGDATABASE", CONNECTION.to_owned()),
            ("PGUSER", TARGET_USER.to_owned()),
            ("PGPASSWORD", password.to_owned()),
            ("PGSSLMODE", "disable".to_owned()),
            ("TZ", "UTC".to_owned()),
        ]
    }
}

/// Standard output and standard error, for a failure's message.
pub(crate) fn all(output: &Output) -> String {
    format!("{}{}", printed(&output.stdout), printed(&output.stderr))
}

/// What a server logged so far, of sessions with the database [`CONNECTION`]; everything that was written when this is called.
pub(crate) fn server_log(server: &Postgres) -> Result<Vec<Backend>> {
    let marker = format!("marker {}", verbatim_core::Timestamp::now());
    server.psql(&format!("SELECT '{marker}'"))?;
    // Another process of the server writes the log.
    let log = wait_for("the server's log", || {
        let log = server.log()?;
        let whole = log.split_once(&marker).is_some_and(|(_, rest)| rest.contains('\n'));
        Ok(whole.then_some(log))
    })?;
    Ok(record::parse_log(&log)?.into_iter().filter(|backend| backend.database == CONNECTION).collect())
}

/// A client that waits for its answers.
pub(crate) struct Client {
    runtime: Handle,
    client: tokio_postgres::Client,
}

impl Client {
    pub(crate) fn connect(runtime: &Runtime, config: &ClientConfig) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = runtime.block_on(config.connect(NoTls))?;
        runtime.spawn(connection);
        Ok(Self { runtime: runtime.handle().clone(), client })
    }

    /// Statements, by the simple protocol.
    pub(crate) fn simple(&self, text: &str) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
        self.runtime.block_on(self.client.simple_query(text))
    }

    /// The first column of the first row, by the simple protocol.
    pub(crate) fn one(&self, text: &str) -> Result<String> {
        let messages = self.simple(text)?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        row.with_context(|| format!("no row of {text:?}"))
    }

    /// A statement with parameters, by the extended protocol.
    pub(crate) fn query(
        &self,
        text: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        self.runtime.block_on(self.client.query(text, values))
    }
}

/// The SQLSTATE and message of a server's (or gateway's) refusal.
pub(crate) fn refused(error: &tokio_postgres::Error) -> (String, String) {
    match error.as_db_error() {
        Some(db) => (db.code().code().to_owned(), db.message().to_owned()),
        None => panic!("not an error of the protocol: {error:?}"),
    }
}

/// The one session, of many, that fulfils `test`.
pub(crate) fn the_one(sessions: &[Value], test: impl Fn(&Value) -> bool) -> Result<&Value> {
    let mut found = sessions.iter().filter(|session| test(session));
    let one = found.next().context("no such session")?;
    ensure!(found.next().is_none(), "more than one such session");
    Ok(one)
}
