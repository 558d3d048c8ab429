//! Faults by plan: a scenario is played once without any, and then once for everything that can go wrong at each of its effects,
//! looks, notifications, requests and writes. Whatever the fault, the end and the effects that it took must be those of the run
//! without one; where people are told otherwise, [`Sameness`] says why.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use gaia::{
    adapters::{
        containers::ContainerState,
        simulated::containers::{CardFault, Effect, Fault, PeerFault},
    },
    api::label,
};
use tokio::time::sleep;

use crate::{
    bugs::Bug,
    holders,
    people::DIRECTORY,
    planned::{Plan, Planned, Seen, all},
    scenarios::Scenario,
    story::Story,
    world::{World, converge, play},
};

/// Even: without a card. The next is a world with one.
const SEED: u64 = 4_242;
/// After convergence, for what a fault has only put off: a relist, a backoff, an answer that comes late.
const AFTERWARDS: Duration = Duration::from_secs(150);

/// What a scenario comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    /// By name: state, spec, networks.
    containers: BTreeMap<String, String>,
    /// Who holds the card, and what became of claims, handoffs and promotions.
    card: Vec<String>,
    /// What was done, and how often.
    effects: BTreeMap<Effect, usize>,
}

/// What must be as it is without the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sameness {
    Everything,
    /// The end, with the containers and who holds the card. For this reason it may have taken more to get there.
    End(&'static str),
    /// Everything must come to rest, with nobody harmed on the way, and people are told why it is not as they wished.
    Rest(&'static str),
}

fn sameness(scenario: &Scenario, plan: Plan) -> Sameness {
    match plan {
        Plan::Before(_, Fault::Hang) | Plan::After(_, Fault::Hang) if scenario.has_card => {
            Sameness::End("an engine that hangs uses up the time of a handoff's step; the next one succeeds")
        }
        Plan::Card(_, CardFault::Hang | CardFault::Slow(_)) => {
            Sameness::End("while the driver is slow nothing is proven, so whoever was asked to let go may be stopped")
        }
        Plan::Ask(_, PeerFault::Refuse | PeerFault::Lie | PeerFault::Hang) => Sameness::Rest(
            "who does not let go when asked is stopped, and who does not take the card when asked is told of as failed",
        ),
        _ => Sameness::Everything,
    }
}

impl Sameness {
    fn holds(self, end: &End, undisturbed: &End) -> bool {
        match self {
            Sameness::Everything => end == undisturbed,
            Sameness::End(_) => end.containers == undisturbed.containers && end.achieved() == undisturbed.achieved(),
            Sameness::Rest(_) => true,
        }
    }
}

impl End {
    /// Without what was tried in vain.
    fn achieved(&self) -> Vec<&String> {
        self.card.iter().filter(|line| !line.ends_with(FAILED)).collect()
    }
}

/// How [`holders::outcome`] tells of a handoff that failed.
const FAILED: &str = "Some(Failed)";

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
    let containers = world.engine.observed().into_iter().map(told).collect();
    End { containers, card: holders::outcome(world), effects }
}

fn run(scenario: &Scenario, plan: Plan, bug: Bug, story: &Story) -> Result<(End, Seen), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(async {
        let world = World::new(SEED + u64::from(scenario.has_card), bug, story.clone());
        world.no_chance();
        let planned = Planned::new(&world, plan);
        let script = async {
            world.files.make_directory(DIRECTORY);
            (scenario.before)(&world);
            converge(&world).await.map_err(|why| format!("before it begins: {why}"))?;
            let since = world.engine.effects().len();
            world.story.tell(format_args!("{}: begins", scenario.name));
            planned.begin();
            (scenario.act)(&world).await;
            converge(&world).await?;
            sleep(AFTERWARDS).await;
            converge(&world).await?;
            if !planned.has_struck() && !matches!(plan, Plan::Nothing) {
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
    let plans = all(seen);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(plan) = plans.get(at).copied() else { return failed };
            let story = Story::default();
            let why = match run(scenario, plan, bug, &story) {
                Ok((end, _)) if sameness(scenario, plan).holds(&end, &undisturbed) => continue,
                Ok((end, _)) => format!("without a fault:\n{undisturbed:#?}\nwith it:\n{end:#?}"),
                Err(why) => why,
            };
            failed.push((at, format!("{plan:?}"), format!("{story}\n{}, {plan:?}: {why}", scenario.name)));
        }
    };
    let mut failed: Vec<_> = on_every_core(work).into_iter().flatten().collect();
    failed.sort();
    match failed.first() {
        None => Ok(plans.len()),
        Some((_, _, why)) => {
            let names: Vec<&str> = failed.iter().map(|(_, plan, _)| plan.as_str()).collect();
            Err(format!("{why}\n{}: {} plans fail: {}", scenario.name, failed.len(), names.join(", ")))
        }
    }
}

fn on_every_core<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(&work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a simulation does not panic")).collect()
    })
}

/// What failed, and how many plans were played.
pub fn every_scenario<'a>(scenarios: impl IntoIterator<Item = &'a Scenario>) -> (Vec<String>, usize) {
    // `SCENARIO=card` plays those whose names contain that.
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let (mut failed, mut played) = (Vec::new(), 0);
    for scenario in scenarios.into_iter().filter(|scenario| scenario.name.contains(&only)) {
        match every_plan(scenario, Bug::None) {
            Ok(plans) => {
                println!("{}: {plans} plans", scenario.name);
                played += plans;
            }
            Err(why) => failed.push(why),
        }
    }
    (failed, played)
}

/// The first plan of all that finds `bug`, in words.
pub fn found(scenarios: &[Scenario], bug: Bug) -> Option<String> {
    let why = scenarios.iter().find_map(|scenario| every_plan(scenario, bug).err())?;
    Some(why.lines().rev().find(|line| line.contains(": ")).unwrap_or(&why).to_owned())
}
