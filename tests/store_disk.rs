//! A disk that loses power: whatever moment it is, and whatever part of what was not synced is left, the store opens, and holds
//! exactly the first writes, all acknowledged and all told ones among them.
//!
//! Writers run as a process of their own with `tests/fixtures/disk` before the C library, which writes down what reaches the
//! disk; from that [`model`] makes the disks that a failure can leave. They write their acknowledgements to the same disk, so that
//! these stand among the rest in the order that counts. `GAIA_POWER_FAILURES=n` looks at n disks.

#[path = "store_disk/making.rs"]
mod making;
#[path = "store_disk/model.rs"]
mod model;

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use futures::future::join_all;
use gaia::store::{Change, ChangeKind, EmbeddedStore, Key, Options, Prefix, Revision, Store, StoreError};
use model::{Disk, Leaves, Operation, operations};
use serde_json::{Value, json};

const ROOT: &str = "GAIA_TEST_STORE_DISK_ROOT";
const FAILURES: &str = "GAIA_POWER_FAILURES";
const WRITERS: u64 = 6;
/// Of each writer, each time the process runs.
const WRITES: u64 = 40;

/// Short, so that the log is compacted.
fn options() -> Options {
    Options { log_capacity: 64, ..Options::default() }
}

fn object(number: u64) -> Value {
    json!({"metadata": {}, "first": number, "middle": vec![number; 300], "last": number})
}

/// Not a test of its own: writes, says what was acknowledged and told, and ends without closing anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by a_power_failure_loses_nothing with a library before it"]
async fn writer_process() {
    let root = PathBuf::from(env::var_os(ROOT).expect("the directory to write in"));
    let told = fs::OpenOptions::new().create(true).append(true).open(root.join("told")).unwrap();
    let told = Arc::new(Mutex::new(told));
    let store = EmbeddedStore::open_dir(&root.join("data"), options()).unwrap();
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(Prefix::all(), start).await.unwrap();
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer, start.0, told.clone())));
    let writers = tokio::spawn(join_all(writers));
    // Every write makes a revision.
    while watch.position().0 < start.0 + WRITERS * WRITES {
        for change in watch.next().await.unwrap() {
            let Change { kind, version, .. } = &change;
            let number = version.object["first"].as_u64().unwrap();
            say(&told, &format!("told {} {} {kind:?} {number}", version.revision, version.key.as_str()));
        }
    }
    assert!(writers.await.unwrap().into_iter().all(|writer| writer.is_ok()));
    // As a kill would end it, with nothing under way.
    std::process::abort();
}

async fn write(store: Arc<EmbeddedStore>, writer: u64, start: u64, told: Arc<Mutex<fs::File>>) {
    for number in start + 1..=start + WRITES {
        let key = Key::new("gaia.dev", "workloads", Some("default"), &format!("{writer}-{}", number % 3));
        let written = match store.get(&key).await.unwrap() {
            None => store.create(key, object(number)).await,
            Some(present) if number.is_multiple_of(7) => store.delete(key, present.revision).await,
            Some(present) => store.update(key, object(number), present.revision).await,
        };
        say(&told, &format!("ack {}", written.unwrap().revision));
    }
}

