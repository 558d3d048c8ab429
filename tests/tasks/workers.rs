//! `gaia worker` as a process of its own, over WebSocket, with a server that has no Redis.

use std::process::{Child, Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{DEADLINE, World, answer, document};
use crate::support::eventually;

/// A worker; killed when it is dropped.
pub struct Program {
    child: Option<Child>,
    directory: tempfile::TempDir,
    id: String,
    /// Of its environment.
    pub variables: Vec<(&'static str, String)>,
}

impl Program {
    /// Not begun yet.
    pub fn new(id: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { child: None, directory, id: id.to_owned(), variables: Vec::new() }
    }

    /// Known to the server when this returns.
    pub async fn start(world: &World, id: &str, args: &[&str]) -> Self {
        let mut program = Self::new(id);
        program.begin(&world.url(), args);
        program.is_known(world).await;
        program
    }

    pub async fn is_known(&self, world: &World) {
        eventually("the worker is known", DEADLINE, async || {
            let (_, worker) = world.get(&format!("/workers/{}", self.id)).await;
            (worker["status"] == "IDLE" && worker["stale"] == json!(false)).then_some(())
        })
        .await;
    }

    /// Where its tasks have their directories.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub fn begin(&mut self, server: &str, args: &[&str]) {
        let directory = self.directory.path().to_str().expect("a path").to_owned();
        self.begin_at_home(server, &[&["--directory", &directory], args].concat());
    }

    /// Without being told where.
    pub fn begin_at_home(&mut self, server: &str, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaia"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(std::env::var_os("DOCKER_HOST").map(|host| ("DOCKER_HOST", host)));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(["worker", "--server", server, "--id", &self.id, "--heartbeat", "1"]);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::inherit());
        self.child = Some(command.spawn().expect("the binary runs"));
    }

    /// `kill -9`
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it has ended");
        }
    }

    pub fn terminate(&self) {
        let pid = self.child.as_ref().expect("it runs").id();
        let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for its end; its exit code.
    pub async fn ends(&mut self) -> Option<i32> {
        let code = eventually("the worker ends", DEADLINE, async || {
            self.child.as_mut().expect("it was started").try_wait().expect("it can be asked")
        })
        .await;
        self.child = None;
        code.code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn task_of(task_type: &str, spec: Value) -> String {
    let mut laid = json!({"taskType": task_type});
    json_patch::merge(&mut laid, &spec);
    document(laid)
}

#[tokio::test]
async fn a_worker_over_a_websocket_runs_what_it_is_given() {
    let world = World::without_redis(&[("ORCHESTRATOR_TOKEN", "t0ken")]).await;
    let file = world.directory().join("token");
    std::fs::write(&file, "t0ken\n").expect("written");
    let _worker =
        Program::start(&world, "w0", &["--token-file", file.to_str().expect("a path"), "--tags", "a,b"]).await;
    let (_, worker) = world.get("/workers/w0").await;
    assert_eq!(worker["tags"], json!(["a", "b"]));
    assert!(worker["hardware"]["cpu"]["logical_cores"].as_u64().is_some_and(|cores| cores > 0), "{worker}");
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.extend(world.submitted(&task_of("echo", json!({}))).await);
    }
    world.all_done(&ids).await;
    let (_, result) = world.get(&format!("/api/v1/results/{}", ids[0])).await;
    assert_eq!((&result["worker_id"], &result["result"]["items"][0]["output"]), (&json!("w0"), &json!("hello")));
    let log = eventually("its log is kept", DEADLINE, async || {
        let logs = world.directory().join("results").join(&ids[0]).join("logs");
        let file = std::fs::read_dir(logs).ok()?.next()?.ok()?.path();
        std::fs::read_to_string(file).ok()
    })
    .await;
    assert!(log.contains("echoes 2 items"), "{log}");
}

#[tokio::test]
async fn a_worker_is_given_nothing_that_it_does_not_run() {
    let world = World::without_redis(&[]).await;
    let _worker = Program::start(&world, "w0", &[]).await;
    let strange = world.submitted(&task_of("chat", json!({}))).await;
    eventually("it says why it waits", DEADLINE, async || {
        let task = world.object(&format!("tasks/{}", strange[0])).await;
        let message = &task["status"]["conditions"][0]["message"];
        (message == "none of 1 workers can do it: 1 do not run its taskType").then_some(())
    })
    .await;
    let echo = world.submitted(&task_of("echo", json!({}))).await;
    world.all_done(&echo).await;
    let task = world.task(&strange[0]).await;
    assert_eq!((&task["status"], &task["retries"]), (&json!("WAITING"), &json!(0)), "{task}");
}

#[tokio::test]
async fn a_wrong_token_ends_the_worker_at_once() {
    let world = World::without_redis(&[("ORCHESTRATOR_TOKEN", "t0ken")]).await;
    let mut worker = Program::new("w0");
    worker.begin(&world.url(), &["--token", "another"]);
    assert_eq!(worker.ends().await, Some(1));
}

#[tokio::test]
async fn a_killed_worker_is_missed_soon_and_its_task_goes_to_another() {
    let world = World::without_redis(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let mut first = Program::start(&world, "w0", &[]).await;
    let ids = world.submitted(&task_of("echo", json!({"echo": {"seconds": 5}}))).await;
    world.task_is(&ids[0], "w0 has it", |task| task["assigned_worker"] == "w0").await;
    let begun = std::time::Instant::now();
    first.kill();
    let _second = Program::start(&world, "w1", &[]).await;
    let done = world.status_is(&ids[0], "DONE").await;
    assert_eq!((&done["assigned_worker"], &done["retries"]), (&json!("w1"), &json!(1)));
    // The time to live of its heartbeat is 120 seconds.
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_kill_of_the_server_costs_a_task_nothing() {
    let mut world = World::without_redis(&[]).await;
    let _worker = Program::start(&world, "w0", &[]).await;
    let ids = world.submitted(&task_of("echo", json!({"echo": {"seconds": 3}}))).await;
    world.task_is(&ids[0], "w0 has it", |task| task["status"] == "DISPATCHED").await;
    world.kill();
    world.begin();
    let done = world.status_is(&ids[0], "DONE").await;
    assert_eq!((&done["assigned_worker"], &done["retries"]), (&json!("w0"), &json!(0)));
    let object = world.object(&format!("tasks/{}", ids[0])).await;
    assert_eq!(object["status"]["attempts"], 1, "{object}");
}

#[tokio::test]
async fn a_cancelled_task_is_stopped_and_its_worker_goes_on() {
    let world = World::without_redis(&[]).await;
    let _worker = Program::start(&world, "w0", &[]).await;
    let ids = world.submitted(&task_of("echo", json!({"echo": {"seconds": 3600}}))).await;
    world.task_is(&ids[0], "w0 has it", |task| task["status"] == "DISPATCHED").await;
    // Results and files of other attempts are refused, whoever brings them.
    for attempt in [json!("0-x"), Value::Null] {
        let body = json!({"task_id": ids[0], "worker_id": "w0", "result": {}, "attempt": attempt});
        let (status, said) = answer(world.request(Method::POST, "/api/v1/results").json(&body)).await;
        assert_eq!((status.as_u16(), &said["detail"]), (409, &json!("the result is of another attempt")));
    }
    let upload = world.request(Method::POST, &format!("/api/v1/results/{}/files", ids[0]));
    assert_eq!(answer(upload.header("gaia-attempt", "0-x").body("x")).await.0, 409);
    world.patch(&format!("tasks/{}", ids[0]), json!({"spec": {"cancel": true}})).await;
    world.status_is(&ids[0], "CANCELLED").await;
    let next = world.submitted(&task_of("echo", json!({}))).await;
    world.all_done(&next).await;
}

#[tokio::test]
async fn asked_to_end_a_worker_finishes_what_it_has_or_gives_it_back() {
    let world = World::without_redis(&[("RETRY_BASE_DELAY_SEC", "0")]).await;
    let mut worker = Program::start(&world, "w0", &["--grace", "60"]).await;
    let ids = world.submitted(&task_of("echo", json!({"echo": {"seconds": 2}}))).await;
    world.task_is(&ids[0], "w0 has it", |task| task["status"] == "DISPATCHED").await;
    worker.terminate();
    assert_eq!(worker.ends().await, Some(0));
    assert_eq!(world.task(&ids[0]).await["status"], "DONE");
    eventually("it has taken its leave", DEADLINE, async || (world.get("/workers/w0").await.0 == 404).then_some(()))
        .await;

    let mut worker = Program::start(&world, "w1", &["--grace", "0"]).await;
    let ids = world.submitted(&task_of("echo", json!({"echo": {"seconds": 3600}}))).await;
    world.task_is(&ids[0], "w1 has it", |task| task["status"] == "DISPATCHED").await;
    worker.terminate();
    assert_eq!(worker.ends().await, Some(0));
    let task = world.task_is(&ids[0], "it waits for another", |task| task["status"] == "WAITING").await;
    assert_eq!((&task["retries"], &task["last_failed_worker"]), (&json!(1), &json!("w1")));
}

#[tokio::test]
async fn workers_over_a_websocket_work_beside_those_on_redis() {
    let mut world = World::start().await;
    let _double = world.workers(1, super::doubles::Manners::default()).await;
    let _program = Program::start(&world, "ours", &[]).await;
    // One has the better host; then the other is free.
    let hangs = world.submitted(&document(json!({"double": {"hangs": true}}))).await;
    world.task_is(&hangs[0], "w0 has it", |task| task["assigned_worker"] == "w0").await;
    let ids = world.submitted(&task_of("echo", json!({}))).await;
    world.all_done(&ids).await;
    assert_eq!(world.task(&ids[0]).await["assigned_worker"], "ours");
    world.kill();
    world.begin();
    world.knows(2).await;
}
