//! Requests and answers, byte by byte where clients of MLOC look.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    doubles::Manners,
    world::{World, answer, document},
};

#[tokio::test]
async fn only_health_needs_no_token() {
    let world = World::with(&[("ORCHESTRATOR_TOKEN", "secret")]).await;
    let bare = reqwest::Client::builder().no_proxy().build().expect("a client");
    let ask = async |path: &str, header: Option<&str>| {
        let request = bare.get(format!("{}{path}", world.url()));
        answer(match header {
            Some(header) => request.header("authorization", header),
            None => request,
        })
        .await
    };
    assert_eq!(ask("/healthz", None).await, (200.try_into().expect("a status"), json!({"ok": true})));
    for header in [None, Some("bearer secret"), Some("Basic secret")] {
        let (status, body) = ask("/workers", header).await;
        assert_eq!((status.as_u16(), body), (401, json!({"detail": "Missing bearer token"})));
    }
    let (status, body) = ask("/api/v1/tasks", Some("Bearer secret ")).await;
    assert_eq!((status.as_u16(), body), (200, json!([])), "HTTP takes the blank away");
    let (status, body) = ask("/api/v1/tasks", Some("Bearer other")).await;
    assert_eq!((status.as_u16(), body), (403, json!({"detail": "Invalid token"})));
    assert_eq!(ask("/api/v1/tasks", Some("Bearer secret")).await.0, 200);
}

#[tokio::test]
async fn paths_and_methods_are_answered_as_clients_know_it() {
    let world = World::start().await;
    let ask = async |method: Method, path: &str| answer(world.request(method, path)).await;
    assert_eq!(ask(Method::GET, "/nowhere").await, (404.try_into().expect("a status"), json!({"detail": "Not Found"})));
    let (status, body) = ask(Method::DELETE, "/api/v1/tasks").await;
    assert_eq!((status.as_u16(), body), (405, json!({"detail": "Method Not Allowed"})));
    assert_eq!(ask(Method::HEAD, "/workers").await.0, 405);
    assert_eq!(ask(Method::GET, "/workers/").await.0, 307);
    assert_eq!(ask(Method::GET, "/workers").await.1, json!([]));
    assert_eq!(ask(Method::GET, "/workers/none").await.1, json!({"detail": "worker not found"}));
    assert_eq!(ask(Method::GET, "/api/v1/tasks/none").await.1, json!({"detail": "task not found"}));
    assert_eq!(ask(Method::GET, "/api/v1/results/none").await.1, json!({"detail": "result not found"}));
    // The same calls beside our own API.
    let main = reqwest::get(format!("{}/api/v1/tasks", world.main_url())).await.expect("an answer");
    assert_eq!(main.text().await.expect("a body"), "[]");
}

#[rstest]
#[case("text/yaml", "kind: x", 400, json!("Missing required field: apiVersion"))]
#[case("text/yaml", "a: [", 400, Value::Null)]
#[case("application/json", r#"{"yml": ""}"#, 400, json!(r#"Expected YAML string or {"yaml":"..."}"#))]
#[case("application/json", "{", 422, Value::Null)]
#[case("application/json", "[1]", 422, Value::Null)]
#[case("text/yaml", "", 422, json!([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}]))]
#[tokio::test]
async fn a_body_that_is_no_document_is_refused(
    #[case] type_: &str,
    #[case] body: &str,
    #[case] code: u16,
    #[case] detail: Value,
) {
    let world = World::start().await;
    let request = world.request(Method::POST, "/api/v1/tasks").header("content-type", type_).body(body.to_owned());
    let (status, answer) = answer(request).await;
    assert_eq!(status, code, "{answer}");
    assert!(detail.is_null() || answer["detail"] == detail, "{answer}");
    assert_eq!(world.get("/api/v1/tasks").await.1, json!([]));
}

#[tokio::test]
async fn a_document_comes_in_every_form() {
    let world = World::start().await;
    let yaml = document(json!({}));
    for (type_, body) in [
        ("application/x-www-form-urlencoded", yaml.clone()),
        ("application/json", json!(yaml).to_string()),
        ("application/json", json!({"yaml": yaml}).to_string()),
    ] {
        let request = world.request(Method::POST, "/api/v1/tasks").header("content-type", type_).body(body);
        assert_eq!(answer(request).await.0, 200, "{type_}");
    }
    let (_, all) = world.get("/api/v1/tasks").await;
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    assert_eq!(all[0]["raw_yaml"], json!(yaml));
    // Pages, and filters.
    let (_, page) = world.get("/api/v1/tasks?limit=1&status=waiting").await;
    assert_eq!(page, json!([all[0]]));
    let (_, page) = world.get(&format!("/api/v1/tasks?after={}", all[0]["task_id"].as_str().expect("an id"))).await;
    assert_eq!(page, json!([all[1], all[2]]));
}

