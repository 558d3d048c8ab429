//! Reading one's writes, comparing and swapping, listing.

use std::{collections::BTreeSet, sync::Arc};

use futures::future::join_all;

use super::{
    super::{ChangeKind, Key, Prefix, Revision, Store, StoreError},
    key, object, soon, told,
};

pub(super) async fn a_created_object_can_be_read(store: Arc<dyn Store>) {
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    let before = store.revision().await.unwrap();
    let made = soon("create", store.create(key("a"), object("a", 1))).await.unwrap();

    assert!(made.revision > before, "a write is later than everything before");
    assert_eq!(made.key, key("a"));
    assert_eq!(made.object["spec"]["size"], 1);
    assert_eq!(made.object["metadata"]["resourceVersion"], made.revision.to_string());
    let parsed: serde_json::Value = serde_json::from_slice(&made.json).unwrap();
    assert_eq!(parsed, made.object, "the bytes are the object");

    assert_eq!(store.get(&key("a")).await.unwrap(), Some(made.clone()), "a writer sees its write at once");
    assert!(store.revision().await.unwrap() >= made.revision);
}

pub(super) async fn an_object_is_created_once(store: Arc<dyn Store>) {
    let made = store.create(key("a"), object("a", 1)).await.unwrap();
    match store.create(key("a"), object("a", 2)).await {
        Err(StoreError::AlreadyExists(live)) => assert_eq!(live, made, "the refusal carries the live object"),
        other => panic!("expected AlreadyExists, got {other:?}"),
    }
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(made));
}

pub(super) async fn lists_are_in_key_order_and_cover_their_prefix_only(store: Arc<dyn Store>) {
    let keys = [
        Key::new("gaia.dev", "workloads", Some("b"), "x"),
        Key::new("gaia.dev", "workloads", Some("a"), "z"),
        Key::new("gaia.dev", "workloads", Some("a"), "y"),
        Key::new("gaia.dev", "workloads", Some("ab"), "x"),
        Key::new("gaia.dev", "workloadsets", Some("a"), "x"),
        Key::new("gaia.dev", "gpus", None, "x"),
        Key::new("", "namespaces", None, "a"),
    ];
    let mut last = Revision::default();
    for key in &keys {
        last = store.create(key.clone(), object("n", 1)).await.unwrap().revision;
    }
    let listed = async |prefix: Prefix| {
        let snapshot = store.list(&prefix).await.unwrap();
        assert!(snapshot.revision >= last, "a list is as of its revision");
        snapshot.items.iter().map(|version| version.key.clone()).collect::<Vec<_>>()
    };
    let [bx, az, ay, abx, sets, gpu, namespace] = keys.clone();
    assert_eq!(listed(Prefix::kind("gaia.dev", "workloads")).await, [ay.clone(), az.clone(), abx.clone(), bx.clone()]);
    assert_eq!(listed(Prefix::namespace("gaia.dev", "workloads", "a")).await, [ay.clone(), az.clone()]);
    assert_eq!(listed(Prefix::kind("gaia.dev", "gpus")).await, std::slice::from_ref(&gpu));
    assert_eq!(listed(Prefix::kind("", "namespaces")).await, std::slice::from_ref(&namespace));
    assert_eq!(listed(Prefix::kind("gaia.dev", "tasks")).await, []);
    assert_eq!(listed(Prefix::all()).await, [namespace, gpu, ay, az, abx, bx, sets]);
}

pub(super) async fn an_update_replaces_the_version_it_names(store: Arc<dyn Store>) {
    let first = store.create(key("a"), object("a", 1)).await.unwrap();
    let second = store.update(key("a"), object("a", 2), first.revision).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(second.object["metadata"]["resourceVersion"], second.revision.to_string());
    assert_eq!(first.object["spec"]["size"], 1, "a version never changes");

    for size in [2, 3] {
        match store.update(key("a"), object("a", size), first.revision).await {
            Err(StoreError::Conflict(live)) => assert_eq!(live, second, "the conflict carries the live object"),
            other => panic!("expected Conflict, got {other:?}"),
        }
    }
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(second));
}

pub(super) async fn an_update_of_nothing_is_refused(store: Arc<dyn Store>) {
    let made = store.create(key("a"), object("a", 1)).await.unwrap();
    store.delete(key("a"), made.revision).await.unwrap();
    for absent in ["a", "b"] {
        match store.update(key(absent), object(absent, 2), made.revision).await {
            Err(StoreError::NotFound(name)) => assert_eq!(name, key(absent)),
            other => panic!("expected NotFound, got {other:?}"),
        }
        assert_eq!(store.get(&key(absent)).await.unwrap(), None);
    }
}

