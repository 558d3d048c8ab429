//! What a pass comes to, and how it is told: phase, steps, conditions and events. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::{PromotionPlan, observed::Action};
use crate::{
    api::{
        condition::{self, ConditionStatus, READY, RECONCILING, STALLED},
        handoff::{HandoffStep, StepOutcome, StepStage},
        promotion::{OnFailure, Promotion, PromotionPhase, PromotionReason, PromotionStatus},
    },
    controllers::workload::status::to_second,
    runtime::{
        events::Note,
        reconciler::{Finalizer, Plan, Requeue},
    },
};

/// A look without news: what a promotion waits for wakes it as a rule.
const CONFIRM: Duration = Duration::from_secs(30);

/// How it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    Go {
        phase: PromotionPhase,
        message: String,
        actions: Vec<Action>,
        /// Time alone changes something then.
        wake: Option<Duration>,
    },
    /// It failed, or was cancelled.
    Undo {
        reason: PromotionReason,
        message: String,
    },
    End {
        phase: PromotionPhase,
        reason: PromotionReason,
        message: String,
    },
}

impl Next {
    pub fn act(phase: PromotionPhase, message: impl Into<String>, actions: Vec<Action>) -> Self {
        Next::Go { phase, message: message.into(), actions, wake: None }
    }

    pub fn wait(phase: PromotionPhase, message: impl Into<String>, wake: Option<Duration>) -> Self {
        Next::Go { phase, message: message.into(), actions: Vec::new(), wake }
    }

    pub fn undo(reason: PromotionReason, message: impl Into<String>) -> Self {
        Next::Undo { reason, message: message.into() }
    }

    pub fn refuse(reason: PromotionReason, message: impl Into<String>) -> Self {
        Next::End { phase: PromotionPhase::Failed, reason, message: message.into() }
    }
}

/// The status, the events and the actions that follow.
pub fn plan(promotion: &Promotion, mut status: PromotionStatus, next: Next, now: Timestamp) -> PromotionPlan {
    status.observed_generation = promotion.metadata.generation;
    let mut plan = Plan { finalizer: Finalizer::Held, requeue: Requeue::After(CONFIRM), ..Plan::leave() };
    let phase_before = status.phase;
    match next {
        Next::Go { phase, message, actions, wake } => {
            let phase = onwards(status.phase, phase);
            enter(&mut status, phase, StepOutcome::Succeeded, now);
            tell(promotion, &mut status, PromotionReason::Progressing, &message, now);
            if phase != phase_before {
                plan.events.push(Note::normal(PromotionReason::Progressing.into(), name(phase), message));
            }
            plan.stages = vec![actions];
            plan.requeue = Requeue::After(wake.map_or(CONFIRM, |wake| wake.min(CONFIRM)));
        }
        Next::Undo { reason, message } => {
            let cancelled = reason == PromotionReason::Cancelled;
            // What was only cancelled did not fail: that is told apart by the error.
            status.error = (!cancelled).then(|| message.clone());
            if promotion.spec.on_failure == OnFailure::Hold && !cancelled {
                end(promotion, &mut status, PromotionPhase::Failed, reason, &message, now);
                plan.requeue = Requeue::OnChange;
            } else {
                finish(&mut status, StepOutcome::Failed, Some(&message), now);
                enter(&mut status, PromotionPhase::RollingBack, StepOutcome::Failed, now);
                tell(promotion, &mut status, reason, &message, now);
                plan.requeue = Requeue::After(Duration::from_secs(1));
            }
            plan.events.push(Note::warning(reason.into(), name(status.phase), message));
        }
        Next::End { phase, reason, message } => {
            if phase == PromotionPhase::Failed {
                status.error.get_or_insert_with(|| message.clone());
            }
            end(promotion, &mut status, phase, reason, &message, now);
            plan.events.push(match phase {
                PromotionPhase::Failed => Note::warning(reason.into(), name(phase), message),
                _ => Note::normal(reason.into(), name(phase), message),
            });
            plan.requeue = Requeue::OnChange;
        }
    }
    plan.status = Some(status);
    plan
}

