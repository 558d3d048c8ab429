//! The smallest object of each kind.

use serde_json::{Value, json};

/// Only what must be said.
pub fn minimal(kind: &str) -> Value {
    let spec = match kind {
        "Droplet" => json!({"endpoint": "http://127.0.0.1:8100"}),
        "Gpu" => json!({"device": {"index": 0}}),
        "GpuClaim" => json!({"gpu": "gpu0", "holder": {"name": "gaia-study"}}),
        "Handoff" => json!({"gpu": "gpu0", "to": {"name": "gaia-study"}}),
        "Node" | "Worker" => json!({}),
        "Promotion" => json!({"workload": "gaia-core"}),
        "Source" => json!({"directory": "/etc/gaia/desired"}),
        "SourceRevision" => {
            json!({"source": "desired", "revision": 1, "since": "2026-11-20T10:00:00Z", "digest": "d", "objects": 0, "manifests": ""})
        }
        "Task" => json!({"document": {
            "apiVersion": "mloc/v1", "kind": "EchoTask", "metadata": {"name": "hello"},
            "spec": {"taskType": "echo", "resources": {"hardware": {}}},
        }}),
        "Workload" => json!({"live": {"container": {"image": "busybox"}}}),
        "WorkloadHistory" => json!({}),
        other => panic!("say what the smallest {other} is"),
    };
    json!({"apiVersion": "gaia.dev/v1alpha1", "kind": kind, "metadata": {"name": "smallest"}, "spec": spec})
}
