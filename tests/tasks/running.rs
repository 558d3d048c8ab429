//! Tasks run: dispatched, retried, failed, and explained.

use rstest::rstest;
use serde_json::json;

use super::{
    doubles::{Generation, Manners},
    world::{DEADLINE, World, document},
};
use crate::support::eventually;

#[rstest]
#[case(Generation::First)]
#[case(Generation::Later)]
#[tokio::test]
async fn a_task_is_dispatched_and_its_result_is_kept(#[case] generation: Generation) {
    let world = World::start().await;
    let _workers = world.workers(1, Manners { generation, ..Manners::default() }).await;
    let destination = json!({"type": "http", "url": format!("{}/api/v1/results", world.url())});
    let (status, answer) = world.submit(&document(json!({"output": {"destination": destination}}))).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["ok"], &answer["count"]), (&json!(true), &json!(1)));
    let told = &answer["tasks"][0];
    assert_eq!((&told["topic"], &told["waiting_on"], &told["max_retries"]), (&json!("tasks"), &json!([]), &json!(3)));
    assert_eq!(told["assigned_worker"], "w0");
    let id = told["task_id"].as_str().expect("an id");
    let done = world.status_is(id, "DONE").await;
    assert_eq!((&done["assigned_worker"], &done["error"], &done["retries"]), (&json!("w0"), &json!(null), &json!(0)));
    assert_eq!(done["parsed"]["spec"]["data"]["items"], json!(["hello", "again"]));
    let (status, result) = world.get(&format!("/api/v1/results/{id}")).await;
    assert_eq!(status, 200);
    assert_eq!((&result["worker_id"], &result["result"]["items"]), (&json!("w0"), &json!(["hello", "again"])));
    let object = world.object(&format!("tasks/{id}")).await;
    assert_eq!(object["status"]["conditions"][0]["reason"], "Succeeded");
    assert!(
        object["status"]["result"]["path"].as_str().is_some_and(|path| path.ends_with("responses.json")),
        "{object}"
    );
    assert_eq!(world.ledger.counts()[id], 1);
}

#[tokio::test]
async fn a_burst_of_instant_tasks_is_done_once_each_and_at_once() {
    let world = World::start().await;
    let late = Manners { late_idle: true, ..Manners::default() };
    let _workers = world.workers(4, late).await;
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.extend(world.submitted(&document(json!({}))).await);
    }
    world.all_done(&ids).await;
    let counts = world.ledger.counts();
    assert!(ids.iter().all(|id| counts[id] == 1), "some ran twice: {counts:?}");
}

