//! Workers announce themselves on the bus; this makes `Worker` objects of it, and says whether they live.
//!
//! What is decided comes from the bus's keys alone; events only say when to look. A worker is gone when it is not among the ids
//! any more, and dead when its heartbeat has expired, or was not renewed for longer than `HEARTBEAT_TTL_SEC`. While the bus does not
//! answer nobody is dead, nor for a while after it came back: heartbeats expire while nobody can renew them. A bus that lost its
//! data is told what it knew of the workers that we know.

pub mod decide;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::Context;
use crate::{
    adapters::bus::{BusError, BusEvent, SharedBus, WorkerNews, WorkerRecord},
    api::{label, worker::Worker},
    mloc::names::NAMESPACE,
    registry::{ApiResult, Reason},
    runtime::{
        clock::Clock,
        events::{Note, Recorder},
        objects::Objects,
        reconciler::reference,
        supervisor::{Stage, Supervisor},
    },
    telemetry::tasks::TaskMetrics,
};
use decide::{Life, Sight, is_registered};

/// Between looks that nobody asked for; short enough to find an expired heartbeat soon.
const LOOK: Duration = Duration::from_secs(2);
/// After an event, so that several make one look.
const SOON: Duration = Duration::from_millis(100);
/// Between looks for nothing but what workers are at: busy ones say so many times a second, and each look writes each of them.
const WHILE_BUSY: Duration = Duration::from_millis(500);

/// What can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A heartbeat that is older counts for nothing, whatever its key says.
    pub heartbeat_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { heartbeat_ttl: Duration::from_secs(120) }
    }
}

/// Starts the loop.
pub fn spawn<O: Objects>(
    context: &Context<O>,
    bus: SharedBus,
    settings: Settings,
    metrics: TaskMetrics,
    supervisor: &mut Supervisor,
) {
    let running = run(context, bus, settings, metrics);
    supervisor.spawn(Stage::Controllers, "worker-controller", |shutdown| async move {
        // A look that is cut off leaves whole objects.
        shutdown.run_until_cancelled_owned(running).await;
        Ok::<(), Infallible>(())
    });
}

/// The loop itself. It ends only when it is dropped, at any point.
pub fn run<O: Objects>(
    context: &Context<O>,
    bus: SharedBus,
    settings: Settings,
    metrics: TaskMetrics,
) -> impl Future<Output = ()> + Send + use<O> {
    let workers = Workers {
        objects: context.objects.clone(),
        bus,
        recorder: context.recorder.clone(),
        clock: context.clock.clone(),
        settings,
        metrics,
        heartbeats: HashMap::new(),
        trusted_from: None,
    };
    workers.run()
}

struct Workers<O: Objects> {
    objects: O,
    bus: SharedBus,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    settings: Settings,
    metrics: TaskMetrics,
    /// The heartbeat seen last of each, and when it was new.
    heartbeats: HashMap<String, (String, Timestamp)>,
    /// From then on a missing heartbeat means death. None: the bus does not answer.
    trusted_from: Option<Timestamp>,
}

impl<O: Objects> Workers<O> {
    async fn run(mut self) {
        let mut events = self.bus.events();
        let mut wait = Duration::ZERO;
        loop {
            let looked_at = Instant::now();
            let mut due = looked_at + wait;
            // Cancel-safe: a stream's next, a point in time.
            loop {
                tokio::select! {
                    biased;
                    event = events.next() => match event {
                        Some(BusEvent::Worker(event)) if event.news == WorkerNews::Heartbeat => {
                            self.metrics.heartbeats.inc();
                        }
                        Some(BusEvent::Lost(_)) => self.trusted_from = None,
                        Some(event) => {
                            let soon = Instant::now() + SOON;
                            let at = if is_of_work(&event) { soon.max(looked_at + WHILE_BUSY) } else { soon };
                            due = due.min(at);
                        }
                        None => return,
                    },
                    () = sleep_until(due) => break,
                }
            }
            if let Err(error) = self.look().await {
                warn!(%error, "workers cannot be written down");
            }
            wait = LOOK;
        }
    }

