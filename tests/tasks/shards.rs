//! An inference is divided among workers, and its result is one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, StatusCode},
};
use serde_json::{Value, json};

use super::{
    doubles::Manners,
    world::{DEADLINE, World, answer, document},
};
use crate::support::eventually;

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

/// Somebody else, to whom results are delivered.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    /// How it answers, in this order, then with 200. 0: never.
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    /// Answers its URL.
    async fn start(&self, answers: &[u16]) -> String {
        self.answers.lock().expect("no panic").extend(answers);
        let this = self.clone();
        let take = async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
            let document = serde_json::from_slice(&body).expect("JSON");
            this.got.lock().expect("no panic").push((parts.headers, document));
            let code = this.answers.lock().expect("no panic").pop_front().unwrap_or(200);
            match StatusCode::from_u16(code) {
                Ok(code) => code,
                Err(_) => std::future::pending().await,
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("it listens"));
        let router = Router::new().route("/hook", axum::routing::any(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn got(&self) -> Vec<(HeaderMap, Value)> {
        self.got.lock().expect("no panic").clone()
    }
}

/// Its document names somebody else, who takes the whole and no part; and callers must show a token, which no document holds.
#[tokio::test]
async fn the_whole_is_delivered_to_whom_the_document_names() {
    let world = World::with(&[("ORCHESTRATOR_TOKEN", "t0ken"), ("ORCHESTRATOR_BASE_URL", "{url}/")]).await;
    let _workers = world.workers(4, Manners::default()).await;
    let receiver = Receiver::default();
    let hook = receiver.start(&[503]).await;
    let destination = json!({"type": "http", "url": hook, "headers": {"X-Key": "k"}, "retryBackoffSec": 0.01});
    let ids =
        world.submitted(&inference(&world, json!([1, 2, 3]), json!({"output": {"destination": destination}}))).await;
    world.status_is(&ids[0], "DONE").await;
    let (_, stored) = world.get(&format!("/api/v1/results/{}", ids[0])).await;
    assert_eq!(stored["result"]["merged"]["items"], json!([1, 2, 3]));
    let got = receiver.got();
    assert_eq!(got.len(), 2, "it was not taken at first: {got:?}");
    assert!(got.iter().all(|(headers, document)| headers["x-key"] == "k" && *document == stored), "{got:?}");
    assert_eq!(got[0].0["content-type"], "application/json");
    // What a worker shows is good for its part and for nothing else.
    let part = format!("{}-0", ids[0]);
    let shown = world.ledger.documents(&part)[0]["spec"]["output"]["destination"]["headers"]["Authorization"].clone();
    let shown = shown.as_str().and_then(|shown| shown.strip_prefix("Bearer ")).expect("a pass");
    let bare = reqwest::Client::builder().no_proxy().build().expect("a client");
    let posts = async |task: &str| {
        let request = bare.post(format!("{}/api/v1/results", world.url())).bearer_auth(shown);
        answer(
            request.header("content-type", "application/json").body(json!({"task_id": task, "result": {}}).to_string()),
        )
        .await
        .0
    };
    assert_eq!((posts(&part).await, posts(&ids[0]).await), (StatusCode::OK, StatusCode::FORBIDDEN));
    let files = async |task: &str| {
        answer(bare.post(format!("{}/api/v1/results/{task}/files", world.url())).bearer_auth(shown)).await.0
    };
    assert_eq!((files(&part).await, files(&ids[0]).await), (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::FORBIDDEN));
    assert_eq!(answer(bare.get(format!("{}/workers", world.url())).bearer_auth(shown)).await.0, StatusCode::FORBIDDEN);
    let told = world.task(&part).await.to_string();
    assert!(!told.contains(shown) && !told.contains("t0ken"), "{told}");
}

/// The process ends while it delivers: it begins again.
#[tokio::test]
async fn a_kill_of_gaia_delivers_twice_rather_than_never() {
    let mut world = World::with(&[("ORCHESTRATOR_BASE_URL", "{url}")]).await;
    let _workers = world.workers(4, Manners::default()).await;
    let receiver = Receiver::default();
    let hook = receiver.start(&[0, 410, 410, 410]).await;
    let destination = json!({"type": "http", "url": hook, "timeoutSec": 600, "retryBackoffSec": 0.01});
    let ids = world.submitted(&inference(&world, json!([1, 2]), json!({"output": {"destination": destination}}))).await;
    eventually("it is delivered", DEADLINE, async || (receiver.got().len() == 1).then_some(())).await;
    assert_eq!(world.task(&ids[0]).await["status"], "DISPATCHED");
    world.kill();
    world.begin();
    // Who never takes it costs an event, and not the task.
    world.status_is(&ids[0], "DONE").await;
    assert_eq!(receiver.got().len(), 4, "once before, and three times after");
    let task = world.object(&format!("tasks/{}", ids[0])).await;
    let message = &task["status"]["conditions"][0]["message"];
    assert_eq!(message, "it is done; its result was not delivered: it was answered with 410 Gone");
    assert_eq!(task["status"]["shards"]["done"], 2);
}

/// Nobody said where workers reach us: their parts could not come here.
#[tokio::test]
async fn without_a_url_of_ours_a_task_for_others_runs_whole() {
    let world = World::start().await;
    let _workers = world.workers(4, Manners::default()).await;
    let receiver = Receiver::default();
    let hook = receiver.start(&[]).await;
    let destination = json!({"type": "http", "url": hook});
    let ids = world.submitted(&inference(&world, json!([1, 2]), json!({"output": {"destination": destination}}))).await;
    world.status_is(&ids[0], "DONE").await;
    let got = receiver.got();
    assert_eq!((got.len(), &got[0].1["task_id"], &got[0].1["result"]["items"]), (1, &json!(ids[0]), &json!([1, 2])));
}
