//! `Promotion`: the candidate of a Workload becomes its live variant, if it proves itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::handoff::HandoffStep;

/// One try to put the candidate in the place of live. Only `cancel` can change afterwards.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "Promotion",
    plural = "promotions",
    shortname = "promo",
    category = "all",
    category = "gaia",
    namespaced,
    status = "PromotionStatus",
    derive = "Default",
    derive = "PartialEq",
    selectable = ".spec.workload",
    selectable = ".status.phase",
    printcolumn(name = "Workload", type_ = "string", json_path = ".spec.workload"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Error", type_ = "string", json_path = ".status.error"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.workload == oldSelf.workload && self.gates == oldSelf.gates && self.onFailure == oldSelf.onFailure").message("workload, gates and onFailure cannot change: cancel it and make another"))]
#[x_kube(validation = Rule::new("!oldSelf.cancel || self.cancel").message("what was cancelled stays cancelled").field_path(".cancel"))]
pub struct PromotionSpec {
    /// A Workload of the same namespace that has a candidate.
    #[schemars(length(min = 1, max = 253))]
    pub workload: String,
    /// What the candidate must pass before it answers.
    #[serde(default)]
    pub gates: Gates,
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Stop and bring live back. Has no effect once it is completed.
    #[serde(default)]
    pub cancel: bool,
}

/// All of those given must be passed, within the time.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.probes || self.minReadySeconds > 0 || has(self.command)").message("at least one gate must be given: probes, minReadySeconds or command"))]
#[x_kube(validation = Rule::new("self.minReadySeconds < self.timeoutSeconds").message("must be less than timeoutSeconds").field_path(".minReadySeconds"))]
#[x_kube(validation = Rule::new("!has(self.command) || self.command.timeoutSeconds <= self.timeoutSeconds").message("the command may take longer than all gates together").field_path(".command"))]
pub struct Gates {
    /// The readiness probe of the Workload passes.
    #[serde(default = "yes")]
    pub probes: bool,
    /// It has run, and stayed ready, for so long.
    #[serde(default = "default_min_ready")]
    pub min_ready_seconds: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<GateCommand>,
    /// Seconds for all gates together.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: u32,
}

impl Default for Gates {
    fn default() -> Self {
        Self { probes: true, min_ready_seconds: default_min_ready(), command: None, timeout_seconds: default_timeout() }
    }
}

fn yes() -> bool {
    true
}
fn default_min_ready() -> u32 {
    10
}
fn default_timeout() -> u32 {
    300
}
fn default_command_timeout() -> u32 {
    60
}

/// Run once in the candidate's container when the other gates are passed; exit code 0 passes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateCommand {
    #[schemars(length(min = 1, max = 128))]
    pub command: Vec<String>,
    #[serde(default = "default_command_timeout")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Live comes back as it was.
    #[default]
    Rollback,
    /// Everything stays as it is at that moment, for somebody to look.
    Hold,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub phase: PromotionPhase,
    /// What was done, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<HandoffStep>,
    /// Hash of the container spec that was live before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_revision: Option<String>,
    /// Hash of the container spec that is promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PromotionPhase {
    #[default]
    Pending,
    /// Live lets go of what the candidate needs.
    Releasing,
    StartingCandidate,
    Gating,
    /// The name moves to the candidate, and the templates are swapped.
    Switching,
    RollingBack,
    Completed,
    RolledBack,
    /// Neither got through nor back; or held by `onFailure`.
    Failed,
    Cancelled,
}

impl PromotionPhase {
    pub fn is_terminal(self) -> bool {
        match self {
            PromotionPhase::Pending
            | PromotionPhase::Releasing
            | PromotionPhase::StartingCandidate
            | PromotionPhase::Gating
            | PromotionPhase::Switching
            | PromotionPhase::RollingBack => false,
            PromotionPhase::Completed
            | PromotionPhase::RolledBack
            | PromotionPhase::Failed
            | PromotionPhase::Cancelled => true,
        }
    }
}

/// Reasons of a promotion's conditions, its events and its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
pub enum PromotionReason {
    Progressing,
    Completed,
    Cancelled,
    NoSuchWorkload,
    NoCandidate,
    AnotherInProgress,
    /// Refused before anything was stopped.
    DoesNotFit,
    CandidateFailed,
    ProbesFailed,
    CommandFailed,
    DeadlineExceeded,
    RollbackFailed,
}
