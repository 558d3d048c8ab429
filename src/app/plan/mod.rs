//! What would happen: the true controllers, on a simulated copy of what is there now, in simulated time. Touches nothing.
//!
//! The objects are those of a running server, or none; the containers are those an engine shows, or those the objects'
//! statuses speak of. Onto the objects the files are applied by gitops' own code; then time runs, as fast as it can, until
//! nothing changes any more. What the controllers had the simulated engine do is the plan.

mod start;

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

pub use start::{Objects, Reality, images, images_of_files, observe};

use super::{FIELD_MANAGER, StartError, TaskFailure, open_registry, own_kinds, reality::World};
use crate::{
    adapters::simulated::containers::{Behaviour, Effect, Image, Images, SimulatedContainers},
    api::{condition, source::Source, workload::Workload},
    config,
    controllers::{self, Context},
    gitops::{self, Gitops, Next, Syncer, apply_documents, files::real::RealFiles, git::Repositories},
    registry::{ApiError, ListOptions, ObjectName, Registry},
    runtime::{
        clock::{Clock, SimulatedClock},
        events::Recorder,
        metrics::RuntimeMetrics,
        objects::Objects as _,
        registry_objects::RegistryObjects,
        supervisor::Supervisor,
    },
    store::{EmbeddedStore, EngineError, MemoryEngine, Options, Revision, Store},
};

/// Nothing happened for so long: nothing more is going to. Longer than any probe's patience and most backoffs.
const QUIET: Duration = Duration::from_secs(180);
/// What has not come to rest after so long does not come to rest.
const LONGEST: Duration = Duration::from_secs(3600);
/// gitops wants another pass sooner than this: it is not done. It gets so many.
const SOON: Duration = Duration::from_secs(1);
const MOST_PASSES: usize = 20;
/// How often it is looked.
const LOOK: Duration = Duration::from_secs(5);

/// What was found out beforehand.
#[derive(Debug, Default)]
pub struct Start {
    /// As a server gave them; none without a server.
    pub objects: Vec<Objects>,
    pub reality: Reality,
}

