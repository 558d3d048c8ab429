//! Stories of managers that share an object, and two properties over random ones.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::registry::{FieldValidation, same::same_but_times};

const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "spec": {"type": "object", "properties": {
      "replicas": {"type": "integer"},
      "image": {"type": "string"},
      "strategy": {"type": "object", "properties": {
        "type": {"type": "string"}, "surge": {"type": "integer", "default": 1}}},
      "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
      "env": {"type": "object", "additionalProperties": {"type": "string"}},
      "args": {"type": "array", "items": {"type": "string"}},
      "steps": {"type": "array", "items": {"type": "object", "properties": {
        "do": {"type": "string"}, "seconds": {"type": "integer", "default": 30}}}},
      "hosts": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
      "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
        "items": {"type": "object", "required": ["port"], "properties": {
          "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}}},
      "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
    }},
    "status": {"type": "object", "properties": {"phase": {"type": "string"}}}
  }
}"#;

fn kind() -> Kind {
    Kind {
        group: "test.dev".to_owned(),
        version: "v1".to_owned(),
        kind: "Thing".to_owned(),
        plural: "things".to_owned(),
        has_status: true,
        ..Kind::with_schema(serde_json::from_str(SCHEMA).expect("the schema above is JSON"))
    }
    .compiled()
    .expect("the schema above is structural")
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "test.dev/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec})
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("small")
}

/// One object and those who write it.
struct Story {
    kind: Kind,
    object: Option<Value>,
    now: i64,
    /// By the last write, from those who apply.
    taken: Vec<Taken>,
}

impl Story {
    fn new() -> Self {
        Self { kind: kind(), object: None, now: 0, taken: Vec::new() }
    }

    fn options(manager: &str) -> WriteOptions {
        WriteOptions {
            field_manager: manager.to_owned(),
            field_validation: FieldValidation::Strict,
            ..WriteOptions::default()
        }
    }

    fn try_apply(&mut self, config: Value, options: &WriteOptions) -> ApiResult<()> {
        self.now += 1;
        let (made, taken) = apply(&self.kind, self.object.as_ref(), config, options, at(self.now))?;
        self.object = Some(made);
        self.taken = taken;
        Ok(())
    }

    fn apply(&mut self, manager: &str, spec: Value) {
        self.try_apply(object(spec), &Self::options(manager)).expect("no conflict");
    }

    fn force(&mut self, manager: &str, spec: Value) {
        let options = WriteOptions { force: true, ..Self::options(manager) };
        self.try_apply(object(spec), &options).expect("forced");
    }

    fn conflict(&mut self, manager: &str, spec: Value) -> String {
        let error = self.try_apply(object(spec), &Self::options(manager)).expect_err("a conflict");
        assert_eq!(error.reason, Reason::Conflict);
        error.message
    }

    fn update(&mut self, manager: &str, edit: impl FnOnce(&mut Value)) {
        self.now += 1;
        let live = self.object.clone();
        let mut object = live.clone().unwrap_or_else(|| object(json!({})));
        edit(&mut object);
        self.taken = record_update(&self.kind, live.as_ref(), &mut object, &Self::options(manager), at(self.now));
        self.object = Some(object);
    }

    fn spec(&self) -> Value {
        self.object.as_ref().map(|o| o["spec"].clone()).unwrap_or_default()
    }

    /// What a manager owns, as paths.
    fn owns(&self, manager: &str) -> Vec<String> {
        let managers = self.object.as_ref().and_then(Managers::read).unwrap_or_default();
        managers.0.iter().filter(|(m, _)| m.name == manager).flat_map(|(_, m)| m.fields.paths()).collect()
    }
}

#[test]
fn owns_what_it_states() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1, "env": {"A": "1"}, "selector": {"x": "y"}, "args": ["p"], "hosts": ["h"]}));
    assert_eq!(
        story.owns("a"),
        [".spec.args", ".spec.env.A", ".spec.hosts[=\"h\"]", ".spec.replicas", ".spec.selector"]
    );
}

