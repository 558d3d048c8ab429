//! Pulls images beside the passes: one pull an image whoever asks, few at once, progress as events, the end wakes who
//! asked. What became of a pull is remembered until the next one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{observed::PullSeen, reason::Reason};
use crate::{
    adapters::containers::{Containers, EngineError, PullProgress},
    registry::ObjectName,
    runtime::{
        backoff::{Backoff, seed_of},
        clock::Clock,
        events::{Note, Recorder},
        supervisor::caught,
        wakeups::Wakeups,
    },
};

const PARALLEL_PULLS: usize = 3;
const BETWEEN_PROGRESS: SignedDuration = SignedDuration::from_secs(5);
/// Between attempts at one image.
const RETRY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(5));
/// A finished pull is of no interest after this.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(30);

/// Clones share the pulls. Dropping the last one cancels them.
#[derive(Clone)]
pub struct Puller {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

struct Shared {
    containers: Arc<dyn Containers>,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    wakeups: Wakeups,
    slots: Semaphore,
    pulls: Mutex<HashMap<String, Pull>>,
}

#[derive(Default)]
struct Pull {
    seen: PullSeen,
    failures: u32,
    changed_at: Option<Timestamp>,
    askers: HashSet<ObjectName>,
}

impl Puller {
    pub fn new(containers: Arc<dyn Containers>, recorder: Recorder, clock: Arc<dyn Clock>, wakeups: Wakeups) -> Self {
        let slots = Semaphore::new(PARALLEL_PULLS);
        let shared = Shared { containers, recorder, clock, wakeups, slots, pulls: Mutex::default() };
        Self { shared: Arc::new(shared), tasks: Arc::default() }
    }

    /// What is known of the image's pull. Who sees one under way is woken at its end, whoever asked for it.
    pub fn seen(&self, image: &str, by: &ObjectName) -> PullSeen {
        let mut pulls = self.shared.lock();
        let Some(pull) = pulls.get_mut(image) else { return PullSeen::default() };
        if pull.seen == PullSeen::UnderWay {
            pull.askers.insert(by.clone());
        }
        pull.seen.clone()
    }

    /// Returns at once; a pull of the image that is under way serves this asker too.
    pub fn ensure(&self, image: &str, asker: &ObjectName, regarding: &ObjectReference) {
        let now = self.shared.clock.now();
        let mut pulls = self.shared.lock();
        pulls.retain(|_, pull| {
            pull.seen == PullSeen::UnderWay || pull.changed_at.is_some_and(|at| now.duration_since(at) < REMEMBERED)
        });
        let pull = pulls.entry(image.to_owned()).or_default();
        pull.askers.insert(asker.clone());
        if pull.seen == PullSeen::UnderWay {
            return;
        }
        pull.seen = PullSeen::UnderWay;
        drop(pulls);
        let mut tasks = self.tasks.lock().expect("no code panics while it holds this lock");
        while tasks.try_join_next().is_some() {}
        tasks.spawn(run(self.shared.clone(), image.to_owned(), regarding.clone()));
    }
}

async fn run(shared: Arc<Shared>, image: String, regarding: ObjectReference) {
    let result = caught(shared.pull(&image, &regarding)).await.unwrap_or_else(Err);
    let now = shared.clock.now();
    let mut pulls = shared.lock();
    let pull = pulls.entry(image.clone()).or_default();
    pull.changed_at = Some(now);
    pull.seen = match result {
        Ok(()) => {
            pull.failures = 0;
            PullSeen::Done { at: now }
        }
        Err(message) => {
            let delay = RETRY.delay(pull.failures, seed_of(&image));
            pull.failures = pull.failures.saturating_add(1);
            PullSeen::Failed { message, retry_at: now.saturating_add(delay).unwrap_or(Timestamp::MAX) }
        }
    };
    let askers = std::mem::take(&mut pull.askers);
    drop(pulls);
    for asker in askers {
        shared.wakeups.wake(&asker);
    }
}

impl Shared {
    async fn pull(&self, image: &str, regarding: &ObjectReference) -> Result<(), String> {
        let _slot = self.slots.acquire().await.map_err(|closed| closed.to_string())?;
        let tell = |message| self.recorder.record(regarding, note(message));
        tell(format!("pulls {image}"));
        let told_at = Mutex::new(self.clock.now());
        let progress = |progress: PullProgress| {
            let now = self.clock.now();
            let mut told_at = told_at.lock().expect("no code panics while it holds this lock");
            if now.duration_since(*told_at) >= BETWEEN_PROGRESS {
                *told_at = now;
                tell(format!("pulls {image}: {}", told(&progress)));
            }
        };
        self.containers.pull(image, &progress).await.map_err(failed)?;
        self.recorder.record(
            regarding,
            Note::normal(Reason::Pulled.as_str(), Reason::PullingImage.as_str(), format!("has pulled {image}")),
        );
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pull>> {
        self.pulls.lock().expect("no code panics while it holds this lock")
    }
}

/// Whoever does not answer a pull is as a rule the registry, and the message says who.
fn failed(error: EngineError) -> String {
    match error {
        EngineError::Unreachable(why) => why,
        error @ (EngineError::NotFound(_) | EngineError::MayHaveTakenEffect(_) | EngineError::Terminal { .. }) => {
            error.to_string()
        }
    }
}

fn note(message: String) -> Note {
    Note::normal(Reason::PullingImage.as_str(), Reason::PullingImage.as_str(), message)
}

fn told(progress: &PullProgress) -> String {
    const MIB: u64 = 1024 * 1024;
    format!(
        "{} of {} layers, {} of {} MiB",
        progress.layers_done,
        progress.layers,
        progress.bytes_done / MIB,
        progress.bytes / MIB
    )
}
