//! The `kube` crate over a real socket: a controller of somebody else's, with a kind of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use gaia::api::workload::Workload;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Event as CoreEvent},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, CustomResource, CustomResourceExt, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::DynamicObject,
    discovery::ApiResource,
    runtime::{
        Controller,
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
        finalizer::{Event as Finalizer, finalizer},
        wait::{await_condition, conditions},
        watcher,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};

use super::support::{Cluster, PATIENCE, manifest};

#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug)]
#[kube(group = "crate.example.com", version = "v1", kind = "Kite", namespaced, status = "KiteStatus")]
struct KiteSpec {
    colour: String,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default)]
struct KiteStatus {
    flying: bool,
}

const DEFINITION: &str = "kites.crate.example.com";
const MANAGER: &str = "kite-controller";

fn client(cluster: &Cluster) -> Client {
    // Every test process may have been first.
    rustls::crypto::ring::default_provider().install_default().ok();
    let config = Config::new(format!("http://{}", cluster.address).parse().expect("an address"));
    Client::try_from(config).expect("a client")
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

async fn define(client: &Client) -> Api<CustomResourceDefinition> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let patch = Patch::Apply(Kite::crd());
    definitions.patch(DEFINITION, &PatchParams::apply(MANAGER), &patch).await.expect("applied");
    let established = await_condition(definitions.clone(), DEFINITION, conditions::is_crd_established());
    in_time("the definition is established", established).await.expect("watched");
    definitions
}

/// One config map a kite, owned by it; a status; an event; nothing left of it when it goes.
async fn fly(kite: Arc<Kite>, client: Arc<Client>) -> Result<Action, std::io::Error> {
    let client = Client::clone(&client);
    let kites: Api<Kite> = Api::default_namespaced(client.clone());
    let done = finalizer(&kites, "crate.example.com/land", kite, |event| async {
        let kite = match event {
            Finalizer::Apply(kite) => kite,
            Finalizer::Cleanup(_) => return Ok::<_, kube::Error>(Action::await_change()),
        };
        let string = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": kite.name_any(), "ownerReferences": [kite.controller_owner_ref(&())]},
            "data": {"colour": kite.spec.colour},
        });
        let strings: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let apply = PatchParams::apply(MANAGER).force();
        strings.patch(&kite.name_any(), &apply, &Patch::Apply(string)).await?;
        let status = Patch::Merge(json!({"status": {"flying": true}}));
        Api::<Kite>::default_namespaced(client.clone()).patch_status(&kite.name_any(), &apply_not(), &status).await?;
        let event = Event {
            type_: EventType::Normal,
            reason: "Flying".to_owned(),
            note: Some("it flies".to_owned()),
            action: "Fly".to_owned(),
            secondary: None,
        };
        Recorder::new(client.clone(), Reporter::from(MANAGER)).publish(&event, &kite.object_ref(&())).await?;
        Ok(Action::await_change())
    });
    done.await.map_err(std::io::Error::other)
}