#[test]
fn a_changed_field_of_another_is_a_conflict() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1, "image": "i"}));
    assert_eq!(
        story.conflict("b", json!({"replicas": 2})),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas"
    );
    assert_eq!(
        story.conflict("b", json!({"replicas": 2, "image": "j"})),
        "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.image\n- .spec.replicas"
    );
    assert_eq!(story.spec(), json!({"replicas": 1, "image": "i"}), "nothing was written");
}

#[test]
fn force_takes_the_field_over() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1, "image": "i"}));
    story.force("b", json!({"replicas": 2}));
    assert_eq!(story.spec(), json!({"replicas": 2, "image": "i"}));
    assert_eq!((story.owns("a"), story.owns("b")), (vec![".spec.image".into()], vec![".spec.replicas".into()]));
}

#[test]
fn what_is_no_longer_stated_goes() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1, "env": {"A": "1", "B": "2"}, "strategy": {"type": "x"}}));
    story.apply("a", json!({"env": {"B": "2"}}));
    assert_eq!(story.spec(), json!({"env": {"B": "2"}}), "an emptied container goes too");
}

#[test]
fn a_shared_field_stays_until_the_last_owner_lets_go() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1}));
    story.apply("b", json!({"replicas": 1, "image": "i"}));
    story.apply("a", json!({}));
    assert_eq!(story.spec(), json!({"replicas": 1, "image": "i"}));
    story.apply("b", json!({"image": "i"}));
    assert_eq!(story.spec(), json!({"image": "i"}));
}

#[test]
fn a_default_below_a_container_goes_with_it() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1, "strategy": {"type": "x"}}));
    story.object.as_mut().expect("made")["spec"]["strategy"]["surge"] = json!(1);
    story.apply("a", json!({"replicas": 1}));
    assert_eq!(story.spec(), json!({"replicas": 1}));
}

#[test]
fn defaults_within_a_list_that_is_one_field_are_no_change() {
    let mut story = Story::new();
    // As the registry does with every write.
    let default = |story: &mut Story| story.object.as_mut().expect("made")["spec"]["steps"][0]["seconds"] = json!(30);
    story.apply("a", json!({"steps": [{"do": "stop"}]}));
    default(&mut story);
    story.apply("b", json!({"steps": [{"do": "stop"}]}));
    default(&mut story);
    assert_eq!((story.owns("a"), story.owns("b")), (vec![".spec.steps".to_owned()], vec![".spec.steps".to_owned()]));
    assert!(story.conflict("b", json!({"steps": [{"do": "stop", "seconds": 31}]})).contains(".spec.steps"));
    story.force("c", json!({"steps": [{"do": "stop"}]}));
    assert_eq!(story.taken, []);
}

#[test]
fn keyed_lists_merge_item_by_item() {
    let mut story = Story::new();
    story.apply("a", json!({"ports": [{"port": 80, "name": "web"}, {"port": 81, "protocol": "UDP"}]}));
    // The key that is left out has its default.
    story.apply("b", json!({"ports": [{"port": 80, "protocol": "TCP"}, {"port": 82}]}));
    assert_eq!(
        story.spec()["ports"],
        json!([{"port": 80, "protocol": "TCP", "name": "web"}, {"port": 81, "protocol": "UDP"}, {"port": 82}])
    );
    assert_eq!(
        story.conflict("b", json!({"ports": [{"port": 80, "name": "other"}]})),
        "Apply failed with 1 conflict: conflict with \"a\": .spec.ports[port=80,protocol=\"TCP\"].name"
    );
    story.apply("a", json!({}));
    assert_eq!(story.spec()["ports"], json!([{"port": 80, "protocol": "TCP"}, {"port": 82}]));
}

#[test]
fn sets_merge_value_by_value() {
    let mut story = Story::new();
    story.apply("a", json!({"hosts": ["x", "y"]}));
    story.apply("b", json!({"hosts": ["y", "z"]}));
    assert_eq!(story.spec()["hosts"], json!(["x", "y", "z"]));
    story.apply("a", json!({"hosts": ["y"]}));
    assert_eq!(story.spec()["hosts"], json!(["y", "z"]));
}

