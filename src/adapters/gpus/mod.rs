//! GPUs: what is in the host and what it is busy with. Reads only; nothing here decides who may have a card.
//! [`nvml`] is the real driver, `adapters::simulated::gpus` stands beside it.

pub mod nvml;
pub mod procfs;
mod smi;

use futures::future::BoxFuture;

use crate::adapters::containers::ContainerId;

/// A card as seen just now. What the driver did not tell is `None`, never zero.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuDevice {
    /// A MIG instance has the index of its card.
    pub index: u32,
    /// `GPU-…`, stays with the card; `MIG-…` for an instance.
    pub uuid: String,
    /// Which part of the card it is, where it is a MIG instance. The whole card is listed before its parts.
    pub mig: Option<u32>,
    pub name: String,
    /// Says nothing where `memory_used_mib` is `None`: the driver tells both or neither.
    pub memory_total_mib: u64,
    pub memory_used_mib: Option<u64>,
    pub utilization_percent: Option<u32>,
    pub temperature_celsius: Option<u32>,
    pub power_watts: Option<f64>,
    /// The last Xid (the driver's number of a fault) since somebody began to listen. History, not state.
    pub last_xid: Option<u64>,
    pub processes: Option<Vec<GpuProcess>>,
}

/// Somebody who has memory on a card. Each pid once, whether it computes, draws or does both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuProcess {
    /// On the host.
    pub pid: u32,
    /// Of the executable, where it could be read.
    pub name: Option<String>,
    /// The container that its cgroup names. Whether that one still exists is the caller's to find out: a process whose
    /// container the engine does not know is an orphan.
    pub container: Option<ContainerId>,
    /// Another engine than Docker made that container, as the cgroup's name says: Podman, CRI-O, containerd under Kubernetes. That
    /// Docker does not know it says nothing then.
    pub other_engine: bool,
    pub used_mib: Option<u64>,
}

/// The part of a reading that tells whether a card is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSample {
    pub memory_total_mib: u64,
    pub memory_used_mib: Option<u64>,
    pub processes: Option<Vec<GpuProcess>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No answer now; says nothing about any card.
    #[error("the GPU driver does not answer: {0}")]
    Unreachable(String),
    /// This host has no driver.
    #[error("there is no GPU driver: {0}")]
    NoDriver(String),
    /// The driver answers, and has no such card (any more): it was taken out, or is lost.
    #[error("no such GPU: {0}")]
    NotFound(String),
}

/// The cards of this host. Every call has a deadline of its own: a driver may hang on a card that is lost.
pub trait Gpus: Send + Sync + 'static {
    /// Every card by index, whole or not at all. A card that is lost is no longer among them.
    fn inventory(&self) -> BoxFuture<'_, Result<Vec<GpuDevice>, GpuError>>;

    /// Memory and processes of one card: cheap enough to ask many times a second while a handoff waits for it.
    fn sample<'a>(&'a self, uuid: &'a str) -> BoxFuture<'a, Result<GpuSample, GpuError>>;
}
