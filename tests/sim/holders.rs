//! What must never happen to a card, looked at when its object changes, at every effect and now and then; and what must be in
//! the end. Reality (whose process has memory) is held against what the store says (who has a lease).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use gaia::{
    adapters::{
        containers::{Container, ContainerId, ContainerState},
        simulated::containers::Resident,
    },
    api::{
        condition,
        container::ContainerSpec,
        gpu::{CleanupPolicy, Gpu, Holder, HolderKind, Lease},
        gpuclaim::{GpuClaim, GpuClaimPhase, Preemption},
        handoff::{Handoff, HandoffPhase, HandoffStatus, StepOutcome},
        label,
        promotion::Promotion,
        workload::{Variant, Workload},
    },
};
use jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt, runtime::watcher::Event};
use tokio::time::Instant;

use crate::{cards::FREE_BELOW_MIB, oracle::stored, world::World};

/// A start that was decided while the lease was there may come so late: the calls of one pass to an engine that is slow.
const IN_FLIGHT: Duration = Duration::from_secs(45);
/// And must be over after that: the pass that sees it, a stop with its grace, an engine that is away for a while.
const UNDONE: Duration = Duration::from_secs(180);
/// For the pass that the end of a hold wakes.
const SEEN: SignedDuration = SignedDuration::from_secs(1);
/// Changes of a card's leases that one cause may bring about: there, and back when it fails; and the claim after it.
const MOVES_A_CAUSE: usize = 4;

/// What the oracle remembers.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Of each card by its uid.
    cards: BTreeMap<String, Told>,
    /// When a holder had a lease at last.
    had: BTreeMap<Holder, Instant>,
    /// Whose containers there are and were.
    containers: BTreeMap<ContainerId, Holder>,
    /// Started by somebody else, or by a pass that had decided it when it still had the right: these may be on the card.
    excused: BTreeSet<ContainerId>,
    /// Two on the card since.
    together_since: Option<Instant>,
    pub moves: usize,
    /// The last that was told of each handoff.
    told: BTreeMap<String, String>,
    /// By card: the handoff that is about to move its lease, and what had to be gone for that. Its spec may say otherwise since.
    proven: BTreeMap<String, (String, CleanupPolicy)>,
    /// Containers that said they had done what they were asked, and had not.
    liars: BTreeSet<String>,
}

#[derive(Debug, Default, Clone)]
struct Told {
    token: i64,
    leases: Vec<Lease>,
}

/// A container that was started by hand may run where it must not.
pub fn started_by_hand(world: &World, id: &ContainerId) {
    world.ledger().excused.insert(id.clone());
}

/// The process in the container of that name says that it has the card, and may not have it: nobody could know.
pub fn lied(world: &World, container: &str) {
    world.ledger().liars.insert(container.to_owned());
}

fn holder_of(container: &Container) -> Option<Holder> {
    let (namespace, name) = container.labels.get(label::WORKLOAD)?.split_once('/')?;
    let told = container.labels.get(label::VARIANT)?;
    let variant = Variant::ALL.into_iter().find(|variant| variant.as_str() == told)?;
    Some(Holder { name: name.to_owned(), kind: HolderKind::Workload, namespace: namespace.to_owned(), variant })
}

/// Looks at everything.
pub fn look(world: &World) {
    let Some(cards) = stored::<Gpu>(world, "gpus") else { return };
    let containers = world.engine.observed();
    let residents = world.engine.residents();
    let mut ledger = world.ledger();
    ledger.learn(&containers, &residents);
    let mut found = Vec::new();
    for card in &cards {
        found.extend(ledger.card(world, card, &residents));
    }
    found.extend(ledger.together(&containers, &residents, &cards));
    drop(ledger);
    found.into_iter().for_each(|what| world.violated(what));
}

impl Ledger {
    fn is_news(&mut self, handoff: String, line: &str) -> bool {
        self.told.insert(handoff, line.to_owned()).as_deref() != Some(line)
    }

