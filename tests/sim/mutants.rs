//! Controllers that decide wrongly on purpose, to see that the simulator finds it: each bug is one that somebody could write.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use futures::{FutureExt, future::BoxFuture};
use gaia::{
    adapters::gpus::{GpuDevice, GpuError, GpuSample, Gpus},
    api::{
        gpu::{Gpu, GpuStatus, Lease},
        gpuclaim::{GpuClaim, GpuClaimPhase, GpuClaimStatus},
        handoff::{Handoff, HandoffPhase, HandoffStatus},
        workload::Workload,
    },
    controllers::{
        gpu::{self, GpuReconciler, leases},
        gpuclaim::{self, GpuClaimReconciler},
        handoff::{self, HandoffReconciler, proof::Proof},
        workload::{self, WorkloadReconciler, right::Right},
    },
    registry::ObjectName,
    runtime::{
        reconciler::{PassError, Plan, Reconciler},
        registry_objects::RegistryObjects,
    },
};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::bugs::Bug;

/// A controller with the bug that is planted, if it is one of its own.
pub struct Mutant<R> {
    inner: R,
    bug: Bug,
    /// When this process began.
    since: Timestamp,
    memory: Mutex<BTreeSet<String>>,
}

impl<R> Mutant<R> {
    pub fn new(inner: R, bug: Bug, since: Timestamp) -> Self {
        Self { inner, bug, since, memory: Mutex::default() }
    }
}

/// What the decision is told beside what was seen.
#[derive(Debug, Clone, Copy)]
pub struct Plant {
    bug: Bug,
    since: Timestamp,
}

/// A controller whose bugs are known here. `see` spoils what it sees, `spoil` what it plans.
pub trait Mutable: Reconciler {
    fn see(_: Bug, _: &Mutex<BTreeSet<String>>, _: &Self::Object, _: &mut Self::Observed) {}

    fn spoil(_: Plant, _: &Self::Object, _: &mut Plan<Self::Status, Self::Action>) {}
}

impl<R: Mutable> Reconciler for Mutant<R> {
    type Object = R::Object;
    type Status = R::Status;
    type Observed = (Plant, R::Observed);
    type Action = R::Action;

    const NAME: &'static str = R::NAME;
    const FINALIZER: Option<&'static str> = R::FINALIZER;

    async fn observe(&self, object: &R::Object) -> Result<Self::Observed, PassError> {
        let mut seen = self.inner.observe(object).await?;
        R::see(self.bug, &self.memory, object, &mut seen);
        Ok((Plant { bug: self.bug, since: self.since }, seen))
    }

    fn decide(object: &R::Object, (plant, seen): &Self::Observed, now: Timestamp) -> Plan<R::Status, R::Action> {
        let mut plan = R::decide(object, seen, now);
        R::spoil(*plant, object, &mut plan);
        plan
    }

    async fn apply(&self, object: &R::Object, action: &R::Action) -> Result<(), PassError> {
        self.inner.apply(object, action).await
    }

    fn action_name(action: &R::Action) -> &'static str {
        R::action_name(action)
    }

    fn related(changed: &R::Object, all: &[Arc<R::Object>]) -> Vec<ObjectName> {
        R::related(changed, all)
    }

    fn forget(&self, name: &ObjectName) {
        self.inner.forget(name);
    }
}

impl Mutable for WorkloadReconciler<RegistryObjects> {
    fn see(bug: Bug, memory: &Mutex<BTreeSet<String>>, object: &Workload, seen: &mut workload::observed::Observed) {
        let Ok(view) = &mut seen.engine else { return };
        for (variant, seen) in [("live", &mut view.live), ("candidate", &mut view.candidate)] {
            let key = format!("{}-{variant}", object.name_any());
            match bug {
                Bug::StartsWithoutRight => seen.right = Right::Granted,
                Bug::OnceAHolder => {
                    let mut held = memory.lock().expect("never poisoned");
                    if seen.right == Right::Granted {
                        held.insert(key);
                    } else if held.contains(&key) {
                        seen.right = Right::Granted;
                    }
                }
                _ => {}
            }
        }
    }
}

impl Mutable for GpuReconciler<RegistryObjects> {
    fn see(bug: Bug, memory: &Mutex<BTreeSet<String>>, object: &Gpu, seen: &mut gpu::Seen) {
        if bug == Bug::ChangesItsMind {
            let mut memory = memory.lock().expect("never poisoned");
            if !memory.remove(&object.name_any()) {
                memory.insert(object.name_any());
                seen.world.claims.clear();
                seen.world.workloads.clear();
            }
        }
    }

