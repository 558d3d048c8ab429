//! The card's sleep: Prime lets go of it, and a claim in nobody's name keeps it free; and the waking, which ends that claim, so
//! that the card comes back to Prime. A caller who hangs up stops neither.

use std::time::Duration;

use axum::{
    http::{StatusCode, header},
    response::Response,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Gaia, Turn,
    card::Card,
    claims::{Wish, is_active, name_of},
    containers::status_of,
    handoff::{id_of, location, phase_of, view, wants_no_wait},
    names::{NOBODY, Owner, SLEEPER, external, wire},
    reply::{Answer, Refusal, json as json_answer, ok, with_header},
    routes::Asked,
};
use crate::{
    api::{
        gpu::Holder,
        gpuclaim::{GpuClaim, Preemption},
        handoff::{Handoff, HandoffPhase},
        workload::{VariantHealth, VariantState},
    },
    runtime::objects::Objects,
};

/// Before core's sleep loop gives up (60 s).
const ASLEEP_WITHIN: Duration = Duration::from_secs(55);
/// Before core's sleep loop gives up (180 s).
const AWAKE_WITHIN: Duration = Duration::from_secs(175);
/// How long a caller who does not wait for the end waits for the beginning, of which the answer tells.
const BEGUN_WITHIN: Duration = Duration::from_secs(5);
/// Who holds the card by the name of Prime.
const PRIMES: [Owner; 2] = [Owner::Core, Owner::CoreCandidate];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Asleep,
    Awake,
}

impl Goal {
    fn reached(self) -> &'static str {
        match self {
            Goal::Asleep => "GPU released for sleep",
            Goal::Awake => "GPU reclaimed after wake",
        }
    }

    fn missed(self) -> Refusal {
        Refusal::failed(match self {
            Goal::Asleep => "Failed to release GPU for sleep",
            Goal::Awake => "Failed to reclaim GPU on wake",
        })
    }

    fn state(self) -> &'static str {
        match self {
            Goal::Asleep => "sleep",
            Goal::Awake => "awake",
        }
    }

    fn within(self) -> Duration {
        match self {
            Goal::Asleep => ASLEEP_WITHIN,
            Goal::Awake => AWAKE_WITHIN,
        }
    }
}

