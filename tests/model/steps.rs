//! What then is: the state after each [`Act`].
//!
//! A pass is three steps, so that anything may come between them: it looks and decides, it writes if nobody wrote before
//! it, it applies. Engine, peers and driver answer when they like, and people do what they like, as often as [`Left`] allows.

use std::{collections::HashMap, sync::Mutex};

use gaia::{
    api::gpuclaim::GpuClaim,
    controllers::{gpu::holding::claim_name, handoff::claims_after},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    acts::{Act, Reply},
    bugs::Bug,
    deciding::{Effect, Library, Looking, has_ended},
    scene::Scene,
    shelf::Id,
    state::{Body, Clock, HANDOFFS, Left, Order, Outsider, Pass, Proof, Run, Stage, State, Uses, Who, Work, Wrong},
};

pub struct Model {
    pub scenes: Vec<Scene>,
    pub bug: Bug,
    pub library: Library,
    /// Of states from which nothing more goes wrong: whether all is well in the end.
    pub ends: Mutex<HashMap<u64, bool>>,
}

pub fn small(n: usize) -> u8 {
    u8::try_from(n).expect("a handful of objects")
}

impl Model {
    pub fn new(scenes: Vec<Scene>, bug: Bug) -> Self {
        Self { scenes, bug, library: Library::default(), ends: Mutex::default() }
    }

    pub fn scene(&self, state: &State) -> &Scene {
        &self.scenes[usize::from(state.scene)]
    }

