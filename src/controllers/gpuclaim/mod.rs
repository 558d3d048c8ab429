//! Claims: what becomes of each. Reads GpuClaims and Gpus; writes the status of GpuClaims and nobody else's. Grants nothing:
//! whether a claim has its cards is read from the cards' leases.

pub mod decide;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;

use super::Context;
use crate::{
    api::{
        gpu::Gpu,
        gpuclaim::{GpuClaim, GpuClaimStatus},
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

pub struct GpuClaimReconciler<O: Objects> {
    objects: O,
}

impl<O: Objects> GpuClaimReconciler<O> {
    pub fn new(context: &Context<O>) -> Self {
        Self { objects: context.objects.clone() }
    }
}

/// What is left to do about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It has been over for long.
    Delete,
}

impl<O: Objects> Reconciler for GpuClaimReconciler<O> {
    type Object = GpuClaim;
    type Status = GpuClaimStatus;
    type Observed = decide::Observed;
    type Action = Action;

    const NAME: &'static str = "gpuclaim";
    const FINALIZER: Option<&'static str> = None;

    async fn observe(&self, claim: &GpuClaim) -> Result<decide::Observed, PassError> {
        // Kept to be read for a while; nothing bears on them any more.
        if claim.status.as_ref().is_some_and(|status| status.phase.is_terminal()) {
            return Ok(decide::Observed::default());
        }
        let read = |source| PassError::Objects { doing: "read the cards", source };
        let gpus = self.objects.list::<Gpu>(None).await.map_err(read)?;
        let claims = self.objects.list::<GpuClaim>(None).await.map_err(read)?;
        Ok(decide::Observed { gpus, claims })
    }

    fn decide(claim: &GpuClaim, observed: &decide::Observed, now: Timestamp) -> Plan<GpuClaimStatus, Action> {
        decide::decide(claim, observed, now)
    }

    async fn apply(&self, claim: &GpuClaim, action: &Action) -> Result<(), PassError> {
        match action {
            Action::Delete => {
                let gone = self.objects.delete::<GpuClaim>(&name_of(claim)).await;
                gone.map_err(|source| PassError::Objects { doing: "delete the claim", source })
            }
        }
    }

    fn action_name(action: &Action) -> &'static str {
        match action {
            Action::Delete => "Delete",
        }
    }

    fn related(_: &GpuClaim, _: &[Arc<GpuClaim>]) -> Vec<ObjectName> {
        Vec::new()
    }
}

/// Starts the controller's tasks.
pub fn spawn<O: Objects>(context: &Context<O>, supervisor: &mut Supervisor) {
    let reconciler = GpuClaimReconciler::new(context);
    let mut claims = controller::start("gpuclaims", reconciler, Wakeups::default(), context.basis(), supervisor);
    claims.follow("claims-cards-followed", |_: &Gpu| vec![Wake::Everything]);
}
