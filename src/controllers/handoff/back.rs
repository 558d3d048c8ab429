//! The way back: a stop that is under way ends; the new holder lets go, if it has the lease; the lease returns; the old holder
//! takes up again. Pure.

use super::{
    decide::{Pass, close},
    give::{Given, Giver},
    steps,
    take::{Taken, Taker},
};
use crate::{
    api::{
        condition::ConditionStatus,
        handoff::{HandoffReason, Rollback, StepOutcome},
    },
    runtime::events::Note,
};

impl Pass<'_> {
    pub(super) fn begin_rollback(&mut self, reason: HandoffReason, why: &str) {
        let stopping = self.is_stopping();
        if let Some(step) =
            self.status.steps.last_mut().filter(|step| step.outcome == StepOutcome::Running && !stopping)
        {
            close(step, StepOutcome::Failed, "given up", self.now);
        }
        self.take_curve();
        self.status.error = Some(why.to_owned());
        self.status.rollback = Some(Rollback { reason, ..Rollback::default() });
        self.notes.push(Note::warning(reason.into(), HandoffReason::RollingBack.into(), why));
        self.say(ConditionStatus::False, HandoffReason::RollingBack, format!("{why}; the old holder is put back"));
    }

    pub(super) fn roll_back(&mut self) {
        let Some(mut rollback) = self.status.rollback.clone() else { return };
        if self.status.steps.last().is_some_and(|step| step.outcome == StepOutcome::Running) {
            return self.await_stop();
        }
        let ended = match (self.is_at_new(), rollback.return_lease) {
            (true, false) => self.withdraw(&mut rollback),
            // The gpu controller's move.
            (true, true) => false,
            (false, _) => self.put_back(&mut rollback),
        };
        let reason = rollback.reason;
        self.status.rollback = Some(rollback);
        if ended {
            let why = self.status.error.clone().unwrap_or_default();
            self.end(reason, why);
        }
    }

    /// True when it ends here: the new holder may still use the card, and two holders would be worse than the wrong one.
    fn withdraw(&mut self, rollback: &mut Rollback) -> bool {
        let party = self.seen.to.as_ref();
        let giver = Giver { party, plan: steps::withdraw_plan(party), back: true, since: None };
        match self.give(&mut rollback.steps, &giver) {
            Given::UnderWay => return false,
            Given::Proven => rollback.return_lease = true,
            Given::Refused(why) | Given::NotFreed(why) => {
                rollback.outcome = StepOutcome::Failed;
                rollback.message = Some(format!("the new holder could not be stopped, and keeps the card: {why}"));
            }
        }
        !rollback.return_lease
    }

    /// True when the old holder has taken up again, or could not.
    fn put_back(&mut self, rollback: &mut Rollback) -> bool {
        let touched = !self.status.steps.is_empty();
        let party = self.seen.from.as_ref();
        let plan = if touched { steps::acquire_plan(party) } else { Vec::new() };
        if matches!(self.take(&mut rollback.steps, &Taker { party, plan, back: true }), Taken::UnderWay) {
            return false;
        }
        let failed = rollback.steps.iter().any(|step| step.outcome == StepOutcome::Failed);
        (rollback.outcome, rollback.message) = match (failed, touched) {
            (true, _) => (StepOutcome::Failed, Some("the old holder is not as it was: see the steps".to_owned())),
            (false, true) => (StepOutcome::Succeeded, Some("the old holder is back".to_owned())),
            (false, false) => (StepOutcome::Skipped, Some("nothing had been done".to_owned())),
        };
        true
    }
}
