//! The API on a listener, the controller, a registry and a droplet called `TGT`.

use std::{sync::Arc, time::Duration};

use gaia::{
    adapters::{
        calls::Calls,
        peers::{listing_file::ListingFile, targets::Targets},
        simulated::{
            containers::{Images, SimulatedContainers},
            gpus::SimulatedGpus,
            peers::SimulatedPeers,
            probes::SimulatedProbes,
        },
    },
    api::{self, droplet::Droplet},
    controllers::{
        Context,
        droplet::{self, Settings, directory::Directory, routing::Routing},
    },
    facades::droplets::{self as facade, Droplets},
    registry::{Kinds, Registry, ids::RandomIds},
    runtime::{
        clock::{Clock, SystemClock},
        events::Recorder,
        metrics::RuntimeMetrics,
        objects::Objects,
        registry_objects::RegistryObjects,
        supervisor::Supervisor,
    },
    server,
    store::{EmbeddedStore, MemoryEngine},
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{services::Service, support::eventually};

pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct World {
    pub url: String,
    pub registry: Service,
    pub target: Service,
    pub objects: RegistryObjects,
    pub routing: Arc<Routing>,
    pub data: Arc<tempfile::TempDir>,
    shutdown: CancellationToken,
    ended: Option<JoinHandle<()>>,
    client: reqwest::Client,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Waits short enough for tests.
pub fn settings() -> Settings {
    Settings {
        sync_interval: Duration::from_secs(3600),
        registry_timeout: Duration::from_secs(5),
        task_timeout: Duration::from_secs(20),
        first_wait: Duration::from_millis(5),
        probe_interval: Duration::from_millis(100),
        ..Settings::default()
    }
}

pub fn listed(name: &str, endpoint: &str) -> Value {
    json!({"id": 7, "name": name, "endpoint": endpoint, "metadata": {"version": "1.1.0"}})
}

impl World {
    pub async fn start() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let registry = Service::start().await;
        let target = Service::start().await;
        registry.lists(json!([listed("TGT", &target.url())]));
        let data = Arc::new(tempfile::tempdir().expect("a directory"));
        let world = Self::on(settings, registry, target, data).await;
        eventually("the registry was asked", DEADLINE, async || world.routing.directory.view().find("tgt").cloned())
            .await;
        world
    }

    pub async fn on(settings: Settings, registry: Service, target: Service, data: Arc<tempfile::TempDir>) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = EmbeddedStore::open(MemoryEngine::default(), Default::default()).expect("an empty store");
        let kinds = Kinds::from_crds(&api::crds()).expect("our kinds are in order");
        let kept = Registry::open(store, kinds, clock.clone(), Arc::new(RandomIds)).await.expect("a registry");
        let objects = RegistryObjects { registry: kept, field_manager: "test" };
        let engine = SimulatedContainers::new(clock.clone(), Images::any());
        let metrics = RuntimeMetrics::default();
        let (recorder, _inbox) = Recorder::new(clock.clone(), metrics.clone());
        let context = Context {
            objects: objects.clone(),
            containers: Arc::new(engine.clone()),
            probes: Arc::new(SimulatedProbes::new(engine.clone())),
            peers: Arc::new(SimulatedPeers::new(engine.clone())),
            gpus: Some(Arc::new(SimulatedGpus::of_24_gib(engine, 1))),
            recorder,
            clock: clock.clone(),
            metrics,
            node: "here".to_owned(),
            seed: 1,
        };
        let settings = Settings { registry_url: registry.url(), ..settings };
        let targets = Targets::new("127.0.0.1").expect("a client");
        let file = Some(ListingFile::new(data.path().join("cache")));
        let (calls, queued) = Calls::open(&data.path().join("calls.db"), 100).expect("a history");
        let directory = Directory::new(settings, targets.clone(), file, clock.clone());
        let routing = Arc::new(Routing::new(directory, targets, calls, clock, queued));
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new();
        droplet::spawn(&context, &routing, &mut supervisor);
        let running = supervisor.run(shutdown.clone().cancelled_owned());
        let ended = Some(tokio::spawn(async move { drop(running.await) }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let router = facade::router(Droplets { routing: routing.clone() });
        tokio::spawn(server::serve(listener, router, shutdown.clone()));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.timeout(DEADLINE).build().expect("a client");
        Self { url, registry, target, objects, routing, data, shutdown, ended, client }
    }

    /// Ends it in order, while those around it go on.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(ended) = self.ended.take() {
            ended.await.expect("nothing panics");
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(body)).await
    }

    /// A routed call.
    pub async fn route(&self, body: Value) -> Value {
        let (status, answer) = self.post("/orchestrator/tasks", &body).await;
        assert_eq!(status, 200, "{body}: {answer}");
        answer
    }

    /// `GET path` of `TGT`.
    pub async fn call(&self, path: &str) -> Value {
        self.route(json!({"droplet_name": "TGT", "path": path})).await
    }

    /// A droplet at an address, declared by somebody.
    pub async fn declare(&self, name: &str, spec: Value) {
        let object = json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Droplet",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let droplet: Droplet = serde_json::from_value(object).expect("a droplet");
        let spec = droplet.spec.clone();
        self.objects.create(droplet).await.expect("a valid droplet");
        let seen = async || {
            let known = self.routing.directory.view().find(name).cloned()?;
            (known.entry.endpoint == spec.endpoint).then_some(())
        };
        eventually("the droplet can be found", DEADLINE, seen).await;
    }
}

pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
