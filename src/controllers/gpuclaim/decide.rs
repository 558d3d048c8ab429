//! From the cards' leases and the time to what is said of a claim. Pure.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Action;
use crate::{
    api::{
        condition::{self, ConditionStatus, READY},
        gpu::Gpu,
        gpuclaim::{GpuClaim, GpuClaimPhase, GpuClaimReason, GpuClaimStatus},
    },
    controllers::{
        gpu::{
            fit::Fit,
            holding::{claim_name, held_by, is_eligible, leases, room_beside},
        },
        workload::status::to_second,
    },
    runtime::{
        events::Note,
        reconciler::{Plan, Requeue},
    },
};

/// Claims that are over can be read for so long.
pub const KEPT: SignedDuration = SignedDuration::from_hours(1);

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    pub gpus: Vec<Arc<Gpu>>,
    pub claims: Vec<Arc<GpuClaim>>,
}

pub fn decide(claim: &GpuClaim, observed: &Observed, now: Timestamp) -> Plan<GpuClaimStatus, Action> {
    let before = claim.status.clone().unwrap_or_default();
    if before.phase.is_terminal() {
        return over(&before, now);
    }
    let name = claim_name(claim);
    let held = held_by(&name, &observed.gpus);
    let mut status = GpuClaimStatus { observed_generation: claim.metadata.generation, ..before.clone() };
    let end = ended(claim, &before, held.len(), now);
    let (reason, message) = match end {
        Some((phase, reason, message)) => {
            status.phase = phase;
            status.finished_at = Some(to_second(now));
            (status.position, status.waiting_for, status.expected_at, status.expires_at) = (None, None, None, None);
            (reason, message)
        }
        None if held.len() >= claim.spec.count as usize => {
            grant(&mut status, claim, &name, &held, now);
            let cards = status.gpus.join(", ");
            (GpuClaimReason::Granted, format!("{} holds {cards}", claim.spec.holder))
        }
        None => wait(&mut status, claim, &name, observed),
    };
    let ready = if status.phase == GpuClaimPhase::Granted { ConditionStatus::True } else { ConditionStatus::False };
    let generation = claim.metadata.generation;
    condition::set(&mut status.conditions, READY, ready, reason.into(), message.clone(), generation, &Time(now));
    let news = status.phase != before.phase;
    let events = news.then(|| Note::normal(reason.into(), "None", message)).into_iter().collect();
    let wake = deadlines(claim, &status).into_iter().filter(|at| *at > now).min();
    let requeue = wake.map_or(Requeue::OnChange, |at| Requeue::After(until(at, now)));
    Plan { status: Some(status), events, requeue, ..Plan::leave() }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

fn over(before: &GpuClaimStatus, now: Timestamp) -> Plan<GpuClaimStatus, Action> {
    let Some(at) = before.finished_at.as_ref().and_then(|at| at.0.checked_add(KEPT).ok()) else { return Plan::leave() };
    match at > now {
        true => Plan { requeue: Requeue::After(until(at, now)), ..Plan::leave() },
        false => Plan { stages: vec![vec![Action::Delete]], ..Plan::leave() },
    }
}

/// Why it is over, if it is. A claim that has its cards is not too late, whatever the queue's time-out says.
fn ended(
    claim: &GpuClaim,
    before: &GpuClaimStatus,
    held: usize,
    now: Timestamp,
) -> Option<(GpuClaimPhase, GpuClaimReason, String)> {
    if claim.spec.release {
        let message = "given back by its holder".to_owned();
        return Some((GpuClaimPhase::Released, GpuClaimReason::Released, message));
    }
    if before.phase == GpuClaimPhase::Granted && held < claim.spec.count as usize {
        let message = "the card went to somebody else".to_owned();
        return Some((GpuClaimPhase::Released, GpuClaimReason::HandedOver, message));
    }
    if lapses_at(claim, before).is_some_and(|at| at <= now) {
        let message = "no sign of life within ttlSeconds".to_owned();
        return Some((GpuClaimPhase::Expired, GpuClaimReason::LeaseLapsed, message));
    }
    if max_hold_at(claim, before).is_some_and(|at| at <= now) {
        let message = "held for maxHoldSeconds".to_owned();
        return Some((GpuClaimPhase::Expired, GpuClaimReason::MaxHoldReached, message));
    }
    if held == 0 && times_out_at(claim, before).is_some_and(|at| at <= now) {
        let seconds = claim.spec.timeout_seconds.unwrap_or_default();
        let message = format!("waited for {seconds} s");
        return Some((GpuClaimPhase::TimedOut, GpuClaimReason::WaitedTooLong, message));
    }
    None
}

fn plus(at: Timestamp, seconds: u32) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MAX)
}

fn lapses_at(claim: &GpuClaim, status: &GpuClaimStatus) -> Option<Timestamp> {
    let sign = [&claim.spec.renewed_at, &status.granted_at, &claim.metadata.creation_timestamp];
    let last = sign.into_iter().flatten().map(|at| at.0).max()?;
    Some(plus(last, claim.spec.ttl_seconds?))
}

