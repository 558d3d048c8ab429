//! Handoffs as they happen, for the demo: what is new about each, as lines.

use std::{collections::BTreeMap, convert::Infallible, io::Write, time::Instant};

use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};

use super::super::{handoff::render, session::Session};
use crate::api::handoff::{Handoff, HandoffStatus};

/// What was told of each handoff so far.
#[derive(Default)]
pub struct Flights {
    seen: BTreeMap<String, HandoffStatus>,
}

impl Flights {
    /// The lines that an event is worth, each with its handoff.
    pub fn news(&mut self, event: Event<Handoff>) -> Vec<(Handoff, String)> {
        match event {
            Event::Apply(handoff) | Event::InitApply(handoff) => {
                let (name, now) = (handoff.name_any(), render::status(&handoff));
                let before = self.seen.insert(name, now.clone());
                let lines = render::news(&before.clone().unwrap_or_default(), &now, before.is_none());
                lines.into_iter().map(|line| (handoff.clone(), line)).collect()
            }
            Event::Delete(handoff) => {
                self.seen.remove(&handoff.name_any());
                Vec::new()
            }
            Event::Init | Event::InitDone => Vec::new(),
        }
    }

    /// Takes note without telling.
    fn skip(&mut self, event: Event<Handoff>) {
        self.news(event);
    }
}

/// Tells every handoff that happens from now on. Never returns; what cannot be printed is not, since the demo goes on
/// without a reader.
pub async fn tell(session: &Session, out: &mut dyn Write) -> Infallible {
    let started = Instant::now();
    let watch = watcher::watcher(session.all::<Handoff>(), watcher::Config::default());
    let mut watch = watch.default_backoff().boxed();
    let mut flights = Flights::default();
    let mut begun = false;
    while let Some(event) = watch.next().await {
        match event {
            // Those that are there already were told, or ended before anybody looked.
            Ok(event) if !begun => {
                begun = matches!(event, Event::InitDone);
                flights.skip(event);
            }
            Ok(event) => {
                for (handoff, line) in flights.news(event) {
                    let told = told(started.elapsed().as_secs_f64(), &handoff, &line);
                    if writeln!(out, "{told}").and_then(|()| out.flush()).is_err() {
                        return std::future::pending().await;
                    }
                }
            }
            // The watcher tries again by itself.
            Err(error) => tracing::warn!(error = super::super::error::chain(&error), "watch failed"),
        }
    }
    std::future::pending().await
}

/// A phase with who hands what to whom; a step beneath it.
fn told(seconds: f64, handoff: &Handoff, line: &str) -> String {
    format!("{seconds:6.1}s  {}: {line}", handoff.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn handoff(status: Value) -> Handoff {
        let spec = json!({"gpu": "gpu0", "to": {"name": "gaia-study"}});
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec, "status": status})).expect("a Handoff")
    }

    fn lines(flights: &mut Flights, event: Event<Handoff>) -> Vec<String> {
        flights.news(event).iter().map(|(handoff, line)| told(1.5, handoff, line)).collect()
    }

    #[test]
    fn every_phase_is_told_once() {
        let mut flights = Flights::default();
        let releasing = handoff(json!({"phase": "ReleasingGpu", "progressPct": 10}));
        assert_eq!(lines(&mut flights, Event::Apply(handoff(json!({})))), ["   1.5s  a: Initiated (0 %)"]);
        assert_eq!(lines(&mut flights, Event::Apply(releasing.clone())), ["   1.5s  a: ReleasingGpu (10 %)"]);
        assert!(lines(&mut flights, Event::InitApply(releasing.clone())).is_empty(), "a list brings nothing new");
        assert!(lines(&mut flights, Event::Delete(releasing)).is_empty());
        assert_eq!(lines(&mut flights, Event::Apply(handoff(json!({})))).len(), 1, "another of the same name");
    }
}
