//! Nothing is lost: not by workers that die or listen late, not by Redis, not by messages that go astray, and not by us.

use std::{sync::Arc, time::Duration};

use redis::AsyncCommands;
use serde_json::json;
use tokio::sync::Notify;

use super::{
    doubles::{Generation, Manners},
    redis::Redis,
    world::{DEADLINE, World, document},
};
use crate::support::eventually;

#[tokio::test]
async fn a_worker_that_listens_late_is_told_again() {
    let world = World::start().await;
    let listens = Arc::new(Notify::new());
    let _workers = world.workers(1, Manners { listens: Some(listens.clone()), ..Manners::default() }).await;
    let ids = world.submitted(&document(json!({}))).await;
    world.status_is(&ids[0], "DISPATCHED").await;
    listens.notify_one();
    world.all_done(&ids).await;
    assert_eq!(world.ledger.counts()[&ids[0]], 1);
}

#[tokio::test]
async fn a_task_of_a_dead_worker_goes_to_another() {
    let world = World::with(&[("HEARTBEAT_TTL_SEC", "2")]).await;
    let manners = Manners { ttl: Duration::from_secs(2), ..Manners::default() };
    let mut workers = world.workers(1, manners.clone()).await;
    let ids = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    eventually("the worker has it", DEADLINE, async || world.ledger.counts().get(&ids[0]).copied()).await;
    drop(workers.remove(0));
    let _other = world.worker("other", manners).await;
    eventually("another has it", DEADLINE, async || world.ledger.workers(&ids[0]).get(1).cloned()).await;
    let task = world.task_is(&ids[0], "another has it", |task| task["assigned_worker"] == "other").await;
    assert_eq!((&task["retries"], &task["last_failed_worker"]), (&json!(1), &json!("w0")));
    // And whoever is dead can be cleaned away.
    let (_, workers) = world.get("/workers").await;
    let stale = |worker: &&serde_json::Value| worker["stale"] == json!(true);
    assert_eq!(workers.as_array().expect("workers").iter().filter(stale).count(), 1, "{workers}");
    let (_, cleaned) = super::world::answer(world.request(reqwest::Method::POST, "/admin/cleanup")).await;
    assert_eq!(cleaned, json!({"ok": true, "removed": 1}));
    eventually("it is gone", DEADLINE, async || (world.get("/workers/w0").await.0 == 404).then_some(())).await;
}

#[tokio::test]
async fn a_worker_that_was_started_anew_gets_its_task_again() {
    let world = World::start().await;
    let mut workers = world.workers(1, Manners::default()).await;
    let ids = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    eventually("the worker has it", DEADLINE, async || world.ledger.counts().get(&ids[0]).copied()).await;
    drop(workers.remove(0));
    let _again = world.worker("w0", Manners::default()).await;
    eventually("it has it again", DEADLINE, async || (world.ledger.counts()[&ids[0]] == 2).then_some(())).await;
}

/// It never heard of it, so it is at nothing.
#[tokio::test]
async fn a_worker_that_missed_a_task_that_was_cancelled_gets_the_next() {
    let world = World::start().await;
    let listens = Arc::new(Notify::new());
    let _workers = world.workers(1, Manners { listens: Some(listens.clone()), ..Manners::default() }).await;
    let missed = world.submitted(&document(json!({}))).await;
    world.status_is(&missed[0], "DISPATCHED").await;
    let cancel = world.request(reqwest::Method::POST, &format!("/api/v1/tasks/{}/cancel", missed[0]));
    assert_eq!(super::world::answer(cancel).await.0, 200);
    world.status_is(&missed[0], "CANCELLED").await;
    listens.notify_one();
    let ids = world.submitted(&document(json!({}))).await;
    world.all_done(&ids).await;
    assert_eq!(world.ledger.counts().get(&missed[0]), None);
}

/// What gaia remembers of a worker is not written over what that has said since.
#[tokio::test]
async fn a_worker_that_was_started_anew_after_redis_forgot_gets_its_task_again() {
    let mut world = World::start().await;
    let mut workers = world.workers(1, Manners::default()).await;
    let ids = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    eventually("the worker has it", DEADLINE, async || world.ledger.counts().get(&ids[0]).copied()).await;
    world.kill();
    drop(workers.remove(0));
    world.redis().stop();
    world.redis().begin().await;
    let _again = world.worker("w0", Manners::default()).await;
    world.begin();
    eventually("it has it again", DEADLINE, async || (world.ledger.counts()[&ids[0]] == 2).then_some(())).await;
}

#[tokio::test]
async fn a_kill_of_gaia_loses_nothing() {
    let mut world = World::start().await;
    let _workers = world.workers(4, Manners { generation: Generation::Later, ..Manners::default() }).await;
    let mut ids = Vec::new();
    for round in 0..4 {
        for _ in 0..25 {
            ids.extend(world.submitted(&document(json!({}))).await);
        }
        // At any point of what is under way.
        if round > 0 {
            world.kill();
            world.begin();
        }
    }
    world.all_done(&ids).await;
    let before = world.task(&ids[0]).await;
    world.kill();
    world.begin();
    let reached = async || (world.get("/healthz").await.0 == 200).then_some(());
    eventually("it answers again", DEADLINE, reached).await;
    assert_eq!(world.task(&ids[0]).await, before);
}

