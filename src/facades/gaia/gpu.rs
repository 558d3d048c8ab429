//! Who has the card, who waits for it, and the calls by which that changes.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    Gaia, Turn,
    body::Fields,
    card::Card,
    claims::{HIGHEST_PRIORITY, LOWEST_PRIORITY, PICKUP_SECONDS, Wish, status_of},
    names::{NOBODY, Owner, REQUESTERS, wire},
    reply::{Answer, Refusal, ok, stamp_of},
    routes::Asked,
};
use crate::{
    api::{
        gpu::{Gpu, Holder, Lease},
        gpuclaim::{GpuClaimPhase, Preemption},
    },
    registry::ObjectName,
};
use axum::http::StatusCode;

/// How long an acquire waits for what the controllers say to it. They answer in milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a release waits until the lease is seen to be gone.
const RELEASED_WITHIN: Duration = Duration::from_secs(2);
const DEFAULT_WAIT_SECONDS: i64 = 300;
/// Longer than anybody waits, and no more than an instant can hold.
const LONGEST_WAIT_SECONDS: i64 = 7 * 24 * 3600;

#[derive(Debug, Clone, Serialize)]
pub struct GpuView {
    pub owner: String,
    pub lease_id: Option<String>,
    pub reason: Option<String>,
    pub acquired_at: Option<String>,
    pub memory: Option<MemoryView>,
    /// Who waits, first come first.
    pub queue: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct MemoryView {
    pub total_mb: u64,
    pub used_mb: u64,
    pub free_mb: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acquired {
    pub success: bool,
    pub lease_id: Option<String>,
    pub message: String,
    pub queue_position: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Released {
    success: bool,
    message: String,
    queue_length: usize,
    /// Why the card is not free, where somebody might expect it to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// What a card looks like on the wire; without a card nobody has it.
pub fn view(gpu: Option<&Card>) -> GpuView {
    let lease = gpu.and_then(Card::shown_lease);
    let memory = gpu.and_then(|gpu| gpu.status.as_ref()?.memory);
    GpuView {
        owner: gpu.map_or_else(|| NOBODY.to_owned(), Card::owner),
        lease_id: lease.map(|lease| lease.lease_id.clone()),
        reason: lease.map(|lease| lease.reason.clone()),
        acquired_at: lease.and_then(|lease| stamp_of(lease.acquired_at.as_ref())),
        memory: memory.map(|memory| MemoryView {
            total_mb: memory.total_mib,
            used_mb: memory.used_mib,
            free_mb: memory.free_mib,
        }),
        queue: gpu.map(|card| queue(card)).unwrap_or_default(),
    }
}

/// Every waiting requester once, however many calls of it wait.
fn queue(gpu: &Gpu) -> Vec<String> {
    let mut names = Vec::new();
    for entry in gpu.status.iter().flat_map(|status| &status.queue) {
        let name = wire(&entry.holder);
        if name != NOBODY && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

pub async fn status(gaia: &Gaia) -> Answer {
    ok(&view(gaia.card().await?.as_ref()))
}

/// Somebody who wants the card.
struct Request {
    requester: Owner,
    reason: String,
    timeout_seconds: i64,
    priority: i64,
}

impl Request {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::required(body)?;
        let requester = fields.required_one_of("requester", &REQUESTERS);
        let reason = fields.required_text("reason");
        let timeout_seconds = fields.integer("timeout_seconds").unwrap_or(DEFAULT_WAIT_SECONDS);
        let priority = fields.integer("priority").unwrap_or(0);
        fields.done()?;
        let requester = requester.ok_or_else(|| Refusal::failed("a requester that is no fault is missing"))?;
        Ok(Self { requester, reason, timeout_seconds, priority })
    }

    fn wish(&self, gpu: &Gpu, holder: &Holder) -> Wish {
        let queue_seconds = self.timeout_seconds.clamp(1, LONGEST_WAIT_SECONDS);
        Wish {
            gpu: gpu.metadata.name.clone().unwrap_or_default(),
            holder: holder.clone(),
            reason: self.reason.clone(),
            priority: self.priority.clamp(LOWEST_PRIORITY + 1, HIGHEST_PRIORITY),
            timeout_seconds: u32::try_from(queue_seconds).ok(),
            preemption: Preemption::Never,
            ttl_seconds: Some(PICKUP_SECONDS),
        }
    }
}

fn granted(requester: Owner, lease: &Lease) -> Acquired {
    Acquired {
        success: true,
        lease_id: Some(lease.lease_id.clone()),
        message: format!("GPU ownership granted to {}", requester.wire()),
        queue_position: None,
    }
}

fn queued(gpu: &Card, position: u32) -> Acquired {
    Acquired {
        success: false,
        lease_id: None,
        message: format!("GPU owned by {}, queued at position {position}", gpu.owner()),
        queue_position: Some(position),
    }
}

/// Takes the card, or a place in its queue; answers at once either way. Who was queued and asks again learns of the grant;
/// who does not ask again loses it after a minute.
pub async fn acquire(gaia: &Gaia, asked: &Asked) -> Answer {
    let request = Request::read(&asked.body)?;
    let gpu = gaia.needed_card().await?;
    let holder = gaia.holder(request.requester).await?;
    ok(&gaia.acquire(&request.wish(&gpu, &holder), request.requester).await?)
}

impl Gaia {
    /// Makes the claim, and tells what the controllers made of it.
    pub(super) async fn acquire(&self, wish: &Wish, requester: Owner) -> Result<Acquired, Refusal> {
        let mut changes = self.changes();
        let claim = self.queue_once(&self.made_way(wish).await?).await?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let gpu = self.needed_card().await?;
            let lease = lease_of(&gpu, &wish.holder);
            // The claim of whom the card belongs to anyway is granted without a change of hands.
            if let Some(lease) = lease.filter(|lease| lease.claim.is_some()) {
                self.hand_over(lease).await?;
                return Ok(granted(requester, lease));
            }
            let position = self.position(&gpu, &claim).await?;
            if let Some(position) = position.filter(|_| lease.is_none())
                && self.is_anothers(&gpu, &wish.holder).await?
            {
                return Ok(queued(&gpu, position));
            }
            match self.turn(&mut changes, deadline).await {
                Turn::Changed => {}
                Turn::TooLate => {
                    return Ok(match lease {
                        Some(lease) => granted(requester, lease),
                        None => queued(&gpu, position.unwrap_or(next_position(&gpu))),
                    });
                }
                Turn::Ending => return Err(Refusal::shutting_down()),
            }
        }
    }

    /// Somebody else has the card, or is being given it.
    async fn is_anothers(&self, card: &Card, holder: &Holder) -> Result<bool, Refusal> {
        let running = self.running_handoff(card).await?;
        Ok(card.shown_lease().is_some() || running.is_some_and(|handoff| handoff.spec.to.as_ref() != Some(holder)))
    }

    /// Where a claim stands in the queue, as far as the controllers have said so.
    async fn position(&self, gpu: &Gpu, claim: &ObjectName) -> Result<Option<u32>, Refusal> {
        let status = self.claim(claim).await?.map(|claim| status_of(&claim)).unwrap_or_default();
        if status.phase != GpuClaimPhase::Pending {
            return Ok(None);
        }
        let path = format!("{}/{}", claim.namespace.as_deref().unwrap_or_default(), claim.name);
        let mut queue = gpu.status.iter().flat_map(|status| &status.queue);
        let listed = queue.position(|entry| entry.claim == path).and_then(|index| u32::try_from(index + 1).ok());
        Ok(status.position.or(listed))
    }
}

fn lease_of<'g>(gpu: &'g Gpu, holder: &Holder) -> Option<&'g Lease> {
    gpu.status.as_ref()?.lease_of(holder)
}

fn next_position(gpu: &Gpu) -> u32 {
    let waiting = gpu.status.as_ref().map_or(0, |status| status.queue.len());
    u32::try_from(waiting + 1).unwrap_or(u32::MAX)
}

/// Waits until the requester has the card: in the queue while it waits, out of it however the wait ends.
pub async fn wait(gaia: &Gaia, asked: &Asked) -> Answer {
    let request = Request::read(&asked.body)?;
    let gpu = gaia.needed_card().await?;
    let holder = gaia.holder(request.requester).await?;
    let waited = request.timeout_seconds;
    let late = |position| Acquired {
        success: false,
        lease_id: None,
        message: format!("Timeout waiting for GPU after {waited}s"),
        queue_position: Some(position),
    };
    if waited <= 0 {
        return ok(&late(next_position(&gpu)));
    }
    if let Some(lease) = lease_of(&gpu, &holder) {
        gaia.hand_over(lease).await?;
        return ok(&Acquired { message: "Already own GPU".to_owned(), ..granted(request.requester, lease) });
    }
    let deadline = Instant::now() + Duration::from_secs(waited.min(LONGEST_WAIT_SECONDS).unsigned_abs());
    let mut changes = gaia.changes();
    let waiter = gaia.queue_caller(&gaia.made_way(&request.wish(&gpu, &holder)).await?).await?;
    loop {
        let gpu = gaia.needed_card().await?;
        if let Some(lease) = lease_of(&gpu, &holder) {
            gaia.hand_over(lease).await?;
            let own =
                waiter.name().map(|name| format!("{}/{}", name.namespace.as_deref().unwrap_or_default(), name.name));
            if lease.claim == own {
                waiter.keep()
            } else {
                waiter.leave().await?
            }
            return ok(&granted(request.requester, lease));
        }
        let turn = gaia.turn(&mut changes, deadline).await;
        let position = match (turn, waiter.name()) {
            (Turn::TooLate, Some(name)) => gaia.position(&gpu, name).await?,
            _ => None,
        };
        match turn {
            Turn::Changed => {}
            Turn::TooLate => {
                waiter.leave().await?;
                return ok(&late(position.unwrap_or(next_position(&gpu))));
            }
            Turn::Ending => {
                waiter.leave().await?;
                return Err(Refusal::shutting_down());
            }
        }
    }
}

/// Gives the card back. With a lease id only that lease; without one, whoever has it.
pub async fn release(gaia: &Gaia, asked: &Asked) -> Answer {
    let mut fields = Fields::optional(&asked.body)?;
    let in_body = fields.text("lease_id");
    fields.done()?;
    let given = asked.query("lease_id").or(in_body).filter(|given| !given.is_empty());
    let Some(gpu) = gaia.card().await? else {
        return released(NOBODY, 0, None);
    };
    let Some(shown) = gpu.shown_lease() else {
        return released(NOBODY, queue(&gpu).len(), None);
    };
    let leases: Vec<Lease> = gpu.status.iter().flat_map(|status| status.leases.clone()).collect();
    let leases: Vec<Lease> = match &given {
        Some(given) => leases.into_iter().filter(|lease| lease.lease_id == *given).collect(),
        None => leases.into_iter().filter(|lease| wire(&lease.holder) != NOBODY).collect(),
    };
    if leases.is_empty() {
        let text = "Invalid lease ID - cannot release GPU owned by another process";
        return Err(Refusal::new(StatusCode::FORBIDDEN, text));
    }
    let mut changes = gaia.changes();
    let mut all_given_back = true;
    for lease in &leases {
        all_given_back &= gaia.give_back(lease).await?;
    }
    let by = leases.first().unwrap_or(shown);
    let note =
        (!all_given_back).then_some("no claim is behind the lease: the holder has the card while nobody claims it");
    let deadline = Instant::now() + RELEASED_WITHIN;
    loop {
        let Some(gpu) = gaia.card().await? else { return released(&wire(&by.holder), 0, note) };
        let held = gpu.status.iter().flat_map(|status| &status.leases);
        let gone = !held.into_iter().any(|held| leases.iter().any(|lease| lease.lease_id == held.lease_id));
        let under_way = gpu.status.as_ref().is_some_and(|status| status.handoff.is_some());
        let settled = gone || under_way || note.is_some();
        if settled || gaia.turn(&mut changes, deadline).await != Turn::Changed {
            return released(&wire(&by.holder), queue(&gpu).len(), note);
        }
    }
}

fn released(by: &str, queue_length: usize, note: Option<&'static str>) -> Answer {
    ok(&Released { success: true, message: format!("GPU released by {by}"), queue_length, note })
}
