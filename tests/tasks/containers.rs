//! `gaia worker --executors container` on a real Docker engine.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    command::{log, result},
    workers::{Program, task_of},
    world::{DEADLINE, World, document},
};
use crate::support::{
    dockerd::{self, PrivateDockerd},
    eventually, fixture,
    registry::Registry,
};

/// A world with a worker that has the engine of these tests, and the image that they use.
async fn with_engine(args: &[&str]) -> (World, Program, String) {
    let (host, image) = tokio::task::spawn_blocking(|| {
        let host = dockerd::docker_host();
        (host, fixture::image(host))
    })
    .await
    .expect("an engine and an image");
    let world = World::without_redis(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let mut worker = Program::new("w0");
    worker.variables.push(("DOCKER_HOST", host.to_owned()));
    worker.begin(&world.url(), &[&RUNS[..], args].concat());
    worker.is_known(&world).await;
    (world, worker, image)
}

/// Engines of tests have no usual network.
const RUNS: [&str; 4] = ["--executors", "container,echo", "--container-network", "none"];

fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(["-H", dockerd::docker_host()]).args(args).output().expect("docker runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text").trim().to_owned()
}

/// The containers of a task, in whatever state.
fn containers(task: &str) -> Vec<String> {
    let filter = format!("label=gaia.dev/task={task}");
    docker(&["ps", "-aq", "--filter", &filter]).lines().map(str::to_owned).collect()
}

async fn runs(task: &str) {
    let filter = format!("label=gaia.dev/task={task}");
    eventually("its container runs", DEADLINE, async || {
        (!docker(&["ps", "-q", "--filter", &filter, "--filter", "status=running"]).is_empty()).then_some(())
    })
    .await;
}

async fn is_gone(task: &str) {
    eventually("its container is gone", DEADLINE, async || containers(task).is_empty().then_some(())).await;
}

fn peer(image: &str, args: &str) -> Value {
    let args: Vec<&str> = args.split_whitespace().collect();
    json!({"container": {"image": image, "imagePullPolicy": "Never", "args": args}})
}

