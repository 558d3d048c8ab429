//! gaia itself, as `app` puts it together, but for the queues ([`crate::queue`]): passes are scheduled by the seed, and a crash
//! takes everything at once. What a pass does and how its end is handled is the product's own code.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{LocalBoxFuture, join_all},
};
use gaia::{
    adapters::{
        containers::Containers,
        gpus::Gpus,
        simulated::{peers::SimulatedPeers, probes::SimulatedProbes},
    },
    api::{self, gpu::Gpu, gpuclaim::GpuClaim, handoff::Handoff, workload::Workload},
    controllers::{
        Context,
        gpu::GpuReconciler,
        gpuclaim::GpuClaimReconciler,
        handoff::{HandoffReconciler, wakes},
        promotion::PromotionReconciler,
        workload::{WorkloadReconciler, hints::Hints},
    },
    gitops::{self, Gitops},
    registry::{ApiError, Kinds, ObjectName, Registry},
    runtime::{
        events::Recorder,
        follow::follow,
        metrics::RuntimeMetrics,
        objects::{Object, Objects},
        reconciler::{Driver, name_of},
        registry_objects::RegistryObjects,
        wakeups::{Wake, Wakeups},
    },
    store::{EmbeddedStore, Options},
};
use kube::{ResourceExt, runtime::reflector::store::Writer};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    bugs::{self, Seam},
    holders,
    mutants::{Mutable, Mutant},
    oracle,
    people::DIRECTORY,
    queue::Queue,
    world::World,
    writes::FaultyStore,
};

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

/// What is on the disk, with faults at its writes.
pub async fn registry(world: &World) -> Result<Arc<Registry>, ApiError> {
    let store = EmbeddedStore::open(world.disk.clone(), Options::default()).expect("the disk is sound");
    oracle::after_start(world, &*store).await;
    let store = Arc::new(FaultyStore::new(store, world.clone()));
    Registry::open(store, kinds(world), world.clock.clone(), world.ids.clone()).await
}

/// What controllers work with, where `containers` and `gpus` may have mistakes planted into them.
pub fn context<O: Objects>(
    world: &World,
    objects: O,
    containers: Arc<dyn Containers>,
    gpus: Option<Arc<dyn Gpus>>,
) -> Context<O> {
    let metrics = RuntimeMetrics::default();
    // Nobody reads the inbox: events are dropped at its bound, which must change nothing else.
    let (recorder, _inbox) = Recorder::new(world.clock.clone(), metrics.clone());
    Context {
        objects,
        containers,
        probes: Arc::new(SimulatedProbes::new(world.engine.clone())),
        peers: Arc::new(SimulatedPeers::new(world.engine.clone())),
        gpus,
        recorder,
        clock: world.clock.clone(),
        metrics,
        node: "node".to_owned(),
        seed: world.seed,
    }
}

/// Runs until dropped; returns why it did not start.
async fn run(world: &World) -> ApiError {
    let registry = match registry(world).await {
        Ok(registry) => registry,
        Err(error) => return error,
    };
    if let Err(error) = gitops::ensure_desired(&registry, DIRECTORY.as_ref()).await {
        return error;
    }
    world.story.tell("gaia is up");
    world.registry.send_replace(Some(registry.clone()));

    let objects = RegistryObjects { registry: registry.clone(), field_manager: "gaia" };
    let containers = Arc::new(Seam::new(world.engine.clone(), world.bug));
    let gpus = world.has_cards.then(|| Mutant::of_cards(Arc::new(world.gpus.clone()), world.bug));
    let context = context(world, objects, containers, gpus);
    let gitops = Gitops {
        registry,
        recorder: context.recorder.clone(),
        clock: world.clock.clone(),
        files: bugs::files(&world.files, world.bug),
        // No Source here is of a repository.
        repositories: gitops::git::Repositories::new("/nonexistent", world.clock.clone()),
    };
    let mut tasks = controllers(world, &context);
    tasks.push(
        async {
            let Ok(()) = gitops::run::run(gitops, CancellationToken::new()).await;
            pending().await
        }
        .boxed_local(),
    );
    match join_all(tasks).await.pop() {
        Some(never) => match never {},
        None => pending().await,
    }
}

/// Compiling the rules of every kind once is enough for all simulations. The objects that define them are a hundred times as
/// much as all others of a world, and are read at every start: few worlds have them.
fn kinds(world: &World) -> Kinds {
    static KINDS: OnceLock<Kinds> = OnceLock::new();
    let kinds = KINDS.get_or_init(|| Kinds::from_crds(&api::crds()).expect("our kinds are sound")).clone();
    if world.size.definitions { kinds } else { kinds.without_definitions() }
}

/// A task of the process: it ends with it.
pub type Task<'a> = LocalBoxFuture<'a, Infallible>;

fn controllers<'a>(world: &'a World, context: &'a Context<RegistryObjects>) -> Vec<Task<'a>> {
    let mut tasks = workloads(world, context);
    if world.has_cards {
        tasks.extend(cards(world, context));
        tasks.extend(claims(world, context));
        tasks.extend(handoffs(world, context));
        tasks.extend(promotions(world, context));
        tasks.push(watch_cards(world, context).boxed_local());
    }
    tasks
}

/// Of a world in which nothing but cards is ours to look after: none without a card.
pub fn of_cards<'a>(world: &'a World, context: &'a Context<RegistryObjects>) -> Vec<Task<'a>> {
    match world.has_cards {
        true => {
            [cards(world, context), claims(world, context), handoffs(world, context)].into_iter().flatten().collect()
        }
        false => Vec::new(),
    }
}

