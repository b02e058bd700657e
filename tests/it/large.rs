//! Results and content far larger than the memory that they may take. The same with 2 GB, and times, is in the benchmark.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::world::{World, all};

/// How much the gateway may grow while it passes any amount on.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// How much passes.
const RESULT_BYTES: u64 = 300 << 20;

/// The most memory that the process ever had, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn psql(world: &World, text: &str) -> Command {
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text]);
    psql.envs(World::driver_environment(world.gateway.port(), &world.token()));
    psql
}

#[test]
fn a_large_result_takes_constant_memory() {
    let world = World::start();
    world.connect().simple("SELECT 1").unwrap();
    let pid = world.gateway.pid().unwrap();
    let before = peak(pid);
    let rows = RESULT_BYTES / 1000;
    let text = format!("COPY (SELECT repeat('x', 999) FROM generate_series(1, {rows})) TO STDOUT");
    let status = psql(&world, &text).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    let grown = peak(pid) - before;
    assert!(grown < GROWTH_BYTES_MAX, "{} MiB more for {} MiB", grown >> 20, RESULT_BYTES >> 20);
    let sessions = world.gateway.closed_sessions().unwrap();
    let outcome = &sessions[1]["operations"][0]["outcome"];
    assert_eq!(outcome["rows"], rows, "{outcome:#}");
    assert!(outcome["bytes"].as_u64().unwrap() >= rows * 1000, "{outcome:#}");
}

#[test]
fn a_slow_reader_is_waited_for_and_not_buffered_for() {
    let world = World::start();
    world.connect().simple("SELECT 1").unwrap();
    let pid = world.gateway.pid().unwrap();
    let before = peak(pid);
    let text = "COPY (SELECT repeat('x', 999) FROM generate_series(1, 150000)) TO STDOUT";
    let mut reader = psql(&world, text).stdout(Stdio::piped()).spawn().unwrap();
    // It doesn't read until the server has stopped sending, for want of room.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    verbatim_testkit::gateway::wait_for("back-pressure", || {
        Ok((world.server.psql(waits)? == "1").then_some(()))
    })
    .unwrap();
    assert!(peak(pid) - before < GROWTH_BYTES_MAX);
    let mut out = reader.stdout.take().unwrap();
    let read = std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    assert!(reader.wait().unwrap().success());
    assert_eq!(read, 150_000 * 1000);
}

/// Copies this many rows of 10,000 bytes in; the bytes that were sent, and the session's operations.
fn copy_in(world: &World, rows: usize) -> (Vec<u8>, Vec<Value>) {
    let mut writer = psql(world, "COPY content FROM STDIN").stdin(Stdio::piped()).spawn().unwrap();
    let mut input = writer.stdin.take().unwrap();
    let mut sent = Vec::new();
    for n in 0..rows {
        let row = format!("{n}\t{}\n", "y".repeat(9_990));
        input.write_all(row.as_bytes()).unwrap();
        sent.extend_from_slice(row.as_bytes());
    }
    drop(input);
    assert!(writer.wait().unwrap().success());
    world.gateway.closed_sessions().unwrap();
    let sessions = world.gateway.sessions().unwrap();
    let session = world.gateway.session(sessions[0]["id"].as_str().unwrap()).unwrap();
    let operations = session["operations"].as_array().unwrap().clone();
    assert_eq!(operations.len(), 2);
    assert_eq!(operations[0]["outcome"]["rows"], rows);
    assert_eq!(operations[1]["kind"], "copy_data");
    (sent, operations)
}

#[test]
fn content_from_the_client_is_recorded_whole() {
    let world = World::start();
    world.connect().simple("CREATE TABLE content (n int, body text)").unwrap();
    let pid = world.gateway.pid().unwrap();
    let (sent, operations) = copy_in(&world, 400);
    assert_eq!(operations[1]["text"].as_str().unwrap().as_bytes(), sent);

    let before = peak(pid);
    let (sent, operations) = copy_in(&world, 4_000);
    let grown = peak(pid) - before;
    assert!(grown < GROWTH_BYTES_MAX, "{} MiB more for {} MiB", grown >> 20, sent.len() >> 20);
    // Too much to be shown: its length and digest are.
    assert_eq!(operations[1]["content"]["length"], sent.len(), "{:#}", operations[1]);
    assert_eq!(operations[1]["content"]["sha256"], sha256(&sent), "{:#}", operations[1]);
    world.intact();
}

/// What `sha256sum` says.
fn sha256(bytes: &[u8]) -> String {
    let mut program = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    program.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = program.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn a_long_text_is_recorded_to_its_last_byte() {
    let world = World::start();
    let text = format!("/* {} */ SELECT 'after ten megabytes'", "padding ".repeat(1_300_000));
    let client = world.connect();
    assert_eq!(client.one(&text).unwrap(), "after ten megabytes");
    let parameter = "ü".repeat(2_000_000);
    client.query("SELECT length($1::text)", &[&parameter]).unwrap();
    drop(client);
    let sessions = world.gateway.closed_sessions().unwrap();
    let operations = sessions[0]["operations"].as_array().unwrap();
    assert_eq!(operations[0]["text"].as_str().unwrap(), text);
    let execute = operations.iter().find(|operation| operation["kind"] == "execute").unwrap();
    assert_eq!(execute["parameters"][0]["value"].as_str().unwrap(), parameter);
    let found = world.gateway.cli(&["search", "megabytes", "--json"]).unwrap();
    assert!(found.status.success(), "{}", all(&found));
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["matches"].as_array().unwrap().len(), 1);
    world.agree().unwrap();
    world.intact();
}
