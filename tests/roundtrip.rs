//! Schema and type of every kind agree: whatever the schema allows, the type reads, and gives back all of it.

use std::collections::BTreeMap;

use gaia::api;
use kube::CustomResourceExt;
use proptest::{prelude::*, string::string_regex};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

macro_rules! round_trips {
    ($($module:ident::$kind:ident,)+) => {
        $(
            #[test]
            #[allow(non_snake_case, reason = "named after the kind")]
            fn $kind() {
                round_trip::<api::$module::$kind>();
            }
        )+
    };
}

gaia::kinds!(round_trips);

fn round_trip<K: CustomResourceExt + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>() {
    let kind = K::api_resource().kind;
    let crd = api::crds().into_iter().find(|crd| crd.spec.names.kind == kind).expect("made from the same list");
    let schema = json!(crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()));
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(generated in valid(&schema))| {
        let mut object = generated;
        object["apiVersion"] = json!(K::api_resource().api_version);
        object["kind"] = json!(kind);
        object["metadata"] = json!({"name": "x"});
        let typed: K = serde_json::from_value(object.clone())
            .map_err(|error| TestCaseError::fail(format!("{error}: {object:#}")))?;
        let written = serde_json::to_value(&typed).expect("plain data");
        prop_assert_eq!(missing(&object, &written, ""), Vec::<String>::new(), "{:#}", object);
        let again: K = serde_json::from_value(written).expect("it has just been written");
        prop_assert_eq!(again, typed);
    });
}

/// What was said and is not there any more. What says nothing (an empty list, map or text, a zero) may go: that it then
/// reads as the same is another check.
fn missing(said: &Value, kept: &Value, at: &str) -> Vec<String> {
    match (said, kept) {
        (Value::Object(said), Value::Object(kept)) => said
            .iter()
            .filter(|(_, value)| !says_nothing(value))
            .flat_map(|(name, value)| missing(value, kept.get(name).unwrap_or(&Value::Null), &format!("{at}.{name}")))
            .collect(),
        (Value::Array(said), Value::Array(kept)) if said.len() == kept.len() => {
            said.iter().zip(kept).enumerate().flat_map(|(i, (s, k))| missing(s, k, &format!("{at}[{i}]"))).collect()
        }
        // `8` and `8.0`.
        (Value::Number(said), Value::Number(kept)) if said.as_f64() == kept.as_f64() => Vec::new(),
        // `…:00Z` and `…:00.000000Z`.
        (Value::String(said), Value::String(kept)) if same_moment(said, kept) => Vec::new(),
        _ if said == kept => Vec::new(),
        _ => vec![format!("{at}: {said} became {kept}")],
    }
}

fn same_moment(said: &str, kept: &str) -> bool {
    let moment = |text: &str| text.parse::<jiff::Timestamp>().ok();
    moment(said).is_some_and(|at| moment(kept) == Some(at))
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Null | Value::Bool(_) => false,
    }
}

/// Any value the schema allows, rules apart; small.
fn valid(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(allowed) = schema["enum"].as_array() {
        return proptest::sample::select(allowed.clone()).boxed();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return prop_oneof![(0..100_000).prop_map(|n| json!(n)), "[0-9]{1,3}(Gi|m)?".prop_map(|s| json!(s))].boxed();
    }
    match schema["type"].as_str() {
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("integer") => integer(schema),
        Some("number") => (0..1000).prop_map(|n| json!(f64::from(n) / 8.0)).boxed(),
        Some("string") => text(schema),
        Some("array") => list(schema),
        Some("object") => object(schema),
        other => panic!("no schema of ours has type {other:?}: {schema}"),
    }
}

fn integer(schema: &Value) -> BoxedStrategy<Value> {
    let bound = |key: &str, otherwise: i64| schema[key].as_f64().map_or(otherwise, |n| n as i64);
    let (min, max) = (bound("minimum", i64::MIN), bound("maximum", i64::MAX));
    prop_oneof![min..=max, Just(min), Just(max)].prop_map(Value::from).boxed()
}

fn text(schema: &Value) -> BoxedStrategy<Value> {
    if schema["format"] == "date-time" {
        return (0..2_000_000_000_i64)
            .prop_map(|seconds| json!(jiff::Timestamp::from_second(seconds).expect("in range").to_string()))
            .boxed();
    }
    let pattern = schema["pattern"].as_str().map_or("[a-z]{1,8}".to_owned(), whole_text);
    string_regex(&pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).prop_map(Value::from).boxed()
}

/// A pattern without its anchors, which generators do not take; open ends get a few letters.
fn whole_text(pattern: &str) -> String {
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    inner.strip_suffix('$').map_or_else(|| format!("{inner}[a-z]{{0,6}}"), str::to_owned)
}

fn list(schema: &Value) -> BoxedStrategy<Value> {
    let min = schema["minItems"].as_u64().unwrap_or(0) as usize;
    proptest::collection::vec(valid(&schema["items"]), min..=min + 2).prop_map(Value::from).boxed()
}

fn object(schema: &Value) -> BoxedStrategy<Value> {
    if schema["additionalProperties"].is_object() {
        let values = valid(&schema["additionalProperties"]);
        return proptest::collection::btree_map("[a-z]{1,6}", values, 1..3)
            .prop_map(|map: BTreeMap<String, Value>| Value::Object(map.into_iter().collect()))
            .boxed();
    }
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields: Vec<BoxedStrategy<(String, Option<Value>)>> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let given = if required.contains(&name.as_str()) {
                valid(property).prop_map(Some).boxed()
            } else {
                proptest::option::of(valid(property)).boxed()
            };
            (Just(name.clone()), given).boxed()
        })
        .collect();
    let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
    (fields, any::<bool>())
        .prop_map(move |(fields, more)| {
            let mut object: Map<String, Value> =
                fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            if free && more {
                object.insert("unknownToUs".to_owned(), json!({"kept": [1, "two", null]}));
            }
            Value::Object(object)
        })
        .boxed()
}
