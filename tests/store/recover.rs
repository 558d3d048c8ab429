//! What is made of a damaged directory: everything where a second copy is left, an earlier revision where the journal is cut,
//! and nothing wrong, ever.

use std::{fs, path::Path, sync::Arc, time::Duration};

use gaia::store::{
    EmbeddedStore, EngineError, Options, Prefix, Recovery, Revision, Store, StoreError, Version, Wish, recover,
};
use rstest::rstest;
use rusqlite::Connection;

use super::{key, log_of, object};

const NOW: Duration = Duration::from_secs(1_795_000_000);

/// A closed database with three objects, of which each was changed, and what they are.
async fn database(log_capacity: usize) -> (tempfile::TempDir, Vec<Arc<Version>>) {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(directory.path(), log_of(log_capacity)).unwrap();
    for name in ["first", "second", "third", "fourth"] {
        let made = store.create(key(name), object(name, 1)).await.unwrap();
        store.update(key(name), object(name, 2), made.revision).await.unwrap();
    }
    let fourth = store.get(&key("fourth")).await.unwrap().unwrap();
    store.delete(key("fourth"), fourth.revision).await.unwrap();
    let items = store.list(&Prefix::all()).await.unwrap().items;
    drop(store);
    (directory, items)
}

fn wish(directory: &Path) -> Wish<'_> {
    Wish { directory, now: NOW, leave_out: false, dry_run: false }
}

fn damage(directory: &Path, sql: &str) {
    let connection = Connection::open(directory.join("gaia.db")).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
    connection.close().unwrap();
}

fn is_refused(directory: &Path) -> bool {
    matches!(EmbeddedStore::open_dir(directory, Options::default()), Err(EngineError::Damaged { .. }))
}

/// Opens what was recovered. Whoever watched before must list again.
async fn recovered(directory: &Path, recovery: &Recovery) -> Vec<Arc<Version>> {
    let store =
        EmbeddedStore::open_dir(directory, Options::default()).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(store.revision().await.unwrap(), recovery.goes_on_at);
    let before = store.watch(Prefix::all(), recovery.revision).await.map(|_| ());
    assert!(matches!(before, Err(StoreError::Expired { .. })), "{before:?}");
    store.list(&Prefix::all()).await.unwrap().items
}

#[rstest]
#[case::a_value("UPDATE objects SET value = replace(value, 'second', 'zecond') WHERE rv = 4")]
#[case::a_key("UPDATE objects SET key = 'gaia.dev/workloads/default/sekond' WHERE rv = 4")]
#[case::a_stale_object("UPDATE objects SET (rv, value, checksum) = (9, 'x', 1) WHERE rv = 4")]
#[case::a_lost_object("DELETE FROM objects WHERE rv = 4")]
#[case::every_object("DELETE FROM objects")]
#[case::a_log_value("UPDATE log SET value = replace(value, 'third', 'tird') WHERE rv = 6")]
#[case::a_deletion_in_the_log("UPDATE log SET kind = 'updated' WHERE rv = 9")]
#[case::a_lost_entry("DELETE FROM log WHERE rv = 3")]
#[case::totals("UPDATE totals SET revision = 4")]
#[case::nonsense_in_totals("UPDATE totals SET compacted = -1")]
#[tokio::test]
async fn what_is_there_twice_is_mended(#[case] sql: &str) {
    let (directory, items) = database(100).await;
    damage(directory.path(), sql);
    let damaged = fs::read(directory.path().join("gaia.db")).unwrap();
    assert!(is_refused(directory.path()));
    let dry = recover(Wish { dry_run: true, ..wish(directory.path()) }).unwrap().expect("damaged");
    assert!(is_refused(directory.path()), "only told");
    let recovery = recover(wish(directory.path())).unwrap().expect("damaged");
    assert_eq!(recovery, dry);
    assert_eq!((recovery.objects, recovery.revision, &*recovery.losses), (3, Revision(9), &[][..]));
    assert_eq!(recovered(directory.path(), &recovery).await, items);
    assert_eq!(fs::read(recovery.kept.join("gaia.db")).unwrap(), damaged);
    assert_eq!(recover(wish(directory.path())).unwrap(), None, "nothing is damaged any more");
}

/// Its last write is not in the log any more.
#[tokio::test]
async fn an_object_that_is_nowhere_whole_is_left_out_only_on_request() {
    let (directory, items) = database(1).await;
    damage(directory.path(), "UPDATE objects SET value = replace(value, 'second', 'zecond') WHERE rv = 4");
    let refusal = recover(wish(directory.path())).expect_err("an object is lost").chain();
    assert!(refusal.contains("1 of 3 objects (damaged: gaia.dev/workloads/default/second)"), "{refusal}");
    assert!(refusal.contains("--leave-out-damaged"), "{refusal}");
    assert!(is_refused(directory.path()));
    let recovery = recover(Wish { leave_out: true, ..wish(directory.path()) }).unwrap().expect("damaged");
    assert_eq!((recovery.objects, recovery.losses.len()), (2, 1));
    let left: Vec<_> = items.into_iter().filter(|version| version.key != key("second")).collect();
    assert_eq!(recovered(directory.path(), &recovery).await, left);
}

