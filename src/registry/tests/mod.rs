//! The registry as its callers see it, over the embedded store in memory.

mod definitions;
mod deletes;
mod patch;
mod reads;
mod sizes;
mod status;
mod writes;

use kube::CustomResourceExt;
use serde_json::json;

use super::*;
use crate::{
    api,
    runtime::clock::SimulatedClock,
    store::{EmbeddedStore, MemoryEngine, Options, Watch},
};

/// Read once: compiling rules takes its time.
pub(super) fn kinds() -> Kinds {
    static KINDS: std::sync::LazyLock<Kinds> = std::sync::LazyLock::new(|| {
        Kinds::from_crds(&[api::workload::Workload::crd(), api::source::Source::crd()])
            .expect("our own kinds are structural")
    });
    KINDS.clone()
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
    let object = json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "metadata": {"name": "Web"}, "spec": {"active": "Live"}});
    let shown: Vec<String> = kind.rules.check(&object, None, &kind.root).iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "<nil>: Invalid value: \"object\": metadata.name must be a DNS label of at most 50 characters: containers are named after it",
            "spec: Invalid value: \"object\": at least one of live and candidate must be given",
        ]
    );
}

/// A registry in memory, whose time moves with tokio's, and the requests of a client.
struct World {
    registry: Arc<Registry>,
    options: WriteOptions,
}

impl World {
    async fn new() -> Self {
        let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("memory opens");
        Self::over(store).await
    }

    async fn over(store: Arc<dyn Store>) -> Self {
        let start = "2026-01-01T00:00:00Z".parse().expect("a time");
        let clock = Arc::new(SimulatedClock::starting_at(start));
        let ids = Arc::new(SeededIds::new(1));
        let registry = Registry::open(store, kinds(), clock, ids).await.expect("opens");
        let options = WriteOptions { field_manager: "test".to_owned(), ..WriteOptions::default() };
        Self { registry, options }
    }

    fn kind(&self, group: &str, kind: &str) -> Arc<Kind> {
        let kinds = self.registry.kinds();
        let found = kinds.iter().find(|k| k.group == group && k.kind == kind).cloned();
        found.expect("served")
    }

    fn workloads(&self) -> Arc<Kind> {
        self.kind("gaia.dev", "Workload")
    }

    async fn create(&self, object: Value) -> ApiResult<Value> {
        let written = self.registry.create(&self.workloads(), Some("default"), object, &self.options).await?;
        assert!(written.created);
        Ok(written.version.object.clone())
    }

    async fn update(&self, object: Value) -> ApiResult<Value> {
        let name = ObjectName::of(&object);
        let written = self.registry.update(&self.workloads(), &name, object, &self.options).await?;
        Ok(written.version.object.clone())
    }

    async fn update_status(&self, object: Value) -> ApiResult<Value> {
        let options = WriteOptions { subresource: Subresource::Status, ..self.options.clone() };
        let name = ObjectName::of(&object);
        let written = self.registry.update(&self.workloads(), &name, object, &options).await?;
        Ok(written.version.object.clone())
    }

    async fn patch(&self, name: &str, patch: Patch, options: &WriteOptions) -> ApiResult<Written> {
        self.registry.patch(&self.workloads(), &named(name), patch, options).await
    }

    async fn get(&self, name: &str) -> ApiResult<Value> {
        Ok(self.registry.get(&self.workloads(), &named(name)).await?.object.clone())
    }

    async fn delete(&self, name: &str, options: &DeleteOptions) -> ApiResult<Deleted> {
        self.registry.delete(&self.workloads(), &named(name), options).await
    }
}

fn named(name: &str) -> ObjectName {
    ObjectName { namespace: Some("default".to_owned()), name: name.to_owned() }
}

fn workload(name: &str) -> Value {
    json!({
        "apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "metadata": {"name": name, "namespace": "default"},
        "spec": {"live": {"container": {"image": "nginx"}}},
    })
}
