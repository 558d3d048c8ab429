//! `Task`: one job for one worker: a single-task MLOC document, and how far it got.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A job. Documents with stages or a graph become several Tasks when they are submitted. Only `cancel` and `suspend` can
/// change afterwards.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gaia.dev",
    version = "v1alpha1",
    kind = "Task",
    plural = "tasks",
    category = "all",
    category = "gaia",
    namespaced,
    status = "TaskStatus",
    derive = "Default",
    derive = "PartialEq",
    selectable = ".spec.document.spec.taskType",
    selectable = ".spec.submission",
    selectable = ".status.phase",
    selectable = ".status.assignedWorker",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.document.spec.taskType"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Worker", type_ = "string", json_path = ".status.assignedWorker"),
    printcolumn(name = "Retries", type_ = "integer", json_path = ".status.retries"),
    printcolumn(name = "Title", type_ = "string", priority = 1, json_path = ".spec.document.metadata.name"),
    printcolumn(name = "Error", type_ = "string", priority = 1, json_path = ".status.error"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.dependsOn) || self.dependsOn.size() == 0 || !has(self.shard)").message("a shard depends on nothing: its parent did").field_path(".shard"))]
#[x_kube(validation = Rule::new("self.document == oldSelf.document").message("document cannot change: submit another task").field_path(".document"))]
#[x_kube(validation = Rule::new("has(self.dependsOn) == has(oldSelf.dependsOn) && (!has(self.dependsOn) || self.dependsOn == oldSelf.dependsOn)").message("dependsOn cannot change: submit another task").field_path(".dependsOn"))]
#[x_kube(validation = Rule::new("!oldSelf.cancel || self.cancel").message("what was cancelled stays cancelled").field_path(".cancel"))]
pub struct TaskSpec {
    /// What the worker gets, placeholders unresolved.
    pub document: MlocDocument,
    /// The text as it was submitted, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 524_288))]
    pub raw_yaml: Option<String>,
    /// What the Tasks of one submitted document have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub submission: Option<String>,
    /// The name by which dependents refer to its results in `${…}`; absent: the document's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub graph_node_name: Option<String>,
    /// Tasks of the same namespace that must have succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub depends_on: Vec<String>,
    /// It is a part of another Task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// When it was submitted; absent: when it was created. Of several that wait for one worker the earlier goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_at: Option<MicroTime>,
    /// Goes before lower ones, whoever waits longer.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// So many further tries after a failure.
    #[serde(default = "default_max_retries")]
    #[schemars(range(max = 100))]
    pub max_retries: u32,
    /// It goes so many seconds after it has ended, with its results, though not before every task of its submission has, nor
    /// while another one needs them. Absent: what the server keeps tasks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 3_155_760_000_u32))]
    pub ttl_seconds_after_finished: Option<u32>,
    /// Do not dispatch it. Does not stop what is running.
    #[serde(default)]
    pub suspend: bool,
    /// Do not run it; if it runs, take no notice of how it ends.
    #[serde(default)]
    pub cancel: bool,
}

fn default_max_retries() -> u32 {
    3
}

