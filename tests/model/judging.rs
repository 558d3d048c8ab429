//! What must hold: of every step, of every state, and of what comes of every state once nothing more goes wrong.

use std::sync::Arc;

use gaia::{
    adapters::{
        containers::ContainerSummary,
        gpus::{GpuProcess, GpuSample},
    },
    api::{
        gpu::{Gpu, HolderKind, Lease},
        gpuclaim::{GpuClaim, GpuClaimPhase},
        handoff::{Handoff, HandoffPhase, StepOutcome},
    },
    controllers::{
        gpu::holding::{self, Wanted},
        handoff::{
            decide::{Leaver, leaver},
            observe::subject,
            proof,
        },
    },
};
use stateright::Property;

use super::{
    acts::Act,
    deciding::has_ended,
    shelf::{Id, hash_of},
    state::{Left, Proof, State, Uses, Wrong},
    steps::Model,
};

/// What somebody has on a card, and what would count as free.
const USED_MIB: u64 = 8_000;

impl Model {
    /// The state after the driver was asked; None: nothing would be new, or nobody asks.
    pub fn sample(&self, state: &State, n: usize) -> Option<State> {
        let handoff = state.handoffs[n];
        let uses = state.bodies.map(|body| (body.running, body.uses, body.started));
        let key = (8u8, state.scene, handoff, state.gpus, uses, state.outsiders);
        let seen = self.library.judged.get_or(&key, || self.what_is_sampled(state, n));
        let mut after = *state;
        after.proofs[n] = match seen {
            NOT_ASKED => return None,
            BUSY => Proof::None,
            _ => Proof::Fresh,
        };
        if let Some(body) = seen.checked_sub(FREE_OF).and_then(|n| after.bodies.get_mut(n as usize)) {
            body.unproven = false;
        }
        Some(after).filter(|after| after != state)
    }

    fn what_is_sampled(&self, state: &State, n: usize) -> u32 {
        let looking = self.looking(state);
        let Some(handoff) = self.library.handoffs.get(state.handoffs[n]).filter(|h| !has_ended(h)) else {
            return NOT_ASKED;
        };
        let gpus = self.library.all_gpus(state);
        let Some(gpu) = gpus.iter().find(|gpu| gpu.metadata.name.as_ref() == Some(&handoff.spec.gpu)) else {
            return NOT_ASKED;
        };
        let (from, to) = (handoff.spec.from.as_ref(), handoff.spec.to.as_ref());
        let (from, to) = (looking.party(state, from), looking.party(state, to));
        let scene = self.scene(state);
        let all: Vec<_> = scene.containers.iter().map(ContainerSummary::from).collect();
        let Some(subject) = subject(&handoff, gpu, from.as_ref(), to.as_ref(), &all) else {
            return NOT_ASKED;
        };
        match proof::blocker(&self.reading(state, gpu), &subject) {
            Some(_) => BUSY,
            None => {
                let gone = match leaver(&handoff, Some(gpu)) {
                    Leaver::To => to,
                    Leaver::From | Leaver::Nobody => from,
                };
                let place = gone.and_then(|gone| looking.place_of(&gone.holder));
                place.map_or(FREE, |place| FREE_OF + u32::try_from(place).unwrap_or(u32::MAX))
            }
        }
    }

    fn reading(&self, state: &State, gpu: &Gpu) -> GpuSample {
        let name = gpu.metadata.name.clone().unwrap_or_default();
        let scene = self.scene(state);
        let mut processes = Vec::new();
        let mut used = 0;
        for (n, body) in state.bodies.iter().enumerate().filter(|(n, _)| self.is_member(state, *n, &name)) {
            used += if body.uses == Uses::Nothing { 0 } else { USED_MIB };
            if matches!(body.uses, Uses::Process | Uses::Orphan) {
                let container = Some(scene.containers[n].id.clone());
                processes.push(GpuProcess {
                    pid: n as u32 + 1,
                    name: None,
                    container,
                    other_engine: false,
                    used_mib: Some(USED_MIB),
                });
            }
        }
        for n in (0..state.outsiders.len()).filter(|n| state.outsiders[*n].uses && self.is_claimed(state, *n, &name)) {
            used += USED_MIB;
            processes.push(GpuProcess {
                pid: n as u32 + 100,
                name: None,
                container: None,
                other_engine: false,
                used_mib: Some(USED_MIB),
            });
        }
        GpuSample { memory_total_mib: 24_000, memory_used_mib: Some(used), processes: Some(processes) }
    }

