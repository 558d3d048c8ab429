//! What runs, and what shall run: each call is a write of specs.

use gaia::api::workload::Variant;
use reqwest::Method;
use serde_json::json;

use super::world::World;

#[tokio::test]
async fn services_are_listed_in_order_with_prime_among_them() {
    let world = World::gaia().await;
    let text = world.request(Method::GET, "/containers/status").send().await.expect("an answer").text().await;
    let text = text.expect("a body");
    let places = ["core", "web", "mcp", "study", "prime"].map(|key| text.find(&format!("\"{key}\":{{")));
    assert!(places.is_sorted() && places[0].is_some(), "{text}");
    let (_, containers) = world.get("/containers/status").await;
    assert_eq!(containers["candidate"]["mcp"]["name"], "gaia-mcp-candidate");
    assert_eq!(containers["candidate"]["mcp"]["state"], "stopped");
    assert_eq!(containers["live"]["prime"]["port"], 7777);
    assert_eq!(containers["live"]["prime"]["last_check"], json!(null));
}

#[tokio::test]
async fn a_side_of_the_stack_stops_and_starts() {
    let world = World::gaia().await;
    let stopped = world.done("/containers/live/stop", "").await;
    assert_eq!((&stopped["success"], &stopped["message"]), (&json!(true), &json!("Live stack stopped")));
    assert_eq!(stopped["details"]["returncode"], 0);
    assert!(world.workload("gaia-core").await.spec.live.as_ref().is_some_and(|live| !live.running));
    let (_, containers) = world.get("/containers/status").await;
    assert_eq!(containers["live"]["core"]["state"], "stopped");
    let started = world.done("/containers/live/start", "").await;
    assert_eq!(started["message"], "Live stack started");
    let (_, containers) = world.get("/containers/status").await;
    assert_eq!(containers["live"]["core"]["state"], "running");
    assert_eq!(containers["live"]["core"]["healthy"], true);
}

/// The order that GAIA documents (section 5.3), and back.
#[tokio::test]
async fn the_candidate_stack_gets_the_card_once_the_live_stack_is_stopped() {
    let world = World::gaia().await;
    let early = world.done("/containers/candidate/start", r#"{"gpu_enabled":true}"#).await;
    assert_eq!(early["details"]["gpu"]["success"], false, "Prime has it, and is not stopped for it");
    assert!(world.runs("gaia-prime-live"));
    world.done("/containers/candidate/stop", "").await;
    world.done("/containers/live/stop", "").await;
    assert_eq!(world.owner().await, "none", "a stopped stack has no card");
    let started = world.done("/containers/candidate/start", r#"{"gpu_enabled":"yes","services":["core"]}"#).await;
    assert_eq!(started["message"], "Candidate stack started");
    let gpu = world.gpu_is("the candidate has it", |gpu| gpu["owner"] == "gaia-core-candidate").await;
    assert_eq!(gpu["reason"], "candidate_stack_start");
    world.settled().await;
    assert!(world.runs("gaia-prime-candidate"));
    world.done("/containers/candidate/stop", "").await;
    world.gpu_is("nobody has it", |gpu| gpu["owner"] == "none").await;
    world.done("/containers/live/start", r#"{"gpu_enabled":true}"#).await;
    let has_it = |gpu: &serde_json::Value| gpu["owner"] == "gaia-core" && gpu["queue"] == json!([]);
    world.gpu_is("prime has it again, and waits no longer", has_it).await;
}

#[tokio::test]
async fn a_stack_that_starts_takes_the_card_from_nobody() {
    let world = World::gaia().await;
    world.done("/handoff/prime-to-study", "").await;
    let started = world.done("/containers/candidate/start", r#"{"gpu_enabled":true}"#).await;
    assert_eq!(started["details"]["gpu"]["success"], false);
    assert_eq!(world.owner().await, "gaia-study");
}

#[tokio::test]
async fn a_swap_changes_who_answers() {
    let world = World::gaia().await;
    let swapped = world.done("/containers/swap", r#"{"service":"mcp"}"#).await;
    assert_eq!(swapped["message"], "Swapped mcp to candidate");
    let mcp = world.workload("gaia-mcp").await;
    assert_eq!(mcp.spec.active, Variant::Candidate);
    assert!(mcp.spec.candidate.as_ref().is_some_and(|candidate| candidate.running));
    world.done("/containers/swap", r#"{"service":"mcp","target":"live"}"#).await;
    assert_eq!(world.workload("gaia-mcp").await.spec.active, Variant::Live);
    let web = world.done("/containers/swap", r#"{"service":"web","target":"live"}"#).await;
    assert_eq!(web["details"]["message"], "No swap needed for web");
    for (body, detail) in [
        (r#"{"service":"moon"}"#, "Unknown service: moon"),
        (r#"{"service":"mcp","target":"moon"}"#, "Unknown target: moon"),
    ] {
        let (status, refused) = world.post("/containers/swap", body).await;
        assert_eq!((status.as_u16(), &refused["detail"]), (400, &json!(detail)));
    }
}

#[tokio::test]
async fn one_container_restarts_if_it_is_on_the_list() {
    let world = World::gaia().await;
    let restarted = world.done("/containers/gaia-web/restart", "").await;
    assert_eq!(restarted, json!({"ok": true, "container": "gaia-web"}));
    let web = world.workload("gaia-web").await;
    let labels = &web.spec.live.as_ref().expect("it has a live variant").container.labels;
    assert!(labels.contains_key("kubectl.kubernetes.io/restartedAt"), "{labels:?}");
    assert_eq!(world.post("/containers/gaia-orchestrator/restart", "").await.0, 403);
    assert_eq!(world.post("/containers/gaia-nano/restart", "").await.0, 500);
}
