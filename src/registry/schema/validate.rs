//! Structural validation, complaints worded as upstream's.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Limits, ListType, Node, Type, WHOLE_FLOATS_END};
use crate::registry::fields::{FieldError, MOST_COMPLAINTS, Place, Problem};

/// What is wrong with `value`, in the order of its fields; of very much the beginning.
pub fn validate(value: &Value, node: &Node) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(value, node, &Place::Root, &mut errors);
    errors
}

/// As [`validate`], of an object in which nothing but this field is new. What the rest lacks, by a schema that came later, is no
/// reason to refuse it.
pub fn validate_field(object: &Value, node: &Node, name: &str) -> Vec<FieldError> {
    let (place, mut errors) = (Place::Root, Vec::new());
    check_limits(object, &node.limits, &place, &mut errors);
    check_branches(object, node, &place, &mut errors);
    match (object.get(name), node.field(name)) {
        (Some(below), Some(field)) => walk(below, field, &place.field(name), &mut errors),
        (None, _) if node.required.iter().any(|required| required == name) => {
            errors.push(FieldError::required(place.field(name).to_string(), ""));
        }
        (Some(_) | None, _) => {}
    }
    errors
}

fn walk(value: &Value, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if errors.len() > MOST_COMPLAINTS
        || value.is_null() && (node.nullable || (node.type_.is_none() && !node.int_or_string))
    {
        return;
    }
    if let Some(error) = wrong_type(value, node, place) {
        errors.push(error);
        return;
    }
    check_limits(value, &node.limits, place, errors);
    check_branches(value, node, place, errors);
    match value {
        Value::Object(map) => walk_object(map, node, place, errors),
        Value::Array(list) => walk_list(list, node, place, errors),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn walk_object(map: &Map<String, Value>, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    for name in &node.required {
        if !map.contains_key(name) {
            errors.push(FieldError::required(place.field(name).to_string(), ""));
        }
    }
    if node.embedded {
        for name in ["apiVersion", "kind"] {
            if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                errors.push(FieldError::required(place.field(name).to_string(), "must not be empty"));
            }
        }
    }
    for (name, below) in map {
        if let Some(field) = node.field(name) {
            walk(below, field, &place.field(name), errors);
        }
    }
}

fn walk_list(list: &[Value], node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if let Some(items) = &node.items {
        for (i, below) in list.iter().enumerate() {
            walk(below, items, &place.item(i), errors);
        }
    }
    let mut seen = BTreeSet::new();
    for (i, below) in list.iter().enumerate() {
        let identity = match &node.list {
            ListType::Atomic => return,
            ListType::Set => below.clone(),
            ListType::Map(keys) => {
                keys.iter().filter_map(|k| Some((k.clone(), below.get(k)?.clone()))).collect::<Map<_, _>>().into()
            }
        };
        if errors.len() > MOST_COMPLAINTS {
            return;
        }
        if !seen.insert(identity.to_string()) {
            errors.push(FieldError::duplicate(place.item(i).to_string(), identity));
        }
    }
}

fn wrong_type(value: &Value, node: &Node, place: &Place<'_>) -> Option<FieldError> {
    let fits = match node.type_ {
        _ if node.int_or_string => value.is_string() || is_integer(value),
        None => true,
        Some(Type::Object) => value.is_object(),
        Some(Type::Array) => value.is_array(),
        Some(Type::String) => value.is_string(),
        Some(Type::Integer) => is_integer(value),
        Some(Type::Number) => value.is_number(),
        Some(Type::Boolean) => value.is_boolean(),
    };
    if fits {
        return None;
    }
    let expected = match node.type_ {
        _ if node.int_or_string => "integer,string",
        Some(type_) => type_.as_str(),
        None => unreachable!("a place without a type fits every value"),
    };
    let actual = type_name(value);
    let detail = format!("{} in body must be of type {expected}: {actual:?}", shown_path(place));
    Some(FieldError { field: place.to_string(), problem: Problem::WrongType { value: actual.into(), detail } })
}

fn check_limits(value: &Value, limits: &Limits, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let mut complain = |shown: &Value, what: String| {
        let detail = format!("{} in body {what}", shown_path(place));
        errors.push(FieldError::invalid(place.to_string(), shown.clone(), detail));
    };
    match value {
        Value::Number(number) => {
            let n = number.as_f64().unwrap_or(f64::NAN);
            if let Some(what) = out_of_range(n, limits) {
                complain(value, what);
            }
        }
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(min) = limits.min_length.filter(|&min| length < min) {
                complain(value, format!("should be at least {min} chars long"));
            }
            if let Some(pattern) = limits.pattern.as_ref().filter(|p| !p.is_match(text)) {
                complain(value, format!("should match '{}'", pattern.as_str()));
            }
            if let Some(format) = limits.format.as_deref().filter(|f| !fits_format(text, f)) {
                complain(value, format!("must be of type {format}: {text:?}"));
            }
            if let Some(max) = limits.max_length.filter(|&max| length > max) {
                errors.push(FieldError { field: place.to_string(), problem: Problem::TooLong { max } });
            }
        }
        Value::Array(list) => {
            if let Some(min) = limits.min_items.filter(|&min| (list.len() as u64) < min) {
                complain(&list.len().into(), format!("should have at least {min} items"));
            }
            too_many(list.len(), limits.max_items, place, errors);
        }
        Value::Object(map) => {
            if let Some(min) = limits.min_properties.filter(|&min| (map.len() as u64) < min) {
                complain(&map.len().into(), format!("should have at least {min} properties"));
            }
            too_many(map.len(), limits.max_properties, place, errors);
        }
        Value::Null | Value::Bool(_) => {}
    }
    if let Some(allowed) = limits.enumeration.as_ref().filter(|allowed| !allowed.contains(value)) {
        let supported = allowed.iter().map(plain).collect();
        errors.push(FieldError {
            field: place.to_string(),
            problem: Problem::NotSupported { value: value.clone(), supported },
        });
    }
}

