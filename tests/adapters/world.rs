//! An engine to ask, and how to say on it what a container shall do.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bollard::{
    Docker,
    models::{ContainerUpdateBody, RestartPolicy, RestartPolicyNameEnum},
    query_parameters::RemoveContainerOptionsBuilder,
};
use futures::{FutureExt, future::BoxFuture};
use gaia::{
    adapters::{
        containers::{
            Container, ContainerId, ContainerRequest, ContainerState, Containers, ExecResult, docker::DockerEngine,
        },
        probes::{NetworkProbes, Probes},
        simulated::{
            containers::{Behaviour, Image, Images, SimulatedContainers},
            probes::SimulatedProbes,
        },
    },
    api::container::{ContainerSpec, Healthcheck},
    runtime::clock::SimulatedClock,
};

use crate::support::{dockerd, eventually, fixture};

pub const DEADLINE: Duration = Duration::from_secs(30);
/// Everything a case makes carries it, with the world's tag as its value.
pub const LABEL: &str = "gaia.test/world";
/// Where the fixture listens.
pub const PORT: u16 = 8080;

/// What the process in a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Serves,
    /// Is healthy so many seconds after it started.
    ReadyAfter(u64),
    /// Runs and serves nothing.
    Sleeps,
    /// Ends at once.
    Exits(i64),
    /// Ends with that code when told to stop.
    HeedsStop(i64),
    IgnoresStop,
    /// There is no such program.
    Broken,
}

pub struct World {
    pub engine: Arc<dyn Containers>,
    pub probes: Arc<dyn Probes>,
    spec: Box<dyn Fn(Process) -> ContainerSpec + Send + Sync>,
    /// `docker update --restart always`, by somebody else.
    restart_always: Box<dyn Fn(ContainerId) -> BoxFuture<'static, ()> + Send + Sync>,
    tag: String,
}

impl World {
    /// A name of this world alone.
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.tag)
    }

    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(LABEL.to_owned(), self.tag.clone())])
    }

    /// This world's containers.
    pub async fn list(&self) -> Vec<Container> {
        self.engine.list(Some((LABEL, Some(&self.tag)))).await.expect("the engine lists")
    }

    pub async fn network(&self, short: &str) -> String {
        let name = self.name(short);
        self.engine.ensure_network(&name).await.expect("a network");
        name
    }

    /// On the network `net`, which is made.
    pub async fn request(&self, short: &str, process: Process) -> ContainerRequest {
        let network = self.network("net").await;
        let networks = vec![(network, Vec::new())];
        ContainerRequest { name: self.name(short), spec: (self.spec)(process), labels: self.labels(), networks }
    }

    pub async fn made(&self, short: &str, process: Process) -> ContainerId {
        self.engine.create(&self.request(short, process).await).await.expect("it is made")
    }

    pub async fn running(&self, short: &str, process: Process) -> ContainerId {
        let id = self.made(short, process).await;
        self.engine.start(&id).await.expect("it starts");
        id
    }

    pub async fn restart_always(&self, id: &ContainerId) {
        (self.restart_always)(id.clone()).await;
    }

    pub async fn look(&self, id: &ContainerId) -> Container {
        self.engine.inspect(&id.0).await.expect("the engine answers").expect("the container is there")
    }

    pub async fn wait_for(&self, id: &ContainerId, what: &str, test: impl Fn(&Container) -> bool) -> Container {
        eventually(what, DEADLINE, async || Some(self.look(id).await).filter(|seen| test(seen))).await
    }

    pub async fn wait_until_exited(&self, id: &ContainerId) -> Container {
        self.wait_for(id, "the container ends", |seen| seen.state == ContainerState::Exited).await
    }
}

/// Looks once a second.
pub fn healthcheck() -> Healthcheck {
    Healthcheck {
        command: words("/peer healthcheck"),
        interval_seconds: Some(1),
        timeout_seconds: Some(2),
        retries: Some(2),
        ..Healthcheck::default()
    }
}

pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn tag() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("gt{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The simulated engine, with an image for each process.
pub fn simulated() -> World {
    let clock = SimulatedClock::starting_at("2026-01-01T00:00:00Z".parse().expect("a timestamp"));
    let engine = SimulatedContainers::new(Arc::new(clock), Images::default());
    let (images, human) = (engine.clone(), engine.clone());
    let spec = move |process| {
        let image = format!("{process:?}");
        images.set_images(|images| {
            images.known.insert(image.clone(), Image::present(behaviour(process)));
        });
        ContainerSpec { image, ..ContainerSpec::default() }
    };
    let probes = Arc::new(SimulatedProbes::new(engine.clone()));
    let restart_always = move |id: ContainerId| {
        assert!(human.let_restart_by_hand(&id.0));
        std::future::ready(()).boxed()
    };
    World {
        engine: Arc::new(engine),
        probes,
        spec: Box::new(spec),
        restart_always: Box::new(restart_always),
        tag: tag(),
    }
}

fn behaviour(process: Process) -> Behaviour {
    let answer = |exit_code, output: &str| ExecResult { exit_code, output: output.to_owned() };
    let usual = Behaviour {
        exec: BTreeMap::from([
            (words("/peer exit 7"), answer(7, "")),
            (words("/peer echo hello"), answer(0, "hello\n")),
        ]),
        ..Behaviour::default()
    };
    match process {
        Process::Serves => usual,
        Process::ReadyAfter(seconds) => Behaviour { ready_after: Some(Duration::from_secs(seconds)), ..usual },
        Process::Sleeps => Behaviour { ready_after: None, ..usual },
        Process::Exits(code) => Behaviour { exits: Some((Duration::ZERO, code)), ..usual },
        Process::HeedsStop(code) => Behaviour { stops: (Duration::ZERO, code), ..usual },
        Process::IgnoresStop => Behaviour { ignores_stop: true, ..usual },
        Process::Broken => Behaviour { start_fails: Some("no such executable".to_owned()), ..usual },
    }
}

/// A case on Docker. What it made is removed afterwards, however it ended.
pub async fn on_docker(case: impl AsyncFnOnce(&World)) {
    let host = dockerd::docker_host();
    let world = docker(host);
    let outcome = AssertUnwindSafe(case(&world)).catch_unwind().await;
    clean(host, &world.tag).await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

fn docker(host: &str) -> World {
    let image = fixture::image(host);
    let spec = move |process| {
        let spec = ContainerSpec { image: image.clone(), ..ContainerSpec::default() };
        let with_args = |args: String| ContainerSpec { args: Some(words(&args)), ..spec.clone() };
        match process {
            Process::Serves => with_args("serve".to_owned()),
            Process::ReadyAfter(seconds) => with_args(format!("serve --ready-after {seconds}")),
            Process::Sleeps => with_args("sleep".to_owned()),
            Process::Exits(code) => with_args(format!("exit {code}")),
            Process::HeedsStop(code) => with_args(format!("sleep --term-code {code}")),
            Process::IgnoresStop => with_args("sleep --ignore-term".to_owned()),
            Process::Broken => ContainerSpec { command: Some(words("/no-such-program")), ..spec.clone() },
        }
    };
    let engine = Arc::new(DockerEngine::at(host));
    let probes = Arc::new(NetworkProbes::new(engine.clone()).expect("an HTTP client"));
    let at = host.to_owned();
    let restart_always = move |id: ContainerId| {
        let at = at.clone();
        async move {
            let docker = Docker::connect_with_host(&at).expect("the engine is there");
            let policy = RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None };
            let body = ContainerUpdateBody { restart_policy: Some(policy), ..ContainerUpdateBody::default() };
            docker.update_container(&id.0, body).await.expect("it is updated");
        }
        .boxed()
    };
    World { engine, probes, spec: Box::new(spec), restart_always: Box::new(restart_always), tag: tag() }
}

async fn clean(host: &str, tag: &str) {
    let docker = Docker::connect_with_host(host).expect("the engine is still there");
    let docker = docker.negotiate_version().await.expect("the engine still answers");
    let engine = DockerEngine::at(host);
    for container in engine.list(Some((LABEL, Some(tag)))).await.expect("the engine lists") {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        docker.remove_container(&container.id.0, Some(options)).await.expect("a test container can be removed");
    }
    for network in docker.list_networks(None).await.expect("the engine lists networks") {
        let name = network.name.unwrap_or_default();
        if name.starts_with(&format!("{tag}-")) {
            docker.remove_network(&name).await.expect("a test network can be removed");
        }
    }
}