fn power(ok: bool, message: &str, state: &str) -> Map<String, Value> {
    let keys = [("ok", json!(ok)), ("message", json!(message)), ("state", json!(state))];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Frees the card, and keeps it free for whoever asks. Study is not disturbed: a training that runs is told softly.
pub async fn sleep(gaia: &Gaia, asked: &Asked) -> Answer {
    let card = gaia.needed_card().await?;
    let next = gaia.running_handoff(&card).await?.and_then(|handoff| handoff.spec.to.clone());
    if card.owner().starts_with("gaia-study") || next.is_some_and(|to| wire(&to).starts_with("gaia-study")) {
        return ok(&power(true, "MEDITATION active: study is training, the GPU stays with it", "meditation"));
    }
    let begun = gaia.clock.now();
    gaia.queue_once(&Wish::to_sleep(&card)).await?;
    // Prime lets go of what it has claimed; what it only owns, it gives to any claim.
    let primes = gaia.primes().await?;
    gaia.end_claims(|claim| primes.contains(&claim.spec.holder)).await?;
    let answer = gaia.reach(Goal::Asleep, begun, asked).await;
    if answer.is_err() && !gaia.shutdown.is_cancelled() {
        // Nobody waits for it any more, and Prime must not be stopped in an hour because of it.
        gaia.end_sleep().await?;
    }
    answer
}

/// Ends the sleep: Prime is to run, and gets the card.
pub async fn wake(gaia: &Gaia, asked: &Asked) -> Answer {
    if gaia.maintenance().await.is_some() {
        return ok(&power(false, "maintenance mode active", "suppressed"));
    }
    let begun = gaia.clock.now();
    gaia.let_run(Owner::Core).await?;
    gaia.end_sleep().await?;
    gaia.claim_for_prime().await?;
    gaia.reach(Goal::Awake, begun, asked).await
}

impl Gaia {
    async fn primes(&self) -> Result<Vec<Holder>, Refusal> {
        let mut holders = Vec::new();
        for owner in PRIMES {
            holders.push(self.holder(owner).await?);
        }
        Ok(holders)
    }

    async fn end_claims(&self, which: impl Fn(&GpuClaim) -> bool) -> Result<(), Refusal> {
        for claim in self.objects.list::<GpuClaim>(None).await? {
            if is_active(&claim) && which(&claim) {
                self.end_claim(&name_of(&claim)).await?;
            }
        }
        Ok(())
    }

    async fn end_sleep(&self) -> Result<(), Refusal> {
        self.end_claims(|claim| claim.spec.holder == external(SLEEPER)).await
    }

    /// Whoever has the card next is a handoff's business: those that wait to sleep would send it back at once.
    pub(super) async fn end_waiting_sleep(&self, card: &Card) -> Result<(), Refusal> {
        let leases = card.status.as_ref().map(|status| status.leases.clone()).unwrap_or_default();
        let holds = |claim: &GpuClaim| {
            let name = name_of(claim);
            let path = format!("{}/{}", name.namespace.unwrap_or_default(), name.name);
            leases.iter().any(|lease| lease.claim.as_ref() == Some(&path))
        };
        self.end_claims(|claim| claim.spec.holder == external(SLEEPER) && !holds(claim)).await
    }

    /// Only where Prime is not the declared owner, to whom the card comes back by itself.
    async fn claim_for_prime(&self) -> Result<(), Refusal> {
        let card = self.needed_card().await?;
        let prime = self.holder(Owner::Core).await?;
        let has_it = card.status.as_ref().is_some_and(|status| status.lease_of(&prime).is_some());
        if card.spec.owner.as_ref() == Some(&prime) || has_it {
            return Ok(());
        }
        let wish = Wish {
            gpu: card.name(),
            holder: prime,
            reason: "sleep_wake_reclaim".to_owned(),
            priority: 0,
            timeout_seconds: u32::try_from(AWAKE_WITHIN.as_secs()).ok(),
            preemption: Preemption::Never,
            ttl_seconds: None,
        };
        self.queue_once(&wish).await.map(|_| ())
    }

    /// Waits until it is so, or until a handoff of it is under way where the caller asked for no more.
    async fn reach(&self, goal: Goal, begun: Timestamp, asked: &Asked) -> Answer {
        let no_wait = wants_no_wait(asked);
        let deadline = Instant::now() + if no_wait { BEGUN_WITHIN } else { goal.within() };
        let mut changes = self.changes();
        loop {
            let card = self.needed_card().await?;
            let running = self.running_handoff(&card).await?;
            if running.is_none() && self.is_reached(goal, &card).await? {
                return ok(&power(true, goal.reached(), goal.state()));
            }
            if let Some(failed) = self.failed_since(&card, begun).await? {
                let error = failed.status.as_ref().and_then(|status| status.error.clone());
                return Err(goal.missed().with("handoff_id", id_of(&failed)).with("error", error));
            }
            if let Some(running) = running.filter(|_| no_wait) {
                return Ok(self.under_way(Some(&running)));
            }
            if let Some(holder) = trains(&card).filter(|_| goal == Goal::Awake) {
                return Err(goal.missed().with("holder", holder));
            }
            match self.turn(&mut changes, deadline).await {
                Turn::Changed => {}
                Turn::TooLate if no_wait => return Ok(self.under_way(None)),
                Turn::TooLate => return Err(goal.missed()),
                Turn::Ending => return Err(Refusal::shutting_down()),
            }
        }
    }

    async fn is_reached(&self, goal: Goal, card: &Card) -> Result<bool, Refusal> {
        let primes = self.primes().await?;
        let held_by = |holder: &Holder| card.status.as_ref().is_some_and(|status| status.lease_of(holder).is_some());
        match goal {
            // The sleeper has it, or somebody who waited.
            Goal::Asleep => Ok(!primes.iter().any(held_by)),
            Goal::Awake => {
                let has_it = self.holder(Owner::Core).await.map(|prime| held_by(&prime))?;
                Ok(has_it && self.prime_answers().await?)
            }
        }
    }

    /// As far as anybody looks: one without probes answers as soon as it runs.
    async fn prime_answers(&self) -> Result<bool, Refusal> {
        let Some((name, variant)) = Owner::Core.workload() else { return Ok(true) };
        let Some(prime) = self.workload(name).await? else { return Ok(true) };
        let probed = prime.spec.probes.is_some();
        Ok(status_of(&prime, variant).is_some_and(|status| {
            let healthy = status.health == VariantHealth::Healthy || !probed && status.health == VariantHealth::Unknown;
            status.state == VariantState::Running && healthy
        }))
    }

    /// A handoff of the card that was begun since, and did not succeed.
    async fn failed_since(&self, card: &Card, begun: Timestamp) -> Result<Option<std::sync::Arc<Handoff>>, Refusal> {
        let all = self.objects.list::<Handoff>(None).await?;
        Ok(all.into_iter().find(|handoff| {
            let ended = handoff.status.as_ref().and_then(|status| status.completed_at.as_ref());
            let failed = matches!(phase_of(handoff), HandoffPhase::Failed | HandoffPhase::Cancelled);
            failed && handoff.spec.gpu == card.name() && ended.is_some_and(|at| at.0 >= begun)
        }))
    }

    /// 202: where to ask how it goes on.
    fn under_way(&self, handoff: Option<&Handoff>) -> Response {
        let mut body = power(true, "GPU handoff under way", "transitioning");
        let view = handoff.map(|handoff| json!(view(handoff, self.clock.now())));
        if let Some(Value::Object(view)) = view {
            body.extend(view);
        }
        let at = handoff.map_or_else(|| "/gpu/status".to_owned(), location);
        let response = with_header(json_answer(StatusCode::ACCEPTED, &body), header::LOCATION, &at);
        with_header(response, header::HeaderName::from_static("preference-applied"), "respond-async")
    }
}

/// Somebody else has the card, and not for want of a handoff.
fn trains(card: &Card) -> Option<String> {
    let owner = card.owner();
    let others = owner != NOBODY && !PRIMES.iter().any(|prime| prime.wire() == owner);
    (others && !card.is_handed_over()).then_some(owner)
}
