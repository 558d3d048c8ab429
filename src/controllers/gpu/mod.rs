//! GPUs: what is seen on the cards, and who holds them.
//!
//! Reads Gpus, the cards and the containers of the processes on them, and everybody who wants a card ([`holding`]); writes
//! the status of Gpus and nobody else's. That status is the one truth about who holds a card, and [`leases`] the one place
//! that changes it. Nothing tells when a card changes, so each is looked at every [`decide::LOOK`].
//!
//! Where two objects mean one card, one of them stands for it ([`twins`]), and the other is granted to nobody. [`health`] says
//! whether a card is sound and who is left on it; [`fit`] whether something fits onto it.
//!
//! A reading that differs from the last one by noise alone is not written; [`decide`] says what noise is.

pub mod decide;
pub mod discovery;
pub mod fit;
pub mod health;
#[cfg(test)]
mod health_tests;
pub mod holding;
#[cfg(test)]
mod holding_tests;
pub mod leases;
#[cfg(test)]
mod leases_tests;
#[cfg(test)]
mod tests;
pub mod twins;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::timeout;

use self::{
    decide::{Observed, Unread},
    leases::Action,
};
use super::{Context, handoff::wakes};
use crate::{
    adapters::{
        containers::{Container, Containers, EngineResult},
        gpus::{GpuDevice, Gpus},
    },
    api::{
        gpu::{Gpu, GpuStatus},
        gpuclaim::GpuClaim,
        handoff::Handoff,
        workload::Workload,
    },
    registry::{ApiResult, ObjectName, Reason},
    runtime::{
        controller,
        objects::Objects,
        reconciler::{PassError, Plan, Reconciler, Requeue, name_of},
        supervisor::Supervisor,
        wakeups::{Wake, Wakeups},
    },
};

/// A driver may hang on a card that is lost.
const DRIVER_DEADLINE: Duration = Duration::from_secs(10);

/// What a pass sees: the card, and everybody who has or wants it.
pub struct Seen {
    /// None: a handoff waits for the status, and what it asks for needs no look at the card. The next pass looks.
    pub reading: Option<Observed>,
    pub world: holding::World,
    pub handoffs: Vec<Arc<Handoff>>,
}

/// The controller. It remembers nothing.
pub struct GpuReconciler<O: Objects> {
    objects: O,
    gpus: Option<Arc<dyn Gpus>>,
    containers: Arc<dyn Containers>,
    node: String,
}

impl<O: Objects> GpuReconciler<O> {
    pub fn new(context: &Context<O>) -> Self {
        Self {
            objects: context.objects.clone(),
            gpus: context.gpus.clone(),
            containers: context.containers.clone(),
            node: context.node.clone(),
        }
    }

    async fn cards(&self) -> Result<Vec<GpuDevice>, Unread> {
        let gpus = self.gpus.as_ref().ok_or(Unread::Unsupported)?;
        match timeout(DRIVER_DEADLINE, gpus.inventory()).await {
            Ok(answer) => answer.map_err(|error| Unread::NoAnswer(error.to_string())),
            Err(_) => Err(Unread::NoAnswer(format!("no answer from the GPU driver within {DRIVER_DEADLINE:?}"))),
        }
    }

    /// The containers that have processes on the card. Each by its id: they are few, where all containers may be many.
    async fn users(&self, card: &GpuDevice) -> EngineResult<Vec<Container>> {
        let ids: BTreeSet<_> = card.processes.iter().flatten().filter_map(|p| p.container.as_ref()).collect();
        let found = futures::future::try_join_all(ids.into_iter().map(|id| self.containers.inspect(&id.0))).await?;
        Ok(found.into_iter().flatten().collect())
    }
}

impl<O: Objects> GpuReconciler<O> {
    async fn reading(&self, gpu: &Gpu) -> Observed {
        let mut observed =
            Observed { node: self.node.clone(), cards: Ok(Vec::new()), users: Ok(Vec::new()), twin: None };
        observed.cards = self.cards().await;
        let card = observed.cards.as_deref().ok().and_then(|cards| decide::meant(&gpu.spec.device, cards));
        if let Some(card) = card {
            observed.users = self.users(card).await.map_err(|error| error.to_string());
        }
        observed
    }

    /// The card itself as this pass knows it: what is written is compared with that version.
    async fn world_with(&self, gpu: &Gpu) -> ApiResult<holding::World> {
        let mut gpus = self.objects.list::<Gpu>(None).await?;
        for known in gpus.iter_mut().filter(|known| known.metadata.uid == gpu.metadata.uid) {
            *known = Arc::new(gpu.clone());
        }
        let claims = self.objects.list::<GpuClaim>(None).await?;
        Ok(holding::World { gpus, claims, workloads: self.objects.list::<Workload>(None).await? })
    }
}

impl<O: Objects> Reconciler for GpuReconciler<O> {
    type Object = Gpu;
    type Status = GpuStatus;
    type Observed = Seen;
    type Action = Action;

    const NAME: &'static str = "gpu";
    const FINALIZER: Option<&'static str> = None;

