//! GPUs: what is in the host and what it is busy with. Reads only; nothing here decides who may have a card.

use futures::future::BoxFuture;

use crate::adapters::containers::ContainerId;

/// A card as seen just now. What the driver did not tell is `None`, never zero.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuDevice {
    pub index: u32,
    /// `GPU-…`, stays with the card.
    pub uuid: String,
    pub name: String,
    pub memory_total_mib: u64,
    pub memory_used_mib: Option<u64>,
    pub utilization_percent: Option<u32>,
    pub temperature_celsius: Option<u32>,
    pub power_watts: Option<f64>,
    pub processes: Option<Vec<GpuProcess>>,
}

/// Somebody who has memory on a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuProcess {
    pub pid: u32,
    /// The container it runs in, where that could be found out.
    pub container: Option<ContainerId>,
    pub used_mib: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No answer now; says nothing about any card.
    #[error("the GPU driver does not answer: {0}")]
    Unreachable(String),
    /// This host has no driver.
    #[error("there is no GPU driver: {0}")]
    NoDriver(String),
}

/// The cards of this host.
pub trait Gpus: Send + Sync + 'static {
    /// Every card by index, whole or not at all.
    fn inventory(&self) -> BoxFuture<'_, Result<Vec<GpuDevice>, GpuError>>;
}
