//! One service, field by field, into our words.

use std::collections::BTreeMap;

use super::{
    Project, deploy, dotenv, field::Field, health, interpolate::Variables, network, port, resolve, volume, words,
};
use crate::api::{
    container::{ContainerSpec, ImagePullPolicy, Logging, Resources, Ulimit},
    quantity,
    workload::RestartPolicy,
};

/// What a service comes to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    pub container: ContainerSpec,
    pub depends_on: Vec<Dependency>,
    /// Absent when the file says nothing: gaia then restarts what ends, for that is what it is asked for.
    pub restart: Option<RestartPolicy>,
    pub stop_grace_seconds: Option<u32>,
}

/// Another service that comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    pub service: String,
    pub condition: DependencyCondition,
    /// It may be missing when false.
    pub required: bool,
    /// `services.web.depends_on.core`
    pub field: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DependencyCondition {
    #[default]
    Started,
    Healthy,
}

/// Why a field of Compose's cannot be honoured. What is not here and not read below is not known at all.
const REFUSED: &[(&str, &str)] = &[
    ("annotations", "gaia passes none on; take them out, or use labels"),
    ("blkio_config", "gaia sets no limits on block devices"),
    ("cgroup", "gaia leaves the choice to the engine"),
    ("cgroup_parent", "gaia leaves the choice to the engine"),
    ("configs", "mount the file as a volume instead"),
    ("cpu_count", "it is for Windows"),
    ("cpu_percent", "it is for Windows"),
    ("cpu_period", "use cpus"),
    ("cpu_quota", "use cpus"),
    ("cpu_rt_period", "gaia sets no real-time limits"),
    ("cpu_rt_runtime", "gaia sets no real-time limits"),
    ("credential_spec", "it is for Windows"),
    ("device_cgroup_rules", "use devices"),
    ("external_links", "put both containers on one network instead"),
    ("isolation", "it is for Windows"),
    ("label_file", "use labels"),
    ("links", "services of one network reach each other by their names; for another name use networks.NAME.aliases"),
    ("mac_address", "gaia leaves the choice to the engine"),
    ("mem_swappiness", "gaia does not set it"),
    ("models", "gaia runs no models of its own accord"),
    ("oom_kill_disable", "gaia does not set it"),
    ("oom_score_adj", "gaia does not set it"),
    ("platform", "gaia takes images for the host's own platform"),
    ("post_start", "gaia runs no hooks"),
    ("pre_stop", "gaia runs no hooks"),
    ("provider", "gaia starts containers only"),
    ("pull_refresh_after", "use pull_policy"),
    ("secrets", "mount the file as a volume instead"),
    ("storage_opt", "gaia does not set it"),
    ("use_api_socket", "mount the socket as a volume instead"),
    ("userns_mode", "gaia leaves the choice to the engine"),
    ("uts", "gaia leaves the choice to the engine"),
    ("volumes_from", "name the volumes instead"),
];

pub(super) fn read(project: &Project<'_>, name: &str, service: &Field<'_>) -> Service {
    let mut out = Service::default();
    let mut build = None;
    for (key, field) in service.given() {
        match key {
            "image" => out.container.image = field.text().unwrap_or_default(),
            "build" => build = Some(field),
            "environment" | "env_file" => {}
            "ports" => port::published(&field, &mut out.container.ports),
            "expose" => port::exposed(&field, &mut out.container.ports),
            "volumes" => out.container.mounts.extend(volume::read(project, &field)),
            "healthcheck" => out.container.healthcheck = health::read(&field),
            "deploy" => deploy::read(&field, &mut out),
            "gpus" => deploy::gpus(&field, &mut out.container),
            "depends_on" => out.depends_on = dependencies(&field),
            "restart" => out.restart = restart(&field),
            "stop_grace_period" => out.stop_grace_seconds = field.seconds(),
            "scale" => deploy::replicas(&field),
            "pull_policy" => out.container.image_pull_policy = pull_policy(&field),
            // Known elsewhere: by the profile that was asked for, and to the network.
            "profiles" | "networks" | "network_mode" | "container_name" => {}
            // What Compose does beside running the container.
            "attach" | "develop" => {}
            "cpus" | "mem_limit" | "mem_reservation" | "memswap_limit" | "shm_size" | "pids_limit" | "cpu_shares"
            | "cpuset" => resource(key, &field, out.container.resources.get_or_insert_default()),
            _ if plain(key, &field, &mut out.container) => {}
            _ => match REFUSED.iter().find(|(refused, _)| *refused == key) {
                Some((_, why)) => field.complain(format!("is not supported: {why}")),
                None => field.unknown(),
            },
        }
    }
    out.container.env = environment(project, service);
    network::read(project, name, service, &mut out.container);
    image(service, build, &mut out.container);
    out
}

