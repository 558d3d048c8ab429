//! Every validation rule of our kinds: it compiles, one object passes it, and one fails it and nothing else.

mod common;

use std::{collections::BTreeSet, sync::Arc};

use common::{kinds::minimal, rules::CASES};
use gaia::{
    api,
    registry::{DeleteOptions, Kinds, ObjectName, RandomIds, Reason, Registry, WriteOptions},
    runtime::clock::SystemClock,
    store::{EmbeddedStore, MemoryEngine, Options},
};
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

async fn registry() -> Arc<Registry> {
    let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("an empty disk");
    let kinds = Kinds::from_crds(&api::crds()).expect("our own kinds are structural, and their rules compile");
    Registry::open(store, kinds, Arc::new(SystemClock), Arc::new(RandomIds)).await.expect("an empty store")
}

fn options() -> WriteOptions {
    WriteOptions { field_manager: "test".to_owned(), ..WriteOptions::default() }
}

#[tokio::test]
async fn the_registry_takes_the_smallest_object_of_each_kind() {
    let registry = registry().await;
    for crd in api::crds() {
        let kind = registry.kinds().by_kind(api::GROUP, api::VERSION, &crd.spec.names.kind).expect("served");
        let namespace = kind.namespaced.then_some("default");
        let written = registry.create(&kind, namespace, minimal(&kind.kind), &options()).await;
        let written = written.unwrap_or_else(|error| panic!("{}: {error}", kind.kind));
        assert_eq!(written.warnings, Vec::<String>::new(), "{}", kind.kind);
        // Defaults filled in, it is as valid as before.
        let full = written.version.object.clone();
        let again = registry.update(&kind, &ObjectName::of(&full), full, &options()).await;
        again.unwrap_or_else(|error| panic!("{}, with its defaults: {error}", kind.kind));
    }
}

#[tokio::test]
async fn the_registry_tells_good_from_bad() {
    let registry = registry().await;
    for case in CASES {
        let kind = registry.kinds().by_kind(api::GROUP, api::VERSION, case.kind).expect("served");
        let namespace = kind.namespaced.then_some("default");
        let mut outcomes = Vec::new();
        for patch in [case.good, case.bad] {
            let object = case.object(patch);
            let mut name = ObjectName::of(&object);
            name.namespace = namespace.map(str::to_owned);
            outcomes.push(match case.old {
                None => registry.create(&kind, namespace, object, &options()).await,
                Some(old) => {
                    registry
                        .create(&kind, namespace, case.object(old), &options())
                        .await
                        .expect("the old one is valid");
                    registry.update(&kind, &name, object, &options()).await
                }
            });
            if case.old.is_some() || outcomes.last().is_some_and(Result::is_ok) {
                registry.delete(&kind, &name, &DeleteOptions::default()).await.expect("it is there");
            }
        }
        let bad = outcomes.pop().expect("two").expect_err(case.bad);
        assert_eq!(bad.reason, Reason::Invalid, "{}: {}: {bad}", case.kind, case.bad);
        assert!(bad.message.contains(case.message), "{}: {}: {bad}", case.kind, case.bad);
        if let Err(error) = outcomes.pop().expect("two") {
            panic!("{}: {}: {error}", case.kind, case.good);
        }
    }
}

fn schemas() -> Vec<(String, Value)> {
    let schema_of =
        |crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
            json!(crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()))
        };
    api::crds().iter().map(|crd| (crd.spec.names.kind.clone(), schema_of(crd))).collect()
}
