//! kube-rs as a client: the crate controllers and other people's tools are written with.

use std::sync::atomic::{AtomicUsize, Ordering};

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{
        WatchStreamExt,
        events::{Event, EventType, Recorder, Reporter},
        finalizer::{self, finalizer},
        wait::{await_condition, conditions},
        watcher,
    },
};

use super::*;
use crate::api::{
    container::ContainerSpec,
    workload::{LiveSpec, Variant, WorkloadSpec, WorkloadStatus},
};

fn client(server: &Server) -> Client {
    Client::new(server.router.clone(), "default")
}

fn typed(name: &str) -> Workload {
    let container = ContainerSpec { image: "busybox".to_owned(), ..ContainerSpec::default() };
    let live = LiveSpec { running: true, container };
    Workload::new(name, WorkloadSpec { live: Some(live), ..WorkloadSpec::default() })
}

#[tokio::test]
async fn objects_are_written_and_read() {
    let server = Server::new().await;
    let api: Api<Workload> = Api::default_namespaced(client(&server));
    let created = api.create(&PostParams::default(), &typed("web")).await.expect("created");
    assert!(created.uid().is_some());
    let merged = Patch::Merge(json!({"spec": {"suspend": true}}));
    let patched = api.patch("web", &PatchParams::default(), &merged).await.expect("patched");
    assert_eq!(patched.spec.suspend, Some(true));
    let status = WorkloadStatus { active: Some(Variant::Live), ..WorkloadStatus::default() };
    let status = Patch::Merge(json!({"status": status}));
    api.patch_status("web", &PatchParams::default(), &status).await.expect("status patched");
    let listed = api.list(&ListParams::default()).await.expect("listed");
    assert_eq!(listed.items.len(), 1);
    assert_eq!(listed.items[0].status.as_ref().and_then(|status| status.active), Some(Variant::Live));
    let error = api.replace("web", &PostParams::default(), &created).await.expect_err("stale");
    assert!(matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));
    let metadata = api.get_metadata("web").await.expect("metadata");
    assert_eq!(metadata.name_any(), "web");
    let deleted = api.delete("web", &DeleteParams::default()).await.expect("deleted");
    assert!(deleted.right().is_some_and(|status| status.is_success()));
    assert!(api.get_opt("web").await.expect("answered").is_none());
}

#[tokio::test]
async fn apply_creates_and_conflicts() {
    let server = Server::new().await;
    let api: Api<Workload> = Api::default_namespaced(client(&server));
    let wish = Patch::Apply(typed("web"));
    api.patch("web", &PatchParams::apply("one"), &wish).await.expect("applied");
    let other = Patch::Apply(json!({
        "apiVersion": "gaia.dev/v1alpha1", "kind": "Workload",
        "spec": {"live": {"container": {"image": "other"}}},
    }));
    let error = api.patch("web", &PatchParams::apply("two"), &other).await.expect_err("a conflict");
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 409), "{error}");
    let forced = api.patch("web", &PatchParams::apply("two").force(), &other).await.expect("forced");
    let image = forced.spec.live.map(|live| live.container.image);
    assert_eq!(image.as_deref(), Some("other"));
}

#[tokio::test]
async fn plain_and_streaming_watchers_see_everything() {
    let server = Server::new().await;
    let api: Api<Workload> = Api::default_namespaced(client(&server));
    api.create(&PostParams::default(), &typed("a")).await.expect("created");
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut seen = watcher(api.clone(), config).applied_objects().boxed();
        let first = timeout(PATIENCE, seen.next()).await.expect("in time").expect("goes on").expect("no error");
        assert_eq!(first.name_any(), "a");
        let change = Patch::Merge(json!({"metadata": {"annotations": {"seen": format!("{:?}", Instant::now())}}}));
        let changed = api.patch("a", &PatchParams::default(), &change).await.expect("patched");
        let second = timeout(PATIENCE, seen.next()).await.expect("in time").expect("goes on").expect("no error");
        assert_eq!(second.resource_version(), changed.resource_version());
    }
}

/// The client was away for too long: it must find its way back by itself.
#[tokio::test]
async fn a_watcher_recovers_from_an_expired_revision() {
    let server = Server::with(Options { log_capacity: 4, ..Options::default() }, Auth::open()).await;
    let api: Api<Workload> = Api::default_namespaced(client(&server));
    let mut events = watcher(api.clone(), watcher::Config::default()).boxed();
    loop {
        let event = timeout(PATIENCE, events.next()).await.expect("in time").expect("goes on").expect("no error");
        if matches!(event, watcher::Event::InitDone) {
            break;
        }
    }
    for i in 0..20 {
        api.create(&PostParams::default(), &typed(&format!("w{i}"))).await.expect("created");
    }
    let mut names = std::collections::BTreeSet::new();
    while names.len() < 20 {
        match timeout(PATIENCE, events.next()).await.expect("in time").expect("goes on") {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                names.insert(object.name_any());
            }
            // The 410 itself is told once; then it lists again.
            Ok(watcher::Event::Delete(_) | watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {}
        }
    }
}

