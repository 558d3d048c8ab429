//! What Docker shows of a container into our words.

use std::collections::BTreeMap;

use bollard::models::{
    self, ContainerInspectResponse, ContainerState as DockerState, ContainerStateStatusEnum as Status,
    ContainerSummaryNetworkSettings, ContainerSummaryStateEnum as ListedStatus, EndpointSettings, HealthStatusEnum,
    HostConfig, NetworkSettings, PortMap, RestartPolicyNameEnum,
};
use jiff::Timestamp;

use crate::{
    adapters::containers::{
        Attachment, Container, ContainerId, ContainerState, ContainerSummary, EngineHealth, PublishedPort,
    },
    api::container::Protocol,
};

/// Docker writes so many digits of the id where it wants a short one.
const SHORT_ID: usize = 12;

/// `None` when the answer lacks what every container has; nothing is guessed then.
pub(super) fn container(seen: ContainerInspectResponse) -> Option<Container> {
    let id = seen.id?;
    let state = seen.state?;
    let status = container_state(state.status?)?;
    let running = matches!(status, ContainerState::Running | ContainerState::Paused);
    let config = seen.config.unwrap_or_default();
    let networks = seen.network_settings.unwrap_or_default();
    Some(Container {
        name: seen.name?.trim_start_matches('/').to_owned(),
        image: config.image.unwrap_or_default(),
        image_id: seen.image.unwrap_or_default(),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        state: status,
        // Of a container that does not run Docker shows the last verdict, which says nothing any more.
        health: running.then(|| health(&state)).flatten(),
        exit_code: state.exit_code.unwrap_or(0),
        oom_killed: state.oom_killed.unwrap_or(false),
        restarts_itself: restarts_itself(seen.host_config.as_ref()),
        error: state.error.clone().unwrap_or_default(),
        created_at: seen.created.as_deref().and_then(timestamp),
        started_at: state.started_at.as_deref().and_then(timestamp),
        finished_at: state.finished_at.as_deref().and_then(timestamp).filter(|_| !running),
        ports: published(networks.ports.as_ref()),
        attachments: attachments(&id, networks),
        id: ContainerId(id),
    })
}

/// `None` as above.
pub(super) fn summary(seen: models::ContainerSummary) -> Option<ContainerSummary> {
    // One that is linked to (a legacy of Docker's) has the other's alias among its names: `/other/alias`.
    let own = |name: &&String| !name.trim_start_matches('/').contains('/');
    let names = seen.names?;
    Some(ContainerSummary {
        id: ContainerId(seen.id?),
        name: names.iter().find(own)?.trim_start_matches('/').to_owned(),
        labels: seen.labels.unwrap_or_default().into_iter().collect(),
        state: listed_state(seen.state?)?,
        trace: trace(seen.status.as_deref().unwrap_or_default(), seen.network_settings),
    })
}

/// An endpoint lives as long as one run is attached to one network. Of `Exited (1) 5 minutes ago` or `Up 5 minutes (healthy)`
/// what is in brackets is kept: the rest changes with the time.
fn trace(status: &str, networks: Option<ContainerSummaryNetworkSettings>) -> String {
    let told = status.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(told, _)| told);
    let networks = networks.and_then(|settings| settings.networks).unwrap_or_default();
    let endpoint = |(network, seen): (String, EndpointSettings)| (network, seen.endpoint_id.unwrap_or_default());
    let endpoints: BTreeMap<String, String> = networks.into_iter().map(endpoint).collect();
    std::iter::once(told.to_owned())
        .chain(endpoints.into_iter().map(|(network, endpoint)| format!("{network}={endpoint}")))
        .collect::<Vec<_>>()
        .join(" ")
}

fn listed_state(status: ListedStatus) -> Option<ContainerState> {
    Some(match status {
        ListedStatus::CREATED => ContainerState::Created,
        ListedStatus::RUNNING | ListedStatus::STOPPING => ContainerState::Running,
        ListedStatus::PAUSED => ContainerState::Paused,
        ListedStatus::RESTARTING => ContainerState::Restarting,
        ListedStatus::REMOVING => ContainerState::Removing,
        ListedStatus::EXITED => ContainerState::Exited,
        ListedStatus::DEAD => ContainerState::Dead,
        ListedStatus::EMPTY => return None,
    })
}

fn restarts_itself(config: Option<&HostConfig>) -> bool {
    match config.and_then(|config| config.restart_policy.as_ref()).and_then(|policy| policy.name) {
        None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => false,
        Some(
            RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED | RestartPolicyNameEnum::ON_FAILURE,
        ) => true,
    }
}

