//! Droplets: services that requests are routed to by name.
//!
//! | file | question |
//! |---|---|
//! | [`directory`] | who can be routed to, and how old that knowledge is |
//! | [`objects`] | which `Droplet` objects mirror the registry (pure) |
//! | [`probing`] | who answers, and what a status says |
//! | [`routing`], [`gate`] | one call: attempts, waits, limits, circuit, hold |
//! | [`idempotency`] | calls that are made once, whoever comes again |
//! | [`lasting`] | calls that outlive their callers |
//! | [`later`] | calls whose callers do not wait |
//! | [`figures`] | what is counted for Prometheus |
//!
//! The calls themselves are no objects: thousands a second, each of which is over when it is answered.

pub mod directory;
pub mod figures;
pub mod gate;
pub mod idempotency;
pub mod lasting;
pub mod later;
pub mod objects;
pub mod probing;
pub mod routing;

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::runtime::watcher::Event;
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Context;
use crate::{
    api::{droplet::Droplet, gpu::HolderKind, handoff::Handoff},
    registry::{ApiResult, ObjectName, Reason},
    runtime::{
        objects::Objects,
        supervisor::{Stage, Supervisor},
    },
};
use directory::Directory;
use objects::{Change, NAMESPACE};
use routing::Routing;

/// How we call ourselves on FPAI's wire.
pub const NAME: &str = "orchestrator";
pub const ID: i64 = 2;
/// Of the wire.
pub const VERSION: &str = "1.1.0";

/// What can be set: contract section 5.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// As it was given, perhaps with a slash at its end.
    pub registry_url: String,
    /// Without it the registry is asked only when somebody asks us, and not told of us.
    pub follow_registry: bool,
    pub sync_interval: Duration,
    pub registry_timeout: Duration,
    pub cache_expiry: Duration,
    /// Of one attempt.
    pub task_timeout: Duration,
    /// All attempts, the first included.
    pub attempts: u32,
    /// After the first failed attempt; it doubles.
    pub first_wait: Duration,
    /// A call is answered once it is on the disk.
    pub durable_history: bool,
    /// Where others reach us, for the registry.
    pub own_url: String,
    pub probe_interval: Duration,
    /// Of an answer's body.
    pub most_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            registry_url: "http://localhost:8000".to_owned(),
            follow_registry: true,
            sync_interval: Duration::from_secs(60),
            registry_timeout: Duration::from_secs(5),
            cache_expiry: Duration::from_secs(300),
            task_timeout: Duration::from_secs(30),
            attempts: 3,
            first_wait: Duration::from_secs(1),
            durable_history: false,
            own_url: "http://localhost:8001".to_owned(),
            probe_interval: Duration::from_secs(15),
            most_bytes: 128 * 1024 * 1024,
        }
    }
}

/// Between attempts to register.
const REGISTER_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Starts what follows the registry and the objects. What is routed needs none of it.
pub fn spawn<O: Objects>(context: &Context<O>, routing: &Arc<Routing>, supervisor: &mut Supervisor) {
    let directory = routing.directory.clone();
    if directory.settings.follow_registry {
        let followed = directory.clone();
        supervisor.spawn(Stage::Intake, "droplet-registry", |stop| async move {
            stop.run_until_cancelled_owned(follow_registry(followed)).await;
            Ok::<(), Infallible>(())
        });
    }
    let mirror = Mirror { objects: context.objects.clone(), directory, held: routing.held.clone() };
    supervisor.spawn(Stage::Controllers, "droplet-objects", |stop| async move {
        mirror.run(stop).await;
        Ok::<(), Infallible>(())
    });
    let prober = probing::Prober {
        objects: context.objects.clone(),
        routing: routing.clone(),
        recorder: context.recorder.clone(),
        clock: context.clock.clone(),
    };
    supervisor.spawn(Stage::Controllers, "droplet-probes", |stop| async move {
        stop.run_until_cancelled_owned(prober.run()).await;
        Ok::<(), Infallible>(())
    });
    let ending = routing.clone();
    // Callers had the time of the stage before.
    supervisor.spawn(Stage::Controllers, "droplet-calls", |stop| async move {
        stop.cancelled().await;
        ending.stopping.cancel();
        ending.under_way.close();
        ending.under_way.wait().await;
        Ok::<(), Infallible>(())
    });
    let calls = routing.calls.clone();
    supervisor.spawn(Stage::Telling, "droplet-history", |stop| async move {
        stop.cancelled().await;
        calls.flush().await;
        Ok::<(), Infallible>(())
    });
    let routing = routing.clone();
    supervisor.spawn(Stage::Controllers, "droplet-queue", |stop| async move {
        stop.run_until_cancelled_owned(later::run(routing)).await;
        Ok::<(), Infallible>(())
    });
}