/// An image that is built is there before gaia comes, or nowhere: another one of that name must not be pulled for it.
fn image(service: &Field<'_>, build: Option<Field<'_>>, container: &mut ContainerSpec) {
    match build {
        Some(build) if container.image.is_empty() => {
            build.complain("is not supported: gaia builds no images. Give `image` too, and build it with Compose");
        }
        Some(_) => container.image_pull_policy = Some(ImagePullPolicy::Never),
        None if container.image.is_empty() => service.complain("image is missing"),
        None => {}
    }
}

/// Fields that go over as they are. False: it is none of them.
fn plain(key: &str, field: &Field<'_>, container: &mut ContainerSpec) -> bool {
    match key {
        "command" => container.args = command(field),
        "entrypoint" => container.command = command(field),
        "working_dir" => container.working_dir = field.text(),
        "user" => container.user = field.text(),
        "hostname" => container.hostname = field.text(),
        "domainname" => container.domainname = field.text(),
        "stop_signal" => container.stop_signal = field.text(),
        "runtime" => container.runtime = field.text(),
        "ipc" => container.ipc = namespace(field),
        "pid" => container.pid = namespace(field),
        "init" => container.init = field.boolean(),
        "tty" => container.tty = field.boolean(),
        "stdin_open" => container.stdin = field.boolean(),
        "read_only" => container.read_only = field.boolean(),
        "privileged" => container.privileged = field.boolean(),
        "cap_add" => container.cap_add = field.texts(),
        "cap_drop" => container.cap_drop = field.texts(),
        "security_opt" => container.security_opt = field.texts(),
        "group_add" => container.group_add = field.texts(),
        "devices" => container.devices = field.items().iter().filter_map(device).collect(),
        "dns" => container.dns = field.one_or_more(),
        "dns_search" => container.dns_search = field.one_or_more(),
        "dns_opt" => container.dns_options = field.texts(),
        "tmpfs" => container.tmpfs.extend(field.one_or_more()),
        "labels" => container.labels = all(field.pairs()),
        "sysctls" => container.sysctls = all(field.pairs()),
        "extra_hosts" => container.extra_hosts = hosts(field),
        "ulimits" => container.ulimits = ulimits(field),
        "logging" => container.logging = Some(logging(field)),
        _ => return false,
    }
    true
}

fn all(pairs: Vec<(String, Option<String>)>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
}

/// One text is split as a shell would.
fn command(field: &Field<'_>) -> Option<Vec<String>> {
    if field.value.is_array() {
        return Some(field.texts());
    }
    words::split(&field.text()?).map_err(|message| field.complain(message)).ok()
}

fn namespace(field: &Field<'_>) -> Option<String> {
    let mode = field.text()?;
    if mode.starts_with("service:") {
        field.complain("is not supported: containers of a Workload come and go, and what shares with them would break");
    }
    Some(mode)
}

fn device(field: &Field<'_>) -> Option<String> {
    if !field.value.is_object() {
        return field.text();
    }
    let mut parts = BTreeMap::new();
    for (key, field) in field.given() {
        match key {
            "source" | "target" | "permissions" => drop(parts.insert(key, field.text()?)),
            _ => field.unknown(),
        }
    }
    let Some(source) = parts.get("source") else {
        field.complain("source is missing");
        return None;
    };
    let target = parts.get("target").unwrap_or(source);
    Some(format!("{source}:{target}:{}", parts.get("permissions").map_or("rwm", String::as_str)))
}

/// As Docker writes them: `name:address`.
fn hosts(field: &Field<'_>) -> Vec<String> {
    if field.value.is_array() {
        return field.texts().into_iter().map(|line| line.replacen('=', ":", 1)).collect();
    }
    let of_name = |(name, addresses): (&str, Field<'_>)| {
        addresses.one_or_more().into_iter().map(|address| format!("{name}:{address}")).collect::<Vec<_>>()
    };
    field.entries().into_iter().flat_map(of_name).collect()
}

fn ulimits(field: &Field<'_>) -> BTreeMap<String, Ulimit> {
    let mut out = BTreeMap::new();
    for (name, limit) in field.given() {
        if !limit.value.is_object() {
            out.extend(limit.integer().map(|both| (name.to_owned(), Ulimit { soft: both, hard: both })));
            continue;
        }
        let (mut soft, mut hard) = (None, None);
        for (key, field) in limit.given() {
            match key {
                "soft" => soft = field.integer(),
                "hard" => hard = field.integer(),
                _ => field.unknown(),
            }
        }
        match (soft, hard) {
            (Some(soft), Some(hard)) => drop(out.insert(name.to_owned(), Ulimit { soft, hard })),
            _ => limit.complain("must be a number, or soft and hard"),
        }
    }
    out
}

fn logging(field: &Field<'_>) -> Logging {
    let mut out = Logging::default();
    for (key, field) in field.given() {
        match key {
            "driver" => out.driver = field.text(),
            "options" => out.options = all(field.pairs()),
            _ => field.unknown(),
        }
    }
    out
}

