//! From who should hold the card to who holds it: grants, ends of leases, and the handoffs between. Pure.
//!
//! 1. A handoff is under way (`status.handoff`): the lease moves when it says that the old holder is proven gone, and moves
//!    back when it says that the new one is. Nobody else is granted anything.
//! 2. It has ended: it is taken off the status.
//! 3. Another waits: it is let in, the eldest first, if its `from` holds the card.
//! 4. Else [`holding::assign`] says who should hold the card. Where no workload is concerned the lease moves at once;
//!    otherwise a handoff is made, after a pause if the last ones failed.
//!
//! Guarantee: leases change only here, by a status that is compared on its version.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::holding::{self, Wanted, World};
use crate::{
    api::{
        gpu::{Gpu, GpuStatus, Holder, HolderKind, Lease, QueueEntry},
        handoff::{Handoff, HandoffPhase, HandoffSpec},
        label,
    },
    registry::ObjectName,
    runtime::{
        backoff::{Backoff, seed_of},
        events::Note,
    },
};

/// Between attempts to hand a card over.
const RETRY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(5));
/// Ended handoffs that are kept for each card.
pub const HISTORY: usize = 100;

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Create(Box<Handoff>),
    /// An old handoff that has ended.
    Prune(ObjectName),
}

#[derive(Debug, Default)]
pub struct LeasePlan {
    pub actions: Vec<Action>,
    pub notes: Vec<Note>,
    /// Time alone changes the answer then.
    pub wake_at: Option<Timestamp>,
}

pub fn decide(
    gpu: &Gpu,
    status: &mut GpuStatus,
    world: &World,
    handoffs: &[Arc<Handoff>],
    now: Timestamp,
) -> LeasePlan {
    let assignment = holding::assign(world, now);
    let mut plan = change_hands(gpu, status, &assignment, handoffs, now);
    plan.wake_at = plan.wake_at.into_iter().chain(assignment.hold_ends_at).min();
    // Afterwards: who has just got the card does not wait for it.
    status.queue = queue(&gpu.name_any(), status, &assignment, world);
    plan
}

fn change_hands(
    gpu: &Gpu,
    status: &mut GpuStatus,
    assignment: &holding::Assignment,
    handoffs: &[Arc<Handoff>],
    now: Timestamp,
) -> LeasePlan {
    let mut plan = LeasePlan::default();
    let of_card = of_card(gpu, handoffs);
    prune(&of_card, &mut plan);
    if !follow(gpu, status, &of_card, now, &mut plan) {
        let wanted = assignment.wanted.get(&gpu.name_any()).cloned().unwrap_or_default();
        converge(gpu, status, &wanted, &of_card, now, &mut plan);
    }
    plan
}

/// The eldest first.
fn of_card<'a>(gpu: &Gpu, handoffs: &'a [Arc<Handoff>]) -> Vec<&'a Arc<Handoff>> {
    let mut of_card: Vec<&Arc<Handoff>> = handoffs.iter().filter(|h| h.spec.gpu == gpu.name_any()).collect();
    of_card.sort_by_key(|h| (h.metadata.creation_timestamp.clone(), h.namespace(), h.name_any()));
    of_card
}

/// Does what handoffs ask for: moves a lease, lets one in. False: there is none that could ask.
fn follow(gpu: &Gpu, status: &mut GpuStatus, of_card: &[&Arc<Handoff>], now: Timestamp, plan: &mut LeasePlan) -> bool {
    let running = status.handoff.as_ref().and_then(|name| of_card.iter().find(|h| full_name(h) == *name));
    if let Some(handoff) = running.filter(|h| !phase(h).is_terminal()) {
        move_lease(gpu, status, handoff, now, plan);
        return true;
    }
    let waiting = of_card.iter().find(|h| !phase(h).is_terminal() && fits(status, h));
    status.handoff = waiting.map(|handoff| full_name(handoff));
    waiting.is_some()
}

