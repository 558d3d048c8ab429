//! What the controllers act on: the Docker engine of this host, or one made of memory.

use std::{sync::Arc, time::Duration};

use crate::{
    adapters::{
        containers::{Containers, docker::DockerEngine},
        probes::{NetworkProbes, Probes},
        simulated::{
            containers::{Behaviour, Image, Images, SimulatedContainers},
            probes::SimulatedProbes,
        },
    },
    runtime::clock::Clock,
};

/// One of each adapter.
#[derive(Clone)]
pub struct World {
    pub containers: Arc<dyn Containers>,
    pub probes: Arc<dyn Probes>,
}

impl World {
    /// The Docker engine of this host, which need not be there yet. Fails only when the host cannot give a TLS client.
    pub fn docker() -> Result<Self, reqwest::Error> {
        let containers: Arc<dyn Containers> = Arc::new(DockerEngine::from_env());
        let probes = Arc::new(NetworkProbes::new(containers.clone())?);
        Ok(Self { containers, probes })
    }

    /// Around a simulated engine.
    pub fn simulated(engine: &SimulatedContainers) -> Self {
        Self { containers: Arc::new(engine.clone()), probes: Arc::new(SimulatedProbes::new(engine.clone())) }
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
