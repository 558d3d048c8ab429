//! Two Sources over two directories, and one object that both name.

use std::fs;

use crate::world::{World, workload};

/// `web` is of the first Source; the second one names it too, and `other` beside it.
async fn both_name_web(world: &World) -> std::path::PathBuf {
    world.write("web.yaml", workload("web", "web:1"));
    world.until("it is told", async || world.status().await.objects == 1).await;
    let second = world.another("second").await;
    fs::write(second.join("other.yaml"), workload("other", "other:1")).expect("can be written");
    fs::write(second.join("web.yaml"), format!("# mine\n{}", workload("web", "web:2"))).expect("can be written");
    world.until("the second says so", async || !world.errors_of("second").await.is_empty()).await;
    second
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_is_refused_with_both_places_and_the_object_is_not_touched() {
    let world = World::start().await;
    let second = both_name_web(&world).await;
    let place = world.path("web.yaml").display().to_string();
    let error = format!("web.yaml:2: Workload default/web is kept by Source desired, which has it from {place}:1");
    assert_eq!(world.errors_of("second").await, [error]);
    world.until_image("other", "other:1").await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:1"));
    assert_eq!(world.errors().await, [""; 0]);
    let inventory = world.status_of("second").await.inventory;
    assert_eq!(inventory.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["other"]);

    let before = world.workload("web").await.expect("is there")["metadata"]["resourceVersion"].clone();
    fs::remove_file(second.join("web.yaml")).expect("was there");
    world.until("it is in order", async || world.errors_of("second").await.is_empty()).await;
    let after = world.workload("web").await.expect("the first one's file is still there");
    assert_eq!(after["metadata"]["resourceVersion"], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_comes_by_it_when_the_first_lets_go() {
    let world = World::start().await;
    both_name_web(&world).await;
    world.delete("Source", "desired").await;
    world.until_image("web", "web:2").await;
    world.until("it is in order", async || world.errors_of("second").await.is_empty()).await;
}
