//! The clients of the contract's table 1.8, one test each: what they send, byte by byte, and what they read from the answer. A
//! comment names what they do with it.

use serde_json::{Value, json};

use super::{
    wire::{Answer, curl, header, httpx, send, urllib},
    world::World,
};

/// `curl -sf` prints nothing and fails from 400 on; `python3 -m json.tool` fails on what is no JSON.
fn passes(answer: Answer) -> Answer {
    assert!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.body);
    answer
}

/// `gaia.sh`: everything is piped to `json.tool`; `handoff status` prints `.active_handoff` of `/status`. No body, no limit.
#[tokio::test]
async fn gaia_sh() {
    let world = World::gaia().await;
    assert_eq!(passes(send(&world, &curl("GET", "/health", "", None)).await).text("status"), "healthy");
    let status = passes(send(&world, &curl("GET", "/status", "", None)).await);
    assert_eq!(status.body.get("active_handoff"), Some(&Value::Null), "the key is there");
    passes(send(&world, &curl("GET", "/gpu/status", "", None)).await);
    let done = passes(send(&world, &curl("POST", "/handoff/prime-to-study", "", None)).await);
    assert_eq!(done.text("phase"), "completed");
    let asked = curl("GET", &format!("/handoff/{}/status", done.text("handoff_id")), "", None);
    assert_eq!(passes(send(&world, &asked).await).body, done.body);
    passes(send(&world, &curl("POST", "/handoff/study-to-prime", "", None)).await);
    passes(send(&world, &curl("POST", "/gpu/release", "", None)).await);
}

/// `promote_pipeline.sh`, stage 0: `.owner`; a handoff that must give a `handoff_id` within ten seconds; then its `phase` until it
/// is `completed`; then `/gpu/release`.
#[tokio::test]
async fn promote_pipeline_sh() {
    let world = World::gaia().await;
    let core = world.services.hang("/gpu/release");
    assert_eq!(passes(send(&world, &curl("GET", "/gpu/status", "", None)).await).text("owner"), "gaia-core");
    let body = r#"{"reason":"promotion_pipeline","timeout_seconds":180}"#;
    let json = "Content-Type: application/json";
    // Core does not answer yet: an answer that waited for the end would not come at all.
    let begun = passes(send(&world, &curl("POST", "/handoff/prime-to-study", json, Some(body))).await);
    core.notify_one();
    let asked = curl("GET", &format!("/handoff/{}/status", begun.text("handoff_id")), "", None);
    world.settled().await;
    assert_eq!(passes(send(&world, &asked).await).text("phase"), "completed");
    let back = passes(send(&world, &curl("POST", "/handoff/study-to-prime", json, Some(body))).await);
    assert!(!back.text("handoff_id").is_empty());
    world.settled().await;
    passes(send(&world, &curl("POST", "/gpu/release", "", None)).await);
}

/// `validate_qlora.sh`: a content type and no body; any 2xx will do.
#[tokio::test]
async fn validate_qlora_sh() {
    let world = World::gaia().await;
    for path in ["/handoff/prime-to-study", "/handoff/study-to-prime"] {
        passes(send(&world, &curl("POST", path, "Content-Type: application/json", None)).await);
    }
}

