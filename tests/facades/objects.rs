//! A call of the old API only writes objects: the same objects written through the Kubernetes API, as `kubectl` does it, have the
//! same effect on containers, services and the card.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{World, answer};

const API: &str = "/apis/gaia.dev/v1alpha1";

impl World {
    /// `kubectl create`
    async fn kubectl_create(&self, plural: &str, name: &str, spec: Value) {
        let kind = if plural == "handoffs" { "Handoff" } else { "GpuClaim" };
        let object = json!({
            "apiVersion": "gaia.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec,
        });
        let request = self.request(Method::POST, &format!("{API}/namespaces/default/{plural}")).json(&object);
        let (status, made) = answer(request).await;
        assert_eq!(status, 201, "{made}");
    }

    /// `kubectl patch --type=merge`
    async fn kubectl_patch(&self, plural: &str, name: &str, spec: Value) {
        let path = format!("{API}/namespaces/default/{plural}/{name}");
        let request = self.request(Method::PATCH, &path).header("content-type", "application/merge-patch+json");
        let (status, patched) = answer(request.body(json!({"spec": spec}).to_string())).await;
        assert_eq!(status, 200, "{patched}");
    }

    /// What was done to the engine since the last call, in no order: passes of several workloads mix.
    fn done_since(&self, seen: &mut usize) -> BTreeSet<String> {
        let effects = self.engine.effects();
        let new = effects[*seen..].iter().map(|record| record.effect.to_string()).collect();
        *seen = effects.len();
        new
    }
}

fn holder(name: &str) -> Value {
    json!({"name": name, "namespace": "default"})
}

#[tokio::test]
async fn a_handoff() {
    let (wire, kubectl) = tokio::join!(World::gaia(), World::gaia());
    let (mut on_wire, mut on_kubectl) = (0, 0);
    wire.done_since(&mut on_wire);
    kubectl.done_since(&mut on_kubectl);
    let steps = [
        ("prime-to-study", "gaia-prime", "gaia-study", "gaia-study"),
        ("study-to-prime", "gaia-study", "gaia-prime", "gaia-core"),
    ];
    for (name, from, to, owner) in steps {
        wire.done(&format!("/handoff/{name}"), "").await;
        let spec = json!({"gpu": "gpu0", "from": holder(from), "to": holder(to)});
        kubectl.kubectl_create("handoffs", name, spec).await;
        kubectl.gpu_is("it has changed hands", |gpu| gpu["owner"] == owner).await;
        kubectl.settled().await;
        assert_eq!(wire.owner().await, owner);
        let effects = wire.done_since(&mut on_wire);
        assert!(!effects.is_empty());
        assert_eq!(effects, kubectl.done_since(&mut on_kubectl), "{name}");
        assert_eq!(wire.services.calls(), kubectl.services.calls(), "{name}");
    }
}

#[tokio::test]
async fn a_cancelled_handoff() {
    let (wire, kubectl) = tokio::join!(World::gaia(), World::gaia());
    for world in [&wire, &kubectl] {
        world.services.hang("/gpu/release");
    }
    let (_, begun) = wire.post("/handoff/prime-to-study?wait=false", "").await;
    wire.done(&format!("/handoff/{}/cancel", begun["handoff_id"].as_str().expect("an id")), "").await;
    let spec = json!({"gpu": "gpu0", "from": holder("gaia-prime"), "to": holder("gaia-study")});
    kubectl.kubectl_create("handoffs", "there", spec).await;
    kubectl.gpu_is("it is under way", |_| !kubectl.services.calls().is_empty()).await;
    kubectl.kubectl_patch("handoffs", "there", json!({"cancel": true})).await;
    kubectl.settled().await;
    for world in [&wire, &kubectl] {
        assert_eq!((world.owner().await.as_str(), world.runs("gaia-prime-live")), ("gaia-core", true));
    }
}

