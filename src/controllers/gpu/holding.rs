//! Who should hold which card. One pure function over all cards, claims and workloads, so that every card's pass comes to the
//! same answer.
//!
//! In this order: claims that hold keep what they hold; waiting claims by priority, then age; declared owners; workloads
//! that name the card and are to run. A claim for several cards gets all of them or none, and what it could have is kept
//! for it while it is first in line. A claim takes from another only with `LowerPriority` and past the other's `minHoldSeconds`.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::fit::{self, Fit};
use crate::api::{
    gpu::{Gpu, GpuStatus, Holder, HolderKind, Lease},
    gpuclaim::{GpuClaim, GpuClaimPhase, Preemption},
    quantity,
    workload::{Variant, Workload},
};

/// What the answer is made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    pub gpus: Vec<Arc<Gpu>>,
    pub claims: Vec<Arc<GpuClaim>>,
    pub workloads: Vec<Arc<Workload>>,
}

/// A lease that there should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub holder: Holder,
    pub claim: Option<String>,
    pub reason: String,
    pub shared_mib: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// By name of the Gpu. Nobody: absent.
    pub wanted: BTreeMap<String, Vec<Wanted>>,
    /// Claims that wait for each card, first come first.
    pub waiting: BTreeMap<String, Vec<String>>,
    /// The first end of a hold that keeps a waiting claim from taking a card: the answer may be another then.
    pub hold_ends_at: Option<Timestamp>,
}

pub fn claim_name(claim: &GpuClaim) -> String {
    format!("{}/{}", claim.namespace().as_deref().unwrap_or("default"), claim.name_any())
}

/// It asks for a card, or has one.
pub fn is_active(claim: &GpuClaim, held: usize) -> bool {
    let phase = claim.status.as_ref().map(|s| s.phase).unwrap_or_default();
    let lost = phase == GpuClaimPhase::Granted && held == 0;
    claim.metadata.deletion_timestamp.is_none() && !claim.spec.release && !phase.is_terminal() && !lost
}

/// The cards whose leases name the claim.
pub fn held_by<'a>(claim: &str, gpus: &'a [Arc<Gpu>]) -> Vec<&'a Arc<Gpu>> {
    gpus.iter().filter(|gpu| leases(gpu).iter().any(|lease| lease.claim.as_deref() == Some(claim))).collect()
}

pub fn leases(gpu: &Gpu) -> &[Lease] {
    gpu.status.as_ref().map(|status| status.leases.as_slice()).unwrap_or_default()
}

pub fn assign(world: &World, now: Timestamp) -> Assignment {
    let mut answer = Assignment::default();
    let mut active: Vec<(&GpuClaim, String, Vec<&Arc<Gpu>>)> = world
        .claims
        .iter()
        .map(|claim| (&**claim, claim_name(claim)))
        .map(|(claim, name)| (claim, name.clone(), held_by(&name, &world.gpus)))
        .filter(|(claim, _, held)| is_active(claim, held.len()))
        .collect();
    active.sort_by(|(a, a_name, _), (b, b_name, _)| {
        (-a.spec.priority, &a.metadata.creation_timestamp, a_name).cmp(&(
            -b.spec.priority,
            &b.metadata.creation_timestamp,
            b_name,
        ))
    });
    for (claim, name, held) in &active {
        for gpu in held {
            answer.wanted.entry(gpu.name_any()).or_default().push(wanted_by(claim, name));
        }
    }
    for (claim, name, held) in &mut active {
        let given =
            world.gpus.iter().find(|gpu| has_been_given(claim, gpu) && !answer.wanted.contains_key(&gpu.name_any()));
        if let Some(gpu) = given.filter(|_| held.is_empty() && claim.spec.count == 1) {
            answer.wanted.insert(gpu.name_any(), vec![wanted_by(claim, name)]);
            held.push(gpu);
        }
    }
    let mut kept: Vec<String> = Vec::new();
    for (claim, name, held) in &active {
        let missing = (claim.spec.count as usize).saturating_sub(held.len());
        if missing == 0 {
            continue;
        }
        let eligible: Vec<&Arc<Gpu>> = world
            .gpus
            .iter()
            .filter(|gpu| is_eligible(claim, gpu) && !held.iter().any(|h| h.name_any() == gpu.name_any()))
            .collect();
        let open: Vec<&&Arc<Gpu>> = eligible
            .iter()
            .filter(|gpu| !kept.contains(&gpu.name_any()))
            .filter(|gpu| has_room(claim, gpu, answer.wanted.get(&gpu.name_any())))
            .take(missing)
            .collect();
        let mut chosen: Vec<String> = open.iter().map(|gpu| gpu.name_any()).collect();
        if chosen.len() < missing && claim.spec.preemption == Preemption::LowerPriority {
            let victims = eligible.iter().filter(|gpu| {
                !chosen.contains(&gpu.name_any())
                    && answer
                        .wanted
                        .get(&gpu.name_any())
                        .is_some_and(|wanted| taken_from(wanted, claim, &active).is_some_and(|at| at <= now))
                    && room_beside(claim, gpu) == Fit::Fits
            });
            let victims: Vec<String> = victims.map(|gpu| gpu.name_any()).take(missing - chosen.len()).collect();
            chosen.extend(victims);
        }
        if chosen.len() == missing {
            for gpu in chosen {
                let wanted = answer.wanted.entry(gpu).or_default();
                if !claim.spec.shared || wanted.iter().any(|w| w.shared_mib.is_none()) {
                    wanted.clear();
                }
                wanted.push(wanted_by(claim, name));
            }
        } else {
            if claim.spec.count > 1 {
                kept.extend(chosen);
            }
            if claim.spec.preemption == Preemption::LowerPriority {
                let held = eligible.iter().filter_map(|gpu| answer.wanted.get(&gpu.name_any()));
                let ends = held.filter_map(|wanted| taken_from(wanted, claim, &active)).filter(|at| *at > now);
                answer.hold_ends_at = answer.hold_ends_at.into_iter().chain(ends).min();
            }
            for gpu in eligible {
                answer.waiting.entry(gpu.name_any()).or_default().push(name.clone());
            }
        }
    }
    for gpu in &world.gpus {
        if answer.wanted.get(&gpu.name_any()).is_none_or(Vec::is_empty)
            && let Some(owner) = &gpu.spec.owner
        {
            let owner = Wanted { holder: owner.clone(), claim: None, reason: "owner".to_owned(), shared_mib: None };
            answer.wanted.insert(gpu.name_any(), vec![owner]);
        }
    }
    unclaimed(world, &mut answer);
    answer.wanted.retain(|_, wanted| !wanted.is_empty());
    answer
}

