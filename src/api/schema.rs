//! From what the derive makes to what we serve: the last touches on a generated CustomResourceDefinition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{Schema, SchemaGenerator, json_schema};

/// Formats that an API server knows; it warns about every other one.
const KNOWN_FORMATS: [&str; 5] = ["int32", "int64", "float", "double", "date-time"];

/// Makes a derived definition what we mean:
///
/// * no field is `nullable`. Every optional field of ours may simply be absent, and a `null` is then pruned before any rule
///   sees it, so that `has(self.x)` means "was given" (a nullable field that is null *has* a value, null);
/// * whole numbers have the bounds of their type, since a number that is stored must be readable, and no formats that API
///   servers do not know (`uint32`);
/// * the kind is described by its own words, and no time by those of the Go type.
pub(super) fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            if let Some(spec) = root.properties.as_ref().and_then(|p| p.get("spec")) {
                root.description.clone_from(&spec.description);
            }
            simplify(root);
        }
    }
    crd
}

fn simplify(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if schema.description.as_deref().is_some_and(|d| d.starts_with("Time is a wrapper")) {
        schema.description = None;
    }
    if let Some((minimum, maximum)) = schema.format.as_deref().and_then(bounds_of) {
        schema.minimum = Some(schema.minimum.unwrap_or(minimum));
        schema.maximum = Some(schema.maximum.unwrap_or(maximum));
    }
    if schema.format.as_deref().is_some_and(|f| !KNOWN_FORMATS.contains(&f)) {
        schema.format = None;
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        simplify(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => simplify(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(simplify),
        None => {}
    }
    match &mut schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(values)) => simplify(values),
        Some(JSONSchemaPropsOrBool::Bool(_)) | None => {}
    }
}

/// The 64 bit types need none: JSON numbers of the API are 64 bit.
fn bounds_of(format: &str) -> Option<(f64, f64)> {
    match format {
        "uint16" => Some((f64::from(u16::MIN), f64::from(u16::MAX))),
        "int32" => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
        "uint32" => Some((f64::from(u32::MIN), f64::from(u32::MAX))),
        _ => None,
    }
}

/// An object that we keep and hand on without knowing its fields.
pub(super) fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

pub(super) fn free_forms(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": free_form(generator)})
}
