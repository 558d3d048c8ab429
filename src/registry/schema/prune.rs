//! Pruning: what the schema does not know is taken out, and named, so that strict validation can complain.

use serde_json::Value;

use super::Node;
use crate::registry::fields::{child, item};

/// Removes unknown fields and answers their paths.
pub fn prune(value: &mut Value, node: &Node) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(value, node, "", &mut unknown);
    unknown
}

fn walk(value: &mut Value, node: &Node, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.retain(|key, below| {
                if let Some(field) = node.field(key) {
                    walk(below, field, &child(path, key), unknown);
                    return true;
                }
                let kept =
                    node.preserve || (node.embedded && matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
                if !kept {
                    unknown.push(child(path, key));
                }
                kept
            });
        }
        Value::Array(list) => {
            if let Some(items) = &node.items {
                for (i, below) in list.iter_mut().enumerate() {
                    walk(below, items, &item(path, i), unknown);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
