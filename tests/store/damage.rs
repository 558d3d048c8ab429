//! Damaged databases are refused with a way forward, and left as they are.

use std::{fs, path::Path};

use gaia::store::{EmbeddedStore, EngineError, Options, Store};
use rstest::rstest;
use rusqlite::Connection;

use super::{key, object};

/// A closed database with three objects and five log entries.
async fn database() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(directory.path(), Options::default()).unwrap();
    for name in ["first", "second", "third", "fourth"] {
        store.create(key(name), object(name, 1)).await.unwrap();
    }
    let fourth = store.get(&key("fourth")).await.unwrap().unwrap();
    store.delete(key("fourth"), fourth.revision).await.unwrap();
    drop(store);
    directory
}

fn refusal(directory: &Path) -> String {
    match EmbeddedStore::open_dir(directory, Options::default()) {
        Ok(_) => panic!("a damaged database was opened"),
        Err(error @ EngineError::Damaged { .. }) => error.chain(),
        Err(other) => panic!("expected Damaged, got {other:?}"),
    }
}

#[rstest]
#[case::a_value(
    "UPDATE objects SET value = replace(value, 'second', 'zecond') WHERE rv = 2",
    "row 2 of table objects (key `gaia.dev/workloads/default/second`)"
)]
#[case::a_revision("UPDATE objects SET rv = 7 WHERE rv = 2", "row 2 of table objects")]
#[case::a_key("UPDATE objects SET key = 'gaia.dev/workloads/default/sekond' WHERE rv = 2", "default/sekond`)")]
#[case::a_type("UPDATE objects SET value = 12 WHERE rv = 2", "row 2 of table objects")]
#[case::a_log_value(
    "UPDATE log SET value = replace(value, 'third', 'tird') WHERE rv = 3",
    "row 3 of table log (key `gaia.dev/workloads/default/third`)"
)]
#[case::a_log_kind("UPDATE log SET kind = 'updated' WHERE rv = 3", "row 3 of table log")]
#[case::a_previous_value("UPDATE log SET prev = replace(prev, 'fourth', 'forth') WHERE rv = 5", "row 5 of table log")]
#[case::a_lost_object("DELETE FROM objects WHERE rv = 2", "table objects has 2 rows where 3 were written")]
#[case::a_lost_entry("DELETE FROM log WHERE rv = 3", "table log has 4 rows where 5 were written")]
#[case::a_log_row_posing_as_object(
    "UPDATE objects SET (value, checksum) = (SELECT value, checksum FROM log WHERE rv = 2) WHERE rv = 2",
    "row 2 of table objects"
)]
#[case::totals("UPDATE totals SET revision = 4", "totals contradict each other")]
#[case::more_history_than_is_kept("UPDATE totals SET compacted = -1", "totals contradict each other")]
#[tokio::test]
async fn a_changed_row_is_noticed(#[case] damage: &str, #[case] named: &str) {
    let directory = database().await;
    let file = directory.path().join("gaia.db");
    let connection = Connection::open(&file).unwrap();
    assert_eq!(connection.execute(damage, []).unwrap(), 1);
    connection.close().unwrap();
    let message = refusal(directory.path());
    assert!(message.contains(named), "{message}");
    assert!(message.to_lowercase().contains("restore a backup"), "{message}");
    assert_eq!(refusal(directory.path()), message, "nothing was repaired or removed meanwhile");
}

/// An old version of a row is whole, but not what was written last.
#[tokio::test]
async fn a_stale_row_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(directory.path(), Options::default()).unwrap();
    let first = store.create(key("a"), object("a", 1)).await.unwrap();
    store.close();
    let connection = Connection::open(directory.path().join("gaia.db")).unwrap();
    connection.execute_batch("CREATE TABLE old AS SELECT * FROM objects").unwrap();
    connection.close().unwrap();
    let store = EmbeddedStore::open_dir(directory.path(), Options::default()).unwrap();
    store.update(key("a"), object("a", 2), first.revision).await.unwrap();
    store.close();
    let connection = Connection::open(directory.path().join("gaia.db")).unwrap();
    connection
        .execute_batch("UPDATE objects SET (rv, value, checksum) = (SELECT rv, value, checksum FROM old)")
        .unwrap();
    connection.close().unwrap();
    let message = refusal(directory.path());
    assert!(message.contains("gaia.dev/workloads/default/a"), "{message}");
}

/// Wherever a value lies in the file, one flipped bit of it is noticed.
#[tokio::test]
async fn a_flipped_bit_in_the_file_is_noticed() {
    let directory = database().await;
    let file = directory.path().join("gaia.db");
    let whole = fs::read(&file).unwrap();
    let needle = b"{\"name\":\"second\"";
    let places: Vec<_> = (0..whole.len() - needle.len()).filter(|at| whole[*at..].starts_with(needle)).collect();
    assert!(places.len() >= 2, "the value is in both tables");
    for place in places {
        let mut bytes = whole.clone();
        bytes[place + 10] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let message = refusal(directory.path());
        assert!(message.contains("default/second"), "{message}");
        assert!(fs::read(&file).unwrap() == bytes, "the file is left as it is");
    }
    fs::write(&file, &whole).unwrap();
    assert!(EmbeddedStore::open_dir(directory.path(), Options::default()).is_ok(), "a restored backup opens");
}

