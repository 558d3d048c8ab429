//! Our words for a container into Docker's. Everything the spec says is passed on.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, EndpointSettings, HealthConfig, HostConfig, Mount as DockerMount,
    MountType as DockerMountType, NetworkingConfig, PortBinding, PortMap, RestartPolicy, RestartPolicyNameEnum,
};

use crate::{
    adapters::containers::{ContainerRequest, EngineError, EngineResult, TerminalReason},
    api::{
        container::{ContainerSpec, Gpus, Healthcheck, Mount, MountType, Port, Protocol},
        quantity,
    },
};

/// Published ports are for this host unless the spec says otherwise.
const DEFAULT_HOST_IP: &str = "127.0.0.1";

/// The body of a create. Only the first network is in it: Docker below 1.44 refuses more than one.
pub(super) fn body(request: &ContainerRequest) -> EngineResult<ContainerCreateBody> {
    let spec = &request.spec;
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    labels.extend(request.labels.clone());
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: spec.command.clone(),
        cmd: spec.args.clone(),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        exposed_ports: Some(spec.ports.iter().map(port_key).collect()),
        healthcheck: spec.healthcheck.as_ref().map(health_config),
        labels: Some(labels),
        stop_signal: spec.stop_signal.clone(),
        host_config: Some(host_config(request)?),
        networking_config: request.networks.first().map(|(network, aliases)| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.clone(), endpoint(aliases))])),
        }),
        ..ContainerCreateBody::default()
    })
}

pub(super) fn endpoint(aliases: &[String]) -> EndpointSettings {
    EndpointSettings { aliases: Some(aliases.to_vec()), ..EndpointSettings::default() }
}

/// Our loop is the only restarter.
pub(super) fn no_restarts() -> RestartPolicy {
    RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }
}

fn host_config(request: &ContainerRequest) -> EngineResult<HostConfig> {
    let spec = &request.spec;
    let resources = spec.resources.clone().unwrap_or_default();
    Ok(HostConfig {
        restart_policy: Some(no_restarts()),
        network_mode: request.networks.first().map(|(network, _)| network.clone()),
        port_bindings: Some(port_bindings(spec)),
        mounts: Some(spec.mounts.iter().map(mount).collect::<EngineResult<_>>()?),
        device_requests: spec.gpus.as_ref().and_then(device_request).map(|request| vec![request]),
        nano_cpus: number(resources.cpus.as_deref(), nano_cpus)?,
        memory: number(resources.memory.as_deref(), quantity::bytes)?,
        shm_size: number(resources.shm_size.as_deref(), quantity::bytes)?,
        init: spec.init,
        extra_hosts: (!spec.extra_hosts.is_empty()).then(|| spec.extra_hosts.clone()),
        ..HostConfig::default()
    })
}

/// Docker counts in numbers; the schema has looked at the text already, but not at files of an older version.
fn number(text: Option<&str>, parse: impl Fn(&str) -> Option<u64>) -> EngineResult<Option<i64>> {
    let Some(text) = text else { return Ok(None) };
    let number = parse(text).and_then(|number| i64::try_from(number).ok());
    number.map(Some).ok_or_else(|| refused(format!("{text:?} is not a quantity like 1.5, 500m or 8Gi")))
}

fn nano_cpus(text: &str) -> Option<u64> {
    quantity::millicores(text)?.checked_mul(1_000_000)
}

fn port_key(port: &Port) -> String {
    let protocol = match port.protocol.unwrap_or_default() {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
    };
    format!("{}/{protocol}", port.container_port)
}

fn port_bindings(spec: &ContainerSpec) -> PortMap {
    let mut bindings = PortMap::new();
    for port in &spec.ports {
        let Some(host_port) = port.host_port else { continue };
        let binding = PortBinding {
            host_ip: Some(port.host_ip.clone().unwrap_or_else(|| DEFAULT_HOST_IP.to_owned())),
            host_port: Some(host_port.to_string()),
        };
        bindings.entry(port_key(port)).or_default().get_or_insert_default().push(binding);
    }
    bindings
}

