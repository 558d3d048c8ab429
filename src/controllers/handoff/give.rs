//! How a holder gives a card away: its steps in their order, each until it is answered and, where it is to be verified, until
//! the card is seen to be free or its time is up. Pure.

use jiff::Timestamp;

use super::{
    decide::{Action, Pass, close, count, open, plus},
    observe::Party,
    runner::{Answer, Job, StepKey},
    steps,
};
use crate::{
    api::{
        gpustep::ReleaseStep,
        handoff::{HandoffPhase, HandoffProof, HandoffReason, HandoffStep, StepOutcome, StepStage},
    },
    runtime::events::Note,
};

pub(super) enum Given {
    UnderWay,
    /// The card is free of the one who gives.
    Proven,
    Refused(String),
    NotFreed(String),
}

/// Who gives, by which steps: the old holder, or on the way back the new one.
pub(super) struct Giver<'a> {
    pub party: Option<&'a Party>,
    pub plan: Vec<ReleaseStep>,
    pub back: bool,
    /// What is proven must be proven after this.
    pub since: Option<Timestamp>,
}

impl<'a> Pass<'a> {
    fn old_holder(&self) -> Giver<'a> {
        let seen = self.seen;
        let on_stuck = seen.gpu.as_ref().map(|gpu| gpu.spec.on_stuck.clone()).unwrap_or_default();
        let party = seen.from.as_ref();
        let since = self.status.started_at.as_ref().map(|at| at.0);
        Giver { party, plan: steps::release_plan(party, &on_stuck), back: false, since }
    }

    /// The old holder is being stopped, or may be: nobody remembers whether the stop was begun. It goes on whoever calls it off.
    pub(super) fn is_stopping(&self) -> bool {
        let running = self.status.steps.last().filter(|step| step.outcome == StepOutcome::Running);
        let index = running.filter(|step| step.stage == StepStage::Release).map(|_| self.status.steps.len() - 1);
        let giver = self.old_holder();
        let declared = index.and_then(|index| giver.plan.get(index)).zip(giver.party);
        declared.is_some_and(|(step, party)| steps::stops(&steps::in_practice(step, party)))
    }

    /// The way back begins when the stop has ended, within its own time-out: until then nobody knows what it stops.
    pub(super) fn await_stop(&mut self) {
        let giver = self.old_holder();
        let mut list = std::mem::take(&mut self.status.steps);
        let index = count(&list, StepStage::Release).saturating_sub(1);
        if let Some(step) = list.last_mut() {
            // That it failed, too, is an end.
            self.give_step(step, index, &giver);
        }
        self.status.steps = list;
    }

    pub(super) fn releasing(&mut self) {
        if !self.is_let_in() {
            return self.lost();
        }
        if let Some((reason, why)) = self.wished_end() {
            return self.begin_rollback(reason, &why);
        }
        let giver = self.old_holder();
        let mut list = std::mem::take(&mut self.status.steps);
        let given = self.give(&mut list, &giver);
        self.status.steps = list;
        match given {
            Given::UnderWay => {}
            Given::Proven => {
                self.take_curve();
                self.tell_proof();
                self.enter(HandoffPhase::TransferringOwnership);
            }
            Given::Refused(why) => self.begin_rollback(HandoffReason::ReleaseFailed, &why),
            Given::NotFreed(why) => {
                let why = format!("GPU cleanup timeout - VRAM not released: {why}");
                self.begin_rollback(HandoffReason::MemoryNotFreed, &why);
            }
        }
    }

    pub(super) fn take_curve(&mut self) {
        if let Some(proof) = &self.seen.proof {
            self.status.memory_curve = proof.curve.clone();
            self.status.pids_after = proof.pids.clone();
        }
    }

    fn tell_proof(&mut self) {
        let by_engine = self.seen.proof.as_ref().is_some_and(|proof| proof.by_engine);
        self.status.proof = Some(if by_engine { HandoffProof::EngineOnly } else { HandoffProof::Measured });
        if by_engine {
            let message = "unproven: no driver was asked, the engine says that the old holder's containers do not run";
            self.notes.push(Note::warning(HandoffReason::Unproven.into(), "None", message));
        }
    }

    pub(super) fn give(&mut self, list: &mut Vec<HandoffStep>, giver: &Giver) -> Given {
        let done = count(list, StepStage::Release);
        if let Some(step) = list.last_mut().filter(|step| step.outcome == StepOutcome::Running) {
            return self.give_step(step, done - 1, giver);
        }
        let last = list.last().filter(|step| step.stage == StepStage::Release);
        let since = last.and_then(|step| step.finished_at.as_ref()).map(|at| at.0).or(giver.since);
        let verified = giver.plan.iter().take(done).any(|step| step.verify) || giver.plan.is_empty();
        let proven_since = self.seen.proof.as_ref().and_then(|proof| proof.free_since);
        if verified && proven_since.is_some_and(|at| since.is_none_or(|since| at >= since)) {
            return Given::Proven;
        }
        let last_succeeded = last.is_some_and(|step| step.outcome == StepOutcome::Succeeded);
        let last_declared = done.checked_sub(1).and_then(|index| giver.plan.get(index));
        if let Some(declared) = last_declared.filter(|declared| declared.verify && last_succeeded)
            && self.waits(giver, since, declared.timeout_seconds)
        {
            return Given::UnderWay;
        }
        if let (Some(next), Some(party)) = (giver.plan.get(done), giver.party) {
            list.push(open(steps::release_name(next, party), StepStage::Release, self.now));
            return Given::UnderWay;
        }
        let seconds = self.gpu().map_or(0, |gpu| gpu.spec.cleanup.timeout_seconds);
        if self.waits(giver, since, seconds) {
            return Given::UnderWay;
        }
        let blocker = self.seen.proof.as_ref().and_then(|proof| proof.blocker.clone());
        Given::NotFreed(blocker.unwrap_or_else(|| "no GPU driver answers, so nothing can be proven".to_owned()))
    }

    /// The time since then is not up: waits for the card. Wakes when it is.
    fn waits(&mut self, giver: &Giver, since: Option<Timestamp>, seconds: u32) -> bool {
        let until = plus(since.unwrap_or(self.now), seconds);
        if self.now >= until {
            return false;
        }
        if !giver.back {
            self.phase(HandoffPhase::WaitingCudaCleanup);
        }
        self.wake(until);
        true
    }

    fn give_step(&mut self, step: &mut HandoffStep, index: usize, giver: &Giver) -> Given {
        let (Some(declared), Some(party)) = (giver.plan.get(index), giver.party) else {
            close(step, StepOutcome::Failed, "the workload is gone, or has other steps now", self.now);
            self.looks_again = true;
            return Given::UnderWay;
        };
        let practice = steps::in_practice(declared, party);
        let as_declared = steps::stops(declared) || !steps::stops(&practice);
        match self.answer.take() {
            None => {
                let key = StepKey { back: giver.back, stage: StepStage::Release, index };
                let job = Job::Release(Box::new(practice), Box::new(party.clone()));
                self.actions.push(Action::Run { key, job });
            }
            // The runner holds to the step's own time-out.
            Some(Answer::UnderWay) => {}
            Some(Answer::Done(Ok(message))) => {
                let outcome = if as_declared { StepOutcome::Succeeded } else { StepOutcome::Skipped };
                close(step, outcome, message, self.answered_at());
            }
            Some(Answer::Done(Err(why))) => {
                close(step, StepOutcome::Failed, &why, self.answered_at());
                if declared.required {
                    return Given::Refused(format!("{} failed: {why}", step.name));
                }
            }
        }
        Given::UnderWay
    }
}
