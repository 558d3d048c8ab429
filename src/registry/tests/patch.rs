//! Patches through the whole pipeline: merge, JSON, strategic and apply, and who owns what afterwards.

use rstest::rstest;
use serde_json::{Value, json};

use crate::registry::{Kind, Patch, patch::apply};

fn kind(group: &str, version: &str, kind: &str) -> std::sync::Arc<Kind> {
    super::kinds().by_kind(group, version, kind).expect("served")
}

fn json_patch(operations: Value) -> Patch {
    Patch::Json(serde_json::from_value(operations).expect("operations"))
}

#[rstest]
#[case::add(json!([{"op": "add", "path": "/a/b", "value": 1}]), Some(json!({"a": {"b": 1}})))]
#[case::absent_is_null(json!([{"op": "test", "path": "/a/none", "value": null}, {"op": "add", "path": "/a/none", "value": []}]), Some(json!({"a": {"none": []}})))]
#[case::absent_is_not_1(json!([{"op": "test", "path": "/a/none", "value": 1}]), None)]
#[case::remove_absent(json!([{"op": "remove", "path": "/x"}]), None)]
#[case::later_test_sees_earlier_add(json!([{"op": "add", "path": "/b", "value": 1}, {"op": "test", "path": "/b", "value": 1}]), Some(json!({"a": {}, "b": 1})))]
fn json_patches(#[case] operations: Value, #[case] expected: Option<Value>) {
    let made = apply(&kind("gaia.dev", "v1alpha1", "Workload"), json!({"a": {}}), &json_patch(operations));
    match (made, expected) {
        (Ok(made), Some(expected)) => assert_eq!(made, expected),
        (Err(error), None) => assert_eq!(
            (error.code(), error.message.as_str()),
            (422, "the server rejected our request due to an error in our request")
        ),
        (made, expected) => panic!("{made:?} where {expected:?} was expected"),
    }
}

#[test]
fn merge_patches_remove_with_null() {
    let made = apply(
        &kind("gaia.dev", "v1alpha1", "Workload"),
        json!({"a": 1, "b": {"c": 1, "d": [1, 2]}}),
        &Patch::Merge(json!({"a": null, "b": {"d": [3]}})),
    );
    assert_eq!(made.expect("a patch"), json!({"b": {"c": 1, "d": [3]}}));
}

#[test]
fn strategic_patches_are_for_builtin_kinds() {
    let patch = Patch::Strategic(json!({"data": {"a": "1", "$retainKeys": ["a"]}, "$setElementOrder/x": []}));
    let made = apply(&kind("", "v1", "ConfigMap"), json!({"data": {"b": "2"}}), &patch);
    assert_eq!(made.expect("a patch"), json!({"data": {"a": "1", "b": "2"}}));
    let error = apply(&kind("gaia.dev", "v1alpha1", "Workload"), json!({}), &patch).expect_err("no strategy known");
    assert_eq!(error.code(), 415);
    assert!(error.message.starts_with("the body of the request was in an unknown format - accepted media types"));
}
