//! Structural schemas, read once into a typed tree that pruning, defaulting, validation and server-side apply walk.

mod default;
mod prune;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

pub use default::{apply_defaults, prune_nulls};
pub use prune::prune;
pub use validate::{validate, validate_field};

/// JSON types as a schema names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Type::Object, Type::Array, Type::String, Type::Integer, Type::Number, Type::Boolean]
            .into_iter()
            .find(|t| t.as_str() == text)
    }
}

/// How the items of a list merge (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// One owner for the whole list.
    #[default]
    Atomic,
    /// Scalars, each its own.
    Set,
    /// Objects, told apart by these fields.
    Map(Vec<String>),
}

/// Limits on the value itself.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub pattern: Option<Regex>,
    pub format: Option<String>,
    pub enumeration: Option<Vec<Value>>,
}

/// One place of a schema.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// None where the value may be anything (`int_or_string`, `preserve`, branches of `anyOf`).
    pub type_: Option<Type>,
    pub nullable: bool,
    pub int_or_string: bool,
    /// Unknown fields stay.
    pub preserve: bool,
    /// A whole Kubernetes object, with apiVersion, kind and metadata.
    pub embedded: bool,
    pub properties: BTreeMap<String, Node>,
    pub additional: Option<Box<Node>>,
    pub items: Option<Box<Node>>,
    pub required: Vec<String>,
    pub default: Option<Value>,
    pub list: ListType,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    pub limits: Limits,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
    /// The texts of the CEL rules stated here; [`Rules`](super::cel::Rules) evaluates them.
    pub rules: Vec<String>,
}

/// Why a schema is refused: where, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct SchemaError {
    pub path: String,
    pub why: String,
}

/// Up to here a float tells every whole number from the next.
const WHOLE_FLOATS_END: f64 = 9_007_199_254_740_992.0;

/// Deeper schemas are refused: every walk over them recurses.
const MAX_DEPTH: usize = 64;

impl Node {
    /// Reads a schema. `$ref` and places without a type are refused: such a schema is not structural.
    pub fn parse(schema: &Value) -> Result<Self, SchemaError> {
        parse(schema, "openAPIV3Schema", true, 0)
    }

    /// Anything at all, kept as it is.
    pub fn anything() -> Self {
        Self { preserve: true, ..Self::default() }
    }

    pub fn string() -> Self {
        Self { type_: Some(Type::String), ..Self::default() }
    }

    /// The schema of one field of an object of this schema.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(self.additional.as_deref())
    }

    /// The schema at a path as [`FieldError`](super::fields::FieldError) writes it.
    pub fn at(&self, path: &str) -> Option<&Node> {
        let mut node = self;
        for part in path.split(['.', '[']).filter(|p| !p.is_empty()) {
            node = if part.ends_with(']') { node.items.as_deref()? } else { node.field(part)? };
        }
        Some(node)
    }
}

fn parse(schema: &Value, path: &str, structural: bool, depth: usize) -> Result<Node, SchemaError> {
    let fail = |why: String| SchemaError { path: path.to_owned(), why };
    if depth > MAX_DEPTH {
        return Err(fail(format!("must not be nested deeper than {MAX_DEPTH}")));
    }
    if let Value::Bool(true) = schema {
        return Ok(Node::anything());
    }
    let Value::Object(map) = schema else { return Err(fail("must be an object".to_owned())) };
    if map.contains_key("$ref") {
        return Err(fail("$ref is not supported".to_owned()));
    }
    let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    let type_ = match map.get("type").and_then(Value::as_str) {
        Some(text) => Some(Type::parse(text).ok_or_else(|| fail(format!("type: Unsupported value: {text:?}")))?),
        None => None,
    };
    let int_or_string = flag("x-kubernetes-int-or-string");
    let preserve = flag("x-kubernetes-preserve-unknown-fields");
    if structural && type_.is_none() && !int_or_string && !preserve {
        return Err(fail("type: Required value: must not be empty for specified fields".to_owned()));
    }
    let below = |key: &str, at: String, structural: bool| {
        map.get(key).map(|s| parse(s, &at, structural, depth + 1).map(Box::new)).transpose()
    };
    let branches = |key: &str| -> Result<Vec<Node>, SchemaError> {
        let Some(list) = map.get(key).and_then(Value::as_array) else { return Ok(Vec::new()) };
        let parsed = list.iter().enumerate();
        parsed.map(|(i, s)| parse(s, &format!("{path}.{key}[{i}]"), false, depth + 1)).collect()
    };
    let mut properties = BTreeMap::new();
    for (name, schema) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("{path}.properties[{name}]");
        properties.insert(name.clone(), parse(schema, &at, structural, depth + 1)?);
    }
    let additional = match map.get("additionalProperties") {
        None | Some(Value::Bool(false)) => None,
        Some(_) => below("additionalProperties", format!("{path}.additionalProperties"), structural)?,
    };
    Ok(Node {
        type_,
        int_or_string,
        preserve,
        nullable: flag("nullable"),
        embedded: flag("x-kubernetes-embedded-resource"),
        properties,
        additional,
        items: below("items", format!("{path}.items"), structural)?,
        required: strings(map.get("required")),
        default: map.get("default").cloned(),
        list: list_type(schema).map_err(fail)?,
        atomic_map: schema["x-kubernetes-map-type"] == "atomic",
        limits: limits(schema).map_err(fail)?,
        all_of: branches("allOf")?,
        any_of: branches("anyOf")?,
        one_of: branches("oneOf")?,
        not: below("not", format!("{path}.not"), false)?,
        rules: rules(schema),
    })
}

fn rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|r| r["rule"].as_str()).map(str::to_owned).collect()
}

fn list_type(schema: &Value) -> Result<ListType, String> {
    match schema["x-kubernetes-list-type"].as_str() {
        None | Some("atomic") => Ok(ListType::Atomic),
        Some("set") => Ok(ListType::Set),
        Some("map") => match strings(schema.get("x-kubernetes-list-map-keys")) {
            keys if keys.is_empty() => Err("x-kubernetes-list-map-keys: Required value".to_owned()),
            keys => Ok(ListType::Map(keys)),
        },
        Some(other) => Err(format!("x-kubernetes-list-type: Unsupported value: {other:?}")),
    }
}

fn limits(schema: &Value) -> Result<Limits, String> {
    let number = |key: &str| schema[key].as_f64();
    let count = |key: &str| schema[key].as_u64();
    let flag = |key: &str| schema[key].as_bool().unwrap_or(false);
    let pattern = match schema["pattern"].as_str() {
        Some(text) => Some(Regex::new(text).map_err(|e| format!("pattern: Invalid value: {text:?}: {e}"))?),
        None => None,
    };
    Ok(Limits {
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        pattern,
        format: schema["format"].as_str().map(str::to_owned),
        enumeration: schema["enum"].as_array().cloned(),
    })
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
