//! Handoffs: a card goes from one holder to another, as a transaction that is proven.
//!
//! Expected flow, each line a status written before anything is done about it:
//! 1. `Initiated`: waits until the gpu controller lets it in (`Gpu.status.handoff`); refused if `from` does not hold the card.
//! 2. `ReleasingGpu`, `WaitingCudaCleanup`: the old holder's release steps in their order, then `onStuck`, until the card is
//!    *seen* to be free ([`proof`]).
//! 3. `TransferringOwnership`: the gpu controller moves the lease, with a higher fencing token.
//! 4. `SignalingRecipient`: the new holder's acquire steps.
//! 5. `Completed`; a claim of the new holder stands, so that who should hold the card is who does.
//!
//! Any failure rolls back, and so does who calls it off before 5, but for the moment of 3: before it the old holder's acquire
//! steps run, once a stop that is under way has ended; after it the new holder is stopped first, and the lease goes back. It ends
//! `Failed` or `Cancelled`, and says what putting back came to.
//!
//! Guarantees: the lease moves only after the proof; a crash after any line resumes from the status and from what is seen.
//! Assumption: steps are idempotent, for after a crash the one that was under way is done again.

mod back;
#[cfg(test)]
mod back_tests;
pub mod decide;
pub mod fit;
#[cfg(test)]
mod flight;
mod give;
pub mod observe;
pub mod proof;
pub mod runner;
#[cfg(test)]
mod runner_tests;
pub mod sampler;
pub mod steps;
mod take;
#[cfg(test)]
mod tests;
pub mod wakes;
#[cfg(test)]
mod words_tests;

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use self::{decide::Action, observe::Observed, runner::Runner, sampler::Sampler};
use super::Context;
use crate::{
    adapters::{containers::Containers, gpus::Gpus},
    api::{
        gpu::Gpu,
        gpuclaim::{GpuClaim, GpuClaimSpec},
        handoff::{Handoff, HandoffStatus},
        workload::Workload,
    },
    registry::{ObjectName, Reason},
    runtime::{
        controller,
        objects::Objects,
        reconciler::{PassError, Plan, Reconciler},
        supervisor::Supervisor,
        wakeups::Wakeups,
    },
};

/// On a handoff until it has ended: who deletes it cancels it.
pub const FINALIZER: &str = "gaia.dev/handoff";

/// The controller. What it remembers (answers of steps, samples of the card) a fresh process asks for again.
pub struct HandoffReconciler<O: Objects> {
    objects: O,
    containers: Arc<dyn Containers>,
    runner: Runner,
    sampler: Option<Sampler>,
}

impl<O: Objects> HandoffReconciler<O> {
    pub fn new(context: &Context<O>, wakeups: &Wakeups) -> Self {
        let sampler = |gpus: Arc<dyn Gpus>| Sampler::new(gpus, context.clock.clone(), wakeups.clone());
        Self {
            objects: context.objects.clone(),
            containers: context.containers.clone(),
            runner: Runner::new(
                context.containers.clone(),
                context.peers.clone(),
                context.clock.clone(),
                wakeups.clone(),
            ),
            sampler: context.gpus.clone().map(sampler),
        }
    }

    /// The claim by which the new holder goes on holding. Called like the handoff; where that name is taken, by one that is over
    /// or is somebody else's, with the fencing token behind it, which is this handoff's alone.
    async fn ensure_claim(&self, handoff: &Handoff) -> Result<(), PassError> {
        for claim in claims_after(handoff) {
            match self.objects.create(claim).await {
                Err(error) if error.reason == Reason::AlreadyExists => {}
                Err(source) => return Err(PassError::Objects { doing: "make the new holder's claim", source }),
                Ok(_) => break,
            }
        }
        Ok(())
    }
}

/// The claim that the new holder has afterwards, under the names to be tried; empty: there is no new holder.
pub fn claims_after(handoff: &Handoff) -> Vec<GpuClaim> {
    let Some(holder) = handoff.spec.to.clone() else { return Vec::new() };
    let (gpu, reason) = (Some(handoff.spec.gpu.clone()), handoff.spec.reason.clone());
    let spec = GpuClaimSpec { gpu, count: 1, holder, reason, ..GpuClaimSpec::default() };
    let name = handoff.name_any();
    let token = handoff.status.as_ref().and_then(|status| status.fencing_token).unwrap_or_default();
    let claim = |name: String| {
        let mut claim = GpuClaim::new(&name, spec.clone());
        claim.metadata.namespace = handoff.metadata.namespace.clone();
        claim
    };
    [name.clone(), format!("{name}-{token}")].map(claim).into()
}

impl<O: Objects> Reconciler for HandoffReconciler<O> {
    type Object = Handoff;
    type Status = HandoffStatus;
    type Observed = Observed;
    type Action = Action;

    const NAME: &'static str = "handoff";
    const FINALIZER: Option<&'static str> = Some(FINALIZER);

    async fn observe(&self, handoff: &Handoff) -> Result<Observed, PassError> {
        self.look(handoff).await
    }

    fn decide(handoff: &Handoff, observed: &Observed, now: Timestamp) -> Plan<HandoffStatus, Action> {
        decide::decide(handoff, observed, now)
    }

    async fn apply(&self, handoff: &Handoff, action: &Action) -> Result<(), PassError> {
        match action {
            Action::Run { key, job } => {
                self.runner.run(handoff, *key, job.clone());
                Ok(())
            }
            Action::EnsureClaim => self.ensure_claim(handoff).await,
        }
    }

    fn action_name(action: &Action) -> &'static str {
        match action {
            Action::Run { .. } => "RunStep",
            Action::EnsureClaim => "EnsureClaim",
        }
    }

    fn forget(&self, name: &ObjectName) {
        self.runner.forget(name);
        if let Some(sampler) = &self.sampler {
            sampler.forget(name);
        }
    }
}

/// Starts the controller's tasks.
pub fn spawn<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    let wakeups = Wakeups::default();
    let reconciler = HandoffReconciler::new(context, &wakeups);
    let mut handoffs = controller::start("handoffs", reconciler, wakeups, context.basis(), supervisor);
    let store = handoffs.store.clone();
    let known = move || store.state();
    handoffs.follow("handoff-cards-followed", {
        let known = known.clone();
        move |gpu: &Gpu| wakes::of_card(gpu, &known())
    });
    handoffs.follow("handoff-claims-followed", {
        let known = known.clone();
        move |claim: &GpuClaim| wakes::of_claim(claim, &known())
    });
    handoffs.follow("handoff-workloads-followed", move |workload: &Workload| wakes::of_workload(workload, &known()));
}
