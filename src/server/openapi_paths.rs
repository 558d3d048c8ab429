//! The `paths` of OpenAPI documents. kubectl reads from them which kind is where, and from the parameters of PATCH
//! whether the server can dry-run and validate fields.

use serde_json::{Map, Value, json};

use super::{
    openapi::{gvk, list_name, meta_reference, reference, schema_name},
    write::unsaid_validation,
};
use crate::registry::Kind;

const PATCH_TYPES: [&str; 3] =
    ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// Adds the paths of one kind: collection, object and status, and the collection over all namespaces.
pub fn of(kind: &Kind, paths: &mut Map<String, Value>) {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let collection = if kind.namespaced {
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        format!("{root}/{}", kind.plural)
    };
    let mut here = Vec::new();
    if kind.namespaced {
        paths.insert(format!("{root}/{}", kind.plural), json!({"get": list(kind, "ForAllNamespaces")}));
        here.push(path_parameter("namespace", "object name and auth scope, such as for teams and projects"));
    }
    paths.insert(
        collection.clone(),
        with_parameters(json!({"get": list(kind, ""), "post": create(kind), "delete": delete_collection(kind)}), &here),
    );
    here.push(path_parameter("name", &format!("name of the {}", kind.kind)));
    let item = json!({
        "get": read(kind, ""), "put": replace(kind, ""), "patch": patch(kind, ""), "delete": delete(kind),
    });
    paths.insert(format!("{collection}/{{name}}"), with_parameters(item, &here));
    if kind.has_status {
        let status =
            json!({"get": read(kind, "Status"), "put": replace(kind, "Status"), "patch": patch(kind, "Status")});
        paths.insert(format!("{collection}/{{name}}/status"), with_parameters(status, &here));
    }
}

fn with_parameters(mut path: Value, parameters: &[Value]) -> Value {
    if !parameters.is_empty() {
        path["parameters"] = json!(parameters);
    }
    path
}

fn path_parameter(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "uniqueItems": true}})
}

fn query(name: &str, type_: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": type_, "uniqueItems": true}})
}

fn operation(kind: &Kind, action: &str, id: &str, answer: Value, parameters: Vec<Value>) -> Value {
    let scope = if kind.namespaced && !id.ends_with("ForAllNamespaces") { "Namespaced" } else { "" };
    json!({
        "operationId": format!("{}{scope}{}{id}", verb(action), kind.kind),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(kind, &kind.kind),
        "parameters": parameters,
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": answer}}},
            "401": {"description": "Unauthorized"},
        },
    })
}

fn verb(action: &str) -> &'static str {
    match action {
        "get" => "read",
        "list" => "list",
        "post" => "create",
        "put" => "replace",
        "patch" => "patch",
        "deletecollection" => "deleteCollection",
        _ => "delete",
    }
}

fn with_body(mut operation: Value, types: &[&str], schema: &Value) -> Value {
    let content: Map<String, Value> =
        types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
    operation["requestBody"] = json!({"content": content, "required": true});
    operation
}

fn write_parameters(kind: &Kind) -> Vec<Value> {
    let unsaid = unsaid_validation(kind);
    vec![
        query(
            "dryRun",
            "string",
            "When present, indicates that modifications should not be persisted. Only All is valid.",
        ),
        query("fieldManager", "string", "The name of who makes these changes."),
        query(
            "fieldValidation",
            "string",
            &format!("What to do with unknown or duplicate fields: Ignore, Warn or Strict. When absent: {unsaid:?}."),
        ),
    ]
}

fn list_parameters() -> Vec<Value> {
    let strings = ["continue", "fieldSelector", "labelSelector", "resourceVersion", "resourceVersionMatch"];
    let mut parameters: Vec<Value> = strings.iter().map(|name| query(name, "string", "")).collect();
    parameters.extend([query("limit", "integer", ""), query("timeoutSeconds", "integer", "")]);
    parameters.extend(["allowWatchBookmarks", "sendInitialEvents", "watch"].map(|name| query(name, "boolean", "")));
    parameters
}

