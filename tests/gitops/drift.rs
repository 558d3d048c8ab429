//! What somebody else does to objects that files state.

use std::{sync::Arc, time::Duration};

use gaia::gitops::{self, Syncer, files::real::RealFiles};
use serde_json::json;

use crate::world::{DEADLINE, World, workload};

#[tokio::test(flavor = "multi_thread")]
async fn a_stated_field_is_set_back_and_the_event_names_the_place() {
    let mut world = World::start().await;
    world.write("stack/web.yaml", format!("# a comment\n{}", workload("web", "web:1")));
    world.until_image("web", "web:1").await;
    world.until("it is told", async || world.status().await.objects == 1).await;
    world.patch("Workload", "web", json!({"spec": {"live": {"container": {"image": "mine:1"}}}})).await;
    world.until_image("web", "web:1").await;
    let told = world.until_note("stack/web.yaml:2").await;
    assert_eq!(told.regarding.name.as_deref(), Some("web"));
    assert_eq!(told.note.reason, "FieldsReverted");
    assert!(told.note.message.contains("spec.live.container.image"), "{}", told.note.message);
    assert!(told.note.message.contains("kubectl"), "{}", told.note.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_files_leave_out_stays_with_whoever_wrote_it() {
    let world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    world.patch("Workload", "web", json!({"spec": {"live": {"running": false}, "stopGraceSeconds": 77}})).await;
    world.write("web.yaml", workload("web", "web:2"));
    world.until_image("web", "web:2").await;
    let spec = world.workload("web").await.expect("is there")["spec"].clone();
    assert_eq!((&spec["live"]["running"], &spec["stopGraceSeconds"]), (&json!(false), &json!(77)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_a_file_no_longer_states_is_let_go() {
    let world = World::start().await;
    let with = format!("{}  stopGraceSeconds: 55\n", workload("web", "web:1"));
    world.write("web.yaml", with);
    let grace = async || world.workload("web").await.map(|object| object["spec"]["stopGraceSeconds"].clone());
    world.until("it is stated", async || grace().await == Some(json!(55))).await;
    world.write("web.yaml", workload("web", "web:1"));
    world.until("it is the default", async || grace().await == Some(json!(10))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_object_is_made_again() {
    let mut world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    world.until("it is told", async || world.status().await.objects == 1).await;
    world.delete("Workload", "web").await;
    world.until_image("web", "web:1").await;
    assert_eq!(world.until_note("web.yaml:1").await.note.reason, "ObjectRestored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_somebody_removed_comes_back() {
    let mut world = World::start().await;
    world.write("web.yaml", format!("{}  stopGraceSeconds: 55\n", workload("web", "web:1")));
    world.until("it is told", async || world.status().await.objects == 1).await;
    world.patch("Workload", "web", json!({"spec": {"stopGraceSeconds": null}})).await;
    world
        .until("it is back", async || world.workload("web").await.expect("is there")["spec"]["stopGraceSeconds"] == 55)
        .await;
    assert_eq!(world.until_note("web.yaml:1").await.note.reason, "FieldsReverted");
}

#[tokio::test]
async fn an_object_of_which_nothing_but_the_name_is_stated_is_not_told_to_drift() {
    let mut world = World::still(Arc::new(RealFiles)).await;
    world.write("team.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n");
    let mut syncer = Syncer::new(world.gitops.clone(), gitops::DESIRED);
    for _ in 0..3 {
        syncer.sync_once().await.expect("kept");
    }
    while let Ok(told) = world.notes.try_recv() {
        assert_ne!(told.note.reason, "FieldsReverted", "{}", told.note.message);
    }
}

/// As our own controllers do to each new object. It took half a minute once: it was counted as a fight over the objects, and
/// whoever gives way in one heard no files.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_controller_notes_on_new_objects_is_no_fight() {
    let world = World::start().await;
    let burst = async {
        for name in (0..18).map(|n| format!("web-{n}")) {
            world.write(&format!("{name}.yaml"), workload(&name, "web:1"));
            world.until_image(&name, "web:1").await;
            world.patch("Workload", &name, json!({"metadata": {"finalizers": ["gaia.dev/containers"]}})).await;
            // tidy: a pass that finds nothing to set back tells nobody, and the next file must not come before it.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, burst).await.expect("each file is heard at once");
}
