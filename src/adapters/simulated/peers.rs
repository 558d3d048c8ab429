//! Services made of memory: a container that answers probes answers requests, with an empty object.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};

use super::containers::SimulatedContainers;
use crate::adapters::peers::{Peer, PeerError, PeerRequest, Peers};

#[derive(Clone)]
pub struct SimulatedPeers {
    containers: SimulatedContainers,
}

impl SimulatedPeers {
    pub fn new(containers: SimulatedContainers) -> Self {
        Self { containers }
    }
}

impl Peers for SimulatedPeers {
    fn call<'a>(&'a self, request: &'a PeerRequest, _: Duration) -> BoxFuture<'a, Result<String, PeerError>> {
        let answer = match &request.peer {
            Peer::Container { container, .. } if self.containers.answers(&container.id) == Some(true) => {
                Ok("{}".to_owned())
            }
            Peer::Container { container, .. } => {
                Err(PeerError::Unreachable(format!("{} does not answer", container.name)))
            }
            Peer::Url(url) => Err(PeerError::Unreachable(format!("{url}: there is no network in a simulation"))),
        };
        std::future::ready(answer).boxed()
    }
}
