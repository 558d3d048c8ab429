//! What happens in the middle: the engine restarts, gaia is killed, the driver hangs, somebody thinks better of it.

use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    support::eventually,
    watcher::Watcher,
    world::{DEADLINE, PRIME, STUDY, World, handoff_path, is_over, phase, ready, steps},
};

#[rstest]
#[case::in_order("TERM")]
#[case::killed("KILL")]
#[tokio::test]
async fn the_engine_restarts_in_the_middle(#[case] signal: &str) {
    let mut world = World::awake().await;
    let mut watcher = Watcher::connect(&world.host.server, "kind=Handoff").await;
    world.wish("there", PRIME, STUDY).await;
    watcher.until("it has begun", |frame| frame.name == "there" && phase(&frame.object) == "ReleasingGpu").await;
    world.engine.stop(signal);
    world.engine.start_again();
    let holder = world.settled_after("there", PRIME, STUDY).await;
    // And goes on from there.
    let other = if holder == PRIME { STUDY } else { PRIME };
    world.wish("next", holder, other).await;
    assert_eq!(phase(&world.ended("next").await), "Completed", "{}", world.tell().await);
    world.settled(other).await;
}

/// Kills gaia when it has written the handoff's status so many times, and starts another. False: it had ended before.
async fn killed_at(world: &mut World, write: usize, name: &str, from: &str, to: &str) -> bool {
    let mut watcher = Watcher::connect(&world.host.server, "kind=Handoff").await;
    let mut written = 0;
    let last = watcher.until("the write", |frame| {
        written += usize::from(frame.name == name && !frame.object["status"].is_null());
        frame.name == name && (written == write || is_over(&frame.object))
    });
    // Read while it is written, or the handoff would be further than the frame that is looked at.
    let ((), last) = tokio::join!(world.wish(name, from, to), last);
    let over = is_over(&last.object);
    if !over {
        world.host.server.program.kill();
        world.host.restart();
    }
    !over
}

#[tokio::test]
async fn killed_at_every_step_it_ends_all_the_same_and_with_one_holder() {
    let mut world = World::awake().await;
    let mut holder = PRIME;
    let mut outcomes = Vec::new();
    for write in 1.. {
        let mut killed = false;
        for turn in ["a", "b"] {
            let (from, to) = if holder == PRIME { (PRIME, STUDY) } else { (STUDY, PRIME) };
            let name = format!("{write}{turn}");
            killed |= killed_at(&mut world, write, &name, from, to).await;
            holder = world.settled_after(&name, from, to).await;
            let ended = world.get(&handoff_path(&name)).await;
            outcomes.push(format!("{name} from {from}: {}", phase(&ended)));
        }
        if !killed {
            break;
        }
    }
    assert!(outcomes.len() > 12, "as many as a handoff has steps: {outcomes:#?}");
}

#[tokio::test]
async fn a_driver_that_hangs_proves_nothing() {
    let world = World::awake().await;
    world.hang_while_prime_goes("there").await;
    let gpu = world.until("gpus/gpu0", "is unknown", |gpu| ready(gpu) == "Unknown DriverUnavailable").await;
    assert_eq!(gpu["status"]["memory"], Value::Null, "what is not known is not told");
    // The card is free. But nobody can see it.
    assert_eq!(world.card.holders().len(), 0);
    assert_eq!(gpu["status"]["leases"][0]["holder"]["name"], PRIME);
    assert!(!world.card.journal().iter().any(|line| line.contains("gpu-ready")));
    world.card.show(|_| ());
    assert_eq!(phase(&world.ended("there").await), "Completed");
    world.settled(STUDY).await;
}

#[tokio::test]
async fn a_driver_that_hangs_for_too_long_brings_prime_back() {
    let world = World::with(|stack| {
        stack.spec(PRIME)["stopGraceSeconds"] = json!(1);
        stack.spec(PRIME)["gpu"]["releaseSteps"][1] = json!({"stop": {}, "timeoutSeconds": 2});
        stack.gpu["spec"]["onStuck"] = json!([]);
        stack.gpu["spec"]["cleanup"]["timeoutSeconds"] = json!(2);
    })
    .await;
    world.hang_while_prime_goes("there").await;
    let failed = world.ended("there").await;
    assert_eq!(
        (phase(&failed), &failed["status"]["rollback"]["outcome"]),
        ("Failed", &json!("Succeeded")),
        "{failed:#}"
    );
    world.card.show(|_| ());
    world.settled(PRIME).await;
}