/// Cards that nobody claims and nobody owns go to workloads that name them and are to run: who has them keeps them, then live
/// before candidate, then the elder.
fn unclaimed(world: &World, answer: &mut Assignment) {
    let mut wishes: Vec<(&Workload, Holder)> = Vec::new();
    for workload in &world.workloads {
        for variant in Variant::ALL.into_iter().filter(|variant| is_to_run(workload, *variant)) {
            wishes.push((workload, holder_of(workload, variant)));
        }
    }
    let members = |workload: &Workload| workload.spec.gpu.as_ref().map(|gpu| gpu.members.clone()).unwrap_or_default();
    let has_all = |workload: &Workload, holder: &Holder| {
        members(workload).iter().all(|name| {
            world.gpus.iter().any(|gpu| gpu.name_any() == *name && leases(gpu).iter().any(|l| l.holder == *holder))
        })
    };
    wishes.sort_by_key(|(workload, holder)| {
        (
            !has_all(workload, holder),
            holder.variant,
            workload.metadata.creation_timestamp.clone(),
            holder.namespace.clone(),
            holder.name.clone(),
        )
    });
    for (workload, holder) in wishes {
        let members = members(workload);
        let known = |name: &String| world.gpus.iter().any(|gpu| gpu.name_any() == *name);
        // Those it owns or has claimed are its already.
        let its = |name: &String| answer.wanted.get(name).is_some_and(|w| w.iter().any(|w| w.holder == holder));
        let free = |name: &String| answer.wanted.get(name).is_none_or(Vec::is_empty);
        if members.is_empty() || !members.iter().all(|name| known(name) && (free(name) || its(name))) {
            continue;
        }
        for name in members {
            let wanted = answer.wanted.entry(name).or_default();
            if wanted.is_empty() {
                let reason = "it is to run".to_owned();
                wanted.push(Wanted { holder: holder.clone(), claim: None, reason, shared_mib: None });
            }
        }
    }
}

/// A handoff has given the card to the claim's holder, and the claim came after: no lease names it yet. Behind elder claims it
/// would lose at once what was just handed over. Owners need no claim.
fn has_been_given(claim: &GpuClaim, gpu: &Gpu) -> bool {
    let holder = &claim.spec.holder;
    let waits = claim.status.as_ref().is_none_or(|status| status.phase == GpuClaimPhase::Pending);
    let bare = |lease: &Lease| lease.holder == *holder && lease.claim.is_none();
    waits && !claim.spec.shared && gpu.spec.owner.as_ref() != Some(holder) && leases(gpu).iter().any(bare)
}

pub fn holder_of(workload: &Workload, variant: Variant) -> Holder {
    let namespace = workload.namespace().unwrap_or_else(|| "default".to_owned());
    Holder { name: workload.name_any(), kind: HolderKind::Workload, namespace, variant }
}

/// By its spec, and with a card.
fn is_to_run(workload: &Workload, variant: Variant) -> bool {
    let found = match variant {
        Variant::Live => workload.spec.live.as_ref().map(|live| (live.running, &live.container)),
        Variant::Candidate => workload.spec.candidate.as_ref().map(|c| (c.running, &c.container)),
    };
    let leaving = workload.metadata.deletion_timestamp.is_some();
    let asks = workload.spec.gpu.as_ref().is_some_and(|gpu| !gpu.runs_without);
    asks && !leaving && found.is_some_and(|(running, container)| running && uses_gpu(container))
}

