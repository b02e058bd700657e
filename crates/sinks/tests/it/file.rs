use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use verbatim_core::Timestamp;
use verbatim_sinks::{Batch, Event, FileSettings, FileSink, Sink, StreamSink};

use crate::record::Record;

fn batch(numbers: std::ops::Range<u64>) -> Batch {
    let event = |index: u64| Event {
        index,
        id: format!("log#{index}"),
        kind: "intent".to_owned(),
        session: None,
        time: Timestamp::from_nanos(0),
        json: Bytes::from(format!("{{\"id\":\"log#{index}\"}}")),
    };
    Batch { events: numbers.map(event).collect() }
}

/// The ids in a file, all of whose lines must be whole.
fn ids(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    text.lines().map(id).collect()
}

fn sink(path: &Path, rotate: u64, keep: Option<usize>) -> FileSink {
    FileSink::new(FileSettings { path: path.to_owned(), rotate, keep })
}

#[tokio::test]
async fn lines_are_appended_for_their_owner_alone() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("events.jsonl");
    sink(&path, 1 << 20, None).deliver(&batch(0..3)).await.unwrap();
    sink(&path, 1 << 20, None).deliver(&batch(3..5)).await.unwrap();
    assert_eq!(ids(&path), ["log#0", "log#1", "log#2", "log#3", "log#4"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_full_file_is_rotated_and_only_so_many_are_kept() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("events.jsonl");
    let at = |number: u64| dir.path().join(format!("events.jsonl.{number}"));
    // Two lines of 15 bytes fit.
    let all = sink(&path, 32, None);
    all.deliver(&batch(0..5)).await.unwrap();
    all.deliver(&batch(5..6)).await.unwrap();
    assert_eq!(ids(&at(1)), ["log#0", "log#1"]);
    assert_eq!(ids(&at(2)), ["log#2", "log#3"]);
    assert_eq!(ids(&path), ["log#4", "log#5"]);

    sink(&path, 32, Some(2)).deliver(&batch(6..9)).await.unwrap();
    assert!(!at(1).exists() && !at(2).exists(), "the oldest go");
    assert_eq!(ids(&at(3)), ["log#4", "log#5"]);
    assert_eq!(ids(&at(4)), ["log#6", "log#7"]);
    assert_eq!(ids(&path), ["log#8"]);

    // Longer than a file may get: alone in one.
    let small = sink(&path, 1, None);
    small.deliver(&batch(9..11)).await.unwrap();
    assert_eq!(
        (ids(&at(5)), ids(&at(6)), ids(&path)),
        (vec!["log#8".into()], vec!["log#9".into()], vec!["log#10".into()])
    );
}

#[tokio::test]
async fn what_a_crash_left_of_a_line_is_cut_off_and_comes_again() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("events.jsonl");
    let whole = "{\"id\":\"log#0\"}\n".to_owned();
    for torn in ["{\"id\":\"lo", "x", &"y".repeat(200_000)] {
        std::fs::write(&path, whole.clone() + torn).unwrap();
        sink(&path, 1 << 20, None).deliver(&batch(1..2)).await.unwrap();
        assert_eq!(ids(&path), ["log#0", "log#1"]);
    }
    std::fs::write(&path, "torn from the first byte on").unwrap();
    sink(&path, 1 << 20, None).deliver(&batch(0..1)).await.unwrap();
    assert_eq!(ids(&path), ["log#0"]);
}

#[tokio::test]
async fn a_file_that_somebody_moved_away_is_begun_anew() {
    let dir = tempfile::TempDir::new().unwrap();
    let (path, away) = (dir.path().join("events.jsonl"), dir.path().join("away"));
    let sink = sink(&path, 1 << 20, None);
    sink.deliver(&batch(0..1)).await.unwrap();
    std::fs::rename(&path, &away).unwrap();
    sink.deliver(&batch(1..2)).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    sink.deliver(&batch(2..3)).await.unwrap();
    assert_eq!((ids(&away), ids(&path)), (vec!["log#0".to_owned()], vec!["log#2".to_owned()]));
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_an_error_until_it_is() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("later/events.jsonl");
    let sink = sink(&path, 1 << 20, None);
    assert!(sink.deliver(&batch(0..1)).await.is_err());
    assert!(sink.check().await.is_err());
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    sink.check().await.unwrap();
    sink.deliver(&batch(0..1)).await.unwrap();
    assert_eq!(ids(&path), ["log#0"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_is_in_the_file_whole() {
    let record = Record::new();
    record.work(30);
    record.settle().await;
    let path = record.dir.path().join("events.jsonl");
    let sink = Arc::new(sink(&path, 1 << 20, None));
    record.deliver(&sink).stop(Duration::from_secs(3600)).await;
    let mut ids = ids(&path);
    ids.retain(|id| !id.contains("/checkpoint#"));
    assert_eq!(ids, record.ids());
}

#[tokio::test]
async fn a_stream_gets_a_line_an_event() {
    #[derive(Clone, Default)]
    struct Shared(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let out = Shared::default();
    StreamSink::new(out.clone()).deliver(&batch(0..2)).await.unwrap();
    assert_eq!(*out.0.lock().unwrap(), b"{\"id\":\"log#0\"}\n{\"id\":\"log#1\"}\n");
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_cursor_moved_repeats_and_loses_nothing() {
    let record = Record::new();
    let path = record.dir.path().join("events.jsonl");
    let cursor = record.dir.path().join("sinks/siem.cursor");
    let deliver = async || {
        record.settle().await;
        let sink = Arc::new(sink(&path, 1 << 20, None));
        record.deliver(&sink).stop(Duration::from_secs(3600)).await;
    };
    record.work(2);
    deliver().await;
    let old = std::fs::read(&cursor).unwrap();
    record.work(5);
    deliver().await;
    // What a crash leaves: lines that are synced, one that is torn, and the cursor of before.
    std::fs::write(&cursor, old).unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    deliver().await;

    let mut seen = std::collections::BTreeSet::new();
    let mut once = ids(&path);
    let lines = once.len();
    once.retain(|id| !id.contains("/checkpoint#") && seen.insert(id.clone()));
    assert_eq!(once, record.ids(), "in order at their first coming");
    assert!(lines > once.len(), "some came twice");
}