#[test]
fn the_order_stated_last_holds() {
    let mut story = Story::new();
    story.apply("a", json!({"hosts": ["1", "2", "3"]}));
    story.apply("b", json!({"hosts": ["o"]}));
    story.apply("a", json!({"hosts": ["3", "n", "1", "2"]}));
    assert_eq!(story.spec()["hosts"], json!(["3", "o", "n", "1", "2"]));
}

#[test]
fn atomic_values_have_one_owner() {
    for (field, one, two) in
        [("args", json!(["a"]), json!(["a", "b"])), ("selector", json!({"a": "1"}), json!({"b": "2"}))]
    {
        let mut story = Story::new();
        story.apply("a", json!({field: one}));
        let message = story.conflict("b", json!({field: two}));
        assert_eq!(message, format!("Apply failed with 1 conflict: conflict with \"a\": .spec.{field}"));
        story.force("b", json!({field: two}));
        assert_eq!(story.spec()[field], two);
        assert_eq!(story.owns("a"), Vec::<String>::new());
    }
}

#[test]
fn what_no_schema_describes_comes_apart_at_maps() {
    let mut story = Story::new();
    story.apply("a", json!({"free": {"deep": {"x": 1}, "list": [1]}}));
    story.apply("b", json!({"free": {"deep": {"y": 2}}}));
    assert_eq!(story.spec()["free"], json!({"deep": {"x": 1, "y": 2}, "list": [1]}));
    assert!(story.conflict("b", json!({"free": {"list": [2]}})).ends_with("conflict with \"a\": .spec.free.list"));
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1, "image": "i"}));
    story.update("hpa", |o| o["spec"]["replicas"] = json!(5));
    assert_eq!((story.owns("a"), story.owns("hpa")), (vec![".spec.image".into()], vec![".spec.replicas".into()]));
    assert_eq!(
        story.conflict("a", json!({"replicas": 1, "image": "i"})),
        "Apply failed with 1 conflict: conflict with \"hpa\" using test.dev/v1: .spec.replicas"
    );
    // Giving it up is no conflict, and takes nothing away.
    story.apply("a", json!({"image": "i"}));
    assert_eq!(story.spec(), json!({"image": "i", "replicas": 5}));
}

#[test]
fn whoever_takes_from_one_that_applies_is_told_what() {
    let mut story = Story::new();
    let taken = |field: &str| Taken { manager: "a".to_owned(), field: field.to_owned() };
    story.apply("a", json!({"replicas": 1, "image": "i", "ports": [{"port": 80}]}));
    story.update("b", |o| o["spec"]["env"] = json!({"A": "1"}));
    assert_eq!(story.taken, [], "nobody's");
    story.update("b", |o| o["spec"]["replicas"] = json!(2));
    assert_eq!(story.taken, [taken("spec.replicas")]);
    story.update("b", |o| o["spec"]["replicas"] = json!(3));
    assert_eq!(story.taken, [], "it is b's now");
    story.force("a", json!({"replicas": 1, "image": "i", "ports": [{"port": 80}]}));
    assert_eq!(story.taken, [], "b only wrote it, and will not write it again by itself");
    story.force("c", json!({"image": "j"}));
    assert_eq!(story.taken, [taken("spec.image")]);
    story.update("b", |o| o["spec"]["ports"] = json!([]));
    assert!(story.taken.contains(&taken("spec.ports[port=80,protocol=\"TCP\"].port")), "{:?}", story.taken);
}

#[test]
fn an_update_that_removes_a_field_ends_its_ownership() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1, "image": "i"}));
    story.update("b", |o| {
        o["spec"].as_object_mut().expect("a map").remove("image");
    });
    assert_eq!(story.owns("a"), [".spec.replicas"]);
    assert_eq!(story.owns("b"), Vec::<String>::new());
}

