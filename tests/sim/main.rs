//! The whole system on simulated reality, from one seed, on paused time: files are edited, people interfere, containers
//! die, answers get lost, the process is killed before and after effects. Safety is checked at every effect; when the
//! faults stop, everything must converge to what the files say.
//!
//! Every other seed has a card: workloads, claims and handoffs, an owner who changes, a driver that hangs, peers that lie. At
//! every effect and every change of the card at most one holds it, and nobody loses it who still has memory on it.
//!
//! Beside chance there are plans ([`plans`]): every fault at every effect, look and notification of ordinary days, after which
//! everything must be as if there had been none.
//!
//! A failing seed prints its story. `SEED=n cargo test --test sim` replays it, story and all; `SEEDS=n` runs so many, `FROM=n` leaves out those before.
//! `BUG=name` plants one of [`bugs::Bug`].

mod bugs;
mod card_days;
mod cards;
mod faults;
mod holders;
mod mutants;
mod oracle;
mod people;
mod planned;
mod plans;
mod process;
mod queue;
mod scenarios;
mod size;
mod story;
mod tasks;
mod world;
mod writes;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use bugs::Bug;
use story::Story;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds of an ordinary run.
const SEEDS: u64 = 100_000;

/// Runs one seed to its end.
fn run(seed: u64, bug: Bug) -> Result<Story, Failure> {
    play(seed, "SEED={} cargo test --test sim replay", |story| world::run(seed, bug, story))
}

/// Plays the world of a seed on paused time; it is made where time is the runtime's.
fn play<W>(seed: u64, replay: &'static str, world: impl FnOnce(Story) -> W) -> Result<Story, Failure>
where
    W: Future<Output = Result<(), String>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    let story = Story::default();
    match runtime.block_on(async { world(story.clone()).await }) {
        Ok(()) => Ok(story),
        Err(violation) => Err(Failure { seed, violation, story, tried: 1, replay }),
    }
}

#[derive(Debug)]
struct Failure {
    seed: u64,
    violation: String,
    story: Story,
    /// So many seeds had been begun by then.
    tried: u64,
    /// The command that tells its story.
    replay: &'static str,
}

impl Failure {
    fn tell(&self) -> String {
        format!(
            "{}\n\nseed {}: {}\nreplay: {}",
            self.story,
            self.seed,
            self.violation,
            self.replay.replace("{}", &self.seed.to_string())
        )
    }
}

/// Runs seeds on every core until one fails or all have passed; `seed` says which the next one is.
fn search(seeds: std::ops::Range<u64>, seed: fn(u64) -> u64, bug: Bug) -> Result<u64, Failure> {
    search_with(seeds, |number| run(seed(number), bug))
}

/// As [`search`], whatever a number is to run.
fn search_with(
    seeds: std::ops::Range<u64>,
    run: impl Fn(u64) -> Result<Story, Failure> + Sync,
) -> Result<u64, Failure> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicBool::new(false);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<Failure> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= seeds.end {
                            return None;
                        }
                        if let Err(failure) = run(number) {
                            failed.store(true, Ordering::Relaxed);
                            return Some(failure);
                        }
                    }
                    None
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("a simulation does not panic")).collect()
    });
    match failures.into_iter().min_by_key(|failure| failure.seed) {
        Some(failure) => Err(Failure { tried: next.into_inner().min(seeds.end) - seeds.start, ..failure }),
        None => Ok(seeds.end - seeds.start),
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

#[test]
fn every_seed_is_safe_and_converges() {
    if number("SEED").is_some() {
        // `replay` runs that one.
        return;
    }
    let seeds = number("FROM").unwrap_or(0)..number("SEEDS").unwrap_or(SEEDS);
    match search(seeds, |number| number, Bug::None) {
        Ok(count) => println!("{count} seeds"),
        Err(failure) => panic!("{}", failure.tell()),
    }
}

/// Beside chance: every fault at every place of ordinary days.
#[test]
fn every_planned_fault_ends_as_if_there_had_been_none() {
    let (failed, played) = plans::every_scenario(scenarios::ORDINARY.iter().chain(&card_days::WITH_A_CARD));
    println!("{played} plans");
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn plans_find_planted_bugs() {
    for bug in [Bug::AwayIsEmpty, Bug::CreatesTwice, Bug::RemovesOnPaper, Bug::SkipsBrokenFiles] {
        let found = plans::found(&scenarios::ORDINARY, bug);
        println!("{bug:?}: {}", found.unwrap_or_else(|| panic!("{bug:?} was not found by any plan")));
    }
}

#[test]
fn replay() {
    let seed = number("SEED").unwrap_or(7);
    let wanted = std::env::var("BUG").unwrap_or_default();
    let bug = Bug::PLANTED.into_iter().find(|bug| format!("{bug:?}") == wanted).unwrap_or(Bug::None);
    match run(seed, bug) {
        Ok(story) => println!("{story}\nseed {seed}: converged"),
        Err(failure) => panic!("{}", failure.tell()),
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 100..110 {
        let tell = || run(seed, Bug::None).map(|story| story.to_string()).unwrap_or_else(|failure| failure.tell());
        assert_eq!(tell(), tell(), "seed {seed}");
    }
}

/// A simulator that finds nothing proves nothing. Large worlds are asked, for some of these take several people.
/// `ROUNDS=n`: each n times, in worlds of every size as in an ordinary run, for how many seeds it takes on the average.
#[test]
fn planted_bugs_are_found() {
    // `BUG=TokenStays` looks for that one only.
    let only = std::env::var("BUG").ok();
    let rounds = number("ROUNDS");
    let (sizes, most): (fn(u64) -> u64, u64) =
        if rounds.is_some() { (|number| number, 40_000) } else { (size::large, 2_000) };
    for bug in Bug::PLANTED {
        if only.as_ref().is_some_and(|only| *only != format!("{bug:?}")) {
            continue;
        }
        let mut tried = Vec::new();
        for _ in 0..rounds.unwrap_or(1) {
            let from: u64 = tried.iter().sum();
            match search(from..from + most, sizes, bug) {
                Err(failure) => {
                    println!("{bug:?}: found by seed {}: {}", failure.seed, failure.violation);
                    tried.push(failure.tried);
                }
                Ok(count) => panic!("{bug:?} was not found by {count} seeds"),
            }
        }
        let average = tried.iter().sum::<u64>() as f64 / tried.len() as f64;
        println!("{bug:?}: one of {average:.1} seeds finds it");
    }
}
