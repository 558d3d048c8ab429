//! Live and candidate of one workload change places on the one card, and back by themselves where the candidate is no good.

use nvidia_ml_fake::Process;
use serde_json::{Value, json};

use crate::{
    support::eventually,
    world::{DEADLINE, PRIME, World, phase, workload_path},
};

const CANDIDATE: &str = "gaia-prime-candidate";

/// The promotion at its end.
async fn promote(world: &World, name: &str, to: &str, timeout_seconds: u32) -> Value {
    let model = format!("gaia-prime-{}", to.to_lowercase());
    let gates = json!({
        "minReadySeconds": 1, "timeoutSeconds": timeout_seconds, "modelLoaded": {"port": 7777, "model": model},
        "command": {"command": ["/peer", "healthcheck", "7777"], "timeoutSeconds": 5}
    });
    let promotion = json!({
        "apiVersion": "gaia.dev/v1alpha1", "kind": "Promotion", "metadata": {"name": name},
        "spec": {"workload": PRIME, "to": to, "gates": gates}
    });
    world.create("namespaces/default/promotions", &promotion).await;
    let is_over = |promotion: &Value| ["Completed", "Failed", "RolledBack", "Cancelled"].contains(&phase(promotion));
    world.until(&format!("namespaces/default/promotions/{name}"), "has ended", is_over).await
}

#[tokio::test]
async fn a_candidate_that_proves_itself_has_the_card_and_live_can_have_it_back() {
    let world = World::awake().await;
    let up = promote(&world, "up", "Candidate", 60).await;
    assert_eq!(phase(&up), "Completed", "{up:#}\n{}", world.tell().await);
    let candidate = world.host.until(CANDIDATE, "answers", |seen| seen.aliases.contains(&PRIME.to_owned())).await;
    assert!(!world.host.inspect("gaia-prime-live").expect("it is kept").running);
    let on_card = async || (world.card.holders().first()?.pid == u32::try_from(candidate.pid).ok()?).then_some(());
    eventually("the candidate is on the card", DEADLINE, on_card).await;
    let holder = world.gpu().await["status"]["holder"].clone();
    assert_eq!((&holder["name"], &holder["variant"]), (&json!(PRIME), &json!("Candidate")));
    world.card.assert_never_shared();

    let down = promote(&world, "down", "Live", 60).await;
    assert_eq!(phase(&down), "Completed", "{down:#}\n{}", world.tell().await);
    world.settled(PRIME).await;
    world.host.until(CANDIDATE, "is stopped", |seen| !seen.running).await;
    world.host.until("gaia-prime-live", "answers", |seen| seen.aliases.contains(&PRIME.to_owned())).await;
}

#[tokio::test]
async fn a_candidate_without_its_model_goes_by_itself_and_live_serves_again() {
    // The start of the candidate may take minutes, as shipped: its handoff is called off when the gate gives it up.
    let world = World::awake().await;
    let live = world.host.running("gaia-prime-live").await;
    world.card.manner(CANDIDATE, "/v1/models", "refuse");
    let up = promote(&world, "up", "Candidate", 8).await;
    assert_eq!(phase(&up), "RolledBack", "{up:#}\n{}", world.tell().await);
    world.settled(PRIME).await;
    let now = world.host.until("gaia-prime-live", "answers", |seen| seen.aliases.contains(&PRIME.to_owned())).await;
    assert_eq!(now.id, live.id, "its container was not made anew");
    let takes: Vec<_> = world.card.journal().into_iter().filter(|line| line.contains(" take ")).collect();
    let who: Vec<_> = takes.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(who, ["gaia-prime-live", CANDIDATE, "gaia-prime-live"], "the candidate had its try");
    let workload = world.get(&workload_path(PRIME)).await;
    assert_eq!(workload["spec"]["active"], "Live");
    assert_eq!(workload["spec"]["candidate"]["running"], false);
}

#[tokio::test]
async fn a_candidate_that_cannot_fit_is_refused_before_anything_stops() {
    let world = World::awake().await;
    let live = world.host.running("gaia-prime-live").await;
    // Somebody's game: of 16303 MiB, 12 Gi are not left whatever prime does.
    let game = Process { pid: 4_000_001, used_mib: Some(5_000), computes: false, draws: true };
    world.card.show(|state| {
        state.devices[0].used_mib = 5_000;
        state.devices[0].processes = vec![game];
    });
    world.until("gpus/gpu0", "shows it", |gpu| gpu["status"]["memory"]["usedMib"].as_u64() > Some(15_000)).await;
    let up = promote(&world, "up", "Candidate", 60).await;
    assert_eq!(phase(&up), "Failed", "{up:#}");
    assert!(up["status"]["error"].as_str().is_some_and(|why| why.contains("4000001")), "it names who: {up:#}");
    assert_eq!(world.host.running("gaia-prime-live").await, live);
    world.settled(PRIME).await;
}