#[tokio::test]
async fn a_raw_watch_is_typed() {
    let server = Server::new().await;
    let api: Api<Workload> = Api::default_namespaced(client(&server));
    let parameters = WatchParams::default().timeout(5);
    let mut stream = api.watch(&parameters, "0").await.expect("a watch").boxed();
    api.create(&PostParams::default(), &typed("a")).await.expect("created");
    let event = timeout(PATIENCE, stream.next()).await.expect("in time").expect("goes on").expect("no error");
    assert!(matches!(event, WatchEvent::Added(object) if object.name_any() == "a"));
}

#[tokio::test]
async fn conditions_are_awaited() {
    let server = Server::new().await;
    let api: Api<Workload> = Api::default_namespaced(client(&server));
    let created = api.create(&PostParams::default(), &typed("web")).await.expect("created");
    let ready = await_condition(api.clone(), "web", |object: Option<&Workload>| {
        object.and_then(|workload| workload.status.as_ref()).is_some_and(|status| status.active.is_some())
    });
    let write = async {
        let status = Patch::Merge(json!({"status": {"active": "Live"}}));
        api.patch_status("web", &PatchParams::default(), &status).await.expect("status patched");
    };
    let (ready, ()) = timeout(PATIENCE, async { tokio::join!(ready, write) }).await.expect("in time");
    ready.expect("the condition is met");
    let uid = created.uid().expect("a uid");
    let gone = await_condition(api.clone(), "web", conditions::is_deleted(&uid));
    let delete = async { api.delete("web", &DeleteParams::default()).await.expect("deleted") };
    let (gone, _) = timeout(PATIENCE, async { tokio::join!(gone, delete) }).await.expect("in time");
    gone.expect("it is seen to be gone");
}

/// kube's helper adds its finalizer with a JSON patch whose test of an absent path must hold, and removes it with one
/// that must end the object.
#[tokio::test]
async fn the_finalizer_helper_works() {
    let server = Server::new().await;
    let api: Api<Workload> = Api::default_namespaced(client(&server));
    api.create(&PostParams::default(), &typed("web")).await.expect("created");
    let cleaned = AtomicUsize::new(0);
    let pass = || async {
        let object = Arc::new(api.get("web").await.expect("there"));
        finalizer(&api, "example.dev/clean", object, |event| {
            if matches!(event, finalizer::Event::Cleanup(_)) {
                cleaned.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready(Ok::<_, std::io::Error>(kube::runtime::controller::Action::await_change()))
        })
        .await
        .expect("the pass succeeds");
    };
    pass().await;
    assert_eq!(api.get("web").await.expect("there").finalizers(), ["example.dev/clean"]);
    pass().await;
    assert_eq!(cleaned.load(Ordering::Relaxed), 0);
    let pending = api.delete("web", &DeleteParams::default()).await.expect("asked for");
    assert!(pending.left().is_some_and(|object| object.meta().deletion_timestamp.is_some()));
    pass().await;
    assert_eq!(cleaned.load(Ordering::Relaxed), 1);
    assert!(api.get_opt("web").await.expect("answered").is_none());
}

#[tokio::test]
async fn discovery_and_events_work() {
    let server = Server::new().await;
    let client = client(&server);
    let version = client.apiserver_version().await.expect("a version");
    assert_eq!(version.git_version, GIT_VERSION);
    let discovery = kube::Discovery::new(client.clone()).run_aggregated().await.expect("discovered");
    let (resource, capabilities) =
        discovery.get("gaia.dev").and_then(|group| group.recommended_kind("Workload")).expect("Workload is discovered");
    assert_eq!(resource.plural, "workloads");
    assert!(capabilities.supports_operation("watch"));
    kube::Discovery::new(client.clone()).run().await.expect("discovered the old way");
    let api: Api<Workload> = Api::default_namespaced(client.clone());
    let web = api.create(&PostParams::default(), &typed("web")).await.expect("created");
    let recorder = Recorder::new(client, Reporter::from("test"));
    let event = Event {
        type_: EventType::Normal,
        reason: "Started".to_owned(),
        note: Some("it started".to_owned()),
        action: "Start".to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &web.object_ref(&())).await.expect("published");
    let uid = web.uid().expect("a uid");
    let core = server
        .get(&format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid%3D{uid}"))
        .await
        .expect(200);
    assert_eq!(core["items"][0]["message"], "it started");
}
