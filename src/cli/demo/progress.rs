//! How the demo gets where it is going: one line whenever a workload or a handoff gets on, and a spinner for each where
//! there is a terminal.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kube::{
    ResourceExt,
    runtime::watcher::{self, Event},
};

use super::{
    super::{CliError, handoff::render, session::Session, stack::services},
    flights::Flights,
};
use crate::api::{
    condition,
    gpu::Gpu,
    handoff::Handoff,
    source::Source,
    workload::{Variant, Workload, WorkloadStatus},
};

/// Returns when the files are applied, every card has found its holder, and every workload is ready or will be when the card
/// is its own.
pub async fn follow(session: &Session, out: &mut dyn Write) -> Result<(), CliError> {
    let sources = watcher::watcher(session.all::<Source>(), watcher::Config::default());
    let workloads = watcher::watcher(session.all::<Workload>(), watcher::Config::default());
    let cards = watcher::watcher(session.all::<Gpu>(), watcher::Config::default());
    let handoffs = watcher::watcher(session.all::<Handoff>(), watcher::Config::default());
    let mut news = futures::stream::select_all([
        sources.map_ok(|event| News::Source(Box::new(event))).boxed(),
        workloads.map_ok(|event| News::Workload(Box::new(event))).boxed(),
        cards.map_ok(|event| News::Card(Box::new(event))).boxed(),
        handoffs.map_ok(|event| News::Handoff(Box::new(event))).boxed(),
    ]);
    let mut seen = Seen::default();
    let mut flights = Flights::default();
    let mut view = View::new();
    while let Some(news) = news.next().await {
        match news {
            Ok(News::Source(event)) => seen.source(*event),
            Ok(News::Card(event)) => seen.card(*event),
            Ok(News::Handoff(event)) => {
                for (handoff, line) in flights.news(*event) {
                    view.handoff(&handoff, &line, out)?;
                }
            }
            Ok(News::Workload(event)) => {
                if let Some(workload) = seen.workload(*event) {
                    view.workload(&workload, out)?;
                }
            }
            // The watcher tries again by itself.
            Err(error) => tracing::warn!(error = super::super::error::chain(&error), "watch failed"),
        }
        if seen.converged() {
            break;
        }
    }
    view.finish(&seen, out)
}

enum News {
    Source(Box<Event<Source>>),
    Workload(Box<Event<Workload>>),
    Card(Box<Event<Gpu>>),
    Handoff(Box<Event<Handoff>>),
}

#[derive(Default)]
struct Seen {
    /// Every source, and whether its files are applied.
    sources: BTreeMap<String, bool>,
    workloads: BTreeMap<String, Arrival>,
    /// Every card, and whether its owner has had it.
    cards: BTreeMap<String, bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    OnTheWay,
    WaitsForCard,
    Ready,
}

impl Seen {
    fn source(&mut self, event: Event<Source>) {
        keep(&mut self.sources, event, |source| {
            let status = source.status.as_ref();
            status.is_some_and(|s| condition::is_true(&s.conditions, condition::READY))
        });
    }

    fn card(&mut self, event: Event<Gpu>) {
        keep(&mut self.cards, event, |card| {
            let settled = card.status.as_ref().is_some_and(|s| !s.leases.is_empty() && s.handoff.is_none());
            settled || card.spec.owner.is_none()
        });
    }

    /// The workload if there is something new about it to show.
    fn workload(&mut self, event: Event<Workload>) -> Option<Workload> {
        let shown = match &event {
            Event::Apply(workload) | Event::InitApply(workload) => Some(workload.clone()),
            Event::Delete(_) | Event::Init | Event::InitDone => None,
        };
        keep(&mut self.workloads, event, arrival);
        shown
    }

    fn waiting(&self) -> Vec<&str> {
        self.workloads.iter().filter(|(_, a)| **a == Arrival::WaitsForCard).map(|(name, _)| name.as_str()).collect()
    }

    fn converged(&self) -> bool {
        let all = |map: &BTreeMap<String, bool>| !map.is_empty() && map.values().all(|ready| *ready);
        let arrived = !self.workloads.is_empty() && self.workloads.values().all(|a| *a != Arrival::OnTheWay);
        // Before a card has its holder, that holder itself waits for it.
        all(&self.sources) && arrived && (self.waiting().is_empty() || all(&self.cards))
    }
}

/// Keeps what is told about each object that is there.
fn keep<K: ResourceExt, T>(map: &mut BTreeMap<String, T>, event: Event<K>, tell: impl Fn(&K) -> T) {
    match event {
        Event::Apply(object) | Event::InitApply(object) => {
            map.insert(object.name_any(), tell(&object));
        }
        Event::Delete(object) => {
            map.remove(&object.name_any());
        }
        Event::Init | Event::InitDone => {}
    }
}

fn arrival(workload: &Workload) -> Arrival {
    match services::standing(workload, Variant::Live, true) {
        _ if is_ready(workload) => Arrival::Ready,
        services::Standing::WaitsForCard(_) => Arrival::WaitsForCard,
        services::Standing::There | services::Standing::Going(_) | services::Standing::Stuck(_) => Arrival::OnTheWay,
    }
}