/// What would be done, in order, and what stands in the way.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub steps: Vec<String>,
    /// In the files, or said by the registry: `web.yaml:3: …`.
    pub errors: Vec<String>,
    /// What would not be as wished at the end: `default/web: reason: message`.
    pub not_ready: Vec<String>,
    /// It came to rest. If not, the steps are only the first ones.
    pub settled: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("cannot start the simulation")]
    Runtime(#[source] std::io::Error),
    #[error("cannot load the objects of the server")]
    Load(#[source] EngineError),
    #[error("cannot read the simulated objects")]
    Read(#[source] Box<ApiError>),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the simulation broke")]
    Broke(#[from] TaskFailure),
    #[error("cannot observe the containers of this host")]
    Engine(#[source] crate::adapters::containers::EngineError),
}

/// Plays it through. Blocks for as long as it takes, which is much less than the time that is simulated; must not be called
/// inside a runtime.
pub fn plan(start: Start, directory: &Path) -> Result<Plan, PlanError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.map_err(PlanError::Runtime)?.block_on(play(start, directory))
}

async fn play(start: Start, directory: &Path) -> Result<Plan, PlanError> {
    let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::starting_at(Timestamp::now()));
    let engine = simulated(&start.reality, clock.clone());
    let snapshot = start::snapshot(start.objects);
    let store = EmbeddedStore::open(MemoryEngine::holding(&snapshot), Options::default()).map_err(PlanError::Load)?;
    let registry = open_registry(store.clone(), own_kinds()?, clock.clone()).await?;

    let mut supervisor = Supervisor::new();
    // Events are told to nobody: the receiver stays only so that the queue is not closed.
    let (recorder, _inbox) = Recorder::new(clock.clone(), RuntimeMetrics::default());
    let errors = apply(&registry, directory, recorder.clone(), clock.clone()).await;
    controllers::spawn_all(&context(&registry, &engine, recorder, clock), &mut supervisor);

    let mut settled = false;
    let until = async { settled = settle(&engine, &*store).await };
    supervisor.run(until).await?;
    Ok(Plan { steps: steps(&engine), errors, not_ready: not_ready(&registry).await?, settled })
}

/// Images that are there, or made containers of, are present; every other can be pulled. All behave.
fn simulated(reality: &Reality, clock: Arc<dyn Clock>) -> SimulatedContainers {
    let pullable = Image::pullable(Duration::from_secs(1), Behaviour::default());
    let images = Images { others: Some(pullable), ..Images::default() };
    let present = |images: Images, name: &String| images.with(name, Image::present(Behaviour::default()));
    let images = reality.images.iter().fold(images, present);
    SimulatedContainers::from_observed(clock, reality.containers.clone(), images)
}

fn context(
    registry: &Arc<Registry>,
    engine: &SimulatedContainers,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
) -> Context<RegistryObjects> {
    let world = World::simulated(engine);
    Context {
        objects: RegistryObjects { registry: registry.clone(), field_manager: FIELD_MANAGER },
        containers: world.containers,
        probes: world.probes,
        peers: world.peers,
        gpus: world.gpus,
        recorder,
        clock,
        metrics: RuntimeMetrics::default(),
        node: config::host_name(),
        seed: 0,
    }
}

/// The files onto the objects; what is wrong with them. Where the server follows files (its Source `desired`), these take
/// their place, so that what they no longer hold is pruned.
async fn apply(registry: &Arc<Registry>, directory: &Path, recorder: Recorder, clock: Arc<dyn Clock>) -> Vec<String> {
    let source = ObjectName { namespace: None, name: gitops::DESIRED.to_owned() };
    let kind = registry.kinds().of::<Source>();
    if let Some(kind) = kind
        && registry.get(&kind, &source).await.is_ok()
    {
        return sync(registry, directory, recorder, clock).await;
    }
    let loaded = gitops::load_directory(directory, &registry.kinds());
    let mut errors: Vec<String> = loaded.errors.iter().map(start::file_error).collect();
    let applied = apply_documents(registry, &loaded, false).await;
    for (document, result) in loaded.documents.iter().zip(applied) {
        if let Err(error) = result {
            errors.push(format!("{}: {error}", document.place()));
        }
    }
    errors
}

/// Passes of gitops over the Source `desired`, pointed at the directory, until it asks for none soon.
async fn sync(registry: &Arc<Registry>, directory: &Path, recorder: Recorder, clock: Arc<dyn Clock>) -> Vec<String> {
    if let Err(error) = gitops::ensure_desired(registry, directory).await {
        return vec![error.to_string()];
    }
    let files = Arc::new(RealFiles);
    // Other Sources are left as they are: nothing is fetched.
    let repositories = Repositories::new(directory.join(".git-of-gaia-plan"), clock.clone());
    let gitops = Gitops { registry: registry.clone(), recorder, clock, files, repositories };
    let mut syncer = Syncer::new(gitops, gitops::DESIRED);
    for _ in 0..MOST_PASSES {
        match syncer.sync_once().await {
            Ok(Next::After(wait)) if wait < SOON => tokio::time::sleep(wait).await,
            Ok(Next::After(_) | Next::Gone) => break,
            Err(error) => return vec![error.to_string()],
        }
    }
    let objects = RegistryObjects { registry: registry.clone(), field_manager: FIELD_MANAGER };
    let name = ObjectName { namespace: None, name: gitops::DESIRED.to_owned() };
    match objects.get::<Source>(&name).await {
        Ok(source) => {
            let status = source.and_then(|source| source.status.clone()).unwrap_or_default();
            status.errors.iter().map(start::file_error).collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

/// Lets time run until nothing has happened for [`QUIET`]; false if that does not come to pass.
async fn settle(engine: &SimulatedContainers, store: &dyn Store) -> bool {
    let begun = Instant::now();
    let mut last = (0, Revision::default());
    let mut since = begun;
    while begun.elapsed() < LONGEST {
        tokio::time::sleep(LOOK).await;
        let now = (engine.effects().len(), store.revision().await.unwrap_or_default());
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() >= QUIET {
            return true;
        }
    }
    false
}

/// Commands run in containers are looks, not steps.
fn steps(engine: &SimulatedContainers) -> Vec<String> {
    let records = engine.effects().into_iter().map(|record| record.effect);
    records.filter(|effect| !matches!(effect, Effect::Exec { .. })).map(|effect| effect.to_string()).collect()
}

async fn not_ready(registry: &Registry) -> Result<Vec<String>, PlanError> {
    let failed = |error| PlanError::Read(Box::new(error));
    let Some(kind) = registry.kinds().of::<Workload>() else { return Ok(Vec::new()) };
    let list = registry.list(&kind, None, &ListOptions::default()).await.map_err(failed)?;
    let mut out = Vec::new();
    for version in &list.items {
        let workload: Workload =
            serde_json::from_value(version.object.clone()).map_err(|e| failed(ApiError::internal(e)))?;
        let conditions = workload.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        if condition::is_true(conditions, condition::READY) {
            continue;
        }
        let why = conditions.iter().find(|c| c.type_ == condition::READY);
        let why = why.map_or_else(|| "nobody looked at it".to_owned(), |c| format!("{}: {}", c.reason, c.message));
        let name = ObjectName::of(&version.object);
        out.push(format!("{}/{}: {why}", name.namespace.unwrap_or_default(), name.name));
    }
    Ok(out)
}
