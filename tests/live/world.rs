//! A whole process but for its servers: store, registry, controllers and supervisor over a simulated engine. Time is
//! tokio's, paused: it moves when everybody waits.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use gaia::{
    adapters::{
        containers::{Container, ContainerState},
        gpus::Gpus,
        simulated::{
            containers::{Images, SimulatedContainers},
            gpus::SimulatedGpus,
            peers::SimulatedPeers,
            probes::SimulatedProbes,
        },
    },
    api::{
        self,
        container::ContainerSpec,
        gpu::{Gpu, GpuStatus},
        workload::*,
    },
    controllers::{self, Context},
    registry::{Kinds, ObjectName, Registry, ids::RandomIds},
    runtime::{
        clock::{Clock, SimulatedClock},
        event_writer::EventWriter,
        events::Recorder,
        metrics::RuntimeMetrics,
        objects::Objects,
        registry_objects::RegistryObjects,
        supervisor::{Stage, Supervisor, TaskFailure},
    },
    store::{EmbeddedStore, MemoryEngine},
};
use k8s_openapi::api::events::v1::Event;
use kube::{Resource, ResourceExt};
use tokio::{sync::oneshot, task::JoinHandle};

/// Of paused time. Longer than every backoff and every confirming list that a test waits for.
const DEADLINE: Duration = Duration::from_secs(600);

pub struct World {
    pub engine: SimulatedContainers,
    pub objects: RegistryObjects,
    pub metrics: RuntimeMetrics,
    pub clock: Arc<dyn Clock>,
    /// None: this host has no driver that could be asked.
    gpus: Option<Arc<dyn Gpus>>,
    process: Option<Process>,
}

struct Process {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), TaskFailure>>,
}

impl World {
    /// Controllers run over an empty store.
    pub async fn with(images: Images) -> Self {
        Self::over(images, true).await
    }

    /// The same on a host without a GPU driver.
    pub async fn without_driver(images: Images) -> Self {
        Self::over(images, false).await
    }

