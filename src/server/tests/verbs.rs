//! Reading and writing objects over HTTP. What a write does is the registry's and tested there; here, that it is asked
//! for and answered rightly.

use super::*;

#[tokio::test]
async fn an_object_lives_its_life() {
    let server = Server::new().await;
    let created = server.workload("web").await;
    assert_eq!(created["metadata"]["generation"], 1);
    let path = format!("{WORKLOADS}/web");
    assert_eq!(server.get(&path).await.expect(200), created);
    let mut changed = created.clone();
    changed["spec"]["suspend"] = json!(true);
    let changed = server.put(&path, &changed).await.expect(200);
    assert_eq!(changed["metadata"]["generation"], 2);
    let stale = server.put(&path, &created).await.expect(409);
    assert_eq!(stale["reason"], "Conflict");
    let status = json!({"status": {"active": "Live"}});
    let with_status = server.merge(&format!("{path}/status"), &status).await.expect(200);
    assert_eq!(with_status["status"]["active"], "Live");
    assert_eq!(server.get(&format!("{path}/status")).await.expect(200), with_status);
    let gone = server.delete(&path).await.expect(200);
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(gone["details"]["uid"], created["metadata"]["uid"]);
    let error = server.get(&path).await.expect(404);
    assert_eq!(error["message"], "workloads.gaia.dev \"web\" not found");
    assert_eq!(error["details"], json!({"name": "web", "group": "gaia.dev", "kind": "workloads"}));
}

#[tokio::test]
async fn a_finalizer_makes_delete_answer_the_object() {
    let server = Server::new().await;
    let mut object = workload("web");
    object["metadata"]["finalizers"] = json!(["example.dev/hold"]);
    server.post(WORKLOADS, &object).await.expect(201);
    let path = format!("{WORKLOADS}/web");
    let pending = server.delete(&path).await.expect(200);
    assert_eq!(pending["kind"], "Workload");
    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    server.merge(&path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn all_patches_are_taken_and_the_others_refused() {
    let server = Server::new().await;
    server.workload("web").await;
    let path = format!("{WORKLOADS}/web");
    let merged = server.merge(&path, &json!({"spec": {"suspend": true}})).await.expect(200);
    assert_eq!(merged["spec"]["suspend"], true);
    let operations = json!([{"op": "replace", "path": "/spec/suspend", "value": false}]);
    let patched = server.patch(&path, "application/json-patch+json", &operations).await.expect(200);
    assert_eq!(patched["spec"]["suspend"], false);
    let strategic = server.patch(&path, "application/strategic-merge-patch+json", &json!({})).await.expect(415);
    assert!(strategic["message"].as_str().is_some_and(|text| text.contains("application/merge-patch+json")));
    server.patch(&path, "text/plain", &json!({})).await.expect(415);
    server.patch(&path, "application/json-patch+json", &json!({"op": "x"})).await.expect(400);
    server.merge(&path, &json!([])).await.expect(400);
    let map = "/api/v1/namespaces/default/configmaps";
    let config = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"a": "1"}});
    server.post(map, &config).await.expect(201);
    let strategic = json!({"data": {"b": "2"}});
    let map = format!("{map}/c");
    let patched = server.patch(&map, "application/strategic-merge-patch+json", &strategic).await.expect(200);
    assert_eq!(patched["data"], json!({"a": "1", "b": "2"}));
}

#[tokio::test]
async fn apply_says_what_it_needs() {
    let server = Server::new().await;
    let path = format!("{WORKLOADS}/web");
    let apply = "application/apply-patch+yaml";
    let error = server.patch(&path, apply, &workload("web")).await.expect(422);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("fieldManager: Required value")), "{error}");
    let by_me = format!("{path}?fieldManager=me&force=true");
    server.patch(&by_me, apply, &workload("web")).await.expect(201);
    let again = server.patch(&by_me, apply, &workload("web")).await.expect(200);
    assert_eq!(again["metadata"]["managedFields"][0]["manager"], "me");
    let yaml = "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {name: web}\nspec:\n  suspend: true\n  live: {container: {image: busybox}}\n";
    let applied = server.send(request(Method::PATCH, &by_me, &[("content-type", apply)], yaml)).await.expect(200);
    assert_eq!(applied["spec"]["suspend"], true);
    let forced = server.merge(&format!("{path}?force=true"), &json!({})).await.expect(422);
    assert!(forced["message"].as_str().is_some_and(|text| text.contains("force: Forbidden")));
}

