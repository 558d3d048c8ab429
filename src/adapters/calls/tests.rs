//! What a history keeps, finds, and has after a restart.

use super::*;
use crate::droplets::retry::Verdict;

fn record(n: usize, droplet: &str, status: Verdict) -> Arc<Record> {
    Arc::new(Record {
        id: format!("id{n}"),
        droplet_name: droplet.to_owned(),
        target_url: "http://h/x".to_owned(),
        method: "GET".to_owned(),
        status,
        response_status: Some(200),
        response_body: crate::droplets::body::read(br#"{"b": 1, "a": 2}"#.to_vec()),
        retry_count: 0,
        created_at: n as f64,
        completed_at: Some(n as f64 + 0.5),
        duration_ms: Some(500),
        error_message: None,
        error: None,
    })
}

fn ids(calls: &Calls, status: Option<&str>, droplet: Option<&str>, limit: usize) -> (Vec<String>, usize) {
    let filter = Filter { status: status.map(str::to_owned), droplet_name: droplet.map(str::to_owned) };
    let page = calls.page(&filter, limit);
    (page.records.iter().map(|record| record.id.clone()).collect(), page.total)
}

#[tokio::test]
async fn keeps_so_many_and_finds_them_newest_first() {
    let calls = Calls::in_memory(4);
    for (n, droplet, status) in [
        (1, "a", Verdict::Success),
        (2, "B", Verdict::Error),
        (3, "a", Verdict::Error),
        (5, "b", Verdict::Success),
        (4, "A", Verdict::Success),
    ] {
        calls.put(record(n, droplet, status), None, false).await;
        assert!(calls.len() <= 4, "bounded at every insert");
    }
    assert_eq!(ids(&calls, None, None, 2), (vec!["id5".into(), "id4".into()], 4));
    assert_eq!(ids(&calls, None, Some("A"), 9), (vec!["id4".into(), "id3".into()], 2));
    assert_eq!(ids(&calls, Some("success"), Some("b"), 9), (vec!["id5".into()], 1));
    assert_eq!(ids(&calls, Some("success"), None, 1), (vec!["id5".into()], 2));
    assert_eq!(ids(&calls, Some("nonsense"), None, 9), (vec![], 0));
    assert!(calls.get("id1").is_none() && calls.get("id2").is_some());
}

#[tokio::test]
async fn a_call_that_ends_takes_the_place_of_the_queued_one() {
    let calls = Calls::in_memory(4);
    assert!(calls.queue(record(1, "a", Verdict::Queued), String::new()).await);
    assert_eq!(ids(&calls, Some("queued"), None, 9).1, 1);
    calls.put(record(1, "a", Verdict::Success), None, false).await;
    assert_eq!((ids(&calls, Some("queued"), None, 9).1, calls.len()), (0, 1));
}

#[tokio::test]
async fn the_next_process_has_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("calls.db");
    let (calls, queued) = Calls::open(&file, 3).expect("a new history");
    assert!(queued.is_empty());
    for n in 1..=5 {
        calls.put(record(n, "a", Verdict::Success), None, n == 5).await;
    }
    assert!(calls.queue(record(6, "a", Verdict::Queued), "later".to_owned()).await);
    assert!(calls.queue(record(7, "a", Verdict::Queued), "done".to_owned()).await);
    calls.put(record(7, "a", Verdict::Error), None, true).await;
    drop(calls);
    let (calls, queued) = Calls::open(&file, 3).expect("the same history");
    assert_eq!(queued, ["later"]);
    assert_eq!(ids(&calls, None, None, 9).0, ["id7", "id5", "id4"]);
    let kept = calls.get("id5").expect("it was kept");
    assert_eq!(kept.response_body.as_deref().map(|body| body.get()), Some(r#"{"b": 1, "a": 2}"#));
}

#[tokio::test]
async fn what_was_put_is_there_after_a_flush() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("calls.db");
    let (calls, _) = Calls::open(&file, 100).expect("a new history");
    for n in 1..=50 {
        calls.put(record(n, "a", Verdict::Success), None, false).await;
    }
    calls.flush().await;
    // The first one still has the file, as a process that ends has.
    assert_eq!(Calls::open(&file, 100).expect("the same history").0.len(), 50);
}

#[tokio::test]
async fn what_nobody_waits_for_is_written_all_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("calls.db");
    let (calls, _) = Calls::open(&file, 100).expect("a new history");
    for n in 1..=3 {
        calls.put(record(n, "a", Verdict::Success), None, false).await;
    }
    let reader = rusqlite::Connection::open(&file).expect("it is there");
    let count = || {
        reader
            .query_row("SELECT COALESCE(SUM(calls), 0) FROM batches", [], |row| row.get::<_, i64>(0))
            .expect("a number")
    };
    let written = async {
        while count() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), written).await.expect("it is on the disk");
    drop(calls);
}

#[tokio::test]
async fn a_file_that_is_no_history_is_put_aside() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("calls.db");
    std::fs::write(&file, "this is not SQLite, whatever its name says; and it is long enough to be read as a header")
        .expect("written");
    let (calls, _) = Calls::open(&file, 3).expect("begun anew");
    calls.put(record(1, "a", Verdict::Success), None, true).await;
    assert!(directory.path().join("calls.damaged").exists());
    drop(calls);
    assert_eq!(Calls::open(&file, 3).expect("the new one").0.len(), 1);
}

#[tokio::test]
async fn what_was_kept_row_by_row_is_still_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("calls.db");
    let before = rusqlite::Connection::open(&file).expect("a file");
    before
        .execute_batch("CREATE TABLE calls (seq INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL);")
        .expect("a table");
    for n in 1..=3 {
        let text = serde_json::to_string_pretty(&*record(n, "a", Verdict::Success)).expect("JSON");
        before.execute("INSERT INTO calls (record) VALUES (?1)", [text]).expect("a row");
    }
    drop(before);
    for _ in 0..2 {
        let (calls, _) = Calls::open(&file, 2).expect("a history");
        assert_eq!(ids(&calls, None, None, 9).0, ["id3", "id2"]);
    }
}

#[tokio::test]
async fn the_disk_keeps_no_more_than_it_must() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("calls.db");
    let (calls, _) = Calls::open(&file, 3).expect("a new history");
    for n in 1..=20 {
        calls.put(record(n, "a", Verdict::Success), None, true).await;
    }
    drop(calls);
    let reader = rusqlite::Connection::open(&file).expect("it is there");
    let kept = reader.query_row("SELECT SUM(calls) FROM batches", [], |row| row.get::<_, i64>(0)).expect("a number");
    assert_eq!(kept, 3);
    assert_eq!(ids(&Calls::open(&file, 3).expect("the same").0, None, None, 9).0, ["id20", "id19", "id18"]);
}
