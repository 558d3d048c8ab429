//! Sets of fields, as a trie, and their wire form `FieldsV1`.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value, json};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    Field(String),
    /// An item of a keyed list, by its keys: compact JSON of an object.
    Key(String),
    /// An item of a set: compact JSON of a scalar.
    Value(String),
    /// Never made by us; kept when a client states one.
    Index(usize),
}

impl Element {
    fn parse(text: &str) -> Option<Self> {
        // Written anew, so that equal keys are equal text.
        let canonical = |text: &str| serde_json::from_str::<Value>(text).ok().map(|v| v.to_string());
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Element::Field(rest.to_owned())),
            "k" => canonical(rest).map(Element::Key),
            "v" => canonical(rest).map(Element::Value),
            "i" => rest.parse().ok().map(Element::Index),
            _ => None,
        }
    }

    pub fn wire(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(json) => format!("k:{json}"),
            Element::Value(json) => format!("v:{json}"),
            Element::Index(index) => format!("i:{index}"),
        }
    }
}

/// As in conflict messages: `.spec.ports[name="http"].port`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Value(json) => write!(f, "[={json}]"),
            Element::Index(index) => write!(f, "[{index}]"),
            Element::Key(json) => {
                let keys: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
        }
    }
}

/// A set of paths. `owned` says that the path that ends here is in the set. No child is ever empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    pub owned: bool,
    pub children: BTreeMap<Element, FieldSet>,
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        !self.owned && self.children.is_empty()
    }

    pub fn child(&self, element: &Element) -> Option<&FieldSet> {
        self.children.get(element)
    }

    /// Puts a child in; an empty one is left out.
    pub fn put(&mut self, element: Element, child: FieldSet) {
        if !child.is_empty() {
            self.children.insert(element, child);
        }
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.owned |= other.owned;
        for (element, theirs) in &other.children {
            let both = out.children.get(element).map_or_else(|| theirs.clone(), |ours| ours.union(theirs));
            out.put(element.clone(), both);
        }
        out
    }

    /// Path by path: a container of `other` does not take what is below it out of this set.
    pub fn difference(&self, other: &Self) -> Self {
        let mut out = Self { owned: self.owned && !other.owned, ..Self::default() };
        for (element, ours) in &self.children {
            let left = other.child(element).map_or_else(|| ours.clone(), |theirs| ours.difference(theirs));
            out.put(element.clone(), left);
        }
        out
    }

    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { owned: self.owned && other.owned, ..Self::default() };
        for (element, ours) in &self.children {
            if let Some(theirs) = other.child(element) {
                out.put(element.clone(), ours.intersection(theirs));
            }
        }
        out
    }

    /// Every path of the set, as conflict messages show it.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(String::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, at: String, paths: &mut Vec<String>) {
        for (element, child) in &self.children {
            child.collect_paths(format!("{at}{element}"), paths);
        }
        if self.owned {
            paths.push(at);
        }
    }

    /// Reads `FieldsV1`; None when it is not that.
    pub fn from_json(value: &Value) -> Option<Self> {
        let mut out = Self::default();
        for (key, below) in value.as_object()? {
            if key == "." {
                out.owned = true;
                continue;
            }
            out.put(Element::parse(key)?, Self::from_json_at(below)?);
        }
        Some(out)
    }

    /// Reads what stands at a path of `FieldsV1`. One without further ones below is itself meant.
    pub fn from_json_at(value: &Value) -> Option<Self> {
        let mut out = Self::from_json(value)?;
        out.owned |= out.children.is_empty();
        Some(out)
    }

    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        if self.owned && !self.children.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (element, child) in &self.children {
            map.insert(element.wire(), child.to_json());
        }
        Value::Object(map)
    }
}
