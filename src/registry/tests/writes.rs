//! Creating and replacing: what the server owns, what it refuses, and in which words.

use rstest::rstest;

use super::*;
use crate::registry::FieldValidation;

#[tokio::test]
async fn a_created_object_gets_what_the_server_owns() {
    let world = World::new().await;
    let mut wish = workload("web");
    wish["metadata"]["generation"] = json!(7);
    wish["metadata"]["uid"] = json!("mine");
    wish["status"] = json!({"active": "Live"});
    let made = world.create(wish).await.expect("created");
    let metadata = &made["metadata"];
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert!(uuid::Uuid::parse_str(metadata["uid"].as_str().expect("text")).is_ok());
    assert_eq!(made.get("status"), None, "the main endpoint does not write the status");
    assert_eq!(made["spec"]["active"], "Live", "defaulted");
    assert_eq!(metadata["managedFields"][0]["manager"], "test");
    assert_eq!(world.get("web").await.expect("there"), made);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_ids() {
    let first = World::new().await.create(workload("web")).await.expect("created");
    let second = World::new().await.create(workload("web")).await.expect("created");
    assert_eq!(first, second);
}

#[tokio::test]
async fn names_are_generated() {
    let world = World::new().await;
    let mut wish = workload("web");
    wish["metadata"] = json!({"generateName": "web-"});
    let made = world.create(wish).await.expect("created");
    let name = made["metadata"]["name"].as_str().expect("text");
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

#[rstest]
#[case::field(json!({"spec": {"live": {"container": {"image": 1}}}}), 422, "Workload.gaia.dev \"web\" is invalid: spec.live.container.image: Invalid value: \"integer\": spec.live.container.image in body must be of type string: \"integer\"")]
#[case::rule(json!({"spec": {}}), 422, "Workload.gaia.dev \"web\" is invalid: spec: Invalid value: \"object\": at least one of live and candidate must be given")]
#[case::required(json!({"spec": {"live": {}}}), 422, "Workload.gaia.dev \"web\" is invalid: spec.live.container: Required value")]
#[case::two(json!({"spec": {"live": {}, "stopGraceSeconds": -1}}), 422, "Workload.gaia.dev \"web\" is invalid: [spec.live.container: Required value, spec.stopGraceSeconds: Invalid value: -1: spec.stopGraceSeconds in body should be greater than or equal to 0]")]
#[case::unknown(json!({"spec": {"foo": 1, "live": {"container": {"image": "i", "bar": 2}}}}), 400, "Workload in version \"v1alpha1\" cannot be handled as a Workload: strict decoding error: unknown field \"spec.foo\", unknown field \"spec.live.container.bar\"")]
#[case::version(json!({"metadata": {"name": "web", "resourceVersion": "5"}}), 400, "resourceVersion should not be set on objects to be created")]
#[case::no_name(json!({"metadata": {}}), 422, "Workload.gaia.dev \"\" is invalid: metadata.name: Required value: name or generateName is required")]
#[case::other_namespace(json!({"metadata": {"name": "web", "namespace": "x"}}), 400, "the namespace of the provided object does not match the namespace sent on the request")]
#[case::label(json!({"metadata": {"name": "web", "labels": {"a": "b c"}}}), 422, "Workload.gaia.dev \"web\" is invalid: metadata.labels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')")]
#[case::labels_type(json!({"metadata": {"name": "web", "labels": 1}}), 422, "Workload.gaia.dev \"web\" is invalid: metadata.labels: Invalid value: \"integer\": metadata.labels in body must be of type object: \"integer\"")]
#[tokio::test]
async fn refuses_in_upstreams_words(#[case] changes: Value, #[case] code: u16, #[case] message: &str) {
    let world = World::new().await;
    let mut wish = workload("web");
    for (key, value) in changes.as_object().expect("a map") {
        wish[key] = value.clone();
    }
    let error = world.create(wish).await.expect_err("refused");
    assert_eq!((error.code(), error.message.as_str()), (code, message));
}

#[tokio::test]
async fn the_cause_names_the_field() {
    let world = World::new().await;
    let mut wish = workload("web");
    wish["spec"] = json!({"live": {}});
    let status = world.create(wish).await.expect_err("refused").to_status();
    assert_eq!(
        status["details"],
        json!({"name": "web", "group": "gaia.dev", "kind": "Workload", "causes": [
            {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.live.container"},
        ]})
    );
}

#[tokio::test]
async fn a_name_is_taken_once_and_missed_when_absent() {
    let world = World::new().await;
    world.create(workload("web")).await.expect("created");
    let error = world.create(workload("web")).await.expect_err("taken");
    assert_eq!((error.code(), error.message.as_str()), (409, "workloads.gaia.dev \"web\" already exists"));
    let error = world.get("x").await.expect_err("absent");
    assert_eq!((error.code(), error.message.as_str()), (404, "workloads.gaia.dev \"x\" not found"));
    let mut elsewhere = workload("web");
    elsewhere["metadata"]["namespace"] = json!("nowhere");
    let kind = world.workloads();
    let error =
        world.registry.create(&kind, Some("nowhere"), elsewhere, &world.options).await.expect_err("no namespace");
    assert_eq!((error.code(), error.message.as_str()), (404, "namespaces \"nowhere\" not found"));
}

#[tokio::test]
async fn unknown_fields_are_pruned_with_a_warning_or_silently() {
    for (validation, warnings) in
        [(FieldValidation::Warn, vec!["unknown field \"spec.foo\"".to_owned()]), (FieldValidation::Ignore, vec![])]
    {
        let world = World::new().await;
        let options = WriteOptions { field_validation: validation, ..world.options.clone() };
        let mut wish = workload("web");
        wish["spec"]["foo"] = json!(1);
        let made = world.registry.create(&world.workloads(), Some("default"), wish, &options).await.expect("created");
        assert_eq!(made.warnings, warnings);
        assert_eq!(made.version.object["spec"].get("foo"), None);
    }
}

#[rstest]
#[case::name(json!({"name": "other"}), "the name of the object (other) does not match the name on the URL (web)")]
#[case::namespace(json!({"namespace": "x"}), "the namespace of the provided object does not match the namespace sent on the request")]
#[tokio::test]
async fn a_patch_renames_and_moves_nothing(#[case] metadata: Value, #[case] message: &str) {
    let world = World::new().await;
    world.create(workload("web")).await.expect("created");
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let error = world.patch("web", patch, &world.options).await.expect_err("refused");
    assert_eq!((error.code(), error.message.as_str()), (400, message));
}

#[tokio::test]
async fn generation_counts_wishes_only() {
    let world = World::new().await;
    let mut object = world.create(workload("web")).await.expect("created");
    object["metadata"]["labels"] = json!({"a": "b"});
    let labelled = world.update(object).await.expect("updated");
    assert_eq!(labelled["metadata"]["generation"], 1);
    let mut object = labelled.clone();
    object["spec"]["live"]["running"] = json!(false);
    object["status"] = json!({"active": "Live"});
    let stopped = world.update(object).await.expect("updated");
    assert_eq!((&stopped["metadata"]["generation"], stopped.get("status")), (&json!(2), None));
    let mut object = stopped.clone();
    object["status"] = json!({"active": "Live"});
    object["spec"]["live"]["running"] = json!(true);
    let seen = world.update_status(object).await.expect("updated");
    assert_eq!(seen["status"], json!({"active": "Live"}));
    assert_eq!((&seen["spec"], &seen["metadata"]["generation"]), (&stopped["spec"], &json!(2)));
    assert_eq!(seen["metadata"]["managedFields"][1]["subresource"], "status");
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_write_keeps_the_revision() {
    let world = World::new().await;
    let made = world.create(workload("web")).await.expect("created");
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    assert_eq!(world.update(made.clone()).await.expect("updated"), made);
    let patched = world.patch("web", Patch::Merge(json!({"spec": {"active": "Live"}})), &world.options).await;
    assert_eq!(patched.expect("patched").version.object, made);
    let config = workload("web");
    let applied = world.patch("web", Patch::Apply(config.clone()), &world.options).await.expect("applied").version;
    assert_ne!(applied.object, made, "somebody new owns fields");
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    let again = world.patch("web", Patch::Apply(config), &world.options).await.expect("applied").version;
    assert_eq!(again.object, applied.object);
}

#[tokio::test]
async fn a_stale_write_is_a_conflict() {
    let world = World::new().await;
    let old = world.create(workload("web")).await.expect("created");
    let mut new = old.clone();
    new["spec"]["live"]["running"] = json!(false);
    world.update(new).await.expect("updated");
    let mut stale = old.clone();
    stale["spec"]["live"]["container"]["image"] = json!("other");
    let error = world.update(stale.clone()).await.expect_err("stale");
    let message = "Operation cannot be fulfilled on workloads.gaia.dev \"web\": the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!((error.code(), error.message.as_str()), (409, message));
    let revision = old["metadata"]["resourceVersion"].clone();
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": revision, "labels": {"a": "b"}}}));
    assert_eq!(world.patch("web", patch, &world.options).await.expect_err("stale").code(), 409);
    stale["metadata"].as_object_mut().expect("a map").remove("resourceVersion");
    world.update(stale.clone()).await.expect("without a revision the last writer wins");
    stale["metadata"]["uid"] = json!("other");
    let error = world.update(stale).await.expect_err("another object");
    assert!(error.message.contains("Precondition failed: UID in precondition: other, UID in object meta: "));
}

#[tokio::test]
async fn concurrent_patches_all_land() {
    let world = World::new().await;
    world.create(workload("web")).await.expect("created");
    let patches = (0..8).map(|i| {
        let patch = Patch::Merge(json!({"metadata": {"labels": {format!("l{i}"): "x"}}}));
        let world = &world;
        async move { world.patch("web", patch, &world.options).await }
    });
    for patched in futures::future::join_all(patches).await {
        patched.expect("patched");
    }
    let labels = world.get("web").await.expect("there")["metadata"]["labels"].clone();
    assert_eq!(labels.as_object().expect("a map").len(), 8);
}

#[tokio::test]
async fn dry_run_does_everything_but_the_put() {
    let world = World::new().await;
    let dry = WriteOptions { dry_run: true, ..world.options.clone() };
    let kind = world.workloads();
    let made = world.registry.create(&kind, Some("default"), workload("web"), &dry).await.expect("created");
    assert_eq!(made.version.object["spec"]["active"], "Live");
    assert_eq!(world.get("web").await.expect_err("absent").code(), 404);
    let real = world.create(workload("web")).await.expect("created");
    let patch = || Patch::Merge(json!({"spec": {"live": {"running": false}}}));
    let patched = world.patch("web", patch(), &dry).await.expect("patched").version;
    assert_eq!(patched.object["metadata"]["generation"], 2);
    assert_eq!(patched.object["metadata"]["resourceVersion"], real["metadata"]["resourceVersion"]);
    assert_eq!(world.get("web").await.expect("there"), real);
    let refused = world.patch("web", Patch::Merge(json!({"spec": {"live": null}})), &dry).await;
    assert_eq!(refused.expect_err("invalid").code(), 422);
}

#[tokio::test]
async fn apply_creates_conflicts_and_is_forced() {
    let world = World::new().await;
    let as_manager =
        |name: &str, force| WriteOptions { field_manager: name.to_owned(), force, ..world.options.clone() };
    let made = world.patch("web", Patch::Apply(workload("web")), &as_manager("a", false)).await.expect("applied");
    assert!(made.created);
    assert_eq!(made.version.object["spec"]["active"], "Live", "defaulted");
    let owned = &made.version.object["metadata"]["managedFields"][0];
    assert_eq!(owned["operation"], "Apply");
    let expected = json!({"f:spec": {"f:live": {"f:container": {"f:image": {}}}}});
    assert_eq!(owned["fieldsV1"], expected, "defaults are nobody's");
    let mut other = workload("web");
    other["spec"]["live"]["container"]["image"] = json!("caddy");
    let error = world.patch("web", Patch::Apply(other.clone()), &as_manager("b", false)).await.expect_err("conflict");
    assert_eq!(
        (error.code(), error.message.as_str()),
        (409, "Apply failed with 1 conflict: conflict with \"a\": .spec.live.container.image")
    );
    let cause = &error.details.as_ref().expect("details").causes[0];
    assert_eq!((cause.reason, cause.field.as_str()), ("FieldManagerConflict", ".spec.live.container.image"));
    let forced = world.patch("web", Patch::Apply(other), &as_manager("b", true)).await.expect("forced");
    assert!(!forced.created);
    assert_eq!(forced.version.object["metadata"]["generation"], 2);
    let mut unknown = workload("web");
    unknown["spec"]["foo"] = json!(1);
    let error = world.patch("web", Patch::Apply(unknown), &as_manager("b", true)).await.expect_err("unknown");
    assert_eq!((error.code(), error.message.as_str()), (400, "strict decoding error: unknown field \"spec.foo\""));
}

/// A field that an older binary knew is still in the store: whoever patches another one did not write it.
#[tokio::test]
async fn a_patch_is_not_blamed_for_what_is_stored() {
    let world = World::new().await;
    let mut stored = world.create(workload("web")).await.expect("created");
    stored["spec"]["retired"] = json!(true);
    let live = world.registry.get(&world.workloads(), &named("web")).await.expect("there");
    world.registry.store().update(live.key.clone(), stored, live.revision).await.expect("put past the registry");
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    world.patch("web", suspend, &world.options).await.expect("its own fields are known");
    let spec = world.get("web").await.expect("there")["spec"].clone();
    assert_eq!((&spec["suspend"], spec.get("retired")), (&json!(true), None));
}

#[tokio::test]
async fn kubes_finalizer_patch_works() {
    let world = World::new().await;
    world.create(workload("web")).await.expect("created");
    let add = serde_json::from_value(json!([
        {"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "add", "path": "/metadata/finalizers", "value": ["gaia.dev/cleanup"]},
    ]));
    let patched = world.patch("web", Patch::Json(add.expect("operations")), &world.options).await.expect("patched");
    assert_eq!(patched.version.object["metadata"]["finalizers"], json!(["gaia.dev/cleanup"]));
}

#[tokio::test]
async fn the_definitions_of_our_kinds_are_there() {
    let world = World::new().await;
    let kind = world.kind("apiextensions.k8s.io", "CustomResourceDefinition");
    let list = world.registry.list(&kind, None, &ListOptions::default()).await.expect("listed");
    let names: Vec<_> = list.items.iter().map(|v| v.object["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["sources.gaia.dev", "workloads.gaia.dev"]);
    assert_eq!(list.items[0].object["status"]["conditions"][1]["type"], "Established");
    let ours = ObjectName { namespace: None, name: "workloads.gaia.dev".to_owned() };
    let error = world.registry.delete(&kind, &ours, &DeleteOptions::default()).await.expect_err("it is served on");
    assert_eq!(error.code(), 403);
    let before = world.registry.store().revision().await.expect("open");
    let again = World::over(Arc::clone(world.registry.store())).await;
    assert_eq!(again.registry.store().revision().await.expect("open"), before, "opening again writes nothing");
}

#[tokio::test]
async fn secrets_and_namespaces_are_completed() {
    let world = World::new().await;
    let secrets = world.kind("", "Secret");
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "hello"}});
    let made = world.registry.create(&secrets, Some("default"), secret, &world.options).await.expect("created").version;
    assert_eq!((&made.object["data"], &made.object["type"]), (&json!({"a": "aGVsbG8="}), &json!("Opaque")));
    assert_eq!(made.object.get("stringData"), None);
    let namespaces = world.kind("", "Namespace");
    let name = ObjectName { namespace: None, name: "default".to_owned() };
    let found = world.registry.get(&namespaces, &name).await.expect("there");
    assert_eq!(found.object["status"]["phase"], "Active");
    assert_eq!(found.object["metadata"]["labels"]["kubernetes.io/metadata.name"], "default");
}

/// An object that nests deeper than the store reads back would be the end of the next start.
#[tokio::test]
async fn what_is_written_can_be_read_again() {
    let disk = MemoryEngine::default();
    let world = World::over(EmbeddedStore::open(disk.clone(), Options::default()).expect("memory opens")).await;
    let kind = world.kind("apiextensions.k8s.io", "CustomResourceDefinition");
    let name = ObjectName { namespace: None, name: "workloads.gaia.dev".to_owned() };
    let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"a": inner}));
    let write = async |levels: usize| {
        let patch = Patch::Apply(json!({"spec": {"open": nested(levels)}}));
        world.registry.patch(&kind, &name, patch, &world.options).await
    };
    for levels in [99, 125, 1000] {
        let error = write(levels).await.expect_err("too deep");
        assert_eq!(error.code(), 422);
        assert_eq!(error.details.expect("details").causes[0].field, "spec.open");
    }
    let deepest = write(98).await.expect("allowed").version.object.clone();
    world.registry.update(&kind, &name, deepest, &world.options).await.expect("what was read can be written back");
    EmbeddedStore::open(disk, Options::default()).expect("opens again");
}

#[tokio::test]
async fn whole_numbers_are_stored_as_such() {
    let world = World::new().await;
    let mut wish = workload("web");
    wish["spec"]["stopGraceSeconds"] = json!(5.0);
    wish["spec"]["live"]["container"]["ports"] = json!([{"containerPort": 80.0}]);
    let made = world.create(wish).await.expect("created");
    assert_eq!(made["spec"]["stopGraceSeconds"].to_string(), "5");
    assert_eq!(made["spec"]["live"]["container"]["ports"][0]["containerPort"].to_string(), "80");
    let patch = Patch::Merge(json!({"spec": {"stopGraceSeconds": 7.0}}));
    let patched = world.patch("web", patch, &world.options).await.expect("patched").version.object.clone();
    serde_json::from_value::<api::workload::Workload>(patched).expect("its own type reads it");
}
