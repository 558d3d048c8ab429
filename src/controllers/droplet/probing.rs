//! Who answers: each droplet is asked for its health now and then, and its status says what came of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reqwest::Method;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{directory::Known, objects, routing::Routing};
use crate::{
    adapters::peers::targets::Request,
    api::{
        condition::{self, ConditionStatus, READY},
        droplet::{Circuit, Droplet, DropletReason, DropletStatus},
    },
    registry::{ApiResult, Reason},
    runtime::{
        clock::Clock,
        events::{Note, Recorder},
        objects::Objects,
        reconciler::{name_of, reference},
    },
};

const TIMEOUT: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 32;
/// Health answers are short; what more there is of them is not read.
const MOST_BYTES: usize = 64 * 1024;
/// A status that says nothing new is written so often at least.
const RENEW: SignedDuration = SignedDuration::from_secs(60);

pub struct Prober<O: Objects> {
    pub objects: O,
    pub routing: Arc<Routing>,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
}

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The error says why not.
    pub reached: Result<(), (DropletReason, String)>,
    pub latency_ms: u64,
    pub circuit: Circuit,
}

impl<O: Objects> Prober<O> {
    /// All of them at the interval; new ones at once.
    pub async fn run(self) {
        let mut changes = self.routing.directory.changes();
        loop {
            let next = Instant::now() + self.routing.directory.settings.probe_interval;
            self.look(|_| true).await;
            // Cancel-safe: a changed number, a point in time.
            loop {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(next) => break,
                    changed = changes.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        self.look(|key| !self.routing.reachable().contains_key(key)).await;
                    }
                }
            }
        }
    }

    async fn look(&self, whom: impl Fn(&str) -> bool) {
        let view = self.routing.directory.view();
        let asked: Vec<Arc<Known>> = view.droplets.iter().filter(|known| whom(&known.entry.key())).cloned().collect();
        let objects = match self.objects.list::<Droplet>(None).await {
            Ok(objects) => objects,
            Err(error) => return warn!(%error, "droplets cannot be read"),
        };
        let by_name: HashMap<_, _> = objects.into_iter().map(|o| (name_of(&*o), o)).collect();
        let mut looks = Vec::with_capacity(asked.len());
        for known in asked {
            let object = known.object.as_ref().and_then(|name| by_name.get(name)).cloned();
            looks.push(self.look_at(known, object));
        }
        futures::stream::iter(looks).buffer_unordered(AT_ONCE).collect::<()>().await;
        self.routing.reachable().retain(|key, _| view.find(key).is_some());
    }

    async fn look_at(&self, known: Arc<Known>, object: Option<Arc<Droplet>>) {
        let look = self.probe(&known, object.as_ref()).await;
        self.routing.reachable().insert(known.entry.key(), look.reached.is_ok());
        if let Some(object) = object
            && let Err(error) = self.write(&object, look).await
        {
            warn!(%error, droplet = known.entry.name, "a droplet's status cannot be written");
        }
    }

    async fn probe(&self, known: &Known, object: Option<&Arc<Droplet>>) -> Look {
        let path = object.map_or("/health", |object| object.spec.health_path.as_str());
        let begun = Instant::now();
        let reached = match known.join(path) {
            Err(error) => Err((DropletReason::Unreachable, error.to_string())),
            Ok(destination) => {
                let request = Request {
                    method: Method::GET,
                    uri: destination.uri,
                    headers: HeaderMap::new(),
                    body: None,
                    timeout: TIMEOUT,
                    most_bytes: MOST_BYTES,
                };
                match self.routing.targets.send(request).await {
                    Ok(response) if response.status == 200 => Ok(()),
                    Ok(response) => {
                        let what = format!("GET {}: {}", destination.shown, response.status);
                        Err((DropletReason::UnhealthyAnswer, what))
                    }
                    Err(fault) => Err((DropletReason::Unreachable, fault.to_string())),
                }
            }
        };
        let circuit = self.routing.gate(known).circuit(&known.limits, self.clock.now());
        Look { reached, latency_ms: begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX), circuit }
    }

    async fn write(&self, object: &Arc<Droplet>, look: Look) -> ApiResult<()> {
        let now = self.clock.now();
        let status = status(object, &look, now);
        if says_the_same(object.status.as_ref(), &status, now) {
            return Ok(());
        }
        let before = object.status.as_ref().and_then(|status| status.reachable);
        let mut wanted = (**object).clone();
        wanted.status = Some(status);
        let written = match self.objects.update_status(wanted).await {
            Ok(written) => written,
            // The next look sees what it has become.
            Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        if before != Some(look.reached.is_ok()) {
            let droplet = objects::display_name(object);
            match look.reached {
                Ok(()) => info!(droplet, "a droplet answers"),
                Err((reason, message)) => {
                    info!(droplet, message, "a droplet does not answer");
                    let reason: &'static str = reason.into();
                    self.recorder.record(&reference(&*written), Note::warning(reason, "Probe", message));
                }
            }
        }
        Ok(())
    }
}

/// What an object says after a look.
pub fn status(object: &Droplet, look: &Look, now: Timestamp) -> DropletStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    status.observed_generation = generation;
    status.reachable = Some(look.reached.is_ok());
    status.latency_ms = look.reached.is_ok().then_some(look.latency_ms);
    status.probed_at = Some(Time(now));
    status.circuit = look.circuit;
    status.source = Some(objects::source(object));
    let (ready, reason, message) = match (&look.reached, look.circuit) {
        (Err((reason, message)), _) => (ConditionStatus::False, *reason, message.clone()),
        (Ok(()), Circuit::Open) => {
            (ConditionStatus::False, DropletReason::CircuitOpen, "calls to it failed in a row".to_owned())
        }
        (Ok(()), Circuit::Closed | Circuit::HalfOpen) => {
            (ConditionStatus::True, DropletReason::Reachable, String::new())
        }
    };
    condition::set(&mut status.conditions, READY, ready, reason.into(), message, generation, &Time(now));
    status
}

/// A latency is never the same twice; it alone is not worth a version every few seconds.
fn says_the_same(before: Option<&DropletStatus>, after: &DropletStatus, now: Timestamp) -> bool {
    let Some(before) = before else { return false };
    let recent = before.probed_at.as_ref().is_some_and(|at| now.duration_since(at.0) < RENEW);
    let leveled = DropletStatus { latency_ms: after.latency_ms, probed_at: after.probed_at.clone(), ..before.clone() };
    recent && leveled == *after
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::droplet::DropletSpec;

    #[test]
    fn a_status_says_what_was_found() {
        let mut object = Droplet::new("a", DropletSpec::default());
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        let look = |reached| Look { reached, latency_ms: 7, circuit: Circuit::Closed };
        let well = status(&object, &look(Ok(())), now);
        assert_eq!((well.reachable, well.latency_ms), (Some(true), Some(7)));
        assert!(condition::is_true(&well.conditions, READY));
        object.status = Some(well.clone());
        let slower = status(&object, &Look { latency_ms: 9, ..look(Ok(())) }, now);
        assert!(says_the_same(Some(&well), &slower, now));
        assert!(!says_the_same(Some(&well), &slower, now + RENEW));
        let gone = status(&object, &look(Err((DropletReason::Unreachable, "refused".to_owned()))), now);
        assert_eq!((gone.reachable, gone.latency_ms), (Some(false), None));
        assert!(!says_the_same(Some(&well), &gone, now));
    }
}