    pub fn looking(&self, state: &State) -> Looking<'_> {
        Looking { library: &self.library, scene: self.scene(state), bug: self.bug }
    }

    /// Cards and workloads as declared, and nothing has happened yet.
    pub fn cold(&self, scene: usize) -> State {
        let body = Body {
            running: false,
            healthy: false,
            uses: Uses::Nothing,
            started: None,
            finished: None,
            told: [None, None],
            unproven: false,
        };
        let mut state = State {
            scene: small(scene),
            clock: Default::default(),
            gpus: Default::default(),
            claims: Default::default(),
            handoffs: Default::default(),
            workloads: Default::default(),
            bodies: [body; super::state::WORKLOADS],
            outsiders: Default::default(),
            passes: Default::default(),
            runs: [Run::Idle; HANDOFFS],
            proofs: [Proof::None; HANDOFFS],
            left: Left::default(),
            wrong: Wrong::default(),
        };
        for (n, gpu) in self.scenes[scene].gpus.iter().enumerate() {
            state.gpus[n] = self.library.gpus.keep(gpu.clone());
        }
        for (n, workload) in self.scenes[scene].workloads.iter().enumerate() {
            state.workloads[n] = self.library.workloads.keep(workload.clone());
        }
        state
    }

    /// What comes of a cold start by itself; then people and misfortune may begin.
    pub fn at_rest(&self, scene: usize) -> Vec<State> {
        let mut state = State { left: Left { shorts: 2, passes: 1, ..Left::default() }, ..self.cold(scene) };
        for claim in 0..self.scenes[scene].made_before {
            state = self.step(&state, Act::MakeClaim(claim)).expect("there is room for it");
        }
        while let Some((_, next)) = self.next_event(&state) {
            state = next;
        }
        // Past handoffs are forgotten, and outsiders have not come yet.
        state.handoffs = Default::default();
        state.runs = [Run::Idle; HANDOFFS];
        state.outsiders = Default::default();
        let mut begins = vec![state; self.scenes[scene].troubles.len()];
        for (begin, left) in begins.iter_mut().zip(&self.scenes[scene].troubles) {
            begin.left = *left;
        }
        begins
    }

    pub fn step(&self, before: &State, act: Act) -> Option<State> {
        let mut state = *before;
        match act {
            Act::Look(who) => {
                let plan = self.looking(before).look(before, who)?;
                let decided = self.library.plans.get(plan)?;
                let stage = if decided.base == decided.becomes { Stage::Written } else { Stage::Decided };
                state.put(Pass { who, stage, plan })?;
                if let (Who::Handoff(n), true) = (who, decided.closes_step) {
                    let proof = &mut state.proofs[usize::from(n)];
                    *proof = if *proof == Proof::Fresh { Proof::Old } else { *proof };
                }
            }
            Act::Write(who) => self.write(&mut state, who)?,
            Act::Apply(who) => self.apply(&mut state, who)?,
            Act::Starts(n) => state.starts(n.into())?,
            Act::Stops(n, rest) => {
                state.stops(n.into(), rest)?;
                state.left.faults -= u8::from(rest != Uses::Nothing);
            }
            Act::StopFails(n) => {
                state.left.faults -= 1;
                state.bodies[usize::from(n)].done(Order::Stop)?;
                state.answer_stop(n, false);
            }
            Act::Dies(n) => {
                state.left.faults -= 1;
                state.bodies[usize::from(n)].ends(before.clock, Uses::Nothing);
            }
            Act::BecomesHealthy(n) => state.bodies[usize::from(n)].healthy = true,
            Act::Drains(n) => state.bodies[usize::from(n)].uses = Uses::Nothing,
            Act::Answers(n, reply) => state.answers(n.into(), reply)?,
            Act::Sample(n) => state = self.sample(before, n.into())?,
            Act::SampleFails(n) => {
                state.left.faults -= 1;
                state.proofs[usize::from(n)] = Proof::None;
            }
            Act::Uses(n) => {
                state.wrong.stale_accepted |= !self.shows_present_token(before, n.into());
                state.outsiders[usize::from(n)].uses = true;
            }
            Act::GivesBack(n) | Act::GivesBackFalsely(n) => {
                let id = &mut state.claims[usize::from(n)];
                let mut claim = (*self.library.claims.get(*id)?).clone();
                claim.spec.release = true;
                *id = self.library.claims.keep(claim);
                match act {
                    Act::GivesBackFalsely(_) => state.left.faults -= 1,
                    _ => state.outsiders[usize::from(n)].uses = false,
                }
            }
            Act::Leaves(n) => state.outsiders[usize::from(n)].uses = false,
            Act::MakeHandoff(n) => {
                state.left.handoffs &= !(1 << n);
                let mut handoff = self.scene(before).handoffs[usize::from(n)].clone();
                handoff.metadata.creation_timestamp = Some(Time(before.clock.now()));
                state.add_handoff(self.library.handoffs.keep(handoff), &self.library)?;
            }
            Act::MakeClaim(n) => {
                state.left.claims &= !(1 << n);
                let mut claim = self.scene(before).claims[usize::from(n)].clone();
                claim.metadata.creation_timestamp = Some(Time(before.clock.now()));
                state.add_claim(self.library.claims.keep(claim))?;
            }
            Act::Cancel(n) | Act::Delete(n) => {
                state.left.cancels -= 1;
                let id = &mut state.handoffs[usize::from(n)];
                let mut handoff = (*self.library.handoffs.get(*id)?).clone();
                match act {
                    Act::Cancel(_) => handoff.spec.cancel = true,
                    _ => handoff.metadata.deletion_timestamp = Some(Time(before.clock.now())),
                }
                *id = self.library.handoffs.keep(handoff);
            }
            Act::ShortWait => {
                state.left.shorts -= 1;
                state.clock.short += 1;
            }
            Act::LongWait => {
                state.left.longs -= 1;
                state.clock.long += 1;
            }
            Act::Crash => {
                state.left.crashes -= 1;
                self.crash(&mut state);
            }
        }
        state.wrong = self.judge(before, &state, act);
        Some(state).filter(|state| state != before)
    }

    fn write(&self, state: &mut State, who: Who) -> Option<()> {
        let pass = state.take(who)?;
        let plan = self.library.plans.get(pass.plan)?;
        let slot = match who {
            Who::Gpu(n, _) => &mut state.gpus[usize::from(n)],
            Who::Claim(n) => &mut state.claims[usize::from(n)],
            Who::Handoff(n) => &mut state.handoffs[usize::from(n)],
            Who::Workload(n) => &mut state.workloads[usize::from(n)],
        };
        if *slot != plan.base && self.bug != Bug::NoCompareAndSwap {
            return Some(());
        }
        *slot = plan.becomes;
        if let (Who::Handoff(n), false) = (who, plan.becomes.is_some()) {
            state.runs[usize::from(n)] = Run::Idle;
            state.proofs[usize::from(n)] = Proof::None;
        }
        if !plan.effects.is_empty() {
            state.put(Pass { stage: Stage::Written, ..pass })?;
        }
        Some(())
    }

    fn apply(&self, state: &mut State, who: Who) -> Option<()> {
        let pass = state.take(who)?;
        let plan = self.library.plans.get(pass.plan)?;
        for effect in &plan.effects {
            match (*effect, who) {
                (Effect::Run(key, work), Who::Handoff(n)) => {
                    let run = &mut state.runs[usize::from(n)];
                    if !matches!(*run, Run::UnderWay(at, _) | Run::Done(at, _) if at == key) {
                        *run = Run::UnderWay(key, work);
                        if let Work::Stop(body) = work {
                            state.bodies[usize::from(body)].tell(Order::Stop)?;
                        }
                    }
                }
                (Effect::EnsureClaim, Who::Handoff(n)) => {
                    let handoff = self.library.handoffs.get(state.handoffs[usize::from(n)])?;
                    let there = self.library.all_claims(state);
                    let free = |claim: &GpuClaim| !there.iter().any(|c| claim_name(c) == claim_name(claim));
                    if let Some(mut claim) = claims_after(&handoff).into_iter().find(free) {
                        claim.metadata.creation_timestamp = Some(Time(state.clock.now()));
                        claim.metadata.generation = Some(1);
                        state.add_claim(self.library.claims.keep(claim))?;
                    }
                }
                (Effect::Create(id), _) => {
                    let mut handoff = (*self.library.handoffs.get(id)?).clone();
                    handoff.metadata.creation_timestamp = Some(Time(state.clock.now()));
                    handoff.metadata.generation = Some(1);
                    let taken =
                        self.library.all_handoffs(state).iter().any(|h| h.metadata.name == handoff.metadata.name);
                    if !taken {
                        state.add_handoff(self.library.handoffs.keep(handoff), &self.library)?;
                    }
                }
                (Effect::DeleteClaim, Who::Claim(n)) => state.claims[usize::from(n)] = Id::NONE,
                // A handoff has begun since it was decided.
                (Effect::Start, Who::Workload(n)) if !self.looking(state).may_start(state, n.into()) => {}
                (Effect::Start, Who::Workload(n)) => {
                    state.bodies[usize::from(n)].tell(Order::Start)?;
                    state.put(Pass { stage: Stage::Waiting(Order::Start), ..pass })?;
                }
                (Effect::Stop, Who::Workload(n)) => {
                    state.bodies[usize::from(n)].tell(Order::Stop)?;
                    state.put(Pass { stage: Stage::Waiting(Order::Stop), ..pass })?;
                }
                (effect, who) => unreachable!("{who:?} has no {effect:?}"),
            }
        }
        Some(())
    }

    fn crash(&self, state: &mut State) {
        state.passes = Default::default();
        state.runs.fill(Run::Idle);
        state.proofs.fill(Proof::None);
        if self.bug == Bug::CrashForgets {
            for id in &mut state.handoffs {
                if self.library.handoffs.get(*id).is_some_and(|handoff| !has_ended(&handoff)) {
                    *id = Id::NONE;
                }
            }
        }
    }
}

