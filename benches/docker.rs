//! What gaia's way to a container costs beside Docker's own API, Compose and restart policies, on a real engine: the binary, files,
//! PATCHes, kills. Every figure stands beside its peer's, taken in turns with it.
//!
//! `cargo bench --bench docker`, as root or with `DOCKER_HOST`. `IDLE=600` looks at an idle host for so many seconds.

mod common;
#[path = "../tests/docker/host.rs"]
#[allow(dead_code, reason = "shared with the tests of containers")]
mod host;
#[path = "../tests/cli/program.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod program;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/docker/watcher.rs"]
#[allow(dead_code, reason = "shared with the tests of containers")]
mod watcher;

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{CONFIG_MAPS, Client, PATIENCE, config_map, middle};
use futures::{StreamExt, future::join_all, stream::BoxStream};
use gaia::{
    adapters::containers::{ContainerId, ContainerRequest, Containers, EngineEvent, docker::DockerEngine},
    api::{container::ContainerSpec, workload::Workload},
    controllers::workload::hints::{Hints, Known},
    runtime::{
        metrics::RuntimeMetrics,
        wakeups::{Wake, Wakeups},
    },
};
use host::Host;
use kube::runtime::{reflector::store::Writer, watcher::Event};
use support::{dockerd, fixture};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    time::timeout,
};
use watcher::Watcher;

/// Before it dies: what ends in the second in which it began is started again in the next one.
const RUNS_FOR: Duration = Duration::from_millis(1500);
const TURNS: usize = 10;
const STACK: usize = 6;
const MANY: usize = 50;
const OBJECTS: u64 = 1000;
const GRACE: Duration = Duration::from_secs(2);
/// What gaia waits after a file's change, for another one (`src/gitops/run.rs`).
const DEBOUNCE: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() {
    let (engine, image) = tokio::task::spawn_blocking(|| {
        let engine = dockerd::docker_host();
        (engine.to_owned(), fixture::image(engine))
    })
    .await
    .expect("an engine and an image");
    let world = World { raw: DockerEngine::at(&engine), host: Host::on(&engine, &image, Vec::new(), &[]) };
    world.patched().await;
    world.stack().await;
    world.healed().await;
    world.saved().await;
    drop(world);
    many(&engine, &image).await;
}

struct World {
    host: Host,
    raw: DockerEngine,
}

