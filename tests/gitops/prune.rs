//! What is deleted, and above all what is not.

use std::fs;

use serde_json::json;

use crate::world::{World, workload};

async fn with_web(world: &World) {
    world.write("web.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    world.until("it is told", async || world.status().await.objects == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_vanishes_deletes_nothing_and_is_heard_when_it_comes_back() {
    let world = World::start().await;
    with_web(&world).await;
    fs::rename(world.root(), world.root().with_extension("away")).expect("can be renamed");
    world.until_ready("DirectoryUnreadable").await;
    assert!(world.workload("web").await.is_some());
    fs::rename(world.root().with_extension("away"), world.root()).expect("can be renamed");
    world.until_ready("Applied").await;
    world.write("web.yaml", workload("web", "web:2"));
    world.until_image("web", "web:2").await;
    fs::remove_dir_all(world.root()).expect("can be removed");
    world.until_ready("DirectoryUnreadable").await;
    world.write("web.yaml", workload("web", "web:3"));
    world.until_image("web", "web:3").await;
    world.write("web.yaml", workload("web", "web:4"));
    world.until_image("web", "web:4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_directory_is_believed() {
    let world = World::start().await;
    with_web(&world).await;
    world.remove("web.yaml");
    world.until_gone("web").await;
    world.until_ready("Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_directory_in_its_place_is_not_until_a_file_says_so() {
    let world = World::start().await;
    with_web(&world).await;
    fs::rename(world.root(), world.root().with_extension("away")).expect("can be renamed");
    fs::create_dir(world.root()).expect("can be made");
    world.until_ready("EmptyDirectory").await;
    assert!(world.workload("web").await.is_some());
    assert_eq!(world.inventory().await, ["web web.yaml:1"]);
    world.write("nothing.yaml", "# meant\n");
    world.until_gone("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_can_be_turned_off_and_on() {
    let world = World::start().await;
    with_web(&world).await;
    world.patch("Source", "desired", json!({"spec": {"prune": false}})).await;
    world.remove("web.yaml");
    world.until("it is read", async || world.status().await.files == 0).await;
    assert!(world.workload("web").await.is_some());
    assert_eq!(world.inventory().await, ["web web.yaml:1"], "it is still known");
    world.patch("Source", "desired", json!({"spec": {"prune": true}})).await;
    world.until_gone("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finalizers_hold_stays_in_the_inventory_until_it_is_gone() {
    let world = World::start().await;
    with_web(&world).await;
    world.patch("Workload", "web", json!({"metadata": {"finalizers": ["test/hold"]}})).await;
    world.remove("web.yaml");
    world
        .until("it is being deleted", async || {
            let status = world.status().await;
            status.conditions.iter().any(|c| c.type_ == "Reconciling" && c.reason == "Pruning")
        })
        .await;
    assert_eq!(world.inventory().await, ["web web.yaml:1"]);
    world.patch("Workload", "web", json!({"metadata": {"finalizers": null}})).await;
    world.until_gone("web").await;
    world.until("it is forgotten", async || world.inventory().await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_made_anew_is_not_ours_to_delete() {
    let mut world = World::start().await;
    with_web(&world).await;
    world.stop().await;
    world.delete("Workload", "web").await;
    let object = json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "metadata": {"name": "web"},
        "spec": {"live": {"container": {"image": "theirs:1"}}}});
    let options = gaia::registry::WriteOptions { field_manager: "kubectl".to_owned(), ..Default::default() };
    world.registry.create(&world.kind("Workload"), Some("default"), object, &options).await.expect("is valid");
    world.remove("web.yaml");
    world.run();
    world.until("it is forgotten", async || world.inventory().await.is_empty()).await;
    assert_eq!(world.image("web").await.as_deref(), Some("theirs:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_source_leaves_its_objects_and_is_taken_up_when_it_comes_back() {
    let world = World::start().await;
    with_web(&world).await;
    world.delete("Source", "desired").await;
    world.write("web.yaml", workload("web", "web:2"));
    world.write("other.yaml", workload("other", "other:1"));
    assert_eq!(world.image("web").await.as_deref(), Some("web:1"));
    gaia::gitops::ensure_desired(&world.registry, &world.root()).await.expect("is valid");
    world.until_image("web", "web:2").await;
    world.until_image("other", "other:1").await;
}
