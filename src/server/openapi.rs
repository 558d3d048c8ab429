//! OpenAPI documents made from the kinds' schemas: kubectl explains, validates and plans its patches by them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{discovery, openapi_paths};
use crate::registry::{Kind, Kinds};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Hexadecimal SHA-256: the client may keep what has the same hash for ever.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `/openapi/v3/apis/GROUP/VERSION`; none when there is no such group-version.
pub fn group_version(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let known = discovery::group_versions(kinds).iter().any(|(g, v)| g == group && v == version);
    let members: Vec<&Kind> =
        kinds.iter().map(AsRef::as_ref).filter(|kind| kind.group == group && kind.version == version).collect();
    known.then(|| {
        let mut schemas = shared_schemas();
        let mut paths = Map::new();
        for kind in &members {
            schemas.insert(schema_name(kind), kind_schema(kind));
            schemas.insert(list_name(kind), list_schema(kind));
            openapi_paths::of(kind, &mut paths);
        }
        json!({
            "openapi": "3.0.0", "info": {"title": "gaia", "version": super::GIT_VERSION},
            "paths": paths, "components": {"schemas": schemas},
        })
    })
}

/// `/openapi/v2` as JSON: the same schemas and paths in the older dialect.
pub fn v2(kinds: &Kinds) -> Value {
    let mut definitions = Map::new();
    let mut paths = Map::new();
    for (group, version) in discovery::group_versions(kinds) {
        let Some(mut document) = group_version(kinds, &group, &version) else { continue };
        for (target, place) in [(&mut definitions, "/components/schemas"), (&mut paths, "/paths")] {
            if let Some(Value::Object(found)) = document.pointer_mut(place).map(Value::take) {
                target.extend(found);
            }
        }
    }
    let mut document = json!({
        "swagger": "2.0", "info": {"title": "gaia", "version": super::GIT_VERSION}, "definitions": definitions,
    });
    point_at_definitions(&mut document);
    document["paths"] = openapi_paths::as_v2(Value::Object(paths));
    document
}

/// `dev.gaia.v1alpha1.Workload`: the group's labels backwards, as upstream names schemas.
pub fn schema_name(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { "core.api.k8s.io" } else { &kind.group };
    let labels: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{}.{}", labels.join("."), kind.version, kind.kind)
}

pub fn list_name(kind: &Kind) -> String {
    format!("{}List", schema_name(kind))
}

/// A reference to a schema of the document.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A reference to a schema that every document has, by its short name, `Status`.
pub fn meta_reference(name: &str) -> Value {
    reference(&format!("{META}.{name}"))
}

pub fn gvk(kind: &Kind, name: &str) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": name})
}

const API_VERSION_DESCRIPTION: &str = "APIVersion defines the versioned schema of this representation of an object.";
const KIND_DESCRIPTION: &str = "Kind is a string value representing the REST resource this object represents.";

fn type_meta(properties: &mut Map<String, Value>) {
    properties.insert("apiVersion".to_owned(), json!({"type": "string", "description": API_VERSION_DESCRIPTION}));
    properties.insert("kind".to_owned(), json!({"type": "string", "description": KIND_DESCRIPTION}));
}

fn kind_schema(kind: &Kind) -> Value {
    let mut schema = if kind.schema.is_object() { kind.schema.clone() } else { json!({"type": "object"}) };
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    if let Some(properties) = schema["properties"].as_object_mut() {
        type_meta(properties);
        let metadata = json!({"description": "Standard object's metadata.", "allOf": [meta_reference("ObjectMeta")]});
        properties.insert("metadata".to_owned(), metadata);
    }
    schema["x-kubernetes-group-version-kind"] = json!([gvk(kind, &kind.kind)]);
    schema
}

fn list_schema(kind: &Kind) -> Value {
    let mut properties = Map::new();
    type_meta(&mut properties);
    properties.insert("metadata".to_owned(), json!({"allOf": [meta_reference("ListMeta")]}));
    let items = json!({"type": "array", "items": {"allOf": [reference(&schema_name(kind))]}});
    properties.insert("items".to_owned(), items);
    json!({
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "type": "object", "required": ["items"], "properties": properties,
        "x-kubernetes-group-version-kind": [gvk(kind, &kind.list_kind)],
    })
}

/// What every document refers to, named as upstream names it.
fn shared_schemas() -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    generator.subschema_for::<ObjectMeta>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<Status>();
    generator.subschema_for::<DeleteOptions>();
    let mut schemas = generator.take_definitions(true);
    let patch = json!({"type": "object", "description": "A patch; what it may hold depends on its content type."});
    schemas.insert(format!("{META}.Patch"), patch);
    schemas
}

/// `#/components/schemas/` becomes `#/definitions/`; what Swagger 2 does not have goes.
fn point_at_definitions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref") {
                *reference = reference.replace("#/components/schemas/", "#/definitions/");
            }
            for unknown in ["nullable", "oneOf", "anyOf"] {
                map.retain(|key, value| key != unknown || !(value.is_boolean() || value.is_array()));
            }
            map.values_mut().for_each(point_at_definitions);
        }
        Value::Array(items) => items.iter_mut().for_each(point_at_definitions),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_refer_to_nothing_that_is_missing() {
        let schemas = shared_schemas();
        for name in ["ObjectMeta", "ListMeta", "Status", "DeleteOptions"] {
            assert!(schemas.contains_key(&format!("{META}.{name}")), "{name} is missing of {:?}", schemas.keys());
        }
        let text = Value::Object(schemas.clone()).to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(schemas.contains_key(name), "{name} is referred to but missing");
        }
    }
}
