//! Concurrency, circuits, holds; calls that nobody waits for; and what is left after a restart.

use std::{sync::Arc, time::Duration};

use gaia::{
    api::{
        gpu::Holder,
        handoff::{Handoff, HandoffPhase, HandoffSpec, HandoffStatus},
    },
    runtime::objects::Objects,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    services::{Says, Service},
    support::eventually,
    world::{DEADLINE, World, answer, settings},
};

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_place_is_told_when_to_come_again() {
    let world = World::start().await;
    let limits = json!({"maxConcurrent": 1, "maxQueued": 0});
    world.declare("narrow", json!({"endpoint": world.target.url(), "limits": limits})).await;
    let go_on = Arc::new(Notify::new());
    world.target.says("/slow", [Says::Nothing(go_on.clone())]);
    let slow =
        world.request(Method::POST, "/orchestrator/tasks").json(&json!({"droplet_name": "narrow", "path": "/slow"}));
    let slow = tokio::spawn(answer(slow));
    eventually("it is under way", DEADLINE, async || (!world.target.asked("GET /slow").is_empty()).then_some(())).await;
    let other =
        world.request(Method::POST, "/orchestrator/tasks").json(&json!({"droplet_name": "narrow", "path": "/x"}));
    let refused = other.send().await.expect("an answer");
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().expect("text")), (503, "1"));
    let refused: Value = refused.json().await.expect("JSON");
    assert_eq!(refused["error"]["code"], "DROPLET_UNREACHABLE");
    go_on.notify_one();
    assert_eq!(slow.await.expect("no panic").0, StatusCode::OK);
    assert_eq!(world.route(json!({"droplet_name": "narrow", "path": "/x"})).await["status"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_refuses_at_once_and_is_seen() {
    let world = World::start().await;
    world.target.says("/x", [Says::Json(500, json!({}))]);
    let limits = json!({"failureThreshold": 2, "openSeconds": 3600, "maxAttempts": 1});
    world.declare("frail", json!({"endpoint": world.target.url(), "limits": limits})).await;
    let body = json!({"droplet_name": "frail", "path": "/x"});
    for _ in 0..2 {
        assert_eq!(world.route(body.clone()).await["retry_count"], 1, "maxAttempts is 1");
    }
    let (status, error) = world.post("/orchestrator/tasks", &body).await;
    assert_eq!((status.as_u16(), world.target.asked("GET /x").len()), (503, 2), "{error}");
    assert!(error["error"]["details"]["retry_after_seconds"].as_u64() > Some(3000), "{error}");
    eventually("kubectl shows it", DEADLINE, async || {
        let all = world.objects.list::<gaia::api::droplet::Droplet>(None).await.expect("a store");
        let open = |d: &&Arc<gaia::api::droplet::Droplet>| {
            d.status.as_ref().is_some_and(|status| status.circuit == gaia::api::droplet::Circuit::Open)
        };
        all.iter().find(open).map(|_| ())
    })
    .await;
}

async fn handoff(world: &World, phase: HandoffPhase) {
    let name = gaia::registry::ObjectName { namespace: Some("default".to_owned()), name: "h1".to_owned() };
    let found = world.objects.get::<Handoff>(&name).await.expect("a store");
    let handoff = match found {
        Some(handoff) => handoff,
        None => {
            let holder = Holder { name: "gaia-prime".to_owned(), namespace: "default".to_owned(), ..Holder::default() };
            let spec = HandoffSpec {
                gpu: "gpu0".to_owned(),
                from: Some(holder),
                timeout_seconds: 60,
                ..HandoffSpec::default()
            };
            let mut handoff = Handoff::new("h1", spec);
            handoff.metadata.namespace = Some("default".to_owned());
            world.objects.create(handoff).await.expect("a handoff")
        }
    };
    let mut handoff = (*handoff).clone();
    handoff.status = Some(HandoffStatus { phase, ..HandoffStatus::default() });
    world.objects.update_status(handoff).await.expect("a status");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_droplet_whose_workload_gives_its_card_away_is_held() {
    let world = World::start().await;
    let hold = |seconds: u32| json!({"workload": "gaia-prime", "maxSeconds": seconds});
    world.declare("patient", json!({"endpoint": world.target.url(), "hold": hold(60)})).await;
    world.declare("hasty", json!({"endpoint": world.target.url(), "hold": hold(1)})).await;
    handoff(&world, HandoffPhase::ReleasingGpu).await;
    eventually("it is known", DEADLINE, async || (!world.routing.held.borrow().is_empty()).then_some(())).await;
    let patient =
        world.request(Method::POST, "/orchestrator/tasks").json(&json!({"droplet_name": "patient", "path": "/p"}));
    let patient = tokio::spawn(answer(patient));
    let (status, refused) = world.post("/orchestrator/tasks", &json!({"droplet_name": "hasty", "path": "/h"})).await;
    assert_eq!(status, 503, "{refused}");
    assert!(refused["error"]["message"].as_str().is_some_and(|why| why.contains("gaia-prime")), "{refused}");
    assert!(!patient.is_finished() && world.target.asked("GET /p").is_empty(), "it waits");
    assert_eq!(world.call("/others").await["status"], "success", "others do not");
    handoff(&world, HandoffPhase::Completed).await;
    assert_eq!(patient.await.expect("no panic").1["status"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_bounded_and_there_after_a_restart() {
    let world = World::with(gaia::controllers::droplet::Settings { durable_history: true, ..settings() }).await;
    for n in 0..105 {
        world.call(&format!("/{n}")).await;
    }
    let (_, list) = world.get("/orchestrator/tasks?limit=1000").await;
    assert_eq!(list["total"], 100, "as many as it keeps here");
    let newest = list["tasks"][0].clone();
    assert!(newest["target_url"].as_str().is_some_and(|url| url.ends_with("/104")), "{newest}");
    let data = world.data.clone();
    drop(world);
    let world = World::on(settings(), Service::start().await, Service::start().await, data).await;
    let (_, list) = world.get("/orchestrator/tasks?limit=1").await;
    assert_eq!((&list["total"], &list["tasks"][0]), (&json!(100), &newest));
}

async fn promised(world: &World, body: &Value, headers: &[(&'static str, String)]) -> String {
    let mut request =
        world.request(Method::POST, "/orchestrator/tasks").json(body).header("prefer", "respond-async, wait=1");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let taken = request.send().await.expect("an answer");
    assert_eq!(
        (taken.status().as_u16(), &taken.headers()["preference-applied"]),
        (202, &"respond-async".parse().expect("a value"))
    );
    let location = taken.headers()["location"].to_str().expect("text").to_owned();
    let taken: Value = taken.json().await.expect("JSON");
    assert_eq!(
        (&taken["status"], &location),
        (&json!("queued"), &format!("/orchestrator/tasks/{}", taken["task_id"].as_str().expect("an id")))
    );
    location
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_waits_for_is_made_and_called_back() {
    let world = World::start().await;
    world.target.says("/done", [Says::Json(500, json!({})), Says::Json(200, json!({}))]);
    let body = json!({"droplet_name": "TGT", "path": "/x", "method": "POST", "payload": {"a": 1}});
    let location = promised(&world, &body, &[("x-callback-url", format!("{}/done", world.target.url()))]).await;
    let record = eventually("it is made", DEADLINE, async || {
        let (_, record) = world.get(&location).await;
        (record["status"] == "success").then_some(record)
    })
    .await;
    assert_eq!(world.target.asked("POST /x")[0].headers["idempotency-key"], record["id"].as_str().expect("an id"));
    eventually("its caller was told", DEADLINE, async || (world.target.asked("POST /done").len() == 2).then_some(()))
        .await;
    let told: Value = serde_json::from_slice(&world.target.asked("POST /done")[1].body).expect("JSON");
    assert_eq!(told, record);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promised_call_survives_a_restart() {
    let mut world = World::start().await;
    world.target.says("/slow", [Says::Nothing(Arc::new(Notify::new()))]);
    let location = promised(&world, &json!({"droplet_name": "TGT", "path": "/slow"}), &[]).await;
    eventually("it is under way", DEADLINE, async || (!world.target.asked("GET /slow").is_empty()).then_some(())).await;
    // The droplet does not go with it: that would be an end of the call.
    world.stop().await;
    let target = std::mem::replace(&mut world.target, Service::start().await);
    target.says("/slow", [Says::Bytes(200, "application/json", b"{}".to_vec())]);
    let (registry, data) = (Service::start().await, world.data.clone());
    registry.lists(json!([crate::world::listed("TGT", &target.url())]));
    drop(world);
    let world = World::on(settings(), registry, target, data).await;
    eventually("the next process makes it", DEADLINE, async || {
        let (_, record) = world.get(&location).await;
        (record["status"] == "success").then_some(())
    })
    .await;
    assert_eq!(world.target.asked("GET /slow").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_droplet_has_a_time_out_of_its_own() {
    let world =
        World::with(gaia::controllers::droplet::Settings { task_timeout: Duration::from_millis(50), ..settings() })
            .await;
    let limits = json!({"timeoutSeconds": 20});
    world.declare("slow", json!({"endpoint": world.target.url(), "limits": limits})).await;
    let go_on = Arc::new(Notify::new());
    world.target.says("/slow", [Says::Nothing(go_on.clone())]);
    let body = json!({"droplet_name": "slow", "path": "/slow"});
    let waiting = tokio::spawn(answer(world.request(Method::POST, "/orchestrator/tasks").json(&body)));
    world.target.says("/quick", [Says::Nothing(Arc::new(Notify::new()))]);
    assert_eq!(world.call("/quick").await["status"], "timeout", "the process's own time-out");
    assert!(!waiting.is_finished(), "a droplet's own time-out counts for it");
    go_on.notify_one();
    assert_eq!(waiting.await.expect("no panic").1["status"], "success");
}
