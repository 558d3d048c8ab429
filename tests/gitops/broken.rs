//! Files that are wrong: told by place, the rest applied, nothing deleted.

use serde_json::json;

use crate::world::{World, workload};

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_told_and_stops_no_other() {
    let mut world = World::start().await;
    world.write("a.yaml", workload("a", "a:1"));
    world.write("b.yaml", workload("b", "b:1"));
    world.until_image("a", "a:1").await;
    world.until_image("b", "b:1").await;
    world.replace("a.yaml", "kind: Workload\nmetadata: {name: [a\n");
    world.until_ready("InvalidFiles").await;
    assert!(world.errors().await[0].starts_with("a.yaml:"), "{:?}", world.errors().await);
    world.until_note("a.yaml:").await;
    world.write("b.yaml", workload("b", "b:2"));
    world.until_image("b", "b:2").await;
    assert_eq!(world.image("a").await.as_deref(), Some("a:1"), "what is not understood is not gone");
    world.replace("a.yaml", workload("a", "a:3"));
    world.until_image("a", "a:3").await;
    world.until_ready("Applied").await;
    assert_eq!(world.errors().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pruned_while_anything_is_wrong() {
    let world = World::start().await;
    for name in ["a", "b"] {
        world.write(&format!("{name}.yaml"), workload(name, "i:1"));
        world.until_image(name, "i:1").await;
    }
    for (wrong, told) in [
        ("{", "c.yaml"),
        ("kind: Workload\n", "c.yaml:1: apiVersion is missing"),
        (
            "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {name: c}\nspec: {}\n",
            "c.yaml:4: Workload default/c: spec",
        ),
    ] {
        world.write("c.yaml", wrong);
        world.until_error(told).await;
        world.rename("b.yaml", "b.txt");
        world.write("a.yaml", workload("a", wrong.len().to_string().as_str()));
        world.until_image("a", &wrong.len().to_string()).await;
        world.until("the pass has ended", async || world.status().await.files == 2).await;
        assert!(world.workload("b").await.is_some(), "no file names it, and it is not deleted: {told}");
        assert!(world.inventory().await.iter().any(|entry| entry.starts_with("b ")), "and not forgotten");
        world.rename("b.txt", "b.yaml");
        world.until("it is read again", async || world.status().await.files == 3).await;
    }
    world.rename("b.yaml", "b.txt");
    world.remove("c.yaml");
    world.until_gone("b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_objects_are_told_by_line_and_field() {
    let world = World::start().await;
    let head =
        "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata:\n  name: bad\nspec:\n  live:\n    container:\n";
    world.write("good.yaml", workload("good", "g:1"));
    for (rest, told) in [
        (
            "      image: i\n      ports:\n        - containerPort: 70000\n",
            "bad.yaml:10: Workload default/bad: spec.live.container.ports[0].containerPort: ",
        ),
        ("      image: i\n      imge: j\n", "bad.yaml:9: Workload default/bad: "),
        ("      image: [i]\n", "bad.yaml:8: Workload default/bad: "),
        ("      env: {A: b}\n", "bad.yaml:7: Workload default/bad: spec.live.container: "),
    ] {
        world.write("bad.yaml", format!("{head}{rest}"));
        world.until_error(told).await;
        world.until_image("good", "g:1").await;
        assert!(world.workload("bad").await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_in_two_files_stays_as_it_is_until_one_is_gone() {
    let world = World::start().await;
    world.write("a.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    world.write("sub/b.yaml", workload("web", "web:2"));
    world.until_error("a.yaml:1: Workload default/web is also in sub/b.yaml:1").await;
    world.until_error("sub/b.yaml:1: Workload default/web is also in a.yaml:1").await;
    assert_eq!(world.image("web").await.as_deref(), Some("web:1"));
    world.remove("a.yaml");
    world.until_image("web", "web:2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_comes_in_the_same_files_is_known_in_the_end() {
    let world = World::start().await;
    let namespaced_later = "apiVersion: gaia.dev/v1alpha1\nkind: Workload\nmetadata: {name: web, namespace: later}\n\
                            spec: {live: {container: {image: i}}}\n";
    world.write("web.yaml", namespaced_later);
    world.until_error("web.yaml:1: Workload later/web: ").await;
    world.write("zz.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: later}\n");
    world.until("both are there", async || world.object("Workload", Some("later"), "web").await.is_some()).await;
    world.until_ready("Applied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_file_is_read_again_when_it_is_whole() {
    let world = World::start().await;
    world.write("web.yaml", workload("web", "web:1"));
    world.until_image("web", "web:1").await;
    let whole = format!("{}---\n{}", workload("web", "web:2"), workload("api", "api:1"));
    let half = &whole[..whole.len() - 20];
    world.write("web.yaml", format!("{half}\n  - {{"));
    world.until_ready("InvalidFiles").await;
    assert!(world.workload("web").await.is_some());
    world.write("web.yaml", &whole);
    world.until_image("web", "web:2").await;
    world.until_image("api", "api:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_relative_directory_is_refused() {
    let world = World::start().await;
    let patch = gaia::registry::Patch::Merge(json!({"spec": {"directory": "relative"}}));
    let name = crate::world::named(None, "desired");
    let refused = world.registry.patch(&world.kind("Source"), &name, patch, &Default::default()).await;
    assert!(refused.expect_err("is invalid").message.contains("must be an absolute path"));
}
