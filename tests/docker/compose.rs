//! Compose's own containers under gaia: what `docker-compose` runs is taken over without a restart when it is as its file
//! says, named where it is not, and gives way to gaia's own when the file changes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{host::Host, program::gaia};

/// A service with every field that an engine without a card can show.
const STACK: &str = r#"
x-log: &log {driver: json-file, options: {max-size: 1m, max-file: "2"}}
services:
  web:
    image: ${IMAGE:?}
    command: serve --port 8080
    environment: {LEVEL: "${LEVEL}", PLAIN: a=b, DOLLAR: $$HOME}
    env_file: web.env
    ports: ["127.0.0.1::8080", "9/udp"]
    expose: ["7"]
    volumes:
      - ./data:/data:ro
      - shared:/shared
      - {type: tmpfs, target: /scratch}
    tmpfs: ["/run/x:size=1048576"]
    networks: {default: {aliases: [site]}}
    healthcheck: {test: [CMD, /peer, healthcheck], interval: 2s, timeout: 3s, retries: 4, start_period: 5s}
    restart: unless-stopped
    stop_grace_period: 2s
    stop_signal: SIGINT
    user: "1000:1000"
    working_dir: /data
    hostname: webhost
    extra_hosts: ["elsewhere:192.0.2.1"]
    ulimits: {nofile: {soft: 1000, hard: 2000}, nproc: 500}
    shm_size: 8m
    mem_limit: 256m
    pids_limit: 200
    init: true
    ipc: private
    cap_add: [NET_ADMIN]
    cap_drop: [MKNOD]
    security_opt: ["no-new-privileges:true"]
    group_add: ["44"]
    dns: [192.0.2.53]
    dns_search: [example.test]
    sysctls: {net.core.somaxconn: 256}
    read_only: true
    labels: {theirs: "yes"}
    logging: *log
volumes: {shared: }
"#;

/// A directory with a Compose file, and the project that Compose runs from it.
struct Stack<'a> {
    host: &'a Host,
    project: String,
    file: PathBuf,
}

impl<'a> Stack<'a> {
    fn new(host: &'a Host, text: &str, level: &str) -> Self {
        let file = PathBuf::from(host.scratch("compose.yaml", text));
        let directory = file.parent().expect("a directory");
        std::fs::create_dir_all(directory.join("data")).expect("a temporary directory");
        host.scratch("web.env", "FROM_FILE='as it is'\n");
        let stack = Self { host, project: host.name("stack"), file };
        stack.level(level);
        stack
    }

    /// `.env` beside the file, saved as an editor would.
    fn level(&self, level: &str) {
        let half = self.host.scratch("env.swp", &format!("IMAGE={}\nLEVEL={level}\n", self.host.image));
        std::fs::rename(half, self.file.with_file_name(".env")).expect("same directory");
    }

    fn up(&self) -> String {
        let mut compose = Command::new("docker-compose");
        compose.args(["-H", self.host.engine(), "-p", &self.project, "-f"]).arg(&self.file).args(["up", "-d"]);
        done(compose.output().expect("docker-compose runs; ./test installs it"), "docker-compose up");
        let label = format!("label=com.docker.compose.project={}", self.project);
        self.host.docker(&["ps", "-a", "--filter", &label, "--format", "{{.Names}}"]).trim().to_owned()
    }

