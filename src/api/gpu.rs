//! `Gpu`: one card (or MIG slice) of a host, who should hold it when nobody asks, and who holds it.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{quantity, workload::Variant};

/// One GPU. Who holds it follows from claims, then from `owner`; a change of holder is a Handoff.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "Gpu",
    plural = "gpus",
    category = "all",
    category = "gaia",
    status = "GpuStatus",
    derive = "Default",
    derive = "PartialEq",
    selectable = ".spec.nodeName",
    selectable = ".status.holder.name",
    printcolumn(name = "Holder", type_ = "string", json_path = ".status.holder.name"),
    printcolumn(name = "Used MiB", type_ = "integer", json_path = ".status.memory.usedMib"),
    printcolumn(name = "Total MiB", type_ = "integer", json_path = ".status.memory.totalMib"),
    printcolumn(name = "Util %", type_ = "integer", json_path = ".status.utilizationPercent"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Healthy")].status"#
    ),
    printcolumn(
        name = "Read",
        type_ = "date",
        priority = 1,
        json_path = ".status.observedAt",
        description = "Age of the reading"
    ),
    printcolumn(name = "Product", type_ = "string", priority = 1, json_path = ".status.product"),
    printcolumn(
        name = "Owner",
        type_ = "string",
        priority = 1,
        json_path = ".spec.owner.name",
        description = "Who holds it when nobody claims it"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct GpuSpec {
    pub device: GpuDevice,
    /// The node it is plugged into; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Who holds it while nobody claims it; absent: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Holder>,
    /// Claims may take it from its owner for a while. False: it is the owner's alone, whichever of its variants.
    #[serde(default = "yes")]
    pub lend: bool,
    /// When a holder counts as gone from the card.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// What is tried, in this order, when the memory does not come free.
    #[serde(default = "default_on_stuck")]
    #[schemars(length(max = 3), extend("x-kubernetes-validations" = [
        {"rule": "self.all(a, self.exists_one(b, b == a))", "message": "must not name a measure twice"},
        {"rule": "self.map(m, m == 'Release' ? 0 : m == 'Stop' ? 1 : 2).isSorted()", "message": "must go from the gentlest measure to the hardest: Release, Stop, Kill"},
    ]))]
    pub on_stuck: Vec<Measure>,
    /// Memory that others (a desktop) may use all the time, a Kubernetes quantity. Not lent, and not waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = quantity::PATTERN))]
    pub reserve: Option<String>,
}

fn yes() -> bool {
    true
}

fn default_on_stuck() -> Vec<Measure> {
    vec![Measure::Release, Measure::Stop]
}

/// Which card. An index may point to another card after a reboot, a UUID does not: where both are given, the UUID counts.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.index) || has(self.uuid)").message("index or uuid must be given"))]
pub struct GpuDevice {
    /// As NVML counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1023))]
    pub index: Option<u32>,
    /// `GPU-…` of a card, `MIG-…` of a slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^(GPU|MIG)-[0-9A-Za-z/-]+$"))]
    pub uuid: Option<String>,
}

/// Somebody who can hold a card.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Name of the Workload, or what an outsider calls itself.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[serde(default)]
    pub kind: HolderKind,
    /// Namespace of the Workload.
    #[serde(default = "default_namespace")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    #[serde(default)]
    pub variant: Variant,
}

impl Holder {
    /// The same Workload, whichever of its variants.
    pub fn is_kin_of(&self, other: &Self) -> bool {
        Self { variant: other.variant, ..self.clone() } == *other
    }
}

fn default_namespace() -> String {
    "default".to_owned()
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HolderKind {
    /// One of ours: its release and acquire steps are run.
    #[default]
    Workload,
    /// Somebody who only asked through an API. Nothing can be done to it; its lease ends by itself.
    External,
}

/// `default/gaia-prime`, `default/gaia-core (candidate)`, `gaia-audio (external)`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.variant) {
            (HolderKind::External, _) => write!(f, "{} (external)", self.name),
            (HolderKind::Workload, Variant::Live) => write!(f, "{}/{}", self.namespace, self.name),
            (HolderKind::Workload, Variant::Candidate) => write!(f, "{}/{} (candidate)", self.namespace, self.name),
        }
    }
}

/// When memory counts as free: looked at every `intervalMs` while a handoff waits for it, it must hold `samples` times in a row.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.samples * self.intervalMs <= self.timeoutSeconds * 1000").message("so many samples do not fit into timeoutSeconds").field_path(".samples"))]
pub struct Cleanup {
    #[serde(default)]
    pub policy: CleanupPolicy,
    /// Whose word it takes that the old holder is gone.
    #[serde(default)]
    pub proof: RequiredProof,
    /// Used memory below this, beyond `reserve`, counts as free; a Kubernetes quantity.
    #[serde(default = "default_free_below")]
    #[schemars(regex(pattern = quantity::PATTERN))]
    pub free_below: String,
    #[serde(default = "default_cleanup_timeout")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: u32,
    #[serde(default = "default_cleanup_interval")]
    #[schemars(range(min = 5, max = 60000))]
    pub interval_ms: u32,
    /// So many in a row, since memory can rise again between two looks.
    #[serde(default = "default_samples")]
    #[schemars(range(min = 1, max = 100))]
    pub samples: u32,
}