    /// A start that came late is excused until what it brought to the card is gone, which may be after its container.
    fn learn(&mut self, containers: &[Container], residents: &[Resident]) {
        for container in containers {
            if let Some(holder) = holder_of(container) {
                self.containers.insert(container.id.clone(), holder);
            }
        }
        let runs = |id: &ContainerId| containers.iter().any(|c| c.id == *id && c.state == ContainerState::Running);
        let has_left = |id: &ContainerId| residents.iter().any(|resident| resident.container.as_ref() == Some(id));
        self.excused.retain(|id| runs(id) || has_left(id));
    }

    /// Tokens rise, one holds alone or several share, and who loses the card has let go of it.
    fn card(&mut self, world: &World, card: &Gpu, residents: &[Resident]) -> Vec<String> {
        let Some(status) = &card.status else { return Vec::new() };
        let name = card.name_any();
        for lease in &status.leases {
            self.had.insert(lease.holder.clone(), Instant::now());
        }
        let told = Told { token: status.fencing_token, leases: status.leases.clone() };
        let before = self.cards.insert(card.uid().unwrap_or_default(), told).unwrap_or_default();
        let mut found = Vec::new();
        if status.fencing_token < before.token {
            found.push(format!("the token of {name} fell from {} to {}", before.token, status.fencing_token));
        }
        if status.leases.len() > 1 && status.leases.iter().any(|lease| lease.shared_mib.is_none()) {
            found.push(format!("{name} has several holders that do not share it: {:?}", status.leases));
        }
        let is_new = |lease: &&Lease| !before.leases.iter().any(|old| old.lease_id == lease.lease_id);
        if let Some(stale) = status.leases.iter().filter(is_new).find(|lease| lease.fencing_token <= before.token) {
            found.push(format!("{name} is granted to {} with the token {}", stale.holder, stale.fencing_token));
        }
        let gone: Vec<&Lease> = before.leases.iter().filter(|old| status.lease_of(&old.holder).is_none()).collect();
        if !gone.is_empty() || status.leases.iter().any(|lease| is_new(&lease)) {
            self.moves += 1;
            let names: Vec<String> = status.leases.iter().map(|lease| lease.holder.to_string()).collect();
            world.story.tell(format_args!("{name} is held by [{}], token {}", names.join(", "), status.fencing_token));
        }
        for lease in gone {
            let present = card.spec.cleanup.policy;
            let proven = self.proven.get(&name).map_or(present, |(_, policy)| *policy);
            let left = [present, proven].map(|policy| self.left_by(&lease.holder, policy, residents));
            let left = left[0].min(left[1]);
            if left >= FREE_BELOW_MIB {
                found.push(format!("{name} is taken from {} while it has {left} MiB on it", lease.holder));
            }
        }
        found
    }

    /// What a holder has on the card, but for what it took by a start that came late.
    fn left_by(&self, holder: &Holder, policy: CleanupPolicy, residents: &[Resident]) -> u64 {
        let counts = |resident: &&Resident| match policy {
            CleanupPolicy::Processes => resident.pid.is_some(),
            CleanupPolicy::Memory | CleanupPolicy::Both => true,
        };
        let its = residents.iter().filter(counts).filter(|resident| {
            let id = resident.container.as_ref();
            id.is_some_and(|id| self.containers.get(id) == Some(holder) && !self.excused.contains(id))
        });
        its.map(|resident| resident.mib).sum()
    }

    /// Two use a card that they do not share, for longer than a start that came late can last.
    fn together(&mut self, containers: &[Container], residents: &[Resident], cards: &[Arc<Gpu>]) -> Option<String> {
        let runs = |id: &ContainerId| {
            containers.iter().any(|container| container.id == *id && container.state == ContainerState::Running)
        };
        let shared = |holder: &Holder| {
            let leases = cards.iter().filter_map(|card| card.status.as_ref()?.lease_of(holder));
            leases.into_iter().any(|lease| lease.shared_mib.is_some())
        };
        let users: BTreeSet<&Holder> = residents
            .iter()
            .filter(|resident| resident.mib >= FREE_BELOW_MIB)
            .filter_map(|resident| resident.container.as_ref())
            .filter(|id| runs(id) && !self.excused.contains(id))
            .filter_map(|id| self.containers.get(id))
            .filter(|holder| !shared(holder))
            .collect();
        if users.len() < 2 {
            self.together_since = None;
            return None;
        }
        let since = *self.together_since.get_or_insert_with(Instant::now);
        let names: Vec<String> = users.into_iter().map(ToString::to_string).collect();
        (since.elapsed() > UNDONE).then(|| format!("{} use one card together", names.join(" and ")))
    }
}

