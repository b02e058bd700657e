//! `verify` finds what was done to a ledger. Here on a real one, by the binary, each kind of tampering at many places;
//! every byte and every frame of small ledgers, row by row of the table of tamperings, is in `verbatim-ledger`'s own tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use verbatim_testkit::gateway::{binary, wait_for};

use crate::faults::{segments, walk};
use crate::world::{World, all};

/// What a segment's frames begin with.
const MAGIC: &[u8] = b"VBF1";

/// A ledger of a stopped gateway, kept in memory, with its key.
struct Specimen {
    files: BTreeMap<PathBuf, Vec<u8>>,
    key: Vec<u8>,
}

impl Specimen {
    fn of(world: &World) -> Self {
        let ledger = world.gateway.ledger_dir();
        let read = |path: PathBuf| (path.strip_prefix(&ledger).unwrap().to_owned(), fs::read(&path).unwrap());
        let files = walk(&ledger).into_iter().map(read).collect();
        Self { files, key: fs::read(world.gateway.data_dir().join("keys/node.vkey")).unwrap() }
    }

    /// The first segment: its name, and how many of its bytes are written.
    fn first_segment(&self) -> (&PathBuf, usize) {
        let (name, bytes) =
            self.files.iter().find(|(name, _)| name.extension().is_some_and(|end| end == "vbl")).unwrap();
        (name, bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1)
    }

