//! Power failures while a backup is restored and while a damaged directory is recovered: at any moment it is as before, or
//! finished, or refused with what to do; never a store that is empty or holds less.

use std::{env, fs, path::Path, path::PathBuf, time::Duration};

use gaia::store::{EmbeddedStore, EngineError, Key, Options, Prefix, Source, Store, Wish, recover, restore};
use rusqlite::Connection;

use super::{
    ROOT,
    model::{Disk, Leaves, Operation, operations},
    object, run_on_the_disk,
};

const NOW: Duration = Duration::from_secs(1_795_000_000);
const OBJECTS: usize = 20;

/// Not a test of its own: restores `backup` into `data`.
#[test]
#[ignore = "started by a_restore_is_whole_or_refused with a library before it"]
fn restoring_process() {
    let root = PathBuf::from(env::var_os(ROOT).expect("the directory to work in"));
    let backup = fs::read(root.join("backup")).unwrap();
    let source = Source { name: Path::new("a backup"), database: &backup, journal: &[] };
    restore(source, &root.join("data"), NOW).unwrap();
    std::process::abort();
}

/// Not a test of its own: recovers `data`.
#[test]
#[ignore = "started by a_recovery_loses_nothing_on_the_way with a library before it"]
fn recovering_process() {
    let root = PathBuf::from(env::var_os(ROOT).expect("the directory to work in"));
    let wish = Wish { directory: &root.join("data"), now: NOW, leave_out: false, dry_run: false };
    recover(wish).unwrap().expect("it is damaged");
    std::process::abort();
}

/// A directory with some objects.
async fn filled(directory: &Path) {
    let store = EmbeddedStore::open_dir(directory, Options::default()).unwrap();
    for number in 0..OBJECTS {
        let key = Key::new("gaia.dev", "workloads", Some("default"), &number.to_string());
        store.create(key, object(number as u64)).await.unwrap();
    }
    fs::write(directory.with_file_name("backup"), store.backup().unwrap().bytes).unwrap();
    store.close();
}

/// What a process did on the disk.
fn deeds(process: &str, root: &Path) -> Vec<Operation> {
    let log = root.with_extension("operations");
    let output = run_on_the_disk(process, root, &log);
    let aborted = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(6);
    assert!(aborted, "{}", String::from_utf8_lossy(&output.stderr));
    let operations = operations(&fs::read(&log).unwrap());
    fs::remove_file(&log).unwrap();
    operations
}

/// How many objects the store that opens has; the refusal where it does not.
async fn opened(image: &Path) -> Result<usize, String> {
    match EmbeddedStore::open_dir(image, Options::default()) {
        Ok(store) => Ok(store.list(&Prefix::all()).await.unwrap().items.len()),
        Err(error @ EngineError::Damaged { .. }) => Err(error.chain()),
        Err(other) => panic!("{}", other.chain()),
    }
}

/// Every moment, each with nothing, everything and some of what was not synced.
async fn at_every_moment(
    data: &Path,
    mut disk: Disk,
    deeds: &[Operation],
    check: impl Fn(usize, Result<usize, String>),
) {
    for done in 0..=deeds.len() {
        for leaves in [Leaves::Nothing, Leaves::Everything, Leaves::Some(done as u64), Leaves::Some(!done as u64)] {
            let image = tempfile::tempdir().unwrap();
            disk.fail(leaves, data, image.path());
            check(done, opened(image.path()).await);
        }
        if let Some(deed) = deeds.get(done) {
            disk.apply(deed);
        }
    }
}

#[tokio::test]
async fn a_restore_is_whole_or_refused() {
    let source = tempfile::tempdir().unwrap();
    filled(&source.path().join("data")).await;
    let root = tempfile::tempdir().unwrap();
    fs::copy(source.path().join("backup"), root.path().join("backup")).unwrap();
    let deeds = deeds("making::restoring_process", root.path());
    let last = deeds.len();
    at_every_moment(&root.path().join("data"), Disk::default(), &deeds, |done, found| match found {
        Ok(OBJECTS) => {}
        // Nothing of it had reached the disk yet.
        Ok(0) => assert!(done < last, "the restore was done"),
        Ok(some) => panic!("{some} objects after {done} of {last} operations"),
        Err(refusal) => {
            assert!(
                refusal.contains("gaia restore FILE") && done < last,
                "after {done} of {last} operations: {refusal}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_recovery_loses_nothing_on_the_way() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    filled(&data).await;
    let connection = Connection::open(data.join("gaia.db")).unwrap();
    assert_eq!(connection.execute("UPDATE log SET value = 'x' WHERE rv = 3", []).unwrap(), 1);
    connection.close().unwrap();
    let mut disk = Disk::default();
    disk.hold(&data.join("gaia.db"));
    let deeds = deeds("making::recovering_process", root.path());
    let last = deeds.len();
    at_every_moment(&data, disk, &deeds, |done, found| match found {
        Ok(OBJECTS) => {}
        Ok(some) => panic!("{some} objects after {done} of {last} operations"),
        Err(refusal) => {
            assert!(refusal.contains("gaia recover --data-dir") && done < last, "after {done} of {last}: {refusal}");
        }
    })
    .await;
}
