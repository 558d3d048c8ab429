//! Workloads: from the spec to containers that run.
//!
//! Reads Workloads and the engine; writes the status of Workloads and nobody else's. Our loop is the only restarter:
//! containers of ours have the engine's restart policy `no`.
//!
//! | file | question |
//! |---|---|
//! | [`observed`] | what a pass sees, and what it may do: plain values |
//! | [`observe`], [`dependencies`] | how it is seen |
//! | [`decide`], [`variant`], [`failover`], [`status`], [`conclusion`] | what follows: pure |
//! | [`apply`], [`failures`], [`puller`] | how it is brought about, and what is remembered of refusals |
//! | [`prober`] | how containers are |
//! | [`hints`] | who is woken when the engine tells something |
//! | [`right`] | whether a variant may use the cards it names |
//! | [`names`], [`reason`] | what things are called |
//!
//! What counts as ours: a container with our owner's uid and a variant among its labels. Nothing else is ever made,
//! renamed, attached or removed; a container that a spec adopts by name is started and stopped, no more. What Compose made
//! for the service that a spec was taken from is taken over while it is as the spec says, and gives way to one of ours when the
//! spec changes ([`variant`]).

pub mod apply;
pub mod conclusion;
pub mod decide;
pub mod dependencies;
pub mod failover;
pub mod failures;
pub mod hints;
pub mod names;
pub mod observe;
pub mod observed;
pub mod prober;
pub mod puller;
pub mod reason;
pub mod right;
pub mod status;
#[cfg(test)]
mod tests;
pub mod variant;

use std::{convert::Infallible, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;

use self::{
    failures::Failures,
    hints::Hints,
    observed::{Action, Observed},
    prober::Prober,
    puller::Puller,
};
use super::{Context, handoff::wakes};
use crate::{
    adapters::containers::Containers,
    api::{
        FINALIZER,
        gpu::Gpu,
        workload::{Workload, WorkloadStatus},
    },
    registry::ObjectName,
    runtime::{
        clock::Clock,
        controller,
        events::Recorder,
        objects::Objects,
        reconciler::{PassError, Plan, Reconciler, name_of},
        supervisor::{Stage, Supervisor},
        wakeups::{Wake, Wakeups},
    },
};

/// The controller. Its memory (failures, pulls, probe answers) speeds it up and is never needed: a fresh process finds
/// everything again by looking.
pub struct WorkloadReconciler<O: Objects> {
    objects: O,
    containers: Arc<dyn Containers>,
    prober: Prober,
    puller: Puller,
    failures: Failures,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    node: String,
}

impl<O: Objects> WorkloadReconciler<O> {
    /// `wakeups` is told whatever happens beside the passes: probes that flip, pulls that end.
    pub fn new(context: &Context<O>, wakeups: &Wakeups) -> Self {
        let containers = context.containers.clone();
        let clock = context.clock.clone();
        Self {
            objects: context.objects.clone(),
            prober: Prober::new(containers.clone(), context.probes.clone(), clock.clone(), wakeups.clone()),
            puller: Puller::new(containers.clone(), context.recorder.clone(), clock.clone(), wakeups.clone()),
            failures: Failures::default(),
            recorder: context.recorder.clone(),
            node: context.node.clone(),
            containers,
            clock,
        }
    }
}

impl<O: Objects> Reconciler for WorkloadReconciler<O> {
    type Object = Workload;
    type Status = WorkloadStatus;
    type Observed = Observed;
    type Action = Action;

    const NAME: &'static str = "workload";
    const FINALIZER: Option<&'static str> = Some(FINALIZER);

    async fn observe(&self, workload: &Workload) -> Result<Observed, PassError> {
        self.look(workload).await
    }

    fn decide(workload: &Workload, observed: &Observed, now: Timestamp) -> Plan<WorkloadStatus, Action> {
        decide::decide(workload, observed, now)
    }

    async fn apply(&self, workload: &Workload, action: &Action) -> Result<(), PassError> {
        self.carry_out(workload, action).await
    }

    fn action_name(action: &Action) -> &'static str {
        action.verb().into()
    }

    /// Those that depend on it.
    fn related(changed: &Workload, all: &[Arc<Workload>]) -> Vec<ObjectName> {
        let name = changed.name_any();
        let depends = |other: &Workload| {
            other.metadata.namespace == changed.metadata.namespace
                && other.spec.depends_on.iter().any(|dependency| dependency.workload == name)
        };
        all.iter().filter(|other| depends(other)).map(|other| name_of(&**other)).collect()
    }

    fn forget(&self, name: &ObjectName) {
        self.failures.forget(name);
        self.prober.keep_only(name, &[]);
    }
}

/// Starts the controller's tasks.
pub fn spawn<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    let wakeups = Wakeups::default();
    let reconciler = WorkloadReconciler::new(context, &wakeups);
    let mut workloads = controller::start("workloads", reconciler, wakeups.clone(), context.basis(), supervisor);
    let store = workloads.store.clone();
    let known = store.clone();
    workloads.follow("workload-cards-followed", move |gpu: &Gpu| {
        let name = gpu.name_any();
        let uses = |w: &Workload| w.spec.gpu.as_ref().is_some_and(|gpu| gpu.members.contains(&name));
        known.state().iter().filter(|w| uses(w)).map(|w| Wake::One(name_of(&**w))).collect()
    });
    workloads.follow("workload-handoffs-followed", wakes::of_handoff_on_sides);
    let hints = Hints { containers: context.containers.clone(), store, wakeups, metrics: context.metrics.clone() };
    supervisor.spawn(Stage::Controllers, "engine-hints", |shutdown| async move {
        hints.run(shutdown).await;
        Ok::<(), Infallible>(())
    });
}
