//! A task borrows the card of this host from inference that is idle, and gives it back.

use serde_json::{Value, json};

use super::{
    doubles::Manners,
    world::{DEADLINE, World, document},
};
use crate::support::eventually;

/// Of the one card that a simulated host has.
const CARD: &str = "GPU-00000000-0000-4000-8000-000000000000";

async fn status(world: &World) -> Value {
    let url = format!("{}/apis/gaia.dev/v1alpha1/gpus/gpu0", world.main_url());
    let mut gpu: Value = reqwest::get(url).await.expect("an answer").json().await.expect("JSON");
    gpu["status"].take()
}

async fn holder(world: &World) -> Value {
    status(world).await["holder"]["name"].take()
}

async fn is_held_by(world: &World, name: &str) {
    eventually("the card is with whom it should be", DEADLINE, async || {
        let status = status(world).await;
        (status["holder"]["name"] == name && status["handoff"].is_null()).then_some(())
    })
    .await;
}

/// With inference on its card, and a worker that has the same one.
async fn world() -> (World, Vec<super::doubles::Double>) {
    let world = World::start().await;
    world
        .create(
            "namespaces/default/workloads",
            json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Workload", "metadata": {"name": "prime"}, "spec": {
                "gpu": {"members": ["gpu0"]},
                "live": {"container": {"image": "prime:1", "gpus": {"deviceIds": ["0"]}}}}}),
        )
        .await;
    world
        .create(
            "gpus",
            json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Gpu", "metadata": {"name": "gpu0"},
                "spec": {"device": {"index": 0}, "owner": {"name": "prime"}}}),
        )
        .await;
    is_held_by(&world, "prime").await;
    let manners = Manners { cards: vec![CARD.to_owned()], ..Manners::default() };
    let workers = world.workers(1, manners).await;
    (world, workers)
}

fn on_card(more: Value) -> String {
    let mut spec = json!({"resources": {"hardware": {"gpu": {"count": 1, "type": "any"}}}});
    json_patch::merge(&mut spec, &more);
    document(spec)
}

#[tokio::test]
async fn a_task_takes_the_card_from_inference_and_gives_it_back() {
    let (mut world, _workers) = world().await;
    let first = world.submitted(&on_card(json!({"double": {"hangs": true}}))).await;
    let why = async |id: &str| world.object(&format!("tasks/{id}")).await["status"]["conditions"][0].clone();
    // While prime is sent away it says what it waits for; a short moment.
    eventually("it is claimed", DEADLINE, async || {
        let claim = world.object(&format!("gpuclaims/task-{}", first[0])).await;
        (claim["spec"]["holder"]["kind"] == "External").then_some(())
    })
    .await;
    eventually("the worker has it", DEADLINE, async || world.ledger.counts().get(&first[0]).copied()).await;
    assert_eq!(holder(&world).await, json!(first[0]), "it ran only when the card was its own");
    let second = world.submitted(&on_card(json!({}))).await;
    assert_eq!(why(&second[0]).await["reason"], "NoWorkerFree");
    // A second worker on the same host finds the card taken.
    let _other = world.worker("other", Manners { cards: vec![CARD.to_owned()], ..Manners::default() }).await;
    eventually("it says who has the card", DEADLINE, async || {
        let why = why(&second[0]).await;
        let message = why["message"].as_str()?;
        (why["reason"] == "WaitingForGpu" && message.contains(&first[0])).then_some(())
    })
    .await;
    // Nothing of it is forgotten.
    world.kill();
    world.begin();
    eventually("it answers again", DEADLINE, async || (world.get("/healthz").await.0 == 200).then_some(())).await;
    assert_eq!(world.task(&first[0]).await["status"], "DISPATCHED");
    // Whoever holds it is cancelled, and its worker goes.
    let waits = world.submitted(&on_card(json!({"dependsOn": [&second[0]]}))).await;
    world.patch(&format!("tasks/{}", first[0]), json!({"spec": {"cancel": true}})).await;
    drop(_workers);
    let _again = world.worker("w0", Manners { cards: vec![CARD.to_owned()], ..Manners::default() }).await;
    world.all_done(&[second, waits].concat()).await;
    is_held_by(&world, "prime").await;
    let (_, claims) = world.get("/api/v1/tasks").await;
    assert_eq!(claims.as_array().map(Vec::len), Some(3));
    eventually("no claim is left", DEADLINE, async || {
        (world.object("gpuclaims").await["items"].as_array()?.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_declines_leaves_the_card_alone() {
    let (world, _workers) = world().await;
    let mut unwilling: Value = serde_json::from_str(&on_card(json!({}))).expect("JSON");
    unwilling["metadata"]["annotations"] = json!({"gaia.dev/gpu-claim": "false"});
    let ids = world.submitted(&unwilling.to_string()).await;
    world.all_done(&ids).await;
    assert_eq!(holder(&world).await, "prime");
}
