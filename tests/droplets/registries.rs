//! Registries that hang, drip, lie, vanish and come back: whatever they do, what was known is served.

use std::{sync::Arc, time::Duration};

use gaia::controllers::droplet::Settings;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    services::{Rude, Says, Service, rude},
    support::{eventually, port::own_port},
    world::{DEADLINE, World, listed, settings},
};

fn hasty() -> Settings {
    Settings { registry_timeout: Duration::from_millis(300), ..settings() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_vanishes_is_told_of_and_heard_again_when_it_is_back() {
    // On a runtime of its own, which takes its open connections with it.
    let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let registry =
        own.spawn(async { Service::at(&format!("127.0.0.1:{}", own_port())).await }).await.expect("no panic");
    let (address, target) = (registry.address.to_string(), Service::start().await);
    registry.lists(json!([listed("TGT", &target.url())]));
    let data = Arc::new(tempfile::tempdir().expect("a directory"));
    let mut world = World::on(hasty(), registry, target, data).await;
    eventually("it is heard", DEADLINE, async || world.routing.directory.view().find("tgt").cloned()).await;
    own.shutdown_background();
    eventually("it is gone", DEADLINE, async || world.routing.directory.sync().await.is_err().then_some(())).await;
    let (status, health) = world.get("/orchestrator/health").await;
    assert_eq!((status.as_u16(), &health["status"]), (200, &json!("error")));
    let told = &health["dependencies"];
    assert_eq!((&told["registry"]["status"], &told["cache"]["status"]), (&json!("unhealthy"), &json!("active")));
    assert!(told["registry"]["error"].as_str().is_some_and(|why| why.contains("connect")), "{told}");
    let (_, needs) = world.get("/orchestrator/dependencies").await;
    assert_eq!(
        (&needs["required"][0]["status"], &needs["optional"][0]["status"]),
        (&json!("unavailable"), &json!("connected"))
    );
    assert_eq!(world.call("/x").await["status"], "success", "the last list is served");
    let (status, unknown) = world.post("/orchestrator/tasks", &json!({"droplet_name": "none", "path": "/"})).await;
    assert_eq!((status.as_u16(), &unknown["error"]["details"]["available_droplets"]), (400, &json!(["TGT"])));
    let message = json!({"target": "zz", "message_type": "event"});
    let (status, sent) = world.post("/orchestrator/send", &message).await;
    assert_eq!((status.as_u16(), &sent["sent"], &sent["result"]), (200, &json!(false), &json!("error")));
    let (_, metrics) = world.get("/orchestrator/metrics").await;
    assert!(metrics["registry"]["syncs_error"].as_u64() >= Some(1), "{metrics}");

    let back = eventually("its port is free", DEADLINE, async || {
        let listener = std::net::TcpListener::bind(&address).ok()?;
        drop(listener);
        Some(Service::at(&address).await)
    })
    .await;
    back.lists(json!([listed("TGT", &world.target.url()), listed("new", &world.target.url())]));
    world.registry = back;
    let new = json!({"droplet_name": "NEW", "path": "/x"});
    eventually("it is heard again", DEADLINE, async || {
        (world.post("/orchestrator/tasks", &new).await.1["status"] == "success").then_some(())
    })
    .await;
    assert_eq!(world.get("/orchestrator/health").await.1["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_registry_that_hangs_while_the_list_is_fresh() {
    let world = World::with(Settings { registry_timeout: DEADLINE, ..settings() }).await;
    let hangs = || [Says::Nothing(Arc::new(Notify::new()))];
    world.registry.says("/droplets", hangs());
    world.registry.says("/health", hangs());
    let directory = world.routing.directory.clone();
    let syncing = tokio::spawn(async move { directory.sync().await });
    eventually("it is being asked", DEADLINE, async || (world.registry.asked("GET /droplets").len() > 1).then_some(()))
        .await;
    assert_eq!(world.call("/x").await["status"], "success");
    assert_eq!(world.get("/orchestrator/droplets").await.1["cache_status"], "active");
    assert_eq!(world.get("/orchestrator/info").await.0, 200);
    let (status, health) = world.get("/orchestrator/health").await;
    assert_eq!((status.as_u16(), &health["dependencies"]["registry"]["status"]), (200, &json!("unhealthy")), "in 2 s");
    assert!(!syncing.is_finished(), "all of it was answered meanwhile");
    syncing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_list_costs_one_failed_look_for_all_who_come() {
    let world = World::with(Settings { cache_expiry: Duration::ZERO, ..hasty() }).await;
    let before = world.registry.asked("GET /droplets").len();
    world.registry.says("/droplets", [Says::Nothing(Arc::new(Notify::new()))]);
    let calls = futures::future::join_all((0..20).map(|_| world.call("/x"))).await;
    assert!(calls.iter().all(|routed| routed["status"] == "success"), "the last list is served");
    let asked = world.registry.asked("GET /droplets").len() - before;
    assert!((1..=3).contains(&asked), "{asked} looks for 20 calls");
    let (_, droplets) = world.get("/orchestrator/droplets").await;
    assert_eq!((&droplets["cache_status"], &droplets["served_from"]), (&json!("stale"), &json!("cache")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_drips_or_breaks_off_has_not_answered() {
    let world = World::with(hasty()).await;
    let drips = Says::Drips { every: Duration::from_millis(10), elements: 1_000_000 };
    let too_large = Says::Bytes(200, "application/json", vec![b' '; 17 * 1024 * 1024]);
    let not_utf8 = Says::Bytes(200, "application/json", b"{\"droplets\": [\xff]}".to_vec());
    let round = Says::Redirect(format!("{}/droplets", world.registry.url()));
    for (says, why) in
        [(drips, "timeout"), (too_large, "larger than"), (not_utf8, "is not JSON"), (round, "more than 5 redirects")]
    {
        world.registry.says("/droplets", [says]);
        let error = world.routing.directory.sync().await.expect_err("it is no list");
        assert!(error.contains(why), "{error}");
        assert_eq!(world.call("/x").await["status"], "success", "{why}");
    }
    for how in [Rude::Ends, Rude::Resets, Rude::Truncates, Rude::ResetsMidway, Rude::Babbles] {
        let there = format!("http://{}/droplets", rude(how, 99).await);
        world.registry.says("/droplets", [Says::Redirect(there)]);
        world.routing.directory.sync().await.expect_err("it is no list");
        assert_eq!(world.call("/x").await["status"], "success");
    }
    let (_, metrics) = world.get("/orchestrator/metrics").await;
    assert!(metrics["registry"]["syncs_error"].as_u64() >= Some(9), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_list_with_lies_what_is_true_is_used() {
    let world = World::with(hasty()).await;
    let good = world.target.url();
    let droplet = |name: &str, endpoint: &str| listed(name, endpoint);
    let with = |key: &str, value: Value| {
        let mut droplet = listed("odd", &good);
        droplet[key] = value;
        droplet
    };
    world.registry.lists(json!([
        null, 7, "text", [],
        {"id": 1, "name": "url", "url": good},
        with("id", json!("x")), with("name", Value::Null), with("metadata", Value::Null), with("cost_usd", json!("free")),
        with("steward", json!(7)),
        droplet("TGT", "http://127.0.0.1:1"), droplet("TGT", &good),
        droplet("user", "http://user@127.0.0.1"), droplet("query", "http://127.0.0.1/?q="), droplet("file", "file:///etc/passwd"),
        droplet("metadata", "http://169.254.169.254"), droplet("nothing", ""),
        droplet("long", &format!("http://{}", "x".repeat(5000))),
        droplet(&"n".repeat(5000), &good), droplet("line\nbreak\u{0}", &good),
        with("id", json!("42")),
    ]));
    world.routing.directory.sync().await.expect("it is a list");
    assert_eq!(world.call("/x").await["status"], "success", "the last of a name counts");
    let (_, droplets) = world.get("/orchestrator/droplets").await;
    let all = droplets["droplets"].as_array().expect("a list");
    let odd = all.iter().find(|droplet| droplet["name"] == "odd").expect("the one that is one");
    assert_eq!((&odd["id"], all.len()), (&json!(42), 10));
    for name in ["user", "query", "file", "nothing"] {
        let (status, error) = world.post("/orchestrator/tasks", &json!({"droplet_name": name, "path": "/x"})).await;
        assert_eq!((status.as_u16(), &error["error"]["code"]), (400, &json!("INVALID_REQUEST")), "{name}: {error}");
    }
    let routed = world.route(json!({"droplet_name": "metadata", "path": "/latest"})).await;
    assert_eq!((&routed["status"], &routed["retry_count"]), (&json!("error"), &json!(1)));
    let routed = world.route(json!({"droplet_name": "line\nbreak\u{0}", "path": "/x"})).await;
    assert_eq!(routed["status"], "success", "a name may be odd");
    assert_eq!(world.get("/orchestrator/metrics").await.1["droplets_known"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_is_asked_again_and_again_and_told_of_us_when_it_forgot() {
    let world = World::with(Settings { sync_interval: Duration::from_millis(50), ..hasty() }).await;
    world.registry.lists(json!([listed("late", &world.target.url()), listed("orchestrator", &world.url)]));
    let view = || world.routing.directory.view();
    eventually("it is seen without being asked for", DEADLINE, async || view().find("late").cloned()).await;
    let registered = || world.registry.asked("POST /register").len();
    let before = registered();
    // A registry that was restarted knows nobody; somebody else was quicker than we are.
    world.registry.lists(json!([listed("late", &world.target.url())]));
    eventually("it is told again", DEADLINE, async || (registered() > before).then_some(())).await;
}
