//! How a container that somebody else made differs from one that we would make. Pure: what Docker shows of the container and
//! of its image beside the body of our create.
//!
//! What the request leaves open is compared with the image's or the engine's own default, as far as that can be known: a
//! logging driver or a runtime that was not asked for is the engine's choice, and so is a cgroup. Names, our labels and
//! Compose's, and restart policies are left out. Values that may hold secrets are not told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
};

use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, DeviceRequest, HealthConfig, HostConfig,
    ImageConfig, Mount, MountPoint, MountType, PortMap,
};

/// Docker's size of /dev/shm.
const SHM_BYTES: i64 = 64 << 20;
/// Labels that say who made a container, not what it is.
const MAKERS: [&str; 3] = ["com.docker.compose.", "gaia.dev/", "desktop.docker.io/"];

/// A sentence each; none: the two are alike.
pub(super) fn differences(
    seen: &ContainerInspectResponse,
    image: &ImageConfig,
    wanted: &ContainerCreateBody,
    networks: &[(String, Vec<String>)],
) -> Vec<String> {
    let mut found = Differences(Vec::new());
    let config = seen.config.clone().unwrap_or_default();
    process(&mut found, seen.id.as_deref().unwrap_or_default(), &config, image, wanted);
    health(&mut found, config.healthcheck.as_ref(), image.healthcheck.as_ref(), wanted.healthcheck.as_ref());
    let (is, to_be) = (seen.host_config.clone().unwrap_or_default(), wanted.host_config.clone().unwrap_or_default());
    ports(&mut found, is.port_bindings.as_ref(), to_be.port_bindings.as_ref());
    mounts(&mut found, seen.mounts.as_deref().unwrap_or_default(), image, to_be.mounts.as_deref().unwrap_or_default());
    limits(&mut found, &is, &to_be);
    rights(&mut found, &is, &to_be);
    surroundings(&mut found, &is, &to_be);
    attachments(&mut found, seen, networks);
    found.0
}

struct Differences(Vec<String>);

impl Differences {
    fn compare<T: PartialEq + Debug>(&mut self, field: &str, is: T, to_be: T) {
        if is != to_be {
            self.0.push(format!("{field} is {is:?}, and is to be {to_be:?}"));
        }
    }

    /// Without the values.
    fn secretly<T: PartialEq>(&mut self, field: &str, is: T, to_be: T) {
        if is != to_be {
            self.0.push(format!("{field} is another"));
        }
    }

    /// Names only.
    fn by_name(&mut self, field: &str, is: &BTreeMap<String, String>, to_be: &BTreeMap<String, String>) {
        for (name, value) in to_be {
            match is.get(name) {
                None => self.0.push(format!("{field} {name} is missing")),
                Some(other) if other != value => self.0.push(format!("{field} {name} has another value")),
                Some(_) => {}
            }
        }
        let surplus = is.keys().filter(|name| !to_be.contains_key(*name));
        self.0.extend(surplus.map(|name| format!("{field} {name} is too much")));
    }
}

