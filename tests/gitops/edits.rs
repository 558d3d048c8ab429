//! What people do to files: add, change, remove, rename, move; each with the editor's own way of saving.

use std::{fs, os::unix::fs::symlink};

use crate::world::{World, workload};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_changes_and_goes() {
    let world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    world.write("web.yaml", workload("web", "web:2"));
    world.until_image("web", "web:2").await;
    world.until("the inventory names it", async || world.inventory().await == ["web web.yaml:1"]).await;
    world.remove("web.yaml");
    world.until_gone("web").await;
    world.until("the inventory is empty", async || world.inventory().await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_replaces_the_file() {
    let world = World::start().await;
    for version in ["web:1", "web:2", "web:3"] {
        world.replace("web.yaml", workload("web", version));
        world.until_image("web", version).await;
    }
    assert_eq!(world.errors().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_or_moved_file_keeps_its_object() {
    let world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    let uid = world.workload("web").await.expect("is there")["metadata"]["uid"].clone();
    for (from, to) in [("web.yaml", "site.yml"), ("site.yml", "deep/er/site.yml"), ("deep", "other")] {
        world.rename(from, to);
        world
            .until("the new place is known", async || {
                let inventory = world.inventory().await;
                inventory == ["web other/er/site.yml:1"] || inventory == [format!("web {to}:1")]
            })
            .await;
    }
    world.until("the last place is known", async || world.inventory().await == ["web other/er/site.yml:1"]).await;
    assert_eq!(world.workload("web").await.expect("is still there")["metadata"]["uid"], uid, "the same object");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_directories_are_seen_however_deep() {
    let world = World::start().await;
    world.write("a/b/c/d/web.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    world.write("a/b/c/d/web.yaml", workload("web", "web:2"));
    world.until_image("web", "web:2").await;
    fs::remove_dir_all(world.path("a/b")).expect("can be removed");
    world.until_gone("web").await;
    world.write("a/b/c/d/web.yaml", workload("web", "web:3"));
    world.until_image("web", "web:3").await;
    world.write("a/b/c/d/web.yaml", workload("web", "web:4"));
    world.until_image("web", "web:4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_config_map_changes_all_at_once() {
    let world = World::start().await;
    world.write("..1/web.yaml", workload("web", "web:1"));
    symlink("..1", world.path("..data")).expect("can be linked");
    symlink("..data/web.yaml", world.path("web.yaml")).expect("can be linked");
    world.until_image("web", "web:1").await;
    world.write("..2/web.yaml", workload("web", "web:2"));
    symlink("..2", world.path("..data_tmp")).expect("can be linked");
    fs::rename(world.path("..data_tmp"), world.path("..data")).expect("can be renamed");
    world.until_image("web", "web:2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_come_first_and_go_last() {
    let world = World::start().await;
    let both = "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {name: web, namespace: team}\n\
                spec: {live: {container: {image: i}}}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n";
    world.write("all.yaml", both);
    world.until("it is there", async || world.object("Workload", Some("team"), "web").await.is_some()).await;
    assert_eq!(world.errors().await, [""; 0]);
    world.remove("all.yaml");
    // Emptying a namespace is its controller's, who is not at work here.
    world
        .until("one is gone, the other on its way", async || {
            let namespace = world.object("Namespace", None, "team").await;
            world.object("Workload", Some("team"), "web").await.is_none()
                && namespace.is_none_or(|namespace| namespace["metadata"]["deletionTimestamp"].is_string())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_source_is_left_alone_until_it_is_not() {
    let world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    world.patch("Source", "desired", serde_json::json!({"spec": {"suspend": true}})).await;
    world.until_ready("Suspended").await;
    world.write("web.yaml", workload("web", "web:2"));
    world.patch("Workload", "web", serde_json::json!({"spec": {"live": {"container": {"image": "mine"}}}})).await;
    assert_eq!(world.image("web").await.as_deref(), Some("mine"));
    world.patch("Source", "desired", serde_json::json!({"spec": {"suspend": false}})).await;
    world.until_image("web", "web:2").await;
    world.until_ready("Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_when_nothing_changes() {
    let mut world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    world.until("it is told", async || world.inventory().await.len() == 1 && world.status().await.objects == 1).await;
    world.stop().await;
    let before = world.registry.store().revision().await.expect("is open");
    let mut syncer = gaia::gitops::Syncer::new(world.gitops.clone(), "desired");
    for _ in 0..3 {
        syncer.sync_once().await.expect("a pass");
    }
    assert_eq!(world.registry.store().revision().await.expect("is open"), before);
}
