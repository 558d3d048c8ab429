//! The card's sleep and waking, from Prime and back.

use gaia::{api::gpuclaim::GpuClaim, runtime::objects::Objects};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    peers::Says,
    world::{Made, World},
};

async fn is_asleep(world: &World) {
    let (_, gpu) = world.get("/gpu/status").await;
    assert_eq!((&gpu["owner"], &gpu["lease_id"]), (&json!("none"), &Value::Null));
    assert!(!world.runs("gaia-prime-live"));
    assert_eq!(gpu["queue"], json!([]));
}

#[tokio::test]
async fn prime_is_stopped_and_core_told_and_both_come_back() {
    let world = World::gaia().await;
    let asleep = world.done("/gpu/sleep", r#"{"reason":"sleep_cycle"}"#).await;
    assert_eq!(asleep, json!({"ok": true, "message": "GPU released for sleep", "state": "sleep"}));
    is_asleep(&world).await;
    assert_eq!(world.services.paths(), ["POST gaia-core-live/gpu/release"]);
    let again = world.done("/gpu/sleep", "").await;
    assert_eq!(again["ok"], true, "twice is once");
    let forced = world.done("/gpu/release", "").await;
    assert_eq!(forced["message"], "GPU released by none", "a release does not wake");
    is_asleep(&world).await;
    world.services.forget();
    let awake = world.done("/gpu/wake", "{}").await;
    assert_eq!(awake, json!({"ok": true, "message": "GPU reclaimed after wake", "state": "awake"}));
    assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), ("gaia-core", true));
    assert_eq!(world.services.paths(), ["POST gaia-core-live/gpu/reclaim"]);
    assert_eq!(world.done("/gpu/wake", "{}").await["ok"], true, "who is awake is awake");
}

#[rstest]
#[case("?wait=false", "")]
#[case("", "respond-async")]
#[tokio::test]
async fn who_does_not_wait_is_told_where_to_ask(#[case] query: &str, #[case] prefer: &str) {
    let world = World::gaia().await;
    for (call, path, let_go, end) in
        [("sleep", "/gpu/release", "none", false), ("wake", "/gpu/reclaim", "gaia-core", true)]
    {
        let core = world.services.hang(path);
        let request = world.request(Method::POST, &format!("/gpu/{call}{query}")).header("prefer", prefer);
        let accepted = request.send().await.expect("an answer");
        assert_eq!(accepted.status(), 202);
        let location = accepted.headers()["location"].to_str().expect("text").to_owned();
        let body: Value = accepted.json().await.expect("JSON");
        assert_eq!((&body["ok"], &body["state"]), (&json!(true), &json!("transitioning")), "{body}");
        assert_eq!(location, format!("/handoff/{}/status", body["handoff_id"].as_str().expect("an id")));
        core.notify_one();
        world.services.answer(path, Says::Yes);
        world.settled().await;
        assert_eq!(world.get(&location).await.1["phase"], "completed");
        assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), (let_go, end));
    }
}

#[tokio::test]
async fn core_that_refuses_is_told_so_and_prime_stays() {
    let world = World::gaia().await;
    world.services.answer("/gpu/release", Says::No);
    let (code, refused) = world.post("/gpu/sleep", r#"{"reason":"sleep_cycle"}"#).await;
    assert_eq!((code.as_u16(), &refused["detail"]), (500, &json!("Failed to release GPU for sleep")));
    assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), ("gaia-core", true));
    // And nobody puts it to sleep later: the wish has gone with the call.
    let claims = world.objects.list::<GpuClaim>(None).await.expect("a store");
    assert!(claims.is_empty(), "{claims:?}");
}

#[tokio::test]
async fn sleep_leaves_a_training_alone_and_waking_does_not_break_it_off() {
    let world = World::gaia().await;
    world.done("/handoff/prime-to-study", "").await;
    let told = world.done("/gpu/sleep", "").await;
    assert_eq!(told["ok"], true);
    assert!(told["message"].as_str().is_some_and(|text| text.starts_with("MEDITATION active")), "{told}");
    let (code, refused) = world.post("/gpu/wake", "{}").await;
    assert_eq!((code.as_u16(), &refused["detail"]), (500, &json!("Failed to reclaim GPU on wake")));
    assert_eq!(refused["holder"], "gaia-study");
    assert_eq!(world.owner().await, "gaia-study");
    world.done("/handoff/study-to-prime", "{}").await;
    assert_eq!(world.owner().await, "gaia-core");
}

#[tokio::test]
async fn a_training_may_begin_in_the_sleep_and_prime_wakes_after_it() {
    let world = World::gaia().await;
    world.done("/gpu/sleep", "").await;
    // Somebody looked in between, and left a second wish to sleep behind.
    let audio = world.done("/gpu/acquire", r#"{"requester":"gaia-audio","reason":"voice"}"#).await;
    world.done("/gpu/release", &json!({"lease_id": audio["lease_id"]}).to_string()).await;
    world.gpu_is("asleep again", |gpu| gpu["owner"] == "none").await;
    let there = world.done("/handoff/prime-to-study", "").await;
    assert_eq!((&there["source"], world.owner().await.as_str()), (&json!("none"), "gaia-study"));
    world.done("/handoff/study-to-prime", "").await;
    assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), ("gaia-core", true));
}

/// On the wire a card that sleeps is free.
#[tokio::test]
async fn who_asks_in_the_sleep_is_granted_and_prime_sleeps_on() {
    let world = World::gaia().await;
    world.done("/gpu/sleep", "").await;
    for _ in 0..2 {
        let granted = world.done("/gpu/acquire", r#"{"requester":"gaia-audio","reason":"voice"}"#).await;
        assert_eq!((&granted["success"], world.owner().await.as_str()), (&json!(true), "gaia-audio"));
        world.done("/gpu/release", &json!({"lease_id": granted["lease_id"]}).to_string()).await;
        world.gpu_is("free again", |gpu| gpu["owner"] == "none").await;
        assert!(!world.runs("gaia-prime-live"));
    }
    world.done("/gpu/wake", "").await;
    assert_eq!(world.owner().await, "gaia-core");
    // No wish to sleep is left that could come true later.
    let claims = world.objects.list::<GpuClaim>(None).await.expect("a store");
    let over = |claim: &GpuClaim| claim.status.as_ref().is_some_and(|status| status.phase.is_terminal());
    assert!(claims.iter().all(|claim| over(claim)), "{claims:?}");
}

/// Section 9.3; a flag that was forgotten blocks nothing (section 8, incidents).
#[tokio::test]
async fn nobody_is_woken_in_maintenance() {
    let shared = tempfile::tempdir().expect("a directory");
    let made = Made { shared_dir: Some(shared.path().to_owned()), ..Made::default() };
    let world = World::gaia_with(made).await;
    world.done("/gpu/sleep", "").await;
    let file = shared.path().join("maintenance_mode.json");
    let flag = |entered: &str| {
        json!({"active": true, "entered_at": entered, "entered_by": "azrael", "reason": "upgrade"}).to_string()
    };
    std::fs::write(&file, flag(&jiff::Timestamp::now().to_string())).expect("written");
    let told = world.done("/gpu/wake", "{}").await;
    assert_eq!(told, json!({"ok": false, "message": "maintenance mode active", "state": "suppressed"}));
    assert_eq!(world.get("/ha/status").await.1["maintenance_mode"], true);
    assert!(!world.runs("gaia-prime-live"));
    std::fs::write(&file, flag("2026-01-01T00:00:00")).expect("written");
    assert_eq!(world.done("/gpu/wake", "{}").await["ok"], true);
}
