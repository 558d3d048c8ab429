//! What a pass over a handoff sees: the card, both sides, the step under way, and the samples of the card. Reads only.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    HandoffReconciler,
    decide::{self, Leaver},
    proof::{self, Proof, Subject},
    runner::Answer,
    steps,
};
use crate::{
    adapters::containers::{ContainerSummary, EngineError, EngineResult},
    api::{
        gpu::{CleanupPolicy, Gpu, GpuProcess, GpuStatus, Holder, HolderKind, RequiredProof},
        gpuclaim::GpuClaim,
        handoff::{Handoff, HandoffPhase},
        label, quantity,
        workload::{Variant, Workload},
    },
    controllers::{
        gpu::{holding, leases},
        workload::names,
    },
    registry::{ApiError, ObjectName},
    runtime::{
        objects::Objects,
        reconciler::{PassError, name_of},
    },
};

#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub gpu: Option<Arc<Gpu>>,
    /// The handoff that the card's status names has not ended, and is not this one.
    pub other_runs: Option<String>,
    pub from: Option<Party>,
    pub to: Option<Party>,
    /// Of the step that the status says is running; None: nobody is at it.
    pub answer: Option<Answer>,
    /// When that answer came.
    pub answered_at: Option<Timestamp>,
    /// None: no driver can be asked.
    pub proof: Option<Proof>,
    /// A claim of `to` for this card stands.
    pub claim_stands: bool,
    /// It was made for a claim, and that is over.
    pub claim_ended: bool,
}

/// One side of a handoff that is a Workload of ours.
#[derive(Debug, Clone)]
pub struct Party {
    pub holder: Holder,
    pub workload: Arc<Workload>,
    /// Of its variant.
    pub containers: Vec<ContainerSummary>,
    /// The workloads that its steps speak to.
    pub peers: Vec<Neighbour>,
}

/// A workload that a step of another speaks to. Its container is looked up when it is spoken to: it may be about to start.
#[derive(Debug, Clone)]
pub struct Neighbour {
    pub name: String,
    pub active: Variant,
    /// The name of the active variant's container, if somebody else made it.
    pub adopted: Option<String>,
}

impl<O: Objects> HandoffReconciler<O> {
    pub(super) async fn look(&self, handoff: &Handoff) -> Result<Observed, PassError> {
        let phase = handoff.status.as_ref().map(|s| s.phase).unwrap_or_default();
        if phase.is_terminal() {
            if let Some(sampler) = &self.sampler {
                sampler.forget(&name_of(handoff));
            }
            return Ok(Observed::default());
        }
        let read = |source: ApiError| PassError::Objects { doing: "read the card and its holders", source };
        let name = ObjectName { namespace: None, name: handoff.spec.gpu.clone() };
        let mut observed = Observed { gpu: self.objects.get::<Gpu>(&name).await.map_err(read)?, ..Observed::default() };
        observed.other_runs = self.other(handoff, observed.gpu.as_deref()).await.map_err(read)?;
        let own = name_of(handoff);
        let running = decide::running(handoff);
        if handoff.status.as_ref().is_some_and(|status| status.rollback.is_some()) {
            self.runner.keep_only(&own, running);
        }
        // Before the engine is asked: what it lists is then as it was left by the step, or younger.
        observed.answer = running.and_then(|key| self.runner.answer(&own, key));
        let done = running.filter(|_| matches!(observed.answer, Some(Answer::Done(_))));
        observed.answered_at = done.and_then(|key| self.runner.answered_at(&own, key));
        let bearing = bearing(handoff, observed.gpu.as_deref());
        observed.from = self.party(handoff.spec.from.as_ref()).await?;
        observed.to = self.party(handoff.spec.to.as_ref()).await?;
        let containers = self.listed(bearing, observed.to.as_ref()).await.map_err(engine)?;
        let leaver = decide::leaver(handoff, observed.gpu.as_deref());
        let turns_back = handoff.status.as_ref().is_some_and(|status| status.rollback.is_some());
        for (party, look) in [
            (&mut observed.from, look(Leaver::From, leaver, bearing, turns_back)),
            (&mut observed.to, look(Leaver::To, leaver, bearing, turns_back)),
        ] {
            let Some(party) = party else { continue };
            party.containers = self.containers_of(party, &containers, bearing, look).await.map_err(engine)?;
        }
        if let (Some(to), Some(gpu)) = (&handoff.spec.to, &observed.gpu) {
            let claims = self.objects.list::<GpuClaim>(None).await.map_err(read)?;
            observed.claim_stands = claim_stands(to, gpu, &claims);
            observed.claim_ended = claim_ended(handoff, gpu, &claims);
        }
        observed.proof = self.proof(handoff, &observed, &containers);
        let by_engine = observed.gpu.as_ref().is_some_and(|gpu| gpu.spec.cleanup.proof == RequiredProof::EngineOnly);
        if by_engine && bearing == Bearing::Everybody {
            let leaves = match leaver {
                Leaver::To => &observed.to,
                Leaver::From | Leaver::Nobody => &observed.from,
            };
            let containers = leaves.as_ref().map(|party| party.containers.as_slice()).unwrap_or_default();
            observed.proof = Some(proof::on_the_engines_word(observed.proof.take(), containers));
        }
        Ok(observed)
    }

