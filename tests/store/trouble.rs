//! Slow and failing disks: what is shown, what is acknowledged, what is shared.

use std::{pin::pin, sync::Arc, task::Poll, time::Duration};

use futures::{future::join_all, poll};
use gaia::store::{
    ChangeKind, EmbeddedStore, Fault, MemoryEngine, Options, Prefix, Revision, SqliteEngine, Store, StoreError,
};

use super::{
    disk::{Gate, gated},
    key, object,
};

fn slow_store() -> (Arc<EmbeddedStore>, Gate, MemoryEngine) {
    let memory = MemoryEngine::default();
    let (engine, gate) = gated(memory.clone());
    (EmbeddedStore::open(engine, Options::default()).unwrap(), gate, memory)
}

#[tokio::test]
async fn concurrent_writers_share_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, gate) = gated(SqliteEngine::open_dir(directory.path()).unwrap());
    let store = EmbeddedStore::open(engine, Options::default()).unwrap();
    let mut writers: Vec<_> =
        (0..64).map(|number: u64| store.create(key(&number.to_string()), object("n", number))).collect();
    // A write is queued when it is first polled; the disk has not been allowed anything yet.
    for writer in &mut writers {
        assert!(poll!(writer).is_pending());
    }
    gate.permit();
    gate.permit();
    let mut revisions: Vec<_> =
        join_all(writers).await.into_iter().map(|written| written.unwrap().revision.0).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=64).collect::<Vec<_>>());
    assert!(gate.commits() <= 2, "64 writes took {} commits", gate.commits());
}

#[tokio::test]
async fn nothing_is_shown_before_it_is_durable() {
    let (store, gate, _) = slow_store();
    let mut watch = store.watch(Prefix::all(), Revision(0)).await.unwrap();
    let mut create = pin!(store.create(key("a"), object("a", 1)));
    assert!(poll!(&mut create).is_pending());
    // Refusals that rest on the write that is not durable wait for it.
    let mut again = pin!(store.create(key("a"), object("a", 2)));
    assert!(poll!(&mut again).is_pending());
    let mut stale = pin!(store.update(key("a"), object("a", 2), Revision(77)));
    assert!(poll!(&mut stale).is_pending());

    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    assert!(store.list(&Prefix::all()).await.unwrap().items.is_empty());
    assert_eq!(store.revision().await.unwrap(), Revision(0));
    assert_eq!(watch.catch_up(), Revision(0));
    assert!(poll!(pin!(watch.next())).is_pending());

    gate.permit();
    let made = create.await.unwrap();
    assert!(matches!(again.await, Err(StoreError::AlreadyExists(live)) if live == made));
    assert!(matches!(stale.await, Err(StoreError::Conflict(live)) if live == made));
    assert_eq!(watch.next().await.unwrap()[0].version, made);
    assert_eq!(gate.commits(), 1, "a refusal is no transaction");
}

#[tokio::test]
async fn a_write_is_compared_with_the_one_before_it() {
    let (store, gate, _) = slow_store();
    let mut create = pin!(store.create(key("a"), object("a", 1)));
    assert!(poll!(&mut create).is_pending());
    let mut update = pin!(store.update(key("a"), object("a", 2), Revision(1)));
    assert!(poll!(&mut update).is_pending());
    let mut equal = pin!(store.update(key("a"), object("a", 2), Revision(2)));
    assert!(poll!(&mut equal).is_pending());
    let mut delete = pin!(store.delete(key("a"), Revision(2)));
    assert!(poll!(&mut delete).is_pending());
    drop(gate);
    assert_eq!(create.await.unwrap().revision, Revision(1));
    assert_eq!(update.await.unwrap().revision, Revision(2));
    assert_eq!(equal.await.unwrap().revision, Revision(2));
    assert_eq!(delete.await.unwrap().revision, Revision(3));
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
}

#[tokio::test]
async fn a_failed_commit_leaves_no_trace() {
    let engine = MemoryEngine::default();
    let store = EmbeddedStore::open(engine.clone(), Options::default()).unwrap();
    let first = store.create(key("a"), object("a", 1)).await.unwrap();
    let mut watch = store.watch(Prefix::all(), first.revision).await.unwrap();

    engine.fail_next(Fault::BeforeEffect, 3);
    assert!(matches!(store.create(key("b"), object("b", 1)).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.update(key("a"), object("a", 2), first.revision).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.delete(key("a"), first.revision).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(first.clone()));
    assert_eq!(store.get(&key("b")).await.unwrap(), None);
    assert_eq!(store.revision().await.unwrap(), first.revision);

    let second = store.update(key("a"), object("a", 3), first.revision).await.unwrap();
    let told = watch.next().await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].version, second);
}

