//! Everything that outlives the process: the disk, the engine, the files, and what people did to them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use gaia::{
    adapters::simulated::{
        containers::{Behaviour, CardFault, Faults, Image, Images, NoFaults, SimulatedContainers},
        gpus::SimulatedGpus,
    },
    gitops::files::simulated::SimulatedFiles,
    registry::{Registry, SeededIds},
    runtime::clock::{Clock, SimulatedClock},
    store::{MemoryEngine, Revision},
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use crate::{
    bugs::Bug,
    cards,
    faults::Trouble,
    holders::{self, Ledger},
    oracle, people, process,
    size::Size,
    story::Story,
    writes::Writes,
};

/// From the end of the faults to convergence, at most: the longest crash backoff and relist fit in several times.
const PATIENCE: Duration = Duration::from_secs(40 * 60);

/// Clones are handles on the same world.
#[derive(Clone)]
pub struct World {
    pub seed: u64,
    pub size: Size,
    pub bug: Bug,
    pub story: Story,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<SeededIds>,
    pub disk: MemoryEngine,
    pub engine: SimulatedContainers,
    /// Half of the seeds have a card, and everybody who quarrels about it.
    pub has_cards: bool,
    pub gpus: SimulatedGpus,
    pub files: SimulatedFiles,
    /// What people want, to tell whether they got it.
    pub wishes: Arc<Mutex<people::Wishes>>,
    /// Of the running process.
    pub registry: watch::Sender<Option<Arc<Registry>>>,
    /// kill -9.
    pub kill: Arc<Notify>,
    /// What happens to writes of the store.
    pub writes: Writes,
    chaos: Arc<AtomicBool>,
    rng: Arc<Mutex<fastrand::Rng>>,
    violation: watch::Sender<Option<String>>,
    acknowledged: Arc<Mutex<Revision>>,
    /// How the driver is.
    driver: Arc<Mutex<CardFault>>,
    ledger: Arc<Mutex<Ledger>>,
    /// What people did that may move a card.
    causes: Arc<AtomicUsize>,
}

impl World {
    pub fn new(seed: u64, bug: Bug, story: Story) -> Self {
        let start = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::starting_at(start));
        let engine = SimulatedContainers::new(clock.clone(), images());
        Self {
            seed,
            size: Size::of(seed),
            bug,
            story,
            clock,
            ids: Arc::new(SeededIds::new(seed)),
            disk: MemoryEngine::default(),
            has_cards: seed % 2 == 1,
            gpus: SimulatedGpus::of_24_gib(engine.clone(), 1),
            engine,
            files: SimulatedFiles::default(),
            wishes: Arc::default(),
            registry: watch::Sender::new(None),
            kill: Arc::default(),
            writes: Writes::default(),
            chaos: Arc::new(AtomicBool::new(true)),
            rng: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            violation: watch::Sender::new(None),
            acknowledged: Arc::default(),
            driver: Arc::default(),
            ledger: Arc::default(),
            causes: Arc::default(),
        }
    }

    pub fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().expect("never poisoned")
    }

    /// From here on nothing fails by chance.
    pub fn no_chance(&self) {
        self.chaos.store(false, Ordering::Relaxed);
    }

    /// True with a chance of `percent`, while faults are on.
    pub fn strikes(&self, percent: f64) -> bool {
        self.chaos.load(Ordering::Relaxed) && self.rng().f64() * 100.0 < percent
    }

    /// Something that must never happen has happened. The first one counts.
    pub fn violated(&self, what: String) {
        self.story.tell(format_args!("VIOLATION {what}"));
        self.violation.send_if_modified(|violation| {
            let first = violation.is_none();
            violation.get_or_insert(what);
            first
        });
    }

    pub fn is_violated(&self) -> bool {
        self.violation.borrow().is_some() || self.story.is_endless()
    }

    pub async fn violation(&self) -> String {
        let mut violation = self.violation.subscribe();
        let found = violation.wait_for(Option::is_some).await.expect("the sender is ours");
        found.clone().expect("waited for it")
    }

    /// A write was acknowledged: it must survive every crash from here on.
    pub fn acknowledge(&self, revision: Revision) {
        let mut last = self.acknowledged.lock().expect("never poisoned");
        *last = last.max(revision);
    }

    pub fn acknowledged(&self) -> Revision {
        *self.acknowledged.lock().expect("never poisoned")
    }

    pub fn driver(&self) -> CardFault {
        *self.driver.lock().expect("never poisoned")
    }

    pub fn set_driver(&self, trouble: CardFault) {
        *self.driver.lock().expect("never poisoned") = trouble;
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("never poisoned")
    }

    /// Counts a reason for which a card may change hands, and numbers it.
    pub fn cause(&self) -> usize {
        self.causes.fetch_add(1, Ordering::Relaxed)
    }

    pub fn causes(&self) -> usize {
        self.causes.load(Ordering::Relaxed)
    }

    /// The registry, once a process is up.
    pub async fn registry(&self) -> Arc<Registry> {
        let mut registry = self.registry.subscribe();
        let up = registry.wait_for(Option::is_some).await.expect("the sender is ours");
        up.clone().expect("waited for it")
    }
}

