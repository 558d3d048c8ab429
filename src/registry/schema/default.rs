//! Defaulting, and what happens to `null` where the schema does not allow it.

use serde_json::Value;

use super::{Node, Type, WHOLE_FLOATS_END};

/// Fills in defaults of absent fields, and of nulls that are not allowed. A default below an absent object does not
/// conjure the object up. On the way, whole numbers that came as `5.0` are made whole: no integer of ours reads them else.
pub fn apply_defaults(value: &mut Value, node: &Node) {
    match value {
        Value::Object(map) => {
            for (name, field) in &node.properties {
                let Some(default) = &field.default else { continue };
                if map.get(name).is_none_or(|present| forbidden_null(present, field)) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, below) in map.iter_mut() {
                if let Some(field) = node.field(name) {
                    default_in_place(below, field);
                    apply_defaults(below, field);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for below in list {
                    default_in_place(below, items);
                    apply_defaults(below, items);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn default_in_place(value: &mut Value, node: &Node) {
    if let (true, Some(default)) = (forbidden_null(value, node), &node.default) {
        *value = default.clone();
    }
    let wants_whole = node.int_or_string || node.type_ == Some(Type::Integer);
    if let Some(float) = value.as_f64().filter(|float| wants_whole && value.is_f64() && is_whole(*float)) {
        *value = (float as i64).into();
    }
}

fn is_whole(float: f64) -> bool {
    float.fract() == 0.0 && float.abs() <= WHOLE_FLOATS_END
}

/// Drops nulls that the schema does not allow and has no default for, as Go clients send them for absent fields.
pub fn prune_nulls(value: &mut Value, node: &Node) {
    match value {
        Value::Object(map) => map.retain(|name, below| {
            let Some(field) = node.field(name) else { return true };
            if forbidden_null(below, field) && field.default.is_none() {
                return false;
            }
            prune_nulls(below, field);
            true
        }),
        Value::Array(list) => {
            if let Some(items) = &node.items {
                list.iter_mut().for_each(|below| prune_nulls(below, items));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A place that may be anything may be null too.
fn forbidden_null(value: &Value, node: &Node) -> bool {
    value.is_null() && !node.nullable && (node.type_.is_some() || node.int_or_string)
}
