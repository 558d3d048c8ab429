//! Pruning: what the schema does not know is taken out, and named, so that strict validation can complain.

use serde_json::Value;

use super::Node;
use crate::registry::fields::{MOST_COMPLAINTS, Place};

/// Removes unknown fields and answers the paths of the first ones.
pub fn prune(value: &mut Value, node: &Node) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(value, node, &Place::Root, &mut unknown);
    unknown
}

fn walk(value: &mut Value, node: &Node, place: &Place<'_>, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.retain(|key, below| {
                if let Some(field) = node.field(key) {
                    walk(below, field, &place.field(key), unknown);
                    return true;
                }
                let kept =
                    node.preserve || (node.embedded && matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
                if !kept && unknown.len() < MOST_COMPLAINTS {
                    unknown.push(place.field(key).to_string());
                }
                kept
            });
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for (i, below) in list.iter_mut().enumerate() {
                    walk(below, items, &place.item(i), unknown);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
