//! Handoffs as the scripts of GAIA ask for them.

use futures::StreamExt;
use gaia::{api::handoff::Handoff, runtime::objects::Objects};
use kube::runtime::watcher::Event;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    peers::Call,
    world::{World, answer},
};

/// Every body that a client of GAIA sends, those among them that its own service refused (contract, section 10, 9).
#[tokio::test]
async fn the_card_goes_to_study_and_back_whatever_the_body_says() {
    let world = World::gaia().await;
    let bodies = [
        "",
        "{}",
        "null",
        r#"{"handoff_type":null}"#,
        r#"{"handoff_type":"prime_to_study","reason":"qlora","timeout_seconds":"120"}"#,
        r#"{"reason":"wake","surprise":[1,2]}"#,
    ];
    for (turn, body) in bodies.into_iter().enumerate() {
        let there = turn % 2 == 0;
        let (path, type_, source, destination, state) = match there {
            true => ("prime-to-study", "prime_to_study", "gaia-core", "gaia-study", "meditation"),
            false => ("study-to-prime", "study_to_prime", "gaia-study", "gaia-core", "awake"),
        };
        let done = world.done(&format!("/handoff/{path}"), body).await;
        assert_eq!((&done["handoff_type"], &done["phase"]), (&json!(type_), &json!("completed")), "{body}: {done}");
        assert_eq!((&done["source"], &done["destination"]), (&json!(source), &json!(destination)));
        assert_eq!((&done["progress_pct"], &done["error"]), (&json!(100), &Value::Null));
        assert_eq!((&done["ok"], &done["state"]), (&json!(true), &json!(state)));
        assert!(done["elapsed_s"].is_number() && done["completed_at"].is_string(), "{done}");
        assert_eq!(world.owner().await, destination);
        // Completed means that it is so (section 8, 3); study works without the card too, and is not stopped for it.
        assert_eq!((world.runs("gaia-prime-live"), world.runs("gaia-study-live")), (!there, true));
        let (_, again) = world.get(&format!("/handoff/{}/status", done["handoff_id"].as_str().expect("an id"))).await;
        assert_eq!(again, done);
    }
}

/// Section 10, 3: which service is called when, and with what. No body says anything (section 4).
#[tokio::test]
async fn the_services_are_told_in_order_and_without_words() {
    let world = World::gaia().await;
    world.done("/handoff/prime-to-study", "").await;
    world.done("/handoff/study-to-prime", "").await;
    let call = |to: &str| Call { to: to.to_owned(), body: None };
    let told = [
        call("POST gaia-core-live/gpu/release"),
        call("POST gaia-study-live/study/gpu-ready"),
        call("POST gaia-study-live/study/gpu-release"),
        call("POST gaia-core-live/gpu/reclaim"),
    ];
    assert_eq!(world.services.calls(), told);
}

/// Section 8, 4: who does not want to wait has the id at once, by two ways of asking, and `promote_pipeline.sh`, which cannot
/// ask, by its words.
#[rstest]
#[case("/handoff/prime-to-study?wait=false", "", "")]
#[case("/handoff/prime-to-study", "wait=5, respond-async", "")]
#[case("/handoff/prime-to-study", "", r#"{"reason":"promotion_pipeline","timeout_seconds":180}"#)]
#[tokio::test]
async fn who_does_not_wait_gets_an_id_to_ask_for(#[case] path: &str, #[case] prefer: &str, #[case] body: &str) {
    let world = World::gaia().await;
    let core = world.services.hang("/gpu/release");
    let request = world.request(Method::POST, path).header("prefer", prefer).body(body.to_owned());
    let accepted = request.send().await.expect("an answer");
    assert_eq!(accepted.status(), 202);
    let location = accepted.headers()["location"].to_str().expect("text").to_owned();
    let started: Value = accepted.json().await.expect("JSON");
    let id = started["handoff_id"].as_str().expect("an id");
    assert_eq!(location, format!("/handoff/{id}/status"));
    assert_ne!(started["phase"], "completed");
    let (_, status) = world.get("/status").await;
    assert_eq!(status["active_handoff"]["handoff_id"], started["handoff_id"]);
    let (code, refused) = world.post("/handoff/study-to-prime", "").await;
    assert_eq!((code.as_u16(), &refused["detail"]), (500, &json!(format!("Handoff already in progress: {id}"))));
    core.notify_one();
    world.settled().await;
    let (_, ended) = world.get(&location).await;
    assert_eq!((&ended["phase"], &ended["handoff_id"]), (&json!("completed"), &json!(id)));
}

