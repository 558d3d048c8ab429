//! Faults by plan: a scenario is played once without any, and then once for everything that can go wrong at each of its effects,
//! looks and notifications. Whatever the fault, the end and the effects that it took must be those of the run without one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use gaia::{
    adapters::{
        containers::{ContainerState, EngineEvent},
        simulated::containers::{Delivery, Effect, Fault, Faults},
    },
    api::label,
};
use tokio::time::sleep;

use crate::{
    bugs::Bug,
    oracle,
    people::DIRECTORY,
    scenarios::Scenario,
    story::Story,
    world::{World, converge, play},
};

/// Even: without a card.
const SEED: u64 = 4_242;
/// After convergence, for what a fault has only put off: a relist, a backoff, an answer that comes late.
const AFTERWARDS: Duration = Duration::from_secs(150);
const LATE: Duration = Duration::from_secs(3);

/// One fault, at one place.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Nothing,
    Before(usize, Fault),
    After(usize, Fault),
    Look(usize, Fault),
    Told(usize, Delivery),
    /// The notification is lost and the process dies: it starts from what it had stored before.
    DiesUntold(usize),
}

/// Everything that can go wrong: crash before, crash after, done but the answer lost, refused, hung, slow; a look
/// that is refused or crashes; a notification hidden, duplicated, delayed, a restart with the stale view.
fn all(seen: Seen) -> Vec<Plan> {
    let effects = (0..seen.effects).flat_map(|at| {
        let before = [Fault::Crash, Fault::Refuse, Fault::Hang, Fault::Slow(LATE)].map(|fault| Plan::Before(at, fault));
        let after =
            [Fault::Crash, Fault::LoseAnswer, Fault::Hang, Fault::Slow(LATE)].map(|fault| Plan::After(at, fault));
        before.into_iter().chain(after)
    });
    let told = (0..seen.notifications).flat_map(|at| {
        let deliveries = [Delivery::Hide, Delivery::Duplicate, Delivery::Delay(LATE)];
        deliveries.into_iter().map(move |delivery| Plan::Told(at, delivery)).chain([Plan::DiesUntold(at)])
    });
    let looks = (0..seen.looks).flat_map(|at| [Fault::Crash, Fault::Refuse].map(|fault| Plan::Look(at, fault)));
    effects.chain(looks).chain(told).collect()
}

/// How far a scenario has come.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    effects: usize,
    looks: usize,
    notifications: usize,
}

/// Faults of one plan. Counts from when the scenario begins.
#[derive(Clone)]
struct Planned {
    world: World,
    plan: Plan,
    begun: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    struck: Arc<AtomicBool>,
}

impl Planned {
    fn new(world: &World, plan: Plan) -> Self {
        Self { world: world.clone(), plan, begun: Arc::default(), seen: Arc::default(), struck: Arc::default() }
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    fn seen(&self) -> Seen {
        *self.seen.lock().expect("never poisoned")
    }

    fn strikes(&self, what: impl fmt::Debug, at: impl fmt::Display) {
        self.struck.store(true, Ordering::Relaxed);
        self.world.story.tell(format_args!("    PLAN {what:?}: {at}"));
    }
}

impl Faults for Planned {
    fn before(&mut self, effect: &Effect) -> Fault {
        self.world.story.tell(format_args!("  {effect}"));
        oracle::before_effect(&self.world, effect);
        match self.plan {
            Plan::Before(at, fault) if self.has_begun() && self.seen().effects == at => {
                self.strikes(fault, effect);
                // Never again: the next attempt is another effect.
                self.seen.lock().expect("never poisoned").effects += 1;
                fault
            }
            _ => Fault::None,
        }
    }

    fn after(&mut self, effect: &Effect) -> Fault {
        oracle::after_effect(&self.world, effect);
        if !self.has_begun() {
            return Fault::None;
        }
        let at = self.seen().effects;
        self.seen.lock().expect("never poisoned").effects += 1;
        match self.plan {
            Plan::After(planned, fault) if planned == at => {
                self.strikes(fault, effect);
                fault
            }
            _ => Fault::None,
        }
    }

    fn read(&mut self) -> Fault {
        if !self.has_begun() {
            return Fault::None;
        }
        let at = self.seen().looks;
        self.seen.lock().expect("never poisoned").looks += 1;
        match self.plan {
            Plan::Look(planned, fault) if planned == at => {
                self.strikes(fault, "while looking");
                fault
            }
            _ => Fault::None,
        }
    }

