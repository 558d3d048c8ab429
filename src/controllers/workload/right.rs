//! Whether a variant may use the cards its workload names. It is not started without the right; it is never stopped for the
//! want of it (that is a handoff's business), unless it was started after the right had gone to somebody else.

use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    api::{
        gpu::{Gpu, HolderKind},
        handoff::Handoff,
        workload::{Variant, Workload},
    },
    controllers::gpu::holding::{holder_of, leases, uses_gpu},
};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Right {
    /// It names no card, or has it.
    #[default]
    Granted,
    /// May not be started. `lost_at`: when the card was granted to the one who has it now.
    Denied { message: String, lost_at: Option<Timestamp> },
}

/// The variant's container takes part in what `spec.gpu.members` says.
pub fn needs_card(workload: &Workload, variant: Variant) -> bool {
    let container = match variant {
        Variant::Live => workload.spec.live.as_ref().map(|live| &live.container),
        Variant::Candidate => workload.spec.candidate.as_ref().map(|candidate| &candidate.container),
    };
    let names_cards = workload.spec.gpu.as_ref().is_some_and(|gpu| !gpu.members.is_empty());
    names_cards && container.is_some_and(uses_gpu)
}

/// `cards`: what became of each name in `spec.gpu.members`, with the handoff under way on it.
pub fn right(workload: &Workload, variant: Variant, cards: &[(String, Option<&Gpu>, Option<&Handoff>)]) -> Right {
    if !needs_card(workload, variant) {
        return Right::Granted;
    }
    let me = holder_of(workload, variant);
    for (name, gpu, handoff) in cards {
        let Some(gpu) = gpu else {
            if workload.spec.gpu.as_ref().is_some_and(|gpu| gpu.runs_without) {
                continue;
            }
            return Right::Denied { message: format!("waits for {name}: there is no such Gpu"), lost_at: None };
        };
        let held = leases(gpu).iter().any(|lease| lease.holder == me);
        let giving = handoff.filter(|handoff| {
            let back = handoff.status.as_ref().is_some_and(|s| s.rollback.is_some());
            let side = if back { &handoff.spec.to } else { &handoff.spec.from };
            side.as_ref() == Some(&me)
        });
        if let Some(handoff) = giving {
            let message = format!("is giving {name} away (handoff {})", handoff.name_any());
            return Right::Denied { message, lost_at: None };
        }
        if !held && !workload.spec.gpu.as_ref().is_some_and(|gpu| gpu.runs_without) {
            let others: Vec<String> = leases(gpu).iter().map(|lease| lease.holder.to_string()).collect();
            let who = if others.is_empty() { "a lease".to_owned() } else { others.join(", ") };
            let lost_at = leases(gpu)
                .iter()
                .filter(|lease| lease.shared_mib.is_none() && lease.holder.kind == HolderKind::Workload)
                .filter_map(|lease| lease.acquired_at.as_ref())
                .map(|at| at.0)
                .max();
            return Right::Denied { message: format!("waits for {name}: {who}"), lost_at };
        }
    }
    Right::Granted
}

/// Started when the card was somebody else's.
pub fn started_without(right: &Right, started_at: Option<Timestamp>) -> bool {
    match (right, started_at) {
        (Right::Denied { lost_at: Some(lost), .. }, Some(started)) => started >= *lost,
        (Right::Denied { .. } | Right::Granted, _) => false,
    }
}