#[tokio::test]
async fn a_container_prints_leaves_files_and_is_gone() {
    let (world, _worker, image) = with_engine(&[]).await;
    let script = "all env , complain oops , write /gaia/artifacts/final_model.zip the model , write /gaia/work/out more \
        , write /gaia/result.json {\"loss\":0.5} , echo the end";
    let mut first = peer(&image, script);
    first["container"]["env"] = json!({"MINE": "mine"});
    // Not the user that the worker is.
    first["container"]["user"] = json!("12345:12345");
    first["container"]["workingDir"] = json!("/gaia/work");
    first["output"] = json!({"artifacts": ["out"]});
    let second = peer(&image, "echo ${train.result.value.loss} ${train.result.final_model_archive}");
    let stages = json!([{"name": "train", "spec": first}, {"name": "next", "spec": second}]);
    let ids = world.submitted(&document(json!({"taskType": "container", "stages": stages}))).await;
    world.all_done(&ids).await;
    let told = result(&world, &ids[0]).await;
    let printed = told["stdout"].as_str().expect("a text");
    for line in ["MINE=mine", "GAIA_ARTIFACTS=/gaia/artifacts", &format!("GAIA_TASK_ID={}", ids[0]), "the end"] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    assert_eq!(
        (&told["stderr"], &told["exit_code"], &told["value"]),
        (&json!("oops\n"), &json!(0), &json!({"loss": 0.5}))
    );
    for (name, text) in [("final_model.zip", "the model"), ("out", "more")] {
        let path = format!("/api/v1/results/{}/files/{name}", ids[0]);
        let answer = world.request(Method::GET, &path).send().await.expect("an answer");
        assert_eq!(answer.text().await.expect("a text"), text);
    }
    assert_eq!(result(&world, &ids[1]).await["stdout"], "0.5 final_model.zip\n");
    let lines = log(&world, &ids[0]).await;
    assert!(lines.iter().any(|line| line == "stderr oops"), "{lines:?}");
    assert_eq!(ids.iter().flat_map(|id| containers(id)).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test]
async fn what_fails_says_why_and_leaves_no_container() {
    let (world, _worker, image) = with_engine(&[]).await;
    let mut limited = peer(&image, "all echo begun , sleep");
    limited["container"]["timeoutSeconds"] = json!(1);
    let mut broken = peer(&image, "");
    broken["container"]["command"] = json!(["/no-such-program"]);
    let mut gpus = peer(&image, "exit 0");
    gpus["container"]["gpus"] = json!({"count": 1, "deviceIds": ["0"]});
    let cases = [
        (peer(&image, "all echo one , complain two , exit 3"), "exit code 3; it said last: two"),
        (limited, "spec.container.timeoutSeconds: it was stopped after 1 seconds; it said last: begun"),
        (peer("gaia-test-nowhere:v1", "exit 0"), "spec.container: create gaia-task-"),
        (broken, "spec.container: start "),
        (gpus, "spec.container.gpus: must have one of count and deviceIds"),
        (json!({"container": {"image": image, "privileged": true}}), "spec.container.privileged: unknown field"),
    ];
    let mut submitted = Vec::new();
    for (spec, told) in cases {
        submitted.push((world.submitted(&task_of("container", spec)).await.remove(0), told));
    }
    for (id, told) in submitted {
        let task = world.status_is(&id, "FAILED").await;
        assert!(task["error"].as_str().is_some_and(|error| error.starts_with(told)), "{}: {told}", task["error"]);
        is_gone(&id).await;
    }
}

#[tokio::test]
async fn an_image_is_pulled_and_its_progress_told() {
    let (world, _worker, image) = with_engine(&[]).await;
    let registry = tokio::task::spawn_blocking(Registry::start).await.expect("a registry");
    let name = format!("{}/task:v1", registry.address);
    docker(&["tag", &image, &name]);
    docker(&["push", "-q", &name]);
    docker(&["rmi", &name]);
    let pulled = json!({"container": {"image": name, "args": ["echo", "here"]}});
    let ids = world.submitted(&task_of("container", pulled)).await;
    world.all_done(&ids).await;
    docker(&["rmi", &name]);
    let lines = log(&world, &ids[0]).await;
    assert_eq!(lines[0], format!("worker pulling {name}"));
    for told in ["worker pulling: ", &format!("worker {name} is pulled"), "stdout here"] {
        assert!(lines.iter().any(|line| line.starts_with(told)), "{told}: {lines:?}");
    }

    let nowhere = json!({"container": {"image": format!("{}/nowhere:v1", registry.address)}});
    let ids = world.submitted(&task_of("container", nowhere)).await;
    let task = world.status_is(&ids[0], "FAILED").await;
    assert!(task["error"].as_str().is_some_and(|error| error.starts_with("spec.container.image: pull ")), "{task}");
}

#[tokio::test]
async fn a_cancel_stops_and_removes_the_container() {
    let (world, _worker, image) = with_engine(&[]).await;
    let ids = world.submitted(&task_of("container", peer(&image, "sleep --ignore-term"))).await;
    runs(&ids[0]).await;
    world.patch(&format!("tasks/{}", ids[0]), json!({"spec": {"cancel": true}})).await;
    world.status_is(&ids[0], "CANCELLED").await;
    is_gone(&ids[0]).await;
    let next = world.submitted(&task_of("echo", json!({}))).await;
    world.all_done(&next).await;
}

#[tokio::test]
async fn the_end_of_a_worker_is_the_end_of_its_container() {
    let (world, mut worker, image) = with_engine(&["--grace", "0"]).await;
    let ids = world.submitted(&task_of("container", peer(&image, "sleep --ignore-term"))).await;
    runs(&ids[0]).await;
    worker.terminate();
    assert_eq!(worker.ends().await, Some(0));
    assert_eq!(containers(&ids[0]), Vec::<String>::new());
    let task = world.task_is(&ids[0], "it waits for another", |task| task["status"] == "WAITING").await;
    assert_eq!(task["last_failed_worker"], json!("w0"));
}

#[tokio::test]
async fn what_a_killed_worker_left_is_removed_by_the_next_and_nothing_else() {
    let (world, mut worker, image) = with_engine(&[]).await;
    let ids = world.submitted(&task_of("container", peer(&image, "sleep"))).await;
    runs(&ids[0]).await;
    worker.kill();
    assert_eq!(containers(&ids[0]).len(), 1);
    world.patch(&format!("tasks/{}", ids[0]), json!({"spec": {"cancel": true}})).await;
    // Of a worker with another directory it is no business.
    let mut other = Program::new("w1");
    other.variables.push(("DOCKER_HOST", dockerd::docker_host().to_owned()));
    other.begin(&world.url(), &RUNS);
    other.is_known(&world).await;
    let theirs = world.submitted(&task_of("container", peer(&image, "exit 0"))).await;
    world.all_done(&theirs).await;
    assert_eq!(containers(&ids[0]).len(), 1);
    other.terminate();
    assert_eq!(other.ends().await, Some(0));
    worker.begin(&world.url(), &RUNS);
    is_gone(&ids[0]).await;
    worker.is_known(&world).await;
}

/// After a crash an engine may tell of a container that went down with it that it exited with 0.
#[tokio::test]
async fn a_crash_of_the_engine_is_no_success() {
    let (mut engine, image) = tokio::task::spawn_blocking(|| {
        let engine = PrivateDockerd::start(false).expect("these tests need a dockerd of their own, started by root");
        let image = fixture::image(&engine.host);
        (engine, image)
    })
    .await
    .expect("an engine and an image");
    let world = World::without_redis(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let mut worker = Program::new("w0");
    worker.variables.push(("DOCKER_HOST", engine.host.clone()));
    worker.begin(&world.url(), &RUNS);
    worker.is_known(&world).await;
    let ids = world.submitted(&task_of("container", peer(&image, "all echo begun , sleep --exit-after 20"))).await;
    eventually("it has printed", DEADLINE, async || {
        let (_, list) = world.get(&format!("/api/v1/tasks/{}/logs", ids[0])).await;
        (!list["logs"].as_array()?.is_empty() && log(&world, &ids[0]).await.contains(&"stdout begun".to_owned()))
            .then_some(())
    })
    .await;
    let engine = tokio::task::spawn_blocking(move || {
        engine.stop("KILL");
        engine.start_again();
        engine
    })
    .await
    .expect("it is back");
    world.all_done(&ids).await;
    assert_eq!(world.task(&ids[0]).await["retries"], 1);
    assert_eq!(result(&world, &ids[0]).await["stdout"], "begun\n");
    let left = Command::new("docker").args(["-H", &engine.host, "ps", "-aq"]).output().expect("docker runs");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    drop(worker);
    tokio::task::spawn_blocking(move || drop(engine)).await.expect("it ends");
}
