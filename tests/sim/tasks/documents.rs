//! What people hand in: single steps, stages, graphs, divided ones, and such as want a card.

use serde_json::{Value, json};

use super::world::TaskWorld;

/// Where results go: us.
pub const RESULTS: &str = "http://gaia/api/v1/results";

/// A document drawn from the seed.
pub fn any(world: &TaskWorld) -> Value {
    match world.below(100) {
        0..45 => single(world, step(world)),
        45..60 => stages(world),
        60..72 => graph(world),
        72..84 => divided(world),
        _ if world.world.has_cards => on_a_card(world),
        84..92 => large(world),
        _ => single(world, step(world)),
    }
}

/// How long a step takes, and how often it fails before it does not.
fn step(world: &TaskWorld) -> Value {
    let longest = if world.below(8) == 0 { 90_000 } else { 4_000 };
    let fails = [0, 0, 0, 0, 0, 1, 1, 2, 3, 9][world.below(10) as usize];
    json!({"ms": world.below(longest), "fails": fails})
}

fn document(world: &TaskWorld, spec: Value) -> Value {
    let owner = ["ann", "bob"][world.below(2) as usize];
    let mut document = json!({
        "apiVersion": "mloc/v1", "kind": "EchoTask", "metadata": {"name": "t", "owner": owner},
        "spec": {"taskType": "echo", "priority": world.below(3),
            "resources": {"replicas": 1, "hardware": {"cpu": "1", "memory": "1Gi"}}},
    });
    json_patch::merge(&mut document, &json!({"spec": spec}));
    document
}

fn output() -> Value {
    json!({"destination": {"type": "http", "url": RESULTS}})
}

fn single(world: &TaskWorld, step: Value) -> Value {
    match world.below(3) {
        0 => document(world, json!({"step": step})),
        _ => document(world, json!({"step": step, "output": output()})),
    }
}

fn stages(world: &TaskWorld) -> Value {
    let count = 2 + world.below(2);
    let stage = |n: u64| json!({"name": format!("s{n}"), "spec": {"step": step(world)}});
    let stages: Vec<Value> = (0..count).map(stage).collect();
    document(world, json!({"output": output(), "stages": stages, "from": "${s0.result.run}"}))
}

fn graph(world: &TaskWorld) -> Value {
    let node = |name: &str, on: &[&str]| json!({"name": name, "dependsOn": on, "spec": {"step": step(world)}});
    let nodes = [node("a", &[]), node("b", &[]), node("c", &["a", "b"])];
    document(world, json!({"output": output(), "graph": {"nodes": nodes}}))
}

fn divided(world: &TaskWorld) -> Value {
    let items: Vec<u64> = (0..2 + world.below(6)).collect();
    let spec = json!({"taskType": "inference", "output": output(), "step": step(world),
        "parallel": {"enabled": true, "max_shards": 3}, "data": {"type": "list", "items": items}});
    document(world, spec)
}

fn on_a_card(world: &TaskWorld) -> Value {
    let gpu = json!({"resources": {"hardware": {"gpu": {"count": 1, "type": "any"}}}});
    let mut spec = json!({"step": step(world), "output": output()});
    json_patch::merge(&mut spec, &gpu);
    document(world, spec)
}

/// For the large worker only.
fn large(world: &TaskWorld) -> Value {
    let mut spec = json!({"step": step(world), "output": output()});
    json_patch::merge(&mut spec, &json!({"resources": {"hardware": {"cpu": "16"}}}));
    document(world, spec)
}
