//! `kill -9` at any moment under 64 writers and a watcher: every acknowledged write is there after reopening, none is there by
//! half, and a watch that is resumed across all the restarts has no gap and no duplicate.
//!
//! The test starts its own binary again as the writer. Each of its tasks owns a few objects and writes whole generations
//! of them one after the other: every field of an object holds the same number. `GAIA_CRASH_ROUNDS=n` kills it n times.

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

use gaia::store::{Change, ChangeKind, EmbeddedStore, Key, Options, Prefix, Revision, Store, Version};
use serde_json::{Value, json};

const DIRECTORY: &str = "GAIA_TEST_STORE_CRASH_DIRECTORY";
/// Where the writer's watch begins: where the last one was killed.
const FROM: &str = "GAIA_TEST_STORE_CRASH_FROM";
const ROUNDS: &str = "GAIA_CRASH_ROUNDS";
const WRITERS: u64 = 64;
const OBJECTS: u64 = 3;

/// Short, so that compaction is killed too.
fn options() -> Options {
    Options { log_capacity: 2048, ..Options::default() }
}

fn key(writer: u64, number: u64) -> Key {
    Key::new("gaia.dev", "workloads", Some(&format!("w{writer}")), &number.to_string())
}

/// Every third is large enough for a row to span several pages.
fn object(generation: u64) -> Value {
    let length = if generation.is_multiple_of(OBJECTS) { 1600 } else { 20 };
    json!({"metadata": {}, "first": generation, "middle": vec![generation; length], "last": generation})
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
    let from = env::var(FROM).ok().and_then(|from| from.parse().ok()).expect("where the watch goes on");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open_dir(Path::new(&directory), options()).unwrap();
        let watcher = tokio::spawn(tell(store.clone(), Revision(from)));
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write_for_ever(store.clone(), writer)));
        futures::future::join_all(writers.chain([watcher])).await;
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
        let (written, kept) = match store.get(&key).await.unwrap() {
            None => (store.create(key.clone(), object(next)).await, "kept"),
            Some(present) if next.is_multiple_of(7) => (store.delete(key.clone(), present.revision).await, "gone"),
            Some(present) => (store.update(key.clone(), object(next), present.revision).await, "kept"),
        };
        // One write per line, so that a line is printed whole or not at all.
        println!("ack {} {} {kept} {next}", key.as_str(), written.unwrap().revision);
        next += 1;
    }
}

/// Follows everything and says so.
async fn tell(store: Arc<EmbeddedStore>, from: Revision) {
    let mut watch = store.watch(Prefix::all(), from).await.expect("the last position is within the log");
    loop {
        for change in watch.next().await.expect("this watch keeps up") {
            generation(&change.version);
            let Told { key, revision, previous, gone } = Told::of(&change);
            println!("told {key} {revision} {} {gone}", previous.map_or(0, |revision| revision.0));
        }
    }
}

/// A change as a client has it.
struct Told {
    key: String,
    revision: Revision,
    previous: Option<Revision>,
    gone: bool,
}

impl Told {
    fn of(change: &Change) -> Self {
        Self {
            key: change.version.key.as_str().to_owned(),
            revision: change.version.revision,
            previous: change.previous.as_ref().map(|version| version.revision),
            gone: change.kind == ChangeKind::Deleted,
        }
    }
}

/// A client that goes on across every restart.
#[derive(Default)]
struct Client {
    position: Revision,
    mirror: HashMap<String, Revision>,
    told: u64,
}

impl Client {
    /// No gap, no duplicate: each change fits on what it has.
    fn hear(&mut self, told: Told) {
        let Told { key, revision, previous, gone } = told;
        assert!(revision > self.position, "{revision} of {key} was told after {}", self.position);
        let had = if gone { self.mirror.remove(&key) } else { self.mirror.insert(key.clone(), revision) };
        assert_eq!(had, previous, "{key} at {revision} does not follow what was told before");
        self.position = revision;
        self.told += 1;
    }