    fn is_member(&self, state: &State, workload: usize, gpu: &str) -> bool {
        let workload = self.scene(state).workloads.get(workload);
        workload.and_then(|w| w.spec.gpu.as_ref()).is_some_and(|gpus| gpus.members.iter().any(|name| name == gpu))
    }

    /// A claim that names no card is for all there are, in our scenes.
    fn is_claimed(&self, state: &State, claim: usize, gpu: &str) -> bool {
        let claim = self.library.claims.get(state.claims[claim]);
        claim.is_some_and(|claim| claim.spec.gpu.as_ref().is_none_or(|name| name == gpu))
    }

    /// What was wrong before, and whether this step was.
    pub fn judge(&self, before: &State, after: &State, act: Act) -> Wrong {
        let mut wrong = after.wrong;
        for card in (0..after.gpus.len()).filter(|n| before.gpus[*n] != after.gpus[*n]) {
            let Some(was) = self.library.gpus.get(before.gpus[card]) else { continue };
            let Some(is) = self.library.gpus.get(after.gpus[card]) else { continue };
            let token = |gpu: &Gpu| gpu.status.as_ref().map_or(0, |status| status.fencing_token);
            let (old, new) = (holding::leases(&was), holding::leases(&is));
            let holders = |leases: &[Lease]| leases.iter().map(|lease| lease.holder.clone()).collect::<Vec<_>>();
            let comes = holders(new).iter().any(|holder| !holders(old).contains(holder));
            wrong.token |= token(&is) < token(&was) || (comes && token(&is) == token(&was));
            let lost = old.iter().filter(|lease| !holders(new).contains(&lease.holder));
            let places = lost.filter_map(|lease| self.looking(after).place_of(&lease.holder));
            wrong.moved_without_proof |= places.into_iter().any(|n| after.bodies[n].unproven);
        }
        // To the engine a start of what runs is none.
        if let Act::Starts(n) = act
            && !before.bodies[usize::from(n)].running
        {
            wrong.started_without_lease |= !self.holds_its_cards(after, n.into());
        }
        for n in (0..after.handoffs.len()).filter(|n| before.handoffs[*n] != after.handoffs[*n]) {
            let Some(was) = self.library.handoffs.get(before.handoffs[n]) else { continue };
            let is = self.library.handoffs.get(after.handoffs[n]);
            let wished_away = was.metadata.deletion_timestamp.is_some();
            wrong.wish_lost |=
                is.as_ref().is_none_or(|is| is.metadata.name != was.metadata.name) && !has_ended(&was) && !wished_away;
            wrong.wish_lost |= was.spec.cancel && is.as_ref().is_some_and(|is| !is.spec.cancel);
            wrong.wish_lost |= wished_away && is.as_ref().is_some_and(|is| is.metadata.deletion_timestamp.is_none());
        }
        for n in (0..after.claims.len()).filter(|n| before.claims[*n] != after.claims[*n]) {
            let Some(was) = self.library.claims.get(before.claims[n]) else { continue };
            let Some(is) = self.library.claims.get(after.claims[n]) else { continue };
            wrong.wish_lost |= was.spec.release && !is.spec.release && was.metadata.name == is.metadata.name;
        }
        wrong
    }

    fn holds_its_cards(&self, state: &State, workload: usize) -> bool {
        let gpus = self.library.all_gpus(state);
        let its =
            gpus.iter().filter(|gpu| self.is_member(state, workload, gpu.metadata.name.as_deref().unwrap_or_default()));
        let holds = |gpu: &Gpu| {
            let holders = holding::leases(gpu).iter().map(|lease| &lease.holder);
            holders.into_iter().any(|holder| self.looking(state).place_of(holder) == Some(workload))
        };
        its.into_iter().all(|gpu| holds(gpu))
    }

