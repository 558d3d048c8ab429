//! The store's log, committer and watches, and the wake-ups of the queues, in many orders of their threads: the files of the product,
//! compiled once more with shuttle's locks and threads. What tokio has (`watch`, `oneshot`, `Semaphore`, `Notify`) counts as one step
//! each; tokio explores it itself, with loom. Time does not pass: a writer that would only be told that it took too long is a deadlock.
//!
//!     cargo run --release --manifest-path dev/interleavings/Cargo.toml [SCHEDULES] [PART OF A NAME]
//!
//! Each story is played so often (10,000) at random, and as often with preemptions at chosen places. It must hold in every order; and
//! with a mistake planted it must not. A failure tells its schedule; `shuttle::replay(story, "…")` plays it again.

mod engine;
mod registry;
#[path = "../../../src/store/mod.rs"]
#[allow(dead_code, unused_imports, reason = "all of the store is here, and some of it is used")]
mod store;
mod stories;
mod sync;
#[path = "../../../src/runtime/wakeups.rs"]
#[allow(dead_code, reason = "the product uses all of it")]
mod wakeups;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use engine::Planted;
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
};
use stories::{Trouble, a_slow_reader, wakers_and_a_reader, writers_and_watchers};

/// Threads are preempted at so many places.
const DEPTH: usize = 3;

type Story = fn();

/// What is told, whether it holds, and what happens.
const STORIES: [(&str, bool, Story); 9] = [
    ("every write is told once and in order", true, || writers_and_watchers(Planted::Nothing, Trouble::None)),
    ("a commit that wrote nothing leaves no gap", true, || writers_and_watchers(Planted::Nothing, Trouble::Lost)),
    ("a commit whose answer is lost leaves no gap", true, || writers_and_watchers(Planted::Nothing, Trouble::Answered)),
    ("who writes while the store closes is told or heard", true, || {
        writers_and_watchers(Planted::Nothing, Trouble::Closing);
    }),
    ("a reader that falls behind is told, and finds the rest", true, a_slow_reader),
    ("a wake-up is never lost", true, wakers_and_a_reader),
    ("planted: a condition is waited for too late", false, || {
        sync::late_wait(true);
        writers_and_watchers(Planted::Nothing, Trouble::None);
    }),
    ("planted: of a batch the last write is lost", false, || {
        writers_and_watchers(Planted::LosesTheLast, Trouble::None);
    }),
    ("planted: a failed commit is forgotten", false, || {
        writers_and_watchers(Planted::HidesWhatFailed, Trouble::Answered);
    }),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let schedules = arguments.next().map_or(10_000, |text| text.parse().expect("a number of schedules"));
    let part = arguments.next().unwrap_or_default();
    // Timers can be made, and never strike.
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let clock = clock.expect("a runtime can be built");
    let _inside = clock.enter();
    let mut as_expected = true;
    for (name, holds, story) in STORIES.into_iter().filter(|(name, _, _)| name.contains(&part)) {
        sync::late_wait(false);
        let start = Instant::now();
        let held = played(story, schedules, !holds);
        as_expected &= held == holds;
        let verdict = match (held, holds) {
            (true, true) => "holds",
            (false, false) => "found",
            (true, false) => "NOT FOUND",
            (false, true) => "BROKEN",
        };
        println!("{verdict:>9}  {name}  ({:.1} s)", start.elapsed().as_secs_f64());
    }
    if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// True when the story held in every order.
fn played(story: Story, schedules: usize, quietly: bool) -> bool {
    let before = std::panic::take_hook();
    if quietly {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let played = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(RandomScheduler::new(schedules), config()).run(story);
        Runner::new(PctScheduler::new(DEPTH, schedules), config()).run(story);
    }));
    std::panic::set_hook(before);
    played.is_ok()
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config
}
