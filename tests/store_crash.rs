//! `kill -9` at any moment: every acknowledged write is there after reopening, and none is there by half.
//!
//! The test starts its own binary again as the writer. Each of its tasks owns a few objects and writes whole generations
//! of them one after the other: every field of an object holds the same number.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use gaia::store::{ChangeKind, EmbeddedStore, Key, Options, Prefix, Revision, Store, Version};
use serde_json::{Value, json};

const DIRECTORY: &str = "GAIA_TEST_STORE_CRASH_DIRECTORY";
const WRITERS: u64 = 12;
const OBJECTS: u64 = 3;
const ROUNDS: u64 = 24;

fn key(writer: u64, number: u64) -> Key {
    Key::new("gaia.dev", "workloads", Some(&format!("w{writer}")), &number.to_string())
}

/// Large enough for a row to span several pages.
fn object(generation: u64) -> Value {
    json!({"metadata": {}, "first": generation, "middle": vec![generation; 800], "last": generation})
}

fn generation(version: &Version) -> u64 {
    let generation = version.object["first"].as_u64().expect("we wrote a number");
    let mut whole = object(generation);
    whole["metadata"]["resourceVersion"] = version.revision.to_string().into();
    assert_eq!(version.object, whole, "an object is whole");
    generation
}

/// Not a test of its own: the process that is killed.
#[test]
#[ignore = "started by survives_kill_9 in a process of its own"]
fn writer_process() {
    let Ok(directory) = env::var(DIRECTORY) else { panic!("{DIRECTORY} names the directory to write in") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = Options { log_capacity: 64, ..Options::default() };
        let store = EmbeddedStore::open_dir(Path::new(&directory), options).unwrap();
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write_for_ever(store.clone(), writer)));
        futures::future::join_all(writers).await;
    });
}

async fn write_for_ever(store: Arc<EmbeddedStore>, writer: u64) {
    let mut next = 1;
    for number in 0..OBJECTS {
        if let Some(version) = store.get(&key(writer, number)).await.unwrap() {
            next = next.max(generation(&version) + 1);
        }
    }
    loop {
        let key = key(writer, next % OBJECTS);
        let written = match store.get(&key).await.unwrap() {
            None => store.create(key.clone(), object(next)).await,
            Some(present) if next.is_multiple_of(7) => store.delete(key.clone(), present.revision).await,
            Some(present) => store.update(key.clone(), object(next), present.revision).await,
        };
        let version = written.unwrap();
        let kept = if next.is_multiple_of(7) && store.get(&key).await.unwrap().is_none() { "gone" } else { "kept" };
        // One write per line, so that a line is printed whole or not at all.
        println!("ack {} {} {kept} {next}", key.as_str(), version.revision);
        next += 1;
    }
}

struct Acknowledged {
    revision: Revision,
    kept: bool,
    generation: u64,
}

/// Runs the writer until about `after` and kills it. Answers what it acknowledged, the last per object.
fn write_and_kill(directory: &Path, after: Duration) -> HashMap<String, Acknowledged> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The moment counts from the first acknowledgement, so that every round writes.
    let first = lines.by_ref().map(Result::unwrap).find(|line| line.contains("ack "));
    assert!(first.is_some(), "the writer ended before it wrote anything");
    let killer = std::thread::spawn(move || {
        std::thread::park_timeout(after);
        child.kill().unwrap();
        child.wait().unwrap()
    });
    let mut acknowledged = HashMap::new();
    for line in first.into_iter().chain(lines.map_while(Result::ok)) {
        if let Some((key, latest)) = parse(&line) {
            acknowledged.insert(key, latest);
        }
    }
    assert_eq!(killer.join().unwrap().signal(), Some(9), "the writer wrote until it was killed");
    acknowledged
}

/// None for what the test harness prints, and for a last line that the kill cut off.
fn parse(line: &str) -> Option<(String, Acknowledged)> {
    let line = &line[line.find("ack ")?..];
    let [_, key, revision, kept, generation] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let acknowledged = Acknowledged {
        revision: Revision(revision.parse().ok()?),
        kept: kept == "kept",
        generation: generation.parse().ok()?,
    };
    Some((key.to_owned(), acknowledged))
}

#[tokio::test]
async fn survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(20_261_120);
    let mut total = 0;
    for round in 0..ROUNDS {
        let acknowledged = write_and_kill(directory.path(), Duration::from_micros(random.u64(0..60_000)));
        total += acknowledged.len();
        let store = EmbeddedStore::open_dir(directory.path(), Options { log_capacity: 64, ..Options::default() })
            .unwrap_or_else(|error| panic!("round {round}: {}", error.chain()));
        for (name, written) in acknowledged {
            let found = store.get(&Key::from_stored(&name)).await.unwrap();
            check(round, &name, &written, found.as_deref());
        }
        for version in store.list(&Prefix::all()).await.unwrap().items {
            generation(&version);
        }
        history_fits(&store).await;
    }
    assert!(total > 100, "only {total} objects were written in all");
}

/// The object is as acknowledged, or as left by the one write that may have been under way.
fn check(round: u64, name: &str, written: &Acknowledged, found: Option<&Version>) {
    match found {
        Some(found) if found.revision == written.revision => {
            assert!(written.kept, "round {round}: {name} was deleted and is there");
            assert_eq!(generation(found), written.generation);
        }
        Some(found) => {
            assert!(found.revision > written.revision, "round {round}: {name} is older than what was acknowledged");
            assert!(generation(found) > written.generation);
        }
        // Deleting it is the only write that may have come after: the next of this object, OBJECTS generations later.
        None => assert!(
            !written.kept || (written.generation + OBJECTS).is_multiple_of(7),
            "round {round}: {name} of generation {} is gone",
            written.generation
        ),
    }
}

/// The history that is left leads to the objects that are there.
async fn history_fits(store: &EmbeddedStore) {
    let Err(gaia::store::StoreError::Expired { oldest, .. }) = store.watch(Prefix::all(), Revision(0)).await else {
        return;
    };
    let latest = store.revision().await.unwrap();
    let mut watch = store.watch(Prefix::all(), oldest).await.unwrap();
    let mut last = HashMap::new();
    while watch.position() < latest {
        for change in watch.next().await.unwrap() {
            last.insert(change.version.key.clone(), change);
        }
    }
    for (key, change) in last {
        let stored = store.get(&key).await.unwrap();
        match change.kind {
            ChangeKind::Created | ChangeKind::Updated => assert_eq!(stored, Some(change.version)),
            ChangeKind::Deleted => assert_eq!(stored, None),
        }
    }
}
