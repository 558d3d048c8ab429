//! `container`: a container on the worker's Docker engine, with nothing of the host in it but the attempt's own directory.
//!
//! ```yaml
//! spec:
//!   taskType: container
//!   container: {image: python:3.13, command: [python3], args: [-c, print(1)], env: {A: b}, timeoutSeconds: 3600}
//! ```
//!
//! The attempt's directory is at `/gaia`: `$GAIA_DOCUMENT`, `$GAIA_ARTIFACTS` and `$GAIA_RESULT` lie there, and paths of
//! `spec.output.artifacts` are below `/gaia/work`. It gets as many GPUs as `spec.resources` asks for, or as it says itself; of a task that
//! holds cards these, unless its document names cards by their ids.
//!
//! The container is removed whatever happens. It carries the identity of the worker's directory, so one that could not be removed, for
//! the engine or the worker was gone, is found by the next attempt or the next start.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    fs,
    time::{interval_at, timeout},
};
use tracing::{info, warn};

use super::{Executor, Failure, Job, STOP_GRACE, Work, check_variables, last_lines, time_limit};
use crate::{
    adapters::containers::{
        Container, ContainerId, ContainerRequest, ContainerState, Containers, EngineError, EngineResult, PullProgress,
        docker::{DockerEngine, Printed, PrintedTo},
    },
    api::container::{ContainerSpec, Gpus, ImagePullPolicy, Mount, Resources},
    worker::{
        artifacts::{self, Named},
        home::Home,
        logs::{Log, Stream},
        output::Output,
    },
};

/// Its value is the [identity](Home::identity) of the worker's directory.
const HOME: &str = "gaia.dev/worker-home";
const TASK: &str = "gaia.dev/task";
const ATTEMPT: &str = "gaia.dev/attempt";
/// Where the attempt's directory is in the container.
const MOUNTED: &str = "/gaia";
/// How often the engine is asked for the state of a container whose log says nothing, and of one whose log has ended.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The rest of a log, after the container has ended.
const REST_WITHIN: Duration = Duration::from_secs(2);
/// Stop and removal together; the agent waits a little longer.
const REMOVED_WITHIN: Duration = Duration::from_secs(9);
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Runs containers on one engine.
pub struct DockerTasks {
    engine: DockerEngine,
    network: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    image: String,
    /// In the place of the image's entrypoint.
    command: Option<Vec<String>>,
    /// In the place of the image's command.
    args: Option<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    user: Option<String>,
    working_dir: Option<String>,
    image_pull_policy: Option<ImagePullPolicy>,
    gpus: Option<Devices>,
    limits: Option<Limits>,
    timeout_seconds: Option<u64>,
}

/// -1: all.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Devices {
    count: Option<i64>,
    #[serde(default)]
    device_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Limits {
    cpus: Option<String>,
    memory: Option<String>,
    shm_size: Option<String>,
    pids: Option<i64>,
}

impl Executor for DockerTasks {
    fn task_type(&self) -> &'static str {
        "container"
    }

    fn data_types(&self) -> Option<&'static [&'static str]> {
        None
    }

    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Value, Failure>> {
        self.execute(job).boxed()
    }

    fn clear_away<'a>(&'a self, home: &'a Home) -> BoxFuture<'a, ()> {
        async move {
            if let Err(error) = self.sweep(&home.identity).await {
                // Every attempt begins with it as well.
                warn!(%error, "containers of an earlier run of this worker could not be looked for");
            }
        }
        .boxed()
    }
}

impl DockerTasks {
    /// On the engine of `DOCKER_HOST`, on this network. None: the engine's usual one.
    pub fn new(network: Option<String>) -> Self {
        Self { engine: DockerEngine::from_env(), network }
    }

    async fn execute(&self, job: &Job) -> Result<Value, Failure> {
        let spec: Spec = job.part("container")?;
        check(&spec)?;
        let limit = time_limit("spec.container.timeoutSeconds", spec.timeout_seconds)?;
        let named = Named::of(job.spec())?;
        let work = Work::prepare(job).await?;
        open(job, &work).await.map_err(|error| Failure::Failed(format!("cannot prepare the directory: {error}")))?;
        let name = format!("gaia-task-{}", uuid::Uuid::new_v4().simple());
        let request = self.request(&spec, job, &work, &name);
        let run = self.run_container(&spec, job, &request, limit);
        let ended = job.cancel.run_until_cancelled(run).await;
        self.remove_whatever_happens(&name, &job.log).await;
        let (container, stdout, stderr) = ended.ok_or(Failure::Cancelled)??;
        if container.exit_code != 0 || container.oom_killed {
            let killed = if container.oom_killed { ", killed for want of memory" } else { "" };
            let last = last_lines(&stdout, &stderr);
            return Err(Failure::Failed(format!("exit code {}{killed}{last}", container.exit_code)));
        }
        named.collect(&work.directory, &job.artifacts).await?;
        let mut result = artifacts::told(job).await?;
        let said = json!({"ok": true, "exit_code": 0, "stdout": stdout, "stderr": stderr,
            "value": work.value().await?, "image": spec.image, "image_id": container.image_id});
        result.extend(said.as_object().cloned().unwrap_or_default());
        Ok(Value::Object(result))
    }