#[tokio::test]
async fn results_are_taken_as_workers_send_them() {
    let world = World::start().await;
    let post = async |body: Value| {
        let request = world.request(Method::POST, "/api/v1/results").header("content-type", "application/json");
        answer(request.body(body.to_string())).await
    };
    let (status, body) = post(json!({"task_id": " ", "result": {}})).await;
    assert_eq!((status.as_u16(), body), (400, json!({"detail": "task_id is required"})));
    let (status, body) = post(json!({"task_id": "t", "result": [1]})).await;
    assert_eq!((status.as_u16(), &body["detail"][0]["type"]), (422, &json!("dict_type")));
    assert_eq!(post(json!({"result": {}})).await.0, 422);
    // Nobody knows the task: it is kept all the same.
    let (status, body) =
        post(json!({"task_id": "../unknown", "result": {"ü": 1}, "worker_id": "w1", "other": 1})).await;
    assert_eq!((status.as_u16(), &body["ok"]), (200, &json!(true)));
    assert!(body["path"].as_str().is_some_and(|path| path.ends_with("/___unknown/responses.json")), "{body}");
    let (_, kept) = world.get("/api/v1/results/..%2Funknown").await;
    assert_eq!(
        (&kept["task_id"], &kept["result"]["ü"], &kept["metadata"]),
        (&json!("../unknown"), &json!(1), &json!(null))
    );
    assert_eq!(kept.get("other"), None);

    let _workers = world.workers(1, Manners::default()).await;
    let ids = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    world.status_is(&ids[0], "DISPATCHED").await;
    assert_eq!(post(json!({"task_id": ids[0], "result": {}, "worker_id": "w9"})).await.0, 409);
    assert_eq!(post(json!({"task_id": ids[0], "result": {"n": 1}, "worker_id": "w0"})).await.0, 200);
    assert_eq!(world.task(&ids[0]).await["status"], "DONE");
    assert_eq!(post(json!({"task_id": ids[0], "result": {"n": 2}, "worker_id": "w0"})).await.0, 200);
    assert_eq!(world.get(&format!("/api/v1/results/{}", ids[0])).await.1["result"], json!({"n": 1}));
}

#[tokio::test]
async fn files_come_in_and_go_out_in_parts() {
    let world = World::start().await;
    let upload = async |type_: &str, name: &str, part: &str| {
        let body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"{name}\"\r\nContent-Type: application/zip\r\n\r\n0123456789\r\n--b--\r\n"
        );
        let request = world.request(Method::POST, "/api/v1/results/t/files").header("content-type", type_);
        answer(request.body(body)).await
    };
    let form = "multipart/form-data; boundary=b";
    let (status, body) = upload(form, "final_model.zip", "file").await;
    assert_eq!(status, 200, "{body}");
    // Workers of the first generation say JSON, whatever they send.
    assert_eq!(upload("application/json", "second.bin", "file").await.0, 200);
    for name in ["..", "a/b", "responses.json"] {
        assert_eq!(upload(form, name, "file").await.1, json!({"detail": "invalid filename"}), "{name}");
    }
    assert_eq!(upload(form, "a", "other").await.0, 422);
    let raw = world.request(Method::POST, "/api/v1/results/t/files").body("raw");
    assert_eq!(answer(raw).await.0, 422);

    let get = async |name: &str, header: Option<(&str, &str)>| {
        let request = world.request(Method::GET, &format!("/api/v1/results/t/files/{name}"));
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        request.send().await.expect("an answer")
    };
    let whole = get("final_model.zip", None).await;
    let header = |name: &str| whole.headers()[name].to_str().expect("text").to_owned();
    assert_eq!((header("content-type").as_str(), header("content-length").as_str()), ("application/zip", "10"));
    let tag = header("etag");
    assert_eq!(tag.len(), 34, "{tag}");
    assert_eq!(whole.text().await.expect("a body"), "0123456789");
    let part = get("final_model.zip", Some(("range", "bytes=2-4"))).await;
    assert_eq!(
        (part.status().as_u16(), part.headers()["content-range"].to_str().expect("text")),
        (206, "bytes 2-4/10")
    );
    assert_eq!(part.text().await.expect("a body"), "234");
    assert_eq!(get("final_model.zip", Some(("range", "bytes=10-"))).await.status(), 416);
    assert_eq!(get("final_model.zip", Some(("if-none-match", &tag))).await.status(), 304);
    assert_eq!(get("none", None).await.status(), 404);
    assert_eq!(get("a%2Fb", None).await.status(), 404);
}

#[tokio::test]
async fn a_worker_is_shown_as_it_announced_itself() {
    let world = World::start().await;
    let _workers = world.workers(1, Manners::default()).await;
    let (status, worker) = world.get("/workers/w0").await;
    assert_eq!(status, 200);
    assert_eq!(
        (&worker["worker_id"], &worker["status"], &worker["pid"], &worker["stale"]),
        (&json!("w0"), &json!("IDLE"), &json!(4711), &json!(false))
    );
    assert_eq!((&worker["env"], &worker["tags"]), (&json!({}), &json!(["cpu", "test"])));
    assert_eq!(worker["hardware"]["gpu"]["gpus"][1]["uuid"], "GPU-1");
    assert!(worker["started_at"].as_str().is_some_and(|at| at.ends_with("+00:00")), "{worker}");
    assert_eq!(world.object("workers/w0").await["status"]["hardware"]["cpuCores"], 8);
}