/// A write that is neither in the log nor an object may be the last of one: which, nobody can know.
#[tokio::test]
async fn a_stale_object_is_not_taken_for_the_last() {
    let (directory, _) = database(100).await;
    // The object as it was before its last write, of which nothing is left.
    let old = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(old.path(), Options::default()).unwrap();
    store.create(key("first"), object("first", 1)).await.unwrap();
    store.update(key("first"), object("first", 2), Revision(1)).await.unwrap();
    store.create(key("second"), object("second", 1)).await.unwrap();
    store.close();
    damage(directory.path(), "DELETE FROM log WHERE rv = 4");
    let connection = Connection::open(directory.path().join("gaia.db")).unwrap();
    connection.execute("ATTACH ?1 AS old", [old.path().join("gaia.db").to_str()]).unwrap();
    let sql = "UPDATE objects SET (rv, value, checksum) = (SELECT rv, value, checksum FROM old.objects WHERE rv = 3) WHERE rv = 4";
    assert_eq!(connection.execute(sql, []).unwrap(), 1);
    connection.close().unwrap();
    let refusal = recover(wish(directory.path())).expect_err("a write is lost").chain();
    assert!(refusal.contains("what 1 writes changed"), "{refusal}");
}

/// Any bits: refused, or everything, or an earlier revision; and what is left out on request is all that is missing.
#[tokio::test]
async fn nothing_wrong_is_recovered() {
    let (whole, items) = database(100).await;
    let bytes = fs::read(whole.path().join("gaia.db")).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let (mut mended, mut lost, mut hopeless) = (0, 0, 0);
    for _ in 0..120 {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = bytes.clone();
        // A few bits, or a page.
        let length = if random.bool() { 4 } else { 4096 };
        let start = random.usize(..=bytes.len() - length) / length * length;
        bytes[start..start + length].iter_mut().for_each(|byte| *byte ^= random.u8(..));
        fs::write(directory.path().join("gaia.db"), &bytes).unwrap();
        if !is_refused(directory.path()) {
            continue;
        }
        match recover(wish(directory.path())) {
            Ok(Some(recovery)) => {
                assert_eq!(recovered(directory.path(), &recovery).await, items, "{recovery:?}");
                mended += 1;
            }
            Ok(None) => panic!("refused, and nothing is damaged"),
            Err(EngineError::Damaged { .. }) => {
                match recover(Wish { leave_out: true, ..wish(directory.path()) }) {
                    Ok(Some(recovery)) => {
                        let left = recovered(directory.path(), &recovery).await;
                        // An earlier version of one at worst, and that is said.
                        assert!(left.iter().all(|version| version.object["metadata"]["name"] == *name(version)));
                        assert!(!recovery.losses.is_empty());
                        lost += 1;
                    }
                    Ok(None) => panic!("refused, and nothing is damaged"),
                    Err(_) => hopeless += 1,
                }
            }
            Err(other) => panic!("{}", other.chain()),
        }
    }
    eprintln!("mended {mended}, with losses {lost}, beyond help {hopeless}");
    assert!(mended > 10 && hopeless > 0, "mended {mended}, with losses {lost}, beyond help {hopeless}");
}

fn name(version: &Version) -> &str {
    version.key.as_str().rsplit('/').next().unwrap()
}

/// The state is that of the last write before the damage, and that is said.
#[tokio::test]
async fn a_cut_journal_leads_back_to_a_revision() {
    const FRAME: usize = 24 + 4096;
    let source = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(source.path(), Options::default()).unwrap();
    for number in 0..10 {
        store.create(key(&number.to_string()), object("n", number)).await.unwrap();
    }
    let database = fs::read(source.path().join("gaia.db")).unwrap();
    let journal = fs::read(source.path().join("gaia.db-wal")).unwrap();
    let mut revisions = Vec::new();
    for frame in 0..(journal.len() - 32) / FRAME - 8 {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = journal.clone();
        journal[32 + frame * FRAME + 24 + 2000] ^= 4;
        fs::write(directory.path().join("gaia.db"), &database).unwrap();
        fs::write(directory.path().join("gaia.db-wal"), &journal).unwrap();
        assert!(is_refused(directory.path()));
        let recovery = recover(wish(directory.path())).unwrap().expect("damaged");
        assert!(recovery.losses[0].contains(&format!("after revision {}", recovery.revision)), "{recovery:?}");
        let left = recovered(directory.path(), &recovery).await;
        assert!(left.iter().map(|version| version.revision.0).eq(1..=recovery.revision.0), "{recovery:?}");
        assert_eq!(fs::read(recovery.kept.join("gaia.db-wal")).unwrap(), journal, "the journal is kept");
        revisions.push(recovery.revision.0);
    }
    assert!(revisions.is_sorted() && revisions[0] == 0 && revisions.last() > Some(&5), "{revisions:?}");
}

/// The journal of the damaged database must not be played into the new one.
#[tokio::test]
async fn a_recovery_that_was_killed_is_finished_by_the_next_start() {
    let (directory, items) = database(100).await;
    damage(directory.path(), "DELETE FROM log WHERE rv = 3");
    let recovery = recover(wish(directory.path())).unwrap().expect("damaged");
    let path = |name: &str| directory.path().join(name);
    fs::rename(path("gaia.db"), path("gaia.db.recovered")).unwrap();
    fs::write(path("gaia.db-wal"), "of the damaged one").unwrap();
    assert_eq!(recovered(directory.path(), &recovery).await, items);
    assert!(!path("gaia.db.recovered").exists());
}
