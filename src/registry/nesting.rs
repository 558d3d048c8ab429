//! How deep an object may nest. The store reads objects back with a parser that gives up at 128 levels, and clients have such
//! bounds too; every walk over an object recurses.

use serde_json::Value;

use super::fields::{FieldError, Place};

/// Levels of objects and lists, the object's own among them.
pub const MOST: usize = 100;
/// The managed fields of an object name its fields some levels further down.
const OF_MANAGED_FIELDS: usize = MOST + 10;

/// What is wrong with an object that nests deeper: it names the place of the first two levels.
pub fn check(object: &Value) -> Option<FieldError> {
    let fields = object.as_object()?;
    for (name, value) in fields {
        let most = |inner: &str| if name == "metadata" && inner == "managedFields" { OF_MANAGED_FIELDS } else { MOST };
        for (inner, value) in value.as_object().into_iter().flatten() {
            if 2 + depth(value) > most(inner) {
                return Some(too_deep(Place::Root.field(name).field(inner).to_string()));
            }
        }
        // What is a list at the first level has no names below it.
        if value.is_array() && 2 + depth(value) > MOST {
            return Some(too_deep(Place::Root.field(name).to_string()));
        }
    }
    None
}

pub fn too_deep(field: impl Into<String>) -> FieldError {
    FieldError::invalid(field, "object", format!("must not be nested deeper than {MOST} levels"))
}

/// Levels of objects and lists.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