async fn controller<R: Mutable>(
    world: &World,
    context: &Context<RegistryObjects>,
    reconciler: R,
    wakeups: Wakeups,
    writer: Writer<R::Object>,
    on_deletion: fn(&World, &R::Object),
) -> Infallible {
    let driver = Driver::new(
        Arc::new(Mutant::new(reconciler, world.bug, world.clock.now())),
        context.objects.clone(),
        context.recorder.clone(),
        context.clock.clone(),
        context.metrics.clone(),
        context.seed,
    );
    Queue::new(world, &driver, wakeups, writer, on_deletion).run().await
}

/// Wakes whom `whom` names for each change of a `K`, as the product does.
fn followed<'a, K: Object>(
    context: &'a Context<RegistryObjects>,
    wakeups: &Wakeups,
    whom: impl Fn(&K) -> Vec<Wake> + Send + 'static,
) -> Task<'a> {
    let following = follow(context.objects.clone(), wakeups.clone(), whom, CancellationToken::new());
    async move {
        following.await;
        pending().await
    }
    .boxed_local()
}

fn workloads<'a>(world: &'a World, context: &'a Context<RegistryObjects>) -> Vec<Task<'a>> {
    let wakeups = Wakeups::default();
    let writer = Writer::new(());
    let store = writer.as_reader();
    let hints = Hints {
        containers: context.containers.clone(),
        store: store.clone(),
        wakeups: wakeups.clone(),
        metrics: context.metrics.clone(),
    };
    let hints = async move {
        hints.run(CancellationToken::new()).await;
        pending().await
    };
    let users = move |gpu: &Gpu| {
        let name = gpu.name_any();
        let uses = |w: &Workload| w.spec.gpu.as_ref().is_some_and(|gpu| gpu.members.contains(&name));
        store.state().iter().filter(|w| uses(w)).map(|w| Wake::One(name_of(&**w))).collect()
    };
    let follow_cards = followed(context, &wakeups, users);
    let follow_handoffs = followed(context, &wakeups, wakes::of_handoff_on_sides);
    let reconciler = WorkloadReconciler::new(context, &wakeups);
    let on_deletion = |world: &World, workload: &Workload| oracle::on_deletion(world, &workload.name_any());
    let queue = controller(world, context, reconciler, wakeups, writer, on_deletion);
    match world.has_cards {
        true => vec![queue.boxed_local(), hints.boxed_local(), follow_cards, follow_handoffs],
        false => vec![queue.boxed_local(), hints.boxed_local()],
    }
}

fn cards<'a>(world: &'a World, context: &'a Context<RegistryObjects>) -> Vec<Task<'a>> {
    let wakeups = Wakeups::default();
    let members = |workload: &Workload| {
        let members = workload.spec.gpu.iter().flat_map(|gpu| gpu.members.clone());
        members.map(|name| Wake::One(ObjectName { namespace: None, name })).collect()
    };
    vec![
        followed(context, &wakeups, |_: &GpuClaim| vec![Wake::Everything]),
        followed(context, &wakeups, wakes::of_handoff_on_card),
        followed(context, &wakeups, members),
        controller(world, context, GpuReconciler::new(context), wakeups, Writer::new(()), |_, _| ()).boxed_local(),
    ]
}

fn claims<'a>(world: &'a World, context: &'a Context<RegistryObjects>) -> Vec<Task<'a>> {
    let wakeups = Wakeups::default();
    vec![
        followed(context, &wakeups, |_: &Gpu| vec![Wake::Everything]),
        controller(world, context, GpuClaimReconciler::new(context), wakeups, Writer::new(()), |_, _| ()).boxed_local(),
    ]
}

fn handoffs<'a>(world: &'a World, context: &'a Context<RegistryObjects>) -> Vec<Task<'a>> {
    let wakeups = Wakeups::default();
    let writer = Writer::new(());
    let store = writer.as_reader();
    let known = move || store.state();
    let of_card = {
        let known = known.clone();
        move |gpu: &Gpu| wakes::of_card(gpu, &known())
    };
    let of_claim = {
        let known = known.clone();
        move |claim: &GpuClaim| wakes::of_claim(claim, &known())
    };
    let of_workload = move |workload: &Workload| wakes::of_workload(workload, &known());
    let reconciler = HandoffReconciler::new(context, &wakeups);
    vec![
        followed(context, &wakeups, of_card),
        followed(context, &wakeups, of_claim),
        followed(context, &wakeups, of_workload),
        controller(world, context, reconciler, wakeups, writer, |_, _| ()).boxed_local(),
    ]
}

fn promotions<'a>(world: &'a World, context: &'a Context<RegistryObjects>) -> Vec<Task<'a>> {
    let wakeups = Wakeups::default();
    let reconciler = PromotionReconciler::new(context, &wakeups);
    vec![
        followed(context, &wakeups, |_: &Workload| vec![Wake::Everything]),
        followed(context, &wakeups, |_: &Handoff| vec![Wake::Everything]),
        followed(context, &wakeups, |_: &Gpu| vec![Wake::Everything]),
        controller(world, context, reconciler, wakeups, Writer::new(()), |_, _| ()).boxed_local(),
    ]
}

/// The oracle looks at every change of a card's object, and now and then besides.
async fn watch_cards(world: &World, context: &Context<RegistryObjects>) -> Infallible {
    let mut changes = context.objects.watch::<Gpu>();
    let mut handoffs = context.objects.watch::<Handoff>();
    loop {
        // Cancel-safe: streams and a timer.
        tokio::select! {
            biased;
            _ = changes.next() => {}
            Some(event) = handoffs.next() => holders::tell(world, event),
            () = sleep(Duration::from_secs(5)) => {}
        }
        holders::look(world);
    }
}
