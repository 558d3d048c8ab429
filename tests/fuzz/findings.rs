//! What was found, by a case or by looking at why there was none: each a row with the input that showed it.

use rstest::rstest;
use serde_json::json;

use crate::{harness::one_case, targets};

type Run = fn(&[u8]);

const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
const CONFIG_MAP: &str = "/api/v1/namespaces/default/configmaps/one";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn request(line: &str, media: &str, body: &str) -> Vec<u8> {
    format!("{line}\ncontent-type: {media}\n\n{body}").into_bytes()
}

fn json(line: &str, body: &str) -> Vec<u8> {
    request(line, "application/json", body)
}

fn listed(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

/// Each of many values was noted with the whole path to it: a body of 3 MB kept a processor busy for minutes.
fn long_key(values: usize) -> String {
    format!("{{\"{}\":[{}]}}", "k".repeat(1_000_000), vec!["0"; values].join(","))
}

/// YAML bounds keys and their depth, and leaves paths of so much.
fn long_keys(values: usize) -> String {
    let keys: String = (0..50).map(|_| format!("{{{}: ", "k".repeat(900))).collect();
    format!("{keys}[{}]{}", vec!["0"; values].join(","), "}".repeat(50))
}

/// A definition as in the samples, with something else in it.
fn definition(schema: serde_json::Value, column: &str, replicas: &str) -> String {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"scale": {"specReplicasPath": replicas, "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "X", "type": "string", "jsonPath": column}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": schema}}},
            }],
        },
    })
    .to_string()
}

/// No directory can be called so: it was answered with 500.
fn long_id() -> Vec<u8> {
    let body = json!({"task_id": "e".repeat(300), "result": {}}).to_string();
    let token = targets::TOKEN;
    let head = format!(
        "POST /api/v1/results HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}"
    );
    format!("{head}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn rule(rule: &str) -> serde_json::Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [{"rule": rule}]})
}

#[rstest]
#[case::long_key_in_json(targets::json_body, json("POST /api/v1/namespaces/default/configmaps", &long_key(900_000)))]
#[case::long_key_kept(targets::json_body, json(&format!("POST {WIDGETS}"), &format!("{{\"metadata\":{{\"name\":\"k\"}},\"spec\":{{\"maps\":{}}}}}", long_key(500_000))))]
#[case::long_keys_in_yaml(targets::desired_yaml, long_keys(200_000).into_bytes())]
#[case::deep_yaml(targets::desired_yaml, format!("{}1{}", "[".repeat(63), "]".repeat(63)).into_bytes())]
#[case::deep_yaml_in_blocks(targets::desired_yaml, (0..63).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>().into_bytes())]
#[case::long_key_applied(targets::patch, request(&format!("PATCH {WIDGETS}/k?fieldManager=a"), "application/apply-patch+yaml", &format!("{{\"spec\":{{\"maps\":{}}}}}", long_key(100_000))))]
#[case::line_break_in_a_version(targets::desired_yaml, b"{\"apiVersion\":\"\\r\\n\",\"kind\":t,\"metadata\":{\"name\":e}}".to_vec())]
#[case::many_finalizers(targets::patch, request(&format!("PATCH {CONFIG_MAP}"), "application/strategic-merge-patch+json",
    &format!("{{\"metadata\":{{\"finalizers\":[{}]}}}}", listed(60_000, |n| format!("\"a/{n}\"")))))]
#[case::many_owners(targets::patch, request(&format!("PATCH {CONFIG_MAP}"), "application/strategic-merge-patch+json",
    &format!("{{\"metadata\":{{\"ownerReferences\":[{}]}}}}", listed(60_000, |n| format!("{{\"uid\":\"{n}\",\"name\":\"a\",\"kind\":\"b\",\"apiVersion\":\"v1\"}}")))))]
#[case::many_mistakes(targets::json_body, json("POST /api/v1/namespaces/default/configmaps",
    &format!("{{\"metadata\":{{\"name\":\"m\",\"finalizers\":[{}]}}}}", listed(700_000, |_| "\"/\"".to_owned()))))]
