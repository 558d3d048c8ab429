//! Requests as text: `METHOD URI`, headers a line each, an empty line, the body. What is no request to HTTP itself is passed
//! over: hyper refuses it before we see it.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::world::{self, Answer, World};

/// Method, path, query and headers: whatever is asked for, and however.
pub fn path_and_query(data: &[u8]) {
    if let Some(request) = parse(data) {
        world::with(|world| {
            judged(world, request);
        });
    }
}

/// JSON and YAML bodies: creations, replacements, statuses, deletions, reviews.
pub fn json_body(data: &[u8]) {
    path_and_query(data);
}

/// Bodies in the protobuf of Kubernetes. What such a body has made can be read.
pub fn protobuf_body(data: &[u8]) {
    let Some(mut request) = parse(data) else { return };
    let media = HeaderValue::from_static("application/vnd.kubernetes.protobuf");
    request.headers_mut().insert(header::CONTENT_TYPE, media);
    world::with(|world| {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = judged(world, request);
        if method == Method::POST && answer.status == StatusCode::CREATED {
            let made = answer.json().unwrap_or_default();
            if let Some(name) = made["metadata"]["name"].as_str() {
                let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
                let path = format!("{}/{name}", path.trim_end_matches('/'));
                let found = world.send(request_of(Method::GET, &path, Body::empty()));
                // Unless it was only tried, or is a question that is kept nowhere.
                assert!(matches!(found.status.as_u16(), 200 | 404 | 405), "{path}: {}", found.status);
            }
        }
    });
}

/// Sends, and holds the answer to what every answer must be.
pub fn judged(world: &World, request: Request<Body>) -> Answer {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let before = world.revision();
    let answer = world.send(request);
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(2000)]).into_owned();
    let what = format!("{method} {uri}: {} {text}", answer.status);
    assert!(!answer.goes_on || uri.to_string().contains("watch"), "{what}: does not end");
    let code = answer.status.as_u16();
    if code < 400 {
        return answer;
    }
    // A watch or a list from a revision that is still to come; upstream's word for it. The disk is never full here.
    let too_early = code == 504 && text.contains("Too large resource version");
    assert!(code < 500 || too_early, "{what}");
    assert_eq!(world.revision(), before, "{what}: refused, and something was written");
    // The answer to HEAD has no body.
    if method != Method::HEAD && !answer.headers.contains_key(header::CONTENT_ENCODING) {
        let status = answer.json().unwrap_or_else(|| panic!("{what}: no Status"));
        assert_eq!(status["kind"], "Status", "{what}");
        assert_eq!(status["code"], json!(code), "{what}");
        assert!(status["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}: says nothing");
    }
    answer
}

