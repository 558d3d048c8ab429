//! `Handoff`: one change of a card's holder, from the first step to its end or back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gpu::Holder;

/// A GPU goes from one holder to another. Only `cancel` can change afterwards.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "Handoff",
    plural = "handoffs",
    shortname = "ho",
    category = "gaia",
    namespaced,
    status = "HandoffStatus",
    derive = "Default",
    derive = "PartialEq",
    selectable = ".spec.gpu",
    selectable = ".status.phase",
    printcolumn(name = "Gpu", type_ = "string", json_path = ".spec.gpu"),
    printcolumn(name = "From", type_ = "string", json_path = ".spec.from.name"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.to.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress %", type_ = "integer", json_path = ".status.progressPct"),
    printcolumn(name = "Type", type_ = "string", priority = 1, json_path = ".spec.type"),
    printcolumn(name = "Error", type_ = "string", priority = 1, json_path = ".status.error"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.from) || has(self.to)").message("at least one of from and to must be given"))]
#[x_kube(validation = Rule::new("!has(self.from) || !has(self.to) || self.from != self.to").message("from and to are the same").field_path(".to"))]
#[x_kube(validation = Rule::new("self.gpu == oldSelf.gpu && self.type == oldSelf.type && has(self.from) == has(oldSelf.from) && (!has(self.from) || self.from == oldSelf.from) && has(self.to) == has(oldSelf.to) && (!has(self.to) || self.to == oldSelf.to)").message("gpu, type, from and to cannot change: cancel it and make another"))]
#[x_kube(validation = Rule::new("!oldSelf.cancel || self.cancel").message("what was cancelled stays cancelled").field_path(".cancel"))]
pub struct HandoffSpec {
    /// Name of the Gpu.
    #[schemars(length(min = 1, max = 253))]
    pub gpu: String,
    #[serde(default, rename = "type")]
    pub type_: HandoffType,
    /// Who gives it; absent: nobody holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Holder>,
    /// Who gets it; absent: nobody, it only comes free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Holder>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Seconds until the card must have changed hands; after that it is rolled back. What the new holder then does to take it
    /// has time-outs of its own.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: u32,
    /// Stop and roll back. Not heard while the lease moves, and has no effect once the new holder has taken the card.
    #[serde(default)]
    pub cancel: bool,
}

fn default_timeout() -> u32 {
    120
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HandoffType {
    /// Any two holders.
    #[default]
    Transfer,
    PrimeToStudy,
    StudyToPrime,
    LiveToCandidate,
    CandidateToLive,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandoffStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub phase: HandoffPhase,
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub progress_pct: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<MicroTime>,
    /// The fencing token of the card when it began: a higher one later says that the lease has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_token: Option<i64>,
    /// What was done, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<HandoffStep>,
    /// Who was on the card when it began, and who was at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pids_before: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pids_after: Vec<u32>,
    /// What stood for it that the old holder was gone; absent: nothing yet, or nobody held the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<HandoffProof>,
    /// Used memory while waiting for it to come free. Thinned out to at most 240 points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 240))]
    pub memory_curve: Vec<MemorySample>,
    /// Of the new holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing_token: Option<i64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What putting the old holder back came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Of these, the last three are ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HandoffPhase {
    #[default]
    Initiated,
    ReleasingGpu,
    WaitingCudaCleanup,
    TransferringOwnership,
    SignalingRecipient,
    Completed,
    Failed,
    Cancelled,
}

impl HandoffPhase {
    pub fn is_terminal(self) -> bool {
        self.progress_pct().is_none_or(|pct| pct == 100)
    }

    /// None for the two ends that are not the goal: they keep what had been reached.
    pub fn progress_pct(self) -> Option<u32> {
        match self {
            HandoffPhase::Initiated => Some(0),
            HandoffPhase::ReleasingGpu => Some(10),
            HandoffPhase::WaitingCudaCleanup => Some(30),
            HandoffPhase::TransferringOwnership => Some(60),
            HandoffPhase::SignalingRecipient => Some(80),
            HandoffPhase::Completed => Some(100),
            HandoffPhase::Failed | HandoffPhase::Cancelled => None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandoffStep {
    /// `http POST http://gaia-core:6415/gpu/release`, `stop default/gaia-prime`.
    pub name: String,
    /// What it belongs to.
    #[serde(default)]
    pub stage: StepStage,
    pub outcome: StepOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<MicroTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<MicroTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StepStage {
    /// The old holder lets go.
    #[default]
    Release,
    /// The new holder begins.
    Acquire,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepOutcome {
    #[default]
    Running,
    Succeeded,
    Failed,
    /// Was not needed: the old holder did not run (it was stopped in its place, lest it come up), or an earlier one did it.
    Skipped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HandoffProof {
    /// The driver was asked.
    Measured,
    /// Nothing was measured: the container engine said that the old holder's containers do not run
    /// (`spec.cleanup.proof: EngineOnly` of the Gpu).
    EngineOnly,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemorySample {
    pub at: MicroTime,
    pub used_mib: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    pub outcome: StepOutcome,
    /// Why there is one.
    #[serde(default)]
    pub reason: HandoffReason,
    /// The new holder has let go again: the lease may go back.
    #[serde(default)]
    pub return_lease: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<HandoffStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Reasons of a handoff's conditions, its events and its metrics.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
pub enum HandoffReason {
    #[default]
    Progressing,
    Completed,
    Cancelled,
    /// The card changes hands on the container engine's word alone.
    Unproven,
    NoSuchGpu,
    /// The card was not held by `from`.
    WrongHolder,
    AnotherInProgress,
    /// `to` is a Workload, or a variant of one, that does not exist.
    NoSuchWorkload,
    /// The card is its owner's alone (`lend: false`).
    NotLent,
    /// The new holder would not fit onto the card. Nothing was stopped for it.
    InsufficientMemory,
    ReleaseFailed,
    MemoryNotFreed,
    /// The card changed hands under us.
    LeaseLost,
    RecipientFailed,
    DeadlineExceeded,
    /// Somebody deletes the object.
    Deleted,
    /// The claim it was made for is over.
    ClaimEnded,
    RollingBack,
}

impl HandoffReason {
    /// Somebody wished the end; nothing went wrong.
    pub fn is_wished(self) -> bool {
        matches!(self, HandoffReason::Cancelled | HandoffReason::Deleted | HandoffReason::ClaimEnded)
    }
}

#[cfg(test)]
mod tests {
    use super::HandoffPhase;

    #[test]
    fn three_phases_are_ends() {
        let ends = [HandoffPhase::Completed, HandoffPhase::Failed, HandoffPhase::Cancelled];
        assert!(ends.into_iter().all(HandoffPhase::is_terminal));
        assert!(!HandoffPhase::SignalingRecipient.is_terminal());
        assert!(!HandoffPhase::Initiated.is_terminal());
    }
}
