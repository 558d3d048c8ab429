//! `GpuClaim`: somebody asks for a card; a place in its queue, then a lease.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{gpu::Holder, quantity};

/// A wish to hold a GPU. Deleting it, or `release`, gives the card back. What is asked for, and by whom, cannot change.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "GpuClaim",
    plural = "gpuclaims",
    shortname = "gclaim",
    category = "all",
    category = "gaia",
    namespaced,
    status = "GpuClaimStatus",
    derive = "Default",
    derive = "PartialEq",
    selectable = ".spec.gpu",
    selectable = ".spec.holder.name",
    selectable = ".status.phase",
    printcolumn(name = "Holder", type_ = "string", json_path = ".spec.holder.name"),
    printcolumn(name = "Gpu", type_ = "string", json_path = ".status.gpu"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Position", type_ = "integer", json_path = ".status.position"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Expires", type_ = "date", priority = 1, json_path = ".status.expiresAt"),
    printcolumn(name = "Waiting For", type_ = "string", priority = 1, json_path = ".status.waitingFor"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.gpu) || !has(self.selector)").message("gpu and selector exclude one another").field_path(".selector"))]
#[x_kube(validation = Rule::new("has(self.gpu) || has(self.selector) || has(self.memory) || self.count > 1").message("at least one of gpu, selector, memory and count must be given"))]
#[x_kube(validation = Rule::new("!has(self.gpu) || self.count == 1").message("one gpu is named: count must be 1").field_path(".count"))]
#[x_kube(validation = Rule::new("!self.shared || has(self.memory)").message("who shares a card must say how much memory it needs").field_path(".memory"))]
#[x_kube(validation = Rule::new("!self.shared || self.count == 1").message("a shared claim is for one card").field_path(".count"))]
#[x_kube(validation = Rule::new("!has(self.minHoldSeconds) || !has(self.maxHoldSeconds) || self.minHoldSeconds <= self.maxHoldSeconds").message("minHoldSeconds is more than maxHoldSeconds").field_path(".minHoldSeconds"))]
#[x_kube(validation = Rule::new("self.count == oldSelf.count && self.shared == oldSelf.shared").message("count and shared cannot change: make another claim").field_path(".count"))]
#[x_kube(validation = Rule::new("!has(self.ttlSeconds) || !has(self.maxHoldSeconds) || self.ttlSeconds <= self.maxHoldSeconds").message("ttlSeconds is more than maxHoldSeconds").field_path(".ttlSeconds"))]
#[x_kube(validation = Rule::new("has(self.gpu) == has(oldSelf.gpu) && (!has(self.gpu) || self.gpu == oldSelf.gpu)").message("gpu cannot change: make another claim").field_path(".gpu"))]
#[x_kube(validation = Rule::new("has(self.selector) == has(oldSelf.selector) && (!has(self.selector) || self.selector == oldSelf.selector)").message("selector cannot change: make another claim").field_path(".selector"))]
#[x_kube(validation = Rule::new("has(self.memory) == has(oldSelf.memory) && (!has(self.memory) || self.memory == oldSelf.memory)").message("memory cannot change: make another claim").field_path(".memory"))]
#[x_kube(validation = Rule::new("!oldSelf.release || self.release").message("what was released stays released").field_path(".release"))]
#[x_kube(validation = Rule::new("self.holder == oldSelf.holder").message("holder cannot change: make another claim").field_path(".holder"))]
pub struct GpuClaimSpec {
    /// This card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub gpu: Option<String>,
    /// Any card that has these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<GpuSelector>,
    /// Any card with at least so much memory, a Kubernetes quantity. Of a `shared` claim: what it takes of the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = quantity::PATTERN))]
    pub memory: Option<String>,
    /// So many cards, all or none.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub count: u32,
    /// May have a card together with other shared claims, as far as measured free memory less the reserve allows.
    #[serde(default)]
    pub shared: bool,
    pub holder: Holder,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Higher goes first; among equals the elder.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    #[serde(default)]
    pub preemption: Preemption,
    /// Seconds it may wait in the queue; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<u32>,
    /// The lease lapses so many seconds after it was granted or `renewedAt`; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub ttl_seconds: Option<u32>,
    /// A sign of life of the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_at: Option<Time>,
    /// The lease ends so many seconds after it was granted, renewed or not; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_hold_seconds: Option<u32>,
    /// Nobody takes the card away before so many seconds after it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min_hold_seconds: Option<u32>,
    /// Give the card back, and keep the claim to be read. Cannot be taken back.
    #[serde(default)]
    pub release: bool,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuSelector {
    #[schemars(length(min = 1, max = 16), extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preemption {
    /// Waits for other claims to end. The declared owner lends at once either way.
    #[default]
    Never,
    /// Takes the card from a claim of lower priority.
    LowerPriority,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuClaimStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub phase: GpuClaimPhase,
    /// The first card it was granted, or waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// All the cards it was granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing_token: Option<i64>,
    /// In the queue, 1 is next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// Who or what is in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// When it can have the card at the latest, as far as the leases before it have an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GpuClaimPhase {
    #[default]
    Pending,
    Granted,
    /// Given back.
    Released,
    /// The lease lapsed or reached its end.
    Expired,
    /// Waited too long.
    TimedOut,
}

impl GpuClaimPhase {
    /// Nothing happens to it any more.
    pub fn is_terminal(self) -> bool {
        match self {
            GpuClaimPhase::Pending | GpuClaimPhase::Granted => false,
            GpuClaimPhase::Released | GpuClaimPhase::Expired | GpuClaimPhase::TimedOut => true,
        }
    }
}

/// Reasons of a claim's conditions, its events and its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
pub enum GpuClaimReason {
    Granted,
    Queued,
    /// The owner does not lend.
    NotLent,
    NoSuchGpu,
    NoGpuMatches,
    /// Of those that are large enough. The message names who is on them.
    InsufficientMemory,
    NoSuchWorkload,
    Preempted,
    LeaseLapsed,
    MaxHoldReached,
    WaitedTooLong,
    /// By its holder.
    Released,
    /// The lease went to somebody else by a Handoff.
    HandedOver,
}
