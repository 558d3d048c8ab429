//! The binary with a Redis, and what its clients do.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{
    doubles::{Double, Ledger, Manners},
    redis::Redis,
    support::{eventually, port::own_port},
};

/// Longer than anything here takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub struct World {
    redis: Option<Redis>,
    pub ledger: Ledger,
    data: tempfile::TempDir,
    variables: HashMap<String, String>,
    port: u16,
    server: Option<Child>,
    client: reqwest::Client,
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

impl World {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With these variables in the environment of the server.
    pub async fn with(variables: &[(&str, &str)]) -> Self {
        Self::on(Some(Redis::start().await), variables)
    }

    /// With this Redis.
    pub fn over(redis: Redis, variables: &[(&str, &str)]) -> Self {
        Self::on(Some(redis), variables)
    }

    /// Workers connect to the server.
    pub async fn without_redis(variables: &[(&str, &str)]) -> Self {
        Self::on(None, variables)
    }

    fn on(redis: Option<Redis>, variables: &[(&str, &str)]) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let port = own_port();
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(DEADLINE);
        // A connection to a server that was killed is none.
        let client = client.pool_max_idle_per_host(0);
        let mut world = Self {
            redis,
            ledger: Ledger::default(),
            data: tempfile::tempdir().expect("a directory"),
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            port,
            server: None,
            client: client.build().expect("a client"),
        };
        world.begin();
        world
    }

    /// The server, again on the same port and data.
    pub fn begin(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gaia"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // Where it logs unless told otherwise.
            .current_dir(self.data.path())
            .envs(self.redis.as_ref().map(|redis| ("REDIS_URL", redis.url())))
            .envs(self.redis.as_ref().and_then(Redis::ca_file).map(|file| ("REDIS_CA_FILE", file)));
        // Only now the port is known.
        let variables = self.variables.iter().map(|(name, value)| (name, value.replace("{url}", &self.url())));
        command.envs(variables).arg("serve").arg("--data-dir").arg(self.data.path());
        command.args(["--reality", "simulated", "--listen", "127.0.0.1:0", "--node-name", "here"]);
        command.arg("--tasks-listen").arg(format!("127.0.0.1:{}", self.port));
        let mut server = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the binary runs");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it listens");
        assert!(line.starts_with("gaia listens on "), "{line}");
        self.variables.insert("MAIN".to_owned(), line.trim().trim_start_matches("gaia listens on ").to_owned());
        self.server = Some(server);
    }

    /// `kill -9`
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("it runs");
            server.wait().expect("it has ended");
        }
    }

    pub fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("this world has one")
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Our own API's.
    pub fn main_url(&self) -> &str {
        &self.variables["MAIN"]
    }

    pub fn directory(&self) -> &std::path::Path {
        self.data.path()
    }

    pub async fn worker(&self, id: &str, manners: Manners) -> Double {
        let redis = self.redis.as_ref().expect("this world has one");
        Double::start(redis.client(), id, manners, &self.ledger).await
    }

    /// Workers that are known to the server.
    pub async fn workers(&self, count: usize, manners: Manners) -> Vec<Double> {
        let mut all = Vec::new();
        for n in 0..count {
            all.push(self.worker(&format!("w{n}"), manners.clone()).await);
        }
        self.knows(count).await;
        all
    }

    pub async fn knows(&self, count: usize) {
        eventually("the workers are known", DEADLINE, async || {
            let (_, workers) = self.get("/workers").await;
            let live = workers.as_array()?.iter().filter(|worker| worker["stale"] == json!(false));
            (live.count() == count).then_some(())
        })
        .await;
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url()));
        match self.variables.get("ORCHESTRATOR_TOKEN") {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    /// An object of our own API.
    pub async fn object(&self, path: &str) -> Value {
        let url = format!("{}/apis/gaia.dev/v1alpha1/namespaces/default/{path}", self.main_url());
        answer(self.client.get(url)).await.1
    }

    /// A merge patch to an object of our own API.
    pub async fn patch(&self, path: &str, patch: Value) {
        let url = format!("{}/apis/gaia.dev/v1alpha1/namespaces/default/{path}", self.main_url());
        let request =
            self.client.patch(url).header("content-type", "application/merge-patch+json").body(patch.to_string());
        let (status, answer) = answer(request).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Makes an object of our own API; `path` is that of its collection.
    pub async fn create(&self, path: &str, object: Value) {
        let url = format!("{}/apis/gaia.dev/v1alpha1/{path}", self.main_url());
        let request = self.client.post(url).header("content-type", "application/json").body(object.to_string());
        let (status, answer) = answer(request).await;
        assert_eq!(status, 201, "{answer}");
    }

    pub async fn submit(&self, yaml: &str) -> (StatusCode, Value) {
        let request = self.request(Method::POST, "/api/v1/tasks").header("content-type", "text/yaml");
        answer(request.body(yaml.to_owned())).await
    }

    /// The ids of a document that is taken.
    pub async fn submitted(&self, yaml: &str) -> Vec<String> {
        let (status, answer) = self.submit(yaml).await;
        assert_eq!(status, 200, "{answer}\n{yaml}");
        let tasks = answer["tasks"].as_array().expect("tasks");
        tasks.iter().map(|task| task["task_id"].as_str().expect("an id").to_owned()).collect()
    }

    pub async fn task(&self, id: &str) -> Value {
        let (status, task) = self.get(&format!("/api/v1/tasks/{id}")).await;
        assert_eq!(status, 200, "{task}");
        task
    }

    /// Waits until the record of a task is so.
    pub async fn task_is(&self, id: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let last = std::cell::RefCell::new(Value::Null);
        let search = eventually(what, DEADLINE, async || {
            let task = self.task(id).await;
            if so(&task) {
                return Some(task);
            }
            *last.borrow_mut() = task;
            None
        });
        // The panic of a deadline does not say how the task was; this does.
        let told = scopeguard(|| eprintln!("task {id} was not {what:?}; last: {}", last.borrow()));
        let found = search.await;
        told.disarm();
        found
    }

    pub async fn status_is(&self, id: &str, status: &str) -> Value {
        self.task_is(id, status, |task| task["status"] == status).await
    }

    /// Waits until all of them are done.
    pub async fn all_done(&self, ids: &[String]) {
        let last = std::cell::RefCell::new(String::new());
        let told = scopeguard(|| eprintln!("not done: {}", last.borrow()));
        eventually("all tasks are done", DEADLINE, async || {
            let (status, tasks) = self.get("/api/v1/tasks").await;
            if status != 200 {
                return None;
            }
            let state: HashMap<&str, &Value> =
                tasks.as_array()?.iter().filter_map(|task| Some((task["task_id"].as_str()?, task))).collect();
            let open: Vec<&&Value> =
                ids.iter().filter_map(|id| state.get(id.as_str())).filter(|task| task["status"] != "DONE").collect();
            let told = |task: &&&Value| {
                format!("{} {} {} {}", task["task_id"], task["status"], task["assigned_worker"], task["error"])
            };
            *last.borrow_mut() = open.iter().take(5).map(told).collect::<Vec<_>>().join("; ");
            (open.is_empty() && ids.iter().all(|id| state.contains_key(id.as_str()))).then_some(())
        })
        .await;
        told.disarm();
    }
}

/// Says something when it is dropped armed.
struct Told<F: Fn()>(Option<F>);

fn scopeguard<F: Fn()>(tell: F) -> Told<F> {
    Told(Some(tell))
}

impl<F: Fn()> Told<F> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl<F: Fn()> Drop for Told<F> {
    fn drop(&mut self) {
        if let Some(tell) = &self.0 {
            tell();
        }
    }
}

/// A document of one step; `spec` is laid over it.
pub fn document(spec: Value) -> String {
    let mut document = json!({
        "apiVersion": "mloc/v1", "kind": "EchoTask", "metadata": {"name": "echo-demo", "owner": "tests"},
        "spec": {"taskType": "echo", "resources": {"replicas": 1, "hardware": {"cpu": "1", "memory": "1Gi"}},
            "data": {"type": "list", "items": ["hello", "again"]}},
    });
    json_patch::merge(&mut document, &json!({"spec": spec}));
    document.to_string()
}

pub async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let Ok(answer) = request.send().await else { return (StatusCode::BAD_GATEWAY, Value::Null) };
    let status = answer.status();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
