//! Networks of Docker, and who is attached to them under which names.

use std::collections::HashMap;

use bollard::{
    models::{Network, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest},
    query_parameters::ListNetworksOptionsBuilder,
};

use super::{DEADLINE, DockerEngine, errors::Call, request};
use crate::{
    adapters::containers::{Attachment, Container, EngineError, EngineResult, TerminalReason},
    api::label,
};

impl DockerEngine {
    pub(super) async fn make_network(&self, name: &str) -> EngineResult<()> {
        if self.has_network(name).await? {
            return Ok(());
        }
        // Held until the network is there, so that the next in line finds it.
        let _turn = self.making_network.acquire().await.expect("the semaphore is never closed");
        if self.has_network(name).await? {
            return Ok(());
        }
        let docker = self.client().await?;
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(HashMap::from([(label::MANAGED.to_owned(), "true".to_owned())])),
            ..NetworkCreateRequest::default()
        };
        self.within(Call::effect("create network", name), DEADLINE, docker.create_network(request)).await?;
        Ok(())
    }

    async fn has_network(&self, name: &str) -> EngineResult<bool> {
        Ok(self.networks().await?.iter().any(|network| network.name.as_deref() == Some(name)))
    }

    async fn networks(&self) -> EngineResult<Vec<Network>> {
        let docker = self.client().await?;
        let options = ListNetworksOptionsBuilder::default().build();
        self.within(Call::read("list networks", ""), DEADLINE, docker.list_networks(Some(options))).await
    }

    /// Docker itself notices a missing network at the start only.
    pub(super) async fn require_networks(&self, wanted: &[(String, Vec<String>)]) -> EngineResult<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let networks = self.networks().await?;
        let exists = |name: &str| networks.iter().any(|network| network.name.as_deref() == Some(name));
        match wanted.iter().find(|(name, _)| !exists(name)) {
            None => Ok(()),
            Some((name, _)) => Err(EngineError::Terminal {
                reason: TerminalReason::NetworkNotFound,
                message: format!("network {name} not found"),
            }),
        }
    }

    pub(super) async fn connect(&self, id: &str, network: &str, aliases: &[String]) -> EngineResult<()> {
        let docker = self.client().await?;
        let request =
            NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(request::endpoint(aliases)) };
        let call = Call::effect("attach to network", network);
        self.within(call, DEADLINE, docker.connect_network(network, request)).await
    }

    pub(super) async fn attach(&self, container: &Container, network: &str, aliases: &[String]) -> EngineResult<()> {
        let mut wanted = aliases.to_vec();
        wanted.sort();
        wanted.dedup();
        let found = container.attachments.iter().find(|attachment| attachment.network == network);
        match found {
            Some(Attachment { aliases, .. }) if *aliases == wanted => return Ok(()),
            Some(_) => self.disconnect(&container.id.0, network).await?,
            None => self.require_networks(&[(network.to_owned(), Vec::new())]).await?,
        }
        self.connect(&container.id.0, network, &wanted).await
    }

    async fn disconnect(&self, id: &str, network: &str) -> EngineResult<()> {
        let docker = self.client().await?;
        let request = NetworkDisconnectRequest { container: id.to_owned(), force: Some(false) };
        let call = Call::effect("detach from network", network);
        self.within(call, DEADLINE, docker.disconnect_network(network, request)).await
    }
}