/// Hears what the engine does.
struct Ear(BoxStream<'static, EngineEvent>);

impl Ear {
    async fn at(engine: &DockerEngine) -> Self {
        let mut events = engine.events();
        assert_eq!(events.next().await, Some(EngineEvent::Connected));
        Self(events)
    }

    /// Until each of these containers was told to do so.
    async fn all(&mut self, wanted: &str, names: &[String]) {
        let mut missing: BTreeSet<&String> = names.iter().collect();
        let listen = async {
            while !missing.is_empty() {
                if let Some(EngineEvent::Container { name, action, .. }) = self.0.next().await
                    && action == wanted
                {
                    missing.remove(&name);
                }
            }
        };
        let heard = timeout(PATIENCE, listen).await;
        assert!(heard.is_ok(), "the engine does not tell in time: {wanted} of {missing:?}");
    }
}

fn workload(name: &str, image: &str, running: bool, level: usize) -> String {
    format!(
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: {name}\nspec:\n  stopGraceSeconds: 2\n  live:\n    \
         running: {running}\n    container:\n      image: {image}\n      env:\n        LEVEL: \"{level}\"\n---\n"
    )
}

fn live(name: &str) -> Vec<String> {
    vec![format!("{name}-live")]
}

impl World {
    /// As gaia makes it: the same network, an alias.
    async fn made(&self, name: &str) -> ContainerId {
        let spec = ContainerSpec { image: self.host.image.clone(), ..ContainerSpec::default() };
        let networks = vec![("gaia-default".to_owned(), vec![name.to_owned()])];
        let request = ContainerRequest { name: name.to_owned(), spec, labels: Default::default(), networks };
        self.raw.ensure_network("gaia-default").await.expect("a network");
        self.raw.create(&request).await.expect("it is made")
    }

    async fn removed(&self, id: &ContainerId) {
        self.raw.stop(id, GRACE).await.expect("it stops");
        self.raw.remove(id).await.expect("it is removed");
    }

    /// PATCH to the start of a container that is there; the same by the engine's API, and by Compose.
    async fn patched(&self) {
        let (name, alone) = (self.host.name("patched"), self.host.name("alone"));
        let mut ear = Ear::at(&self.raw).await;
        let mut client = Client::connect(address(&self.host)).await;
        let path = "/apis/gaia.dev/v1alpha1/namespaces/default/workloads".to_owned();
        let body = serde_json::json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "metadata": {"name": name},
            "spec": {"stopGraceSeconds": 2, "live": {"running": true, "container": {"image": self.host.image}}}});
        let (status, answer) = client.call("POST", &path, body.to_string().as_bytes()).await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&answer));
        ear.all("start", &live(&name)).await;
        let id = self.made(&alone).await;
        let compose = self.host.scratch("compose.yaml", &compose_file(&self.host.image));
        let project = self.host.name("compose");
        let up = || composed(self.host.engine(), &project, &compose, &["up", "-d"]);
        up();
        let (mut ours, mut raw, mut composed_up) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let patch = |running: bool| serde_json::json!({"spec": {"live": {"running": running}}}).to_string();
            let path = format!("{path}/{name}");
            client.call("PATCH", &path, patch(false).as_bytes()).await;
            ear.all("stop", &live(&name)).await;
            self.settled(&name, "the stop is seen").await;
            let begun = Instant::now();
            let (status, _) = client.call("PATCH", &path, patch(true).as_bytes()).await;
            assert_eq!(status, 200);
            ear.all("start", &live(&name)).await;
            ours.push(begun.elapsed());

            let begun = Instant::now();
            self.raw.start(&id).await.expect("it starts");
            ear.all("start", std::slice::from_ref(&alone)).await;
            raw.push(begun.elapsed());
            self.raw.stop(&id, GRACE).await.expect("it stops");

            composed(self.host.engine(), &project, &compose, &["stop", "-t", "2"]);
            let begun = Instant::now();
            up();
            composed_up.push(begun.elapsed());
        }
        composed(self.host.engine(), &project, &compose, &["down"]);
        client.call("DELETE", &format!("{path}/{name}"), b"").await;
        self.removed(&id).await;
        println!("PATCH to the start of a container that is there");
        tell("gaia", &mut ours, &[("Docker's API", &mut raw), ("docker-compose up -d", &mut composed_up)]);
    }

    async fn settled(&self, name: &str, what: &str) {
        let mut watcher = Watcher::connect(&self.host.server, "kind=Workload").await;
        let stopped = |f: &watcher::Frame| f.object["status"]["live"]["state"] == "Exited";
        watcher.until(what, |f| f.name == name && stopped(f)).await;
    }

    /// Services that are not there, by one file, and by parallel calls.
    async fn stack(&self) {
        let (mut ours, mut raw) = (Vec::new(), Vec::new());
        for turn in 0..TURNS {
            let names: Vec<String> = (0..STACK).map(|n| self.host.name(&format!("s{turn}-{n}"))).collect();
            let files: String = names.iter().map(|name| workload(name, &self.host.image, true, 0)).collect();
            let containers: Vec<String> = names.iter().flat_map(|name| live(name)).collect();
            let mut ear = Ear::at(&self.raw).await;
            let begun = Instant::now();
            self.host.write("stack.yaml", &files);
            ear.all("start", &containers).await;
            ours.push(begun.elapsed());
            self.host.write("stack.yaml", &workload(&self.host.name("rest"), &self.host.image, false, turn));
            ear.all("destroy", &containers).await;

            let begun = Instant::now();
            let started = names.iter().map(|name| async {
                let id = self.made(name).await;
                self.raw.start(&id).await.expect("it starts");
                id
            });
            let ids = join_all(started).await;
            ear.all("start", &names).await;
            raw.push(begun.elapsed());
            join_all(ids.iter().map(|id| self.removed(id))).await;
        }
        println!("{STACK} services up, by one file");
        tell("gaia", &mut ours, &[("parallel calls of Docker's API", &mut raw)]);
    }

    /// From the death of a container that has run for a while to its next start, once each: later deaths are waited after, here and there.
    async fn healed(&self) {
        let (mut ours, mut raw, mut by_policy) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..TURNS {
            let name = self.host.name(&format!("heal-{turn}"));
            let mut ear = Ear::at(&self.raw).await;
            self.host.write("heal.yaml", &workload(&name, &self.host.image, true, 0));
            ear.all("start", &live(&name)).await;
            ours.push(self.killed(&mut ear, &format!("{name}-live")).await);

            let id = self.made(&name).await;
            self.raw.start(&id).await.expect("it starts");
            ear.all("start", std::slice::from_ref(&name)).await;
            let begun = self.died(&mut ear, &name).await;
            self.raw.start(&id).await.expect("it starts");
            ear.all("start", std::slice::from_ref(&name)).await;
            raw.push(begun.elapsed());
            self.removed(&id).await;

            let policy = format!("{name}-policy");
            let image = self.host.image.as_str();
            self.host.docker(&[
                "run",
                "-d",
                "--name",
                &policy,
                "--restart",
                "always",
                "--network",
                "gaia-default",
                image,
            ]);
            ear.all("start", std::slice::from_ref(&policy)).await;
            by_policy.push(self.killed(&mut ear, &policy).await);
            self.host.docker(&["rm", "-f", &policy]);
        }
        println!("from a container's death to its next start");
        tell("gaia", &mut ours, &[("a loop over Docker's API", &mut raw), ("--restart always", &mut by_policy)]);
    }

    /// From its death to its next start, which somebody sees to.
    async fn killed(&self, ear: &mut Ear, container: &str) -> Duration {
        let begun = self.died(ear, container).await;
        ear.all("start", &[container.to_owned()]).await;
        begun.elapsed()
    }

    /// When its death is told, after it has run for a while. Not by Docker's own kill, after which its restart policy leaves it alone,
    /// and which answers only when the engine has tidied up.
    async fn died(&self, ear: &mut Ear, container: &str) -> Instant {
        tokio::time::sleep(RUNS_FOR).await;
        let pid = self.host.inspect(container).expect("it is there").pid.to_string();
        let killed = Command::new("kill").args(["-9", &pid]).status().expect("kill runs");
        assert!(killed.success());
        ear.all("die", &[container.to_owned()]).await;
        Instant::now()
    }

    async fn saved(&self) {
        let name = self.host.name("saved");
        let mut watcher = Watcher::connect(&self.host.server, "kind=Workload").await;
        let mut delays = Vec::new();
        for turn in 0..3 * TURNS {
            let begun = Instant::now();
            self.host.write("saved.yaml", &workload(&name, &self.host.image, false, turn));
            let level = turn.to_string();
            let written = |f: &watcher::Frame| f.object["spec"]["live"]["container"]["env"]["LEVEL"] == level;
            watcher.until("the object is there", |f| f.name == name && written(f)).await;
            delays.push(begun.elapsed().saturating_sub(DEBOUNCE));
        }
        println!("a file saved to its object, beyond the {DEBOUNCE:?} in which further changes are awaited");
        tell("gaia", &mut delays, &[]);
    }
}

