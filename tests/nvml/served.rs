//! The binary on the fake driver. No Docker engine is needed: cards are seen without one, or beside one that has no containers.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::{
    fake::{Driver, card, cards, computing},
    orphan::{CONTAINER, Orphan, engine_without_containers},
    program::{Program, Server, gaia},
    support::eventually,
};

const DEADLINE: Duration = Duration::from_secs(90);

fn serve(driver: &Driver) -> Server {
    let desired = driver.dir.path().join("desired");
    fs::create_dir_all(&desired).expect("a temporary directory");
    let mut command = gaia();
    command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "docker"]).env("GAIA_LOG_LEVEL", "info");
    command.arg("--data-dir").arg(driver.dir.path().join("data")).arg("--desired").arg(desired);
    command.arg("--nvml-library").arg(driver.library());
    command.env("DOCKER_HOST", format!("unix://{}", socket(driver).display()));
    Server::of(Program::start(&mut command))
}

/// Where an engine would answer.
fn socket(driver: &Driver) -> PathBuf {
    driver.dir.path().join("docker.sock")
}

fn gpu(server: &Server, name: &str) -> Option<Value> {
    let (code, body) = server.http(&format!("/apis/gaia.dev/v1alpha1/gpus/{name}"), "");
    (code == 200).then(|| serde_json::from_str(&body).expect("JSON"))
}

fn ready(gpu: &Value) -> String {
    condition(gpu, "Ready")
}

