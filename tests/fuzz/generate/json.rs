//! Values: one is changed in some places, and written in ways that a serialiser would not choose.

use serde_json::{Map, Value, json};

use super::{once_in, pick, text};

/// Changes so many places.
pub fn change(rng: &mut fastrand::Rng, value: &mut Value, times: usize) {
    for _ in 0..times {
        let places = count(value);
        let place = rng.usize(..places);
        at(value, place, &mut |found| change_one(rng, found));
    }
}

fn change_one(rng: &mut fastrand::Rng, value: &mut Value) {
    match (rng.u8(..8), &mut *value) {
        (0, Value::Object(fields)) if !fields.is_empty() => {
            let name = nth_key(rng, fields);
            fields.remove(&name);
        }
        (1, Value::Object(fields)) => {
            let (name, odd) = (odd_name(rng), odd(rng));
            fields.insert(name, odd);
        }
        (2, Value::Object(fields)) if !fields.is_empty() => {
            let name = nth_key(rng, fields);
            if let Some(moved) = fields.remove(&name) {
                fields.insert(odd_name(rng), moved);
            }
        }
        (3, Value::Array(items)) if !items.is_empty() => {
            let item = pick(rng, items);
            let times = if once_in(rng, 20) { 300 } else { 2 };
            items.extend(std::iter::repeat_n(item, times));
        }
        (4, Value::Array(items)) => items.push(odd(rng)),
        (5, inner) => *inner = json!([inner.take()]),
        (6, inner) => *inner = json!({odd_name(rng): inner.take()}),
        (_, other) => *other = odd(rng),
    }
}

fn nth_key(rng: &mut fastrand::Rng, fields: &Map<String, Value>) -> String {
    fields.keys().nth(rng.usize(..fields.len())).cloned().unwrap_or_default()
}

/// Places of a value, itself among them.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn at(value: &mut Value, mut place: usize, act: &mut dyn FnMut(&mut Value)) {
    if place == 0 {
        return act(value);
    }
    place -= 1;
    let below: Vec<&mut Value> = match value {
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Array(items) => items.iter_mut().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for child in below {
        let size = count(child);
        if place < size {
            return at(child, place, act);
        }
        place -= size;
    }
}

const NAMES: [&str; 30] = [
    "name",
    "metadata",
    "spec",
    "status",
    "kind",
    "apiVersion",
    "labels",
    "annotations",
    "finalizers",
    "uid",
    "generation",
    "resourceVersion",
    "ownerReferences",
    "managedFields",
    "generateName",
    "deletionTimestamp",
    "namespace",
    "",
    "a.b/c",
    "$patch",
    "$setElementOrder/finalizers",
    "$deleteFromPrimitiveList/finalizers",
    "\u{0}",
    "ключ",
    "a[0]",
    "f:spec",
    "__proto__",
    "<<",
    "env",
    "data",
];

pub fn odd_name(rng: &mut fastrand::Rng) -> String {
    match rng.u8(..40) {
        0 => "x".repeat(rng.usize(..5000)),
        1 => text::odd(rng),
        _ => (pick(rng, &NAMES)).to_owned(),
    }
}

/// A value that somebody may not have thought of.
pub fn odd(rng: &mut fastrand::Rng) -> Value {
    match rng.u8(..24) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(pick(rng, &[0, 1, -1, i64::MAX, i64::MIN, 65_536, 1_000_000_007])),
        3 => json!(u64::MAX),
        4 => json!(pick(rng, &[0.5, -0.0, 1e308, 5.0, 1e16, f64::MIN_POSITIVE, 9_007_199_254_740_993.0])),
        5 => json!({}),
        6 => json!([]),
        7 => nested(rng),
        8 => Value::Array((0..rng.usize(..50)).map(|n| json!(n % 7)).collect()),
        9 => json!([{"name": "a"}, {"name": "a"}]),
        10 => managed_fields(rng),
        11 => {
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "one", "uid": text::odd(rng), "controller": true}])
        }
        _ => Value::String(text::odd(rng)),
    }
}

fn nested(rng: &mut fastrand::Rng) -> Value {
    let depth = pick(rng, &[3, 20, 63, 64, 65, 97, 98, 99, 100, 101, 126, 127, 130]);
    let in_lists = rng.bool();
    (0..depth).fold(json!(1), |inner, _| if in_lists { json!([inner]) } else { json!({"a": inner}) })
}

fn managed_fields(rng: &mut fastrand::Rng) -> Value {
    let element =
        pick(rng, &["f:spec", "f:", "k:{\"name\":\"a\"}", "v:[1,{}]", "i:3", "i:-1", "x:y", ".", "f:metadata", "k:1"]);
    let operation = pick(rng, &["Apply", "Update", "Steal"]);
    json!([{"manager": text::odd(rng), "operation": operation, "apiVersion": "v1", "time": "2026-11-30T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {element: {"f:live": {}, ".": {}}}}])
}

/// As JSON, now and then such as no serialiser writes.
pub fn written(rng: &mut fastrand::Rng, value: &Value) -> Vec<u8> {
    let mut json = value.to_string();
    for _ in 0..rng.usize(..3) {
        match rng.u8(..12) {
            0 => replace_once(rng, &mut json, ":{", ":{\"name\":1,\"name\":2,"),
            1 => replace_once(rng, &mut json, ":\"", ":1e400,\"x\":\""),
            2 => replace_once(rng, &mut json, ":\"", ":123456789012345678901234567890,\"x\":\""),
            3 => replace_once(rng, &mut json, ":\"", ":-0,\"y\":\""),
            4 => replace_once(rng, &mut json, "\":", "\\u0000\\ud83d\\ude00\":"),
            5 => replace_once(rng, &mut json, ":\"", ":\"\\ud800"),
            6 => replace_once(rng, &mut json, ",", ",,"),
            7 => json.push_str(pick(rng, &["{}", "}", "\u{0}", "\n---\n{}", " // more"])),
            8 => json.insert_str(0, pick(rng, &["\u{feff}", " \n\t", "[", "---\n"])),
            9 => json = format!("{}{json}{}", "[".repeat(200), "]".repeat(200)),
            10 => json = json.replace(':', ": ").replace(',', ",\n\t"),
            _ => {}
        }
    }
    let mut bytes = json.into_bytes();
    if once_in(rng, 6) {
        text::damage(rng, &mut bytes);
    }
    bytes
}

fn replace_once(rng: &mut fastrand::Rng, json: &mut String, what: &str, with: &str) {
    let found: Vec<usize> = json.match_indices(what).map(|(at, _)| at).collect();
    if !found.is_empty() {
        let at = pick(rng, &found);
        json.replace_range(at..at + what.len(), with);
    }
}
