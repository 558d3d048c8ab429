//! What each controller decides in a state: the real functions, on real objects. Only how a pass sees the world is told
//! again here, as far as the reconcilers' `observe` cannot be called without a store.

use std::sync::Arc;

use gaia::{
    adapters::containers::{Container, ContainerSummary},
    api::{
        gpu::{Gpu, Holder, HolderKind},
        gpuclaim::GpuClaim,
        handoff::{Handoff, HandoffStatus},
        workload::{Variant, VariantHealth, Workload},
    },
    controllers::{
        gpu::{holding, leases},
        gpuclaim, handoff as handoffs,
        handoff::{
            observe::{Party, claim_ended, claim_stands},
            proof::Proof as Samples,
            runner::{Answer, Job, StepKey},
        },
        workload as workloads,
        workload::{
            observed::{EngineView, Health, Observed, VariantSeen},
            right::{self, Right},
        },
    },
    runtime::reconciler::Finalizer,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{
    bugs::Bug,
    scene::{Scene, seen},
    shelf::{Id, Memo, Shelf, hash_of},
    state::{Body, Proof, Run, State, Who, Work},
};

/// What a pass is going to do: put `becomes` in the place of `base`, and then its effects.
#[derive(Debug, Clone, Hash)]
pub struct Plan {
    pub base: Id,
    pub becomes: Id,
    /// A step has ended: what was seen of the card before is of no more use.
    pub closes_step: bool,
    pub effects: Vec<Effect>,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
pub enum Effect {
    Run(StepKey, Work),
    EnsureClaim,
    Create(Id),
    DeleteClaim,
    Start,
    Stop,
}

/// The objects that the states name, and what was decided about them.
#[derive(Default)]
pub struct Library {
    pub gpus: Shelf<Gpu>,
    pub claims: Shelf<GpuClaim>,
    pub handoffs: Shelf<Handoff>,
    pub workloads: Shelf<Workload>,
    pub plans: Shelf<Plan>,
    pub decided: Memo<Id>,
    pub judged: Memo<u32>,
}

impl Library {
    pub fn all_gpus(&self, state: &State) -> Vec<Arc<Gpu>> {
        state.gpus.iter().filter_map(|id| self.gpus.get(*id)).collect()
    }

    pub fn all_claims(&self, state: &State) -> Vec<Arc<GpuClaim>> {
        state.claims.iter().filter_map(|id| self.claims.get(*id)).collect()
    }

    pub fn all_handoffs(&self, state: &State) -> Vec<Arc<Handoff>> {
        state.handoffs.iter().filter_map(|id| self.handoffs.get(*id)).collect()
    }

    pub fn world(&self, state: &State) -> holding::World {
        let workloads = state.workloads.iter().filter_map(|id| self.workloads.get(*id)).collect();
        holding::World { gpus: self.all_gpus(state), claims: self.all_claims(state), workloads }
    }
}

pub fn has_ended(handoff: &Handoff) -> bool {
    handoff.status.as_ref().is_some_and(|status| status.phase.is_terminal())
}

/// Who looks, on which stage of which scene.
pub struct Looking<'a> {
    pub library: &'a Library,
    pub scene: &'a Scene,
    pub bug: Bug,
}

impl Looking<'_> {
    /// None: the pass would change nothing.
    pub fn look(&self, state: &State, who: Who) -> Option<Id> {
        let views = state.bodies.map(|body| (body.running, body.healthy, body.started, body.finished));
        let objects = (state.scene, state.clock, state.gpus, state.claims, state.handoffs);
        let id = match who {
            Who::Gpu(card, _) => self.remember((0u8, card, objects, state.workloads), || self.gpu(state, card.into())),
            Who::Claim(n) => self.remember((1u8, n, objects), || self.claim(state, n.into())),
            Who::Handoff(n) => {
                let known = (state.runs[usize::from(n)], state.proofs[usize::from(n)], state.workloads);
                self.remember((2u8, n, objects, known, views), || self.handoff(state, n.into()))
            }
            Who::Workload(n) => {
                let own = (state.workloads[usize::from(n)], views[usize::from(n)]);
                self.remember((3u8, n, objects, own), || self.workload(state, n.into()))
            }
        };
        Some(id).filter(|id| id.is_some())
    }

    fn remember(&self, key: impl std::hash::Hash, decide: impl FnOnce() -> Option<Plan>) -> Id {
        self.library.decided.get_or(&key, || match decide().filter(|p| p.base != p.becomes || !p.effects.is_empty()) {
            None => Id::NONE,
            Some(plan) => self.library.plans.keep_as(Id(hash_of(&plan).max(1)), || plan),
        })
    }

    fn gpu(&self, state: &State, card: usize) -> Option<Plan> {
        let gpu = self.library.gpus.get(state.gpus[card])?;
        let mut status = gpu.status.clone().unwrap_or_default();
        let (world, of_all) = (self.library.world(state), self.library.all_handoffs(state));
        let told = leases::decide(&gpu, &mut status, &world, &of_all, state.clock.now());
        let mut becomes = Gpu::clone(&gpu);
        becomes.status = Some(status);
        let effects = told.actions.into_iter().filter_map(|action| match action {
            leases::Action::Create(handoff) => Some(Effect::Create(self.library.handoffs.keep(*handoff))),
            leases::Action::Prune(_) => None,
        });
        let effects = effects.collect();
        Some(Plan { base: state.gpus[card], becomes: self.library.gpus.keep(becomes), closes_step: false, effects })
    }

    fn claim(&self, state: &State, n: usize) -> Option<Plan> {
        let claim = self.library.claims.get(state.claims[n])?;
        let observed =
            gpuclaim::decide::Observed { gpus: self.library.all_gpus(state), claims: self.library.all_claims(state) };
        let plan = gpuclaim::decide::decide(&claim, &observed, state.clock.now());
        let mut becomes = GpuClaim::clone(&claim);
        becomes.status = plan.status.or(becomes.status);
        // For people.
        becomes.status.iter_mut().for_each(|status| status.conditions.clear());
        let effects = plan.stages.into_iter().flatten().map(|action| match action {
            gpuclaim::Action::Delete => Effect::DeleteClaim,
        });
        let effects = effects.collect();
        Some(Plan { base: state.claims[n], becomes: self.library.claims.keep(becomes), closes_step: false, effects })
    }

    fn handoff(&self, state: &State, n: usize) -> Option<Plan> {
        let handoff = self.library.handoffs.get(state.handoffs[n])?;
        let gpu =
            self.library.all_gpus(state).into_iter().find(|gpu| gpu.metadata.name.as_ref() == Some(&handoff.spec.gpu));
        let full_name = leases::full_name(&handoff);
        let under_way = gpu.as_ref().and_then(|gpu| gpu.status.as_ref()?.handoff.clone());
        let others = self.library.all_handoffs(state);
        let runs = |full: &String| others.iter().any(|h| leases::full_name(h) == *full && !has_ended(h));
        let claims = self.library.all_claims(state);
        let to = gpu.as_ref().zip(handoff.spec.to.as_ref());
        let observed = handoffs::observe::Observed {
            other_runs: under_way.filter(|full| *full != full_name).filter(runs),
            from: self.party(state, handoff.spec.from.as_ref()),
            to: self.party(state, handoff.spec.to.as_ref()),
            answer: handoffs::decide::running(&handoff).and_then(|key| answer(state.runs[n], key)),
            answered_at: None,
            proof: Some(self.samples(state, n)),
            claim_stands: to.is_some_and(|(gpu, to)| claim_stands(to, gpu, &claims)),
            claim_ended: to.is_some_and(|(gpu, _)| claim_ended(&handoff, gpu, &claims)),
            gpu,
        };
        let plan = handoffs::decide::decide(&handoff, &observed, state.clock.now());
        let mut becomes = Handoff::clone(&handoff);
        becomes.status = plan.status.or(becomes.status).map(without_words);
        let gone = plan.finalizer == Finalizer::Released && handoff.metadata.deletion_timestamp.is_some();
        let effects = plan.stages.into_iter().flatten().map(|action| match action {
            handoffs::decide::Action::EnsureClaim => Effect::EnsureClaim,
            handoffs::decide::Action::Run { key, job } => Effect::Run(key, self.work(&job)),
        });
        let effects = effects.collect();
        // What is sampled after a step's answer proves it, however late the pass is that closes the step.
        let answered = usize::from(matches!(observed.answer, Some(Answer::Done(_))));
        let (before, after) = (marks(&handoff), marks(&becomes));
        let closes_step = before.0 + answered < after.0 || before.1 != after.1;
        let becomes = if gone { Id::NONE } else { self.library.handoffs.keep(becomes) };
        Some(Plan { base: state.handoffs[n], becomes, closes_step, effects })
    }

    fn samples(&self, state: &State, n: usize) -> Samples {
        let free_since = match state.proofs[n] {
            _ if self.bug == Bug::LeaseWithoutProof => Some(state.clock.just_after()),
            Proof::None => None,
            Proof::Old => Some(Timestamp::UNIX_EPOCH),
            Proof::Fresh => Some(state.clock.just_after()),
        };
        Samples { free_since, ..Samples::default() }
    }

    pub fn place_of(&self, holder: &Holder) -> Option<usize> {
        let its = |workload: &Workload| workload.metadata.name.as_ref() == Some(&holder.name);
        self.scene.workloads.iter().position(its).filter(|_| holder.kind == HolderKind::Workload)
    }

    pub fn container(&self, n: usize, body: &Body) -> Container {
        seen(&self.scene.containers[n], body)
    }

    pub fn party(&self, state: &State, holder: Option<&Holder>) -> Option<Party> {
        let n = self.place_of(holder?)?;
        let workload = self.library.workloads.get(state.workloads[n])?;
        let containers = vec![ContainerSummary::from(&self.container(n, &state.bodies[n]))];
        Some(Party { holder: holder?.clone(), workload, containers, peers: Vec::new() })
    }

    fn work(&self, job: &Job) -> Work {
        let place = |party: &Party| {
            u8::try_from(self.place_of(&party.holder).expect("only workloads have steps")).unwrap_or(u8::MAX)
        };
        match job {
            Job::Release(step, party) if step.http.is_some() => Work::Ask(place(party)),
            Job::Release(_, party) => Work::Stop(place(party)),
            Job::Acquire(_, party) => Work::Take(place(party)),
        }
    }

    fn workload(&self, state: &State, n: usize) -> Option<Plan> {
        let workload = self.library.workloads.get(state.workloads[n])?;
        let body = &state.bodies[n];
        let container = self.container(n, body);
        let health = match (body.running, body.healthy) {
            (true, true) => VariantHealth::Healthy,
            (true, false) => VariantHealth::Starting,
            (false, _) => VariantHealth::Unknown,
        };
        let mut live = VariantSeen {
            ours: vec![container.clone()],
            named: Some(container),
            health: Health { health, liveness_failed: false },
            right: self.right(state, &workload),
            ..VariantSeen::default()
        };
        live.image.present = Some(true);
        let view = EngineView { live, candidate: VariantSeen::default() };
        let observed = Observed { node: "here".into(), engine: Ok(view), dependencies: Vec::new(), cycle: None };
        let plan = workloads::decide::decide(&workload, &observed, state.clock.now());
        let mut becomes = Workload::clone(&workload);
        becomes.status = plan.status.or(becomes.status);
        // For people.
        becomes.status.iter_mut().for_each(|status| status.conditions.clear());
        let effects = plan.stages.into_iter().flatten().map(|action| match action {
            workloads::observed::Action::Start { .. } => Effect::Start,
            workloads::observed::Action::Stop { .. } => Effect::Stop,
            other => unreachable!("a container that is as it should be needs no {:?}", other.verb()),
        });
        let effects = effects.collect();
        Some(Plan {
            base: state.workloads[n],
            becomes: self.library.workloads.keep(becomes),
            closes_step: false,
            effects,
        })
    }

    /// Asked once more right before the engine is told to start it.
    pub fn may_start(&self, state: &State, n: usize) -> bool {
        let workload = self.library.workloads.get(state.workloads[n]);
        workload.is_some_and(|workload| self.right(state, &workload) == Right::Granted)
    }

    fn right(&self, state: &State, workload: &Workload) -> Right {
        let (gpus, of_all) = (self.library.all_gpus(state), self.library.all_handoffs(state));
        let members = workload.spec.gpu.as_ref().map(|gpu| gpu.members.clone()).unwrap_or_default();
        let cards: Vec<(String, Option<&Gpu>, Option<&Handoff>)> = members
            .into_iter()
            .map(|name| {
                let gpu = gpus.iter().find(|gpu| gpu.metadata.name.as_ref() == Some(&name)).map(|gpu| &**gpu);
                let under_way = gpu.and_then(|gpu| gpu.status.as_ref()?.handoff.as_ref());
                let handoff = of_all.iter().find(|h| Some(&leases::full_name(h)) == under_way && !has_ended(h));
                (name, gpu, handoff.map(|h| &**h))
            })
            .collect();
        let gets = |handoff: &&Handoff| handoff.spec.to.as_ref() == Some(&holding::holder_of(workload, Variant::Live));
        if self.bug == Bug::StartBeforeRelease && cards.iter().any(|(.., handoff)| handoff.as_ref().is_some_and(gets)) {
            return Right::Granted;
        }
        right::right(workload, Variant::Live, &cards)
    }
}

fn answer(run: Run, key: StepKey) -> Option<Answer> {
    match run {
        Run::UnderWay(at, _) if at == key => Some(Answer::UnderWay),
        Run::Done(at, true) if at == key => Some(Answer::Done(Ok(String::new()))),
        Run::Done(at, false) if at == key => Some(Answer::Done(Err("it did not work".to_owned()))),
        Run::Idle | Run::UnderWay(..) | Run::Done(..) => None,
    }
}

/// What a proof must be younger than: the ends of so many steps, and the beginning.
fn marks(handoff: &Handoff) -> (usize, Option<MicroTime>) {
    let status = handoff.status.clone().unwrap_or_default();
    let back = status.rollback.iter().flat_map(|rollback| &rollback.steps);
    let ended = status.steps.iter().chain(back).filter(|step| step.finished_at.is_some()).count();
    (ended, status.started_at)
}

/// What only people read.
fn without_words(mut status: HandoffStatus) -> HandoffStatus {
    status.conditions.clear();
    let back = status.rollback.iter_mut().flat_map(|rollback| &mut rollback.steps);
    status.steps.iter_mut().chain(back).for_each(|step| step.message = None);
    status
}
