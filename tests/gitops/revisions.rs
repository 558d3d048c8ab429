//! Every state that was applied whole is a revision; the Source can be held at one, and let go again.

use std::sync::Arc;

use gaia::{
    api::{source::SourceStatus, sourcerevision::SourceRevision},
    gitops::{Syncer, files::simulated::SimulatedFiles},
    registry::ListOptions,
};
use serde_json::json;

use crate::world::{World, workload};

/// `3 web changed…`, the oldest first.
async fn kept(world: &World) -> Vec<String> {
    let list = world.registry.list(&world.kind("SourceRevision"), None, &ListOptions::default()).await.expect("a list");
    let mut all: Vec<SourceRevision> =
        list.items.iter().map(|v| serde_json::from_value(v.object.clone()).expect("fits its type")).collect();
    all.sort_by_key(|revision| revision.spec.revision);
    all.iter().map(|r| format!("{}: {}", r.spec.revision, r.spec.cause.changes.join(", "))).collect()
}

fn condition(status: &SourceStatus, type_: &str) -> Option<String> {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some(format!("{} {}: {}", found.status, found.reason, found.message))
}

async fn until_revision(world: &World, number: i64) {
    world.until(&format!("revision {number}"), async || world.status().await.revision == Some(number)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_held_at_a_revision_and_let_go() {
    let world = World::start().await;
    until_revision(&world, 1).await;
    world.write("web.yaml", workload("web", "web:1"));
    until_revision(&world, 2).await;
    world.write("web.yaml", workload("web", "web:2"));
    until_revision(&world, 3).await;
    world.write("db.yaml", workload("db", "db:1"));
    until_revision(&world, 4).await;
    assert_eq!(
        kept(&world).await,
        [
            "1: ",
            "2: added Workload default/web (web.yaml:1)",
            "3: changed Workload default/web (web.yaml:1)",
            "4: added Workload default/db (db.yaml:1)"
        ]
    );

    world.patch("Source", "desired", json!({"spec": {"pin": 2}})).await;
    world.until_image("web", "web:1").await;
    world.until_gone("db").await;
    until_revision(&world, 2).await;
    let status = world.status().await;
    assert_eq!(
        condition(&status, "Pinned").as_deref(),
        Some(
            "True Pinned: revision 2 is kept; the files say otherwise: added Workload default/db (db.yaml:1) (and 1 more)"
        )
    );
    assert_eq!(condition(&status, "Ready").as_deref(), Some("True Applied: 1 objects of revision 2"));

    // While it is held, files only change what is said of them, and drift is set back to the revision.
    world.write("web.yaml", workload("web", "web:3"));
    world.write("broken.yaml", "{");
    world
        .until("the files are told of", async || {
            condition(&world.status().await, "Pinned")
                .is_some_and(|told| told.contains("the files are not valid: broken.yaml"))
        })
        .await;
    world.patch("Workload", "web", json!({"spec": {"live": {"container": {"image": "mine"}}}})).await;
    world.until_image("web", "web:1").await;
    world.remove("broken.yaml");

    world.patch("Source", "desired", json!({"spec": {"pin": null}})).await;
    world.until_image("web", "web:3").await;
    world.until_image("db", "db:1").await;
    until_revision(&world, 5).await;
    assert_eq!(condition(&world.status().await, "Pinned"), None);
    assert_eq!(kept(&world).await.last().map(String::as_str), Some("5: changed Workload default/web (web.yaml:1)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_not_there_changes_nothing() {
    let world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    until_revision(&world, 2).await;
    world.patch("Source", "desired", json!({"spec": {"pin": 7}})).await;
    world.until_ready("NoSuchRevision").await;
    let status = world.status().await;
    assert_eq!(
        condition(&status, "Ready").as_deref(),
        Some("False NoSuchRevision: there is no revision 7 of it; everything is left as it is")
    );
    world.write("web.yaml", workload("web", "web:2"));
    world.patch("Source", "desired", json!({"metadata": {"annotations": {"gaia.dev/reconcile-at": "now"}}})).await;
    world.until("it is answered", async || world.status().await.handled_request.as_deref() == Some("now")).await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:1"));
    world.patch("Source", "desired", json!({"spec": {"pin": null}})).await;
    world.until_image("web", "web:2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_was_tampered_with_is_refused() {
    let world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    until_revision(&world, 2).await;
    let first = world.object("SourceRevision", None, "desired-1").await.expect("is kept");
    let mut forged = world.object("SourceRevision", None, "desired-2").await.expect("is kept");
    world.delete("SourceRevision", "desired-2").await;
    forged["spec"]["manifests"] = first["spec"]["manifests"].clone();
    forged["metadata"]
        .as_object_mut()
        .expect("an object")
        .retain(|field, _| field == "name" || field == "ownerReferences");
    let options = gaia::registry::WriteOptions { field_manager: "kubectl".to_owned(), ..Default::default() };
    world.registry.create(&world.kind("SourceRevision"), None, forged, &options).await.expect("a valid object");
    world.patch("Source", "desired", json!({"spec": {"pin": 2}})).await;
    world.until_ready("NoSuchRevision").await;
    let said = condition(&world.status().await, "Ready").expect("a condition");
    assert!(said.contains("its digest is another"), "{said}");
    assert_eq!(world.image("web").await.as_deref(), Some("web:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_applied_whole_is_no_revision() {
    let world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    until_revision(&world, 2).await;
    world.write("broken.yaml", "{");
    world.until_ready("InvalidFiles").await;
    world.write("web.yaml", workload("web", "web:2"));
    world.until_image("web", "web:2").await;
    assert_eq!(kept(&world).await.len(), 2);
    world.remove("broken.yaml");
    until_revision(&world, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_revisions_go_and_the_pinned_one_stays() {
    let world = World::start().await;
    world.patch("Source", "desired", json!({"spec": {"revisionHistoryLimit": 1}})).await;
    for number in 1..4 {
        world.write("web.yaml", workload("web", &format!("web:{number}")));
        until_revision(&world, number + 1).await;
    }
    let numbers = async || {
        kept(&world).await.iter().filter_map(|line| line.split(':').next()?.parse().ok()).collect::<Vec<i64>>()
    };
    world.until("two are left", async || numbers().await == [3, 4]).await;
    world.patch("Source", "desired", json!({"spec": {"pin": 3}})).await;
    until_revision(&world, 3).await;
    world.patch("Source", "desired", json!({"spec": {"revisionHistoryLimit": 0}})).await;
    world.patch("Source", "desired", json!({"metadata": {"annotations": {"gaia.dev/reconcile-at": "1"}}})).await;
    world.until("it is answered", async || world.status().await.handled_request.as_deref() == Some("1")).await;
    assert_eq!(numbers().await, [3, 4]);
    world.patch("Source", "desired", json!({"spec": {"pin": null}})).await;
    world.until("only the present one is left", async || numbers().await == [4]).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_status_is_written_makes_no_second_revision() {
    let files = SimulatedFiles::default();
    let world = World::still(Arc::new(files.clone())).await;
    files.make_directory(world.root());
    files.write(world.path("web.yaml"), workload("web", "web:1"));
    let mut syncer = Syncer::new(world.gitops.clone(), "desired");
    syncer.sync_once().await.expect("a pass");
    assert_eq!(world.status().await.revision, Some(1));
    // As if the process had died between the revision and the status.
    let kind = world.kind("Source");
    let mut source = world.object("Source", None, "desired").await.expect("is there");
    let status = source["status"].as_object_mut().expect("a status");
    status.remove("revision");
    status.remove("appliedRevision");
    let options = gaia::registry::WriteOptions {
        field_manager: "kubectl".to_owned(),
        subresource: gaia::registry::Subresource::Status,
        ..Default::default()
    };
    world.registry.update(&kind, &crate::world::named(None, "desired"), source, &options).await.expect("stored");
    Syncer::new(world.gitops.clone(), "desired").sync_once().await.expect("a pass");
    assert_eq!(world.status().await.revision, Some(1));
    assert_eq!(kept(&world).await.len(), 1);
}