    fn spoil(plant: Plant, object: &Gpu, plan: &mut Plan<GpuStatus, leases::Action>) {
        let before = object.status.clone().unwrap_or_default();
        let Some(status) = &mut plan.status else { return };
        let moved = status.fencing_token > before.fencing_token;
        match plant.bug {
            Bug::TokenStays if moved => status.fencing_token = before.fencing_token,
            Bug::KeepsTheOldLease if moved => {
                let is_new = |lease: &&Lease| !before.leases.iter().any(|old| old.lease_id == lease.lease_id);
                let new: Vec<Lease> = status.leases.iter().filter(is_new).cloned().collect();
                status.set_leases([before.leases, new].concat());
            }
            Bug::MovesAtOnce => {
                let created = plan.stages.iter().flatten().find_map(|action| match action {
                    leases::Action::Create(handoff) => Some(handoff.clone()),
                    leases::Action::Prune(_) => None,
                });
                if let Some(to) = created.and_then(|handoff| handoff.spec.to.clone()) {
                    status.fencing_token += 1;
                    let lease_id = status.fencing_token.to_string();
                    let fencing_token = status.fencing_token;
                    let lease = Lease { holder: to, lease_id, fencing_token, ..Default::default() };
                    status.set_leases(vec![lease]);
                    plan.stages.clear();
                }
            }
            Bug::LeavesItIdle => {
                let from_somebody =
                    |action: &leases::Action| !matches!(action, leases::Action::Create(h) if h.spec.from.is_none());
                plan.stages.iter_mut().for_each(|stage| stage.retain(from_somebody));
            }
            _ => {}
        }
    }
}

impl Mutable for GpuClaimReconciler<RegistryObjects> {
    fn spoil(plant: Plant, object: &GpuClaim, plan: &mut Plan<GpuClaimStatus, gpuclaim::Action>) {
        let lapses = plan.status.as_ref().is_some_and(|status| status.phase == GpuClaimPhase::Expired);
        if plant.bug == Bug::NeverLapses && lapses {
            plan.status = object.status.clone();
        }
    }
}

impl Mutable for HandoffReconciler<RegistryObjects> {
    fn see(bug: Bug, _: &Mutex<BTreeSet<String>>, _: &Handoff, seen: &mut handoff::observe::Observed) {
        if bug == Bug::NeedsNoProof {
            seen.proof = Some(Proof { free_since: Some(Timestamp::MAX), ..Proof::default() });
        }
    }

    fn spoil(plant: Plant, object: &Handoff, plan: &mut Plan<HandoffStatus, handoff::decide::Action>) {
        let made = object.creation_timestamp().map(|at| at.0);
        if plant.bug == Bug::ForgetsAfterACrash && made.is_some_and(|at| at < plant.since) {
            *plan = Plan::leave();
        }
        let Some(status) = &mut plan.status else { return };
        match plant.bug {
            Bug::PutsNobodyBack if status.rollback.is_some() => {
                status.rollback = None;
                status.phase = HandoffPhase::Failed;
                plan.stages.clear();
            }
            Bug::ReturnsTooEarly => {
                if let Some(rollback) = &mut status.rollback {
                    rollback.return_lease = true;
                }
            }
            _ => {}
        }
    }
}

impl Mutable for gaia::controllers::promotion::PromotionReconciler<RegistryObjects> {}

impl Mutant<()> {
    /// The cards as the planted bug makes the process see them.
    pub fn of_cards(cards: Arc<dyn Gpus>, bug: Bug) -> Arc<dyn Gpus> {
        if bug == Bug::SilenceIsFree { Arc::new(SilenceIsFree(cards)) } else { cards }
    }
}

/// What a driver does not tell counts as nothing there.
struct SilenceIsFree(Arc<dyn Gpus>);

impl Gpus for SilenceIsFree {
    fn inventory(&self) -> BoxFuture<'_, Result<Vec<GpuDevice>, GpuError>> {
        self.0.inventory()
    }

    fn sample<'a>(&'a self, uuid: &'a str) -> BoxFuture<'a, Result<GpuSample, GpuError>> {
        async move {
            let sample = self.0.sample(uuid).await.ok();
            let told = |sample: &GpuSample| (sample.memory_used_mib.unwrap_or(0), sample.processes.clone());
            let (used, processes) = sample.as_ref().map(told).unwrap_or_default();
            let processes = Some(processes.unwrap_or_default());
            Ok(GpuSample { memory_total_mib: 24_564, memory_used_mib: Some(used), processes })
        }
        .boxed()
    }
}
