//! The process dies in the middle; and the same on files in memory, pass by pass.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use gaia::gitops::{Syncer, files::simulated::SimulatedFiles};

use crate::world::{World, workload};

/// Files in memory, where the World's own directory is.
async fn simulated() -> (World, SimulatedFiles) {
    let files = SimulatedFiles::default();
    let world = World::still(Arc::new(files.clone())).await;
    files.make_directory(world.root());
    (world, files)
}

fn syncer(world: &World) -> Syncer {
    Syncer::new(world.gitops.clone(), "desired")
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_is_cut_short_anywhere_loses_track_of_nothing() {
    // Poll a pass so many times, drop it, then let the file go: whatever the pass had made must go too.
    let mut longest = 0;
    for polls in 0..200 {
        let (world, files) = simulated().await;
        for name in ["a", "b", "c"] {
            files.write(world.path(&format!("{name}.yaml")), workload(name, "i:1"));
        }
        files.write(world.path("stays.yaml"), "# so that the directory is not empty\n");
        let ended = {
            let mut cut_short = syncer(&world);
            let mut pass = std::pin::pin!(cut_short.sync_once());
            let mut ended = false;
            for _ in 0..polls {
                if pass.as_mut().now_or_never().is_some() {
                    ended = true;
                    break;
                }
                tokio::task::yield_now().await;
            }
            ended
        };
        let inventory = world.inventory().await;
        for name in ["a", "b", "c"] {
            if world.workload(name).await.is_some() {
                assert!(
                    inventory.iter().any(|entry| entry.starts_with(name)),
                    "{name} was applied, after {polls} polls"
                );
            }
            files.remove(world.path(&format!("{name}.yaml")));
        }
        syncer(&world).sync_once().await.expect("a pass");
        for name in ["a", "b", "c"] {
            assert!(world.workload(name).await.is_none(), "{name} is left over, after {polls} polls");
        }
        assert_eq!(world.inventory().await, [""; 0]);
        longest = polls;
        if ended {
            break;
        }
    }
    assert!(longest < 200, "the pass ends within the polls tried");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_deletes_nothing() {
    let (world, files) = simulated().await;
    let mut syncer = syncer(&world);
    for name in ["a", "b"] {
        files.write(world.path(&format!("{name}.yaml")), workload(name, "i:1"));
    }
    syncer.sync_once().await.expect("a pass");
    files.make_unreadable(world.path("a.yaml"), "input/output error");
    files.remove(world.path("b.yaml"));
    syncer.sync_once().await.expect("a pass");
    assert!(world.workload("a").await.is_some() && world.workload("b").await.is_some());
    assert_eq!(world.errors().await, ["a.yaml: input/output error"]);
    files.write(world.path("a.yaml"), workload("a", "i:1"));
    syncer.sync_once().await.expect("a pass");
    assert!(world.workload("a").await.is_some() && world.workload("b").await.is_none());
}

/// It was made anew by a pass that did not come to note its uid, for another file changed: it looked like somebody else's.
#[tokio::test(start_paused = true)]
async fn what_was_made_anew_goes_with_its_file_though_the_pass_that_made_it_broke_off() {
    let (world, files) = simulated().await;
    let mut syncer = syncer(&world);
    for name in ["a", "b"] {
        files.write(world.path(&format!("{name}.yaml")), workload(name, "i:1"));
    }
    syncer.sync_once().await.expect("a pass");
    world.delete("Workload", "a").await;
    assert!(world.workload("a").await.is_none());
    files.remove(world.path("b.yaml"));
    let written_meanwhile = async {
        // tidy: time is paused; it falls into the pause before anything is deleted.
        tokio::time::sleep(Duration::from_millis(300)).await;
        files.remove(world.path("a.yaml"));
        files.write(world.path("c.yaml"), workload("c", "i:1"));
    };
    let (pass, ()) = tokio::join!(syncer.sync_once(), written_meanwhile);
    pass.expect("a pass");
    assert!(world.workload("a").await.is_some(), "it was made anew");
    syncer.sync_once().await.expect("a pass");
    assert!(world.workload("a").await.is_none() && world.workload("b").await.is_none());
    assert!(world.workload("c").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_deletes_nothing_of_what_is_still_to_come() {
    let (world, files) = simulated().await;
    let mut syncer = syncer(&world);
    let stack = world.path("stack.yaml");
    let both = format!("{}---\n{}", workload("web", "i:1"), workload("db", "i:1"));
    files.write(&stack, &both);
    syncer.sync_once().await.expect("a pass");
    let uids = async || [uid(&world, "web").await, uid(&world, "db").await];
    let before = uids().await;
    assert!(before.iter().all(Option::is_some));
    // As a slow writer does: truncated, then document by document, each state one that parses.
    for state in [String::new(), workload("web", "i:1")] {
        files.write(&stack, state);
        let written_meanwhile = async {
            // tidy: time is paused; this is how slow the writer is.
            tokio::time::sleep(Duration::from_millis(300)).await;
            files.write(&stack, &both);
        };
        let (pass, ()) = tokio::join!(syncer.sync_once(), written_meanwhile);
        pass.expect("a pass");
        syncer.sync_once().await.expect("a pass");
        assert_eq!(uids().await, before, "nothing was made anew");
    }
    files.write(&stack, "# meant\n");
    for _ in 0..5 {
        syncer.sync_once().await.expect("a pass");
    }
    assert!(world.workload("web").await.is_none());
}

async fn uid(world: &World, name: &str) -> Option<String> {
    world.workload(name).await?.pointer("/metadata/uid")?.as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_what_changed_meanwhile() {
    let mut world = World::start().await;
    for name in ["a", "b"] {
        world.write(&format!("{name}.yaml"), workload(name, "i:1"));
        world.until_image(name, "i:1").await;
    }
    world.until("both are told", async || world.status().await.objects == 2).await;
    world.stop().await;
    world.remove("a.yaml");
    world.write("b.yaml", workload("b", "i:2"));
    world.write("c.yaml", workload("c", "i:1"));
    world.run();
    world.until_gone("a").await;
    world.until_image("b", "i:2").await;
    world.until_image("c", "i:1").await;
}
