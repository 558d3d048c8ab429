//! Handoffs as the scripts of GAIA ask for them.

use futures::StreamExt;
use gaia::{
    api::{
        gpu::Gpu,
        handoff::{Handoff, HandoffReason},
    },
    registry::ObjectName,
    runtime::objects::Objects,
};
use kube::runtime::watcher::Event;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    judge::Fate,
    world::{World, answer},
};

async fn awake() -> World {
    let world = World::gaia().await;
    world.gpu_is("prime has its card", |gpu| gpu["owner"] == "gaia-core").await;
    world
}

/// Every body that a client of GAIA sends, the ones that its own service refused among them.
#[rstest]
#[case("")]
#[case("{}")]
#[case("null")]
#[case(r#"{"handoff_type":null}"#)]
#[case(r#"{"handoff_type":"prime_to_study","reason":"qlora","timeout_seconds":"120"}"#)]
#[case(r#"{"reason":"wake","surprise":[1,2]}"#)]
#[tokio::test]
async fn the_card_goes_to_study_and_back(#[case] body: &str) {
    let world = awake().await;
    let there = world.done("/handoff/prime-to-study", body).await;
    assert_eq!(there["handoff_type"], "prime_to_study");
    assert_eq!(there["phase"], "completed");
    assert_eq!((&there["source"], &there["destination"]), (&json!("gaia-core"), &json!("gaia-study")));
    assert_eq!((&there["progress_pct"], &there["error"]), (&json!(100), &Value::Null));
    assert_eq!((&there["ok"], &there["state"]), (&json!(true), &json!("meditation")));
    assert!(there["elapsed_s"].is_number() && there["completed_at"].is_string(), "{there}");
    assert_eq!(world.owner().await, "gaia-study");
    let (_, again) = world.get(&format!("/handoff/{}/status", there["handoff_id"].as_str().expect("an id"))).await;
    assert_eq!(again, there);
    let back = world.done("/handoff/study-to-prime", "").await;
    assert_eq!((&back["phase"], &back["state"]), (&json!("completed"), &json!("awake")));
    assert_eq!(world.owner().await, "gaia-core");
}

#[rstest]
#[case("/handoff/prime-to-study?wait=false", "", "")]
#[case("/handoff/prime-to-study", "respond-async", "")]
#[case("/handoff/prime-to-study", "", r#"{"reason":"promotion_pipeline","timeout_seconds":180}"#)]
#[tokio::test]
async fn who_does_not_wait_gets_an_id_to_ask_for(#[case] path: &str, #[case] prefer: &str, #[case] body: &str) {
    let world = awake().await;
    world.script.set(Fate::Hangs);
    let request = world.request(Method::POST, path).header("prefer", prefer).body(body.to_owned());
    let accepted = request.send().await.expect("an answer");
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().expect("text").to_owned();
    let started: Value = accepted.json().await.expect("JSON");
    assert_eq!(location, format!("/handoff/{}/status", started["handoff_id"].as_str().expect("an id")));
    assert_ne!(started["phase"], "completed");
    let (_, status) = world.get("/status").await;
    assert_eq!(status["active_handoff"]["handoff_id"], started["handoff_id"]);
    let (code, refused) = world.post("/handoff/study-to-prime", "").await;
    let text = format!("Handoff already in progress: {}", started["handoff_id"].as_str().expect("an id"));
    assert_eq!((code.as_u16(), &refused["detail"]), (500, &json!(text)));
}

#[tokio::test]
async fn a_handoff_can_be_cancelled_while_it_runs_and_not_later() {
    let world = awake().await;
    world.script.set(Fate::Hangs);
    let (_, started) = world.post("/handoff/prime-to-study?wait=false", "").await;
    let cancel = format!("/handoff/{}/cancel", started["handoff_id"].as_str().expect("an id"));
    assert_eq!(world.done(&cancel, "").await["phase"], "cancelled");
    assert_eq!(world.owner().await, "gaia-core");
    world.script.set(Fate::Completes);
    let done = world.done("/handoff/prime-to-study", "").await;
    let id = done["handoff_id"].as_str().expect("an id");
    let (code, refused) = world.post(&format!("/handoff/{id}/cancel"), "").await;
    assert_eq!((code.as_u16(), &refused["detail"]), (409, &json!(format!("Handoff {id} is already completed"))));
}