#[tokio::test]
async fn a_handoff_can_be_cancelled_while_it_runs_and_not_later() {
    let world = World::gaia().await;
    world.services.hang("/gpu/release");
    let (_, started) = world.post("/handoff/prime-to-study?wait=false", "").await;
    let cancel = format!("/handoff/{}/cancel", started["handoff_id"].as_str().expect("an id"));
    assert_eq!(world.done(&cancel, "").await["phase"], "cancelled");
    assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), ("gaia-core", true));
    assert_eq!(world.done(&cancel, "").await["phase"], "cancelled", "twice is once");
    world.services.answer("/gpu/release", super::peers::Says::Yes);
    let done = world.done("/handoff/prime-to-study", "").await;
    let id = done["handoff_id"].as_str().expect("an id");
    let (code, refused) = world.post(&format!("/handoff/{id}/cancel"), "").await;
    assert_eq!((code.as_u16(), &refused["detail"]), (409, &json!(format!("Handoff {id} is already completed"))));
}

#[tokio::test]
async fn a_refusal_leaves_no_trace() {
    let world = World::gaia().await;
    let before = world.objects.list::<Handoff>(None).await.expect("a store").len();
    let (code, refused) = world.post("/handoff/study-to-prime", "").await;
    let text = "Cannot handoff - GPU owned by gaia-core, expected gaia-study";
    assert_eq!((code.as_u16(), &refused["detail"]), (500, &json!(text)));
    assert_eq!(world.objects.list::<Handoff>(None).await.expect("a store").len(), before);
}

/// Section 8.1: the two types that GAIA named and never had.
#[tokio::test]
async fn live_and_candidate_change_places_and_the_candidate_is_meant_to_run() {
    let world = World::gaia().await;
    let there = world.done("/handoff/live-to-candidate", "").await;
    assert_eq!(
        (&there["handoff_type"], &there["destination"]),
        (&json!("live_to_candidate"), &json!("gaia-core-candidate"))
    );
    assert_eq!(world.owner().await, "gaia-core-candidate");
    assert_eq!((world.runs("gaia-prime-live"), world.runs("gaia-prime-candidate")), (false, true));
    world.done("/handoff/candidate-to-live", "").await;
    assert_eq!(world.owner().await, "gaia-core");
    assert_eq!((world.runs("gaia-prime-live"), world.runs("gaia-prime-candidate")), (true, false));
}

/// Section 1.7: gaia-study's manager of its mode calls what never existed.
#[tokio::test]
async fn study_mode_names_a_target() {
    let world = World::gaia().await;
    world.done("/gpu/handoff", r#"{"target":"study","reason":"training"}"#).await;
    assert_eq!(world.owner().await, "gaia-study");
    let there = world.done("/gpu/handoff", r#"{"target":"study"}"#).await;
    assert_eq!(there["ok"], true);
    world.done("/gpu/handoff", r#"{"target":"core"}"#).await;
    assert_eq!(world.owner().await, "gaia-core");
}

#[tokio::test]
async fn a_caller_who_goes_away_stops_no_handoff() {
    let world = World::gaia().await;
    let core = world.services.hang("/gpu/release");
    let mut handoffs = world.objects.watch::<Handoff>();
    while !matches!(handoffs.next().await, Some(Event::InitDone)) {}
    let waiting = tokio::spawn(answer(world.request(Method::POST, "/handoff/prime-to-study")));
    let id = loop {
        if let Some(Event::Apply(handoff)) = handoffs.next().await {
            break handoff.metadata.uid.expect("an id");
        }
    };
    waiting.abort();
    core.notify_one();
    world.gpu_is("study has the card", |gpu| gpu["owner"] == "gaia-study").await;
    world.settled().await;
    let (_, status) = world.get(&format!("/handoff/{id}/status")).await;
    assert_eq!(status["phase"], "completed");
}
