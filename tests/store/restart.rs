//! What a restart finds: objects, history, its bound, and who may write.

use std::{path::Path, process::Command, sync::Arc};

use gaia::store::{EmbeddedStore, EngineError, MemoryEngine, Options, Prefix, Revision, Store, StoreError};
use rstest::rstest;

use super::{key, log_of, object};

/// Opens the same disk again and again.
enum Disk {
    Memory(MemoryEngine),
    Directory(tempfile::TempDir),
}

impl Disk {
    fn memory() -> Self {
        Self::Memory(MemoryEngine::default())
    }

    fn directory() -> Self {
        Self::Directory(tempfile::tempdir().unwrap())
    }

    fn open(&self, options: Options) -> Arc<EmbeddedStore> {
        match self {
            Disk::Memory(engine) => EmbeddedStore::open(engine.clone(), options).unwrap(),
            Disk::Directory(directory) => EmbeddedStore::open_dir(directory.path(), options).unwrap(),
        }
    }
}

#[rstest]
#[case(Disk::memory())]
#[case(Disk::directory())]
#[tokio::test]
async fn a_watch_is_resumed_after_a_restart(#[case] disk: Disk) {
    let store = disk.open(Options::default());
    let first = store.create(key("a"), object("a", 1)).await.unwrap();
    let second = store.update(key("a"), object("a", 2), first.revision).await.unwrap();
    let other = store.create(key("b"), object("b", 1)).await.unwrap();
    let gone = store.delete(key("a"), second.revision).await.unwrap();
    drop(store);

    let store = disk.open(Options::default());
    assert_eq!(store.revision().await.unwrap(), gone.revision);
    assert_eq!(store.list(&Prefix::all()).await.unwrap().items, std::slice::from_ref(&other));
    let mut watch = store.watch(Prefix::all(), first.revision).await.unwrap();
    let told = watch.next().await.unwrap();
    let told: Vec<_> = told.iter().map(|change| (change.version.clone(), change.previous.clone())).collect();
    assert_eq!(told, [(second.clone(), Some(first)), (other, None), (gone.clone(), Some(second))]);
    let next = store.create(key("a"), object("a", 3)).await.unwrap();
    assert!(next.revision > gone.revision, "revisions go on growing");
}

#[rstest]
#[case(Disk::memory())]
#[case(Disk::directory())]
#[tokio::test]
async fn history_is_bounded_on_the_disk_too(#[case] disk: Disk) {
    let store = disk.open(log_of(16));
    for number in 0..100 {
        store.create(key(&number.to_string()), object("n", number)).await.unwrap();
    }
    drop(store);
    // A larger log than was kept cannot bring back what was forgotten.
    let store = disk.open(Options::default());
    let Err(StoreError::Expired { oldest, .. }) = store.watch(Prefix::all(), Revision(1)).await else {
        panic!("revision 1 is long gone");
    };
    assert!((80..=84).contains(&oldest.0), "16 to 18 changes are kept, not {}", 100 - oldest.0);
    let mut watch = store.watch(Prefix::all(), oldest).await.unwrap();
    assert_eq!(watch.next().await.unwrap().len() as u64, 100 - oldest.0);
    assert_eq!(store.list(&Prefix::all()).await.unwrap().items.len(), 100);
}

#[rstest]
#[case(Disk::memory())]
#[case(Disk::directory())]
#[tokio::test]
async fn an_emptied_store_does_not_start_over(#[case] disk: Disk) {
    let store = disk.open(log_of(1));
    let mut last = Revision(0);
    for _ in 0..5 {
        let made = store.create(key("a"), object("a", 1)).await.unwrap();
        last = store.delete(key("a"), made.revision).await.unwrap().revision;
    }
    drop(store);
    let store = disk.open(log_of(1));
    assert_eq!(store.revision().await.unwrap(), last);
    assert!(store.create(key("a"), object("a", 1)).await.unwrap().revision > last);
}

#[tokio::test]
async fn what_is_left_of_a_crashed_store_cannot_write() {
    let engine = MemoryEngine::default();
    let crashed = EmbeddedStore::open(engine.clone(), Options::default()).unwrap();
    crashed.create(key("a"), object("a", 1)).await.unwrap();
    let store = EmbeddedStore::open(engine, Options::default()).unwrap();
    assert!(matches!(crashed.create(key("b"), object("b", 1)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.create(key("c"), object("c", 1)).await.unwrap().revision, Revision(2));
}

#[tokio::test]
async fn a_copy_of_a_snapshot_has_its_revisions() {
    let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).unwrap();
    let first = store.create(key("a"), object("a", 1)).await.unwrap();
    store.create(key("b"), object("b", 1)).await.unwrap();
    let snapshot = store.list(&Prefix::all()).await.unwrap();
    let copy = EmbeddedStore::open(MemoryEngine::holding(&snapshot), Options::default()).unwrap();
    assert_eq!(copy.list(&Prefix::all()).await.unwrap().items, snapshot.items);
    let mut watch = copy.watch(Prefix::all(), snapshot.revision).await.unwrap();
    let next = copy.update(key("a"), object("a", 2), first.revision).await.unwrap();
    assert_eq!(watch.next().await.unwrap()[0].version, next);
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(first), "the original does not change");
}

#[test]
fn only_its_owner_may_read_the_database() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let everybodys = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybodys).expect("a directory made by somebody else");
    let store = EmbeddedStore::open_dir(directory.path(), Options::default()).expect("opens");
    for name in ["gaia.db", "gaia.db-wal", "gaia.lock"] {
        let mode = directory.path().join(name).metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
    store.close();
}

#[test]
fn a_directory_is_opened_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/on the way");
    let store = EmbeddedStore::open_dir(&path, Options::default()).unwrap();
    let message = refusal(&path).to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    store.close();
    EmbeddedStore::open_dir(&path, Options::default()).unwrap();
}

/// The lock is the system's, so another process is kept out as well, and a dead one keeps nobody out.
#[test]
fn another_process_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let lock = directory.path().join("gaia.lock");
    let mut child = Command::new("flock")
        .arg(&lock)
        .args(["sh", "-c", "echo locked; read end"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("util-linux is on every Linux");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "locked\n");
    assert!(matches!(refusal(directory.path()), EngineError::Locked { .. }));
    drop(child.stdin.take());
    child.wait().unwrap();
    EmbeddedStore::open_dir(directory.path(), Options::default()).unwrap();
}

fn refusal(path: &Path) -> EngineError {
    EmbeddedStore::open_dir(path, Options::default()).err().expect("the directory is in use")
}
