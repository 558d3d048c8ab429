//! A Handoff object for what the wire calls a handoff, and why one failed in the wire's words.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::{
    Gaia,
    card::Card,
    handoff::{id_of, phase_of},
    in_namespace,
    names::{NAMESPACE, NOBODY, Owner, wire},
    reply::Refusal,
};
use crate::{
    api::{
        gpu::{Gpu, Lease},
        handoff::{Handoff, HandoffPhase, HandoffReason, HandoffSpec, HandoffType},
        workload::{Variant, Workload},
    },
    runtime::objects::Objects,
};

/// Whence and whither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    pub type_: HandoffType,
    pub from: Owner,
    pub to: Owner,
    /// What the object's name begins with.
    name: &'static str,
}

impl Direction {
    pub const PRIME_TO_STUDY: Self =
        Self { type_: HandoffType::PrimeToStudy, from: Owner::Core, to: Owner::Study, name: "prime-to-study" };
    pub const STUDY_TO_PRIME: Self =
        Self { type_: HandoffType::StudyToPrime, from: Owner::Study, to: Owner::Core, name: "study-to-prime" };
    pub const LIVE_TO_CANDIDATE: Self = Self {
        type_: HandoffType::LiveToCandidate,
        from: Owner::Core,
        to: Owner::CoreCandidate,
        name: "live-to-candidate",
    };
    pub const CANDIDATE_TO_LIVE: Self = Self {
        type_: HandoffType::CandidateToLive,
        from: Owner::CoreCandidate,
        to: Owner::Core,
        name: "candidate-to-live",
    };
}

/// A handoff as it was asked for.
#[derive(Debug, Clone)]
pub struct Order {
    pub direction: Direction,
    pub reason: String,
    pub timeout_seconds: i64,
}

impl Gaia {
    /// Makes the Handoff. Refused, without a trace, while another runs or when somebody else has the card.
    pub(super) async fn order(&self, order: &Order) -> Result<Arc<Handoff>, Refusal> {
        let gpu = self.needed_card().await?;
        if let Some(running) = self.running_handoff(&gpu).await? {
            return Err(Refusal::failed(format!("Handoff already in progress: {}", id_of(&running))));
        }
        let Direction { type_, from, to, name } = order.direction;
        let owner = gpu.owner();
        if owner != NOBODY && owner != from.wire() {
            return Err(Refusal::failed(wrong_owner(&owner, from.wire())));
        }
        self.let_run(to).await?;
        self.end_waiting_sleep(&gpu).await?;
        // Whoever has it, a sleeper too: nobody on the wire.
        let first: Option<&Lease> = gpu.status.as_ref().and_then(|status| status.leases.first());
        let spec = HandoffSpec {
            gpu: gpu.metadata.name.clone().unwrap_or_default(),
            type_,
            from: first.map(|lease| lease.holder.clone()),
            to: Some(self.holder(to).await?),
            reason: order.reason.chars().take(1024).collect(),
            timeout_seconds: u32::try_from(order.timeout_seconds).unwrap_or(u32::MAX),
            cancel: false,
        };
        let mut handoff = Handoff::new("", spec);
        handoff.metadata = ObjectMeta {
            namespace: Some(NAMESPACE.to_owned()),
            generate_name: Some(format!("{name}-")),
            ..ObjectMeta::default()
        };
        Ok(self.objects.create(handoff).await?)
    }

    /// The one that has the card, or that was just made and waits to be admitted.
    pub(super) async fn running_handoff(&self, gpu: &Gpu) -> Result<Option<Arc<Handoff>>, Refusal> {
        let all = self.objects.list::<Handoff>(None).await?;
        let admitted = gpu.status.as_ref().and_then(|status| status.handoff.clone());
        let path = |handoff: &Handoff| {
            let metadata = &handoff.metadata;
            Some(format!("{}/{}", metadata.namespace.as_deref()?, metadata.name.as_deref()?))
        };
        let mut running: Vec<_> = all
            .into_iter()
            .filter(|handoff| Some(&handoff.spec.gpu) == gpu.metadata.name.as_ref() && !phase_of(handoff).is_terminal())
            .collect();
        running.sort_by_key(|handoff| {
            (path(handoff) != admitted, handoff.metadata.creation_timestamp.clone().map(|t| t.0))
        });
        Ok(running.into_iter().next())
    }

    /// Whoever gets the card must be meant to run, or it would wait for its start for ever.
    pub(super) async fn let_run(&self, owner: Owner) -> Result<(), Refusal> {
        let Some((name, variant)) = owner.workload() else { return Ok(()) };
        let Some(workload) = self.workload(name).await? else { return Ok(()) };
        let spec = &workload.spec;
        let (there, runs, key) = match variant {
            Variant::Live => (spec.live.is_some(), spec.live.as_ref().is_some_and(|live| live.running), "live"),
            Variant::Candidate => {
                (spec.candidate.is_some(), spec.candidate.as_ref().is_some_and(|c| c.running), "candidate")
            }
        };
        if !there {
            return Err(Refusal::failed(format!("Workload {name} has no {key} variant")));
        }
        if !runs {
            self.patch::<Workload>(&in_namespace(name), json!({"spec": {key: {"running": true}}})).await?;
        }
        Ok(())
    }
}

fn wrong_owner(owner: &str, expected: &str) -> String {
    format!("Cannot handoff - GPU owned by {owner}, expected {expected}")
}

/// Why a handoff did not complete, in the words that clients of GAIA look for.
pub fn failure(handoff: &Handoff, gpu: Option<&Card>, other: Option<&str>) -> String {
    let status = handoff.status.clone().unwrap_or_default();
    if status.phase == HandoffPhase::Cancelled {
        return format!("Handoff {} was cancelled", id_of(handoff));
    }
    let told = status.error.clone().unwrap_or_else(|| "Handoff failed".to_owned());
    let is = |reason: HandoffReason| status.conditions.iter().any(|condition| condition.reason == reason.to_string());
    let source = handoff.spec.from.as_ref().map(wire).unwrap_or_default();
    if is(HandoffReason::WrongHolder) {
        return wrong_owner(
            &gpu.map_or_else(|| NOBODY.to_owned(), Card::owner),
            if source.is_empty() { NOBODY } else { &source },
        );
    }
    if let Some(other) = other.filter(|_| is(HandoffReason::AnotherInProgress)) {
        return format!("Handoff already in progress: {other}");
    }
    let reached = |phase: HandoffPhase| phase.progress_pct() == Some(status.progress_pct);
    let late = is(HandoffReason::DeadlineExceeded);
    if is(HandoffReason::ReleaseFailed) || (late && reached(HandoffPhase::ReleasingGpu)) {
        let who = if source.starts_with("gaia-study") { "Study" } else { "Core" };
        format!("{who} failed to acknowledge GPU release")
    } else if is(HandoffReason::MemoryNotFreed) || (late && reached(HandoffPhase::WaitingCudaCleanup)) {
        "GPU cleanup timeout - VRAM not released".to_owned()
    } else {
        told
    }
}
