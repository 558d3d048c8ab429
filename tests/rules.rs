//! Every validation rule of our kinds: it compiles, one object passes it, and one fails it and nothing else.

mod common;

use std::collections::BTreeSet;

use common::{kinds::minimal, rules::CASES};
use gaia::api;
use kube_cel::{CompiledSchema, Validator, compile_schema};
use serde_json::{Value, json};

#[test]
fn every_rule_compiles() {
    for (kind, schema) in schemas() {
        let mut errors = Vec::new();
        collect_errors(&compile_schema(&schema), &mut errors);
        assert!(errors.is_empty(), "{kind}: {}", errors.join("\n"));
    }
}

fn collect_errors(schema: &CompiledSchema, errors: &mut Vec<String>) {
    errors.extend(schema.compilation_errors().into_iter().map(ToString::to_string));
    let children =
        schema.properties.values().chain(schema.items.as_deref()).chain(schema.additional_properties.as_deref());
    for child in children {
        collect_errors(child, errors);
    }
}

#[test]
fn every_rule_has_a_case_and_every_case_a_rule() {
    let said: BTreeSet<_> = schemas().iter().flat_map(|(kind, schema)| messages(kind, schema)).collect();
    let proven: BTreeSet<_> = CASES.iter().map(|case| (case.kind.to_owned(), case.message.to_owned())).collect();
    let missing: Vec<_> = said.difference(&proven).collect();
    assert!(missing.is_empty(), "no case in tests/common/rules.rs for {missing:#?}");
    let stale: Vec<_> = proven.difference(&said).collect();
    assert!(stale.is_empty(), "no such rule any more: {stale:#?}");
}

/// The messages of all rules in a schema. Two rules of one kind may share theirs when they say the same of two places.
fn messages(kind: &str, schema: &Value) -> Vec<(String, String)> {
    match schema {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("x-kubernetes-validations", Value::Array(rules)) => rules
                    .iter()
                    .map(|rule| (kind.to_owned(), rule["message"].as_str().unwrap_or_default().to_owned()))
                    .collect(),
                _ => messages(kind, value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| messages(kind, item)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn rules_tell_good_from_bad() {
    let schemas = schemas();
    for case in CASES {
        let schema = &schemas.iter().find(|(kind, _)| kind == case.kind).expect("a kind of ours").1;
        let old = case.old.map(|spec| case.object(spec));
        let found = |spec: &str| -> Vec<String> {
            let outcome = Validator::new().validate(schema, &case.object(spec), old.as_ref());
            outcome.err().map(|e| e.into_vec()).unwrap_or_default().into_iter().map(|e| e.message).collect()
        };
        assert_eq!(found(case.good), Vec::<String>::new(), "{}: {}", case.kind, case.good);
        assert_eq!(found(case.bad), vec![case.message.to_owned()], "{}: {}", case.kind, case.bad);
    }
}

#[test]
fn the_smallest_object_of_each_kind_is_valid() {
    for (kind, schema) in schemas() {
        let outcome = Validator::new().validate(&schema, &minimal(&kind), None);
        assert!(outcome.is_ok(), "{kind}: {outcome:?}");
    }
}

fn schemas() -> Vec<(String, Value)> {
    let schema_of =
        |crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
            json!(crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()))
        };
    api::crds().iter().map(|crd| (crd.spec.names.kind.clone(), schema_of(crd))).collect()
}
