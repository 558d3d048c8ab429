//! What the new variant must pass before it answers, and who would not let it. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    decide::{Scene, seen},
    observed::{Action, CommandSeen, ModelSeen},
    telling::{self, Next},
};
use crate::{
    adapters::containers::ContainerId,
    api::{
        promotion::{Before, PromotionPhase, PromotionReason},
        workload::{Variant, VariantHealth, VariantState, VariantStatus, Workload},
    },
};

/// A process that has ended so often will not pass.
const MOST_RESTARTS: u32 = 3;
/// Between two looks at the models it serves.
const MODEL_PERIOD: Duration = Duration::from_secs(2);

/// One gate that is not passed.
struct Closed {
    phase: PromotionPhase,
    /// If it stays so until the time is over.
    reason: PromotionReason,
    message: String,
    wake: Option<Duration>,
    actions: Vec<Action>,
}

/// The next step while a gate is closed; None: all are passed.
pub fn next(scene: &Scene<'_>) -> Option<Next> {
    let closed = match closed(scene) {
        Ok(closed) => closed?,
        Err(failed) => return Some(failed),
    };
    let begun = telling::since(scene.status, &[PromotionPhase::StartingCandidate, PromotionPhase::Gating]);
    let seconds = scene.promotion.spec.gates.timeout_seconds;
    let left = begun.unwrap_or(scene.now).duration_since(scene.now) + SignedDuration::from_secs(seconds.into());
    if !left.is_positive() {
        return Some(Next::undo(closed.reason, format!("after {seconds} s: {}", closed.message)));
    }
    let left = left.unsigned_abs();
    let wake = Some(closed.wake.map_or(left, |wake| wake.min(left)));
    Some(Next::Go { phase: closed.phase, message: closed.message, actions: closed.actions, wake })
}

fn closed(scene: &Scene<'_>) -> Result<Option<Closed>, Next> {
    let gates = &scene.promotion.spec.gates;
    let name = scene.to.as_str();
    let waits =
        |phase, reason, message: String, wake| Ok(Some(Closed { phase, reason, message, wake, actions: Vec::new() }));
    let found = seen(scene.workload, scene.to);
    let Some(variant) = found.filter(|seen| seen.state == VariantState::Running) else {
        let restarts = found.map_or(0, |seen| seen.restarts_in_a_row);
        if restarts >= MOST_RESTARTS {
            let message = format!("{name} has ended {restarts} times in a row");
            return Err(Next::undo(PromotionReason::CandidateFailed, message));
        }
        let message = format!("waits for {name} to run");
        return waits(PromotionPhase::StartingCandidate, PromotionReason::CandidateFailed, message, None);
    };
    if gates.probes && variant.health != VariantHealth::Healthy {
        let message = format!("waits for {name} to be healthy, it is {:?}", variant.health);
        return waits(PromotionPhase::Gating, PromotionReason::ProbesFailed, message, None);
    }
    if let Some(left) = not_long_enough(variant, gates.probes, gates.min_ready_seconds, scene.now) {
        let message = format!("waits for {name} to have been ready for {} s", gates.min_ready_seconds);
        return waits(PromotionPhase::Gating, PromotionReason::DeadlineExceeded, message, Some(left));
    }
    if gates.model_loaded.is_some() {
        let why = match &scene.observed.model {
            ModelSeen::Loaded => None,
            ModelSeen::NotLoaded(why) => Some(format!("waits for {name} to serve its model: {why}")),
            ModelSeen::NotAsked => Some(format!("waits for {name} to serve its model")),
        };
        if let Some(message) = why {
            return waits(PromotionPhase::Gating, PromotionReason::ModelNotLoaded, message, Some(MODEL_PERIOD));
        }
    }
    let Some(command) = &gates.command else { return Ok(None) };
    match &scene.observed.command {
        CommandSeen::Passed => Ok(None),
        CommandSeen::Failed(why) => {
            Err(Next::undo(PromotionReason::CommandFailed, format!("the command in {name} failed: {why}")))
        }
        CommandSeen::UnderWay => {
            let message = format!("waits for the command in {name} to end");
            waits(PromotionPhase::Gating, PromotionReason::DeadlineExceeded, message, None)
        }
        CommandSeen::NotRun => {
            let container = ContainerId(variant.container_id.clone().unwrap_or_default());
            Ok(Some(Closed {
                phase: PromotionPhase::Gating,
                reason: PromotionReason::DeadlineExceeded,
                message: format!("the command is run in {name}"),
                wake: None,
                actions: vec![Action::RunCommand { container, command: command.clone() }],
            }))
        }
    }
}

/// What is left of the time it must have been ready.
fn not_long_enough(seen: &VariantStatus, probes: bool, seconds: u32, now: Timestamp) -> Option<Duration> {
    let since = if probes { seen.healthy_since.as_ref() } else { seen.started_at.as_ref() };
    let passed = since.map_or(SignedDuration::ZERO, |since| now.duration_since(since.0));
    let left = SignedDuration::from_secs(seconds.into()) - passed;
    left.is_positive().then(|| left.unsigned_abs())
}

/// The workload names cards: its variants cannot have them at the same time.
pub fn on_cards(workload: &Workload) -> bool {
    workload.spec.gpu.as_ref().is_some_and(|gpu| !gpu.members.is_empty())
}

/// Who states a field that would have to change, if anybody: a file would set it back.
pub fn stated_by(workload: &Workload, before: &Before, to: Variant) -> Option<String> {
    let running = |variant: Variant| format!("/f:spec/f:{}/f:running", variant.as_str());
    let mut needed = Vec::new();
    if before.active != to {
        needed.push("/f:spec/f:active".to_owned());
    }
    if !before.running(to) {
        needed.push(running(to));
    }
    if before.running(to.other()) {
        needed.push(running(to.other()));
    }
    let managers = workload.metadata.managed_fields.iter().flatten();
    for manager in managers.filter(|manager| manager.operation.as_deref() == Some("Apply")) {
        let states = |path: &&String| manager.fields_v1.as_ref().is_some_and(|f| f.0.pointer(path).is_some());
        if let Some(path) = needed.iter().find(states) {
            let field = path.replace("/f:", ".");
            let who = manager.manager.as_deref().unwrap_or("somebody");
            return Some(format!("{who} states {field}, and would set it back: leave it out there"));
        }
    }
    None
}
