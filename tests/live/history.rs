//! What containers were made from is kept by the real controllers, whatever becomes of the containers.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use gaia::{
    adapters::simulated::containers::Images, api::workloadhistory::WorkloadHistory, runtime::objects::Objects as _,
};
use kube::ResourceExt;

use crate::world::{World, from_image, object, workload};

/// Waits until these are the images of live, the present one first.
async fn until(world: &World, images: &[&str]) -> Arc<WorkloadHistory> {
    let name = object("web");
    let get = async || world.objects.get::<WorkloadHistory>(&name).await.expect("the registry answers");
    let waiting = async {
        let mut changes = world.objects.watch::<WorkloadHistory>();
        loop {
            if let Some(history) = get().await.filter(|history| told(history) == images) {
                return history;
            }
            changes.next().await.expect("a watch goes on for ever");
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), waiting).await {
        Ok(history) => history,
        Err(_) => panic!("not {images:?} but {:#?}", get().await),
    }
}

fn told(history: &WorkloadHistory) -> Vec<String> {
    history.spec.live.iter().map(|r| r.container["image"].as_str().expect("an image").to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn templates_are_kept_across_a_restart_and_up_to_the_limit() {
    let mut world = World::with(Images::any()).await;
    let made = world.create(workload("web", from_image("web:1"))).await;
    let history = until(&world, &["web:1"]).await;
    assert_eq!(history.owner_references()[0].uid, made.uid().expect("a uid"), "it goes with its workload");
    let change = async |world: &World, image: &'static str| {
        world.edit("web", |spec| spec.live.as_mut().expect("live").container = from_image(image)).await;
    };
    change(&world, "web:2").await;
    until(&world, &["web:2", "web:1"]).await;
    world.stop().await;
    // Nobody looks meanwhile.
    change(&world, "web:3").await;
    world.start();
    let history = until(&world, &["web:3", "web:2", "web:1"]).await;
    assert_eq!(history.spec.live.iter().map(|r| r.revision).collect::<Vec<_>>(), [3, 2, 1]);

    change(&world, "web:2").await;
    until(&world, &["web:2", "web:3", "web:1"]).await;
    world.edit("web", |spec| spec.revision_history_limit = Some(1)).await;
    until(&world, &["web:2", "web:3"]).await;
    world.until_running("web").await;
    let settled = until(&world, &["web:2", "web:3"]).await;
    world.edit("web", |spec| spec.live.as_mut().expect("live").running = false).await;
    world.until("web", "stopped", |_| !world.runs("web-live")).await;
    let after = until(&world, &["web:2", "web:3"]).await;
    assert_eq!(after.resource_version(), settled.resource_version(), "no template changed, so nothing was written");
}

#[tokio::test(start_paused = true)]
async fn a_template_that_cannot_run_is_kept_too() {
    let world = World::with(Images::default()).await;
    world.create(workload("web", from_image("web:none"))).await;
    until(&world, &["web:none"]).await;
}