/// The disk wrote, but its answer was an error: the change is told to everybody, and a restart finds the same.
#[tokio::test]
async fn what_a_failed_commit_wrote_is_published() {
    let engine = MemoryEngine::default();
    let store = EmbeddedStore::open(engine.clone(), Options::default()).unwrap();
    let first = store.create(key("a"), object("a", 1)).await.unwrap();
    let mut watch = store.watch(Prefix::all(), first.revision).await.unwrap();

    engine.fail_next(Fault::AfterEffect, 1);
    assert!(matches!(
        store.update(key("a"), object("a", 2), first.revision).await,
        Err(StoreError::Unavailable(why)) if why == "injected fault"
    ));
    let told = watch.next().await.unwrap();
    assert_eq!((told[0].kind, told[0].version.object["spec"]["size"].as_u64()), (ChangeKind::Updated, Some(2)));
    assert!(Arc::ptr_eq(told[0].previous.as_ref().unwrap(), &first), "known versions are shared");

    let live = store.get(&key("a")).await.unwrap().unwrap();
    let third = store.update(key("a"), object("a", 3), live.revision).await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(engine, Options::default()).unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(third));
}

/// While even that cannot be asked, nothing is built on what is not known.
#[tokio::test]
async fn nothing_is_committed_on_an_unknown_state() {
    let (store, gate, memory) = slow_store();
    memory.fail_next(Fault::AfterEffect, 1);
    gate.mute(1);
    gate.permit();
    assert!(matches!(store.create(key("a"), object("a", 1)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    // Refused without a commit; the question is asked again and answered.
    let refused = store.create(key("a"), object("a", 2)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(why)) if why.contains("not known yet")));
    assert_eq!(gate.commits(), 1);
    assert!(matches!(store.create(key("a"), object("a", 2)).await, Err(StoreError::AlreadyExists(_))));
    gate.permit();
    assert_eq!(store.create(key("b"), object("b", 1)).await.unwrap().revision, Revision(2));
}

/// Who was compared with a write that failed fails with it.
#[tokio::test]
async fn writers_behind_a_failed_commit_fail_too() {
    let (store, gate, memory) = slow_store();
    memory.fail_next(Fault::BeforeEffect, 1);
    let mut create = pin!(store.create(key("a"), object("a", 1)));
    assert!(poll!(&mut create).is_pending());
    let mut update = pin!(store.update(key("a"), object("a", 2), Revision(1)));
    let mut again = pin!(store.create(key("a"), object("a", 3)));
    assert!(poll!(&mut update).is_pending());
    assert!(poll!(&mut again).is_pending());
    gate.permit();
    for answer in [create.await, update.await, again.await] {
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
    drop(gate);
    assert_eq!(store.create(key("a"), object("a", 4)).await.unwrap().revision, Revision(1));
}

#[tokio::test]
async fn a_silent_disk_is_reported_and_the_queue_is_bounded() {
    let (engine, gate) = gated(MemoryEngine::default());
    let options = Options { queue_capacity: 1, patience: Duration::from_millis(20), ..Options::default() };
    let store = EmbeddedStore::open(engine, options).unwrap();
    let waiting = store.create(key("a"), object("a", 1)).await;
    assert!(matches!(waiting, Err(StoreError::Unavailable(why)) if why.contains("not answered")));
    let without_place = store.create(key("b"), object("b", 1)).await;
    assert!(matches!(without_place, Err(StoreError::Unavailable(_))));
    // The write that had a place takes effect in the end, the other never does.
    let mut watch = store.watch(Prefix::all(), Revision(0)).await.unwrap();
    gate.permit();
    assert_eq!(watch.next().await.unwrap()[0].version.key, key("a"));
    drop(gate);
    store.close();
    assert_eq!(store.get(&key("b")).await.unwrap(), None);
}

/// The disk may be silent for good: who has no place yet is not kept until it speaks.
#[tokio::test]
async fn closing_refuses_who_waits_for_a_place() {
    let (engine, gate) = gated(MemoryEngine::default());
    let store = EmbeddedStore::open(engine, Options { queue_capacity: 1, ..Options::default() }).unwrap();
    let mut first = pin!(store.create(key("a"), object("a", 1)));
    let mut without_place = pin!(store.create(key("b"), object("b", 1)));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut without_place).is_pending());
    let closing = tokio::task::spawn_blocking({
        let store = store.clone();
        move || store.close()
    });
    assert!(matches!(without_place.await, Err(StoreError::Closed)));
    assert!(matches!(store.create(key("c"), object("c", 1)).await, Err(StoreError::Closed)));
    drop(gate);
    assert_eq!(first.await.unwrap().revision, Revision(1));
    closing.await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_a_committer_that_is_gone() {
    let (store, gate, _) = slow_store();
    let mut watch = store.watch(Prefix::all(), Revision(0)).await.unwrap();
    let mut first = pin!(store.create(key("a"), object("a", 1)));
    let mut second = pin!(store.create(key("b"), object("b", 1)));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    gate.break_down();
    gate.permit();
    for answer in [first.await, second.await] {
        assert!(matches!(&answer, Err(StoreError::Unavailable(why)) if why.contains("has ended")), "{answer:?}");
    }
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
    assert!(matches!(store.create(key("c"), object("c", 1)).await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn closing_commits_what_is_queued() {
    let (store, gate, memory) = slow_store();
    let mut watch = store.watch(Prefix::all(), Revision(0)).await.unwrap();
    let mut create = pin!(store.create(key("a"), object("a", 1)));
    assert!(poll!(&mut create).is_pending());
    drop(gate);
    store.close();
    let made = create.await.unwrap();
    assert_eq!(memory.commits(), 1);
    assert!(matches!(store.create(key("b"), object("b", 1)).await, Err(StoreError::Closed)));
    assert_eq!(watch.next().await.unwrap()[0].version, made);
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn readers_and_watchers_share_one_version() {
    let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).unwrap();
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(store.watch(Prefix::all(), Revision(0)).await.unwrap());
    }
    let made = store.create(key("a"), object("a", 1)).await.unwrap();
    for watch in &mut watches {
        assert!(Arc::ptr_eq(&watch.next().await.unwrap()[0].version, &made));
    }
    assert!(Arc::ptr_eq(&store.get(&key("a")).await.unwrap().unwrap(), &made));
}

#[tokio::test]
async fn a_watch_answers_at_most_256_changes_at_once() {
    let store = EmbeddedStore::open(MemoryEngine::default(), Options::default()).unwrap();
    for number in 0..600 {
        store.create(key(&number.to_string()), object("n", number)).await.unwrap();
    }
    let mut watch = store.watch(Prefix::all(), Revision(0)).await.unwrap();
    let mut sizes = Vec::new();
    while watch.position() < Revision(600) {
        sizes.push(watch.next().await.unwrap().len());
    }
    assert_eq!(sizes, [256, 256, 88]);
}

/// Found by dev/interleavings: a watch ended as soon as the store was told to close, before what it still committed.
#[tokio::test]
async fn a_watch_is_told_the_last_writes_of_a_store_that_closes() {
    let (store, gate, _) = slow_store();
    let mut watch = store.watch(Prefix::all(), Revision(0)).await.unwrap();
    let mut last = pin!(store.create(key("last"), object("last", 1)));
    assert!(poll!(&mut last).is_pending());
    let closing = tokio::task::spawn_blocking({
        let store = store.clone();
        move || store.close()
    });
    let mut queued = 0;
    let refused = async |n: usize| {
        let name = format!("late-{n}");
        matches!(poll!(pin!(store.create(key(&name), object("late", 1)))), Poll::Ready(Err(StoreError::Closed)))
    };
    while !refused(queued).await {
        queued += 1;
        tokio::task::yield_now().await;
    }
    assert!(poll!(pin!(watch.next())).is_pending(), "the store still has something to commit");
    drop(gate);
    assert_eq!(last.await.unwrap().revision, Revision(1));
    closing.await.unwrap();
    let mut told = Vec::new();
    let end = loop {
        match watch.next().await {
            Ok(changes) => told.extend(changes.into_iter().map(|change| change.version.revision)),
            Err(end) => break end,
        }
    };
    assert!(matches!(end, StoreError::Closed), "{end:?}");
    assert_eq!(told.last().copied(), store.revision().await.ok(), "everything that was written: {told:?}");
}
