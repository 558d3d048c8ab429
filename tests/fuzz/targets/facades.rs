//! The old APIs, byte by byte: a case is what a client sends on one connection. They are answered by the facades over the real
//! controllers and simulated reality, on paused time.
//!
//! Beside what holds everywhere: an answer comes in time, unless the call is one that waits; it is no 5xx that their contracts do
//! not have; no task of the process ends; nobody is listened to who is gone; and no file is written outside the results.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::Router;
use gaia::{
    adapters::{
        bus::{SharedBus, embedded::EmbeddedBus},
        outbox::Outbox,
        results::ResultFiles,
        simulated::{
            containers::{Images, SimulatedContainers},
            gpus::SimulatedGpus,
            peers::SimulatedPeers,
            probes::SimulatedProbes,
        },
    },
    controllers::{self, Context},
    facades::{
        gaia::{self as gaia_facade, Gaia, Hub},
        tasks::{self as tasks_facade, Mloc, Taking},
    },
    mloc::signed::Signer,
    registry::{ObjectName, Registry, SeededIds, WriteOptions},
    runtime::{
        clock::{Clock, SimulatedClock},
        events::Recorder,
        metrics::RuntimeMetrics,
        registry_objects::RegistryObjects,
        supervisor::{Stage, Supervisor, TaskFailure},
    },
    server::{self, AlwaysReady, Auth, Guest, ServerMetrics, ServerState},
    store::{EmbeddedStore, MemoryEngine, Options},
    telemetry::tasks::TaskMetrics,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Runtime,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::world::{self, CASES_PER_WORLD};

/// Of paused time. The longest that a call of GAIA's waits without being asked to.
const PATIENCE: Duration = Duration::from_secs(100);
/// A client of a call that waits by its nature leaves after so long.
const LEAVES_AFTER: Duration = Duration::from_secs(15);
/// After the last bytes: more is not to be expected.
const QUIET: Duration = Duration::from_millis(500);
/// Sockets that were upgraded are kept for some cases: what workers are told, they are told here.
const MOST_HELD: usize = 4;
/// Stands in a case for an id that the world has given out last, which no case can know; as long as one.
pub const LAST_ID: &str = "@@@@@@@@-@@@@-@@@@-@@@@-@@@@@@@@@@@@";
/// What the calls of the tasks ask for.
pub const TOKEN: &str = "dev-token";

/// 500s that GAIA's own orchestrator answers with, and its clients know: what was to be done could not be.
const CONTRACT: [&str; 7] = [
    "Compose command failed",
    "Failed to restart",
    "Failed to release GPU for sleep",
    "Failed to reclaim GPU on wake",
    "Handoff already in progress",
    "Cannot handoff",
    "Workload gaia-",
];

thread_local! {
    static HALL: RefCell<Option<Hall>> = const { RefCell::new(None) };
    /// Panics of tasks that nobody waits for, as those of upgraded connections. All of a world runs on one thread.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// The API of GAIA's orchestrator, on the main listener.
pub fn gaia_facade(data: &[u8]) {
    with(|hall| hall.connection(Port::Main, data));
}

/// MLOC's, on a port of its own.
pub fn tasks_facade(data: &[u8]) {
    with(|hall| hall.connection(Port::Tasks, data));
}

fn with(act: impl FnOnce(&mut Hall)) {
    let mut hall = HALL.take().unwrap_or_else(Hall::new);
    act(&mut hall);
    hall.cases += 1;
    if hall.cases < CASES_PER_WORLD {
        HALL.set(Some(hall));
    } else {
        hall.look_over();
    }
}

/// Looks the present hall over and forgets it.
pub fn renew() {
    if let Some(mut hall) = HALL.take() {
        hall.look_over();
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Port {
    Main,
    Tasks,
}

struct Hall {
    main: mpsc::Sender<DuplexStream>,
    tasks: mpsc::Sender<DuplexStream>,
    registry: Arc<Registry>,
    hub: Hub,
    supervision: JoinHandle<Result<(), TaskFailure>>,
    shutdown: CancellationToken,
    held: VecDeque<DuplexStream>,
    last_id: String,
    /// Nothing but `results` is to be in it.
    directory: TempDir,
    cases: u64,
    /// Dropped last: everything above may be on it.
    runtime: Runtime,
}

/// Connections that are made in this process.
struct Door(mpsc::Receiver<DuplexStream>);

impl axum::serve::Listener for Door {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(connection) => (connection, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

fn open(router: Router) -> mpsc::Sender<DuplexStream> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move { axum::serve(Door(receiver), router).await });
    sender
}

impl Hall {
    fn new() -> Self {
        count_panics();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().expect("a runtime can be built");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let results = ResultFiles::new(&directory.path().join("results")).expect("a path");
        let (registry, main, tasks, hub, supervision, shutdown) = runtime.block_on(async {
            let clock: Arc<dyn Clock> =
                Arc::new(SimulatedClock::starting_at("2026-11-30T00:00:00Z".parse().expect("a time")));
            let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("it is empty");
            let registry = Registry::open(store, world::kinds(), clock.clone(), Arc::new(SeededIds::new(5))).await;
            let registry = registry.expect("an empty registry opens");
            furnish(&registry).await;
            let shutdown = CancellationToken::new();
            let engine = SimulatedContainers::new(clock.clone(), Images::any());
            let context = context(&registry, &engine, &clock);
            let mut supervisor = Supervisor::new();
            controllers::spawn_all(&context, &mut supervisor);
            let mloc = mloc(&context, results, &shutdown, &mut supervisor);
            let gaia = Gaia {
                objects: RegistryObjects { registry: registry.clone(), field_manager: gaia_facade::FIELD_MANAGER },
                containers: Arc::new(engine),
                probes: context.probes.clone(),
                clock: clock.clone(),
                hub: Hub::new(clock.clone()),
                shared_dir: None,
                shutdown: shutdown.clone(),
            };
            let observed = gaia.clone();
            supervisor.spawn(Stage::Telling, "notifications", |stop| gaia_facade::observe(observed, stop));
            let mut exposition = Default::default();
            let state = ServerState {
                registry: registry.clone(),
                shutdown: shutdown.clone(),
                auth: Auth::open(),
                audit: gaia::server::Audit::default(),
                readiness: Arc::new(AlwaysReady),
                clock,
                metrics: ServerMetrics::register(&mut exposition),
                exposition: Arc::new(exposition),
            };
            let routes =
                gaia_facade::router(gaia.clone()).merge(tasks_facade::guest(Mloc { token: None, ..mloc.clone() }));
            let guest = Guest { routes, directory: gaia_facade::directory(), ..Guest::default() };
            let main = open(Router::new().fallback_service(server::with_guest(state, guest)));
            let tasks = open(tasks_facade::router(mloc));
            let supervision = tokio::spawn(supervisor.run(shutdown.clone().cancelled_owned()));
            (registry, main, tasks, gaia.hub, supervision, shutdown)
        });
        let last_id = LAST_ID.to_owned();
        let (held, cases) = (VecDeque::new(), 0);
        Self { main, tasks, registry, hub, supervision, shutdown, held, last_id, directory, cases, runtime }
    }

    /// What a client sends, and how it is answered.
    fn connection(&mut self, port: Port, data: &[u8]) {
        let sent = replaced(data, LAST_ID.as_bytes(), self.last_id.as_bytes());
        let panics = PANICS.get();
        let waits = waits(&sent);
        let patience = if waits { LEAVES_AFTER } else { PATIENCE };
        let door = if port == Port::Main { self.main.clone() } else { self.tasks.clone() };
        let told = sent.clone();
        let (answer, goes_on) = self.runtime.block_on(async move {
            let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
            door.send(theirs).await.expect("the server accepts");
            let (mut reading, mut writing) = tokio::io::split(&mut ours);
            let mut answer = Vec::new();
            let read = async {
                let mut buffer = vec![0; 16 * 1024];
                let mut limit = patience;
                // The end, or nothing more: either way it is judged by what has come.
                while let Ok(Ok(count @ 1..)) = timeout(limit, reading.read(&mut buffer)).await {
                    answer.extend_from_slice(&buffer[..count]);
                    limit = QUIET;
                }
            };
            let write = async {
                // Who is refused early may not be listened to to the end.
                if timeout(patience, writing.write_all(&told)).await.is_ok_and(|written| written.is_ok()) {
                    writing.flush().await.ok();
                }
            };
            tokio::join!(write, read);
            let goes_on = answer.starts_with(b"HTTP/1.1 101").then_some(ours);
            (answer, goes_on)
        });
        let what = || format!("{} -> {}", shown(&sent), shown(&answer));
        assert_eq!(PANICS.get(), panics, "a task panicked: {}", what());
        assert!(!self.supervision.is_finished(), "the process ended: {}", what());
        assert!(!answer.is_empty() || waits || !is_whole(&sent), "no answer in time: {}", what());
        self.judge(&answer, &what);
        if let Some(socket) = goes_on {
            self.held.push_back(socket);
            if self.held.len() > MOST_HELD {
                self.held.pop_front();
            }
        }
    }

    fn judge(&mut self, answer: &[u8], what: &dyn Fn() -> String) {
        let Some(head) = answer.strip_prefix(b"HTTP/1.1 ") else { return };
        let code: u16 = head
            .get(..3)
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| code.parse().ok())
            .expect("a status");
        let text = String::from_utf8_lossy(answer);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        if code >= 500 {
            let detail = body.split_once("\"detail\":\"").map(|(_, detail)| detail).unwrap_or_default();
            // One that was begun and did not succeed tells which it was.
            let failed = body.contains("\"handoff_id\":\"");
            let known = code == 500 && (failed || CONTRACT.iter().any(|known| detail.starts_with(known)));
            assert!(known, "a 5xx of ours: {}", what());
        }
        for key in ["\"handoff_id\":\"", "\"lease_id\":\"", "\"task_id\":\""] {
            let id = body.split_once(key).and_then(|(_, id)| id.split_once('"'));
            if let Some((id, _)) = id.filter(|(id, _)| id.len() == LAST_ID.len()) {
                self.last_id = id.to_owned();
            }
        }
    }

    fn look_over(&mut self) {
        self.held.clear();
        let hub = self.hub.clone();
        self.runtime.block_on(async {
            // Whoever is gone is noticed when the next ping is sent, at the latest.
            timeout(Duration::from_secs(120), std::future::pending::<()>()).await.expect_err("time passes");
            assert_eq!(hub.listeners(), 0, "somebody who is gone is told of notifications");
        });
        let there: Vec<_> = std::fs::read_dir(self.directory.path()).expect("it is there").flatten().collect();
        assert!(there.iter().all(|entry| entry.file_name() == "results"), "written outside: {there:?}");
        for kind in self.registry.kinds().iter() {
            let listed = self.runtime.block_on(self.registry.list(kind, None, &Default::default()));
            listed.expect("it lists").items.iter().for_each(|version| world::decodes(&version.object));
        }
        self.shutdown.cancel();
        let supervision = &mut self.supervision;
        let ended = self.runtime.block_on(async { supervision.await.expect("it does not panic") });
        assert!(ended.is_ok(), "{ended:?}");
    }
}

/// The example stack and its card.
async fn furnish(registry: &Registry) {
    let stack = [
        include_str!("../../../desired/gaia/gpu.yaml"),
        include_str!("../../../desired/gaia/stack/gaia-mcp.yaml"),
        include_str!("../../../desired/gaia/stack/gaia-prime.yaml"),
        include_str!("../../../desired/gaia/stack/gaia-core.yaml"),
        include_str!("../../../desired/gaia/stack/gaia-study.yaml"),
        include_str!("../../../desired/gaia/stack/gaia-web.yaml"),
    ];
    for text in stack {
        let object: Value = serde_saphyr::from_str(text).expect("YAML");
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        let kind = registry.kinds().iter().find(|known| known.kind == kind).cloned().expect("a kind of ours");
        let namespace = kind.namespaced.then_some("default");
        let options = WriteOptions { field_manager: "test".to_owned(), ..WriteOptions::default() };
        registry.create(&kind, namespace, object, &options).await.expect("a valid object");
    }
    // Which GAIA's owner of the card is.
    let kind = registry.kinds().iter().find(|known| known.kind == "Gpu").cloned().expect("a kind of ours");
    let name = ObjectName { namespace: None, name: "gpu0".to_owned() };
    let card = registry.get(&kind, &name).await.expect("the stack has a card");
    assert_eq!(card.object["spec"]["owner"]["name"], json!("gaia-prime"), "{}", card.object);
}

fn context(registry: &Arc<Registry>, engine: &SimulatedContainers, clock: &Arc<dyn Clock>) -> Context<RegistryObjects> {
    let metrics = RuntimeMetrics::default();
    // Nobody reads the inbox: events are dropped at its bound, which must change nothing else.
    let (recorder, _) = Recorder::new(clock.clone(), metrics.clone());
    Context {
        objects: RegistryObjects { registry: registry.clone(), field_manager: "gaia" },
        containers: Arc::new(engine.clone()),
        probes: Arc::new(SimulatedProbes::new(engine.clone())),
        peers: Arc::new(SimulatedPeers::new(engine.clone())),
        gpus: Some(Arc::new(SimulatedGpus::of_24_gib(engine.clone(), 1))),
        recorder,
        clock: clock.clone(),
        metrics,
        node: "here".to_owned(),
        seed: 1,
    }
}

fn mloc(
    context: &Context<RegistryObjects>,
    results: ResultFiles,
    shutdown: &CancellationToken,
    supervisor: &mut Supervisor,
) -> Mloc {
    let sockets = EmbeddedBus::new(Duration::from_secs(120));
    let bus: SharedBus = Arc::new(sockets.clone());
    let metrics = TaskMetrics::default();
    controllers::worker::spawn(context, bus.clone(), Default::default(), metrics.clone(), supervisor);
    let signer = Some(Signer::new(TOKEN));
    let reality = controllers::task::Reality {
        bus: bus.clone(),
        results: Arc::new(results.clone()),
        metrics: metrics.clone(),
        signer: signer.clone(),
        outbox: Outbox::new().expect("a client"),
        base_url: None,
        settings: Default::default(),
    };
    controllers::task::spawn(context, reality, supervisor);
    Mloc {
        objects: RegistryObjects {
            registry: context.objects.registry.clone(),
            field_manager: tasks_facade::FIELD_MANAGER,
        },
        bus,
        sockets,
        shutdown: shutdown.clone(),
        results: Arc::new(results.clone()),
        files: results,
        ids: Arc::new(SeededIds::new(6)),
        clock: context.clock.clone(),
        token: Some(TOKEN.into()),
        most_bytes: 1 << 20,
        taking: Taking::default(),
        metrics,
        signer,
    }
}

fn count_panics() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

/// Calls that take as long as what they are about.
fn waits(sent: &[u8]) -> bool {
    let line = sent.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    ["/gpu/wait", "/gpu/wake", "/gpu/sleep", "/gpu/handoff", "/handoff/", "watch"]
        .iter()
        .any(|call| line.contains(call))
}

/// Whether HTTP/1.1 has all of the request that is begun; what says its length otherwise than by a number is left to hyper.
fn is_whole(sent: &[u8]) -> bool {
    let Some(end) = sent.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&sent[..end]).to_ascii_lowercase();
    let lengths: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("content-length:")).collect();
    let length = match lengths.as_slice() {
        [] => Some(0),
        [one] => one.trim().parse::<usize>().ok(),
        _ => None,
    };
    let odd = ["transfer-encoding", "expect:", "http2-settings", "upgrade"].iter().any(|odd| head.contains(odd));
    !odd && length.is_some_and(|length| sent.len() - end - 4 >= length)
}

fn replaced(data: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut at = 0;
    while at < data.len() {
        if data[at..].starts_with(from) {
            out.extend_from_slice(to);
            at += from.len();
        } else {
            out.push(data[at]);
            at += 1;
        }
    }
    out
}

fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(1500)].escape_ascii().to_string()
}
