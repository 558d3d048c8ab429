//! Requests: samples of every kind, changed; patches of them; paths, queries and headers put together from what there is.

use serde_json::{Value, json};

use super::{json as values, once_in, pick, text};
use crate::targets::samples;

const PARAMETERS: [&str; 46] = [
    "watch=true",
    "watch=1",
    "watch=maybe",
    "watch",
    "limit=1",
    "limit=0",
    "limit=-1",
    "limit=99999999999999999999",
    "continue=abc",
    "continue=eyJydiI6MSwic3RhcnQiOiIvIn0",
    "resourceVersion=0",
    "resourceVersion=1",
    "resourceVersion=18446744073709551615",
    "resourceVersion=-1",
    "resourceVersionMatch=Exact",
    "resourceVersionMatch=NotOlderThan",
    "sendInitialEvents=true",
    "sendInitialEvents=",
    "allowWatchBookmarks=true",
    "timeoutSeconds=1",
    "timeoutSeconds=18446744073709551615",
    "labelSelector=app%3Dweb",
    "labelSelector=%21a",
    "labelSelector=a%20in%20(b",
    "fieldSelector=metadata.name%3Done",
    "fieldSelector=spec.active%3DLive",
    "fieldSelector=x%5C",
    "pretty=1",
    "dryRun=All",
    "dryRun=None",
    "fieldManager=me",
    "fieldManager=%00",
    "fieldManager=",
    "force=true",
    "fieldValidation=Strict",
    "fieldValidation=Warn",
    "fieldValidation=Ignore",
    "fieldValidation=x",
    "propagationPolicy=Foreground",
    "propagationPolicy=Orphan",
    "orphanDependents=true",
    "gracePeriodSeconds=0",
    "includeObject=Object",
    "kind=Workload",
    "plural=workloads",
    "%ff=%fe",
];

const HEADERS: [&str; 20] = [
    "accept: application/json;as=Table;g=meta.k8s.io;v=v1",
    "accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "accept: application/yaml",
    "accept: application/vnd.kubernetes.protobuf",
    "accept: ;;;,,,/",
    "accept: application/json;q=2;q=x, */*",
    "accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    "accept-encoding: gzip",
    "accept-encoding: gzip;q=0, *",
    "user-agent: kubectl/v1.32 (x)",
    "user-agent: /",
    "content-type: application/json; charset=utf-8",
    "content-type: text/plain",
    "content-type: application/yaml",
    "if-none-match: \"x\", *",
    "upgrade: websocket",
    "connection: upgrade",
    "sec-websocket-key: x",
    "last-event-id: 5",
    "authorization: Bearer x",
];

const PLACES: [&str; 34] = [
    "/",
    "/version",
    "/healthz",
    "/livez/ping",
    "/readyz?verbose",
    "/metrics",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/gaia.dev",
    "/apis/gaia.dev/v1alpha1",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/apis/gaia.dev/v1alpha1",
    "/openapi/v3/api/v1",
    "/ws/watch",
    "/sse/watch",
    "/api/v1/namespaces",
    "/api/v1/namespaces/default",
    "/api/v1/namespaces/default/finalize",
    "/api/v1/namespaces/default/status",
    "/api/v1/configmaps",
    "/api/v1/namespaces/default/configmaps/one",
    "/apis/events.k8s.io/v1/namespaces/default/events",
    "/apis/events.k8s.io/v1/namespaces/default/events/one",
    "/apis/gaia.dev/v1alpha1/namespaces/default/workloads",
    "/apis/gaia.dev/v1alpha1/namespaces/default/workloads/one/status",
    "/apis/gaia.dev/v1alpha1/gpus/one",
    "/apis/example.com/v1/namespaces/default/widgets/one/scale",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    "/apis/gaia.dev/v1alpha1/namespaces/default/gpuclaims/one",
    "/apis/coordination.k8s.io/v1/leases",
];

const ESCAPES: [&str; 16] =
    ["%00", "%2F", "%2f..", "%", "%zz", "%ff", "%25", "+", "//", "/.", "/..", ";a=b", "%E6%97%A5", "%0A", "~", "%252F"];

/// The query, `?` among it, if there is any.
fn query(rng: &mut fastrand::Rng) -> String {
    let parameters: Vec<&str> = (0..rng.usize(..4)).map(|_| pick(rng, &PARAMETERS)).collect();
    if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) }
}

fn headers(rng: &mut fastrand::Rng) -> String {
    (0..rng.usize(..3)).map(|_| format!("{}\n", pick(rng, &HEADERS))).collect()
}

