//! Starting and stopping a variant of many workloads: `running` is patched, and the workloads are followed until each is
//! where it was sent, or says why it will not get there.

use std::{collections::BTreeMap, io::Write, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde_json::{Value, json};

use super::{
    super::{
        CliError, Outcome,
        follow::{End, INTERRUPTED, follow},
        objects, print,
        session::Session,
        view::View,
    },
    StackArgs,
    services::{self, Standing},
    status,
};
use crate::api::workload::{Variant, Workload};

pub async fn run(variant: Variant, running: bool, args: StackArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.common.server)?;
    let namespace = args.common.namespace.as_str();
    let all: Vec<Workload> = session.list(Some(namespace), args.selector.as_deref()).await?;
    let chosen = choose(&all, &args.names, variant)?;
    let mut sent = Vec::new();
    for workload in &chosen {
        let name = workload.name_any();
        sent.push(session.merge::<Workload>(Some(namespace), &name, wish(variant, running)).await?);
    }
    if !args.no_wait {
        let watched = Watched { variant, running, limit: Duration::from_secs(args.timeout) };
        match watched.settle(&mut watch(&session, namespace), &sent).await? {
            End::Came(standings) => return tell(&session, &args, variant, &standings, out).await,
            End::TimedOut => {
                let seconds = args.timeout;
                let message = format!("not all are where they were sent after {seconds} s; it goes on: gaia status");
                return Err(CliError::Failed(message));
            }
            End::Interrupted if args.cancel_on_interrupt => {
                for workload in chosen.iter().filter(|workload| services::wished(workload, variant) != running) {
                    session.merge::<Workload>(Some(namespace), &workload.name_any(), wish(variant, !running)).await?;
                }
                return Err(CliError::Failed("set back".to_owned()));
            }
            End::Interrupted => {
                let (word, verb) = (variant.as_str(), if running { "stop" } else { "start" });
                eprintln!("It goes on. Look: gaia {word} status. Undo: gaia {word} {verb}");
                return Ok(INTERRUPTED);
            }
        }
    }
    let verb = if running { "start" } else { "stop" };
    let text = || sent.iter().map(|w| format!("{} is asked to {verb}\n", services::shown_name(w, variant))).collect();
    print::result(out, args.common.output, &print::list(&sent), text)?;
    Ok(0)
}

/// What a variant came to, by workload.
type Standings = BTreeMap<String, Standing>;

async fn tell(
    session: &Session,
    args: &StackArgs,
    variant: Variant,
    standings: &Standings,
    out: &mut dyn Write,
) -> Outcome {
    let mut now: Vec<Workload> = session.list(Some(&args.common.namespace), None).await?;
    now.retain(|workload| standings.contains_key(&workload.name_any()));
    let text = || status::stack(&now, variant, status::in_color());
    print::result(out, args.common.output, &print::list(&now), text)?;
    for (name, standing) in standings {
        if let Standing::WaitsForCard(_) = standing {
            let to = match variant {
                Variant::Live => name.clone(),
                Variant::Candidate => format!("{name}:candidate"),
            };
            eprintln!("{name} starts when it gets its card: gaia handoff start --to {to}");
        }
    }
    stuck(standings)
}

/// Waiting for a card is no failure: a stack that shares one always has somebody who waits.
fn stuck(standings: &Standings) -> Outcome {
    let failures: Vec<_> = standings
        .iter()
        .filter_map(|(name, standing)| match standing {
            Standing::Stuck(why) => Some(format!("{name}: {why}")),
            Standing::There | Standing::Going(_) | Standing::WaitsForCard(_) => None,
        })
        .collect();
    if failures.is_empty() { Ok(0) } else { Err(CliError::Failed(failures.join("; "))) }
}

/// The workloads that are meant, each once.
fn choose<'a>(all: &'a [Workload], names: &[String], variant: Variant) -> Result<Vec<&'a Workload>, CliError> {
    let word = variant.as_str();
    if names.is_empty() {
        let having: Vec<_> = all.iter().filter(|workload| services::has(workload, variant)).collect();
        let message = format!("no workload has a {word} variant");
        return if having.is_empty() { Err(CliError::Failed(message)) } else { Ok(having) };
    }
    let mut chosen: Vec<&Workload> = Vec::new();
    for name in names {
        let Some(workload) = services::named(all, name) else {
            return Err(CliError::Failed(format!("there is no {}", objects::label::<Workload>(name))));
        };
        if !services::has(workload, variant) {
            return Err(CliError::Failed(format!("{} has no {word} variant", workload.name_any())));
        }
        if !chosen.iter().any(|known| known.name_any() == workload.name_any()) {
            chosen.push(workload);
        }
    }
    Ok(chosen)
}