/// How far handoffs are, for whoever reads the story.
pub fn tell(world: &World, event: Event<Handoff>) {
    let (Event::Apply(handoff) | Event::InitApply(handoff)) = event else { return };
    let status = handoff.status.clone().unwrap_or_default();
    learn_proof(world, &handoff, &status);
    let who = |holder: &Option<Holder>| holder.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let (name, from, to) = (handoff.name_any(), who(&handoff.spec.from), who(&handoff.spec.to));
    let back = status.rollback.as_ref().map(|rollback| rollback.outcome);
    let error = status.error.unwrap_or_default();
    let line = format!("{name} from {from} to {to}: {:?}, back: {back:?} {error}", status.phase);
    if world.ledger().is_news(name, &line) {
        world.story.tell(line);
    }
}

/// Of the way there, and of the way back.
fn learn_proof(world: &World, handoff: &Handoff, status: &HandoffStatus) {
    let (name, gpu) = (handoff.name_any(), &handoff.spec.gpu);
    let cards = stored::<Gpu>(world, "gpus").unwrap_or_default();
    let policy = cards.iter().find(|card| card.name_any() == *gpu).map(|card| card.spec.cleanup.policy);
    let mut ledger = world.ledger();
    let known = ledger.proven.get(gpu).is_some_and(|(handoff, _)| *handoff == name);
    let is_proven = match &status.rollback {
        None => status.phase == HandoffPhase::TransferringOwnership,
        Some(rollback) => rollback.return_lease && !status.phase.is_terminal(),
    };
    match policy {
        Some(policy) if is_proven && !known => drop(ledger.proven.insert(gpu.clone(), (name, policy))),
        _ if known && !is_proven => drop(ledger.proven.remove(gpu)),
        _ => {}
    }
}

/// A container that uses a card is started by whoever holds it.
pub fn before_start(world: &World, name: &str) {
    look(world);
    let containers = world.engine.observed();
    let Some(container) = containers.iter().find(|container| container.name == name) else { return };
    let Some(holder) = holder_of(container) else { return };
    let Some(workloads) = stored::<Workload>(world, "workloads") else { return };
    let Some(workload) = workloads.iter().find(|workload| workload.name_any() == holder.name) else { return };
    // One that was made from another spec may have nothing to do with the card.
    let present = container_of(workload, holder.variant).map(ContainerSpec::hash);
    if !needs_card(workload, holder.variant) || container.labels.get(label::SPEC_HASH) != present.as_ref() {
        return;
    }
    let had = world.ledger().had.get(&holder).map(Instant::elapsed);
    if had.is_none_or(|ago| ago > IN_FLIGHT) {
        world.violated(format!("{name} is started, and {holder} had no lease for {had:?}"));
    }
}

/// What was started while its holder gives the card away had been decided before.
pub fn after_start(world: &World, name: &str) {
    let containers = world.engine.observed();
    let Some(container) = containers.iter().find(|container| container.name == name) else { return };
    if holder_of(container).is_some_and(|holder| gives_away(world, &holder)) {
        world.ledger().excused.insert(container.id.clone());
    }
}

/// It has no lease, or a handoff is taking it away.
fn gives_away(world: &World, holder: &Holder) -> bool {
    let cards = stored::<Gpu>(world, "gpus").unwrap_or_default();
    let handoffs = stored::<Handoff>(world, "handoffs").unwrap_or_default();
    let holds = cards.iter().any(|card| card.status.as_ref().is_some_and(|status| status.lease_of(holder).is_some()));
    let takes = handoffs.iter().any(|handoff| {
        let status = handoff.status.clone().unwrap_or_default();
        let side = if status.rollback.is_some() { &handoff.spec.to } else { &handoff.spec.from };
        !status.phase.is_terminal() && side.as_ref() == Some(holder)
    });
    !holds || takes
}