    /// `gaia import compose` into the desired files; what it told beside them.
    fn import(&self) -> String {
        let mut import = gaia();
        import.env("DOCKER_HOST", self.host.engine()).args(["import", "compose"]).arg(&self.file);
        import.args(["--project", &self.project, "--output"]).arg(self.host.desired());
        let output = import.output().expect("gaia runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        done(output, "gaia import compose");
        told
    }

    fn down(&self) {
        let label = format!("label=com.docker.compose.project={}", self.project);
        let left = self.host.docker(&["ps", "-aq", "--filter", &label]);
        for id in left.split_whitespace() {
            self.host.docker(&["rm", "-f", id]);
        }
    }

    fn inspect(&self, name: &str) -> Value {
        serde_json::from_str::<Value>(&self.host.docker(&["inspect", name])).expect("JSON")[0].take()
    }
}

fn done(output: Output, what: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {told}");
}

/// What a container is, without who made it and when.
fn face(inspected: &Value) -> Value {
    let sorted = |value: &Value| {
        let mut items: Vec<String> = value.as_array().into_iter().flatten().map(Value::to_string).collect();
        items.sort();
        items
    };
    let config: BTreeMap<_, _> = [
        "Image",
        "Cmd",
        "Entrypoint",
        "WorkingDir",
        "User",
        "StopSignal",
        "Healthcheck",
        "Hostname",
        "Domainname",
        "Tty",
        "OpenStdin",
        "ExposedPorts",
    ]
    .iter()
    .map(|field| (*field, inspected["Config"][*field].clone()))
    .collect();
    let host: BTreeMap<_, _> = [
        "PortBindings",
        "CapAdd",
        "CapDrop",
        "SecurityOpt",
        "Tmpfs",
        "ShmSize",
        "Init",
        "ExtraHosts",
        "LogConfig",
        "ReadonlyRootfs",
        "Privileged",
        "Sysctls",
        "Dns",
        "DnsSearch",
        "DnsOptions",
        "Memory",
        "NanoCpus",
        "PidsLimit",
        "IpcMode",
        "PidMode",
        "GroupAdd",
        "Runtime",
        "DeviceRequests",
        "MemorySwap",
        "CpuShares",
        "CpusetCpus",
    ]
    .iter()
    // Docker tells none from empty, and 0 from absent, as they were asked for.
    .map(|field| (*field, picked_ports(&inspected["HostConfig"][*field])))
    .map(|(field, value)| {
        (field, if matches!(value.to_string().as_str(), "[]" | "{}" | "\"\"" | "0") { Value::Null } else { value })
    })
    .collect();
    let mount =
        |mount: &Value| json!([mount["Type"], mount["Name"], mount["Source"], mount["Destination"], mount["RW"]]);
    let mounts: Vec<Value> = inspected["Mounts"].as_array().into_iter().flatten().map(mount).collect();
    let env: Vec<_> =
        sorted(&inspected["Config"]["Env"]).into_iter().filter(|line| !line.starts_with("\"LEVEL=")).collect();
    json!({
        "config": config, "host": host, "env": env, "ulimits": sorted(&inspected["HostConfig"]["Ulimits"]),
        "mounts": sorted(&mounts.into()),
    })
}

/// A port for the engine to pick is "0" or nothing.
fn picked_ports(value: &Value) -> Value {
    serde_json::from_str(&value.to_string().replace(r#""HostPort":"0""#, r#""HostPort":"""#)).expect("JSON")
}

#[tokio::test]
async fn what_compose_runs_is_taken_over_and_follows_its_file() {
    let host = Host::new().await;
    let web = host.name("web");
    let text = STACK.replace("  web:\n", &format!("  {web}:\n"));
    let stack = Stack::new(&host, &text, "1");
    let name = stack.up();
    let (before, made_by_compose) = (host.running(&name).await, stack.inspect(&name));
    let told = stack.import();
    assert!(told.contains(&format!("{web}: {name} is as the file says: it is taken over without a restart")), "{told}");

    host.kubectl(&["wait", &format!("workload/{web}"), "--for=condition=Ready", "--timeout=60s"]);
    let taken = host
        .until(&name, "answers to the workload's name", |c| c.aliases.contains(&web) && c.restart_policy == "no")
        .await;
    assert_eq!((taken.id, taken.started_at), (before.id.clone(), before.started_at.clone()), "without a restart");
    assert_eq!(host.count_of(&web), 0, "and nothing was made beside it");
    let status =
        host.kubectl(&["get", "workload", &web, "-o", "jsonpath={.status.live.containerName} {.status.active}"]);
    assert_eq!(status, format!("{name} Live"));

    stack.level("2");
    let ours = host.running(&format!("{web}-live")).await;
    assert!(ours.env.contains(&"LEVEL=2".to_owned()), "{:?}", ours.env);
    assert!(host.inspect(&name).is_none(), "Compose's own has given way");
    assert!(ours.aliases.contains(&"site".to_owned()), "{:?}", ours.aliases);
    let made_by_gaia = stack.inspect(&ours.name);
    assert_eq!(face(&made_by_gaia), face(&made_by_compose), "gaia makes what Compose makes");

    stack.level("3");
    let third = host.replaced(&ours).await;
    assert!(third.env.contains(&"LEVEL=3".to_owned()), "{:?}", third.env);
    host.remove(&format!("{web}.yaml"));
    host.gone(&third.name).await;
}

#[tokio::test]
async fn what_differs_from_the_file_is_named_and_left_alone() {
    let host = Host::new().await;
    let web = host.name("web");
    let text = format!(
        "services:\n  {web}:\n    image: ${{IMAGE}}\n    environment: {{LEVEL: \"${{LEVEL}}\", TOKEN: \"secret-${{LEVEL}}\"}}\n    init: true\n"
    );
    let stack = Stack::new(&host, &text, "1");
    let name = stack.up();
    let before = host.running(&name).await;
    stack.level("2");
    let told = stack.import();
    for expected in [format!("{web}: {name} is not as the file says"), "env LEVEL has another value".to_owned()] {
        assert!(told.contains(&expected), "{told}");
    }
    assert!(!told.contains("secret-"), "{told}");
    let said = host.until_says(&["get", "workload", &web, "-o", "yaml"], |said| said.contains("ComposeDiffers")).await;
    let (_, status) = said.split_once("\nstatus:").expect("it has a status");
    assert!(status.contains("env LEVEL has another value") && !status.contains("secret-"), "{said}");
    assert_eq!(host.running(&name).await.id, before.id);
    assert_eq!(host.running(&name).await.started_at, before.started_at, "it is left alone");

    stack.level("1");
    host.kubectl(&["wait", &format!("workload/{web}"), "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(host.running(&name).await.started_at, before.started_at);
    host.remove(&format!("{web}.yaml"));
    host.until_says(&["get", "workloads"], |said| !said.contains(&web)).await;
    assert_eq!(host.running(&name).await.id, before.id, "what gaia did not make outlives its Workload");
    stack.down();
}

#[tokio::test]
async fn over_the_api_a_reference_alone_is_refused_with_its_field() {
    let host = Host::new().await;
    let name = host.name("web");
    let text = format!(
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n  live:\n    container:\n      compose: {{file: /c.yaml, service: web}}\n"
    );
    let manifest = host.scratch("reference.yaml", &text);
    let told = host.kubectl_fails(&["apply", "--server-side", "-f", &manifest]);
    assert!(told.contains("spec.live.container.compose") && told.contains("gaia import compose"), "{told}");
    assert!(Path::new(&manifest).exists());
}
