//! Writes of the status alone: what they leave out must be what they cannot change, and nothing else.

use rstest::rstest;

use super::*;

/// Defines a kind whose rules look at whatever a write of the status may or may not touch, and makes an object of it.
async fn world(rules: Rules) -> (World, Arc<Kind>, Value) {
    let world = World::new().await;
    let rule = |rule: &str| match rule {
        "" => json!([]),
        rule => json!([{"rule": rule, "message": "no"}]),
    };
    let spec = json!({"type": "object", "x-kubernetes-validations": rule(rules.spec), "properties": {
        "most": {"type": "integer"}, "least": {"type": "integer", "default": 1}}});
    let status = json!({"type": "object", "x-kubernetes-validations": rule(rules.status), "required": ["count"], "properties": {
        "count": {"type": "integer", "maximum": 1000}, "state": {"type": "string", "default": "New"},
        "text": {"type": "string"}}});
    let schema = json!({"type": "object", "x-kubernetes-validations": rule(rules.object),
        "properties": {"spec": spec, "status": status}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "kites.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "kites", "kind": "Kite"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let definitions = world.kind("apiextensions.k8s.io", "CustomResourceDefinition");
    world.registry.create(&definitions, None, definition, &world.options).await.expect("defined");
    let kind = world.kind("example.com", "Kite");
    let kite = json!({"metadata": {"name": "a"}, "spec": {"most": 10}});
    let made = world.registry.create(&kind, Some("default"), kite, &world.options).await.expect("made");
    (world, kind, made.version.object.clone())
}

/// CEL, one for each place; empty: none.
#[derive(Default)]
struct Rules {
    object: &'static str,
    spec: &'static str,
    status: &'static str,
}

impl World {
    async fn put_status(&self, kind: &Kind, mut object: Value, status: Value) -> ApiResult<Value> {
        let options = WriteOptions { subresource: Subresource::Status, ..self.options.clone() };
        object["status"] = status;
        let written = self.registry.update(kind, &named("a"), object, &options).await?;
        Ok(written.version.object.clone())
    }

    async fn patch_status(&self, kind: &Kind, patch: Patch, options: &WriteOptions) -> ApiResult<Written> {
        let options = WriteOptions { subresource: Subresource::Status, ..options.clone() };
        self.registry.patch(kind, &named("a"), patch, &options).await
    }
}

#[rstest]
#[case::the_object_over_both(Rules { object: "!has(self.status) || self.status.count <= self.spec.most", ..Rules::default() }, 10, 11)]
#[case::the_object_over_all(Rules { object: "size(self) < 10 && (!has(self.status) || self.status.count < 11)", ..Rules::default() }, 10, 11)]
#[case::the_object_over_a_change(Rules { object: "!has(oldSelf.status) || self.status.count > oldSelf.status.count", ..Rules::default() }, 10, 9)]
#[case::the_status(Rules { status: "self.count % 2 == 0", ..Rules::default() }, 10, 11)]
#[case::a_change_of_the_status(Rules { status: "self.count >= oldSelf.count", ..Rules::default() }, 10, 9)]
#[case::the_schema_of_the_status(Rules::default(), 1000, 1001)]
#[tokio::test]
async fn what_looks_at_the_status_is_asked(#[case] rules: Rules, #[case] good: i64, #[case] bad: i64) {
    let (world, kind, made) = world(rules).await;
    let made = world.put_status(&kind, made, json!({"count": good})).await.expect("allowed");
    let error = world.put_status(&kind, made.clone(), json!({"count": bad})).await.expect_err("refused");
    assert_eq!(error.code(), 422, "{error}");
    let patch = || Patch::Merge(json!({"status": {"count": bad}}));
    assert_eq!(world.patch_status(&kind, patch(), &world.options).await.expect_err("refused").code(), 422);
    let apply = Patch::Apply(json!({"apiVersion": "example.com/v1", "kind": "Kite", "status": {"count": bad}}));
    let force = WriteOptions { force: true, ..world.options.clone() };
    assert_eq!(world.patch_status(&kind, apply, &force).await.expect_err("refused").code(), 422);
    assert_eq!(world.registry.get(&kind, &named("a")).await.expect("there").object, made);
}

#[tokio::test]
async fn what_is_required_in_a_status_is_missed() {
    let (world, kind, made) = world(Rules::default()).await;
    let error = world.put_status(&kind, made, json!({"text": "x"})).await.expect_err("refused");
    assert!(error.message.contains("status.count: Required value"), "{error}");
}

#[tokio::test]
async fn a_wish_that_must_change_with_every_wish_does_not_hold_up_a_status() {
    let rules = Rules { spec: "self.most > oldSelf.most", ..Rules::default() };
    let (world, kind, made) = world(rules).await;
    let mut seen = world.put_status(&kind, made, json!({"count": 1})).await.expect("it is no wish");
    seen["spec"]["most"] = json!(9);
    let error = world.registry.update(&kind, &named("a"), seen.clone(), &world.options).await.expect_err("falls");
    assert_eq!(error.code(), 422);
    seen["spec"]["most"] = json!(11);
    world.registry.update(&kind, &named("a"), seen, &world.options).await.expect("rises");
}

#[tokio::test]
async fn a_change_of_the_status_to_itself_is_the_rules_to_judge() {
    let rules = Rules { status: "self.count > oldSelf.count", ..Rules::default() };
    let (world, kind, made) = world(rules).await;
    let made = world.put_status(&kind, made, json!({"count": 1})).await.expect("there was none before");
    assert_eq!(world.put_status(&kind, made.clone(), json!({"count": 1})).await.expect_err("the same").code(), 422);
    world.put_status(&kind, made, json!({"count": 2})).await.expect("rises");
}

#[tokio::test]
async fn defaults_and_nulls_of_a_status_are_seen_to_and_the_rest_is_the_stored_one() {
    let (world, kind, made) = world(Rules::default()).await;
    let mut body = made.clone();
    body["metadata"]["labels"] = json!({"a": "b"});
    body["metadata"]["finalizers"] = json!(["example.com/x"]);
    body["metadata"]["managedFields"] = json!([{}]);
    body["spec"] = json!({"most": 99});
    let written = world.put_status(&kind, body, json!({"count": 3.0, "text": null})).await.expect("written");
    assert_eq!(written["status"], json!({"count": 3, "state": "New"}));
    let mut expected = made.clone();
    expected["status"] = written["status"].clone();
    for field in ["resourceVersion", "managedFields"] {
        expected["metadata"][field] = written["metadata"][field].clone();
    }
    assert_eq!(written, expected);
    assert_eq!(written["metadata"]["managedFields"].as_array().map(Vec::len), Some(2), "who wrote the spec stays");
    let gone = Patch::Merge(json!({"status": null}));
    let gone = world.patch_status(&kind, gone, &world.options).await.expect("nobody requires one");
    assert_eq!(gone.version.object.get("status"), None);
}

#[tokio::test]
async fn unknown_fields_anywhere_in_the_body_are_complained_of() {
    let (world, kind, mut made) = world(Rules::default()).await;
    made["spec"]["wings"] = json!(2);
    let error = world.put_status(&kind, made, json!({"count": 1, "tail": 1})).await.expect_err("strict");
    assert!(error.message.contains("spec.wings") && error.message.contains("status.tail"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_status_makes_no_version() {
    let (world, kind, made) = world(Rules::default()).await;
    let written = world.put_status(&kind, made.clone(), json!({"count": 1})).await.expect("written");
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    // What it lacks are defaults.
    assert_eq!(world.put_status(&kind, written.clone(), json!({"count": 1})).await.expect("the same"), written);
    let other = WriteOptions { field_manager: "other".to_owned(), ..world.options.clone() };
    let patch = Patch::Merge(json!({"status": {"count": 1}}));
    let same = world.patch_status(&kind, patch, &other).await.expect("the same").version;
    assert_eq!(same.object, written, "who changes nothing owns nothing");
    assert_eq!(world.put_status(&kind, made, json!({"count": 1})).await.expect_err("it was read before").code(), 409);
    let mut foreign = written.clone();
    foreign["metadata"]["uid"] = json!("other");
    assert_eq!(world.put_status(&kind, foreign, json!({"count": 1})).await.expect_err("another object").code(), 409);
}

#[tokio::test(start_paused = true)]
async fn applies_of_a_status_own_their_fields_and_lose_them() {
    let (world, kind, _) = world(Rules::default()).await;
    let by = |manager: &str| WriteOptions { field_manager: manager.to_owned(), ..world.options.clone() };
    let config = |status: Value| {
        let config = json!({"apiVersion": "example.com/v1", "kind": "Kite", "metadata": {"labels": {"a": "b"}}, "spec": {"most": 1}, "status": status});
        Patch::Apply(config)
    };
    let applied = world.patch_status(&kind, config(json!({"count": 1, "text": "x"})), &by("first")).await;
    let applied = applied.expect("applied").version.object.clone();
    assert_eq!((&applied["spec"]["most"], &applied["metadata"].get("labels")), (&json!(10), &None));
    let entry = |object: &Value, manager: &str| {
        let managers = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        managers.into_iter().find(|entry| entry["manager"] == manager)
    };
    let first = entry(&applied, "first").expect("recorded");
    assert_eq!(
        (&first["operation"], &first["subresource"], &first["fieldsV1"]),
        (&json!("Apply"), &json!("status"), &json!({"f:status": {"f:count": {}, "f:text": {}}}))
    );
    let again = world.patch_status(&kind, config(json!({"count": 1, "text": "x"})), &by("first")).await;
    assert_eq!(again.expect("applied").version.object, applied, "the same wish is no write");
    let conflict = world.patch_status(&kind, config(json!({"count": 2})), &by("second")).await;
    assert_eq!(conflict.expect_err("it is another's").code(), 409);
    let joins = world.patch_status(&kind, config(json!({"count": 1})), &by("second")).await.expect("they agree");
    assert!(entry(&joins.version.object, "second").is_some(), "the object changes by its owners alone");
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    let patch = Patch::Merge(json!({"status": {"count": 5}}));
    let taken = world.patch_status(&kind, patch, &by("third")).await.expect("an update takes");
    let fields: Vec<(&str, &str)> = taken.taken.iter().map(|t| (t.manager.as_str(), t.field.as_str())).collect();
    assert_eq!(fields, [("first", "status.count"), ("second", "status.count")]);
    let object = &taken.version.object;
    assert_eq!(entry(object, "first").expect("it has the text")["fieldsV1"], json!({"f:status": {"f:text": {}}}));
    assert_eq!(entry(object, "second"), None);
    let third = entry(object, "third").expect("recorded");
    assert_eq!((&third["operation"], &third["subresource"]), (&json!("Update"), &json!("status")));
    assert_eq!(
        (&third["time"], &third["fieldsV1"]),
        (&json!("2026-01-01T00:00:05Z"), &json!({"f:status": {"f:count": {}}}))
    );
}

#[tokio::test]
async fn a_dry_run_of_a_status_is_not_put() {
    let (world, kind, made) = world(Rules::default()).await;
    let dry = WriteOptions { dry_run: true, ..world.options.clone() };
    let patch = Patch::Merge(json!({"status": {"count": 1}}));
    let shown = world.patch_status(&kind, patch, &dry).await.expect("shown").version;
    assert_eq!(shown.object["status"], json!({"count": 1, "state": "New"}));
    assert_eq!(world.registry.get(&kind, &named("a")).await.expect("there").object, made);
}