#[case::many_duplicates(targets::json_body, json("POST /api/v1/namespaces/default/configmaps?fieldValidation=Strict",
    &format!("{{{}}}", listed(400_000, |_| "\"a\":1".to_owned()))))]
#[case::many_moves(targets::patch, request(&format!("PATCH {WIDGETS}/one"), "application/json-patch+json",
    &format!("[{{\"op\":\"add\",\"path\":\"/spec/free/a\",\"value\":[{}]}},{}]", vec!["0"; 700_000].join(","),
        listed(9_000, |_| "{\"op\":\"move\",\"from\":\"/spec/free/a/0\",\"path\":\"/spec/free/a/1\"}".to_owned()))))]
#[case::deep_rule(targets::json_body, json(&format!("POST {DEFINITIONS}"), &definition(rule(&format!("{}true{}", "(".repeat(20_000), ")".repeat(20_000))), ".spec.x", ".spec.x")))]
#[case::long_rule(targets::json_body, json(&format!("POST {DEFINITIONS}"), &definition(rule(&vec!["true"; 20_000].join(" && ")), ".spec.x", ".spec.x")))]
#[case::deep_column(targets::json_body, json(&format!("POST {DEFINITIONS}"), &definition(rule("true"), &format!(".spec[?({}@.a{})]", "(".repeat(20_000), ")".repeat(20_000)), ".spec.x")))]
#[case::large_pattern(targets::json_body, json(&format!("POST {DEFINITIONS}"), &definition(json!({"type": "string", "pattern": "((a{100}){100}){100}"}), ".spec.x", ".spec.x")))]
#[case::scale_of_nothing(scale_of, definition(rule("true"), ".spec.x", "").into_bytes())]
#[case::scale_of_metadata(scale_of, definition(rule("true"), ".spec.x", ".metadata").into_bytes())]
#[case::scale_of_the_version(scale_of, definition(rule("true"), ".spec.x", ".metadata.resourceVersion").into_bytes())]
#[case::variables_of_variables(targets::compose_file, variables())]
#[case::one_large_variable(targets::compose_file, large_variable())]
#[case::id_longer_than_a_name(targets::tasks_facade, long_id())]
#[case::id_that_is_no_ascii(targets::docker_events, "\n%%\n{\"Id\":\"0123456789aéé\",\"Name\":\"/one\",\"State\":{\"Status\":\"running\"},\"NetworkSettings\":{\"Networks\":{\"n\":{\"Aliases\":[\"x\"]}}}}\n%%\n{}".as_bytes().to_vec())]
fn stays_found(#[case] run: Run, #[case] input: Vec<u8>) {
    one_case(run, input);
}

/// A definition, an object of its kind, and its scale set.
fn scale_of(definition: &[u8]) {
    let definition = String::from_utf8_lossy(definition);
    targets::json_body(&json(&format!("POST {DEFINITIONS}"), &definition));
    let things = "/apis/example.com/v1/namespaces/default/things";
    targets::json_body(&json(&format!("POST {things}"), "{\"metadata\":{\"name\":\"one\"},\"spec\":{\"x\":1}}"));
    let wish = "{\"metadata\":{\"resourceVersion\":\"1\",\"uid\":\"u\"},\"spec\":{\"replicas\":3}}";
    targets::json_body(&json(&format!("PUT {things}/one/scale"), wish));
    targets::patch(&request(&format!("PATCH {things}/one/scale"), "application/merge-patch+json", wish));
}

/// Ten to the tenth characters out of a kilobyte.
fn variables() -> Vec<u8> {
    let lines: String =
        (1..11).map(|level| format!("V{level}={}\n", format!("${{V{}}}", level - 1).repeat(10))).collect();
    format!("services: {{a: {{image: \"${{V10}}\"}}}}\n%% /srv/stack/.env\nV0=0123456789\n{lines}").into_bytes()
}

/// One value in many places.
fn large_variable() -> Vec<u8> {
    let places = listed(20_000, |n| format!("\"k{n}\": $V"));
    format!("services: {{a: {{image: i, environment: {{{places}}}}}}}\n%% /srv/stack/.env\nV={}\n", "x".repeat(100_000))
        .into_bytes()
}
