//! How the demo gets where it is going: one line whenever a workload's state changes, and a spinner per workload where
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

use super::super::{CliError, session::Session};
use crate::api::{
    condition,
    source::Source,
    workload::{Workload, WorkloadStatus},
};

/// Returns when the files are applied and every workload is ready.
pub async fn follow(session: &Session, out: &mut dyn Write) -> Result<(), CliError> {
    let sources = watcher::watcher(session.all::<Source>(), watcher::Config::default());
    let workloads = watcher::watcher(session.all::<Workload>(), watcher::Config::default());
    let mut news = futures::stream::select(
        sources.map_ok(|event| News::Source(Box::new(event))).boxed(),
        workloads.map_ok(|event| News::Workload(Box::new(event))).boxed(),
    );
    let mut seen = Seen::default();
    let mut view = View::new();
    while let Some(news) = news.next().await {
        match news {
            Ok(News::Source(event)) => seen.source(*event),
            Ok(News::Workload(event)) => {
                if let Some(workload) = seen.workload(*event) {
                    view.show(&workload, out)?;
                }
            }
            // The watcher tries again by itself.
            Err(error) => tracing::warn!(error = super::super::error::chain(&error), "watch failed"),
        }
        if seen.converged() {
            break;
        }
    }
    view.finish(seen.workloads.len(), out)
}

enum News {
    Source(Box<Event<Source>>),
    Workload(Box<Event<Workload>>),
}

#[derive(Default)]
struct Seen {
    /// Every source, and whether its files are applied.
    sources: BTreeMap<String, bool>,
    /// Every workload, and whether it is as wished.
    workloads: BTreeMap<String, bool>,
}

impl Seen {
    fn source(&mut self, event: Event<Source>) {
        match event {
            Event::Apply(source) | Event::InitApply(source) => {
                let status = source.status.as_ref();
                let ready = status.is_some_and(|s| condition::is_true(&s.conditions, condition::READY));
                self.sources.insert(source.name_any(), ready);
            }
            Event::Delete(source) => {
                self.sources.remove(&source.name_any());
            }
            Event::Init | Event::InitDone => {}
        }
    }

    /// The workload if there is something new about it to show.
    fn workload(&mut self, event: Event<Workload>) -> Option<Workload> {
        match event {
            Event::Apply(workload) | Event::InitApply(workload) => {
                self.workloads.insert(workload.name_any(), is_ready(&workload));
                Some(workload)
            }
            Event::Delete(workload) => {
                self.workloads.remove(&workload.name_any());
                None
            }
            Event::Init | Event::InitDone => None,
        }
    }

    fn converged(&self) -> bool {
        let all = |map: &BTreeMap<String, bool>| !map.is_empty() && map.values().all(|ready| *ready);
        all(&self.sources) && all(&self.workloads)
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
    /// What was last said of each workload: the same is not said twice.
    said: BTreeMap<String, String>,
    bars: Option<(MultiProgress, BTreeMap<String, ProgressBar>)>,
}

impl View {
    fn new() -> Self {
        let terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let bars = terminal.then(|| (MultiProgress::new(), BTreeMap::new()));
        Self { started: Instant::now(), said: BTreeMap::new(), bars }
    }

    fn show(&mut self, workload: &Workload, out: &mut dyn Write) -> Result<(), CliError> {
        let name = workload.name_any();
        let mut state = state(workload.status.as_ref());
        let ready = is_ready(workload);
        if ready {
            state = format!("ready, {state}");
        }
        if self.said.get(&name) == Some(&state) {
            return Ok(());
        }
        match &mut self.bars {
            Some((all, bars)) => {
                let bar = bars.entry(name.clone()).or_insert_with(|| spinner(all, &name));
                match ready {
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

    fn finish(self, count: usize, out: &mut dyn Write) -> Result<(), CliError> {
        if self.bars.is_some() {
            // The last spinner leaves the cursor behind itself.
            writeln!(out)?;
        }
        let seconds = self.started.elapsed().as_secs_f64();
        writeln!(out, "{count} workloads are as the files want them, after {seconds:.1} s")?;
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