/// A handoff waits for this card's next status: to be let in, or for the lease. What it asks for follows from its word and the
/// leases, whatever is on the card now: the proof is the handoff's own business, and over when it asks.
pub fn is_waited_for(gpu: &Gpu, handoffs: &[Arc<Handoff>]) -> bool {
    let Some(before) = &gpu.status else { return false };
    let mut status = before.clone();
    // Whether anything changes depends on no time.
    let (of_card, now) = (of_card(gpu, handoffs), Timestamp::UNIX_EPOCH);
    follow(gpu, &mut status, &of_card, now, &mut LeasePlan::default()) && status != *before
}

fn phase(handoff: &Handoff) -> HandoffPhase {
    handoff.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

pub fn full_name(handoff: &Handoff) -> String {
    format!("{}/{}", handoff.namespace().as_deref().unwrap_or("default"), handoff.name_any())
}

/// `from` holds the card, when somebody is named. Whoever else holds it goes on with it only beside one who joins them.
pub fn fits(status: &GpuStatus, handoff: &Handoff) -> bool {
    let from = handoff.spec.from.as_ref();
    let joins = handoff.annotations().contains_key(SHARED) && has_cause(handoff);
    let mut others = status.leases.iter().filter(|lease| Some(&lease.holder) != from);
    let only_leaves = from.is_some() && handoff.spec.to.is_none();
    let room = only_leaves || others.all(|lease| joins && lease.shared_mib.is_some());
    room && from.is_none_or(|from| status.lease_of(from).is_some())
}

/// It follows from who should hold the card, and is not a person's.
pub fn has_cause(handoff: &Handoff) -> bool {
    handoff.labels().contains_key(label::CAUSE)
}

/// The handoff's own word, and the card's own state, say which way the lease goes.
fn move_lease(gpu: &Gpu, status: &mut GpuStatus, handoff: &Handoff, now: Timestamp, plan: &mut LeasePlan) {
    let Some(told) = &handoff.status else { return };
    let (from, to) = (handoff.spec.from.as_ref(), handoff.spec.to.as_ref());
    let base = told.base_token.unwrap_or(i64::MAX);
    let moved = status.fencing_token > base;
    let back = told.rollback.as_ref().is_some_and(|rollback| rollback.return_lease);
    let forth = told.rollback.is_none() && told.phase == HandoffPhase::TransferringOwnership;
    let (leaves, comes) = match (moved, forth, back) {
        (false, true, _) => (from, to),
        (true, _, true) if to.is_some_and(|to| status.lease_of(to).is_some()) => (to, from),
        _ => return,
    };
    let mut leases: Vec<Lease> = status.leases.iter().filter(|l| Some(&l.holder) != leaves).cloned().collect();
    status.fencing_token = status.fencing_token.saturating_add(1);
    if let Some(holder) = comes {
        let claim = handoff.annotations().get(CLAIM).cloned().filter(|_| comes == to);
        let shared_mib = handoff.annotations().get(SHARED).and_then(|mib| mib.parse().ok()).filter(|_| comes == to);
        let reason = match handoff.spec.reason.as_str() {
            "" => format!("handoff {}", full_name(handoff)),
            reason => reason.to_owned(),
        };
        leases.push(lease(gpu, status.fencing_token, holder, claim, reason, shared_mib, now));
    }
    plan.notes.push(granted(&leases));
    status.set_leases(leases);
}

/// Which claim a handoff was made for, and how much of the card it may use.
pub const CLAIM: &str = "gaia.dev/claim";
pub const SHARED: &str = "gaia.dev/shared-mib";

fn converge(
    gpu: &Gpu,
    status: &mut GpuStatus,
    wanted: &[Wanted],
    handoffs: &[&Arc<Handoff>],
    now: Timestamp,
    plan: &mut LeasePlan,
) {
    let mut leases = status.leases.clone();
    // The same holder for another reason keeps its lease, unless one claim follows another; it has the card for itself only when
    // those with whom it shared are gone.
    let alone = leases.len() == 1;
    for lease in &mut leases {
        if let Some(w) = wanted.iter().find(|w| w.holder == lease.holder)
            && (lease.claim.is_none() || w.claim.is_none())
            && (alone || w.shared_mib.is_some())
        {
            lease.claim = w.claim.clone();
            lease.shared_mib = w.shared_mib;
        }
    }
    let is_wanted = |lease: &Lease| wanted.iter().any(|w| w.holder == lease.holder && w.claim == lease.claim);
    let ended: Vec<Lease> = leases.iter().filter(|l| !is_wanted(l)).cloned().collect();
    let missing: Vec<&Wanted> =
        wanted.iter().filter(|w| !leases.iter().any(|l| l.holder == w.holder && l.claim == w.claim)).collect();
    let renewed = |l: &Lease| missing.iter().any(|w| w.holder == l.holder);
    let is_workload = |holder: &Holder| holder.kind == HolderKind::Workload;
    let gone: Vec<&Lease> = ended.iter().filter(|l| !renewed(l)).collect();
    let gives = gone.iter().copied().find(|l| is_workload(&l.holder)).or(gone.first().copied());
    // One at a time: who comes, comes with the last of those who go.
    let come: Vec<&Wanted> = missing.iter().copied().filter(|w| !ended.iter().any(|l| l.holder == w.holder)).collect();
    let gets = come.first().copied().filter(|_| gone.len() <= 1);
    let concerns_workload = gone.iter().any(|l| is_workload(&l.holder)) || come.iter().any(|w| is_workload(&w.holder));
    if !concerns_workload {
        if !ended.is_empty() || !missing.is_empty() {
            leases.retain(|lease| is_wanted(lease));
            for w in missing {
                status.fencing_token = status.fencing_token.saturating_add(1);
                let (claim, reason) = (w.claim.clone(), w.reason.clone());
                leases.push(lease(gpu, status.fencing_token, &w.holder, claim, reason, w.shared_mib, now));
            }
            plan.notes.push(granted(&leases));
        }
        status.set_leases(leases);
        return;
    }
    status.set_leases(leases);
    let to = gets.map(|w| w.holder.clone());
    let retry_at = retry_at(gpu, to.as_ref(), handoffs);
    if retry_at > now {
        plan.wake_at = Some(retry_at);
        return;
    }
    plan.actions.push(Action::Create(Box::new(handoff(gpu, status, gives.map(|l| &l.holder), gets, handoffs))));
}

/// After attempts in a row that failed, the next one waits.
fn retry_at(gpu: &Gpu, to: Option<&Holder>, handoffs: &[&Arc<Handoff>]) -> Timestamp {
    let ended = handoffs.iter().rev().filter(|h| phase(h).is_terminal());
    let failed: Vec<_> =
        ended.take_while(|h| phase(h) != HandoffPhase::Completed && h.spec.to.as_ref() == to).collect();
    let Some(last) = failed.first() else { return Timestamp::MIN };
    let at = last.status.as_ref().and_then(|s| s.completed_at.as_ref()).map_or(Timestamp::MIN, |at| at.0);
    let attempts = u32::try_from(failed.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let delay = RETRY.delay(attempts, seed_of(&gpu.name_any()));
    at.saturating_add(SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

fn handoff(
    gpu: &Gpu,
    status: &GpuStatus,
    from: Option<&Holder>,
    to: Option<&Wanted>,
    handoffs: &[&Arc<Handoff>],
) -> Handoff {
    let token = status.fencing_token.saturating_add(1);
    let namespace = to.map(|w| &w.holder).or(from).map_or("default", |holder| &holder.namespace);
    let taken =
        |name: &str| handoffs.iter().any(|h| h.name_any() == name && h.namespace().as_deref() == Some(namespace));
    let first = format!("{}-{token}", gpu.name_any());
    let name = std::iter::once(first.clone())
        .chain((2..).map(|attempt| format!("{first}-{attempt}")))
        .find(|name| !taken(name))
        .expect("there is always another number");
    let spec = HandoffSpec {
        gpu: gpu.name_any(),
        from: from.cloned(),
        to: to.map(|w| w.holder.clone()),
        reason: to.map_or_else(|| "nobody wants it any more".to_owned(), |w| w.reason.clone()),
        timeout_seconds: 600,
        ..HandoffSpec::default()
    };
    let mut handoff = Handoff::new(&name, spec);
    handoff.metadata.namespace = Some(namespace.to_owned());
    let claim = to.and_then(|w| w.claim.clone()).map(|claim| (CLAIM.to_owned(), claim));
    let shared = to.and_then(|w| w.shared_mib).map(|mib| (SHARED.to_owned(), mib.to_string()));
    let cause = match to {
        None => "nobody",
        Some(Wanted { claim: Some(_), .. }) => "claim",
        Some(w) if gpu.spec.owner.as_ref() == Some(&w.holder) => "owner",
        Some(_) => "workload",
    };
    handoff.metadata.labels = Some(BTreeMap::from([(label::CAUSE.to_owned(), cause.to_owned())]));
    let annotations: BTreeMap<String, String> = claim.into_iter().chain(shared).collect();
    handoff.metadata.annotations = Some(annotations).filter(|a| !a.is_empty());
    handoff
}

fn lease(
    gpu: &Gpu,
    token: i64,
    holder: &Holder,
    claim: Option<String>,
    reason: String,
    shared_mib: Option<u64>,
    now: Timestamp,
) -> Lease {
    let lease_id = lease_id(gpu.metadata.uid.as_deref().unwrap_or_default(), token);
    let acquired_at = Some(MicroTime(now));
    Lease { holder: holder.clone(), lease_id, fencing_token: token, claim, reason, acquired_at, shared_mib }
}

/// A UUID from the card and the token: after a crash the same grant has the same id.
fn lease_id(uid: &str, token: i64) -> String {
    let hash = Sha256::digest(format!("{uid}/{token}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// Who is to have it next, then who waits.
fn queue(gpu: &str, status: &GpuStatus, assignment: &holding::Assignment, world: &World) -> Vec<QueueEntry> {
    let holds = |claim: &String| status.leases.iter().any(|lease| lease.claim.as_ref() == Some(claim));
    let next = assignment.wanted.get(gpu).into_iter().flatten().filter_map(|w| w.claim.as_ref()).filter(|c| !holds(c));
    let names = next.chain(assignment.waiting.get(gpu).into_iter().flatten());
    let claims = names.filter_map(|name| world.claims.iter().find(|c| holding::claim_name(c) == *name));
    claims
        .map(|claim| QueueEntry {
            claim: holding::claim_name(claim),
            holder: claim.spec.holder.clone(),
            priority: claim.spec.priority,
            since: claim.metadata.creation_timestamp.clone(),
        })
        .collect()
}

fn prune(handoffs: &[&Arc<Handoff>], plan: &mut LeasePlan) {
    let ended: Vec<_> = handoffs.iter().filter(|h| phase(h).is_terminal()).collect();
    for handoff in ended.iter().take(ended.len().saturating_sub(HISTORY)) {
        plan.actions.push(Action::Prune(crate::runtime::reconciler::name_of(&****handoff)));
    }
}

fn granted(leases: &[Lease]) -> Note {
    let names: Vec<String> = leases.iter().map(|lease| lease.holder.to_string()).collect();
    let message = if names.is_empty() { "held by nobody".to_owned() } else { format!("held by {}", names.join(", ")) };
    Note::normal("LeaseMoved", "LeaseMoved", message)
}
