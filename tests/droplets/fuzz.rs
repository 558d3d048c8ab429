//! 10,000 made requests, and droplets that answer them with anything: none ends in a 5xx of ours. `SEED=n` replays.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    services::Says,
    world::{World, settings},
};

const REQUESTS: usize = 10_000;

const PATHS: [&str; 14] = [
    "/orchestrator/health",
    "/orchestrator/info",
    "/orchestrator/droplets",
    "/orchestrator/tasks",
    "/orchestrator/tasks/",
    "/orchestrator/tasks/%00",
    "/orchestrator/metrics",
    "/orchestrator/state",
    "/orchestrator/dependencies",
    "/orchestrator/message",
    "/orchestrator/send",
    "/orchestrator/capabilities",
    "/openapi.json",
    "/",
];

const FIELDS: [&str; 14] = [
    "droplet_name",
    "method",
    "path",
    "payload",
    "meta",
    "target",
    "message_type",
    "priority",
    "retry_count",
    "trace_id",
    "source",
    "timestamp",
    "",
    "callback_url",
];

const WORDS: [&str; 22] = [
    "TGT",
    "tgt",
    "GET",
    "POST",
    "DELETE",
    "PATCH",
    "/x",
    "x",
    "//x",
    "@x",
    "/../..",
    "/%zz%",
    "/ä \u{202e}",
    "\\x",
    ":1",
    "event",
    "command",
    "normal",
    "",
    "\u{0}",
    "http://x/",
    "/?a=b#c",
];

fn text(random: &mut fastrand::Rng) -> String {
    match random.u8(..6) {
        0 => (0..random.usize(..40)).map(|_| random.char(..)).collect(),
        1 => "x".repeat(random.usize(..3000)),
        _ => WORDS[random.usize(..WORDS.len())].to_owned(),
    }
}

fn value(random: &mut fastrand::Rng, depth: usize) -> Value {
    match random.u8(..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(random.i64(..)),
        3 => json!(random.f64() * 1e300),
        4 | 5 => Value::String(text(random)),
        6 => (0..random.usize(..4)).map(|_| value(random, depth - 1)).collect(),
        _ => (0..random.usize(..4)).map(|_| (text(random), value(random, depth - 1))).collect(),
    }
}

/// Mostly nearly right.
fn body(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut body = match random.u8(..4) {
        0 => json!({}),
        1 => json!({"trace_id": "t", "source": "a", "target": "b", "message_type": "event", "payload": {}}),
        _ => json!({"droplet_name": "TGT", "path": "/x"}),
    };
    for _ in 0..random.usize(..3) {
        body[FIELDS[random.usize(..FIELDS.len())]] = value(random, 3);
    }
    let mut bytes = body.to_string().into_bytes();
    match random.u8(..10) {
        0 => bytes.truncate(random.usize(..=bytes.len())),
        1 => {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        2 => bytes = (0..random.usize(..50)).map(|_| random.u8(..)).collect(),
        3 => bytes = "[".repeat(random.usize(..5000)).into_bytes(),
        _ => {}
    }
    bytes
}

fn query(random: &mut fastrand::Rng) -> String {
    if random.bool() {
        return String::new();
    }
    let pair = |random: &mut fastrand::Rng| {
        let key = ["limit", "status", "droplet_name", "x"][random.usize(..4)];
        let value = text(random);
        format!("{key}={}", percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC))
    };
    format!("?{}&{}", pair(random), pair(random))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_too_odd() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::with(settings()).await;
    for n in 0..REQUESTS {
        if n % 50 == 0 {
            let bytes = body(&mut random);
            let status = [200, 204, 302, 404, 201][random.usize(..5)];
            for path in ["/x", "/", "/send"] {
                world.target.says(path, [Says::Bytes(status, "text/html", bytes.clone())]);
                world.registry.says(path, [Says::Bytes(200, "text/html", bytes.clone())]);
            }
        }
        let method = [Method::POST, Method::POST, Method::GET, Method::PUT, Method::OPTIONS][random.usize(..5)].clone();
        let path = format!("{}{}", PATHS[random.usize(..PATHS.len())], query(&mut random));
        let body = body(&mut random);
        let mut request = world.request(method.clone(), &path).body(body.clone());
        if random.u8(..4) > 0 {
            request = request.header("content-type", "application/json");
        }
        for name in ["prefer", "idempotency-key", "x-request-id", "x-callback-url", "x-cancel-on-disconnect"] {
            if random.u8(..8) == 0 {
                let value = text(&mut random);
                if let Ok(value) = reqwest::header::HeaderValue::from_bytes(value.as_bytes()) {
                    request = request.header(name, value);
                }
            }
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        assert!(status < 500, "SEED={seed} request {n}: {method} {path} {}: {status}", String::from_utf8_lossy(&body));
        if status == 422 {
            let faults: Value = answer.json().await.expect("JSON");
            assert!(faults["detail"][0]["type"].is_string(), "{faults}");
        }
    }
    let (status, list) = world.get("/orchestrator/tasks?limit=1000").await;
    assert_eq!(status, 200);
    assert!(list["total"].as_u64() > Some(10), "some of it was routed: {}", list["total"]);
}