fn container_of(workload: &Workload, variant: Variant) -> Option<&ContainerSpec> {
    match variant {
        Variant::Live => workload.spec.live.as_ref().map(|live| &live.container),
        Variant::Candidate => workload.spec.candidate.as_ref().map(|candidate| &candidate.container),
    }
}

/// Its process may use the card as soon as it runs.
fn needs_card(workload: &Workload, variant: Variant) -> bool {
    let container = container_of(workload, variant);
    let gpu = workload.spec.gpu.as_ref().filter(|gpu| !gpu.members.is_empty() && !gpu.runs_without);
    gpu.is_some() && container.is_some_and(|container| container.gpus.is_some())
}

/// It must not run, for the card is somebody else's; unless it was asked to let go, did, and runs on without.
pub fn waits(world: &World, workload: &Workload, variant: Variant) -> bool {
    let holder = Holder {
        name: workload.name_any(),
        kind: HolderKind::Workload,
        namespace: workload.namespace().unwrap_or_default(),
        variant,
    };
    let cards = stored::<Gpu>(world, "gpus").unwrap_or_default();
    let held = cards.iter().any(|card| card.status.as_ref().is_some_and(|status| status.lease_of(&holder).is_some()));
    needs_card(workload, variant) && !held && !runs_on(world, &holder)
}

fn runs_on(world: &World, holder: &Holder) -> bool {
    let containers = world.engine.observed();
    let its = containers.iter().find(|c| c.state == ContainerState::Running && holder_of(c).as_ref() == Some(holder));
    let on_card = |id: &ContainerId| {
        world.engine.residents().iter().any(|r| r.container.as_ref() == Some(id) && r.mib >= FREE_BELOW_MIB)
    };
    its.is_some_and(|container| !on_card(&container.id) || was_let_be(world, container))
}

/// Started by hand when the card was nobody's of ours, and so before whoever has it now was granted it:
/// gaia stops what comes after a grant, and nothing for its own grant.
fn was_let_be(world: &World, container: &Container) -> bool {
    let cards = stored::<Gpu>(world, "gpus").unwrap_or_default();
    let leases = cards.iter().flat_map(|card| card.status.iter().flat_map(|status| status.leases.clone()));
    let granted = leases.filter_map(|lease| lease.acquired_at).map(|at| at.0).max();
    let before = granted.zip(container.started_at).is_some_and(|(granted, started)| started < granted);
    before && world.ledger().excused.contains(&container.id)
}

/// Whether everything about cards has come to its end. `Err` says what has not.
pub fn settled(world: &World) -> Result<(), String> {
    let cards = stored::<Gpu>(world, "gpus").ok_or("gaia is down")?;
    let handoffs = stored::<Handoff>(world, "handoffs").ok_or("gaia is down")?;
    let claims = stored::<GpuClaim>(world, "gpuclaims").ok_or("gaia is down")?;
    let workloads = stored::<Workload>(world, "workloads").ok_or("gaia is down")?;
    let card = cards.first().ok_or("there is no Gpu")?;
    let status = card.status.clone().unwrap_or_default();
    if let Some(handoff) = handoffs.iter().find(|h| !h.status.as_ref().is_some_and(|s| s.phase.is_terminal())) {
        return Err(format!("{} has not ended: {:?}", handoff.name_any(), handoff.status));
    }
    if let Some(handoff) = &status.handoff {
        return Err(format!("the card names the handoff {handoff}"));
    }
    if !condition::is_true(&status.conditions, condition::READY) {
        return Err(format!("the card is not Ready: {:?}", status.conditions));
    }
    let active: Vec<&GpuClaim> = claims.iter().map(|claim| &**claim).filter(|claim| is_active(claim)).collect();
    for claim in &active {
        as_promised(claim, &status.leases)?;
        held_enough(claim, &active, world.clock.now())?;
    }
    wanted(card, &status.leases, &active, &workloads)?;
    for lease in &status.leases {
        used(world, lease, &workloads, &handoffs)?;
    }
    let (moves, causes) = (world.ledger().moves, world.causes());
    match moves > MOVES_A_CAUSE * (causes + 1) {
        true => Err(format!("the card changed hands {moves} times, for {causes} reasons")),
        false => Ok(()),
    }
}

