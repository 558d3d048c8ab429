//! What is over is kept for a while, can be tried again, and then goes with its files; and kubectl sees and does all of it.

use serde_json::{Value, json};

use super::{
    doubles::Manners,
    world::{DEADLINE, World, answer, document},
};
use crate::support::eventually;

fn delivered(world: &World, more: Value) -> String {
    let mut spec =
        json!({"output": {"destination": {"type": "http", "url": format!("{}/api/v1/results", world.url())}}});
    json_patch::merge(&mut spec, &more);
    document(spec)
}

fn has_files(world: &World, id: &str) -> bool {
    world.directory().join("results").join(id).exists()
}

async fn is_gone(world: &World, id: &str) {
    eventually("the task is gone", DEADLINE, async || {
        (world.get(&format!("/api/v1/tasks/{id}")).await.0 == 404).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_over_goes_in_its_time_and_its_files_with_it() {
    let mut world = World::start().await;
    let _workers = world.workers(2, Manners::default()).await;
    let ttl = json!({"ttlSecondsAfterFinished": 0});
    let (status, refused) = world.submit(&document(json!({"ttlSecondsAfterFinished": "soon"}))).await;
    assert_eq!(status, 400);
    assert_eq!(refused["detail"], r#"spec.ttlSecondsAfterFinished must be a whole number of seconds, not "soon""#);
    let stays = world.submitted(&delivered(&world, json!({}))).await;
    world.all_done(&stays).await;
    let goes = world.submitted(&delivered(&world, ttl.clone())).await;
    is_gone(&world, &goes[0]).await;
    assert!(has_files(&world, &stays[0]) && !has_files(&world, &goes[0]));
    assert_eq!(world.get(&format!("/api/v1/results/{}", goes[0])).await.0, 404);
    // A stage stays while one behind it has not ended.
    let mut hangs = ttl.clone();
    hangs["stages"] = json!([{"name": "a"}, {"name": "b", "spec": {"double": {"hangs": true}}}]);
    let stages = world.submitted(&delivered(&world, hangs)).await;
    world.status_is(&stages[1], "DISPATCHED").await;
    // So it is one that was over when the process was killed.
    world.kill();
    world.begin();
    world.status_is(&stages[0], "DONE").await;
    let path = format!("/api/v1/tasks/{}/cancel?scope=submission", stages[0]);
    let (status, cancelled) = answer(world.request(reqwest::Method::POST, &path)).await;
    assert_eq!((status.as_u16(), cancelled), (200, json!({"ok": true, "cancelled": [stages[1]]})));
    is_gone(&world, &stages[0]).await;
    is_gone(&world, &stages[1]).await;
    assert!(!has_files(&world, &stages[0]));
}

#[tokio::test]
async fn beyond_the_numbers_those_go_that_ended_first() {
    let world =
        World::with(&[("GAIA_TASKS_RETENTION_COUNT", "3"), ("TASK_DLQ_LIMIT", "1"), ("RETRY_BASE_DELAY_SEC", "0")])
            .await;
    let _workers = world.workers(1, Manners::default()).await;
    let fails = json!({"double": {"fails": "boom"}});
    let dead = [world.submitted(&document(fails.clone())).await, world.submitted(&document(fails)).await].concat();
    for id in &dead {
        // One that is gone has ended, too.
        eventually("it has failed", DEADLINE, async || {
            let (status, task) = world.get(&format!("/api/v1/tasks/{id}")).await;
            (status == 404 || task["status"] == "FAILED").then_some(())
        })
        .await;
    }
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.extend(world.submitted(&delivered(&world, json!({}))).await);
    }
    eventually("three are left, and a dead letter", DEADLINE, async || {
        let (_, tasks) = world.get("/api/v1/tasks").await;
        let count = |status: &str| tasks.as_array().map(|all| all.iter().filter(|t| t["status"] == status).count());
        (count("DONE") == Some(3) && count("FAILED") == Some(1) && tasks.as_array()?.len() == 4).then_some(())
    })
    .await;
    assert_eq!(ids.iter().filter(|id| has_files(&world, id)).count(), 3, "files went with their tasks");
    let (_, letters) = world.get("/api/v1/dead_letters").await;
    assert_eq!(letters.as_array().map(Vec::len), Some(1), "{letters}");
    assert_eq!(
        (&letters[0]["task_id"], &letters[0]["error"], &letters[0]["attempts"]),
        (&json!(dead[1]), &json!("boom"), &json!(4))
    );
}

#[tokio::test]
async fn a_dead_letter_is_tried_again_and_what_failed_with_it_follows() {
    let world = World::with(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let _workers = world.workers(1, Manners::default()).await;
    let stages =
        json!({"stages": [{"name": "a", "spec": {"double": {"fails_times": 4}}}, {"name": "b"}, {"name": "c"}]});
    let ids = world.submitted(&document(stages)).await;
    world.status_is(&ids[2], "FAILED").await;
    assert_eq!(world.ledger.counts()[&ids[0]], 4);
    let gaia = async |args: &[&str]| gaia(&world, args).await;
    let (code, out, error) = gaia(&["task", "retry", &ids[0]]).await;
    assert_eq!((code, out.trim()), (Some(0), format!("task.gaia.dev/{} retried", ids[0]).as_str()), "{error}");
    world.all_done(&ids).await;
    assert_eq!(world.task(&ids[0]).await["retries"], 0);
    let (code, _, error) = gaia(&["task", "retry", &ids[0]]).await;
    assert!(code == Some(1) && error.contains("only a task that has failed can be tried again"), "{error}");
    // What is counted, in both shapes.
    let (_, told) = world.get("/metrics").await;
    assert_eq!(
        (&told["counters"]["tasks_submitted"], &told["counters"]["tasks_succeeded"], &told["active_workers_count"]),
        (&json!(3), &json!(3), &json!(1)),
        "{told}"
    );
    assert_eq!(told["counters"]["tasks_requeued"], 3);
    assert_eq!(told["task_timings"]["other"]["count"], 3);
    let (_, text) = answer(world.request(reqwest::Method::GET, "/metrics").header("accept", "text/plain")).await;
    let line = |line: &str| text.as_str().is_some_and(|text| text.lines().any(|one| one == line));
    assert!(line("gaia_tasks_succeeded_total 3") && line("gaia_workers{state=\"idle\"} 1"), "{text}");
    let main = reqwest::get(format!("{}/metrics", world.main_url())).await.expect("an answer");
    let main = main.text().await.expect("a text");
    assert!(main.contains("gaia_tasks{phase=\"DONE\"} 3"), "{main}");
    let (_, out, _) = gaia(&["task", "workers"]).await;
    assert!(out.lines().count() == 2 && out.contains("w0") && out.contains("8 cores, 64Gi, 2 NVIDIA H200"), "{out}");
}

/// The whole of a file that does not fit into what the client reads at once.
#[tokio::test]
async fn a_file_is_downloaded_as_it_comes() {
    let world = World::start().await;
    let directory = world.directory().join("results").join("t1");
    std::fs::create_dir_all(&directory).expect("made");
    let bytes: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251) as u8).collect();
    std::fs::write(directory.join("a model.bin"), &bytes).expect("written");
    let file = world.directory().join("got.bin");
    let file = file.to_str().expect("a path");
    let (code, out, error) = gaia(&world, &["task", "download", "t1", "a model.bin", "-f", file]).await;
    assert_eq!((code, out), (Some(0), format!("{} bytes in {file}\n", bytes.len())), "{error}");
    assert!(std::fs::read(file).expect("it is there") == bytes, "it is the same");
    let (code, _, error) = gaia(&world, &["task", "download", "t1", "nothing", "-f", "/nowhere/x"]).await;
    assert!(code == Some(1) && error.contains("cannot write /nowhere/x"), "{error}");
    let (code, _, error) = gaia(&world, &["task", "download", "t1", "nothing", "-f", file]).await;
    assert!(code == Some(1) && error.contains("artifact not found"), "{error}");
    assert_eq!(std::fs::read(file).expect("it is there").len(), bytes.len(), "what was there stays");
}

/// A worker may be at a task that somebody deletes, and tell of it for a while.
#[tokio::test]
async fn what_a_deleted_task_still_prints_leaves_nothing_behind() {
    let world = World::without_redis(&[]).await;
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("{}/ws/worker", world.url().replace("http", "ws")))
        .await
        .expect("connected");
    let mut say = async |message: Value| {
        let text = tokio_tungstenite::tungstenite::Message::text(message.to_string());
        futures::SinkExt::send(&mut socket, text).await.expect("sent");
    };
    let hardware = json!({"cpu": {"logical_cores": 2}, "memory": {"total_bytes": 1u64 << 33}});
    say(json!({"type": "REGISTER", "worker_id": "w0", "ts": "2026-11-30T10:00:00+00:00",
        "payload": {"env": {}, "hardware": hardware, "started_at": "2026-11-30T10:00:00+00:00", "pid": 1}}))
    .await;
    say(json!({"type": "STATUS", "worker_id": "w0", "status": "IDLE", "payload": {}})).await;
    world.knows(1).await;
    let ids = world.submitted(&document(json!({}))).await;
    world.status_is(&ids[0], "DISPATCHED").await;
    let prints = |text: &str| {
        json!({"type": "TASK_LOG", "worker_id": "w0", "task_id": ids[0], "attempt": "1",
            "payload": {"lines": [{"ts": "", "stream": "stdout", "text": text}]}})
    };
    say(prints("one")).await;
    eventually("it is kept", DEADLINE, async || has_files(&world, &ids[0]).then_some(())).await;
    let (code, _, error) = gaia(&world, &["delete", "task", &ids[0]]).await;
    assert_eq!(code, Some(0), "{error}");
    is_gone(&world, &ids[0]).await;
    say(prints("two")).await;
    // Messages of a connection are taken in their order: this one is answered behind that.
    say(json!({"type": "STATUS", "worker_id": "w0", "status": "DRAINING", "payload": {}})).await;
    eventually("the last was heard", DEADLINE, async || {
        (world.get("/workers/w0").await.1["status"] == "DRAINING").then_some(())
    })
    .await;
    assert!(!has_files(&world, &ids[0]), "its directory is made anew");
}

/// Where MLOC's variables are, its log file is too; it is put aside when it is full.
#[tokio::test]
async fn the_log_is_a_file_as_well() {
    let world = World::with(&[("LOG_MAX_BYTES", "2_000"), ("LOG_BACKUP_COUNT", "2")]).await;
    let _workers = world.workers(1, Manners::default()).await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.extend(world.submitted(&document(json!({}))).await);
    }
    world.all_done(&ids).await;
    let file = |name: &str| world.directory().join(name);
    let kept: Vec<String> = ["orchestrator.log", "orchestrator.log.1", "orchestrator.log.2"]
        .iter()
        .map(|name| std::fs::read_to_string(file(name)).expect("it is there"))
        .collect();
    assert!(kept.iter().all(|text| text.len() <= 2_000 && text.ends_with('\n')), "{kept:?}");
    assert!(kept.iter().flat_map(|text| text.lines()).all(|line| line.split(" | ").count() >= 3), "{kept:?}");
    assert!(kept.concat().contains(" | INFO | task changed "), "{kept:?}");
    assert!(!file("orchestrator.log.3").exists());
}