/// Asks for the list again and again, and registers until the registry knows us; again when its list lacks us.
async fn follow_registry(directory: Arc<Directory>) {
    let settings = directory.settings.clone();
    let mut sync_at = Instant::now();
    let mut register_at = Some(Instant::now());
    let mut wait = REGISTER_AGAIN.0;
    loop {
        let due = register_at.map_or(sync_at, |at| at.min(sync_at));
        tokio::time::sleep_until(due).await;
        if sync_at <= Instant::now() {
            let synced = directory.sync().await.is_ok();
            sync_at = Instant::now() + settings.sync_interval;
            let listed = directory.view().find(NAME).is_some();
            if synced && !listed && register_at.is_none() {
                register_at = Some(Instant::now());
            }
        }
        if register_at.is_some_and(|at| at <= Instant::now()) {
            match directory.register().await {
                Ok(()) => {
                    info!(registry = settings.registry_url, "registered");
                    (register_at, wait) = (None, REGISTER_AGAIN.0);
                }
                Err(error) => {
                    warn!(error, again_in = ?wait, "the registry does not take our registration");
                    register_at = Some(Instant::now() + wait);
                    wait = (wait * 2).min(REGISTER_AGAIN.1);
                }
            }
        }
    }
}

/// Keeps objects and directory in step, and knows whose workloads change hands.
struct Mirror<O: Objects> {
    objects: O,
    directory: Arc<Directory>,
    held: watch::Sender<Vec<ObjectName>>,
}

impl<O: Objects> Mirror<O> {
    async fn run(self, stop: CancellationToken) {
        let mut droplets = self.objects.watch::<Droplet>();
        let mut handoffs = self.objects.watch::<Handoff>();
        let mut listed = self.directory.changes();
        loop {
            // Cancel-safe: a token, the next of streams, a changed number.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                event = handoffs.next() => match event {
                    Some(Event::Init | Event::InitApply(_)) => continue,
                    Some(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => {
                        if let Err(error) = self.hold().await {
                            warn!(%error, "handoffs cannot be read");
                        }
                        continue;
                    }
                    None => return,
                },
                event = droplets.next() => match event {
                    Some(Event::Init | Event::InitApply(_)) => continue,
                    Some(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => {}
                    None => return,
                },
                changed = listed.changed() => if changed.is_err() { return },
            }
            if let Err(error) = self.mirror().await {
                warn!(%error, "droplets cannot be written down");
            }
        }
    }

    async fn mirror(&self) -> ApiResult<()> {
        let objects = self.objects.list::<Droplet>(None).await?;
        self.directory.declare(objects.clone());
        let Some(listed) = self.directory.listed() else { return Ok(()) };
        for change in objects::changes(&listed, &objects) {
            match self.write(change).await {
                Ok(()) => {}
                // The next look sees what it has become.
                Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound | Reason::AlreadyExists) => {}
                // Of the registry's making: the others can still be written.
                Err(error) if error.reason == Reason::Invalid => {
                    warn!(%error, "the registry lists a droplet that cannot be an object");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write(&self, change: Change) -> ApiResult<()> {
        let named = |name: String| ObjectName { namespace: Some(NAMESPACE.to_owned()), name };
        match change {
            Change::Create(droplet) => self.objects.create(*droplet).await.map(|_| ()),
            Change::Patch { name, spec } => {
                self.objects.merge::<Droplet>(&named(name), json!({"spec": spec})).await.map(|_| ())
            }
            Change::Delete { name } => self.objects.delete::<Droplet>(&named(name)).await,
        }
    }

    /// Workloads that give a card away, or get one.
    async fn hold(&self) -> ApiResult<()> {
        let handoffs = self.objects.list::<Handoff>(None).await?;
        let under_way = handoffs.iter().filter(|h| h.status.as_ref().is_none_or(|status| !status.phase.is_terminal()));
        let holders = under_way.flat_map(|handoff| handoff.spec.from.iter().chain(&handoff.spec.to));
        let held: Vec<ObjectName> = holders
            .filter(|holder| holder.kind == HolderKind::Workload)
            .map(|holder| ObjectName { namespace: Some(holder.namespace.clone()), name: holder.name.clone() })
            .collect();
        self.held.send_if_modified(|before| {
            let changed = *before != held;
            *before = held;
            changed
        });
        Ok(())
    }
}
