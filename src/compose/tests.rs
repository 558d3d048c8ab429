use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    Problem, Project, Reader, Service, dotenv,
    interpolate::{Variables, substitute},
    resolve, units, words,
};
use crate::yaml;

/// Files in memory.
struct Texts(BTreeMap<PathBuf, String>);

impl Reader for Texts {
    fn read(&self, path: &Path) -> Result<Option<String>, String> {
        Ok(self.0.get(path).cloned())
    }
}

const FILE: &str = "/srv/stack/compose.yaml";

fn texts(files: &[(&str, &str)]) -> Texts {
    Texts(files.iter().map(|(path, text)| (Path::new("/srv/stack").join(path), (*text).to_owned())).collect())
}

fn told(problems: Vec<Problem>) -> Vec<String> {
    problems.iter().map(|problem| problem.to_string().replace("/srv/stack/", "")).collect()
}

fn service_of(files: &[(&str, &str)], service: &str, profile: Option<&str>) -> Result<Service, Vec<String>> {
    let texts = texts(files);
    let project = Project::read(Path::new(FILE), None, &texts).map_err(told)?;
    project.service(service, profile).map_err(told)
}

/// A service `web` with an image and these lines; `beside`: what stands at the top level.
pub fn web(lines: &str, beside: &str) -> Result<Service, Vec<String>> {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!("services:\n  web:\n    image: i\n{lines}{beside}");
    let env = "SET=set\nEMPTY=\nPORT=8080\n";
    let raw = "# comment\nC='$SET'\nUNSET\nD=plain # comment\n";
    let web_env = "# comment\nA=file\nexport B=\"b $SET\"\nC='$SET'\nD=plain # comment\n";
    service_of(&[("compose.yaml", &text), (".env", env), ("web.env", web_env), ("raw.env", raw)], "web", None)
}

/// What is there beside image and the default network, as JSON.
fn container(service: &Service) -> Value {
    let mut container = serde_json::to_value(&service.container).expect("plain data");
    let fields = container.as_object_mut().expect("an object");
    fields.remove("image");
    if service.container.networks == ["stack_default"] {
        fields.remove("networks");
        fields.remove("networkOptions");
    }
    container
}

#[rstest]
#[case::nothing("", json!({}))]
#[case::command_words("command: serve --name 'a b' \"c \\\" d\"", json!({"args": ["serve", "--name", "a b", "c \" d"]}))]
#[case::command_list("command: [serve, 8080, true]", json!({"args": ["serve", "8080", "true"]}))]
#[case::command_empty("command: []", json!({"args": []}))]
#[case::command_null("command:", json!({}))]
#[case::entrypoint("entrypoint: /bin/x -v", json!({"command": ["/bin/x", "-v"]}))]
#[case::environment_map("environment: {A: 1, B: true, C: ~, SET: ~, D: '', E: 1.5}", json!({"env": {"A": "1", "B": "true", "D": "", "E": "1.5", "SET": "set"}}))]
#[case::environment_list("environment: [A=1, 'B=x=y', SET, NOT_SET]", json!({"env": {"A": "1", "B": "x=y", "SET": "set"}}))]
#[case::env_file("env_file: web.env\nenvironment: {A: own}", json!({"env": {"A": "own", "B": "b set", "C": "$SET", "D": "plain"}}))]
#[case::env_file_long("env_file:\n- {path: ./raw.env, format: raw}\n- {path: none.env, required: false}", json!({"env": {"C": "'$SET'", "D": "plain # comment"}}))]
#[case::interpolated("hostname: \"${SET}-${NOT:-x${EMPTY:-y}}-$$SET-${EMPTY-e}-${SET:+there}-${NOT+there}\"", json!({"hostname": "set-xy-$SET--there-"}))]
#[case::interpolated_number("mem_limit: ${PORT}k", json!({"resources": {"memory": "8080Ki"}}))]
#[case::ports("ports: ['80', '8080:80', '127.0.0.1:${PORT}:81/udp', '[::1]:82:82', '90-91:90-91', 7000]", json!({"ports": [
    {"containerPort": 80, "hostPort": 0, "hostIp": ""}, {"containerPort": 80, "hostPort": 8080, "hostIp": ""},
    {"containerPort": 81, "hostPort": 8080, "hostIp": "127.0.0.1", "protocol": "UDP"},
    {"containerPort": 82, "hostPort": 82, "hostIp": "::1"}, {"containerPort": 90, "hostPort": 90, "hostIp": ""},
    {"containerPort": 91, "hostPort": 91, "hostIp": ""}, {"containerPort": 7000, "hostPort": 0, "hostIp": ""}]}))]
