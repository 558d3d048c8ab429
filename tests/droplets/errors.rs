//! Requests that are wrong: contract sections 1.0 and 1.12.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, answer};

async fn faults(world: &World, body: &str) -> Vec<(String, String, Value)> {
    let request = world.request(Method::POST, "/orchestrator/tasks").header("content-type", "application/json");
    let (status, answer) = answer(request.body(body.to_owned())).await;
    assert_eq!(status, 422, "{body}: {answer}");
    let faults = answer["detail"].as_array().expect("a list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    faults.map(|fault| (text(&fault["type"]), text(&fault["msg"]), fault["loc"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_body_is_named() {
    let world = World::start().await;
    let cases = [
        (r#"{}"#.to_owned(), vec![("missing", json!(["body", "droplet_name"])), ("missing", json!(["body", "path"]))]),
        (String::new(), vec![("missing", json!(["body"]))]),
        ("[1]".to_owned(), vec![("model_attributes_type", json!(["body"]))]),
        (r#"{"droplet_name": }"#.to_owned(), vec![("json_invalid", json!(["body", 17]))]),
        (
            r#"{"droplet_name": "", "path": 7}"#.to_owned(),
            vec![("string_too_short", json!(["body", "droplet_name"])), ("string_type", json!(["body", "path"]))],
        ),
        (
            format!(r#"{{"droplet_name": "{}", "path": "/{}"}}"#, "x".repeat(256), "x".repeat(2048)),
            vec![("string_too_long", json!(["body", "droplet_name"])), ("string_too_long", json!(["body", "path"]))],
        ),
        (
            r#"{"droplet_name": "TGT", "path": "/", "method": "get"}"#.to_owned(),
            vec![("literal_error", json!(["body", "method"]))],
        ),
        (
            r#"{"droplet_name": "TGT", "path": "/", "method": null}"#.to_owned(),
            vec![("literal_error", json!(["body", "method"]))],
        ),
        (
            r#"{"droplet_name": "TGT", "path": "/", "payload": [1]}"#.to_owned(),
            vec![("dict_type", json!(["body", "payload"]))],
        ),
        (
            r#"{"droplet_name": "TGT", "path": "/", "meta": {"a": 1}}"#.to_owned(),
            vec![("string_type", json!(["body", "meta", "a"]))],
        ),
    ];
    for (body, expected) in cases {
        let found = faults(&world, &body).await;
        let found: Vec<_> = found.iter().map(|(kind, _, loc)| (kind.as_str(), loc.clone())).collect();
        assert_eq!(found, expected, "{body}");
    }
    let found = faults(&world, r#"{"droplet_name": "TGT", "path": "/", "method": "HEAD"}"#).await;
    assert_eq!(found[0].1, "Input should be 'GET', 'POST', 'PUT', 'DELETE' or 'PATCH'");
    let request = world.request(Method::POST, "/orchestrator/tasks").header("content-type", "text/plain");
    assert_eq!(answer(request.body(r#"{"droplet_name": "TGT", "path": "/"}"#)).await.0, 422);
    assert!(world.target.asked("GET / ").is_empty(), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_a_number_from_1_to_1000() {
    let world = World::start().await;
    for (limit, kind) in
        [("0", "greater_than_equal"), ("1001", "less_than_equal"), ("x", "int_parsing"), ("", "int_parsing")]
    {
        let (status, answer) = world.get(&format!("/orchestrator/tasks?limit={limit}")).await;
        assert_eq!((status.as_u16(), &answer["detail"][0]["type"]), (422, &json!(kind)), "{limit}");
        assert_eq!(answer["detail"][0]["loc"], json!(["query", "limit"]));
    }
    assert_eq!(world.get("/orchestrator/tasks?limit=0&limit=7").await.1["limit"], 7, "the last one counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_verbs_and_the_id_of_a_request() {
    let world = World::start().await;
    assert_eq!(world.get("/nowhere").await, (reqwest::StatusCode::NOT_FOUND, json!({"detail": "Not Found"})));
    let wrong = world.request(Method::PUT, "/orchestrator/tasks").send().await.expect("an answer");
    assert_eq!((wrong.status().as_u16(), &wrong.headers()["allow"]), (405, &"POST, GET".parse().expect("a value")));
    let slash = world.request(Method::POST, "/orchestrator/tasks/?a=1").send().await.expect("an answer");
    assert_eq!(
        (slash.status().as_u16(), &slash.headers()["location"]),
        (307, &"/orchestrator/tasks?a=1".parse().expect("a value"))
    );
    let own = world
        .request(Method::GET, "/orchestrator/state")
        .header("x-request-id", "mine")
        .send()
        .await
        .expect("an answer");
    assert_eq!(own.headers()["x-request-id"], "mine");
    for path in ["/orchestrator/state", "/nowhere", "/orchestrator/tasks/none"] {
        let made = world.request(Method::GET, path).send().await.expect("an answer");
        assert_eq!(made.headers()["x-request-id"].len(), 36, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_leads_elsewhere_is_refused_before_anything_is_sent() {
    let world = World::start().await;
    let other = crate::services::Service::start().await;
    for path in [format!("@{}/x", other.address), format!("//{}/x", other.address), format!("{}/x", other.url())] {
        let (status, error) = world.post("/orchestrator/tasks", &json!({"droplet_name": "TGT", "path": path})).await;
        assert_eq!((status.as_u16(), &error["error"]["code"]), (400, &json!("INVALID_REQUEST")), "{path}");
        assert!(error["error"]["details"]["error"].as_str().is_some_and(|why| why.starts_with("path: ")), "{error}");
    }
    assert!(other.asked("").is_empty() && world.routing.calls.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_not_promised() {
    let world = World::start().await;
    let post =
        |body: Value| world.request(Method::POST, "/orchestrator/tasks").json(&body).header("prefer", "respond-async");
    for callback in ["", "nowhere", "ftp://x/", "http://"] {
        let request = post(json!({"droplet_name": "TGT", "path": "/x"})).header("x-callback-url", callback);
        let (status, error) = answer(request).await;
        assert_eq!((status.as_u16(), &error["error"]["code"]), (400, &json!("INVALID_REQUEST")), "{callback}");
        assert!(error["error"]["details"]["error"].as_str().is_some_and(|why| why.starts_with("X-Callback-URL: ")));
    }
    assert_eq!(answer(post(json!({"droplet_name": "nobody", "path": "/x"}))).await.0, 400);
    assert_eq!(answer(post(json!({"droplet_name": "TGT", "path": "//x"}))).await.0, 400);
    assert_eq!(answer(post(json!({"droplet_name": "TGT"}))).await.0, 422);
    assert!(world.routing.calls.is_empty() && world.target.asked("GET /x").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_to_a_metadata_address() {
    let world = World::start().await;
    world.declare("metadata", json!({"endpoint": "http://169.254.169.254"})).await;
    let routed = world.route(json!({"droplet_name": "metadata", "path": "/latest"})).await;
    assert_eq!((&routed["status"], &routed["retry_count"]), (&json!("error"), &json!(1)), "it is tried once: {routed}");
    assert!(
        routed["error"]["details"]["last_error"].as_str().is_some_and(|why| why.contains("not for droplets")),
        "{routed}"
    );
}
