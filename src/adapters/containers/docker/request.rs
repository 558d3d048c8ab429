//! Our words for a container into Docker's. Everything the spec says is passed on.

use std::{collections::HashMap, str::FromStr};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig,
    Mount as DockerMount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation,
    MountType as DockerMountType, MountVolumeOptions, NetworkingConfig, PortBinding, PortMap, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use crate::{
    adapters::containers::{ContainerRequest, EngineError, EngineResult, TerminalReason},
    api::{
        container::{ContainerSpec, Gpus, Healthcheck, Logging, Mount, MountType, Port, Protocol},
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
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        open_stdin: spec.stdin,
        tty: spec.tty,
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
        memory_reservation: number(resources.memory_reservation.as_deref(), quantity::bytes)?,
        memory_swap: match resources.memory_swap.as_deref() {
            Some("-1") => Some(-1),
            limit => number(limit, quantity::bytes)?,
        },
        pids_limit: resources.pids,
        cpu_shares: resources.cpu_shares,
        cpuset_cpus: resources.cpuset,
        init: spec.init,
        extra_hosts: some(&spec.extra_hosts),
        readonly_rootfs: spec.read_only,
        privileged: spec.privileged,
        cap_add: some(&spec.cap_add),
        cap_drop: some(&spec.cap_drop),
        security_opt: some(&spec.security_opt),
        group_add: some(&spec.group_add),
        ipc_mode: spec.ipc.clone(),
        pid_mode: spec.pid.clone(),
        tmpfs: (!spec.tmpfs.is_empty()).then(|| spec.tmpfs.iter().map(|line| split(line)).collect()),
        ulimits: (!spec.ulimits.is_empty()).then(|| ulimits(spec)),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
        devices: (!spec.devices.is_empty()).then(|| spec.devices.iter().map(|line| device(line)).collect()),
        dns: some(&spec.dns),
        dns_search: some(&spec.dns_search),
        dns_options: some(&spec.dns_options),
        log_config: spec.logging.as_ref().map(log_config),
        runtime: spec.runtime.clone(),
        ..HostConfig::default()
    })
}

/// Docker tells "none" from "none given" in some lists; ours never mean the former.
fn some(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// `/run:size=64m`
fn split(line: &str) -> (String, String) {
    let (path, options) = line.split_once(':').unwrap_or((line, ""));
    (path.to_owned(), options.to_owned())
}

fn ulimits(spec: &ContainerSpec) -> Vec<ResourcesUlimits> {
    let limit = |(name, limit): (&String, &crate::api::container::Ulimit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    };
    spec.ulimits.iter().map(limit).collect()
}

/// `/dev/a:/dev/b:rwm`; what is left out is as docker run has it.
fn device(line: &str) -> DeviceMapping {
    let mut parts = line.splitn(3, ':');
    let on_host = parts.next().unwrap_or_default();
    DeviceMapping {
        path_on_host: Some(on_host.to_owned()),
        path_in_container: Some(parts.next().unwrap_or(on_host).to_owned()),
        cgroup_permissions: Some(parts.next().unwrap_or("rwm").to_owned()),
    }
}

fn log_config(logging: &Logging) -> HostConfigLogConfig {
    HostConfigLogConfig { typ: logging.driver.clone(), config: Some(logging.options.clone().into_iter().collect()) }
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
        bind_options: bind_options(mount)?,
        volume_options: mount
            .no_copy
            .map(|no_copy| MountVolumeOptions { no_copy: Some(no_copy), ..MountVolumeOptions::default() }),
        ..DockerMount::default()
    })
}

fn bind_options(mount: &Mount) -> EngineResult<Option<MountBindOptions>> {
    if mount.propagation.is_none() && mount.create_source.is_none() {
        return Ok(None);
    }
    let propagation = match &mount.propagation {
        None => None,
        Some(name) => {
            let known = Propagation::from_str(name);
            Some(known.map_err(|_| refused(format!("{name:?} is no propagation of mounts")))?)
        }
    };
    Ok(Some(MountBindOptions { propagation, create_mountpoint: mount.create_source, ..MountBindOptions::default() }))
}

fn device_request(gpus: &Gpus) -> Option<DeviceRequest> {
    let by_id = !gpus.device_ids.is_empty();
    (by_id || gpus.count.is_some()).then(|| DeviceRequest {
        count: if by_id { None } else { gpus.count },
        device_ids: by_id.then(|| gpus.device_ids.clone()),
        capabilities: Some(vec![some(&gpus.capabilities).unwrap_or_else(|| vec!["gpu".to_owned()])]),
        driver: gpus.driver.clone(),
        options: (!gpus.options.is_empty()).then(|| gpus.options.clone().into_iter().collect()),
    })
}

fn health_config(check: &Healthcheck) -> HealthConfig {
    let nanos = |seconds: u32| i64::from(seconds) * 1_000_000_000;
    let words = |first: &str, rest: &[String]| {
        Some(std::iter::once(first.to_owned()).chain(rest.iter().cloned()).collect::<Vec<_>>())
    };
    let test = match (&check.shell, check.disabled) {
        (_, Some(true)) => words("NONE", &[]),
        (Some(line), _) => words("CMD-SHELL", std::slice::from_ref(line)),
        // The image's, at other times.
        (None, _) if check.command.is_empty() => None,
        (None, _) => words("CMD", &check.command),
    };
    HealthConfig {
        test,
        interval: check.interval_seconds.map(nanos),
        timeout: check.timeout_seconds.map(nanos),
        start_period: check.start_period_seconds.map(nanos),
        retries: check.retries.map(i64::from),
        start_interval: check.start_interval_seconds.map(nanos),
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
        let by_count = ContainerSpec { gpus: Some(Gpus { count: Some(-1), ..Gpus::default() }), ..Default::default() };
        let by_id = Gpus { device_ids: vec!["GPU-1".to_owned()], ..Gpus::default() };
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