/// gaia-study's `self_awareness_pipeline.py`: its preflight looks up whether its body has what the schema requires; then a 2xx
/// means that the card is study's now.
#[tokio::test]
async fn self_awareness_pipeline_py() {
    let world = World::gaia().await;
    for path in ["/gpu/status", "/status"] {
        assert_eq!(send(&world, &urllib("GET", path, None)).await.status, 200);
    }
    let spec = passes(send(&world, &urllib("GET", "/openapi.json", None)).await).body;
    let schema =
        &spec["paths"]["/handoff/prime-to-study"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let name = schema["$ref"].as_str().and_then(|reference| reference.split('/').next_back()).expect("a reference");
    let declared = &spec["components"]["schemas"][name];
    assert!(declared["properties"]["handoff_type"].is_object(), "{declared}");
    let required = declared["required"].as_array().cloned().unwrap_or_default();
    assert!(required.iter().all(|field| ["handoff_type", "reason"].contains(&field.as_str().unwrap_or_default())));
    let body = r#"{"handoff_type": "prime_to_study", "reason": "self_awareness_pipeline training"}"#;
    passes(send(&world, &urllib("POST", "/handoff/prime-to-study", Some(body))).await);
    assert_eq!(send(&world, &urllib("GET", "/gpu/status", None)).await.text("owner"), "gaia-study");
    assert!(!world.runs("gaia-prime-live"), "the memory is free");
    let body = r#"{"handoff_type": "study_to_prime", "reason": "self_awareness_pipeline complete"}"#;
    passes(send(&world, &urllib("POST", "/handoff/study-to-prime", Some(body))).await);
    assert_eq!(send(&world, &urllib("GET", "/gpu/status", None)).await.text("owner"), "gaia-core");
}

/// gaia-study's `adaptive_trainer.py`: `ok` and `elapsed_s`.
#[tokio::test]
async fn adaptive_trainer_py() {
    let world = World::gaia().await;
    for path in ["/handoff/prime-to-study", "/handoff/study-to-prime"] {
        let done = passes(send(&world, &httpx("POST", path, None)).await);
        assert_eq!(done.body["ok"], true);
        assert!(done.body["elapsed_s"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{}", done.body);
    }
}

/// gaia-core's sleep loop: status 200 of each; and of the handoff by which it takes the card back from a training.
#[tokio::test]
async fn core_sleep_loop() {
    let world = World::gaia().await;
    let asleep = send(&world, &httpx("POST", "/gpu/sleep", Some(r#"{"reason":"sleep_cycle"}"#))).await;
    assert_eq!((asleep.status, &asleep.body["ok"]), (200, &json!(true)));
    assert_eq!(send(&world, &httpx("POST", "/gpu/wake", Some("{}"))).await.status, 200);
    assert_eq!(world.owner().await, "gaia-core");
    world.done("/handoff/prime-to-study", "").await;
    assert_eq!(send(&world, &httpx("POST", "/handoff/study-to-prime", Some("{}"))).await.status, 200);
    assert_eq!(world.owner().await, "gaia-core");
}

/// gaia-audio, before every sentence: `success` and `lease_id`, which it gives back in the body. Refused, it goes without.
#[tokio::test]
async fn gaia_audio() {
    let world = World::gaia().await;
    let ask = httpx(
        "POST",
        "/gpu/acquire",
        Some(r#"{"requester":"gaia-audio","reason":"Prime Speaker TTS synthesis","timeout_seconds":30,"priority":0}"#),
    );
    let refused = send(&world, &ask).await;
    assert_eq!((refused.status, &refused.body["success"]), (200, &json!(false)));
    assert!(world.runs("gaia-prime-live"), "a sentence stops no model");
    world.done("/gpu/sleep", "").await;
    let granted = send(&world, &ask).await;
    assert_eq!((granted.status, &granted.body["success"]), (200, &json!(true)));
    let body = json!({"lease_id": granted.text("lease_id")}).to_string();
    assert_eq!(send(&world, &httpx("POST", "/gpu/release", Some(&body))).await.status, 200);
    world.gpu_is("it was given back", |gpu| gpu["owner"] == "none").await;
}

/// gaia-doctor: JSON with 200; what of its calls is none of ours (later versions of GAIA have taken `/nano` out themselves, and
/// the `/lifecycle` and `/deploy` of its head are out of scope) is a 404 in JSON, which it passes over.
#[tokio::test]
async fn gaia_doctor() {
    let world = World::gaia().await;
    assert_eq!(send(&world, &urllib("GET", "/gpu/status", None)).await.status, 200);
    assert_eq!(send(&world, &urllib("GET", "/watch/state", None)).await.text("state"), "focusing");
    assert_eq!(send(&world, &urllib("POST", "/gpu/sleep", Some("{}"))).await.status, 200);
    assert_eq!(send(&world, &urllib("GET", "/watch/state", None)).await.text("state"), "idle");
    assert_eq!(send(&world, &urllib("POST", "/gpu/wake", Some("{}"))).await.status, 200);
    let zombie = send(&world, &urllib("POST", "/gpu/release", Some(r#"{"reason": "zombie process"}"#))).await;
    assert_eq!((zombie.status, &zombie.body["success"]), (200, &json!(true)));
    for (method, path) in
        [("POST", "/nano/backoff?reason=oom"), ("GET", "/lifecycle/state"), ("POST", "/deploy/rollback")]
    {
        let answer = send(&world, &urllib(method, path, (method == "POST").then_some("{}"))).await;
        assert_eq!((answer.status, &answer.body["detail"]), (404, &json!("Not Found")));
    }
}

/// gaia-web's dashboard: `gpu_owner` if it is there, else `gpu.owner`.
#[tokio::test]
async fn gaia_web() {
    let world = World::gaia().await;
    let status = passes(send(&world, &httpx("GET", "/status", None)).await);
    assert_eq!((&status.body["gpu"]["owner"], &status.body["gpu_owner"]), (&json!("gaia-core"), &json!("gaia-core")));
    world.done("/gpu/sleep", "").await;
    let status = passes(send(&world, &httpx("GET", "/status", None)).await);
    assert_eq!((&status.body["gpu"]["owner"], &status.body["gpu_owner"]), (&json!("none"), &json!("--")));
}

/// `training_lifecycle.py`: `success`. gaia-common: `status` of `/health`. gaia-core's model pool, of its first version: any 200.
#[tokio::test]
async fn training_lifecycle_and_common_and_model_pool() {
    let world = World::bare().await;
    assert_eq!(send(&world, &httpx("POST", "/gpu/release", None)).await.body["success"], true);
    assert_eq!(send(&world, &httpx("GET", "/health", None)).await.text("status"), "healthy");
    let body =
        r#"{"fallback_model": "groq", "original_role": "prime", "reason": "Local model for 'prime' not available"}"#;
    assert_eq!(send(&world, &httpx("POST", "/notify/oracle-fallback", Some(body))).await.body["success"], true);
}

/// gaia-study's manager of its mode: 200.
#[tokio::test]
async fn study_mode_manager() {
    let world = World::gaia().await;
    for (target, owner) in [("study", "gaia-study"), ("core", "gaia-core")] {
        let body = json!({"target": target, "reason": "study_mode"}).to_string();
        assert_eq!(send(&world, &httpx("POST", "/gpu/handoff", Some(&body))).await.status, 200);
        assert_eq!(world.owner().await, owner);
    }
}

/// Seed 001's own command, which GAIA's service refused: JSON that curl calls a form.
#[tokio::test]
async fn the_commands_of_the_plan() {
    let world = World::gaia().await;
    let start = curl("POST", "/containers/candidate/start", "", Some(r#"{"gpu_enabled":false}"#));
    assert_eq!(passes(send(&world, &start).await).text("message"), "Candidate stack started");
    let ask = curl("POST", "/gpu/acquire", "", Some(r#"{"requester":"gaia-study","reason":"training"}"#));
    let asked = passes(send(&world, &ask).await);
    assert_eq!(asked.body["queue_position"], 1);
    assert_eq!(header(&asked.head, "content-type").as_deref(), Some("application/json"));
}
