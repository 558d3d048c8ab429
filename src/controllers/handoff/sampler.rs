//! Looks at a card many times a second while a handoff waits for it, beside the passes, and wakes the handoff when the card is
//! proven free, and once a second besides.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::{task::AbortHandle, time::timeout};

use super::proof::{self, Proof, Subject};
use crate::{
    adapters::gpus::{GpuSample, Gpus},
    api::handoff::MemorySample,
    registry::ObjectName,
    runtime::{clock::Clock, wakeups::Wakeups},
};

/// A driver that takes longer has not answered.
const DEADLINE: Duration = Duration::from_secs(2);
/// For refreshing the status.
const SLOW: Duration = Duration::from_secs(1);
/// Points of the curve; beyond it every second one goes.
const MOST_POINTS: usize = 240;

pub struct Sampler {
    shared: Arc<Shared>,
}

struct Shared {
    gpus: Arc<dyn Gpus>,
    clock: Arc<dyn Clock>,
    wakeups: Wakeups,
    flights: Mutex<HashMap<(Option<String>, String), Flight>>,
}

struct Flight {
    subject: Subject,
    /// When the last step ended: what was seen before proves nothing about it.
    after: Option<Timestamp>,
    proof: Proof,
    /// Of the free samples in a row, the last `samples`, with the time at which each was begun.
    free: VecDeque<(Timestamp, GpuSample)>,
    stride: SignedDuration,
    task: AbortHandle,
}

impl Drop for Sampler {
    fn drop(&mut self) {
        for (_, flight) in self.shared.lock().drain() {
            flight.task.abort();
        }
    }
}

impl Sampler {
    pub fn new(gpus: Arc<dyn Gpus>, clock: Arc<dyn Clock>, wakeups: Wakeups) -> Self {
        Self { shared: Arc::new(Shared { gpus, clock, wakeups, flights: Mutex::default() }) }
    }

    /// Begins, or goes on with what is now waited for; answers what has been seen. Wakes the handoff when the samples prove the
    /// card free since `after`.
    pub fn watch(&self, name: &ObjectName, subject: Subject, after: Option<Timestamp>) -> Proof {
        let key = (name.namespace.clone(), name.name.clone());
        let mut flights = self.shared.lock();
        let flight = flights.entry(key).or_insert_with(|| Flight {
            subject: subject.clone(),
            after,
            proof: Proof::default(),
            free: VecDeque::new(),
            stride: SignedDuration::ZERO,
            task: tokio::spawn(run(self.shared.clone(), name.clone())).abort_handle(),
        });
        flight.after = after;
        if flight.task.is_finished() {
            flight.free.clear();
        }
        flight.wait_for(subject);
        if flight.task.is_finished() {
            flight.task = tokio::spawn(run(self.shared.clone(), name.clone())).abort_handle();
        }
        flight.proof.clone()
    }

    /// Nobody is waited for: the card is left alone. What had been seen; of whoever is waited for next it proves nothing.
    pub fn rest(&self, name: &ObjectName) -> Option<Proof> {
        let key = (name.namespace.clone(), name.name.clone());
        let mut flights = self.shared.lock();
        let flight = flights.get_mut(&key)?;
        flight.task.abort();
        flight.free.clear();
        flight.conclude();
        Some(flight.proof.clone())
    }

    pub fn forget(&self, name: &ObjectName) {
        if let Some(flight) = self.shared.lock().remove(&(name.namespace.clone(), name.name.clone())) {
            flight.task.abort();
        }
    }
}

async fn run(shared: Arc<Shared>, name: ObjectName) {
    let key = (name.namespace.clone(), name.name.clone());
    let mut told = tokio::time::Instant::now();
    loop {
        let Some(subject) = shared.lock().get(&key).map(|flight| flight.subject.clone()) else { return };
        // Before it is asked: what is seen may be as old as the question.
        let begun = shared.clock.now();
        let sample = match timeout(DEADLINE, shared.gpus.sample(&subject.uuid)).await {
            Ok(Ok(sample)) => Ok(sample),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the driver does not answer within {DEADLINE:?}")),
        };
        let Some(news) = shared.lock().get_mut(&key).map(|flight| flight.take(sample, &subject.uuid, begun)) else {
            return;
        };
        if news || told.elapsed() >= SLOW {
            told = tokio::time::Instant::now();
            shared.wakeups.wake(&name);
        }
        // As fast when it is proven: the pass that hears of it may wait for something else now, and ends this when it does not.
        tokio::time::sleep(Duration::from_millis(subject.interval_ms.into())).await;
    }
}

impl Flight {
    /// What was seen is judged anew by what is known now: that the engine or the card's status has news of somebody does not
    /// begin it again.
    fn wait_for(&mut self, subject: Subject) {
        if self.subject != subject {
            if self.subject.uuid != subject.uuid {
                self.free.clear();
            }
            self.subject = subject;
            let blocked = self.free.iter().rposition(|(_, sample)| proof::blocker(sample, &self.subject).is_some());
            self.free.drain(..blocked.map_or(0, |last| last + 1));
        }
        self.conclude();
    }

    fn conclude(&mut self) {
        while self.free.len() > self.subject.samples {
            self.free.pop_front();
        }
        let enough = self.free.len() >= self.subject.samples;
        self.proof.free_since = self.free.front().map(|(begun, _)| *begun).filter(|_| enough);
    }

    /// Whether it has come to be proven, or is no longer.
    fn take(&mut self, sample: Result<GpuSample, String>, uuid: &str, begun: Timestamp) -> bool {
        // Of the card that was waited for before.
        if self.subject.uuid != uuid {
            return false;
        }
        let before = self.is_proven();
        self.proof.blocker = match &sample {
            Ok(sample) => proof::blocker(sample, &self.subject),
            Err(why) => Some(why.clone()),
        };
        match sample {
            Ok(sample) => {
                self.proof.pids = sample.processes.iter().flatten().map(|p| p.pid).collect();
                if let Some(used_mib) = sample.memory_used_mib {
                    self.point(MemorySample { at: MicroTime(begun), used_mib });
                }
                match self.proof.blocker {
                    Some(_) => self.free.clear(),
                    None => self.free.push_back((begun, sample)),
                }
            }
            Err(_) => self.free.clear(),
        }
        self.conclude();
        self.is_proven() != before
    }

    fn is_proven(&self) -> bool {
        self.proof.free_since.is_some_and(|since| self.after.is_none_or(|after| since >= after))
    }

    fn point(&mut self, sample: MemorySample) {
        let curve = &mut self.proof.curve;
        if curve.last().is_some_and(|last| sample.at.0.duration_since(last.at.0) < self.stride) {
            return;
        }
        curve.push(sample);
        if curve.len() >= MOST_POINTS {
            let mut keep = false;
            curve.retain(|_| {
                keep = !keep;
                keep
            });
            let span = curve[curve.len() - 1].at.0.duration_since(curve[0].at.0);
            self.stride = span / i32::try_from(curve.len()).unwrap_or(i32::MAX);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<(Option<String>, String), Flight>> {
        self.flights.lock().expect("no code panics while it holds this lock")
    }
}
