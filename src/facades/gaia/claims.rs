//! Claims that the facade makes for its callers, and how they end: a caller who goes, or never comes to fetch what was
//! granted, must not keep the card.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use super::{
    Gaia, Turn,
    card::Card,
    in_namespace,
    names::{GAIA, NAMESPACE, SLEEPER, external, wire},
    reply::{Refusal, stamp},
};
use crate::{
    api::{
        gpu::{Holder, Lease},
        gpuclaim::{GpuClaim, GpuClaimSpec, GpuClaimStatus, Preemption},
    },
    registry::{ObjectName, Reason},
    runtime::objects::Objects,
};

/// On claims made by the facade: nobody else reads them, so they go when they have ended.
pub const LABEL: &str = "gaia.dev/facade";
/// A lease that was granted to a waiting caller lapses after so long unless the caller has been told of it.
pub const PICKUP_SECONDS: u32 = 60;
/// The sleeper's: whatever anybody asks for goes before it.
pub const LOWEST_PRIORITY: i64 = -1_000_000;
pub const HIGHEST_PRIORITY: i64 = 1_000_000;
/// How much longer than a waiting claim the claim stands that it waits for.
const OUTLASTS_SECONDS: u32 = 5;
/// As long as a claim waits that does not say.
const DEFAULT_WAIT_SECONDS: u32 = 300;
/// The controllers answer in milliseconds.
const KEPT_WITHIN: Duration = Duration::from_secs(5);
/// How often a name that an old claim still has is tried.
const ATTEMPTS: usize = 4;

/// What is asked for on behalf of a caller.
#[derive(Debug, Clone)]
pub struct Wish {
    pub gpu: String,
    pub holder: Holder,
    pub reason: String,
    pub priority: i64,
    /// Seconds it may wait in the queue.
    pub timeout_seconds: Option<u32>,
    pub preemption: Preemption,
    /// The lease lapses after so long unless its caller is told of it.
    pub ttl_seconds: Option<u32>,
}

impl Wish {
    fn spec(&self) -> GpuClaimSpec {
        GpuClaimSpec {
            gpu: Some(self.gpu.clone()),
            count: 1,
            holder: self.holder.clone(),
            reason: self.reason.chars().take(1024).collect(),
            priority: self.priority.clamp(LOWEST_PRIORITY, HIGHEST_PRIORITY) as i32,
            preemption: self.preemption,
            timeout_seconds: self.timeout_seconds,
            ttl_seconds: self.ttl_seconds,
            ..GpuClaimSpec::default()
        }
    }

    /// In nobody's name, and behind everybody: the card is kept free while nobody asks for it.
    pub fn to_sleep(card: &Card) -> Self {
        Self {
            gpu: card.name(),
            holder: external(SLEEPER),
            reason: "sleep_cycle".to_owned(),
            priority: LOWEST_PRIORITY,
            timeout_seconds: None,
            preemption: Preemption::Never,
            ttl_seconds: None,
        }
    }

    fn claim(&self) -> GpuClaim {
        let mut claim = GpuClaim::new("", self.spec());
        claim.metadata = ObjectMeta {
            namespace: Some(NAMESPACE.to_owned()),
            labels: Some([(LABEL.to_owned(), GAIA.to_owned())].into()),
            ..ObjectMeta::default()
        };
        claim
    }
}

/// Asked for, and not yet given back or over.
pub fn is_active(claim: &GpuClaim) -> bool {
    let over = claim.status.as_ref().is_some_and(|status| status.phase.is_terminal());
    !over && !claim.spec.release && claim.metadata.deletion_timestamp.is_none()
}

pub fn status_of(claim: &GpuClaim) -> GpuClaimStatus {
    claim.status.clone().unwrap_or_default()
}

fn is_ours(claim: &GpuClaim) -> bool {
    claim.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL))
}

impl Gaia {
    pub(super) async fn claim(&self, name: &ObjectName) -> Result<Option<Arc<GpuClaim>>, Refusal> {
        Ok(self.objects.get::<GpuClaim>(name).await?)
    }