#[tokio::test]
async fn one_worker_retries_and_gives_up_in_the_end() {
    let world = World::with(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let _workers = world.workers(1, Manners::default()).await;
    let ids = world.submitted(&document(json!({"double": {"fails": "boom"}}))).await;
    let failed = world.status_is(&ids[0], "FAILED").await;
    assert_eq!(
        (&failed["retries"], &failed["error"], &failed["last_failed_worker"]),
        (&json!(4), &json!("boom"), &json!("w0"))
    );
    assert_eq!(world.ledger.counts()[&ids[0]], 4);
    // The worker is none the worse for it.
    let ids = world.submitted(&document(json!({}))).await;
    world.all_done(&ids).await;
}

#[tokio::test]
async fn a_retry_goes_to_another_worker_and_waits_its_time() {
    let world = World::with(&[("RETRY_BASE_DELAY_SEC", "1_000"), ("RETRY_MAX_DELAY_SEC", "2000")]).await;
    let _workers = world.workers(2, Manners::default()).await;
    let ids = world.submitted(&document(json!({"double": {"fails": "boom"}}))).await;
    let waits = world.task_is(&ids[0], "it waits for its next try", |task| task["next_retry_at"].is_string()).await;
    assert_eq!((&waits["status"], &waits["error"], &waits["retries"]), (&json!("WAITING"), &json!("boom"), &json!(1)));
    assert_eq!((&waits["assigned_worker"], &waits["topic"]), (&json!(null), &json!(null)));
    let quick = World::with(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let _workers = quick.workers(2, Manners::default()).await;
    let ids = quick.submitted(&document(json!({"double": {"fails": "boom"}}))).await;
    quick.status_is(&ids[0], "FAILED").await;
    let tried = quick.ledger.workers(&ids[0]);
    assert!(tried.windows(2).all(|pair| pair[0] != pair[1]), "{tried:?}");
}

#[tokio::test]
async fn what_depends_on_a_failure_fails_and_so_on() {
    let world = World::with(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let _workers = world.workers(1, Manners::default()).await;
    let stages = json!([{"name": "a", "spec": {"double": {"fails": "boom"}}}, {"name": "b"}, {"name": "c"}]);
    let ids = world.submitted(&document(json!({"stages": stages}))).await;
    let last = world.status_is(&ids[2], "FAILED").await;
    assert_eq!(last["error"], format!("Dependency {} failed", ids[1]));
    let next = world.task(&ids[1]).await;
    assert_eq!((&next["status"], &next["error"]), (&json!("FAILED"), &json!(format!("Dependency {} failed", ids[0]))));
    assert_eq!(next["graph_node_name"], "b");
}

#[tokio::test]
async fn a_task_says_why_it_waits() {
    let world = World::start().await;
    let why = async |id: &str| world.object(&format!("tasks/{id}")).await["status"]["conditions"][0].clone();
    let none = world.submitted(&document(json!({}))).await;
    let waits = world.status_is(&none[0], "WAITING").await;
    assert_eq!(waits["error"], "No suitable IDLE worker; retrying shortly");
    assert_eq!(why(&none[0]).await["message"], "there is no worker");
    let _workers = world.workers(1, Manners { cores: 2, ..Manners::default() }).await;
    world.status_is(&none[0], "DONE").await;
    let large = json!({"resources": {"hardware": {"cpu": 64}}});
    let large = world.submitted(&document(large)).await;
    let reason = why(&large[0]).await;
    assert_eq!(
        (&reason["reason"], &reason["message"]),
        (&json!("NoWorkerFits"), &json!("none of 1 workers can do it: 1 have too few cores"))
    );
    let hangs = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    world.status_is(&hangs[0], "DISPATCHED").await;
    let behind = world.submitted(&document(json!({"dependsOn": [&hangs[0], "nobody"]}))).await;
    let message = format!("waits for {}, nobody; there is no task nobody", hangs[0]);
    eventually("it says what it waits for", DEADLINE, async || {
        let reason = why(&behind[0]).await;
        (reason["reason"] == "DependenciesPending" && reason["message"] == message).then_some(())
    })
    .await;
    assert_eq!(world.task(&behind[0]).await["status"], "PENDING");
    let busy = world.submitted(&document(json!({}))).await;
    world.status_is(&busy[0], "WAITING").await;
    assert_eq!(why(&busy[0]).await["reason"], "NoWorkerFree");
}

#[tokio::test]
async fn a_cancelled_task_does_not_run_and_a_running_one_keeps_its_worker() {
    let world = World::start().await;
    let _workers = world.workers(1, Manners::default()).await;
    let hangs = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    world.status_is(&hangs[0], "DISPATCHED").await;
    let waits = world.submitted(&document(json!({}))).await;
    let after = world.submitted(&document(json!({"dependsOn": [&hangs[0]]}))).await;
    world.status_is(&waits[0], "WAITING").await;
    world.patch(&format!("tasks/{}", hangs[0]), json!({"spec": {"cancel": true}})).await;
    world.status_is(&hangs[0], "CANCELLED").await;
    world.status_is(&after[0], "FAILED").await;
    let _other = world.worker("other", Manners::default()).await;
    world.status_is(&waits[0], "DONE").await;
    assert_eq!(world.ledger.workers(&waits[0]), ["other"]);
}

#[tokio::test]
async fn the_command_line_submits_follows_and_shows() {
    let world = World::with(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let _workers = world.workers(1, Manners::default()).await;
    let gaia = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gaia"));
        command.env_clear().arg("task").args(args).args(["--server", world.main_url()]);
        let output = tokio::time::timeout(DEADLINE, command.output()).await.expect("in time").expect("the binary runs");
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("text"),
            String::from_utf8(output.stderr).expect("text"),
        )
    };
    let file = world.directory().join("task.yaml");
    let stages = json!({"stages": [{"name": "a"}, {"name": "b"}]});
    std::fs::write(&file, document(stages)).expect("written");
    let file = file.to_str().expect("a path");
    let (code, out, error) = gaia(&["submit", file, "--wait"]).await;
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}{error}");
    assert!(out.lines().all(|line| line.contains("Done")) && out.contains("echo-demo:b"), "{out}");
    let id = out.split_whitespace().next().expect("an id");
    let (code, out, _) = gaia(&["show", id]).await;
    assert!(code == Some(0) && out.contains("Succeeded: it is done"), "{out}");
    std::fs::write(file, document(json!({"double": {"fails": "boom"}}))).expect("written");
    let (code, out, _) = gaia(&["submit", file, "--wait"]).await;
    assert!(code == Some(1) && out.contains("boom"), "{out}");
    std::fs::write(file, "kind: x").expect("written");
    let (code, _, error) = gaia(&["submit", file]).await;
    assert!(code == Some(1) && error.contains("Missing required field: apiVersion"), "{error}");
    let (code, out, _) = gaia(&["list", "--status", "failed"]).await;
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{out}");
}