fn is_ready(workload: &Workload) -> bool {
    workload.status.as_ref().is_some_and(|status| {
        status.observed_generation == workload.metadata.generation
            && condition::is_true(&status.conditions, condition::READY)
    })
}

/// `Running: starts, answers no probe yet`, in the controller's own words.
fn state(status: Option<&WorkloadStatus>) -> String {
    let ready = status.and_then(|s| s.conditions.iter().find(|c| c.type_ == condition::READY));
    match ready {
        None => "waiting".to_owned(),
        Some(ready) if ready.message.is_empty() => ready.reason.clone(),
        Some(ready) => format!("{}: {}", ready.reason, ready.message),
    }
}

struct View {
    started: Instant,
    /// What was last said of each: the same is not said twice.
    said: BTreeMap<String, String>,
    bars: Option<(MultiProgress, BTreeMap<String, ProgressBar>)>,
}

impl View {
    fn new() -> Self {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bars = terminal.then(|| (MultiProgress::new(), BTreeMap::new()));
        Self { started: Instant::now(), said: BTreeMap::new(), bars }
    }

    fn workload(&mut self, workload: &Workload, out: &mut dyn Write) -> Result<(), CliError> {
        let state = state(workload.status.as_ref());
        let arrival = arrival(workload);
        let state = if arrival == Arrival::Ready { format!("ready, {state}") } else { state };
        self.show(workload.name_any(), state, arrival != Arrival::OnTheWay, out)
    }

    fn handoff(&mut self, handoff: &Handoff, line: &str, out: &mut dyn Write) -> Result<(), CliError> {
        let over = render::status(handoff).phase.is_terminal();
        self.show(handoff.name_any(), format!("handoff: {}", line.trim_start()), over, out)
    }

    fn show(&mut self, name: String, state: String, done: bool, out: &mut dyn Write) -> Result<(), CliError> {
        if self.said.get(&name) == Some(&state) {
            return Ok(());
        }
        match &mut self.bars {
            Some((all, bars)) => {
                let bar = bars.entry(name.clone()).or_insert_with(|| spinner(all, &name));
                match done {
                    true => bar.finish_with_message(state.clone()),
                    false => bar.set_message(state.clone()),
                }
            }
            None => {
                writeln!(out, "{:6.1}s  {name:<20} {state}", self.started.elapsed().as_secs_f64())?;
                out.flush()?;
            }
        }
        self.said.insert(name, state);
        Ok(())
    }

    fn finish(self, seen: &Seen, out: &mut dyn Write) -> Result<(), CliError> {
        if self.bars.is_some() {
            // The last spinner leaves the cursor behind itself.
            writeln!(out)?;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let (count, waiting) = (seen.workloads.len(), seen.waiting());
        let waits = match waiting.as_slice() {
            [] => String::new(),
            names => format!("; {} waits for the card", names.join(", ")),
        };
        writeln!(out, "{count} workloads are as the files want them, after {seconds:.1} s{waits}")?;
        Ok(out.flush()?)
    }
}

fn spinner(all: &MultiProgress, name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner:.green} {prefix:20} {elapsed:>4} {wide_msg}")
        .expect("a constant template that indicatif knows");
    let bar = all.add(ProgressBar::new_spinner().with_style(style).with_prefix(name.to_owned()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::super::stack::services::tests::state, *};

    fn workload(name: &str, reason: &str) -> Event<Workload> {
        let (there, off) = (state("Running", "Healthy"), state("Absent", "Unknown"));
        let live = if reason == "Running" { there } else { off.clone() };
        Event::Apply(services::tests::workload(name, live, off, reason))
    }

    fn card(status: Value) -> Event<Gpu> {
        let spec = json!({"device": {"index": 0}, "owner": {"name": "gaia-prime"}});
        Event::Apply(
            serde_json::from_value(json!({"metadata": {"name": "gpu0"}, "spec": spec, "status": status}))
                .expect("a Gpu"),
        )
    }

    #[test]
    fn it_has_converged_when_only_the_card_is_missing() {
        let mut seen = Seen { sources: BTreeMap::from([("desired".to_owned(), true)]), ..Seen::default() };
        seen.workload(workload("gaia-prime", "WaitingForGpu"));
        seen.workload(workload("gaia-study", "WaitingForGpu"));
        seen.card(card(json!({})));
        assert!(!seen.converged(), "the owner has no card yet");
        let lease = json!([{"holder": {"name": "gaia-prime"}, "leaseId": "1", "fencingToken": 1}]);
        seen.card(card(json!({"leases": lease, "handoff": "default/gpu0-1"})));
        assert!(!seen.converged(), "a handoff runs");
        seen.card(card(json!({"leases": lease})));
        seen.workload(workload("gaia-prime", "Starting"));
        assert!(!seen.converged(), "the owner starts");
        seen.workload(workload("gaia-prime", "Running"));
        assert!(seen.converged());
        assert_eq!(seen.waiting(), ["gaia-study"]);
        let Event::Apply(prime) = workload("gaia-prime", "Running") else { unreachable!("made above") };
        seen.workload(Event::Delete(prime));
        assert_eq!(seen.workloads.len(), 1);
    }
}
