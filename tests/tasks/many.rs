//! Many tasks, and everything that can go wrong with them at once: messages are lost and doubled, workers die, Redis is restarted, and
//! the server is killed. Each task ends once and has one recorded result. `GAIA_TASKS=10000` for the large run.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    doubles::{Double, Generation, Manners},
    world::{DEADLINE, World, document},
};
use crate::support::eventually;

const WORKERS: usize = 8;
/// Documents that are handed in at once.
const AT_ONCE: usize = 16;

fn manners(n: usize) -> Manners {
    Manners {
        generation: if n.is_multiple_of(2) { Generation::First } else { Generation::Later },
        ttl: Duration::from_secs(4),
        lost_percent: 10,
        doubled_percent: 10,
        late_idle: n.is_multiple_of(3),
        ..Manners::default()
    }
}

/// Hands in so many tasks, each delivering a result, whatever becomes of the server meanwhile.
async fn submit(world: &World, count: usize, ids: &mut Vec<String>) {
    let destination = json!({"type": "http", "url": format!("{}/api/v1/results", world.url())});
    let yaml = document(json!({"output": {"destination": destination}}));
    let mut left = count;
    while left > 0 {
        let now = left.min(AT_ONCE);
        let answers = futures::future::join_all((0..now).map(|_| world.submitted(&yaml))).await;
        ids.extend(answers.into_iter().flatten());
        left -= now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_tasks_each_ends_once_whatever_goes_wrong() {
    let total: usize = std::env::var("GAIA_TASKS").ok().map_or(400, |given| given.parse().expect("a number"));
    // Without optimisation, and on cores that others use as well, a task costs a tenth of a second when thousands wait.
    let limit = DEADLINE.max(Duration::from_millis(300 * total as u64));
    let keep = (2 * total).to_string();
    let mut world = World::with(&[
        ("HEARTBEAT_TTL_SEC", "4"),
        ("RETRY_BASE_DELAY_SEC", "0"),
        ("GAIA_TASKS_RETENTION_COUNT", &keep),
        ("RUST_LOG", "error"),
    ])
    .await;
    let mut workers: Vec<Double> = Vec::new();
    for n in 0..WORKERS {
        workers.push(world.worker(&format!("w{n}"), manners(n)).await);
    }
    world.knows(WORKERS).await;
    let begun = Instant::now();
    let mut ids = Vec::new();
    // Four rounds: after each something dies.
    for round in 0..4 {
        submit(&world, total / 4, &mut ids).await;
        match round {
            0 => {
                // Two workers die and are replaced by others.
                for n in 0..2 {
                    workers.remove(0);
                    workers.push(world.worker(&format!("late{n}"), manners(n)).await);
                }
            }
            1 | 3 => {
                world.kill();
                world.begin();
            }
            _ => {
                world.redis().stop();
                world.redis().begin().await;
            }
        }
    }
    // Asked for the first that goes on and not for all: ten thousand records are many megabytes, and are read on the threads that the
    // workers run on.
    eventually("every task has ended", limit, async || {
        for phase in ["PENDING", "WAITING", "DISPATCHED"] {
            let (status, open) = world.get(&format!("/api/v1/tasks?status={phase}&limit=1")).await;
            if status != 200 || open != json!([]) {
                return None;
            }
        }
        Some(())
    })
    .await;
    let took = begun.elapsed();
    let (_, tasks) = world.get("/api/v1/tasks").await;
    let tasks = tasks.as_array().expect("a list");
    let mut retries: BTreeMap<u64, usize> = BTreeMap::new();
    for task in tasks {
        *retries.entry(task["retries"].as_u64().expect("a number")).or_default() += 1;
    }
    let record: HashMap<&str, &Value> =
        tasks.iter().filter_map(|task| Some((task["task_id"].as_str()?, task))).collect();
    assert_eq!((record.len(), tasks.len()), (ids.len(), ids.len()), "each is there once");
    let mut without = 0;
    for id in &ids {
        let task = record.get(id.as_str()).unwrap_or_else(|| panic!("{id} is lost"));
        // What loses its worker time and again is given up, and says so.
        assert!(task["status"] == "DONE", "{task}");
        let file = world.directory().join("results").join(id).join("responses.json");
        match std::fs::read_to_string(&file) {
            Ok(text) => {
                let result: Value = serde_json::from_str(&text).expect("a result is whole");
                assert_eq!(result["task_id"], json!(id));
            }
            Err(_) => without += 1,
        }
    }
    let counts = world.ledger.counts();
    let runs: usize = ids.iter().map(|id| counts.get(id).copied().unwrap_or_default()).sum();
    assert_eq!(without, 0, "so many have no result");
    println!(
        "{} tasks in {:.1} s, {:.0}/s; {runs} runs, {} more than tasks; {}",
        ids.len(),
        took.as_secs_f64(),
        ids.len() as f64 / took.as_secs_f64(),
        runs - ids.len(),
        format_args!("tasks by failed attempts: {retries:?}")
    );
}
