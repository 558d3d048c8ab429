//! The steps by which a Workload lets go of its GPU memory and takes it back. What each does is the adapters' business.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One way to free GPU memory. Steps are tried in order until the memory is proven free. Exactly one kind.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.http) ? 1 : 0) + (has(self.vllmSleep) ? 1 : 0) + (has(self.ollamaUnload) ? 1 : 0) + (has(self.llamaCppUnload) ? 1 : 0) + (has(self.comfyFree) ? 1 : 0) + (has(self.exec) ? 1 : 0) + (has(self.stop) ? 1 : 0) + (has(self.kill) ? 1 : 0) == 1").message("exactly one of http, vllmSleep, ollamaUnload, llamaCppUnload, comfyFree, exec, stop and kill must be given"))]
pub struct ReleaseStep {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpStep>,
    /// `POST /sleep` of vLLM (`--enable-sleep-mode`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm_sleep: Option<VllmSleep>,
    /// `keep_alive: 0` for its models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ollama_unload: Option<ModelServer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llama_cpp_unload: Option<ModelServer>,
    /// `POST /free` of ComfyUI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comfy_free: Option<ServerPort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecStep>,
    /// The container, with its grace period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<NoSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<NoSettings>,
    /// Seconds for the step to be answered, and again as many for the memory to come free; then the next one is tried.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: u32,
    /// The memory must come free by it. False: it only tells somebody, and the next step follows at once.
    #[serde(default = "yes")]
    pub verify: bool,
    /// When it fails, the whole handoff fails, instead of going on with the next step.
    #[serde(default)]
    pub required: bool,
}

/// One thing to do when the memory may be used again, in order; all that are required must succeed. Exactly one kind.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.http) ? 1 : 0) + (has(self.vllmWake) ? 1 : 0) + (has(self.ollamaLoad) ? 1 : 0) + (has(self.llamaCppLoad) ? 1 : 0) + (has(self.exec) ? 1 : 0) + (has(self.start) ? 1 : 0) == 1").message("exactly one of http, vllmWake, ollamaLoad, llamaCppLoad, exec and start must be given"))]
pub struct AcquireStep {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpStep>,
    /// `POST /wake_up` of vLLM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm_wake: Option<ServerPort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ollama_load: Option<ModelServer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llama_cpp_load: Option<ModelServer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecStep>,
    /// The container, and wait until its readiness probe passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<NoSettings>,
    /// Seconds for it to succeed; requests that are not answered are tried again meanwhile.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: u32,
    /// False: its failure is told, and the handoff goes on.
    #[serde(default = "yes")]
    pub required: bool,
}

fn default_timeout() -> u32 {
    30
}

fn yes() -> bool {
    true
}

/// A request; any 2xx is success. To the workload's own container (`port` and `path`), to the active variant of another
/// `workload`, or to somebody else (`url`).
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.url) != has(self.port)").message("exactly one of url and port must be given"))]
#[x_kube(validation = Rule::new("!has(self.workload) || has(self.port)").message("workload goes with port; a url names its host").field_path(".workload"))]
#[x_kube(validation = Rule::new("!has(self.path) || has(self.port)").message("path goes with port; a url has its own").field_path(".path"))]
pub struct HttpStep {
    #[serde(default)]
    pub method: HttpMethod,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https?://[^/]"))]
    pub url: Option<String>,
    /// Another Workload of the same namespace, instead of the step's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    pub workload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^/"))]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Sent as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub body: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HttpMethod {
    GET,
    #[default]
    POST,
    PUT,
    DELETE,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VllmSleep {
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// 1 keeps the weights in main memory, 2 drops them.
    #[serde(default = "default_level")]
    #[schemars(range(min = 1, max = 2))]
    pub level: u32,
}

fn default_level() -> u32 {
    1
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelServer {
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Absent: whatever is loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub models: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerPort {
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A command in the container; exit code 0 is success.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecStep {
    #[schemars(length(min = 1, max = 128))]
    pub command: Vec<String>,
}

/// Nothing to be said beyond that it is wanted: `stop: {}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoSettings {}
