//! Cards made of memory: they show what simulated processes hold, and what these have left behind.

use std::collections::BTreeMap;

use futures::{FutureExt, future::BoxFuture};

use super::containers::{CardFault, Resident, SimulatedContainers};
use crate::{
    adapters::gpus::{GpuDevice, GpuError, GpuProcess, GpuSample, Gpus},
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

/// Cards whose memory follows the processes in containers that ask for GPUs.
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

    fn device(&self, index: usize, card: &SimulatedCard, residents: &[Resident]) -> GpuDevice {
        let uuid = uuid(index);
        let here: Vec<&Resident> = residents.iter().filter(|resident| gives(&resident.cards, index, &uuid)).collect();
        let used = here.iter().map(|resident| resident.mib).sum::<u64>();
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
            processes: Some(processes(&here)),
        }
    }

    fn devices(&self) -> impl Iterator<Item = GpuDevice> {
        let residents = self.containers.residents();
        self.cards.iter().enumerate().map(move |(index, card)| self.device(index, card, &residents))
    }
}

/// Each once, with all that it holds; what has no process any more is not among them.
fn processes(here: &[&Resident]) -> Vec<GpuProcess> {
    let mut by_pid: BTreeMap<u32, GpuProcess> = BTreeMap::new();
    for resident in here {
        let Some(pid) = resident.pid else { continue };
        let process = by_pid.entry(pid).or_insert_with(|| GpuProcess {
            pid,
            name: Some(resident.name.clone()),
            container: resident.container.clone(),
            other_engine: false,
            used_mib: Some(0),
        });
        process.used_mib = process.used_mib.map(|mib| mib + resident.mib);
    }
    by_pid.into_values().collect()
}

fn unreachable() -> GpuError {
    GpuError::Unreachable("simulated: no answer".to_owned())
}