#[tokio::test]
async fn bodies_come_as_yaml_too_and_nothing_else() {
    let server = Server::new().await;
    let yaml = "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: web\nspec:\n  live:\n    container:\n      image: busybox\n";
    let post = |media, body: &str| request(Method::POST, WORKLOADS, &[("content-type", media)], body);
    server.send(post("application/yaml", yaml)).await.expect(201);
    let protobuf = server.send(post("application/vnd.kubernetes.protobuf", "k8s\0")).await.expect(415);
    assert_eq!(protobuf["reason"], "UnsupportedMediaType");
    server.send(post("application/json", "{")).await.expect(400);
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(4 * 1024 * 1024));
    assert_eq!(server.send(post("application/json", &large)).await.expect(413)["reason"], "RequestEntityTooLarge");
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_told_or_dropped() {
    let server = Server::new().await;
    let body = r#"{"apiVersion":"gaia.dev/v1alpha1","kind":"Workload","metadata":{"name":"a","name":"web"},
        "spec":{"live":{"container":{"image":"busybox"}},"sspend":true}}"#;
    let post = |query: &str| {
        request(Method::POST, &format!("{WORKLOADS}?dryRun=All{query}"), &[("content-type", "application/json")], body)
    };
    for unsaid_or_strict in ["", "&fieldValidation=Strict"] {
        let strict = server.send(post(unsaid_or_strict)).await.expect(400);
        assert!(strict["message"].as_str().is_some_and(|text| text.contains("duplicate field \"metadata.name\"")));
    }
    let warned = server.send(post("&fieldValidation=Warn")).await;
    let warnings: Vec<&str> =
        warned.headers.get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok()).collect();
    assert_eq!(warnings, [r#"299 - "duplicate field \"metadata.name\"""#, r#"299 - "unknown field \"spec.sspend\"""#]);
    assert_eq!(warned.expect(201)["metadata"]["name"], "web");
    let ignored = server.send(post("&fieldValidation=Ignore")).await;
    assert!(!ignored.headers.contains_key(header::WARNING));
    ignored.expect(201);
    server.get(&format!("{WORKLOADS}/web")).await.expect(404);
    server.send(post("&fieldValidation=Sometimes")).await.expect(422);
}

#[tokio::test]
async fn who_writes_is_told_by_the_user_agent_unless_named() {
    let server = Server::new().await;
    let headers = [("content-type", "application/json"), ("user-agent", "robot/1.2 (linux)")];
    let post = |path: &str, name| request(Method::POST, path, &headers, &workload(name).to_string());
    let manager = |object: Value| object["metadata"]["managedFields"][0]["manager"].clone();
    assert_eq!(manager(server.send(post(WORKLOADS, "a")).await.expect(201)), "robot");
    let named = format!("{WORKLOADS}?fieldManager=me");
    assert_eq!(manager(server.send(post(&named, "b")).await.expect(201)), "me");
    let long = format!("{WORKLOADS}?fieldManager={}", "m".repeat(129));
    server.send(post(&long, "c")).await.expect(422);
}

#[tokio::test]
async fn lists_are_selected_paged_and_of_one_place() {
    let server = Server::new().await;
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
    let elsewhere = "/apis/gaia.dev/v1alpha1/namespaces/other/workloads";
    for name in ["a", "b", "c"] {
        let mut object = workload(name);
        object["metadata"]["labels"] = json!({"tier": if name == "b" { "back" } else { "front" }});
        server.post(WORKLOADS, &object).await.expect(201);
    }
    server.post(elsewhere, &workload("d")).await.expect(201);
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let all = server.get("/apis/gaia.dev/v1alpha1/workloads").await.expect(200);
    assert_eq!(
        (names(&all), &all["kind"]),
        (vec!["a".into(), "b".into(), "c".into(), "d".into()], &json!("WorkloadList"))
    );
    assert_eq!(names(&server.get(&format!("{WORKLOADS}?labelSelector=tier%3Dfront")).await.expect(200)), ["a", "c"]);
    assert_eq!(names(&server.get(&format!("{WORKLOADS}?fieldSelector=metadata.name%3Db")).await.expect(200)), ["b"]);
    server.get(&format!("{WORKLOADS}?fieldSelector=spec.nothing%3Db")).await.expect(400);
    let page = server.get(&format!("{WORKLOADS}?limit=2")).await.expect(200);
    assert_eq!((names(&page), &page["metadata"]["remainingItemCount"]), (vec!["a".into(), "b".into()], &json!(1)));
    let token = page["metadata"]["continue"].as_str().expect("a token");
    let rest = server.get(&format!("{WORKLOADS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["c"]);
    let future = server.get(&format!("{WORKLOADS}?resourceVersion=99999999")).await.expect(504);
    assert_eq!(future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    server.get(&format!("{WORKLOADS}?resourceVersion=1&resourceVersionMatch=Exact")).await.expect(410);
    server.get(&format!("{WORKLOADS}?resourceVersionMatch=Exact")).await.expect(422);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = Server::new().await;
    for name in ["a", "b"] {
        server.workload(name).await;
    }
    let gone = server.delete(&format!("{WORKLOADS}?fieldSelector=metadata.name%3Da")).await.expect(200);
    assert_eq!(gone["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(server.get(WORKLOADS).await.expect(200)["items"].as_array().map(Vec::len), Some(1));
    server.delete("/apis/gaia.dev/v1alpha1/workloads").await.expect(405);
}

#[tokio::test]
async fn delete_options_come_in_the_body_or_the_query() {
    let server = Server::new().await;
    server.workload("web").await;
    let path = format!("{WORKLOADS}/web");
    let delete = |query: &str, body: &Value| {
        let headers = [("content-type", "application/json")];
        request(Method::DELETE, &format!("{path}{query}"), &headers, &body.to_string())
    };
    let other = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
    server.send(delete("", &other)).await.expect(409);
    server.send(delete("?propagationPolicy=Sideways", &json!({}))).await.expect(422);
    server.send(delete("?dryRun=All", &json!({}))).await.expect(200);
    server.send(delete("", &json!({"dryRun": ["All"]}))).await.expect(200);
    server.get(&path).await.expect(200);
    server.send(delete("", &json!({"propagationPolicy": "Background"}))).await.expect(200);
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn scopes_and_methods_must_fit() {
    let server = Server::new().await;
    server.get("/apis/gaia.dev/v1alpha1/workloads/web").await.expect(404);
    server.get("/apis/gaia.dev/v1alpha1/namespaces/default/sources").await.expect(404);
    server.post("/apis/gaia.dev/v1alpha1/workloads", &workload("web")).await.expect(405);
    server.put(WORKLOADS, &workload("web")).await.expect(405);
    server.workload("web").await;
    server.get(&format!("{WORKLOADS}/web/scale")).await.expect(404);
    server.delete(&format!("{WORKLOADS}/web/status")).await.expect(405);
}

#[tokio::test]
async fn answers_come_in_the_format_asked_for() {
    let server = Server::new().await;
    let created = server.workload("web").await;
    let path = format!("{WORKLOADS}/web");
    let yaml = server.get_as(&path, "application/yaml").await;
    assert_eq!(yaml.header(header::CONTENT_TYPE), "application/yaml");
    let read: Value = serde_saphyr::from_str(&yaml.text()).expect("YAML that can be read");
    assert_eq!(read, created);
    let partial =
        server.get_as(&path, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await.expect(200);
    assert_eq!((&partial["kind"], partial.get("spec")), (&json!("PartialObjectMetadata"), None));
    let list = server.get_as(WORKLOADS, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").await;
    let list = list.expect(200);
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]),
        (&json!("PartialObjectMetadataList"), &created["metadata"])
    );
    assert!(server.get(&format!("{path}?pretty=true")).await.text().contains("\n  "));
    let refused = server.get_as(&path, "application/vnd.kubernetes.protobuf").await.expect(406);
    assert_eq!(refused["reason"], "NotAcceptable");
}

#[tokio::test]
async fn large_lists_are_compressed_for_those_who_can_read_it() {
    let server = Server::new().await;
    for i in 0..100 {
        server.workload(&format!("web-{i}")).await;
    }
    let zipped = server.send(request(Method::GET, WORKLOADS, &[("accept-encoding", "gzip")], "")).await;
    assert_eq!(zipped.header(header::CONTENT_ENCODING), "gzip");
    let plain = server.get(WORKLOADS).await;
    assert!(zipped.body.len() * 2 < plain.body.len());
    assert_eq!(plain.expect(200)["items"].as_array().map(Vec::len), Some(100));
}