#[case::ports_long("ports:\n- {target: 80, published: \"8080\", host_ip: 0.0.0.0, protocol: tcp, mode: host, name: http}", json!({"ports": [{"containerPort": 80, "hostPort": 8080, "hostIp": "0.0.0.0"}]}))]
#[case::expose("expose: [3000, '3001/udp']", json!({"ports": [{"containerPort": 3000}, {"containerPort": 3001, "protocol": "UDP"}]}))]
#[case::binds("volumes: ['./data:/data', '../x/./y:/y:ro', '/abs:/abs:rw,rshared']", json!({"mounts": [
    {"source": "/srv/stack/data", "target": "/data", "createSource": true},
    {"source": "/srv/x/y", "target": "/y", "createSource": true, "readOnly": true},
    {"source": "/abs", "target": "/abs", "createSource": true, "propagation": "rshared"}]}))]
#[case::bind_long("volumes:\n- {type: bind, source: ./d, target: /d, read_only: true, bind: {propagation: rslave, create_host_path: true}}\n- {type: tmpfs, target: /t}", json!({"mounts": [
    {"source": "/srv/stack/d", "target": "/d", "readOnly": true, "propagation": "rslave", "createSource": true}, {"type": "Tmpfs", "target": "/t"}]}))]
#[case::healthcheck("healthcheck: {test: [CMD, curl, -f, x], interval: 1m30s, timeout: 10s, retries: 3, start_period: 2m, start_interval: 5s}", json!({"healthcheck": {
    "command": ["curl", "-f", "x"], "intervalSeconds": 90, "timeoutSeconds": 10, "retries": 3, "startPeriodSeconds": 120, "startIntervalSeconds": 5}}))]
#[case::healthcheck_line("healthcheck: {test: curl -f x || exit 1}", json!({"healthcheck": {"shell": "curl -f x || exit 1"}}))]
#[case::healthcheck_shell("healthcheck: {test: [CMD-SHELL, a b]}", json!({"healthcheck": {"shell": "a b"}}))]
#[case::healthcheck_off("healthcheck: {disable: true}", json!({"healthcheck": {"disabled": true}}))]
#[case::healthcheck_none("healthcheck: {test: [NONE]}", json!({"healthcheck": {"disabled": true}}))]
#[case::gpu("deploy:\n  resources:\n    reservations:\n      devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]", json!({"gpus": {"count": 1, "driver": "nvidia"}}))]
#[case::gpu_ids("deploy:\n  resources:\n    reservations:\n      devices: [{driver: nvidia, device_ids: ['0', GPU-1], capabilities: [gpu, utility]}]", json!({"gpus": {"deviceIds": ["0", "GPU-1"], "driver": "nvidia", "capabilities": ["gpu", "utility"]}}))]
#[case::gpu_all("deploy:\n  resources:\n    reservations:\n      devices: [{count: all, capabilities: [gpu]}]", json!({"gpus": {"count": -1}}))]
#[case::gpus("gpus: all", json!({"gpus": {"count": -1}}))]
#[case::deploy("deploy:\n  replicas: 1\n  mode: replicated\n  placement: {}\n  resources: {limits: {cpus: '0.5', memory: 2g, pids: 100}, reservations: {cpus: '1', memory: 512m}}", json!({"resources": {"cpus": "0.5", "memory": "2Gi", "memoryReservation": "512Mi", "pids": 100}}))]
#[case::limits("cpus: 1.5\nmem_limit: 1g\nmemswap_limit: -1\nmem_reservation: 100\nshm_size: 8gb\npids_limit: 50\ncpu_shares: 512\ncpuset: 0-3", json!({"resources": {
    "cpus": "1.5", "memory": "1Gi", "memorySwap": "-1", "memoryReservation": "100", "shmSize": "8Gi", "pids": 50, "cpuShares": 512, "cpuset": "0-3"}}))]