    /// One claim a holder: who asks again keeps the place it has.
    pub(super) async fn queue_once(&self, wish: &Wish) -> Result<ObjectName, Refusal> {
        let claims = self.objects.list::<GpuClaim>(None).await?;
        let mine = |claim: &&Arc<GpuClaim>| {
            is_active(claim) && claim.spec.holder == wish.holder && claim.spec.gpu.as_ref() == Some(&wish.gpu)
        };
        if let Some(claim) = claims.iter().find(mine) {
            return Ok(name_of(claim));
        }
        let name = format!("gaia-api-{}", wire(&wish.holder));
        for _ in 0..ATTEMPTS {
            let mut claim = wish.claim();
            claim.metadata.name = Some(name.clone());
            match self.objects.create(claim).await {
                Ok(made) => return Ok(name_of(&made)),
                Err(error) if error.reason == Reason::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            match self.claim(&in_namespace(&name)).await? {
                Some(claim) if is_active(&claim) => return Ok(name_of(&claim)),
                // What is over is read by nobody any more.
                Some(claim) => self.objects.delete::<GpuClaim>(&name_of(&claim)).await?,
                None => {}
            }
        }
        Err(Refusal::failed(format!("claim {name} is being removed; try again")))
    }

    /// The wish as it must be made to wait for whom the wire shows, and for nobody else. A sleeper gives way to it and
    /// sleeps on afterwards; the owner, who would give way to any claim, gets one of its own while the wish may wait.
    pub(super) async fn made_way(&self, wish: &Wish) -> Result<Wish, Refusal> {
        let card = self.needed_card().await?;
        let mut wish = wish.clone();
        if card.sleeps() {
            self.sleep_again(&card).await?;
            wish.preemption = Preemption::LowerPriority;
        } else if let Some(lease) = card.owners_lease().filter(|lease| lease.holder != wish.holder)
            && !card.rests
            && self.running_handoff(&card).await?.is_none()
        {
            self.keep_for_owner(&wish, &lease.holder).await?;
        }
        Ok(wish)
    }

    /// Behind whoever takes the card from the sleeper: when they are done, it goes back to sleep, and not to its owner.
    async fn sleep_again(&self, card: &Card) -> Result<(), Refusal> {
        let mut claim = Wish::to_sleep(card).claim();
        claim.metadata.generate_name = Some("gaia-sleep-".to_owned());
        self.objects.create(claim).await?;
        Ok(())
    }

    /// Ends as soon as nobody can be waiting any more, so that claims made elsewhere find the owner as ready to lend as ever.
    async fn keep_for_owner(&self, wish: &Wish, owner: &Holder) -> Result<(), Refusal> {
        let seconds = wish.timeout_seconds.unwrap_or(DEFAULT_WAIT_SECONDS).saturating_add(OUTLASTS_SECONDS);
        let keep = Wish {
            gpu: wish.gpu.clone(),
            holder: owner.clone(),
            reason: "keeps its card while somebody waits for it".to_owned(),
            priority: LOWEST_PRIORITY + 1,
            timeout_seconds: None,
            preemption: Preemption::Never,
            ttl_seconds: Some(seconds),
        };
        let mut changes = self.changes();
        let name = self.queue_once(&keep).await?;
        // One without an end is the owner's own, by which it holds until it gives it back.
        if let Some(ttl) = self.claim(&name).await?.and_then(|claim| claim.spec.ttl_seconds) {
            let spec = json!({"ttlSeconds": ttl.max(seconds), "renewedAt": stamp(self.clock.now())});
            self.patch::<GpuClaim>(&name, json!({"spec": spec})).await?;
        }
        // A claim that came before it was seen to hold would win against it.
        let deadline = Instant::now() + KEPT_WITHIN;
        while self.needed_card().await?.owners_lease().is_some() {
            if self.turn(&mut changes, deadline).await != Turn::Changed {
                break;
            }
        }
        Ok(())
    }

    /// A claim of one waiting call.
    pub(super) async fn queue_caller(&self, wish: &Wish) -> Result<Waiter, Refusal> {
        let mut claim = wish.claim();
        claim.metadata.generate_name = Some(format!("gaia-wait-{}-", wire(&wish.holder)));
        let made = self.objects.create(claim).await?;
        Ok(Waiter { gaia: self.clone(), claim: Some(name_of(&made)) })
    }

    /// The caller is being told of its lease: from now on it holds until it is given back.
    pub(super) async fn hand_over(&self, lease: &Lease) -> Result<(), Refusal> {
        let Some(name) = lease.claim.as_deref().and_then(split) else { return Ok(()) };
        let Some(claim) = self.claim(&name).await?.filter(|claim| is_ours(claim)) else { return Ok(()) };
        if claim.spec.ttl_seconds.is_some() {
            let patch = json!({"spec": {"ttlSeconds": null, "timeoutSeconds": null}});
            self.patch::<GpuClaim>(&name, patch).await?;
        }
        Ok(())
    }

    /// Gives back what a lease was granted to. False: no claim is behind it, so that there is nothing to give back.
    pub(super) async fn give_back(&self, lease: &Lease) -> Result<bool, Refusal> {
        match lease.claim.as_deref().and_then(split) {
            Some(name) => self.end_claim(&name).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Our own go; those of others are kept to be read.
    pub(super) async fn end_claim(&self, name: &ObjectName) -> Result<(), Refusal> {
        match self.claim(name).await? {
            Some(claim) if is_ours(&claim) => Ok(self.objects.delete::<GpuClaim>(name).await?),
            Some(_) => match self.patch::<GpuClaim>(name, json!({"spec": {"release": true}})).await {
                Err(error) if error.reason != Reason::NotFound => Err(error.into()),
                Ok(()) | Err(_) => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// The claim of a call that waits. Dropped with the call, however that ends, it takes its claim along.
pub struct Waiter {
    gaia: Gaia,
    claim: Option<ObjectName>,
}

impl Waiter {
    pub fn name(&self) -> Option<&ObjectName> {
        self.claim.as_ref()
    }

    /// The claim stays: its caller has the lease.
    pub fn keep(mut self) {
        self.claim = None;
    }

    /// Leaves the queue before the answer is given.
    pub async fn leave(mut self) -> Result<(), Refusal> {
        if let Some(name) = &self.claim {
            self.gaia.objects.delete::<GpuClaim>(name).await?;
        }
        self.claim = None;
        Ok(())
    }
}

impl Drop for Waiter {
    /// The caller hung up. Should we end before this is done, the claim's own limits end it.
    fn drop(&mut self) {
        let (Some(name), Ok(runtime)) = (self.claim.take(), tokio::runtime::Handle::try_current()) else { return };
        let objects = self.gaia.objects.clone();
        runtime.spawn(async move {
            if let Err(error) = objects.delete::<GpuClaim>(&name).await {
                warn!(claim = name.name, %error, "the claim of a caller who went away stays until it times out");
            }
        });
    }
}

pub fn name_of(claim: &GpuClaim) -> ObjectName {
    let metadata = &claim.metadata;
    ObjectName { namespace: metadata.namespace.clone(), name: metadata.name.clone().unwrap_or_default() }
}

/// `namespace/name`
pub fn split(path: &str) -> Option<ObjectName> {
    let (namespace, name) = path.split_once('/')?;
    Some(ObjectName { namespace: Some(namespace.to_owned()), name: name.to_owned() })
}
