//! GPUs: what is seen on the cards that somebody declared.
//!
//! Reads Gpus, the cards and the containers of the processes on them; writes the status of Gpus and nobody else's, and
//! touches nothing. Nothing tells when a card changes, so each is looked at every [`decide::LOOK`]. Who holds a card is not
//! decided here: holder, lease and queue stay as they are.
//!
//! A reading that differs from the last one by noise alone is not written; [`decide`] says what noise is.

pub mod decide;
pub mod discovery;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::timeout;

use self::decide::{Observed, Unread};
use super::Context;
use crate::{
    adapters::{
        containers::{Container, Containers, EngineResult},
        gpus::{GpuDevice, Gpus},
    },
    api::gpu::{Gpu, GpuStatus},
    runtime::{
        objects::Objects,
        queue::Queue,
        reconciler::{Driver, PassError, Plan, Reconciler},
        supervisor::{Stage, Supervisor},
        wakeups::Wakeups,
    },
};

/// A driver may hang on a card that is lost.
const DRIVER_DEADLINE: Duration = Duration::from_secs(10);

/// The controller. It remembers nothing.
pub struct GpuReconciler {
    gpus: Option<Arc<dyn Gpus>>,
    containers: Arc<dyn Containers>,
    node: String,
}

impl GpuReconciler {
    pub fn new<O: Objects>(context: &Context<O>) -> Self {
        Self { gpus: context.gpus.clone(), containers: context.containers.clone(), node: context.node.clone() }
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

impl Reconciler for GpuReconciler {
    type Object = Gpu;
    type Status = GpuStatus;
    type Observed = Observed;
    type Action = Infallible;

    const NAME: &'static str = "gpu";
    const FINALIZER: Option<&'static str> = None;

    async fn observe(&self, gpu: &Gpu) -> Result<Observed, PassError> {
        let mut observed = Observed { node: self.node.clone(), cards: Ok(Vec::new()), users: Ok(Vec::new()) };
        if decide::is_elsewhere(gpu, &self.node) {
            return Ok(observed);
        }
        observed.cards = self.cards().await;
        let card = observed.cards.as_deref().ok().and_then(|cards| decide::meant(&gpu.spec.device, cards));
        if let Some(card) = card {
            observed.users = self.users(card).await.map_err(|error| error.to_string());
        }
        Ok(observed)
    }

    fn decide(gpu: &Gpu, observed: &Observed, now: Timestamp) -> Plan<GpuStatus, Infallible> {
        decide::decide(gpu, observed, now)
    }

    async fn apply(&self, _: &Gpu, action: &Infallible) -> Result<(), PassError> {
        match *action {}
    }

    fn action_name(action: &Infallible) -> &'static str {
        match *action {}
    }
}

/// Starts the controller's one task.
pub fn spawn<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    let driver = Driver::new(
        Arc::new(GpuReconciler::new(context)),
        context.objects.clone(),
        context.recorder.clone(),
        context.clock.clone(),
        context.metrics.clone(),
        context.seed,
    );
    let queue = Queue::new(Arc::new(driver), Wakeups::default());
    supervisor.spawn(Stage::Controllers, "gpus", |shutdown| async move {
        queue.run(shutdown).await;
        Ok::<(), Infallible>(())
    });
}
