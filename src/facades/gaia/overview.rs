//! Health, the directory, and everything at a glance.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    Gaia,
    containers::{self, ContainersView},
    gpu::{self, GpuView},
    handoff::{self, HandoffView},
    names::NOBODY,
    reply::{Answer, ok, stamp},
};

pub const SERVICE: &str = "gaia-orchestrator";
/// Of the old API, which clients have never seen change.
pub const API_VERSION: &str = "0.1.0";

/// Lives: says nothing about Docker, cards or objects.
pub fn health() -> Answer {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
        service: &'static str,
    }
    ok(&Health { status: "healthy", service: SERVICE })
}

#[derive(Serialize)]
struct Status {
    service: &'static str,
    /// Always this word.
    status: &'static str,
    gpu: GpuView,
    containers: ContainersView,
    active_handoff: Option<HandoffView>,
    last_updated: String,
    /// For dashboards: who has the card, or `--`.
    gpu_owner: String,
}

/// From what the objects say now; asks nobody.
pub async fn status(gaia: &Gaia) -> Answer {
    let card = gaia.card().await?;
    let running = match &card {
        Some(card) => gaia.running_handoff(card).await?,
        None => None,
    };
    let now = gaia.clock.now();
    let gpu = gpu::view(card.as_ref());
    let containers = containers::known(gaia).await?;
    let active_handoff = running.map(|running| handoff::view(&running, now));
    let gpu_owner = if gpu.owner == NOBODY { "--".to_owned() } else { gpu.owner.clone() };
    ok(&Status {
        service: SERVICE,
        status: "operational",
        gpu,
        containers,
        active_handoff,
        last_updated: stamp(now),
        gpu_owner,
    })
}

/// What `GET /` tells beside the paths of the Kubernetes API.
pub fn directory() -> Map<String, Value> {
    let directory = json!({
        "service": SERVICE,
        "description": "GAIA GPU and Container Lifecycle Coordination",
        "version": API_VERSION,
        "endpoints": {
            "health": "GET /health",
            "gpu": {
                "status": "GET /gpu/status", "acquire": "POST /gpu/acquire", "release": "POST /gpu/release",
                "wait": "POST /gpu/wait", "handoff": "POST /gpu/handoff",
            },
            "containers": {
                "status": "GET /containers/status",
                "live_stop": "POST /containers/live/stop", "live_start": "POST /containers/live/start",
                "candidate_stop": "POST /containers/candidate/stop", "candidate_start": "POST /containers/candidate/start",
                "swap": "POST /containers/swap", "restart": "POST /containers/{name}/restart",
            },
            "handoff": {
                "prime_to_study": "POST /handoff/prime-to-study", "study_to_prime": "POST /handoff/study-to-prime",
                "live_to_candidate": "POST /handoff/live-to-candidate",
                "candidate_to_live": "POST /handoff/candidate-to-live",
                "status": "GET /handoff/{handoff_id}/status", "cancel": "POST /handoff/{handoff_id}/cancel",
            },
            "sleep": {"gpu_sleep": "POST /gpu/sleep", "gpu_wake": "POST /gpu/wake"},
            "ha": {"status": "GET /ha/status"},
            "watch": {"state": "GET /watch/state"},
            "notifications": {"oracle_fallback": "POST /notify/oracle-fallback", "websocket": "WS /ws/notifications"},
        },
    });
    match directory {
        Value::Object(directory) => directory,
        _ => unreachable!("it was written as an object right above"),
    }
}
