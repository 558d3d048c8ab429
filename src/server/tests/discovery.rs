//! What is told about the server itself.

use super::*;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn the_version_is_one_that_clients_know() {
    let version = Server::new().await.get("/version").await.expect(200);
    assert_eq!(
        (&version["major"], &version["minor"], &version["gitVersion"]),
        (&json!("1"), &json!("32"), &json!("v1.32.0+gaia"))
    );
}

#[tokio::test]
async fn aggregated_discovery_tells_everything_at_once() {
    let server = Server::new().await;
    let answer = server.get_as("/apis", AGGREGATED).await;
    assert_eq!(
        answer.header(header::CONTENT_TYPE),
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    assert!(answer.header(header::VARY).contains("Accept"));
    let document = answer.expect(200);
    assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
    let groups = document["items"].as_array().expect("items");
    let gaia = groups.iter().find(|group| group["metadata"]["name"] == "gaia.dev").expect("our group");
    let resources = gaia["versions"][0]["resources"].as_array().expect("resources");
    let workloads = resources.iter().find(|resource| resource["resource"] == "workloads").expect("workloads");
    assert_eq!(workloads["shortNames"], json!(["wl"]));
    assert_eq!(workloads["scope"], "Namespaced");
    assert_eq!(workloads["subresources"][0]["subresource"], "status");
    assert!(workloads["categories"].as_array().is_some_and(|names| names.contains(&json!("all"))));
    let core = server.get_as("/api", AGGREGATED).await.expect(200);
    let core = core["items"][0]["versions"][0]["resources"].as_array().expect("core resources").len();
    assert!(core >= 5, "{core} core resources");
}

#[tokio::test]
async fn older_clients_get_the_beta_and_the_legacy_documents() {
    let server = Server::new().await;
    let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let answer = server.get_as("/api", beta).await;
    assert_eq!(
        answer.header(header::CONTENT_TYPE),
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    );
    assert_eq!(answer.expect(200)["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert_eq!(server.get("/api").await.expect(200)["versions"], json!(["v1"]));
    let groups = server.get("/apis").await.expect(200);
    assert_eq!(groups["kind"], "APIGroupList");
    let group = server.get("/apis/gaia.dev").await.expect(200);
    assert_eq!(group["preferredVersion"]["groupVersion"], "gaia.dev/v1alpha1");
    let list = server.get("/apis/gaia.dev/v1alpha1").await.expect(200);
    let names: Vec<&str> = list["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .filter_map(|resource| resource["name"].as_str())
        .collect();
    assert!(names.contains(&"workloads") && names.contains(&"workloads/status"), "{names:?}");
    server.get("/apis/nobody.dev").await.expect(404);
    server.get("/apis/gaia.dev/v9").await.expect(404);
}

#[tokio::test]
async fn openapi_documents_are_addressed_by_their_hash() {
    let server = Server::new().await;
    let index = server.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/gaia.dev/v1alpha1"]["serverRelativeURL"].as_str().expect("an address");
    let answer = server.get(url).await;
    assert_eq!(answer.header(header::CACHE_CONTROL), "public, immutable");
    let document = answer.expect(200);
    let schema = &document["components"]["schemas"]["dev.gaia.v1alpha1.Workload"];
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": "gaia.dev", "version": "v1alpha1", "kind": "Workload"}])
    );
    assert!(schema["properties"]["spec"]["properties"]["live"].is_object());
    let item = &document["paths"]["/apis/gaia.dev/v1alpha1/namespaces/{namespace}/workloads/{name}"];
    let names: Vec<&str> = item["patch"]["parameters"]
        .as_array()
        .expect("parameters")
        .iter()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(item["patch"]["x-kubernetes-action"], "patch");
    assert!(index["paths"]["api/v1"].is_object());
    server.get("/openapi/v3/apis/nobody.dev/v1").await.expect(404);
}

/// Every reference in every document leads somewhere.
#[tokio::test]
async fn openapi_documents_are_closed() {
    let server = Server::new().await;
    let index = server.get("/openapi/v3").await.expect(200);
    let mut documents = vec![(server.get("/openapi/v2").await.expect(200), "/definitions")];
    for place in index["paths"].as_object().expect("paths").values() {
        let url = place["serverRelativeURL"].as_str().expect("an address");
        documents.push((server.get(url).await.expect(200), "/components/schemas"));
    }
    for (document, place) in documents {
        let schemas = document.pointer(place).and_then(Value::as_object).expect("schemas");
        let prefix = format!("\"#{place}/");
        let text = document.to_string();
        assert!(text.contains(&prefix));
        for reference in text.split(&prefix).skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(schemas.contains_key(name), "{name} is referred to but missing");
        }
        assert_eq!(text.matches("\"$ref\"").count(), text.split(&prefix).count() - 1, "a reference of another dialect");
    }
}

/// A client that has a document is told so, and the document is another once the kinds are.
#[tokio::test]
async fn documents_are_sent_once() {
    let server = Server::new().await;
    for (path, accept) in [("/apis", AGGREGATED), ("/api/v1", "*/*"), ("/openapi/v3", "*/*"), ("/openapi/v2", "*/*")] {
        let first = server.get_as(path, accept).await;
        let etag = first.header(header::ETAG).to_owned();
        assert!(etag.len() > 2, "{path}");
        let held = [("accept", accept), ("if-none-match", etag.as_str())];
        let again = server.send(request(Method::GET, path, &held, "")).await;
        assert_eq!((again.status.as_u16(), again.body.len(), again.header(header::ETAG)), (304, 0, &*etag), "{path}");
        let other = [("accept", accept), ("if-none-match", "\"other\"")];
        assert_eq!(server.send(request(Method::GET, path, &other, "")).await.body, first.body, "{path}");
    }
    let before = server.get_as("/apis", AGGREGATED).await.header(header::ETAG).to_owned();
    let definition = json!({
        "metadata": {"name": "kites.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "kites", "kind": "Kite"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.post(definitions, &definition).await.expect(201);
    assert_ne!(server.get_as("/apis", AGGREGATED).await.header(header::ETAG), before);
    let index = server.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().expect("an address");
    assert!(server.get(url).await.expect(200)["components"]["schemas"]["com.example.v1.Kite"].is_object());
}

#[tokio::test]
async fn kubectl_gets_openapi_v2_as_protobuf() {
    let media = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = Server::new().await.get_as("/openapi/v2", media).await;
    let told = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!((answer.status.as_u16(), answer.header(header::CONTENT_TYPE)), (200, told));
    assert!(!answer.body.is_empty());
}

#[tokio::test]
async fn health_is_told_and_ends_with_the_process() {
    let server = Server::new().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(server.get(path).await.text(), "ok", "{path}");
    }
    assert!(server.get("/readyz?verbose").await.text().contains("readyz check passed"));
    server.state.shutdown.cancel();
    let answer = server.get("/readyz").await;
    assert_eq!(answer.status.as_u16(), 500);
    assert!(answer.text().contains("[-]shutdown failed"));
    assert_eq!(server.get("/livez").await.text(), "ok");
}

#[tokio::test]
async fn requests_are_counted_by_what_they_were() {
    let server = Server::new().await;
    server.workload("a").await;
    server.get(WORKLOADS).await.expect(200);
    server.get("/apis/nobody.dev/v1/made-up-names").await.expect(404);
    let text = server.get("/metrics").await.text();
    for line in [
        r#"gaia_api_requests_total{verb="create",resource="workloads",code="201"} 1"#,
        r#"gaia_api_requests_total{verb="list",resource="workloads",code="200"} 1"#,
        r#"gaia_api_requests_total{verb="list",resource="other",code="404"} 1"#,
    ] {
        assert!(text.contains(line), "{line} is missing of\n{text}");
    }
}

#[tokio::test]
async fn tokens_guard_all_but_health() {
    let server = Server::with(Options::default(), Auth::tokens(["secret".to_owned()])).await;
    assert_eq!(server.get("/healthz").await.text(), "ok");
    for path in ["/version", "/", "/metrics", "/apis", WORKLOADS, "/sse/watch", "/nothing"] {
        assert_eq!(server.get(path).await.expect(401)["reason"], "Unauthorized", "{path}");
    }
    let with_token = request(Method::GET, WORKLOADS, &[("authorization", "Bearer secret")], "");
    server.send(with_token).await.expect(200);
}

#[tokio::test]
async fn pages_of_other_sites_are_kept_out() {
    let server = Server::new().await;
    let headers = [("origin", "https://elsewhere.example"), ("host", "127.0.0.1:8080")];
    let answer = server.send(request(Method::POST, WORKLOADS, &headers, &workload("web").to_string())).await;
    assert_eq!(answer.expect(403)["reason"], "Forbidden");
    let own = [("origin", "http://127.0.0.1:8080"), ("host", "127.0.0.1:8080")];
    server.send(request(Method::POST, WORKLOADS, &own, &workload("web").to_string())).await.expect(201);
}

#[tokio::test]
async fn who_came_in_may_do_everything() {
    let server = Server::new().await;
    let review = json!({
        "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {"verb": "create", "resource": "workloads"}},
    });
    let answer = server.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await.expect(201);
    assert_eq!((&answer["status"]["allowed"], &answer["spec"]), (&json!(true), &review["spec"]));
    let rules = server.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &json!({"spec": {}})).await;
    assert_eq!(rules.expect(201)["status"]["resourceRules"][0]["verbs"], json!(["*"]));
    for version in ["v1", "v1beta1"] {
        let path = format!("/apis/authentication.k8s.io/{version}/selfsubjectreviews");
        assert!(server.post(&path, &json!({})).await.expect(201)["status"]["userInfo"]["username"].is_string());
    }
    server.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &json!({"kind": "Pod"})).await.expect(400);
    server.get("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").await.expect(405);
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_not_there() {
    let server = Server::new().await;
    assert_eq!(server.get("/nothing").await.expect(404)["kind"], "Status");
    server.get("/apis/gaia.dev/v1alpha1/nothings").await.expect(404);
    server.post("/version", &json!({})).await.expect(405);
    let root = server.get("/").await.expect(200);
    assert!(root["paths"].as_array().is_some_and(|paths| paths.contains(&json!("/apis/gaia.dev/v1alpha1"))));
}