#[rstest]
#[case(HandoffReason::ReleaseFailed, "Core failed to acknowledge GPU release")]
#[case(HandoffReason::MemoryNotFreed, "GPU cleanup timeout - VRAM not released")]
#[case(HandoffReason::RecipientFailed, "what really happened")]
#[tokio::test]
async fn a_failure_is_told_in_the_words_that_clients_know(#[case] reason: HandoffReason, #[case] detail: &str) {
    let world = awake().await;
    world.script.set(Fate::Fails(reason, "what really happened"));
    let (code, refused) = world.post("/handoff/prime-to-study", "").await;
    assert_eq!((code.as_u16(), &refused["detail"]), (500, &json!(detail)));
    assert_eq!(refused["error"], "what really happened");
    let (_, status) = world.get(&format!("/handoff/{}/status", refused["handoff_id"].as_str().expect("an id"))).await;
    assert_eq!((&status["phase"], &status["ok"]), (&json!("failed"), &json!(false)));
}

#[tokio::test]
async fn a_refusal_leaves_no_trace() {
    let world = awake().await;
    let (code, refused) = world.post("/handoff/study-to-prime", "").await;
    let text = "Cannot handoff - GPU owned by gaia-core, expected gaia-study";
    assert_eq!((code.as_u16(), &refused["detail"]), (500, &json!(text)));
    assert!(world.objects.list::<Handoff>(None).await.expect("a store").is_empty());
}

#[tokio::test]
async fn live_and_candidate_change_places_and_the_candidate_is_meant_to_run() {
    let world = awake().await;
    let there = world.done("/handoff/live-to-candidate", "").await;
    assert_eq!(
        (&there["handoff_type"], &there["destination"]),
        (&json!("live_to_candidate"), &json!("gaia-core-candidate"))
    );
    assert_eq!(world.owner().await, "gaia-core-candidate");
    assert!(world.workload("gaia-prime").await.spec.candidate.as_ref().is_some_and(|candidate| candidate.running));
    world.done("/handoff/candidate-to-live", "").await;
    assert_eq!(world.owner().await, "gaia-core");
}

#[tokio::test]
async fn study_mode_names_a_target() {
    let world = awake().await;
    world.done("/gpu/handoff", r#"{"target":"study","reason":"training"}"#).await;
    assert_eq!(world.owner().await, "gaia-study");
    let there = world.done("/gpu/handoff", r#"{"target":"study"}"#).await;
    assert_eq!(there["ok"], true);
    world.done("/gpu/handoff", r#"{"target":"core"}"#).await;
    assert_eq!(world.owner().await, "gaia-core");
}

#[tokio::test]
async fn a_caller_who_goes_away_stops_no_handoff() {
    let world = awake().await;
    world.script.set(Fate::Hangs);
    let waiting = tokio::spawn(answer(world.request(Method::POST, "/handoff/prime-to-study")));
    let mut handoffs = world.objects.watch::<Handoff>();
    let id = loop {
        if let Some(Event::Apply(handoff) | Event::InitApply(handoff)) = handoffs.next().await {
            break handoff.metadata.uid.expect("an id");
        }
    };
    waiting.abort();
    world.script.set(Fate::Completes);
    let name = ObjectName { namespace: None, name: "gpu0".to_owned() };
    let gpu = world.objects.get::<Gpu>(&name).await.expect("a store").expect("a card");
    let mut gpu = (*gpu).clone();
    gpu.metadata.resource_version = None;
    gpu.spec.lend = false;
    world.objects.update(gpu).await.expect("any change wakes the stand-in");
    world.gpu_is("study has the card", |gpu| gpu["owner"] == "gaia-study").await;
    let completed = world.done("/handoff/study-to-prime", "").await;
    assert_ne!(completed["handoff_id"], json!(id));
    let (_, status) = world.get(&format!("/handoff/{id}/status")).await;
    assert_eq!(status["phase"], "completed");
}
