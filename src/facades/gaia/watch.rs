//! `/watch/state`: GAIA's watchman polls it for what Prime is doing with the card.

use serde_json::json;

use super::{
    Gaia,
    names::Owner,
    reply::{Answer, ok},
};

pub async fn state(gaia: &Gaia) -> Answer {
    let card = gaia.card().await?;
    let has_it = card.as_ref().is_some_and(|card| card.owner() == Owner::Core.wire());
    let running = match &card {
        Some(card) => gaia.running_handoff(card).await?,
        None => None,
    };
    let state = match &card {
        Some(_) if running.is_some() => "transitioning",
        Some(_) if has_it => "focusing",
        Some(_) | None => "idle",
    };
    let used = card.as_ref().and_then(|card| card.status.as_ref()?.memory).filter(|_| has_it);
    let device = if has_it { "gpu" } else { "unloaded" };
    let prime = json!({"device": device, "vram_mb": used.map_or(0, |memory| memory.used_mib)});
    // Core is on the CPU since GAIA 0.3, and nano is none of ours.
    let core = json!({"device": "cpu", "vram_mb": 0});
    ok(&json!({"state": state, "core": core, "prime": prime}))
}