fn is_active(claim: &GpuClaim) -> bool {
    let over = claim.status.as_ref().is_some_and(|status| status.phase.is_terminal());
    !over && !claim.spec.release && claim.metadata.deletion_timestamp.is_none()
}

/// What a claim's status says is so; and one whose time will come is waited for.
fn as_promised(claim: &GpuClaim, leases: &[Lease]) -> Result<(), String> {
    let (name, spec) = (claim.name_any(), &claim.spec);
    let phase = claim.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let full = format!("default/{name}");
    let holds = leases.iter().any(|lease| lease.claim.as_ref() == Some(&full));
    if holds != (phase == GpuClaimPhase::Granted) {
        return Err(format!("{name} is told {phase:?}, and holds the card: {holds}"));
    }
    let lapses =
        spec.ttl_seconds.is_some() || if holds { spec.max_hold_seconds } else { spec.timeout_seconds }.is_some();
    if lapses { Err(format!("{name} should lapse: {spec:?}")) } else { Ok(()) }
}

/// While another may take the card from it, its time is waited for.
fn held_enough(claim: &GpuClaim, active: &[&GpuClaim], now: Timestamp) -> Result<(), String> {
    let takes = |other: &&GpuClaim| {
        other.spec.preemption == Preemption::LowerPriority && other.spec.priority > claim.spec.priority
    };
    let granted = claim.status.as_ref().and_then(|status| status.granted_at.as_ref()).map(|at| at.0);
    let until = |seconds: u32| granted.map(|at| at + SignedDuration::from_secs(seconds.into()) + SEEN);
    match claim.spec.min_hold_seconds.and_then(until) {
        Some(until) if now < until && active.iter().any(takes) => {
            Err(format!("{} is about to lose the card", claim.name_any()))
        }
        Some(_) | None => Ok(()),
    }
}

/// Somebody who wants the card has it, the one with a claim before the owner, the owner before who only uses it.
fn wanted(card: &Gpu, leases: &[Lease], active: &[&GpuClaim], workloads: &[Arc<Workload>]) -> Result<(), String> {
    let owner = card.spec.owner.as_ref();
    let by_claim = |lease: &Lease| {
        active.iter().any(|claim| lease.claim.as_ref() == Some(&format!("default/{}", claim.name_any())))
    };
    // Who has it keeps it, lent or not.
    let eligible = |claim: &GpuClaim| card.spec.lend || owner.is_none() || owner == Some(&claim.spec.holder);
    let claimed = active.iter().any(|claim| eligible(claim)) || leases.iter().any(by_claim);
    let uses = |holder: &Holder| {
        let workload = workloads.iter().find(|workload| workload.name_any() == holder.name);
        workload.is_some_and(|workload| needs_card(workload, holder.variant))
    };
    let runs = |workload: &&Arc<Workload>| workload.spec.live.as_ref().is_some_and(|live| live.running);
    let by_use = workloads.iter().filter(runs).any(|workload| needs_card(workload, Variant::Live));
    let fits = match leases {
        [] => !claimed && owner.is_none() && !by_use,
        leases if claimed => leases.iter().all(by_claim),
        [only] if owner.is_some() => owner == Some(&only.holder),
        [only] => only.holder.kind == HolderKind::Workload && uses(&only.holder),
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("held as {leases:?}; claimed: {claimed}, owner: {owner:?}, used: {by_use}")) }
}

