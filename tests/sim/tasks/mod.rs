//! Tasks and workers on simulated reality, from one seed, on paused time: a Redis that loses, doubles, delays and forgets; workers of
//! each of MLOC's wires and of ours that die, fall silent and repeat themselves; a server that is killed before and after
//! writes and effects. In the end every task has come to its end, once.
//!
//! Seeds of its own: `TASK_SEED=n cargo test --test sim tasks::replay` tells one story, `TASK_SEEDS=n` runs so many. `TASK_BUG=name` plants one
//! of [`bugs::Bug`].

mod bugs;
mod bus;
mod documents;
mod oracle;
mod own;
mod people;
mod process;
mod redis;
mod results;
mod workers;
mod world;

use std::time::Duration;

use tokio::time::{sleep, timeout};

use self::{bugs::Bug, people::People, world::TaskWorld};
use crate::{Failure, number, search_with, story::Story, writes::WriteFault};

/// Seeds of an ordinary run.
const SEEDS: u64 = 1000;
/// Planted bugs are looked for in so many.
const MOST: u64 = 400;
/// From the end of the faults until every task has ended: a lost heartbeat, and the longest backoffs one after the other.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

fn run(seed: u64, bug: Bug) -> Result<Story, Failure> {
    let replay = "TASK_SEED={} cargo test --test sim tasks::replay";
    crate::play(seed, replay, |story| live(TaskWorld::new(seed, bug, story)))
}

async fn live(world: TaskWorld) -> Result<(), String> {
    let faulty = world.clone();
    world.world.writes.set(move |_| write_fault(&faulty));
    let result = tokio::select! {
        biased;
        violation = world.world.violation() => Err(violation),
        () = world.world.story.endless() => Err("there is no end to it".to_owned()),
        result = script(&world) => result,
        never = process::keep_running(&world) => match never {},
    };
    // The world holds the faults, and these the world.
    world.world.writes.mend();
    world.world.registry.send_replace(None);
    result
}

fn write_fault(world: &TaskWorld) -> WriteFault {
    let strikes = |percent| world.world.strikes(percent);
    if strikes(0.3) {
        WriteFault::CrashBefore
    } else if strikes(0.3) {
        WriteFault::CrashAfter
    } else if strikes(0.7) {
        WriteFault::Fails
    } else if strikes(0.7) {
        WriteFault::LosesAnswer
    } else if strikes(0.3) {
        WriteFault::Full
    } else if strikes(1.0) {
        WriteFault::Overtaken
    } else if strikes(3.0) {
        WriteFault::Slow(Duration::from_millis(1 + world.below(2_500)))
    } else {
        WriteFault::None
    }
}

async fn script(world: &TaskWorld) -> Result<(), String> {
    // What goes wrong in a day mostly does so within seconds: few worlds are large.
    let (lasts, pause) = match world.below(24) {
        0 => (60_000 + world.below(240_000), 4_000),
        1..=5 => (5_000 + world.below(40_000), 2_500),
        _ => (1_000 + world.below(9_000), 900),
    };
    let mut people = People::new(world, pause);
    if let Ok(never) = timeout(Duration::from_millis(lasts), people.live(world)).await {
        match never {}
    }
    world.world.no_chance();
    people.make_peace(world);
    world.tell("peace: from here on everything must come right");
    // What was asked for last may still be on its way.
    sleep(Duration::from_secs(20)).await;
    let mut waited = Duration::ZERO;
    let step = Duration::from_secs(5);
    while let Err(why) = oracle::settled(world) {
        if waited >= PATIENCE {
            return Err(format!("it does not come to an end: {why}"));
        }
        people.look_after(world);
        sleep(step).await;
        waited += step;
    }
    world.tell("all is over");
    // And it stays so.
    let given = oracle::given(world);
    sleep(Duration::from_secs(200)).await;
    if oracle::given(world) != given {
        return Err("a task was given to a worker after all had ended".to_owned());
    }
    oracle::settled(world)
}

#[test]
fn every_seed_loses_no_task_and_ends_each_once() {
    if number("TASK_SEED").is_some() {
        // `replay` runs that one.
        return;
    }
    match search_with(number("TASK_FROM").unwrap_or(0)..number("TASK_SEEDS").unwrap_or(SEEDS), |seed| {
        run(seed, Bug::None)
    }) {
        Ok(count) => println!("{count} seeds"),
        Err(failure) => panic!("{}", failure.tell()),
    }
}

#[test]
fn replay() {
    let seed = number("TASK_SEED").unwrap_or(7);
    let wanted = std::env::var("TASK_BUG").unwrap_or_default();
    let bug = Bug::PLANTED.into_iter().find(|bug| format!("{bug:?}") == wanted).unwrap_or(Bug::None);
    match run(seed, bug) {
        Ok(story) => println!("{story}\nseed {seed}: all is over"),
        Err(failure) => panic!("{}", failure.tell()),
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 100..120 {
        let tell = || run(seed, Bug::None).map(|story| story.to_string()).unwrap_or_else(|failure| failure.tell());
        let (once, twice) = (tell(), tell());
        let differ = once.lines().zip(twice.lines()).find(|(one, other)| one != other);
        assert!(once == twice, "seed {seed}: {differ:?}");
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in Bug::PLANTED {
        // Of four seeds one has a card.
        let seed = |number: u64| if bug.needs_a_card() { number * 4 + 1 } else { number };
        match search_with(0..MOST, |number| run(seed(number), bug)) {
            Err(failure) => {
                println!("{bug:?}: found by seed {}, after {}: {}", failure.seed, failure.tried, failure.violation)
            }
            Ok(count) => panic!("{bug:?} was not found by {count} seeds"),
        }
    }
}
