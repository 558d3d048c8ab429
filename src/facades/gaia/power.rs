//! The card's sleep: a claim in nobody's name, before which even its owner gives way; and the waking, which ends it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    Gaia, Turn,
    claims::{Waiter, Wish, is_active, name_of},
    names::{NOBODY, Owner, SLEEPER, external, owner_of},
    reply::{Answer, Refusal, ok},
};
use crate::{
    api::{
        gpu::Gpu,
        gpuclaim::{GpuClaim, Preemption},
    },
    runtime::objects::Objects,
};

/// Before core's sleep loop gives up (60 s).
const ASLEEP_WITHIN: Duration = Duration::from_secs(55);
/// Before core's sleep loop gives up (180 s).
const AWAKE_WITHIN: Duration = Duration::from_secs(175);
/// Above whatever a requester may say.
const PRIORITY: i64 = 1_000_000;

#[derive(Serialize)]
struct Power {
    ok: bool,
    message: &'static str,
    state: &'static str,
}

/// Frees the card, and keeps it free. Study is not disturbed: a training that runs is told softly.
pub async fn sleep(gaia: &Gaia) -> Answer {
    let gpu = gaia.needed_card().await?;
    if owner_of(&gpu).starts_with("gaia-study") {
        let message = "MEDITATION active: study is training, the GPU stays with it";
        return ok(&Power { ok: true, message, state: "meditation" });
    }
    let wish = Wish {
        gpu: gpu.metadata.name.clone().unwrap_or_default(),
        holder: external(SLEEPER),
        reason: "sleep_cycle".to_owned(),
        priority: PRIORITY,
        timeout_seconds: None,
        preemption: Preemption::LowerPriority,
        must_be_fetched: false,
    };
    let deadline = Instant::now() + ASLEEP_WITHIN;
    let mut changes = gaia.changes();
    let claim = gaia.queue_once(&wish).await?;
    loop {
        let gpu = gaia.needed_card().await?;
        if lies_asleep(&gpu) {
            return ok(&Power { ok: true, message: "GPU released for sleep", state: "sleep" });
        }
        match gaia.turn(&mut changes, deadline).await {
            Turn::Changed => {}
            Turn::TooLate => {
                // Nobody waits for it any more, and Prime must not be stopped in an hour because of it.
                gaia.end_claim(&claim).await?;
                return Err(Refusal::failed("Failed to release GPU for sleep"));
            }
            Turn::Ending => return Err(Refusal::shutting_down()),
        }
    }
}

fn lies_asleep(gpu: &Gpu) -> bool {
    gpu.status.as_ref().is_some_and(|status| status.lease_of(&external(SLEEPER)).is_some())
}

/// Ends the sleep and waits until Prime has the card and the handoff to it is over.
pub async fn wake(gaia: &Gaia) -> Answer {
    let deadline = Instant::now() + AWAKE_WITHIN;
    let mut changes = gaia.changes();
    for claim in gaia.objects.list::<GpuClaim>(None).await? {
        if claim.spec.holder == external(SLEEPER) && is_active(&claim) {
            gaia.end_claim(&name_of(&claim)).await?;
        }
    }
    let waiter = claim_for_prime(gaia).await?;
    loop {
        let gpu = gaia.needed_card().await?;
        let under_way = gpu.status.as_ref().is_some_and(|status| status.handoff.is_some());
        if owner_of(&gpu) == Owner::Core.wire() && !under_way {
            if let Some(waiter) = waiter {
                waiter.keep();
            }
            return ok(&Power { ok: true, message: "GPU reclaimed after wake", state: "awake" });
        }
        let trains = owner_of(&gpu) != NOBODY && owner_of(&gpu) != Owner::Core.wire() && !under_way;
        match gaia.turn(&mut changes, deadline).await {
            Turn::Changed => {}
            Turn::TooLate => {
                let refusal = Refusal::failed("Failed to reclaim GPU on wake");
                let holder = owner_of(&gpu);
                return Err(if trains { refusal.with("holder", holder) } else { refusal });
            }
            Turn::Ending => return Err(Refusal::shutting_down()),
        }
    }
}

/// Only where Prime is not the declared owner, to whom the card comes back by itself.
async fn claim_for_prime(gaia: &Gaia) -> Result<Option<Waiter>, Refusal> {
    let gpu = gaia.needed_card().await?;
    let prime = gaia.holder(Owner::Core).await?;
    let has_it = gpu.status.as_ref().is_some_and(|status| status.lease_of(&prime).is_some());
    if gpu.spec.owner.as_ref() == Some(&prime) || has_it {
        return Ok(None);
    }
    let wish = Wish {
        gpu: gpu.metadata.name.clone().unwrap_or_default(),
        holder: prime,
        reason: "sleep_wake_reclaim".to_owned(),
        priority: 0,
        timeout_seconds: u32::try_from(AWAKE_WITHIN.as_secs()).ok(),
        preemption: Preemption::Never,
        must_be_fetched: false,
    };
    gaia.queue_caller(&wish).await.map(Some)
}
