//! Kinds that clients bring and take away.

use super::*;

fn definition(plural: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
            }}}],
        },
    })
}

fn object(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": name}, "spec": {"size": 1}})
}

impl World {
    fn definitions(&self) -> Arc<Kind> {
        self.kind("apiextensions.k8s.io", "CustomResourceDefinition")
    }

    async fn define(&self, definition: Value) -> ApiResult<Value> {
        let written = self.registry.create(&self.definitions(), None, definition, &self.options).await?;
        Ok(written.version.object.clone())
    }

    async fn undefine(&self, name: &str) -> ApiResult<Deleted> {
        self.registry.delete(&self.definitions(), &cluster_wide(name), &DeleteOptions::default()).await
    }

    async fn redefine(&self, name: &str, patch: Value) -> ApiResult<Written> {
        self.registry.patch(&self.definitions(), &cluster_wide(name), Patch::Merge(patch), &self.options).await
    }

    fn served(&self, kind: &str) -> Option<Arc<Kind>> {
        self.registry.kinds().by_kind("example.com", "v1", kind)
    }

    async fn bring(&self, kind: &str, name: &str) -> ApiResult<Written> {
        let served = self.served(kind).expect("served");
        self.registry.create(&served, Some("default"), object(kind, name), &self.options).await
    }
}

fn cluster_wide(name: &str) -> ObjectName {
    ObjectName { namespace: None, name: name.to_owned() }
}

fn condition<'v>(definition: &'v Value, type_: &str) -> Option<&'v Value> {
    definition["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

#[tokio::test]
async fn a_kind_is_served_when_its_definition_has_been_written() {
    let world = World::new().await;
    let made = world.define(definition("kites", "Kite")).await.expect("defined");
    assert_eq!(condition(&made, "Established").expect("told")["status"], "True");
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    world.bring("Kite", "a").await.expect("created");
    let more = json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
        "type": "object", "properties": {"spec": {"type": "object", "properties": {
            "size": {"type": "integer", "maximum": 1}, "colour": {"type": "string"}}}}}}}]}});
    let changed = world.redefine("kites.example.com", more).await.expect("changed");
    let now = condition(&changed.version.object, "Established").expect("told");
    assert_eq!(now["lastTransitionTime"], condition(&made, "Established").expect("told")["lastTransitionTime"]);
    let mut large = object("Kite", "b");
    large["spec"] = json!({"size": 2, "colour": "red"});
    let kind = world.served("Kite").expect("served");
    let error = world.registry.create(&kind, Some("default"), large, &world.options).await.expect_err("too large");
    assert_eq!(error.code(), 422, "{error}");
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let world = World::new().await;
    world.define(definition("kites", "Kite")).await.expect("defined");
    let mut held = object("Kite", "held");
    held["metadata"]["finalizers"] = json!(["example.com/land"]);
    let kind = world.served("Kite").expect("served");
    world.registry.create(&kind, Some("default"), held, &world.options).await.expect("created");
    world.bring("Kite", "free").await.expect("created");
    let Deleted::Pending(marked) = world.undefine("kites.example.com").await.expect("asked for") else {
        panic!("its objects are there still")
    };
    assert!(metadata::is_deleting(&marked.object));
    assert_eq!(world.bring("Kite", "new").await.expect_err("it is going").code(), 405);
    while world.registry.collect_garbage().await.expect("collected") > 0 {}
    let left = world.registry.list(&kind, None, &ListOptions::default()).await.expect("listed");
    assert_eq!(left.items.len(), 1, "one waits for its finalizer");
    let definition = world.registry.get(&world.definitions(), &cluster_wide("kites.example.com")).await.expect("there");
    assert_eq!(condition(&definition.object, "Terminating").expect("told")["status"], "True");
    let land = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.registry.patch(&kind, &named("held"), land, &world.options).await.expect("landed");
    while world.registry.collect_garbage().await.expect("collected") > 0 {}
    assert!(world.served("Kite").is_none());
    let gone = world.registry.get(&world.definitions(), &cluster_wide("kites.example.com")).await;
    assert_eq!(gone.expect_err("gone").code(), 404);
    // A request that has the kind in hand still ends well.
    assert!(world.registry.list(&kind, None, &ListOptions::default()).await.expect("listed").items.is_empty());
}

