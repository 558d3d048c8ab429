//! Acquire, wait and release: one holder, a queue that grants, and nobody who is gone keeps anything.

use gaia::{api::gpuclaim::GpuClaim, runtime::objects::Objects};
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{World, answer};

fn ask(requester: &str, more: &str) -> String {
    format!(r#"{{"requester":"{requester}","reason":"test"{more}}}"#)
}

#[tokio::test]
async fn a_free_card_is_granted_and_a_held_one_queues() {
    let world = World::bare().await;
    let granted = world.done("/gpu/acquire", &ask("gaia-core", "")).await;
    assert_eq!(granted["success"], true);
    assert_eq!(granted["message"], "GPU ownership granted to gaia-core");
    assert_eq!(granted["queue_position"], Value::Null);
    let queued = world.done("/gpu/acquire", &ask("gaia-study", r#","priority":"5""#)).await;
    let refused = json!({
        "success": false, "lease_id": null, "message": "GPU owned by gaia-core, queued at position 1", "queue_position": 1,
    });
    assert_eq!(queued, refused);
    assert_eq!(world.done("/gpu/acquire", &ask("gaia-study", "")).await, refused, "asking twice takes one place");
    let (_, gpu) = world.get("/gpu/status").await;
    assert_eq!((&gpu["owner"], &gpu["queue"]), (&json!("gaia-core"), &json!(["gaia-study"])));
    assert_eq!(gpu["lease_id"], granted["lease_id"]);
    assert!(gpu["acquired_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{gpu}");
}

#[tokio::test]
async fn a_release_needs_the_right_lease_or_none_wherever_it_is_written() {
    let world = World::bare().await;
    let free = world.done("/gpu/release", "").await;
    assert_eq!(free, json!({"success": true, "message": "GPU released by none", "queue_length": 0}));
    for place in ["query", "body"] {
        let granted = world.done("/gpu/acquire", &ask("gaia-audio", "")).await;
        let lease = granted["lease_id"].as_str().expect("a lease").to_owned();
        let release = |lease: &str| match place {
            "query" => (format!("/gpu/release?lease_id={lease}"), String::new()),
            _ => ("/gpu/release".to_owned(), format!(r#"{{"lease_id":"{lease}"}}"#)),
        };
        let (path, body) = release("another");
        let (status, refused) = world.post(&path, &body).await;
        assert_eq!(status, 403);
        assert_eq!(refused["detail"], "Invalid lease ID - cannot release GPU owned by another process");
        let (path, body) = release(&lease);
        assert_eq!(world.done(&path, &body).await["message"], "GPU released by gaia-audio");
        assert_eq!(world.owner().await, "none");
    }
    world.done("/gpu/acquire", &ask("gaia-audio", "")).await;
    let forced = world.done("/gpu/release", r#"{"reason":"zombie"}"#).await;
    assert_eq!((&forced["success"], world.owner().await.as_str()), (&json!(true), "none"));
}

#[tokio::test]
async fn a_release_grants_exactly_one_waiter_by_priority() {
    let world = World::bare().await;
    let held = world.done("/gpu/acquire", &ask("gaia-core", "")).await;
    let low = async { world.done("/gpu/wait", &ask("gaia-study", r#","timeout_seconds":3"#)).await };
    let high = async { world.done("/gpu/wait", &ask("gaia-audio", r#","timeout_seconds":30,"priority":7"#)).await };
    let release = async {
        world.gpu_is("both wait", |gpu| gpu["queue"] == json!(["gaia-audio", "gaia-study"])).await;
        world.done(&format!("/gpu/release?lease_id={}", held["lease_id"].as_str().expect("a lease")), "").await
    };
    let (low, high, released) = tokio::join!(low, high, release);
    assert_eq!(released["message"], "GPU released by gaia-core");
    assert_eq!((&high["success"], &high["message"]), (&json!(true), &json!("GPU ownership granted to gaia-audio")));
    assert_eq!(low["success"], false);
    assert_eq!(low["message"], "Timeout waiting for GPU after 3s");
    assert_eq!(low["queue_position"], 1);
    let (_, gpu) = world.get("/gpu/status").await;
    assert_eq!((&gpu["owner"], &gpu["queue"]), (&json!("gaia-audio"), &json!([])), "who waited in vain has left");
    assert_eq!(gpu["lease_id"], high["lease_id"]);
    let own = world.done("/gpu/wait", &ask("gaia-audio", "")).await;
    assert_eq!((&own["message"], &own["lease_id"]), (&json!("Already own GPU"), &high["lease_id"]));
}

#[tokio::test]
async fn no_time_to_wait_is_an_answer_at_once() {
    let world = World::bare().await;
    let late = world.done("/gpu/wait", &ask("gaia-core", r#","timeout_seconds":-1"#)).await;
    assert_eq!(late["message"], "Timeout waiting for GPU after -1s");
    assert_eq!(world.owner().await, "none");
}

#[tokio::test]
async fn who_hangs_up_leaves_the_queue() {
    let world = World::bare().await;
    world.done("/gpu/acquire", &ask("gaia-core", "")).await;
    let waiting = world.request(Method::POST, "/gpu/wait").body(ask("gaia-study", ""));
    let waiting = tokio::spawn(answer(waiting));
    world.gpu_is("it waits", |gpu| gpu["queue"] == json!(["gaia-study"])).await;
    waiting.abort();
    world.gpu_is("it has left", |gpu| gpu["queue"] == json!([])).await;
}

#[tokio::test]
async fn a_lease_that_was_told_has_no_end_and_one_that_nobody_fetched_has() {
    let world = World::bare().await;
    world.done("/gpu/acquire", &ask("gaia-core", "")).await;
    world.done("/gpu/acquire", &ask("gaia-study", "")).await;
    let end = async |holder: &str| {
        let claims = world.objects.list::<GpuClaim>(None).await.expect("a store");
        let name = if holder == "gaia-core" { "gaia-api-gaia-core" } else { "gaia-api-gaia-study" };
        claims.iter().find(|claim| claim.metadata.name.as_deref() == Some(name)).expect("a claim").spec.ttl_seconds
    };
    assert_eq!(end("gaia-core").await, None);
    assert_eq!(end("gaia-study").await, Some(60));
    world.done("/gpu/release", "").await;
    world.gpu_is("the queue grants", |gpu| gpu["owner"] == "gaia-study").await;
    let fetched = world.done("/gpu/acquire", &ask("gaia-study", "")).await;
    assert_eq!(fetched["success"], true);
    assert_eq!(end("gaia-study").await, None);
}

/// gaia-audio asks before every sentence it speaks, and goes without when the card is held: Prime must not be stopped for it.
#[tokio::test]
async fn who_asks_while_prime_has_the_card_waits_and_prime_runs_on() {
    let world = World::gaia().await;
    let queued = world.done("/gpu/acquire", &ask("gaia-audio", r#","timeout_seconds":30"#)).await;
    assert_eq!(queued["message"], "GPU owned by gaia-core, queued at position 1");
    let late = world.done("/gpu/wait", &ask("gaia-study", r#","timeout_seconds":1"#)).await;
    assert_eq!((&late["success"], &late["queue_position"]), (&json!(false), &json!(2)));
    let (_, gpu) = world.get("/gpu/status").await;
    assert_eq!((&gpu["owner"], &gpu["queue"]), (&json!("gaia-core"), &json!(["gaia-audio"])));
    assert!(world.runs("gaia-prime-live"));
    assert_eq!(world.services.paths(), [] as [&str; 0], "nobody was told to let go");
    // Prime gives it back by its lease, as anybody would: the queue grants.
    world.done(&format!("/gpu/release?lease_id={}", gpu["lease_id"].as_str().expect("a lease")), "").await;
    world.gpu_is("audio has it", |gpu| gpu["owner"] == "gaia-audio").await;
    assert!(!world.runs("gaia-prime-live"));
    let fetched = world.done("/gpu/acquire", &ask("gaia-audio", "")).await;
    assert_eq!(fetched["success"], true);
    world.done("/gpu/release", &json!({"lease_id": fetched["lease_id"]}).to_string()).await;
    world.gpu_is("prime has it again", |gpu| gpu["owner"] == "gaia-core").await;
}

/// Section 10, 6; section 8, 8.
#[tokio::test]
async fn who_asks_during_a_handoff_is_queued_and_overwrites_nobody() {
    let world = World::gaia().await;
    let core = world.services.hang("/gpu/release");
    world.post("/handoff/prime-to-study?wait=false", "").await;
    let queued = world.done("/gpu/acquire", &ask("gaia-audio", "")).await;
    assert_eq!(queued["message"], "GPU owned by gaia-core, queued at position 1");
    core.notify_one();
    world.gpu_is("study has it", |gpu| gpu["owner"] == "gaia-study").await;
    world.settled().await;
    let (_, gpu) = world.get("/gpu/status").await;
    assert_eq!((&gpu["owner"], &gpu["queue"]), (&json!("gaia-study"), &json!(["gaia-audio"])));
}

#[tokio::test]
async fn the_end_of_the_process_waits_for_no_waiter() {
    let world = World::bare().await;
    world.done("/gpu/acquire", &ask("gaia-core", "")).await;
    let waiting = tokio::spawn(answer(world.request(Method::POST, "/gpu/wait").body(ask("gaia-study", ""))));
    world.gpu_is("it waits", |gpu| gpu["queue"] == json!(["gaia-study"])).await;
    world.shutdown.cancel();
    let (status, told) = waiting.await.expect("it ends");
    assert_eq!((status.as_u16(), &told["detail"]), (503, &json!("Orchestrator is shutting down")));
}
