//! A whole host but for its engine, its cards and its services: a listener with both APIs, the registry, and every
//! controller, over simulated reality on real time.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use gaia::{
    adapters::{
        containers::ContainerState,
        probes::Probes,
        simulated::{
            containers::{Behaviour, Image, Images, SimulatedContainers},
            gpus::SimulatedGpus,
            probes::SimulatedProbes,
        },
    },
    api::{
        self,
        gpu::{Gpu, GpuDevice, GpuSpec},
        workload::Workload,
    },
    controllers::{self, Context},
    facades::gaia::{self as facade, Gaia, Hub},
    registry::{Kinds, ObjectName, Registry, ids::RandomIds},
    runtime::{
        clock::{Clock, SystemClock},
        event_writer::EventWriter,
        events::Recorder,
        metrics::RuntimeMetrics,
        objects::{Object, Objects},
        registry_objects::RegistryObjects,
        supervisor::{Stage, Supervisor},
    },
    server::{self, AlwaysReady, Auth, Guest, ServerMetrics, ServerState},
    store::{EmbeddedStore, MemoryEngine},
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::peers::Services;
use crate::support::eventually;

/// Longer than anything here takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub struct World {
    pub url: String,
    pub objects: RegistryObjects,
    pub engine: SimulatedContainers,
    pub services: Services,
    pub shutdown: CancellationToken,
    pub gaia: Gaia,
    client: reqwest::Client,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What a world is made of beyond what every one has.
#[derive(Default)]
pub struct Made {
    pub auth: Option<Auth>,
    /// In place of the simulated ones.
    pub probes: Option<Arc<dyn Probes>>,
    pub shared_dir: Option<std::path::PathBuf>,
}

impl World {
    /// One card that nobody owns, and nothing else.
    pub async fn bare() -> Self {
        let world = Self::empty(Auth::open()).await;
        let device = GpuDevice { index: Some(0), uuid: None };
        let spec = GpuSpec { device, lend: true, ..GpuSpec::default() };
        world.objects.create(Gpu::new("gpu0", spec)).await.expect("a card");
        world.gpu_is("the card is seen", |gpu| gpu["memory"]["total_mb"].is_u64()).await;
        world
    }

    /// GAIA's stack as `desired/gaia` has it, up and healthy: Prime owns the card and has it.
    pub async fn gaia() -> Self {
        Self::gaia_with(Made::default()).await
    }

    pub async fn gaia_with(made: Made) -> Self {
        let world = Self::made(made).await;
        world.declare_stack().await;
        let up = |status: &Value| {
            let running = |key: &str| status["live"][key]["state"] == "running";
            ["core", "web", "mcp", "study", "prime"].iter().all(|key| running(key))
        };
        world.containers_are("every live service runs", up).await;
        world.gpu_is("prime has its card", |gpu| gpu["owner"] == "gaia-core").await;
        world.settled().await;
        world.services.forget();
        world
    }

    pub async fn empty(auth: Auth) -> Self {
        Self::made(Made { auth: Some(auth), ..Made::default() }).await
    }

