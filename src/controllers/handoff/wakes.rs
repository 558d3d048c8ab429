//! Whom a change concerns, around handoffs: of the handoffs only those that are under way, for the past ones of a card are many,
//! and a pass over each would take its time from the one that waits; and of a handoff's many changes only those by which others
//! decide. Hints, like every wake-up: who is not known yet is looked at when it becomes known.

use std::sync::Arc;

use kube::ResourceExt;

use crate::{
    api::{
        gpu::{Gpu, Holder, HolderKind},
        gpuclaim::GpuClaim,
        handoff::{Handoff, HandoffPhase},
        workload::Workload,
    },
    controllers::gpu::{holding, leases},
    registry::ObjectName,
    runtime::{reconciler::name_of, wakeups::Wake},
};

pub fn of_card(gpu: &Gpu, all: &[Arc<Handoff>]) -> Vec<Wake> {
    under_way(all, |handoff| handoff.spec.gpu == gpu.name_any())
}

/// One of the two sides.
pub fn of_workload(workload: &Workload, all: &[Arc<Handoff>]) -> Vec<Wake> {
    let (namespace, name) = (workload.namespace().unwrap_or_default(), workload.name_any());
    let is_it =
        |holder: &Holder| holder.kind == HolderKind::Workload && holder.namespace == namespace && holder.name == name;
    under_way(all, |handoff| handoff.spec.from.iter().chain(&handoff.spec.to).any(is_it))
}

/// The one that it led to, or that it is to stand after.
pub fn of_claim(claim: &GpuClaim, all: &[Arc<Handoff>]) -> Vec<Wake> {
    let full = holding::claim_name(claim);
    under_way(all, |handoff| {
        handoff.annotations().get(leases::CLAIM) == Some(&full) || handoff.spec.to.as_ref() == Some(&claim.spec.holder)
    })
}

fn under_way(all: &[Arc<Handoff>], concerns: impl Fn(&Handoff) -> bool) -> Vec<Wake> {
    let ended = |handoff: &Handoff| handoff.status.as_ref().is_some_and(|status| status.phase.is_terminal());
    let those = all.iter().filter(|handoff| !ended(handoff) && concerns(handoff));
    those.map(|handoff| Wake::One(name_of(&**handoff))).collect()
}

/// The card, by which the gpu controller decides: for a handoff that comes, one whose word moves the lease, and one that has
/// ended.
pub fn of_handoff_on_card(handoff: &Handoff) -> Vec<Wake> {
    let concerns = handoff.status.as_ref().is_none_or(|status| match &status.rollback {
        _ if status.phase.is_terminal() => true,
        Some(rollback) => rollback.return_lease,
        None => status.phase == HandoffPhase::TransferringOwnership,
    });
    let card = ObjectName { namespace: None, name: handoff.spec.gpu.clone() };
    if concerns { vec![Wake::One(card)] } else { Vec::new() }
}

/// Both sides, whose right to start depends on a handoff that turns back or has ended. That one has begun, the card tells.
pub fn of_handoff_on_sides(handoff: &Handoff) -> Vec<Wake> {
    let status = handoff.status.as_ref();
    if !status.is_some_and(|status| status.rollback.is_some() || status.phase.is_terminal()) {
        return Vec::new();
    }
    let sides = handoff.spec.from.iter().chain(&handoff.spec.to);
    let named = |holder: &Holder| ObjectName { namespace: Some(holder.namespace.clone()), name: holder.name.clone() };
    sides.filter(|holder| holder.kind == HolderKind::Workload).map(|holder| Wake::One(named(holder))).collect()
}
