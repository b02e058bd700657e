//! Nothing is lost: whatever the server ran is in the record, whenever and however gateway and clients end.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;
use verbatim_testkit::gateway::{CONNECTION, TARGET_USER, wait_for};
use verbatim_testkit::record;

use crate::world::World;

/// How many sessions work at once.
const SESSIONS: u64 = 16;
/// How often the gateway is killed.
const ROUNDS: u64 = 10;

/// A source of numbers that are anybody's guess but the same every time (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Works until the stream breaks or it is told to stop: single queries, prepared ones, pipelines, transactions, COPY.
async fn work(
    port: u16,
    token: String,
    name: String,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<(), tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .dbname(CONNECTION)
        .user(TARGET_USER)
        .password(token)
        .application_name(&name);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    let insert = client.prepare(&format!("INSERT INTO work VALUES ($1, $2) /* {name} */")).await?;
    for n in 0_i64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        client.simple_query(&format!("SELECT '{name} {n}'")).await?;
        client.execute(&insert, &[&name, &n]).await?;
        let minus = -n;
        let values: [&(dyn ToSql + Sync); 2] = [&name, &n];
        let others: [&(dyn ToSql + Sync); 2] = [&name, &minus];
        tokio::try_join!(
            client.query("SELECT $1::text || $2::int8", &values),
            client.execute(&insert, &others),
            client.simple_query("SELECT 1; SELECT 2"),
        )?;
        client
            .batch_execute(&format!("BEGIN; DELETE FROM work WHERE name = '{name}' AND n < {n} - 3; COMMIT"))
            .await?;
        done.fetch_add(6, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn kill_minus_9_at_any_moment_loses_nothing() {
    kill_again_and_again(World::start(), ROUNDS);
}

#[test]
fn kill_minus_9_loses_nothing_where_only_the_sync_is_late() {
    // What was appended survives the process; the sync is for the machine.
    kill_again_and_again(World::with(|config| config.with("ledger", "sync = \"50ms\"")), 3);
}

fn kill_again_and_again(mut world: World, rounds: u64) {
    world.connect().simple("CREATE TABLE work (name text, n int8)").unwrap();
    let mut numbers = Numbers(7);
    let mut total = 0;
    for round in 0..rounds {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|n| {
                let name = format!("round {round} session {n}");
                runtime.spawn(work(
                    world.gateway.port(),
                    world.token(),
                    name,
                    Arc::clone(&done),
                    Arc::clone(&stop),
                ))
            })
            .collect();
        let enough = 50 + numbers.below(600);
        wait_for("work to be done", || Ok((done.load(Ordering::Relaxed) >= enough).then_some(()))).unwrap();
        world.gateway.kill().unwrap();
        stop.store(true, Ordering::Relaxed);
        for session in sessions {
            // Most of them end with a broken stream.
            drop(runtime.block_on(session).unwrap());
        }
        total += done.load(Ordering::Relaxed);
        world.gateway.restart().unwrap();
    }
    assert!(total >= 100 * rounds, "only {total} commands");

    let open = world.gateway.json(&["sessions", "list", "--open", "--json"]).unwrap();
    assert_eq!(open["sessions"].as_array().unwrap().len(), 0, "nothing is left open: {open:#}");
    let sessions = world.gateway.closed_sessions().unwrap();
    let crashed = sessions.iter().filter(|session| session["session"]["close_reason"] == "crash").count();
    assert!(crashed as u64 >= rounds, "{crashed} sessions ended by a crash");
    for session in &sessions {
        for operation in session["operations"].as_array().unwrap() {
            assert!(!operation["outcome"].is_null(), "an open operation: {operation:#}");
        }
    }
    record::compare_all(&world.server_log().unwrap(), &sessions, &|kind, value| world.print(kind, value))
        .unwrap();
    world.intact();
    // And it still works.
    world.connect().simple("SELECT 'after all that'").unwrap();
}

#[test]
fn a_client_that_vanishes_leaves_nothing_open() {
    let world = World::start();
    world.connect().simple("CREATE TABLE gone (n int)").unwrap();
    // Programs that are killed in the midst of a command.
    let start = |_| {
        let mut psql = std::process::Command::new("psql");
        psql.args(["-X", "-q", "-c", "SELECT pg_sleep(600) /* vanishing */"]);
        psql.envs(World::driver_environment(world.gateway.port(), &world.token())).spawn().unwrap()
    };
    let mut programs: Vec<_> = (0..4).map(start).collect();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_for("the commands", || Ok((world.server.psql(running)? == "4").then_some(()))).unwrap();
    for program in &mut programs {
        program.kill().unwrap();
        program.wait().unwrap();
    }
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions.len(), 5);
    let aborted =
        sessions.iter().filter(|session| session["operations"][0]["outcome"]["status"] == "aborted").count();
    assert_eq!(aborted, 4);
    assert!(sessions.iter().all(|session| session["session"]["close_reason"] == "client"), "{sessions:#?}");
    world.agree().unwrap();
    world.intact();
}

#[test]
fn sigterm_drains() {
    let mut world = World::with(|config| config.with("gateway", "drain = \"20s\""));
    let port = world.gateway.port();
    let client = world.connect();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    thread::scope(|scope| {
        let sleeping = scope.spawn(|| client.simple("SELECT pg_sleep(2)").map(drop));
        wait_for("the command", || Ok((world.server.psql(running)? == "1").then_some(()))).unwrap();
        world.gateway.signal(rustix::process::Signal::TERM).unwrap();
        sleeping.join().unwrap().unwrap();
    });
    drop(client);
    assert!(world.gateway.wait().unwrap().success());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens");
    // The record is read from the files.
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0]["operations"][0]["outcome"]["status"], "ok", "{:#}", sessions[0]);
    assert!(["drained", "client"].contains(&sessions[0]["session"]["close_reason"].as_str().unwrap()));
    world.intact();
}

#[test]
fn a_target_that_dies_is_on_record() {
    let world = World::start();
    let client = world.connect();
    client.simple("SELECT 1").unwrap();
    world.server.kill().unwrap();
    client.simple("SELECT 2").unwrap_err();
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions[0]["session"]["close_reason"], "target", "{:#}", sessions[0]);
    world.server.restart().unwrap();
    world.connect().simple("SELECT 3").unwrap();
    world.intact();
}

#[test]
fn an_index_that_is_gone_or_broken_is_made_again_from_the_ledger() {
    let mut world = World::start();
    world.connect().simple("SELECT 'indexed'").unwrap();
    let before = world.gateway.closed_sessions().unwrap();
    world.gateway.stop().unwrap();
    let damage: [&dyn Fn(&Path); 2] =
        [&|path| fs::remove_file(path).unwrap(), &|path| fs::write(path, "not a database").unwrap()];
    for damage in damage {
        let index = world.gateway.data_dir().join("index.sqlite");
        for file in [index.with_extension("sqlite-wal"), index.with_extension("sqlite-shm")] {
            let _ = fs::remove_file(file);
        }
        damage(&index);
        assert_eq!(world.gateway.closed_sessions().unwrap(), before, "from the files");
        world.gateway.restart().unwrap();
        assert_eq!(world.gateway.closed_sessions().unwrap(), before, "from the gateway");
        let found = world.gateway.json(&["search", "indexed", "--json"]).unwrap();
        assert_eq!(found["matches"].as_array().unwrap().len(), 1, "{found:#}");
        world.gateway.stop().unwrap();
    }
    world.intact();
}
