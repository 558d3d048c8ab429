//! Calls under an `Idempotency-Key`: made once, whoever comes again, whatever happens meanwhile.

use std::sync::Arc;

use gaia::controllers::droplet::Settings;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    services::{Says, Service},
    support::eventually,
    world::{DEADLINE, World, answer, listed, settings},
};

fn keyed(world: &World, key: &str, body: &Value) -> RequestBuilder {
    world.request(Method::POST, "/orchestrator/tasks").json(body).header("idempotency-key", key)
}

fn order(path: &str, payload: Value) -> Value {
    json!({"droplet_name": "TGT", "method": "POST", "path": path, "payload": payload})
}

async fn told(request: RequestBuilder) -> (u16, bool, Value) {
    let response: Response = request.send().await.expect("an answer");
    let (status, again) = (response.status().as_u16(), response.headers().get("idempotent-replayed").is_some());
    (status, again, response.json().await.expect("JSON"))
}

async fn asked(world: &World, line: &str, times: usize) {
    eventually("the droplet is asked", DEADLINE, async || (world.target.asked(line).len() == times).then_some(()))
        .await;
}

/// Two that wait for one answer, and the notification that lets it come.
fn slow(world: &World, path: &str) -> Arc<Notify> {
    let go_on = Arc::new(Notify::new());
    world.target.says(path, [Says::Nothing(go_on.clone())]);
    go_on
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_call_is_told_the_recorded_result() {
    let world = World::start().await;
    world.target.says("/pay", [Says::Json(201, json!({"paid": 1})), Says::Json(201, json!({"paid": 2}))]);
    let first = told(keyed(&world, "k1", &order("/pay", json!({"n": 1})))).await;
    assert_eq!((first.0, first.1, &first.2["response_body"]), (200, false, &json!({"paid": 1})));
    // Names are the same in any case, and `meta` is of no account.
    let mut same = order("/pay", json!({"n": 1}));
    same["droplet_name"] = json!("tgt");
    same["meta"] = json!({"try": "2"});
    let again = told(keyed(&world, "k1", &same)).await;
    assert_eq!((again.0, again.1, &again.2), (200, true, &first.2));
    assert_eq!(world.target.asked("POST /pay").len(), 1);

    let (status, _, refused) = told(keyed(&world, "k1", &order("/pay", json!({"n": 2})))).await;
    assert_eq!((status, &refused["detail"][0]["loc"]), (422, &json!(["header", "idempotency-key"])));
    assert_eq!(refused["detail"][0]["type"], "idempotency_key_reused");
    assert!(refused["detail"][0]["msg"].as_str().is_some_and(|msg| msg.contains("another payload")), "{refused}");
    assert_eq!(world.target.asked("POST /pay").len(), 1, "nothing was sent");

    assert_eq!(told(keyed(&world, "k2", &order("/pay", json!({"n": 1})))).await.2["response_body"], json!({"paid": 2}));
    assert!(!told(keyed(&world, "k1", &order("/other", json!({"n": 1})))).await.1, "a key belongs to a path");
    let (_, list) = world.get("/orchestrator/tasks").await;
    assert_eq!(list["total"], 3, "an answer that is told again is no call");
    assert_eq!(world.get("/orchestrator/metrics").await.1["tasks"]["total"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_must_be_one() {
    let world = World::start().await;
    for bad in [&b""[..], b"  ", b"\xff"] {
        let key = reqwest::header::HeaderValue::from_bytes(bad).expect("a header");
        let request = world.request(Method::POST, "/orchestrator/tasks").json(&order("/x", json!({})));
        let (status, refused) = answer(request.header("idempotency-key", key)).await;
        assert_eq!((status.as_u16(), &refused["detail"][0]["loc"]), (422, &json!(["header", "idempotency-key"])));
    }
    assert!(world.target.asked("POST /x").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_is_waited_for() {
    let world = World::start().await;
    let go_on = slow(&world, "/slow");
    let body = order("/slow", json!({"n": 1}));
    let waiting: Vec<JoinHandle<_>> = (0..20).map(|_| tokio::spawn(told(keyed(&world, "k", &body)))).collect();
    asked(&world, "POST /slow", 1).await;
    assert_eq!(told(keyed(&world, "k", &order("/slow", json!({"n": 2})))).await.0, 422, "at once");
    go_on.notify_one();
    let mut all = Vec::new();
    for one in waiting {
        all.push(one.await.expect("no panic"));
    }
    assert_eq!(all.iter().filter(|(_, again, _)| !again).count(), 1, "one of them made it");
    assert!(all.iter().all(|(status, _, told)| *status == 200 && *told == all[0].2), "all are told the same");
    assert_eq!(world.target.asked("POST /slow").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_one_also_when_it_is_bad_and_a_refusal_is_none() {
    let world = World::start().await;
    world.target.says("/500", [Says::Json(500, json!({}))]);
    let body = order("/500", json!({}));
    let first = told(keyed(&world, "k", &body)).await;
    assert_eq!((&first.2["status"], &first.2["retry_count"]), (&json!("error"), &json!(3)));
    let again = told(keyed(&world, "k", &body)).await;
    assert_eq!((again.1, again.2), (true, first.2), "something may have happened there");
    assert_eq!(world.target.asked("POST /500").len(), 3);

    let limits = json!({"maxConcurrent": 1, "maxQueued": 0});
    world.declare("narrow", json!({"endpoint": world.target.url(), "limits": limits})).await;
    let go_on = slow(&world, "/slow");
    let at = |path: &str| json!({"droplet_name": "narrow", "method": "POST", "path": path});
    let other = tokio::spawn(answer(world.request(Method::POST, "/orchestrator/tasks").json(&at("/slow"))));
    asked(&world, "POST /slow", 1).await;
    assert_eq!(told(keyed(&world, "n", &at("/x"))).await.0, 503);
    go_on.notify_one();
    other.await.expect("no panic");
    let made = told(keyed(&world, "n", &at("/x"))).await;
    assert_eq!((made.0, made.1, &made.2["status"]), (200, false, &json!("success")), "nothing had been sent");
    let nobody = |key: &str| keyed(&world, key, &json!({"droplet_name": "nobody", "path": "/x"}));
    assert_eq!((told(nobody("m")).await.0, told(nobody("m")).await.0), (400, 400));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_makes_the_call_when_the_first_takes_it_along() {
    let world = World::start().await;
    let go_on = slow(&world, "/slow");
    let body = order("/slow", json!({}));
    let first = tokio::spawn(keyed(&world, "k", &body).header("x-cancel-on-disconnect", "1").send());
    asked(&world, "POST /slow", 1).await;
    let second = tokio::spawn(told(keyed(&world, "k", &body)));
    first.abort();
    asked(&world, "POST /slow", 2).await;
    go_on.notify_waiters();
    go_on.notify_one();
    let second = second.await.expect("no panic");
    assert_eq!((second.0, second.1, &second.2["status"]), (200, false, &json!("success")));
    assert_eq!(told(keyed(&world, "k", &body)).await.2, second.2);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_outlive_the_process() {
    let mut world = World::with(Settings { durable_history: true, ..settings() }).await;
    let large = "x".repeat(20 * 1024);
    let huge = "x".repeat(2 * 1024 * 1024);
    let cases = [("/small", json!({"a": 1})), ("/large", json!({"text": large})), ("/huge", json!({"text": huge}))];
    let mut firsts = Vec::new();
    for (path, says) in &cases {
        world.target.says(path, [Says::Json(200, says.clone())]);
        let first = told(keyed(&world, "k", &order(path, json!({"n": 1})))).await;
        assert_eq!(&first.2["response_body"], says);
        firsts.push(first.2);
    }
    world.stop().await;
    let (registry, target, data) = (Service::start().await, Service::start().await, world.data.clone());
    registry.lists(json!([listed("TGT", &target.url())]));
    drop(world);
    let world = World::on(settings(), registry, target, data).await;
    for ((path, _), first) in cases.iter().zip(&firsts) {
        let (status, again, mut told_now) = told(keyed(&world, "k", &order(path, json!({"n": 1})))).await;
        assert_eq!((status, again), (200, true), "{path}");
        if *path == "/huge" {
            assert_eq!(told_now["response_body"]["_truncated"], true, "as the record has it");
            told_now["response_body"] = first["response_body"].clone();
        }
        assert!(told_now == *first, "{path}");
        assert_eq!(told(keyed(&world, "k", &order(path, json!({"n": 2})))).await.0, 422, "{path}");
    }
    assert!(world.target.asked("POST /").is_empty(), "the droplet of the next process was never asked");
}

async fn promised(world: &World, body: &Value) -> (u16, bool, Value) {
    told(keyed(world, "k", body).header("prefer", "respond-async")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_is_given_once_also_across_a_restart() {
    let mut world = World::start().await;
    slow(&world, "/slow");
    let body = order("/slow", json!({"n": 1}));
    let first = promised(&world, &body).await;
    assert_eq!((first.0, first.1, &first.2["status"]), (202, false, &json!("queued")));
    asked(&world, "POST /slow", 1).await;
    assert_eq!(promised(&world, &body).await, (202, true, first.2.clone()));
    assert_eq!(promised(&world, &order("/slow", json!({"n": 2}))).await.0, 422);
    world.stop().await;

    // Who waits for it in the next process waits for that process's attempt.
    let target = std::mem::replace(&mut world.target, Service::start().await);
    let go_on = Arc::new(Notify::new());
    target.says("/slow", [Says::Nothing(go_on.clone())]);
    let (registry, data) = (Service::start().await, world.data.clone());
    registry.lists(json!([listed("TGT", &target.url())]));
    drop(world);
    let world = World::on(settings(), registry, target, data).await;
    assert_eq!(promised(&world, &body).await, (202, true, first.2.clone()));
    let waiting = tokio::spawn(told(keyed(&world, "k", &body)));
    asked(&world, "POST /slow", 2).await;
    assert!(!waiting.is_finished());
    go_on.notify_one();
    let (status, again, result) = waiting.await.expect("no panic");
    assert_eq!((status, again, &result["status"]), (200, true, &json!("success")));
    assert_eq!(result["task_id"], first.2["task_id"]);
    let (status, again, known) = promised(&world, &body).await;
    assert_eq!((status, again, &known["status"]), (202, true, &json!("success")));
    assert_eq!(known["task_id"], first.2["task_id"]);
    let heard = world.target.asked("POST /slow");
    assert!(heard.iter().all(|asked| asked.headers["idempotency-key"] == "k"), "the droplet hears the caller's key");
    assert_eq!(heard.len(), 2);
}