/// A bind whose source is missing is refused by Docker, not made: a directory that appears by mistyping, owned by root,
/// is harder to find than an error.
fn mount(mount: &Mount) -> EngineResult<DockerMount> {
    let (typ, source) = match mount.type_.unwrap_or_default() {
        MountType::Bind if mount.source.is_none() => {
            return Err(refused(format!("the bind mount at {} has no source", mount.target)));
        }
        MountType::Bind => (DockerMountType::BIND, mount.source.clone()),
        MountType::Volume => (DockerMountType::VOLUME, mount.source.clone()),
        MountType::Tmpfs => (DockerMountType::TMPFS, None),
    };
    Ok(DockerMount {
        typ: Some(typ),
        source,
        target: Some(mount.target.clone()),
        read_only: mount.read_only,
        ..DockerMount::default()
    })
}

fn device_request(gpus: &Gpus) -> Option<DeviceRequest> {
    let by_id = !gpus.device_ids.is_empty();
    (by_id || gpus.count.is_some()).then(|| DeviceRequest {
        count: if by_id { None } else { gpus.count },
        device_ids: by_id.then(|| gpus.device_ids.clone()),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    })
}

fn health_config(check: &Healthcheck) -> HealthConfig {
    let nanos = |seconds: u32| i64::from(seconds) * 1_000_000_000;
    HealthConfig {
        test: Some(std::iter::once("CMD".to_owned()).chain(check.command.iter().cloned()).collect()),
        interval: check.interval_seconds.map(nanos),
        timeout: check.timeout_seconds.map(nanos),
        start_period: check.start_period_seconds.map(nanos),
        retries: check.retries.map(i64::from),
        start_interval: None,
    }
}

fn refused(message: String) -> EngineError {
    EngineError::Terminal { reason: TerminalReason::Refused, message }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::container::Resources;

    fn body_of(spec: ContainerSpec) -> ContainerCreateBody {
        let request = ContainerRequest {
            name: "a".to_owned(),
            spec,
            labels: BTreeMap::from([("owner".to_owned(), "us".to_owned())]),
            networks: vec![("net".to_owned(), vec!["alias".to_owned()]), ("other".to_owned(), Vec::new())],
        };
        body(&request).expect("a good request")
    }

    #[test]
    fn gpus_become_a_device_request() {
        let by_count = ContainerSpec { gpus: Some(Gpus { count: Some(-1), device_ids: vec![] }), ..Default::default() };
        let by_id = Gpus { count: None, device_ids: vec!["GPU-1".to_owned()] };
        let by_id = ContainerSpec { gpus: Some(by_id), ..Default::default() };
        let requests = |spec| body_of(spec).host_config.expect("one").device_requests.expect("one");
        assert_eq!(requests(by_count)[0].count, Some(-1));
        let named = &requests(by_id)[0];
        assert_eq!((named.count, named.device_ids.as_deref()), (None, Some(&["GPU-1".to_owned()][..])));
        assert_eq!(named.capabilities, Some(vec![vec!["gpu".to_owned()]]));
    }

    #[test]
    fn our_labels_win_over_the_specs() {
        let labels = BTreeMap::from([("owner".to_owned(), "them".to_owned()), ("x".to_owned(), "y".to_owned())]);
        let labels = body_of(ContainerSpec { labels, ..Default::default() }).labels.expect("labels");
        assert_eq!((labels["owner"].as_str(), labels["x"].as_str()), ("us", "y"));
    }

    #[test]
    fn only_the_first_network_is_in_the_body() {
        let body = body_of(ContainerSpec::default());
        let endpoints = body.networking_config.and_then(|config| config.endpoints_config).expect("endpoints");
        assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["net"]);
    }

    #[test]
    fn bad_quantity_is_refused_before_docker_hears_of_it() {
        let resources = Some(Resources { memory: Some("8 gigs".to_owned()), ..Resources::default() });
        let spec = ContainerSpec { resources, ..ContainerSpec::default() };
        let request = ContainerRequest { name: "a".to_owned(), spec, labels: BTreeMap::new(), networks: Vec::new() };
        assert!(matches!(body(&request), Err(EngineError::Terminal { reason: TerminalReason::Refused, .. })));
    }
}
