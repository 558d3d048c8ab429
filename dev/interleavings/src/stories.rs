//! What happens at once, and what must hold of it in any order.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;
use serde_json::{Value, json};
use shuttle::{future::block_on, thread};

use crate::{
    engine::{Planted, SlowDisk},
    registry::ObjectName,
    store::{
        ChangeKind, EmbeddedStore, Fault, Key, MemoryEngine, Options, Prefix, Revision, Store, StoreError, Version,
    },
    wakeups::{Wake, Wakeups},
};

/// What goes wrong meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// A commit fails and has written nothing.
    Lost,
    /// A commit fails and has written everything.
    Answered,
    /// The store is closed while writers write.
    Closing,
}

const WRITERS: usize = 3;

/// A queue shorter than there are writers, so that some wait for a place.
const TIGHT: Options = Options { log_capacity: 100, queue_capacity: 2, patience: std::time::Duration::from_secs(30) };

/// An acknowledged write: what a watcher must have been told.
type Acknowledged = (Revision, Key, ChangeKind);

fn key(name: &str) -> Key {
    Key::new("", "things", None, name)
}

/// Writers make, change and delete objects of their own and quarrel about one, while somebody watches from the beginning.
pub fn writers_and_watchers(planted: Planted, trouble: Trouble) {
    let disk = SlowDisk { memory: MemoryEngine::default(), planted };
    let store = EmbeddedStore::open(disk.clone(), TIGHT).expect("it is empty");
    // There is something before anything goes wrong.
    block_on(store.create(key("first"), json!({}))).expect("nobody is in the way");
    match trouble {
        Trouble::Lost => disk.memory.fail_next(Fault::BeforeEffect, 1),
        Trouble::Answered => disk.memory.fail_next(Fault::AfterEffect, 1),
        Trouble::None | Trouble::Closing => {}
    }
    let watching = thread::spawn({
        let store = store.clone();
        move || watch_to_the_end(&*store)
    });
    let writing: Vec<_> = (0..WRITERS)
        .map(|n| {
            let store = store.clone();
            thread::spawn(move || write(&*store, n))
        })
        .collect();
    if trouble == Trouble::Closing {
        store.close();
    }
    let acknowledged: Vec<Acknowledged> = writing.into_iter().flat_map(|w| w.join().expect("no panic")).collect();
    store.close();
    let told = watching.join().expect("no panic");

    let revisions: Vec<u64> = told.iter().map(|(revision, _, _)| revision.0).collect();
    let last = block_on(store.revision()).expect("reads answer").0;
    assert_eq!(revisions, (1..=last).collect::<Vec<_>>(), "each revision is told once and in order");
    for write in &acknowledged {
        assert!(told.contains(write), "{write:?} was acknowledged, and not told: {told:?}");
    }
    let quarrel = acknowledged.iter().filter(|(_, at, kind)| *at == key("shared") && *kind == ChangeKind::Created);
    assert!(quarrel.count() <= 1, "one object was made twice");
    if trouble == Trouble::None {
        assert_eq!(acknowledged.len(), WRITERS * 3 + 1, "nothing is refused without a reason");
    }
    drop(store);
    assert_eq!(found(&disk), folded(&told), "after a restart it is what was told");
}

/// Makes, changes and removes what nobody else touches, and tries to be the one that makes what all want.
fn write(store: &EmbeddedStore, n: usize) -> Vec<Acknowledged> {
    let mut done = Vec::new();
    let own = key(&format!("of-{n}"));
    let made = block_on(store.create(own.clone(), json!({"n": n})));
    note(&mut done, &made, ChangeKind::Created);
    note(&mut done, &block_on(store.create(key("shared"), json!({"by": n}))), ChangeKind::Created);
    let Ok(made) = made else { return done };
    let changed = block_on(store.update(own.clone(), json!({"n": n, "changed": true}), made.revision));
    note(&mut done, &changed, ChangeKind::Updated);
    if let Ok(changed) = changed {
        note(&mut done, &block_on(store.delete(own, changed.revision)), ChangeKind::Deleted);
    }
    done
}

fn note(done: &mut Vec<Acknowledged>, written: &Result<Arc<Version>, StoreError>, kind: ChangeKind) {
    match written {
        Ok(version) => done.push((version.revision, version.key.clone(), kind)),
        Err(StoreError::AlreadyExists(_) | StoreError::Unavailable(_) | StoreError::Closed) => {}
        // What failed may be found later: then the object has moved on, or is there.
        Err(StoreError::Conflict(_) | StoreError::NotFound(_)) => {}
        Err(other) => panic!("{other:?}"),
    }
}

