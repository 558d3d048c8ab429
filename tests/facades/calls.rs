//! Rules that every call obeys: paths, methods, bodies, tokens; and what the overview tells.

use gaia::server::Auth;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::world::{World, answer};

#[tokio::test]
async fn health_says_the_two_words_that_clients_look_for() {
    let world = World::empty(Auth::open()).await;
    let text = world.request(Method::GET, "/health").send().await.expect("an answer").text().await.expect("a body");
    assert_eq!(text, r#"{"status":"healthy","service":"gaia-orchestrator"}"#);
}

#[tokio::test]
async fn only_health_needs_no_token() {
    let world = World::empty(Auth::tokens(["secret".to_owned()])).await;
    assert_eq!(world.get("/health").await.0, 200);
    for path in ["/status", "/gpu/status", "/containers/status", "/"] {
        assert_eq!(world.get(path).await.0, 401, "{path}");
    }
    let with_token = world.request(Method::GET, "/gpu/status").bearer_auth("secret");
    assert_eq!(answer(with_token).await.0, 200);
}

#[tokio::test]
async fn the_root_is_a_directory_for_either_kind_of_client() {
    let world = World::bare().await;
    let (_, root) = world.get("/").await;
    assert_eq!(root["service"], "gaia-orchestrator");
    assert_eq!(root["endpoints"]["gpu"]["acquire"], "POST /gpu/acquire");
    assert_eq!(root["endpoints"]["handoff"]["prime_to_study"], "POST /handoff/prime-to-study");
    assert!(root["paths"].as_array().is_some_and(|paths| paths.contains(&json!("/apis"))), "{root}");
}

#[rstest]
#[case("GET", "/nowhere", 404, "Not Found")]
#[case("GET", "/gpu/nowhere", 404, "Not Found")]
#[case("GET", "/gpu/acquire", 405, "Method Not Allowed")]
#[case("POST", "/gpu/status", 405, "Method Not Allowed")]
#[case("OPTIONS", "/health", 405, "Method Not Allowed")]
#[case("GET", "/handoff/no-such-id/status", 404, "Handoff no-such-id not found")]
#[case("POST", "/handoff/no-such-id/cancel", 404, "Handoff no-such-id not found")]
#[tokio::test]
async fn what_is_not_there_is_told_in_a_detail(
    #[case] method: &str,
    #[case] path: &str,
    #[case] code: u16,
    #[case] detail: &str,
) {
    let world = World::bare().await;
    let (status, body) = answer(world.request(method.parse().expect("a method"), path)).await;
    assert_eq!((status.as_u16(), &body["detail"]), (code, &json!(detail)));
}

#[tokio::test]
async fn a_wrong_method_names_the_right_one_and_a_slash_too_many_is_redirected() {
    let world = World::bare().await;
    let refused = world.request(Method::HEAD, "/health").send().await.expect("an answer");
    assert_eq!((refused.status().as_u16(), refused.headers()["allow"].to_str().expect("text")), (405, "GET"));
    let moved = world.request(Method::POST, "/containers/live/stop/?x=1").send().await.expect("an answer");
    assert_eq!(moved.status(), 307);
    assert_eq!(moved.headers()["location"], "/containers/live/stop?x=1");
}

#[rstest]
#[case("/gpu/acquire", "", "missing", json!(["body"]))]
#[case("/gpu/acquire", "{", "json_invalid", json!(["body", 1]))]
#[case("/gpu/acquire", "[]", "model_attributes_type", json!(["body"]))]
#[case("/gpu/acquire", r#"{"reason":"x"}"#, "missing", json!(["body", "requester"]))]
#[case("/gpu/acquire", r#"{"requester":"Gaia-Core","reason":"x"}"#, "enum", json!(["body", "requester"]))]
#[case("/gpu/acquire", r#"{"requester":"none","reason":"x"}"#, "enum", json!(["body", "requester"]))]
#[case("/gpu/acquire", r#"{"requester":"gaia-core","reason":null}"#, "string_type", json!(["body", "reason"]))]
#[case("/gpu/wait", r#"{"requester":"gaia-core","reason":"x","timeout_seconds":5.5}"#, "int_from_float", json!(["body", "timeout_seconds"]))]
#[case("/handoff/prime-to-study", r#"{"handoff_type":"sideways"}"#, "enum", json!(["body", "handoff_type"]))]
#[case("/containers/live/start", r#"{"gpu_enabled":"perhaps"}"#, "bool_parsing", json!(["body", "gpu_enabled"]))]
#[case("/containers/live/start", r#"{"services":"core"}"#, "list_type", json!(["body", "services"]))]
#[case("/containers/swap", "{}", "missing", json!(["body", "service"]))]
#[case("/notify/oracle-fallback", r#"{"original_role":"prime"}"#, "missing", json!(["body", "fallback_model"]))]
#[tokio::test]
async fn a_body_that_cannot_be_meant_is_422(
    #[case] path: &str,
    #[case] body: &str,
    #[case] type_: &str,
    #[case] place: Value,
) {
    let world = World::bare().await;
    let (status, answer) = world.post(path, body).await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!((&answer["detail"][0]["type"], &answer["detail"][0]["loc"]), (&json!(type_), &place), "{answer}");
}

#[tokio::test]
async fn the_status_has_every_key_that_clients_read() {
    let world = World::gaia().await;
    let (_, status) = world.get("/status").await;
    assert_eq!(status["service"], "gaia-orchestrator");
    assert_eq!(status["status"], "operational");
    assert_eq!(status["gpu"]["queue"], json!([]));
    assert_eq!(status["gpu_owner"], "gaia-core");
    assert_eq!(status["active_handoff"], Value::Null);
    assert_eq!(status["containers"]["live"]["core"]["name"], "gaia-core");
    assert!(status["last_updated"].as_str().is_some_and(|at| at.ends_with('Z')), "{status}");
}

#[tokio::test]
async fn without_a_card_reading_works_and_asking_is_refused() {
    let world = World::empty(Auth::open()).await;
    let (status, gpu) = world.get("/gpu/status").await;
    let nobody =
        json!({"owner": "none", "lease_id": null, "reason": null, "acquired_at": null, "memory": null, "queue": []});
    assert_eq!((status.as_u16(), gpu), (200, nobody));
    let (status, refused) = world.post("/gpu/acquire", r#"{"requester":"gaia-core","reason":"x"}"#).await;
    assert_eq!((status.as_u16(), &refused["detail"]), (501, &json!("GPU manager not available")));
}