fn container_state(status: Status) -> Option<ContainerState> {
    Some(match status {
        Status::CREATED => ContainerState::Created,
        // Its process is still there.
        Status::RUNNING | Status::STOPPING => ContainerState::Running,
        Status::PAUSED => ContainerState::Paused,
        Status::RESTARTING => ContainerState::Restarting,
        Status::REMOVING => ContainerState::Removing,
        Status::EXITED => ContainerState::Exited,
        Status::DEAD => ContainerState::Dead,
        Status::EMPTY => return None,
    })
}

fn health(state: &DockerState) -> Option<EngineHealth> {
    match state.health.as_ref()?.status? {
        HealthStatusEnum::STARTING => Some(EngineHealth::Starting),
        HealthStatusEnum::HEALTHY => Some(EngineHealth::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(EngineHealth::Unhealthy),
        HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => None,
    }
}

/// Docker says year 1 for never.
fn timestamp(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|at: &Timestamp| *at > Timestamp::UNIX_EPOCH)
}

fn attachments(id: &str, settings: NetworkSettings) -> Vec<Attachment> {
    let networks = settings.networks.unwrap_or_default();
    let mut attachments: Vec<_> = networks
        .into_iter()
        .map(|(network, endpoint)| Attachment {
            network,
            aliases: aliases(id, &endpoint),
            ip: endpoint.ip_address.filter(|ip| !ip.is_empty()),
        })
        .collect();
    attachments.sort_by(|a, b| a.network.cmp(&b.network));
    attachments
}

/// Sorted, without the short id that Docker adds.
pub(super) fn aliases(id: &str, endpoint: &EndpointSettings) -> Vec<String> {
    let short = id.get(..SHORT_ID).unwrap_or(id);
    let mut aliases: Vec<_> = endpoint.aliases.iter().flatten().filter(|alias| *alias != short).cloned().collect();
    aliases.sort();
    aliases.dedup();
    aliases
}

fn published(ports: Option<&PortMap>) -> Vec<PublishedPort> {
    let mut published = Vec::new();
    for (key, bindings) in ports.into_iter().flatten() {
        let Some((container_port, protocol)) = port_key(key) else { continue };
        for binding in bindings.iter().flatten() {
            let Some(host_port) = binding.host_port.as_ref().and_then(|port| port.parse().ok()) else { continue };
            let host_ip = binding.host_ip.clone().unwrap_or_default();
            published.push(PublishedPort { container_port, host_ip, host_port, protocol });
        }
    }
    published
        .sort_by(|a, b| (a.container_port, a.host_port, &a.host_ip).cmp(&(b.container_port, b.host_port, &b.host_ip)));
    published
}

/// `80/tcp`. Protocols that we do not speak are left out.
fn port_key(key: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = key.split_once('/')?;
    let protocol = match protocol {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        _ => return None,
    };
    Some((port.parse().ok()?, protocol))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn never_is_not_a_time() {
        assert_eq!(timestamp("0001-01-01T00:00:00Z"), None);
        assert!(timestamp("2026-01-02T03:04:05.678901234Z").is_some());
    }

    #[test]
    fn short_id_is_no_alias() {
        let aliases_seen = ["web".to_owned(), "0123456789ab".to_owned(), "api".to_owned()];
        let endpoint = EndpointSettings { aliases: Some(aliases_seen.to_vec()), ..EndpointSettings::default() };
        assert_eq!(aliases("0123456789abcdef", &endpoint), ["api", "web"]);
    }

    #[test]
    fn a_trace_tells_runs_and_verdicts_apart_and_not_times() {
        let on = |status: &str, endpoint: &str| {
            let seen = EndpointSettings { endpoint_id: Some(endpoint.to_owned()), ..EndpointSettings::default() };
            let networks = Some(HashMap::from([("gaia-default".to_owned(), seen)]));
            trace(status, Some(ContainerSummaryNetworkSettings { networks }))
        };
        assert_eq!(on("Up 5 minutes", "e1"), on("Up 2 hours", "e1"));
        assert_ne!(on("Up 5 minutes", "e1"), on("Up 5 minutes", "e2"));
        assert_ne!(on("Up 5 minutes (healthy)", "e1"), on("Up 5 minutes (unhealthy)", "e1"));
        assert_ne!(on("Exited (0) 5 minutes ago", ""), on("Exited (137) 5 minutes ago", ""));
        assert_ne!(trace("Up 5 minutes", None), on("Up 5 minutes", "e1"));
    }

    #[test]
    fn half_an_answer_is_none() {
        let seen = ContainerInspectResponse { id: Some("a".to_owned()), ..ContainerInspectResponse::default() };
        assert_eq!(container(seen), None);
    }
}
