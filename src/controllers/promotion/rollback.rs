//! Undoing: everything that was written down before the promotion began is put back, in the reverse order of doing.
//! Pure.

use jiff::SignedDuration;

use super::{
    decide::{Scene, is_current, running, seen, set},
    handoffs,
    observed::Change,
    telling::{self, Next},
};
use crate::api::{
    promotion::{PromotionPhase, PromotionReason},
    workload::{VariantHealth, VariantState},
};

/// At least so long is waited for the old variant: it may have a model to load.
const SHORTEST_SECONDS: u32 = 600;

pub fn next(scene: &Scene<'_>) -> Next {
    let back = steps(scene);
    let since = telling::since(scene.status, &[PromotionPhase::RollingBack]).unwrap_or(scene.now);
    let seconds = scene.promotion.spec.gates.timeout_seconds.max(SHORTEST_SECONDS);
    match back {
        Next::Go { actions, message, .. }
            if actions.is_empty() && scene.now.duration_since(since) > SignedDuration::from_secs(seconds.into()) =>
        {
            let message = format!("not everything is as it was after {seconds} s: {message}");
            Next::refuse(PromotionReason::RollbackFailed, message)
        }
        other => other,
    }
}

fn steps(scene: &Scene<'_>) -> Next {
    let (workload, before, old) = (scene.workload, scene.before, scene.to.other());
    if let Some(next) = handoffs::stop_forth(scene) {
        return next;
    }
    let Some(now) = running(workload) else {
        return Next::refuse(PromotionReason::RollbackFailed, "one of the variants is no longer in the spec");
    };
    if now != before {
        let change = Change {
            promotion: None,
            active: Some(before.active),
            live_running: Some(before.live_running),
            candidate_running: Some(before.candidate_running),
        };
        let message = "the workload is told to be as it was";
        return Next::act(PromotionPhase::RollingBack, message, vec![set(workload, change)]);
    }
    if before.running(old) {
        match handoffs::back(scene) {
            Ok(None) => {}
            Ok(Some(next)) => return next,
            Err(why) => return Next::refuse(PromotionReason::RollbackFailed, why),
        }
    }
    let is_back = !before.running(old)
        || seen(workload, old)
            .is_some_and(|seen| seen.state == VariantState::Running && seen.health == VariantHealth::Healthy);
    if !is_current(workload) || !is_back {
        let message = format!("waits for {} to be back", old.as_str());
        return Next::wait(PromotionPhase::RollingBack, message, None);
    }
    match &scene.status.error {
        None => Next::End {
            phase: PromotionPhase::Cancelled,
            reason: PromotionReason::Cancelled,
            message: "cancelled, and everything is as it was".to_owned(),
        },
        Some(error) => Next::End {
            phase: PromotionPhase::RolledBack,
            reason: reason(scene),
            message: format!("{error}; everything is as it was"),
        },
    }
}

/// Why it is undone, as the condition tells it.
fn reason(scene: &Scene<'_>) -> PromotionReason {
    let told = scene.status.conditions.iter().find(|c| c.type_ == crate::api::condition::READY);
    told.and_then(|told| told.reason.parse().ok()).unwrap_or(PromotionReason::CandidateFailed)
}