    fn request(&self, spec: &Spec, job: &Job, work: &Work, name: &str) -> ContainerRequest {
        let mut env = spec.env.clone();
        let variables = work.variables(job, Path::new(MOUNTED));
        env.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let asked = job.spec().pointer("/resources/hardware/gpu/count").and_then(Value::as_i64).filter(|n| *n > 0);
        let gpus = devices(spec.gpus.as_ref(), &job.order.gpus, asked);
        let resources = spec.limits.as_ref().map(|limits| Resources {
            cpus: limits.cpus.clone(),
            memory: limits.memory.clone(),
            shm_size: limits.shm_size.clone(),
            pids: limits.pids,
            ..Resources::default()
        });
        let source = job.directory.to_string_lossy().into_owned();
        let mount = Mount { source: Some(source), target: MOUNTED.to_owned(), ..Mount::default() };
        let labels = [(HOME, &job.home.identity), (TASK, &job.order.task), (ATTEMPT, &job.order.attempt)];
        ContainerRequest {
            name: name.to_owned(),
            spec: ContainerSpec {
                image: spec.image.clone(),
                command: spec.command.clone(),
                args: spec.args.clone(),
                env,
                user: spec.user.clone(),
                working_dir: spec.working_dir.clone(),
                mounts: vec![mount],
                gpus,
                resources,
                ..ContainerSpec::default()
            },
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect(),
            networks: self.network.iter().map(|network| (network.clone(), Vec::new())).collect(),
        }
    }

    /// Until it has ended; with the ends of what it printed.
    async fn run_container(
        &self,
        spec: &Spec,
        job: &Job,
        request: &ContainerRequest,
        limit: Duration,
    ) -> Result<(Container, String, String), Failure> {
        if let Err(error) = self.sweep(&job.home.identity).await {
            return Err(of_engine("spec.container", &error));
        }
        self.have_image(spec, job).await?;
        let made = match self.engine.create(request).await {
            // It may be there without an answer: its name is this attempt's alone.
            Err(EngineError::MayHaveTakenEffect(_)) => self.named(&request.name).await,
            made => made,
        };
        let id = made.map_err(|error| of_engine("spec.container", &error))?;
        match self.engine.start(&id).await {
            // What follows looks at it.
            Ok(()) | Err(EngineError::MayHaveTakenEffect(_)) => {}
            Err(error) => return Err(of_engine("spec.container", &error)),
        }
        let mut shown = Shown {
            out: Output::new(job.log.clone(), Stream::Stdout),
            err: Output::new(job.log.clone(), Stream::Stderr),
            seen: (0, 0),
        };
        let ended = timeout(limit, self.follow(&id, &mut shown)).await;
        let (stdout, stderr) = (shown.out.finish(), shown.err.finish());
        match ended {
            Ok(container) => Ok((container?, stdout, stderr)),
            Err(_) => Err(Failure::Failed(format!(
                "spec.container.timeoutSeconds: it was stopped after {} seconds{}",
                limit.as_secs(),
                last_lines(&stdout, &stderr)
            ))),
        }
    }

