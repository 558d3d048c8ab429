//! Random sequences of applies and updates with what we make of them, for `dev/ssa`, which does the same with Go's
//! structured-merge-diff and compares. A development check: `dev/ssa/run` runs it, the test suite does not.

use std::io::Write;

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::*;

/// As `dev/ssa/main.go` states it in the other dialect.
const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "spec": {"type": "object", "properties": {
      "replicas": {"type": "integer"},
      "image": {"type": "string"},
      "strategy": {"type": "object", "properties": {
        "type": {"type": "string"}, "surge": {"type": "integer"},
        "deep": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}}},
      "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
      "env": {"type": "object", "additionalProperties": {"type": "string"}},
      "args": {"type": "array", "items": {"type": "string"}},
      "hosts": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
      "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
        "items": {"type": "object", "properties": {
          "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"},
          "options": {"type": "object", "additionalProperties": {"type": "string"}}}}},
      "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    }}
  }
}"#;

const STEPS: usize = 12;

#[test]
#[ignore = "a development check: dev/ssa/run"]
fn sequences_for_go() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use dev/ssa/run"));
    let count: u64 = variable("GAIA_SSA_SEQUENCES").parse().expect("a number");
    let file = std::fs::File::create(variable("GAIA_SSA_FILE")).expect("the file can be made");
    let mut file = std::io::BufWriter::new(file);
    let kind = Kind {
        group: "test.dev".to_owned(),
        version: "v1".to_owned(),
        kind: "Thing".to_owned(),
        plural: "things".to_owned(),
        ..Kind::with_schema(serde_json::from_str(SCHEMA).expect("the schema above is JSON"))
    };
    let kind = kind.compiled().expect("the schema above is structural");
    for seed in 0..count {
        writeln!(file, "{}", json!({"seed": seed, "steps": sequence(&kind, seed)})).expect("written");
    }
    file.flush().expect("written");
}

fn sequence(kind: &Kind, seed: u64) -> Vec<Value> {
    let mut rng = Rng::with_seed(seed);
    let mut live: Option<Value> = None;
    let mut steps = Vec::new();
    for second in 0..STEPS {
        let now = Timestamp::from_second(second as i64).expect("small");
        let manager = *rng.choice(&["a", "b", "c"]).expect("some");
        let options = WriteOptions { field_manager: manager.to_owned(), force: rng.bool(), ..WriteOptions::default() };
        let mut step = json!({"manager": manager, "force": options.force});
        if live.is_none() || rng.u8(..3) > 0 {
            let config = object(spec(&mut rng));
            step["apply"] = config["spec"].clone();
            match apply(kind, live.as_ref(), config, &options, now) {
                Ok((mut made, _)) => {
                    schema::prune_nulls(&mut made, &kind.root);
                    schema::apply_defaults(&mut made, &kind.root);
                    live = Some(made);
                }
                Err(error) => {
                    let causes = error.details.expect("a conflict has details").causes;
                    step["conflicts"] = causes.into_iter().map(|c| json!([c.message, c.field])).collect();
                }
            }
        } else if let Some(before) = &live {
            let mut after = before.clone();
            edit(&mut rng, &mut after["spec"]);
            schema::apply_defaults(&mut after, &kind.root);
            step["update"] = after["spec"].clone();
            record_update(kind, Some(before), &mut after, &options, now);
            live = Some(after);
        }
        if let Some(live) = &live {
            step["spec"] = live["spec"].clone();
            step["managers"] = live["metadata"]["managedFields"].clone();
        }
        steps.push(step);
    }
    steps
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "test.dev/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec})
}

const FIELDS: [&str; 9] = ["replicas", "image", "strategy", "selector", "env", "args", "hosts", "ports", "free"];

fn spec(rng: &mut Rng) -> Value {
    let fields = FIELDS.into_iter().filter(|_| rng.u8(..5) < 2).collect::<Vec<_>>();
    Value::Object(fields.into_iter().map(|field| (field.to_owned(), value(rng, field))).collect())
}

/// Some fields are other ones afterwards, some are gone.
fn edit(rng: &mut Rng, spec: &mut Value) {
    let Some(map) = spec.as_object_mut() else { return };
    for field in FIELDS {
        match rng.u8(..8) {
            0 => drop(map.remove(field)),
            1 => drop(map.insert(field.to_owned(), value(rng, field))),
            _ => {}
        }
    }
}

fn value(rng: &mut Rng, field: &str) -> Value {
    match field {
        "replicas" => json!(rng.u8(1..4)),
        "image" => json!(word(rng)),
        "strategy" => {
            let mut made = texts(rng, &["type"]);
            if rng.bool() {
                made["surge"] = json!(rng.u8(1..3));
            }
            if rng.bool() {
                made["deep"] = texts(rng, &["a", "b"]);
            }
            made
        }
        "selector" | "env" => texts(rng, &["x", "y", "z"]),
        "args" => (0..rng.u8(1..3)).map(|_| word(rng)).collect(),
        "hosts" => {
            let mut hosts = vec!["a", "b", "c", "d"];
            rng.shuffle(&mut hosts);
            hosts.truncate(rng.usize(1..4));
            json!(hosts)
        }
        "ports" => ports(rng),
        _ => {
            let mut made = texts(rng, &["p", "q"]);
            if rng.bool() {
                made["list"] = json!([1, {"deep": word(rng)}]);
            }
            if rng.bool() {
                made["map"] = texts(rng, &["r", "s"]);
            }
            made
        }
    }
}

fn ports(rng: &mut Rng) -> Value {
    let mut keys = vec![(80, None), (80, Some("UDP")), (443, Some("TCP")), (53, None)];
    rng.shuffle(&mut keys);
    keys.truncate(rng.usize(1..4));
    let port = |(port, protocol): (i32, Option<&str>)| {
        let mut made = json!({"port": port});
        if let Some(protocol) = protocol {
            made["protocol"] = json!(protocol);
        }
        if rng.bool() {
            made["name"] = json!(word(rng));
        }
        if rng.bool() {
            made["options"] = texts(rng, &["o", "p"]);
        }
        made
    };
    keys.into_iter().map(port).collect()
}

fn texts(rng: &mut Rng, names: &[&str]) -> Value {
    let mut made = Map::new();
    for name in names {
        if rng.bool() {
            made.insert((*name).to_owned(), json!(word(rng)));
        }
    }
    Value::Object(made)
}

fn word(rng: &mut Rng) -> &'static str {
    rng.choice(["one", "two", "three"]).expect("some")
}