    /// Writes it out, changed, and verifies it.
    fn verify(&self, change: impl FnOnce(&mut BTreeMap<PathBuf, Vec<u8>>), options: &[&str]) -> Output {
        let mut files = self.files.clone();
        change(&mut files);
        let dir = tempfile::tempdir().unwrap();
        let ledger = dir.path().join("ledger");
        fs::create_dir(&ledger).unwrap();
        for (name, bytes) in files {
            let path = ledger.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let key = dir.path().join("node.vkey");
        fs::write(&key, &self.key).unwrap();
        verify(&ledger, &key, options)
    }

    /// Asserts that a change is found; in a cut of the tail, that it is found or, where it falls on a commit, said
    /// that nothing vouches for the tail.
    fn finds(&self, what: &str, change: impl FnOnce(&mut BTreeMap<PathBuf, Vec<u8>>)) {
        let output = self.verify(change, &[]);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", all(&output));
    }
}

fn verify(ledger: &Path, key: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(binary("verbatim").unwrap());
    command.arg("verify").arg("--ledger").arg(ledger).arg("--public-key").arg(key).args(options);
    command.output().unwrap()
}

/// A gateway that did a little, with a sink that keeps what it got.
fn small() -> (World, PathBuf) {
    let dir = tempfile::tempdir().unwrap().keep();
    let events = dir.join("events.jsonl");
    let sink = format!("[sink.copy]\ntype = \"file\"\npath = \"{}\"", events.display());
    let world = World::with(|config| config.with("ledger", "segment = \"1MiB\"").and(&sink));
    let client = world.connect();
    client.simple("SELECT 'first'").unwrap();
    client.query("SELECT $1::int", &[&7]).unwrap();
    drop(client);
    world.gateway.closed_sessions().unwrap();
    (world, events)
}

fn work(world: &World, marker: &str) {
    world.connect().simple(&format!("SELECT '{marker}'")).unwrap();
    world.gateway.closed_sessions().unwrap();
}

#[test]
fn every_flipped_byte_is_found() {
    let (mut world, _events) = small();
    world.gateway.stop().unwrap();
    let specimen = Specimen::of(&world);
    let (name, written) = specimen.first_segment();
    let untouched = specimen.verify(|_| (), &[]);
    assert_eq!(untouched.status.code(), Some(0), "{}", all(&untouched));
    // A prime apart, so that every field of the frames is met; and a few in the zeros behind the last frame.
    let mut places: Vec<usize> = (0..written).step_by((written / 300) | 1).collect();
    places.extend(
        [written + 8, written + 4096, specimen.files[name].len() - 1]
            .into_iter()
            .filter(|place| *place < specimen.files[name].len()),
    );
    thread::scope(|scope| {
        for half in places.chunks(places.len().div_ceil(2)) {
            let specimen = &specimen;
            scope.spawn(move || {
                for &place in half {
                    specimen.finds(&format!("byte {place} of {written}"), |files| {
                        files.get_mut(name).unwrap()[place] ^= 1 << (place % 8)
                    });
                }
            });
        }
    });
}

#[test]
fn every_cut_is_found_or_said() {
    let (mut world, _events) = small();
    world.gateway.stop().unwrap();
    let specimen = Specimen::of(&world);
    let (name, written) = specimen.first_segment();
    let bytes = &specimen.files[name];
    let frames: Vec<usize> =
        (0..written).step_by(8).filter(|place| bytes[*place..].starts_with(MAGIC)).collect();
    assert!(frames.len() > 10, "frames at {frames:?}");
    for (number, &frame) in frames.iter().enumerate() {
        for (what, place) in [("at a frame", frame), ("in a frame", frame + 20)] {
            // The file cut short, and the rest overwritten with zeros.
            for zeros in [false, true] {
                let output = specimen.verify(
                    |files| {
                        let length = bytes.len();
                        let bytes = files.get_mut(name).unwrap();
                        bytes.truncate(place);
                        if zeros {
                            bytes.resize(length, 0);
                        }
                    },
                    &[],
                );
                let text = all(&output);
                // What ends with a commit may have ended there.
                let on_a_commit =
                    zeros && what == "at a frame" && number > 0 && bytes[frames[number - 1] + 4] == 2;
                match output.status.code() {
                    Some(1) => {}
                    Some(0) if on_a_commit => {
                        assert!(
                            text.contains("vouches") || text.contains("anchor"),
                            "what the last line says: {text}"
                        );
                    }
                    code => panic!("cut {what} {number}, zeros {zeros}: {code:?} {text}"),
                }
            }
        }
    }
}

#[test]
fn removed_swapped_and_foreign_files_are_found() {
    let (mut world, _events) = small();
    // More than one segment.
    let client = world.connect();
    let padding = "x".repeat(100_000);
    for n in 0..40 {
        client.simple(&format!("SELECT {n} /* {n} {padding} */")).unwrap();
    }
    drop(client);
    world.gateway.closed_sessions().unwrap();
    world.gateway.stop().unwrap();
    assert!(segments(&world.gateway.ledger_dir()).len() >= 3);
    let specimen = Specimen::of(&world);
    let names: Vec<PathBuf> = specimen.files.keys().cloned().collect();
    for name in &names {
        let last = segments(&world.gateway.ledger_dir()).last().is_some_and(|last| last.ends_with(name));
        if !last {
            specimen.finds(&format!("{} removed", name.display()), |files| drop(files.remove(name)));
        }
        specimen.finds(&format!("{} renamed", name.display()), |files| {
            let bytes = files.remove(name).unwrap();
            files.insert(name.with_extension("gone"), bytes);
        });
        specimen.finds(&format!("{} emptied", name.display()), |files| files.get_mut(name).unwrap().clear());
    }
    let segments: Vec<&PathBuf> =
        names.iter().filter(|name| name.extension().is_some_and(|end| end == "vbl")).collect();
    for pair in segments.windows(2) {
        specimen.finds("two swapped", |files| {
            let (one, other) = (files[pair[0]].clone(), files[pair[1]].clone());
            files.insert(pair[0].clone(), other);
            files.insert(pair[1].clone(), one);
        });
        specimen.finds("one twice", |files| {
            let one = files[pair[0]].clone();
            files.insert(pair[1].clone(), one);
        });
    }
    specimen.finds("a file that is not the ledger's", |files| {
        drop(files.insert("notes.txt".into(), b"hello".to_vec()))
    });

    // The ledger of another node, by its own key intact, is not this one's.
    let (mut other, _events) = small();
    other.gateway.stop().unwrap();
    let foreign = Specimen { files: Specimen::of(&other).files, key: specimen.key.clone() };
    let output = foreign.verify(|_| (), &[]);
    assert_ne!(output.status.code(), Some(0), "{}", all(&output));
}

#[test]
fn a_tail_that_was_cut_and_filled_up_again_is_found_with_a_sinks_checkpoint() {
    let (mut world, events) = small();
    world.gateway.stop().unwrap();
    let before = Specimen::of(&world);
    world.gateway.restart().unwrap();
    work(&world, "what shall be forgotten");
    let is_delivered = || Ok(fs::read_to_string(&events)?.contains("session_close").then_some(()));
    wait_for("the sink", is_delivered).unwrap();
    world.gateway.stop().unwrap();
    let checkpoints = tempfile::tempdir().unwrap();
    let kept = checkpoints.path().join("events.jsonl");
    fs::copy(&events, &kept).unwrap();
    let kept = kept.to_str().unwrap();
    world.intact();

    let output = Specimen::of(&world).verify(|_| (), &["--checkpoint", kept]);
    assert_eq!(output.status.code(), Some(0), "whole: {}", all(&output));

    // Cut: the ledger as it was before.
    let output = before.verify(|_| (), &["--checkpoint", kept]);
    assert_eq!(output.status.code(), Some(1), "cut: {}", all(&output));
    let output = before.verify(|_| (), &[]);
    assert_eq!(output.status.code(), Some(0), "nothing here shows it: {}", all(&output));
    let last = all(&output).trim_end().lines().last().unwrap().to_owned();
    assert!(last.contains("vouches") || last.contains("not anchored"), "the last line: {last}");
    let output = before.verify(|_| (), &["--require-anchor"]);
    assert_eq!(output.status.code(), Some(1), "no anchor: {}", all(&output));

    // And filled up again, by the same gateway with the same key.
    fs::remove_dir_all(world.gateway.ledger_dir()).unwrap();
    for (name, bytes) in &before.files {
        let path = world.gateway.ledger_dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    world.gateway.restart().unwrap();
    for n in 0..5 {
        work(&world, &format!("an innocent command {n}"));
    }
    world.gateway.stop().unwrap();
    world.intact();
    let forged = Specimen::of(&world);
    let output = forged.verify(|_| (), &["--checkpoint", kept]);
    assert_eq!(output.status.code(), Some(1), "forked: {}", all(&output));
}

#[test]
fn a_sinks_file_that_was_changed_is_found() {
    let (mut world, events) = small();
    let is_delivered = || Ok(fs::read_to_string(&events)?.contains("session_close").then_some(()));
    wait_for("the sink", is_delivered).unwrap();
    world.gateway.stop().unwrap();
    let whole = fs::read_to_string(&events).unwrap();
    let specimen = Specimen::of(&world);
    let folder = tempfile::tempdir().unwrap();
    let against = |name: &str, lines: &str| {
        let kept = folder.path().join(name);
        fs::write(&kept, lines).unwrap();
        specimen.verify(|_| (), &["--checkpoint", kept.to_str().unwrap(), "--json"])
    };
    let output = against("whole", &whole);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));