pub(super) async fn an_equal_update_makes_no_version(store: Arc<dyn Store>) {
    let made = store.create(key("a"), object("a", 1)).await.unwrap();
    let mut watch = store.watch(Prefix::all(), made.revision).await.unwrap();

    let mut other_revision = made.object.clone();
    other_revision["metadata"]["resourceVersion"] = "another".into();
    for same in [object("a", 1), made.object.clone(), other_revision] {
        let answer = store.update(key("a"), same, made.revision).await.unwrap();
        assert_eq!(answer, made, "the present version is the answer");
    }
    let marker = store.create(key("marker"), object("marker", 1)).await.unwrap();
    let changes = told(&mut *watch, 1).await.unwrap();
    assert_eq!(changes[0].version, marker, "an update that changes nothing is not told");
}

pub(super) async fn a_deletion_makes_a_final_version(store: Arc<dyn Store>) {
    let first = store.create(key("a"), object("a", 1)).await.unwrap();
    let second = store.update(key("a"), object("a", 2), first.revision).await.unwrap();
    match store.delete(key("a"), first.revision).await {
        Err(StoreError::Conflict(live)) => assert_eq!(live, second),
        other => panic!("expected Conflict, got {other:?}"),
    }
    let gone = store.delete(key("a"), second.revision).await.unwrap();
    assert!(gone.revision > second.revision, "the deletion is a write of its own");
    assert_eq!(gone.object["spec"], second.object["spec"]);
    assert_eq!(gone.object["metadata"]["resourceVersion"], gone.revision.to_string());
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    assert!(store.list(&Prefix::all()).await.unwrap().items.is_empty());
    match store.delete(key("a"), second.revision).await {
        Err(StoreError::NotFound(name)) => assert_eq!(name, key("a")),
        other => panic!("expected NotFound, got {other:?}"),
    }
    let again = store.create(key("a"), object("a", 3)).await.unwrap();
    assert!(again.revision > gone.revision);
    let mut watch = store.watch(Prefix::all(), gone.revision).await.unwrap();
    let changes = told(&mut *watch, 1).await.unwrap();
    assert_eq!(changes[0].kind, ChangeKind::Created);
    assert_eq!(changes[0].previous, None, "what was deleted is no previous version");
}

pub(super) async fn one_of_many_creators_wins(store: Arc<dyn Store>) {
    let creators = (0..16).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.create(key("a"), object("a", number)).await })
    });
    let answers: Vec<_> = soon("creators", join_all(creators))
        .await
        .into_iter()
        .map(|answer| answer.expect("no creator panics"))
        .collect();
    let live = store.get(&key("a")).await.unwrap().expect("somebody created it");
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for answer in answers {
        match answer {
            Ok(version) | Err(StoreError::AlreadyExists(version)) => assert_eq!(version, live),
            Err(other) => panic!("expected AlreadyExists, got {other:?}"),
        }
    }
}

pub(super) async fn no_update_is_lost_among_concurrent_writers(store: Arc<dyn Store>) {
    const WRITERS: u64 = 8;
    const ROUNDS: u64 = 10;
    let made = store.create(key("count"), object("count", 0)).await.unwrap();
    let writers = (0..WRITERS).map(|_| {
        let (store, made) = (store.clone(), made.clone());
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for _ in 0..ROUNDS {
                let mut present = made.clone();
                loop {
                    let size = present.object["spec"]["size"].as_u64().expect("we wrote a number");
                    match store.update(key("count"), object("count", size + 1), present.revision).await {
                        Ok(version) => break revisions.push(version.revision),
                        Err(StoreError::Conflict(live)) => present = live,
                        Err(other) => panic!("expected Conflict, got {other:?}"),
                    }
                }
            }
            revisions
        })
    });
    let revisions = soon("writers", join_all(writers)).await;
    let revisions: Vec<_> = revisions.into_iter().flat_map(|revisions| revisions.expect("no writer panics")).collect();
    let distinct: BTreeSet<_> = revisions.iter().collect();
    assert_eq!(distinct.len(), revisions.len(), "every write has a revision of its own");
    let live = store.get(&key("count")).await.unwrap().expect("it is still there");
    assert_eq!(live.object["spec"]["size"], WRITERS * ROUNDS);
}