#[case::runtime("runtime: nvidia", json!({"runtime": "nvidia"}))]
#[case::labels("labels: [a=b, c]", json!({"labels": {"a": "b", "c": ""}}))]
#[case::identity("user: \"1000:1000\"\nworking_dir: /w\nhostname: h\ndomainname: d\nstop_signal: SIGINT", json!({"user": "1000:1000", "workingDir": "/w", "hostname": "h", "domainname": "d", "stopSignal": "SIGINT"}))]
#[case::hosts("extra_hosts: ['a:1.2.3.4', 'b=host-gateway', 'c:::1']", json!({"extraHosts": ["a:1.2.3.4", "b:host-gateway", "c:::1"]}))]
#[case::hosts_map("extra_hosts: {a: 1.2.3.4}", json!({"extraHosts": ["a:1.2.3.4"]}))]
#[case::ulimits("ulimits: {memlock: -1, nofile: {soft: 1, hard: 2}}", json!({"ulimits": {"memlock": {"soft": -1, "hard": -1}, "nofile": {"soft": 1, "hard": 2}}}))]
#[case::namespaces("ipc: host\npid: host", json!({"ipc": "host", "pid": "host"}))]
#[case::tmpfs("tmpfs: ['/run', '/tmp:size=64m']", json!({"tmpfs": ["/run", "/tmp:size=64m"]}))]
#[case::tmpfs_one("tmpfs: /run", json!({"tmpfs": ["/run"]}))]
#[case::flags("init: true\ntty: true\nstdin_open: true\nread_only: true\nprivileged: true", json!({"init": true, "tty": true, "stdin": true, "readOnly": true, "privileged": true}))]
#[case::rights("cap_add: [NET_ADMIN]\ncap_drop: [ALL]\nsecurity_opt: ['no-new-privileges:true']\ngroup_add: [video, 44]", json!({"capAdd": ["NET_ADMIN"], "capDrop": ["ALL"], "securityOpt": ["no-new-privileges:true"], "groupAdd": ["video", "44"]}))]
#[case::devices("devices: [/dev/a, '/dev/a:/dev/b:r', {source: /dev/c, target: /dev/d}]", json!({"devices": ["/dev/a", "/dev/a:/dev/b:r", "/dev/c:/dev/d:rwm"]}))]
#[case::dns("dns: 1.1.1.1\ndns_search: [a.b]\ndns_opt: ['ndots:1']", json!({"dns": ["1.1.1.1"], "dnsSearch": ["a.b"], "dnsOptions": ["ndots:1"]}))]
#[case::sysctls("sysctls: {net.core.somaxconn: 1024}", json!({"sysctls": {"net.core.somaxconn": "1024"}}))]
#[case::logging("logging: {driver: json-file, options: {max-size: 10m, max-file: 3}}", json!({"logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}}))]
#[case::pull("pull_policy: always", json!({"imagePullPolicy": "Always"}))]
#[case::built("build: .", json!({"imagePullPolicy": "Never"}))]
#[case::no_effect("x-anything: {a: [b]}\nattach: false\ndevelop: {watch: []}\nprofiles: [p]", json!({}))]
fn fields_become_our_words(#[case] lines: &str, #[case] expected: Value) {
    let service = web(lines, "").unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(container(&service), expected);
}

#[rstest]
#[case(
    "build: .",
    "services: {web: {build: .}}",
    "compose.yaml:1: services.web.build: is not supported: gaia builds no images. Give `image` too, and build it with Compose"
)]
#[case("no image", "services:\n  web:\n    command: x\n", "compose.yaml:2: services.web: image is missing")]
#[case("a whole file", "- a\n", "compose.yaml:1: a Compose file is a mapping with services")]
#[case("not YAML", "services: [\n", "compose.yaml:1: ")]
#[case("no services", "name: x\n", "compose.yaml: services: is missing: a Compose file is a mapping with services")]
#[case("a mistyped top level", "services: {web: {image: i}}\nvolume: {}\n", "compose.yaml:2: volume: is not supported")]
#[case(
    "include",
    "include: [a.yaml]\nservices: {web: {image: i}}\n",
    "compose.yaml:1: include: is not supported: name the other file where its services are wanted"
)]
#[case("a service that is no mapping", "services: {web: x}\n", "compose.yaml:1: services.web: must be a mapping")]
#[case(
    "an inherited service that is not there",
    "services: {web: {image: i, extends: base}}",
    "compose.yaml:1: services.web.extends: there is no service base in compose.yaml"
)]
#[case(
    "a service that extends itself",
    "services:\n  web: {image: i, extends: b}\n  b: {extends: {service: web}}\n",
    "compose.yaml:3: services.b.extends: b extends itself"
)]
#[case(
    "a missing base file",
    "services: {web: {image: i, extends: {file: b.yaml, service: b}}}",
    "compose.yaml:1: services.web.extends: b.yaml: there is no such file"
)]
fn what_is_wrong_with_a_file_is_told(#[case] what: &str, #[case] text: &str, #[case] expected: &str) {
    let problems = service_of(&[("compose.yaml", text)], "web", None).expect_err(what);
    assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{what}: {problems:?}");
}