fn process(found: &mut Differences, id: &str, is: &ContainerConfig, image: &ImageConfig, to_be: &ContainerCreateBody) {
    let or = |own: &Option<String>, image: &Option<String>| given(own).or_else(|| given(image)).unwrap_or_default();
    found.compare("image", is.image.clone().unwrap_or_default(), to_be.image.clone().unwrap_or_default());
    // As the engine puts the two together: an entrypoint of one's own drops the image's arguments.
    let entrypoint = to_be.entrypoint.clone().or_else(|| image.entrypoint.clone()).unwrap_or_default();
    let own_entrypoint = to_be.entrypoint.as_ref().is_some_and(|words| !words.is_empty());
    let args = match to_be.cmd.clone().unwrap_or_default() {
        none if none.is_empty() && !own_entrypoint => image.cmd.clone().unwrap_or_default(),
        own => own,
    };
    found.secretly("command", is.entrypoint.clone().unwrap_or_default(), entrypoint);
    found.secretly("args", is.cmd.clone().unwrap_or_default(), args);
    let mut env = pairs(image.env.as_ref());
    env.extend(pairs(to_be.env.as_ref()));
    found.by_name("env", &pairs(is.env.as_ref()), &env);
    found.compare("workingDir", given(&is.working_dir).unwrap_or_default(), or(&to_be.working_dir, &image.working_dir));
    found.compare("user", given(&is.user).unwrap_or_default(), or(&to_be.user, &image.user));
    let signal = |signal: Option<String>| signal.unwrap_or_else(|| "SIGTERM".to_owned());
    found.compare(
        "stopSignal",
        signal(given(&is.stop_signal)),
        signal(given(&to_be.stop_signal).or(given(&image.stop_signal))),
    );
    // Without one of its own it is called by its id.
    let own = is.hostname.clone().filter(|name| !id.starts_with(name.as_str()));
    found.compare("hostname", own, given(&to_be.hostname));
    found.compare("domainname", given(&is.domainname), given(&to_be.domainname));
    found.compare("tty", is.tty.unwrap_or(false), to_be.tty.unwrap_or(false));
    found.compare("stdin", is.open_stdin.unwrap_or(false), to_be.open_stdin.unwrap_or(false));
    let mut labels = own_labels(image.labels.as_ref());
    labels.extend(own_labels(to_be.labels.as_ref()));
    found.by_name("label", &own_labels(is.labels.as_ref()), &labels);
}

fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

fn pairs(env: Option<&Vec<String>>) -> BTreeMap<String, String> {
    let pair = |line: &String| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    env.into_iter().flatten().filter_map(pair).collect()
}

fn own_labels(labels: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    let own = |(name, value): (&String, &String)| {
        (!MAKERS.iter().any(|maker| name.starts_with(maker))).then(|| (name.clone(), value.clone()))
    };
    labels.into_iter().flatten().filter_map(own).collect()
}

/// One number of a health check.
type Part = fn(&HealthConfig) -> Option<i64>;

/// What one leaves open is the image's.
fn health(
    found: &mut Differences,
    is: Option<&HealthConfig>,
    image: Option<&HealthConfig>,
    to_be: Option<&HealthConfig>,
) {
    let tests =
        |check: Option<&HealthConfig>| check.and_then(|check| check.test.clone()).filter(|test| !test.is_empty());
    let none = |test: Option<Vec<String>>| test.filter(|test| test.first().is_none_or(|first| first != "NONE"));
    let test = none(tests(to_be).or_else(|| tests(image)));
    found.secretly("healthcheck.command", none(tests(is)), test.clone());
    if test.is_none() {
        return;
    }
    let number = |check: Option<&HealthConfig>, field: Part| check.and_then(field).filter(|number| *number != 0);
    let fields: [(&str, Part); 5] = [
        ("healthcheck.interval", |check| check.interval),
        ("healthcheck.timeout", |check| check.timeout),
        ("healthcheck.startPeriod", |check| check.start_period),
        ("healthcheck.startInterval", |check| check.start_interval),
        ("healthcheck.retries", |check| check.retries),
    ];
    for (name, field) in fields {
        found.compare(name, number(is, field), number(to_be, field).or_else(|| number(image, field)));
    }
}

fn ports(found: &mut Differences, is: Option<&PortMap>, to_be: Option<&PortMap>) {
    let all = |map: Option<&PortMap>| -> BTreeSet<String> {
        let of_one = |(inside, bindings): (&String, &Option<Vec<bollard::models::PortBinding>>)| {
            let text = |binding: &bollard::models::PortBinding| {
                let port = given(&binding.host_port).unwrap_or_else(|| "0".to_owned());
                format!("{}:{port}->{inside}", given(&binding.host_ip).unwrap_or_default())
            };
            bindings.iter().flatten().map(text).collect::<Vec<_>>()
        };
        map.into_iter().flatten().flat_map(of_one).collect()
    };
    found.compare("ports", all(is), all(to_be));
}