/// `False Xid`
fn condition(gpu: &Value, type_: &str) -> String {
    let conditions = gpu["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("status"), text("reason"))
}

/// Waits for an event of this reason about the card; what it says.
async fn told(server: &Server, name: &str, reason: &str) -> String {
    eventually(&format!("{reason} is told of {name}"), DEADLINE, async || {
        let list: Value = serde_json::from_str(&server.http("/apis/events.k8s.io/v1/events", "").1).expect("JSON");
        let events = list["items"].as_array().cloned().unwrap_or_default();
        let about = |event: &&Value| event["regarding"]["name"] == name && event["reason"] == reason;
        events.iter().find(about).map(|event| event["note"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

async fn until(server: &Server, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("{name} {what}"), DEADLINE, async || gpu(server, name).filter(|gpu| wanted(gpu))).await
}

#[tokio::test]
async fn cards_are_discovered_read_lost_and_hang() {
    let mut first = card(0);
    first.processes = vec![computing(4_000_001, 6_000)];
    let mut state = cards(vec![first, card(1)]);
    let driver = Driver::showing(&state);
    // The second card is declared under a name of its own.
    let desired = driver.dir.path().join("desired");
    fs::create_dir_all(&desired).expect("a temporary directory");
    let declared = "apiVersion: gaia.dev/v1alpha1\nkind: Gpu\nmetadata: {name: spare}\nspec:\n  device: {index: 1}\n";
    fs::write(desired.join("gpu.yaml"), declared).expect("written");
    let server = serve(&driver);

    let found = until(&server, "gpu0", "is read", |gpu| ready(gpu) == "True Free").await;
    assert_eq!(found["spec"]["device"]["uuid"], "GPU-0");
    assert_eq!(found["spec"]["lend"], true, "with the defaults of the kind");
    assert_eq!(found["metadata"]["labels"]["gaia.dev/discovered"], "true");
    assert_eq!(found["status"]["memory"]["usedMib"], 6_100);
    assert_eq!(found["status"]["processes"][0]["pid"], 4_000_001);
    let declared = until(&server, "spare", "is read", |gpu| gpu["status"]["uuid"] == "GPU-1").await;
    assert_eq!(declared["metadata"]["labels"]["gaia.dev/discovered"], Value::Null);
    assert!(gpu(&server, "gpu1").is_none(), "a declared card is not declared again");
    assert!(server.says(&["get", "gpus"]).contains("6100"), "{}", server.says(&["get", "gpus"]));

    state.devices[0].lost = true;
    driver.show(&state);
    let lost = until(&server, "gpu0", "is lost", |gpu| ready(gpu) == "False DeviceNotFound").await;
    assert_eq!(lost["status"]["memory"], Value::Null, "what is not known is not told");

    state.devices[0].lost = false;
    state.hangs = ["nvmlDeviceGetMemoryInfo_v2".to_owned()].into();
    driver.show(&state);
    until(&server, "spare", "is not known", |gpu| ready(gpu) == "Unknown DriverUnavailable").await;
    assert_eq!(server.http("/healthz", "").0, 200, "the API does not wait for the driver");

    state.hangs.clear();
    driver.show(&state);
    until(&server, "gpu0", "is back", |gpu| ready(gpu) == "True Free").await;
}

#[tokio::test]
async fn faults_and_lost_cards_are_told_and_mark_the_card() {
    let mut state = cards(vec![card(0), card(1)]);
    let driver = Driver::showing(&state);
    let server = serve(&driver);
    until(&server, "gpu0", "is sound", |gpu| condition(gpu, "Healthy") == "True NoFault").await;

    // A program's fault is told, and the card goes on.
    state.devices[1].xid = 31;
    driver.show(&state);
    let program = until(&server, "gpu1", "has had an Xid", |gpu| gpu["status"]["lastXid"]["code"] == 31).await;
    assert_eq!(condition(&program, "Healthy"), "True NoFault");

    state.devices[0].xid = 48;
    driver.show(&state);
    let faulty = until(&server, "gpu0", "is faulty", |gpu| condition(gpu, "Healthy") == "False Xid").await;
    assert_eq!(faulty["status"]["lastXid"]["code"], 48);
    assert_eq!(ready(&faulty), "True Free", "what the driver shows of it is shown");
    assert!(told(&server, "gpu0", "Xid").await.contains("Xid 48"));
    let text = server.says(&["gpu", "status"]);
    assert!(text.contains("Free, Xid") && text.contains(" ago"), "with the age of the reading: {text}");

    state.devices[0].lost = true;
    driver.show(&state);
    let lost = until(&server, "gpu0", "is lost", |gpu| condition(gpu, "Healthy") == "False DeviceLost").await;
    assert_eq!(ready(&lost), "False DeviceNotFound");
    told(&server, "gpu0", "DeviceLost").await;
}

#[tokio::test]
async fn a_process_that_outlived_its_container_is_an_orphan() {
    let Some(orphan) = Orphan::new() else {
        eprintln!("nothing was tested: no cgroup can be made here");
        return;
    };
    let mut first = card(0);
    first.processes = vec![computing(orphan.pid(), 6_000)];
    let mut state = cards(vec![first]);
    let driver = Driver::showing(&state);
    engine_without_containers(&socket(&driver));
    let server = serve(&driver);
    let gpu = until(&server, "gpu0", "has an orphan", |gpu| condition(gpu, "Orphaned") == "True OrphanProcesses").await;
    let process = &gpu["status"]["processes"][0];
    assert_eq!((&process["orphan"], &process["name"]), (&true.into(), &"sleep".into()));
    assert_eq!(process["container"], CONTAINER[..12]);
    let note = told(&server, "gpu0", "OrphanProcesses").await;
    assert!(note.contains(&format!("sleep (pid {}) keeps 6000 MiB", orphan.pid())), "{note}");
    assert!(server.says(&["gpu", "who"]).contains("<orphan>"));

    state.devices[0].processes.clear();
    driver.show(&state);
    until(&server, "gpu0", "has none", |gpu| condition(gpu, "Orphaned") == " ").await;
}

#[tokio::test]
async fn a_card_that_is_declared_later_stays_one_object_and_keeps_who_holds_it() {
    let driver = Driver::showing(&cards(vec![card(0), card(1)]));
    let server = serve(&driver);
    until(&server, "gpu0", "is discovered", |gpu| ready(gpu) == "True Free").await;
    until(&server, "gpu1", "is discovered", |gpu| ready(gpu) == "True Free").await;
    let claim = |gpu: &str| {
        let holder = "holder: {kind: External, name: bench}";
        server.apply(&format!(
            "apiVersion: gaia.dev/v1alpha1\nkind: GpuClaim\nmetadata: {{name: of-{gpu}}}\nspec: {{gpu: {gpu}, {holder}}}\n"
        ));
    };
    claim("gpu0");
    claim("gpu1");
    let held = until(&server, "gpu0", "is held", |gpu| ready(gpu) == "True Held").await;
    until(&server, "gpu1", "is held", |gpu| ready(gpu) == "True Held").await;

    // One under its very name, by index; the other under a name of its own.
    let declared = "apiVersion: gaia.dev/v1alpha1\nkind: Gpu\nmetadata: {name: gpu0}\nspec: {device: {index: 0}, lend: false}\n\
                    ---\napiVersion: gaia.dev/v1alpha1\nkind: Gpu\nmetadata: {name: spare}\nspec: {device: {uuid: GPU-1}}\n";
    fs::write(driver.dir.path().join("desired").join("gpus.yaml"), declared).expect("written");
    let declared = |gpu: &Value| gpu["metadata"]["labels"]["gaia.dev/discovered"].is_null();
    let mine = until(&server, "gpu0", "is declared", declared).await;
    assert_eq!(mine["spec"]["device"], serde_json::json!({"index": 0}), "as the file says, and no more");
    assert_eq!((&mine["spec"]["lend"], &mine["metadata"]["uid"]), (&false.into(), &held["metadata"]["uid"]));
    assert_eq!(mine["status"]["leaseId"], held["status"]["leaseId"], "nothing is lost");

    let second = until(&server, "spare", "waits", |gpu| ready(gpu) == "False SameDevice").await;
    assert!(second["status"]["holder"].is_null(), "nobody shares a card unknowingly");
    server.says(&["gpu", "release", "of-gpu1"]);
    until(&server, "spare", "stands for the card", |gpu| ready(gpu) == "True Free").await;
    let gone = async || gpu(&server, "gpu1").is_none().then_some(());
    eventually("gpu1 goes", DEADLINE, gone).await;
    assert!(gpu(&server, "gpu0-gpu0").is_none() && gpu(&server, "gpu1-gpu1").is_none(), "none is discovered anew");
}

#[tokio::test]
async fn what_does_not_fit_onto_a_card_is_refused_and_says_beside_whom() {
    let mut first = card(0);
    first.processes = vec![computing(4_000_001, 20_000)];
    let driver = Driver::showing(&cards(vec![first]));
    engine_without_containers(&socket(&driver));
    let server = serve(&driver);
    until(&server, "gpu0", "is read", |gpu| ready(gpu) == "True Free").await;
    server.apply(
        "apiVersion: gaia.dev/v1alpha1
kind: Workload
metadata: {name: llm}
spec:
  live: {container: {image: 'llm:1', gpus: {count: 1}}}
  gpu: {members: [gpu0], memory: 12Gi}
",
    );
    let why = told(&server, "gpu0-1", "InsufficientMemory").await;
    assert!(why.contains("12288 MiB do not fit on gpu0") && why.contains("(pid 4000001) 20000 MiB"), "{why}");
    let list: Value = serde_json::from_str(&server.says(&["get", "handoffs", "-o", "json"])).expect("JSON");
    let refused =
        list["items"].as_array().into_iter().flatten().find(|handoff| handoff["metadata"]["name"] == "gpu0-1");
    let refused = refused.expect("it stays for the record");
    assert_eq!((&refused["status"]["phase"], &refused["status"]["steps"]), (&"Failed".into(), &Value::Null));
    assert!(gpu(&server, "gpu0").expect("it is there")["status"]["holder"].is_null());
}
