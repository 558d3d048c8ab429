//! `/openapi.json`: what GAIA's own service published of itself, as far as anybody reads it: a training pipeline looks up which
//! fields its handoff must have. Made from the table of routes, so that it names every call.

use serde_json::{Map, Value, json};

use super::{
    overview::{API_VERSION, SERVICE},
    reply::{Answer, ok},
    routes,
};

/// The document.
pub fn document() -> Answer {
    let mut paths = Map::new();
    for route in routes::listed() {
        let mut operation = json!({
            "summary": format!("{} {}", route.method, route.path),
            "responses": {"200": {"description": "Successful Response", "content": {"application/json": {"schema": {}}}}},
        });
        if let Some(schema) = route.body {
            let reference = json!({"$ref": format!("#/components/schemas/{schema}")});
            operation["requestBody"] =
                json!({"required": route.needs_body, "content": {"application/json": {"schema": reference}}});
        }
        if let Some(name) = route.parameter {
            let schema = json!({"type": "string"});
            operation["parameters"] = json!([{"name": name, "in": "path", "required": true, "schema": schema}]);
        }
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation;
    }
    ok(&json!({
        "openapi": "3.1.0",
        "info": {"title": SERVICE, "version": API_VERSION},
        "paths": paths,
        "components": {"schemas": schemas()},
    }))
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let whole = |default: i64| json!({"type": "integer", "default": default});
    let flag = json!({"type": "boolean", "default": false});
    let object = |title: &str, required: &[&str], properties: Value| {
        let mut schema = json!({"title": title, "type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    };
    let requesters: Vec<&str> = super::names::REQUESTERS.iter().map(|(word, _)| *word).collect();
    let acquire = json!({
        "requester": {"type": "string", "enum": requesters}, "reason": text,
        "timeout_seconds": whole(300), "priority": whole(0),
    });
    let handoff = json!({
        "handoff_type": {"anyOf": [{"type": "string", "enum": super::handoff::type_words()}, {"type": "null"}]},
        "reason": {"type": "string", "default": ""}, "timeout_seconds": whole(super::handoff::DEFAULT_SECONDS),
    });
    let target = json!({"target": {"type": "string"}, "reason": {"type": "string", "default": ""}});
    let start = json!({"gpu_enabled": flag, "services": {"type": "array", "items": text}});
    let swap = json!({"service": text, "target": {"type": "string", "default": "candidate"}});
    let oracle = json!({
        "fallback_model": text, "original_role": text, "reason": {"type": "string", "default": ""},
        "timestamp": {"type": "string", "format": "date-time"},
    });
    json!({
        "GPUAcquireRequest": object("GPUAcquireRequest", &["requester", "reason"], acquire),
        "HandoffRequest": object("HandoffRequest", &[], handoff),
        "HandoffTarget": object("HandoffTarget", &["target"], target),
        "ContainerStartRequest": object("ContainerStartRequest", &[], start),
        "ContainerSwapRequest": object("ContainerSwapRequest", &["service"], swap),
        "OracleNotification": object("OracleNotification", &["fallback_model", "original_role"], oracle),
    })
}