/// For patches that are no apply.
fn apply_not() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn control(client: &Client, config: &watcher::Config) -> JoinHandle<()> {
    let kites: Api<Kite> = Api::default_namespaced(client.clone());
    let strings: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let passes = Controller::new(kites, config.clone()).owns(strings, config.clone()).run(
        fly,
        |_, _, _| Action::requeue(Duration::from_millis(100)),
        Arc::new(client.clone()),
    );
    tokio::spawn(passes.for_each(|_| std::future::ready(())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_of_a_kind_brought_at_run_time_works() {
    let cluster = Cluster::new().await;
    let client = client(&cluster);
    let definitions = define(&client).await;
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        flies_and_lands(&client, &config).await;
    }
    definitions.delete(DEFINITION, &DeleteParams::default()).await.expect("asked for");
    // Clients delete first and then begin to watch.
    let gone =
        await_condition(definitions.clone(), DEFINITION, |found: Option<&CustomResourceDefinition>| found.is_none());
    in_time("the definition goes", gone).await.expect("watched");
    let kites: Api<Kite> = Api::default_namespaced(client.clone());
    let error = kites.list(&ListParams::default()).await.expect_err("no longer served");
    assert!(matches!(error, kube::Error::Api(status) if status.code == 404));
}

async fn flies_and_lands(client: &Client, config: &watcher::Config) {
    let kites: Api<Kite> = Api::default_namespaced(client.clone());
    let strings: Api<ConfigMap> = Api::default_namespaced(client.clone());
    // One is there before the controller, the other comes later.
    let kite = |name: &str| Kite::new(name, KiteSpec { colour: "red".to_owned() });
    kites.create(&PostParams::default(), &kite("early")).await.expect("created");
    let controller = control(client, config);
    kites.create(&PostParams::default(), &kite("late")).await.expect("created");
    for name in ["early", "late"] {
        let flying = await_condition(kites.clone(), name, |kite: Option<&Kite>| {
            kite.and_then(|kite| kite.status.as_ref()).is_some_and(|status| status.flying)
        });
        in_time("the kite flies", flying).await.expect("watched");
    }
    let first = strings.get("early").await.expect("made by the controller").uid().expect("a uid");
    strings.delete("early", &DeleteParams::default()).await.expect("cut");
    let again = await_condition(strings.clone(), "early", |string: Option<&ConfigMap>| {
        string.is_some_and(|string| string.uid().is_some_and(|uid| uid != first))
    });
    in_time("what the controller owns comes back", again).await.expect("watched");
    let events: Api<CoreEvent> = Api::default_namespaced(client.clone());
    let about = ListParams::default().fields("involvedObject.name=late,reason=Flying");
    assert!(!events.list(&about).await.expect("listed").items.is_empty(), "the recorder's event is there");
    for name in ["early", "late"] {
        let uid = kites.get(name).await.expect("there").uid().expect("a uid");
        let pending = kites.delete(name, &DeleteParams::default()).await.expect("asked for");
        assert!(pending.left().is_some(), "the controller's finalizer holds it");
        let gone = await_condition(kites.clone(), name, conditions::is_deleted(&uid));
        in_time("the kite lands", gone).await.expect("watched");
        let collected = await_condition(strings.clone(), name, |string: Option<&ConfigMap>| string.is_none());
        in_time("what it owned is collected", collected).await.expect("watched");
    }
    controller.abort();
}

/// A controller beside ours, on our own kind: every change is seen, and a pass that changes nothing is the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_of_our_own_kind_settles() {
    let cluster = Cluster::new().await;
    let client = client(&cluster);
    let api: Api<Workload> = Api::default_namespaced(client.clone());
    let dynamic: Api<DynamicObject> =
        Api::default_namespaced_with(client.clone(), &ApiResource::erase::<Workload>(&()));
    for name in ["a", "b", "c"] {
        let object: DynamicObject = serde_saphyr::from_str(&manifest(name)).expect("a manifest");
        dynamic.create(&PostParams::default(), &object).await.expect("created");
    }
    let passes = Arc::new(AtomicUsize::new(0));
    let write = |api: Api<Workload>, passes: Arc<AtomicUsize>| {
        move |object: Arc<Workload>, _: Arc<()>| {
            let (api, passes) = (api.clone(), Arc::clone(&passes));
            async move {
                passes.fetch_add(1, Ordering::Relaxed);
                let mark =
                    json!({"metadata": {"annotations": {"seen": object.metadata.generation.unwrap_or(0).to_string()}}});
                api.patch(&object.name_any(), &apply_not(), &Patch::Merge(mark)).await.map(|_| Action::await_change())
            }
        }
    };
    let controller = Controller::new(api.clone(), watcher::Config::default()).run(
        write(api.clone(), Arc::clone(&passes)),
        |_, _, _| Action::requeue(Duration::from_millis(100)),
        Arc::new(()),
    );
    let controller = tokio::spawn(controller.for_each(|_| std::future::ready(())));
    let marked = |generation: &'static str| {
        move |object: Option<&Workload>| {
            object.is_some_and(|o| o.annotations().get("seen").is_some_and(|s| s == generation))
        }
    };
    for name in ["a", "b", "c"] {
        in_time("it is seen", await_condition(api.clone(), name, marked("1"))).await.expect("watched");
    }
    let change = Patch::Merge(json!({"spec": {"suspend": true}}));
    api.patch("b", &PatchParams::default(), &change).await.expect("patched");
    in_time("the change is seen", await_condition(api.clone(), "b", marked("2"))).await.expect("watched");
    // A pass for each object, one for each own mark that came back, and the same for the change. More would be a loop.
    let passes = passes.load(Ordering::Relaxed);
    assert!((4..=8).contains(&passes), "{passes} passes");
    controller.abort();
}