#[test]
fn the_same_name_applies_and_updates_as_two() {
    let mut story = Story::new();
    story.update("kubectl", |o| o["spec"]["replicas"] = json!(1));
    assert!(story.conflict("kubectl", json!({"replicas": 2})).contains("conflict with \"kubectl\" using test.dev/v1"));
}

#[test]
fn status_is_another_managers_half() {
    let mut story = Story::new();
    story.apply("a", json!({"replicas": 1}));
    let mut config = object(json!({"replicas": 7}));
    config["status"] = json!({"phase": "Up"});
    let options = WriteOptions { subresource: Subresource::Status, ..Story::options("a") };
    story.try_apply(config.clone(), &options).expect("no conflict");
    assert_eq!(story.spec(), json!({"replicas": 1}), "the spec is not written through the status");
    let managers = Managers::read(story.object.as_ref().expect("made")).expect("recorded");
    let who: Vec<String> = managers.0.keys().map(ToString::to_string).collect();
    assert_eq!(who, ["\"a\"", "\"a\" with subresource \"status\""]);
    // And the other way round: the main half does not own the status.
    story.apply("b", json!({}));
    config["metadata"]["labels"] = json!({"l": "1"});
    config["spec"] = json!({});
    story.try_apply(config, &Story::options("b")).expect("no conflict");
    assert_eq!(story.owns("b"), [".metadata.labels.l", ".spec"]);
}

#[test]
fn nobody_recorded_means_everything_was_there_before() {
    let mut story = Story::new();
    story.object = Some(object(json!({"replicas": 1, "image": "i"})));
    let message = story.conflict("a", json!({"replicas": 2}));
    assert!(message.ends_with("conflict with \"before-first-apply\" using test.dev/v1: .spec.replicas"), "{message}");
    story.apply("a", json!({"replicas": 1}));
    assert_eq!(story.owns("before-first-apply"), [".spec.image", ".spec.replicas"]);
}

#[test]
fn stated_managed_fields_are_taken_over_and_reset() {
    let mut story = Story::new();
    story.update("kubectl-client-side-apply", |o| o["spec"]["replicas"] = json!(1));
    let mut moved = Managers::read(story.object.as_ref().expect("made")).expect("recorded");
    let (_, managed) = moved.0.pop_first().expect("one manager");
    let me = manager(&story.kind, &Story::options("kubectl"), Operation::Apply);
    moved.set(me, managed);
    story.update("kubectl", |o| moved.write(o));
    assert_eq!(story.owns("kubectl-client-side-apply"), Vec::<String>::new());
    story.apply("kubectl", json!({"replicas": 2}));
    story.update("kubectl", |o| o["metadata"]["managedFields"] = json!([{}]));
    assert_eq!(story.object.as_ref().expect("made")["metadata"].get("managedFields"), None);
}

#[test]
fn an_apply_needs_a_manager_and_no_managed_fields() {
    let mut story = Story::new();
    let error = story.try_apply(object(json!({})), &WriteOptions::default()).expect_err("no manager");
    assert_eq!(
        (error.code(), error.message.as_str()),
        (422, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")
    );
    let mut config = object(json!({}));
    config["metadata"]["managedFields"] = json!([{"manager": "a"}]);
    let error = story.try_apply(config, &Story::options("a")).expect_err("not its to say");
    assert_eq!((error.code(), error.message.as_str()), (400, "metadata.managedFields must be nil"));
}

#[test]
fn old_updaters_become_one() {
    let mut story = Story::new();
    for i in 0..15 {
        story.update(&format!("m{i}"), |o| o["spec"]["env"][format!("K{i}")] = json!("v"));
    }
    let managers = Managers::read(story.object.as_ref().expect("made")).expect("recorded");
    assert_eq!(managers.0.len(), 10);
    assert!(story.owns("ancient-changes").contains(&".spec.env.K0".to_owned()));
    assert_eq!(story.owns("m14"), [".spec.env.K14"]);
}

#[test]
fn fields_v1_reads_what_it_writes() {
    let wire = json!({
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:hosts": {"v:\"x\"": {}}},
    });
    assert_eq!(FieldSet::from_json(&wire).expect("it is FieldsV1").to_json(), wire);
    assert_eq!(FieldSet::from_json(&json!({"x:y": {}})), None);
}

