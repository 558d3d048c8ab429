//! gaia itself, as `app` puts it together, but for the queue: passes are scheduled here, so that the seed decides their
//! order and a crash takes everything at once. What a pass does and how its end is handled is the product's own code.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use gaia::{
    adapters::simulated::{peers::SimulatedPeers, probes::SimulatedProbes},
    api,
    api::workload::Workload,
    controllers::{
        Context,
        workload::{WorkloadReconciler, hints::Hints},
    },
    gitops::{self, Gitops},
    registry::{ApiError, Kinds, ObjectName, Registry},
    runtime::{
        events::Recorder,
        metrics::RuntimeMetrics,
        objects::Objects,
        reconciler::{Driver, Outcome, Reconciler, name_of},
        registry_objects::RegistryObjects,
        wakeups::{Wake, Wakeups},
    },
    store::{EmbeddedStore, Options, Store},
};
use kube::{
    ResourceExt,
    runtime::{reflector::store::Writer, watcher::Event},
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    bugs::{self, Seam},
    oracle,
    people::DIRECTORY,
    world::World,
};

/// Passes at the same time.
const PARALLEL: usize = 8;

/// Starts gaia, again after every crash.
pub async fn keep_running(world: &World) -> Infallible {
    let mut crashes = world.engine.crashes();
    loop {
        crashes.mark_unchanged();
        // Dropping the losing arm is the crash.
        tokio::select! {
            biased;
            _ = crashes.changed() => world.story.tell("gaia dies"),
            () = world.kill.notified() => world.story.tell("gaia dies"),
            why = run(world) => world.story.tell(format_args!("gaia does not start: {why}")),
        }
        world.registry.send_replace(None);
        let down = world.rng().u64(10..6_000);
        sleep(Duration::from_millis(down)).await;
    }
}

/// Runs until dropped; returns why it did not start.
async fn run(world: &World) -> ApiError {
    let store = EmbeddedStore::open(world.disk.clone(), Options::default()).expect("the disk is sound");
    oracle::after_start(world, &*store).await;
    let registry = Registry::open(store as Arc<dyn Store>, kinds(), world.clock.clone(), world.ids.clone()).await;
    let registry = match registry {
        Ok(registry) => registry,
        Err(error) => return error,
    };
    if let Err(error) = gitops::ensure_desired(&registry, DIRECTORY.as_ref()).await {
        return error;
    }
    world.story.tell("gaia is up");
    world.registry.send_replace(Some(registry.clone()));

    let metrics = RuntimeMetrics::default();
    // Nobody reads the inbox: events are dropped at its bound, which must change nothing else.
    let (recorder, _inbox) = Recorder::new(world.clock.clone(), metrics.clone());
    let gitops = Gitops {
        registry: registry.clone(),
        recorder: recorder.clone(),
        clock: world.clock.clone(),
        files: bugs::files(&world.files, world.bug),
    };
    let context = Context {
        objects: RegistryObjects { registry, field_manager: "gaia" },
        containers: Arc::new(Seam::new(world.engine.clone(), world.bug)),
        probes: Arc::new(SimulatedProbes::new(world.engine.clone())),
        peers: Arc::new(SimulatedPeers::new(world.engine.clone())),
        // No controller that looks at cards runs here.
        gpus: None,
        recorder,
        clock: world.clock.clone(),
        metrics,
        node: "node".to_owned(),
        seed: world.seed,
    };
    let controllers = workloads(world, &context);
    let files = gitops::run::run(gitops, CancellationToken::new());
    match tokio::join!(controllers, files).0 {}
}

/// Compiling the rules of every kind once is enough for all simulations.
fn kinds() -> Kinds {
    static KINDS: OnceLock<Kinds> = OnceLock::new();
    KINDS.get_or_init(|| Kinds::from_crds(&api::crds()).expect("our kinds are sound")).clone()
}

async fn workloads(world: &World, context: &Context<RegistryObjects>) -> Infallible {
    let wakeups = Wakeups::default();
    let reconciler = Arc::new(WorkloadReconciler::new(context, &wakeups));
    let driver = Driver::new(
        reconciler,
        context.objects.clone(),
        context.recorder.clone(),
        context.clock.clone(),
        context.metrics.clone(),
        context.seed,
    );
    let writer = Writer::new(());
    let hints = Hints {
        containers: context.containers.clone(),
        store: writer.as_reader(),
        wakeups: wakeups.clone(),
        metrics: context.metrics.clone(),
    };
    let queue = Queue {
        world,
        driver: &driver,
        wakeups,
        writer,
        objects: BTreeMap::new(),
        deleting: BTreeSet::new(),
        due: BTreeMap::new(),
        busy: BTreeSet::new(),
        hurry: (Instant::now(), BTreeMap::new()),
    };
    tokio::join!(queue.run(), hints.run(CancellationToken::new())).0
}

type Name = (Option<String>, String);
type WorkloadDriver = Driver<WorkloadReconciler<RegistryObjects>, RegistryObjects>;

/// The live queue's promises with the seed's order: one entry per object, the earlier time winning, never two passes
/// over one object.
struct Queue<'a> {
    world: &'a World,
    driver: &'a WorkloadDriver,
    wakeups: Wakeups,
    writer: Writer<Workload>,
    objects: BTreeMap<Name, Arc<Workload>>,
    /// Whose deletion has been seen.
    deleting: BTreeSet<String>,
    due: BTreeMap<Name, Instant>,
    busy: BTreeSet<Name>,
    /// Since when, and how many: an object looked at again and again while no time passes is a loop that eats a core.
    hurry: (Instant, BTreeMap<Name, usize>),
}