/// A document as MLOC workers understand it. Fields that nobody here reads are kept and handed on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MlocDocument {
    /// `mloc/v1`
    #[schemars(length(min = 1))]
    pub api_version: String,
    /// `InferenceTask`, `SFTTask`, `EchoTask`, …
    #[schemars(length(min = 1))]
    pub kind: String,
    pub metadata: MlocMetadata,
    pub spec: MlocSpec,
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MlocMetadata {
    #[schemars(length(min = 1, max = 1024))]
    pub name: String,
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
#[x_kube(validation = Rule::new("(!has(self.stages) || self.stages.size() == 0) && !has(self.graph)").message("a Task is one step: submit documents with stages or a graph through /api/v1/tasks, which makes a Task of each step"))]
pub struct MlocSpec {
    /// What kind of executor the worker takes.
    #[schemars(length(min = 1, max = 253))]
    pub task_type: String,
    pub resources: MlocResources,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Parallel>,
    /// Not in a Task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::free_forms")]
    pub stages: Vec<Map<String, Value>>,
    /// Not in a Task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::free_form")]
    pub graph: Option<Map<String, Value>>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

/// What a worker must have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MlocResources {
    /// At least so many shards.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1024))]
    pub replicas: u32,
    pub hardware: MlocHardware,
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MlocHardware {
    /// Cores, `8` or `500m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<IntOrString>,
    /// `16Gi`, `64 GB`, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<IntOrString>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<MlocGpu>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

pub type IntOrString = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MlocGpu {
    #[serde(default)]
    #[schemars(range(max = 1024))]
    pub count: u32,
    /// Part of the product's name, in any case; `any` for all.
    #[serde(default = "any", rename = "type")]
    pub type_: String,
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

fn any() -> String {
    "any".to_owned()
}

/// MLOC's own spelling: `max_shards`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Parallel {
    #[serde(default)]
    pub enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_shards: Option<u32>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.index < self.total").message("index counts from 0 to total - 1").field_path(".index"))]
pub struct Shard {
    /// The Task it is a part of.
    #[schemars(length(min = 1, max = 253))]
    pub parent: String,
    pub index: u32,
    #[schemars(range(min = 1, max = 1024))]
    pub total: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub phase: TaskPhase,
    /// The Worker's id; `MULTI` when its shards are with several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_worker: Option<String>,
    /// When that worker's process had started, as it said: another one knows nothing of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_incarnation: Option<String>,
    /// Names the attempt that a worker of ours has, or had last. Whoever tells of it must give it back. Absent: the worker is
    /// MLOC's, and does not know such tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failed_worker: Option<String>,
    /// So many times it was given to a worker.
    #[serde(default)]
    pub attempts: u32,
    /// Failures so far.
    #[serde(default)]
    pub retries: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_at: Option<Time>,
    /// Why it failed or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatched_at: Option<MicroTime>,
    /// The worker said that it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The latest wish for further tries (`gaia.dev/retry-at`) that was heeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_retry: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<ShardCounts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// Files that were uploaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub artifacts: Vec<Artifact>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

impl Task {
    pub fn phase(&self) -> TaskPhase {
        self.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }

    /// Or when it was made, where nobody says.
    pub fn submitted_at(&self) -> jiff::Timestamp {
        let created = self.metadata.creation_timestamp.as_ref().map(|at| at.0);
        self.spec.submitted_at.as_ref().map(|at| at.0).or(created).unwrap_or_default()
    }
}

#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
// As MLOC writes it.
#[strum(serialize_all = "UPPERCASE")]
pub enum TaskPhase {
    /// Waits for what it depends on.
    #[default]
    Pending,
    /// Waits for a worker, or for its next try.
    Waiting,
    Dispatched,
    Done,
    Failed,
    Cancelled,
}

impl TaskPhase {
    pub fn is_terminal(self) -> bool {
        match self {
            TaskPhase::Pending | TaskPhase::Waiting | TaskPhase::Dispatched => false,
            TaskPhase::Done | TaskPhase::Failed | TaskPhase::Cancelled => true,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardCounts {
    pub total: u32,
    pub done: u32,
    pub failed: u32,
}

/// The result itself is kept as a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskResult {
    pub path: String,
    pub size_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Time>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    pub name: String,
    pub size_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Reasons of a task's conditions, its events and its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
pub enum TaskReason {
    Accepted,
    DependenciesPending,
    DependencyFailed,
    NoWorkerFits,
    NoWorkerFree,
    /// It has claimed GPUs, and does not have them yet.
    WaitingForGpu,
    Suspended,
    Dispatched,
    Running,
    Succeeded,
    WorkerFailed,
    WorkerLost,
    RetriesExhausted,
    /// Waits for the time of its next try.
    Retrying,
    /// Somebody wants it tried again.
    RetryRequested,
    /// It cannot be handed to a worker as it is.
    Invalid,
    Cancelled,
}
