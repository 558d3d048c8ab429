use rstest::rstest;

use super::*;

const GOOD: &str = "apiVersion: mloc/v1
kind: EchoTask
metadata: {name: echo-demo}
spec:
  taskType: echo
  resources: {replicas: 1, hardware: {cpu: \"1\", memory: 1Gi}}
";

fn without(path: &str) -> Value {
    let mut document = parse(GOOD).expect("YAML");
    let (parent, key) = path.rsplit_once('.').map_or((None, path), |(parent, key)| (Some(parent), key));
    let mut place = &mut document;
    for key in parent.into_iter().flat_map(|parent| parent.split('.')) {
        place = &mut place[key];
    }
    place.as_object_mut().expect("a map").remove(key);
    document
}

fn with(path: &str, value: Value) -> Value {
    let mut document = parse(GOOD).expect("YAML");
    let mut place = &mut document;
    for key in path.split('.') {
        place = &mut place[key];
    }
    *place = value;
    document
}

fn complaint<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
    result.expect_err("must be refused").0
}

#[rstest]
#[case("apiVersion")]
#[case("kind")]
#[case("metadata.name")]
#[case("spec.taskType")]
#[case("spec.resources.replicas")]
#[case("spec.resources.hardware.cpu")]
#[case("spec.resources.hardware.memory")]
fn a_field_that_is_missing_is_named(#[case] path: &str) {
    assert_eq!(complaint(check(&without(path))), format!("Missing required field: {path}"));
}

#[rstest]
#[case("")]
#[case("just text")]
#[case("- a\n- list")]
#[case("kind: EchoTask")]
fn the_first_missing_field_counts(#[case] text: &str) {
    assert_eq!(complaint(check(&parse(text).expect("YAML"))), "Missing required field: apiVersion");
}

#[test]
fn a_gpu_has_count_and_type_or_is_nothing() {
    let gpu = |value| check(&with("spec.resources.hardware.gpu", value));
    assert_eq!(complaint(gpu(json!({"type": "any"}))), "Missing spec.resources.hardware.gpu.count");
    assert_eq!(complaint(gpu(json!({"count": 1}))), "Missing spec.resources.hardware.gpu.type");
    assert_eq!(complaint(gpu(json!("a100"))), "Missing spec.resources.hardware.gpu.count");
    assert_eq!(gpu(json!({"count": 1, "type": "any"})), Ok(()));
    assert_eq!(gpu(json!({})), Ok(()));
    assert_eq!(gpu(json!(null)), Ok(()));
}

#[test]
fn several_documents_are_a_fault_of_syntax() {
    let text = complaint(parse(&format!("{GOOD}---\n{GOOD}")));
    assert!(text.starts_with("Invalid YAML: expected a single document in the stream"), "{text}");
    let text = complaint(parse("a: [1"));
    assert!(text.starts_with("Invalid YAML: "), "{text}");
}

#[test]
fn yaml_is_read_as_its_users_write_it() {
    let read = parse("base: &b {x: 1}\nmerged: {<<: *b, y: 2}\ntwice: 1\ntwice: 2\nyes: yes\n1: a\n").expect("YAML");
    assert_eq!(read, json!({"base": {"x": 1}, "merged": {"x": 1, "y": 2}, "twice": 2, "yes": true, "1": "a"}));
}

#[rstest]
#[case("spec", json!([1]), "spec must be a map")]
#[case("metadata.name", json!(null), "metadata.name must be a text that is not empty")]
#[case("spec.taskType", json!({}), "spec.taskType must be a text that is not empty")]
#[case("spec.resources.replicas", json!("some"), "spec.resources.replicas must be a whole number from 1 to 1024")]
#[case("spec.resources.replicas", json!(0), "spec.resources.replicas must be a whole number from 1 to 1024")]
#[case("spec.resources.hardware.cpu", json!("abc"), "spec.resources.hardware.cpu must be an amount of cores such as 8, 1.5 or 500m")]
#[case("spec.resources.hardware.memory", json!("lots"), "spec.resources.hardware.memory must be an amount of memory such as 16Gi or 64GB")]
#[case("spec.resources.hardware.gpu", json!({"count": "x", "type": "any"}), "spec.resources.hardware.gpu.count must be a whole number from 0 to 1024")]
#[case("spec.parallel", json!("on"), "spec.parallel must be a map")]
#[case("spec.parallel", json!({"enabled": "yes"}), "spec.parallel.enabled must be true or false")]
fn what_cannot_be_read_is_refused_with_its_path(#[case] path: &str, #[case] value: Value, #[case] expected: &str) {
    assert_eq!(complaint(normal(with(path, value))), expected);
}

#[test]
fn fields_have_one_form_and_the_rest_stays() {
    let hardware = json!({"cpu": 1.5, "memory": 68_719_476_736u64, "gpu": {"count": "2", "type": null, "x": null}});
    let mut document = with("spec.resources.hardware", hardware);
    document["metadata"]["name"] = json!(7);
    document["spec"]["resources"]["replicas"] = json!(null);
    document["spec"]["anything"] = json!({"else": [null, 1.5]});
    let normal = normal(document).expect("readable");
    assert_eq!(normal["metadata"]["name"], "7");
    assert_eq!(
        normal["spec"]["resources"],
        json!({"hardware": {"cpu": "1.5", "memory": "68719476736", "gpu": {"count": 2, "x": null}}})
    );
    assert_eq!(normal["spec"]["anything"], json!({"else": [null, 1.5]}));
}