/// What a container that somebody else made uses is not known: it counts.
pub fn uses_gpu(container: &crate::api::container::ContainerSpec) -> bool {
    container.may_use_gpu()
}

fn wanted_by(claim: &GpuClaim, name: &str) -> Wanted {
    let shared_mib = claim.spec.shared.then(|| needed_mib(claim)).flatten();
    Wanted {
        holder: claim.spec.holder.clone(),
        claim: Some(name.to_owned()),
        reason: claim.spec.reason.clone(),
        shared_mib,
    }
}

fn needed_mib(claim: &GpuClaim) -> Option<u64> {
    claim.spec.memory.as_deref().and_then(quantity::mib)
}

/// By name, labels, size, and whether its owner lends it.
pub fn is_eligible(claim: &GpuClaim, gpu: &Gpu) -> bool {
    let spec = &claim.spec;
    let named = spec.gpu.as_ref().is_none_or(|name| *name == gpu.name_any());
    let labelled =
        spec.selector.as_ref().is_none_or(|s| s.match_labels.iter().all(|(k, v)| gpu.labels().get(k) == Some(v)));
    let total = gpu.status.as_ref().and_then(|s| s.memory).map(|m| m.total_mib);
    let large = match needed_mib(claim) {
        None => true,
        Some(needed) => total.is_some_and(|total| total >= needed),
    };
    let lent = gpu.spec.lend || gpu.spec.owner.as_ref().is_none_or(|owner| owner.is_kin_of(&spec.holder));
    named && labelled && large && lent && gpu.metadata.deletion_timestamp.is_none()
}

fn has_room(claim: &GpuClaim, gpu: &Gpu, wanted: Option<&Vec<Wanted>>) -> bool {
    let Some(wanted) = wanted.filter(|w| !w.is_empty()) else { return room_beside(claim, gpu) == Fit::Fits };
    let everybody_shares = wanted.iter().all(|w| w.shared_mib.is_some());
    claim.spec.shared && everybody_shares && free_for_sharing(gpu, wanted) >= needed_mib(claim).unwrap_or(u64::MAX)
}

/// Whether what stays on the card leaves a claim the memory it asks for: whoever holds the card leaves it. Who holds nothing and is
/// on it all the same (a workload that names no card, a program outside of containers) stays.
pub fn room_beside(claim: &GpuClaim, gpu: &Gpu) -> Fit {
    let Some(need) = needed_mib(claim) else { return Fit::Fits };
    let holds = |holder: &Holder| leases(gpu).iter().any(|lease| lease.holder == *holder);
    fit::judge(&gpu.name_any(), gpu, Some(need), |holder| *holder == claim.spec.holder || holds(holder))
}

/// Measured memory, less the reserve, less what others use, less what sharers may use. Unknown memory is none.
fn free_for_sharing(gpu: &Gpu, sharers: &[Wanted]) -> u64 {
    let Some(status) = &gpu.status else { return 0 };
    let Some(memory) = status.memory else { return 0 };
    let reserve = gpu.spec.reserve.as_deref().and_then(quantity::mib).unwrap_or(0);
    let granted: u64 = sharers.iter().map(|s| s.shared_mib.unwrap_or(0).max(used_by(status, &s.holder))).sum();
    let used: u64 = sharers.iter().map(|s| used_by(status, &s.holder)).sum();
    let external: u64 =
        sharers.iter().filter(|s| s.holder.kind == HolderKind::External).filter_map(|s| s.shared_mib).sum();
    let others = memory.used_mib.saturating_sub(used).saturating_sub(external);
    memory.total_mib.saturating_sub(reserve.max(others)).saturating_sub(granted)
}

fn used_by(status: &GpuStatus, holder: &Holder) -> u64 {
    let workload = format!("{}/{}", holder.namespace, holder.name);
    status
        .processes
        .iter()
        .filter(|p| p.workload.as_ref() == Some(&workload) && p.variant == Some(holder.variant))
        .filter_map(|p| p.used_mib)
        .sum()
}

/// From when on a claim may take a card from all who are to have it. None: never, as far as is known now.
fn taken_from(wanted: &[Wanted], by: &GpuClaim, active: &[(&GpuClaim, String, Vec<&Arc<Gpu>>)]) -> Option<Timestamp> {
    let from_one = |wanted: &Wanted| {
        let (victim, ..) = active.iter().find(|(_, name, _)| Some(name) == wanted.claim.as_ref())?;
        let lower = victim.spec.priority < by.spec.priority;
        match victim.spec.min_hold_seconds {
            _ if !lower => None,
            None => Some(Timestamp::MIN),
            Some(seconds) => {
                let granted = victim.status.as_ref()?.granted_at.as_ref()?;
                Some(granted.0.saturating_add(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MAX))
            }
        }
    };
    let each: Option<Vec<Timestamp>> = wanted.iter().map(from_one).collect();
    each?.into_iter().max()
}
