//! From what is seen to the next step. Pure.
//!
//! 1. Not begun: refused, or everything that will have to be put back is written down.
//! 2. The workload is marked as changed by this promotion. That write is compared on the workload's version, so of two
//!    promotions one gets through.
//! 3. The new variant is told to run; on cards, a Handoff takes them from the old one to it.
//! 4. It passes the gates.
//! 5. It is made active; once it answers, the old one is told not to run.
//!
//! Each of these is found out anew from the workload, so a pass after a crash does what is left. Only a failure is
//! remembered (phase RollingBack): who has begun to go back does not turn again.

use jiff::{SignedDuration, Timestamp};

use super::{
    PromotionPlan, fit, gates, handoffs,
    observed::{Action, Change, Observed},
    rollback,
    telling::{self, Next},
};
use crate::{
    api::{
        annotation,
        promotion::{Before, Promotion, PromotionPhase, PromotionReason, PromotionStatus},
        workload::{Variant, VariantState, VariantStatus, Workload},
    },
    controllers::{gpu::fit::Fit, workload::status::to_second},
    runtime::reconciler::{Finalizer, Plan},
};

/// For the name to move and the old variant to stop.
const SWITCH: SignedDuration = SignedDuration::from_secs(120);

/// Everything that bears on a promotion that has begun.
pub struct Scene<'a> {
    pub promotion: &'a Promotion,
    pub status: &'a PromotionStatus,
    pub observed: &'a Observed,
    pub workload: &'a Workload,
    pub before: Before,
    pub to: Variant,
    pub now: Timestamp,
}

/// The whole decision.
pub fn decide(promotion: &Promotion, observed: &Observed, now: Timestamp) -> PromotionPlan {
    let mut status = promotion.status.clone().unwrap_or_default();
    if status.phase.is_terminal() {
        let deleted = promotion.metadata.deletion_timestamp.is_some();
        return Plan { finalizer: if deleted { Finalizer::Released } else { Finalizer::Leave }, ..Plan::leave() };
    }
    let workload = observed.workload.as_deref().filter(|w| w.metadata.deletion_timestamp.is_none());
    let next = match (workload, status.before) {
        (None, _) => {
            Next::refuse(PromotionReason::NoSuchWorkload, format!("there is no workload {}", promotion.spec.workload))
        }
        (Some(workload), None) => begin(promotion, observed, workload, &mut status, now),
        (Some(workload), Some(before)) => {
            let to = status.to.unwrap_or_else(|| before.active.other());
            let scene = Scene { promotion, status: &status, observed, workload, before, to, now };
            if status.phase == PromotionPhase::RollingBack { rollback::next(&scene) } else { forward(&scene) }
        }
    };
    telling::plan(promotion, status, next, now)
}

/// Refuses, waits, or writes down how it is.
fn begin(
    promotion: &Promotion,
    observed: &Observed,
    workload: &Workload,
    status: &mut PromotionStatus,
    now: Timestamp,
) -> Next {
    let name = &promotion.spec.workload;
    if cancelled(promotion) {
        let message = "cancelled before it began".to_owned();
        return Next::End { phase: PromotionPhase::Cancelled, reason: PromotionReason::Cancelled, message };
    }
    if let Some(other) = &observed.other {
        let message = format!("the promotion {other} of {name} is under way: make another when it is over");
        return Next::refuse(PromotionReason::AnotherInProgress, message);
    }
    let (Some(live), Some(candidate)) = (&workload.spec.live, &workload.spec.candidate) else {
        return Next::refuse(PromotionReason::NoCandidate, format!("{name} has no second variant to change to"));
    };
    if workload.spec.suspend == Some(true) || !is_current(workload) {
        return Next::wait(PromotionPhase::Pending, format!("waits for {name} to be looked at"), None);
    }
    let before =
        Before { active: workload.spec.active, live_running: live.running, candidate_running: candidate.running };
    let to = promotion.spec.to.unwrap_or_else(|| before.active.other());
    if before.active == to && before.running(to) && !before.running(to.other()) {
        return completed(to, format!("{} answers already", to.as_str()));
    }
    if let Some(who) = gates::stated_by(workload, &before, to) {
        return Next::refuse(PromotionReason::FieldsOwned, who);
    }
    match fit::judge(workload, &observed.gpus) {
        Fit::Fits => {}
        Fit::Unknown(why) => return Next::wait(PromotionPhase::Pending, why, None),
        Fit::DoesNotFit(why) => return Next::refuse(PromotionReason::DoesNotFit, why),
    }
    let hash = |variant| match variant {
        Variant::Live => live.container.hash(),
        Variant::Candidate => candidate.container.hash(),
    };
    (status.to, status.before, status.started_at) = (Some(to), Some(before), Some(to_second(now)));
    (status.from_revision, status.to_revision) = (Some(hash(to.other())), Some(hash(to)));
    mark(promotion, workload)
}

