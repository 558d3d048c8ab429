//! How deep an object may nest. The store reads objects back with a parser that gives up at 128 levels, and clients have such
//! bounds too; every walk over an object recurses.

use serde_json::Value;

use super::fields::{FieldError, child};

/// Levels of objects and lists, the object's own among them.
pub const MOST: usize = 100;
/// The managed fields of an object name its fields some levels further down.
const OF_MANAGED_FIELDS: usize = MOST + 10;

/// What is wrong with an object that nests deeper: it names the place of the first two levels.
pub fn check(object: &Value) -> Option<FieldError> {
    let fields = object.as_object()?;
    let inner = fields.iter().flat_map(|(name, value)| {
        let below = value.as_object().into_iter().flatten();
        below.map(move |(inner, value)| (child(name, inner), value))
    });
    // What is a list at the first level has no names below it.
    let lists = fields.iter().filter(|(_, value)| value.is_array()).map(|(name, value)| (name.clone(), value));
    inner.chain(lists).find_map(|(field, value)| {
        let most = if field == "metadata.managedFields" { OF_MANAGED_FIELDS } else { MOST };
        (2 + depth(value) > most).then(|| too_deep(field))
    })
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