    async fn look(&mut self) -> ApiResult<()> {
        let known = self.objects.list::<Worker>(Some(NAMESPACE)).await?;
        let ids: Vec<String> = known.iter().map(|worker| worker.id()).collect();
        let now = self.clock.now();
        // In this order: data that goes between the two is missed, and no roll without it is believed.
        let seen = async { Ok::<_, BusError>((self.bus.roll(&ids).await?, self.bus.remembers().await?)) };
        let Ok((roll, remembers)) = seen.await else {
            self.trusted_from = None;
            return Ok(());
        };
        if self.trusted_from.is_none() || !remembers {
            // Whoever lives renews its heartbeat several times until then.
            let grace = SignedDuration::try_from(self.settings.heartbeat_ttl / 2).unwrap_or_default();
            self.trusted_from = Some(now + grace);
        }
        let mut records: BTreeMap<&str, &WorkerRecord> = roll.iter().map(|r| (r.id.as_str(), r)).collect();
        for worker in &known {
            let id = worker.id();
            let record = records.remove(id.as_str());
            if !remembers && is_registered(worker) {
                info!(worker = id, "the bus has lost its data; it is told what is known of the worker");
                let lost = decide::remembered(worker, record);
                if let Err(error) = self.bus.restore(&lost).await {
                    warn!(worker = id, %error, "a worker could not be put back on the bus");
                    // The next look tries again, for nothing is remembered.
                    return Ok(());
                }
                continue;
            }
            let life = self.life(&id, record, worker, now);
            self.write(worker, record, life, now).await?;
        }
        let mut somebody_came = false;
        for (id, record) in records.into_iter().filter(|(_, record)| record.registered) {
            somebody_came = true;
            let made = self.make(id).await?;
            let life = self.life(id, Some(record), &made, now);
            self.write(&made, Some(record), life, now).await?;
        }
        // Whoever came may have been read before the loss: the next look writes it back as well.
        if !remembers
            && !somebody_came
            && let Err(error) = self.bus.remember().await
        {
            warn!(%error, "the bus could not be marked as ours");
        }
        Ok(())
    }

    fn life(&mut self, id: &str, record: Option<&WorkerRecord>, worker: &Worker, now: Timestamp) -> Life {
        let heartbeat = record.and_then(|record| record.heartbeat.clone());
        let since = heartbeat.as_ref().map(|heartbeat| {
            let seen = self.heartbeats.entry(id.to_owned()).or_insert_with(|| (heartbeat.clone(), now));
            if seen.0 != *heartbeat {
                *seen = (heartbeat.clone(), now);
            }
            seen.1
        });
        let sight = Sight {
            registered: record.is_some_and(|record| record.registered),
            heartbeat_since: since,
            trusted: self.trusted_from.is_some_and(|from| from <= now) || record.is_some_and(|record| record.parted),
        };
        decide::life(worker, sight, self.settings.heartbeat_ttl, now)
    }

    async fn write(&self, worker: &Worker, record: Option<&WorkerRecord>, life: Life, now: Timestamp) -> ApiResult<()> {
        let status = decide::status(worker, record, life, now);
        if worker.status.as_ref() == Some(&status) {
            return Ok(());
        }
        if life == Life::Gone && !is_stated(worker) {
            // Unless somebody has come to wish something of it: the next look sees that.
            return match self.objects.delete_unchanged(worker).await {
                Ok(()) => {
                    self.metrics.unregistered.inc();
                    info!(worker = worker.id(), "a worker has left");
                    Ok(())
                }
                Err(error) if error.reason == Reason::Conflict => Ok(()),
                Err(error) => Err(error),
            };
        }
        let mut wanted = worker.clone();
        wanted.status = Some(status);
        match self.objects.update_status(wanted).await {
            Ok(written) => {
                self.tell(worker, &written, life);
                Ok(())
            }
            // The next look sees what it has become.
            Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, before: &Worker, worker: &Worker, life: Life) {
        if decide::life_of(before) == Some(life) {
            return;
        }
        let reason: &'static str = life.reason().into();
        info!(worker = worker.id(), reason, "worker changed");
        match life {
            Life::Alive => drop(self.metrics.registered.inc()),
            Life::Dead | Life::Gone => drop(self.metrics.unregistered.inc()),
        }
        match life {
            Life::Dead => {
                let message = "its heartbeat has expired";
                self.recorder.record(&reference(worker), Note::warning(reason, reason, message));
            }
            Life::Alive | Life::Gone => {}
        }
    }

    async fn make(&self, id: &str) -> ApiResult<Arc<Worker>> {
        let name = decide::object_name(id);
        let mut worker = Worker::new(&name, crate::api::worker::WorkerSpec::default());
        if name != id {
            worker.spec.worker_id = Some(id.to_owned());
        }
        worker.metadata.namespace = Some(NAMESPACE.to_owned());
        worker.metadata.labels = Some([(label::DISCOVERED.to_owned(), "true".to_owned())].into());
        info!(worker = id, "a worker has come");
        self.objects.create(worker).await
    }
}

/// It tells what a worker is at, and nothing of whether it is there or takes tasks.
fn is_of_work(event: &BusEvent) -> bool {
    match event {
        BusEvent::Task(_) => true,
        BusEvent::Worker(event) => matches!(event.news, WorkerNews::Running { .. } | WorkerNews::Idle { .. }),
        BusEvent::Connected | BusEvent::Lost(_) => false,
    }
}

/// Somebody wishes something of it: the wish outlives the process that it is about.
fn is_stated(worker: &Worker) -> bool {
    let discovered =
        worker.metadata.labels.iter().flatten().any(|(name, value)| name == label::DISCOVERED && value == "true");
    !discovered || worker.spec.unschedulable || !worker.spec.tags.is_empty()
}

#[cfg(test)]
mod tests;
