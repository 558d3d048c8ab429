//! How all of it is put together: the one place that knows every module. It only wires; each part builds itself from what
//! it is given.
//!
//! Start, in this order, so that what fails fails before anything is touched: listen, open the store (which locks the data
//! directory), open the registry, then the controllers, gitops and the server. The end is the supervisor's, in stages:
//! nothing new comes in, controllers finish their passes, events are written, the store closes.
//!
//! A `kill -9` at any point is survived: what was acknowledged is durable, the kernel gives the lock back, and the next
//! process begins by looking at what there is.

pub mod backup;
pub mod compose;
mod droplets;
mod expiry;
pub mod plan;
mod readiness;
mod reality;
mod tasks;

use std::{convert::Infallible, io, net::SocketAddr, panic::resume_unwind, sync::Arc, thread};

use prometheus_client::registry::Registry as Exposition;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use crate::runtime::supervisor::TaskFailure;
use crate::{
    adapters::{
        gpus::nvml::{self, NvmlGpus},
        outbox::Outbox,
        peers::targets::Targets,
    },
    api,
    config::{self, Config},
    controllers,
    facades::gaia::{self, Delivery, Gaia, Hub, Legacy, Patience, WebTarget},
    gitops::{self, Gitops, files::real::RealFiles, git::Repositories},
    registry::{ApiError, Kinds, Registry, ids::RandomIds},
    runtime::{
        clock::{Clock, SystemClock},
        event_writer::EventWriter,
        events::Recorder,
        metrics::RuntimeMetrics,
        registry_objects::RegistryObjects,
        supervisor::{Stage, Supervisor},
    },
    server::{self, Audit, Auth, Certificates, Guest, Secured, ServerMetrics, ServerState, TlsError},
    store::{EmbeddedStore, EngineError, Options, Store},
    telemetry::{self, tasks::TaskMetrics},
};
use readiness::Lifecycle;
use reality::World;

/// Under which name the process itself writes (events, the Source `desired`).
const FIELD_MANAGER: &str = "gaia";

