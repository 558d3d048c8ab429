//! Registries that hang, lie and vanish, and what of them is seen as objects: contract section 2.

use std::{sync::Arc, time::Duration};

use gaia::{
    api::droplet::{Droplet, DropletSource},
    controllers::droplet::Settings,
    runtime::objects::Objects,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    services::{Says, Service, nobody},
    support::eventually,
    world::{DEADLINE, World, listed, settings},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_has_the_registry_asked_once() {
    let world = World::start().await;
    let before = world.registry.asked("GET /droplets").len();
    world.registry.lists(json!([listed("TGT", &world.target.url()), listed("new", &world.target.url())]));
    assert_eq!(world.route(json!({"droplet_name": "New", "path": "/x"})).await["status"], "success");
    assert_eq!(world.registry.asked("GET /droplets").len(), before + 1);
    for _ in 0..5 {
        world.post("/orchestrator/tasks", &json!({"droplet_name": "none", "path": "/x"})).await;
    }
    assert!(world.registry.asked("GET /droplets").len() <= before + 2, "once a second at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_list_change_nothing() {
    let world = World::start().await;
    for (status, body) in [
        (200, json!(null)),
        (200, json!({"droplets": null})),
        (500, json!({})),
        (201, json!({"droplets": []})),
        (200, json!("x")),
    ] {
        world.registry.says("/droplets", [Says::Json(status, body.clone())]);
        assert!(world.routing.directory.sync().await.is_err(), "{status} {body}");
        assert_eq!(world.call("/x").await["status"], "success");
    }
    world
        .registry
        .says("/droplets", [Says::Json(200, json!([listed("TGT", &world.target.url()), {"id": 1, "name": "broken"}]))]);
    world.routing.directory.sync().await.expect("a bare array is a list");
    assert_eq!(world.get("/orchestrator/droplets").await.1["droplets"].as_array().map(Vec::len), Some(1));
    world.registry.lists(json!([]));
    world.routing.directory.sync().await.expect("the registry answers");
    assert_eq!(world.call("/x").await["status"], "success", "an empty list takes effect later");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_ask_the_registry_once() {
    let world = World::with(Settings { cache_expiry: Duration::ZERO, ..settings() }).await;
    let go_on = Arc::new(Notify::new());
    world.registry.says(
        "/droplets",
        [Says::Nothing(go_on.clone()), Says::Json(200, json!([listed("TGT", &world.target.url())]))],
    );
    let before = world.registry.asked("GET /droplets").len();
    // In one task, so that all of them have begun before anybody is answered.
    let directory = world.routing.directory.clone();
    let waiting = tokio::spawn(async move { futures::future::join_all((0..20).map(|_| directory.sync())).await });
    eventually("it is being asked", DEADLINE, async || {
        (world.registry.asked("GET /droplets").len() > before).then_some(())
    })
    .await;
    go_on.notify_one();
    for one in waiting.await.expect("no panic") {
        assert!(one.is_err(), "that answer was no list, for everybody");
    }
    assert_eq!(world.registry.asked("GET /droplets").len(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_the_last_list_is_served_also_after_a_restart() {
    let world = World::start().await;
    let file = world.data.path().join("cache/orchestrator_droplets.json");
    eventually("the list is on disk", DEADLINE, async || file.exists().then_some(())).await;
    let (target, data) = (Service::start().await, world.data.clone());
    drop(world);
    let gone = Service::start().await;
    gone.says("/droplets", [Says::Json(500, json!({}))]);
    let world = World::on(settings(), gone, target, data).await;
    let (status, droplets) = world.get("/orchestrator/droplets").await;
    assert_eq!(
        (status.as_u16(), &droplets["cache_status"], &droplets["droplets"][0]["name"]),
        (200, &json!("active"), &json!("TGT"))
    );
    let text = std::fs::read_to_string(&file).expect("it is there");
    let mut kept: Value = serde_json::from_str(&text).expect("JSON");
    kept["synced_at"] = json!("2020-01-01T00:00:00Z");
    std::fs::write(&file, kept.to_string()).expect("written");
    let (registry, target, data) = (Service::start().await, Service::start().await, world.data.clone());
    registry.says("/droplets", [Says::Json(500, json!({}))]);
    drop(world);
    let world = World::on(settings(), registry, target, data).await;
    let (_, droplets) = world.get("/orchestrator/droplets").await;
    assert_eq!((&droplets["cache_status"], &droplets["served_from"]), (&json!("stale"), &json!("cache")));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nothing_at_all_it_says_so_and_serves() {
    let data = Arc::new(tempfile::tempdir().expect("a directory"));
    std::fs::create_dir(data.path().join("cache")).expect("made");
    std::fs::write(data.path().join("cache/orchestrator_droplets.json"), "{broken").expect("written");
    let (registry, target) = (Service::start().await, Service::start().await);
    registry.says("/droplets", [Says::Json(500, json!({}))]);
    registry.says("/health", [Says::Json(500, json!({}))]);
    let world = World::on(settings(), registry, target, data).await;
    let (status, error) = world.get("/orchestrator/droplets").await;
    assert_eq!((status.as_u16(), &error["error"]["code"]), (503, &json!("REGISTRY_ERROR")));
    assert_eq!(error["detail"]["error"]["message"], "Cannot reach Registry and no cached droplets available");
    let (status, health) = world.get("/orchestrator/health").await;
    assert_eq!((status.as_u16(), &health["status"]), (200, &json!("error")));
    assert_eq!(
        (&health["dependencies"]["registry"]["status"], &health["dependencies"]["cache"]["age_seconds"]),
        (&json!("degraded"), &json!(999_999))
    );
    let (status, info) = world.get("/orchestrator/info").await;
    assert_eq!(
        (status.as_u16(), &info["cache_status"], &info["last_registry_sync"]),
        (200, &json!("unavailable"), &Value::Null)
    );
    let (status, error) = world.post("/orchestrator/tasks", &json!({"droplet_name": "x", "path": "/"})).await;
    assert_eq!((status.as_u16(), &error["error"]["details"]["available_droplets"]), (400, &json!([])));
    world.registry.lists(json!([]));
    let (status, droplets) = world.get("/orchestrator/droplets").await;
    assert_eq!(
        (status.as_u16(), droplets),
        (200, json!({"droplets": [], "cache_status": "active", "served_from": "registry"}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_delays_no_start_and_is_given_up() {
    let (registry, target) = (Service::start().await, Service::start().await);
    let data = Arc::new(tempfile::tempdir().expect("a directory"));
    for path in ["/droplets", "/register", "/health"] {
        registry.says(path, [Says::Nothing(Arc::new(Notify::new()))]);
    }
    let world =
        World::on(Settings { registry_timeout: Duration::from_millis(200), ..settings() }, registry, target, data)
            .await;
    assert_eq!(world.get("/orchestrator/state").await.0, 200);
    assert_eq!(world.get("/orchestrator/droplets").await.0, 503);
    let (_, metrics) = world.get("/orchestrator/metrics").await;
    assert!(metrics["registry"]["syncs_error"].as_u64() >= Some(1), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_until_it_is_taken() {
    let (registry, target) = (Service::start().await, Service::start().await);
    registry.lists(json!([listed("TGT", &target.url()), listed("orchestrator", "http://localhost:8001")]));
    registry.says("/register", [Says::Json(500, json!({})), Says::Json(409, json!({}))]);
    let data = Arc::new(tempfile::tempdir().expect("a directory"));
    let world = World::on(settings(), registry, target, data).await;
    eventually("it is registered", DEADLINE, async || world.routing.directory.registered().then_some(())).await;
    let asked = world.registry.asked("POST /register");
    let said: Value = serde_json::from_slice(&asked[0].body).expect("JSON");
    assert_eq!(said, json!({"name": "orchestrator", "id": 2, "url": "http://localhost:8001", "version": "1.1.0"}));
    assert_eq!(asked.len(), 2);
}

async fn droplet_is(world: &World, name: &str, what: &str, so: impl Fn(&Droplet) -> bool) -> Arc<Droplet> {
    eventually(what, DEADLINE, async || {
        let all = world.objects.list::<Droplet>(None).await.expect("a store");
        all.into_iter().find(|droplet| droplet.metadata.name.as_deref() == Some(name) && so(droplet))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_mirror_the_registry_and_say_who_answers() {
    let world = World::start().await;
    let reachable = |droplet: &Droplet| droplet.status.as_ref().and_then(|status| status.reachable);
    let seen = droplet_is(&world, "tgt", "it answers", |d| reachable(d) == Some(true)).await;
    assert_eq!(seen.status.as_ref().and_then(|s| s.source), Some(DropletSource::Registry));
    assert_eq!((seen.spec.display_name.as_deref(), seen.spec.droplet_id), (Some("TGT"), Some(7)));
    assert_eq!(world.get("/orchestrator/metrics").await.1["droplets_reachable"], 1);
    world.target.says("/health", [Says::Json(500, json!({}))]);
    droplet_is(&world, "tgt", "it does not answer", |d| reachable(d) == Some(false)).await;
    assert_eq!(world.get("/orchestrator/metrics").await.1["droplets_reachable"], 0);
    let elsewhere = format!("http://{}", nobody());
    world.registry.lists(json!([listed("TGT", &elsewhere)]));
    world.routing.directory.sync().await.expect("the registry answers");
    droplet_is(&world, "tgt", "it has moved", |d| d.spec.endpoint == elsewhere).await;
    world.registry.lists(json!([listed("other", &world.target.url())]));
    world.routing.directory.sync().await.expect("the registry answers");
    droplet_is(&world, "other", "it has come", |_| true).await;
    eventually("the other has gone", DEADLINE, async || {
        let all = world.objects.list::<Droplet>(None).await.expect("a store");
        (all.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_declares_takes_the_place_of_what_the_registry_lists() {
    let world = World::start().await;
    let own = Service::start().await;
    own.says("/who", [Says::Json(200, json!({"who": "own"}))]);
    world.declare("tgt2", json!({"endpoint": own.url(), "displayName": "tGt2"})).await;
    assert_eq!(
        world.route(json!({"droplet_name": "TGT2", "path": "/who"})).await["response_body"],
        json!({"who": "own"})
    );
    let (_, droplets) = world.get("/orchestrator/droplets").await;
    assert_eq!(droplets["droplets"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_declared_is_found_without_the_registry() {
    // The list is never fresh, so whoever needs it asks for it.
    let world = World::with(Settings { cache_expiry: Duration::ZERO, ..settings() }).await;
    world.declare("own", json!({"endpoint": world.target.url()})).await;
    let before = world.registry.asked("GET /droplets").len();
    world.registry.says("/droplets", [Says::Nothing(Arc::new(Notify::new()))]);
    for _ in 0..3 {
        assert_eq!(world.route(json!({"droplet_name": "Own", "path": "/x"})).await["status"], "success");
    }
    assert_eq!(world.registry.asked("GET /droplets").len(), before);
}
