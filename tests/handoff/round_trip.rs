//! Prime, study, prime: as it is meant to go.

use serde_json::{Value, json};

use crate::{
    stack::{PRIME_MIB, STUDY_MIB},
    world::{PRIME, STUDY, World, handoff_path, phase, steps},
};

#[tokio::test]
async fn the_card_goes_to_study_and_back_and_the_record_proves_it() {
    let world = World::awake().await;
    let prime = world.host.running("gaia-prime-live").await;
    let before = world.card.journal().len();
    world.wish("there", PRIME, STUDY).await;
    world.host.kubectl(&["wait", "handoff/there", "--for=jsonpath={.status.phase}=Completed", "--timeout=90s"]);
    world.settled(STUDY).await;

    let handoff = world.get(&handoff_path("there")).await;
    let status = &handoff["status"];
    let told = [
        "http POST gaia-core:6415/gpu/release: Succeeded",
        "stop default/gaia-prime: Succeeded",
        "start default/gaia-study: Succeeded",
        "http POST gaia-study:8766/study/gpu-ready: Succeeded",
    ];
    assert_eq!(steps(&status["steps"]), told);
    assert_eq!((&status["progressPct"], &status["pidsBefore"]), (&json!(100), &json!([prime.pid])), "{status:#}");
    assert_eq!(status["pidsAfter"], Value::Null, "nobody was left: {status:#}");
    let curve: Vec<u64> =
        status["memoryCurve"].as_array().into_iter().flatten().filter_map(|p| p["usedMib"].as_u64()).collect();
    assert!(curve.iter().max() >= Some(&PRIME_MIB) && curve.last() < Some(&3_000), "it was seen to fall: {curve:?}");
    let gpu = world.gpu().await;
    assert_eq!(status["leaseId"], gpu["status"]["leaseId"]);
    assert_eq!(status["fencingToken"], gpu["status"]["fencingToken"]);
    assert!(status["fencingToken"].as_i64() > status["baseToken"].as_i64(), "{status:#}");
    let shown = world.host.server.says(&["handoff", "show", "there"]);
    assert!(shown.contains("stop default/gaia-prime") && shown.contains("Completed"), "{shown}");

    // Bodies are empty, and nobody took the card before it was free.
    let there = [
        "gaia-core-live asked /gpu/release".to_owned(),
        "gaia-study-live asked /study/gpu-ready".to_owned(),
        format!("gaia-study-live take {STUDY_MIB} over 0"),
    ];
    assert_eq!(world.card.journal()[before..], there);

    let (code, back) = world.post("/handoff/study-to-prime").await;
    assert_eq!((code, &back["phase"], &back["state"]), (200, &json!("completed"), &json!("awake")), "{back}");
    world.settled(PRIME).await;
    let way_back = [
        "gaia-study-live asked /study/gpu-release".to_owned(),
        "gaia-study-live free".to_owned(),
        format!("gaia-prime-live take {PRIME_MIB} over 0"),
        "gaia-core-live asked /gpu/reclaim".to_owned(),
    ];
    assert_eq!(world.card.journal()[before + there.len()..], way_back);
    assert!(world.host.running("gaia-study-live").await.running, "study let go by itself and goes on");
}

#[tokio::test]
async fn a_claim_borrows_the_card_and_its_end_gives_it_back() {
    let world = World::awake().await;
    let claim = json!({
        "apiVersion": "gaia.dev/v1alpha1", "kind": "GpuClaim", "metadata": {"name": "training"},
        "spec": {"gpu": "gpu0", "holder": {"name": STUDY}, "reason": "qlora"}
    });
    let manifest = world.host.scratch("claim.json", &claim.to_string());
    world.host.kubectl(&["create", "-f", &manifest]);
    world.settled(STUDY).await;
    world.host.kubectl(&["wait", "gpuclaim/training", "--for=jsonpath={.status.phase}=Granted", "--timeout=30s"]);
    world.host.kubectl(&["delete", "gpuclaim", "training", "--timeout=90s"]);
    world.settled(PRIME).await;
    let handoffs = world.get("namespaces/default/handoffs").await;
    let phases: Vec<_> = handoffs["items"].as_array().into_iter().flatten().map(phase).collect();
    // The first one gave the card to its owner.
    assert_eq!(phases, ["Completed"; 3], "{handoffs:#}");
}