    /// No workload is on a card with anybody else. Outsiders that lost a card know no better than to stay for a while.
    fn one_user(&self, state: &State) -> bool {
        self.scene(state).gpus.iter().all(|gpu| {
            let name = gpu.metadata.name.as_deref().unwrap_or_default();
            let uses = |n: &usize| state.bodies[*n].uses != Uses::Nothing && self.is_member(state, *n, name);
            let workloads = (0..state.bodies.len()).filter(uses).count();
            let there = |n: &usize| state.outsiders[*n].uses && self.is_claimed(state, *n, name);
            let outsiders = (0..state.outsiders.len()).filter(there).count();
            workloads == 0 || workloads + outsiders == 1
        })
    }

    fn one_lease(&self, state: &State) -> bool {
        let leases = |id: &Id| {
            self.library.judged.get_or(&(9u8, *id), || {
                let gpu = self.library.gpus.get(*id);
                gpu.map_or(0, |gpu| u32::try_from(holding::leases(&gpu).len()).unwrap_or(u32::MAX))
            })
        };
        state.gpus.iter().all(|id| leases(id) <= 1)
    }

    /// Whether all is well in the end if nothing more goes wrong and nobody wants anything new. One schedule for each state:
    /// what has begun ends first, then everybody looks in turn, and time passes when nobody has anything to do.
    pub fn ends_well(&self, state: &State) -> bool {
        let mut state = afterwards(state);
        let mut way = Vec::new();
        let verdict = loop {
            let key = hash_of(&state);
            if let Some(known) = self.ends.lock().expect("nobody panics while holding it").get(&key) {
                break *known;
            }
            way.push(key);
            match self.next_event(&state) {
                _ if way.len() > MOST_EVENTS => break false,
                Some((_, next)) => state = next,
                None => break self.unsettled(&state).is_none(),
            }
        };
        self.ends.lock().expect("nobody panics while holding it").extend(way.into_iter().map(|key| (key, verdict)));
        verdict
    }

    /// How it goes on by itself, and what is not well then.
    pub fn epilogue(&self, state: &State) -> Vec<String> {
        let mut state = afterwards(state);
        let mut told = Vec::new();
        while let Some((act, next)) = self.next_event(&state).filter(|_| told.len() < MOST_TOLD) {
            told.push(format!("{act:?}"));
            state = next;
        }
        told.push(self.unsettled(&state).unwrap_or_else(|| "all is well".to_owned()));
        told
    }

    pub fn next_event(&self, state: &State) -> Option<(Act, State)> {
        let mut acts = Vec::new();
        self.events(state, &mut acts);
        acts.extend(Some(Act::ShortWait).filter(|_| state.left.shorts > 0));
        acts.extend(Some(Act::LongWait).filter(|_| state.left.longs > 0));
        acts.into_iter().find_map(|act| Some((act, self.step(state, act)?)))
    }

    /// Unless every handoff has ended, every card is with whom it should be with, and who has his cards runs.
    fn unsettled(&self, state: &State) -> Option<String> {
        let world = self.library.world(state);
        if let Some(handoff) = self.library.all_handoffs(state).iter().find(|handoff| !has_ended(handoff)) {
            return Some(format!("has not ended: {}", serde_json::to_string(&**handoff).unwrap_or_default()));
        }
        let assigned = holding::assign(&world, state.clock.now());
        for gpu in &world.gpus {
            let name = gpu.metadata.name.as_deref().unwrap_or_default();
            let (leases, wanted) = (holding::leases(gpu), assigned.wanted.get(name).cloned().unwrap_or_default());
            let same =
                |(lease, wanted): (&Lease, &Wanted)| lease.holder == wanted.holder && lease.claim == wanted.claim;
            if leases.len() != wanted.len() || !leases.iter().zip(&wanted).all(same) {
                return Some(format!("{name} is held by {leases:?}, and should be by {wanted:?}"));
            }
        }
        for n in 0..self.scene(state).workloads.len() {
            let body = &state.bodies[n];
            let well = match self.holds_its_cards(state, n) {
                // A peer that was asked to take the card may have refused: the handoff tells.
                true => body.running && body.healthy,
                false => body.uses == Uses::Nothing,
            };
            if !well {
                return Some(format!("workload {n}, with or without its cards: {body:?}"));
            }
        }
        let told_wrongly = |claim: &&Arc<GpuClaim>| {
            let held = holding::held_by(&holding::claim_name(claim), &world.gpus).len();
            let granted = claim.status.as_ref().is_some_and(|status| status.phase == GpuClaimPhase::Granted);
            granted != (held >= claim.spec.count as usize)
        };
        let wrong = world.claims.iter().find(told_wrongly)?;
        Some(format!("is told wrongly: {}", serde_json::to_string(&**wrong).unwrap_or_default()))
    }

