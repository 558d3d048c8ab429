//! Following changes: complete, in order, once.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use tokio::task::yield_now;

use super::{
    super::{Change, ChangeKind, Key, Prefix, Revision, Store, StoreError, Version, Watch},
    DEADLINE, key, object, soon, told,
};

pub(super) async fn tells_what_comes_after_now(store: Arc<dyn Store>) {
    let old = store.create(key("old"), object("old", 1)).await.unwrap();
    // Nothing of this kind exists under the second prefix yet.
    let mut watch = store.watch(Prefix::all(), old.revision).await.unwrap();
    let mut unborn = store.watch(Prefix::kind("gaia.dev", "tasks"), old.revision).await.unwrap();

    let first = store.create(key("a"), object("a", 1)).await.unwrap();
    let second = store.update(key("a"), object("a", 2), first.revision).await.unwrap();
    let gone = store.delete(key("a"), second.revision).await.unwrap();
    let changes = told(&mut *watch, 3).await.unwrap();
    expect(&changes[0], ChangeKind::Created, &first, None);
    expect(&changes[1], ChangeKind::Updated, &second, Some(&first));
    expect(&changes[2], ChangeKind::Deleted, &gone, Some(&second));
    assert!(watch.position() >= gone.revision, "what was told is behind the position");

    let task = Key::new("gaia.dev", "tasks", Some("default"), "t");
    let task = store.create(task, object("t", 1)).await.unwrap();
    expect(&told(&mut *unborn, 1).await.unwrap()[0], ChangeKind::Created, &task, None);
}

pub(super) async fn tells_the_past(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let first = store.create(key("a"), object("a", 1)).await.unwrap();
    let other = store.create(key("b"), object("b", 1)).await.unwrap();
    let second = store.update(key("a"), object("a", 2), first.revision).await.unwrap();

    let mut watch = store.watch(Prefix::all(), start).await.unwrap();
    let changes = told(&mut *watch, 3).await.unwrap();
    expect(&changes[0], ChangeKind::Created, &first, None);
    expect(&changes[1], ChangeKind::Created, &other, None);
    expect(&changes[2], ChangeKind::Updated, &second, Some(&first));

    let mut watch = store.watch(Prefix::all(), first.revision).await.unwrap();
    let changes = told(&mut *watch, 2).await.unwrap();
    assert_eq!(changes[0].version, other, "the revision a watch starts from is not told");
}

pub(super) async fn covers_its_prefix_only(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(Prefix::namespace("gaia.dev", "workloads", "a"), start).await.unwrap();
    for (plural, namespace) in [("workloads", "ab"), ("workloads", "b"), ("workloadsets", "a")] {
        store.create(Key::new("gaia.dev", plural, Some(namespace), "x"), object("x", 1)).await.unwrap();
    }
    let covered = store.create(Key::new("gaia.dev", "workloads", Some("a"), "x"), object("x", 1)).await.unwrap();
    expect(&told(&mut *watch, 1).await.unwrap()[0], ChangeKind::Created, &covered, None);
}

pub(super) async fn catches_up_when_nothing_waits(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(Prefix::kind("gaia.dev", "tasks"), start).await.unwrap();
    assert_eq!(watch.position(), start);

    let elsewhere = store.create(key("a"), object("a", 1)).await.unwrap();
    soon("catching up with changes elsewhere", async {
        while watch.catch_up() < elsewhere.revision {
            yield_now().await;
        }
    })
    .await;
    assert!(watch.position() >= elsewhere.revision);

    let covered = Key::new("gaia.dev", "tasks", Some("default"), "t");
    let covered = store.create(covered, object("t", 1)).await.unwrap();
    assert!(watch.catch_up() < covered.revision, "catching up does not skip a change that waits");
    expect(&told(&mut *watch, 1).await.unwrap()[0], ChangeKind::Created, &covered, None);
}

pub(super) async fn the_future_is_refused(store: Arc<dyn Store>) {
    let made = store.create(key("a"), object("a", 1)).await.unwrap();
    let future = Revision(made.revision.0 + 1_000_000);
    match store.watch(Prefix::all(), future).await {
        Err(StoreError::Future { asked, latest }) => {
            assert_eq!(asked, future);
            assert!(latest >= made.revision && latest < future);
        }
        Err(other) => panic!("expected Future, got {other:?}"),
        Ok(_) => panic!("expected Future, got a watch"),
    }
}

pub(super) async fn a_long_gone_revision_is_expired(store: Arc<dyn Store>, history: usize) {
    let made = store.create(key("a"), object("a", 0)).await.unwrap();
    let mut slow = store.watch(Prefix::all(), made.revision).await.unwrap();
    let writers = (0..64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..=history / 64 {
                store.create(key(&format!("{writer}-{number}")), object("n", 1)).await.unwrap();
            }
        })
    });
    for writer in join_all(writers).await {
        writer.expect("no writer panics");
    }
    match slow.next().await {
        Err(StoreError::Expired { asked, .. }) => assert_eq!(asked, made.revision),
        other => panic!("expected Expired, got {other:?}"),
    }
    match store.watch(Prefix::all(), made.revision).await {
        Err(StoreError::Expired { asked, oldest }) => {
            assert_eq!(asked, made.revision);
            assert!(oldest > asked);
            let mut watch = store.watch(Prefix::all(), oldest).await.expect("the oldest is still to be had");
            assert!(!soon("a watch of the past", watch.next()).await.unwrap().is_empty());
        }
        Err(other) => panic!("expected Expired, got {other:?}"),
        Ok(_) => panic!("expected Expired, got a watch"),
    }
}

