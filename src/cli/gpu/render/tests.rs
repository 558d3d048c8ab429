use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-11-20T10:05:00Z";

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

fn card(name: &str, status: Value) -> Gpu {
    let object = json!({"metadata": {"name": name}, "spec": {"device": {"index": 0}}, "status": status});
    serde_json::from_value(object).expect("a Gpu")
}

fn busy() -> Gpu {
    card(
        "gpu0",
        json!({
            "holder": {"name": "gaia-study"}, "leaseId": "66d8a1b2-0000-4000-8000-000000000000", "fencingToken": 7,
            "leases": [{"holder": {"name": "gaia-study"}, "leaseId": "66d8a1b2-0000-4000-8000-000000000000",
                "fencingToken": 7, "claim": "default/prime-to-study-1", "reason": "training",
                "acquiredAt": "2026-11-20T10:01:48.250000Z"}],
            "queue": [
                {"claim": "default/audio-1", "holder": {"name": "gaia-audio", "kind": "External"}, "priority": 5,
                    "since": "2026-11-20T10:04:00Z"},
                {"claim": "lab/ann-1", "holder": {"name": "trainer", "namespace": "lab", "variant": "Candidate"}, "priority": 0},
            ],
            "product": "RTX 5080", "memory": {"totalMib": 16303, "usedMib": 14200, "freeMib": 2103},
            "utilizationPercent": 97, "temperatureCelsius": 71, "powerWatts": 320,
            "processes": [
                {"pid": 4711, "usedMib": 13000, "name": "python", "container": "gaia-study-live",
                    "workload": "default/gaia-study", "variant": "Live"},
                {"pid": 812, "usedMib": 900, "name": "Xorg"},
                {"pid": 99, "container": "0a1b", "orphan": true},
            ],
            "observedAt": "2026-11-20T10:04:58Z",
            "conditions": [{"type": "Ready", "status": "True", "reason": "Held", "message": "", "lastTransitionTime": NOW}],
        }),
    )
}

#[test]
fn status_is_a_line_for_each_card() {
    let handoff =
        json!({"handoff": "default/prime-to-study-1", "memory": {"totalMib": 10, "usedMib": 1, "freeMib": 9}});
    let cards = [busy(), card("gpu1", json!({})), card("gpu2", handoff)];
    insta::assert_snapshot!("status", status(&cards, now()));
    assert_eq!(status(&[], now()), "no cards\n");
}

#[test]
fn what_is_wrong_with_a_card_is_told_beside_its_state() {
    let condition = |type_: &str, status: &str, reason: &str| json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": NOW});
    let faulty = card(
        "gpu0",
        json!({
            "conditions": [condition("Ready", "True", "Held"), condition("Healthy", "False", "Xid"),
                condition("Orphaned", "True", "OrphanProcesses")],
            "processes": [{"pid": 7, "orphan": true, "workload": "default/llm", "variant": "Live"}],
        }),
    );
    let text = status(std::slice::from_ref(&faulty), now());
    assert!(text.contains("Held, Xid, OrphanProcesses"), "{text}");
    assert!(who(&[faulty], now()).contains("default/llm (live, orphan)"));
    let sound = card("gpu1", json!({"conditions": [condition("Healthy", "True", "NoFault")]}));
    assert!(!status(&[sound], now()).contains("NoFault"));
}

#[test]
fn who_names_holders_processes_and_waiters() {
    insta::assert_snapshot!("who", who(&[busy(), card("gpu1", json!({}))], now()));
    assert_eq!(who(&[], now()), "no cards\n");
}

fn claim(status: Value) -> GpuClaim {
    let object = json!({"metadata": {"name": "ann-1", "namespace": "lab"},
        "spec": {"gpu": "gpu0", "holder": {"name": "ann", "kind": "External"}}, "status": status});
    serde_json::from_value(object).expect("a GpuClaim")
}

#[test]
fn a_claim_tells_where_it_stands() {
    let waiting = json!({"phase": "Pending", "position": 2, "waitingFor": "default/gaia-study",
        "expectedAt": "2026-11-20T11:00:00Z"});
    let told = conclusion(&claim(waiting)).expect("not over");
    assert_eq!(
        told,
        "gpuclaim.gaia.dev/ann-1 is Pending, position 2, waits for default/gaia-study, 2026-11-20T11:00:00Z at the latest\n"
    );
    let granted =
        json!({"phase": "Granted", "gpu": "gpu0", "gpus": ["gpu0", "gpu1"], "leaseId": "66d8", "fencingToken": 7});
    let told = conclusion(&claim(granted)).expect("granted");
    assert_eq!(
        told,
        "gpuclaim.gaia.dev/ann-1 granted: ann (external) holds gpu0, gpu1 (lease 66d8, fencing token 7)\n\
         Give it back: gaia gpu release ann-1 -n lab\n"
    );
    let late = json!({"phase": "TimedOut", "conditions": [{"type": "Ready", "status": "False", "reason": "WaitedTooLong",
        "message": "waited 60 s", "lastTransitionTime": NOW}]});
    let told = conclusion(&claim(late)).expect_err("over");
    assert_eq!((told.exit_code(), told.report()), (1, "gpuclaim.gaia.dev/ann-1 is TimedOut: waited 60 s".to_owned()));
}
