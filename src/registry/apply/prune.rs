//! Removing what a manager stated last time and no longer does, unless somebody else owns it.

use serde_json::Value;

use super::{
    fieldset::{Element, FieldSet},
    typed::element,
};
use crate::registry::schema::{ListType, Node};

/// `last`: what the manager stated before; `kept`: what it states now and what others own. A container of which nothing
/// is kept goes whole, with what defaulting had put into it.
pub fn prune(value: &mut Value, node: &Node, last: &FieldSet, kept: &FieldSet) {
    walk(value, Some(node), last, kept);
}

fn walk(value: &mut Value, node: Option<&Node>, last: &FieldSet, kept: &FieldSet) {
    match value {
        Value::Object(map) if !node.is_some_and(|n| n.atomic_map) => map.retain(|name, below| {
            let field = node.and_then(|n| n.field(name));
            stays(below, field, &Element::Field(name.clone()), last, kept)
        }),
        Value::Array(list) => {
            let Some(node) = node.filter(|n| n.list != ListType::Atomic) else { return };
            list.retain_mut(|below| {
                let element = element(below, node);
                stays(below, node.items.as_deref(), &element, last, kept)
            });
        }
        _ => {}
    }
}

fn stays(value: &mut Value, node: Option<&Node>, element: &Element, last: &FieldSet, kept: &FieldSet) -> bool {
    let Some(stated) = last.child(element) else { return true };
    let Some(kept) = kept.child(element) else { return false };
    walk(value, node, stated, kept);
    true
}
