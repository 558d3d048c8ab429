//! Those who do not do what they are asked: the card changes hands only by proof, and what was done is put back and told.

use std::{process::Command, time::Duration};

use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{CORE, PRIME, STUDY, World, handoff_path, steps, workload_path};

const NOT_FREED: &str = "GPU cleanup timeout - VRAM not released";
const CORE_REFUSES: &str = "Core failed to acknowledge GPU release";

/// The only handoff whose name begins so.
async fn record(world: &World, begin: &str) -> Value {
    let all = world.get("namespaces/default/handoffs").await;
    let mut items = all["items"].as_array().cloned().unwrap_or_default();
    items.retain(|handoff| handoff["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(begin)));
    assert_eq!(items.len(), 1, "{all:#}");
    items.remove(0)
}

/// As its own fault would, and not the engine.
fn kill(pid: u64) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.expect("kill runs").success());
}

async fn to_study(world: &World) {
    let (code, done) = world.post("/handoff/prime-to-study").await;
    assert_eq!(code, 200, "{done}\n{}", world.tell().await);
    world.settled(STUDY).await;
}

#[tokio::test]
async fn a_study_that_says_it_has_let_go_and_has_not_is_stopped() {
    let world = World::with(|stack| stack.spec(STUDY)["gpu"]["releaseSteps"][0]["timeoutSeconds"] = json!(2)).await;
    to_study(&world).await;
    world.card.manner("gaia-study-live", "/study/gpu-release", "lie");
    let (code, back) = world.post("/handoff/study-to-prime").await;
    assert_eq!((code, &back["phase"]), (200, &json!("completed")), "{back}");
    world.settled(PRIME).await;
    let record = record(&world, "study-to-prime").await;
    let told = [
        "http POST gaia-study:8766/study/gpu-release: Succeeded",
        "stop default/gaia-study: Succeeded",
        "start default/gaia-prime: Succeeded",
        "http POST gaia-core:6415/gpu/reclaim: Succeeded",
    ];
    assert_eq!(steps(&record["status"]["steps"]), told);
    world.host.running("gaia-study-live").await;
}

#[tokio::test]
async fn a_study_that_lets_go_late_is_waited_for_and_not_stopped() {
    let world = World::awake().await;
    to_study(&world).await;
    let study = world.host.running("gaia-study-live").await;
    world.card.manner("gaia-study-live", "/study/gpu-release", "late 1500");
    let (code, back) = world.post("/handoff/study-to-prime").await;
    assert_eq!((code, &back["phase"]), (200, &json!("completed")), "{back}");
    world.settled(PRIME).await;
    assert_eq!(world.host.running("gaia-study-live").await, study);
}

#[tokio::test]
async fn a_study_that_never_lets_go_keeps_the_card_where_nothing_harder_is_allowed() {
    let world = World::with(|stack| {
        let ask = &mut stack.spec(STUDY)["gpu"]["releaseSteps"];
        *ask = json!([{"http": {"port": 8766, "path": "/study/gpu-release"}, "timeoutSeconds": 2}]);
        stack.gpu["spec"]["onStuck"] = json!([]);
        stack.gpu["spec"]["cleanup"]["timeoutSeconds"] = json!(2);
    })
    .await;
    to_study(&world).await;
    let study = world.host.running("gaia-study-live").await;
    world.card.manner("gaia-study-live", "/study/gpu-release", "lie");
    let (code, refused) = world.post("/handoff/study-to-prime").await;
    assert_eq!((code, &refused["detail"]), (500, &json!(NOT_FREED)), "{refused}");
    let why = refused["error"].as_str().unwrap_or_default();
    assert!(why.contains(&study.pid.to_string()), "it names who is still there: {why}");
    world.settled(STUDY).await;
    assert_eq!(world.host.running("gaia-study-live").await, study, "it trains on");
    let failed = record(&world, "study-to-prime").await;
    assert_eq!(failed["status"]["rollback"]["outcome"], "Succeeded", "{failed:#}");

    world.card.polite("gaia-study-live");
    let (code, back) = world.post("/handoff/study-to-prime").await;
    assert_eq!(code, 200, "{back}");
    world.settled(PRIME).await;
}

#[tokio::test]
async fn memory_that_stays_when_all_have_gone_brings_prime_back() {
    let world = World::with(|stack| {
        stack.spec(PRIME)["stopGraceSeconds"] = json!(1);
        stack.spec(PRIME)["gpu"]["releaseSteps"][1] = json!({"stop": {}, "timeoutSeconds": 2});
        stack.gpu["spec"]["onStuck"] = json!([]);
        stack.gpu["spec"]["cleanup"]["timeoutSeconds"] = json!(2);
    })
    .await;
    let prime = world.host.running("gaia-prime-live").await;
    world.card.show(|state| state.devices[0].used_mib = 4_000);
    let (code, refused) = world.post("/handoff/prime-to-study").await;
    assert_eq!((code, &refused["detail"]), (500, &json!(NOT_FREED)), "{refused}");
    world.settled(PRIME).await;
    let now = world.host.running("gaia-prime-live").await;
    assert!(now.id == prime.id && now.started_at > prime.started_at, "it was stopped, and started again");
    let told = ["start default/gaia-prime: Succeeded", "http POST gaia-core:6415/gpu/reclaim: Succeeded"];
    let failed = record(&world, "prime-to-study").await;
    assert_eq!(steps(&failed["status"]["rollback"]["steps"]), told);
    assert!(!world.card.journal().iter().any(|line| line.contains("gpu-ready")), "study was not told to take it");
}

