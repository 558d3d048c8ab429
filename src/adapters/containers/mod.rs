//! Containers: what the controllers need of an engine. [`docker`] is the real one, `adapters::simulated::containers`
//! stands beside it; both pass the suite in `tests/adapters`.
//!
//! Verbs are ends: `start` of a running container, `stop` of a stopped one, `remove` of an absent one succeed. After an
//! error that [may have taken effect](EngineError::MayHaveTakenEffect) the caller looks again before it does anything else.

pub mod docker;

use std::{collections::BTreeMap, time::Duration};

use futures::{future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;

use crate::api::container::{ContainerSpec, Protocol};

/// The engine's id of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ContainerId(pub String);

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, never started.
    Created,
    Running,
    Paused,
    /// The engine's own restart policy is at work (adopted containers; ours, when somebody gave them one by hand).
    Restarting,
    Removing,
    Exited,
    /// A removal failed half way.
    Dead,
}

/// Verdict of Docker's own health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineHealth {
    Starting,
    Healthy,
    Unhealthy,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    pub network: String,
    /// Names it answers to beside its own, sorted. Without the short id that Docker adds.
    pub aliases: Vec<String>,
    pub ip: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    pub container_port: u16,
    pub host_ip: String,
    pub host_port: u16,
    pub protocol: Protocol,
}

/// A container as seen just now.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub id: ContainerId,
    /// Without the leading slash.
    pub name: String,
    /// As the container was made from.
    pub image: String,
    /// Digest of the image's configuration, `sha256:…`.
    pub image_id: String,
    pub labels: BTreeMap<String, String>,
    pub state: ContainerState,
    pub health: Option<EngineHealth>,
    /// Of the last run; meaningless while running.
    pub exit_code: i64,
    pub oom_killed: bool,
    /// It has a restart policy: the engine starts it by itself. Never so of what we make.
    pub restarts_itself: bool,
    /// The engine's own complaint when a start failed.
    pub error: String,
    pub created_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub attachments: Vec<Attachment>,
    pub ports: Vec<PublishedPort>,
}

/// What a list tells of a container without a look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    pub id: ContainerId,
    /// Without the leading slash.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// As it was before what the engine is doing with it right now, be that a start or a stop.
    pub state: ContainerState,
    /// Another after another run, another attachment to a network or another verdict of the engine's health check. It says
    /// nothing more, and is to be compared with those of the same engine's lists alone. Empty: not from a list.
    pub trace: String,
}

impl From<&Container> for ContainerSummary {
    fn from(seen: &Container) -> Self {
        let (id, name, labels) = (seen.id.clone(), seen.name.clone(), seen.labels.clone());
        Self { id, name, labels, state: seen.state, trace: String::new() }
    }
}

/// What to make. Restart policy is always `no`: our loop is the only restarter.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerRequest {
    pub name: String,
    pub spec: ContainerSpec,
    /// Ours; the spec's own are added beneath them.
    pub labels: BTreeMap<String, String>,
    /// Networks with the aliases on each. The first is the one it starts on.
    pub networks: Vec<(String, Vec<String>)>,
}

/// Errors by what the caller may do about them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine is away or busy; nothing happened. Try again later. Says nothing about any container.
    #[error("the engine does not answer: {0}")]
    Unreachable(String),
    /// Time-out or 5xx in the middle: look before acting.
    #[error("{0}; it may have taken effect")]
    MayHaveTakenEffect(String),
    /// The request cannot succeed until somebody changes something. `reason` is PascalCase, for conditions.
    #[error("{message}")]
    Terminal { reason: TerminalReason, message: String },
    /// Not there (any more): look again.
    #[error("{0} does not exist")]
    NotFound(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::Display)]
pub enum TerminalReason {
    /// The image does not exist or may not be pulled.
    ImageNotFound,
    /// Another container has the name.
    NameTaken,
    /// A host port is in use.
    PortInUse,
    /// A network the spec names does not exist.
    NetworkNotFound,
    /// The engine refuses the request (bad option, unknown runtime, no GPU driver).
    Refused,
    /// The process could not be started (no such executable).
    StartFailed,
}