    pub async fn made(made: Made) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = EmbeddedStore::open(MemoryEngine::default(), Default::default()).expect("an empty store");
        let kinds = Kinds::from_crds(&api::crds()).expect("our kinds are in order");
        let registry = Registry::open(store, kinds, clock.clone(), Arc::new(RandomIds)).await.expect("a registry");
        let objects = RegistryObjects { registry: registry.clone(), field_manager: "test" };
        let shutdown = CancellationToken::new();
        // Study waits to be told before it uses the card.
        let waits = Behaviour { gpu_at_start: false, ..Behaviour::default() };
        let study = Image::present(waits);
        let images = ["localhost:5000/gaia-study:local", "localhost:5000/gaia-study-candidate:local"]
            .into_iter()
            .fold(Images::any(), |images, name| images.with(name, study.clone()));
        let engine = SimulatedContainers::new(clock.clone(), images);
        let services = Services::new(engine.clone());
        let probes = made.probes.unwrap_or_else(|| Arc::new(SimulatedProbes::new(engine.clone())));
        let gaia = Gaia {
            objects: objects.clone(),
            containers: Arc::new(engine.clone()),
            probes: probes.clone(),
            clock: clock.clone(),
            hub: Hub::new(clock.clone()),
            shutdown: shutdown.clone(),
            shared_dir: made.shared_dir,
        };
        let metrics = RuntimeMetrics::default();
        let (recorder, inbox) = Recorder::new(clock.clone(), metrics.clone());
        let context = Context {
            objects: objects.clone(),
            containers: Arc::new(engine.clone()),
            probes,
            peers: Arc::new(services.clone()),
            gpus: Some(Arc::new(SimulatedGpus::of_24_gib(engine.clone(), 1))),
            recorder,
            clock: clock.clone(),
            metrics: metrics.clone(),
            node: "here".to_owned(),
            seed: 1,
        };
        let mut supervisor = Supervisor::new();
        controllers::spawn_all(&context, &mut supervisor);
        let writer = EventWriter { objects: objects.clone(), inbox, instance: "here".to_owned(), metrics };
        supervisor.spawn(Stage::Telling, "events", |stop| async move {
            writer.run(stop).await;
            Ok::<(), Infallible>(())
        });
        let observed = gaia.clone();
        supervisor.spawn(Stage::Telling, "notifications", |stop| facade::observe(observed, stop));
        tokio::spawn(supervisor.run(shutdown.clone().cancelled_owned()));
        let mut exposition = Default::default();
        let state = ServerState {
            registry,
            shutdown: shutdown.clone(),
            auth: made.auth.unwrap_or_else(Auth::open),
            audit: gaia::server::Audit::default(),
            readiness: Arc::new(AlwaysReady),
            clock,
            metrics: ServerMetrics::register(&mut exposition),
            exposition: Arc::new(exposition),
        };
        let guest = Guest { routes: facade::router(gaia.clone()), directory: facade::directory(), ..Guest::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        tokio::spawn(server::serve(listener, server::with_guest(state, guest), shutdown.clone()));
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE);
        Self { url, objects, engine, services, shutdown, gaia, client: client.build().expect("a client") }
    }

    /// The files of `desired/gaia`, as objects.
    pub async fn declare_stack(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("desired/gaia");
        self.declare::<Gpu>(&root.join("gpu.yaml")).await;
        for service in ["mcp", "prime", "core", "study", "web"] {
            self.declare::<Workload>(&root.join(format!("stack/gaia-{service}.yaml"))).await;
        }
    }

    async fn declare<K: Object>(&self, file: &Path) {
        let text = std::fs::read_to_string(file).expect("it is in the repository");
        let mut object: Value = serde_saphyr::from_str(&text).expect("YAML");
        if object["kind"] == "Workload" {
            object["metadata"]["namespace"] = json!("default");
        }
        let object: K = serde_json::from_value(object).expect("an object of ours");
        self.objects.create(object).await.expect("a valid object");
    }

    /// Changes the card's spec.
    pub async fn edit_card(&self, spec: Value) {
        let name = ObjectName { namespace: None, name: "gpu0".to_owned() };
        self.objects.merge::<Gpu>(&name, json!({"spec": spec})).await.expect("a valid card");
    }

    /// As `kubectl patch workload` would.
    pub async fn edit_workload(&self, name: &str, spec: Value) {
        self.objects.merge::<Workload>(&object(name), json!({"spec": spec})).await.expect("a valid workload");
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// What a request without further ado is answered with.
    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    /// As curl's `-d` sends it: with a content type that says nothing of JSON.
    pub async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        let request = self.request(Method::POST, path).header("content-type", "application/x-www-form-urlencoded");
        answer(request.body(body.to_owned())).await
    }

    /// The answer to a POST that succeeds.
    pub async fn done(&self, path: &str, body: &str) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "POST {path} {body}: {answer}");
        answer
    }

    pub async fn owner(&self) -> String {
        let (_, gpu) = self.get("/gpu/status").await;
        gpu["owner"].as_str().expect("an owner").to_owned()
    }

    /// Waits until the answer to a GET is so, looking again whenever an object of `K` changes.
    async fn becomes<K: Object>(&self, path: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        use futures::StreamExt;
        let mut changes = self.objects.watch::<K>();
        let mut last = Value::Null;
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                let (_, answer) = self.get(path).await;
                if so(&answer) {
                    return answer;
                }
                last = answer;
                changes.next().await.expect("the store is open");
            }
        });
        match found.await {
            Ok(answer) => answer,
            Err(_) => panic!("not in time: {what}; last: {last}"),
        }
    }

    /// Waits until `GET /gpu/status` is so.
    pub async fn gpu_is(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        self.becomes::<Gpu>("/gpu/status", what, so).await
    }

    /// Waits until `GET /containers/status` is so.
    pub async fn containers_are(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        self.becomes::<Workload>("/containers/status", what, so).await
    }

    /// Waits until `GET /status`, which asks no service, is so.
    pub async fn status_is(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        self.becomes::<Workload>("/status", what, so).await
    }

    /// Waits until no handoff is under way.
    pub async fn settled(&self) {
        self.becomes::<api::handoff::Handoff>("/status", "no handoff", |status| status["active_handoff"].is_null())
            .await;
    }

    /// Waits until so many are told of notifications.
    pub async fn listening(&self, count: usize) {
        let count_is = async || (self.gaia.hub.listeners() == count).then_some(());
        eventually(&format!("{count} listen"), DEADLINE, count_is).await;
    }

    pub async fn workload(&self, name: &str) -> Arc<Workload> {
        self.objects.get(&object(name)).await.expect("a store").expect("the workload is there")
    }

    /// Whether the container runs, in the engine's own words.
    pub fn runs(&self, container: &str) -> bool {
        let seen = self.engine.observed();
        seen.iter().any(|found| found.name == container && found.state == ContainerState::Running)
    }
}

pub fn object(name: &str) -> ObjectName {
    ObjectName { namespace: Some("default".to_owned()), name: name.to_owned() }
}

pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("a body");
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
    (status, body)
}
