//! The Handoffs that a promotion makes where its workload is on cards: one a card, there and, if need be, back. Pure.

use jiff::SignedDuration;
use kube::{Resource, ResourceExt};

use super::{
    decide::Scene,
    observed::Action,
    telling::{self, Next},
};
use crate::{
    api::{
        handoff::{Handoff, HandoffPhase, HandoffSpec, HandoffType},
        promotion::{PromotionPhase, PromotionReason},
        workload::Variant,
    },
    controllers::gpu::holding::holder_of,
    registry::ObjectName,
};

/// Whoever carries handoffs out ends them in their own time; this is for when nobody does.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// Of a handoff, at least: a model is loaded in it.
const SHORTEST_SECONDS: u32 = 120;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Forth,
    Back,
}

pub fn name(promotion: &str, gpu: &str, way: Way) -> String {
    match way {
        Way::Forth => format!("{promotion}-{gpu}"),
        Way::Back => format!("{promotion}-{gpu}-back"),
    }
}

/// What is to be done until the new variant holds every card. None: it does, or there are none.
pub fn forth(scene: &Scene<'_>) -> Option<Next> {
    let failed = |message| Some(Next::undo(PromotionReason::HandoffFailed, message));
    match look(scene, Way::Forth) {
        Cards::Held => None,
        Cards::Missing(actions) => {
            Some(Next::act(PromotionPhase::Releasing, format!("the cards go to {}", scene.to.as_str()), actions))
        }
        Cards::UnderWay(names) => {
            let since = telling::since(scene.status, &[PromotionPhase::Releasing]).unwrap_or(scene.now);
            let patience = SignedDuration::from_secs(timeout_seconds(scene).into()) + PATIENCE;
            if scene.now.duration_since(since) > patience {
                return failed(format!("nobody has brought {names} to an end in {} s", patience.as_secs()));
            }
            Some(Next::wait(PromotionPhase::Releasing, format!("waits for the handoff {names}"), None))
        }
        Cards::Failed(why) => failed(why),
    }
}

/// The same for the way back to the old variant. `Err`: it cannot be had back.
pub fn back(scene: &Scene<'_>) -> Result<Option<Next>, String> {
    match look(scene, Way::Back) {
        Cards::Held => Ok(None),
        Cards::Missing(actions) => {
            let message = format!("the cards go back to {}", scene.to.other().as_str());
            Ok(Some(Next::act(PromotionPhase::RollingBack, message, actions)))
        }
        Cards::UnderWay(names) => {
            Ok(Some(Next::wait(PromotionPhase::RollingBack, format!("waits for the handoff {names}"), None)))
        }
        Cards::Failed(why) => Err(why),
    }
}

/// Stops those on the way there. None: all have ended.
pub fn stop_forth(scene: &Scene<'_>) -> Option<Next> {
    let on_the_way = members(scene).filter_map(|gpu| find(scene, gpu, Way::Forth)).filter(|h| !has_ended(h));
    let running: Vec<&Handoff> = on_the_way.collect();
    let names: Vec<String> = running.iter().map(|handoff| handoff.name_any()).collect();
    let namespace = scene.promotion.metadata.namespace.clone();
    let actions: Vec<Action> = running
        .iter()
        .filter(|handoff| !handoff.spec.cancel)
        .map(|h| Action::CancelHandoff { name: ObjectName { namespace: namespace.clone(), name: h.name_any() } })
        .collect();
    let message = format!("waits for the handoff {} to be undone", names.join(", "));
    (!running.is_empty()).then(|| Next::act(PromotionPhase::RollingBack, message, actions))
}

enum Cards {
    Held,
    Missing(Vec<Action>),
    UnderWay(String),
    Failed(String),
}

fn look(scene: &Scene<'_>, way: Way) -> Cards {
    let (from, to) = ends(scene, way);
    let receiver = holder_of(scene.workload, to);
    let (mut missing, mut under_way) = (Vec::new(), Vec::new());
    for gpu in members(scene) {
        let Some(Some(card)) = scene.observed.gpus.get(gpu) else {
            return Cards::Failed(format!("there is no Gpu {gpu}"));
        };
        let status = card.status.clone().unwrap_or_default();
        let nothing_to_give = status.lease_of(&holder_of(scene.workload, from)).is_none();
        if status.lease_of(&receiver).is_some() || (way == Way::Back && nothing_to_give) {
            continue;
        }
        match find(scene, gpu, way) {
            None => missing.push(Action::MakeHandoff { handoff: Box::new(make(scene, gpu, way)) }),
            Some(handoff) if !has_ended(handoff) => under_way.push(handoff.name_any()),
            Some(handoff) => return Cards::Failed(why_not(handoff, to)),
        }
    }
    match (missing.is_empty(), under_way.is_empty()) {
        (true, true) => Cards::Held,
        (false, _) => Cards::Missing(missing),
        (true, false) => Cards::UnderWay(under_way.join(", ")),
    }
}

/// It has ended, and `to` does not hold the card. Handoffs are read before cards, so the lease was there to be seen.
fn why_not(handoff: &Handoff, to: Variant) -> String {
    let status = handoff.status.clone().unwrap_or_default();
    let error = status.error.map(|error| format!(": {error}")).unwrap_or_default();
    match status.phase {
        HandoffPhase::Completed => format!("{} has lost {} again", to.as_str(), handoff.spec.gpu),
        phase => format!("the handoff {} ended {phase:?}{error}", handoff.name_any()),
    }
}

fn make(scene: &Scene<'_>, gpu: &str, way: Way) -> Handoff {
    let (from, to) = ends(scene, way);
    let card = scene.observed.gpus.get(gpu).and_then(Option::as_ref);
    let giver = holder_of(scene.workload, from);
    let holds = card.and_then(|card| card.status.as_ref()).is_some_and(|status| status.lease_of(&giver).is_some());
    let promotion = scene.promotion.name_any();
    let spec = HandoffSpec {
        gpu: gpu.to_owned(),
        type_: match to {
            Variant::Candidate => HandoffType::LiveToCandidate,
            Variant::Live => HandoffType::CandidateToLive,
        },
        from: holds.then_some(giver),
        to: Some(holder_of(scene.workload, to)),
        reason: format!("promotion {promotion}"),
        timeout_seconds: timeout_seconds(scene),
        cancel: false,
    };
    let mut handoff = Handoff::new(&name(&promotion, gpu, way), spec);
    handoff.metadata.namespace = scene.promotion.metadata.namespace.clone();
    handoff.metadata.owner_references = scene.promotion.controller_owner_ref(&()).map(|owner| vec![owner]);
    handoff
}

/// Who gives and who gets.
fn ends(scene: &Scene<'_>, way: Way) -> (Variant, Variant) {
    match way {
        Way::Forth => (scene.to.other(), scene.to),
        Way::Back => (scene.to, scene.to.other()),
    }
}

fn timeout_seconds(scene: &Scene<'_>) -> u32 {
    scene.promotion.spec.gates.timeout_seconds.max(SHORTEST_SECONDS)
}

fn members<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = &'a String> {
    scene.workload.spec.gpu.iter().flat_map(|gpu| &gpu.members)
}

fn find<'a>(scene: &'a Scene<'_>, gpu: &str, way: Way) -> Option<&'a Handoff> {
    scene.observed.handoffs.get(&name(&scene.promotion.name_any(), gpu, way)).map(|handoff| &**handoff)
}

fn has_ended(handoff: &Handoff) -> bool {
    handoff.status.as_ref().is_some_and(|status| status.phase.is_terminal())
}