fn say(told: &Mutex<fs::File>, line: &str) {
    told.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// What the program did, and every write it made, by revision.
struct Story {
    root: tempfile::TempDir,
    operations: Vec<Operation>,
    writes: BTreeMap<u64, Written>,
}

struct Written {
    key: String,
    kind: ChangeKind,
    number: u64,
}

/// Three lives: an empty directory, one with a journal to take over, and once more.
fn story() -> Story {
    let root = tempfile::tempdir().unwrap();
    let log = root.path().with_extension("operations");
    for _ in 0..3 {
        let output = run_on_the_disk("writer_process", root.path(), &log);
        let aborted = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(6);
        assert!(aborted, "{}", String::from_utf8_lossy(&output.stderr));
    }
    let operations = operations(&fs::read(&log).unwrap());
    fs::remove_file(&log).unwrap();
    let mut writes = BTreeMap::new();
    for line in fs::read_to_string(root.path().join("told")).unwrap().lines() {
        let words: Vec<_> = line.split(' ').collect();
        if let ["told", revision, key, kind, number] = words[..] {
            let kind = match kind {
                "Created" => ChangeKind::Created,
                "Updated" => ChangeKind::Updated,
                "Deleted" => ChangeKind::Deleted,
                other => panic!("no kind of change: {other}"),
            };
            let written = Written { key: key.to_owned(), kind, number: number.parse().unwrap() };
            assert!(writes.insert(revision.parse().unwrap(), written).is_none());
        }
    }
    assert_eq!(writes.len() as u64, 3 * WRITERS * WRITES);
    assert!(writes.keys().zip(1..).all(|(revision, expected)| *revision == expected), "no revision is missing");
    Story { root, operations, writes }
}

/// Runs a test of this binary in a process of its own, with everything that it does below `root` written down.
fn run_on_the_disk(name: &str, root: &Path, log: &Path) -> Output {
    let test = env::current_exe().unwrap();
    Command::new(&test)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("LD_PRELOAD", test.with_file_name("libfaulty_disk.so"))
        .env("FAULTY_DISK_ROOT", root)
        .env("FAULTY_DISK_LOG", log)
        .env(ROOT, root)
        .output()
        .unwrap()
}

/// The last revision that a line of the file says was acknowledged or told.
fn promised(line: &[u8]) -> u64 {
    let line = std::str::from_utf8(line).expect("a line is written at once");
    line.split(' ').nth(1).and_then(|revision| revision.trim().parse().ok()).expect("a revision")
}

#[tokio::test]
async fn a_power_failure_loses_nothing() {
    let wanted = env::var(FAILURES).map_or(250, |failures| failures.parse().expect("a number of disks"));
    let story = story();
    let data = story.root.path().join("data");
    let places = story.operations.len();
    let syncs = story.operations.iter().filter(|operation| matches!(operation, Operation::Sync { .. })).count();
    let mut random = fastrand::Rng::with_seed(20_261_125);
    // The beginning is where files are made; after it anywhere.
    let mut points: Vec<usize> = (0..places.min(wanted / 4)).collect();
    points.extend((points.len()..wanted).map(|_| random.usize(..=places)));
    points.sort_unstable();
    let mut points = points.into_iter().peekable();
    let (mut disk, mut acknowledged, mut told_file) = (Disk::default(), 0, None);
    let (mut looked_at, mut behind) = (0, 0);
    for done in 0..=places {
        while points.next_if(|point| *point == done).is_some() {
            let leaves = match looked_at % 5 {
                0 => Leaves::Nothing,
                1 => Leaves::Everything,
                _ => Leaves::Some(random.u64(..)),
            };
            let image = tempfile::tempdir().unwrap();
            disk.fail(leaves, &data, image.path());
            let at = format!("{leaves:?} after {done} of {places} operations");
            let found = look(&story, image.path(), acknowledged, &at).await;
            behind += u64::from(found > acknowledged);
            looked_at += 1;
        }
        let Some(operation) = story.operations.get(done) else { break };
        match operation {
            Operation::Name { inode, path } if path.ends_with("told") => told_file = Some(*inode),
            Operation::Write { inode, data, .. } if Some(*inode) == told_file => {
                acknowledged = acknowledged.max(promised(data));
            }
            _ => {}
        }
        disk.apply(operation);
    }
    eprintln!(
        "{looked_at} disks after {places} operations ({syncs} syncs); {behind} held writes nobody was told of yet"
    );
    assert!(looked_at >= wanted && behind > 0);
    let lost = without_syncs(&story).await;
    assert!(lost > 0, "a program that never syncs loses nothing on this disk: the disk is no test");
}

/// How many of some disks have lost what was acknowledged, had the program synced no file.
async fn without_syncs(story: &Story) -> u64 {
    let data = story.root.path().join("data");
    let (mut disk, mut lost) = (Disk::default(), 0);
    let told = fs::read_to_string(story.root.path().join("told")).unwrap();
    for (done, operation) in story.operations.iter().enumerate() {
        if !matches!(operation, Operation::Sync { .. }) {
            disk.apply(operation);
        }
        if done % (story.operations.len() / 10) == 0 && done > 0 {
            let image = tempfile::tempdir().unwrap();
            disk.fail(Leaves::Some(done as u64), &data, image.path());
            lost += match EmbeddedStore::open_dir(image.path(), options()) {
                Err(_) => 1,
                Ok(store) => u64::from(store.revision().await.unwrap().0 == 0 && !told.is_empty()),
            };
        }
    }
    lost
}

/// Opens it, compares it with the first writes, opens it again. Answers its revision.
async fn look(story: &Story, image: &Path, acknowledged: u64, at: &str) -> u64 {
    let store = EmbeddedStore::open_dir(image, options()).unwrap_or_else(|error| panic!("{at}: {}", error.chain()));
    let Revision(revision) = store.revision().await.unwrap();
    assert!(
        revision >= acknowledged,
        "{at}: {acknowledged} was acknowledged or told, and {revision} is the last there"
    );
    let mut expected = BTreeMap::new();
    for (revision, written) in story.writes.range(..=revision) {
        match written.kind {
            ChangeKind::Created | ChangeKind::Updated => expected.insert(&*written.key, (*revision, written.number)),
            ChangeKind::Deleted => expected.remove(&*written.key),
        };
    }
    let listed = store.list(&Prefix::all()).await.unwrap().items;
    assert_eq!(listed.len(), expected.len(), "{at}");
    for version in &listed {
        let (revision, number) = expected[version.key.as_str()];
        let mut whole = object(number);
        whole["metadata"]["resourceVersion"] = revision.to_string().into();
        assert_eq!(version.object, whole, "{at}");
    }
    follow(story, &store, revision, at).await;
    store.close();
    drop(store);
    let store = EmbeddedStore::open_dir(image, options()).unwrap_or_else(|error| panic!("{at}: {}", error.chain()));
    assert_eq!(store.revision().await.unwrap().0, revision, "{at}: opened twice");
    revision
}

/// The history that is left is that of the writes, to the last.
async fn follow(story: &Story, store: &EmbeddedStore, latest: u64, at: &str) {
    let oldest = match store.watch(Prefix::all(), Revision(0)).await {
        Ok(_) => Revision(0),
        Err(StoreError::Expired { oldest, .. }) => oldest,
        Err(other) => panic!("{at}: {other:?}"),
    };
    let mut watch = store.watch(Prefix::all(), oldest).await.unwrap();
    let mut next = oldest.0 + 1;
    while watch.position().0 < latest {
        for change in watch.next().await.unwrap() {
            let written = &story.writes[&next];
            let told = (change.version.revision.0, change.kind, change.version.key.as_str());
            assert_eq!(told, (next, written.kind, &*written.key), "{at}");
            next += 1;
        }
    }
    assert_eq!(next, latest + 1, "{at}");
}