impl Gpus for SimulatedGpus {
    fn inventory(&self) -> BoxFuture<'_, Result<Vec<GpuDevice>, GpuError>> {
        async {
            match self.containers.look_at_cards().await {
                CardFault::Refuse => Err(unreachable()),
                CardFault::Lost => Ok(Vec::new()),
                CardFault::Untold => {
                    Ok(self.devices().map(|d| GpuDevice { memory_used_mib: None, processes: None, ..d }).collect())
                }
                CardFault::None | CardFault::Hang | CardFault::Slow(_) | CardFault::Crash => {
                    Ok(self.devices().collect())
                }
            }
        }
        .boxed()
    }

    fn sample<'a>(&'a self, uuid: &'a str) -> BoxFuture<'a, Result<GpuSample, GpuError>> {
        async move {
            let fault = self.containers.look_at_cards().await;
            if fault == CardFault::Refuse {
                return Err(unreachable());
            }
            let device = self.devices().find(|device| device.uuid == uuid && fault != CardFault::Lost);
            let device = device.ok_or_else(|| GpuError::NotFound(uuid.to_owned()))?;
            let told = fault != CardFault::Untold;
            Ok(GpuSample {
                memory_total_mib: device.memory_total_mib,
                memory_used_mib: device.memory_used_mib.filter(|_| told),
                processes: device.processes.filter(|_| told),
            })
        }
        .boxed()
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        adapters::{
            containers::{ContainerId, ContainerRequest, Containers},
            peers::{Peer, PeerError, PeerRequest, Peers},
            simulated::{
                containers::{Behaviour, Faults, Image, Images, PeerFault},
                peers::SimulatedPeers,
            },
        },
        api::{container::ContainerSpec, gpustep::HttpMethod},
        runtime::clock::{Clock, SimulatedClock},
    };

    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        engine: SimulatedContainers,
        gpus: SimulatedGpus,
        id: ContainerId,
    }

    /// One container on the second of two cards, started.
    async fn world(behaviour: Behaviour) -> World {
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::starting_at(jiff::Timestamp::UNIX_EPOCH));
        let engine = SimulatedContainers::new(clock, Images::default().with("llm", Image::present(behaviour)));
        let gpus = SimulatedGpus::of_24_gib(engine.clone(), 2);
        let wanted = Wanted { device_ids: vec!["1".to_owned()], ..Wanted::default() };
        let request = ContainerRequest {
            name: "llm".to_owned(),
            spec: ContainerSpec { image: "llm".to_owned(), gpus: Some(wanted), ..ContainerSpec::default() },
            labels: BTreeMap::new(),
            networks: Vec::new(),
        };
        let id = engine.create(&request).await.expect("created");
        engine.start(&id).await.expect("started");
        World { engine, gpus, id }
    }

    impl World {
        /// Used memory beyond the driver's own, and whose processes show.
        async fn card(&self) -> (u64, Vec<u32>) {
            let sample = self.gpus.sample(&uuid(1)).await.expect("the card is there");
            let pids = sample.processes.expect("told").iter().map(|process| process.pid).collect();
            (sample.memory_used_mib.expect("told") - IDLE_MIB, pids)
        }

        async fn ask(&self, path: &str) -> Result<String, PeerError> {
            let container = self.engine.inspect("llm").await.expect("an answer").expect("it is there");
            let peer = Peer::Container { container: Box::new(container), port: 80, path: path.to_owned() };
            let request = PeerRequest { method: HttpMethod::POST, peer, headers: BTreeMap::new(), body: None };
            SimulatedPeers::new(self.engine.clone()).call(&request, 5 * SECOND).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_follows_the_container() {
        let world = world(Behaviour::default()).await;
        let first = &world.gpus.inventory().await.expect("simulated cards answer")[0];
        assert_eq!(first.memory_used_mib, Some(IDLE_MIB), "it was not given that one");
        let sample = world.gpus.sample(&uuid(1)).await.expect("the card is there");
        assert_eq!((sample.memory_total_mib, sample.memory_used_mib), (24_564, Some(4608)));
        assert_eq!(sample.processes.expect("told")[0].container, Some(world.id.clone()));
        assert_eq!(world.gpus.sample("GPU-other").await, Err(GpuError::NotFound("GPU-other".to_owned())));
        world.engine.stop(&world.id, Duration::ZERO).await.expect("stopped");
        assert_eq!(world.card().await, (0, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_let_go_of_drains_and_is_taken_back() {
        let world = world(Behaviour { drains: 2 * SECOND, asleep_mib: 300, ..Behaviour::default() }).await;
        let (_, pids) = world.card().await;
        world.ask("/sleep?level=1").await.expect("it does as it is told");
        assert_eq!(world.card().await, (4096, pids.clone()));
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(world.card().await, (300, pids.clone()));
        world.ask("/wake_up").await.expect("it does as it is told");
        assert_eq!(world.card().await, (4096, pids));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_outlives_the_process_and_an_orphan_the_container() {
        let late = world(Behaviour { drains: SECOND, ..Behaviour::default() }).await;
        late.engine.kill_by_hand("llm");
        assert_eq!(late.card().await, (4096, vec![]));
        tokio::time::advance(SECOND).await;
        assert_eq!(late.card().await, (0, vec![]));
        let orphaned = world(Behaviour { orphan: Some(9 * SECOND), ..Behaviour::default() }).await;
        let (_, pids) = orphaned.card().await;
        orphaned.engine.remove_by_hand("llm");
        assert_eq!(orphaned.card().await, (4096, pids));
        tokio::time::advance(9 * SECOND).await;
        assert_eq!(orphaned.card().await, (0, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_refuses_lies_or_hangs() {
        struct Always(PeerFault);
        impl Faults for Always {
            fn ask(&mut self, _: &str, _: &str) -> PeerFault {
                self.0
            }
        }
        let world = world(Behaviour { gpu_at_start: false, ..Behaviour::default() }).await;
        assert_eq!(world.card().await.0, 0, "nobody told it to begin");
        world.engine.set_faults(Always(PeerFault::Refuse));
        assert!(matches!(world.ask("/wake_up").await, Err(PeerError::Refused(_))));
        world.engine.set_faults(Always(PeerFault::Lie));
        assert!(world.ask("/wake_up").await.is_ok());
        world.engine.set_faults(Always(PeerFault::Hang));
        let begun = tokio::time::Instant::now();
        assert!(matches!(world.ask("/wake_up").await, Err(PeerError::Unreachable(_))));
        assert_eq!(begun.elapsed(), 5 * SECOND);
        assert_eq!(world.card().await.0, 0, "none of them did it");
        world.engine.set_faults(Always(PeerFault::LoseAnswer));
        assert!(matches!(world.ask("/wake_up").await, Err(PeerError::Unreachable(_))));
        assert_eq!(world.card().await.0, 4096);
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_hangs_loses_the_card_or_keeps_silent() {
        struct Always(CardFault);
        impl Faults for Always {
            fn cards(&mut self) -> CardFault {
                self.0
            }
        }
        let world = world(Behaviour::default()).await;
        let (gpus, uuid) = (&world.gpus, uuid(1));
        world.engine.set_faults(Always(CardFault::Hang));
        assert!(tokio::time::timeout(60 * SECOND, gpus.sample(&uuid)).await.is_err());
        world.engine.set_faults(Always(CardFault::Refuse));
        assert!(matches!(gpus.inventory().await, Err(GpuError::Unreachable(_))));
        world.engine.set_faults(Always(CardFault::Lost));
        assert_eq!(gpus.inventory().await, Ok(Vec::new()));
        assert!(matches!(gpus.sample(&uuid).await, Err(GpuError::NotFound(_))));
        world.engine.set_faults(Always(CardFault::Untold));
        let sample = gpus.sample(&uuid).await.expect("the card is there");
        assert_eq!((sample.memory_used_mib, sample.processes), (None, None));
    }
}
