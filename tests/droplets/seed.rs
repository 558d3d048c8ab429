//! The bodies of contract section 1; the seed's own examples are in `examples`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{examples::seed, world::answer};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_info_and_droplets() {
    let world = seed().await;
    let (status, health) = world.get("/orchestrator/health").await;
    assert_eq!(status, 200);
    assert_eq!(
        (&health["status"], &health["service"], &health["version"]),
        (&json!("ok"), &json!("orchestrator"), &json!("1.1.0"))
    );
    assert_eq!(health["dependencies"]["registry"], json!({"status": "healthy", "url": world.registry.url()}));
    assert_eq!(health["dependencies"]["cache"], json!({"status": "active", "age_seconds": 0, "droplet_count": 2}));
    let (status, info) = world.get("/orchestrator/info").await;
    assert_eq!((status.as_u16(), &info["id"], &info["cache_status"]), (200, &json!(2), &json!("active")));
    assert!(info["last_registry_sync"].is_f64() && info["cache_age_seconds"].is_i64(), "{info}");
    let (status, droplets) = world.get("/orchestrator/droplets").await;
    assert_eq!(
        (status.as_u16(), &droplets["cache_status"], &droplets["served_from"]),
        (200, &json!("active"), &json!("cache"))
    );
    let first = &droplets["droplets"][0];
    for key in [
        "id",
        "name",
        "endpoint",
        "metadata",
        "steward",
        "status",
        "proof",
        "cost_usd",
        "yield_usd",
        "registered_at",
        "updated_at",
    ] {
        assert!(first.get(key).is_some(), "{key}: {first}");
    }
    assert_eq!((&first["endpoint"], &first["version"]), (&first["url"], &json!("1.1.0")));
    assert_eq!(first["cost_usd"].to_string(), "0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_routed_and_recorded() {
    let world = seed().await;
    let body = r#"{
       "droplet_name": "registry",
       "method": "GET",
       "path": "/health",
       "payload": null,
       "meta": {"requested_by": "test"}
     }"#;
    let request = world.request(Method::POST, "/orchestrator/tasks").header("content-type", "application/json");
    let (status, routed) = answer(request.body(body)).await;
    assert_eq!(status, 200, "{routed}");
    let expected =
        ["duration_ms", "response_body", "response_status", "retry_count", "status", "target_url", "task_id"];
    assert_eq!(keys(&routed), expected);
    assert_eq!(
        (&routed["status"], &routed["response_status"], &routed["retry_count"]),
        (&json!("success"), &json!(200), &json!(0))
    );
    assert_eq!(routed["target_url"], format!("{}/health", world.registry.url()));
    assert_eq!(routed["response_body"], json!({"status": "ok", "service": "registry"}));
    assert_eq!(routed["task_id"].as_str().expect("an id").len(), 36);
    for (query, total) in [
        ("", 1),
        ("?status=success", 1),
        ("?status=nonsense", 0),
        ("?droplet_name=REGISTRY", 1),
        ("?droplet_name=x", 0),
        ("?limit=50&status=", 1),
    ] {
        let (status, list) = world.get(&format!("/orchestrator/tasks{query}")).await;
        assert_eq!((status.as_u16(), &list["total"]), (200, &json!(total)), "{query}");
    }
    let id = routed["task_id"].as_str().expect("an id");
    let (status, record) = world.get(&format!("/orchestrator/tasks/{id}")).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&record["id"], &record["droplet_name"], &record["error_message"]),
        (&json!(id), &json!("registry"), &Value::Null)
    );
    assert!(record["created_at"].is_f64() && record["completed_at"].is_f64(), "{record}");
    let (_, metrics) = world.get("/orchestrator/metrics").await;
    assert_eq!((&metrics["tasks"]["total"], &metrics["tasks"]["success_rate_percent"]), (&json!(1), &json!(100.0)));
    assert_eq!(metrics["registry"]["syncs_error"], 0);
    assert_eq!((&metrics["registry"]["cache_status"], &metrics["droplets_known"]), (&json!("active"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_droplet_is_told_in_both_envelopes() {
    let world = seed().await;
    let (status, error) = world.post("/orchestrator/tasks", &json!({"droplet_name": "unknown", "path": "/x"})).await;
    assert_eq!(status, 400);
    let seed = json!({"code": "DROPLET_NOT_FOUND", "message": "Droplet 'unknown' not found in registry",
        "details": {"requested_droplet": "unknown", "available_droplets": ["registry", "orchestrator"]}});
    assert_eq!((&error["status"], &error["error"]), (&json!("error"), &seed));
    assert_eq!(error["detail"], json!({"status": "error", "error": seed}));
    assert!(world.routing.calls.is_empty(), "nothing is recorded");
    let (status, error) = world.get("/orchestrator/tasks/none").await;
    assert_eq!((status.as_u16(), &error["error"]["code"]), (404, &json!("TASK_NOT_FOUND")));
    assert_eq!(error["detail"]["error"]["message"], "Task none not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_tell_of_themselves() {
    let world = seed().await;
    let (_, capabilities) = world.get("/orchestrator/capabilities").await;
    assert_eq!(capabilities["metadata"]["registry_url"], world.registry.url());
    assert_eq!(capabilities["features"].as_array().map(Vec::len), Some(6));
    let (_, state) = world.get("/orchestrator/state").await;
    assert_eq!((&state["requests_total"], &state["cpu_percent"]), (&json!(0), &Value::Null));
    assert!(state["last_restart"].as_str().is_some_and(|at| at.len() == 27 && at.ends_with('Z')), "{state}");
    let (_, dependencies) = world.get("/orchestrator/dependencies").await;
    assert_eq!(dependencies["required"][0], json!({"id": 1, "name": "registry", "status": "connected"}));
    assert_eq!(dependencies["optional"][0]["status"], "connected");
    for page in ["/openapi.json", "/docs", "/redoc", "/health"] {
        assert_eq!(world.get(page).await.0, 200, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_taken_and_relayed() {
    let world = seed().await;
    let message = json!({"trace_id": "t1", "source": "a", "target": "b", "message_type": "event", "payload": {}});
    let (status, taken) = world.post("/orchestrator/message", &message).await;
    assert_eq!(
        (status.as_u16(), &taken["received"], &taken["trace_id"], &taken["result"]),
        (200, &json!(true), &json!("t1"), &json!("success"))
    );
    world.registry.says(
        "/send",
        [
            crate::services::Says::Json(200, json!({"sent": true, "trace_id": "T", "result": "queued"})),
            crate::services::Says::Json(200, json!({"sent": true, "result": "whatever"})),
            crate::services::Says::Json(503, json!({})),
        ],
    );
    let send = json!({"target": "zz", "message_type": "command", "payload": {"k": 1}, "more": 1});
    let (_, sent) = world.post("/orchestrator/send", &send).await;
    assert_eq!(
        (&sent["sent"], &sent["trace_id"], &sent["result"], &sent["target"]),
        (&json!(true), &json!("T"), &json!("queued"), &json!("zz"))
    );
    let relayed: Value = serde_json::from_slice(&world.registry.asked("POST /send")[0].body).expect("JSON");
    assert_eq!(
        relayed,
        json!({"target": "zz", "message_type": "command", "payload": {"k": 1}, "priority": "normal", "retry_count": 3})
    );
    assert_eq!(world.post("/orchestrator/send", &send).await.1["result"], "error");
    let (status, sent) = world.post("/orchestrator/send", &send).await;
    assert_eq!((status.as_u16(), &sent["sent"], &sent["result"]), (200, &json!(false), &json!("error")));
}
