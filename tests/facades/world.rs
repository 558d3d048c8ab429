//! A listener with both APIs, an empty store, one card, and the stand-in for the controllers.

use std::{sync::Arc, time::Duration};

use gaia::{
    adapters::simulated::{
        containers::{Images, SimulatedContainers},
        probes::SimulatedProbes,
    },
    api::{
        self,
        gpu::{Gpu, GpuDevice, GpuSpec, Holder},
        workload::{CandidateSpec, LiveSpec, Workload, WorkloadGpu, WorkloadSpec},
    },
    facades::gaia::{self as facade, Gaia, Hub},
    registry::{Kinds, ObjectName, Registry, ids::RandomIds},
    runtime::{
        clock::{Clock, SystemClock},
        objects::Objects,
        registry_objects::RegistryObjects,
    },
    server::{self, AlwaysReady, Auth, Guest, ServerMetrics, ServerState},
    store::{EmbeddedStore, MemoryEngine},
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::judge::{Judge, Script};

/// Longer than anything here takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct World {
    pub url: String,
    pub objects: RegistryObjects,
    pub script: Script,
    pub shutdown: CancellationToken,
    pub gaia: Gaia,
    client: reqwest::Client,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl World {
    /// One card that nobody owns, and nothing else.
    pub async fn bare() -> Self {
        let world = Self::empty(Auth::open()).await;
        world.card(None).await;
        world
    }

    /// GAIA's stack: Prime owns the card.
    pub async fn gaia() -> Self {
        let world = Self::empty(Auth::open()).await;
        for name in ["gaia-prime", "gaia-core", "gaia-web", "gaia-mcp", "gaia-study"] {
            world.objects.create(workload(name)).await.expect("a workload");
        }
        world.card(Some(Holder { name: "gaia-prime".into(), namespace: "default".into(), ..Holder::default() })).await;
        world
    }

    pub async fn empty(auth: Auth) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = EmbeddedStore::open(MemoryEngine::default(), Default::default()).expect("an empty store");
        let kinds = Kinds::from_crds(&api::crds()).expect("our kinds are in order");
        let registry = Registry::open(store, kinds, clock.clone(), Arc::new(RandomIds)).await.expect("a registry");
        let objects = RegistryObjects { registry: registry.clone(), field_manager: "test" };
        let shutdown = CancellationToken::new();
        let engine = SimulatedContainers::new(clock.clone(), Images::default());
        let gaia = Gaia {
            objects: objects.clone(),
            containers: Arc::new(engine.clone()),
            probes: Arc::new(SimulatedProbes::new(engine)),
            clock: clock.clone(),
            hub: Hub::new(clock.clone()),
            shutdown: shutdown.clone(),
        };
        let mut exposition = Default::default();
        let metrics = ServerMetrics::register(&mut exposition);
        let state = ServerState {
            registry,
            shutdown: shutdown.clone(),
            auth,
            readiness: Arc::new(AlwaysReady),
            clock,
            metrics,
            exposition: Arc::new(exposition),
        };
        tokio::spawn(facade::observe(gaia.clone(), shutdown.clone()));
        let guest = Guest { routes: facade::router(gaia.clone()), directory: facade::directory() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        tokio::spawn(server::serve(listener, server::with_guest(state, guest), shutdown.clone()));
        let script = Script::default();
        tokio::spawn(Judge { objects: objects.clone(), script: script.clone() }.run(shutdown.clone()));
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE);
        Self { url, objects, script, shutdown, gaia, client: client.build().expect("a client") }
    }

    async fn card(&self, owner: Option<Holder>) {
        let device = GpuDevice { index: Some(0), uuid: None };
        let spec = GpuSpec { device, owner, lend: true, ..GpuSpec::default() };
        self.objects.create(Gpu::new("gpu0", spec)).await.expect("a card");
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

    /// Waits until `GET /gpu/status` is so.
    pub async fn gpu_is(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        use futures::StreamExt;
        let mut changes = self.objects.watch::<Gpu>();
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                let (_, gpu) = self.get("/gpu/status").await;
                if so(&gpu) {
                    return gpu;
                }
                changes.next().await.expect("the store is open");
            }
        });
        found.await.unwrap_or_else(|_| panic!("not in time: {what}"))
    }

    pub async fn workload(&self, name: &str) -> Arc<Workload> {
        let name = ObjectName { namespace: Some("default".to_owned()), name: name.to_owned() };
        self.objects.get(&name).await.expect("a store").expect("the workload is there")
    }
}

pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("a body");
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
    (status, body)
}

fn workload(name: &str) -> Workload {
    let container = || api::container::ContainerSpec { image: "gaia:local".to_owned(), ..Default::default() };
    let members = if matches!(name, "gaia-prime" | "gaia-study") { vec!["gpu0".to_owned()] } else { Vec::new() };
    let spec = WorkloadSpec {
        live: Some(LiveSpec { running: true, container: container() }),
        candidate: Some(CandidateSpec { running: false, container: container() }),
        stop_grace_seconds: 10,
        gpu: (!members.is_empty()).then(|| WorkloadGpu { members, ..WorkloadGpu::default() }),
        ..WorkloadSpec::default()
    };
    let mut workload = Workload::new(name, spec);
    workload.metadata.namespace = Some("default".to_owned());
    workload.metadata.labels = Some([("app.kubernetes.io/part-of".to_owned(), "gaia".to_owned())].into());
    workload
}
