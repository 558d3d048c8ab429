//! Deleting: finalizers, propagation, namespaces, and what collects the rest.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};

use super::*;
use crate::store::{Key, Prefix, Snapshot, StoreError, StoreResult};

fn with_finalizer(name: &str) -> Value {
    let mut wish = workload(name);
    wish["metadata"]["finalizers"] = json!(["gaia.dev/cleanup"]);
    wish
}

fn owned_by(name: &str, owner: &Value) -> Value {
    let mut wish = workload(name);
    wish["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true,
    }]);
    wish
}

#[tokio::test]
async fn without_finalizers_it_is_gone_at_once() {
    let world = World::new().await;
    let made = world.create(workload("web")).await.expect("created");
    let deleted = world.delete("web", &DeleteOptions::default()).await.expect("deleted");
    let Deleted::Gone(version) = deleted else { panic!("{deleted:?} though nothing holds it") };
    assert_eq!(version.object["metadata"]["uid"], made["metadata"]["uid"]);
    assert_ne!(version.object["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(world.delete("web", &DeleteOptions::default()).await.expect_err("gone").code(), 404);
}

#[tokio::test]
async fn a_finalizer_holds_it_until_it_is_removed() {
    let world = World::new().await;
    world.create(with_finalizer("web")).await.expect("created");
    let deleted = world.delete("web", &DeleteOptions::default()).await.expect("deleted");
    let Deleted::Pending(version) = deleted else { panic!("{deleted:?} though a finalizer holds it") };
    let metadata = &version.object["metadata"];
    assert_eq!(metadata["deletionTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!((&metadata["deletionGracePeriodSeconds"], &metadata["generation"]), (&json!(0), &json!(2)));
    let Deleted::Pending(again) = world.delete("web", &DeleteOptions::default()).await.expect("deleted") else {
        panic!("still held")
    };
    assert_eq!(again.revision, version.revision, "deleting twice changes nothing");
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["gaia.dev/cleanup", "gaia.dev/more"]}}));
    let error = world.patch("web", more, &world.options).await.expect_err("no new ones");
    assert_eq!(
        error.message,
        "Workload.gaia.dev \"web\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"gaia.dev/more\"}"
    );
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.patch("web", none, &world.options).await.expect("the last one");
    assert_eq!(world.get("web").await.expect_err("gone").code(), 404);
}

