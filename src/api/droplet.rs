//! `Droplet`: an HTTP service that requests are routed to by name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A service that FPAI tasks are sent to. Written by hand, by a file, or from the registry it is listed in.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "Droplet",
    plural = "droplets",
    category = "all",
    category = "gaia",
    namespaced,
    status = "DropletStatus",
    derive = "Default",
    derive = "PartialEq",
    selectable = ".status.source",
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.endpoint"),
    printcolumn(name = "Reachable", type_ = "boolean", json_path = ".status.reachable"),
    printcolumn(name = "Latency ms", type_ = "integer", json_path = ".status.latencyMs"),
    printcolumn(name = "Circuit", type_ = "string", json_path = ".status.circuit"),
    printcolumn(name = "Source", type_ = "string", priority = 1, json_path = ".status.source"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DropletSpec {
    /// Where requests go: the path of a request is put behind it as it is.
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = [
        {"rule": "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''", "message": "must be an http or https URL with a host"},
        {"rule": "!self.contains('@') && !self.contains('?') && !self.contains('#')", "message": "must hold no user name, query or fragment"},
    ]))]
    pub endpoint: String,
    /// The name requests use, in any case; absent: the name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub display_name: Option<String>,
    /// Its number in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub droplet_id: Option<i64>,
    /// GET; 200 means reachable.
    #[serde(default = "default_health_path")]
    #[schemars(length(max = 2048), regex(pattern = "^/"))]
    pub health_path: String,
    #[serde(default)]
    pub limits: DropletLimits,
    /// Requests wait while this Workload gives its card away or gets it back; absent: nobody waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<DropletHold>,
    /// Everything else the registry says about it (steward, proof, costs), kept for its clients.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "super::schema::free_form")]
    pub registration: Map<String, Value>,
}

fn default_health_path() -> String {
    "/health".to_owned()
}

/// Whose handoffs requests wait for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DropletHold {
    /// A Workload of the droplet's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub workload: String,
    /// Seconds a request waits at most; then it is refused with 503.
    #[serde(default = "default_hold_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_seconds: u32,
}

fn default_hold_seconds() -> u32 {
    60
}

/// What one droplet may cost us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DropletLimits {
    /// Requests at the same time; further ones wait.
    #[serde(default = "default_concurrent")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent: u32,
    /// Requests that wait; further ones are refused with 503.
    #[serde(default = "default_queued")]
    #[schemars(range(max = 100_000))]
    pub max_queued: u32,
    /// Seconds for one attempt; absent: as the process is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<u32>,
    /// Attempts, not further ones; absent: as the process is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub max_attempts: Option<u32>,
    /// So many failures in a row open the circuit; 0: it never opens.
    #[serde(default = "default_failure_threshold")]
    pub failure_threshold: u32,
    /// Seconds until one request tries again.
    #[serde(default = "default_open_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub open_seconds: u32,
}

impl Default for DropletLimits {
    fn default() -> Self {
        Self {
            max_concurrent: default_concurrent(),
            max_queued: default_queued(),
            timeout_seconds: None,
            max_attempts: None,
            failure_threshold: default_failure_threshold(),
            open_seconds: default_open_seconds(),
        }
    }
}

fn default_concurrent() -> u32 {
    64
}
fn default_queued() -> u32 {
    256
}
/// Off: clients of the original expect every request to be tried.
fn default_failure_threshold() -> u32 {
    0
}
fn default_open_seconds() -> u32 {
    30
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DropletStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Absent until it was asked once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// Of the last probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed_at: Option<Time>,
    #[serde(default)]
    pub circuit: Circuit,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<DropletSource>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Circuit {
    /// Requests pass.
    #[default]
    Closed,
    /// Requests are refused at once.
    Open,
    /// One request may try.
    HalfOpen,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DropletSource {
    #[default]
    Registry,
    File,
    Api,
}

/// Reasons of a droplet's conditions, its events and its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
pub enum DropletReason {
    Reachable,
    Unreachable,
    UnhealthyAnswer,
    CircuitOpen,
    /// The registry no longer lists it.
    Delisted,
}