    fn some_handoff(&self, state: &State, tag: u8, is: impl Fn(&Handoff) -> bool) -> bool {
        state.handoffs.iter().any(|id| {
            let judge = || u32::from(self.library.handoffs.get(*id).is_some_and(|handoff| is(&handoff)));
            id.is_some() && self.library.judged.get_or(&(tag, *id), judge) == 1
        })
    }

    fn some_claim_preempted(&self, state: &State) -> bool {
        let phase = |id: &Id| self.library.claims.get(*id).and_then(|c| c.status.clone()).map(|s| s.phase);
        let [first, second] = [0, 1].map(|n| phase(&state.claims[n]));
        first == Some(GpuClaimPhase::Released)
            && second == Some(GpuClaimPhase::Granted)
            && self
                .library
                .claims
                .get(state.claims[0])
                .is_some_and(|claim| !claim.spec.release && claim.spec.holder.kind == HolderKind::External)
    }
}

const NOT_ASKED: u32 = 0;
const BUSY: u32 = 1;
const FREE: u32 = 2;
/// And the place of the workload that it is free of.
const FREE_OF: u32 = 3;

/// Enough for every deadline, every pause between attempts, and a step after each.
const AFTERWARDS: Left =
    Left { shorts: 3, longs: 4, crashes: 0, faults: 0, cancels: 0, claims: 0, handoffs: 0, passes: 1 };
const MOST_EVENTS: usize = 5_000;
const MOST_TOLD: usize = 300;

fn afterwards(state: &State) -> State {
    State { left: AFTERWARDS, wrong: Wrong::default(), ..*state }
}

fn phase(handoff: &Handoff) -> HandoffPhase {
    handoff.status.as_ref().map(|status| status.phase).unwrap_or_default()
}

fn rolled_back(handoff: &Handoff) -> bool {
    let back = handoff.status.as_ref().and_then(|status| status.rollback.as_ref());
    back.is_some_and(|back| back.outcome == StepOutcome::Succeeded) && phase(handoff) == HandoffPhase::Failed
}

pub fn properties() -> Vec<Property<Model>> {
    vec![
        Property::always("one lease on a card", |model: &Model, state| model.one_lease(state)),
        Property::always("no workload on a card with anybody else", |model: &Model, state| model.one_user(state)),
        Property::always("the token rises with every grant", |_, state: &State| !state.wrong.token),
        Property::always("no lease moves without proof", |_, state: &State| !state.wrong.moved_without_proof),
        Property::always("nobody starts before the lease is his", |_, state: &State| {
            !state.wrong.started_without_lease
        }),
        Property::always("a stale token is refused", |_, state: &State| !state.wrong.stale_accepted),
        Property::always("no wish is lost", |_, state: &State| !state.wrong.wish_lost),
        Property::always("all ends well once nothing goes wrong", |model: &Model, state| model.ends_well(state)),
        Property::sometimes("completed", |model: &Model, state| {
            model.some_handoff(state, 10, |handoff| phase(handoff) == HandoffPhase::Completed)
        }),
        Property::sometimes("rolled back", |model: &Model, state| model.some_handoff(state, 11, rolled_back)),
        Property::sometimes("cancelled", |model: &Model, state| {
            model.some_handoff(state, 12, |handoff| phase(handoff) == HandoffPhase::Cancelled)
        }),
        Property::sometimes("preempted", |model: &Model, state| model.some_claim_preempted(state)),
    ]
}
