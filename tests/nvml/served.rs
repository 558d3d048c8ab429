//! The binary on the fake driver. No Docker engine is needed: cards are seen without one.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::{
    fake::{Driver, card, cards, computing},
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
    command.env("DOCKER_HOST", format!("unix://{}/no-docker.sock", driver.dir.path().display()));
    Server::of(Program::start(&mut command))
}

fn gpu(server: &Server, name: &str) -> Option<Value> {
    let (code, body) = server.http(&format!("/apis/gaia.dev/v1alpha1/gpus/{name}"), "");
    (code == 200).then(|| serde_json::from_str(&body).expect("JSON"))
}

fn ready(gpu: &Value) -> String {
    let conditions = gpu["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("status"), text("reason"))
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
