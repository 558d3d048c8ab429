//! The card that GAIA's API is about, and who has it in the words of its wire.

use std::{ops::Deref, sync::Arc};

use axum::http::StatusCode;

use super::{
    Gaia,
    containers::{is_to_run, status_of},
    names::{NOBODY, PRIME, SLEEPER, external, wire},
    reply::Refusal,
};
use crate::{
    api::{
        gpu::{Gpu, HolderKind, Lease},
        workload::{Variant, VariantState, Workload},
    },
    registry::ObjectName,
    runtime::objects::Objects,
};

/// A card as it is, and what the wire makes of it.
#[derive(Clone)]
pub struct Card {
    gpu: Arc<Gpu>,
    /// Its owner has it for want of anybody else, and was stopped on purpose: nobody has it, on the wire.
    pub rests: bool,
}

impl Deref for Card {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

impl Card {
    pub fn name(&self) -> String {
        self.metadata.name.clone().unwrap_or_default()
    }

    /// The lease that the wire shows.
    pub fn shown_lease(&self) -> Option<&Lease> {
        if self.rests { None } else { shown_lease(self) }
    }

    pub fn owner(&self) -> String {
        self.shown_lease().map_or_else(|| NOBODY.to_owned(), |lease| wire(&lease.holder))
    }

    pub fn is_handed_over(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.handoff.is_some())
    }

    /// The lease of the declared owner that nothing but ownership stands behind: any claim would end it.
    pub fn owners_lease(&self) -> Option<&Lease> {
        let owner = self.spec.owner.as_ref()?;
        self.status.as_ref()?.lease_of(owner).filter(|lease| lease.claim.is_none())
    }

    pub fn sleeps(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.lease_of(&external(SLEEPER)).is_some())
    }
}

/// The lease that the wire shows: the first that is not the sleeper's.
pub fn shown_lease(gpu: &Gpu) -> Option<&Lease> {
    gpu.status.iter().flat_map(|status| &status.leases).find(|lease| wire(&lease.holder) != NOBODY)
}

/// Who has the card, in the wire's words.
pub fn owner_of(gpu: &Gpu) -> String {
    shown_lease(gpu).map_or_else(|| NOBODY.to_owned(), |lease| wire(&lease.holder))
}

/// It was stopped on purpose, and that is seen.
fn was_stopped(workload: &Workload, variant: Variant) -> bool {
    let state = status_of(workload, variant).map(|status| status.state);
    !is_to_run(workload, variant)
        && matches!(state, None | Some(VariantState::Absent | VariantState::Created | VariantState::Exited))
}

impl Gaia {
    /// The card that GAIA is about: the one that Prime names, else the first of this host.
    pub(super) async fn card(&self) -> Result<Option<Card>, Refusal> {
        let Some(gpu) = self.gpu().await? else { return Ok(None) };
        let mut card = Card { gpu, rests: false };
        let holder = card.owners_lease().map(|lease| lease.holder.clone());
        if let Some(holder) = holder.filter(|holder| holder.kind == HolderKind::Workload) {
            let workload = self.workload(&holder.name).await?;
            card.rests = workload.is_some_and(|workload| was_stopped(&workload, holder.variant));
        }
        Ok(Some(card))
    }

    async fn gpu(&self) -> Result<Option<Arc<Gpu>>, Refusal> {
        let prime = self.workload(PRIME).await?;
        let member = prime.as_ref().and_then(|prime| prime.spec.gpu.as_ref()?.members.first().cloned());
        if let Some(name) = member
            && let Some(gpu) = self.objects.get::<Gpu>(&ObjectName { namespace: None, name }).await?
        {
            return Ok(Some(gpu));
        }
        let mut cards = self.objects.list::<Gpu>(None).await?;
        cards.sort_by_key(|gpu| {
            let seen = gpu.status.as_ref().and_then(|status| status.index);
            (seen.or(gpu.spec.device.index).unwrap_or(u32::MAX), gpu.metadata.name.clone())
        });
        Ok(cards.into_iter().next())
    }

    /// As [`card`](Self::card), where nothing can be done without one.
    pub(super) async fn needed_card(&self) -> Result<Card, Refusal> {
        let none = || Refusal::new(StatusCode::NOT_IMPLEMENTED, "GPU manager not available");
        self.card().await?.ok_or_else(none)
    }
}
