//! Everything that is read and is no object: version, health, metrics, discovery, OpenAPI.

use std::sync::Arc;

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
    shelf::{Document, Shelf},
};
use crate::registry::{ApiError, ApiResult, Kinds, Reason};

/// Answers a GET of a document.
pub fn answer(
    state: &ServerState,
    shelf: &Shelf,
    target: &Target,
    params: &Params,
    headers: &HeaderMap,
) -> ApiResult<Response> {
    let kinds = state.registry.kinds();
    let library = Library { shelf, kinds: &kinds, headers };
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
        Target::LegacyVersions => library.discover("api", true, discovery::legacy_versions),
        Target::Groups => library.discover("apis", false, discovery::group_list),
        Target::Group(group) => library.json(&format!("apis/{group}"), || discovery::group(&kinds, group)),
        Target::GroupVersion { group, version } => {
            library.json(&format!("apis/{group}/{version}"), || discovery::resource_list(&kinds, group, version))
        }
        Target::OpenApiV2 => library.openapi_v2(),
        Target::OpenApiV3Index => library.json("openapi/v3", || Some(library.openapi_index())),
        Target::OpenApiV3 { group, version } => library.openapi_v3(group, version, params),
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

const JSON: &str = "application/json";

/// The documents about one set of kinds, for one request.
struct Library<'a> {
    shelf: &'a Shelf,
    kinds: &'a Kinds,
    headers: &'a HeaderMap,
}

impl Library<'_> {
    fn json(&self, name: &str, make: impl FnOnce() -> Option<Value>) -> ApiResult<Response> {
        let document = self.shelf.get(self.kinds, name, || make().map(|value| value.to_string()));
        document.map(|document| document.answer(JSON, self.headers)).ok_or_else(not_found)
    }

    fn discover(&self, name: &str, core: bool, legacy: fn(&Kinds) -> Value) -> ApiResult<Response> {
        let (media, version) = match negotiate::discovery(self.headers)? {
            Discovery::Legacy => return self.json(name, || Some(legacy(self.kinds))),
            Discovery::Aggregated("v2") => {
                ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "v2")
            }
            Discovery::Aggregated(_) => {
                ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", "v2beta1")
            }
        };
        let make = || Some(discovery::aggregated(self.kinds, core, version).to_string());
        let document = self.shelf.get(self.kinds, &format!("{name} {version}"), make);
        document.map(|document| document.answer(media, self.headers)).ok_or_else(not_found)
    }

    fn openapi_v2(&self) -> ApiResult<Response> {
        if !negotiate::only_openapi_protobuf(self.headers) {
            negotiate::objects(self.headers)?;
            return self.json("openapi/v2", || Some(openapi::v2(self.kinds)));
        }
        // With a dot where the client asks with an `@`, as upstream: Go's parser of media types refuses the `@`.
        let media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        let make = || Some(openapi_protobuf::encode(&openapi::v2(self.kinds)));
        let document = self.shelf.get(self.kinds, "openapi/v2 protobuf", make);
        document.map(|document| document.answer(media, self.headers)).ok_or_else(not_found)
    }

    /// Where the document of each group-version is, with its hash in the address.
    fn openapi_index(&self) -> Value {
        let mut paths = Map::new();
        for (group, version) in discovery::group_versions(self.kinds) {
            let place = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let Some(document) = self.group_version(&group, &version) else { continue };
            let url = format!("/openapi/v3/{place}?hash={}", document.hash);
            paths.insert(place, json!({"serverRelativeURL": url}));
        }
        json!({"paths": paths})
    }

    fn group_version(&self, group: &str, version: &str) -> Option<Arc<Document>> {
        let make = || openapi::group_version(self.kinds, group, version).map(|document| document.to_string());
        self.shelf.get(self.kinds, &format!("openapi/v3/{group}/{version}"), make)
    }

    /// A document asked for by its hash may be kept for ever; asked for by another one it has moved.
    fn openapi_v3(&self, group: &str, version: &str, params: &Params) -> ApiResult<Response> {
        let document = self.group_version(group, version).ok_or_else(not_found)?;
        let cache = match params.filled("hash") {
            Some(asked) if asked == document.hash => "public, immutable",
            Some(_) | None => "no-cache, private",
        };
        let mut response = document.answer(JSON, self.headers);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        Ok(response)
    }
}
