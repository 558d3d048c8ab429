//! What the engine refused lately: kept in memory, part of what a pass observes, gone with the process (then it is
//! simply tried again).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    observed::{Failure, Verb},
    reason::Reason,
};
use crate::{
    adapters::containers::{EngineError, TerminalReason},
    api::workload::Variant,
    registry::ObjectName,
    runtime::backoff::{Backoff, seed_of},
};

/// Somebody has to change something first.
const TERMINAL: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(5));
const TRANSIENT: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// The last failure of each verb on each variant since that verb's last success.
#[derive(Debug, Default)]
pub struct Failures {
    kept: Mutex<HashMap<ObjectName, OfObject>>,
}

type OfObject = HashMap<(Variant, Verb), Kept>;

#[derive(Debug)]
struct Kept {
    failure: Failure,
    attempts: u32,
}

impl Failures {
    pub fn record(
        &self,
        name: &ObjectName,
        (variant, verb): (Variant, Verb),
        generation: Option<i64>,
        error: &EngineError,
        now: Timestamp,
    ) {
        let terminal = match error {
            // The next look tells what is there.
            EngineError::NotFound(_) | EngineError::Terminal { reason: TerminalReason::NameTaken, .. } => return,
            EngineError::Terminal { reason, .. } => Some(Reason::from(*reason)),
            EngineError::Unreachable(_) | EngineError::MayHaveTakenEffect(_) => None,
        };
        let mut kept = self.lock();
        let of_object = kept.entry(name.clone()).or_default();
        let attempts = match of_object.get(&(variant, verb)) {
            Some(before) if before.failure.generation == generation => before.attempts.saturating_add(1),
            Some(_) | None => 0,
        };
        let backoff = if terminal.is_some() { TERMINAL } else { TRANSIENT };
        let delay = backoff.delay(attempts, seed_of(&name.name));
        let retry_at = now.saturating_add(delay).unwrap_or(Timestamp::MAX);
        let failure = Failure { verb, generation, terminal, message: error.to_string(), retry_at };
        of_object.insert((variant, verb), Kept { failure, attempts });
    }

    pub fn succeeded(&self, name: &ObjectName, at: (Variant, Verb)) {
        if let Some(of_object) = self.lock().get_mut(name) {
            of_object.remove(&at);
        }
    }

    pub fn of(&self, name: &ObjectName, variant: Variant) -> Vec<Failure> {
        let kept = self.lock();
        let Some(of_object) = kept.get(name) else { return Vec::new() };
        let mut found: Vec<Failure> =
            of_object.iter().filter(|((v, _), _)| *v == variant).map(|(_, kept)| kept.failure.clone()).collect();
        found.sort_by_key(|failure| failure.verb as u8);
        found
    }

    pub fn forget(&self, name: &ObjectName) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectName, OfObject>> {
        self.kept.lock().expect("no code panics while it holds this lock")
    }
}
