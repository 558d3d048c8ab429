//! `state.json`: taken over once, mirrored, and never lost.

use std::{fs, path::Path};

use gaia::facades::gaia::Legacy;
use serde_json::{Value, json};

use super::world::{DEADLINE, Made, World};
use crate::support::eventually;

fn read(file: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn mirror(world: &World, file: &Path) {
    let legacy = Legacy { gaia: world.gaia.clone(), file: file.to_owned() };
    tokio::spawn(legacy.run(world.shutdown.clone()));
}

#[tokio::test]
async fn holder_and_queue_are_taken_over_once_and_everything_else_stays() {
    let world = World::bare().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state.json");
    let old = json!({
        "gpu": {"owner": "gaia-study", "lease_id": "66d8", "reason": "training", "queue": ["gaia-audio", "gaia-nano"]},
        "handoff_history": [{"handoff_id": "old", "phase": "failed"}],
        "lifecycle": {"state": "meditation"},
    });
    fs::write(&file, old.to_string()).expect("written");
    mirror(&world, &file);
    let gpu = world.gpu_is("study has it again", |gpu| gpu["owner"] == "gaia-study").await;
    assert_eq!(gpu["reason"], "training");
    let held = |state: &Value| state["gpu"]["owner"] == "gaia-study" && state["gpu"]["queue"] == json!(["gaia-audio"]);
    let state = eventually("the mirror follows", DEADLINE, async || read(&file).filter(held)).await;
    assert_eq!(state["lifecycle"]["state"], "meditation");
    assert_eq!(state["handoff_history"][0]["handoff_id"], "old");
    assert_eq!(state["gaia"]["imported"], old, "unknown names too");
    assert!(fs::metadata(&file).expect("it is there").permissions().readonly());
    world.done("/gpu/release", "").await;
    let next = |state: &Value| state["gpu"]["owner"] == "gaia-audio";
    eventually("the mirror follows", DEADLINE, async || read(&file).filter(next)).await;
    // Another process finds its own mirror, which it takes for nothing else.
    let later = World::bare().await;
    mirror(&later, &file);
    let free = |state: &Value| state["gpu"]["owner"] == "none";
    let state = eventually("not imported again", DEADLINE, async || read(&file).filter(free)).await;
    assert_eq!(state["handoff_history"][0]["handoff_id"], "old");
}

/// At the first start of all there is nothing yet: the desired files come, and the card with them.
#[tokio::test]
async fn it_waits_for_the_card_and_for_those_it_names() {
    let world = World::made(Made::default()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state.json");
    // As B0 left it in the middle of a handoff (section 8, 1; section 10, 2), with what later versions put beside it.
    let old = json!({
        "gpu": {"owner": "gaia-study", "lease_id": "66d8", "reason": "prime_to_study_handoff",
                "acquired_at": "2026-02-09T09:35:49.994012", "memory": null, "queue": [], "nano_mb": 1487},
        "containers": {"live": {"core": {"name": "gaia-core", "state": "stopped", "port": 6415, "healthy": false, "last_check": null},
                                "nano": {"name": "gaia-nano", "state": "running"}}, "candidate": {}},
        "active_handoff": {"handoff_id": "stuck", "handoff_type": "prime_to_study", "phase": "releasing_gpu",
                           "started_at": "2026-02-09T09:35:47.106650", "completed_at": null, "source": "gaia-core",
                           "destination": "gaia-study", "error": null, "progress_pct": 10},
        "handoff_history": [], "watch": {"state": "focusing"}, "last_updated": "2026-02-09T09:35:50.366050",
    });
    fs::write(&file, old.to_string()).expect("written");
    mirror(&world, &file);
    let mirrored = |state: &Value| state["gaia"].is_object();
    let state = eventually("a mirror", DEADLINE, async || read(&file).filter(mirrored)).await;
    assert_eq!((&state["gaia"]["imported"], &state["gaia"]["imported_at"]), (&old, &Value::Null), "not yet");
    world.declare_stack().await;
    world.gpu_is("study has it, the Workload", |gpu| gpu["owner"] == "gaia-study").await;
    world.settled().await;
    assert!(world.runs("gaia-study-live") && !world.runs("gaia-prime-live"));
    let held = |state: &Value| state["gpu"]["owner"] == "gaia-study" && state["gaia"]["imported_at"].is_string();
    let state = eventually("the mirror follows", DEADLINE, async || read(&file).filter(held)).await;
    assert_eq!((&state["gpu"]["nano_mb"], &state["watch"]["state"]), (&json!(1487), &json!("focusing")));
    assert_eq!(state["containers"]["live"]["nano"]["name"], "gaia-nano");
    assert_eq!(state["active_handoff"], Value::Null);
    let ended = &state["handoff_history"][0];
    assert_eq!((&ended["handoff_id"], &ended["phase"]), (&json!("stuck"), &json!("failed")));
    assert!(ended["error"].as_str().is_some_and(|text| text.contains("'releasing_gpu'")), "{ended}");
}

#[tokio::test]
async fn what_cannot_be_read_is_set_aside() {
    let world = World::bare().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("state.json");
    fs::write(&file, "{\"gpu\": {").expect("written");
    mirror(&world, &file);
    eventually("a mirror in its place", DEADLINE, async || read(&file)).await;
    assert_eq!(fs::read_to_string(dir.path().join("state.json.bak")).expect("kept"), "{\"gpu\": {");
}