/// Fifty containers: the start of gaia over them, and what it does when there is nothing to do.
async fn many(engine: &str, image: &str) {
    let proxy = Proxy::before(engine).await;
    let mut host = Host::on(&proxy.host, image, Vec::new(), &[]);
    let names: Vec<String> = (0..MANY).map(|n| host.name(&format!("m{n}"))).collect();
    let files: String = names.iter().map(|name| workload(name, image, true, 0)).collect();
    let mut ear = Ear::at(&DockerEngine::at(engine)).await;
    host.write("many.yaml", &files);
    ear.all("start", &names.iter().flat_map(|name| live(name)).collect::<Vec<_>>()).await;
    let mut client = Client::connect(address(&host)).await;
    for number in 0..OBJECTS {
        let body = config_map(&format!("c{number}"), number).to_string();
        let (status, _) = client.call("POST", CONFIG_MAPS, body.as_bytes()).await;
        assert_eq!(status, 201);
    }
    let mut starts = Vec::new();
    for _ in 0..TURNS {
        host.terminate();
        let begun = Instant::now();
        host.restart();
        let (status, _) = Client::connect(address(&host)).await.call("GET", "/readyz", b"").await;
        assert_eq!(status, 200);
        starts.push(begun.elapsed());
    }
    println!("start over {MANY} containers and {OBJECTS} objects, until /readyz");
    tell("gaia", &mut starts, &[]);

    confirmed(engine, &names, image).await;

    let seconds = std::env::var("IDLE").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    // The passes of the start, and the deaths that they looked for, are over by then.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let pid = host.server.program.id();
    let (cpu, written, calls) = (cpu(pid), written(pid), proxy.calls.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let share = (self::cpu(pid) - cpu).as_secs_f64() / seconds as f64 * 100.0;
    let calls = (proxy.calls.load(Ordering::Relaxed) - calls) as f64 * 60.0 / seconds as f64;
    println!("idle for {seconds} s over {MANY} containers");
    println!(
        "  {share:.2} % of a core, {calls:.1} calls of Docker a minute, {} bytes written",
        self::written(pid) - written
    );
}

/// All of a host where nothing has changed: what `engine-hints` does each time, beside the one list that it makes.
async fn confirmed(engine: &str, names: &[String], image: &str) {
    let mut writer = Writer::new(());
    for name in names {
        let spec = serde_json::json!({"live": {"running": true, "container": {"image": image}}});
        let mut workload = Workload::new(name, serde_json::from_value(spec).expect("a spec"));
        workload.metadata.namespace = Some("default".to_owned());
        writer.apply_watcher_event(&Event::Apply(workload));
    }
    let calls = Proxy::before(engine).await;
    let raw = DockerEngine::at(&calls.host);
    let (containers, store) = (Arc::new(raw.clone()), writer.as_reader());
    let hints = Hints { containers, store, wakeups: Wakeups::default(), metrics: RuntimeMetrics::default() };
    let (mut known, mut events) = (Known::default(), futures::stream::pending().boxed());
    hints.confirm(&mut events, &mut known).await;
    assert_eq!(hints.wakeups.take(), Some(Wake::Everything), "the first list wakes all");
    let (mut ours, mut listed) = (Vec::new(), Vec::new());
    for _ in 0..3 * TURNS {
        let asked = calls.calls.load(Ordering::Relaxed);
        let begun = Instant::now();
        hints.confirm(&mut events, &mut known).await;
        ours.push(begun.elapsed());
        assert_eq!(hints.wakeups.take(), None, "nothing has changed");
        assert_eq!(calls.calls.load(Ordering::Relaxed) - asked, 1, "one list, and no look");
        let begun = Instant::now();
        raw.summaries(None).await.expect("a list");
        listed.push(begun.elapsed());
    }
    println!("{MANY} containers in which nothing has changed, looked over");
    tell("gaia", &mut ours, &[("one list of Docker's API", &mut listed)]);
}

/// Passes an engine's socket on, and counts what it is asked.
struct Proxy {
    host: String,
    calls: Arc<AtomicUsize>,
}

impl Proxy {
    async fn before(engine: &str) -> Self {
        let socket = engine.strip_prefix("unix://").expect("an engine on a socket").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let host = format!("tcp://{}", listener.local_addr().expect("it has an address"));
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (socket, counted) = (socket.clone(), counted.clone());
                tokio::spawn(async move {
                    let Ok(engine) = UnixStream::connect(&socket).await else { return };
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_engine, mut to_engine) = engine.into_split();
                    let asked = async {
                        let mut chunk = vec![0; 64 * 1024];
                        while let Ok(read @ 1..) = from_client.read(&mut chunk).await {
                            let begins = ["GET ", "POST ", "DELETE ", "PUT ", "HEAD "];
                            if begins.iter().any(|verb| chunk[..read].starts_with(verb.as_bytes())) {
                                counted.fetch_add(1, Ordering::Relaxed);
                            }
                            if to_engine.write_all(&chunk[..read]).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        () = asked => {}
                        _ = tokio::io::copy(&mut from_engine, &mut to_client) => {}
                    }
                });
            }
        });
        Self { host, calls }
    }
}

