//! What can happen next: what the world does by itself, and what people and misfortune do, as often as [`super::state::Left`] allows.

use gaia::{
    api::{
        gpu::{Gpu, HolderKind},
        gpuclaim::GpuClaimPhase,
        handoff::Handoff,
    },
    controllers::gpu::holding::{self, claim_name},
};

use super::{
    bugs::Bug,
    deciding::has_ended,
    shelf::Id,
    state::{Order, Proof, Run, Stage, State, Uses, Who, Work},
    steps::{Model, small},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Look(Who),
    Write(Who),
    Apply(Who),
    /// The engine: of the workload's container. What is left on the card when it ends.
    Starts(u8),
    Stops(u8, Uses),
    StopFails(u8),
    /// By itself.
    Dies(u8),
    BecomesHealthy(u8),
    /// What was left is gone.
    Drains(u8),
    /// A peer, to the handoff's step.
    Answers(u8, Reply),
    /// The driver, to the handoff.
    Sample(u8),
    SampleFails(u8),
    /// The holder of the claim: is on the card, is off it and gives it back, gives it back and stays, is off it.
    Uses(u8),
    GivesBack(u8),
    GivesBackFalsely(u8),
    Leaves(u8),
    MakeHandoff(u8),
    MakeClaim(u8),
    Cancel(u8),
    Delete(u8),
    ShortWait,
    LongWait,
    Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Does,
    Refuses,
    /// Says that it did.
    Lies,
}
impl Model {
    /// What the world does by itself: first what ends something, then what begins something.
    pub fn events(&self, state: &State, acts: &mut Vec<Act>) {
        for pass in state.passes.iter().flatten() {
            match pass.stage {
                Stage::Decided => acts.push(Act::Write(pass.who)),
                Stage::Written => acts.push(Act::Apply(pass.who)),
                Stage::Waiting(_) => {}
            }
        }
        for (n, body) in state.bodies.iter().enumerate() {
            let n = small(n);
            if body.told[0] == Some(Order::Start) {
                acts.push(Act::Starts(n));
            }
            if body.told[0] == Some(Order::Stop) {
                acts.push(Act::Stops(n, Uses::Nothing));
            }
            if matches!(body.uses, Uses::Memory | Uses::Orphan) {
                acts.push(Act::Drains(n));
            }
            if body.running && !body.healthy {
                acts.push(Act::BecomesHealthy(n));
            }
        }
        for (n, run) in state.runs.iter().enumerate() {
            if matches!(run, Run::UnderWay(_, Work::Ask(_) | Work::Take(_))) {
                acts.push(Act::Answers(small(n), Reply::Does));
            }
            acts.extend(Some(Act::Sample(small(n))).filter(|_| self.sample(state, n).is_some()));
        }
        for n in 0..state.claims.len() {
            let (may_use, should_leave) = self.outsider(state, n);
            acts.extend(Some(Act::Uses(small(n))).filter(|_| may_use));
            acts.extend(Some(Act::Leaves(small(n))).filter(|_| should_leave));
        }
        if state.passes.iter().flatten().count() < usize::from(state.left.passes) {
            let idle = |who: &Who| !state.passes.iter().flatten().any(|pass| pass.who == *who);
            acts.extend(self.everybody(state).filter(idle).filter(|who| self.has_news(state, *who)).map(Act::Look));
        }
    }

    fn everybody(&self, state: &State) -> impl Iterator<Item = Who> + use<> {
        let (cards, workers) = (small(self.scene(state).gpus.len()), self.scene(state).workers);
        let workloads = (0..small(self.scene(state).workloads.len())).map(Who::Workload);
        let handoffs = (0..small(state.handoffs.len())).map(Who::Handoff);
        let claims = (0..small(state.claims.len())).map(Who::Claim);
        let gpus = (0..cards).flat_map(move |card| (0..workers).map(move |worker| Who::Gpu(card, worker)));
        workloads.chain(handoffs).chain(claims).chain(gpus)
    }

    fn has_news(&self, state: &State, who: Who) -> bool {
        self.slot(state, who).is_some() && self.looking(state).look(state, who).is_some()
    }

    fn slot(&self, state: &State, who: Who) -> Id {
        match who {
            Who::Gpu(n, _) => state.gpus[usize::from(n)],
            Who::Claim(n) => state.claims[usize::from(n)],
            Who::Handoff(n) => state.handoffs[usize::from(n)],
            Who::Workload(n) => state.workloads[usize::from(n)],
        }
    }

