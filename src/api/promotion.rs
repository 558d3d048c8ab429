//! `Promotion`: the other variant of a Workload comes to answer for it, if it proves itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{handoff::HandoffStep, workload::Variant};

/// One try to put one variant in the place of the other: the candidate in that of live, or live back in its own. Which runs
/// and which answers changes; what each of them is made from does not. Only `cancel` can change afterwards.
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
    printcolumn(name = "To", type_ = "string", json_path = ".status.to"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Error", type_ = "string", json_path = ".status.error"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.workload == oldSelf.workload && has(self.to) == has(oldSelf.to) && (!has(self.to) || self.to == oldSelf.to) && self.gates == oldSelf.gates && self.onFailure == oldSelf.onFailure").message("workload, to, gates and onFailure cannot change: cancel it and make another"))]
#[x_kube(validation = Rule::new("!oldSelf.cancel || self.cancel").message("what was cancelled stays cancelled").field_path(".cancel"))]
pub struct PromotionSpec {
    /// A Workload of the same namespace that has both variants.
    #[schemars(length(min = 1, max = 253))]
    pub workload: String,
    /// The variant that is to answer; absent: the one that does not when it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Variant>,
    /// What the new variant must pass before it answers.
    #[serde(default)]
    pub gates: Gates,
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Stop, and bring the old variant back. Has no effect once it is completed.
    #[serde(default)]
    pub cancel: bool,
}

/// All of those given must be passed, within the time that begins when the new variant is told to run.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.probes || self.minReadySeconds > 0 || has(self.modelLoaded) || has(self.command)").message("at least one gate must be given: probes, minReadySeconds, modelLoaded or command"))]
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
    pub model_loaded: Option<ModelLoaded>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<GateCommand>,
    /// Seconds for all gates together.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: u32,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            probes: true,
            min_ready_seconds: default_min_ready(),
            model_loaded: None,
            command: None,
            timeout_seconds: default_timeout(),
        }
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

/// It lists the model among those it serves, as OpenAI's API does (`data[].id`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelLoaded {
    /// The container's port; asked at the container's address, or at the published port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    #[serde(default = "default_models_path")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub model: Option<String>,
}

fn default_models_path() -> String {
    "/v1/models".to_owned()
}

/// Run in the new variant's container when the other gates are passed; exit code 0 passes. Once, but again when gaia is
/// restarted meanwhile.
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
    /// Everything comes back as it was.
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
    /// The variant that is to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Variant>,
    /// How it was before, and will be again if this fails. Present once it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// What was done, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<HandoffStep>,
    /// Hash of the container spec that answered before.
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

/// What a promotion changes about a Workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Before {
    pub active: Variant,
    pub live_running: bool,
    pub candidate_running: bool,
}

impl Before {
    pub fn running(&self, variant: Variant) -> bool {
        match variant {
            Variant::Live => self.live_running,
            Variant::Candidate => self.candidate_running,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PromotionPhase {
    #[default]
    Pending,
    /// The cards go from the old variant to the new one.
    Releasing,
    /// The variant that is to answer, whichever it is.
    StartingCandidate,
    Gating,
    /// The name moves to the new variant, and the old one is stopped.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr, strum::EnumString)]
pub enum PromotionReason {
    Progressing,
    Completed,
    Cancelled,
    NoSuchWorkload,
    /// The workload has one variant only.
    NoCandidate,
    AnotherInProgress,
    /// Files, or somebody else who applies, state a field that would have to change.
    FieldsOwned,
    /// Refused before anything was stopped.
    DoesNotFit,
    CandidateFailed,
    ProbesFailed,
    ModelNotLoaded,
    CommandFailed,
    HandoffFailed,
    DeadlineExceeded,
    RollbackFailed,
}
