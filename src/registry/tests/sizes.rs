//! Whatever way an object grows, it grows to a bound; and what is above it can still be made smaller.

use super::*;
use crate::registry::size::MOST_BYTES;

/// A ConfigMap's: it has no schema to speak of, and no status.
struct Maps(World, Arc<Kind>);

impl Maps {
    async fn new() -> Self {
        let world = World::new().await;
        let kind = world.kind("", "ConfigMap");
        Self(world, kind)
    }

    async fn create(&self, bytes: usize) -> ApiResult<Written> {
        let object = json!({"metadata": {"name": "map"}, "data": {"a": "x".repeat(bytes)}});
        self.0.registry.create(&self.1, Some("default"), object, &self.0.options).await
    }

    async fn patch(&self, patch: Patch, manager: &str) -> ApiResult<Written> {
        let options = WriteOptions { field_manager: manager.to_owned(), ..self.0.options.clone() };
        self.0.registry.patch(&self.1, &named("map"), patch, &options).await
    }

    async fn stored(&self) -> Arc<Version> {
        self.0.registry.get(&self.1, &named("map")).await.expect("it is there")
    }
}

/// In upstream's shape, and with nothing written.
async fn assert_refused(world: &World, before: Revision, refused: ApiResult<Written>) {
    let status = refused.expect_err("it is too large").to_status();
    assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(413)));
    assert_eq!(status["reason"], "RequestEntityTooLarge");
    let message = status["message"].as_str().expect("a text");
    assert!(message.contains("is too large: it would take "), "{message}");
    assert!(status["details"]["kind"].is_string(), "{status}");
    assert_eq!(world.registry.store().revision().await.expect("open"), before, "nothing is stored");
}

async fn revision(world: &World) -> Revision {
    world.registry.store().revision().await.expect("open")
}

#[tokio::test]
async fn a_create_and_an_update_are_bounded_and_a_dry_run_tells_it_too() {
    let maps = Maps::new().await;
    let before = revision(&maps.0).await;
    assert_refused(&maps.0, before, maps.create(MOST_BYTES).await).await;
    maps.create(MOST_BYTES - 1000).await.expect("it has room for its metadata");
    let before = revision(&maps.0).await;
    let mut larger = maps.stored().await.object.clone();
    larger["data"]["b"] = json!("x".repeat(1000));
    for dry_run in [true, false] {
        let options = WriteOptions { dry_run, ..maps.0.options.clone() };
        let done = maps.0.registry.update(&maps.1, &named("map"), larger.clone(), &options).await;
        assert_refused(&maps.0, before, done).await;
    }
}

#[tokio::test]
async fn small_patches_one_after_another_come_to_an_end() {
    let piece = "x".repeat(200_000);
    let grow: [fn(usize, &str) -> Patch; 4] = [
        |n, piece| Patch::Merge(json!({"data": {n.to_string(): piece}})),
        |n, piece| Patch::Strategic(json!({"data": {n.to_string(): piece}})),
        |n, piece| {
            let add = json!([{"op": "add", "path": format!("/data/{n}"), "value": piece}]);
            Patch::Json(serde_json::from_value(add).expect("a patch"))
        },
        // All pieces again: what an applier leaves out goes.
        |n, piece| {
            let data: serde_json::Map<String, Value> = (0..=n).map(|n| (n.to_string(), json!(piece))).collect();
            Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data}))
        },
    ];
    for grow in grow {
        let maps = Maps::new().await;
        maps.create(10).await.expect("small");
        for n in 0..7 {
            maps.patch(grow(n, &piece), "one").await.unwrap_or_else(|error| panic!("{n}: {error}"));
        }
        let before = revision(&maps.0).await;
        assert_refused(&maps.0, before, maps.patch(grow(7, &piece), "one").await).await;
        assert_eq!(maps.stored().await.object["data"].as_object().map(serde_json::Map::len), Some(8));
    }
}

