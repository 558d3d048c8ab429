use serde_json::{Value, json};

use super::*;

fn step(name: &str, stage: &str, outcome: &str, times: (&str, &str), message: Option<&str>) -> Value {
    let mut step = json!({"name": name, "stage": stage, "outcome": outcome, "startedAt": at(times.0)});
    if !times.1.is_empty() {
        step["finishedAt"] = at(times.1);
    }
    if let Some(message) = message {
        step["message"] = message.into();
    }
    step
}

/// A second of the same minute.
fn at(second: &str) -> Value {
    format!("2026-11-20T10:00:{second}Z").into()
}

fn handoff(status: Value) -> Handoff {
    serde_json::from_value(json!({
        "apiVersion": "gaia.dev/v1alpha1", "kind": "Handoff",
        "metadata": {"name": "prime-to-study-1", "namespace": "default", "creationTimestamp": at("00")},
        "spec": {"gpu": "gpu0", "type": "PrimeToStudy", "from": {"name": "gaia-prime"}, "to": {"name": "gaia-study"},
            "reason": "training"},
        "status": status,
    }))
    .expect("a Handoff")
}

fn completed() -> Handoff {
    handoff(json!({
        "phase": "Completed", "progressPct": 100, "startedAt": at("00.000000"), "completedAt": at("08.312000"),
        "steps": [
            step("http POST gaia-core:6415/gpu/release", "Release", "Succeeded", ("00.012000", "00.050000"), Some("200")),
            step("stop default/gaia-prime", "Release", "Succeeded", ("00.051000", "01.300000"), None),
            step("start default/gaia-study", "Acquire", "Succeeded", ("02.100000", "08.100000"), None),
        ],
        "pidsBefore": [4711, 4712],
        "memoryCurve": [
            {"at": at("01.300000"), "usedMib": 16003}, {"at": at("01.500000"), "usedMib": 15800},
            {"at": at("01.700000"), "usedMib": 8000}, {"at": at("02.000000"), "usedMib": 512},
        ],
        "leaseId": "66d8", "fencingToken": 7,
    }))
}

fn failed() -> Handoff {
    handoff(json!({
        "phase": "Failed", "progressPct": 30, "startedAt": at("00.000000"), "completedAt": at("40.000000"),
        "steps": [step("stop default/gaia-prime", "Release", "Failed", ("00.000000", "30.000000"), Some("still\nthere"))],
        "pidsBefore": [4711], "pidsAfter": [4711],
        "error": "GPU cleanup timeout - VRAM not released: 4711 (vllm) uses 10400 MiB",
        "rollback": {"outcome": "Succeeded", "message": "default/gaia-prime holds gpu0 again",
            "steps": [step("start default/gaia-prime", "Acquire", "Succeeded", ("30.000000", "40.000000"), None)]},
    }))
}

#[test]
fn the_flight_record_tells_the_whole_story() {
    insta::assert_snapshot!("record_completed", record(&completed()));
    insta::assert_snapshot!("record_failed", record(&failed()));
    insta::assert_snapshot!("record_fresh", record(&handoff(json!({}))));
}

#[test]
fn ends_say_who_holds_the_card_or_why_not() {
    let ended = |handoff: &Handoff| conclusion(handoff).map_err(|e| e.report());
    assert_eq!(
        ended(&completed()).expect("done"),
        "handoff.gaia.dev/prime-to-study-1 completed after 8.312 s: default/gaia-study holds gpu0\n"
    );
    assert_eq!(
        ended(&failed()).expect_err("failed"),
        "handoff.gaia.dev/prime-to-study-1 failed after 40.000 s: GPU cleanup timeout - VRAM not released: 4711 (vllm) \
         uses 10400 MiB; rolled back: default/gaia-prime holds gpu0 again"
    );
    let refused = json!({"phase": "Failed", "progressPct": 0, "conditions": [{"type": "Ready", "status": "False",
        "reason": "WrongHolder", "message": "gpu0 is held by default/gaia-study", "lastTransitionTime": at("00")}]});
    assert_eq!(
        ended(&handoff(refused)).expect_err("failed"),
        "handoff.gaia.dev/prime-to-study-1 failed: gpu0 is held by default/gaia-study; nothing had to be undone"
    );
    let cancelled = json!({"phase": "Cancelled", "progressPct": 10, "rollback": {"outcome": "Failed"}});
    assert!(ended(&handoff(cancelled)).expect_err("no success").ends_with("cancelled; the rollback failed too"));
}

#[test]
fn news_are_told_once() {
    let fresh = HandoffStatus::default();
    let done = status(&completed());
    assert_eq!(news(&fresh, &fresh, true), ["Initiated (0 %)"]);
    assert_eq!(
        news(&fresh, &done, false),
        [
            "  http POST gaia-core:6415/gpu/release: done in 0.038 s (200)",
            "  stop default/gaia-prime: done in 1.249 s",
            "  start default/gaia-study: done in 6.000 s",
            "Completed (100 %)",
        ]
    );
    assert!(news(&done, &done, false).is_empty());
    assert_eq!(
        news(&fresh, &status(&failed()), false),
        [
            "  stop default/gaia-prime: failed in 30.000 s (still there)",
            "rolling back",
            "  start default/gaia-prime: done in 10.000 s",
            "Failed (30 %)",
        ]
    );
}

#[test]
fn the_bar_names_step_and_memory() {
    let running = handoff(json!({"phase": "ReleasingGpu", "progressPct": 10,
        "steps": [step("stop default/gaia-prime", "Release", "Running", ("00.000000", ""), None)],
        "memoryCurve": [{"at": at("00.000000"), "usedMib": 900}]}));
    assert_eq!(now(&status(&running), None), "ReleasingGpu · stop default/gaia-prime · 900 MiB used");
    let card: Gpu = serde_json::from_value(json!({"metadata": {"name": "gpu0"}, "spec": {"device": {"index": 0}},
        "status": {"memory": {"totalMib": 24564, "usedMib": 700, "freeMib": 23864}}}))
    .expect("a Gpu");
    assert_eq!(now(&status(&running), Some(&card)), "ReleasingGpu · stop default/gaia-prime · 700 of 24564 MiB used");
}

#[test]
fn what_is_under_way_comes_first() {
    let mut running = handoff(json!({"phase": "ReleasingGpu", "progressPct": 10}));
    running.metadata.name = Some("b".to_owned());
    let now = "2026-11-20T10:01:00Z".parse().expect("a time");
    insta::assert_snapshot!("list", list(&[completed(), failed(), running], now));
    assert_eq!(list(&[], now), "no handoffs\n");
}

#[test]
fn what_was_not_measured_is_told_wherever_it_ended() {
    let mut handoff = completed();
    handoff.status.as_mut().expect("a status").proof = Some(HandoffProof::EngineOnly);
    assert!(conclusion(&handoff).expect("it ended well").contains("unproven"));
    assert!(record(&handoff).contains("Proof:       UNPROVEN"), "{}", record(&handoff));
}
