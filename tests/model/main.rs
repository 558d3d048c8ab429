//! Leases and handoffs, explored: every order in which controllers read, decide and write, the engine, peers and driver
//! answer, people interfere and the process dies, within small bounds. The transitions are our own decisions on real
//! objects, not a retelling of them.
//!
//! A counterexample is told as the way to it. `SCENE=n cargo test --test model one_scene -- --ignored --nocapture` explores
//! one scene alone.

mod acts;
mod bugs;
mod deciding;
mod judging;
mod scene;
mod shelf;
mod state;
mod steps;

use std::time::Instant;

use rstest::rstest;
use stateright::{Checker, HasDiscoveries, Property};

use acts::Act;
use bugs::Bug;
use scene::Scene;
use state::State;
use steps::Model;

impl stateright::Model for Model {
    type State = State;
    type Action = Act;

    /// Each scene once it has come to rest: owners have their cards.
    fn init_states(&self) -> Vec<State> {
        (0..self.scenes.len()).flat_map(|scene| self.at_rest(scene)).collect()
    }

    fn actions(&self, state: &State, acts: &mut Vec<Act>) {
        self.events(state, acts);
        self.interference(state, acts);
    }

    fn next_state(&self, state: &State, act: Act) -> Option<State> {
        self.step(state, act)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        judging::properties()
    }
}

/// What issue 3 asks for.
const AT_LEAST: usize = 1_000_000;

fn every_scene() -> Vec<Scene> {
    vec![
        scene::there_and_back(),
        scene::two_claims(),
        scene::taken_away(),
        scene::asked_first(),
        scene::both_cards(),
        scene::two_workers(),
    ]
}

/// What an exploration came to.
struct Explored {
    unique: usize,
    /// Properties that failed, with the way there and how it goes on.
    failed: Vec<(&'static str, Vec<String>)>,
    /// Properties of which an example was found.
    found: Vec<&'static str>,
}

fn explore(model: Model, until: HasDiscoveries) -> Explored {
    let (names, begun) = (model.scenes.iter().map(|scene| scene.name).collect::<Vec<_>>().join(", "), Instant::now());
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let checker = stateright::Model::checker(model).threads(threads).finish_when(until);
    let checker = checker.spawn_bfs().join();
    let (unique, took) = (checker.unique_state_count(), begun.elapsed());
    println!(
        "{names}: {unique} states, {} ways into them, {} deep, {} decisions, {:.1} s, {:.0} states a second",
        checker.state_count(),
        checker.max_depth(),
        checker.model().library.decided.len(),
        took.as_secs_f64(),
        unique as f64 / took.as_secs_f64()
    );
    let mut explored = Explored { unique, failed: Vec::new(), found: Vec::new() };
    for (property, path) in checker.discoveries() {
        let is_failure = |p: &Property<Model>| p.name == property && p.expectation.discovery_is_failure();
        match judging::properties().iter().any(is_failure) {
            true => {
                let after = checker.model().epilogue(path.last_state());
                let way = path.into_actions().into_iter().map(|act| format!("{act:?}"));
                explored.failed.push((property, way.chain(["by itself:".to_owned()]).chain(after).collect()));
            }
            false => explored.found.push(property),
        }
    }
    explored.found.sort_unstable();
    explored
}

fn tell(failed: &[(&'static str, Vec<String>)]) -> String {
    let way = |acts: &[String]| acts.iter().map(|act| format!("    {act}\n")).collect::<String>();
    failed.iter().map(|(name, acts)| format!("{name}:\n{}", way(acts))).collect()
}

#[test]
fn leases_and_handoffs_keep_their_promises() {
    let explored = explore(Model::new(every_scene(), Bug::None), HasDiscoveries::AnyFailures);
    assert!(explored.failed.is_empty(), "\n{}", tell(&explored.failed));
    assert_eq!(explored.found, ["cancelled", "completed", "preempted", "rolled back"], "the model is not empty");
    assert!(explored.unique >= AT_LEAST, "{} states are too few to say much", explored.unique);
}

#[rstest]
#[case(Bug::StartBeforeRelease, "nobody starts before the lease is his")]
#[case(Bug::LeaseWithoutProof, "no lease moves without proof")]
#[case(Bug::StaleAccepted, "a stale token is refused")]
#[case(Bug::NoCompareAndSwap, "no wish is lost")]
#[case(Bug::CrashForgets, "no wish is lost")]
fn a_planted_bug_is_found(#[case] bug: Bug, #[case] property: &'static str) {
    let explored = explore(Model::new(every_scene(), bug), HasDiscoveries::AllOf([property].into()));
    let names: Vec<&str> = explored.failed.iter().map(|(name, _)| *name).collect();
    println!("{bug:?}:\n{}", tell(&explored.failed));
    assert!(names.contains(&property), "{bug:?} breaks {names:?}");
}

#[test]
#[ignore = "for a person: one scene alone (SCENE=n), or one of its troubles (TROUBLE=n)"]
fn one_scene() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<usize>().ok());
    let (scene, trouble) = (number("SCENE"), number("TROUBLE"));
    for (_, of_all) in every_scene().into_iter().enumerate().filter(|(n, _)| scene.is_none_or(|wanted| wanted == *n)) {
        for n in (0..of_all.troubles.len()).filter(|n| trouble.is_none_or(|wanted| wanted == *n)) {
            let alone = Scene { troubles: vec![of_all.troubles[n]], ..of_all.clone() };
            let explored = explore(Model::new(vec![alone], Bug::None), HasDiscoveries::AnyFailures);
            println!("  {:?}: {:?}\n{}", of_all.troubles[n], explored.found, tell(&explored.failed));
        }
    }
}