    async fn other(&self, handoff: &Handoff, gpu: Option<&Gpu>) -> Result<Option<String>, ApiError> {
        let Some(full) = gpu.and_then(|gpu| gpu.status.as_ref()?.handoff.clone()) else { return Ok(None) };
        let Some((namespace, name)) = full.split_once('/') else { return Ok(None) };
        let other = ObjectName { namespace: Some(namespace.to_owned()), name: name.to_owned() };
        if other == name_of(handoff) {
            return Ok(None);
        }
        let found = self.objects.get::<Handoff>(&other).await?;
        Ok(found.filter(|h| !h.status.as_ref().is_some_and(|s| s.phase.is_terminal())).map(|_| full))
    }

    /// Without its containers.
    async fn party(&self, holder: Option<&Holder>) -> Result<Option<Party>, PassError> {
        let Some(holder) = holder.filter(|h| h.kind == HolderKind::Workload) else { return Ok(None) };
        let name = ObjectName { namespace: Some(holder.namespace.clone()), name: holder.name.clone() };
        let read = |source| PassError::Objects { doing: "read the workload", source };
        let Some(workload) = self.objects.get::<Workload>(&name).await.map_err(read)? else { return Ok(None) };
        let mut peers = Vec::new();
        for peer in steps::peers(&workload) {
            let found = self.objects.get::<Workload>(&ObjectName { name: peer.clone(), ..name.clone() }).await;
            let found = found.map_err(read)?;
            let active = found.as_ref().and_then(|w| w.status.as_ref()?.active).unwrap_or_default();
            let adopted = found.as_ref().and_then(|w| steps::adopted(w, active)).map(str::to_owned);
            peers.push(Neighbour { name: peer, active, adopted });
        }
        Ok(Some(Party { holder: holder.clone(), workload, containers: Vec::new(), peers }))
    }

    async fn listed(&self, bearing: Bearing, to: Option<&Party>) -> EngineResult<Vec<ContainerSummary>> {
        match (bearing, to) {
            (Bearing::Everybody, _) => self.containers.summaries(None).await,
            (Bearing::Recipient, Some(to)) => {
                self.containers.summaries(Some((label::OWNER_UID, Some(uid(&to.workload))))).await
            }
            (Bearing::Recipient, None) | (Bearing::Nobody, _) => Ok(Vec::new()),
        }
    }

    async fn containers_of(
        &self,
        party: &Party,
        all: &[ContainerSummary],
        bearing: Bearing,
        look: Look,
    ) -> EngineResult<Vec<ContainerSummary>> {
        let (workload, variant) = (&*party.workload, party.holder.variant);
        let (owner, adopted) = (Some(uid(workload)), steps::adopted(workload, variant));
        let is_its = |c: &&ContainerSummary| {
            names::owner(&c.labels) == owner && names::variant(&c.labels) == Some(variant)
                || adopted == Some(c.name.as_str())
        };
        let mut its = Vec::new();
        for listed in all.iter().filter(is_its) {
            let is_told = match look {
                Look::Never => true,
                Look::IfStopped => !proof::is_stopped(listed.state),
                Look::Always => false,
            };
            match is_told {
                true => its.push(listed.clone()),
                false => its.extend(self.containers.inspect(&listed.id.0).await?.as_ref().map(ContainerSummary::from)),
            }
        }
        // Of the new holder alone only what is ours was listed.
        if let Some(adopted) = adopted.filter(|_| bearing == Bearing::Recipient) {
            its.extend(self.containers.inspect(adopted).await?.as_ref().map(ContainerSummary::from));
        }
        Ok(its)
    }

    /// Begins to sample the card, or goes on, while somebody is to be seen leaving it.
    fn proof(&self, handoff: &Handoff, observed: &Observed, all: &[ContainerSummary]) -> Option<Proof> {
        let (sampler, gpu) = (self.sampler.as_ref()?, observed.gpu.as_ref()?);
        let name = name_of(handoff);
        let Some(subject) = subject(handoff, gpu, observed.from.as_ref(), observed.to.as_ref(), all) else {
            return sampler.rest(&name);
        };
        let after = observed.answered_at.or_else(|| decide::last_release(handoff));
        Some(sampler.watch(&name, subject, after))
    }
}

/// Whose containers a pass has to see. The engine is not asked for more: it has its hands full with the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bearing {
    /// It waits for the gpu controller.
    Nobody,
    /// It waits for the new holder.
    Recipient,
    /// Somebody is to be seen leaving the card, and whoever else is on it is known by its container.
    Everybody,
}

/// Whose containers are inspected, which waits for what the engine is doing with them. Its list waits for nothing, and tells what
/// was before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Nothing of it depends on what they do: only which they are.
    Never,
    /// By the list, what is being stopped runs on: whoever is to leave the card is not waited for. What does not run by it may be
    /// about to start.
    IfStopped,
    Always,
}

