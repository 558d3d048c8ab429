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

use std::sync::Arc;

use jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::Store};

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
        controller,
        objects::Objects,
        reconciler::{PassError, Plan, Reconciler, name_of},
        supervisor::Supervisor,
        wakeups::{Wake, Wakeups},
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

/// Starts the controller's tasks.
pub fn spawn<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    let wakeups = Wakeups::default();
    let reconciler = PromotionReconciler::new(context, &wakeups);
    let mut promotions = controller::start("promotions", reconciler, wakeups, context.basis(), supervisor);
    let waiting = |store: &Store<Promotion>, concerned: &dyn Fn(&Promotion) -> bool| {
        let waiting = |p: &Promotion| p.status.as_ref().is_none_or(|status| !status.phase.is_terminal());
        let all = store.state();
        all.iter().filter(|p| waiting(p) && concerned(p)).map(|p| Wake::One(name_of(&**p))).collect()
    };
    let store = promotions.store.clone();
    promotions.follow("promotion-workloads-followed", move |workload: &Workload| {
        let changed = name_of(workload);
        waiting(&store, &|p| p.metadata.namespace == changed.namespace && p.spec.workload == changed.name)
    });
    let store = promotions.store.clone();
    promotions.follow("promotion-handoffs-followed", move |handoff: &Handoff| {
        let changed = name_of(handoff);
        waiting(&store, &|p| p.metadata.namespace == changed.namespace && changed.name.starts_with(&p.name_any()))
    });
    let store = promotions.store.clone();
    // Which cards are whose is the workload's to say: few promotions run at a time.
    promotions.follow("promotion-cards-followed", move |_: &Gpu| waiting(&store, &|_| true));
}
