//! `desired/` of this repository: valid, complete, and as it says itself.

use std::path::Path;

use gaia::gitops::{apply_documents, load_directory};

use crate::world::{World, copy, registry};

const DESIRED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/desired");

#[tokio::test]
async fn every_example_is_valid() {
    for directory in ["minimal", "gaia", "."] {
        let registry = registry().await;
        let loaded = load_directory(&Path::new(DESIRED).join(directory), &registry.kinds());
        assert_eq!(loaded.errors, [], "{directory}");
        assert!(loaded.complete && !loaded.documents.is_empty(), "{directory}");
        for dry_run in [true, false] {
            for (document, applied) in loaded.documents.iter().zip(apply_documents(&registry, &loaded, dry_run).await) {
                let applied = applied.unwrap_or_else(|error| panic!("{}: {error}", document.place()));
                assert!(applied.written.created, "a dry run leaves nothing behind: {}", document.place());
            }
        }
    }
}

#[tokio::test]
async fn examples_leave_start_stop_and_swap_to_the_api() {
    let registry = registry().await;
    for document in load_directory(Path::new(DESIRED), &registry.kinds()).documents {
        for pointer in ["/spec/active", "/spec/live/running", "/spec/candidate/running"] {
            assert_eq!(document.object.pointer(pointer), None, "{} {pointer}", document.place());
        }
    }
}

#[tokio::test]
async fn the_gaia_stack_is_the_one_of_its_port_table() {
    let registry = registry().await;
    let mut ports = Vec::new();
    for document in load_directory(&Path::new(DESIRED).join("gaia"), &registry.kinds()).documents {
        for variant in ["live", "candidate"] {
            let pointer = format!("/spec/{variant}/container/ports/0/hostPort");
            if let Some(port) = document.object.pointer(&pointer) {
                ports.push(format!("{} {variant} {port}", document.id.name));
            }
        }
    }
    assert_eq!(
        ports,
        [
            "gaia-core live 6415",
            "gaia-core candidate 6416",
            "gaia-mcp live 8765",
            "gaia-mcp candidate 8767",
            "gaia-prime live 7777",
            "gaia-prime candidate 7778",
            "gaia-study live 8766",
            "gaia-study candidate 8768",
            "gaia-web live 6414",
            "gaia-web candidate 6417"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gaia_stack_is_applied_from_its_files() {
    let world = World::start().await;
    copy(&Path::new(DESIRED).join("gaia"), &world.root());
    world.until("all of it", async || world.status().await.objects == 6).await;
    world.until_ready("Applied").await;
    assert!(world.object("Gpu", None, "gpu0").await.is_some());
}