impl<'a> Queue<'a> {
    async fn run(mut self) -> Infallible {
        let mut watch = self.driver.objects.watch::<Workload>();
        let mut woken = Box::pin(self.wakeups.stream());
        let mut passes: FuturesUnordered<LocalBoxFuture<'a, (ObjectName, Outcome)>> = FuturesUnordered::new();
        loop {
            self.start_due(&mut passes);
            let next = self.next_due();
            // Cancel-safe: streams and a timer.
            tokio::select! {
                biased;
                Some((name, outcome)) = passes.next(), if !passes.is_empty() => {
                    self.busy.remove(&key(&name));
                    if let Some(delay) = self.driver.settle(&name, outcome) {
                        self.enqueue(key(&name), delay);
                    }
                }
                Some(event) = watch.next() => self.saw(event),
                Some(wake) = woken.next() => match wake {
                    Wake::One(name) => self.enqueue(key(&name), Duration::ZERO),
                    Wake::Everything => self.enqueue_everything(),
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    fn saw(&mut self, event: Event<Workload>) {
        self.writer.apply_watcher_event(&event);
        match event {
            Event::Init => self.objects.clear(),
            Event::InitApply(workload) => {
                if workload.metadata.deletion_timestamp.is_some() {
                    self.deleting.insert(workload.uid().unwrap_or_default());
                }
                self.objects.insert(key(&name_of(&workload)), Arc::new(workload));
            }
            Event::InitDone => self.enqueue_everything(),
            Event::Apply(workload) => {
                if workload.metadata.deletion_timestamp.is_some() {
                    self.saw_deletion(&workload);
                }
                self.objects.insert(key(&name_of(&workload)), Arc::new(workload.clone()));
                self.enqueue_with_related(&workload);
            }
            Event::Delete(workload) => {
                self.saw_deletion(&workload);
                self.objects.remove(&key(&name_of(&workload)));
                self.enqueue_with_related(&workload);
            }
        }
    }

    fn saw_deletion(&mut self, workload: &Workload) {
        if self.deleting.insert(workload.uid().unwrap_or_default()) {
            oracle::on_deletion(self.world, &workload.name_any());
        }
    }

    fn enqueue_with_related(&mut self, workload: &Workload) {
        let all: Vec<Arc<Workload>> = self.objects.values().cloned().collect();
        for name in WorkloadReconciler::<RegistryObjects>::related(workload, &all) {
            self.enqueue(key(&name), Duration::ZERO);
        }
        self.enqueue(key(&name_of(workload)), Duration::ZERO);
    }

    fn enqueue_everything(&mut self) {
        let names: Vec<Name> = self.objects.keys().cloned().collect();
        for name in names {
            self.enqueue(name, Duration::ZERO);
        }
    }

    fn enqueue(&mut self, name: Name, delay: Duration) {
        let at = Instant::now() + delay;
        let due = self.due.entry(name).or_insert(at);
        *due = at.min(*due);
    }

    fn next_due(&self) -> Option<Instant> {
        if self.busy.len() >= PARALLEL {
            return None;
        }
        self.due.iter().filter(|(name, _)| !self.busy.contains(*name)).map(|(_, at)| *at).min()
    }

    /// Everything that is due and not busy, in an order of the seed's.
    fn start_due(&mut self, passes: &mut FuturesUnordered<LocalBoxFuture<'a, (ObjectName, Outcome)>>) {
        let now = Instant::now();
        let due = self.due.iter().filter(|(name, at)| **at <= now && !self.busy.contains(*name));
        let mut ready: Vec<Name> = due.map(|(name, _)| name.clone()).collect();
        self.world.rng().shuffle(&mut ready);
        for name in ready {
            if self.busy.len() >= PARALLEL {
                return;
            }
            self.due.remove(&name);
            self.busy.insert(name.clone());
            self.count(&name, now);
            passes.push(self.pass(name));
        }
    }

    fn count(&mut self, name: &Name, now: Instant) {
        if now - self.hurry.0 > Duration::from_secs(1) {
            self.hurry = (now, BTreeMap::new());
        }
        let passes = self.hurry.1.entry(name.clone()).or_default();
        *passes += 1;
        if *passes == MOST_PASSES_A_SECOND {
            let workload = self.objects.get(name).map(|w| (&w.spec, &w.status));
            self.world.violated(format!("{} is looked at {passes} times a second: {workload:?}", name.1));
        }
    }

    fn pass(&self, (namespace, name): Name) -> LocalBoxFuture<'a, (ObjectName, Outcome)> {
        let (world, driver) = (self.world, self.driver);
        async move {
            let name = ObjectName { namespace, name };
            let outcome = match timeout(LONGEST_PASS, driver.reconcile_once(&name)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    world.violated(format!("a pass over {} takes more than {LONGEST_PASS:?}", name.name));
                    Outcome::Conflict
                }
            };
            (name, outcome)
        }
        .boxed_local()
    }
}

/// Far more than news and convergence ever ask for.
const MOST_PASSES_A_SECOND: usize = 200;

/// Every wait has a deadline; the sum of those of one pass is below this.
const LONGEST_PASS: Duration = Duration::from_secs(300);

fn key(name: &ObjectName) -> Name {
    (name.namespace.clone(), name.name.clone())
}
