//! The program itself: FPAI's API on a port of its own, `gaia droplet` with its exit codes, and a SIGTERM that costs no record.

use std::{path::Path, sync::Arc};

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    program::{Program, Server, complaint, gaia, stdout},
    services::{Says, Service},
    support::{eventually, port::own_port},
    world::{DEADLINE, listed},
};

fn started(data: &Path, registry: &str, own: u16) -> Server {
    let mut command = gaia();
    command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--data-dir"]).arg(data);
    command.args(["--droplets-listen", &format!("127.0.0.1:{own}")]).env("REGISTRY_URL", registry);
    Server::of(Program::start(command.env("GAIA_LOG_LEVEL", "warn")))
}

/// The most memory it ever had, in MiB.
fn most_memory(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.program.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_by_the_command_line_are_told_on_the_own_port_and_outlive_a_sigterm() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (registry, target) = (Service::start().await, Service::start().await);
    registry.lists(json!([listed("TGT", &target.url())]));
    target.says("/echo", [Says::Json(200, json!({"k": 1}))]);
    let (data, own) = (tempfile::tempdir().expect("a directory"), own_port());
    let server = started(data.path(), &registry.url(), own);
    assert!(server.says(&["droplet", "list"]).contains(&target.url()));
    let echoed = server.says(&["droplet", "call", "tgt", "post", "/echo", "-d", r#"{"k": 1}"#]);
    assert_eq!(serde_json::from_str::<Value>(&echoed).expect("JSON"), json!({"k": 1}));
    let unknown = server.gaia(&["droplet", "call", "nobody", "GET", "/"]);
    let told = complaint(&unknown, 1);
    assert!(told.contains("'nobody' not found in registry"), "{told}");
    target.says("/404", [Says::Json(404, json!({"no": 1}))]);
    let missing = server.gaia(&["droplet", "call", "TGT", "GET", "/404"]);
    assert!(complaint(&missing, 1).contains("404"), "an answer that is not 2xx is a 1");
    assert!(String::from_utf8_lossy(&missing.stdout).contains("\"no\": 1"), "and is shown");
    let bad = server.gaia(&["droplet", "call", "TGT", "GET", "/", "-d", "[1]"]);
    assert!(complaint(&bad, 2).contains("--data: must be a JSON object"));
    let tasks = reqwest::get(format!("http://127.0.0.1:{own}/orchestrator/tasks")).await.expect("it listens");
    assert_eq!(tasks.json::<Value>().await.expect("JSON")["total"], 2);

    let (status, _, _) = server.terminate();
    assert!(status.success());
    let server = started(data.path(), &registry.url(), own);
    let history = server.gaia(&["droplet", "history", "--status", "success"]);
    assert!(stdout(&history).contains("/echo"), "{}", stdout(&history));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_cost_little_more_memory_than_they_are() {
    const LENGTH: usize = 100_000_000;
    rustls::crypto::ring::default_provider().install_default().ok();
    let (registry, target) = (Service::start().await, Service::start().await);
    registry.lists(json!([listed("TGT", &target.url())]));
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(LENGTH)).into_bytes();
    target.says("/large", [Says::Bytes(200, "application/json", large)]);
    let (data, own) = (tempfile::tempdir().expect("a directory"), own_port());
    let server = started(data.path(), &registry.url(), own);
    assert_eq!(server.gaia(&["droplet", "call", "TGT", "GET", "/small"]).status.code(), Some(0));
    let before = most_memory(&server);
    let body = json!({"droplet_name": "TGT", "path": "/large"});
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
    let answer = client.post(format!("http://127.0.0.1:{own}/orchestrator/tasks")).json(&body).send().await;
    let answer = answer.expect("an answer");
    let length = answer.content_length().expect("it says how long it is");
    let bytes = answer.bytes().await.expect("all of it");
    assert_eq!(bytes.len() as u64, length);
    let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!((&answer["status"], &answer["response_status"]), (&json!("success"), &json!(200)));
    assert_eq!(answer["response_body"]["text"].as_str().map(str::len), Some(LENGTH));
    let more = most_memory(&server) - before;
    assert!((95..150).contains(&more), "{more} MiB for 95");
    let kept = server.http("/orchestrator/tasks?limit=1", "").1;
    assert!(kept.contains(r#""_original_size_kb":97656."#), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_a_sigterm_cuts_off_is_in_the_history() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (registry, target) = (Service::start().await, Service::start().await);
    registry.lists(json!([listed("TGT", &target.url())]));
    target.says("/hangs", [Says::Nothing(Arc::new(Notify::new()))]);
    let (data, own) = (tempfile::tempdir().expect("a directory"), own_port());
    let server = started(data.path(), &registry.url(), own);
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
    let call = client.post(format!("http://127.0.0.1:{own}/orchestrator/tasks"));
    let call = call.header("idempotency-key", "k").json(&json!({"droplet_name": "TGT", "path": "/hangs"}));
    let cut = tokio::spawn(call.try_clone().expect("it can be sent twice").send());
    let asked = async || (!target.asked("GET /hangs").is_empty()).then_some(());
    eventually("it is under way", DEADLINE, asked).await;
    let (status, _, took) = server.terminate();
    assert!(status.success() && took < DEADLINE);
    cut.await.expect("no panic").ok();
    let server = started(data.path(), &registry.url(), own);
    let list: Value = serde_json::from_str(&server.http("/orchestrator/tasks", "").1).expect("JSON");
    assert_eq!((&list["total"], &list["tasks"][0]["status"]), (&json!(1), &json!("error")), "{list}");
    let why = list["tasks"][0]["error_message"].as_str().unwrap_or_default();
    assert!(why.contains("the orchestrator stopped before the call had ended"), "{list}");
    target.says("/hangs", [Says::Json(200, json!({}))]);
    let again = call.send().await.expect("an answer");
    assert!(again.headers().get("idempotent-replayed").is_none(), "nobody knows what came of it: it is made again");
    assert_eq!(again.json::<Value>().await.expect("JSON")["status"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_durable_history_what_was_answered_outlives_a_kill() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (registry, target) = (Service::start().await, Service::start().await);
    registry.lists(json!([listed("TGT", &target.url())]));
    let data = tempfile::tempdir().expect("a directory");
    let start = || {
        let mut command = gaia();
        command.args(["serve", "--listen", "127.0.0.1:0", "--reality", "simulated", "--data-dir"]).arg(data.path());
        command.env("REGISTRY_URL", registry.url()).env("TASK_HISTORY", "durable").env("GAIA_LOG_LEVEL", "warn");
        Server::of(Program::start(&mut command))
    };
    let mut server = start();
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
    let call = |url: String, n: usize| {
        let body = json!({"droplet_name": "TGT", "path": format!("/{n}")});
        let call = client.post(format!("{url}/orchestrator/tasks")).header("idempotency-key", "k").json(&body);
        async move { call.send().await.expect("an answer").json::<Value>().await.expect("JSON") }
    };
    let mut told = Vec::new();
    for n in 0..20 {
        told.push(call(server.url.clone(), n).await);
    }
    server.program.kill();
    let server = start();
    let list: Value = serde_json::from_str(&server.http("/orchestrator/tasks", "").1).expect("JSON");
    assert_eq!(list["total"], 20);
    for (n, first) in told.iter().enumerate() {
        assert_eq!(call(server.url.clone(), n).await, *first, "the same, from the disk");
    }
    assert_eq!(target.asked("GET /").iter().filter(|asked| !asked.line.ends_with("health")).count(), 20);
}