impl Body {
    /// None: too much at once.
    fn tell(&mut self, order: Order) -> Option<()> {
        if self.told.iter().flatten().last() != Some(&order) {
            *self.told.iter_mut().find(|place| place.is_none())? = Some(order);
        }
        Some(())
    }

    fn done(&mut self, order: Order) -> Option<()> {
        self.told[0].filter(|first| *first == order)?;
        self.told = [self.told[1], None];
        Some(())
    }

    fn ends(&mut self, clock: Clock, rest: Uses) {
        (self.running, self.healthy, self.finished) = (false, false, Some(clock));
        self.uses = if self.uses == Uses::Process { rest } else { self.uses };
    }
}

impl State {
    /// None: too many passes are under way.
    fn put(&mut self, pass: Pass) -> Option<()> {
        *self.passes.iter_mut().find(|place| place.is_none())? = Some(pass);
        self.passes.sort_by_key(|pass| pass.map_or((1, None), |pass| (0, Some(pass.who))));
        Some(())
    }

    fn take(&mut self, who: Who) -> Option<Pass> {
        let place = self.passes.iter_mut().find(|place| place.is_some_and(|pass| pass.who == who))?;
        let pass = place.take();
        self.passes.sort_by_key(|pass| pass.map_or((1, None), |pass| (0, Some(pass.who))));
        pass
    }

