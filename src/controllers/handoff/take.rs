//! How a holder takes a card: its steps in their order. Pure.

use super::{
    claims_after,
    decide::{Action, Pass, close, count, open, plus},
    observe::Party,
    runner::{Answer, Job, StepKey},
    steps,
};
use crate::{
    adapters::containers::ContainerState,
    api::{
        gpu::{Holder, HolderKind},
        gpustep::AcquireStep,
        handoff::{HandoffReason, HandoffStep, StepOutcome, StepStage},
        workload::{Variant, VariantHealth, VariantState},
    },
    controllers::gpu::{holding, leases},
};

pub(super) enum Taken {
    UnderWay,
    Done,
    Failed(String),
}

/// Who takes, by which steps: the new holder, or on the way back the old one.
pub(super) struct Taker<'a> {
    pub party: Option<&'a Party>,
    pub plan: Vec<AcquireStep>,
    pub back: bool,
}

impl Pass<'_> {
    pub(super) fn signaling(&mut self) {
        let to = self.handoff.spec.to.clone();
        let party = self.seen.to.as_ref();
        let must_be = |to: &&Holder| to.kind == HolderKind::Workload && !leases::has_cause(self.handoff);
        if let Some(to) = to.as_ref().filter(must_be).filter(|_| party.is_none()) {
            return self.begin_rollback(HandoffReason::RecipientFailed, &format!("{to} is gone"));
        }
        let taker = Taker { party, plan: steps::acquire_plan(party), back: false };
        // Once it has taken the card there is nothing left to call off: its claim may stand.
        let takes = self.status.steps.last().is_some_and(|step| step.outcome == StepOutcome::Running)
            || count(&self.status.steps, StepStage::Acquire) < taker.plan.len();
        if let Some((reason, why)) = self.called_off().filter(|_| takes) {
            return self.begin_rollback(reason, &why);
        }
        let mut list = std::mem::take(&mut self.status.steps);
        let taken = self.take(&mut list, &taker);
        self.status.steps = list;
        match taken {
            Taken::UnderWay => {}
            Taken::Failed(why) => self.begin_rollback(HandoffReason::RecipientFailed, &why),
            Taken::Done if self.needs_claim() => self.actions.push(Action::EnsureClaim),
            Taken::Done => {
                let to = to.map_or("nobody".to_owned(), |to| to.to_string());
                self.end(HandoffReason::Completed, format!("{} is held by {to}", self.handoff.spec.gpu));
            }
        }
    }

    /// Who should hold the card must be who does: the declared owner, or somebody with a claim. One that could not stand, for the
    /// card is lent to nobody any more, is not waited for.
    fn needs_claim(&self) -> bool {
        let Some(gpu) = self.gpu() else { return false };
        let may_stand = claims_after(self.handoff).first().is_some_and(|claim| holding::is_eligible(claim, gpu));
        let is_owner = gpu.spec.owner == self.handoff.spec.to;
        may_stand && !is_owner && !leases::has_cause(self.handoff) && !self.seen.claim_stands
    }

    pub(super) fn take(&mut self, list: &mut Vec<HandoffStep>, taker: &Taker) -> Taken {
        let done = count(list, StepStage::Acquire);
        let running =
            |step: &&mut HandoffStep| step.outcome == StepOutcome::Running && step.stage == StepStage::Acquire;
        if let Some(step) = list.last_mut().filter(running) {
            return self.take_step(step, done - 1, taker);
        }
        match (taker.plan.get(done), taker.party) {
            (Some(next), Some(party)) => {
                list.push(open(steps::acquire_name(next, party), StepStage::Acquire, self.now));
                Taken::UnderWay
            }
            _ => Taken::Done,
        }
    }

    fn take_step(&mut self, step: &mut HandoffStep, index: usize, taker: &Taker) -> Taken {
        let (Some(declared), Some(party)) = (taker.plan.get(index), taker.party) else {
            close(step, StepOutcome::Failed, "the workload is gone, or has other steps now", self.now);
            return Taken::UnderWay;
        };
        let until = plus(step.started_at.as_ref().map_or(self.now, |at| at.0), declared.timeout_seconds);
        let answer = match declared.start {
            Some(_) => started(party, self.now >= until, declared.timeout_seconds),
            None => self.answer.take(),
        };
        let at = if declared.start.is_some() { self.now } else { self.answered_at() };
        match answer {
            None => {
                let key = StepKey { back: taker.back, stage: StepStage::Acquire, index };
                let job = Job::Acquire(Box::new(declared.clone()), Box::new(party.clone()));
                self.actions.push(Action::Run { key, job });
            }
            // Nobody else tells that its time is up; of every other step the runner does.
            Some(Answer::UnderWay) if declared.start.is_some() => self.wake(until),
            Some(Answer::UnderWay) => {}
            Some(Answer::Done(Ok(message))) => close(step, StepOutcome::Succeeded, message, at),
            Some(Answer::Done(Err(why))) => {
                close(step, StepOutcome::Failed, &why, at);
                if declared.required && !taker.back {
                    return Taken::Failed(format!("{} failed: {why}", step.name));
                }
            }
        }
        Taken::UnderWay
    }
}

/// The workload controller starts what may run; this only reads how far it is.
fn started(party: &Party, late: bool, seconds: u32) -> Option<Answer> {
    let spec = &party.workload.spec;
    let status = party.workload.status.as_ref();
    let (wished, told) = match party.holder.variant {
        Variant::Live => (spec.live.as_ref().is_some_and(|v| v.running), status.and_then(|s| s.live.as_ref())),
        Variant::Candidate => {
            (spec.candidate.as_ref().is_some_and(|v| v.running), status.and_then(|s| s.candidate.as_ref()))
        }
    };
    if !wished {
        return Some(Answer::Done(Ok("it is not to run".to_owned())));
    }
    let running = party
        .containers
        .iter()
        .any(|c| c.state == ContainerState::Running && told.and_then(|t| t.container_id.as_ref()) == Some(&c.id.0));
    let ready = told.is_some_and(|t| t.state == VariantState::Running && t.health == VariantHealth::Healthy);
    Some(match (running && ready, late) {
        (true, _) => Answer::Done(Ok("runs and is healthy".to_owned())),
        (false, true) => Answer::Done(Err(format!("does not run and answer within {seconds} s"))),
        (false, false) => Answer::UnderWay,
    })
}
