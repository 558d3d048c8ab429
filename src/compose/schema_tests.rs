//! Nothing of the Compose specification is dropped in silence: every field that a service may have, each with a value, changes what
//! comes of it, is refused by its path, or is listed here as one that does not bear on a running container.

use rstest::rstest;

use super::tests::web;

/// Of a service beside its image, as of the specification of 2026.
const FIELDS: &[(&str, &str, Comes)] = &[
    ("annotations", "{a: b}", Comes::Refused),
    ("attach", "false", Comes::Nothing),
    ("blkio_config", "{weight: 300}", Comes::Refused),
    ("build", ".", Comes::Changed),
    ("cap_add", "[NET_ADMIN]", Comes::Changed),
    ("cap_drop", "[ALL]", Comes::Changed),
    ("cgroup", "host", Comes::Refused),
    ("cgroup_parent", "m", Comes::Refused),
    ("command", "x", Comes::Changed),
    ("configs", "[a]", Comes::Refused),
    ("container_name", "other", Comes::Changed),
    ("cpu_count", "2", Comes::Refused),
    ("cpu_percent", "50", Comes::Refused),
    ("cpu_period", "50000", Comes::Refused),
    ("cpu_quota", "50000", Comes::Refused),
    ("cpu_rt_period", "1400us", Comes::Refused),
    ("cpu_rt_runtime", "400ms", Comes::Refused),
    ("cpu_shares", "5", Comes::Changed),
    ("cpus", "1.5", Comes::Changed),
    ("cpuset", "'0'", Comes::Changed),
    ("credential_spec", "{file: a}", Comes::Refused),
    ("depends_on", "[db]", Comes::Changed),
    ("deploy", "{resources: {limits: {memory: 1g}}}", Comes::Changed),
    ("develop", "{watch: []}", Comes::Nothing),
    ("device_cgroup_rules", "['c 1:3 mr']", Comes::Refused),
    ("devices", "[/dev/a]", Comes::Changed),
    ("dns", "1.1.1.1", Comes::Changed),
    ("dns_opt", "[a]", Comes::Changed),
    ("dns_search", "a", Comes::Changed),
    ("domainname", "a", Comes::Changed),
    ("entrypoint", "x", Comes::Changed),
    ("env_file", "web.env", Comes::Changed),
    ("environment", "{A: b}", Comes::Changed),
    ("expose", "[80]", Comes::Changed),
    ("extends", "{service: base}", Comes::Changed),
    ("external_links", "[a]", Comes::Refused),
    ("extra_hosts", "['a:1.2.3.4']", Comes::Changed),
    ("gpus", "all", Comes::Changed),
    ("group_add", "[video]", Comes::Changed),
    ("healthcheck", "{test: x}", Comes::Changed),
    ("hostname", "h", Comes::Changed),
    ("init", "true", Comes::Changed),
    ("ipc", "host", Comes::Changed),
    ("isolation", "default", Comes::Refused),
    ("label_file", "a", Comes::Refused),
    ("labels", "{a: b}", Comes::Changed),
    ("links", "[db]", Comes::Refused),
    ("logging", "{driver: journald}", Comes::Changed),
    ("mac_address", "02:42:ac:11:65:43", Comes::Refused),
    ("mem_limit", "1g", Comes::Changed),
    ("mem_reservation", "1g", Comes::Changed),
    ("mem_swappiness", "5", Comes::Refused),
    ("memswap_limit", "2g", Comes::Changed),
    ("models", "[a]", Comes::Refused),
    ("network_mode", "host", Comes::Refused),
    ("networks", "{default: {aliases: [a]}}", Comes::Changed),
    ("oom_kill_disable", "true", Comes::Refused),
    ("oom_score_adj", "5", Comes::Refused),
    ("pid", "host", Comes::Changed),
    ("pids_limit", "5", Comes::Changed),
    ("platform", "linux/amd64", Comes::Refused),
    ("ports", "['80:80']", Comes::Changed),
    ("post_start", "[{command: x}]", Comes::Refused),
    ("pre_stop", "[{command: x}]", Comes::Refused),
    ("privileged", "true", Comes::Changed),
    // It says with what else the service is wanted, and is asked for by `compose.profile`.
    ("profiles", "[p]", Comes::Nothing),
    ("provider", "{type: a}", Comes::Refused),
    ("pull_policy", "always", Comes::Changed),
    ("pull_refresh_after", "24h", Comes::Refused),
    ("read_only", "true", Comes::Changed),
    ("restart", "'no'", Comes::Changed),
    ("runtime", "nvidia", Comes::Changed),
    ("scale", "2", Comes::Refused),
    ("secrets", "[a]", Comes::Refused),
    ("security_opt", "[a]", Comes::Changed),
    ("shm_size", "1g", Comes::Changed),
    ("stdin_open", "true", Comes::Changed),
    ("stop_grace_period", "5s", Comes::Changed),
    ("stop_signal", "SIGINT", Comes::Changed),
    ("storage_opt", "{size: 1G}", Comes::Refused),
    ("sysctls", "{a: b}", Comes::Changed),
    ("tmpfs", "/run", Comes::Changed),
    ("tty", "true", Comes::Changed),
    ("ulimits", "{nofile: 5}", Comes::Changed),
    ("use_api_socket", "true", Comes::Refused),
    ("user", "'5'", Comes::Changed),
    ("userns_mode", "host", Comes::Refused),
    ("uts", "host", Comes::Refused),
    ("volumes", "['/a:/b']", Comes::Changed),
    ("volumes_from", "[db]", Comes::Refused),
    ("working_dir", "/w", Comes::Changed),
];

