//! Backups of a store at work, and what a restored one holds.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gaia::store::{
    Backup, EmbeddedStore, EngineError, Key, Options, Prefix, Restored, Revision, Source, Store, StoreError, restore,
    verify,
};

use super::{key, object};

const NOW: Duration = Duration::from_secs(1_795_000_000);

fn restored(backup: &Backup, directory: &Path) -> Restored {
    let source = Source { name: Path::new("a backup"), database: &backup.bytes, journal: &[] };
    restore(source, directory, NOW).unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Counts one object up, so that each revision is known to hold exactly its own number.
async fn count(store: Arc<EmbeddedStore>, stop: Arc<AtomicBool>) {
    let mut last = store.create(key("counter"), object("counter", 1)).await.unwrap();
    while !stop.load(Ordering::SeqCst) {
        last = store.update(key("counter"), object("counter", last.revision.0 + 1), last.revision).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_of_one_revision_while_writers_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(directory.path(), Options::default()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(count(store.clone(), stop.clone()));
    let mut news = store.watch(Prefix::all(), Revision(0)).await.unwrap();
    news.next().await.unwrap();
    let mut seen = Vec::new();
    for number in 0..10 {
        let backup = store.backup().unwrap();
        assert_eq!(verify(&backup.bytes, Path::new("a backup")).unwrap(), (backup.revision, 1));
        let copy = directory.path().join(number.to_string());
        let told = restored(&backup, &copy);
        assert_eq!((told.backup, told.objects), (backup.revision, 1));
        let copy = EmbeddedStore::open_dir(&copy, Options::default()).unwrap();
        let counter = copy.get(&key("counter")).await.unwrap().expect("there");
        assert_eq!(counter.revision, backup.revision);
        assert_eq!(counter.object["spec"]["size"], backup.revision.0);
        seen.push(backup.revision);
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    assert!(seen.is_sorted() && seen[0] < seen[9], "the writer went on: {seen:?}");
}

#[tokio::test]
async fn a_restored_store_goes_on_behind_every_revision_given_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(&directory.path().join("old"), Options::default()).unwrap();
    for number in 0..100 {
        store.create(key(&number.to_string()), object("n", number)).await.unwrap();
    }
    let backup = store.backup().unwrap();
    let old: BTreeMap<Key, Arc<_>> = store
        .list(&Prefix::all())
        .await
        .unwrap()
        .items
        .into_iter()
        .map(|version| (version.key.clone(), version))
        .collect();
    let undone = store.create(key("undone"), object("undone", 1)).await.unwrap();

    let new = directory.path().join("new");
    let told = restored(&backup, &new);
    let store = EmbeddedStore::open_dir(&new, Options::default()).unwrap();
    let listed = store.list(&Prefix::all()).await.unwrap();
    assert_eq!(listed.revision, told.revision);
    assert!(listed.items.iter().all(|version| old[&version.key] == *version) && listed.items.len() == old.len());
    for seen in [Revision(0), Revision(50), backup.revision, undone.revision] {
        let answer = store.watch(Prefix::all(), seen).await.map(|_| ());
        assert!(matches!(answer, Err(StoreError::Expired { oldest, .. }) if oldest == told.revision), "{answer:?}");
    }
    // Compare-and-swap goes on for who has seen this version, and for nobody else.
    let seen = &old[&key("7")];
    let stale = store.update(key("7"), object("n", 8), undone.revision).await;
    assert!(matches!(stale, Err(StoreError::Conflict(_))), "{stale:?}");
    let mut watch = store.watch(Prefix::all(), told.revision).await.unwrap();
    let next = store.update(key("7"), object("n", 8), seen.revision).await.unwrap();
    assert_eq!(next.revision.0, told.revision.0 + 1);
    assert_eq!(watch.next().await.unwrap()[0].previous.as_ref(), Some(seen));
    drop(store);

    let store = EmbeddedStore::open_dir(&new, Options::default()).unwrap();
    assert_eq!(store.revision().await.unwrap(), next.revision);
    assert_eq!(store.watch(Prefix::all(), told.revision).await.unwrap().next().await.unwrap()[0].version, next);
}

/// A directory copied whole after a `kill -9`: what is in the journal counts.
#[tokio::test]
async fn a_copied_directory_is_a_backup_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(&directory.path().join("old"), Options::default()).unwrap();
    for number in 0..10 {
        store.create(key(&number.to_string()), object("n", number)).await.unwrap();
    }
    let database = fs::read(directory.path().join("old/gaia.db")).unwrap();
    let journal = fs::read(directory.path().join("old/gaia.db-wal")).unwrap();
    let source = Source { name: Path::new("gaia.db"), database: &database, journal: &journal };
    let told = restore(source, &directory.path().join("new"), NOW).unwrap();
    assert_eq!((told.objects, told.backup), (10, Revision(10)));
    let mut torn = journal.clone();
    torn[32 + 24 + 2000] ^= 4;
    let source = Source { journal: &torn, ..source };
    let refused = restore(source, &directory.path().join("torn"), NOW);
    assert!(matches!(refused, Err(EngineError::Damaged { .. })), "{refused:?}");
}

/// No flipped bit is restored as something else.
#[tokio::test]
async fn every_byte_of_a_backup_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(&directory.path().join("old"), Options::default()).unwrap();
    for number in 0..5 {
        store.create(key(&number.to_string()), object("n", number)).await.unwrap();
    }
    let backup = store.backup().unwrap();
    let whole = store.list(&Prefix::all()).await.unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let mut refused = 0;
    for round in 0..40 {
        let mut bytes = backup.bytes.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        let copy = directory.path().join(round.to_string());
        let source = Source { name: Path::new("a backup"), database: &bytes, journal: &[] };
        match restore(source, &copy, NOW) {
            Err(_) => {
                assert!(!copy.join("gaia.db").exists());
                refused += 1;
            }
            // Free space, and fields of the header that mean nothing to us.
            Ok(told) => {
                let copy = EmbeddedStore::open_dir(&copy, Options::default()).unwrap();
                assert_eq!(copy.list(&Prefix::all()).await.unwrap().items, whole.items, "byte {at}");
                assert_eq!(told.backup, backup.revision);
            }
        }
    }
    assert!(refused > 2, "only {refused} of 40 were noticed");
}