/// A variant that stumbles while it is judged is still being judged: the record goes one way only.
fn onwards(before: PromotionPhase, phase: PromotionPhase) -> PromotionPhase {
    let place = |phase| match phase {
        PromotionPhase::Pending => 0,
        PromotionPhase::Releasing => 1,
        PromotionPhase::StartingCandidate => 2,
        PromotionPhase::Gating => 3,
        PromotionPhase::Switching => 4,
        PromotionPhase::RollingBack => 5,
        PromotionPhase::Completed | PromotionPhase::RolledBack | PromotionPhase::Failed | PromotionPhase::Cancelled => {
            6
        }
    };
    if place(phase) < place(before) { before } else { phase }
}

fn enter(status: &mut PromotionStatus, phase: PromotionPhase, last: StepOutcome, now: Timestamp) {
    if status.phase == phase {
        return;
    }
    finish(status, last, None, now);
    status.phase = phase;
    let stage = if phase == PromotionPhase::Releasing { StepStage::Release } else { StepStage::Acquire };
    status.steps.push(HandoffStep {
        name: name(phase).to_owned(),
        stage,
        outcome: StepOutcome::Running,
        started_at: Some(MicroTime(now)),
        finished_at: None,
        message: None,
    });
}

fn finish(status: &mut PromotionStatus, outcome: StepOutcome, message: Option<&str>, now: Timestamp) {
    for step in status.steps.iter_mut().filter(|step| step.outcome == StepOutcome::Running) {
        step.outcome = outcome;
        step.finished_at = Some(MicroTime(now));
        step.message = message.map(str::to_owned);
    }
}

fn end(
    promotion: &Promotion,
    status: &mut PromotionStatus,
    phase: PromotionPhase,
    reason: PromotionReason,
    message: &str,
    now: Timestamp,
) {
    let failed = phase == PromotionPhase::Failed;
    let outcome = if failed { StepOutcome::Failed } else { StepOutcome::Succeeded };
    finish(status, outcome, failed.then_some(message), now);
    status.phase = phase;
    status.completed_at = Some(to_second(now));
    tell(promotion, status, reason, message, now);
}

/// Ready sums up; while it is undone its reason stays that of the failure.
fn tell(promotion: &Promotion, status: &mut PromotionStatus, reason: PromotionReason, message: &str, now: Timestamp) {
    let (generation, now) = (promotion.metadata.generation, Time(now));
    let ready = if status.phase == PromotionPhase::Completed { ConditionStatus::True } else { ConditionStatus::False };
    let told = status.conditions.iter().find(|c| c.type_ == READY).map(|c| c.reason.clone());
    let undoing = status.phase == PromotionPhase::RollingBack && reason == PromotionReason::Progressing;
    let reason = told.filter(|_| undoing).unwrap_or_else(|| reason.to_string());
    let message = match (undoing, &status.error) {
        (true, Some(error)) => format!("{message}, because {error}"),
        (true, None) | (false, _) => message.to_owned(),
    };
    let mut put = |type_: &str, is: ConditionStatus| {
        condition::set(&mut status.conditions, type_, is, &reason, message.clone(), generation, &now);
    };
    put(READY, ready);
    if status.phase.is_terminal() {
        if status.phase == PromotionPhase::Failed {
            put(STALLED, ConditionStatus::True);
        }
        condition::clear(&mut status.conditions, RECONCILING);
    } else {
        put(RECONCILING, ConditionStatus::True);
    }
}

/// As in steps and events.
pub fn name(phase: PromotionPhase) -> &'static str {
    match phase {
        PromotionPhase::Pending => "Pending",
        PromotionPhase::Releasing => "Releasing",
        PromotionPhase::StartingCandidate => "StartingCandidate",
        PromotionPhase::Gating => "Gating",
        PromotionPhase::Switching => "Switching",
        PromotionPhase::RollingBack => "RollingBack",
        PromotionPhase::Completed => "Completed",
        PromotionPhase::RolledBack => "RolledBack",
        PromotionPhase::Failed => "Failed",
        PromotionPhase::Cancelled => "Cancelled",
    }
}

/// When a phase was entered first.
pub fn since(status: &PromotionStatus, phases: &[PromotionPhase]) -> Option<Timestamp> {
    let step = status.steps.iter().find(|step| phases.iter().any(|phase| step.name == name(*phase)))?;
    step.started_at.as_ref().map(|at| at.0)
}