fn max_hold_at(claim: &GpuClaim, status: &GpuClaimStatus) -> Option<Timestamp> {
    Some(plus(status.granted_at.as_ref()?.0, claim.spec.max_hold_seconds?))
}

fn times_out_at(claim: &GpuClaim, status: &GpuClaimStatus) -> Option<Timestamp> {
    let waits = status.phase == GpuClaimPhase::Pending;
    let since = claim.metadata.creation_timestamp.as_ref().filter(|_| waits)?.0;
    Some(plus(since, claim.spec.timeout_seconds?))
}

fn deadlines(claim: &GpuClaim, status: &GpuClaimStatus) -> Vec<Timestamp> {
    let finished = status.finished_at.as_ref().and_then(|at| at.0.checked_add(KEPT).ok());
    if status.phase.is_terminal() {
        return finished.into_iter().collect();
    }
    let all = [lapses_at(claim, status), max_hold_at(claim, status), times_out_at(claim, status)];
    all.into_iter().flatten().collect()
}

fn grant(status: &mut GpuClaimStatus, claim: &GpuClaim, name: &str, held: &[&Arc<Gpu>], now: Timestamp) {
    let lease = held.iter().flat_map(|gpu| leases(gpu)).find(|lease| lease.claim.as_deref() == Some(name));
    status.phase = GpuClaimPhase::Granted;
    status.gpus = held.iter().filter_map(|gpu| gpu.metadata.name.clone()).collect();
    status.gpu = status.gpus.first().cloned();
    status.lease_id = lease.map(|lease| lease.lease_id.clone());
    status.fencing_token = lease.map(|lease| lease.fencing_token);
    (status.position, status.waiting_for, status.expected_at) = (None, None, None);
    status.granted_at = status.granted_at.clone().or_else(|| Some(to_second(now)));
    let ends = [lapses_at(claim, status), max_hold_at(claim, status)];
    status.expires_at = ends.into_iter().flatten().min().map(to_second);
}

fn wait(status: &mut GpuClaimStatus, claim: &GpuClaim, name: &str, observed: &Observed) -> (GpuClaimReason, String) {
    let eligible: Vec<&Arc<Gpu>> = observed.gpus.iter().filter(|gpu| is_eligible(claim, gpu)).collect();
    status.phase = GpuClaimPhase::Pending;
    if eligible.is_empty() {
        (status.position, status.waiting_for, status.expected_at) = (None, None, None);
        let named = claim.spec.gpu.as_ref();
        let found = named.and_then(|name| observed.gpus.iter().find(|gpu| gpu.metadata.name.as_ref() == Some(name)));
        return match (named, found) {
            (Some(name), None) => (GpuClaimReason::NoSuchGpu, format!("there is no Gpu {name}")),
            (Some(name), Some(gpu)) if !gpu.spec.lend => (GpuClaimReason::NotLent, format!("{name} is not lent")),
            _ => (GpuClaimReason::NoGpuMatches, "no card is as large, or has these labels".to_owned()),
        };
    }
    let place = |gpu: &Gpu| gpu.status.as_ref()?.queue.iter().position(|entry| entry.claim == name);
    let best = eligible.iter().filter_map(|gpu| Some((place(gpu)?, gpu))).min_by_key(|(place, _)| *place);
    let gpu = best.map_or(eligible[0], |(_, gpu)| gpu);
    status.gpu = gpu.metadata.name.clone();
    status.position = best.map(|(place, _)| u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1));
    let holders: Vec<String> = leases(gpu).iter().map(|lease| lease.holder.to_string()).collect();
    let who = if holders.is_empty() { "the card to be handed over".to_owned() } else { holders.join(", ") };
    status.waiting_for = Some(who.clone());
    let in_the_way = eligible.iter().map(|gpu| room_beside(claim, gpu)).collect::<Vec<_>>();
    if let Some(Fit::DoesNotFit(why)) = in_the_way.iter().find(|fit| matches!(fit, Fit::DoesNotFit(_)))
        && !in_the_way.contains(&Fit::Fits)
    {
        status.expected_at = None;
        return (GpuClaimReason::InsufficientMemory, why.clone());
    }
    status.expected_at = best.and_then(|(place, _)| expected_at(gpu, place, observed));
    (GpuClaimReason::Queued, format!("waits for {who}"))
}

/// When those who hold the card must have given it back, and everybody before `place` has had it for as long as they may.
/// None: one of them may keep it for as long as it likes.
fn expected_at(gpu: &Gpu, place: usize, observed: &Observed) -> Option<Time> {
    let find = |name: &String| observed.claims.iter().find(|claim| claim_name(claim) == *name);
    let ends = leases(gpu).iter().map(|lease| find(lease.claim.as_ref()?)?.status.as_ref()?.expires_at.clone());
    let free_at = ends.collect::<Option<Vec<Time>>>()?.into_iter().max()?;
    let before = gpu.status.iter().flat_map(|status| &status.queue).take(place);
    let seconds: Option<u32> = before.map(|entry| find(&entry.claim)?.spec.max_hold_seconds).sum();
    Some(Time(plus(free_at.0, seconds?)))
}
