//! Asks running containers how they are, one task a container, and remembers the answers in memory. A flip wakes the
//! owner's pass; [`verdict`] says what follows from answers.

mod verdict;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::task::{AbortHandle, JoinSet};
use tracing::info;

pub use verdict::without_probes;
use verdict::{Count, Verdicts, Which};

use super::observed::Health;
use crate::{
    adapters::{
        containers::{Container, ContainerId, ContainerState, Containers},
        probes::{ProbeOutcome, Probes as Looks},
    },
    api::workload::{Probe, Probes},
    registry::ObjectName,
    runtime::{clock::Clock, wakeups::Wakeups},
};

/// A container started this recently is still starting while its probes have told nothing; an older one, found by a new
/// process, is simply unknown.
const FRESH: SignedDuration = SignedDuration::from_secs(30);

/// Clones share the answers. Dropping the last one ends all probing.
#[derive(Clone)]
pub struct Prober {
    shared: Arc<Shared>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

struct Shared {
    containers: Arc<dyn Containers>,
    looks: Arc<dyn Looks>,
    clock: Arc<dyn Clock>,
    wakeups: Wakeups,
    watched: Mutex<HashMap<ContainerId, Watched>>,
}

struct Watched {
    owner: ObjectName,
    run: Run,
    verdicts: Verdicts,
    task: AbortHandle,
}

/// One run of a container under one set of probes: a restart, or other probes, begin anew.
#[derive(Debug, Clone, PartialEq)]
struct Run {
    started_at: Option<Timestamp>,
    probes: Probes,
    fresh: bool,
}

impl Prober {
    pub fn new(
        containers: Arc<dyn Containers>,
        looks: Arc<dyn Looks>,
        clock: Arc<dyn Clock>,
        wakeups: Wakeups,
    ) -> Self {
        let shared = Shared { containers, looks, clock, wakeups, watched: Mutex::default() };
        Self { shared: Arc::new(shared), tasks: Arc::default() }
    }

    /// How a container is, as far as is known now. A running container with probes is probed from here on.
    pub fn health(&self, owner: &ObjectName, container: &Container, probes: Option<&Probes>) -> Health {
        if container.state != ContainerState::Running {
            self.end(&container.id);
            return Health::default();
        }
        let Some(probes) = probes.filter(|p| has_any(p)) else {
            self.end(&container.id);
            return without_probes(container);
        };
        let mut watched = self.shared.lock();
        if let Some(known) = watched.get(&container.id)
            && known.run.started_at == container.started_at
            && known.run.probes == *probes
            && !known.task.is_finished()
        {
            return known.verdicts.health(&known.run.probes, known.run.fresh);
        }
        let now = self.shared.clock.now();
        let fresh = container.started_at.is_none_or(|at| now.duration_since(at) < FRESH);
        let run = Run { started_at: container.started_at, probes: probes.clone(), fresh };
        let task = self.spawn(owner.clone(), container.id.clone(), run.clone());
        let entry = Watched { owner: owner.clone(), run, verdicts: Verdicts::default(), task };
        let health = entry.verdicts.health(&entry.run.probes, fresh);
        if let Some(before) = watched.insert(container.id.clone(), entry) {
            before.task.abort();
        }
        health
    }

    /// The same without beginning to probe: for those who depend on it.
    pub fn peek(&self, container: &Container, probes: Option<&Probes>) -> Health {
        if container.state != ContainerState::Running {
            return Health::default();
        }
        if probes.is_none_or(|p| !has_any(p)) {
            return without_probes(container);
        }
        let watched = self.shared.lock();
        let known = watched.get(&container.id).filter(|w| w.run.started_at == container.started_at);
        known.map(|w| w.verdicts.health(&w.run.probes, w.run.fresh)).unwrap_or_default()
    }

    /// Ends the probing of every container of `owner` but these.
    pub fn keep_only(&self, owner: &ObjectName, containers: &[ContainerId]) {
        self.shared.lock().retain(|id, watched| {
            let keep = watched.owner != *owner || containers.contains(id);
            if !keep {
                watched.task.abort();
            }
            keep
        });
    }

    fn end(&self, id: &ContainerId) {
        if let Some(watched) = self.shared.lock().remove(id) {
            watched.task.abort();
        }
    }

