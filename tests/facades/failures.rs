//! Handoffs that cannot succeed: they end, in the words that clients know, and everything is put back (contract, section 10, 5;
//! section 8, 2, 3, 6).

use serde_json::{Value, json};

use super::{peers::Says, world::World};

/// Asks for a handoff that must fail; its end as it can be asked for afterwards.
async fn fails(world: &World, path: &str, body: &str, detail: &str) -> Value {
    let (code, refused) = world.post(path, body).await;
    assert_eq!((code.as_u16(), &refused["detail"]), (500, &json!(detail)), "{refused}");
    let (_, status) = world.get(&format!("/handoff/{}/status", refused["handoff_id"].as_str().expect("an id"))).await;
    assert_eq!((&status["phase"], &status["ok"]), (&json!("failed"), &json!(false)));
    assert_eq!(status["error"], refused["error"]);
    let (_, whole) = world.get("/status").await;
    assert_eq!(whole["active_handoff"], Value::Null, "another one may begin");
    status
}

#[tokio::test]
async fn core_that_refuses_keeps_prime_running() {
    let world = World::gaia().await;
    world.services.answer("/gpu/release", Says::No);
    fails(&world, "/handoff/prime-to-study", "", "Core failed to acknowledge GPU release").await;
    assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), ("gaia-core", true));
    // And once it agrees, it goes.
    world.services.answer("/gpu/release", Says::Yes);
    world.done("/handoff/prime-to-study", "").await;
}

#[tokio::test]
async fn core_that_does_not_answer_is_not_waited_for_for_ever() {
    let world = World::gaia().await;
    world.services.hang("/gpu/release");
    let body = r#"{"timeout_seconds": 2}"#;
    fails(&world, "/handoff/prime-to-study", body, "Core failed to acknowledge GPU release").await;
    assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), ("gaia-core", true));
}

#[tokio::test]
async fn memory_that_stays_brings_prime_back() {
    let world = World::gaia().await;
    // The driver alone uses more.
    world.edit_card(json!({"cleanup": {"freeBelow": "1Mi"}})).await;
    let ended = fails(
        &world,
        "/handoff/prime-to-study",
        r#"{"timeout_seconds": 3}"#,
        "GPU cleanup timeout - VRAM not released",
    )
    .await;
    assert_eq!(ended["progress_pct"], 30, "how far it came");
    assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), ("gaia-core", true));
}

#[tokio::test]
async fn study_that_does_not_let_go_is_stopped() {
    let world = World::gaia().await;
    world.done("/handoff/prime-to-study", "").await;
    world.services.answer("/study/gpu-release", Says::No);
    let done = world.done("/handoff/study-to-prime", "").await;
    assert_eq!(done["phase"], "completed");
    assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), ("gaia-core", true));
}

#[tokio::test]
async fn prime_that_does_not_come_back_is_no_success() {
    let world = World::gaia().await;
    world.done("/handoff/prime-to-study", "").await;
    world.edit_workload("gaia-prime", json!({"gpu": {"acquireSteps": [{"start": {}, "timeoutSeconds": 2}]}})).await;
    assert!(world.engine.set_answering("gaia-prime-live", Some(false)));
    let text = "start default/gaia-prime failed: does not run and answer within 2 s";
    fails(&world, "/handoff/study-to-prime", "", text).await;
    assert_eq!(world.owner().await, "gaia-study", "who had the card has it");
    assert_eq!((world.runs("gaia-prime-live"), world.runs("gaia-study-live")), (false, true));
}
