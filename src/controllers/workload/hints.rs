//! From what the engine tells, and a slow list that confirms it, to wake-ups. Decides nothing: a hint that is lost costs
//! at most the time to the next list.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use jiff::Timestamp;
use kube::{ResourceExt, runtime::reflector::Store};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::names;
use crate::{
    adapters::containers::{Container, ContainerId, ContainerState, Containers, EngineEvent, EngineHealth},
    api::{
        container::ContainerSource,
        label,
        workload::{Variant, Workload},
    },
    registry::ObjectName,
    runtime::{metrics::RuntimeMetrics, reconciler::name_of, wakeups::Wakeups},
};

/// Between lists.
const CONFIRM: Duration = Duration::from_secs(45);
/// Ids remembered as told between two lists; beyond it the next list wakes nobody by itself.
const MOST_TOLD: usize = 4096;

/// Follows the engine on behalf of the workloads in `store`.
pub struct Hints {
    pub containers: Arc<dyn Containers>,
    pub store: Store<Workload>,
    pub wakeups: Wakeups,
    pub metrics: RuntimeMetrics,
}

/// What a change of which is worth a pass.
#[derive(Debug, Clone, PartialEq)]
struct Face {
    name: String,
    state: ContainerState,
    health: Option<EngineHealth>,
    started_at: Option<Timestamp>,
    owner: Option<ObjectName>,
}

#[derive(Default)]
struct Known {
    /// None until a list has succeeded, and after the engine was away: then everything is looked at anyway.
    faces: Option<BTreeMap<ContainerId, Face>>,
    told: HashSet<ContainerId>,
}

impl Hints {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut events = self.containers.events();
        let mut confirm = tokio::time::interval_at(Instant::now() + CONFIRM, CONFIRM);
        confirm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Known::default();
        loop {
            // Cancel-safe: a token, a stream's next, an interval.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                event = events.next() => match event {
                    Some(event) => self.heard(event, &mut known),
                    // The stream reconnects for ever; should it end, the list alone carries on.
                    None => events = futures::stream::pending().boxed(),
                },
                _ = confirm.tick() => self.confirm(&mut events, &mut known).await,
            }
        }
    }

    fn heard(&self, event: EngineEvent, known: &mut Known) {
        match event {
            EngineEvent::Connected => {
                info!("the engine's events are followed");
                *known = Known::default();
                self.wakeups.wake_everything();
            }
            EngineEvent::Disconnected(why) => {
                warn!(why, "the engine's events are lost");
                *known = Known::default();
                self.wakeups.wake_everything();
            }
            EngineEvent::Container { id, name, labels, action } => {
                if !matters(&action) {
                    return;
                }
                debug!(container = %id, name, action, "heard from the engine");
                if known.told.len() < MOST_TOLD {
                    known.told.insert(id);
                }
                if let Some(owner) = labels.get(label::WORKLOAD).and_then(|value| owner(value)) {
                    self.wakeups.wake(&owner);
                }
                self.wake_by_name(&name);
            }
        }
    }

    /// Those who adopt a container of this name, or want the name for their own.
    fn wake_by_name(&self, name: &str) {
        for workload in self.store.state() {
            if names_wanted(&workload).iter().any(|wanted| wanted == name) {
                self.wakeups.wake(&name_of(&*workload));
            }
        }
    }

    /// Lists, and wakes the owners of what has changed since the last list without any event telling.
    async fn confirm(&self, events: &mut BoxStream<'static, EngineEvent>, known: &mut Known) {
        let listed = match self.containers.list(Some((label::OWNER_UID, None))).await {
            Ok(listed) => listed,
            Err(error) => {
                debug!(%error, "the engine cannot be listed");
                return;
            }
        };
        // What was told before the list answered is no news.
        while let Some(Some(event)) = events.next().now_or_never() {
            self.heard(event, known);
        }
        let faces: BTreeMap<ContainerId, Face> = listed.into_iter().map(|c| (c.id.clone(), Face::of(&c))).collect();
        let told = std::mem::take(&mut known.told);
        let Some(before) = known.faces.replace(faces.clone()) else { return };
        if told.len() >= MOST_TOLD {
            return self.wakeups.wake_everything();
        }
        for (id, face) in changed(&before, &faces) {
            if told.contains(id) {
                continue;
            }
            info!(container = %id, name = face.name, "the list shows a change that no event told");
            self.metrics.untold_changes.inc();
            if let Some(owner) = &face.owner {
                self.wakeups.wake(owner);
            }
        }
    }
}

impl Face {
    fn of(container: &Container) -> Self {
        Self {
            name: container.name.clone(),
            state: container.state,
            health: container.health,
            started_at: container.started_at,
            owner: container.labels.get(label::WORKLOAD).and_then(|value| owner(value)),
        }
    }
}

fn changed<'a>(
    before: &'a BTreeMap<ContainerId, Face>,
    now: &'a BTreeMap<ContainerId, Face>,
) -> impl Iterator<Item = (&'a ContainerId, &'a Face)> {
    let gone = before.iter().filter(|(id, _)| !now.contains_key(id));
    let new_or_other = now.iter().filter(|(id, face)| before.get(id) != Some(face));
    gone.chain(new_or_other)
}

/// Executions (health checks and our own probes among them), attachments and copies change no container.
fn matters(action: &str) -> bool {
    const QUIET: [&str; 8] = ["exec_", "attach", "detach", "resize", "top", "copy", "export", "archive-path"];
    !QUIET.iter().any(|quiet| action.starts_with(quiet))
}

/// `namespace/name`
fn owner(label: &str) -> Option<ObjectName> {
    let (namespace, name) = label.split_once('/')?;
    Some(ObjectName { namespace: Some(namespace.to_owned()), name: name.to_owned() })
}

fn names_wanted(workload: &Workload) -> Vec<String> {
    let spec = &workload.spec;
    let live = spec.live.as_ref().map(|v| (Variant::Live, &v.container));
    let candidate = spec.candidate.as_ref().map(|v| (Variant::Candidate, &v.container));
    let namespace = workload.metadata.namespace.as_deref().unwrap_or("default");
    live.into_iter()
        .chain(candidate)
        .map(|(variant, container)| match container.source() {
            ContainerSource::Inline(_) => names::container(namespace, &workload.name_any(), variant),
            ContainerSource::Adopt { name } => name.to_owned(),
        })
        // What was taken over from Compose keeps the name that it has.
        .chain(workload.status.iter().flat_map(|status| {
            [&status.live, &status.candidate].into_iter().flatten().filter_map(|variant| variant.container_name.clone())
        }))
        .collect()
}