/// What comes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    Changed,
    Refused,
    Nothing,
}

/// A service beside it, for those that name one.
const BESIDE: &str = "  base: {image: b, tty: true}\n";

#[test]
fn every_field_of_a_service_counts_or_is_refused() {
    let before = web("", BESIDE).expect("an image is enough");
    for (field, value, comes) in FIELDS {
        let found = match web(&format!("{field}: {value}"), BESIDE) {
            Ok(service) if service == before => Comes::Nothing,
            Ok(_) => Comes::Changed,
            Err(problems) => {
                let path = format!("services.web.{field}");
                assert!(problems.iter().all(|problem| problem.contains(&path)), "{field}: {problems:?}");
                // Known fields say why; only what the specification does not have is simply not supported.
                assert!(!problems[0].ends_with("is not supported"), "{field}: {problems:?}");
                Comes::Refused
            }
        };
        assert_eq!(found, *comes, "{field}");
    }
}

/// Fields within those that are supported.
#[rstest]
#[case::network_addresses("networks: {default: {ipv4_address: 1.2.3.4}}", "networks.default.ipv4_address")]
#[case::network_addresses_6("networks: {default: {ipv6_address: '::1'}}", "networks.default.ipv6_address")]
#[case::link_local("networks: {default: {link_local_ips: [1.2.3.4]}}", "networks.default.link_local_ips")]
#[case::network_mac("networks: {default: {mac_address: 'a'}}", "networks.default.mac_address")]
#[case::network_options("networks: {default: {driver_opts: {a: b}}}", "networks.default.driver_opts")]
#[case::interface("networks: {default: {interface_name: eth5}}", "networks.default.interface_name")]
#[case::volume_subpath(
    "volumes: [{type: volume, source: /v, target: /t, volume: {subpath: a}}]",
    "volumes[0].volume.subpath"
)]
#[case::volume_labels(
    "volumes: [{type: volume, source: /v, target: /t, volume: {labels: {a: b}}}]",
    "volumes[0].volume.labels"
)]
#[case::selinux("volumes: [{type: bind, source: /v, target: /t, bind: {selinux: z}}]", "volumes[0].bind.selinux")]
#[case::recursive(
    "volumes: [{type: bind, source: /v, target: /t, bind: {recursive: disabled}}]",
    "volumes[0].bind.recursive"
)]
#[case::tmpfs_size("volumes: [{type: tmpfs, target: /t, tmpfs: {size: 64}}]", "volumes[0].tmpfs.size")]
#[case::image_mount("volumes: [{type: image, source: a, target: /t}]", "volumes[0]")]
#[case::generic_resources(
    "deploy: {resources: {reservations: {generic_resources: []}}}",
    "deploy.resources.reservations.generic_resources"
)]
#[case::job_mode("deploy: {mode: replicated-job}", "deploy.mode")]
#[case::restart_delay("deploy: {restart_policy: {delay: 5s}}", "deploy.restart_policy.delay")]
#[case::healthcheck("healthcheck: {interva: 5s}", "healthcheck.interva")]
#[case::logging("logging: {option: {a: b}}", "logging.option")]
#[case::port("ports: [{target: 80, publish: 80}]", "ports[0].publish")]
#[case::dependency("depends_on: {db: {optional: true}}", "depends_on.db.optional")]
#[case::device("devices: [{source: /dev/a, mode: r}]", "devices[0].mode")]
#[case::ulimit("ulimits: {nofile: {soft: 1, hard: 2, max: 3}}", "ulimits.nofile.max")]
#[case::env_file("env_file: [{path: web.env, encoding: a}]", "env_file[0].encoding")]
fn so_does_every_field_within_them(#[case] line: &str, #[case] path: &str) {
    let problems = web(line, "").expect_err("it cannot be honoured");
    let path = format!("services.web.{path}: ");
    assert!(problems.iter().any(|problem| problem.contains(&path)), "{problems:?}");
}

#[test]
fn the_fields_are_all_there_are() {
    assert!(FIELDS.is_sorted_by_key(|(field, _, _)| *field), "each is easily found, and there once");
    assert_eq!(FIELDS.len(), 91);
}