    async fn over(images: Images, driver: bool) -> Self {
        let start = "2026-01-01T00:00:00Z".parse().expect("a time");
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::starting_at(start));
        let store = EmbeddedStore::open(MemoryEngine::default(), Default::default()).expect("an empty store");
        let kinds = Kinds::from_crds(&api::crds()).expect("our kinds are in order");
        let registry = Registry::open(store, kinds, clock.clone(), Arc::new(RandomIds)).await.expect("a registry");
        let objects = RegistryObjects { registry, field_manager: "test" };
        let engine = SimulatedContainers::new(clock.clone(), images);
        let gpus = driver.then(|| Arc::new(SimulatedGpus::of_24_gib(engine.clone(), 1)) as Arc<dyn Gpus>);
        let mut world = Self { engine, objects, metrics: RuntimeMetrics::default(), clock, gpus, process: None };
        world.start();
        world
    }

    pub fn context(&self, recorder: Recorder) -> Context<RegistryObjects> {
        Context {
            objects: self.objects.clone(),
            containers: Arc::new(self.engine.clone()),
            probes: Arc::new(SimulatedProbes::new(self.engine.clone())),
            peers: Arc::new(SimulatedPeers::new(self.engine.clone())),
            gpus: self.gpus.clone(),
            recorder,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            node: "here".to_owned(),
            seed: 1,
        }
    }

    pub fn start(&mut self) {
        let (recorder, inbox) = Recorder::new(self.clock.clone(), self.metrics.clone());
        let context = self.context(recorder);
        let mut supervisor = Supervisor::new();
        controllers::spawn_all(&context, &mut supervisor);
        let writer = EventWriter {
            objects: self.objects.clone(),
            inbox,
            instance: "here".to_owned(),
            metrics: self.metrics.clone(),
        };
        supervisor.spawn(Stage::Telling, "events", |shutdown| async move {
            writer.run(shutdown).await;
            Ok::<(), std::convert::Infallible>(())
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(supervisor.run(async move {
            stopped.await.ok();
        }));
        self.process = Some(Process { stop, ended });
    }

    /// SIGTERM, and the wait for the end. Answers how long it took.
    pub async fn stop(&mut self) -> Duration {
        let process = self.process.take().expect("it runs");
        let begun = tokio::time::Instant::now();
        process.stop.send(()).expect("the supervisor waits for it");
        process.ended.await.expect("no panic").expect("no task failed");
        begun.elapsed()
    }

    pub async fn create(&self, workload: Workload) -> Arc<Workload> {
        self.objects.create(workload).await.expect("a valid workload")
    }

    /// Reads, changes and writes until nobody came between.
    pub async fn edit(&self, name: &str, change: impl Fn(&mut WorkloadSpec)) {
        loop {
            let mut workload = (*self.get(name).await.expect("it exists")).clone();
            change(&mut workload.spec);
            match self.objects.update(workload).await {
                Ok(_) => return,
                Err(error) if error.code() == 409 => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub async fn delete(&self, name: &str) {
        self.objects.delete::<Workload>(&object(name)).await.expect("it can be deleted");
    }

    pub async fn get(&self, name: &str) -> Option<Arc<Workload>> {
        self.objects.get(&object(name)).await.expect("the registry answers")
    }

    /// Waits until the workload (or its absence) is as asked.
    pub async fn until(&self, name: &str, what: &str, is: impl Fn(Option<&Workload>) -> bool) {
        let waiting = async {
            let mut changes = self.objects.watch::<Workload>();
            loop {
                if is(self.get(name).await.as_deref()) {
                    return;
                }
                changes.next().await.expect("a watch goes on for ever");
            }
        };
        if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
            panic!("{name} is not {what}: {:#?}\n{:#?}", self.get(name).await, self.engine.observed());
        }
    }

    /// Waits for `Ready` to say so, of the present generation.
    pub async fn until_ready_is(&self, name: &str, status: &str, reason: &str) {
        let is = |workload: Option<&Workload>| {
            workload.is_some_and(|w| {
                let ready = w.status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == "Ready");
                ready.is_some_and(|c| {
                    c.status == status && c.reason == reason && c.observed_generation == w.meta().generation
                })
            })
        };
        self.until(name, &format!("Ready={status} {reason}"), is).await;
    }

    pub async fn until_running(&self, name: &str) {
        self.until_ready_is(name, "True", "Running").await;
    }

    /// Waits until the card's status is as asked; the object as it then is.
    pub async fn until_gpu(&self, name: &str, what: &str, is: impl Fn(&GpuStatus) -> bool) -> Arc<Gpu> {
        let object = ObjectName { namespace: None, name: name.to_owned() };
        let get = || self.objects.get::<Gpu>(&object);
        let waiting = async {
            let mut changes = self.objects.watch::<Gpu>();
            loop {
                let gpu = get().await.expect("the registry answers").expect("it exists");
                if gpu.status.as_ref().is_some_and(&is) {
                    return gpu;
                }
                changes.next().await.expect("a watch goes on for ever");
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(gpu) => gpu,
            Err(_) => panic!("{name} is not {what}: {:#?}", get().await),
        }
    }

    /// Waits until an event of this reason about the object is stored.
    pub async fn until_told(&self, name: &str, reason: &str) {
        let waiting = async {
            let mut changes = self.objects.watch::<Event>();
            loop {
                let events: Vec<Arc<Event>> = self.objects.list(None).await.expect("the registry answers");
                let about = |e: &Arc<Event>| e.regarding.as_ref().is_some_and(|r| r.name.as_deref() == Some(name));
                if events.iter().filter(|e| about(e)).any(|e| e.reason.as_deref() == Some(reason)) {
                    return;
                }
                changes.next().await.expect("a watch goes on for ever");
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{reason} was never told of {name}"));
    }

    pub fn container(&self, name: &str) -> Option<Container> {
        self.engine.observed().into_iter().find(|c| c.name == name)
    }

    pub fn runs(&self, name: &str) -> bool {
        self.container(name).is_some_and(|c| c.state == ContainerState::Running)
    }

    /// What was done to the engine by its callers, in order.
    pub fn done(&self) -> Vec<String> {
        self.engine.effects().iter().map(|record| record.effect.to_string()).collect()
    }
}

pub fn object(name: &str) -> ObjectName {
    ObjectName { namespace: Some("default".to_owned()), name: name.to_owned() }
}

pub fn from_image(image: &str) -> ContainerSpec {
    ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() }
}

/// A workload whose live variant runs that container.
pub fn workload(name: &str, container: ContainerSpec) -> Workload {
    let live = LiveSpec { running: true, container };
    let spec = WorkloadSpec { live: Some(live), stop_grace_seconds: 10, ..WorkloadSpec::default() };
    let mut workload = Workload::new(name, spec);
    workload.meta_mut().namespace = Some("default".to_owned());
    debug_assert_eq!(workload.name_any(), name);
    workload
}
