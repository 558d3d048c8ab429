//! Objects seen through their schema: which parts are fields of their own, and what changed between two.

use serde_json::{Map, Value};

use super::fieldset::{Element, FieldSet};
use crate::registry::schema::{ListType, Node};

/// How a value comes apart.
pub enum Shape<'v> {
    /// One field: scalars, and what the schema calls atomic.
    Leaf,
    Map(&'v Map<String, Value>),
    List(&'v [Value]),
}

/// Where the schema says nothing, objects come apart and lists do not.
pub fn shape<'v>(value: &'v Value, node: Option<&Node>) -> Shape<'v> {
    match value {
        Value::Object(map) if !node.is_some_and(|n| n.atomic_map) => Shape::Map(map),
        Value::Array(list) if node.is_some_and(|n| n.list != ListType::Atomic) => Shape::List(list),
        _ => Shape::Leaf,
    }
}

/// What tells this item of a list from the others. Keys that are left out have their defaults.
pub fn element(item: &Value, list: &Node) -> Element {
    match &list.list {
        ListType::Map(keys) => {
            let items = list.items.as_deref();
            let default = |key: &str| items.and_then(|n| n.field(key)).and_then(|n| n.default.clone());
            let value = |key: &String| item.get(key).cloned().or_else(|| default(key));
            let keys: Map<String, Value> = keys.iter().filter_map(|k| Some((k.clone(), value(k)?))).collect();
            Element::Key(Value::Object(keys).to_string())
        }
        ListType::Set | ListType::Atomic => Element::Value(item.to_string()),
    }
}

/// The fields a value states.
pub fn fields_of(value: &Value, node: &Node) -> FieldSet {
    collect(value, Some(node))
}

fn collect(value: &Value, node: Option<&Node>) -> FieldSet {
    let mut set = FieldSet::default();
    match (shape(value, node), node) {
        (Shape::Map(map), node) => {
            for (name, below) in map {
                let mut child = collect(below, node.and_then(|n| n.field(name)));
                let declared = node.is_some_and(|n| n.properties.contains_key(name));
                // Empty lists too (upstream does not own them, and an apply that empties one is not idempotent there).
                let empty = below.as_object().is_some_and(Map::is_empty) || below.as_array().is_some_and(Vec::is_empty);
                let bare = below.is_null() || empty;
                child.owned |= bare || !declared;
                set.put(Element::Field(name.clone()), child);
            }
        }
        (Shape::List(list), Some(node)) => {
            for item in list {
                let mut child = collect(item, node.items.as_deref());
                child.owned = true;
                set.put(element(item, node), child);
            }
        }
        (Shape::Leaf | Shape::List(_), _) => set.owned = true,
    }
    set
}

/// What became of every field between two versions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: FieldSet,
    pub removed: FieldSet,
    pub modified: FieldSet,
}

impl Comparison {
    fn put(&mut self, element: Element, child: Comparison) {
        self.added.put(element.clone(), child.added);
        self.removed.put(element.clone(), child.removed);
        self.modified.put(element, child.modified);
    }
}

pub fn compare(old: &Value, new: &Value, node: &Node) -> Comparison {
    between(Some(old), Some(new), Some(node))
}

/// As [`compare`], of objects that differ in nothing but this field.
pub fn compare_field(old: &Value, new: &Value, node: &Node, name: &str) -> Comparison {
    let mut out = Comparison::default();
    out.put(Element::Field(name.to_owned()), between(old.get(name), new.get(name), node.field(name)));
    out
}

fn between(old: Option<&Value>, new: Option<&Value>, node: Option<&Node>) -> Comparison {
    let mut out = Comparison::default();
    match (old, new) {
        (None, None) => return out,
        (None, Some(_)) => out.added.owned = true,
        (Some(_), None) => out.removed.owned = true,
        (Some(old), Some(new)) if old == new => return out,
        (Some(old), Some(new)) => {
            if let (Shape::Map(old), Shape::Map(new)) = (shape(old, node), shape(new, node)) {
                between_maps(old, new, node, &mut out);
                return out;
            }
        }
    }
    let old_parts = old.map(|v| parts(v, node)).unwrap_or_default();
    let new_parts = new.map(|v| parts(v, node)).unwrap_or_default();
    if old.is_some() && new.is_some() && old_parts.is_none() | new_parts.is_none() {
        out.modified.owned = true;
    }
    let (old_parts, new_parts) = (old_parts.unwrap_or_default(), new_parts.unwrap_or_default());
    for (element, before, below) in &old_parts {
        let after = new_parts.iter().find(|(e, ..)| e == element).map(|(_, value, _)| *value);
        out.put(element.clone(), between(Some(before), after, *below));
    }
    for (element, after, below) in &new_parts {
        if !old_parts.iter().any(|(e, ..)| e == element) {
            out.put(element.clone(), between(None, Some(after), *below));
        }
    }
    out
}

/// Names are copied only for what differs: most of an object stays as it is.
fn between_maps(old: &Map<String, Value>, new: &Map<String, Value>, node: Option<&Node>, out: &mut Comparison) {
    let mut put = |name: &String, before: Option<&Value>, after: Option<&Value>| {
        let child = between(before, after, node.and_then(|n| n.field(name)));
        out.put(Element::Field(name.clone()), child);
    };
    for (name, before) in old {
        let after = new.get(name);
        if after != Some(before) {
            put(name, Some(before), after);
        }
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        put(name, None, Some(after));
    }
}

type Part<'a> = (Element, &'a Value, Option<&'a Node>);

/// The fields directly below; None for a leaf.
fn parts<'a>(value: &'a Value, node: Option<&'a Node>) -> Option<Vec<Part<'a>>> {
    match (shape(value, node), node) {
        (Shape::Map(map), node) => {
            let field = |name: &String| node.and_then(|n| n.field(name));
            Some(map.iter().map(|(name, v)| (Element::Field(name.clone()), v, field(name))).collect())
        }
        (Shape::List(list), Some(node)) => {
            Some(list.iter().map(|item| (element(item, node), item, node.items.as_deref())).collect())
        }
        (Shape::Leaf | Shape::List(_), _) => None,
    }
}
