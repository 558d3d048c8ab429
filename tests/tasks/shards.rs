//! An inference is divided among workers, and its result is one.

use serde_json::{Value, json};

use super::{
    doubles::Manners,
    world::{World, document},
};

fn inference(world: &World, items: Value, more: Value) -> String {
    let destination = json!({"type": "http", "url": format!("{}/api/v1/results", world.url())});
    let mut spec = json!({
        "taskType": "inference", "parallel": {"enabled": true, "max_shards": 3},
        "data": {"type": "list", "items": items}, "output": {"destination": destination},
    });
    json_patch::merge(&mut spec, &more);
    document(spec)
}

#[tokio::test]
async fn every_item_is_done_by_one_part_and_the_result_is_whole() {
    let world = World::start().await;
    let _workers = world.workers(4, Manners::default()).await;
    let items: Vec<u32> = (0..10).collect();
    let (status, answer) = world.submit(&inference(&world, json!(items), json!({}))).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["count"], &answer["tasks"][0]["assigned_worker"]), (&json!(1), &json!("MULTI")));
    let id = answer["tasks"][0]["task_id"].as_str().expect("an id");
    let done = world.status_is(id, "DONE").await;
    assert_eq!(done["assigned_worker"], "MULTI");
    let (_, result) = world.get(&format!("/api/v1/results/{id}")).await;
    assert_eq!(
        (&result["worker_id"], &result["metadata"]),
        (&json!("MULTI"), &json!({"aggregated": true, "shards": 3}))
    );
    let merged = json!({"items": items, "usage": {"prompt_tokens": 3}, "model": "canned"});
    assert_eq!(result["result"]["merged"], merged);
    assert_eq!(result["result"]["shards"].as_array().map(Vec::len), Some(3));
    // The parts are tasks like any other, and their documents say nothing of parts: newer workers would divide them again.
    let part = world.task(&format!("{id}-1")).await;
    assert_eq!(
        (&part["parent_task_id"], &part["shard_index"], &part["shard_total"]),
        (&json!(id), &json!(1), &json!(3))
    );
    let got = &world.ledger.documents(&format!("{id}-1"))[0]["spec"];
    assert_eq!((&got["data"]["items"], got.get("shard"), got.get("parallel")), (&json!([3, 4, 5]), None, None));
    let object = world.object(&format!("tasks/{id}")).await;
    assert_eq!(object["status"]["shards"], json!({"total": 3, "done": 3, "failed": 0}));
}

#[tokio::test]
async fn a_part_that_fails_for_good_fails_the_whole() {
    let world = World::with(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let _workers = world.workers(4, Manners::default()).await;
    let ids = world.submitted(&inference(&world, json!([1, 2]), json!({"double": {"fails": "boom"}}))).await;
    let failed = world.status_is(&ids[0], "FAILED").await;
    assert!(failed["error"].as_str().is_some_and(|error| error.starts_with("Child shard failed: ")), "{failed}");
    world
        .task_is(&format!("{}-1", ids[0]), "no part goes on", |part| {
            part["status"] == "FAILED" || part["status"] == "CANCELLED"
        })
        .await;
}

#[tokio::test]
async fn with_few_workers_it_runs_whole() {
    let world = World::start().await;
    let _workers = world.workers(1, Manners::default()).await;
    let ids = world.submitted(&inference(&world, json!([1, 2, 3]), json!({}))).await;
    world.status_is(&ids[0], "DONE").await;
    assert_eq!(world.ledger.documents(&ids[0])[0]["spec"]["data"]["items"], json!([1, 2, 3]));
}

#[tokio::test]
async fn a_kill_of_gaia_divides_nothing_twice() {
    let mut world = World::start().await;
    let _workers = world.workers(4, Manners::default()).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.extend(world.submitted(&inference(&world, json!([1, 2, 3, 4]), json!({}))).await);
        world.kill();
        world.begin();
    }
    world.all_done(&ids).await;
    for id in &ids {
        let (_, result) = world.get(&format!("/api/v1/results/{id}")).await;
        let items = result.pointer("/result/merged/items").or_else(|| result.pointer("/result/items"));
        assert_eq!(items, Some(&json!([1, 2, 3, 4])), "{result}");
    }
}