fn mounts(found: &mut Differences, is: &[MountPoint], image: &ImageConfig, to_be: &[Mount]) {
    let wanted: BTreeMap<String, String> = to_be.iter().map(wanted_mount).collect();
    // A volume of the image's own that was not asked for.
    let images = |target: &String| image.volumes.iter().flatten().any(|volume| volume == target);
    let seen: BTreeMap<String, String> = is
        .iter()
        .map(seen_mount)
        .filter(|(target, what)| wanted.contains_key(target) || !(images(target) && what.starts_with("volume")))
        .collect();
    for (target, what) in &wanted {
        match seen.get(target) {
            None => found.0.push(format!("the mount at {target} is missing")),
            Some(other) if other != what => {
                found.0.push(format!("the mount at {target} is {other}, and is to be {what}"));
            }
            Some(_) => {}
        }
    }
    let surplus = seen.keys().filter(|target| !wanted.contains_key(*target));
    found.0.extend(surplus.map(|target| format!("the mount at {target} is too much")));
}

fn wanted_mount(mount: &Mount) -> (String, String) {
    let kind = mount.typ.unwrap_or(MountType::BIND);
    let source = mount.source.clone().filter(|_| kind != MountType::TMPFS).unwrap_or_default();
    let options = mount.bind_options.as_ref();
    let propagation = options.and_then(|options| options.propagation).map(|propagation| propagation.to_string());
    let read_only = mount.read_only.unwrap_or(false);
    (mount.target.clone().unwrap_or_default(), mount_text(&kind.to_string(), &source, read_only, propagation))
}

fn seen_mount(mount: &MountPoint) -> (String, String) {
    let kind = mount.typ.clone().unwrap_or_default();
    let source = match kind.as_str() {
        "volume" => mount.name.clone(),
        "tmpfs" => None,
        _ => mount.source.clone(),
    };
    let read_only = !mount.rw.unwrap_or(true);
    let text = mount_text(&kind, &source.unwrap_or_default(), read_only, mount.propagation.clone());
    (mount.destination.clone().unwrap_or_default(), text)
}

/// `rprivate` is what a bind has of itself.
fn mount_text(kind: &str, source: &str, read_only: bool, propagation: Option<String>) -> String {
    let mut text = format!("{kind} {source}").trim_end().to_owned();
    if read_only {
        text.push_str(" read-only");
    }
    if let Some(propagation) = propagation.filter(|propagation| !propagation.is_empty() && propagation != "rprivate") {
        text = format!("{text} {propagation}");
    }
    text
}

fn limits(found: &mut Differences, is: &HostConfig, to_be: &HostConfig) {
    let number = |number: Option<i64>| number.filter(|number| *number != 0);
    found.compare("resources.cpus (billionths)", number(is.nano_cpus), number(to_be.nano_cpus));
    found.compare("resources.memory", number(is.memory), number(to_be.memory));
    found.compare("resources.memoryReservation", number(is.memory_reservation), number(to_be.memory_reservation));
    // The engine allows as much swap as memory of itself, or, where the kernel cannot count it, any.
    let swap = number(is.memory_swap).filter(|swap| *swap != -1 || to_be.memory_swap.is_some());
    let twice = number(to_be.memory).map(|memory| memory.saturating_mul(2)).filter(|_| swap.is_some());
    found.compare("resources.memorySwap", swap, number(to_be.memory_swap).or(twice));
    found.compare("resources.pids", unlimited(is.pids_limit), unlimited(to_be.pids_limit));
    found.compare("resources.cpuShares", number(is.cpu_shares), number(to_be.cpu_shares));
    found.compare("resources.cpuset", given(&is.cpuset_cpus), given(&to_be.cpuset_cpus));
    let shm = |size: Option<i64>| number(size).unwrap_or(SHM_BYTES);
    found.compare("resources.shmSize", shm(is.shm_size), shm(to_be.shm_size));
    let ulimits = |config: &HostConfig| -> BTreeSet<(String, i64, i64)> {
        let limits = config.ulimits.iter().flatten();
        limits.map(|l| (l.name.clone().unwrap_or_default(), l.soft.unwrap_or(0), l.hard.unwrap_or(0))).collect()
    };
    found.compare("ulimits", ulimits(is), ulimits(to_be));
}

