//! Removing what a manager stated last time and no longer does, unless somebody else owns it.

use serde_json::Value;

use super::{
    fieldset::{Element, FieldSet},
    typed::element,
};
use crate::registry::schema::{ListType, Node};

/// `last`: what the manager stated before; `kept`: what it states now and what others own. A container of which nothing
/// is kept goes whole, with what defaulting had put into it. One that is kept stays when it has lost all that was in it: upstream
/// makes it null, also when it is stated to be empty, and the same apply once more would give another object.
pub fn prune(value: &mut Value, node: &Node, last: &FieldSet, kept: &FieldSet) {
    walk(value, Some(node), last, kept);
}

fn walk(value: &mut Value, node: Option<&Node>, last: &FieldSet, kept: &FieldSet) {
    match value {
        Value::Object(map) if !node.is_some_and(|n| n.atomic_map) => map.retain(|name, below| {
            let field = node.and_then(|n| n.field(name));
            let declared = node.is_some_and(|n| n.properties.contains_key(name));
            stays(below, (field, declared), &Element::Field(name.clone()), last, kept)
        }),
        Value::Array(list) => {
            let Some(node) = node.filter(|n| n.list != ListType::Atomic) else { return };
            list.retain_mut(|below| {
                let element = element(below, node);
                stays(below, (node.items.as_deref(), false), &element, last, kept)
            });
        }
        _ => {}
    }
}

/// A field that the schema names stays for whatever is kept in it. An item of a list or a map must be kept itself: somebody
/// who owns only a part of it would be left with an item that has lost its keys.
fn stays(
    value: &mut Value,
    (node, declared): (Option<&Node>, bool),
    element: &Element,
    last: &FieldSet,
    kept: &FieldSet,
) -> bool {
    let Some(stated) = last.child(element) else { return true };
    let Some(kept) = kept.child(element) else { return false };
    if stated.owned && !kept.owned && !declared {
        return false;
    }
    walk(value, node, stated, kept);
    true
}
