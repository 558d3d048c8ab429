//! Promotions: from one variant of a Workload to the other, and back by itself when the new one does not prove itself.
//!
//! Blue and green between live and candidate. Where the workload is on cards the old one lets go first (stop-first), by a
//! Handoff; elsewhere both run until the new one has passed its gates. Of the Workload only `active` and the two `running`
//! are written, by a merge patch compared on its version. The templates are never touched: files own them as a rule, and a
//! swap would stop the variant that has just proved itself.
//!
//! | file | question |
//! |---|---|
//! | [`observed`] | what a pass sees, and what it may do: plain values |
//! | [`observe`] | how it is seen |
//! | [`decide`], [`fit`], [`gates`], [`handoffs`], [`rollback`], [`telling`] | what follows: pure |
//! | [`apply`], [`commands`] | how it is brought about |

pub mod apply;
pub mod commands;
pub mod decide;
pub mod fit;
pub mod gates;
pub mod handoffs;
pub mod observe;
pub mod observed;
pub mod rollback;
pub mod telling;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, future::ready, sync::Arc};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::runtime::{reflector::Store, watcher::Event};
use tokio_util::sync::CancellationToken;

use self::{
    commands::Commands,
    observed::{Action, Observed},
};
use super::Context;
use crate::{
    adapters::{containers::Containers, probes::Probes},
    api::{
        PROMOTION_FINALIZER,
        gpu::Gpu,
        handoff::Handoff,
        promotion::{Promotion, PromotionStatus},
        workload::Workload,
    },
    registry::ObjectName,
    runtime::{
        objects::{Object, Objects},
        queue::Queue,
        reconciler::{Driver, PassError, Plan, Reconciler, name_of},
        supervisor::{Stage, Supervisor},
        wakeups::Wakeups,
    },
};

pub type PromotionPlan = Plan<PromotionStatus, Action>;

/// The controller. Its memory is of commands under way, and is never needed: a fresh process runs them again.
pub struct PromotionReconciler<O: Objects> {
    objects: O,
    containers: Arc<dyn Containers>,
    probes: Arc<dyn Probes>,
    commands: Commands,
}

impl<O: Objects> PromotionReconciler<O> {
    /// `wakeups` is told when a command ends.
    pub fn new(context: &Context<O>, wakeups: &Wakeups) -> Self {
        Self {
            objects: context.objects.clone(),
            containers: context.containers.clone(),
            probes: context.probes.clone(),
            commands: Commands::new(context.containers.clone(), wakeups.clone()),
        }
    }
}

impl<O: Objects> Reconciler for PromotionReconciler<O> {
    type Object = Promotion;
    type Status = PromotionStatus;
    type Observed = Observed;
    type Action = Action;

    const NAME: &'static str = "promotion";
    const FINALIZER: Option<&'static str> = Some(PROMOTION_FINALIZER);

    async fn observe(&self, promotion: &Promotion) -> Result<Observed, PassError> {
        self.look(promotion).await
    }

    fn decide(promotion: &Promotion, observed: &Observed, now: Timestamp) -> PromotionPlan {
        decide::decide(promotion, observed, now)
    }

    async fn apply(&self, promotion: &Promotion, action: &Action) -> Result<(), PassError> {
        self.carry_out(promotion, action).await
    }

    fn action_name(action: &Action) -> &'static str {
        match action {
            Action::SetWorkload { .. } => "SetWorkload",
            Action::MakeHandoff { .. } => "MakeHandoff",
            Action::CancelHandoff { .. } => "CancelHandoff",
            Action::RunCommand { .. } => "RunCommand",
        }
    }

    fn forget(&self, name: &ObjectName) {
        self.commands.forget(name);
    }
}

/// Starts the controller's two tasks.
pub fn spawn<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    let wakeups = Wakeups::default();
    let reconciler = Arc::new(PromotionReconciler::new(context, &wakeups));
    let driver = Driver::new(
        reconciler,
        context.objects.clone(),
        context.recorder.clone(),
        context.clock.clone(),
        context.metrics.clone(),
        context.seed,
    );
    let queue = Queue::new(Arc::new(driver), wakeups.clone());
    let (objects, promotions) = (context.objects.clone(), queue.store());
    supervisor.spawn(Stage::Controllers, "promotions", |shutdown| async move {
        queue.run(shutdown).await;
        Ok::<(), Infallible>(())
    });
    supervisor.spawn(Stage::Controllers, "promotion-hints", |shutdown| async move {
        hints(objects, promotions, wakeups, shutdown).await;
        Ok::<(), Infallible>(())
    });
}

/// Wakes the promotions that wait for what has changed. Runs until `shutdown`.
async fn hints<O: Objects>(objects: O, promotions: Store<Promotion>, wakeups: Wakeups, shutdown: CancellationToken) {
    let changes = stream::select_all([
        objects.watch::<Workload>().filter_map(|event| ready(changed(&event))).boxed(),
        objects.watch::<Handoff>().filter_map(|event| ready(changed(&event))).boxed(),
        objects.watch::<Gpu>().filter_map(|event| ready(changed(&event))).boxed(),
    ]);
    let mut changes = std::pin::pin!(changes.take_until(shutdown.cancelled_owned()));
    while let Some(changed) = changes.next().await {
        for promotion in promotions.state() {
            if concerns(&promotion, &changed) {
                wakeups.wake(&name_of(&*promotion));
            }
        }
    }
}

/// Kind and name.
type Changed = (&'static str, ObjectName);

fn changed<K: Object>(event: &Event<K>) -> Option<Changed> {
    match event {
        Event::Apply(object) | Event::Delete(object) => {
            let kind = match &*K::kind(&()) {
                "Workload" => "Workload",
                "Handoff" => "Handoff",
                _ => "Gpu",
            };
            Some((kind, name_of(object)))
        }
        // At the start everything is looked at anyway.
        Event::Init | Event::InitApply(_) | Event::InitDone => None,
    }
}

fn concerns(promotion: &Promotion, (kind, changed): &Changed) -> bool {
    let under_way = promotion.status.as_ref().is_none_or(|status| !status.phase.is_terminal());
    let here = promotion.metadata.namespace == changed.namespace;
    under_way
        && match *kind {
            "Workload" => here && promotion.spec.workload == changed.name,
            "Handoff" => {
                let name = promotion.metadata.name.as_deref().unwrap_or_default();
                here && changed.name.starts_with(name)
            }
            // Which cards are whose is the workload's to say: few promotions run at a time.
            _ => true,
        }
}
