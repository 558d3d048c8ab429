//! What becomes of a call: contract section 3, with the table of precedence.

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    services::{Rude, Says, nobody, rude},
    support::eventually,
    world::{DEADLINE, World, answer, settings},
};

fn outcome(routed: &Value) -> (&str, Option<u64>, u64) {
    (
        routed["status"].as_str().expect("a status"),
        routed["response_status"].as_u64(),
        routed["retry_count"].as_u64().expect("a number"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_below_500_are_final_and_5xx_are_tried_again() {
    let world = World::start().await;
    let target = &world.target;
    target.says("/404", [Says::Json(404, json!({"no": 1}))]);
    target.says("/302", [Says::Redirect(format!("{}/elsewhere", target.url()))]);
    target.says("/503", [Says::Json(503, json!({}))]);
    target.says("/flaky", [Says::Json(500, json!({})), Says::Json(502, json!({})), Says::Json(201, json!({"ok": 1}))]);
    let missing = world.call("/404").await;
    assert_eq!((outcome(&missing), &missing["response_body"]), (("error", Some(404), 0), &json!({"no": 1})));
    assert!(missing.get("error").is_none());
    assert_eq!(outcome(&world.call("/302").await), ("error", Some(302), 0));
    assert!(target.asked("GET /elsewhere").is_empty(), "redirects are not followed");
    let flaky = world.call("/flaky").await;
    assert_eq!((outcome(&flaky), &flaky["response_body"]), (("success", Some(201), 2), &json!({"ok": 1})));
    let dead = world.call("/503").await;
    assert_eq!((outcome(&dead), &dead["response_body"]), (("error", None, 3), &Value::Null));
    assert_eq!((target.asked("GET /503").len(), target.asked("GET /404").len()), (3, 1));
    assert_eq!(dead["error"]["code"], "DROPLET_UNREACHABLE");
    assert_eq!(dead["error"]["details"]["last_error"], "HTTP 503: Server error");
    let (_, record) = world.get(&format!("/orchestrator/tasks/{}", dead["task_id"].as_str().expect("an id"))).await;
    assert_eq!(
        (&record["error_message"], &record["error"]["code"]),
        (&json!("HTTP 503: Server error"), &json!("DROPLET_UNREACHABLE"))
    );
    let (_, metrics) = world.get("/orchestrator/metrics").await;
    assert_eq!(metrics["retry"], json!({"total_retries": 5, "retry_success_count": 1, "retry_final_fail_count": 1}));
    assert_eq!(metrics["droplets"]["tgt"]["total"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fail_are_tried_again() {
    let world = World::start().await;
    world.declare("nobody", json!({"endpoint": format!("http://{}", nobody())})).await;
    world.declare("nowhere", json!({"endpoint": "http://no-such-host.invalid"})).await;
    for name in ["nobody", "nowhere"] {
        let routed = world.route(json!({"droplet_name": name, "path": "/x"})).await;
        assert_eq!(outcome(&routed), ("error", None, 3), "{name}");
        assert!(
            routed["error"]["details"]["last_error"].as_str().is_some_and(|why| why.contains("connect")),
            "{routed}"
        );
    }
    let all = [Rude::Ends, Rude::Resets, Rude::Truncates, Rude::ResetsMidway, Rude::Babbles];
    for (n, how) in all.into_iter().enumerate() {
        let name = format!("rude{n}");
        world.declare(&name, json!({"endpoint": format!("http://{}", rude(how, 2).await), "healthPath": "/"})).await;
        let routed = world.route(json!({"droplet_name": name, "path": "/x"})).await;
        assert_eq!(routed["status"], "success", "{name}: {routed}");
        assert_eq!(routed["response_body"], json!({"ok": true}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_is_a_timeout() {
    let world = World::with(droplet_settings(Duration::from_millis(100))).await;
    world.target.says("/hang", [Says::Nothing(Arc::new(Notify::new()))]);
    let routed = world.call("/hang").await;
    assert_eq!((outcome(&routed), &routed["error"]["code"]), (("timeout", None, 3), &json!("TIMEOUT")));
    let (_, list) = world.get("/orchestrator/tasks?status=timeout").await;
    assert!(list["tasks"][0]["error_message"].as_str().is_some_and(|why| why.contains("timeout")), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_drips_has_the_time_of_one_attempt() {
    let world = World::with(droplet_settings(Duration::from_millis(300))).await;
    let every = Duration::from_millis(10);
    world.target.says("/drip", [Says::Drips { every, elements: 1_000_000 }]);
    let routed = world.call("/drip").await;
    assert_eq!((outcome(&routed), &routed["error"]["code"]), (("timeout", None, 3), &json!("TIMEOUT")));
    assert_eq!(world.target.asked("GET /drip").len(), 3, "each attempt was ended while something came");
    world.declare("head", json!({"endpoint": format!("http://{}", rude(Rude::DripsHead, 99).await)})).await;
    let routed = world.route(json!({"droplet_name": "head", "path": "/x"})).await;
    assert_eq!(outcome(&routed), ("timeout", None, 3));
    let limits = json!({"timeoutSeconds": 60});
    world.declare("patient", json!({"endpoint": world.target.url(), "limits": limits})).await;
    world.target.says("/slow", [Says::Drips { every, elements: 50 }]);
    let routed = world.route(json!({"droplet_name": "patient", "path": "/slow"})).await;
    assert_eq!((outcome(&routed), &routed["response_body"]), (("success", Some(200), 0), &json!(vec![1; 50])));
}

fn droplet_settings(task_timeout: Duration) -> gaia::controllers::droplet::Settings {
    gaia::controllers::droplet::Settings { task_timeout, ..settings() }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_kind_come_back_as_they_are() {
    let world = World::start().await;
    let large = format!("\"{}\"", "x".repeat(20 * 1024 * 1024));
    let cases: Vec<(&str, Vec<u8>, Value)> = vec![
        ("/text", b"hello".to_vec(), json!("hello")),
        ("/array", b"[1, 2]".to_vec(), json!([1, 2])),
        ("/nan", b"{\"a\": NaN}".to_vec(), json!("{\"a\": NaN}")),
        ("/empty", Vec::new(), Value::Null),
        ("/large", large.clone().into_bytes(), serde_json::from_str(&large).expect("JSON")),
    ];
    for (path, bytes, expected) in cases {
        world.target.says(path, [Says::Bytes(200, "text/html", bytes)]);
        let routed = world.call(path).await;
        assert_eq!(routed["status"], "success", "{path}");
        assert!(routed["response_body"] == expected, "{path}");
    }
    let (status, list) = world.get("/orchestrator/tasks").await;
    assert_eq!((status.as_u16(), &list["total"]), (200, &json!(5)), "all are recorded, and can be read");
    let kept = &list["tasks"][0]["response_body"];
    assert_eq!((&kept["_truncated"], &kept["_original_size_kb"]), (&json!(true), &json!(20480.0)));
    world.target.says(
        "/odd",
        [Says::Bytes(
            200,
            "application/json",
            br#"{"z": 1e400, "a": "\ud800", "n": 12345678901234567890123}"#.to_vec(),
        )],
    );
    let request = json!({"droplet_name": "TGT", "path": "/odd"});
    let raw = world.request(Method::POST, "/orchestrator/tasks").json(&request).send().await.expect("an answer");
    let raw = raw.text().await.expect("a body");
    assert!(raw.contains(r#""response_body":{"z": 1e400, "a": "\ud800", "n": 12345678901234567890123}"#), "{raw}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_beyond_the_bound_is_an_error_and_not_tried_again() {
    let settings = gaia::controllers::droplet::Settings { most_bytes: 1000, ..settings() };
    let world = World::with(settings).await;
    world.target.says("/huge", [Says::Bytes(200, "text/plain", vec![b'x'; 5000])]);
    let routed = world.call("/huge").await;
    assert_eq!(outcome(&routed), ("error", None, 1));
    assert!(
        routed["error"]["details"]["last_error"].as_str().is_some_and(|why| why.contains("larger than 1000 bytes"))
    );
    // What it was packed to does not count.
    for (length, status) in [(1000, "success"), (10_000_000, "error")] {
        world.target.says("/packed", [Says::Gzip(length)]);
        assert_eq!(world.call("/packed").await["status"], status, "{length}");
    }
    world.target.says("/endless", [Says::Drips { every: Duration::ZERO, elements: usize::MAX }]);
    assert_eq!(outcome(&world.call("/endless").await), ("error", None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_droplet_hears_what_its_caller_says_and_nothing_else() {
    let world = World::start().await;
    let body =
        r#"{"droplet_name": "tgt", "method": "DELETE", "path": "x?q=ä b", "payload": {"n": 12345678901234567890123}}"#;
    let request = world.request(Method::POST, "/orchestrator/tasks").header("content-type", "application/json");
    let request =
        request.header("x-request-id", "r1").header("idempotency-key", "k1").header("authorization", "secret");
    let (_, routed) = answer(request.body(body)).await;
    assert_eq!(routed["target_url"], format!("{}/x?q=ä b", world.target.url()), "as it was written");
    let asked = world.target.asked("DELETE /x?q=%C3%A4%20b").remove(0);
    assert_eq!(asked.body, br#"{"n": 12345678901234567890123}"#);
    assert_eq!(asked.headers["content-type"], "application/json");
    assert_eq!(
        (&asked.headers["x-request-id"], &asked.headers["idempotency-key"]),
        (&"r1".parse().expect("a value"), &"k1".parse().expect("a value"))
    );
    assert!(asked.headers.get("authorization").is_none());
    world.route(json!({"droplet_name": "TGT", "method": "POST", "path": "/nobody"})).await;
    let asked = world.target.asked("POST /nobody").remove(0);
    assert_eq!(
        (asked.headers["content-length"].to_str().expect("text"), asked.headers.get("content-type")),
        ("0", None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_does_not_end_its_call_unless_it_says_so() {
    let world = World::start().await;
    let go_on = Arc::new(Notify::new());
    world.target.says("/slow", [Says::Nothing(go_on.clone())]);
    let body = json!({"droplet_name": "TGT", "path": "/slow"});
    for (cancel, asked) in [("0", 1), ("1", 2)] {
        let request =
            world.request(Method::POST, "/orchestrator/tasks").json(&body).header("x-cancel-on-disconnect", cancel);
        let waiting = tokio::spawn(request.send());
        eventually("the target was asked", DEADLINE, async || {
            (world.target.asked("GET /slow").len() == asked).then_some(())
        })
        .await;
        waiting.abort();
        assert!(waiting.await.is_err(), "it had not ended");
        if cancel == "0" {
            go_on.notify_one();
            eventually("it is recorded", DEADLINE, async || (world.routing.calls.len() == 1).then_some(())).await;
        }
    }
    // The one that left with its call; whoever comes after it finds the droplet free.
    world.call("/other").await;
    assert_eq!(world.routing.calls.len(), 2);
}