fn images() -> Images {
    let behave = Behaviour::default;
    let seconds = Duration::from_secs;
    cards::images(Images::default())
        .with("app:1", Image::present(behave()))
        .with("app:2", Image::pullable(seconds(7), behave()))
        .with("slow:1", Image::present(Behaviour { ready_after: Some(seconds(20)), ..behave() }))
        .with("checked:1", Image::present(Behaviour { healthcheck: true, ready_after: Some(seconds(3)), ..behave() }))
        .with("stubborn:1", Image::present(Behaviour { ignores_stop: true, ..behave() }))
        .with("crash:1", Image::present(Behaviour { exits: Some((seconds(2), 1)), ..behave() }))
        .with("broken:1", Image::present(Behaviour { start_fails: Some("no such executable".into()), ..behave() }))
}

/// One seed: trouble, then peace, then a check that peace stays.
pub async fn run(seed: u64, bug: Bug, story: Story) -> Result<(), String> {
    let world = World::new(seed, bug, story);
    people::set_the_scene(&world);
    play(&world, Trouble { world: world.clone() }, script(&world)).await
}

/// `script` beside gaia, until it ends or something happens that must never happen.
pub async fn play<T>(
    world: &World,
    faults: impl Faults + 'static,
    script: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    world.engine.set_faults(faults);
    let result = tokio::select! {
        biased;
        violation = world.violation() => Err(violation),
        () = world.story.endless() => Err("there is no end to it".to_owned()),
        result = script => result,
        never = process::keep_running(world) => match never {},
    };
    // The engine holds the faults and these the world, which holds the engine; so it is with the store. Thousands of worlds would
    // never be freed.
    world.engine.set_faults(NoFaults);
    world.writes.mend();
    world.registry.send_replace(None);
    result
}

async fn script(world: &World) -> Result<(), String> {
    let trouble = Duration::from_millis(world.rng().u64(world.size.trouble_ms.clone()));
    if let Ok(never) = tokio::time::timeout(trouble, people::live(world)).await {
        match never {}
    }
    world.no_chance();
    people::make_peace(world).await;
    world.story.tell("peace: from here on everything must come right");
    converge(world).await?;
    world.story.tell("converged");
    let first = world.rng().usize(..QUIETS.len());
    for quiet in QUIETS.iter().cycle().skip(first).take(world.size.quiets) {
        stay_quiet(world, *quiet).await?;
    }
    converge(world).await
}

/// After which nothing may be touched.
#[derive(Debug, Clone, Copy)]
enum Quiet {
    Nothing,
    Restart,
    EngineAway,
}

const QUIETS: [Quiet; 3] = [Quiet::Nothing, Quiet::Restart, Quiet::EngineAway];

impl Quiet {
    fn because(self) -> &'static str {
        match self {
            Quiet::Nothing => "nobody did anything",
            Quiet::Restart => "gaia was killed and started again",
            Quiet::EngineAway => "the engine did not answer for a while",
        }
    }

    async fn happen(self, world: &World) {
        match self {
            Quiet::Nothing => {}
            Quiet::Restart => world.kill.notify_one(),
            Quiet::EngineAway => {
                world.engine.engine_down();
                sleep(Duration::from_secs(45)).await;
                world.engine.engine_up();
            }
        }
    }
}

pub async fn converge(world: &World) -> Result<(), String> {
    let mut waited = Duration::ZERO;
    let step = Duration::from_secs(5);
    loop {
        match oracle::converged(world).await {
            Ok(()) => return Ok(()),
            Err(why) if waited >= PATIENCE => return Err(format!("does not converge: {why}")),
            Err(_) => sleep(step).await,
        }
        waited += step;
    }
}

/// Whatever happens, no container may be touched because of it.
async fn stay_quiet(world: &World, quiet: Quiet) -> Result<(), String> {
    let because = quiet.because();
    let before = world.engine.effects();
    let running = oracle::running(world);
    let resting = holders::resting(world);
    world.story.tell(format_args!("{because}: nothing may be touched"));
    quiet.happen(world).await;
    sleep(world.size.quiet).await;
    let after = world.engine.effects();
    if let Some(record) = after.get(before.len()..).and_then(|new| new.first()) {
        return Err(format!("{because}, and yet: {}", record.effect));
    }
    let now = oracle::running(world);
    if running != now {
        return Err(format!("{because}, and what runs went from {running:?} to {now:?}"));
    }
    let now = holders::resting(world);
    if resting != now {
        return Err(format!("{because}, and the card went from {resting:?} to {now:?}"));
    }
    Ok(())
}

/// Sorted by name, for stories and comparisons.
pub type ByName<T> = BTreeMap<String, T>;