fn unlimited(limit: Option<i64>) -> Option<i64> {
    limit.filter(|limit| *limit > 0)
}

fn rights(found: &mut Differences, is: &HostConfig, to_be: &HostConfig) {
    found.compare("privileged", is.privileged.unwrap_or(false), to_be.privileged.unwrap_or(false));
    found.compare("readOnly", is.readonly_rootfs.unwrap_or(false), to_be.readonly_rootfs.unwrap_or(false));
    let capabilities = |list: &Option<Vec<String>>| -> BTreeSet<String> {
        let plain = |name: &String| name.to_uppercase().trim_start_matches("CAP_").to_owned();
        list.iter().flatten().map(plain).collect()
    };
    found.compare("capAdd", capabilities(&is.cap_add), capabilities(&to_be.cap_add));
    found.compare("capDrop", capabilities(&is.cap_drop), capabilities(&to_be.cap_drop));
    // A privileged container is told so by the engine too.
    let options = |list: &Option<Vec<String>>| -> BTreeSet<String> {
        let own = |option: &&String| !(is.privileged == Some(true) && option.starts_with("label=disable"));
        list.iter().flatten().filter(own).map(|option| option.replace(':', "=")).collect()
    };
    found.compare("securityOpt", options(&is.security_opt), options(&to_be.security_opt));
    found.compare("groupAdd", set(&is.group_add), set(&to_be.group_add));
    let devices = |config: &HostConfig| -> BTreeSet<String> {
        let text = |device: &bollard::models::DeviceMapping| {
            let part = |part: &Option<String>| part.clone().unwrap_or_default();
            format!(
                "{}:{}:{}",
                part(&device.path_on_host),
                part(&device.path_in_container),
                part(&device.cgroup_permissions)
            )
        };
        config.devices.iter().flatten().map(text).collect()
    };
    found.compare("devices", devices(is), devices(to_be));
    found.compare("gpus", cards(is), cards(to_be));
    if to_be.runtime.is_some() {
        found.compare("runtime", given(&is.runtime), given(&to_be.runtime));
    }
}

fn cards(config: &HostConfig) -> BTreeSet<String> {
    let text = |request: &DeviceRequest| {
        let ids = request.device_ids.clone().unwrap_or_default();
        let capabilities: BTreeSet<_> = request.capabilities.iter().flatten().flatten().collect();
        let options: BTreeMap<_, _> = request.options.iter().flatten().collect();
        let (driver, count) = (given(&request.driver).unwrap_or_default(), request.count.unwrap_or(0));
        format!("count {count} ids {ids:?} capabilities {capabilities:?} driver {driver:?} options {options:?}")
    };
    config.device_requests.iter().flatten().map(text).collect()
}

fn surroundings(found: &mut Differences, is: &HostConfig, to_be: &HostConfig) {
    found.compare("init", is.init.unwrap_or(false), to_be.init.unwrap_or(false));
    // The engine has a default of its own.
    let ipc = |mode: &Option<String>| given(mode).filter(|mode| !matches!(mode.as_str(), "private" | "shareable"));
    match given(&to_be.ipc_mode) {
        Some(mode) => found.compare("ipc", given(&is.ipc_mode), Some(mode)),
        None => found.compare("ipc", ipc(&is.ipc_mode), None),
    }
    found.compare("pid", given(&is.pid_mode), given(&to_be.pid_mode));
    let map =
        |map: &Option<HashMap<String, String>>| map.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    found.compare::<BTreeMap<String, String>>("tmpfs", map(&is.tmpfs), map(&to_be.tmpfs));
    found.compare::<BTreeMap<String, String>>("sysctls", map(&is.sysctls), map(&to_be.sysctls));
    found.compare("extraHosts", set(&is.extra_hosts), set(&to_be.extra_hosts));
    found.compare("dns", set(&is.dns), set(&to_be.dns));
    found.compare("dnsSearch", set(&is.dns_search), set(&to_be.dns_search));
    found.compare("dnsOptions", set(&is.dns_options), set(&to_be.dns_options));
    if let Some(wanted) = &to_be.log_config {
        let seen = is.log_config.clone().unwrap_or_default();
        if wanted.typ.is_some() {
            found.compare("logging.driver", seen.typ, wanted.typ.clone());
        }
        found.by_name(
            "logging option",
            &seen.config.into_iter().flatten().collect(),
            &wanted.config.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        );
    }
}