    for (from, to) in
        [("SELECT 'first'", "SELECT 'other'"), ("\"idx\\\":4", "\"idx\\\":5"), ("postgres", "mysql")]
    {
        let line = whole.lines().position(|line| line.contains(from)).unwrap_or_else(|| panic!("{from}"));
        let offset: usize = whole.lines().take(line).map(|line| line.len() + 1).sum();
        let output = against("changed", &whole.replacen(from, to, 1));
        assert_eq!(output.status.code(), Some(1), "{from}: {}", all(&output));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        crate::cli::valid("verify", &document);
        let finding = &document["findings"][0];
        assert_eq!(finding["code"], "SINKDIFF", "{from}: {document:#}");
        assert_eq!(finding["offset"], offset, "{from}: {document:#}");
        assert!(finding["file"].as_str().unwrap().ends_with("changed"));
    }
}

#[test]
fn a_ledger_in_use_can_be_verified() {
    let (world, _events) = small();
    let client = world.connect();
    for n in 0..20 {
        client.simple(&format!("SELECT {n}")).unwrap();
        world.intact();
    }
}

#[test]
fn what_cannot_be_told_is_exit_2() {
    let (mut world, _events) = small();
    world.gateway.stop().unwrap();
    let key = world.gateway.data_dir().join("keys/node.vkey");
    let nowhere = world.gateway.dir().join("nowhere");
    assert_eq!(verify(&nowhere, &key, &[]).status.code(), Some(2), "no such folder");
    assert_eq!(verify(&world.gateway.ledger_dir(), &nowhere, &[]).status.code(), Some(2), "no key");
}

#[test]
fn a_finding_has_a_code_and_a_place() {
    let (mut world, _events) = small();
    world.gateway.stop().unwrap();
    let specimen = Specimen::of(&world);
    let (name, _) = specimen.first_segment();
    let text = b"SELECT 'first'";
    let place = specimen.files[name]
        .windows(text.len())
        .position(|window| window == text)
        .expect("the recorded text");
    let output = specimen.verify(|files| files.get_mut(name).unwrap()[place] = b'D', &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", all(&output));
    let document = serde_json::from_slice(&output.stdout).unwrap();
    crate::cli::valid("verify", &document);
    assert_eq!(document["result"], "findings");
    let findings = document["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["code"] == "PAYCT"), "{document:#}");
    let of_the_operation =
        findings.iter().find(|finding| !finding["sequence"].is_null()).expect("which operation it was");
    assert_eq!(of_the_operation["sequence"], 1, "{document:#}");
    assert!(of_the_operation["offset"].as_u64().unwrap() <= place as u64);
    assert!(of_the_operation["file"].as_str().unwrap().ends_with(name.to_str().unwrap()));
}
