use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn object(properties: Value) -> Node {
    Node::parse(&json!({"type": "object", "properties": properties})).expect("structural")
}

#[rstest]
#[case::type_(json!({"type": "integer"}), json!("a"), "x: Invalid value: \"string\": x in body must be of type integer: \"string\"")]
#[case::null(json!({"type": "string"}), json!(null), "x: Invalid value: \"null\": x in body must be of type string: \"null\"")]
#[case::fraction(json!({"type": "integer"}), json!(1.5), "x: Invalid value: \"number\": x in body must be of type integer: \"number\"")]
#[case::too_large_to_be_whole(json!({"type": "integer"}), json!(1e30), "x: Invalid value: \"number\": x in body must be of type integer: \"number\"")]
#[case::enumeration(json!({"type": "string", "enum": ["A", "B"]}), json!("C"), "x: Unsupported value: \"C\": supported values: \"A\", \"B\"")]
#[case::minimum(json!({"type": "integer", "minimum": 1.0}), json!(0), "x: Invalid value: 0: x in body should be greater than or equal to 1")]
#[case::maximum(json!({"type": "integer", "maximum": 3}), json!(4), "x: Invalid value: 4: x in body should be less than or equal to 3")]
#[case::exclusive(json!({"type": "number", "minimum": 0, "exclusiveMinimum": true}), json!(0), "x: Invalid value: 0: x in body should be greater than 0")]
#[case::multiple(json!({"type": "integer", "multipleOf": 2}), json!(3), "x: Invalid value: 3: x in body should be a multiple of 2")]
#[case::short(json!({"type": "string", "minLength": 1}), json!(""), "x: Invalid value: \"\": x in body should be at least 1 chars long")]
#[case::long(json!({"type": "string", "maxLength": 2}), json!("abc"), "x: Too long: may not be more than 2 bytes")]
#[case::pattern(json!({"type": "string", "pattern": "^a$"}), json!("b"), "x: Invalid value: \"b\": x in body should match '^a$'")]
#[case::time(json!({"type": "string", "format": "date-time"}), json!("noon"), "x: Invalid value: \"noon\": x in body must be of type date-time: \"noon\"")]
#[case::few(json!({"type": "array", "minItems": 1, "items": {"type": "string"}}), json!([]), "x: Invalid value: 0: x in body should have at least 1 items")]
#[case::many(json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}), json!(["a", "b"]), "x: Too many: 2: must have at most 1 item")]
#[case::set(json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}), json!(["a", "a"]), "x[1]: Duplicate value: \"a\"")]
#[case::keys(
    json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}}}}),
    json!([{"k": "a"}, {"k": "a"}]),
    "x[1]: Duplicate value: map[string]interface {}{\"k\":\"a\"}"
)]
#[case::required(json!({"type": "object", "required": ["y"], "properties": {"y": {"type": "string"}}}), json!({}), "x.y: Required value")]
#[case::item(json!({"type": "array", "items": {"type": "string"}}), json!(["a", 1]), "x[1]: Invalid value: \"integer\": x[1] in body must be of type string: \"integer\"")]
#[case::int_or_string(json!({"x-kubernetes-int-or-string": true}), json!(true), "x: Invalid value: \"boolean\": x in body must be of type integer,string: \"boolean\"")]
#[case::any_of(json!({"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]}), json!(3), "x: Invalid value: 3: \"x\" must validate at least one schema (anyOf)")]
#[case::one_of(json!({"type": "integer", "oneOf": [{"minimum": 1}, {"minimum": 2}]}), json!(3), "x: Invalid value: 3: \"x\" must validate one and only one schema (oneOf). Found 2 valid alternatives")]
#[case::not(json!({"type": "integer", "not": {"minimum": 1}}), json!(3), "x: Invalid value: 3: \"x\" must not validate the schema (not)")]
fn complains_in_upstreams_words(#[case] schema: Value, #[case] value: Value, #[case] complaint: &str) {
    let errors = validate(&json!({"x": value}), &object(json!({"x": schema})));
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [complaint]);
}

#[rstest]
#[case::nullable(json!({"type": "string", "nullable": true}), json!(null))]
#[case::int(json!({"x-kubernetes-int-or-string": true}), json!(8080))]
#[case::string(json!({"x-kubernetes-int-or-string": true}), json!("http"))]
#[case::whole_float(json!({"type": "integer"}), json!(2.0))]
#[case::open(json!({"x-kubernetes-preserve-unknown-fields": true}), json!([1, null, {"a": true}]))]
#[case::unknown_format(json!({"type": "string", "format": "colour"}), json!("x"))]
fn accepts(#[case] schema: Value, #[case] value: Value) {
    assert_eq!(validate(&json!({"x": value}), &object(json!({"x": schema}))), []);
}

#[test]
fn prunes_what_it_does_not_know_and_says_where() {
    let node = object(json!({
        "closed": {"type": "object", "properties": {"a": {"type": "string"}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"inner": {"type": "object", "properties": {}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}},
    }));
    let mut value = json!({
        "closed": {"a": "1", "b": 2}, "open": {"z": 1, "inner": {"z": 1}}, "map": {"k": {"a": "1", "b": 2}},
        "list": [{"a": "1"}, {"b": 2}], "embedded": {"kind": "X", "b": 1}, "extra": 1,
    });
    assert_eq!(prune(&mut value, &node), ["closed.b", "embedded.b", "extra", "list[1].b", "map.k.b", "open.inner.z"]);
    assert_eq!(
        value,
        json!({
            "closed": {"a": "1"}, "open": {"z": 1, "inner": {}}, "map": {"k": {"a": "1"}},
            "list": [{"a": "1"}, {}], "embedded": {"kind": "X"},
        })
    );
}

#[test]
fn defaults_what_is_there_to_be_defaulted() {
    let node = object(json!({
        "a": {"type": "integer", "default": 1},
        "b": {"type": "object", "properties": {"c": {"type": "string", "default": "d"}}},
        "filled": {"type": "object", "default": {}, "properties": {"c": {"type": "string", "default": "d"}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "string", "default": "d"}}}},
        "null": {"type": "integer", "default": 1},
        "nullable": {"type": "integer", "default": 1, "nullable": true},
        "gone": {"type": "string"},
    }));
    let mut value = json!({"list": [{}], "null": null, "nullable": null, "gone": null});
    prune_nulls(&mut value, &node);
    apply_defaults(&mut value, &node);
    assert_eq!(
        value,
        json!({"a": 1, "filled": {"c": "d"}, "list": [{"c": "d"}], "null": 1, "nullable": null}),
        "an absent object is not conjured up, a null that may not be becomes the default or goes"
    );
}

#[rstest]
#[case::no_type(json!({"type": "object", "properties": {"a": {}}}), "openAPIV3Schema.properties[a]: type: Required value: must not be empty for specified fields")]
#[case::reference(json!({"type": "object", "properties": {"a": {"$ref": "#/x"}}}), "openAPIV3Schema.properties[a]: $ref is not supported")]
#[case::keys(json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}), "openAPIV3Schema: x-kubernetes-list-map-keys: Required value")]
fn refuses_what_is_not_structural(#[case] schema: Value, #[case] why: &str) {
    assert_eq!(Node::parse(&schema).expect_err("not structural").to_string(), why);
}

#[test]
fn refuses_endless_nesting() {
    let deep =
        (0..100).fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"a": inner}}));
    assert!(Node::parse(&deep).expect_err("too deep").why.contains("deeper"));
}
