//! A task borrows the card of this host from inference that is idle, and gives it back.

use nvidia_ml_fake::{Device, State};
use serde_json::{Value, json};

use super::{
    command::result,
    doubles::Manners,
    workers::Program,
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
    with_inference(&world).await;
    let manners = Manners { cards: vec![CARD.to_owned()], ..Manners::default() };
    let workers = world.workers(1, manners).await;
    (world, workers)
}

async fn with_inference(world: &World) {
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
    is_held_by(world, "prime").await;
}

/// A driver that a worker of ours loads: the card of this host, and one that nobody here knows.
fn driver() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    // Cargo puts what tests depend on beside them.
    let built = std::env::current_exe().expect("a test knows where it is").with_file_name("libnvidia_ml_fake.so");
    std::fs::copy(built, directory.path().join("libnvidia-ml.so.1")).expect("the library of tests/fixtures/nvml");
    let card =
        |uuid: &str| Device { uuid: uuid.to_owned(), name: "Fake".to_owned(), total_mib: 24_564, ..Device::default() };
    let state = State { devices: vec![card("GPU-of-nobody"), card(CARD)], ..State::default() };
    state.save(&directory.path().join("state.json")).expect("written");
    directory
}

#[tokio::test]
async fn a_program_sees_the_card_that_its_task_holds_and_no_other() {
    let world = World::without_redis(&[]).await;
    with_inference(&world).await;
    let driver = driver();
    let mut worker = Program::new("w0");
    worker.variables.push(("LD_LIBRARY_PATH", driver.path().to_str().expect("a path").to_owned()));
    worker.variables.push(("CUDA_VISIBLE_DEVICES", "0,1".to_owned()));
    worker.begin(&world.url(), &["--executors", "command"]);
    worker.is_known(&world).await;
    let shows = |more: Value| {
        let argv = ["sh", "-c", "echo cuda=$CUDA_VISIBLE_DEVICES nvidia=$NVIDIA_VISIBLE_DEVICES"];
        let mut spec = json!({"taskType": "command", "command": {"argv": argv}});
        json_patch::merge(&mut spec, &more);
        spec
    };
    // What it says itself does not count: another task may have that card.
    let own = json!({"command": {"env": {"CUDA_VISIBLE_DEVICES": "GPU-of-nobody"}}});
    let mut ids = world.submitted(&on_card(shows(own))).await;
    ids.extend(world.submitted(&document(shows(json!({})))).await);
    world.all_done(&ids).await;
    assert_eq!(result(&world, &ids[0]).await["stdout"], format!("cuda={CARD} nvidia={CARD}\n"));
    assert_eq!(result(&world, &ids[1]).await["stdout"], "cuda=0,1 nvidia=\n", "it holds none");
    is_held_by(&world, "prime").await;
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