    async fn observe(&self, gpu: &Gpu) -> Result<Seen, PassError> {
        if decide::is_elsewhere(gpu, &self.node) {
            let node = self.node.clone();
            let reading = Observed { node, cards: Ok(Vec::new()), users: Ok(Vec::new()), twin: None };
            return Ok(Seen { reading: Some(reading), world: holding::World::default(), handoffs: Vec::new() });
        }
        let read = |source| PassError::Objects { doing: "read claims and handoffs", source };
        let handoffs = self.objects.list::<Handoff>(None).await.map_err(read)?;
        if leases::is_waited_for(gpu, &handoffs) && means_what_it_meant(gpu) {
            let mut world = self.world_with(gpu).await.map_err(read)?;
            let twins = twins::find(&world.gpus, None, &self.node);
            world.gpus.retain(|known| !twins.contains_key(&known.name_any()));
            if !twins.contains_key(&gpu.name_any()) {
                return Ok(Seen { reading: None, world, handoffs });
            }
        }
        let mut reading = self.reading(gpu).await;
        // Read again: the look may have taken its time.
        let handoffs = self.objects.list::<Handoff>(None).await.map_err(read)?;
        let mut world = self.world_with(gpu).await.map_err(read)?;
        let twins = twins::find(&world.gpus, reading.cards.as_deref().ok(), &self.node);
        world.gpus.retain(|known| !twins.contains_key(&known.name_any()));
        reading.twin = twins.get(&gpu.name_any()).cloned();
        Ok(Seen { reading: Some(reading), world, handoffs })
    }

    fn decide(gpu: &Gpu, seen: &Seen, now: Timestamp) -> Plan<GpuStatus, Action> {
        let Some(reading) = &seen.reading else { return decide_unseen(gpu, seen, now) };
        let told = decide::decide(gpu, reading, now);
        let Some(mut status) = told.status else { return Plan::leave() };
        if reading.twin.is_some() {
            // What it was granted it keeps until that ends: nothing more is known to be safe.
            status.queue = Vec::new();
            return Plan { status: Some(status), events: told.events, requeue: told.requeue, ..Plan::leave() };
        }
        let leases = leases::decide(gpu, &mut status, &seen.world, &seen.handoffs, now);
        let requeue = match (told.requeue, leases.wake_at) {
            (Requeue::After(wait), Some(at)) => Requeue::After(wait.min(until(at, now))),
            (Requeue::OnChange, Some(at)) => Requeue::After(until(at, now)),
            (requeue, _) => requeue,
        };
        let events = told.events.into_iter().chain(leases.notes).collect();
        Plan { status: Some(status), stages: vec![leases.actions], events, requeue, ..Plan::leave() }
    }

    async fn apply(&self, _: &Gpu, action: &Action) -> Result<(), PassError> {
        let done = match action {
            // Somebody else's of that name, or this one a moment ago: the next pass finds out.
            Action::Create(handoff) => match self.objects.create(Handoff::clone(handoff)).await {
                Err(error) if error.reason == Reason::AlreadyExists => Ok(()),
                made => made.map(drop),
            },
            Action::Prune(name) => self.objects.delete::<Handoff>(name).await,
        };
        done.map_err(|source| PassError::Objects { doing: "write the handoff", source })
    }

    fn action_name(action: &Action) -> &'static str {
        match action {
            Action::Create(_) => "CreateHandoff",
            Action::Prune(_) => "PruneHandoff",
        }
    }

    /// Claims are over all cards: what changes on one may free another's.
    fn related(_: &Gpu, all: &[Arc<Gpu>]) -> Vec<ObjectName> {
        if all.len() > 1 { all.iter().map(|gpu| name_of(&**gpu)).collect() } else { Vec::new() }
    }
}

/// The card that its status speaks of, as far as is known.
fn means_what_it_meant(gpu: &Gpu) -> bool {
    gpu.status
        .as_ref()
        .is_some_and(|status| status.uuid.is_some() && status.observed_generation == gpu.metadata.generation)
}

/// Of the card it is said what was said before: the look follows at once.
fn decide_unseen(gpu: &Gpu, seen: &Seen, now: Timestamp) -> Plan<GpuStatus, Action> {
    let mut status = gpu.status.clone().unwrap_or_default();
    let leases = leases::decide(gpu, &mut status, &seen.world, &seen.handoffs, now);
    let requeue = Requeue::After(Duration::ZERO);
    Plan { status: Some(status), stages: vec![leases.actions], events: leases.notes, requeue, ..Plan::leave() }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// Starts the controller's tasks.
pub fn spawn<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    let reconciler = GpuReconciler::new(context);
    let mut gpus = controller::start("gpus", reconciler, Wakeups::default(), context.basis(), supervisor);
    gpus.follow("gpu-claims-followed", |_: &GpuClaim| vec![Wake::Everything]);
    gpus.follow("gpu-handoffs-followed", wakes::of_handoff_on_card);
    gpus.follow("gpu-workloads-followed", |workload: &Workload| {
        let members = workload.spec.gpu.iter().flat_map(|gpu| &gpu.members);
        members.map(|name| Wake::One(ObjectName { namespace: None, name: name.clone() })).collect()
    });
}
