//! What must happen when the record can't be kept: commands are refused in the protocol's own error, nothing unrecorded
//! reaches the server, and after a repair and a restart all is intact.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use verbatim_testkit::gateway::wait_for;
use verbatim_testkit::idp::Fault;

use crate::world::{World, refused};

/// A file system of a few MiB in memory.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(mebibytes: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("verbatim-disk").tempdir().unwrap().keep();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(&dir)
            .status();
        assert!(status.unwrap().success(), "mounting a small disk needs root");
        Self(dir)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        while filler.write_all(&[0]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

/// A disk whose syncs fail, for one process, from now on; until dropped.
struct FailingSync(Child);

impl FailingSync {
    fn begin(pid: u32) -> Self {
        let syncs = "fsync,fdatasync,sync_file_range,msync";
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={syncs}"),
            "-e",
            &format!("inject={syncs}:error=EIO"),
        ]);
        let mut strace = strace
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace: run tests/setup");
        let mut lines = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        Self(strace)
    }
}

impl Drop for FailingSync {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many commands with this marker the server logged.
fn ran(world: &World, marker: &str) -> usize {
    let log = world.server_log().unwrap();
    log.iter().flat_map(|backend| &backend.commands).filter(|command| command.text.contains(marker)).count()
}

fn on_small_disk(disk: &Path) -> World {
    let data = disk.join("data");
    World::with(|config| {
        config.with("ledger", "segment = \"1MiB\"").with("ledger", "reserve = \"2MiB\"").data_dir(&data)
    })
}

#[test]
fn a_full_disk_refuses_commands_until_there_is_space_again() {
    let disk = SmallDisk::mount(24);
    let mut world = on_small_disk(&disk.0);
    let client = world.connect();
    client.simple("SELECT 'before'").unwrap();
    disk.fill();

    // What is reserved may still take some; then it is over.
    let padding = "x".repeat(50_000);
    let mut sent = 0;
    let error = wait_for("a refusal", || {
        sent += 1;
        Ok(client.simple(&format!("SELECT 'while full {sent}' /* {padding} */")).err())
    })
    .unwrap();
    let (code, message) = refused(&error);
    assert!(code.starts_with("53") || code.starts_with("57") || code.starts_with("58"), "{code} {message}");
    let reached = ran(&world, "'while full");
    assert_eq!(reached, sent - 1, "the refused command did not reach the server");
    assert!(client.simple("SELECT 'refused as well'").is_err());
    assert!(world.connect_as(&world.token()).is_err(), "no new session either");
    assert_eq!(ran(&world, "refused as well"), 0);
    assert_ne!(world.gateway.get("/readyz").unwrap().0, 200, "it says that it is not ready");
    drop(client);

    disk.free();
    world.gateway.stop().unwrap();
    world.gateway.restart().unwrap();
    world.connect().simple("SELECT 'after'").unwrap();
    world.agree().unwrap();
    world.intact();
    assert_eq!(ran(&world, "'after'"), 1);
}

#[test]
fn a_kill_while_the_disk_is_full_loses_nothing() {
    let disk = SmallDisk::mount(24);
    let mut world = on_small_disk(&disk.0);
    let client = world.connect();
    disk.fill();
    let padding = "x".repeat(50_000);
    wait_for("a refusal", || {
        Ok(client.simple(&format!("SELECT 'while full' /* {padding} */")).err().map(drop))
    })
    .unwrap();
    world.gateway.kill().unwrap();
    drop(client);
    disk.free();
    world.gateway.restart().unwrap();
    world.connect().simple("SELECT 'after'").unwrap();
    world.agree().unwrap();
    world.intact();
}

#[test]
fn a_sync_that_fails_ends_everything_until_a_restart() {
    let mut world = World::start();
    let client = world.connect();
    client.simple("SELECT 'before'").unwrap();
    let failing = FailingSync::begin(world.gateway.pid().unwrap());
    let error = client.simple("SELECT 'during'").unwrap_err();
    let (code, message) = refused(&error);
    assert!(code.starts_with("5"), "{code} {message}");
    drop(failing);

    // A sync that failed once says nothing about the next, so nothing is taken any more.
    assert!(client.simple("SELECT 'later'").is_err());
    assert!(world.connect_as(&world.token()).is_err());
    assert_ne!(world.gateway.get("/readyz").unwrap().0, 200);
    assert_eq!(ran(&world, "'during'") + ran(&world, "'later'"), 0);
    drop(client);
    world.gateway.kill().unwrap();
    world.gateway.restart().unwrap();
    world.connect().simple("SELECT 'after'").unwrap();
    world.agree().unwrap();
    world.intact();
}

#[test]
fn a_target_that_is_away_is_said_and_recorded() {
    let world = World::start();
    world.server.kill().unwrap();
    let (code, message) = refused(&world.connect_as(&world.token()).err().unwrap());
    assert!(code.starts_with("08") || code.starts_with("57"), "{code} {message}");
    let sessions = world.gateway.closed_sessions().unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0]["session"]["close_reason"], "target", "{:#}", sessions[0]);
    world.server.restart().unwrap();
    world.connect().simple("SELECT 1").unwrap();
}