pub fn path_and_query(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut place = (pick(rng, &PLACES)).to_owned();
    for _ in 0..rng.usize(..3) {
        let starts: Vec<usize> = place.match_indices('/').map(|(at, _)| at + 1).chain([place.len()]).collect();
        let at = pick(rng, &starts);
        match rng.u8(..4) {
            0 => place.insert_str(at, pick(rng, &ESCAPES)),
            1 => place.insert_str(at, "x/"),
            2 => place.truncate(at),
            _ => {
                let end = place[at..].find('/').map_or(place.len(), |end| at + end);
                place.replace_range(
                    at..end,
                    pick(rng, &["namespaces", "default", "one", "status", "scale", "workloads", "v1", "%6fne", ""]),
                );
            }
        }
    }
    let methods =
        ["GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "CONNECT"];
    // Else every world would soon be empty.
    let method = if place.matches('/').count() < 6 { pick(rng, &methods[..6]) } else { pick(rng, &methods) };
    let separator = if place.contains('?') { "&x" } else { "" };
    let mut text = format!("{method} {place}{separator}{}\n{}", query(rng), headers(rng));
    if once_in(rng, 3) {
        text.push_str("\n{}");
    }
    let mut bytes = text.into_bytes();
    if once_in(rng, 8) {
        text::damage(rng, &mut bytes);
    }
    bytes
}

pub fn json_body(rng: &mut fastrand::Rng) -> Vec<u8> {
    let samples = samples();
    let (collection, mut object) = pick(rng, &samples);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (method, path) = match rng.u8(..8) {
        0 => ("PUT", format!("{collection}/{name}/status")),
        1 => ("PUT", format!("{collection}/{name}/scale")),
        2 => ("DELETE", format!("{collection}/{name}")),
        3 => ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned()),
        4 | 5 => ("PUT", format!("{collection}/{name}")),
        _ => ("POST", collection.to_owned()),
    };
    match method {
        "DELETE" => {
            object = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "dryRun": ["All"],
                "preconditions": {"uid": "x", "resourceVersion": "1"}, "gracePeriodSeconds": 0});
        }
        // So that it makes something.
        "POST" if rng.bool() => object["metadata"]["name"] = json!(format!("n{}", rng.u8(..50))),
        _ => {}
    }
    if once_in(rng, 30) {
        object["status"] = values::odd(rng);
    }
    let times = rng.usize(..4);
    values::change(rng, &mut object, times);
    let (media, body) = match rng.u8(..4) {
        0 => ("application/yaml", values::written(rng, &object)),
        1 => ("application/yaml", serde_saphyr::to_string(&object).unwrap_or_default().into_bytes()),
        _ => ("application/json", values::written(rng, &object)),
    };
    [format!("{method} {path}{}\ncontent-type: {media}\n{}\n", query(rng), headers(rng)).into_bytes(), body].concat()
}

pub fn patch(rng: &mut fastrand::Rng) -> Vec<u8> {
    let samples = samples();
    let (collection, object) = pick(rng, &samples);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let below = pick(rng, &["", "", "", "/status", "/scale"]);
    let (media, patch, manager) = match rng.u8(..5) {
        0 => ("application/json-patch+json", operations(rng, &object), ""),
        1 => ("application/strategic-merge-patch+json", part_of(rng, object.clone()), ""),
        2 => ("application/apply-patch+yaml", object.clone(), "fieldManager=a&"),
        3 => ("application/apply-patch+yaml", part_of(rng, object.clone()), "fieldManager=b&force=true&"),
        _ => ("application/merge-patch+json", part_of(rng, object.clone()), ""),
    };
    let mut patch = patch;
    let times = rng.usize(..4);
    values::change(rng, &mut patch, times);
    let body = values::written(rng, &patch);
    let query = query(rng).replace('?', "");
    let head = format!("PATCH {collection}/{name}{below}?{manager}{query}\ncontent-type: {media}\n\n");
    [head.into_bytes(), body].concat()
}

/// Some fields of the object.
fn part_of(rng: &mut fastrand::Rng, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, _| rng.bool());
        for below in fields.values_mut().filter_map(Value::as_object_mut) {
            below.retain(|_, _| rng.bool());
        }
    }
    object
}

fn operations(rng: &mut fastrand::Rng, object: &Value) -> Value {
    let mut paths =
        vec![String::new(), "/".to_owned(), "/metadata/labels/a~1b~0c".to_owned(), "/x/-".to_owned(), "/~2".to_owned()];
    pointers(object, "", &mut paths);
    let path = |rng: &mut fastrand::Rng| {
        let path = pick(rng, &paths);
        if once_in(rng, 5) {
            format!("{path}/{}", pick(rng, &["-", "0", "1", "01", "99999999999999999999", "", "a"]))
        } else {
            path
        }
    };
    let one = |rng: &mut fastrand::Rng| {
        let op = pick(rng, &["add", "remove", "replace", "move", "copy", "test", "steal"]);
        json!({"op": op, "path": path(rng), "from": path(rng), "value": values::odd(rng)})
    };
    (0..rng.usize(..6)).map(|_| one(rng)).collect()
}

fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, below)| pointers(below, &format!("{at}/{name}"), out)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, below)| pointers(below, &format!("{at}/{i}"), out))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

const TERMS: [&str; 34] = [
    "app=web",
    "app==web",
    "app!=x",
    "app",
    "!app",
    "app in (web,db)",
    "tier notin (1, 2)",
    "tier>2",
    "tier<99999999999999999999",
    "in in (in)",
    "notin",
    "a in ()",
    "a in (",
    "(",
    ")",
    ",",
    ",,",
    " ",
    "=",
    "!",
    "!=",
    "a=b=c",
    "gaia.dev/x=y",
    "/x",
    "a/b/c",
    "metadata.name=one",
    "metadata.namespace!=x",
    "spec.active=Live",
    "status.phase=",
    "type=Opaque",
    "involvedObject.name=one",
    "reason=Started\\,x",
    "source=gaia",
    "\\",
];

pub fn selectors(rng: &mut fastrand::Rng) -> Vec<u8> {
    if rng.bool() {
        let mut bytes = vec![1];
        bytes.extend((0..rng.usize(..24)).map(|_| rng.u8(..)));
        return bytes;
    }
    let terms = |rng: &mut fastrand::Rng| -> Vec<String> {
        let term =
            |rng: &mut fastrand::Rng| if once_in(rng, 8) { text::odd(rng) } else { (pick(rng, &TERMS)).to_owned() };
        (0..rng.usize(..4)).map(|_| term(rng)).collect()
    };
    let mut bytes = format!("{}\n{}", terms(rng).join(","), terms(rng).join(",")).into_bytes();
    if once_in(rng, 4) {
        text::damage(rng, &mut bytes);
    }
    bytes.insert(0, rng.u8(..10) * 2);
    bytes
}