fn set(list: &Option<Vec<String>>) -> BTreeSet<String> {
    list.iter().flatten().cloned().collect()
}

/// Where it is to be; it may be elsewhere too, and answer to more.
fn attachments(found: &mut Differences, seen: &ContainerInspectResponse, networks: &[(String, Vec<String>)]) {
    let attached = seen.network_settings.as_ref().and_then(|settings| settings.networks.clone()).unwrap_or_default();
    let own = seen.name.as_deref().unwrap_or_default().trim_start_matches('/');
    for (network, aliases) in networks {
        let Some(endpoint) = attached.get(network) else {
            found.0.push(format!("it is not on the network {network}"));
            continue;
        };
        let known = endpoint.aliases.clone().unwrap_or_default();
        let missing = aliases.iter().filter(|alias| *alias != own && !known.contains(alias));
        found.0.extend(missing.map(|alias| format!("it does not answer to {alias} on the network {network}")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As Docker shows a container of Compose's, cut down to what counts.
    fn shown() -> Value {
        json!({
            "Id": "b83eca3246440000", "Name": "/stack_web_1",
            "Config": {
                "Hostname": "b83eca324644", "Domainname": "", "User": "", "Image": "i", "WorkingDir": "/w", "Entrypoint": ["/e"],
                "Cmd": ["a"], "Env": ["PATH=/bin", "TOKEN=secret-1"], "StopSignal": "SIGINT",
                "Labels": {"com.docker.compose.service": "web", "by": "image", "theirs": "yes"},
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 2, "Retries": 0},
            },
            "HostConfig": {
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]}, "Memory": 100, "MemorySwap": 200, "PidsLimit": null,
                "ShmSize": 67108864, "IpcMode": "private", "CapAdd": ["CAP_NET_ADMIN"], "Runtime": "runc", "Tmpfs": {"/t": ""},
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}, "RestartPolicy": {"Name": "always"},
                "DeviceRequests": [{"Driver": "nvidia", "Count": -1, "DeviceIDs": null, "Capabilities": [["gpu"]], "Options": {}}],
            },
            "Mounts": [
                {"Type": "volume", "Name": "v", "Source": "/var/lib/v", "Destination": "/v", "Mode": "rw", "RW": true},
                {"Type": "bind", "Source": "/b", "Destination": "/b", "Mode": "ro", "RW": false, "Propagation": "rprivate"},
                {"Type": "volume", "Name": "0a1b", "Source": "/var/lib/0a1b", "Destination": "/of-the-image", "RW": true},
            ],
            "NetworkSettings": {"Networks": {"stack_default": {"Aliases": ["web", "b83eca324644"]}}},
        })
    }

    fn wanted() -> Value {
        json!({
            "Image": "i", "Cmd": ["a"], "Env": ["TOKEN=secret-1"], "Labels": {"theirs": "yes", "gaia.dev/workload": "w"},
            "Healthcheck": {"Interval": 2},
            "HostConfig": {
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "0"}]}, "Memory": 100, "CapAdd": ["NET_ADMIN"], "Tmpfs": {"/t": ""},
                "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v"}, {"Type": "bind", "Source": "/b", "Target": "/b", "ReadOnly": true}],
                "DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}],
            },
        })
    }

    fn found(shown: Value, wanted: Value) -> Vec<String> {
        let image = json!({
            "Env": ["PATH=/bin"], "Entrypoint": ["/e"], "Cmd": ["b"], "WorkingDir": "/w", "StopSignal": "SIGINT",
            "Labels": {"by": "image"}, "Healthcheck": {"Test": ["CMD", "x"]}, "Volumes": {"/of-the-image": {}},
        });
        let shown = serde_json::from_value(shown).expect("as Docker shows it");
        let image = serde_json::from_value(image).expect("as Docker shows it");
        let wanted = serde_json::from_value(wanted).expect("as Docker takes it");
        let networks = [("stack_default".to_owned(), vec!["web".to_owned(), "stack_web_1".to_owned()])];
        differences(&shown, &image, &wanted, &networks)
    }

    #[test]
    fn what_the_image_and_the_engine_add_is_no_difference() {
        assert_eq!(found(shown(), wanted()), [""; 0]);
    }

    #[test]
    fn every_difference_is_named_and_no_secret_told() {
        for (pointer, value, expected) in [
            ("/Image", json!("j"), r#"image is "i", and is to be "j""#),
            ("/Cmd", json!(["--key", "secret-2"]), "args is another"),
            ("/Entrypoint", json!(["/other"]), "command is another"),
            ("/Env", json!(["TOKEN=secret-2"]), "env TOKEN has another value"),
            ("/Env", json!(["TOKEN=secret-1", "A=1"]), "env A is missing"),
            ("/Env", json!([]), "env TOKEN is too much"),
            ("/Labels", json!({"theirs": "no"}), "label theirs has another value"),
            ("/User", json!("1000"), r#"user is "", and is to be "1000""#),
            ("/Hostname", json!("h"), r#"hostname is None, and is to be Some("h")"#),
            ("/Healthcheck", json!({"Test": ["CMD", "y"], "Interval": 2}), "healthcheck.command is another"),
            ("/Healthcheck", json!({"Interval": 3}), "healthcheck.interval is Some(2), and is to be Some(3)"),
            ("/HostConfig/PortBindings", json!({}), r#"ports is {":0->80/tcp"}, and is to be {}"#),
            ("/HostConfig/ShmSize", json!(1), "resources.shmSize is 67108864, and is to be 1"),
            ("/HostConfig/Memory", json!(50), "resources.memory is Some(100), and is to be Some(50)"),
            ("/HostConfig/MemorySwap", json!(-1), "resources.memorySwap is Some(200), and is to be Some(-1)"),
            ("/HostConfig/Mounts/0/Source", json!("w"), "the mount at /v is volume v, and is to be volume w"),
            (
                "/HostConfig/Mounts/1/ReadOnly",
                json!(false),
                "the mount at /b is bind /b read-only, and is to be bind /b",
            ),
            ("/HostConfig/Mounts/1/Target", json!("/c"), "the mount at /c is missing"),
            ("/HostConfig/CapAdd", json!([]), r#"capAdd is {"NET_ADMIN"}, and is to be {}"#),
            ("/HostConfig/IpcMode", json!("host"), r#"ipc is Some("private"), and is to be Some("host")"#),
            ("/HostConfig/Runtime", json!("nvidia"), r#"runtime is Some("runc"), and is to be Some("nvidia")"#),
            ("/HostConfig/Tmpfs", json!({}), r#"tmpfs is {"/t": ""}, and is to be {}"#),
            (
                "/HostConfig/LogConfig",
                json!({"Type": "journald", "Config": {"max-size": "1m"}}),
                r#"logging.driver is Some("json-file"), and is to be Some("journald")"#,
            ),
        ] {
            let mut wanted = wanted();
            let (above, field) = pointer.rsplit_once('/').expect("a pointer");
            wanted.pointer_mut(above).expect("is there")[field] = value;
            let found = found(shown(), wanted);
            assert!(found.iter().any(|difference| difference == expected), "{pointer}: {found:?}");
            assert!(!found.concat().contains("secret-"), "{found:?}");
        }
    }

    #[test]
    fn a_network_or_a_name_that_is_missing_is_named() {
        let mut elsewhere = shown();
        elsewhere["NetworkSettings"]["Networks"] = json!({"bridge": {}});
        assert_eq!(found(elsewhere, wanted()), ["it is not on the network stack_default"]);
        let mut nameless = shown();
        nameless["NetworkSettings"]["Networks"]["stack_default"] = json!({"Aliases": null});
        assert_eq!(found(nameless, wanted()), ["it does not answer to web on the network stack_default"]);
    }
}
