//! What the engine refused lately: kept in memory, part of what a pass observes, gone with the process (then it is
//! simply tried again).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::{
    observed::{Failure, Verb},
    reason::Reason,
};
use crate::{
    adapters::containers::{EngineError, TerminalReason},
    api::workload::{Variant, Workload},
    registry::ObjectName,
    runtime::{
        backoff::{Backoff, seed_of},
        reconciler::name_of,
    },
};

/// Somebody has to change something first.
const TERMINAL: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_mins(5));
const TRANSIENT: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));

/// The last failure of each verb on each variant since that verb's last success.
#[derive(Debug, Default)]
pub struct Failures {
    kept: Mutex<HashMap<ObjectName, OfObject>>,
}

/// `uid`: an object that has the name of a former one begins without its failures.
#[derive(Debug, Default)]
struct OfObject {
    uid: Option<String>,
    verbs: HashMap<(Variant, Verb), Kept>,
}

#[derive(Debug)]
struct Kept {
    failure: Failure,
    attempts: u32,
}

impl Failures {
    pub fn record(&self, workload: &Workload, (variant, verb): (Variant, Verb), error: &EngineError, now: Timestamp) {
        let terminal = match error {
            // The next look tells what is there.
            EngineError::NotFound(_) | EngineError::Terminal { reason: TerminalReason::NameTaken, .. } => return,
            EngineError::Terminal { reason, .. } => Some(Reason::from(*reason)),
            EngineError::Unreachable(_) | EngineError::MayHaveTakenEffect(_) => None,
        };
        let generation = workload.metadata.generation;
        let mut kept = self.lock();
        let of_object = kept.entry(name_of(workload)).or_default();
        if of_object.uid != workload.metadata.uid {
            *of_object = OfObject { uid: workload.metadata.uid.clone(), verbs: HashMap::new() };
        }
        let attempts = match of_object.verbs.get(&(variant, verb)) {
            Some(before) if before.failure.generation == generation => before.attempts.saturating_add(1),
            Some(_) | None => 0,
        };
        let backoff = if terminal.is_some() { TERMINAL } else { TRANSIENT };
        let delay = backoff.delay(attempts, seed_of(&workload.name_any()));
        let retry_at = now.saturating_add(delay).unwrap_or(Timestamp::MAX);
        let failure = Failure { verb, generation, terminal, message: error.to_string(), retry_at };
        of_object.verbs.insert((variant, verb), Kept { failure, attempts });
    }

    pub fn succeeded(&self, workload: &Workload, at: (Variant, Verb)) {
        if let Some(of_object) = self.lock().get_mut(&name_of(workload)) {
            of_object.verbs.remove(&at);
        }
    }

    pub fn of(&self, workload: &Workload, variant: Variant) -> Vec<Failure> {
        let kept = self.lock();
        let of_object = kept.get(&name_of(workload)).filter(|of_object| of_object.uid == workload.metadata.uid);
        let Some(of_object) = of_object else { return Vec::new() };
        let mut found: Vec<Failure> =
            of_object.verbs.iter().filter(|((v, _), _)| *v == variant).map(|(_, kept)| kept.failure.clone()).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_that_has_the_name_of_a_former_one_begins_without_its_failures() {
        let workload = |uid: &str| {
            let mut workload = Workload::new("prime", Default::default());
            workload.metadata.uid = Some(uid.to_owned());
            workload.metadata.generation = Some(1);
            workload
        };
        let (former, later) = (workload("a"), workload("b"));
        let failures = Failures::default();
        let at = (Variant::Live, Verb::Create);
        let fail = |of: &Workload| {
            failures.record(of, at, &EngineError::Unreachable("no answer".to_owned()), Timestamp::UNIX_EPOCH);
            failures.of(of, Variant::Live)[0].retry_at
        };
        let (first, third) = (fail(&former), [fail(&former), fail(&former)][1]);
        assert!(third > first, "the pause grows");
        assert_eq!(failures.of(&later, Variant::Live), []);
        assert_eq!(fail(&later), first);
    }
}
