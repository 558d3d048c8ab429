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
    proof: Proof,
    /// Of the free samples in a row, the last `samples`.
    free: VecDeque<Timestamp>,
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

    /// Begins, or goes on with what is now waited for; answers what has been seen.
    pub fn watch(&self, name: &ObjectName, subject: Subject) -> Proof {
        let key = (name.namespace.clone(), name.name.clone());
        let mut flights = self.shared.lock();
        let flight = flights.entry(key).or_insert_with(|| Flight {
            subject: subject.clone(),
            proof: Proof::default(),
            free: VecDeque::new(),
            stride: SignedDuration::ZERO,
            task: tokio::spawn(run(self.shared.clone(), name.clone())).abort_handle(),
        });
        if flight.subject != subject || flight.task.is_finished() {
            flight.subject = subject;
            flight.free.clear();
            flight.proof.free_since = None;
        }
        if flight.task.is_finished() {
            flight.task = tokio::spawn(run(self.shared.clone(), name.clone())).abort_handle();
        }
        flight.proof.clone()
    }

    /// Nobody is waited for: the card is left alone. What had been seen.
    pub fn rest(&self, name: &ObjectName) -> Option<Proof> {
        let key = (name.namespace.clone(), name.name.clone());
        let flights = self.shared.lock();
        let flight = flights.get(&key)?;
        flight.task.abort();
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
        let sample = match timeout(DEADLINE, shared.gpus.sample(&subject.uuid)).await {
            Ok(Ok(sample)) => Ok(sample),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the driver does not answer within {DEADLINE:?}")),
        };
        let now = shared.clock.now();
        let Some(news) = shared.lock().get_mut(&key).map(|flight| flight.take(sample, &subject, now)) else { return };
        if news || told.elapsed() >= SLOW {
            told = tokio::time::Instant::now();
            shared.wakeups.wake(&name);
        }
        // As fast when it is proven: the pass that hears of it may wait for something else now, and ends this when it does not.
        tokio::time::sleep(Duration::from_millis(subject.interval_ms.into())).await;
    }
}

impl Flight {
    /// Whether it has come to be proven, or is no longer.
    fn take(&mut self, sample: Result<GpuSample, String>, subject: &Subject, now: Timestamp) -> bool {
        // Taken for what was waited for before.
        if self.subject != *subject {
            return false;
        }
        let before = self.proof.free_since.is_some();
        self.proof.blocker = match &sample {
            Ok(sample) => proof::blocker(sample, subject),
            Err(why) => Some(why.clone()),
        };
        if let Ok(sample) = &sample {
            self.proof.pids = sample.processes.iter().flatten().map(|p| p.pid).collect();
            if let Some(used_mib) = sample.memory_used_mib {
                self.point(MemorySample { at: MicroTime(now), used_mib });
            }
        }
        match self.proof.blocker {
            Some(_) => self.free.clear(),
            None => self.free.push_back(now),
        }
        while self.free.len() > subject.samples {
            self.free.pop_front();
        }
        self.proof.free_since = self.free.front().copied().filter(|_| self.free.len() >= subject.samples);
        self.proof.free_since.is_some() != before
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
