//! One host with one card under gaia, and what its three witnesses say: the API, Docker, and the card itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    card::Card,
    host::Host,
    stack::{PRIME_MIB, STUDY_MIB, Stack},
    support::{dockerd::PrivateDockerd, eventually, fixture},
};

/// Longer than anything here takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub const PRIME: &str = "gaia-prime";
pub const CORE: &str = "gaia-core";
pub const STUDY: &str = "gaia-study";

pub struct World {
    // Gaia goes first, or it would bring its containers back while the engine takes them away.
    pub host: Host,
    pub engine: PrivateDockerd,
    pub card: Card,
    client: reqwest::Client,
}

impl World {
    /// Prime serves on its card, and core knows.
    pub async fn awake() -> Self {
        Self::with(|_| ()).await
    }

    /// As [`awake`](Self::awake), with changes to what the files state.
    pub async fn with(change: impl FnOnce(&mut Stack)) -> Self {
        let world = Self::begun(change).await;
        world.settled(PRIME).await;
        for name in [CORE, STUDY] {
            world.until(&workload_path(name), "is ready", |workload| ready(workload) == "True Running").await;
        }
        world
    }

    /// Gaia has just been started.
    pub async fn begun(change: impl FnOnce(&mut Stack)) -> Self {
        let (engine, image) = tokio::task::spawn_blocking(|| {
            let engine = PrivateDockerd::start(true).unwrap_or_else(|why| {
                panic!("these tests need a dockerd of their own, started by root (Debian's docker.io): {why}")
            });
            let image = fixture::image(&engine.host);
            (engine, image)
        })
        .await
        .expect("an engine and an image");
        let card = Card::new();
        let mut stack = Stack::of_peers(&image, &card.dir);
        change(&mut stack);
        let flags = vec!["--nvml-library".to_owned(), card.library().display().to_string()];
        let host = Host::on(&engine.host, &image, flags, &stack.files());
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
        Self { host, engine, card, client }
    }

    /// An object as the API has it; null when there is none.
    pub async fn get(&self, path: &str) -> Value {
        let url = format!("{}/apis/gaia.dev/v1alpha1/{path}", self.host.server.url);
        let Ok(answer) = self.client.get(&url).send().await else { return Value::Null };
        if !answer.status().is_success() {
            return Value::Null;
        }
        answer.json().await.unwrap_or_default()
    }

    pub async fn gpu(&self) -> Value {
        self.get("gpus/gpu0").await
    }

    pub async fn until(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = async || Some(self.get(path).await).filter(|object| wanted(object));
        match tokio::time::timeout(DEADLINE, eventually(what, DEADLINE * 2, look)).await {
            Ok(found) => found,
            Err(_) => panic!("not in time: {path} {what}: {:#}\n{}", self.get(path).await, self.tell().await),
        }
    }