fn watch_to_the_end(store: &EmbeddedStore) -> Vec<Acknowledged> {
    let mut watch = block_on(store.watch(Prefix::all(), Revision(0))).expect("nothing is forgotten yet");
    let mut told = Vec::new();
    loop {
        match block_on(watch.next()) {
            Ok(changes) => {
                assert!(!changes.is_empty(), "an answer says something");
                told.extend(changes.iter().map(|c| (c.version.revision, c.version.key.clone(), c.kind)));
                assert_eq!(Some(watch.position()), told.last().map(|(revision, _, _)| *revision));
            }
            Err(StoreError::Closed) => return told,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// What a disk holds, by key, for who opens it anew.
fn found(disk: &SlowDisk) -> BTreeMap<String, Revision> {
    let store = EmbeddedStore::open(disk.memory.clone(), TIGHT).expect("it is whole");
    let all = block_on(store.list(&Prefix::all())).expect("reads answer");
    all.items.iter().map(|version| (version.key.as_str().to_owned(), version.revision)).collect()
}

/// What is there after these changes.
fn folded(told: &[Acknowledged]) -> BTreeMap<String, Revision> {
    let mut there = BTreeMap::new();
    for (revision, key, kind) in told {
        match kind {
            ChangeKind::Created | ChangeKind::Updated => there.insert(key.as_str().to_owned(), *revision),
            ChangeKind::Deleted => there.remove(key.as_str()),
        };
    }
    there
}

/// The log holds two changes: a reader that is told so lists again, and in the end knows what is there.
pub fn a_slow_reader() {
    let disk = SlowDisk { memory: MemoryEngine::default(), planted: Planted::Nothing };
    let options = Options { log_capacity: 2, ..TIGHT };
    let store = EmbeddedStore::open(disk, options).expect("it is empty");
    let reading = thread::spawn({
        let store = store.clone();
        move || read_whatever_happens(&*store)
    });
    let writing: Vec<_> = (0..2)
        .map(|n| {
            let store = store.clone();
            thread::spawn(move || write(&*store, n).len())
        })
        .collect();
    for writer in writing {
        writer.join().expect("no panic");
    }
    store.close();
    let known = reading.join().expect("no panic");
    let there = block_on(store.list(&Prefix::all())).expect("reads answer");
    let there: BTreeMap<String, Value> =
        there.items.iter().map(|version| (version.key.as_str().to_owned(), version.object.clone())).collect();
    assert_eq!(known, there);
}

fn read_whatever_happens(store: &EmbeddedStore) -> BTreeMap<String, Value> {
    'listing: loop {
        let all = block_on(store.list(&Prefix::all())).expect("reads answer");
        let mut known: BTreeMap<String, Value> =
            all.items.iter().map(|version| (version.key.as_str().to_owned(), version.object.clone())).collect();
        let mut at = all.revision;
        let Ok(mut watch) = block_on(store.watch(Prefix::all(), at)) else { continue };
        loop {
            match block_on(watch.next()) {
                Ok(changes) => {
                    for change in changes {
                        assert!(change.version.revision > at, "told twice, or out of order");
                        at = change.version.revision;
                        let key = change.version.key.as_str().to_owned();
                        match change.kind {
                            ChangeKind::Created | ChangeKind::Updated => {
                                known.insert(key, change.version.object.clone())
                            }
                            ChangeKind::Deleted => known.remove(&key),
                        };
                    }
                }
                Err(StoreError::Expired { .. }) => continue 'listing,
                Err(StoreError::Closed) => return known,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

/// Names are asked for while a reader takes them: each is taken at least once after it was last asked for.
pub fn wakers_and_a_reader() {
    const LAST: &str = "last";
    let wakeups = Wakeups::default();
    let reading = thread::spawn({
        let wakeups = wakeups.clone();
        move || {
            let mut stream = Box::pin(wakeups.stream());
            let mut taken = Vec::new();
            block_on(async {
                while let Some(Wake::One(name)) = stream.next().await {
                    let last = name.name == LAST;
                    taken.push(name.name);
                    if last {
                        return;
                    }
                }
            });
            taken
        }
    });
    let waking: Vec<_> = (0..2)
        .map(|n| {
            let wakeups = wakeups.clone();
            thread::spawn(move || {
                wakeups.wake(&named(&format!("a-{n}")));
                wakeups.wake(&named("a-both"));
            })
        })
        .collect();
    for waker in waking {
        waker.join().expect("no panic");
    }
    // In the order of names it comes after all others.
    wakeups.wake(&named(LAST));
    let taken = reading.join().expect("no panic");
    for name in ["a-0", "a-1", "a-both"] {
        assert!(taken.iter().any(|taken| taken == name), "{name} was lost: {taken:?}");
    }
    assert_eq!(wakeups.take(), None);
}

fn named(name: &str) -> ObjectName {
    ObjectName { namespace: None, name: name.to_owned() }
}