#[rstest]
#[case::refuses("refuse")]
#[case::never_answers("hang")]
#[tokio::test]
async fn a_core_that_does_not_agree_keeps_prime_where_it_is(#[case] manner: &str) {
    let world = World::with(|stack| stack.spec(PRIME)["gpu"]["releaseSteps"][0]["timeoutSeconds"] = json!(2)).await;
    let prime = world.host.running("gaia-prime-live").await;
    let before = world.card.journal().len();
    world.card.manner("gaia-core-live", "/gpu/release", manner);
    let (code, refused) = world.post("/handoff/prime-to-study").await;
    assert_eq!((code, &refused["detail"]), (500, &json!(CORE_REFUSES)), "{refused}");
    world.settled(PRIME).await;
    assert_eq!(world.host.running("gaia-prime-live").await, prime, "it was never stopped");
    // Core may have let go half way: it is told that prime is back.
    let told = ["gaia-core-live asked /gpu/release", "gaia-core-live asked /gpu/reclaim"];
    assert_eq!(world.card.journal()[before..], told);
    let failed = record(&world, "prime-to-study").await;
    assert_eq!(failed["status"]["rollback"]["outcome"], "Succeeded", "{failed:#}");
    assert_eq!(failed["status"]["rollback"]["message"], "the old holder is back");
}

#[tokio::test]
async fn a_core_that_is_not_there_cannot_agree() {
    let world = World::with(|stack| {
        stack.spec(PRIME)["gpu"]["releaseSteps"][0]["timeoutSeconds"] = json!(2);
        stack.spec(PRIME)["gpu"]["acquireSteps"][1]["timeoutSeconds"] = json!(2);
    })
    .await;
    let prime = world.host.running("gaia-prime-live").await;
    world.host.kubectl(&["patch", "workload", CORE, "--type=merge", "-p", r#"{"spec":{"live":{"running":false}}}"#]);
    world.host.until("gaia-core-live", "is stopped", |core| !core.running).await;
    let (code, refused) = world.post("/handoff/prime-to-study").await;
    assert_eq!((code, &refused["detail"]), (500, &json!(CORE_REFUSES)), "{refused}");
    world.settled(PRIME).await;
    assert_eq!(world.host.running("gaia-prime-live").await, prime);
}

#[tokio::test]
async fn a_study_that_will_not_have_it_leaves_it_to_prime() {
    let world = World::awake().await;
    world.card.manner("gaia-study-live", "/study/gpu-ready", "refuse");
    world.wish("there", PRIME, STUDY).await;
    let failed = world.ended("there").await;
    assert_eq!(failed["status"]["phase"], "Failed");
    world.settled(PRIME).await;
    let back = steps(&failed["status"]["rollback"]["steps"]);
    let told = [
        "stop default/gaia-study: Succeeded",
        "start default/gaia-prime: Succeeded",
        "http POST gaia-core:6415/gpu/reclaim: Succeeded",
    ];
    assert_eq!(back, told);
    let condition = world.get(&handoff_path("there")).await["status"]["conditions"][0].clone();
    assert_eq!(condition["reason"], "RecipientFailed", "{condition}");
    world.host.running("gaia-study-live").await;
}

#[tokio::test]
async fn a_prime_that_never_serves_goes_and_study_has_the_card_again() {
    let world = World::with(|stack| stack.spec(PRIME)["gpu"]["acquireSteps"][0]["timeoutSeconds"] = json!(4)).await;
    to_study(&world).await;
    world.card.manner("gaia-prime-live", "/v1/models", "refuse");
    let (code, refused) = world.post("/handoff/study-to-prime").await;
    assert_eq!(code, 500, "{refused}");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("start default/gaia-prime failed"), "{refused}");
    world.settled(STUDY).await;
}

/// Its restart is on the way to the engine, or up already, when it is to give the card away. Whoever does not run is not asked.
#[rstest]
#[case::at_once(0)]
#[case::while_it_starts(100)]
#[case::when_it_has_begun(350)]
#[tokio::test]
async fn a_study_that_dies_while_it_is_to_let_go_does_not_come_up_beside_prime(#[case] after_ms: u64) {
    let world = World::awake().await;
    to_study(&world).await;
    let study = world.host.running("gaia-study-live").await;
    kill(study.pid);
    // tidy: how long after the death the wish comes is the case
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    world.wish("back", STUDY, PRIME).await;
    assert_eq!(world.settled_after("back", STUDY, PRIME).await, PRIME, "{}", world.tell().await);
}

#[tokio::test]
async fn a_study_that_does_not_run_is_stopped_and_not_asked() {
    let world = World::with(|stack| stack.spec(STUDY)["restartPolicy"] = json!("Never")).await;
    to_study(&world).await;
    let study = world.host.running("gaia-study-live").await;
    kill(study.pid);
    let dead = |study: &Value| study["status"]["live"]["state"] == "Exited";
    world.until(&workload_path(STUDY), "is dead", dead).await;
    world.wish("back", STUDY, PRIME).await;
    assert_eq!(world.settled_after("back", STUDY, PRIME).await, PRIME);
    let record = record(&world, "back").await;
    let first = &record["status"]["steps"][0];
    assert_eq!(first["outcome"], "Skipped", "{record:#}");
    assert_eq!(world.card.journal().iter().filter(|line| line.contains("/study/gpu-release")).count(), 0);
}