/// The patch that says that a variant shall run, or not.
pub fn wish(variant: Variant, running: bool) -> Value {
    json!({"spec": {variant.as_str(): {"running": running}}})
}

pub type Watch = BoxStream<'static, watcher::Result<Event<Workload>>>;

pub fn watch(session: &Session, namespace: &str) -> Watch {
    watcher::watcher(session.within::<Workload>(namespace), watcher::Config::default()).default_backoff().boxed()
}

/// Workloads on their way to one wish.
pub struct Watched {
    pub variant: Variant,
    pub running: bool,
    pub limit: Duration,
}

impl Watched {
    /// Returns when none is on its way any more.
    pub async fn settle(&self, watch: &mut Watch, sent: &[Workload]) -> Result<End<Standings>, CliError> {
        let standing = |workload: &Workload| services::standing(workload, self.variant, self.running);
        let mut standings: Standings =
            sent.iter().map(|w| (w.name_any(), Standing::Going("asked".to_owned()))).collect();
        // What the watch brings first may be older than our patch.
        let generations: BTreeMap<_, _> = sent.iter().map(|w| (w.name_any(), w.metadata.generation)).collect();
        let mut view = View::new();
        let end = follow(watch, Some(self.limit), |event| {
            match event {
                Event::Apply(workload) | Event::InitApply(workload) => {
                    let name = workload.name_any();
                    if generations.get(&name).is_some_and(|sent| *sent <= workload.metadata.generation) {
                        let standing = standing(&workload);
                        view.say(&told(&services::shown_name(&workload, self.variant), &standing));
                        standings.insert(name, standing);
                    }
                }
                Event::Delete(workload) if standings.contains_key(&workload.name_any()) => {
                    let label = objects::label::<Workload>(&workload.name_any());
                    return Err(CliError::Failed(format!("{label} was deleted")));
                }
                Event::Delete(_) | Event::Init | Event::InitDone => {}
            }
            let going = standings.iter().filter(|(_, standing)| matches!(standing, Standing::Going(_)));
            let names: Vec<_> = going.map(|(name, _)| name.as_str()).collect();
            view.now(pct(standings.len() - names.len(), standings.len()), &names.join(", "));
            Ok(names.is_empty().then(|| standings.clone()))
        })
        .await;
        view.finish();
        end
    }
}

fn told(name: &str, standing: &Standing) -> String {
    match standing {
        Standing::There => format!("{name}: done"),
        Standing::Going(why) if why == "asked" => String::new(),
        Standing::Going(why) | Standing::WaitsForCard(why) | Standing::Stuck(why) => format!("{name}: {why}"),
    }
}

fn pct(part: usize, whole: usize) -> u32 {
    u32::try_from(part * 100 / whole.max(1)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::{
        super::services::tests::{state, workload},
        *,
    };

    #[test]
    fn the_chosen_are_those_named_or_all_that_have_the_variant() {
        let mut all = ["gaia-core", "gaia-web"]
            .map(|name| workload(name, state("Running", "Healthy"), state("Absent", "Unknown"), "Running"));
        all[1].spec.candidate = None;
        let names = |names: &[&str], variant| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            choose(&all, &names, variant)
                .map(|chosen| chosen.iter().map(|w| w.name_any()).collect::<Vec<_>>().join(" "))
                .map_err(|e| e.report())
        };
        assert_eq!(names(&[], Variant::Live), Ok("gaia-core gaia-web".to_owned()));
        assert_eq!(names(&[], Variant::Candidate), Ok("gaia-core".to_owned()));
        assert_eq!(names(&["core", "gaia-core"], Variant::Live), Ok("gaia-core".to_owned()));
        assert_eq!(names(&["web"], Variant::Candidate), Err("gaia-web has no candidate variant".to_owned()));
        assert_eq!(names(&["x"], Variant::Live), Err("there is no workload.gaia.dev/x".to_owned()));
    }

    #[test]
    fn who_waits_for_a_card_is_no_failure_and_who_is_stuck_is() {
        let waits = ("study".to_owned(), Standing::WaitsForCard("WaitingForGpu".to_owned()));
        assert_eq!(stuck(&Standings::from([waits.clone()])).expect("no failure"), 0);
        let stalled = ("web".to_owned(), Standing::Stuck("ImageNotFound: nginx:none".to_owned()));
        let failure = stuck(&Standings::from([waits, stalled])).expect_err("stuck");
        assert_eq!(failure.report(), "web: ImageNotFound: nginx:none");
    }
}
