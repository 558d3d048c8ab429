//! From changes of objects to news: who has the card, handoffs, health of the stack. Knows what it saw last, and nothing
//! else; what was there at the start is no news.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use futures::{StreamExt, stream};
use kube::runtime::watcher::Event;
use tokio_util::sync::CancellationToken;

use super::{
    Gaia,
    card::{owner_of, shown_lease},
    containers::{is_to_run, status_of},
    handoff::{destination, id_of, phase_of, source, type_name},
    names::{GAIA, NOBODY, PART_OF, container},
    notification::{self as told, HaStatus, News, Parties},
};
use crate::{
    api::{
        condition,
        gpu::Gpu,
        handoff::{Handoff, HandoffPhase},
        workload::{Variant, VariantHealth, VariantState, VariantStatus, Workload},
    },
    runtime::objects::Objects,
};

const CORE: &str = "gaia-core";

enum Seen {
    Gpu(Box<Event<Gpu>>),
    Handoff(Box<Event<Handoff>>),
    Workload(Box<Event<Workload>>),
}

/// Tells the hub until `stop`.
pub async fn run(gaia: Gaia, stop: CancellationToken) -> Result<(), Infallible> {
    let kinds = [
        gaia.objects.watch::<Gpu>().map(|event| Seen::Gpu(Box::new(event))).boxed(),
        gaia.objects.watch::<Handoff>().map(|event| Seen::Handoff(Box::new(event))).boxed(),
        gaia.objects.watch::<Workload>().map(|event| Seen::Workload(Box::new(event))).boxed(),
    ];
    let mut changes = stream::select_all(kinds);
    let mut observer = Observer::default();
    loop {
        // `next` takes nothing from the stream unless it is ready.
        let seen = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            seen = changes.next() => seen,
        };
        let news = match seen {
            Some(Seen::Gpu(event)) => observer.on_gpu(*event),
            Some(Seen::Handoff(event)) => observer.on_handoff(*event),
            Some(Seen::Workload(event)) => observer.on_workload(*event),
            // The store is closed: we are about to be told to end.
            None => {
                stop.cancelled().await;
                return Ok(());
            }
        };
        gaia.hub.set_availability(observer.ha);
        for news in news {
            gaia.hub.publish(news);
        }
    }
}

/// What is known of one variant of a service.
#[derive(Debug, Clone, Default, PartialEq)]
struct Service {
    healthy: Option<bool>,
    restarts: u32,
    stalled: bool,
}

#[derive(Debug, Default)]
struct Observer {
    owners: BTreeMap<String, (String, String)>,
    handoffs: BTreeMap<String, HandoffPhase>,
    /// The first list of handoffs is being read, or has been.
    listed: Option<bool>,
    listing: BTreeSet<String>,
    services: BTreeMap<String, Service>,
    standby_was_seen: bool,
    ha: Option<HaStatus>,
}

impl Observer {
    fn on_gpu(&mut self, event: Event<Gpu>) -> Vec<News> {
        match event {
            Event::InitApply(gpu) | Event::Apply(gpu) => self.gpu(&gpu),
            Event::Delete(gpu) => {
                self.owners.remove(&gpu.metadata.name.unwrap_or_default());
                Vec::new()
            }
            Event::Init | Event::InitDone => Vec::new(),
        }
    }

    fn on_handoff(&mut self, event: Event<Handoff>) -> Vec<News> {
        match event {
            Event::Init => {
                self.listing.clear();
                self.listed = Some(self.listed == Some(true));
                Vec::new()
            }
            Event::InitApply(handoff) => {
                self.listing.insert(id_of(&handoff));
                self.handoff(&handoff)
            }
            Event::InitDone => {
                let listing = std::mem::take(&mut self.listing);
                self.handoffs.retain(|id, _| listing.contains(id));
                self.listed = Some(true);
                Vec::new()
            }
            Event::Apply(handoff) => self.handoff(&handoff),
            Event::Delete(handoff) => {
                self.handoffs.remove(&id_of(&handoff));
                Vec::new()
            }
        }
    }

    fn on_workload(&mut self, event: Event<Workload>) -> Vec<News> {
        match event {
            Event::InitApply(workload) | Event::Apply(workload) => self.workload(&workload),
            Event::Delete(workload) => {
                let name = workload.metadata.name.unwrap_or_default();
                for variant in Variant::ALL {
                    self.services.remove(&container(&name, variant));
                }
                Vec::new()
            }
            Event::Init | Event::InitDone => Vec::new(),
        }
    }