    /// What people do, and what goes wrong.
    pub fn interference(&self, state: &State, acts: &mut Vec<Act>) {
        let left = state.left;
        let bits = |mask: u8| (0..8u8).filter(move |n| mask & (1 << n) != 0);
        acts.extend(bits(left.handoffs).map(Act::MakeHandoff));
        acts.extend(bits(left.claims).map(Act::MakeClaim));
        let claims = (0..state.claims.len()).filter(|n| self.is_open(state, *n)).map(small);
        acts.extend(claims.clone().map(Act::GivesBack));
        if left.cancels > 0 {
            let runs = |n: &usize| self.library.handoffs.get(state.handoffs[*n]).is_some_and(|h| may_be_cancelled(&h));
            let running = (0..state.handoffs.len()).filter(runs).map(small);
            acts.extend(running.flat_map(|n| [Act::Cancel(n), Act::Delete(n)]));
        }
        if left.faults > 0 {
            acts.extend(claims.filter(|n| state.outsiders[usize::from(*n)].uses).map(Act::GivesBackFalsely));
            for (n, body) in state.bodies.iter().enumerate().filter(|(_, body)| body.told[0] == Some(Order::Stop)) {
                acts.push(Act::StopFails(small(n)));
                if body.uses == Uses::Process {
                    acts.extend([Uses::Memory, Uses::Orphan].map(|rest| Act::Stops(small(n), rest)));
                }
            }
            let alive = state.bodies.iter().enumerate().filter(|(_, body)| body.running && body.told[0].is_none());
            acts.extend(alive.map(|(n, _)| Act::Dies(small(n))));
            for (n, run) in state.runs.iter().enumerate() {
                match run {
                    Run::UnderWay(_, Work::Ask(_)) => {
                        acts.extend([Reply::Refuses, Reply::Lies].map(|reply| Act::Answers(small(n), reply)));
                    }
                    Run::UnderWay(_, Work::Take(_)) => acts.push(Act::Answers(small(n), Reply::Refuses)),
                    Run::UnderWay(_, Work::Stop(_)) | Run::Idle | Run::Done(..) => {}
                }
            }
            let sampled = (0..state.proofs.len()).filter(|n| state.proofs[*n] != Proof::None);
            acts.extend(sampled.map(|n| Act::SampleFails(small(n))));
        }
        acts.extend(Some(Act::ShortWait).filter(|_| left.shorts > 0));
        acts.extend(Some(Act::LongWait).filter(|_| left.longs > 0));
        acts.extend(Some(Act::Crash).filter(|_| left.crashes > 0));
    }

    /// A claim of an outsider that has not ended and was not given back.
    fn is_open(&self, state: &State, n: usize) -> bool {
        self.library.claims.get(state.claims[n]).is_some_and(|claim| {
            let ended = claim.status.as_ref().is_some_and(|status| status.phase.is_terminal());
            claim.spec.holder.kind == HolderKind::External && !claim.spec.release && !ended
        })
    }

    /// Whether its holder is let onto the card, and whether it should go. The card lets in who shows the present token.
    fn outsider(&self, state: &State, n: usize) -> (bool, bool) {
        let Some(claim) = self.library.claims.get(state.claims[n]) else { return (false, false) };
        if claim.spec.holder.kind != HolderKind::External {
            return (false, false);
        }
        let status = claim.status.clone().unwrap_or_default();
        let uses = state.outsiders[n].uses;
        let granted = status.phase == GpuClaimPhase::Granted && !claim.spec.release;
        let current = self.bug == Bug::StaleAccepted || self.shows_present_token(state, n);
        (granted && !uses && current, uses && !granted)
    }

    pub fn shows_present_token(&self, state: &State, n: usize) -> bool {
        let Some(claim) = self.library.claims.get(state.claims[n]) else { return false };
        let shown = claim.status.as_ref().and_then(|status| status.fencing_token);
        let gpus = self.library.all_gpus(state);
        let held = holding::held_by(&claim_name(&claim), &gpus);
        let lease = |gpu: &Gpu| gpu.status.as_ref()?.lease_of(&claim.spec.holder).cloned();
        let tokens: Vec<i64> = held.iter().filter_map(|gpu| lease(gpu)).map(|lease| lease.fencing_token).collect();
        shown.is_some_and(|token| tokens.contains(&token))
    }
}

fn may_be_cancelled(handoff: &Handoff) -> bool {
    !has_ended(handoff) && !handoff.spec.cancel && handoff.metadata.deletion_timestamp.is_none()
}
