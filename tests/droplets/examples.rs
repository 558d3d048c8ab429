//! The seed's own `curl` lines, and what the seed says comes back. Answers may hold more than it shows; what it shows is there.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::world::{World, answer, listed};

const ORIGIN: &str = "http://localhost:8001";

/// As the seed has it: `registry` is a droplet, and so is the orchestrator.
pub async fn seed() -> World {
    let world = World::start().await;
    world.registry.lists(json!([listed("registry", &world.registry.url()), listed("orchestrator", &world.url)]));
    world.routing.directory.sync().await.expect("the registry answers");
    world
}

/// The words of a command line; quotes hold them together, a backslash joins lines.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    for c in line.replace("\\\n", " ").chars() {
        match (quote, c) {
            (None, '"' | '\'') => (quote, begun) = (Some(c), true),
            (Some(open), _) if open == c => quote = None,
            (None, c) if c.is_whitespace() => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    words.extend(begun.then_some(word));
    words
}

/// What `curl` would send.
fn curl(world: &World, line: &str) -> RequestBuilder {
    let mut words = words(line).into_iter();
    assert_eq!(words.next().as_deref(), Some("curl"));
    let (mut method, mut path, mut headers, mut body) = (Method::GET, None, Vec::new(), None);
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("an option has a value");
        match word.as_str() {
            "-X" => method = value().parse().expect("a method"),
            "-H" => headers.push(value()),
            "-d" => body = Some(value()),
            url => path = Some(url.strip_prefix(ORIGIN).expect("it is for the orchestrator").to_owned()),
        }
    }
    let mut request = world.request(method, &path.expect("a URL"));
    for header in headers {
        let (name, value) = header.split_once(": ").expect("a header");
        request = request.header(name, value);
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    request
}

/// Every field of `shown`, of the same kind; where `same`, with the same value.
fn holds(told: &Value, shown: &Value, same: bool, at: &str) {
    match (told, shown) {
        (Value::Object(told), Value::Object(shown)) => {
            for (key, value) in shown {
                let at = format!("{at}.{key}");
                holds(told.get(key).unwrap_or_else(|| panic!("{at} is missing")), value, same, &at);
            }
        }
        _ if same => assert_eq!(told, shown, "{at}"),
        _ => assert_eq!(std::mem::discriminant(told), std::mem::discriminant(shown), "{at}: {told} for {shown}"),
    }
}

const SUBMIT: &str = r#"curl -X POST http://localhost:8001/orchestrator/tasks \
     -H "Content-Type: application/json" \
     -d '{
       "droplet_name": "registry",
       "method": "GET",
       "path": "/health",
       "payload": null,
       "meta": {"requested_by": "test"}
     }'"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_seed_is_answered_as_the_seed_says() {
    let world = seed().await;
    let told = async |line: &str| answer(curl(&world, line)).await;
    let (status, health) = told("curl http://localhost:8001/orchestrator/health").await;
    assert_eq!(status, 200);
    holds(&health, &json!({"status": "ok", "service": "orchestrator", "version": "1.1.0"}), true, "health");
    let (status, info) = told("curl http://localhost:8001/orchestrator/info").await;
    assert_eq!((status.as_u16(), &info["name"], &info["version"]), (200, &json!("orchestrator"), &json!("1.1.0")));
    let (status, droplets) = told("curl http://localhost:8001/orchestrator/droplets").await;
    let names = droplets["droplets"].as_array().expect("a list").iter().map(|droplet| &droplet["name"]);
    assert_eq!((status.as_u16(), names.collect::<Vec<_>>()), (200, vec![&json!("registry"), &json!("orchestrator")]));

    let (status, routed) = told(SUBMIT).await;
    assert_eq!(status, 200);
    let shown = json!({"task_id": "550e8400-e29b-41d4-a716-446655440000", "duration_ms": 45});
    holds(&routed, &shown, false, "task");
    let shown = json!({"status": "success", "target_url": format!("{}/health", world.registry.url()), "response_status": 200,
        "response_body": {"status": "ok", "service": "registry"}, "retry_count": 0});
    holds(&routed, &shown, true, "task");
    let unknown = SUBMIT.replace(r#""registry""#, r#""unknown""#);
    let (status, error) = told(&unknown).await;
    assert_eq!(status, 400);
    let shown = json!({"status": "error", "error": {"code": "DROPLET_NOT_FOUND",
        "message": "Droplet 'unknown' not found in registry",
        "details": {"requested_droplet": "unknown", "available_droplets": ["registry", "orchestrator"]}}});
    holds(&error, &shown, true, "error");

    for (line, limit) in [
        ("curl http://localhost:8001/orchestrator/tasks", 100),
        (r#"curl "http://localhost:8001/orchestrator/tasks?status=success""#, 100),
        (r#"curl "http://localhost:8001/orchestrator/tasks?droplet_name=registry""#, 100),
        (r#"curl "http://localhost:8001/orchestrator/tasks?limit=50""#, 50),
    ] {
        let (status, list) = told(line).await;
        assert_eq!((status.as_u16(), &list["limit"], &list["total"]), (200, &json!(limit), &json!(1)), "{line}");
        assert_eq!(list["tasks"][0]["id"], routed["task_id"], "{line}");
    }
    let one = "curl http://localhost:8001/orchestrator/tasks/550e8400-e29b-41d4-a716-446655440000";
    assert_eq!(told(one).await.0, 404, "nobody has this id");
    let one = one.replace("550e8400-e29b-41d4-a716-446655440000", routed["task_id"].as_str().expect("an id"));
    assert_eq!(told(&one).await.1["id"], routed["task_id"]);

    let (status, metrics) = told("curl http://localhost:8001/orchestrator/metrics").await;
    assert_eq!(status, 200);
    let shown = json!({
        "service": "orchestrator", "version": "1.1.0", "uptime_seconds": 3600,
        "tasks": {"total": 250, "success": 238, "error": 8, "timeout": 4, "success_rate_percent": 95.2,
            "avg_response_time_ms": 234, "p95_response_time_ms": 1200, "p99_response_time_ms": 4500},
        "retry": {"total_retries": 12, "retry_success_count": 8, "retry_final_fail_count": 4},
        "registry": {"syncs_total": 145, "syncs_success": 143, "syncs_error": 2, "last_sync": 1731595000.1,
            "last_sync_duration_ms": 45, "cache_age_seconds": 30, "cache_status": "active"},
        "droplets_known": 5, "droplets_reachable": 5});
    holds(&metrics, &shown, false, "metrics");
    let figures = json!({"service": "orchestrator", "version": "1.1.0", "droplets_known": 2,
        "tasks": {"total": 1, "success": 1, "error": 0, "timeout": 0, "success_rate_percent": 100.0},
        "registry": {"syncs_error": 0, "cache_status": "active"}});
    holds(&metrics, &figures, true, "metrics");
}

/// The error in the seed's words is the one that clients of its code find under `detail`.
#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_the_seeds_shape() {
    let world = seed().await;
    let nowhere = json!({"droplet_name": "nobody", "path": "/x"});
    let astray = json!({"droplet_name": "registry", "path": "//x"});
    let missing = answer(world.request(Method::GET, "/orchestrator/tasks/none")).await;
    for (status, error) in
        [world.post("/orchestrator/tasks", &nowhere).await, world.post("/orchestrator/tasks", &astray).await, missing]
    {
        assert!(status.is_client_error(), "{status}");
        let shown = json!({"status": "error", "error": {"code": "C", "message": "m", "details": {}}});
        holds(&error, &shown, false, "error");
        assert_eq!(error["detail"], json!({"status": "error", "error": error["error"]}));
    }
}