/// Why a server did not start. Nothing was left behind but an empty data directory.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}{}", hint(source))]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot open the store in {}", directory.display())]
    Store { directory: std::path::PathBuf, source: EngineError },
    #[error("cannot {doing}")]
    Registry { doing: &'static str, source: Box<ApiError> },
    #[error("cannot append to the audit log {}", file.display())]
    Audit { file: std::path::PathBuf, source: io::Error },
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("cannot make a TLS client for probes")]
    Probes(#[source] reqwest::Error),
    #[error("cannot start the thread that talks to the GPU driver")]
    Gpus(#[source] io::Error),
    #[error("ORCHESTRATOR_WEB_URL: {0}")]
    Web(String),
    #[error("REDIS_URL: {0}")]
    Bus(String),
    #[error("cannot make an HTTP client for results of tasks")]
    Outbox(#[source] reqwest::Error),
    #[error("REGISTRY_URL and droplets: cannot make an HTTP client")]
    Droplets(#[source] io::Error),
    #[error("cannot keep the history of calls in {}", file.display())]
    Calls { file: std::path::PathBuf, source: io::Error },
    #[error("no directory of results can be called {}", directory.display())]
    Results { directory: std::path::PathBuf, source: io::Error },
}

/// What people most often need to know about a port they cannot have.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (is another gaia running? choose another address with --listen)",
        _ => "",
    }
}

/// A server at work. Dropping it ends it without order; [`Running::shutdown`] is the way.
pub struct Running {
    address: SocketAddr,
    scheme: &'static str,
    stop: CancellationToken,
    lifecycle: Lifecycle,
    ended: watch::Receiver<bool>,
    supervision: JoinHandle<Result<(), TaskFailure>>,
}

impl Running {
    /// Where it listens: the port that was found when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:6410`, or with `https` where there is a certificate.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Ready when the server has ended by itself, which is a failure that [`Running::shutdown`] then tells. Cancel-safe.
    pub async fn ended(&mut self) {
        // The sender goes with the task, whatever became of it.
        self.ended.wait_for(|ended| *ended).await.ok();
    }

    /// Ends everything in order, in less than ten seconds, open watches or not.
    pub async fn shutdown(self) -> Result<(), TaskFailure> {
        self.lifecycle.enter(readiness::Stage::Ending);
        self.stop.cancel();
        self.supervision.await.unwrap_or_else(|error| {
            let message = error.to_string();
            Err(TaskFailure::Panicked { name: "supervisor", message })
        })
    }
}

/// Starts a server. When this returns it answers requests and is ready.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(|source| StartError::Listen { address: config.listen, source })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen { address: config.listen, source })?;
    let tasks_listener = tasks::listen(&config.tasks).await?;
    let droplets_listener = droplets::listen(&config.droplets).await?;
    let certificates = config.tls.clone().map(|files| Certificates::open(files.certificate, files.key)).transpose()?;
    let scheme = if certificates.is_some() { "https" } else { "http" };
    if certificates.is_none() && !address.ip().is_loopback() {
        warn!(%address, "tokens and data travel in the clear; give a certificate with --tls-cert-file and --tls-key-file");
    }
    let listeners = Listeners { main: listener, certificates, tasks: tasks_listener, droplets: droplets_listener };
    let Foundation { store, kinds, clients } = Foundation::lay(&config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = open_registry(store.clone(), kinds, clock.clone()).await?;
    let world = world(&config, clock.clone())?;
    let metrics = RuntimeMetrics::default();
    let lifecycle = Lifecycle::default();
    let parts = Parts { config, registry, clients, clock, world, metrics };
    let supervisor = parts.spawn(listeners, store, &lifecycle).await?;
    let running = supervise(supervisor, (scheme, address), lifecycle);
    info!(%address, scheme, version = telemetry::VERSION, "gaia serves");
    Ok(running)
}

/// What nothing else is needed for.
struct Foundation {
    store: Arc<EmbeddedStore>,
    kinds: Kinds,
    clients: Clients,
}

/// Of other hosts' services. Each reads all the authorities that this host trusts.
struct Clients {
    outbox: Outbox,
    droplets: Targets,
}

impl Foundation {
    /// Side by side: each takes some ten milliseconds, and nobody is served before all are there.
    fn lay(config: &Config) -> Result<Self, StartError> {
        let (store, kinds, clients) = tokio::task::block_in_place(|| {
            thread::scope(|scope| {
                let kinds = scope.spawn(own_kinds);
                let clients = scope.spawn(|| Clients::make(&config.droplets));
                (open_store(config), joined(kinds), joined(clients))
            })
        });
        Ok(Self { store: store?, kinds: kinds?, clients: clients? })
    }
}

impl Clients {
    fn make(settings: &config::Droplets) -> Result<Self, StartError> {
        let outbox = Outbox::new().map_err(StartError::Outbox)?;
        Ok(Self { outbox, droplets: droplets::targets(settings)? })
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Every row is read.
fn open_store(config: &Config) -> Result<Arc<EmbeddedStore>, StartError> {
    EmbeddedStore::open_dir(&config.data_dir, Options::default())
        .map_err(|source| StartError::Store { directory: config.data_dir.clone(), source })
}

fn own_kinds() -> Result<Kinds, StartError> {
    Kinds::from_crds(&api::crds()).map_err(refused("read the definitions of our kinds"))
}

/// All kinds over a store.
async fn open_registry(
    store: Arc<dyn Store>,
    kinds: Kinds,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Registry>, StartError> {
    Registry::open(store, kinds, clock, Arc::new(RandomIds)).await.map_err(refused("write what must exist"))
}

fn refused(doing: &'static str) -> impl FnOnce(ApiError) -> StartError {
    move |source| StartError::Registry { doing, source: Box::new(source) }
}

fn world(config: &Config, clock: Arc<dyn Clock>) -> Result<World, StartError> {
    match config.reality {
        config::Reality::Docker => {
            let settings = nvml::Settings { library: config.nvml_library.clone(), ..nvml::Settings::default() };
            let gpus = NvmlGpus::new(settings).map_err(StartError::Gpus)?;
            World::docker(Some(Arc::new(gpus))).map_err(StartError::Probes)
        }
        config::Reality::Simulated => Ok(World::simulated(&reality::leisurely(clock))),
    }
}

/// Where clients come in; the old APIs may have ports of their own.
struct Listeners {
    main: TcpListener,
    /// Of the main one.
    certificates: Option<Certificates>,
    tasks: Option<TcpListener>,
    droplets: Option<TcpListener>,
}

/// What the tasks are made from.
struct Parts {
    config: Config,
    registry: Arc<Registry>,
    clients: Clients,
    clock: Arc<dyn Clock>,
    world: World,
    metrics: RuntimeMetrics,
}

impl Parts {
    /// Starts every task, what is told to before what tells.
    async fn spawn(
        self,
        listeners: Listeners,
        store: Arc<EmbeddedStore>,
        lifecycle: &Lifecycle,
    ) -> Result<Supervisor, StartError> {
        let mut supervisor = Supervisor::new();
        let mut exposition = telemetry::metrics();
        self.metrics.register(&mut exposition);
        let task_metrics = TaskMetrics::default();
        task_metrics.register(&mut exposition);
        let server_metrics = ServerMetrics::register(&mut exposition);
        let audit = self.audit(&mut exposition)?;
        let backups = server::backup(store.clone());
        spawn_store(&mut supervisor, store);
        let recorder = self.spawn_events(&mut supervisor);
        let context = self.context(recorder.clone());
        self.spawn_controllers(&mut supervisor, &context);
        self.spawn_gitops(&mut supervisor, recorder).await?;
        // After the Sources are known: discovery waits for their files. Cards of a simulated host are declared by whoever
        // plays there.
        if self.config.reality == config::Reality::Docker {
            controllers::gpu::discovery::spawn(&context, &mut supervisor);
        }
        let mut guest = self.spawn_facade(&mut supervisor)?;
        let mloc = self.spawn_tasks(&context, task_metrics, (listeners.tasks, &audit), &mut supervisor)?;
        let main =
            listeners.main.local_addr().map_err(|source| StartError::Listen { address: self.config.listen, source })?;
        let fpai =
            self.spawn_droplets(&context, (main, listeners.droplets), &audit, &mut exposition, &mut supervisor)?;
        guest.routes = guest.routes.merge(backups).merge(mloc);
        guest.direct = Some(fpai);
        let state = ServerState {
            registry: self.registry,
            shutdown: supervisor.token(Stage::Intake),
            auth: Auth::tokens(self.config.tokens.iter().map(|token| token.reveal().to_owned())),
            readiness: Arc::new(lifecycle.clone()),
            audit,
            clock: self.clock,
            metrics: server_metrics,
            exposition: Arc::new(exposition),
        };
        let router = server::with_guest(state, guest);
        match listeners.certificates.map(Arc::new) {
            None => supervisor.spawn(Stage::Intake, "server", |stop| server::serve(listeners.main, router, stop)),
            Some(certificates) => {
                let secured = Secured::over(listeners.main, certificates.clone())?;
                supervisor.spawn(Stage::Intake, "server", |stop| server::serve(secured, router, stop));
                supervisor.spawn(Stage::Intake, "certificates", async move |stop| {
                    certificates.follow(stop).await;
                    Ok::<(), Infallible>(())
                });
            }
        }
        lifecycle.enter(readiness::Stage::Serving);
        Ok(supervisor)
    }

    fn audit(&self, exposition: &mut Exposition) -> Result<Audit, StartError> {
        let Some(file) = &self.config.audit_log else { return Ok(Audit::default()) };
        let opened = Audit::to(file, self.clock.clone(), exposition);
        opened.map_err(|source| StartError::Audit { file: file.path.clone(), source })
    }

    fn objects(&self) -> RegistryObjects {
        RegistryObjects { registry: self.registry.clone(), field_manager: FIELD_MANAGER }
    }

    /// The GAIA orchestrator's API, beside ours on the same listener.
    fn spawn_facade(&self, supervisor: &mut Supervisor) -> Result<Guest, StartError> {
        let gaia = Gaia {
            objects: RegistryObjects { registry: self.registry.clone(), field_manager: gaia::FIELD_MANAGER },
            containers: self.world.containers.clone(),
            probes: self.world.probes.clone(),
            clock: self.clock.clone(),
            hub: Hub::new(self.clock.clone()),
            shared_dir: self.config.orchestrator.shared_dir.clone(),
            shutdown: supervisor.token(Stage::Intake),
        };
        let observed = gaia.clone();
        supervisor.spawn(Stage::Telling, "gaia-notifications", |stop| gaia::observe(observed, stop));
        let settings = &self.config.orchestrator;
        if let Some(target) = settings.web_url.as_deref().map(WebTarget::parse).transpose().map_err(StartError::Web)? {
            let delivery = Delivery { hub: gaia.hub.clone(), target, patience: Patience::default() };
            supervisor.spawn(Stage::Telling, "gaia-web", |stop| delivery.run(stop));
        }
        if let Some(file) = settings.state_file.clone() {
            let legacy = Legacy { gaia: gaia.clone(), file };
            supervisor.spawn(Stage::Intake, "gaia-state-file", |stop| legacy.run(stop));
        }
        Ok(Guest { routes: gaia::router(gaia), directory: gaia::directory(), ..Guest::default() })
    }

    /// The writer of events, and the task that removes old ones.
    fn spawn_events(&self, supervisor: &mut Supervisor) -> Recorder {
        let (recorder, inbox) = Recorder::new(self.clock.clone(), self.metrics.clone());
        let writer = EventWriter {
            objects: self.objects(),
            inbox,
            instance: self.config.node_name.clone(),
            metrics: self.metrics.clone(),
        };
        supervisor.spawn(Stage::Telling, "events", async |stop| {
            writer.run(stop).await;
            Ok::<(), Infallible>(())
        });
        let (registry, clock) = (self.registry.clone(), self.clock.clone());
        supervisor.spawn(Stage::Telling, "event-expiry", |stop| expiry::run(registry, clock, stop));
        recorder
    }

    /// The controllers of all kinds, and the collector of what lost its owner.
    fn spawn_controllers(&self, supervisor: &mut Supervisor, context: &controllers::Context<RegistryObjects>) {
        let registry = self.registry.clone();
        supervisor.spawn(Stage::Controllers, "garbage", async move |stop| {
            registry.run_collector(stop).await;
            Ok::<(), Infallible>(())
        });
        controllers::spawn_all(context, supervisor);
    }

    fn context(&self, recorder: Recorder) -> controllers::Context<RegistryObjects> {
        controllers::Context {
            objects: self.objects(),
            containers: self.world.containers.clone(),
            probes: self.world.probes.clone(),
            peers: self.world.peers.clone(),
            gpus: self.world.gpus.clone(),
            recorder,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            node: self.config.node_name.clone(),
            seed: fastrand::u64(..),
        }
    }

    /// Every Source there is, and the one that `--desired` asks for.
    async fn spawn_gitops(&self, supervisor: &mut Supervisor, recorder: Recorder) -> Result<(), StartError> {
        if let Some(directory) = &self.config.desired {
            let doing = "make the Source of the desired files";
            let made = gitops::ensure_desired(&self.registry, directory).await;
            made.map_err(|source| StartError::Registry { doing, source: Box::new(source) })?;
        }
        let (registry, clock) = (self.registry.clone(), self.clock.clone());
        let repositories = Repositories::new(self.config.data_dir.join("git"), clock.clone());
        gitops::spawn(supervisor, Gitops { registry, recorder, clock, files: Arc::new(RealFiles), repositories });
        Ok(())
    }
}

/// Closes the store when everything else has ended. A store that ends by itself ends the process.
fn spawn_store(supervisor: &mut Supervisor, store: Arc<EmbeddedStore>) {
    supervisor.spawn(Stage::Store, "store", async move |stop: CancellationToken| {
        // Both arms are cancel-safe, and neither is used again.
        tokio::select! {
            biased;
            why = store.broken() => return Err(why),
            () = stop.cancelled() => {}
        }
        tokio::task::spawn_blocking(move || store.close()).await.map_err(|error| error.to_string())
    });
}

fn supervise(supervisor: Supervisor, (scheme, address): (&'static str, SocketAddr), lifecycle: Lifecycle) -> Running {
    let stop = CancellationToken::new();
    let (tell, ended) = watch::channel(false);
    let stopped = stop.clone().cancelled_owned();
    let supervision = tokio::spawn(async move {
        let result = supervisor.run(stopped).await;
        tell.send_replace(true);
        result
    });
    Running { address, scheme, stop, lifecycle, ended, supervision }
}
