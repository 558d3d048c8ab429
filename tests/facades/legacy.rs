//! `state.json`: taken over once, mirrored, and never lost.

use std::{fs, path::Path};

use gaia::facades::gaia::Legacy;
use serde_json::{Value, json};

use super::world::{DEADLINE, World};
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
