//! `Workload`: one service of this host, in a live and a candidate variant, of which one is active.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    container::ContainerSpec,
    gpustep::{AcquireStep, ReleaseStep},
    quantity,
};

/// A service on this host: what runs as live, what runs as candidate, and which of the two answers under its name.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "Workload",
    plural = "workloads",
    shortname = "wl",
    category = "all",
    category = "gaia",
    namespaced,
    status = "WorkloadStatus",
    derive = "Default",
    derive = "PartialEq",
    selectable = ".spec.active",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$')").message("metadata.name must be a DNS label of at most 50 characters: containers are named after it"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.active", description = "The variant that answers under the workload's name"),
    printcolumn(name = "Live", type_ = "string", json_path = ".status.live.state"),
    printcolumn(name = "Candidate", type_ = "string", json_path = ".status.candidate.state"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Restarts", type_ = "integer", priority = 1, json_path = ".status.live.restarts"),
    printcolumn(name = "Image", type_ = "string", priority = 1, json_path = ".spec.live.container.image"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.live) || has(self.candidate)").message("at least one of live and candidate must be given"))]
#[x_kube(validation = Rule::new("self.active != 'Candidate' || has(self.candidate)").message("active is Candidate, but there is no candidate").field_path(".active"))]
pub struct WorkloadSpec {
    /// The node it runs on; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Which variant answers under the workload's name on its network.
    #[serde(default)]
    pub active: Variant,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateSpec>,
    /// Not started before these are so. Says nothing about what is running already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["workload"]))]
    pub depends_on: Vec<Dependency>,
    /// How readiness and health are found out; both variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// Whether a process that ended is started again. `OnFailure`: only after an exit code other than 0. Docker says 0, too,
    /// of what died because dockerd did: with `OnFailure` that stays down.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// Seconds between the stop signal and the kill.
    #[serde(default = "default_stop_grace")]
    #[schemars(range(min = 0, max = 3600))]
    pub stop_grace_seconds: u32,
    /// What it has to do with GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<WorkloadGpu>,
    /// The candidate answers while live is unhealthy or does not run, and live again once it has been healthy for a while.
    /// Needs a candidate that runs: none is started for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<bool>,
    /// So many former templates of each variant are kept in its WorkloadHistory, to go back to. Absent: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: Option<u32>,
    /// Leave everything as it is: observe, do not act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

fn default_stop_grace() -> u32 {
    10
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Variant {
    #[default]
    Live,
    Candidate,
}

impl Variant {
    pub const ALL: [Variant; 2] = [Variant::Live, Variant::Candidate];

    pub fn other(self) -> Self {
        match self {
            Variant::Live => Variant::Candidate,
            Variant::Candidate => Variant::Live,
        }
    }

    /// As in names and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Variant::Live => "live",
            Variant::Candidate => "candidate",
        }
    }
}

/// The live variant: runs unless told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveSpec {
    #[serde(default = "yes")]
    pub running: bool,
    pub container: ContainerSpec,
}

fn yes() -> bool {
    true
}

/// The candidate variant: does not run unless told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CandidateSpec {
    #[serde(default)]
    pub running: bool,
    pub container: ContainerSpec,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// A Workload of the same namespace.
    #[schemars(length(min = 1))]
    pub workload: String,
    #[serde(default)]
    pub condition: DependencyCondition,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DependencyCondition {
    /// Its active variant runs.
    #[default]
    Started,
    /// Its active variant runs and is healthy.
    Healthy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestartPolicy {
    #[default]
    Always,
    /// Only after an exit code other than 0.
    OnFailure,
    Never,
}

/// As kubelet's: startup holds the others back, liveness restarts, readiness decides who answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
}

/// One check, repeated. Exactly one of http, tcp, exec, docker.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.http) ? 1 : 0) + (has(self.tcp) ? 1 : 0) + (has(self.exec) ? 1 : 0) + (has(self.docker) ? 1 : 0) == 1").message("exactly one of http, tcp, exec and docker must be given"))]
pub struct Probe {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecProbe>,
    /// The verdict of Docker's own health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<DockerProbe>,
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub initial_delay_seconds: u32,
    #[serde(default = "default_period")]
    #[schemars(range(min = 1))]
    pub period_seconds: u32,
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: u32,
    /// So many failures in a row mean failed.
    #[serde(default = "default_failure_threshold")]
    #[schemars(range(min = 1))]
    pub failure_threshold: u32,
    /// So many successes in a row mean passed.
    #[serde(default = "default_success_threshold")]
    #[schemars(range(min = 1))]
    pub success_threshold: u32,
}

fn default_period() -> u32 {
    10
}
fn default_timeout() -> u32 {
    1
}
fn default_failure_threshold() -> u32 {
    3
}
fn default_success_threshold() -> u32 {
    1
}

/// GET; 200 to 399 passes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpProbe {
    #[serde(default = "default_path")]
    pub path: String,
    /// The container's port; asked at the container's address, or at the published port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<HttpScheme>,
}

fn default_path() -> String {
    "/".to_owned()
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpScheme {
    #[default]
    HTTP,
    /// The certificate is not checked, as kubelet does not.
    HTTPS,
}

/// A connection is accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpProbe {
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A command in the container exits 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecProbe {
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
}

/// No settings: the health check is in the image or in `container.healthcheck`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DockerProbe {}

/// What a workload has to do with GPUs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadGpu {
    /// Names of the `Gpu` objects it uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// It runs whether it holds the cards or not, and uses them only once its acquire steps told it to. Otherwise it is not
    /// started before it holds them.
    #[serde(default)]
    pub runs_without: bool,
    /// Kubernetes quantity: what it needs on the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = quantity::PATTERN))]
    pub memory: Option<String>,
    /// How it lets go of the memory, tried in order until the memory is free; none: it is stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub release_steps: Vec<ReleaseStep>,
    /// How it takes the memory back, all in order; none: it is started if it was stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub acquire_steps: Vec<AcquireStep>,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The variant that answers under the workload's name now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<Variant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<VariantStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<VariantStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VariantStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    pub state: VariantState,
    /// By the probes, or Docker's health check when there are none.
    pub health: VariantHealth,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// What the container that exists was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
    /// Starts seen since the container was made, but for the first and those that follow a wished stop.
    #[serde(default)]
    pub restarts: u32,
    /// The same without ten minutes of running in between: what the wait before the next restart grows with.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts_in_a_row: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Start of the present or last run that was wished for. Absent once a stop was wished for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// End of the run before, while it is wished to run. Absent once a stop was wished for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// It has been healthy without a break since then, as far as was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_since: Option<Time>,
    /// Published, as `127.0.0.1:8080->80/TCP`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// `Unknown` when the engine does not answer; never taken for `Absent`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VariantState {
    #[default]
    Unknown,
    Absent,
    Created,
    Running,
    Paused,
    Exited,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VariantHealth {
    /// Does not run, or nothing has been found out yet.
    #[default]
    Unknown,
    Starting,
    Healthy,
    Unhealthy,
}
