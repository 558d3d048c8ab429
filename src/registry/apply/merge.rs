//! Merging what a manager states into the object: stated values win, unstated ones stay.

use serde_json::{Map, Value};

use super::{
    fieldset::Element,
    typed::{Shape, element, shape},
};
use crate::registry::schema::Node;

pub fn merge(live: Option<&Value>, config: &Value, node: &Node) -> Value {
    merged(live, config, Some(node))
}

fn merged(live: Option<&Value>, config: &Value, node: Option<&Node>) -> Value {
    let Some(live) = live else { return config.clone() };
    match (shape(live, node), shape(config, node), node) {
        (Shape::Map(live), Shape::Map(config), node) => Value::Object(merge_maps(live, config, node)),
        (Shape::List(live), Shape::List(config), Some(node)) => Value::Array(merge_lists(live, config, node)),
        _ => config.clone(),
    }
}

fn merge_maps(live: &Map<String, Value>, config: &Map<String, Value>, node: Option<&Node>) -> Map<String, Value> {
    let mut out = live.clone();
    for (name, stated) in config {
        let below = node.and_then(|n| n.field(name));
        out.insert(name.clone(), merged(live.get(name), stated, below));
    }
    out
}

/// Stated items come in the stated order; the others keep their places before the next item both have.
fn merge_lists(live: &[Value], config: &[Value], node: &Node) -> Vec<Value> {
    let live: Vec<(Element, &Value)> = live.iter().map(|v| (element(v, node), v)).collect();
    let config: Vec<(Element, &Value)> = config.iter().map(|v| (element(v, node), v)).collect();
    let in_live = |e: &Element| live.iter().find(|(l, _)| l == e).map(|(_, v)| *v);
    let in_config = |e: &Element| config.iter().any(|(c, _)| c == e);
    // Items both have, in the order stated: a live item is passed over until its turn.
    let mut shared = config.iter().map(|(e, _)| e).filter(|e| in_live(e).is_some()).peekable();
    let mut out = Vec::new();
    let (mut l, mut c) = (0, 0);
    while l < live.len() || c < config.len() {
        if let Some((theirs, item)) = live.get(l) {
            if !in_config(theirs) {
                out.push((*item).clone());
                l += 1;
                continue;
            }
            if c == config.len() || shared.peek().is_some_and(|next| *next != theirs) {
                l += 1;
                continue;
            }
        }
        let Some((stated, item)) = config.get(c) else { continue };
        out.push(merged(in_live(stated), item, node.items.as_deref()));
        c += 1;
        if shared.peek() == Some(&stated) {
            shared.next();
            l += usize::from(live.get(l).is_some_and(|(theirs, _)| theirs == stated));
        }
    }
    out
}
