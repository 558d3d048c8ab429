//! Cards made of memory: what a simulated container was given it also uses, while it runs.

use futures::{FutureExt, future::BoxFuture};

use super::containers::SimulatedContainers;
use crate::{
    adapters::{
        containers::{Container, ContainerState},
        gpus::{GpuDevice, GpuError, GpuProcess, GpuSample, Gpus},
    },
    api::container::Gpus as Wanted,
};

/// What a card costs that does nothing: memory of the driver, degrees, watts.
const IDLE_MIB: u64 = 512;
const IDLE_CELSIUS: u32 = 34;
const IDLE_WATTS: f64 = 22.0;
/// And what full load adds.
const LOAD_CELSIUS: u32 = 41;
const LOAD_WATTS: f64 = 328.0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedCard {
    pub name: String,
    pub memory_mib: u64,
}

/// Cards whose memory follows the containers that ask for GPUs.
#[derive(Clone)]
pub struct SimulatedGpus {
    containers: SimulatedContainers,
    cards: Vec<SimulatedCard>,
}

impl SimulatedGpus {
    pub fn new(containers: SimulatedContainers, cards: Vec<SimulatedCard>) -> Self {
        Self { containers, cards }
    }

    /// So many cards of 24 GiB.
    pub fn of_24_gib(containers: SimulatedContainers, count: usize) -> Self {
        let card = SimulatedCard { name: "Simulated RTX 4090".to_owned(), memory_mib: 24_564 };
        Self::new(containers, vec![card; count])
    }

    fn device(&self, index: usize, card: &SimulatedCard, users: &[(Container, Wanted, u64)]) -> GpuDevice {
        let uuid = uuid(index);
        let processes: Vec<_> = users
            .iter()
            .filter(|(_, wanted, _)| gives(wanted, index, &uuid))
            .map(|(container, _, used_mib)| GpuProcess {
                pid: pid(container),
                name: Some(container.name.clone()),
                container: Some(container.id.clone()),
                used_mib: Some(*used_mib),
            })
            .collect();
        let used = processes.iter().filter_map(|process| process.used_mib).sum::<u64>();
        let load = (used * 100 / card.memory_mib.max(1)).min(100) as u32;
        GpuDevice {
            index: index as u32,
            uuid,
            mig: None,
            name: card.name.clone(),
            memory_total_mib: card.memory_mib,
            memory_used_mib: Some((IDLE_MIB + used).min(card.memory_mib)),
            utilization_percent: Some(load),
            temperature_celsius: Some(IDLE_CELSIUS + LOAD_CELSIUS * load / 100),
            power_watts: Some(IDLE_WATTS + LOAD_WATTS * f64::from(load) / 100.0),
            last_xid: None,
            processes: Some(processes),
        }
    }

    fn devices(&self) -> impl Iterator<Item = GpuDevice> {
        let running = self.containers.specs().into_iter().filter(|(seen, ..)| seen.state == ContainerState::Running);
        let users: Vec<_> = running.filter_map(|(seen, spec, mib)| Some((seen, spec.gpus?, mib))).collect();
        self.cards.iter().enumerate().map(move |(index, card)| self.device(index, card, &users))
    }
}

impl Gpus for SimulatedGpus {
    fn inventory(&self) -> BoxFuture<'_, Result<Vec<GpuDevice>, GpuError>> {
        std::future::ready(Ok(self.devices().collect())).boxed()
    }

    fn sample<'a>(&'a self, uuid: &'a str) -> BoxFuture<'a, Result<GpuSample, GpuError>> {
        let sample = self.devices().find(|device| device.uuid == uuid).map(|device| GpuSample {
            memory_total_mib: device.memory_total_mib,
            memory_used_mib: device.memory_used_mib,
            processes: device.processes,
        });
        std::future::ready(sample.ok_or_else(|| GpuError::NotFound(uuid.to_owned()))).boxed()
    }
}

fn uuid(index: usize) -> String {
    format!("GPU-00000000-0000-4000-8000-{index:012}")
}

/// By index or uuid when devices are named, else the first ones, as Docker does.
fn gives(wanted: &Wanted, index: usize, uuid: &str) -> bool {
    if !wanted.device_ids.is_empty() {
        return wanted.device_ids.iter().any(|id| id == uuid || *id == index.to_string());
    }
    match wanted.count {
        Some(-1) => true,
        Some(count) => usize::try_from(count).is_ok_and(|count| index < count),
        None => false,
    }
}

/// The same container has the same pid: from the first digits of its id.
fn pid(container: &Container) -> u32 {
    let digits: String = container.id.0.chars().take(4).collect();
    1000 + u32::from_str_radix(&digits, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        adapters::{
            containers::{ContainerRequest, Containers},
            simulated::containers::Images,
        },
        api::container::ContainerSpec,
        runtime::clock::SystemClock,
    };

    #[tokio::test]
    async fn memory_follows_the_container() {
        let containers = SimulatedContainers::new(Arc::new(SystemClock), Images::any());
        let gpus = SimulatedGpus::of_24_gib(containers.clone(), 2);
        let wanted = Wanted { count: None, device_ids: vec!["1".to_owned()] };
        let request = ContainerRequest {
            name: "llm".to_owned(),
            spec: ContainerSpec { image: "llm".to_owned(), gpus: Some(wanted), ..ContainerSpec::default() },
            labels: BTreeMap::new(),
            networks: Vec::new(),
        };
        let used = async || {
            let devices = gpus.inventory().await.expect("simulated cards answer");
            devices.into_iter().map(|device| device.memory_used_mib).collect::<Vec<_>>()
        };
        let id = containers.create(&request).await.expect("created");
        assert_eq!(used().await, [Some(512), Some(512)]);
        containers.start(&id).await.expect("started");
        assert_eq!(used().await, [Some(512), Some(4608)]);
        let sample = gpus.sample(&uuid(1)).await.expect("the card is there");
        assert_eq!((sample.memory_total_mib, sample.memory_used_mib), (24_564, Some(4608)));
        assert_eq!(sample.processes.expect("told")[0].container, Some(id.clone()));
        assert_eq!(gpus.sample("GPU-other").await, Err(GpuError::NotFound("GPU-other".to_owned())));
        containers.stop(&id, Duration::ZERO).await.expect("stopped");
        assert_eq!(used().await, [Some(512), Some(512)]);
    }
}