#[tokio::test]
async fn cancelled_before_anything_was_stopped_prime_never_notices() {
    let world = World::awake().await;
    let prime = world.host.running("gaia-prime-live").await;
    world.card.manner("gaia-core-live", "/gpu/release", "hang");
    let (code, started) = world.post("/handoff/prime-to-study?wait=false").await;
    assert_eq!(code, 202, "{started}");
    let asked = async || world.card.journal().iter().any(|line| line.contains("/gpu/release")).then_some(());
    eventually("core is asked", DEADLINE, asked).await;
    let cancel = format!("/handoff/{}/cancel", started["handoff_id"].as_str().expect("an id"));
    let (code, cancelled) = world.post(&cancel).await;
    assert_eq!((code, &cancelled["phase"]), (200, &json!("cancelled")), "{cancelled}");
    world.settled(PRIME).await;
    assert_eq!(world.host.running("gaia-prime-live").await, prime);
}

#[tokio::test]
async fn cancelled_after_prime_was_stopped_it_comes_back() {
    let world = World::awake().await;
    world.hang_while_prime_goes("there").await;
    world.host.server.says(&["handoff", "cancel", "there"]);
    let cancelled = world.ended("there").await;
    assert_eq!((phase(&cancelled), &cancelled["status"]["rollback"]["outcome"]), ("Cancelled", &json!("Succeeded")));
    world.card.show(|_| ());
    world.settled(PRIME).await;
}

#[tokio::test]
async fn cancelled_while_prime_is_being_stopped_it_is_back_when_that_is_said() {
    let world = World::with(|stack| {
        let spec = stack.spec(PRIME);
        spec["stopGraceSeconds"] = json!(4);
        spec["live"]["container"]["args"].as_array_mut().expect("arguments").push(json!("--ignore-term"));
    })
    .await;
    let before = world.host.running("gaia-prime-live").await;
    world.wish("there", PRIME, STUDY).await;
    let stopping = "stop default/gaia-prime: Running".to_owned();
    let is_stopping = |handoff: &Value| steps(&handoff["status"]["steps"]).contains(&stopping);
    world.until(&handoff_path("there"), "is stopping prime", is_stopping).await;
    world.host.server.says(&["handoff", "cancel", "there"]);
    let cancelled = world.ended("there").await;
    let now = world.host.inspect("gaia-prime-live").expect("it is there");
    assert!(now.running && now.id == before.id && now.started_at > before.started_at, "{now:?} {cancelled:#}");
    assert_eq!((phase(&cancelled), &cancelled["status"]["rollback"]["outcome"]), ("Cancelled", &json!("Succeeded")));
    assert!(steps(&cancelled["status"]["steps"]).contains(&"stop default/gaia-prime: Succeeded".to_owned()));
    world.settled(PRIME).await;
}

#[tokio::test]
async fn cancelled_while_study_takes_the_card_prime_has_it_again() {
    let world = World::awake().await;
    world.card.manner("gaia-study-live", "/study/gpu-ready", "hang");
    world.wish("there", PRIME, STUDY).await;
    let taking = "http POST gaia-study:8766/study/gpu-ready: Running".to_owned();
    let is_taking = |handoff: &Value| steps(&handoff["status"]["steps"]).contains(&taking);
    world.until(&handoff_path("there"), "has told study to take it", is_taking).await;
    world.host.server.says(&["handoff", "cancel", "there"]);
    let cancelled = world.ended("there").await;
    assert_eq!((phase(&cancelled), &cancelled["status"]["rollback"]["outcome"]), ("Cancelled", &json!("Succeeded")));
    let back = [
        "stop default/gaia-study: Succeeded",
        "start default/gaia-prime: Succeeded",
        "http POST gaia-core:6415/gpu/reclaim: Succeeded",
    ];
    assert_eq!(steps(&cancelled["status"]["rollback"]["steps"]), back);
    world.settled(PRIME).await;
}
