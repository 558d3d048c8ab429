//! The embedded store: the conformance suite over both engines, group commit, failing disks, damage, recovery, restarts, backups.

#[path = "store/backup.rs"]
mod backup;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/disk.rs"]
mod disk;
#[path = "store/recover.rs"]
mod recover;
#[path = "store/restart.rs"]
mod restart;
#[path = "store/trouble.rs"]
mod trouble;

use std::sync::{Arc, Mutex};

use gaia::store::{EmbeddedStore, Key, MemoryEngine, Options, Store, conformance};
use rstest::rstest;
use serde_json::{Value, json};

fn key(name: &str) -> Key {
    Key::new("gaia.dev", "workloads", Some("default"), name)
}

fn object(name: &str, size: u64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"size": size}})
}

fn log_of(log_capacity: usize) -> Options {
    Options { log_capacity, ..Options::default() }
}

#[rstest]
#[case(10_000)]
#[case(conformance::LEAST_HISTORY)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms(#[case] history: usize) {
    let make = || async { EmbeddedStore::open(MemoryEngine::default(), log_of(history)).unwrap() as Arc<dyn Store> };
    conformance::run(make, history).await;
}

#[rstest]
#[case(10_000)]
#[case(conformance::LEAST_HISTORY)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms(#[case] history: usize) {
    let directories = Mutex::new(Vec::new());
    let make = || async {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open_dir(directory.path(), log_of(history)).unwrap();
        directories.lock().unwrap().push(directory);
        store as Arc<dyn Store>
    };
    conformance::run(make, history).await;
}

#[tokio::test]
async fn memory_conforms_on_one_thread() {
    let make = || async { EmbeddedStore::open(MemoryEngine::default(), log_of(64)).unwrap() as Arc<dyn Store> };
    conformance::run(make, 64).await;
}
