//! `GET /orchestrator/metrics` and Prometheus tell the same: contract section 4.

use gaia::controllers::droplet::figures;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;

use crate::{services::Says, support::eventually, world::DEADLINE, world::World};

/// The value of a line that begins so; nothing where there is none.
fn told(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_is_told_the_same_as_who_asks_for_the_metrics() {
    let world = World::start().await;
    let mut registry = Registry::default();
    figures::register(&world.routing, &mut registry);
    let scrape = || {
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        text
    };
    world.target.says("/flaky", [Says::Json(500, json!({})), Says::Json(200, json!({}))]);
    world.target.says("/dead", [Says::Json(500, json!({}))]);
    world.target.says("/404", [Says::Json(404, json!({}))]);
    for path in ["/x", "/y", "/flaky", "/dead", "/404"] {
        world.call(path).await;
    }
    world.registry.says("/droplets", [Says::Json(500, json!({}))]);
    world.routing.directory.sync().await.expect_err("the registry is ill");
    eventually("it was probed", DEADLINE, async || (world.routing.count_reachable() == 1).then_some(())).await;

    let (text, (_, metrics)) = (scrape(), world.get("/orchestrator/metrics").await);
    let calls = |status: &str| told(&text, &format!("gaia_droplet_calls_total{{droplet=\"tgt\",status=\"{status}\"}}"));
    let retried =
        |status: &str| told(&text, &format!("gaia_droplet_retried_calls_total{{droplet=\"tgt\",status=\"{status}\"}}"));
    let syncs = |result: &str| told(&text, &format!("gaia_droplet_registry_syncs_total{{result=\"{result}\"}}"));
    let list = |status: &str| told(&text, &format!("gaia_droplet_list_status{{status=\"{status}\"}}"));
    for (path, prometheus) in [
        ("/tasks/success", calls("success")),
        ("/tasks/error", calls("error")),
        ("/droplets/tgt/success", calls("success")),
        ("/retry/total_retries", told(&text, "gaia_droplet_retries_total{droplet=\"tgt\"}")),
        ("/retry/retry_success_count", retried("success")),
        ("/retry/retry_final_fail_count", retried("error")),
        ("/tasks/total", told(&text, "gaia_droplet_call_duration_seconds_count{droplet=\"tgt\"}")),
        ("/registry/syncs_success", syncs("success")),
        ("/registry/syncs_error", syncs("error")),
        ("/registry/last_sync", told(&text, "gaia_droplet_registry_last_sync_timestamp_seconds")),
        ("/droplets_known", told(&text, "gaia_droplets_known")),
        ("/droplets_reachable", told(&text, "gaia_droplets_reachable")),
    ] {
        let said = metrics.pointer(path).and_then(serde_json::Value::as_f64);
        assert!(said.is_some_and(|said| said > 0.0), "{path} of {metrics}");
        assert_eq!(prometheus, said, "{path} in {text}");
    }
    assert_eq!(metrics["tasks"]["total"], 5);
    assert_eq!((list("active"), list("stale"), list("unavailable")), (Some(1.0), Some(0.0), Some(0.0)));
    assert!(told(&text, "gaia_droplet_list_age_seconds").is_some_and(|age| age < 60.0), "{text}");
    let took = told(&text, "gaia_droplet_registry_last_sync_duration_seconds").expect("it was asked");
    let took_ms = metrics["registry"]["last_sync_duration_ms"].as_f64().expect("it was asked");
    // A number of seconds and one of milliseconds differ in their last digit.
    assert!((took * 1e3 - took_ms).abs() < 1e-6, "{took} s and {took_ms} ms");
}