fn compose_file(image: &str) -> String {
    format!("version: \"3.8\"\nservices:\n  one:\n    image: {image}\n")
}

fn composed(engine: &str, project: &str, file: &str, args: &[&str]) {
    let mut command = Command::new("docker-compose");
    command.args(["-H", engine, "-p", project, "-f", file]).args(args);
    let output = command.output().expect("docker-compose runs; ./test installs it");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn address(host: &Host) -> std::net::SocketAddr {
    host.server.url.trim_start_matches("http://").parse().expect("an address")
}

fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 1..].split_whitespace().collect();
    let ticks: u64 = [11, 12].map(|at: usize| fields[at].parse::<u64>().expect("a number")).iter().sum();
    Duration::from_millis(ticks * 10)
}

fn written(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("it runs");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).expect("a number")
}

fn median(all: &mut [Duration]) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Ours, and the ratio to each peer: the median of the turns' ratios.
fn tell(what: &str, ours: &mut [Duration], peers: &[(&str, &mut Vec<Duration>)]) {
    let ratios: Vec<f64> = peers
        .iter()
        .map(|(_, peer)| middle(ours.iter().zip(peer.iter()).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect()))
        .collect();
    let ms = |at: Duration| at.as_secs_f64() * 1000.0;
    println!("  {what:<32} {:>8.1} ms median, {:>8.1} ms at most", ms(median(ours)), ms(ours[ours.len() - 1]));
    for ((peer, taken), ratio) in peers.iter().zip(ratios) {
        println!("  {peer:<32} {:>8.1} ms median; gaia / it: {ratio:.2}", ms(median(&mut taken.to_vec())));
    }
}