/// Whatever else of the file is overwritten: it is either noticed or harmless, never a wrong answer.
#[tokio::test]
async fn overwritten_bytes_never_lead_to_wrong_objects() {
    let directory = database().await;
    let file = directory.path().join("gaia.db");
    let whole = fs::read(&file).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut noticed = 0;
    for _ in 0..200 {
        let mut bytes = whole.clone();
        let start = random.usize(0..bytes.len() - 16);
        bytes[start..start + 16].iter_mut().for_each(|byte| *byte = random.u8(..));
        fs::write(&file, &bytes).unwrap();
        match EmbeddedStore::open_dir(directory.path(), Options::default()) {
            Err(_) => noticed += 1,
            Ok(store) => {
                for name in ["first", "second", "third"] {
                    let version = store.get(&key(name)).await.unwrap().expect("no object vanishes");
                    assert_eq!(version.object["metadata"]["name"], name);
                }
                assert_eq!(store.get(&key("fourth")).await.unwrap(), None);
            }
        }
        for leftover in ["gaia.db-wal", "gaia.db-shm"] {
            if fs::exists(directory.path().join(leftover)).unwrap() {
                fs::remove_file(directory.path().join(leftover)).unwrap();
            }
        }
    }
    assert!(noticed > 10, "only {noticed} of 200 were noticed");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = database().await;
    let file = directory.path().join("gaia.db");
    for content in [&b""[..], &[b'x'; 8192][..]] {
        fs::write(&file, content).unwrap();
        assert!(refusal(directory.path()).contains("gaia.db"));
        assert!(fs::read(&file).unwrap() == content, "the file is left as it is");
    }
}

#[tokio::test]
async fn a_journal_without_its_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("gaia.db-wal"), "writes").unwrap();
    assert!(refusal(directory.path()).contains("gaia.db is missing"));
}

/// Damage in the middle of the journal is not taken for the torn write that may be at its end.
#[tokio::test]
async fn a_damaged_journal_does_not_lose_writes() {
    const FRAME: usize = 24 + 4096;
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open_dir(directory.path(), Options::default()).unwrap();
    for number in 0..10 {
        store.create(key(&number.to_string()), object("n", number)).await.unwrap();
    }
    // As a crash would leave it: everything is in the journal.
    let database = fs::read(directory.path().join("gaia.db")).unwrap();
    let journal = fs::read(directory.path().join("gaia.db-wal")).unwrap();
    let frames = (journal.len() - 32) / FRAME;
    assert!(frames >= 20, "each write takes a few frames, there are {frames}");
    let open = |journal: &[u8]| {
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("gaia.db"), &database).unwrap();
        fs::write(copy.path().join("gaia.db-wal"), journal).unwrap();
        let opened = EmbeddedStore::open_dir(copy.path(), Options::default());
        if opened.is_err() {
            assert!(fs::read(copy.path().join("gaia.db-wal")).unwrap() == journal, "the journal is left as it is");
        }
        opened
    };
    let untouched = open(&journal).unwrap();
    assert_eq!(untouched.revision().await.unwrap().0, 10);
    assert_eq!(open(&journal[..journal.len() - 1]).unwrap().revision().await.unwrap().0, 9, "a torn write is dropped");

    let mut refused = 0;
    for frame in 0..frames {
        // Commit mark, salt, checksum, page.
        for at in [6, 9, 17, 24 + 2000] {
            let mut bytes = journal.clone();
            bytes[32 + frame * FRAME + at] ^= 4;
            match open(&bytes) {
                Err(EngineError::Damaged { what, .. }) => {
                    assert!(what.contains(&format!("frame {} of the journal", frame + 1)), "{what}");
                    refused += 1;
                }
                Err(other) => panic!("expected Damaged, got {other:?}"),
                // What only the last write can explain.
                Ok(store) => assert!(store.revision().await.unwrap().0 >= 9, "frame {frame}, byte {at}"),
            }
        }
    }
    assert!(refused >= frames * 3, "{refused} of {} were noticed", frames * 4);
    let mut bytes = journal.clone();
    bytes[17] ^= 1;
    assert!(matches!(open(&bytes), Err(EngineError::Damaged { .. })), "the journal's header is checked");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = database().await;
    let connection = Connection::open(directory.path().join("gaia.db")).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    connection.close().unwrap();
    let error = EmbeddedStore::open_dir(directory.path(), Options::default()).err();
    assert!(matches!(error, Some(EngineError::Newer { found: 2, known: 1, .. })), "{error:?}");
}