    fn notification(&mut self, event: &EngineEvent) -> Delivery {
        if !self.has_begun() {
            return Delivery::Deliver;
        }
        let at = self.seen().notifications;
        self.seen.lock().expect("never poisoned").notifications += 1;
        match self.plan {
            Plan::Told(planned, delivery) if planned == at => {
                self.strikes(delivery, format_args!("{event:?}"));
                delivery
            }
            Plan::DiesUntold(planned) if planned == at => {
                self.strikes("dies untold", format_args!("{event:?}"));
                self.world.kill.notify_one();
                Delivery::Hide
            }
            _ => Delivery::Deliver,
        }
    }
}

/// What a scenario comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    /// By name: state, spec, networks.
    containers: BTreeMap<String, String>,
    /// What was done, and how often.
    effects: BTreeMap<Effect, usize>,
}

fn end(world: &World, since: usize) -> End {
    let told = |c: gaia::adapters::containers::Container| {
        let runs = c.state == ContainerState::Running;
        let spec = c.labels.get(label::SPEC_HASH).cloned().unwrap_or_default();
        let known: Vec<String> = c.attachments.iter().map(|a| format!("{}: {:?}", a.network, a.aliases)).collect();
        (c.name, format!("runs: {runs}, made as {spec} from {}, answers as {known:?}", c.image))
    };
    let mut effects = BTreeMap::new();
    for record in world.engine.effects().into_iter().skip(since) {
        *effects.entry(record.effect).or_default() += 1;
    }
    End { containers: world.engine.observed().into_iter().map(told).collect(), effects }
}

fn run(scenario: &Scenario, plan: Plan, bug: Bug, story: &Story) -> Result<(End, Seen), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(async {
        let world = World::new(SEED, bug, story.clone());
        world.no_chance();
        let planned = Planned::new(&world, plan);
        let script = async {
            world.files.make_directory(DIRECTORY);
            (scenario.before)(&world);
            converge(&world).await.map_err(|why| format!("before it begins: {why}"))?;
            let since = world.engine.effects().len();
            world.story.tell(format_args!("{}: begins", scenario.name));
            planned.begun.store(true, Ordering::Relaxed);
            (scenario.act)(&world).await;
            converge(&world).await?;
            sleep(AFTERWARDS).await;
            converge(&world).await?;
            if !planned.struck.load(Ordering::Relaxed) && !matches!(plan, Plan::Nothing) {
                return Err("the fault has not struck: this run is not the one that was planned from".to_owned());
            }
            Ok((end(&world, since), planned.seen()))
        };
        play(&world, planned.clone(), script).await
    })
}

/// Plays `scenario` with every plan; how many there were.
fn every_plan(scenario: &Scenario, bug: Bug) -> Result<usize, String> {
    let undisturbed = run(scenario, Plan::Nothing, bug, &Story::default());
    let (undisturbed, seen) = undisturbed.map_err(|why| format!("{}: {why}", scenario.name))?;
    if undisturbed.effects.is_empty() && scenario.does_something {
        return Err(format!("{}: nothing is done", scenario.name));
    }
    for plan in all(seen) {
        let story = Story::default();
        let failed = match run(scenario, plan, bug, &story) {
            Ok((end, _)) if end == undisturbed => continue,
            Ok((end, _)) => format!("without a fault:\n{undisturbed:#?}\nwith it:\n{end:#?}"),
            Err(why) => why,
        };
        return Err(format!("{story}\n{}, {plan:?}: {failed}", scenario.name));
    }
    Ok(all(seen).len())
}

/// The scenarios on every core; what failed, and how many plans were played.
pub fn every_scenario(scenarios: &[Scenario]) -> (Vec<String>, usize) {
    let (next, played) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut failed = Vec::new();
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            match every_plan(scenario, Bug::None) {
                Ok(plans) => {
                    println!("{}: {plans} plans", scenario.name);
                    played.fetch_add(plans, Ordering::Relaxed);
                }
                Err(why) => failed.push(why),
            }
        }
        failed
    };
    let failed = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a simulation does not panic")).collect()
    });
    (failed, played.into_inner())
}

/// The first plan of all that finds `bug`, in words.
pub fn found(scenarios: &[Scenario], bug: Bug) -> Option<String> {
    let why = scenarios.iter().find_map(|scenario| every_plan(scenario, bug).err())?;
    Some(why.lines().rev().find(|line| line.contains(": ")).unwrap_or(&why).to_owned())
}
