//! Carries out steps beside the passes, and wakes the handoff when one is answered. What is remembered is lost with the
//! process; then the step is done again.

use std::{
    collections::{BTreeMap, HashMap},
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::observe::Party;
use crate::{
    adapters::{
        containers::{
            Container, ContainerId, ContainerState, ContainerSummary, Containers, EngineError, EngineEvent,
            EngineResult,
        },
        peers::{Peer, PeerError, PeerRequest, Peers},
    },
    api::{
        gpustep::{AcquireStep, HttpMethod, HttpStep, ModelServer, ReleaseStep},
        handoff::{Handoff, StepStage},
        label,
    },
    controllers::workload::names,
    registry::ObjectName,
    runtime::{
        backoff::{Backoff, seed_of},
        clock::Clock,
        reconciler::name_of,
        supervisor::caught,
        wakeups::Wakeups,
    },
};

/// Between attempts at a peer that does not answer.
const AGAIN: Duration = Duration::from_millis(250);

/// Between attempts at a stop that the engine did not carry out.
const STOP_AGAIN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(4));

/// Which step of a handoff: of its way there or back, and where in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepKey {
    pub back: bool,
    pub stage: StepStage,
    pub index: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    UnderWay,
    Done(Result<String, String>),
}

/// What to do for a step.
#[derive(Debug, Clone)]
pub enum Job {
    Release(Box<ReleaseStep>, Box<Party>),
    Acquire(Box<AcquireStep>, Box<Party>),
}

/// A stop that the engine was asked for.
type Stop = BoxFuture<'static, EngineResult<()>>;

pub struct Runner {
    shared: Arc<Shared>,
}

type Name = (Option<String>, String);
type Steps = HashMap<Name, HashMap<StepKey, Run>>;

struct Run {
    answer: Answer,
    answered_at: Option<Timestamp>,
    task: AbortHandle,
}

struct Shared {
    containers: Arc<dyn Containers>,
    peers: Arc<dyn Peers>,
    clock: Arc<dyn Clock>,
    wakeups: Wakeups,
    steps: Mutex<Steps>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        for (_, run) in self.shared.lock().drain().flat_map(|(_, steps)| steps) {
            run.task.abort();
        }
    }
}

impl Runner {
    pub fn new(
        containers: Arc<dyn Containers>,
        peers: Arc<dyn Peers>,
        clock: Arc<dyn Clock>,
        wakeups: Wakeups,
    ) -> Self {
        Self { shared: Arc::new(Shared { containers, peers, clock, wakeups, steps: Mutex::default() }) }
    }

    /// None: nobody is at it.
    pub fn answer(&self, name: &ObjectName, key: StepKey) -> Option<Answer> {
        let name = (name.namespace.clone(), name.name.clone());
        self.shared.lock().get(&name)?.get(&key).map(|run| run.answer.clone())
    }

    /// None: there is no answer yet.
    pub fn answered_at(&self, name: &ObjectName, key: StepKey) -> Option<Timestamp> {
        let name = (name.namespace.clone(), name.name.clone());
        self.shared.lock().get(&name)?.get(&key)?.answered_at
    }

    /// Gives up whatever else it is at for this handoff: a peer that is asked again and again must not be told on the way
    /// back what was to be told on the way there.
    pub fn keep_only(&self, name: &ObjectName, key: Option<StepKey>) {
        let mut steps = self.shared.lock();
        let Some(of_handoff) = steps.get_mut(&(name.namespace.clone(), name.name.clone())) else { return };
        of_handoff.retain(|at, run| {
            let keeps = Some(*at) == key || run.answer != Answer::UnderWay;
            if !keeps {
                run.task.abort();
            }
            keeps
        });
    }

    /// Returns at once. A step that has been begun is not begun again.
    pub fn run(&self, handoff: &Handoff, key: StepKey, job: Job) {
        let object = name_of(handoff);
        let name = (object.namespace.clone(), object.name.clone());
        let mut steps = self.shared.lock();
        steps.entry(name.clone()).or_default().entry(key).or_insert_with(|| {
            let shared = self.shared.clone();
            let task = tokio::spawn(async move {
                let mut unfinished = Vec::new();
                let result = caught(shared.carry_out(&job, &mut unfinished)).await.unwrap_or_else(Err);
                let answered_at = Some(shared.clock.now());
                if let Some(run) = shared.lock().get_mut(&name).and_then(|steps| steps.get_mut(&key)) {
                    (run.answer, run.answered_at) = (Answer::Done(result), answered_at);
                }
                shared.wakeups.wake(&object);
                join_all(unfinished).await;
            });
            Run { answer: Answer::UnderWay, answered_at: None, task: task.abort_handle() }
        });
    }

