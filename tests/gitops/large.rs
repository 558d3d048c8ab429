//! Files that say more than fits: told by place or as a whole, the rest applied, nothing deleted.

use crate::world::{World, workload};

fn config_map(name: &str, bytes: usize) -> String {
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{a: {}}}}}\n", "x".repeat(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_too_large_is_told_by_its_place() {
    let world = World::start().await;
    world.write("map.yaml", config_map("map", 10));
    world.until("it is there", async || world.object("ConfigMap", Some("default"), "map").await.is_some()).await;
    world.replace("map.yaml", format!("# larger\n{}", config_map("map", 1_600_000)));
    world.write("web.yaml", workload("web", "web:1"));
    world.until_error("map.yaml:2: ConfigMap default/map: configmaps \"map\" is too large").await;
    world.until_ready("InvalidFiles").await;
    world.until_image("web", "web:1").await;
    let kept = world.object("ConfigMap", Some("default"), "map").await.expect("it was applied before");
    assert_eq!(kept["data"]["a"], "xxxxxxxxxx");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_a_source_can_list_are_told_and_none_is_half_done() {
    let world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    let name = |n: u32| format!("{}-{n:05}", "map".repeat(30));
    // A file holds a thousand documents. The others come in with a rename, all at once.
    std::fs::create_dir(world.scratch().join("many")).expect("can be made");
    for file in 0..12 {
        let many: String = (0..1000).map(|n| format!("---\n{}", config_map(&name(file * 1000 + n), 1))).collect();
        std::fs::write(world.scratch().join(format!("many/{file}.yaml")), many).expect("can be written");
    }
    std::fs::rename(world.scratch().join("many"), world.path("many")).expect("can be renamed");
    world.until_ready("TooManyObjects").await;
    assert_eq!(world.object("ConfigMap", Some("default"), &name(0)).await, None, "nothing of it is applied");
    assert_eq!(world.image("web").await.as_deref(), Some("web:1"));
    std::fs::rename(world.path("many"), world.scratch().join("many")).expect("can be renamed");
    world.until_ready("Applied").await;
}