#[tokio::test]
async fn one_json_patch_cannot_double_it_beyond_the_bound() {
    let maps = Maps::new().await;
    maps.create(900_000).await.expect("small enough");
    let before = revision(&maps.0).await;
    let copy = json!([{"op": "copy", "from": "/data/a", "path": "/data/b"}]);
    let done = maps.patch(Patch::Json(serde_json::from_value(copy).expect("a patch")), "one").await;
    assert_refused(&maps.0, before, done).await;
}

#[tokio::test]
async fn managed_fields_of_ever_more_appliers_count() {
    let maps = Maps::new().await;
    let keys: serde_json::Map<String, Value> = (0..20_000).map(|n| (format!("key-{n:05}"), json!(""))).collect();
    let mut refused = None;
    for n in 0..100 {
        let apply = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": keys}));
        let before = revision(&maps.0).await;
        match maps.patch(apply, &format!("applier-{n}")).await {
            Ok(written) => assert!(written.version.json.len() <= MOST_BYTES + 100, "{}", written.version.json.len()),
            Err(error) => {
                refused = Some((before, error));
                break;
            }
        }
    }
    let (before, error) = refused.expect("each of them takes 350 kB");
    assert_refused(&maps.0, before, Err(error)).await;
}

#[tokio::test]
async fn a_status_has_room_of_its_own_and_no_more() {
    let world = World::new().await;
    let text = |bytes| "x".repeat(bytes);
    let mut object = world.create(workload("web")).await.expect("created");
    object["metadata"]["labels"] = json!({});
    object["spec"]["live"]["container"]["env"] = json!({"A": text(MOST_BYTES - 3000)});
    let mut object = world.update(object).await.expect("just small enough");
    let condition = |bytes| {
        json!([{"type": "Ready", "status": "False", "reason": "X", "message": text(bytes),
            "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    };
    object["status"] = json!({"conditions": condition(20_000)});
    let mut object = world.update_status(object).await.expect("a large spec does not take the room of the status");
    let before = revision(&world).await;
    object["status"]["conditions"] = condition(MOST_BYTES);
    let refused = world.update_status(object.clone()).await.expect_err("too large");
    assert_eq!(refused.reason, Reason::RequestEntityTooLarge);
    assert!(refused.message.contains("bytes in its status, the limit is 1572864"), "{}", refused.message);
    object["spec"]["live"]["container"]["env"] = json!({"A": text(MOST_BYTES)});
    let refused = world.update(object).await.expect_err("too large");
    assert!(refused.message.contains("bytes without its status, the limit is 1572864"), "{}", refused.message);
    assert_eq!(revision(&world).await, before);
}

#[tokio::test]
async fn what_is_above_the_bound_already_can_be_made_smaller_and_deleted() {
    let maps = Maps::new().await;
    maps.create(10).await.expect("small");
    // As a binary without the bound left it.
    let stored = maps.stored().await;
    let mut object = stored.object.clone();
    object["data"]["a"] = json!("x".repeat(2 * MOST_BYTES));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    maps.0.registry.store().update(stored.key.clone(), object, stored.revision).await.expect("the store has no bound");

    let label = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"a": value}}}));
    let refused = maps.patch(label("more"), "one").await.expect_err("it would grow");
    assert_eq!(refused.reason, Reason::RequestEntityTooLarge);
    maps.patch(Patch::Merge(json!({"data": {"a": "x".repeat(2 * MOST_BYTES - 5000)}})), "one")
        .await
        .expect("it shrinks");
    let deleted = maps.0.registry.delete(&maps.1, &named("map"), &DeleteOptions::default()).await;
    assert!(matches!(deleted, Ok(Deleted::Pending(_))), "{deleted:?}");
    maps.patch(Patch::Merge(json!({"metadata": {"finalizers": null}})), "one").await.expect("the last finalizer goes");
    assert_eq!(maps.0.registry.get(&maps.1, &named("map")).await.expect_err("gone").code(), 404);
}
