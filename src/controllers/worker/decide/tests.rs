use rstest::rstest;

use super::*;
use crate::api::worker::WorkerSpec;

const TTL: Duration = Duration::from_secs(120);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn worker() -> Worker {
    Worker::new("w1", WorkerSpec::default())
}

fn alive() -> Worker {
    let mut worker = worker();
    worker.status = Some(status(&worker, Some(&record()), Life::Alive, at(0)));
    worker
}

fn record() -> WorkerRecord {
    let hardware = json!({
        "cpu": {"logical_cores": 2, "model": "x86_64"}, "memory": {"total_bytes": 25_276_510_208u64},
        "gpu": {"driver_version": "550.1", "gpus": [{"index": 0, "name": "NVIDIA H200", "uuid": "GPU-1"}]},
        "network": {"ip": "127.0.0.1", "bandwidth_bytes_per_sec": 7},
    });
    WorkerRecord {
        id: "w1".to_owned(),
        status: Some("IDLE".to_owned()),
        started_at: Some("2026-11-20T09:32:56.354306+00:00".to_owned()),
        pid: Some(7),
        hardware: hardware.as_object().expect("a map").clone(),
        tags: vec!["cpu".to_owned()],
        last_seen: Some("2026-11-20T09:32:56.355992+00:00".to_owned()),
        heartbeat: Some("2026-11-20T09:32:57.000000+00:00".to_owned()),
        registered: true,
        ..WorkerRecord::default()
    }
}

#[rstest]
#[case(Sight { registered: false, heartbeat_since: Some(at(0)), trusted: true }, Life::Gone)]
#[case(Sight { registered: true, heartbeat_since: Some(at(0)), trusted: true }, Life::Alive)]
#[case(Sight { registered: true, heartbeat_since: Some(at(-200)), trusted: true }, Life::Dead)]
#[case(Sight { registered: true, heartbeat_since: None, trusted: true }, Life::Dead)]
#[case(Sight { registered: true, heartbeat_since: None, trusted: false }, Life::Alive)]
fn a_worker_lives_is_dead_or_gone(#[case] sight: Sight, #[case] expected: Life) {
    assert_eq!(life(&alive(), sight, TTL, at(0)), expected);
}

#[test]
fn who_was_not_known_to_live_gets_no_grace() {
    let sight = Sight { registered: true, heartbeat_since: None, trusted: false };
    assert_eq!(life(&worker(), sight, TTL, at(0)), Life::Dead);
}

#[test]
fn a_record_is_told_as_it_is() {
    let status = alive().status.expect("a status");
    assert_eq!((status.state, status.pid, status.stale), (WorkerState::Idle, Some(7), false));
    let hardware = status.hardware.clone().expect("hardware");
    assert_eq!((hardware.cpu_cores, hardware.memory_bytes), (Some(2), Some(25_276_510_208)));
    assert_eq!((hardware.gpus[0].name.as_str(), hardware.gpus[0].memory_bytes), ("NVIDIA H200", None));
    assert_eq!(status.announced["hardware"]["network"]["bandwidth_bytes_per_sec"], 7);
    assert_eq!(status.announced["started_at"], "2026-11-20T09:32:56.354306+00:00");
}

#[test]
fn a_bus_that_lost_its_data_can_be_told_again() {
    let left = WorkerRecord { last_seen: Some("later".to_owned()), ..WorkerRecord::default() };
    let known = alive();
    let told = remembered(&known, Some(&left));
    let expected = WorkerRecord { last_seen: Some("later".to_owned()), heartbeat: None, registered: false, ..record() };
    assert_eq!(told, expected);
    // What is left on the bus takes nothing from what is known.
    let after =
        status(&known, Some(&WorkerRecord { id: "w1".to_owned(), registered: true, ..left }), Life::Alive, at(1));
    assert_eq!(after.hardware, known.status.expect("a status").hardware);
}

#[rstest]
#[case("w1", "w1")]
#[case("0a1b2c3d4e5f6789", "0a1b2c3d4e5f6789")]
fn ids_that_can_be_names_are(#[case] id: &str, #[case] expected: &str) {
    assert_eq!(object_name(id), expected);
}

#[test]
fn other_ids_get_names_of_their_own() {
    let names: std::collections::BTreeSet<String> =
        ["W1", "w_1", "w.1", "-w1", "ü", "", &"x".repeat(300)].into_iter().map(object_name).collect();
    assert_eq!(names.len(), 7);
    let good = |name: &String| {
        name.len() <= 63
            && !name.starts_with('-')
            && !name.ends_with('-')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    assert!(names.iter().all(good), "{names:?}");
}
