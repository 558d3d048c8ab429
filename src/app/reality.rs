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

/// An engine for people to look at: images are pulled, processes take a moment to answer and to stop.
pub fn leisurely(clock: Arc<dyn Clock>) -> SimulatedContainers {
    let behaviour = Behaviour {
        ready_after: Some(Duration::from_millis(1500)),
        stops: (Duration::from_millis(300), 0),
        ..Behaviour::default()
    };
    let others = Some(Image::pullable(Duration::from_secs(1), behaviour));
    SimulatedContainers::new(clock, Images { others, ..Images::default() })
}