/// Whoever has the card and is to run also uses it, unless a handoff says that it could not be put back.
fn used(world: &World, lease: &Lease, workloads: &[Arc<Workload>], handoffs: &[Arc<Handoff>]) -> Result<(), String> {
    let holder = &lease.holder;
    let Some(workload) = workloads.iter().find(|w| holder.kind == HolderKind::Workload && w.name_any() == holder.name)
    else {
        return Ok(());
    };
    let to_run = match holder.variant {
        Variant::Live => workload.spec.live.as_ref().is_some_and(|live| live.running),
        Variant::Candidate => workload.spec.candidate.as_ref().is_some_and(|candidate| candidate.running),
    };
    if !to_run || !needs_card(workload, holder.variant) {
        return Ok(());
    }
    let by_time =
        |handoff: &&Arc<Handoff>| handoff.status.as_ref().and_then(|s| s.completed_at.as_ref().map(|at| at.0));
    let did = |h: &Handoff| h.status.as_ref().is_some_and(|status| !status.steps.is_empty());
    let side = |side: &Option<Holder>| side.as_ref() == Some(holder);
    let concerns = |h: &&Arc<Handoff>| did(h) && (side(&h.spec.from) || side(&h.spec.to));
    let last = handoffs.iter().filter(concerns).max_by_key(by_time).and_then(|handoff| handoff.status.clone());
    let told_so = last.is_some_and(|status| {
        let back = status.rollback.map(|rollback| rollback.outcome);
        let steps = status.steps.iter().any(|step| step.outcome == StepOutcome::Failed);
        back == Some(StepOutcome::Failed) || status.phase == HandoffPhase::Completed && steps
    });
    let containers = world.engine.observed();
    let its: Vec<&Container> = containers.iter().filter(|c| holder_of(c).as_ref() == Some(holder)).collect();
    let residents = world.engine.residents();
    let uses = residents.iter().any(|resident| {
        resident.mib >= FREE_BELOW_MIB && its.iter().any(|container| Some(&container.id) == resident.container.as_ref())
    });
    // It has let go when it was asked, and by its present spec nobody asks it to take the card again.
    let runs = its.iter().any(|container| container.state == ContainerState::Running);
    let steps = workload.spec.gpu.iter().flat_map(|gpu| &gpu.acquire_steps);
    let is_asked = steps.into_iter().any(|step| step.start.is_none());
    let lied = its.iter().any(|container| world.ledger().liars.contains(&container.name));
    if uses || told_so || lied || runs && !is_asked {
        Ok(())
    } else {
        Err(format!("{holder} holds the card and does not use it: {its:?}"))
    }
}

/// Who holds the card, and what became of those who wanted it, without names and times that a fault may change.
pub fn outcome(world: &World) -> Vec<String> {
    let cards = stored::<Gpu>(world, "gpus").unwrap_or_default();
    let leases = cards.iter().flat_map(|card| card.status.iter().flat_map(|status| status.leases.clone()));
    let claims = stored::<GpuClaim>(world, "gpuclaims").unwrap_or_default();
    let handoffs = stored::<Handoff>(world, "handoffs").unwrap_or_default();
    let promotions = stored::<Promotion>(world, "promotions").unwrap_or_default();
    let mut outcome: Vec<String> = leases.map(|lease| format!("held by {}", lease.holder)).collect();
    outcome.extend(claims.iter().map(|c| format!("{}: {:?}", c.name_any(), c.status.as_ref().map(|s| s.phase))));
    let side = |holder: &Option<Holder>| holder.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let told = |h: &Handoff| (side(&h.spec.from), side(&h.spec.to), h.status.as_ref().map(|status| status.phase));
    outcome.extend(handoffs.iter().map(|h| told(h)).map(|(from, to, end)| format!("from {from} to {to}: {end:?}")));
    outcome.extend(promotions.iter().map(|p| format!("{}: {:?}", p.name_any(), p.status.as_ref().map(|s| s.phase))));
    outcome.sort();
    outcome
}

/// Who holds the card by which lease, and the handoffs there are: what rests when nothing happens.
pub fn resting(world: &World) -> Vec<String> {
    let cards = stored::<Gpu>(world, "gpus").unwrap_or_default();
    let leases = cards.iter().flat_map(|card| card.status.iter().flat_map(|status| status.leases.clone()));
    let leases = leases.map(|lease| format!("{} by {}", lease.holder, lease.lease_id));
    let handoffs = stored::<Handoff>(world, "handoffs").unwrap_or_default();
    leases.chain(handoffs.iter().map(|it| it.name_any())).collect()
}
