//! The program itself: FPAI's API on a port of its own, `gaia droplet` with its exit codes, and a SIGTERM that costs no record.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    program::{Program, Server, complaint, gaia, stdout},
    services::{Says, Service},
    world::listed,
};

fn started(data: &Path, registry: &str, own: u16) -> Server {
    let mut command = gaia();
    command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--data-dir"]).arg(data);
    command.args(["--droplets-listen", &format!("127.0.0.1:{own}")]).env("REGISTRY_URL", registry);
    Server::of(Program::start(command.env("GAIA_LOG_LEVEL", "warn")))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it listens").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_by_the_command_line_are_told_on_the_own_port_and_outlive_a_sigterm() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (registry, target) = (Service::start().await, Service::start().await);
    registry.lists(json!([listed("TGT", &target.url())]));
    target.says("/echo", [Says::Json(200, json!({"k": 1}))]);
    let (data, own) = (tempfile::tempdir().expect("a directory"), free_port());
    let server = started(data.path(), &registry.url(), own);
    assert!(server.says(&["droplet", "list"]).contains(&target.url()));
    let echoed = server.says(&["droplet", "call", "tgt", "post", "/echo", "-d", r#"{"k": 1}"#]);
    assert_eq!(serde_json::from_str::<Value>(&echoed).expect("JSON"), json!({"k": 1}));
    let unknown = server.gaia(&["droplet", "call", "nobody", "GET", "/"]);
    let told = complaint(&unknown, 1);
    assert!(told.contains("'nobody' not found in registry"), "{told}");
    let bad = server.gaia(&["droplet", "call", "TGT", "GET", "/", "-d", "[1]"]);
    assert!(complaint(&bad, 2).contains("--data: must be a JSON object"));
    let tasks = reqwest::get(format!("http://127.0.0.1:{own}/orchestrator/tasks")).await.expect("it listens");
    assert_eq!(tasks.json::<Value>().await.expect("JSON")["total"], 1);

    let (status, _, _) = server.terminate();
    assert!(status.success());
    let server = started(data.path(), &registry.url(), own);
    let history = server.gaia(&["droplet", "history", "--status", "success"]);
    assert!(stdout(&history).contains("/echo"), "{}", stdout(&history));
}