    fn spawn(&self, owner: ObjectName, id: ContainerId, run: Run) -> AbortHandle {
        let mut tasks = self.tasks.lock().expect("no code panics while it holds this lock");
        while tasks.try_join_next().is_some() {}
        tasks.spawn(probe_container(self.shared.clone(), owner, id, run))
    }
}

fn has_any(probes: &Probes) -> bool {
    probes.startup.is_some() || probes.liveness.is_some() || probes.readiness.is_some()
}

/// Startup first, which holds the others back; then liveness and readiness beside each other. Ends with the run.
async fn probe_container(shared: Arc<Shared>, owner: ObjectName, id: ContainerId, run: Run) {
    let one = |which, probe| probe_until(&shared, &owner, &id, &run, which, probe);
    if let Some(probe) = &run.probes.startup
        && one(Which::Startup, probe).await == Ended::Run
    {
        return;
    }
    if run.probes.liveness.is_none() && run.probes.readiness.is_none() {
        // All is said about this run. The task stays, for one that has ended means that the run has, and begins anew.
        return std::future::pending().await;
    }
    let liveness = async {
        if let Some(probe) = &run.probes.liveness {
            one(Which::Liveness, probe).await;
        }
    };
    let readiness = async {
        if let Some(probe) = &run.probes.readiness {
            one(Which::Readiness, probe).await;
        }
    };
    futures::join!(liveness, readiness);
}

/// Repeats one probe: startup until it has passed, the others as long as the container runs.
async fn probe_until(
    shared: &Shared,
    owner: &ObjectName,
    id: &ContainerId,
    run: &Run,
    which: Which,
    probe: &Probe,
) -> Ended {
    tokio::time::sleep(shared.delay_left(run, probe)).await;
    let mut count = Count::default();
    loop {
        let outcome = match shared.look(id, run, probe).await {
            Look::Said(outcome) => outcome,
            Look::RunEnded => {
                shared.wakeups.wake(owner);
                return Ended::Run;
            }
        };
        let passed = count.add(&outcome, probe);
        shared.tell(owner, id, run, which, passed, &outcome);
        if which == Which::Startup && passed == Some(true) {
            return Ended::Probe;
        }
        tokio::time::sleep(Duration::from_secs(probe.period_seconds.max(1).into())).await;
    }
}

/// What came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The startup probe has passed.
    Probe,
    Run,
}

enum Look {
    Said(ProbeOutcome),
    /// The container stopped, was started anew or is gone: whoever watches it says how to go on.
    RunEnded,
}

impl Shared {
    fn delay_left(&self, run: &Run, probe: &Probe) -> Duration {
        let whole = Duration::from_secs(probe.initial_delay_seconds.into());
        let passed = run.started_at.map(|at| self.clock.now().duration_since(at));
        whole.saturating_sub(passed.and_then(|passed| Duration::try_from(passed).ok()).unwrap_or_default())
    }

    async fn look(&self, id: &ContainerId, run: &Run, probe: &Probe) -> Look {
        let container = match self.containers.inspect(&id.0).await {
            Ok(Some(container)) => container,
            Ok(None) => return Look::RunEnded,
            Err(error) => return Look::Said(ProbeOutcome::Unknown(error.to_string())),
        };
        if container.state != ContainerState::Running || container.started_at != run.started_at {
            return Look::RunEnded;
        }
        let timeout = Duration::from_secs(probe.timeout_seconds.max(1).into());
        Look::Said(self.looks.probe(&container, probe, timeout).await)
    }

    /// Remembers what a probe comes to; wakes the owner when that makes a difference.
    fn tell(
        &self,
        owner: &ObjectName,
        id: &ContainerId,
        run: &Run,
        which: Which,
        passed: Option<bool>,
        outcome: &ProbeOutcome,
    ) {
        let mut all = self.lock();
        let Some(watched) = all.get_mut(id).filter(|watched| watched.run == *run) else { return };
        let before = watched.verdicts.health(&run.probes, run.fresh);
        watched.verdicts.set(which, passed);
        let after = watched.verdicts.health(&run.probes, run.fresh);
        drop(all);
        if before != after {
            info!(workload = owner.name, container = %id, probe = ?which, ?outcome, health = ?after.health, "health changed");
            self.wakeups.wake(owner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, Watched>> {
        self.watched.lock().expect("no code panics while it holds this lock")
    }
}