#[test]
fn an_identity_provider_that_is_away_does_not_end_what_is_known() {
    let world = World::start();
    world.connect().simple("SELECT 1").unwrap();
    for endpoint in ["discovery", "jwks"] {
        world.idp.change(|state| state.fault(endpoint, Some(Fault { status: 503, ..Fault::default() })));
    }
    // The last good keys still hold.
    world.connect().simple("SELECT 2").unwrap();
    world.agree().unwrap();
}

#[test]
fn without_keys_it_is_not_ready() {
    let mut world = World::start();
    world.gateway.stop().unwrap();
    world.idp.change(|state| state.fault("discovery", Some(Fault { status: 503, ..Fault::default() })));
    world.gateway.spawn().unwrap();
    let status = wait_for("the admin listener", || Ok(world.gateway.get("/readyz").ok())).unwrap();
    assert_ne!(status.0, 200, "{}", status.1);
    assert_eq!(world.gateway.get("/healthz").unwrap().0, 200);
    world.idp.change(|state| state.fault("discovery", None));
    wait_for("readiness", || Ok(matches!(world.gateway.get("/readyz")?, (200, _)).then_some(()))).unwrap();
    world.connect().simple("SELECT 1").unwrap();
}

#[test]
fn a_damaged_ledger_is_not_written_to() {
    let mut world = World::start();
    world.connect().simple("SELECT 'a command to damage'").unwrap();
    world.gateway.closed_sessions().unwrap();
    world.gateway.stop().unwrap();
    let segment = segments(&world.gateway.ledger_dir()).into_iter().next().expect("a segment");
    let mut bytes = fs::read(&segment).unwrap();
    let place = bytes.windows(12).position(|window| window == b"session_open").expect("the first session");
    bytes[place] ^= 1;
    fs::write(&segment, bytes).unwrap();
    world.gateway.spawn().unwrap();
    assert_eq!(world.gateway.wait().unwrap().code(), Some(3), "{}", world.gateway.log().unwrap());
    assert_eq!(world.verify().0, Some(1));
}

#[test]
fn one_gateway_writes_a_ledger() {
    let mut world = World::start();
    let second =
        verbatim_testkit::gateway::Gateway::start(world.config().data_dir(&world.gateway.data_dir()));
    assert!(second.is_err(), "two gateways on one ledger");
    world.connect().simple("SELECT 'the first goes on'").unwrap();
    world.intact();
    world.gateway.stop().unwrap();
}

/// The segments' files, in order.
pub(crate) fn segments(ledger: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        walk(ledger).into_iter().filter(|path| path.extension().is_some_and(|end| end == "vbl")).collect();
    files.sort();
    files
}

/// Every file below a folder, in order.
pub(crate) fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
