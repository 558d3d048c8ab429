//! Runs a target on so many cases, each made from its number; and what is done when one fails.
//!
//! `SEED=n cargo nextest run --test fuzz NAME` plays one case again, after those that its world saw before it.
//! `GAIA_FUZZ_CASES=n` is another number of cases than 10,000; `GAIA_FUZZ_CORPUS=DIRECTORY` keeps them for libFuzzer.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    memory,
    targets::{CASES_PER_WORLD, renew},
};

const CASES: u64 = 10_000;
/// Of the processor's time, unoptimised. Most cases take less than a thousandth of it.
const LONGEST_CASE: Duration = Duration::from_secs(10);
/// A case that has not ended by then will not: the process is ended with its number.
const HANG: Duration = Duration::from_secs(180);
/// What a case may need beside its input, answers and the next version of the store among it; of a body of the largest size.
const MOST_MEMORY: usize = 512 << 20;
/// As tokio's workers have: what overflows there must overflow here.
const STACK: usize = 2 << 20;
/// Of trying to make a failing input smaller.
const SHRINKING: Duration = Duration::from_secs(60);

type Run = fn(&[u8]);
type Make = fn(&mut fastrand::Rng) -> Vec<u8>;

/// Every case of one target.
pub fn every_case(name: &'static str, run: Run, make: Make) {
    on_a_small_stack(move || {
        let note = Note::of(name);
        let number = |variable| std::env::var(variable).ok().map(|text| text.parse().expect("a number"));
        let cases = match number("SEED") {
            Some(seed) => seed - seed % CASES_PER_WORLD..seed + 1,
            None => 0..number("GAIA_FUZZ_CASES").unwrap_or(CASES),
        };
        for seed in cases {
            if seed % CASES_PER_WORLD == 0 {
                whole(name, seed, renew);
            }
            let input = make(&mut fastrand::Rng::with_seed(seed));
            keep(name, seed, &input);
            note.begin(seed);
            if let Err(why) = outcome(run, &input) {
                note.end();
                failed(name, seed, run, &input, &why);
            }
            note.end();
        }
        whole(name, u64::MAX, renew);
    });
}

/// What libFuzzer may begin with.
fn keep(name: &str, seed: u64, input: &[u8]) {
    if let Some(corpus) = std::env::var_os("GAIA_FUZZ_CORPUS") {
        let file = Path::new(&corpus).join(name).join(format!("made-{seed}"));
        std::fs::write(&file, input).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

/// One input, on the stack that the server has.
pub fn one_case(run: Run, input: Vec<u8>) {
    on_a_small_stack(move || {
        if let Err(why) = outcome(run, &input) {
            panic!("{why}: {}", shown(&input));
        }
        renew();
    });
}

fn on_a_small_stack(act: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(act).expect("a thread can be started");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Why a case fails.
fn outcome(run: Run, input: &[u8]) -> Result<(), String> {
    let before = memory::start();
    let start = processor_time();
    let result = catch_unwind(AssertUnwindSafe(|| run(input)));
    let (took, used) = (processor_time().saturating_sub(start), memory::most_since(before));
    match result {
        Err(panic) => Err(words(&*panic)),
        Ok(()) if took > LONGEST_CASE => Err(format!("it took {took:?}")),
        Ok(()) if used > MOST_MEMORY => Err(format!("it needed {} MiB", used >> 20)),
        Ok(()) => Ok(()),
    }
}

/// Of this thread, on which all of a case runs: what else the machine does must not fail a case.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells what a thread has had");
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the first number"))
}

fn words(panic: &dyn std::any::Any) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

/// What holds of all cases of a world together.
fn whole(name: &str, seed: u64, check: fn()) {
    if let Err(panic) = catch_unwind(check) {
        let last = if seed == u64::MAX { "the last".to_owned() } else { format!("{}", seed - 1) };
        panic!("{name}: after the {CASES_PER_WORLD} cases up to {last}: {}", words(&*panic));
    }
}

fn failed(name: &str, seed: u64, run: Run, input: &[u8], why: &str) -> ! {
    let replay = format!("SEED={seed} cargo nextest run --cargo-profile quick --test fuzz {name}");
    let fails = |input: &[u8]| outcome(run, input).is_err();
    std::panic::set_hook(Box::new(|_| {}));
    let alone = fails(input);
    let least = if alone { shrunk(input, fails) } else { input.to_vec() };
    drop(std::panic::take_hook());
    let how = if alone { "" } else { " (only after the cases before it)" };
    panic!("{name}, case {seed}{how}: {why}\n{replay}\nthe least input that fails: {}", shown(&least));
}

/// Leaves out ever smaller pieces as long as it still fails.
fn shrunk(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let start = Instant::now();
    let mut least = input.to_vec();
    let mut piece = least.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < least.len() {
            if start.elapsed() > SHRINKING {
                return least;
            }
            let smaller = [&least[..at], &least[(at + piece).min(least.len())..]].concat();
            if fails(&smaller) {
                least = smaller;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    least
}

fn shown(input: &[u8]) -> String {
    let shown: String = input[..input.len().min(4000)].escape_ascii().to_string();
    if input.len() > 4000 { format!("b\"{shown}\"… ({} bytes)", input.len()) } else { format!("b\"{shown}\"") }
}

/// The case and when it began.
type Running = Option<(u64, Instant)>;

/// Which case is under way: in a file, for an overflowed stack ends the process without a word; and watched, for a case
/// that hangs.
struct Note {
    file: File,
    running: Arc<(Mutex<Running>, Condvar)>,
}

impl Note {
    fn of(name: &'static str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}.case"));
        let file = File::create(path).expect("the target directory can be written");
        let running = Arc::new((Mutex::new(None), Condvar::new()));
        let watched = running.clone();
        std::thread::spawn(move || watch(name, &watched));
        Self { file, running }
    }

    fn begin(&self, seed: u64) {
        self.file.write_all_at(format!("{seed:<20}\n").as_bytes(), 0).expect("the target directory can be written");
        self.set(Some((seed, Instant::now())));
    }

    fn end(&self) {
        self.set(None);
    }

    fn set(&self, running: Running) {
        *self.running.0.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

fn watch(name: &str, (running, turn): &(Mutex<Running>, Condvar)) {
    let mut present = running.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let waited = turn.wait_timeout(present, Duration::from_secs(1));
        present = waited.unwrap_or_else(PoisonError::into_inner).0;
        if let Some((seed, since)) = *present
            && since.elapsed() > HANG
        {
            eprintln!("{name}, case {seed}: hangs since {HANG:?}; SEED={seed} plays it again");
            std::process::abort();
        }
    }
}
