//! What the controllers would write, by the same rules in the fewest words: who asks first is granted, a handoff goes
//! through its phases, a container that shall run runs.

use std::sync::{Arc, Mutex};

use futures::{StreamExt, stream};
use gaia::{
    api::{
        gpu::{Gpu, Holder, Lease, QueueEntry},
        gpuclaim::{GpuClaim, GpuClaimPhase, GpuClaimSpec},
        handoff::{Handoff, HandoffPhase, HandoffReason},
        workload::{Variant, VariantHealth, VariantState, VariantStatus, Workload, WorkloadStatus},
    },
    registry::{ApiResult, ObjectName},
    runtime::{objects::Objects, registry_objects::RegistryObjects},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

/// What shall happen to handoffs.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<Fate>>);

#[derive(Clone, Default)]
pub enum Fate {
    #[default]
    Completes,
    /// Stays where it waits for the memory until it is cancelled.
    Hangs,
    Fails(HandoffReason, &'static str),
}

impl Script {
    pub fn set(&self, fate: Fate) {
        *self.0.lock().expect("nobody panicked") = fate;
    }

    fn get(&self) -> Fate {
        self.0.lock().expect("nobody panicked").clone()
    }
}

pub struct Judge {
    pub objects: RegistryObjects,
    pub script: Script,
}

impl Judge {
    pub async fn run(self, stop: CancellationToken) {
        let kinds = [
            self.objects.watch::<Gpu>().map(|_| ()).boxed(),
            self.objects.watch::<GpuClaim>().map(|_| ()).boxed(),
            self.objects.watch::<Handoff>().map(|_| ()).boxed(),
            self.objects.watch::<Workload>().map(|_| ()).boxed(),
        ];
        let mut changes = stream::select_all(kinds);
        while !stop.is_cancelled() {
            // A conflict is somebody else's write, which wakes us again.
            self.pass().await.ok();
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changes.next() => {}
            }
        }
    }

    async fn pass(&self) -> ApiResult<()> {
        for workload in self.objects.list::<Workload>(None).await? {
            self.workload(&workload).await?;
        }
        for gpu in self.objects.list::<Gpu>(None).await? {
            for handoff in self.objects.list::<Handoff>(None).await? {
                self.handoff(&handoff).await?;
            }
            let fresh = self.objects.get::<Gpu>(&ObjectName { namespace: None, name: gpu.name_any() }).await?;
            self.grant((*fresh.unwrap_or(gpu)).clone()).await?;
        }
        Ok(())
    }

    async fn workload(&self, workload: &Workload) -> ApiResult<()> {
        let variant = |running: bool, hash: String| VariantStatus {
            state: if running { VariantState::Running } else { VariantState::Absent },
            health: if running { VariantHealth::Healthy } else { VariantHealth::Unknown },
            container_id: running.then_some(hash),
            ..VariantStatus::default()
        };
        let spec = &workload.spec;
        let mut now = workload.clone();
        now.status = Some(WorkloadStatus {
            observed_generation: workload.metadata.generation,
            active: Some(spec.active),
            live: spec.live.as_ref().map(|live| variant(live.running, live.container.hash())),
            candidate: spec.candidate.as_ref().map(|candidate| variant(candidate.running, candidate.container.hash())),
            ..WorkloadStatus::default()
        });
        self.objects.update_status(now).await.map(|_| ())
    }

    async fn grant(&self, mut gpu: Gpu) -> ApiResult<()> {
        let mut status = gpu.status.clone().unwrap_or_default();
        let mut claims: Vec<_> = self.objects.list::<GpuClaim>(None).await?;
        claims.retain(|claim| !claim.spec.release && !phase(claim).is_terminal());
        claims.sort_by_key(|claim| {
            (-claim.spec.priority, claim.metadata.creation_timestamp.clone().map(|t| t.0), claim.name_any())
        });
        let current = status.leases.first().cloned();
        let stays = claims.iter().find(|c| current.as_ref().is_some_and(|lease| lease.claim == Some(path(c))));
        let preempts = claims.first().filter(|c| c.spec.preemption == gaia::api::gpuclaim::Preemption::LowerPriority);
        let first = preempts.or(stays).or(claims.first());
        let busy = status.handoff.is_some();
        let holder = first.map(|claim| claim.spec.holder.clone()).or(gpu.spec.owner.clone());
        if !busy && !same(current.as_ref(), holder.as_ref(), first.map(|claim| path(claim))) {
            status.fencing_token += 1;
            let lease = |holder: Holder| Lease {
                holder,
                lease_id: format!("lease-{}", status.fencing_token),
                fencing_token: status.fencing_token,
                claim: first.map(|claim| path(claim)),
                reason: first.map(|claim| claim.spec.reason.clone()).unwrap_or_default(),
                acquired_at: Some(Time(jiff::Timestamp::now())),
                shared_mib: None,
            };
            let leases = holder.map(lease).into_iter().collect();
            status.set_leases(leases);
        }
        let held = status.leases.first().and_then(|lease| lease.claim.clone());
        let waiting: Vec<_> = claims.iter().filter(|claim| Some(path(claim)) != held).collect();
        let entry = |claim: &&Arc<GpuClaim>| QueueEntry {
            claim: path(claim),
            holder: claim.spec.holder.clone(),
            priority: claim.spec.priority,
            since: None,
        };
        status.queue = waiting.iter().map(entry).collect();
        gpu.status = Some(status.clone());
        self.objects.update_status(gpu).await?;
        for claim in &claims {
            let mut claim = (**claim).clone();
            let mut now = claim.status.clone().unwrap_or_default();
            let position = waiting.iter().position(|waiting| path(waiting) == path(&claim));
            now.phase = if position.is_some() { GpuClaimPhase::Pending } else { GpuClaimPhase::Granted };
            now.position = position.map(|position| position as u32 + 1);
            now.lease_id = if position.is_some() { None } else { status.lease_id.clone() };
            claim.status = Some(now);
            self.objects.update_status(claim).await?;
        }
        Ok(())
    }

    async fn handoff(&self, handoff: &Handoff) -> ApiResult<()> {
        let mut now = handoff.clone();
        let mut status = now.status.clone().unwrap_or_default();
        if status.phase.is_terminal() {
            return Ok(());
        }
        let name = ObjectName { namespace: None, name: handoff.spec.gpu.clone() };
        let Some(gpu) = self.objects.get::<Gpu>(&name).await? else { return Ok(()) };
        let mut gpu = (*gpu).clone();
        let mut card = gpu.status.clone().unwrap_or_default();
        let own = format!("default/{}", handoff.name_any());
        if card.handoff.as_ref().is_some_and(|other| *other != own) {
            return Ok(());
        }
        card.handoff = Some(own);
        let fate = self.script.get();
        let at = Some(Time(jiff::Timestamp::now()));
        status.started_at = status.started_at.or(at.clone().map(|at| MicroTime(at.0)));
        let mut fails = |phase, reason: HandoffReason, error: &str| {
            status.phase = phase;
            status.error = Some(error.to_owned());
            status.conditions = vec![Condition {
                type_: "Ready".to_owned(),
                status: "False".to_owned(),
                reason: reason.to_string(),
                message: error.to_owned(),
                observed_generation: None,
                last_transition_time: Time(jiff::Timestamp::now()),
            }];
        };
        match fate {
            _ if handoff.spec.cancel => fails(HandoffPhase::Cancelled, HandoffReason::Cancelled, "cancelled"),
            Fate::Hangs => {
                status.phase = HandoffPhase::WaitingCudaCleanup;
                status.progress_pct = 30;
            }
            Fate::Fails(reason, error) => fails(HandoffPhase::Failed, reason, error),
            Fate::Completes => {
                self.move_lease(handoff, &mut card).await?;
                status.phase = HandoffPhase::Completed;
                status.progress_pct = 100;
            }
        }
        if status.phase.is_terminal() {
            status.completed_at = at.map(|at| MicroTime(at.0));
            card.handoff = None;
        }
        gpu.status = Some(card);
        self.objects.update_status(gpu).await?;
        now.status = Some(status);
        self.objects.update_status(now).await.map(|_| ())
    }

    /// The old holder's claims end, and the new holder gets one unless the card is its own.
    async fn move_lease(&self, handoff: &Handoff, card: &mut gaia::api::gpu::GpuStatus) -> ApiResult<()> {
        for claim in self.objects.list::<GpuClaim>(None).await? {
            if Some(&claim.spec.holder) == handoff.spec.from.as_ref() {
                let name = ObjectName { namespace: claim.namespace(), name: claim.name_any() };
                self.objects.delete::<GpuClaim>(&name).await?;
            }
        }
        let to = handoff.spec.to.clone().expect("the facade names who gets it");
        let is_owner = to.name == "gaia-prime" && to.variant == Variant::Live;
        let mut claim = GpuClaim::new(
            &handoff.name_any(),
            GpuClaimSpec {
                gpu: Some(handoff.spec.gpu.clone()),
                count: 1,
                holder: to.clone(),
                reason: handoff.spec.reason.clone(),
                ..GpuClaimSpec::default()
            },
        );
        claim.metadata.namespace = Some("default".to_owned());
        let claim = if is_owner { None } else { self.objects.create(claim).await.ok() };
        card.fencing_token += 1;
        let lease = Lease {
            holder: to,
            lease_id: format!("lease-{}", card.fencing_token),
            fencing_token: card.fencing_token,
            claim: claim.map(|claim| path(&claim)),
            ..Lease::default()
        };
        card.set_leases(vec![lease]);
        Ok(())
    }
}

fn phase(claim: &GpuClaim) -> GpuClaimPhase {
    claim.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

fn path(claim: &GpuClaim) -> String {
    format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any())
}

fn same(lease: Option<&Lease>, holder: Option<&Holder>, claim: Option<String>) -> bool {
    match (lease, holder) {
        (None, None) => true,
        (Some(lease), Some(holder)) => lease.holder == *holder && lease.claim == claim,
        (None, Some(_)) | (Some(_), None) => false,
    }
}