async fn run(mut command: tokio::process::Command) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(DEADLINE, command.output()).await.expect("in time").expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn gaia(world: &World, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_gaia"));
    command.env_clear().args(args).args(["--server", world.main_url()]);
    run(command).await
}

/// The kubectl that the machine has.
async fn kubectl(world: &World, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new("kubectl");
    let home = world.directory().join("kube");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &home);
    command.args(["--server", world.main_url(), "--cache-dir"]).arg(home).args(args);
    run(command).await
}

#[tokio::test]
async fn kubectl_lists_explains_and_deletes() {
    let world = World::start().await;
    let _workers = world.workers(1, Manners::default()).await;
    let hangs = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    eventually("the worker has it", DEADLINE, async || world.ledger.counts().get(&hangs[0]).copied()).await;
    let waits = world.submitted(&delivered(&world, json!({}))).await;
    let large = world.submitted(&document(json!({"resources": {"hardware": {"cpu": 64}}}))).await;
    let (code, out, error) = kubectl(&world, &["get", "tasks"]).await;
    assert_eq!(code, Some(0), "{error}");
    let head: Vec<&str> = out.lines().next().expect("a head").split_whitespace().collect();
    assert_eq!(head, ["NAME", "TYPE", "PHASE", "WORKER", "RETRIES", "AGE"]);
    let row = |id: &str| out.lines().find(|line| line.starts_with(id)).unwrap_or_default().to_owned();
    assert!(row(&hangs[0]).contains("Dispatched") && row(&hangs[0]).contains("w0"), "{out}");
    let described = async |id: &str| kubectl(&world, &["describe", "task", id]).await.1;
    eventually("it says who could run it", DEADLINE, async || {
        let told = described(&waits[0]).await;
        (told.contains("NoWorkerFree") && told.contains("w0 can do it, and is busy")).then_some(())
    })
    .await;
    eventually("it says that nobody can, as an event as well", DEADLINE, async || {
        let told = described(&large[0]).await;
        let events = told.split("Events:").nth(1)?;
        (events.contains("NoWorkerFits") && events.contains("none of 1 workers can do it")).then_some(())
    })
    .await;
    // Deleted while it waits, and while a worker is at it.
    let (code, _, error) = kubectl(&world, &["delete", "task", &large[0], &hangs[0]]).await;
    assert_eq!(code, Some(0), "{error}");
    is_gone(&world, &hangs[0]).await;
    // Its worker cannot be told, and gets nothing else before it is free; another one does.
    let _other = world.worker("other", Manners::default()).await;
    world.all_done(&waits).await;
    assert_eq!(world.ledger.workers(&waits[0]), ["other"]);
    assert!(has_files(&world, &waits[0]));
    let (code, _, error) = kubectl(&world, &["delete", "tasks", "--all"]).await;
    assert_eq!(code, Some(0), "{error}");
    is_gone(&world, &waits[0]).await;
    assert!(!has_files(&world, &waits[0]), "its results went with it");
    let (code, out, error) = kubectl(&world, &["get", "workers"]).await;
    assert!(code == Some(0) && out.contains("other") && out.lines().count() == 3, "{out}{error}");
    // One that kubectl makes is like any other.
    let file = world.directory().join("task.json");
    let spec: Value = serde_json::from_str(&delivered(&world, json!({}))).expect("JSON");
    let task = json!({"apiVersion": "gaia.dev/v1alpha1", "kind": "Task", "metadata": {"name": "mine"}, "spec": {"document": spec}});
    std::fs::write(&file, task.to_string()).expect("written");
    let (code, _, error) = kubectl(&world, &["apply", "-f", file.to_str().expect("a path")]).await;
    assert_eq!(code, Some(0), "{error}");
    world.all_done(&["mine".to_owned()]).await;
    let (code, _, error) = kubectl(&world, &["delete", "task", "mine"]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(!has_files(&world, "mine"));
}

#[tokio::test]
async fn what_a_task_printed_is_followed_to_its_end() {
    let world = World::start().await;
    let _workers = world.workers(1, Manners::default()).await;
    let ids = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    world.status_is(&ids[0], "DISPATCHED").await;
    let logs = world.directory().join("results").join(&ids[0]).join("logs");
    std::fs::create_dir_all(&logs).expect("made");
    let print = |attempt: &str, text: &str| {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(logs.join(attempt)).expect("opened");
        std::io::Write::write_all(&mut file, format!("{}\n", json!({"text": text})).as_bytes()).expect("written");
    };
    print("a1.jsonl", "one");
    let path = format!("/api/v1/tasks/{}/logs", ids[0]);
    let (_, listed) = world.get(&path).await;
    assert_eq!(listed["logs"], json!([{"attempt": "a1", "size_bytes": 15}]));
    let refusals = [
        (format!("{path}/a2"), 404),
        (format!("{path}/..%2f..%2fx"), 400),
        (format!("{path}/a1?from=x"), 400),
        ("/api/v1/tasks/nobody/logs".to_owned(), 404),
    ];
    for (path, code) in refusals {
        let (status, answer) = world.get(&path).await;
        assert_eq!(status.as_u16(), code, "{path}: {answer}");
    }
    let args = ["task", "logs", &ids[0], "-f"];
    let follows = gaia(&world, &args);
    let prints = async {
        print("a1.jsonl", "two");
        print("a2.jsonl", "three");
        world.patch(&format!("tasks/{}", ids[0]), json!({"spec": {"cancel": true}})).await;
    };
    let ((code, out, error), ()) = tokio::join!(follows, prints);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines), (Some(0), vec!["one", "two", "three"]), "{error}");
}
