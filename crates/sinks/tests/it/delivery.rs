use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use verbatim_core::Timestamp;
use verbatim_sinks::cursor::Files;
use verbatim_sinks::{Limits, SinkError, Status};

use crate::fake::{Fake, unavailable};
use crate::record::Record;

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn everything_comes_once_in_order_with_checkpoints() {
    let record = Record::new();
    record.work(20);
    let sink = Arc::new(Fake::new());
    let delivery = record.deliver(&sink);
    let size = record.settle().await;
    sink.until_entry(size).await;
    let ids = record.ids();
    assert_eq!(sink.ids(), ids);
    sink.until(|events| events.iter().any(|event| event.kind == "checkpoint" && event.index >= size)).await;
    let checkpoints = sink.events().into_iter().filter(|event| event.kind == "checkpoint");
    let checkpoints: Vec<u64> = checkpoints.map(|event| event.index).collect();
    assert_eq!(checkpoints, record.checkpoints(size), "every one, once");
    delivery.stop(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_after_a_restart_where_it_was() {
    let record = Record::new();
    record.work(3);
    let sink = Arc::new(Fake::new());
    let delivery = record.deliver(&sink);
    record.settle().await;
    delivery.stop(LONG).await;
    let before = sink.ids();
    assert_eq!(before, record.ids());

    record.work(3);
    let delivery = record.deliver(&sink);
    record.settle().await;
    delivery.stop(LONG).await;
    assert_eq!(sink.ids(), record.ids(), "nothing twice, nothing missing");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_down_for_a_day_holds_nothing_up_and_misses_nothing() {
    let record = Record::new();
    let sink = Arc::new(Fake::new());
    sink.always(|_| Some(unavailable()));
    let delivery = record.deliver(&sink);
    let begin = Instant::now();
    let mut size = 0;
    for _ in 0..24 {
        record.work(2);
        size = record.settle().await;
        tokio::time::sleep(LONG).await;
    }
    assert!(begin.elapsed() >= LONG * 24);
    let status = delivery.status();
    assert_eq!((status.delivered, status.ledger), (0, size));
    assert_eq!(status.last_error.as_deref(), Some("down"));
    assert_eq!(status.dead_letters, 0);
    // Any wait up to five minutes is as likely as another, so half of that is the mean.
    let expected = begin.elapsed().as_secs() / 150;
    let attempts = sink.attempts_until_now() as u64;
    assert!((expected / 2..expected * 2).contains(&attempts), "{attempts}, expected about {expected}");

    sink.recover();
    sink.until_entry(size).await;
    assert_eq!(sink.ids(), record.ids());
    delivery.stop(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_sink_asked_for_is_waited_for() {
    let record = Record::new();
    let sink = Arc::new(Fake::new());
    let retry_after = Some(Duration::from_secs(420));
    sink.next(move |_| Some(SinkError::Unavailable { reason: "429".to_owned(), retry_after }));
    let delivery = record.deliver(&sink);
    sink.attempts(1).await;
    let asked = Instant::now();
    sink.attempts(2).await;
    assert!(asked.elapsed() >= Duration::from_secs(420));
    let size = record.settle().await;
    sink.until_entry(size).await;
    assert_eq!(delivery.status().last_error, None, "it works again");
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_gets_full_batches() {
    let record = Record::new();
    record.work(20);
    let size = record.settle().await;
    let sink = Arc::new(Fake::slow(Duration::from_secs(60)));
    let begin = Instant::now();
    let delivery = record.deliver(&sink);
    sink.until_entry(size).await;
    let batches = size.div_ceil(10) as u32;
    assert!(begin.elapsed() <= Duration::from_secs(60) * (batches + 1), "{:?}", begin.elapsed());
    assert_eq!(sink.ids(), record.ids());
    delivery.stop(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn single_events_that_are_refused_for_good_are_put_aside_and_no_other() {
    let record = Record::new();
    record.work(5);
    let size = record.settle().await;
    let ids = record.ids();
    let bad = [ids[4].clone(), ids[17].clone(), ids[18].clone()];
    for says_which in [false, true] {
        let sink = Arc::new(Fake::new());
        let refused = bad.clone();
        sink.always(move |batch| {
            let place = batch.events.iter().position(|event| refused.contains(&event.id))?;
            Some(SinkError::Rejected { reason: "bad".to_owned(), event: says_which.then_some(place) })
        });
        let mut settings = record.settings();
        settings.name = format!("sink-{says_which}");
        let delivery = record.deliver_with(settings.clone(), &sink);
        sink.until_entry(size).await;
        delivery.stop(LONG).await;

        let expected: Vec<String> = ids.iter().filter(|id| !bad.contains(id)).cloned().collect();
        assert_eq!(sink.ids(), expected);
        let file = record.dir.path().join(format!("sinks/{}.dead.jsonl", settings.name));
        let letters: Vec<serde_json::Value> = std::fs::read_to_string(file)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let dead: Vec<&str> = letters.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
        assert_eq!(dead, bad);
        assert!(letters.iter().all(|letter| letter["reason"] == "bad" && letter.get("envelope").is_none()));
        let status = Status::of_files(record.dir.path(), &settings.name, "fake", size).unwrap();
        assert_eq!((status.delivered, status.dead_letters), (size, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_configuration_puts_nothing_aside() {
    let record = Record::new();
    record.work(2);
    let sink = Arc::new(Fake::new());
    sink.always(|_| Some(SinkError::Misconfigured { reason: "wrong token".to_owned() }));
    let delivery = record.deliver(&sink);
    sink.attempts(5).await;
    let status = delivery.status();
    assert_eq!((status.delivered, status.dead_letters), (0, 0));
    assert_eq!(status.last_error.as_deref(), Some("wrong token"));
    sink.recover();
    let size = record.settle().await;
    sink.until_entry(size).await;
    assert_eq!(sink.ids(), record.ids());
}

#[tokio::test(start_paused = true)]
async fn a_replay_delivers_again_from_its_entry_running_and_stopped() {
    let record = Record::new();
    record.work(3);
    let middle = Timestamp::now();
    record.work(3);
    let size = record.settle().await;
    let sink = Arc::new(Fake::new());
    let delivery = record.deliver(&sink);
    sink.until_entry(size).await;
    let ids = record.ids();
    let from = delivery.entry_at(middle).unwrap();
    assert!(from > 0 && from < size);
    delivery.replay(from).await.unwrap();
    sink.until(|events| events.iter().filter(|event| event.index + 1 == size).count() >= 2).await;
    delivery.stop(LONG).await;
    let again = [ids.clone(), ids[from as usize..].to_vec()].concat();
    assert_eq!(sink.ids(), again);

    Files::new(record.dir.path(), "siem").replay(size - 1).unwrap();
    let delivery = record.deliver(&sink);
    delivery.stop(LONG).await;
    assert_eq!(sink.ids(), [again, ids[size as usize - 1..].to_vec()].concat());
}

#[tokio::test(start_paused = true)]
async fn a_replay_interrupts_a_wait() {
    let record = Record::new();
    let size = record.settle().await;
    let sink = Arc::new(Fake::new());
    sink.next(|_| Some(SinkError::Unavailable { reason: "later".to_owned(), retry_after: Some(LONG) }));
    let delivery = record.deliver(&sink);
    sink.attempts(1).await;
    let begin = Instant::now();
    delivery.replay(0).await.unwrap();
    sink.until_entry(size).await;
    assert!(begin.elapsed() < LONG);
    delivery.stop(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn stopping_delivers_what_is_committed_within_its_deadline() {
    let record = Record::new();
    record.work(10);
    let size = record.settle().await;
    let sink = Arc::new(Fake::slow(Duration::from_secs(1)));
    record.deliver(&sink).stop(LONG).await;
    assert_eq!(sink.ids(), record.ids());

    let down = Arc::new(Fake::new());
    down.always(|_| Some(unavailable()));
    let mut settings = record.settings();
    settings.name = "down".to_owned();
    let begin = Instant::now();
    record.deliver_with(settings, &down).stop(Duration::from_secs(20)).await;
    assert!(begin.elapsed() <= Duration::from_secs(21));
    assert_eq!(Status::of_files(record.dir.path(), "down", "fake", size).unwrap().delivered, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_ledger_begins_anew() {
    let record = Record::new();
    record.work(2);
    let sink = Arc::new(Fake::new());
    record.deliver(&sink).stop(LONG).await;
    let files = Files::new(record.dir.path(), "siem");
    let stored = files.load().unwrap();
    let mut elsewhere = stored.clone();
    elsewhere.origin = "example.org/verbatim/other/1".to_owned();
    let mut rewritten = stored.clone();
    rewritten.leaf = Some("00".repeat(32));
    let mut ahead = stored.clone();
    ahead.next = 1_000_000;
    for cursor in [elsewhere, rewritten, ahead] {
        files.store(&cursor).unwrap();
        let sink = Arc::new(Fake::new());
        record.deliver(&sink).stop(LONG).await;
        let ids = record.ids();
        assert_eq!(sink.ids(), ids, "{cursor:?}");
    }
    std::fs::write(record.dir.path().join("sinks/siem.cursor"), "{").unwrap();
    assert!(files.load().is_err(), "a cursor that cannot be read is no beginning");
}

#[tokio::test(start_paused = true)]
async fn one_event_longer_than_a_batch_goes_alone() {
    let record = Record::new();
    let mut log = record.open("customer-db");
    log.query(&vec![b'x'; 300_000]);
    log.query(b"SELECT 1");
    log.close();
    let size = record.settle().await;
    let sink = Arc::new(Fake::new());
    let longest = Arc::new(std::sync::Mutex::new(0));
    let seen = Arc::clone(&longest);
    sink.always(move |batch| {
        let mut seen = seen.lock().unwrap();
        *seen = batch.bytes().max(*seen);
        None
    });
    let mut settings = record.settings();
    settings.limits = Limits { events: 100, bytes: 1000, wait: Duration::ZERO };
    let delivery = record.deliver_with(settings, &sink);
    sink.until_entry(size).await;
    delivery.stop(LONG).await;
    assert!((300_000..310_000).contains(&*longest.lock().unwrap()));
}

#[test]
fn no_name_leads_out_of_the_folder() {
    let dir = tempfile::TempDir::new().unwrap();
    for name in ["../../evil", "/etc/passwd", "..", "a b", "ö"] {
        Files::new(dir.path(), name).store(&Default::default()).unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(dir.path().join("sinks")).unwrap().count(), 5);
}
