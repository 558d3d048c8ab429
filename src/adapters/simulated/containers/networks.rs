//! Networks, addresses and host ports of the simulated engine.

use super::{
    lifecycle::{sorted, terminal},
    machine::{Machine, Network, is_alive},
};
use crate::{
    adapters::containers::{Attachment, ContainerId, EngineResult, PublishedPort, TerminalReason},
    api::container::{ContainerSpec, Port},
};

/// The first port the engine picks when it may choose.
const FIRST_EPHEMERAL_PORT: u16 = 32768;
const LOOPBACK: &str = "127.0.0.1";
const ANY_ADDRESS: &str = "0.0.0.0";

impl Machine {
    pub fn ensure_network(&mut self, name: &str) -> bool {
        if self.networks.contains_key(name) {
            return false;
        }
        let number = self.networks.len().min(255) as u8;
        self.networks.insert(name.to_owned(), Network { number, last_address: 0 });
        true
    }

    pub fn attach(&mut self, id: &ContainerId, network: &str, aliases: &[String]) -> EngineResult<bool> {
        let aliases = sorted(aliases);
        let held = self.get(id)?;
        let alive = is_alive(held.seen.state);
        let present = held.seen.attachments.iter().find(|attachment| attachment.network == network);
        if present.is_some_and(|attachment| attachment.aliases == aliases) {
            return Ok(false);
        }
        if !self.networks.contains_key(network) {
            return Err(terminal(TerminalReason::NetworkNotFound, format!("network {network} not found")));
        }
        let ip = alive.then(|| self.next_address(network));
        let attachments = &mut self.get_mut(id)?.seen.attachments;
        attachments.retain(|attachment| attachment.network != network);
        attachments.push(Attachment { network: network.to_owned(), aliases, ip });
        attachments.sort_by(|a, b| a.network.cmp(&b.network));
        Ok(true)
    }

    pub fn give_addresses(&mut self, id: &ContainerId) {
        let Some(held) = self.containers.get(id) else { return };
        let networks: Vec<_> = held.seen.attachments.iter().map(|attachment| attachment.network.clone()).collect();
        for network in networks {
            let ip = self.next_address(&network);
            let attachments = self.containers.get_mut(id).map(|held| &mut held.seen.attachments);
            if let Some(attachment) = attachments.into_iter().flatten().find(|a| a.network == network) {
                attachment.ip = Some(ip);
            }
        }
    }

    /// Addresses are handed out in turn, so that a container that comes back has another one.
    fn next_address(&mut self, network: &str) -> String {
        let network = self.networks.entry(network.to_owned()).or_default();
        network.last_address = network.last_address % 60_000 + 1;
        let address = network.last_address + 1;
        format!("10.{}.{}.{}", network.number, address >> 8, address & 255)
    }

    /// The host ports the container gets at a start, or why it does not get them.
    pub fn publish(&self, id: &ContainerId, spec: &ContainerSpec) -> Result<Vec<PublishedPort>, String> {
        let mut published: Vec<PublishedPort> = Vec::new();
        for port in &spec.ports {
            let Some(wanted) = port.host_port else { continue };
            let taken = |candidate: &PublishedPort| {
                published.iter().any(|other| clash(other, candidate)) || self.is_taken(id, candidate)
            };
            let candidate = if wanted == 0 {
                (FIRST_EPHEMERAL_PORT..=u16::MAX).map(|number| published_port(port, number)).find(|port| !taken(port))
            } else {
                Some(published_port(port, wanted)).filter(|port| !taken(port))
            };
            match candidate {
                Some(candidate) => published.push(candidate),
                None => return Err(format!("port {wanted} is already allocated")),
            }
        }
        published.sort_by_key(|port| (port.container_port, port.host_port));
        Ok(published)
    }

    fn is_taken(&self, id: &ContainerId, port: &PublishedPort) -> bool {
        let others = self.containers.values().filter(|held| held.seen.id != *id && is_alive(held.seen.state));
        self.occupied.contains(&port.host_port)
            || others.flat_map(|held| &held.seen.ports).any(|other| clash(other, port))
    }
}

fn published_port(port: &Port, host_port: u16) -> PublishedPort {
    PublishedPort {
        container_port: port.container_port,
        host_ip: port.host_ip.clone().unwrap_or_else(|| LOOPBACK.to_owned()),
        host_port,
        protocol: port.protocol.unwrap_or_default(),
    }
}

fn clash(a: &PublishedPort, b: &PublishedPort) -> bool {
    let overlap = a.host_ip == b.host_ip || a.host_ip == ANY_ADDRESS || b.host_ip == ANY_ADDRESS;
    a.host_port == b.host_port && a.protocol == b.protocol && overlap
}
