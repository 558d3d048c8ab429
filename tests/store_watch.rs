//! The watch contract as nine checks, over hundreds of thousands of changes, with readers that are slow, that break off and
//! come back, and whose history is compacted away beneath them. `GAIA_WATCH_EVENTS=n` writes n changes.
//!
//! | check | how |
//! |---|---|
//! | filtered | each change is of the kind and namespace that was asked for, by the object and not by its key |
//! | ordered | revisions grow, within an answer and from one to the next |
//! | unique | no revision is told twice to one client, across broken and resumed watches |
//! | atomic | a change is told whole: text, value, revision within are one version; a list is of one revision |
//! | reliable | everything written in between was told: count and sum are those of the writers' own record |
//! | resumable | a watch from the last position goes on there, or is refused with 410 |
//! | bookmarkable | what `catch_up` says has been told has been told |
//! | previous value | the version before is the one that this client had |
//! | is-create | `Created` is told exactly where there was nothing |
//!
//! The readers check what they can see; what they cannot is compared afterwards with what the writers were answered.

#[path = "store_watch/reader.rs"]
mod reader;
#[path = "store_watch/record.rs"]
mod record;

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::future::join_all;
use gaia::store::{ChangeKind, EmbeddedStore, Key, MemoryEngine, Options, Prefix, Store, StoreError};
use reader::{Counts, Reader, Temper};
use record::{Event, Record};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const WRITERS: u64 = 64;
/// Changes that are kept.
const LOG: usize = 512;
const KINDS: [&str; 2] = ["workloads", "gpus"];
const NAMESPACES: [&str; 3] = ["a", "ab", "b"];
const NAMES: u64 = 8;

/// What a reader asks for, said twice: to the store, and in our own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    kind: Option<usize>,
    namespace: Option<usize>,
}

impl Scope {
    const ALL: [Scope; 5] = [
        Scope { kind: None, namespace: None },
        Scope { kind: Some(0), namespace: None },
        Scope { kind: Some(1), namespace: None },
        Scope { kind: Some(0), namespace: Some(0) },
        Scope { kind: Some(1), namespace: Some(1) },
    ];

    fn prefix(self) -> Prefix {
        match (self.kind, self.namespace) {
            (Some(kind), Some(namespace)) => Prefix::namespace("gaia.dev", KINDS[kind], NAMESPACES[namespace]),
            (Some(kind), None) => Prefix::kind("gaia.dev", KINDS[kind]),
            (None, _) => Prefix::all(),
        }
    }

    /// By what an object says of itself.
    fn wants(self, object: &Value) -> bool {
        self.kind.is_none_or(|kind| object["kind"] == KINDS[kind])
            && self.namespace.is_none_or(|namespace| object["metadata"]["namespace"] == NAMESPACES[namespace])
    }
}

fn key(kind: usize, namespace: usize, name: u64) -> Key {
    Key::new("gaia.dev", KINDS[kind], Some(NAMESPACES[namespace]), &name.to_string())
}

fn object(kind: usize, namespace: usize, name: u64, number: u64) -> Value {
    json!({
        "kind": KINDS[kind], "metadata": {"name": name.to_string(), "namespace": NAMESPACES[namespace]}, "number": number,
    })
}

/// Creates, updates and deletes shared objects with whatever revision it saw last, until all have written `total`. Answers
/// what it was answered.
async fn write(store: Arc<EmbeddedStore>, seed: u64, written: Arc<AtomicU64>, total: u64) -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut events = Vec::new();
    while written.load(Ordering::Relaxed) < total {
        let (kind, namespace, name) = (random.usize(..2), random.usize(..3), random.u64(..NAMES));
        let key = key(kind, namespace, name);
        let number = random.u64(..1 << 40);
        let present = store.get(&key).await.unwrap();
        let previous = present.as_ref().map_or(0, |version| version.revision.0);
        let (change, answer) = match present {
            None => (ChangeKind::Created, store.create(key, object(kind, namespace, name, number)).await),
            Some(present) if random.u8(..4) == 0 => (ChangeKind::Deleted, store.delete(key, present.revision).await),
            Some(present) => {
                let object = object(kind, namespace, name, number);
                (ChangeKind::Updated, store.update(key, object, present.revision).await)
            }
        };
        match answer {
            Ok(version) => {
                events.push(Event::of(change, &version, previous));
                written.fetch_add(1, Ordering::Relaxed);
            }
            Err(StoreError::AlreadyExists(_) | StoreError::NotFound(_) | StoreError::Conflict(_)) => {}
            Err(other) => panic!("a writer was told {other:?}"),
        }
        tokio::task::yield_now().await;
    }
    events
}

async fn hold(store: Arc<EmbeddedStore>, total: u64) {
    let written = Arc::new(AtomicU64::new(0));
    let end = Key::new("", "namespaces", None, "end");
    let ended = CancellationToken::new();
    let readers = Scope::ALL.into_iter().flat_map(|scope| Temper::ALL.map(|temper| (scope, temper)));
    let readers: Vec<_> = readers
        .enumerate()
        .map(|(seed, (scope, temper))| Reader::new(store.clone(), ended.clone(), scope, temper, seed).run(end.clone()))
        .map(tokio::spawn)
        .collect();
    let writers = (0..WRITERS).map(|seed| tokio::spawn(write(store.clone(), seed, written.clone(), total)));
    let mut record = Record::default();
    for events in join_all(writers).await {
        record.add(events.expect("no writer fails"));
    }
    let last =
        store.create(end, json!({"kind": "namespaces", "metadata": {"name": "end"}, "number": 0})).await.unwrap();
    ended.cancel();
    record.add(vec![Event::of(ChangeKind::Created, &last, 0)]);
    let mut counts = Counts::default();
    for reader in join_all(readers).await {
        let reader = reader.expect("no reader finds a fault");
        record.verify(&reader);
        counts.add(&reader.counts);
    }
    eprintln!("{} changes; readers: {counts:?}", last.revision);
    counts.assert_everything_happened();
}

fn total() -> u64 {
    env::var("GAIA_WATCH_EVENTS").map_or(200_000, |events| events.parse().expect("a number of changes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_checks_hold_in_memory() {
    let options = Options { log_capacity: LOG, ..Options::default() };
    hold(EmbeddedStore::open(MemoryEngine::default(), options).unwrap(), total()).await;
}

/// Fewer, for each waits for the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_checks_hold_on_a_disk() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { log_capacity: LOG, ..Options::default() };
    hold(EmbeddedStore::open_dir(directory.path(), options).unwrap(), total() / 10).await;
}