pub type EngineResult<T> = Result<T, EngineError>;

/// A hint that something happened. Never proof of anything: the receiver looks.
#[derive(Debug, Clone, PartialEq)]
pub enum EngineEvent {
    /// The stream is up (again): whatever happened before it went untold.
    Connected,
    Disconnected(String),
    Container {
        id: ContainerId,
        name: String,
        labels: BTreeMap<String, String>,
        action: String,
    },
}

/// Progress of a pull, for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    pub layers_done: usize,
    pub layers: usize,
    pub bytes_done: u64,
    pub bytes: u64,
}

/// What running a command in a container gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecResult {
    pub exit_code: i64,
    /// At most the last 4 KiB of both streams.
    pub output: String,
}

/// The container engine. Every call has a deadline of its own and is cancelled by dropping it.
pub trait Containers: Send + Sync + 'static {
    /// Every container that carries `label` (key, value; the value may be left open), whole or not at all.
    fn list<'a>(&'a self, label: Option<(&'a str, Option<&'a str>)>) -> BoxFuture<'a, EngineResult<Vec<Container>>>;

    /// As [`list`](Self::list), from the engine's own list alone: one call however many there are, and nobody waits for a
    /// container that the engine is busy with.
    fn summaries<'a>(
        &'a self,
        label: Option<(&'a str, Option<&'a str>)>,
    ) -> BoxFuture<'a, EngineResult<Vec<ContainerSummary>>>;

    /// By id or name.
    fn inspect<'a>(&'a self, id_or_name: &'a str) -> BoxFuture<'a, EngineResult<Option<Container>>>;

    /// How a container, whoever made it, differs from one made from `spec`: a sentence each, without any value that may be a
    /// secret. None: the two are alike.
    fn differences<'a>(
        &'a self,
        id: &'a ContainerId,
        spec: &'a ContainerSpec,
    ) -> BoxFuture<'a, EngineResult<Vec<String>>>;

    /// Makes, does not start. `Terminal(NameTaken)` when the name is in use, whoever has it.
    fn create<'a>(&'a self, request: &'a ContainerRequest) -> BoxFuture<'a, EngineResult<ContainerId>>;

    fn start<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>>;

    /// The stop signal, then kill after `grace`.
    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> BoxFuture<'a, EngineResult<()>>;

    /// Removes a container that does not run; its anonymous volumes too. A running one is `Terminal(Refused)`.
    fn remove<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>>;

    fn rename<'a>(&'a self, id: &'a ContainerId, name: &'a str) -> BoxFuture<'a, EngineResult<()>>;

    /// Takes the restart policy away, so that the engine starts it by itself no longer.
    fn forbid_restarts<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, EngineResult<()>>;

    /// A bridge network of ours (labelled managed) under that name; one that exists is left as it is.
    fn ensure_network<'a>(&'a self, name: &'a str) -> BoxFuture<'a, EngineResult<()>>;

    /// Attached to `network` with exactly these aliases; reconnects when they differ.
    fn ensure_attached<'a>(
        &'a self,
        id: &'a ContainerId,
        network: &'a str,
        aliases: &'a [String],
    ) -> BoxFuture<'a, EngineResult<()>>;

    /// The image's id if the engine has it.
    fn image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, EngineResult<Option<String>>>;

    /// Pulls; `progress` is told at most about once a second.
    fn pull<'a>(
        &'a self,
        image: &'a str,
        progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    ) -> BoxFuture<'a, EngineResult<()>>;

    /// Runs a command in a running container (exec probes).
    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        command: &'a [String],
        timeout: Duration,
    ) -> BoxFuture<'a, EngineResult<ExecResult>>;

    /// The engine's events from now on, reconnecting for ever with backoff. First item: `Connected` or `Disconnected`.
    fn events(&self) -> BoxStream<'static, EngineEvent>;
}