#[tokio::test]
async fn a_restart_of_redis_keeps_workers_and_tasks() {
    let mut world = World::with(&[("HEARTBEAT_TTL_SEC", "20")]).await;
    let manners = Manners { ttl: Duration::from_secs(20), ..Manners::default() };
    let _workers = world.workers(2, manners).await;
    let ids = world.submitted(&document(json!({}))).await;
    world.all_done(&ids).await;
    // Somebody is at work all the while, and is looked at.
    let hangs = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    eventually("a worker has it", DEADLINE, async || world.ledger.counts().get(&hangs[0]).copied()).await;
    world.redis().stop();
    // Reads go on, and so do submissions.
    let (status, workers) = world.get("/workers").await;
    assert_eq!((status.as_u16(), workers.as_array().map(Vec::len)), (200, Some(2)));
    let during = world.submitted(&document(json!({}))).await;
    assert_eq!(world.task(&during[0]).await["task_id"], json!(during[0]));
    world.redis().begin().await;
    world.all_done(&during).await;
    let mut connection = world.redis().connection().await;
    eventually("the bus is told of its workers", DEADLINE, async || {
        let ids: Vec<String> = connection.smembers("workers:ids").await.ok()?;
        let hardware: Option<String> = connection.hget("worker:w1", "hardware_json").await.ok()?;
        (ids.len() == 2 && hardware?.contains("H200")).then_some(())
    })
    .await;
    // Whoever has it has it still.
    assert_eq!(world.task(&hangs[0]).await["status"], "DISPATCHED");
    assert_eq!(world.ledger.counts()[&hangs[0]], 1);
}

#[tokio::test]
async fn messages_that_are_lost_or_doubled_cost_time_only() {
    let world = World::start().await;
    let bad = |generation| Manners {
        generation,
        lost_percent: 10,
        doubled_percent: 10,
        late_idle: true,
        ..Manners::default()
    };
    let mut workers = Vec::new();
    for (n, generation) in
        [Generation::First, Generation::Later, Generation::First, Generation::Later].into_iter().enumerate()
    {
        workers.push(world.worker(&format!("w{n}"), bad(generation)).await);
    }
    world.knows(4).await;
    let destination = json!({"type": "http", "url": format!("{}/api/v1/results", world.url())});
    let mut ids = Vec::new();
    for n in 0..60 {
        // Some deliver, and some only say that they are done.
        let output = if n % 2 == 0 { json!({"output": {"destination": destination}}) } else { json!({}) };
        ids.extend(world.submitted(&document(output)).await);
    }
    world.all_done(&ids).await;
}

/// TLS both ways, a user with a password, and a restart: nothing is different from a Redis in the clear.
#[tokio::test]
async fn a_redis_behind_tls_is_a_redis() {
    let mut world = World::over(Redis::with_tls().await, &[("HEARTBEAT_TTL_SEC", "20")]);
    let _workers = world.workers(2, Manners { ttl: Duration::from_secs(20), ..Manners::default() }).await;
    let first = world.submitted(&document(json!({}))).await;
    world.all_done(&first).await;
    world.redis().stop();
    let meanwhile = world.submitted(&document(json!({}))).await;
    world.redis().begin().await;
    world.all_done(&meanwhile).await;
}

/// Its client was told nothing, so nothing of it may run: not even those that wait for nobody.
#[tokio::test]
async fn a_submission_that_a_kill_cuts_off_does_not_begin() {
    let mut world = World::start().await;
    let _workers = world.workers(1, Manners::default()).await;
    let nodes: Vec<_> = (0..200).map(|n| json!({"name": format!("n{n}"), "spec": {}})).collect();
    let graph = document(json!({"graph": {"nodes": nodes}}));
    let cut_off = loop {
        let begun = ids(&world).await;
        let request = world.request(reqwest::Method::POST, "/api/v1/tasks").header("content-type", "text/yaml");
        let request = tokio::spawn(super::world::answer(request.body(graph.clone())));
        eventually("some of it is there", DEADLINE, async || (ids(&world).await.len() > begun.len()).then_some(()))
            .await;
        world.kill();
        let (status, _) = request.await.expect("no panic");
        world.begin();
        let left: Vec<String> = ids(&world).await.into_iter().filter(|id| !begun.contains(id)).collect();
        // Or it was there before the kill: then it runs.
        if left.len() < nodes.len() {
            assert_ne!(status, 200);
            break left;
        }
    };
    assert!(!cut_off.is_empty());
    world.knows(1).await;
    // It has waited for less long, so they would go before it.
    let next = world.submitted(&document(json!({}))).await;
    world.all_done(&next).await;
    let counts = world.ledger.counts();
    assert_eq!(cut_off.iter().filter(|id| counts.contains_key(*id)).count(), 0);
    for id in &cut_off {
        assert_eq!(world.task(id).await["status"], "PENDING");
    }
}

async fn ids(world: &World) -> Vec<String> {
    let (_, tasks) = world.get("/api/v1/tasks").await;
    let ids = tasks.as_array().into_iter().flatten().filter_map(|task| task["task_id"].as_str());
    ids.map(str::to_owned).collect()
}
