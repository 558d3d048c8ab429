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

/// Before the bounds each of the first three took the process down: by its memory, or by its stack.
#[rstest]
#[case::doubled(doubling(), 413, "The allowed maximum that a JSON patch copies is 3145728 bytes")]
#[case::nested_into_itself(nesting(), 422, "b.b: Invalid value: \"object\": must not be nested deeper than 100 levels")]
#[case::nested_bit_by_bit(
    (0..9).map(|n| json!({"op": "add", "path": "/b".repeat(20 * n + 1), "value": nested(20)})).collect(),
    422,
    "b.b: Invalid value: \"object\": must not be nested deeper than 100 levels"
)]
#[case::too_many(
    vec![json!({"op": "test", "path": "/none", "value": null}); 10_001],
    413,
    "The allowed maximum operations in a JSON patch is 10000, got 10001"
)]
fn a_patch_cannot_grow_an_object_without_bound(#[case] operations: Vec<Value>, #[case] code: u16, #[case] why: &str) {
    let live = json!({"a": ["x".repeat(64)], "b": {}});
    let made = apply(&kind("gaia.dev", "v1alpha1", "Workload"), live, &json_patch(operations.into()));
    let error = made.expect_err("without bound");
    assert_eq!(error.code(), code);
    assert!(error.message.ends_with(why), "{}", error.message);
}

fn doubling() -> Vec<Value> {
    vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 64]
}

fn nesting() -> Vec<Value> {
    (0..17).map(|n| json!({"op": "copy", "from": "/b", "path": "/b".repeat((1 << n) + 1)})).collect()
}

/// `{"b": {"b": …}}`
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, _| json!({"b": inner}))
}

#[rstest]
#[case::sets_are_united(
    json!({"metadata": {"finalizers": ["a"]}}), json!({"metadata": {"finalizers": ["b", "a"]}}),
    json!({"metadata": {"finalizers": ["a", "b"]}})
)]
#[case::members_are_removed_by_name(
    json!({"metadata": {"finalizers": ["a", "b"]}}),
    json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"]}}),
    json!({"metadata": {"finalizers": ["b"]}})
)]
#[case::lists_with_keys_merge_item_by_item(
    json!({"secrets": [{"name": "a", "uid": "1"}, {"name": "b"}]}),
    json!({"secrets": [{"name": "a", "uid": "2"}, {"name": "b", "$patch": "delete"}, {"name": "c"}]}),
    json!({"secrets": [{"name": "a", "uid": "2"}, {"name": "c"}]})
)]
#[case::a_list_is_replaced_on_demand(
    json!({"secrets": [{"name": "a"}]}), json!({"secrets": [{"$patch": "replace"}, {"name": "c"}]}),
    json!({"secrets": [{"name": "c"}]})
)]
#[case::a_map_is_replaced_on_demand(
    json!({"metadata": {"labels": {"a": "1"}}}), json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
    json!({"metadata": {"labels": {"b": "2"}}})
)]
#[case::null_removes(
    json!({"metadata": {"labels": {"a": "1", "b": "2"}}}), json!({"metadata": {"labels": {"a": null}}}),
    json!({"metadata": {"labels": {"b": "2"}}})
)]
fn strategic_patches_know_how_lists_merge(#[case] object: Value, #[case] patch: Value, #[case] expected: Value) {
    let made = apply(&kind("", "v1", "ServiceAccount"), object, &Patch::Strategic(patch));
    assert_eq!(made.expect("a patch"), expected);
}