    async fn have_image(&self, spec: &Spec, job: &Job) -> Result<(), Failure> {
        let failed = |error: EngineError| of_engine("spec.container.image", &error);
        let wanted = match spec.image_pull_policy.unwrap_or_default() {
            ImagePullPolicy::Never => false,
            ImagePullPolicy::Always => true,
            ImagePullPolicy::IfNotPresent => self.engine.image(&spec.image).await.map_err(failed)?.is_none(),
        };
        if !wanted {
            return Ok(());
        }
        job.log.line(Stream::Worker, &format!("pulling {}", spec.image));
        let told: Mutex<Option<Instant>> = Mutex::new(None);
        let progress = |progress: PullProgress| {
            let mut told = told.lock().expect("nothing panics while it holds this lock");
            if told.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY) {
                *told = Some(Instant::now());
                job.log.line(Stream::Worker, &words(&progress));
            }
        };
        self.engine.pull(&spec.image, &progress).await.map_err(failed)?;
        job.log.line(Stream::Worker, &format!("{} is pulled", spec.image));
        Ok(())
    }

    async fn named(&self, name: &str) -> EngineResult<ContainerId> {
        let found = self.engine.inspect(name).await?;
        found.map(|container| container.id).ok_or_else(|| EngineError::NotFound(format!("container {name}")))
    }

    /// Follows what it prints until it has ended. An engine that is away is waited for, and read from where it broke off.
    async fn follow(&self, id: &ContainerId, shown: &mut Shown) -> Result<Container, Failure> {
        let (mut pause, mut lost) = (FIRST_PAUSE, false);
        loop {
            let before = shown.seen;
            lost |= self.read_log(id, shown).await.is_err();
            match self.engine.inspect(&id.0).await {
                Ok(None) => return Err(Failure::Failed("somebody else has removed its container".to_owned())),
                Ok(Some(seen)) if has_ended(seen.state) => {
                    if lost {
                        // After a crash an engine tells of containers that went down with it what it does not know.
                        let why = "the engine went away while it ran; how it ended is not known";
                        return Err(Failure::Failed(why.to_owned()));
                    }
                    return Ok(seen);
                }
                Ok(Some(_)) => lost = false,
                Err(EngineError::Unreachable(why)) | Err(EngineError::MayHaveTakenEffect(why)) => {
                    if !lost {
                        warn!(why, "the engine does not answer; its container is waited for");
                    }
                    lost = true;
                }
                Err(error) => return Err(of_engine("spec.container", &error)),
            }
            pause = if shown.seen == before { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            tokio::time::sleep(pause).await;
        }
    }

    /// Until the log ends, or the container has. Err: the connection was lost.
    async fn read_log(&self, id: &ContainerId, shown: &mut Shown) -> EngineResult<()> {
        let mut log = self.engine.follow_logs(id);
        let mut skip = shown.seen;
        let mut look = interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        loop {
            // A tick that is not taken is taken by the next turn; so is what is printed.
            tokio::select! {
                biased;
                printed = log.next() => match printed {
                    Some(printed) => shown.take(&printed?, &mut skip),
                    None => return Ok(()),
                },
                // A connection may hang without an end.
                _ = look.tick() => match self.engine.inspect(&id.0).await {
                    Ok(Some(seen)) if !has_ended(seen.state) => {}
                    Ok(_) => {
                        let rest = async {
                            while let Some(Ok(printed)) = log.next().await {
                                shown.take(&printed, &mut skip);
                            }
                        };
                        timeout(REST_WITHIN, rest).await.ok();
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Stops and removes what earlier attempts of this worker left.
    async fn sweep(&self, identity: &str) -> EngineResult<()> {
        for left in self.engine.summaries(Some((HOME, Some(identity)))).await? {
            info!(container = left.name, "the container of an earlier attempt is removed");
            self.remove(&left.id).await?;
        }
        Ok(())
    }

    async fn remove(&self, id: &ContainerId) -> EngineResult<()> {
        match self.engine.stop(id, STOP_GRACE).await {
            Ok(()) | Err(EngineError::NotFound(_)) => self.engine.remove(id).await,
            Err(error) => Err(error),
        }
    }

    async fn remove_whatever_happens(&self, name: &str, log: &Log) {
        let removed = async {
            match self.engine.inspect(name).await? {
                Some(container) => self.remove(&container.id).await,
                None => Ok(()),
            }
        };
        let why = match timeout(REMOVED_WITHIN, removed).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the engine takes too long".to_owned(),
        };
        warn!(container = name, why, "a container is not removed yet; the next attempt does");
        log.line(Stream::Worker, &format!("its container {name} is not removed yet: {why}"));
    }
}

/// The cards of a container: those that its document names, else those that the task holds, else so many.
fn devices(named: Option<&Devices>, held: &[String], asked: Option<i64>) -> Option<Gpus> {
    let by_id = named.map(|named| named.device_ids.as_slice()).filter(|ids| !ids.is_empty()).unwrap_or(held);
    let count = match named {
        _ if !by_id.is_empty() => None,
        Some(named) => named.count,
        None => asked,
    };
    (count.is_some() || !by_id.is_empty()).then(|| Gpus { count, device_ids: by_id.to_vec(), ..Gpus::default() })
}

/// What has been shown of what a container printed.
struct Shown {
    out: Output,
    err: Output,
    /// Bytes of either.
    seen: (usize, usize),
}

impl Shown {
    /// `skip`: what a log that begins anew tells again.
    fn take(&mut self, printed: &Printed, skip: &mut (usize, usize)) {
        let (output, seen, skip) = match printed.stream {
            PrintedTo::Stdout => (&mut self.out, &mut self.seen.0, &mut skip.0),
            PrintedTo::Stderr => (&mut self.err, &mut self.seen.1, &mut skip.1),
        };
        let known = printed.bytes.len().min(*skip);
        *skip -= known;
        let new = &printed.bytes[known..];
        *seen += new.len();
        output.take(new);
    }
}

fn has_ended(state: ContainerState) -> bool {
    match state {
        ContainerState::Exited | ContainerState::Dead => true,
        ContainerState::Created
        | ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Restarting
        | ContainerState::Removing => false,
    }
}

fn check(spec: &Spec) -> Result<(), Failure> {
    let wrong = |field: &str, why: &str| Failure::Failed(format!("spec.container.{field}: {why}"));
    if spec.image.is_empty() {
        return Err(wrong("image", "must name an image"));
    }
    if spec.working_dir.as_ref().is_some_and(|path| !path.starts_with('/')) {
        return Err(wrong("workingDir", "must begin with /"));
    }
    if let Some(gpus) = &spec.gpus
        && gpus.count.is_some() != gpus.device_ids.is_empty()
    {
        return Err(wrong("gpus", "must have one of count and deviceIds"));
    }
    check_variables("spec.container.env", &spec.env)
}

/// Docker's complaint, at the field that it is about as far as that is known.
fn of_engine(field: &str, error: &EngineError) -> Failure {
    Failure::Failed(format!("{field}: {error}"))
}

/// The container's user is another one than the worker's. Nobody else gets that far: the directory above is the worker's alone.
async fn open(job: &Job, work: &Work) -> std::io::Result<()> {
    let all: [&PathBuf; 4] = [&job.directory, &job.artifacts, &work.directory, &work.temporary];
    for path in all {
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).await?;
    }
    Ok(())
}

fn words(progress: &PullProgress) -> String {
    let mib = |bytes: u64| bytes >> 20;
    format!(
        "pulling: {} of {} layers, {} of {} MiB",
        progress.layers_done,
        progress.layers,
        mib(progress.bytes_done),
        mib(progress.bytes)
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::worker::{logs::LogBuffer, message::Order};

    #[rstest]
    #[case(json!({"image": ""}), "spec.container.image: ")]
    #[case(json!({"image": "a", "workingDir": "b"}), "spec.container.workingDir: ")]
    #[case(json!({"image": "a", "gpus": {}}), "spec.container.gpus: ")]
    #[case(json!({"image": "a", "gpus": {"count": 1, "deviceIds": ["0"]}}), "spec.container.gpus: ")]
    #[case(json!({"image": "a", "env": {"GAIA_X": "1"}}), "spec.container.env.GAIA_X: ")]
    fn a_wrong_field_is_told_with_its_path(#[case] spec: Value, #[case] told: &str) {
        let Err(Failure::Failed(why)) = check(&serde_json::from_value(spec).expect("a spec")) else { panic!("taken") };
        assert!(why.starts_with(told), "{why}");
    }

    #[rstest]
    #[case(json!(null), &[], None, None, &[])]
    #[case(json!(null), &[], Some(2), Some(2), &[])]
    #[case(json!(null), &["GPU-1"], Some(1), None, &["GPU-1"])]
    #[case(json!({"count": -1}), &[], Some(1), Some(-1), &[])]
    #[case(json!({"count": -1}), &["GPU-1"], Some(1), None, &["GPU-1"])]
    #[case(json!({"deviceIds": ["0"]}), &["GPU-1"], Some(1), None, &["0"])]
    fn a_container_gets_the_cards_that_its_task_holds(
        #[case] named: Value,
        #[case] held: &[&str],
        #[case] asked: Option<i64>,
        #[case] count: Option<i64>,
        #[case] ids: &[&str],
    ) {
        let named: Option<Devices> = serde_json::from_value(named).expect("devices");
        let held: Vec<String> = held.iter().map(|uuid| (*uuid).to_owned()).collect();
        let got = devices(named.as_ref(), &held, asked).unwrap_or_default();
        assert_eq!((got.count, got.device_ids), (count, ids.iter().map(|id| (*id).to_owned()).collect()));
    }

    #[test]
    fn a_log_that_begins_anew_is_not_shown_twice() {
        let order = Order { task: "t".into(), attempt: "1".into(), ..Order::default() };
        let log = LogBuffer::default().of(&order);
        let (out, err) = (Output::new(log.clone(), Stream::Stdout), Output::new(log, Stream::Stderr));
        let mut shown = Shown { out, err, seen: (0, 0) };
        let printed = |stream, text: &str| Printed { stream, bytes: text.into() };
        shown.take(&printed(PrintedTo::Stdout, "one\n"), &mut (0, 0));
        shown.take(&printed(PrintedTo::Stderr, "oops\n"), &mut (0, 0));
        let mut skip = shown.seen;
        shown.take(&printed(PrintedTo::Stdout, "one\ntwo\n"), &mut skip);
        shown.take(&printed(PrintedTo::Stderr, "oops\n"), &mut skip);
        assert_eq!((shown.out.finish(), shown.err.finish()), ("one\ntwo\n".to_owned(), "oops\n".to_owned()));
    }
}