#[tokio::test]
async fn what_was_brought_is_there_after_a_restart() {
    let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).expect("memory opens");
    let before = World::over(store.clone()).await;
    before.define(definition("kites", "Kite")).await.expect("defined");
    before.bring("Kite", "a").await.expect("created");
    let revision = store.revision().await.expect("known");
    let after = World::over(store.clone()).await;
    assert_eq!(store.revision().await.expect("known"), revision, "a restart writes nothing");
    let kind = after.served("Kite").expect("served");
    after.registry.get(&kind, &named("a")).await.expect("there");
}

#[tokio::test]
async fn names_are_whose_they_were_first() {
    let world = World::new().await;
    world.define(definition("kites", "Kite")).await.expect("defined");
    let second = world.define(definition("dragons", "Kite")).await.expect("stored");
    let names = condition(&second, "NamesAccepted").expect("told");
    assert_eq!((&names["status"], &names["reason"]), (&json!("False"), &json!("SingularConflict")));
    assert_eq!(condition(&second, "Established").expect("told")["status"], "False");
    assert_eq!(world.served("Kite").expect("served").plural, "kites");
    world.undefine("kites.example.com").await.expect("asked for");
    while world.registry.collect_garbage().await.expect("collected") > 0 {}
    assert_eq!(world.served("Kite").expect("the name is free").plural, "dragons");
}

#[tokio::test]
async fn what_cannot_be_served_is_not_stored() {
    let world = World::new().await;
    let mut cases = Vec::new();
    let mut with = |edit: fn(&mut Value), message: &'static str| {
        let mut definition = definition("kites", "Kite");
        edit(&mut definition);
        cases.push((definition, message));
    };
    with(|d| d["metadata"]["name"] = json!("birds.example.com"), "metadata.name: Invalid value");
    with(|d| d["spec"]["group"] = json!("nodots"), "metadata.name: Invalid value");
    with(|d| d["spec"]["versions"][0]["schema"] = json!(null), "openAPIV3Schema: Required value");
    with(
        |d| d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({"properties": {}}),
        "type: Required value: must not be empty for specified fields",
    );
    with(
        |d| {
            d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
                json!([{"rule": "self.size >"}])
        },
        "is invalid",
    );
    with(
        |d| {
            d["metadata"]["name"] = json!("kites.events.k8s.io");
            d["spec"]["group"] = json!("events.k8s.io");
        },
        "the group is built in",
    );
    for (definition, message) in cases {
        let error = world.define(definition).await.expect_err(message);
        assert_eq!(error.code(), 422, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
    assert!(world.served("Kite").is_none());
    world.define(definition("kites", "Kite")).await.expect("defined");
    let error =
        world.redefine("kites.example.com", json!({"spec": {"scope": "Cluster"}})).await.expect_err("immutable");
    assert!(error.message.ends_with("spec.scope: Invalid value: \"Cluster\": field is immutable"), "{error}");
}

#[tokio::test]
async fn our_own_definitions_are_the_binarys() {
    let world = World::new().await;
    let error = world.undefine("workloads.gaia.dev").await.expect_err("ours");
    assert_eq!(error.code(), 403);
    let other = json!({"spec": {"names": {"shortNames": ["w"]}}});
    assert_eq!(world.redefine("workloads.gaia.dev", other).await.expect_err("ours").code(), 403);
    let label = json!({"metadata": {"labels": {"seen": "yes"}}});
    world.redefine("workloads.gaia.dev", label).await.expect("labels are anybody's");
}