fn resource(key: &str, field: &Field<'_>, out: &mut Resources) {
    match key {
        "cpus" => out.cpus = cores(field),
        "mem_limit" => out.memory = field.memory(),
        "mem_reservation" => out.memory_reservation = field.memory(),
        "memswap_limit" if field.text().as_deref() == Some("-1") => out.memory_swap = Some("-1".to_owned()),
        "memswap_limit" => out.memory_swap = field.memory(),
        "shm_size" => out.shm_size = field.memory(),
        "pids_limit" => out.pids = field.integer(),
        "cpu_shares" => out.cpu_shares = field.integer(),
        _ => out.cpuset = field.text(),
    }
}

pub(super) fn cores(field: &Field<'_>) -> Option<String> {
    let found = field.text()?;
    let known = quantity::millicores(&found).is_some();
    if !known {
        field.complain(format!("{found:?} is no number of cores like 1.5"));
    }
    known.then_some(found)
}

fn pull_policy(field: &Field<'_>) -> Option<ImagePullPolicy> {
    match field.text()?.as_str() {
        "always" => Some(ImagePullPolicy::Always),
        "never" => Some(ImagePullPolicy::Never),
        "missing" | "if_not_present" => Some(ImagePullPolicy::IfNotPresent),
        other => {
            field.complain(format!("{other} is not supported; always, missing and never are"));
            None
        }
    }
}

/// gaia is the one who restarts, after its own pauses.
fn restart(field: &Field<'_>) -> Option<RestartPolicy> {
    // YAML 1.1 took a bare `no` for false, and so do people.
    match field.text()?.as_str() {
        "no" | "false" => Some(RestartPolicy::Never),
        "always" | "unless-stopped" => Some(RestartPolicy::Always),
        "on-failure" => Some(RestartPolicy::OnFailure),
        other if other.starts_with("on-failure:") => {
            field.complain(
                "is not supported: gaia goes on with growing pauses and counts no attempts; write on-failure",
            );
            None
        }
        other => {
            field.complain(format!("{other:?} is none of no, always, unless-stopped and on-failure"));
            None
        }
    }
}

fn dependencies(field: &Field<'_>) -> Vec<Dependency> {
    let dependency = |service: &str, field: &Field<'_>| Dependency {
        service: service.to_owned(),
        condition: DependencyCondition::Started,
        required: true,
        field: field.path.clone(),
    };
    if field.value.is_array() {
        return field.items().iter().filter_map(|item| Some(dependency(&item.text()?, item))).collect();
    }
    let mut out = Vec::new();
    for (service, field) in field.entries() {
        let mut one = dependency(service, &field);
        let settings = if field.is_null() { Vec::new() } else { field.given() };
        for (key, field) in settings {
            match key {
                "condition" => match field.text().as_deref() {
                    Some("service_started") | None => {}
                    Some("service_healthy") => one.condition = DependencyCondition::Healthy,
                    Some("service_completed_successfully") => field.complain(
                        "service_completed_successfully is not supported: a Workload is kept running, it does not complete",
                    ),
                    Some(other) => field.complain(format!("{other} is not supported")),
                },
                "required" => one.required = field.boolean().unwrap_or(true),
                "restart" if field.boolean() == Some(false) => {}
                "restart" => field.complain("is not supported: gaia restarts nothing because another was updated"),
                _ => field.unknown(),
            }
        }
        out.push(one);
    }
    out
}

/// What `environment` says over what the files of `env_file` say, in turn.
fn environment(project: &Project<'_>, service: &Field<'_>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (key, field) in service.given() {
        if key == "env_file" {
            let files = if field.value.is_array() { field.items() } else { vec![field] };
            files.iter().for_each(|file| env_file(project, file, &mut out));
        }
    }
    for (key, field) in service.given() {
        if key == "environment" {
            for (name, value) in field.pairs() {
                // A name alone stands for the variable of that name.
                match value.or_else(|| project.variables.get(&name).cloned()) {
                    Some(value) => drop(out.insert(name, value)),
                    None => drop(out.remove(&name)),
                }
            }
        }
    }
    out
}

fn env_file(project: &Project<'_>, field: &Field<'_>, out: &mut BTreeMap<String, String>) {
    let (mut path, mut required, mut raw) = (None, true, false);
    if field.value.is_object() {
        for (key, field) in field.given() {
            match key {
                "path" => path = field.text(),
                "required" => required = field.boolean().unwrap_or(true),
                "format" if field.text().as_deref() == Some("raw") => raw = true,
                _ => field.unknown(),
            }
        }
    } else {
        path = field.text();
    }
    let Some(path) = path else { return };
    let file = resolve(&project.directory, &path);
    let text = match project.reader.read(&file) {
        Ok(Some(text)) => text,
        Ok(None) if !required => return,
        Ok(None) => return field.complain(format!("there is no file {}", file.display())),
        Err(why) => return field.complain(format!("{}: {why}", file.display())),
    };
    let around: Variables = project.variables.clone();
    let found = if raw { dotenv::parse_raw(&text) } else { dotenv::parse(&text, &around) };
    match found {
        Ok(found) => out.extend(found),
        Err(fault) => field.complain(format!("{}:{}: {}", file.display(), fault.line, fault.message)),
    }
}