impl Default for Cleanup {
    fn default() -> Self {
        Self {
            policy: CleanupPolicy::default(),
            proof: RequiredProof::default(),
            free_below: default_free_below(),
            timeout_seconds: default_cleanup_timeout(),
            interval_ms: default_cleanup_interval(),
            samples: default_samples(),
        }
    }
}

/// The driver alone keeps half a gigabyte on many cards.
fn default_free_below() -> String {
    "1Gi".to_owned()
}
fn default_cleanup_timeout() -> u32 {
    120
}
fn default_cleanup_interval() -> u32 {
    10
}
fn default_samples() -> u32 {
    3
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CleanupPolicy {
    /// No process of the old holder is on the card.
    Processes,
    /// Used memory is below the floor.
    Memory,
    #[default]
    Both,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequiredProof {
    /// The driver's, as `policy` says. Where no driver answers, a card does not change hands.
    #[default]
    Required,
    /// The container engine's: the old holder's containers do not run. For hosts whose driver cannot be asked. The handoff
    /// tells that nothing was measured; memory that another process keeps, or that drains late, goes unseen.
    EngineOnly,
}

/// From the gentlest to the hardest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Measure {
    /// Run the holder's release steps once more.
    Release,
    /// Stop its container, with its grace period.
    Stop,
    /// Kill its container.
    Kill,
}

/// What was seen on the card, and who has been granted it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Nobody when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// Grows with every change of holder; whoever comes with a lower one is refused.
    #[serde(default)]
    pub fencing_token: i64,
    /// Why the holder has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquired_at: Option<MicroTime>,
    /// Everybody who has been granted it; the first is repeated above. More than one only when all of them share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
    /// The Handoff under way, `namespace/name`. While it runs nobody else is granted anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff: Option<String>,
    /// Claims that wait, first come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queue: Vec<QueueEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Absent when the driver does not answer: unknown is not zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<GpuMemory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_watts: Option<u32>,
    /// Everything on the card, the holder's or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pid"]))]
    pub processes: Vec<GpuProcess>,
    /// The last fault that the driver reported. History: `Healthy` says whether it still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_xid: Option<XidSeen>,
    /// When this was read. A reading that says nothing new is written all the same every five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The right to a card. Granted and ended by writing the Gpu's status, which is compared on its version: so there is one
/// truth about who holds it, at every instant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub holder: Holder,
    pub lease_id: String,
    /// Of the card at the moment of the grant: later grants have higher ones.
    pub fencing_token: i64,
    /// The GpuClaim it was granted to, `namespace/name`; absent: it is the owner's, or a Workload's that nobody is before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// To the microsecond: what is started later by whoever had the card before is started without the right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquired_at: Option<MicroTime>,
    /// Of a shared claim: what it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_mib: Option<u64>,
}

impl GpuStatus {
    /// Puts the leases in, and repeats the first one where everybody looks.
    pub fn set_leases(&mut self, leases: Vec<Lease>) {
        let first = leases.first();
        self.holder = first.map(|lease| lease.holder.clone());
        self.lease_id = first.map(|lease| lease.lease_id.clone());
        self.reason = first.map(|lease| lease.reason.clone());
        self.acquired_at = first.and_then(|lease| lease.acquired_at.clone());
        self.leases = leases;
    }

    pub fn lease_of(&self, holder: &Holder) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.holder == *holder)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuMemory {
    pub total_mib: u64,
    pub used_mib: u64,
    pub free_mib: u64,
}

/// A fault by the driver's number: <https://docs.nvidia.com/deploy/xid-errors/>.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct XidSeen {
    pub code: u64,
    /// When it was first seen.
    pub at: Time,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuProcess {
    /// On the host.
    pub pid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_mib: Option<u64>,
    /// Of the program, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Name of the container it runs in; of an orphan, and of one that another engine made, the beginning of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// It runs in a container that the engine does not know (any more), and keeps its memory.
    #[serde(default)]
    pub orphan: bool,
    /// `namespace/name` of the Workload whose container that is, or was; absent: a stranger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueEntry {
    /// `namespace/name` of the GpuClaim.
    pub claim: String,
    pub holder: Holder,
    pub priority: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// Reasons of a Gpu's conditions, its events and its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
pub enum GpuReason {
    Held,
    Free,
    HandoffInProgress,
    /// A handoff failed; the next attempt waits.
    HandoffFailed,
    /// The memory did not come free in time, whatever was tried.
    Stuck,
    /// Processes of nobody we know use more than `reserve`.
    ForeignProcesses,
    DeviceNotFound,
    /// Another object means the same card, and comes first.
    SameDevice,
    /// Of Healthy: nothing speaks against the card.
    NoFault,
    /// The driver has reported a fault of the card.
    Xid,
    /// It was there, and is gone from the driver.
    DeviceLost,
    /// Processes whose containers are gone keep memory.
    OrphanProcesses,
    DriverUnavailable,
    NodeUnreachable,
}
