//! What the controllers see and act on: the Docker engine of this host, or an engine and cards made of memory.

use std::{sync::Arc, time::Duration};

use crate::{
    adapters::{
        containers::{Containers, docker::DockerEngine},
        gpus::Gpus,
        peers::{HttpPeers, Peers},
        probes::{NetworkProbes, Probes},
        simulated::{
            containers::{Behaviour, Image, Images, SimulatedContainers},
            gpus::SimulatedGpus,
            peers::SimulatedPeers,
            probes::SimulatedProbes,
        },
    },
    runtime::clock::Clock,
};

/// Cards of a simulated host.
const CARDS: usize = 1;

/// One of each adapter.
#[derive(Clone)]
pub struct World {
    pub containers: Arc<dyn Containers>,
    pub probes: Arc<dyn Probes>,
    pub peers: Arc<dyn Peers>,
    /// None: nobody asks the driver of this host.
    pub gpus: Option<Arc<dyn Gpus>>,
}

impl World {
    /// The Docker engine of this host and its cards; neither need be there yet. Fails only when the host cannot give a TLS client.
    pub fn docker(gpus: Option<Arc<dyn Gpus>>) -> Result<Self, reqwest::Error> {
        let containers: Arc<dyn Containers> = Arc::new(DockerEngine::from_env());
        let probes = Arc::new(NetworkProbes::new(containers.clone())?);
        Ok(Self { containers, probes, peers: Arc::new(HttpPeers::new()?), gpus })
    }

    /// Around a simulated engine.
    pub fn simulated(engine: &SimulatedContainers) -> Self {
        Self {
            containers: Arc::new(engine.clone()),
            probes: Arc::new(SimulatedProbes::new(engine.clone())),
            peers: Arc::new(SimulatedPeers::new(engine.clone())),
            gpus: Some(Arc::new(SimulatedGpus::of_24_gib(engine.clone(), CARDS))),
        }
    }
}

/// Images of the example whose processes wait to be told before they use the card.
const WAIT_FOR_THE_CARD: [&str; 2] = ["localhost:5000/gaia-study:local", "localhost:5000/gaia-study-candidate:local"];

/// An engine for people to look at: images are pulled, processes take a moment to answer and to stop, memory one to drain.
pub fn leisurely(clock: Arc<dyn Clock>) -> SimulatedContainers {
    let behaviour = Behaviour {
        ready_after: Some(Duration::from_millis(1500)),
        stops: (Duration::from_millis(300), 0),
        gpu_memory_mib: 10_240,
        drains: Duration::from_millis(200),
        ..Behaviour::default()
    };
    let image = |behaviour| Image::pullable(Duration::from_secs(1), behaviour);
    let waits = Behaviour { gpu_at_start: false, ..behaviour.clone() };
    let images = Images { others: Some(image(behaviour)), ..Images::default() };
    let images = WAIT_FOR_THE_CARD.iter().fold(images, |images, name| images.with(name, image(waits.clone())));
    SimulatedContainers::new(clock, images)
}
