//! Everything that is read and is no object: version, health, metrics, discovery, OpenAPI.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use prometheus_client::encoding::text::encode;
use serde_json::{Map, Value, json};

use super::{
    GIT_VERSION, ServerState, discovery, health,
    negotiate::{self, Discovery},
    not_found, openapi, openapi_protobuf,
    path::Target,
    query::Params,
    reply,
};
use crate::registry::{ApiError, ApiResult, Kinds, Reason};

/// Answers a GET of a document.
pub fn answer(state: &ServerState, target: &Target, params: &Params, headers: &HeaderMap) -> ApiResult<Response> {
    let kinds = state.registry.kinds();
    match target {
        Target::Version => Ok(reply::json(StatusCode::OK, &version())),
        Target::Healthz | Target::Livez => Ok(health::answer("livez", &state.readiness.live(), params)),
        Target::Readyz => {
            let mut checks = state.readiness.ready();
            if state.shutdown.is_cancelled() {
                let result = Err("the process is shutting down".to_owned());
                checks.push(health::Check { name: "shutdown".to_owned(), result });
            }
            Ok(health::answer("readyz", &checks, params))
        }
        Target::Metrics => metrics(state),
        Target::LegacyVersions => discover(headers, &kinds, true, discovery::legacy_versions),
        Target::Groups => discover(headers, &kinds, false, discovery::group_list),
        Target::Group(group) => found(discovery::group(&kinds, group)),
        Target::GroupVersion { group, version } => found(discovery::resource_list(&kinds, group, version)),
        Target::OpenApiV2 if negotiate::only_openapi_protobuf(headers) => {
            // With a dot where the client asks with an `@`, as upstream: Go's parser of media types refuses the `@`.
            let media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
            Ok(vary(reply::bytes(StatusCode::OK, media, openapi_protobuf::encode(&openapi::v2(&kinds)))))
        }
        Target::OpenApiV2 => {
            negotiate::objects(headers)?;
            Ok(vary(reply::json(StatusCode::OK, &openapi::v2(&kinds))))
        }
        Target::OpenApiV3Index => Ok(reply::json(StatusCode::OK, &openapi::index(&kinds))),
        Target::OpenApiV3 { group, version } => openapi_v3(&kinds, group, version, params),
        Target::Root | Target::WebSocketWatch | Target::SseWatch | Target::Resource(_) | Target::Unknown => {
            Err(not_found())
        }
    }
}

/// `/version`
fn version() -> Value {
    json!({
        "major": "1", "minor": "32", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
    })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/`: our paths, and what another API on this listener says of itself.
pub fn root(kinds: &Kinds, mut beside: Map<String, Value>) -> Response {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for (group, version) in discovery::group_versions(kinds) {
        if group.is_empty() {
            paths.push(format!("/api/{version}"));
        } else {
            paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{version}")]);
        }
    }
    let rest = ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/sse/watch", "/version"];
    paths.extend(rest.map(str::to_owned));
    paths.push("/ws/watch".to_owned());
    paths.sort();
    paths.dedup();
    beside.insert("paths".to_owned(), json!(paths));
    reply::json(StatusCode::OK, &Value::Object(beside))
}

fn metrics(state: &ServerState) -> ApiResult<Response> {
    let mut text = String::new();
    encode(&mut text, &state.exposition)
        .map_err(|error| ApiError::new(Reason::InternalError, format!("the metrics cannot be written: {error}")))?;
    Ok(reply::bytes(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text))
}

fn discover(headers: &HeaderMap, kinds: &Kinds, core: bool, legacy: fn(&Kinds) -> Value) -> ApiResult<Response> {
    let response = match negotiate::discovery(headers)? {
        Discovery::Legacy => reply::json(StatusCode::OK, &legacy(kinds)),
        Discovery::Aggregated(version) => {
            let media = match version {
                "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
            };
            reply::bytes(StatusCode::OK, media, discovery::aggregated(kinds, core, version).to_string())
        }
    };
    Ok(vary(response))
}

fn found(document: Option<Value>) -> ApiResult<Response> {
    document.map(|document| reply::json(StatusCode::OK, &document)).ok_or_else(not_found)
}

/// A document asked for by its hash may be kept for ever; asked for by another one it has moved.
fn openapi_v3(kinds: &Kinds, group: &str, version: &str, params: &Params) -> ApiResult<Response> {
    let text = openapi::group_version(kinds, group, version).ok_or_else(not_found)?.to_string();
    let hash = openapi::hash(text.as_bytes());
    let cache = match params.filled("hash") {
        Some(asked) if asked == hash => "public, immutable",
        Some(_) | None => "no-cache, private",
    };
    let mut response = reply::bytes(StatusCode::OK, "application/json", text);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(etag) = HeaderValue::try_from(format!("\"{hash}\"")) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(vary(response))
}

fn vary(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}
