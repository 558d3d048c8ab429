//! `container`: what a variant's container is made from, in our words, or the name of one that somebody else made.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a container is made from (`image` and the rest; any change makes a new container), or `adopt`: exactly one of
/// the two.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.compose) || (has(self.image) && self.image != '')").message("compose is resolved by who reads the files (a Source, gaia plan, gaia import compose); over the API write what it comes to").field_path(".compose"))]
#[x_kube(validation = Rule::new("has(self.compose) || (has(self.image) && self.image != '') != has(self.adopt)").message("exactly one of image and adopt must be given"))]
#[x_kube(validation = Rule::new("!has(self.compose) || !has(self.adopt)").message("what comes from a Compose file is taken over where it matches, without adopt").field_path(".adopt"))]
pub struct ContainerSpec {
    /// Image reference, `vllm/vllm-openai:v0.9.1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// A container that somebody else made: we start, stop and watch it, and never make, remove or rename it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
    /// The service of a Compose file that these fields were taken from, by whoever read the file. Its container, if Compose
    /// made one, is taken over while it is as these fields say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<ComposeSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Replaces the image's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `uid`, `uid:gid` or a name the image knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Networks to join beside the namespace's own (`gaia-<namespace>`). They must exist, unless `networkOptions` lets them be
    /// made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// More about some of `networks`, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub network_options: BTreeMap<String, NetworkOptions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Further labels of the container; `gaia.dev/…` are ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM` when absent, or the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Run an init process that reaps zombies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// `host:address` lines for /etc/hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// The root file system cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,
    /// Further groups of the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// `private`, `shareable`, `host`, `none` or `container:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    /// `host`, or `container:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// Directories in memory: `/run` or `/run:size=64m,mode=1777`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    /// By name: `nofile`, `memlock`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Devices of the host: `/dev/a`, `/dev/a:/dev/b` or `/dev/a:/dev/b:rwm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_options: Vec<String>,
    /// Where its output goes; absent: where the engine puts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// The OCI runtime, `nvidia`; absent: the engine's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Standard input stays open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<bool>,
    /// It has a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
}

/// A service of a Compose file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComposeSource {
    /// The Compose file; in a file of desired state also relative to that.
    #[schemars(length(min = 1))]
    pub file: String,
    #[schemars(length(min = 1))]
    pub service: String,
    /// The service must be in this profile, or in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Compose's project; absent: as Compose would call it (`name:`, COMPOSE_PROJECT_NAME in `.env`, the directory).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkOptions {
    /// Further names on this network; the active variant has its workload's name anyway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// A plain bridge network is made under this name when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<bool>,
}

/// -1: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ulimit {
    #[schemars(range(min = -1))]
    pub soft: i64,
    #[schemars(range(min = -1))]
    pub hard: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Logging {
    /// `json-file`, `journald`, `local`, …; absent: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// Pulled when the engine does not have it.
    #[default]
    IfNotPresent,
    Always,
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: u16,
    /// Published on the host; absent: reachable on the container's networks only. 0: the engine picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// Address to publish on, 127.0.0.1 when absent; empty: every address of the host, IPv6 too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    #[default]
    TCP,
    UDP,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<MountType>,
    /// A path of the host (Bind) or the name of a volume (Volume); none for Tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Path in the container.
    pub target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Bind: `private`, `rprivate`, `shared`, `rshared`, `slave` or `rslave`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    /// Bind: a source that is missing is made, as a directory of root's; otherwise the container is not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_source: Option<bool>,
    /// Volume: what the image has at the target is not copied into an empty volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_copy: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MountType {
    #[default]
    Bind,
    Volume,
    Tmpfs,
}

/// Devices given to the container, NVIDIA's unless `driver` says otherwise. One of count and deviceIds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpus {
    /// So many devices; -1: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// Indices or UUIDs (MIG too).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_ids: Vec<String>,
    /// What of the driver it may use (`compute`, `utility`, …) beside `gpu`, or in its place; absent: `gpu`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// The engine's device driver, `nvidia` or `cdi`; absent: whichever has the capabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// Docker's own health check, run by the engine. Without command, shell and disabled: the image's, at other times.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.command) ? 1 : 0) + (has(self.shell) ? 1 : 0) + (has(self.disabled) && self.disabled ? 1 : 0) <= 1").message("at most one of command, shell and disabled may be given"))]
pub struct Healthcheck {
    /// Run in the container; exit 0 is healthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// The same as a line for the image's shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Not even the image's own health check is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub interval_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period_seconds: Option<u32>,
    /// Between checks during the start period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub start_interval_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub retries: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Kubernetes quantity, `1.5` or `500m` cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Kubernetes quantity, `8Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Size of /dev/shm, Kubernetes quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<String>,
    /// What it should get by with when memory is scarce, Kubernetes quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<String>,
    /// Memory and swap together, Kubernetes quantity; `-1`: as much swap as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<String>,
    /// Processes and threads at most; -1: as many as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<i64>,
    /// Weight when cores are scarce; others have 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<i64>,
    /// The cores it may use: `0-3,8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopt {
    /// Name of the container on this host.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// Who makes the container.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ContainerSource<'a> {
    Inline(&'a ContainerSpec),
    Adopt { name: &'a str },
}

impl ContainerSpec {
    pub fn source(&self) -> ContainerSource<'_> {
        match &self.adopt {
            Some(adopt) => ContainerSource::Adopt { name: &adopt.name },
            None => ContainerSource::Inline(self),
        }
    }

    /// A card may be in use by it. What a container that somebody else made uses is not known: it counts.
    pub fn may_use_gpu(&self) -> bool {
        self.gpus.is_some() || self.adopt.is_some() || self.runtime.as_deref() == Some("nvidia")
    }

    /// Identity of what a container is made from: 16 hexadecimal digits over the canonical JSON. Two specs that differ
    /// only in how they are written hash alike.
    /// Where the fields come from is no part of it.
    pub fn hash(&self) -> String {
        let made_from = Self { compose: None, ..self.clone() };
        let canonical = serde_json::to_value(made_from).expect("a container spec is plain data").to_string();
        Sha256::digest(canonical.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}