#[tokio::test]
async fn preconditions_are_held() {
    let world = World::new().await;
    world.create(workload("web")).await.expect("created");
    let other = DeleteOptions { uid: Some("other".to_owned()), ..DeleteOptions::default() };
    let error = world.delete("web", &other).await.expect_err("another object");
    assert!(error.message.contains("Precondition failed: UID in precondition: other"), "{}", error.message);
    let stale = DeleteOptions { resource_version: Some(Revision(1)), ..DeleteOptions::default() };
    assert_eq!(world.delete("web", &stale).await.expect_err("stale").code(), 409);
    let dry = DeleteOptions { dry_run: true, ..DeleteOptions::default() };
    world.delete("web", &dry).await.expect("would be deleted");
    world.get("web").await.expect("still there");
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner() {
    let world = World::new().await;
    let owner = world.create(workload("owner")).await.expect("created");
    world.create(owned_by("child", &owner)).await.expect("created");
    assert_eq!(world.registry.collect_garbage().await.expect("collected"), 0);
    world.delete("owner", &DeleteOptions::default()).await.expect("deleted");
    assert_eq!(world.registry.collect_garbage().await.expect("collected"), 1);
    assert_eq!(world.get("child").await.expect_err("gone").code(), 404);
}

#[tokio::test]
async fn foreground_waits_for_the_children() {
    let world = World::new().await;
    let owner = world.create(workload("owner")).await.expect("created");
    world.create(owned_by("child", &owner)).await.expect("created");
    let options = DeleteOptions { propagation: Propagation::Foreground, ..DeleteOptions::default() };
    assert!(matches!(world.delete("owner", &options).await.expect("deleted"), Deleted::Pending(_)));
    assert_eq!(world.registry.collect_garbage().await.expect("collected"), 1);
    assert_eq!(world.get("child").await.expect_err("gone").code(), 404);
    world.get("owner").await.expect("still there");
    assert_eq!(world.registry.collect_garbage().await.expect("collected"), 1);
    assert_eq!(world.get("owner").await.expect_err("gone").code(), 404);
}

#[tokio::test]
async fn orphans_stay() {
    let world = World::new().await;
    let owner = world.create(workload("owner")).await.expect("created");
    world.create(owned_by("child", &owner)).await.expect("created");
    let options = DeleteOptions { propagation: Propagation::Orphan, ..DeleteOptions::default() };
    world.delete("owner", &options).await.expect("deleted");
    while world.registry.collect_garbage().await.expect("collected") > 0 {}
    assert_eq!(world.get("owner").await.expect_err("gone").code(), 404);
    assert_eq!(
        world.get("child").await.expect("stays")["metadata"]["ownerReferences"],
        Value::Null,
        "none, as upstream"
    );
}

#[tokio::test]
async fn a_namespace_is_emptied_first() {
    let world = World::new().await;
    let kind = world.kind("", "Namespace");
    let name = |name: &str| ObjectName { namespace: None, name: name.to_owned() };
    world.registry.create(&kind, None, json!({"metadata": {"name": "team"}}), &world.options).await.expect("created");
    let mut wish = workload("web");
    wish["metadata"]["namespace"] = json!("team");
    world.registry.create(&world.workloads(), Some("team"), wish.clone(), &world.options).await.expect("created");
    let deleted = world.registry.delete(&kind, &name("team"), &DeleteOptions::default()).await.expect("deleted");
    let Deleted::Pending(version) = deleted else { panic!("it is not empty") };
    assert_eq!(version.object["status"]["phase"], "Terminating");
    wish["metadata"]["name"] = json!("late");
    let error =
        world.registry.create(&world.workloads(), Some("team"), wish, &world.options).await.expect_err("too late");
    assert_eq!(
        (error.code(), error.message.as_str()),
        (
            403,
            "workloads.gaia.dev \"late\" is forbidden: unable to create new content in namespace team because it is being terminated"
        )
    );
    while world.registry.collect_garbage().await.expect("collected") > 0 {}
    assert_eq!(world.registry.get(&kind, &name("team")).await.expect_err("gone").code(), 404);
    let error = world.registry.delete(&kind, &name("default"), &DeleteOptions::default()).await.expect_err("protected");
    assert_eq!(error.message, "namespaces \"default\" is forbidden: this namespace may not be deleted");
}

#[tokio::test(start_paused = true)]
async fn the_collector_acts_on_news_and_stops_when_told() {
    let world = World::new().await;
    let owner = world.create(workload("owner")).await.expect("created");
    world.create(owned_by("child", &owner)).await.expect("created");
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn({
        let (registry, stop) = (Arc::clone(&world.registry), stop.clone());
        async move { registry.run_collector(stop).await }
    });
    let from = world.registry.store().revision().await.expect("open");
    let mut watch = world.registry.watch(&world.workloads(), None, from).await.expect("watched");
    world.delete("owner", &DeleteOptions::default()).await.expect("deleted");
    let gone = async {
        let mut seen = 0;
        while seen < 2 {
            seen += watch.next().await.expect("told").len();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("both go without a resync");
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(30), running).await.expect("stops").expect("no panic");
}

/// A store in which, once the ConfigMaps were looked at, somebody makes one and a Workload that it owns. What is named `stuck`
/// cannot be removed from it.
struct Busy {
    inner: Arc<dyn Store>,
    armed: AtomicBool,
}

impl Busy {
    async fn make_pair(&self) {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner", "uid": "late"}});
        let child = owned_by("child", &owner);
        self.inner.create(Key::new("", "configmaps", Some("default"), "owner"), owner).await.expect("created");
        self.inner.create(Key::new("gaia.dev", "workloads", Some("default"), "child"), child).await.expect("created");
    }
}

impl Store for Busy {
    fn get(&self, key: &Key) -> BoxFuture<'_, StoreResult<Option<Arc<Version>>>> {
        self.inner.get(key)
    }

    fn list(&self, prefix: &Prefix) -> BoxFuture<'_, StoreResult<Snapshot>> {
        let (prefix, listed) = (prefix.clone(), self.inner.list(prefix));
        async move {
            let listed = listed.await;
            if "/configmaps/".starts_with(prefix.as_str()) && self.armed.swap(false, Ordering::Relaxed) {
                self.make_pair().await;
            }
            listed
        }
        .boxed()
    }

    fn create(&self, key: Key, object: Value) -> BoxFuture<'_, StoreResult<Arc<Version>>> {
        self.inner.create(key, object)
    }

    fn update(&self, key: Key, object: Value, expected: Revision) -> BoxFuture<'_, StoreResult<Arc<Version>>> {
        self.inner.update(key, object, expected)
    }

    fn delete(&self, key: Key, expected: Revision) -> BoxFuture<'_, StoreResult<Arc<Version>>> {
        if key.as_str().ends_with("/stuck") {
            let refused = StoreError::Unavailable("a test refuses it".to_owned());
            return async move { Err(refused) }.boxed();
        }
        self.inner.delete(key, expected)
    }

    fn watch(&self, prefix: Prefix, from: Revision) -> BoxFuture<'_, StoreResult<Box<dyn Watch>>> {
        self.inner.watch(prefix, from)
    }

    fn revision(&self) -> BoxFuture<'_, StoreResult<Revision>> {
        self.inner.revision()
    }
}

#[tokio::test]
async fn what_is_made_during_a_pass_is_not_abandoned() {
    let inner = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("memory opens");
    let store = Arc::new(Busy { inner, armed: AtomicBool::new(false) });
    let world = World::over(store.clone()).await;
    store.armed.store(true, Ordering::Relaxed);
    world.registry.collect_garbage().await.expect("collected");
    assert!(!store.armed.load(Ordering::Relaxed), "the pair was made meanwhile");
    world.get("child").await.expect("its owner is there");
}

#[tokio::test]
async fn one_that_cannot_be_removed_does_not_keep_the_others() {
    let inner = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("memory opens");
    let world = World::over(Arc::new(Busy { inner, armed: AtomicBool::new(false) })).await;
    let owner = world.create(workload("owner")).await.expect("created");
    for name in ["before", "stuck", "thereafter"] {
        world.create(owned_by(name, &owner)).await.expect("created");
    }
    world.delete("owner", &DeleteOptions::default()).await.expect("deleted");
    world.registry.collect_garbage().await.expect_err("one is left, and that is told");
    for name in ["before", "thereafter"] {
        assert_eq!(world.get(name).await.expect_err("gone").code(), 404, "{name}");
    }
    world.get("stuck").await.expect("it is still there");
}