fn own(kind: &Kind) -> Value {
    reference(&schema_name(kind))
}

fn list(kind: &Kind, id: &str) -> Value {
    operation(kind, "list", id, reference(&list_name(kind)), list_parameters())
}

fn read(kind: &Kind, id: &str) -> Value {
    operation(kind, "get", id, own(kind), vec![])
}

fn create(kind: &Kind) -> Value {
    with_body(operation(kind, "post", "", own(kind), write_parameters(kind)), &["*/*"], &own(kind))
}

fn replace(kind: &Kind, id: &str) -> Value {
    with_body(operation(kind, "put", id, own(kind), write_parameters(kind)), &["*/*"], &own(kind))
}

fn patch(kind: &Kind, id: &str) -> Value {
    let mut parameters = write_parameters(kind);
    parameters.push(query("force", "boolean", "Take fields from other managers; only for apply."));
    let mut types = PATCH_TYPES.to_vec();
    if kind.builtin {
        types.push(STRATEGIC);
    }
    with_body(operation(kind, "patch", id, own(kind), parameters), &types, &meta_reference("Patch"))
}

fn delete(kind: &Kind) -> Value {
    let parameters = vec![
        query(
            "dryRun",
            "string",
            "When present, indicates that modifications should not be persisted. Only All is valid.",
        ),
        query("gracePeriodSeconds", "integer", ""),
        query("orphanDependents", "boolean", ""),
        query("propagationPolicy", "string", "Orphan, Background or Foreground."),
    ];
    let operation = operation(kind, "delete", "", meta_reference("Status"), parameters);
    with_body(operation, &["*/*"], &meta_reference("DeleteOptions"))
}

fn delete_collection(kind: &Kind) -> Value {
    let operation = operation(kind, "deletecollection", "", meta_reference("Status"), list_parameters());
    with_body(operation, &["*/*"], &meta_reference("DeleteOptions"))
}

/// The same paths in Swagger 2: parameters carry their type themselves, and a body is a parameter.
pub fn as_v2(paths: Value) -> Value {
    let mut paths = paths;
    for path in paths.as_object_mut().into_iter().flat_map(Map::values_mut) {
        for (method, part) in path.as_object_mut().into_iter().flatten() {
            if method == "parameters" {
                flatten_parameters(part);
            } else {
                operation_as_v2(part);
            }
        }
    }
    paths
}

fn flatten_parameters(parameters: &mut Value) {
    for parameter in parameters.as_array_mut().into_iter().flatten() {
        if let Some(Value::Object(schema)) = parameter.as_object_mut().and_then(|p| p.remove("schema"))
            && let Some(parameter) = parameter.as_object_mut()
        {
            parameter.extend(schema);
        }
    }
}

fn operation_as_v2(operation: &mut Value) {
    flatten_parameters(&mut operation["parameters"]);
    let content = operation.as_object_mut().and_then(|o| o.remove("requestBody")).map(|body| body["content"].clone());
    if let Some(Value::Object(content)) = content {
        operation["consumes"] = json!(content.keys().collect::<Vec<_>>());
        let schema = content.values().next().map(|media| media["schema"].clone()).unwrap_or_default();
        if let Some(parameters) = operation["parameters"].as_array_mut() {
            parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": in_definitions(schema)}));
        }
    }
    if let Some(ok) = operation["responses"]["200"].as_object_mut() {
        let schema = ok.remove("content").map(|content| content["application/json"]["schema"].clone());
        ok.insert("schema".to_owned(), in_definitions(schema.unwrap_or_default()));
    }
    operation["produces"] = json!(["application/json", "application/yaml"]);
}

fn in_definitions(schema: Value) -> Value {
    match schema["$ref"].as_str() {
        Some(reference) => json!({"$ref": reference.replace("#/components/schemas/", "#/definitions/")}),
        None => schema,
    }
}