    fn gpu(&mut self, gpu: &Gpu) -> Vec<News> {
        let name = gpu.metadata.name.clone().unwrap_or_default();
        let reason = shown_lease(gpu).map(|lease| lease.reason.clone()).unwrap_or_default();
        let now = (owner_of(gpu), reason);
        let Some(before) = self.owners.insert(name, now.clone()).filter(|before| before.0 != now.0) else {
            return Vec::new();
        };
        let released = (before.0 != NOBODY).then(|| told::gpu_released(&before.0, &before.1));
        let acquired = (now.0 != NOBODY).then(|| told::gpu_acquired(&now.0, &now.1));
        released.into_iter().chain(acquired).collect()
    }

    fn handoff(&mut self, handoff: &Handoff) -> Vec<News> {
        let (id, phase) = (id_of(handoff), phase_of(handoff));
        let before = self.handoffs.insert(id.clone(), phase);
        if self.listed != Some(true) || before == Some(phase) {
            return Vec::new();
        }
        let (source, destination) = (source(handoff), destination(handoff));
        let parties = Parties { id: &id, type_: type_name(handoff), source: &source, destination: &destination };
        let mut news = Vec::new();
        if before.is_none() {
            news.push(told::handoff_started(parties));
        }
        let error = handoff.status.as_ref().and_then(|status| status.error.clone());
        match phase {
            HandoffPhase::Completed => news.push(told::handoff_completed(parties)),
            HandoffPhase::Failed => news.push(told::handoff_failed(&id, &error.unwrap_or_default())),
            HandoffPhase::Cancelled => {
                news.push(told::handoff_failed(&id, &error.unwrap_or_else(|| "cancelled".to_owned())));
            }
            HandoffPhase::Initiated
            | HandoffPhase::ReleasingGpu
            | HandoffPhase::WaitingCudaCleanup
            | HandoffPhase::TransferringOwnership
            | HandoffPhase::SignalingRecipient => {}
        }
        news
    }

    fn workload(&mut self, workload: &Workload) -> Vec<News> {
        let labels = workload.metadata.labels.as_ref();
        if labels.and_then(|labels| labels.get(PART_OF)).is_none_or(|part| part != GAIA) {
            return Vec::new();
        }
        let name = workload.metadata.name.clone().unwrap_or_default();
        let mut news = Vec::new();
        for variant in Variant::ALL {
            let wished = is_to_run(workload, variant);
            if let Some(status) = status_of(workload, variant) {
                news.extend(self.variant(&container(&name, variant), wished, status));
            }
        }
        news.extend(self.stalled(&name, workload));
        if name == CORE {
            news.extend(self.availability());
        }
        news
    }

    fn variant(&mut self, service: &str, wished: bool, status: &VariantStatus) -> Vec<News> {
        let first_look = !self.services.contains_key(service);
        let known = self.services.entry(service.to_owned()).or_default();
        let mut news = Vec::new();
        if status.restarts > known.restarts && !first_look {
            let code = status.exit_code.map_or_else(String::new, |code| format!(" with code {code}"));
            news.push(told::service_error(service, &format!("{service} exited{code} and was restarted")));
        }
        known.restarts = status.restarts;
        let before = known.healthy;
        known.healthy = health(wished, status, before);
        if let (Some(before), Some(now)) = (before, known.healthy)
            && before != now
        {
            news.push(told::service_health_change(service, now));
        }
        news
    }

    /// What somebody must mend.
    fn stalled(&mut self, name: &str, workload: &Workload) -> Option<News> {
        let conditions = workload.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let stalled = conditions.iter().find(|c| c.type_ == condition::STALLED && c.status == "True");
        let known = self.services.entry(name.to_owned()).or_default();
        let before = std::mem::replace(&mut known.stalled, stalled.is_some());
        let why = stalled.filter(|_| !before)?;
        Some(told::service_error(name, &format!("{}: {}", why.reason, why.message)))
    }

    fn availability(&mut self) -> Option<News> {
        let healthy = |service: &str| self.services.get(service).and_then(|service| service.healthy);
        let live = healthy(CORE)?;
        let candidate = healthy(&container(CORE, Variant::Candidate)).unwrap_or(false);
        self.standby_was_seen |= candidate;
        let now = HaStatus::of(live, candidate, self.standby_was_seen);
        let before = self.ha.replace(now)?;
        (before != now).then(|| told::ha_status_change(before, now))
    }
}

/// None: not meant to run, or not known yet. While it starts, what was known stays.
fn health(wished: bool, status: &VariantStatus, before: Option<bool>) -> Option<bool> {
    match (status.state, status.health) {
        _ if !wished => None,
        (VariantState::Running, VariantHealth::Healthy) => Some(true),
        (VariantState::Running, VariantHealth::Unhealthy) => Some(false),
        (VariantState::Running, VariantHealth::Starting | VariantHealth::Unknown) | (VariantState::Unknown, _) => {
            before
        }
        // It ran, and does not any more although it should.
        (VariantState::Absent | VariantState::Created | VariantState::Paused | VariantState::Exited, _) => {
            before.map(|_| false)
        }
    }
}

#[cfg(test)]
mod tests;