fn look(side: Leaver, leaver: Leaver, bearing: Bearing, turns_back: bool) -> Look {
    match side {
        Leaver::To if !turns_back && bearing == Bearing::Everybody => Look::Never,
        // Also before it is asked to leave.
        Leaver::From if !turns_back => Look::IfStopped,
        _ if side == leaver => Look::IfStopped,
        _ => Look::Always,
    }
}

fn bearing(handoff: &Handoff, gpu: Option<&Gpu>) -> Bearing {
    let status = handoff.status.as_ref();
    let turns_back = status.is_some_and(|status| status.rollback.is_some());
    match status.map(|status| status.phase).unwrap_or_default() {
        _ if turns_back => Bearing::Everybody,
        HandoffPhase::Initiated if decide::is_let_in(handoff, gpu) => Bearing::Everybody,
        HandoffPhase::TransferringOwnership if status.is_some_and(|status| decide::has_moved(status, gpu)) => {
            Bearing::Recipient
        }
        HandoffPhase::Initiated | HandoffPhase::TransferringOwnership => Bearing::Nobody,
        HandoffPhase::ReleasingGpu | HandoffPhase::WaitingCudaCleanup => Bearing::Everybody,
        HandoffPhase::SignalingRecipient => Bearing::Recipient,
        HandoffPhase::Completed | HandoffPhase::Failed | HandoffPhase::Cancelled => Bearing::Nobody,
    }
}

fn uid(workload: &Workload) -> &str {
    workload.metadata.uid.as_deref().unwrap_or_default()
}

fn stands(claim: &GpuClaim, gpu: &Gpu) -> bool {
    let name = holding::claim_name(claim);
    let held = holding::leases(gpu).iter().any(|lease| lease.claim.as_ref() == Some(&name));
    holding::is_active(claim, usize::from(held))
}

/// `to` has a claim that holds this card or may get it.
pub fn claim_stands(to: &Holder, gpu: &Gpu, claims: &[Arc<GpuClaim>]) -> bool {
    let its = |claim: &&Arc<GpuClaim>| claim.spec.holder == *to && holding::is_eligible(claim, gpu);
    claims.iter().filter(its).any(|claim| stands(claim, gpu))
}

/// It was made for a claim, and that is over.
pub fn claim_ended(handoff: &Handoff, gpu: &Gpu, claims: &[Arc<GpuClaim>]) -> bool {
    let made_for = handoff.annotations().get(leases::CLAIM);
    made_for.is_some_and(|name| !claims.iter().any(|c| holding::claim_name(c) == *name && stands(c, gpu)))
}

/// What the samples of the card are to show. None: nobody is to be seen leaving it, or no driver has ever told which card
/// it is.
pub fn subject(
    handoff: &Handoff,
    gpu: &Gpu,
    from: Option<&Party>,
    to: Option<&Party>,
    all: &[ContainerSummary],
) -> Option<Subject> {
    let status = gpu.status.as_ref()?;
    let (holder, leaves, stays) = match decide::leaver(handoff, Some(gpu)) {
        Leaver::Nobody => return None,
        Leaver::From => (&handoff.spec.from, from, to),
        Leaver::To => (&handoff.spec.to, to, from),
    };
    let mib = |text: &str| quantity::mib(text).unwrap_or(0);
    let ids = |party: Option<&Party>| {
        party.into_iter().flat_map(|p| p.containers.iter().map(|c| c.id.clone())).collect::<Vec<_>>()
    };
    let workload = holder.as_ref().filter(|holder| holder.kind == HolderKind::Workload);
    let sharers = holding::leases(gpu).iter().any(|lease| Some(&lease.holder) != holder.as_ref());
    let policy = gpu.spec.cleanup.policy;
    Some(Subject {
        uuid: status.uuid.clone()?,
        from: ids(leaves),
        // Also when its Workload is gone: what that left behind is nobody else's.
        from_pids: workload.map(|holder| pids_of(status, holder)).unwrap_or_default(),
        others_count: leaves.is_none() && !sharers,
        known: status.processes.iter().filter(|p| p.workload.is_some()).map(|p| p.pid).collect(),
        containers: all.iter().map(|c| c.id.clone()).collect(),
        recipient: ids(stays),
        processes: policy != CleanupPolicy::Memory && leaves.is_some(),
        memory: policy != CleanupPolicy::Processes || leaves.is_none(),
        floor_mib: mib(&gpu.spec.cleanup.free_below) + gpu.spec.reserve.as_deref().map_or(0, mib),
        samples: gpu.spec.cleanup.samples as usize,
        interval_ms: gpu.spec.cleanup.interval_ms,
    })
}

fn pids_of(status: &GpuStatus, holder: &Holder) -> Vec<u32> {
    let workload = format!("{}/{}", holder.namespace, holder.name);
    let its = |p: &&GpuProcess| p.workload.as_ref() == Some(&workload) && p.variant == Some(holder.variant);
    status.processes.iter().filter(its).map(|p| p.pid).collect()
}

fn engine(error: EngineError) -> PassError {
    PassError::Effect { doing: "look at the holders' containers".to_owned(), source: Box::new(error) }
}