    /// Goes on where the kill interrupted it, and then has what a list has.
    async fn resume(&mut self, store: &EmbeddedStore) {
        let latest = store.revision().await.unwrap();
        assert!(self.position <= latest, "{} was told and is not there any more", self.position);
        let mut watch = store.watch(Prefix::all(), self.position).await.expect("the last position is within the log");
        while watch.position() < latest {
            watch.next().await.unwrap().iter().for_each(|change| self.hear(Told::of(change)));
        }
        let listed = store.list(&Prefix::all()).await.unwrap().items;
        let listed = listed.iter().map(|version| (version.key.as_str().to_owned(), version.revision)).collect();
        assert_eq!(self.mirror, listed);
    }
}

struct Acknowledged {
    revision: Revision,
    kept: bool,
    generation: u64,
}

/// Runs the writer until about `after` and kills it. Answers what it acknowledged, the last per object.
fn write_and_kill(directory: &Path, client: &mut Client, after: Duration) -> HashMap<String, Acknowledged> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FROM, client.position.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The moment counts from the first acknowledgement, so that every round writes.
    let mut early = Vec::new();
    while early.last().is_none_or(|line: &String| !line.contains("ack ")) {
        early.push(lines.next().expect("the writer ended before it wrote anything").unwrap());
    }
    let killer = std::thread::spawn(move || {
        std::thread::park_timeout(after);
        child.kill().unwrap();
        child.wait().unwrap()
    });
    let mut acknowledged = HashMap::new();
    for line in early.into_iter().chain(lines.map_while(Result::ok)) {
        if let Some((key, latest)) = parse_ack(&line) {
            acknowledged.insert(key, latest);
        } else if let Some(told) = parse_told(&line) {
            client.hear(told);
        }
    }
    assert_eq!(killer.join().unwrap().signal(), Some(9), "the writer wrote until it was killed");
    acknowledged
}

/// None for what the test harness prints, and for a last line that the kill cut off.
fn parse_ack(line: &str) -> Option<(String, Acknowledged)> {
    let line = &line[line.find("ack ")?..];
    let [_, key, revision, kept, generation] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let acknowledged = Acknowledged {
        revision: Revision(revision.parse().ok()?),
        kept: kept == "kept",
        generation: generation.parse().ok()?,
    };
    Some((key.to_owned(), acknowledged))
}

fn parse_told(line: &str) -> Option<Told> {
    let line = &line[line.find("told ")?..];
    let [_, key, revision, previous, gone] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let previous = Revision(previous.parse().ok()?);
    Some(Told {
        key: key.to_owned(),
        revision: Revision(revision.parse().ok()?),
        previous: (previous > Revision(0)).then_some(previous),
        gone: gone.parse().ok()?,
    })
}

#[tokio::test]
async fn survives_kill_9() {
    let rounds = env::var(ROUNDS).map_or(30, |rounds| rounds.parse().expect("a number of rounds"));
    let directory = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(20_261_120);
    let mut client = Client::default();
    let mut acknowledgements = 0;
    for round in 0..rounds {
        let after = Duration::from_micros(random.u64(0..60_000));
        let acknowledged = write_and_kill(directory.path(), &mut client, after);
        acknowledgements += acknowledged.len();
        let store = EmbeddedStore::open_dir(directory.path(), options())
            .unwrap_or_else(|error| panic!("round {round}: {}", error.chain()));
        for (name, written) in acknowledged {
            let found = store.get(&Key::from_stored(&name)).await.unwrap();
            check(round, &name, &written, found.as_deref());
        }
        for version in store.list(&Prefix::all()).await.unwrap().items {
            generation(&version);
        }
        client.resume(&store).await;
    }
    eprintln!("{rounds} kills, {} writes, all of them told once; {acknowledgements} objects checked", client.told);
    assert!(acknowledgements > 100, "only {acknowledgements} objects were written in all");
    assert_eq!(client.told, client.position.0, "every revision was told");
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