fn mark(promotion: &Promotion, workload: &Workload) -> Next {
    let change = Change { promotion: promotion.metadata.name.clone(), ..Change::default() };
    let message = format!("{} is marked as changed by this promotion", promotion.spec.workload);
    Next::act(PromotionPhase::Pending, message, vec![set(workload, change)])
}

fn forward(scene: &Scene<'_>) -> Next {
    let (workload, to, from) = (scene.workload, scene.to, scene.to.other());
    if !is_marked(scene) {
        return match &scene.observed.other {
            Some(other) => Next::refuse(
                PromotionReason::AnotherInProgress,
                format!("the promotion {other} of {} was first", scene.promotion.spec.workload),
            ),
            None => mark(scene.promotion, workload),
        };
    }
    if cancelled(scene.promotion) {
        return Next::undo(PromotionReason::Cancelled, "cancelled");
    }
    let Some(now_running) = running(workload) else {
        return Next::undo(PromotionReason::NoCandidate, "one of the variants is no longer in the spec");
    };
    if !now_running.running(to) {
        let phase =
            if gates::on_cards(workload) { PromotionPhase::Releasing } else { PromotionPhase::StartingCandidate };
        return Next::act(
            phase,
            format!("{} is told to run", to.as_str()),
            vec![set(workload, Change::running(to, true))],
        );
    }
    if let Some(next) = handoffs::forth(scene) {
        return next;
    }
    if !is_current(workload) {
        return Next::wait(scene.status.phase, "waits for the workload to be looked at", None);
    }
    if workload.spec.active != to {
        return gates::next(scene).unwrap_or_else(|| {
            let change = Change { active: Some(to), ..Change::default() };
            let message = format!("all gates are passed: {} is to answer", to.as_str());
            Next::act(PromotionPhase::Switching, message, vec![set(workload, change)])
        });
    }
    let answers = workload.status.as_ref().and_then(|status| status.active) == Some(to);
    let stopped = seen(workload, from).is_none_or(|seen| match seen.state {
        VariantState::Absent | VariantState::Created | VariantState::Exited => true,
        VariantState::Unknown | VariantState::Running | VariantState::Paused => false,
    });
    let late = telling::since(scene.status, &[PromotionPhase::Switching])
        .is_some_and(|since| scene.now.duration_since(since) > SWITCH);
    match (answers, now_running.running(from), stopped) {
        (false, _, _) | (true, false, false) if late => {
            let message = format!("{} does not answer alone after {} s", to.as_str(), SWITCH.as_secs());
            Next::undo(PromotionReason::DeadlineExceeded, message)
        }
        (false, _, _) => Next::wait(PromotionPhase::Switching, format!("waits for {} to answer", to.as_str()), None),
        (true, true, _) => {
            let stop = set(workload, Change::running(from, false));
            Next::act(
                PromotionPhase::Switching,
                format!("{} answers: {} is stopped", to.as_str(), from.as_str()),
                vec![stop],
            )
        }
        (true, false, false) => {
            Next::wait(PromotionPhase::Switching, format!("waits for {} to stop", from.as_str()), None)
        }
        (true, false, true) => completed(to, format!("{} answers, and {} is stopped", to.as_str(), from.as_str())),
    }
}

/// A swap of the templates would be a second outage on a full card, and files may own them.
fn completed(to: Variant, what: String) -> Next {
    let advice = match to {
        Variant::Live => "",
        Variant::Candidate => {
            "; the files own the templates: copy the candidate's to live when it is to stay, and promote to Live"
        }
    };
    let message = format!("{what}{advice}");
    Next::End { phase: PromotionPhase::Completed, reason: PromotionReason::Completed, message }
}

/// Deleting is cancelling: what has begun is put back first.
pub fn cancelled(promotion: &Promotion) -> bool {
    promotion.spec.cancel || promotion.metadata.deletion_timestamp.is_some()
}

fn is_marked(scene: &Scene<'_>) -> bool {
    let mark = scene.workload.metadata.annotations.as_ref().and_then(|all| all.get(annotation::PROMOTION));
    mark.is_some() && mark == scene.promotion.metadata.name.as_ref()
}

/// Its status speaks of its present spec.
pub fn is_current(workload: &Workload) -> bool {
    let observed = workload.status.as_ref().and_then(|status| status.observed_generation);
    observed.is_some() && observed == workload.metadata.generation
}

/// What the spec says now of that which a promotion changes. None: a variant has gone from it.
pub fn running(workload: &Workload) -> Option<Before> {
    let (live, candidate) = (workload.spec.live.as_ref()?, workload.spec.candidate.as_ref()?);
    Some(Before { active: workload.spec.active, live_running: live.running, candidate_running: candidate.running })
}

pub fn seen(workload: &Workload, variant: Variant) -> Option<&VariantStatus> {
    let status = workload.status.as_ref()?;
    match variant {
        Variant::Live => status.live.as_ref(),
        Variant::Candidate => status.candidate.as_ref(),
    }
}

pub fn set(workload: &Workload, change: Change) -> Action {
    Action::SetWorkload { version: workload.metadata.resource_version.clone(), change }
}