    fn add_claim(&mut self, claim: Id) -> Option<()> {
        let n = self.claims.iter().position(|id| !id.is_some())?;
        self.claims[n] = claim;
        self.outsiders[n] = Outsider::default();
        Some(())
    }

    /// In a free place, or in that of one that has ended.
    fn add_handoff(&mut self, handoff: Id, library: &Library) -> Option<()> {
        let ended = |id: &Id| library.handoffs.get(*id).is_some_and(|handoff| has_ended(&handoff));
        let free = self.handoffs.iter().position(|id| !id.is_some());
        let n = free.or_else(|| self.handoffs.iter().position(ended))?;
        self.handoffs[n] = handoff;
        self.runs[n] = Run::Idle;
        self.proofs[n] = Proof::None;
        Some(())
    }

    fn starts(&mut self, n: usize) -> Option<()> {
        let clock = self.clock;
        let body = &mut self.bodies[n];
        body.done(Order::Start)?;
        if !body.running {
            (body.running, body.healthy, body.started) = (true, false, Some(clock));
            (body.uses, body.unproven) = (Uses::Process, true);
        }
        self.end_wait(small(n), Order::Start);
        Some(())
    }

    fn stops(&mut self, n: usize, rest: Uses) -> Option<()> {
        let clock = self.clock;
        let body = &mut self.bodies[n];
        body.done(Order::Stop)?;
        if body.running {
            body.ends(clock, rest);
        }
        self.answer_stop(small(n), true);
        Some(())
    }

    /// Of handoffs and of the workload controller alike.
    fn answer_stop(&mut self, n: u8, done: bool) {
        for handoff in 0..self.runs.len() {
            if let Run::UnderWay(key, work) = self.runs[handoff]
                && work == Work::Stop(n)
            {
                self.answer_run(handoff, Run::Done(key, done));
            }
        }
        self.end_wait(n, Order::Stop);
    }

    /// What was sampled before proves nothing about it.
    fn answer_run(&mut self, handoff: usize, answer: Run) {
        self.runs[handoff] = answer;
        let proof = &mut self.proofs[handoff];
        *proof = if *proof == Proof::Fresh { Proof::Old } else { *proof };
    }

    fn end_wait(&mut self, n: u8, order: Order) {
        let (who, stage) = (Who::Workload(n), Stage::Waiting(order));
        if self.passes.iter().flatten().any(|pass| pass.who == who && pass.stage == stage) {
            self.take(who);
        }
    }

    fn answers(&mut self, n: usize, reply: Reply) -> Option<()> {
        let Run::UnderWay(key, work) = self.runs[n] else { return None };
        let place = match work {
            Work::Ask(place) | Work::Take(place) => usize::from(place),
            Work::Stop(_) => return None,
        };
        self.left.faults -= u8::from(reply != Reply::Does);
        let body = &mut self.bodies[place];
        let does = reply == Reply::Does && body.running;
        match work {
            Work::Ask(_) if does && body.uses == Uses::Process => body.uses = Uses::Nothing,
            Work::Take(_) if does => (body.uses, body.unproven) = (Uses::Process, true),
            Work::Ask(_) | Work::Take(_) | Work::Stop(_) => {}
        }
        let done = reply != Reply::Refuses && body.running;
        self.answer_run(n, Run::Done(key, done));
        Some(())
    }
}