pub(super) async fn a_dropped_call_loses_nothing(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(Prefix::all(), start).await.unwrap();
    let mut made = Vec::new();
    let mut seen = Vec::new();
    for number in 0..20 {
        let name = number.to_string();
        // One call is dropped while it waits, one while it may be about to answer.
        drop_early(&mut *watch, &mut seen).await;
        made.push(store.create(key(&name), object(&name, 1)).await.unwrap());
        drop_early(&mut *watch, &mut seen).await;
    }
    while seen.len() < made.len() {
        seen.extend(soon("the rest of the changes", watch.next()).await.unwrap());
    }
    let seen: Vec<_> = seen.into_iter().map(|change| change.version).collect();
    assert_eq!(seen, made);
}

async fn drop_early(watch: &mut dyn Watch, seen: &mut Vec<Change>) {
    tokio::select! {
        biased;
        changes = watch.next() => seen.extend(changes.unwrap()),
        () = yield_now() => {}
    }
}

pub(super) async fn list_and_watch_follow_concurrent_writers(store: Arc<dyn Store>) {
    let prefixes = [
        Prefix::all(),
        Prefix::kind("gaia.dev", "workloads"),
        Prefix::namespace("gaia.dev", "workloads", "odd"),
        Prefix::namespace("gaia.dev", "workloads", "even"),
    ];
    let end = Key::new("", "namespaces", None, "end");
    let mut followers = Vec::new();
    for prefix in prefixes {
        followers.push(tokio::spawn(follow(store.clone(), prefix, end.clone())));
    }
    let writers = (0..8).map(|seed| tokio::spawn(write_at_random(store.clone(), seed)));
    for writer in soon("writers", join_all(writers)).await {
        writer.expect("no writer panics");
    }
    store.create(end, object("end", 1)).await.unwrap();
    for follower in soon("followers", join_all(followers)).await {
        let (prefix, mirror) = follower.expect("no follower panics");
        let listed = store.list(&prefix).await.unwrap().items;
        let listed: BTreeMap<_, _> = listed.iter().map(|version| (version.key.clone(), version.revision)).collect();
        assert_eq!(mirror, listed, "who follows {prefix:?} has what a list has");
    }
}

/// Creates, updates and deletes a few shared objects, with whatever revision it saw last.
async fn write_at_random(store: Arc<dyn Store>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..60 {
        let number = random.u64(0..6);
        let namespace = if number.is_multiple_of(2) { "even" } else { "odd" };
        let key = Key::new("gaia.dev", "workloads", Some(namespace), &number.to_string());
        let answer = match store.get(&key).await.unwrap() {
            None => store.create(key, object("n", round)).await,
            Some(present) if random.u8(0..4) == 0 => store.delete(key, present.revision).await,
            Some(present) => store.update(key, object("n", seed * 1000 + round), present.revision).await,
        };
        match answer {
            Ok(_) | Err(StoreError::AlreadyExists(_) | StoreError::NotFound(_) | StoreError::Conflict(_)) => {}
            Err(other) => panic!("a writer was told {other:?}"),
        }
        // Lets followers in between on a single thread.
        yield_now().await;
    }
}

/// Lists, watches, and lists again when the watch expired, as every client does; checks each change against what it has,
/// until the object `end` exists.
async fn follow(store: Arc<dyn Store>, prefix: Prefix, end: Key) -> (Prefix, BTreeMap<Key, Revision>) {
    loop {
        let snapshot = store.list(&prefix).await.unwrap();
        let mut mirror: BTreeMap<_, _> =
            snapshot.items.iter().map(|version| (version.key.clone(), version.revision)).collect();
        let mut last = snapshot.revision;
        let mut watch = match store.watch(prefix.clone(), snapshot.revision).await {
            Ok(watch) => watch,
            Err(StoreError::Expired { .. }) => continue,
            Err(other) => panic!("a follower was told {other:?}"),
        };
        loop {
            // The narrow prefixes do not cover `end`: they are done when they have caught up with it.
            if let Some(end) = store.get(&end).await.unwrap()
                && watch.catch_up() >= end.revision
            {
                return (prefix, mirror);
            }
            match tokio::time::timeout(DEADLINE / 1000, watch.next()).await {
                Err(_quiet) => {}
                Ok(Ok(changes)) => changes.iter().for_each(|change| check(change, &prefix, &mut mirror, &mut last)),
                Ok(Err(StoreError::Expired { .. })) => break,
                Ok(Err(other)) => panic!("a follower was told {other:?}"),
            }
        }
    }
}

/// No gap, no duplicate: each change fits on what the mirror holds.
fn check(change: &Change, prefix: &Prefix, mirror: &mut BTreeMap<Key, Revision>, last: &mut Revision) {
    let Version { key, revision, .. } = &*change.version;
    assert!(prefix.covers(key));
    assert!(*revision > *last, "{revision} was told after {last}");
    *last = *revision;
    let had = match change.kind {
        ChangeKind::Created | ChangeKind::Updated => mirror.insert(key.clone(), *revision),
        ChangeKind::Deleted => mirror.remove(key),
    };
    let previous = change.previous.as_ref().map(|version| version.revision);
    assert_eq!(
        had,
        previous,
        "{:?} of {} at {revision} does not follow what was told before",
        change.kind,
        key.as_str()
    );
    assert_eq!(previous.is_none(), change.kind == ChangeKind::Created);
}

fn expect(change: &Change, kind: ChangeKind, version: &Arc<Version>, previous: Option<&Arc<Version>>) {
    assert_eq!(change.kind, kind);
    assert_eq!(&change.version, version);
    assert_eq!(change.previous.as_ref(), previous);
}
