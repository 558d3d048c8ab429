//! The part of gaia that tasks need, as `app` puts it together: controllers of tasks, workers and cards, and the calls of clients and
//! workers, which end with the process as well.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, body, http::StatusCode};
use futures::{FutureExt, StreamExt, future::join_all, stream::FuturesUnordered};
use gaia::{
    adapters::{
        bus::{SharedBus, both::BothBuses, embedded::EmbeddedBus},
        outbox::Outbox,
        results::{ResultFiles, SharedResults},
    },
    api::{
        gpu::{Gpu, GpuDevice, GpuSpec},
        task::Task,
        worker::Worker,
    },
    controllers::{self, Context, task::Reality, worker},
    facades::tasks::{self as facade, Mloc, Taking},
    registry::{ApiError, Reason},
    runtime::{objects::Objects, registry_objects::RegistryObjects},
    telemetry::tasks::TaskMetrics,
};
use kube::runtime::watcher::Event;
use serde_json::Value;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{
    bugs::Seam,
    bus::SimulatedBus,
    oracle,
    results::SimulatedResults,
    workers::TTL,
    world::{Asked, Served, TaskWorld},
};
use crate::{cards::CARD, process};

/// Starts gaia, again after every crash.
pub async fn keep_running(world: &TaskWorld) -> Infallible {
    loop {
        // Dropping the losing arm is the crash.
        tokio::select! {
            biased;
            () = world.world.kill.notified() => world.tell("gaia dies"),
            why = run(world) => world.tell(format_args!("gaia does not start: {why}")),
        }
        world.served.send_replace(None);
        world.world.registry.send_replace(None);
        let down = 10 + world.below(4_000);
        sleep(Duration::from_millis(down)).await;
    }
}

fn outbox() -> Outbox {
    static OUTBOX: OnceLock<Outbox> = OnceLock::new();
    OUTBOX.get_or_init(|| Outbox::new().expect("a client, with which nobody writes")).clone()
}

fn context<O: Objects>(world: &TaskWorld, objects: O) -> Context<O> {
    let world = &world.world;
    let gpus = world.has_cards.then(|| Arc::new(world.gpus.clone()) as _);
    process::context(world, objects, Arc::new(world.engine.clone()), gpus)
}

/// Runs until dropped; returns why it did not start.
async fn run(world: &TaskWorld) -> ApiError {
    let registry = match process::registry(&world.world).await {
        Ok(registry) => registry,
        Err(error) => return error,
    };
    let objects = |field_manager| RegistryObjects { registry: registry.clone(), field_manager };
    if world.world.has_cards
        && let Err(error) = objects("somebody").create(card()).await
        && error.reason != Reason::AlreadyExists
    {
        return error;
    }
    let sockets = EmbeddedBus::new(TTL);
    let redis = SimulatedBus { world: world.clone() };
    let bus: SharedBus = Arc::new(BothBuses { redis, embedded: sockets.clone() });
    let results: SharedResults = Arc::new(SimulatedResults::new(world));
    let metrics = TaskMetrics::default();
    let seam = context(world, Seam { objects: objects("gaia"), bug: world.bug });
    let reality = Reality {
        bus: bus.clone(),
        results: results.clone(),
        metrics: metrics.clone(),
        signer: None,
        outbox: outbox(),
        base_url: Some("http://gaia".to_owned()),
        settings: Default::default(),
    };
    let mloc = Mloc {
        objects: objects(facade::FIELD_MANAGER),
        bus: bus.clone(),
        sockets: sockets.clone(),
        shutdown: CancellationToken::new(),
        results,
        files: ResultFiles::new("/nonexistent/results".as_ref()).expect("nothing is made before it is needed"),
        clock: world.world.clock.clone(),
        ids: world.world.ids.clone(),
        token: None,
        most_bytes: 0,
        taking: Taking::default(),
        metrics: metrics.clone(),
        signer: None,
    };
    let (requests, asked) = mpsc::unbounded_channel();
    world.tell("gaia is up");
    world.world.registry.send_replace(Some(registry.clone()));
    world.served.send_replace(Some(Served { requests, sockets }));
    let plain = context(world, objects("gaia"));
    let mut parts = process::of_cards(&world.world, &plain);
    let workers = worker::run(&seam, bus, worker::Settings { heartbeat_ttl: TTL }, metrics);
    parts.push(for_ever(world, "the controller of workers", workers).boxed_local());
    let tasks = controllers::task::run(&seam, reality);
    parts.push(for_ever(world, "the controller of tasks", tasks).boxed_local());
    parts.push(serve(facade::guest(mloc), asked).boxed_local());
    parts.push(watch(world, &plain).boxed_local());
    match join_all(parts).await.pop() {
        Some(never) => match never {},
        None => pending().await,
    }
}

fn card() -> Gpu {
    Gpu::new(
        CARD,
        GpuSpec { device: GpuDevice { index: Some(0), ..GpuDevice::default() }, lend: true, ..GpuSpec::default() },
    )
}

async fn for_ever(world: &TaskWorld, what: &str, part: impl Future<Output = ()>) -> Infallible {
    part.await;
    world.world.violated(format!("{what} has ended"));
    pending().await
}

/// Answers who asks, as many at once as there are.
async fn serve(router: Router, mut asked: mpsc::UnboundedReceiver<Asked>) -> Infallible {
    let mut answering = FuturesUnordered::new();
    loop {
        // Cancel-safe: a channel's and a stream's next.
        tokio::select! {
            biased;
            Some(asked) = asked.recv() => answering.push(answer(router.clone(), asked)),
            Some(()) = answering.next() => {}
            else => pending().await,
        }
    }
}

async fn answer(mut router: Router, (request, answer): Asked) {
    let Ok(response) = router.call(request).await;
    let status: StatusCode = response.status();
    let bytes = body::to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
    // Who asked may have died.
    answer.send((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))).ok();
}

/// The oracle sees every change of a task.
async fn watch(world: &TaskWorld, context: &Context<RegistryObjects>) -> Infallible {
    let mut changes = context.objects.watch::<Task>();
    let mut workers = context.objects.watch::<Worker>();
    loop {
        // Cancel-safe: a stream's next.
        tokio::select! {
            biased;
            Some(change) = changes.next() => match change {
                Event::Apply(task) | Event::InitApply(task) => oracle::changed(world, &task),
                Event::Init | Event::InitDone | Event::Delete(_) => {}
            },
            Some(change) = workers.next() => match change {
                Event::Apply(worker) => oracle::worker_changed(world, &worker),
                Event::InitApply(_) | Event::Init | Event::InitDone | Event::Delete(_) => {}
            },
            else => pending().await,
        }
    }
}
