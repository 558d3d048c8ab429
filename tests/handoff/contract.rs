//! Section 10 of GAIA's contract, where only all of it together on a real engine can tell.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    support::eventually,
    world::{CORE, DEADLINE, PRIME, STUDY, World, phase},
};

async fn answered(world: &World, path: &str, body: Value) -> Value {
    let answer = world.request(path, &body.to_string()).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{path} {body}");
    answer.json().await.expect("JSON")
}

async fn until_gpu(world: &World, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let look = async || {
        let (_, body) = world.host.server.http("/gpu/status", "");
        serde_json::from_str::<Value>(&body).ok().filter(|gpu| wanted(gpu))
    };
    eventually(what, DEADLINE, look).await
}

#[tokio::test]
async fn who_asks_during_a_handoff_is_queued_and_has_the_card_when_it_is_let_go() {
    let world = World::awake().await;
    world.hang_while_prime_goes("there").await;
    let asked = json!({"requester": "gaia-audio", "reason": "a call"});
    let queued = answered(&world, "/gpu/acquire", asked.clone()).await;
    assert_eq!((&queued["success"], &queued["queue_position"]), (&json!(false), &json!(1)), "{queued}");
    world.card.show(|_| ());
    assert_eq!(phase(&world.ended("there").await), "Completed");
    world.settled(STUDY).await;
    let gpu = until_gpu(&world, "it waits on", |gpu| gpu["owner"] == STUDY).await;
    assert_eq!(gpu["queue"], json!(["gaia-audio"]), "{gpu}");

    // Nobody names a lease: whoever has it gives it up, and who waits is granted it, by a handoff with its proof.
    answered(&world, "/gpu/release", json!({"reason": "training done"})).await;
    let has_it = |gpu: &Value| gpu["owner"] == "gaia-audio" && gpu["queue"] == json!([]);
    until_gpu(&world, "audio has it", has_it).await;
    assert_eq!(world.card.holders().len(), 0, "study has let go");
    let again = answered(&world, "/gpu/acquire", asked).await;
    answered(&world, "/gpu/release", json!({"lease_id": again["lease_id"]})).await;
    world.settled(PRIME).await;
}

#[tokio::test]
async fn sigterm_with_open_waits_ends_it_in_time_and_the_next_process_carries_on() {
    let mut world = World::awake().await;
    world.card.manner("gaia-core-live", "/gpu/release", "hang");
    let blocking = tokio::spawn(world.request("/handoff/prime-to-study", "").send());
    let asked = async || world.card.journal().iter().any(|line| line.ends_with("asked /gpu/release")).then_some(());
    eventually("core is asked", DEADLINE, asked).await;
    let wait = json!({"requester": "gaia-audio", "reason": "a call", "timeout_seconds": 300}).to_string();
    let waiting = tokio::spawn(world.request("/gpu/wait", &wait).send());
    until_gpu(&world, "audio waits", |gpu| gpu["queue"] == json!(["gaia-audio"])).await;
    // Within ten seconds, or Docker would kill it.
    world.host.terminate();
    let told = waiting.await.expect("no panic").expect("an answer, not a broken connection");
    assert_eq!(told.status(), 503, "who waits for the card asks the next process");
    let told = blocking.await.expect("no panic").expect("an answer, not a broken connection");
    assert_eq!(told.status(), 202, "it goes on, and can be asked for");
    let id = told.json::<Value>().await.expect("JSON")["handoff_id"].clone();

    world.card.polite("gaia-core-live");
    world.host.restart();
    let over = format!("/handoff/{}/status", id.as_str().expect("an id"));
    let look = async || {
        let (_, body) = world.host.server.http(&over, "");
        serde_json::from_str::<Value>(&body).ok().filter(|handoff| handoff["phase"] == "completed")
    };
    eventually("the next process completes it", DEADLINE, look).await;
    world.settled(STUDY).await;
}

#[tokio::test]
async fn containers_are_told_at_once_though_every_service_hangs() {
    let all = [PRIME, CORE, STUDY, "gaia-mcp"];
    let world = World::with(|stack| {
        for name in all {
            // Or those that hang would be restarted.
            stack.spec(name)["probes"].as_object_mut().expect("it is probed").remove("liveness");
        }
    })
    .await;
    let run = r#"{"spec":{"candidate":{"running":true}}}"#;
    for name in [CORE, STUDY, "gaia-mcp"] {
        world.host.kubectl(&["patch", "workload", name, "--type=merge", "-p", run]);
        world.host.running(&format!("{name}-candidate")).await;
    }
    for name in all {
        let path = if name == PRIME { "/v1/models" } else { "/health" };
        world.card.manner(&format!("{name}-live"), path, "hang");
        world.card.manner(&format!("{name}-candidate"), path, "hang");
    }
    let look = async || {
        let begun = Instant::now();
        let (code, body) = world.host.server.http("/containers/status", "");
        assert!(begun.elapsed() < Duration::from_secs(6), "took {:?}", begun.elapsed());
        assert_eq!(code, 200);
        let told: Value = serde_json::from_str(&body).expect("JSON");
        (told["live"]["core"]["healthy"] == false && told["candidate"]["study"]["healthy"] == false).then_some(told)
    };
    let told = eventually("they are known to hang", DEADLINE, look).await;
    for (side, keys) in
        [("live", ["core", "mcp", "study", "prime"].as_slice()), ("candidate", &["core", "mcp", "study"])]
    {
        for key in keys {
            assert_eq!(told[side][key]["state"], "running", "{side} {key}: {told:#}");
        }
    }
}