#[tokio::test]
async fn acquire_and_release() {
    let (wire, kubectl) = tokio::join!(World::bare(), World::bare());
    let shown = async |world: &World| {
        let (_, gpu) = world.get("/gpu/status").await;
        (gpu["owner"].clone(), gpu["reason"].clone(), gpu["queue"].clone())
    };
    for who in ["gaia-audio", "gaia-study"] {
        wire.done("/gpu/acquire", &json!({"requester": who, "reason": "training"}).to_string()).await;
        let holder = json!({"name": who, "kind": "External", "namespace": "default"});
        let spec = json!({"gpu": "gpu0", "holder": holder, "reason": "training"});
        kubectl.kubectl_create("gpuclaims", who, spec).await;
        let named = |gpu: &Value| gpu["owner"] == who || gpu["queue"] == json!([who]);
        kubectl.gpu_is("it is seen", named).await;
    }
    let held = (json!("gaia-audio"), json!("training"), json!(["gaia-study"]));
    assert_eq!(shown(&wire).await, held);
    assert_eq!(shown(&kubectl).await, held);
    wire.done("/gpu/release", "").await;
    kubectl.kubectl_patch("gpuclaims", "gaia-audio", json!({"release": true})).await;
    for world in [&wire, &kubectl] {
        world.gpu_is("the next has it", |gpu| gpu["owner"] == "gaia-study" && gpu["queue"] == json!([])).await;
    }
    // And each sees what the other's way has made: a claim of kubectl's is given back on the wire.
    let (_, gpu) = kubectl.get("/gpu/status").await;
    let release = format!("/gpu/release?lease_id={}", gpu["lease_id"].as_str().expect("a lease"));
    assert_eq!(kubectl.done(&release, "").await["message"], "GPU released by gaia-study");
    kubectl.gpu_is("nobody has it", |gpu| gpu["owner"] == "none").await;
}

#[tokio::test]
async fn start_and_stop_of_a_stack() {
    let (wire, kubectl) = tokio::join!(World::gaia(), World::gaia());
    let (mut on_wire, mut on_kubectl) = (0, 0);
    wire.done_since(&mut on_wire);
    kubectl.done_since(&mut on_kubectl);
    for (call, side, running) in
        [("candidate/start", "candidate", true), ("candidate/stop", "candidate", false), ("live/stop", "live", false)]
    {
        wire.done(&format!("/containers/{call}"), "").await;
        for service in ["core", "web", "mcp", "study", "prime"] {
            let spec = json!({side: {"running": running}});
            kubectl.kubectl_patch("workloads", &format!("gaia-{service}"), spec).await;
        }
        // The call answers when the stack is as it was asked to be: the other world has to come to the same, all five.
        let (_, now) = wire.get("/containers/status").await;
        let wanted = if running { "running" } else { "stopped" };
        for service in ["core", "web", "mcp", "study"] {
            assert_eq!(now[side][service]["state"], wanted, "{call} {service}");
        }
        let the_same = |status: &Value| {
            let state = |status: &Value, service: &str| status[side][service]["state"].clone();
            ["core", "web", "mcp", "study", "prime"].iter().all(|one| state(status, one) == state(&now, one))
        };
        kubectl.containers_are("it is the same", the_same).await;
        let effects = wire.done_since(&mut on_wire);
        assert!(!effects.is_empty());
        assert_eq!(effects, kubectl.done_since(&mut on_kubectl), "{call}");
    }
}

#[tokio::test]
async fn a_swap() {
    let (wire, kubectl) = tokio::join!(World::gaia(), World::gaia());
    wire.done("/containers/swap", r#"{"service":"mcp"}"#).await;
    kubectl
        .kubectl_patch("workloads", "gaia-mcp", json!({"active": "Candidate", "candidate": {"running": true}}))
        .await;
    for world in [&wire, &kubectl] {
        let answers = |container: &str| {
            let seen = world.engine.observed();
            let attached = seen.iter().filter(|found| found.name == container).flat_map(|found| &found.attachments);
            attached.flat_map(|attachment| &attachment.aliases).any(|alias| alias == "gaia-mcp")
        };
        world
            .containers_are("the candidate answers", |_| answers("gaia-mcp-candidate") && !answers("gaia-mcp-live"))
            .await;
    }
}
