//! What is recorded of a write of the status is what would be recorded of it as a write of the whole object.

use fastrand::Rng;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::registry::FieldValidation;

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "spec": {"type": "object", "properties": {"image": {"type": "string"}, "size": {"type": "integer"}}},
    "status": {"type": "object", "properties": {
      "phase": {"type": "string"},
      "count": {"type": "integer"},
      "deep": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
      "names": {"type": "array", "items": {"type": "string"}},
      "hosts": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
      "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {"type": "object", "properties": {"type": {"type": "string"}, "status": {"type": "string"}}}}
    }}
  }
}"#;

fn kind() -> Kind {
    let schema = serde_json::from_str(SCHEMA).expect("the schema above is JSON");
    Kind { group: "test.dev".to_owned(), version: "v1".to_owned(), has_status: true, ..Kind::with_schema(schema) }
        .compiled()
        .expect("the schema above is structural")
}

fn word(rng: &mut Rng) -> Value {
    json!(rng.choice(["one", "two", "three"]))
}

fn some(rng: &mut Rng, fields: &[&str], value: impl Fn(&mut Rng, &str) -> Value) -> Value {
    let fields = fields.iter().filter(|_| rng.bool()).copied().collect::<Vec<_>>();
    Value::Object(fields.into_iter().map(|field| (field.to_owned(), value(rng, field))).collect::<Map<_, _>>())
}

fn status(rng: &mut Rng) -> Value {
    some(rng, &["phase", "count", "deep", "names", "hosts", "conditions"], |rng, field| match field {
        "phase" => word(rng),
        "count" => json!(rng.u8(0..3)),
        "deep" => some(rng, &["a", "b"], |rng, _| word(rng)),
        "names" => json!([word(rng), word(rng)]),
        "hosts" => ["x", "y", "z"].into_iter().filter(|_| rng.bool()).collect(),
        _ => {
            let types: Vec<&str> = ["Ready", "Complete"].into_iter().filter(|_| rng.bool()).collect();
            types.into_iter().map(|type_| json!({"type": type_, "status": word(rng)})).collect()
        }
    })
}

/// Somebody applies or updates the one half or the other.
fn step(kind: &Kind, rng: &mut Rng, live: &Value, now: Timestamp) -> Value {
    let managers = if rng.bool() { &["a", "b", "c"][..] } else { &["d", "e", "f", "g", "h", "i", "j", "k"] };
    let subresource = if rng.u8(..3) > 0 { Subresource::Status } else { Subresource::Main };
    let options = WriteOptions {
        field_manager: (*rng.choice(managers).expect("some")).to_owned(),
        field_validation: FieldValidation::Strict,
        force: true,
        subresource,
        ..WriteOptions::default()
    };
    let (half, value) = match subresource {
        Subresource::Status => ("status", status(rng)),
        Subresource::Main => ("spec", some(rng, &["image", "size"], |_, field| json!(field.len()))),
    };
    if rng.u8(..3) == 0 {
        let config = json!({"apiVersion": "test.dev/v1", "metadata": {"name": "x"}, half: value});
        return apply(kind, Some(live), config, &options, now).expect("forced").0;
    }
    let mut after = live.clone();
    match rng.u8(..8) {
        0 => drop(after.as_object_mut().expect("a map").remove(half)),
        _ => after[half] = value,
    }
    let mut whole = after.clone();
    let taken = record_update(kind, Some(live), &mut whole, &options, now);
    if subresource == Subresource::Status {
        assert_eq!(record_status(kind, live, &mut after, &options, now), taken);
        assert_eq!(after, whole);
    }
    whole
}

proptest! {
    #[test]
    fn the_same_is_recorded(seed: u64) {
        let (kind, mut rng) = (kind(), Rng::with_seed(seed));
        let mut live = json!({"apiVersion": "test.dev/v1", "kind": "Thing", "metadata": {"name": "x"}});
        for second in 0..20 {
            // Some within one second, where names decide on the order.
            live = step(&kind, &mut rng, &live, Timestamp::from_second(second / 2).expect("small"));
        }
    }
}

#[test]
fn what_cannot_be_read_is_forgotten_as_ever() {
    let kind = kind();
    let options =
        WriteOptions { field_manager: "me".to_owned(), subresource: Subresource::Status, ..WriteOptions::default() };
    let live = json!({"metadata": {"managedFields": [{"manager": "old", "operation": "Other", "fieldsV1": {}}]}});
    let mut after = live.clone();
    after["status"] = json!({"phase": "one"});
    record_status(&kind, &live, &mut after, &options, Timestamp::UNIX_EPOCH);
    let managers = after["metadata"]["managedFields"].as_array().expect("somebody is recorded");
    assert_eq!((managers.len(), &managers[0]["manager"]), (1, &json!("me")));
}