    pub fn forget(&self, name: &ObjectName) {
        let gone = self.shared.lock().remove(&(name.namespace.clone(), name.name.clone()));
        for run in gone.into_iter().flat_map(HashMap::into_values) {
            run.task.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().expect("no code panics while it holds this lock")
    }

    /// What the engine is still to be let finish when there is an answer goes to `unfinished`.
    async fn carry_out(&self, job: &Job, unfinished: &mut Vec<Stop>) -> Result<String, String> {
        let seconds = match job {
            Job::Release(step, _) => step.timeout_seconds,
            Job::Acquire(step, _) => step.timeout_seconds,
        };
        let limit = Duration::from_secs(seconds.into());
        let done = async {
            match job {
                Job::Release(step, party) => self.release(step, party, limit, unfinished).await,
                Job::Acquire(step, party) => self.acquire(step, party, limit).await,
            }
        };
        timeout(limit, done).await.unwrap_or_else(|_| Err(format!("no answer within {seconds} s")))
    }

    async fn release(
        &self,
        step: &ReleaseStep,
        party: &Party,
        limit: Duration,
        unfinished: &mut Vec<Stop>,
    ) -> Result<String, String> {
        if let Some(http) = &step.http {
            return self.http(http, party, limit).await;
        }
        if let Some(sleep) = &step.vllm_sleep {
            let path = format!("/sleep?level={}", sleep.level);
            return self.post(party, sleep.port, &path, None, limit).await;
        }
        if let Some(server) = &step.ollama_unload {
            return self.ollama(server, party, json!(0), limit).await;
        }
        if let Some(server) = &step.llama_cpp_unload {
            return self.llama_cpp(server, party, "/models/unload", limit).await;
        }
        if let Some(comfy) = &step.comfy_free {
            let body = json!({"unload_models": true, "free_memory": true});
            return self.post(party, comfy.port, "/free", Some(body), limit).await;
        }
        if let Some(exec) = &step.exec {
            return self.exec(party, &exec.command, limit).await;
        }
        let grace = match step.kill {
            Some(_) => Duration::ZERO,
            None => Duration::from_secs(party.workload.spec.stop_grace_seconds.into()),
        };
        self.stop(party, grace, Instant::now() + limit, unfinished).await
    }

    async fn acquire(&self, step: &AcquireStep, party: &Party, limit: Duration) -> Result<String, String> {
        if let Some(http) = &step.http {
            return self.http(http, party, limit).await;
        }
        if let Some(wake) = &step.vllm_wake {
            return self.post(party, wake.port, "/wake_up", None, limit).await;
        }
        if let Some(server) = &step.ollama_load {
            return self.ollama(server, party, json!(-1), limit).await;
        }
        if let Some(server) = &step.llama_cpp_load {
            return self.llama_cpp(server, party, "/models/load", limit).await;
        }
        match &step.exec {
            Some(exec) => self.exec(party, &exec.command, limit).await,
            None => {
                unreachable!("a start is not carried out here: the workload controller starts, and its status tells")
            }
        }
    }

    /// Of what does not run, too: a start that the engine is still at is done before the stop that comes after it.
    async fn stop(
        &self,
        party: &Party,
        grace: Duration,
        end: Instant,
        unfinished: &mut Vec<Stop>,
    ) -> Result<String, String> {
        for container in party.containers.iter().filter(|c| c.state != ContainerState::Dead) {
            self.stop_one(container, grace, end, unfinished).await?;
        }
        let running = party.containers.iter().filter(|c| c.state != ContainerState::Exited);
        let names: Vec<&str> = running.map(|c| c.name.as_str()).collect();
        Ok(if names.is_empty() { "did not run".to_owned() } else { format!("{} stopped", names.join(", ")) })
    }

    /// An engine that is away or busy is asked again until the time is up: without the stop nothing comes free, and all that
    /// would follow is a wait in vain. A stop that was done all the same finds its end reached.
    async fn stop_one(
        &self,
        container: &ContainerSummary,
        grace: Duration,
        end: Instant,
        unfinished: &mut Vec<Stop>,
    ) -> Result<(), String> {
        let seed = seed_of(&container.id.0);
        for attempt in 0.. {
            let (containers, id) = (self.containers.clone(), container.id.clone());
            let mut stop: Stop = async move { containers.stop(&id, grace).await }.boxed();
            let answer = tokio::select! {
                biased;
                // First, so that it is listened to before anything dies.
                () = self.died(container) => {
                    unfinished.push(stop);
                    break;
                }
                answer = &mut stop => answer,
            };
            let error = match answer {
                Ok(()) | Err(EngineError::NotFound(_)) => break,
                Err(error @ EngineError::Terminal { .. }) => return Err(error.to_string()),
                Err(error @ (EngineError::Unreachable(_) | EngineError::MayHaveTakenEffect(_))) => error,
            };
            let pause = STOP_AGAIN.delay(attempt, seed);
            if Instant::now() + pause >= end {
                return Err(error.to_string());
            }
            sleep(pause).await;
        }
        Ok(())
    }

    /// Ready when the engine tells that its process has ended: taking its network down, for which the engine's answer waits, is
    /// nothing that a card has to wait for. Never of what is not ours, for its restart policy may start it again; nor of what was
    /// not seen to run, for it may have died before a start that is under way.
    async fn died(&self, container: &ContainerSummary) {
        if names::owner(&container.labels).is_none() || container.state != ContainerState::Running {
            return pending().await;
        }
        let mut events = self.containers.events();
        while let Some(event) = events.next().await {
            match event {
                EngineEvent::Container { id, action, .. } if id == container.id && action == "die" => return,
                EngineEvent::Container { .. } | EngineEvent::Connected | EngineEvent::Disconnected(_) => {}
            }
        }
        pending().await
    }

    async fn exec(&self, party: &Party, command: &[String], limit: Duration) -> Result<String, String> {
        let container = own(party)?;
        let result = self.containers.exec(container, command, limit).await.map_err(|error| error.to_string())?;
        match result.exit_code {
            0 => Ok("exit code 0".to_owned()),
            code => Err(format!("exit code {code}: {}", result.output.trim())),
        }
    }

    async fn http(&self, http: &HttpStep, party: &Party, limit: Duration) -> Result<String, String> {
        let end = Instant::now() + limit;
        loop {
            let answer = match self.spoken_to(http, party).await {
                Ok(peer) => {
                    let (headers, body) = (http.headers.clone(), http.body.clone());
                    let request = PeerRequest { method: http.method, peer, headers, body };
                    self.peers.call(&request, end.saturating_duration_since(Instant::now())).await
                }
                Err(why) => Err(PeerError::Unreachable(why)),
            };
            match last_word(answer, end) {
                Some(answer) => return answer.map(|_| "answered".to_owned()),
                None => sleep(AGAIN).await,
            }
        }
    }

    /// As it is now: a container that is being started has no address yet.
    async fn spoken_to(&self, http: &HttpStep, party: &Party) -> Result<Peer, String> {
        let port = match (&http.url, http.port) {
            (Some(url), _) => return Ok(Peer::Url(url.clone())),
            (None, Some(port)) => port,
            (None, None) => return Err("neither url nor port is given".to_owned()),
        };
        let container = match &http.workload {
            None => self.own(party).await?,
            Some(name) => self.container_of(name, party).await?,
        };
        let path = http.path.clone().unwrap_or_else(|| "/".to_owned());
        Ok(Peer::Container { container: Box::new(container), port, path })
    }

    /// As it is now. An engine that is away for a moment is asked again: the step's own time bounds it.
    async fn own(&self, party: &Party) -> Result<Container, String> {
        let id = own(party)?;
        loop {
            match self.containers.inspect(&id.0).await {
                Ok(found) => return found.ok_or_else(|| does_not_run(party)),
                Err(EngineError::Unreachable(_)) => sleep(AGAIN).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn container_of(&self, name: &str, party: &Party) -> Result<Container, String> {
        let neighbour = party.peers.iter().find(|peer| peer.name == name);
        let found = match neighbour.and_then(|peer| peer.adopted.as_ref()) {
            Some(adopted) => self.containers.inspect(adopted).await.map_err(|error| error.to_string())?,
            None => {
                let full = format!("{}/{name}", party.holder.namespace);
                let all = self.containers.list(Some((label::WORKLOAD, Some(&full)))).await;
                let active = neighbour.map(|peer| peer.active).unwrap_or_default();
                all.map_err(|error| error.to_string())?.into_iter().find(|c| names::variant(&c.labels) == Some(active))
            }
        };
        found.ok_or_else(|| format!("{name} has no container"))
    }

    async fn post(
        &self,
        party: &Party,
        port: u16,
        path: &str,
        body: Option<Value>,
        limit: Duration,
    ) -> Result<String, String> {
        self.ask(party, HttpMethod::POST, port, path, body, limit).await.map(|_| "answered".to_owned())
    }

    async fn ask(
        &self,
        party: &Party,
        method: HttpMethod,
        port: u16,
        path: &str,
        body: Option<Value>,
        limit: Duration,
    ) -> Result<String, String> {
        let peer = Peer::Container { container: Box::new(self.own(party).await?), port, path: path.to_owned() };
        let json = body.is_some().then(|| ("content-type".to_owned(), "application/json".to_owned()));
        let headers: BTreeMap<String, String> = json.into_iter().collect();
        let body = body.map(|body| body.to_string());
        self.call(&PeerRequest { method, peer, headers, body }, limit).await
    }

    async fn call(&self, request: &PeerRequest, limit: Duration) -> Result<String, String> {
        let end = Instant::now() + limit;
        loop {
            let answer = self.peers.call(request, end.saturating_duration_since(Instant::now())).await;
            match last_word(answer, end) {
                Some(answer) => return answer,
                None => sleep(AGAIN).await,
            }
        }
    }

    /// Models are let go (`keep_alive` 0) or kept (-1) by asking for them without a prompt.
    async fn ollama(
        &self,
        server: &ModelServer,
        party: &Party,
        keep_alive: Value,
        limit: Duration,
    ) -> Result<String, String> {
        let models = match server.models.is_empty() {
            false => server.models.clone(),
            true => {
                let loaded = self.ask(party, HttpMethod::GET, server.port, "/api/ps", None, limit).await?;
                names(&loaded, "models", "name")
            }
        };
        for model in &models {
            let body = json!({"model": model, "keep_alive": keep_alive, "stream": false});
            self.post(party, server.port, "/api/generate", Some(body), limit).await?;
        }
        Ok(models.join(", "))
    }

    async fn llama_cpp(
        &self,
        server: &ModelServer,
        party: &Party,
        path: &str,
        limit: Duration,
    ) -> Result<String, String> {
        let models = match server.models.is_empty() {
            false => server.models.clone(),
            true => {
                let known = self.ask(party, HttpMethod::GET, server.port, "/models", None, limit).await?;
                in_memory(&known)
            }
        };
        for model in &models {
            self.post(party, server.port, path, Some(json!({"model": model})), limit).await?;
        }
        Ok(models.join(", "))
    }
}

/// Who does not answer is asked again until the time is up; a refusal is final.
fn last_word(answer: Result<String, PeerError>, end: Instant) -> Option<Result<String, String>> {
    match answer {
        Ok(body) => Some(Ok(body)),
        Err(PeerError::Refused(why)) => Some(Err(why)),
        Err(PeerError::Unreachable(why)) => (Instant::now() + AGAIN >= end).then_some(Err(why)),
    }
}

fn names(answer: &str, list: &str, key: &str) -> Vec<String> {
    let parsed: Value = serde_json::from_str(answer).unwrap_or_default();
    let items = parsed[list].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|item| item[key].as_str().map(str::to_owned)).collect()
}

/// What llama.cpp's router has loaded of all the models that it knows: it refuses to let go of any other.
fn in_memory(answer: &str) -> Vec<String> {
    let parsed: Value = serde_json::from_str(answer).unwrap_or_default();
    let models = parsed["data"].as_array().cloned().unwrap_or_default();
    let is_there = |model: &&Value| {
        model["status"]["value"].as_str().is_none_or(|status| ["loaded", "loading", "sleeping"].contains(&status))
    };
    models.iter().filter(is_there).filter_map(|model| model["id"].as_str().map(str::to_owned)).collect()
}

fn own(party: &Party) -> Result<&ContainerId, String> {
    let running = party.containers.iter().find(|c| c.state == ContainerState::Running);
    running.map(|container| &container.id).ok_or_else(|| does_not_run(party))
}

fn does_not_run(party: &Party) -> String {
    format!("{} has no running container", party.holder)
}