#[rstest]
#[case("imge: x", "imge: is not supported")]
#[case("annotations: {a: b}", "annotations: is not supported: gaia passes none on; take them out, or use labels")]
#[case(
    "links: [db]",
    "links: is not supported: services of one network reach each other by their names; for another name use networks.NAME.aliases"
)]
#[case(
    "network_mode: host",
    "network_mode: is not supported: every container is on its namespace's network, where its Workload's name moves between the variants"
)]
#[case(
    "ipc: 'service:db'",
    "ipc: is not supported: containers of a Workload come and go, and what shares with them would break"
)]
#[case("secrets: [a]", "secrets: is not supported: mount the file as a volume instead")]
#[case("scale: 2", "scale: is not supported: a Workload is one container a variant, so only 1 can be")]
#[case(
    "deploy: {replicas: 0}",
    "deploy.replicas: is not supported: a Workload is one container a variant, so only 1 can be"
)]
#[case("deploy: {mode: global}", "deploy.mode: is not supported: a Workload is one container a variant")]
#[case("deploy: {resources: {limits: {devices: []}}}", "deploy.resources.limits.devices: is not supported")]
#[case(
    "deploy: {restart_policy: {condition: any, max_attempts: 3}}",
    "deploy.restart_policy.max_attempts: is not supported: gaia restarts after growing pauses of its own, without end"
)]
#[case(
    "deploy: {resources: {reservations: {devices: [{count: 1, device_ids: ['0'], capabilities: [gpu]}]}}}",
    "deploy.resources.reservations.devices[0]: count and device_ids cannot both be given"
)]
#[case(
    "restart: on-failure:3",
    "restart: is not supported: gaia goes on with growing pauses and counts no attempts; write on-failure"
)]
#[case("restart: sometimes", "restart: \"sometimes\" is none of no, always, unless-stopped and on-failure")]
#[case(
    "depends_on: {db: {condition: service_completed_successfully}}",
    "depends_on.db.condition: service_completed_successfully is not supported: a Workload is kept running, it does not complete"
)]
#[case(
    "depends_on: {db: {restart: true}}",
    "depends_on.db.restart: is not supported: gaia restarts nothing because another was updated"
)]
#[case(
    "healthcheck: {interval: 500ms}",
    "healthcheck.interval: 500ms is no whole number of seconds, which is as fine as gaia keeps them"
)]
#[case("healthcheck: {test: [curl]}", "healthcheck.test: must be a text, [NONE], [CMD, …] or [CMD-SHELL, line]")]
#[case("stop_grace_period: soon", "stop_grace_period: \"soon\" is no duration like 1m30s")]
#[case("ports: ['80:80/sctp']", "ports[0]: the protocol \"sctp\" is not supported; tcp and udp are")]
#[case("ports: ['8000-8010:80']", "ports[0]: is not supported: the two ranges must be of one length")]
#[case("ports: ['http:80']", "ports[0]: \"http\" is no port, and no range of ports")]
#[case(
    "volumes: [/data]",
    "volumes[0]: a volume without a name is not supported: Compose carries it over to the next container, gaia would begin with an empty one. Give it a name, or use tmpfs"
)]
#[case("volumes: ['data:/data']", "volumes[0]: data is not among the volumes of the file")]
#[case(
    "volumes: ['~/x:/x']",
    "volumes[0]: is not supported: whose home it is would depend on who runs gaia. Write the whole path"
)]
#[case("volumes: ['./x:/x:z']", "volumes[0]: z is not supported: gaia changes no SELinux labels")]
#[case(
    "volumes: [{type: npipe, source: a, target: /b}]",
    "volumes[0]: the type npipe is not supported; bind, volume and tmpfs are"
)]
#[case(
    "volumes: [{type: bind, source: /v, target: /b, bind: {selinux: z}}]",
    "volumes[0].bind.selinux: is not supported"
)]
#[case("networks: [back]", "networks[0]: back is not among the networks of the file")]
#[case("networks: {default: {ipv4_address: 1.2.3.4}}", "networks.default.ipv4_address: is not supported")]
#[case("pull_policy: daily", "pull_policy: daily is not supported; always, missing and never are")]
#[case("privileged: perhaps", "privileged: must be true or false")]
#[case("mem_limit: much", "mem_limit: \"much\" is no amount of memory like 512m or 8g")]
#[case("cpus: all", "cpus: \"all\" is no number of cores like 1.5")]
#[case("pids_limit: few", "pids_limit: must be a whole number")]
#[case("command: 'a ''b'", "command: a quote is not closed")]
#[case("labels: 3", "labels: must be a mapping, or a list of key=value")]
#[case("cap_add: NET_ADMIN", "cap_add: must be a list")]
#[case("env_file: none.env", "env_file: there is no file none.env")]
#[case(
    "hostname: $NOT_SET",
    "hostname: NOT_SET is not set: set it in .env beside the file, or say ${NOT_SET-} for nothing"
)]
#[case("hostname: ${EMPTY:?say who}", "hostname: EMPTY must be set, in .env beside the file: say who")]
#[case("hostname: ${SET/a/b}", "hostname: ${SET/a/b}: after the name may come -, :-, ?, :?, + or :+")]
#[case("hostname: ${SET", "hostname: ${SET is not closed; $$ stands for a dollar")]
fn what_cannot_be_honoured_is_named(#[case] lines: &str, #[case] expected: &str) {
    let problems = web(lines, "").expect_err(lines);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0], format!("compose.yaml:4: services.web.{expected}"));
}

