//! Reading: lists in pages, selectors, watches, both forms of an Event.

use super::*;
use crate::store::{Change, ChangeKind};

async fn three(world: &World) {
    for name in ["a", "b", "c"] {
        let mut wish = workload(name);
        wish["metadata"]["labels"] = json!({"name": name, "all": "yes"});
        world.create(wish).await.expect("created");
    }
}

fn names(list: &List) -> Vec<&str> {
    list.items.iter().filter_map(|v| v.object["metadata"]["name"].as_str()).collect()
}

#[tokio::test]
async fn pages_are_of_one_moment() {
    let world = World::new().await;
    three(&world).await;
    let kind = world.workloads();
    let first = ListOptions { limit: Some(2), ..ListOptions::default() };
    let page = world.registry.list(&kind, Some("default"), &first).await.expect("listed");
    assert_eq!((names(&page), page.remaining), (vec!["a", "b"], Some(1)));
    world.delete("c", &DeleteOptions::default()).await.expect("deleted");
    let next = ListOptions { continue_token: page.continue_token.clone(), ..first.clone() };
    let rest = world.registry.list(&kind, Some("default"), &next).await.expect("listed");
    assert_eq!((names(&rest), rest.remaining, rest.continue_token.clone()), (vec!["c"], None, None));
    assert_eq!(rest.revision, page.revision);
}

#[tokio::test]
async fn an_old_page_expires() {
    let world = World::new().await;
    three(&world).await;
    let kind = world.workloads();
    let first = ListOptions { limit: Some(1), ..ListOptions::default() };
    let page = world.registry.list(&kind, None, &first).await.expect("listed");
    for i in 0..40 {
        world
            .patch("a", Patch::Merge(json!({"metadata": {"labels": {"i": i.to_string()}}})), &world.options)
            .await
            .expect("patched");
        world.registry.list(&kind, None, &first).await.expect("listed");
    }
    let next = ListOptions { continue_token: page.continue_token, ..first.clone() };
    let error = world.registry.list(&kind, None, &next).await.expect_err("too old");
    assert_eq!((error.code(), error.reason), (410, Reason::Expired));
    let nonsense = ListOptions { continue_token: Some("?".to_owned()), ..first };
    assert_eq!(world.registry.list(&kind, None, &nonsense).await.expect_err("nonsense").code(), 400);
}

#[tokio::test]
async fn lists_select() {
    let world = World::new().await;
    three(&world).await;
    let kind = world.workloads();
    let selector = Selector::parse(&kind, Some("name in (a,c)"), Some("spec.active=Live")).expect("readable");
    let options = ListOptions { selector, limit: Some(1), ..ListOptions::default() };
    let page = world.registry.list(&kind, None, &options).await.expect("listed");
    assert_eq!((names(&page), page.remaining, page.continue_token.is_some()), (vec!["a"], None, true));
}

async fn next(watch: &mut dyn Watch) -> Vec<(ChangeKind, String)> {
    let told = |c: &Change| (c.kind, c.version.object["metadata"]["labels"]["tier"].as_str().unwrap_or("-").to_owned());
    let changes = tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await.expect("in time");
    changes.expect("told").iter().map(told).collect()
}

#[tokio::test]
async fn entering_and_leaving_a_selector_is_created_and_deleted() {
    let world = World::new().await;
    let kind = world.workloads();
    let from = world.registry.store().revision().await.expect("open");
    let watch = world.registry.watch(&kind, Some("default"), from).await.expect("watched");
    let selector = Selector::parse(&kind, Some("tier"), None).expect("readable");
    let mut watch = Filtered::new(watch, selector);
    world.create(workload("a")).await.expect("created");
    let label = |value: Value| Patch::Merge(json!({"metadata": {"labels": {"tier": value}}}));
    world.patch("a", label(json!("1")), &world.options).await.expect("patched");
    assert_eq!(next(&mut watch).await, [(ChangeKind::Created, "1".to_owned())]);
    world.patch("a", label(json!("2")), &world.options).await.expect("patched");
    assert_eq!(next(&mut watch).await, [(ChangeKind::Updated, "2".to_owned())]);
    let left = world.patch("a", label(Value::Null), &world.options).await.expect("patched").version;
    let changes = watch.next().await.expect("told");
    assert_eq!((changes.len(), changes[0].kind), (1, ChangeKind::Deleted));
    let last = &changes[0].version.object["metadata"];
    assert_eq!(last["labels"]["tier"], "2", "as the client last saw it");
    assert_eq!(last["resourceVersion"], left.object["metadata"]["resourceVersion"], "at the revision it left");
    world.delete("a", &DeleteOptions::default()).await.expect("deleted");
    world.create(workload("b")).await.expect("created");
    world.patch("b", label(json!("3")), &world.options).await.expect("patched");
    assert_eq!(next(&mut watch).await, [(ChangeKind::Created, "3".to_owned())], "what was not seen does not leave");
}

#[tokio::test]
async fn events_have_two_forms() {
    let world = World::new().await;
    let core = world.kind("", "Event");
    let view = world.kind("events.k8s.io", "Event");
    let from = world.registry.store().revision().await.expect("open");
    let mut watch = world.registry.watch(&view, Some("default"), from).await.expect("watched");
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "action": "Start", "note": "hello",
        "reason": "Started", "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z", "deprecatedCount": 2,
        "reportingController": "gaia", "reportingInstance": "gaia-1", "regarding": {"kind": "Workload", "name": "web"},
    });
    let made = world.registry.create(&view, Some("default"), event, &world.options).await.expect("created").version;
    assert_eq!((&made.object["note"], &made.object["apiVersion"]), (&json!("hello"), &json!("events.k8s.io/v1")));
    assert_eq!(serde_json::from_slice::<Value>(&made.json).expect("JSON"), made.object);
    let read = world.registry.get(&core, &named("e")).await.expect("there");
    for (field, value) in [("message", json!("hello")), ("count", json!(2)), ("reportingComponent", json!("gaia"))] {
        assert_eq!(read.object[field], value);
    }
    assert_eq!((&read.object["involvedObject"]["name"], read.object.get("regarding")), (&json!("web"), None));
    assert_eq!(watch.next().await.expect("told")[0].version.object["note"], "hello");
    let selector = Selector::parse(&core, None, Some("involvedObject.name=web")).expect("readable");
    let options = ListOptions { selector, ..ListOptions::default() };
    assert_eq!(world.registry.list(&core, None, &options).await.expect("listed").items.len(), 1);
    let patch = Patch::Merge(json!({"note": "again", "deprecatedCount": 3}));
    world.registry.patch(&view, &named("e"), patch, &world.options).await.expect("patched");
    let read = world.registry.get(&core, &named("e")).await.expect("there");
    assert_eq!((&read.object["message"], &read.object["count"]), (&json!("again"), &json!(3)));
}

#[tokio::test]
async fn a_watch_from_the_future_and_from_nowhere() {
    let world = World::new().await;
    let error = world.registry.watch(&world.workloads(), None, Revision(1_000_000)).await.err().expect("the future");
    assert_eq!(error.code(), 504);
    assert!(error.message.starts_with("Too large resource version: 1000000, current: "), "{}", error.message);
}
