//! The registry as its callers see it, over the embedded store in memory.

use kube::CustomResourceExt;
use serde_json::json;

use super::*;
use crate::api;

fn kinds() -> Kinds {
    Kinds::from_crds(&[api::workload::Workload::crd(), api::source::Source::crd()])
        .expect("our own kinds are structural")
}

#[test]
fn serves_ours_and_the_builtins() {
    let kinds = kinds();
    let served: Vec<String> = kinds.iter().map(|k| format!("{} {}", k.api_version(), k.plural)).collect();
    assert_eq!(
        served,
        [
            "v1 namespaces",
            "v1 configmaps",
            "v1 secrets",
            "v1 serviceaccounts",
            "v1 events",
            "events.k8s.io/v1 events",
            "coordination.k8s.io/v1 leases",
            "apiextensions.k8s.io/v1 customresourcedefinitions",
            "gaia.dev/v1alpha1 workloads",
            "gaia.dev/v1alpha1 sources",
        ]
    );
}

#[test]
fn rules_of_our_kinds_are_evaluated() {
    let kinds = kinds();
    let kind = kinds.by_kind("gaia.dev", "v1alpha1", "Workload").expect("served");
    let object =
        json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "metadata": {"name": "Web"}, "spec": {}});
    let shown: Vec<String> = kind.rules.check(&object, None, &kind.root).iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "<nil>: Invalid value: \"object\": metadata.name must be a DNS label of at most 50 characters: containers are named after it",
            "spec: Invalid value: \"object\": at least one of live and candidate must be given",
        ]
    );
}