    /// A request of one of GAIA's clients.
    pub fn request(&self, path: &str, body: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.host.server.url)).body(body.to_owned())
    }

    /// The usual one: without a body, and its answer is waited for.
    pub async fn post(&self, path: &str) -> (u16, Value) {
        let answer = self.request(path, "").send().await.expect("an answer");
        let code = answer.status().as_u16();
        (code, answer.json().await.expect("JSON"))
    }

    /// Wishes the card to go from one live workload to another.
    pub async fn wish(&self, name: &str, from: &str, to: &str) {
        let handoff = json!({
            "apiVersion": "gaia.dev/v1alpha1", "kind": "Handoff", "metadata": {"name": name},
            "spec": {"gpu": "gpu0", "from": {"name": from}, "to": {"name": to}}
        });
        self.create("namespaces/default/handoffs", &handoff).await;
    }

    /// Answers as soon as it is stored.
    pub async fn create(&self, path: &str, object: &Value) {
        let url = format!("{}/apis/gaia.dev/v1alpha1/{path}", self.host.server.url);
        let answer = self.client.post(url).json(object).send().await.expect("an answer");
        let code = answer.status();
        assert!(code.is_success(), "{code}: {}", answer.text().await.expect("text"));
    }

    /// The handoff at its end, whichever it is.
    pub async fn ended(&self, name: &str) -> Value {
        self.until(&handoff_path(name), "has ended", is_over).await
    }

    /// Waits for the end, whichever it is, and for the card to be where that says. Answers where.
    pub async fn settled_after<'a>(&self, name: &str, from: &'a str, to: &'a str) -> &'a str {
        let ended = self.ended(name).await;
        let holder = if phase(&ended) == "Completed" { to } else { from };
        self.settled(holder).await;
        holder
    }

    /// Waits until all three witnesses agree that `holder` has the card, alone, and uses it.
    pub async fn settled(&self, holder: &str) {
        let agree = async || self.disagreement(holder).await.is_none().then_some(());
        let agreed = eventually("the witnesses agree", DEADLINE * 2, agree);
        if tokio::time::timeout(DEADLINE, agreed).await.is_err() {
            let why = self.disagreement(holder).await;
            panic!("{holder} does not have the card: {why:?}\n{}", self.tell().await);
        }
        self.card.assert_never_shared();
    }

    async fn disagreement(&self, holder: &str) -> Option<String> {
        let mib = if holder == PRIME { PRIME_MIB } else { STUDY_MIB };
        let Some(container) = self.host.inspect(&format!("{holder}-live")).filter(|seen| seen.running) else {
            return Some(format!("{holder}-live does not run"));
        };
        let on_card: Vec<_> = self.card.holders().iter().map(|p| (u64::from(p.pid), p.used_mib)).collect();
        if on_card != [(container.pid, Some(mib))] {
            return Some(format!("on the card are {on_card:?}, {holder} is {}", container.pid));
        }
        // Study serves from the CPU while prime has the card; prime is not there while study has it.
        if holder != PRIME && self.host.inspect("gaia-prime-live").is_some_and(|seen| seen.running) {
            return Some("gaia-prime-live runs".to_owned());
        }
        let status = self.gpu().await["status"].clone();
        let leases = status["leases"].as_array().cloned().unwrap_or_default();
        let told: Vec<_> = leases.iter().map(|lease| lease["holder"]["name"].as_str().unwrap_or_default()).collect();
        if told != [holder] || !status["handoff"].is_null() {
            return Some(format!("leases of {told:?}, handoff {}", status["handoff"]));
        }
        let process = json!([container.pid, format!("default/{holder}"), "Live", mib]);
        let mut processes = status["processes"].as_array().cloned().unwrap_or_default();
        processes.retain(|process| !process["workload"].is_null());
        let seen: Vec<_> =
            processes.iter().map(|p| json!([p["pid"], p["workload"], p["variant"], p["usedMib"]])).collect();
        (seen != [process]).then(|| format!("processes are told to be {processes:?}"))
    }

    /// The driver hangs from the moment at which everything has been checked and prime is about to be stopped. It then is.
    pub async fn hang_while_prime_goes(&self, name: &str) {
        self.card.manner("gaia-core-live", "/gpu/release", "hang");
        self.wish(name, PRIME, STUDY).await;
        let asked = async || self.card.journal().iter().any(|line| line.ends_with("asked /gpu/release")).then_some(());
        eventually("core is asked", DEADLINE, asked).await;
        self.card.show(|state| state.hangs = ["nvmlDeviceGetMemoryInfo_v2".to_owned()].into());
        self.card.polite("gaia-core-live");
        let stopped = "stop default/gaia-prime: Succeeded".to_owned();
        let has_stopped = |handoff: &Value| steps(&handoff["status"]["steps"]).contains(&stopped);
        self.until(&handoff_path(name), "has stopped prime", has_stopped).await;
    }

    /// All that is known, for a test that fails.
    pub async fn tell(&self) -> String {
        let handoffs = self.get("namespaces/default/handoffs").await;
        let statuses: Vec<_> =
            handoffs["items"].as_array().into_iter().flatten().map(|h| h["status"].clone()).collect();
        format!(
            "gpu: {:#}\nhandoffs: {:#}\ncontainers: {}\njournal: {:#?}",
            self.gpu().await["status"],
            json!(statuses),
            self.host.docker(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]),
            self.card.journal()
        )
    }
}

pub fn handoff_path(name: &str) -> String {
    format!("namespaces/default/handoffs/{name}")
}

pub fn workload_path(name: &str) -> String {
    format!("namespaces/default/workloads/{name}")
}

pub fn is_over(handoff: &Value) -> bool {
    ["Completed", "Failed", "Cancelled"].contains(&phase(handoff))
}

pub fn phase(object: &Value) -> &str {
    object["status"]["phase"].as_str().unwrap_or_default()
}

/// Status and reason of the condition that sums up.
pub fn ready(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
    format!("{} {}", ready["status"].as_str().unwrap_or_default(), ready["reason"].as_str().unwrap_or_default())
}

/// `NAME: OUTCOME` of every step.
pub fn steps(list: &Value) -> Vec<String> {
    let steps = list.as_array().into_iter().flatten();
    steps.map(|s| format!("{}: {}", s["name"].as_str().unwrap_or("?"), s["outcome"].as_str().unwrap_or("?"))).collect()
}
