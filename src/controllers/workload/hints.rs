//! From what the engine tells, and a slow list that confirms it, to wake-ups. Decides nothing: a hint that is lost costs
//! at most the time to the next list.
//!
//! A workload that is as wished looks at nothing by itself, so here is all that notices what no event told: one list of all
//! containers, compared with the one before, and a look at one container after the other for what no list shows. The first list is
//! made before everything is woken, so that nothing can change between what it shows and what the passes see. That is two calls of
//! the engine, however many containers there are.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use kube::{ResourceExt, runtime::reflector::Store};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::names;
use crate::{
    adapters::containers::{ContainerId, ContainerSummary, Containers, EngineEvent},
    api::{
        container::{ComposeSource, ContainerSource, ContainerSpec},
        label,
        workload::{Variant, Workload},
    },
    registry::ObjectName,
    runtime::{metrics::RuntimeMetrics, reconciler::name_of, wakeups::Wakeups},
};

/// Between lists.
pub const CONFIRM: Duration = Duration::from_secs(75);
/// Ids remembered as told between two lists: beyond it a change counts as untold.
const MOST_TOLD: usize = 4096;

type Labels = BTreeMap<String, String>;

/// Follows the engine on behalf of the workloads in `store`.
pub struct Hints {
    pub containers: Arc<dyn Containers>,
    pub store: Store<Workload>,
    pub wakeups: Wakeups,
    pub metrics: RuntimeMetrics,
}

/// What is remembered between two lists.
#[derive(Default)]
pub struct Known {
    /// As the last list showed them. None after a change of the connection: everything is woken once there is a list.
    listed: Option<BTreeMap<ContainerId, ContainerSummary>>,
    told: HashSet<ContainerId>,
    /// The last one that was looked at by itself.
    looked_at: Option<ContainerId>,
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
                    Some(event) => {
                        let connected = event == EngineEvent::Connected;
                        self.heard(event, &mut known);
                        if connected {
                            self.confirm(&mut events, &mut known).await;
                        }
                    }
                    // The stream reconnects for ever; should it end, the list alone carries on.
                    None => events = futures::stream::pending().boxed(),
                },
                _ = confirm.tick() => {
                    self.confirm(&mut events, &mut known).await;
                    self.look_at_next(&mut known).await;
                }
            }
        }
    }

    fn heard(&self, event: EngineEvent, known: &mut Known) {
        match event {
            // A list follows, and wakes everything.
            EngineEvent::Connected => {
                info!("the engine's events are followed");
                *known = Known::default();
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
                self.wake_concerned(&name, &labels);
            }
        }
    }

    /// Lists, and wakes whom the changes since the last list concern, told or not: of two changes one may have been told.
    pub async fn confirm(&self, events: &mut BoxStream<'static, EngineEvent>, known: &mut Known) {
        let listed = match self.containers.summaries(None).await {
            Ok(listed) => listed,
            Err(error) => {
                debug!(%error, "the engine cannot be listed");
                if known.listed.is_none() {
                    self.wakeups.wake_everything();
                }
                return;
            }
        };
        // What was told before the list answered is no news.
        while let Some(Some(event)) = events.next().now_or_never() {
            self.heard(event, known);
        }
        let listed: BTreeMap<_, _> = listed.into_iter().map(|summary| (summary.id.clone(), summary)).collect();
        let told = std::mem::take(&mut known.told);
        let Some(before) = known.listed.replace(listed.clone()) else { return self.wakeups.wake_everything() };
        for (id, summary) in changed(&before, &listed) {
            if !told.contains(id) {
                info!(container = %id, name = summary.name, "the list shows a change that no event told");
                self.metrics.untold_changes.inc();
            }
            self.wake_concerned(&summary.name, &summary.labels);
        }
    }

    /// No list shows a restart policy. Round by round each container that concerns somebody is looked at by itself.
    async fn look_at_next(&self, known: &mut Known) {
        let Some(listed) = &known.listed else { return };
        let after = known.looked_at.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let in_turn = listed.range((after, Bound::Unbounded)).chain(listed);
        let workloads = self.store.state();
        let concerns = |seen: &ContainerSummary| {
            names::owner(&seen.labels).is_some() || workloads.iter().any(|w| is_concerned(w, &seen.name, &seen.labels))
        };
        let Some(id) = in_turn.filter(|(_, seen)| concerns(seen)).map(|(id, _)| id.clone()).next() else { return };
        match self.containers.inspect(&id.0).await {
            Ok(Some(container)) if container.restarts_itself => self.wake_concerned(&container.name, &container.labels),
            Ok(_) => {}
            Err(error) => debug!(container = %id, %error, "cannot be looked at"),
        }
        known.looked_at = Some(id);
    }

    fn wake_concerned(&self, name: &str, labels: &Labels) {
        if let Some(owner) = labels.get(label::WORKLOAD).and_then(|value| owner(value)) {
            self.wakeups.wake(&owner);
        }
        for workload in self.store.state().iter().filter(|workload| is_concerned(workload, name, labels)) {
            self.wakeups.wake(&name_of(&**workload));
        }
    }
}

/// Containers that came, went or changed. A renamed one is there under both names, for two may want them.
fn changed<'a>(
    before: &'a BTreeMap<ContainerId, ContainerSummary>,
    now: &'a BTreeMap<ContainerId, ContainerSummary>,
) -> impl Iterator<Item = (&'a ContainerId, &'a ContainerSummary)> {
    let left = before.iter().filter(|(id, seen)| now.get(*id).is_none_or(|now| now.name != seen.name));
    let new_or_other = now.iter().filter(|(id, seen)| before.get(*id) != Some(seen));
    left.chain(new_or_other)
}

/// It wants the name for its own or adopts who has it, or it was taken from the service that Compose made the container for.
fn is_concerned(workload: &Workload, name: &str, labels: &Labels) -> bool {
    names_wanted(workload).iter().any(|wanted| wanted == name)
        || specs(workload).any(|(_, spec)| spec.compose.as_ref().is_some_and(|source| is_of(source, labels)))
}

fn is_of(source: &ComposeSource, labels: &Labels) -> bool {
    source.project.is_some()
        && labels.get(label::COMPOSE_PROJECT) == source.project.as_ref()
        && labels.get(label::COMPOSE_SERVICE) == Some(&source.service)
}

fn specs(workload: &Workload) -> impl Iterator<Item = (Variant, &ContainerSpec)> {
    let live = workload.spec.live.as_ref().map(|v| (Variant::Live, &v.container));
    let candidate = workload.spec.candidate.as_ref().map(|v| (Variant::Candidate, &v.container));
    live.into_iter().chain(candidate)
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
    let namespace = workload.metadata.namespace.as_deref().unwrap_or("default");
    specs(workload)
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