#[test]
fn every_complaint_is_told_at_once() {
    let problems = web("imge: x\nlinks: [a]\nscale: 2", "").expect_err("three faults");
    let lines: Vec<_> = problems.iter().map(|problem| problem.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(lines.len(), 3);
    for line in ["compose.yaml:4", "compose.yaml:5", "compose.yaml:6"] {
        assert!(lines.contains(&line), "{problems:?}");
    }
}

#[test]
fn names_of_the_top_level_are_composes() {
    let beside = "networks:\n  default: {driver: bridge}\n  back: {name: backbone}\n  out: {external: true}\n  fine: {ipam: {config: [{subnet: 10.0.0.0/24}]}}\n\
                  volumes: {a: , b: {name: bee}, c: {external: true}, d: {external: {name: dee}}}\n";
    let lines = "container_name: the-web\nvolumes: ['a:/a', 'b:/b:ro', 'c:/c', {type: volume, source: d, target: /d, volume: {nocopy: true}}]\n\
                 networks: {default: , back: {aliases: [w, x]}, out: {}, fine: {}}";
    let service = web(lines, beside).unwrap_or_else(|problems| panic!("{problems:?}"));
    let found = container(&service);
    assert_eq!(
        found["mounts"],
        json!([
            {"type": "Volume", "source": "stack_a", "target": "/a"},
            {"type": "Volume", "source": "bee", "target": "/b", "readOnly": true},
            {"type": "Volume", "source": "c", "target": "/c"},
            {"type": "Volume", "source": "dee", "target": "/d", "noCopy": true},
        ])
    );
    assert_eq!(
        found["networkOptions"],
        json!({
            "stack_default": {"aliases": ["the-web", "web"], "create": true},
            "backbone": {"aliases": ["the-web", "w", "web", "x"], "create": true},
            // Somebody else's, and one with an address range: both must be there.
            "out": {"aliases": ["the-web", "web"]},
            "stack_fine": {"aliases": ["the-web", "web"]},
        })
    );
}

#[rstest]
#[case("[db, mq]", &[("db", false, true), ("mq", false, true)])]
#[case("{db: {condition: service_healthy}, mq: {required: false}, x: }", &[("db", true, true), ("mq", false, false), ("x", false, true)])]
fn dependencies_keep_their_conditions(#[case] value: &str, #[case] expected: &[(&str, bool, bool)]) {
    let service = web(&format!("depends_on: {value}"), "").expect("is fine");
    let found: Vec<_> = service
        .depends_on
        .iter()
        .map(|d| (d.service.as_str(), d.condition == super::DependencyCondition::Healthy, d.required))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn restarts_and_grace_go_beside_the_container() {
    use crate::api::workload::RestartPolicy::{Always, Never, OnFailure};
    for (lines, expected) in [
        ("", None),
        ("restart: \"no\"", Some(Never)),
        ("restart: no", Some(Never)),
        ("restart: always", Some(Always)),
        ("restart: unless-stopped", Some(Always)),
        ("restart: on-failure", Some(OnFailure)),
        ("deploy: {restart_policy: {condition: none}}", Some(Never)),
        ("deploy: {restart_policy: {condition: on-failure}}", Some(OnFailure)),
    ] {
        assert_eq!(web(lines, "").expect(lines).restart, expected, "{lines}");
    }
    assert_eq!(web("stop_grace_period: 1m30s", "").expect("is fine").stop_grace_seconds, Some(90));
}

#[test]
fn services_and_profiles_that_are_not_there_are_answered_with_those_that_are() {
    let text = "services:\n  core: {image: i}\n  web: {image: i, profiles: [full, web]}\n";
    let ask = |service: &str, profile| service_of(&[("compose.yaml", text)], service, profile);
    assert_eq!(
        ask("nope", None).expect_err("not there"),
        ["compose.yaml:1: services: there is no service nope; there are core, web"]
    );
    assert_eq!(
        ask("web", Some("core")).expect_err("not there"),
        ["compose.yaml:3: services.web.profiles: there is no profile core; there are full, web"]
    );
    ask("web", Some("full")).expect("is in it");
    ask("web", None).expect("is named, and so wanted");
    ask("core", Some("full")).expect("is in none, and so in all");
}

#[test]
fn anchors_merge_keys_and_extends_are_followed() {
    let compose = "x-common: &common\n  restart: always\n  environment: &env {A: common, B: common}\n\
        x-log: &log {driver: json-file, options: {max-size: 1m}}\n\
        services:\n  web:\n    <<: *common\n    logging: *log\n    image: own\n    extends: {file: base/base.yaml, service: base}\n    environment: {<<: *env, B: own}\n    ports: ['81:81']\n    command: [own]\n    volumes: ['./own:/conf']\n    healthcheck: {retries: 5}\n";
    let base = "services:\n  deep: {image: deep, cap_add: [A], environment: [Z=deep, A=deep], tmpfs: [/x]}\n  base:\n    extends: deep\n    image: base\n    env_file: base.env\n    ports: ['80:80', '81:81']\n    command: [a, b]\n    volumes: ['./data:/data', './conf:/conf']\n    cap_add: [B]\n    healthcheck: {test: x, retries: 3}\n";
    let files = [("compose.yaml", compose), ("base/base.yaml", base), ("base/base.env", "A=file\nF=file\n")];
    let service = service_of(&files, "web", None).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(service.container.image, "own");
    let found = container(&service);
    assert_eq!(found["env"], json!({"A": "common", "B": "own", "F": "file", "Z": "deep"}));
    assert_eq!(found["args"], json!(["own"]), "a command is replaced");
    assert_eq!(found["capAdd"], json!(["A", "B"]), "lists are joined");
    assert_eq!(found["healthcheck"], json!({"shell": "x", "retries": 5}));
    assert_eq!(found["logging"]["driver"], "json-file");
    let mounts: Vec<_> =
        service.container.mounts.iter().map(|m| (m.source.as_deref().unwrap_or(""), m.target.as_str())).collect();
    assert_eq!(
        mounts,
        [("/srv/stack/base/data", "/data"), ("/srv/stack/own", "/conf")],
        "paths are relative to the file they stand in, and a target is there once"
    );
    assert_eq!(service.container.ports.iter().map(|port| port.container_port).collect::<Vec<_>>(), [80, 81]);
}

#[rstest]
#[case(&[], "services: {web: {image: i}}", "stack")]
#[case(&[], "name: given\nservices: {web: {image: i}}", "given")]
#[case(&[(".env", "COMPOSE_PROJECT_NAME=env\nN=x")], "name: given\nservices: {web: {image: i}}", "env")]
#[case(&[(".env", "N=x")], "name: \"${N}y\"\nservices: {web: {image: i}}", "xy")]
fn a_project_is_called_as_compose_calls_it(#[case] more: &[(&str, &str)], #[case] text: &str, #[case] expected: &str) {
    let files: Vec<_> = more.iter().copied().chain([("compose.yaml", text)]).collect();
    let texts = texts(&files);
    assert_eq!(Project::read(Path::new(FILE), None, &texts).expect("is fine").name, expected);
    assert_eq!(Project::read(Path::new(FILE), Some("asked"), &texts).expect("is fine").name, "asked");
}

#[test]
fn env_files_are_read_as_compose_reads_them() {
    let around = Variables::from([("X".to_owned(), "x".to_owned())]);
    let text = "\u{feff}A=1\r\n  B = two words  \nC=\"q # $X \\$X\\n\" # c\nD='it\\'s $X'\nE=a#b\nF=\nG\nexport H=${A}\nI=\"two\nlines\"\nJ=last";
    let found = dotenv::parse(text, &around).expect("is fine");
    let pairs: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        pairs,
        [
            ("A", "1"),
            ("B", "two words"),
            ("C", "q # x $X\n"),
            ("D", "it's $X"),
            ("E", "a#b"),
            ("F", ""),
            ("H", "1"),
            ("I", "two\nlines"),
            ("J", "last"),
        ]
    );
    for (text, line) in [("A=1\nno value here\n", 2), ("A=\"x\n", 1), ("A=1\n\nB=$NOPE", 3), ("A=\"1\" x", 1)] {
        assert_eq!(dotenv::parse(text, &around).expect_err(text).line, line, "{text:?}");
    }
}

#[test]
fn amounts_and_durations() {
    for (text, expected) in
        [("64m", "64Mi"), ("1.5g", "1536Mi"), ("1024", "1Ki"), ("1kb", "1Ki"), ("7b", "7"), ("0", "0")]
    {
        assert_eq!(units::bytes(text).map(units::quantity).as_deref(), Some(expected), "{text}");
    }
    for text in ["", "m", "-1m", "1x", "1e400g"] {
        assert_eq!(units::bytes(text), None, "{text}");
    }
    for (text, expected) in [("90s", 90), ("1h1m1s", 3661), ("0", 0), ("2000ms", 2)] {
        assert_eq!(units::seconds(text), Ok(expected));
    }
    for text in ["", "5", "s", "1s2", "-1s", "99999999999999999h", "1.5s"] {
        units::seconds(text).expect_err(text);
    }
}

#[test]
fn paths_are_cleaned_by_their_text() {
    for (path, expected) in
        [("./a", "/x/y/a"), ("../a/./b", "/x/a/b"), ("/abs/../c", "/c"), ("../../../..", "/"), (".", "/x/y")]
    {
        assert_eq!(resolve(Path::new("/x/y"), path), Path::new(expected), "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_variables_or_words_panic(text in "[$a-c{}:?+\\- '\"\\\\#=\n]{0,40}") {
        let known = Variables::from([("a".to_owned(), "x".to_owned()), ("b".to_owned(), String::new())]);
        let (_, _, _) = (substitute(&text, &known).is_ok(), words::split(&text).is_ok(), dotenv::parse(&text, &known).is_ok());
        let (_, _) = (units::bytes(&text), units::seconds(&text).is_ok());
    }

    /// Whatever a field holds, it is read or complained about.
    #[test]
    fn no_value_of_a_field_makes_reading_panic(key in select_key(), value in any_value()) {
        let document = json!({"services": {"web": {"image": "i", key: value}}, "volumes": {"a": null}}).to_string();
        prop_assume!(yaml::parse(&document).is_ok());
        drop(service_of(&[("compose.yaml", &document)], "web", None));
    }
}

fn select_key() -> impl Strategy<Value = String> {
    let keys = "build command entrypoint environment env_file ports expose volumes healthcheck deploy gpus depends_on restart \
        stop_grace_period scale networks extends devices extra_hosts ulimits logging sysctls labels profiles tmpfs mem_limit \
        container_name dns ipc x-y";
    proptest::sample::select(keys.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

fn any_value() -> impl Strategy<Value = Value> {
    let words = "a a:b a:b:ro 80 80:80 80-81:90-91 1.2.3.4:80:80/udp resources reservations devices source target type bind test \
        CMD 1m x=y ${a:-b} ${a $a ./a service file condition count -1 99999999999999999999";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        proptest::sample::select(words.split_whitespace().collect::<Vec<_>>()).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let keys = proptest::sample::select(words.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((keys, inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