fn too_many(actual: usize, max: Option<u64>, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    if let Some(max) = max.filter(|&max| actual as u64 > max) {
        errors.push(FieldError { field: place.to_string(), problem: Problem::TooMany { actual, max } });
    }
}

fn out_of_range(n: f64, limits: &Limits) -> Option<String> {
    if let Some(min) = limits.minimum {
        if limits.exclusive_minimum && n <= min {
            return Some(format!("should be greater than {min}"));
        }
        if n < min {
            return Some(format!("should be greater than or equal to {min}"));
        }
    }
    if let Some(max) = limits.maximum {
        if limits.exclusive_maximum && n >= max {
            return Some(format!("should be less than {max}"));
        }
        if n > max {
            return Some(format!("should be less than or equal to {max}"));
        }
    }
    let factor = limits.multiple_of.filter(|&f| f > 0.0)?;
    ((n / factor).fract() != 0.0).then(|| format!("should be a multiple of {factor}"))
}

fn check_branches(value: &Value, node: &Node, place: &Place<'_>, errors: &mut Vec<FieldError>) {
    let passes = |branch: &Node| {
        let mut found = Vec::new();
        walk(value, branch, place, &mut found);
        found.is_empty()
    };
    for branch in &node.all_of {
        walk(value, branch, place, errors);
    }
    let mut complain = |what: &str| {
        let detail = format!("{:?} {what}", shown_path(place));
        errors.push(FieldError::invalid(place.to_string(), shallow(value), detail));
    };
    if !node.any_of.is_empty() && !node.any_of.iter().any(passes) {
        complain("must validate at least one schema (anyOf)");
    }
    match node.one_of.iter().filter(|branch| passes(branch)).count() {
        1 => {}
        _ if node.one_of.is_empty() => {}
        0 => complain("must validate one and only one schema (oneOf). Found none valid"),
        n => complain(&format!("must validate one and only one schema (oneOf). Found {n} valid alternatives")),
    }
    if node.not.as_deref().is_some_and(passes) {
        complain("must not validate the schema (not)");
    }
}

/// The formats upstream checks and our kinds use; every other format passes, as upstream's unknown ones do.
fn fits_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "byte" => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        _ => true,
    }
}

fn is_integer(value: &Value) -> bool {
    let whole = |n: f64| n.fract() == 0.0 && n.abs() <= WHOLE_FLOATS_END;
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(whole)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn shallow(value: &Value) -> Value {
    if value.is_object() || value.is_array() { type_name(value).into() } else { value.clone() }
}

fn shown_path(place: &Place<'_>) -> String {
    if matches!(place, Place::Root) { "<root>".to_owned() } else { place.to_string() }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
