//! Health, info, droplets, metrics; and what FPAI's services tell of themselves (UDC).

use std::time::Duration;

use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Droplets, Refusal, reply::ok, reply::stamp, udc};
use crate::{
    adapters::peers::targets::Fault,
    controllers::droplet::{ID, NAME, VERSION, directory::ServedFrom, routing::seconds},
    droplets::{cache::CacheStatus, listing::Shown, record::UdcError, tally::rounded},
};

/// For the registry's health.
const PROBE: Duration = Duration::from_secs(2);

enum Registry {
    Healthy,
    /// It answers with something else than 200.
    Degraded,
    Unhealthy(Fault),
}

async fn registry(droplets: &Droplets) -> Registry {
    match droplets.routing.directory.ask(Method::GET, "/health", None, PROBE).await {
        Ok(response) if response.status == 200 => Registry::Healthy,
        Ok(_) => Registry::Degraded,
        Err(fault) => Registry::Unhealthy(fault),
    }
}

pub async fn health(droplets: &Droplets) -> Answer {
    let routing = &droplets.routing;
    let url = routing.directory.settings.registry_url.trim_end_matches('/');
    let (registry, unhealthy) = match registry(droplets).await {
        Registry::Healthy => (json!({"status": "healthy", "url": url}), false),
        Registry::Degraded => (json!({"status": "degraded", "url": url}), false),
        Registry::Unhealthy(fault) => (json!({"status": "unhealthy", "url": url, "error": fault.to_string()}), true),
    };
    let (status, age_seconds, _) = routing.directory.cache();
    let count = routing.directory.view().droplets.len();
    let nothing = status == CacheStatus::Unavailable && count == 0;
    let cache = json!({"status": status, "age_seconds": age_seconds, "droplet_count": count});
    ok(&json!({
        "status": if unhealthy || nothing { "error" } else { "ok" }, "service": NAME, "version": VERSION,
        "timestamp": stamp(routing.clock.now()), "dependencies": {"registry": registry, "cache": cache},
    }))
}

pub async fn info(droplets: &Droplets) -> Answer {
    let directory = &droplets.routing.directory;
    let served = directory.serve().await;
    let (_, age_seconds, synced_at) = directory.cache();
    ok(&json!({
        "id": ID, "name": NAME, "version": VERSION, "registry_url": directory.settings.registry_url,
        "registered": directory.registered(), "last_registry_sync": synced_at.map(seconds),
        "cache_status": served.status, "cache_age_seconds": age_seconds,
    }))
}

pub async fn droplets(droplets: &Droplets) -> Answer {
    let served = droplets.routing.directory.serve().await;
    if served.status == CacheStatus::Unavailable {
        let message = "Cannot reach Registry and no cached droplets available";
        let error = UdcError::new("REGISTRY_ERROR", message, json!({}));
        return Err(udc(StatusCode::SERVICE_UNAVAILABLE, &error));
    }
    let shown: Vec<Shown<'_>> = served.view.droplets.iter().map(|known| Shown::from(&known.entry)).collect();
    let from: ServedFrom = served.from;
    ok(&json!({"droplets": shown, "cache_status": served.status, "served_from": from}))
}

fn uptime_seconds(droplets: &Droplets) -> i64 {
    droplets.routing.clock.now().duration_since(droplets.routing.started_at).as_secs().max(0)
}

pub fn metrics(droplets: &Droplets) -> Answer {
    let routing = &droplets.routing;
    let (syncs, (status, age_seconds, _)) = (routing.directory.syncs(), routing.directory.cache());
    let registry = json!({
        "syncs_total": syncs.success + syncs.error, "syncs_success": syncs.success, "syncs_error": syncs.error,
        "last_sync": syncs.last.map(seconds), "last_sync_duration_ms": syncs.last_took.as_secs_f64() * 1e3,
        "cache_age_seconds": age_seconds, "cache_status": status,
    });
    let tally = routing.tally().clone();
    ok(&json!({
        "service": NAME, "version": VERSION, "uptime_seconds": uptime_seconds(droplets), "tasks": tally.tasks(),
        "retry": tally.retries(), "registry": registry, "droplets_known": routing.directory.view().droplets.len(),
        "droplets_reachable": routing.count_reachable(), "droplets": tally.split(),
    }))
}

pub fn capabilities(droplets: &Droplets) -> Answer {
    let features = [
        "task_routing",
        "inter_droplet_messaging",
        "heartbeat_collection",
        "retry_logic",
        "registry_sync",
        "cache_fallback",
    ];
    let registry_url = &droplets.routing.directory.settings.registry_url;
    ok(&json!({
        "version": VERSION, "features": features, "dependencies": ["registry"], "udc_version": "1.0",
        "metadata": {"build_date": "2025-11-14", "registry_url": registry_url},
    }))
}

pub fn state(droplets: &Droplets) -> Answer {
    let uptime = uptime_seconds(droplets);
    let (total, errors) = {
        let tally = droplets.routing.tally();
        (tally.total(), tally.errors())
    };
    let per_minute = (uptime > 0).then(|| rounded(total as f64 / uptime as f64 * 60.0));
    ok(&json!({
        "cpu_percent": null, "memory_mb": null, "uptime_seconds": uptime, "requests_total": total,
        "requests_per_minute": per_minute, "errors_last_hour": errors,
        "last_restart": stamp(droplets.routing.started_at),
    }))
}

pub async fn dependencies(droplets: &Droplets) -> Answer {
    let registry = match registry(droplets).await {
        Registry::Healthy => "connected",
        Registry::Degraded | Registry::Unhealthy(_) => "unavailable",
    };
    let cache = match droplets.routing.directory.cache().0 {
        CacheStatus::Active => "connected",
        CacheStatus::Stale | CacheStatus::Unavailable => "degraded",
    };
    ok(&json!({
        "required": [{"id": 1, "name": "registry", "status": registry}],
        "optional": [{"id": null, "name": "registry_cache", "status": cache}], "missing": [],
    }))
}

/// What the seed's own code answers at `/health`.
pub fn plain_health() -> Answer {
    ok(&json!({"status": "active", "service": NAME, "version": "1.0.0", "dependencies": ["registry"]}))
}

/// What can be asked, for the original's `/openapi.json` and its pages.
pub fn openapi(paths: impl Iterator<Item = (&'static str, &'static str)>) -> Answer {
    let mut all = serde_json::Map::new();
    for (path, method) in paths {
        let entry = all.entry(path).or_insert_with(|| json!({}));
        entry[method.to_lowercase()] = json!({"responses": {"200": {"description": "Successful Response"}}});
    }
    ok(&json!({"openapi": "3.1.0", "info": {"title": "Orchestrator", "version": VERSION}, "paths": Value::Object(all)}))
}

pub fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "Not Found")
}