fn spec_strategy() -> impl Strategy<Value = Value> {
    let text = || "[a-c]";
    let env = prop::collection::btree_map(text(), text(), 0..3);
    let hosts = prop::collection::btree_set(text(), 0..4);
    let ports = prop::collection::btree_map(1..4_i64, prop::option::of(text()), 0..3);
    let args = prop::collection::vec(text(), 0..3);
    (prop::option::of(0..3_i64), env, hosts, ports, args, any::<bool>()).prop_map(
        |(replicas, env, hosts, ports, args, nested)| {
            let mut spec = json!({"env": env, "hosts": hosts, "args": args});
            let ports = ports.into_iter().map(|(port, name)| match name {
                Some(name) => json!({"port": port, "name": name}),
                None => json!({"port": port}),
            });
            spec["ports"] = ports.collect();
            if let Some(replicas) = replicas {
                spec["replicas"] = json!(replicas);
            }
            if nested {
                spec["strategy"] = json!({"type": "t"});
            }
            spec
        },
    )
}

proptest! {
    /// Whatever happened before: what was applied is there, is owned, and applying it again writes nothing.
    #[test]
    fn applying_is_idempotent_and_owned(writes in prop::collection::vec((0..3_usize, any::<bool>(), spec_strategy()), 1..8)) {
        let mut story = Story::new();
        for (who, update, spec) in writes {
            let manager = ["a", "b", "c"][who];
            if update {
                story.update(manager, |o| o["spec"] = spec.clone());
                continue;
            }
            story.force(manager, spec.clone());
            let once = story.object.clone().expect("made");
            let stated = managed::without_identity(typed::fields_of(&object(spec.clone()), &story.kind.root));
            let there = compare(&json!({}), &once, &story.kind.root).added;
            prop_assert!(stated.difference(&there).is_empty(), "stated but not there: {:?}", stated.difference(&there).paths());
            let me = super::manager(&story.kind, &Story::options(manager), Operation::Apply);
            let owned = Managers::read(&once).unwrap_or_default().0.remove(&me).map(|m| m.fields).unwrap_or_default();
            prop_assert_eq!(owned, stated);
            story.apply(manager, spec);
            prop_assert!(same_but_times(&once, story.object.as_ref().expect("made")));
        }
    }

    /// Nobody owns what is not there.
    #[test]
    fn owned_fields_exist(writes in prop::collection::vec((0..3_usize, any::<bool>(), spec_strategy()), 1..8)) {
        let mut story = Story::new();
        for (who, update, spec) in writes {
            let manager = ["a", "b", "c"][who];
            if update { story.update(manager, |o| o["spec"] = spec) } else { story.force(manager, spec) }
            let object = story.object.clone().expect("made");
            let all = compare(&json!({}), &object, &story.kind.root).added;
            for managed in Managers::read(&object).unwrap_or_default().0.values() {
                prop_assert!(managed.fields.difference(&all).is_empty(), "{:?}", managed.fields.difference(&all).paths());
            }
        }
    }
}

/// Found by comparing with Go on random sequences (dev/ssa): the item stayed, and had lost the key that tells it from others.
#[test]
fn an_item_goes_with_its_owner_whoever_owns_a_part_of_it() {
    let mut story = Story::new();
    story.apply("a", json!({"image": "x", "ports": [{"port": 80}], "free": {"map": {"r": "1"}, "p": "1"}}));
    story.update("b", |object| {
        object["spec"]["ports"][0]["name"] = json!("http");
        object["spec"]["free"]["map"]["r"] = json!("2");
    });
    story.apply("a", json!({"image": "x", "free": {"p": "1"}}));
    assert_eq!(story.spec(), json!({"image": "x", "ports": [], "free": {"p": "1"}}));
    assert_eq!(story.owns("b"), [""; 0]);
}