pub fn parse(data: &[u8]) -> Option<Request<Body>> {
    let (head, body) = match data.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (data, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines.next()?;
    let blank = line.iter().position(|byte| *byte == b' ')?;
    let method = Method::from_bytes(&line[..blank]).ok()?;
    let uri = Uri::try_from(&line[blank + 1..]).ok().filter(|uri| uri.path().starts_with('/'))?;
    let mut request = Request::builder().method(method).uri(uri).body(Body::from(body.to_vec())).ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

pub fn request(method: Method, path: &str, object: &Value) -> Request<Body> {
    let body = if object.is_null() { Body::empty() } else { Body::from(object.to_string()) };
    let mut request = request_of(method, path, body);
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

pub fn get_as(path: &str, accept: &'static str) -> Request<Body> {
    let mut request = request_of(Method::GET, path, Body::empty());
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
    request
}

fn request_of(method: Method, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body).expect("a path of ours is a path")
}

const OURS: &str = "/apis/gaia.dev/v1alpha1";

/// An object of each kind that clients write, and the collection it is made in. A world begins with them.
pub fn samples() -> Vec<(&'static str, Value)> {
    let ours = |kind: &str, spec: Value| json!({"apiVersion": "gaia.dev/v1alpha1", "kind": kind, "metadata": {"name": "one"}, "spec": spec});
    let mut out = vec![
        ("/apis/gaia.dev/v1alpha1/gpus", ours("Gpu", json!({"device": {"index": 0}, "owner": {"name": "one"}}))),
        ("/apis/gaia.dev/v1alpha1/sources", ours("Source", json!({"directory": "/srv/gaia"}))),
        (
            "/apis/gaia.dev/v1alpha1/namespaces/default/droplets",
            ours("Droplet", json!({"endpoint": "https://droplet.example:8443/base"})),
        ),
        (
            "/apis/gaia.dev/v1alpha1/namespaces/default/gpuclaims",
            ours("GpuClaim", json!({"gpu": "one", "holder": {"name": "one"}, "priority": 5})),
        ),
        (
            "/apis/gaia.dev/v1alpha1/namespaces/default/tasks",
            ours(
                "Task",
                json!({"document": {"apiVersion": "mloc.io/v1", "kind": "Task", "metadata": {"name": "t"}, "spec": {"taskType": "inference", "model": {"source": "a"}, "resources": {"hardware": {}}}}, "dependsOn": ["b"]}),
            ),
        ),
    ];
    assert!(out.iter().all(|(path, _)| path.starts_with(OURS)), "they are ours");
    out.extend([
        ("/apis/gaia.dev/v1alpha1/namespaces/default/workloads", workload()),
        ("/api/v1/namespaces/default/configmaps", json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "one", "labels": {"app": "web", "tier": "3"}, "finalizers": ["example.com/a"]},
            "data": {"a": "b", "c": "d"}, "binaryData": {"x": "/wA="}})),
        ("/api/v1/namespaces/default/secrets", json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "one"}, "stringData": {"a": "b"}})),
        ("/api/v1/namespaces/default/serviceaccounts", json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "one"}, "secrets": [{"name": "one"}]})),
        ("/api/v1/namespaces/default/events", json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "one"},
            "involvedObject": {"kind": "Workload", "name": "one", "namespace": "default"}, "reason": "Started",
            "message": "it runs", "type": "Normal", "count": 3, "firstTimestamp": "2026-11-29T00:00:00Z",
            "lastTimestamp": "2026-11-29T01:00:00Z", "source": {"component": "gaia"}})),
        ("/apis/coordination.k8s.io/v1/namespaces/default/leases", json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "one"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15,
            "renewTime": "2026-11-29T00:00:00.000001Z"}})),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition()),
        ("/apis/example.com/v1/namespaces/default/widgets", json!({"apiVersion": "example.com/v1", "kind": "Widget",
            "metadata": {"name": "one", "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "one", "uid": "u"}]},
            "spec": {"size": 5, "ports": [{"name": "http", "port": 80}], "free": {"a": [1, 2]}}})),
    ]);
    out
}

fn workload() -> Value {
    json!({
        "apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "metadata": {"name": "one", "labels": {"app": "web"}},
        "spec": {
            "live": {"container": {"image": "busybox", "env": {"A": "b"}, "command": ["sh", "-c", "true"],
                "ports": [{"containerPort": 80, "hostPort": 8080}], "mounts": [{"type": "Volume", "source": "v", "target": "/v"}],
                "resources": {"memory": "1Gi"}}},
            "candidate": {"container": {"image": "busybox:2"}},
            "probes": {"liveness": {"http": {"path": "/health", "port": 80}, "periodSeconds": 30}},
            "dependsOn": [{"workload": "two", "condition": "Healthy"}], "stopGraceSeconds": 30, "restartPolicy": "Always",
        },
    })
}

/// With everything that a definition may have.
fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "selectableFields": [{"jsonPath": ".spec.colour"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": widget_spec(),
                    "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
                }}},
            }],
        },
    })
}

fn widget_spec() -> Value {
    json!({"type": "object",
    "x-kubernetes-validations": [{"rule": "!has(self.size) || self.size < 1000", "message": "too big"}],
    "properties": {
        "size": {"type": "integer", "default": 1, "minimum": 0},
        "colour": {"type": "string", "pattern": "^[a-z]*$", "maxLength": 20},
        "when": {"type": "string", "format": "date-time"},
        "any": {"x-kubernetes-int-or-string": true},
        "maps": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "words": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string"}, "port": {"type": "integer"}}}},
    }})
}
