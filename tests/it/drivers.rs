//! Every driver with tokens of 2 KB and 12 KB: what it prints is what it prints without the gateway, and for each the
//! server's own log agrees with the record, command by command, in order, parameters included.

use std::process::{Command, Stdio};

use verbatim_testkit::gateway::{TARGET_PASSWORD, printed};
use verbatim_testkit::postgres::{Options, Version};
use verbatim_testkit::record;

use crate::world::{World, repository, tool};

/// The program of a driver, ready but for the environment.
fn program(driver: &str) -> Command {
    let drivers = repository().join("tests/drivers");
    let mut command = match driver {
        "psql" => Command::new(drivers.join("psql/run")),
        "psycopg" | "psycopg with protocol 3.2" => {
            let mut command = Command::new(tool("venv/bin/python"));
            command.arg(drivers.join("psycopg/work.py"));
            if driver != "psycopg" {
                command.env("PGMINPROTOCOLVERSION", "3.2").env("PGMAXPROTOCOLVERSION", "3.2");
            }
            command
        }
        "node" => {
            let mut command = Command::new("node");
            command.arg(drivers.join("node/work.cjs")).env("NODE_PATH", tool("node/node_modules"));
            command
        }
        "jdbc" => {
            let mut command = Command::new("java");
            command
                .arg("-cp")
                .arg(format!("{}:/usr/share/java/postgresql.jar", tool("jdbc").display()))
                .arg("Work");
            command
        }
        "go" => Command::new(tool("go/work")),
        "tokio-postgres" | "sqlx" => Command::new(tool(&format!("rust/debug/work-{driver}"))),
        other => panic!("no driver {other}"),
    };
    command.stdin(Stdio::null());
    command
}

fn transcript(driver: &str, port: u16, password: &str) -> String {
    let output = program(driver).envs(World::driver_environment(port, password)).output().unwrap();
    assert!(
        output.status.success(),
        "{driver}: {}\n{}{}",
        output.status,
        printed(&output.stdout),
        printed(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn check(driver: &str, token_bytes: usize) {
    check_on(World::start(), driver, token_bytes);
}

fn check_on(world: World, driver: &str, token_bytes: usize) {
    let direct = transcript(driver, world.server.port(), TARGET_PASSWORD);
    let before = world.server_log().unwrap().len();
    let token = world.token_of_size(token_bytes);
    let through = transcript(driver, world.gateway.port(), &token);
    if direct != through {
        let differs = direct.lines().zip(through.lines()).position(|(direct, through)| direct != through);
        let at = differs.unwrap_or_else(|| direct.lines().count().min(through.lines().count()));
        let show =
            |text: &str| text.lines().skip(at.saturating_sub(3)).take(8).collect::<Vec<_>>().join("\n");
        panic!(
            "{driver} sees a difference in line {}\n-- direct\n{}\n-- through\n{}",
            at + 1,
            show(&direct),
            show(&through)
        );
    }

    let sessions = world.gateway.closed_sessions().unwrap();
    let log = world.server_log().unwrap();
    let backends = &log[before..];
    assert!(
        backends.iter().map(|backend| backend.commands.len()).sum::<usize>() > 20,
        "the driver did its work"
    );
    record::compare_all(backends, &sessions, &|kind, value| world.print(kind, value)).unwrap();
    for session in &sessions {
        // JDBC sets it later, by a command.
        let application = &session["session"]["client"]["application"];
        let name = driver.split(' ').next().unwrap();
        assert!(name == "jdbc" || *application == format!("driver-{name}"), "{session:#}");
        let operations = session["operations"].as_array().unwrap().iter();
        let aborted: Vec<_> =
            operations.filter(|operation| operation["outcome"]["status"] == "aborted").collect();
        assert_eq!(session["session"]["complete"], true, "{:#}\n{aborted:#?}", session["session"]);
    }
    let (server, gateway) = (world.server.log().unwrap(), world.gateway.log().unwrap());
    assert!(!server.contains(&token) && !gateway.contains(&token), "the token is nowhere in the clear");
    assert!(!gateway.contains(TARGET_PASSWORD), "nor is the target's credential");
    world.intact();
}

#[test]
fn postgresql_18_with_the_newest_protocol() {
    let world = World::on(Options { version: Version::Embedded18, ..Options::default() }, |config| config);
    // psycopg brings libpq 18, which asks for protocol 3.2 where it is told to; keys to cancel with are longer there.
    check_on(world, "psycopg with protocol 3.2", 2 * 1024);
}

#[test]
fn postgresql_18_with_jdbc() {
    let world = World::on(Options { version: Version::Embedded18, ..Options::default() }, |config| config);
    check_on(world, "jdbc", 2 * 1024);
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
    psql: "psql";
    psycopg: "psycopg";
    tokio_postgres: "tokio-postgres";
    sqlx: "sqlx";
    node: "node";
    jdbc: "jdbc";
    go: "go";
}
