//! `gaia source`: what the files of a Source came to before, back to that, on again, and read it now. Each of them reads or
//! patches the Source, as `kubectl` could.

mod history;

use std::{io::Write, time::Duration};

use clap::{Args, Subcommand};
use futures::StreamExt;
use jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use super::{
    CliError, Outcome,
    follow::{End, INTERRUPTED, follow},
    objects,
    print::{self, Format},
    session::{ServerArgs, Session},
};
use crate::api::{
    annotation,
    condition::{READY, RECONCILING},
    source::Source,
    sourcerevision::SourceRevision,
};

#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// What its files came to before: revisions, the youngest first
    History(history::HistoryArgs),
    /// Keep the objects at an earlier revision, whatever the files say
    Rollback(RollbackArgs),
    /// Follow the files again
    Resume(ResumeArgs),
    /// Read it now, and wait until what it says is applied
    Sync(SyncArgs),
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The Source
    #[arg(default_value = "desired", value_name = "SOURCE")]
    name: String,
    /// To this revision, as `gaia source history` numbers them; absent: the one before
    #[arg(long, value_name = "REVISION")]
    to: Option<i64>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The Source
    #[arg(default_value = "desired", value_name = "SOURCE")]
    name: String,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub struct SyncArgs {
    /// The Source
    #[arg(default_value = "desired", value_name = "SOURCE")]
    name: String,
    #[command(flatten)]
    waiting: Waiting,
}

/// What is done, it does; here one may wait for it.
#[derive(Debug, Args)]
struct Waiting {
    /// Give up waiting after so many seconds; what was begun goes on
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
    /// Do not wait
    #[arg(long)]
    no_wait: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

pub async fn run(command: SourceCommand, out: &mut dyn Write) -> Outcome {
    match command {
        SourceCommand::History(args) => history::run(args, out).await,
        SourceCommand::Rollback(args) => rollback(args, out).await,
        SourceCommand::Resume(args) => resume(args, out).await,
        SourceCommand::Sync(args) => sync(args, out).await,
    }
}

async fn rollback(RollbackArgs { name, to, waiting }: RollbackArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&waiting.server)?;
    let source = at_work(&session, &name).await?;
    let revisions = revisions(&session, &name).await?;
    let numbers: Vec<i64> = revisions.iter().map(|revision| revision.spec.revision).collect();
    let to = wanted(&source, &numbers, to)?;
    let sent = session.merge::<Source>(None, &name, json!({"spec": {"pin": to}})).await?;
    eprintln!("{} is kept at revision {to} until: gaia source resume {name}", objects::label::<Source>(&name));
    let generation = sent.metadata.generation;
    settle(&session, &waiting, sent, |source| observed(source) >= generation, out).await
}

async fn resume(ResumeArgs { name, waiting }: ResumeArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&waiting.server)?;
    at_work(&session, &name).await?;
    let sent = session.merge::<Source>(None, &name, json!({"spec": {"pin": null}})).await?;
    let generation = sent.metadata.generation;
    settle(&session, &waiting, sent, |source| observed(source) >= generation, out).await
}

async fn sync(SyncArgs { name, waiting }: SyncArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&waiting.server)?;
    at_work(&session, &name).await?;
    let request = Timestamp::now().to_string();
    let patch = json!({"metadata": {"annotations": {annotation::RECONCILE_AT: request}}});
    let sent = session.merge::<Source>(None, &name, patch).await?;
    let answered =
        |source: &Source| source.status.as_ref().and_then(|s| s.handled_request.as_deref()) == Some(&*request);
    settle(&session, &waiting, sent, answered, out).await
}

/// A Source that does something.
async fn at_work(session: &Session, name: &str) -> Result<Source, CliError> {
    let source: Source = session.get(None, name).await?;
    match source.spec.suspend {
        true => Err(CliError::Failed(format!(
            "{} is suspended (spec.suspend): it does nothing",
            objects::label::<Source>(name)
        ))),
        false => Ok(source),
    }
}

/// Of one Source, the youngest first.
async fn revisions(session: &Session, source: &str) -> Result<Vec<SourceRevision>, CliError> {
    let mut all: Vec<SourceRevision> = session.list(None, None).await?;
    all.retain(|revision| revision.spec.source == source);
    all.sort_by_key(|revision| std::cmp::Reverse(revision.spec.revision));
    Ok(all)
}

/// `numbers`: those there are, the youngest first.
fn wanted(source: &Source, numbers: &[i64], to: Option<i64>) -> Result<i64, CliError> {
    let name = source.name_any();
    let known = || numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    match to {
        Some(to) if numbers.contains(&to) => Ok(to),
        Some(to) => Err(CliError::Failed(format!("Source {name} has no revision {to}; there are: {}", known()))),
        None => {
            let present = source.spec.pin.or(source.status.as_ref().and_then(|status| status.revision));
            let before = numbers.iter().find(|number| present.is_some_and(|present| **number < present));
            before.copied().ok_or_else(|| {
                CliError::Failed(format!(
                    "Source {name} has no revision before the present one; there are: {}",
                    known()
                ))
            })
        }
    }
}

fn observed(source: &Source) -> Option<i64> {
    source.status.as_ref()?.observed_generation
}

/// Waits until the Source has answered, and tells what it came to.
async fn settle(
    session: &Session,
    waiting: &Waiting,
    sent: Source,
    answered: impl Fn(&Source) -> bool,
    out: &mut dyn Write,
) -> Outcome {
    let name = sent.name_any();
    let label = objects::label::<Source>(&name);
    if waiting.no_wait {
        print::result(out, waiting.output, &sent, || format!("{label} changed\n"))?;
        return Ok(0);
    }
    let mut watch = watcher::watch_object(session.all::<Source>(), &name).default_backoff().boxed();
    let look = |source: Option<Source>| match source {
        None => Err(CliError::Failed(format!("{label} was deleted"))),
        Some(source) => Ok(Some(source).filter(|source| answered(source) && !is_pruning(source))),
    };
    match follow(&mut watch, Some(Duration::from_secs(waiting.timeout)), look).await? {
        End::Came(source) => {
            let said = conclusion(&source);
            if said.is_ok() || waiting.output != Format::Text {
                print::result(out, waiting.output, &source, || {
                    format!("{label}: {}\n", said.as_deref().unwrap_or_default())
                })?;
            }
            said.map(|_| 0).map_err(|why| CliError::Failed(format!("{label} is not as wished: {why}")))
        }
        End::TimedOut => Err(CliError::Failed(format!(
            "{label} has not come to it after {} s; look: gaia describe source {name}",
            waiting.timeout
        ))),
        End::Interrupted => {
            eprintln!("What was asked goes on. Look: gaia describe source {name}");
            Ok(INTERRUPTED)
        }
    }
}

fn is_pruning(source: &Source) -> bool {
    source.status.iter().flat_map(|status| &status.conditions).any(|condition| condition.type_ == RECONCILING)
}

/// What Ready says.
fn conclusion(source: &Source) -> Result<String, String> {
    let ready = source.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == READY);
    match ready {
        Some(ready) if ready.status == "True" => Ok(ready.message.clone()),
        Some(ready) => Err(format!("{}: {}", ready.reason, ready.message)),
        None => Err("it says nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::the_one_before(None, Some(4), &[4, 2, 1], None, Ok(2))]
    #[case::further_back(Some(2), Some(2), &[4, 2, 1], None, Ok(1))]
    #[case::named(None, Some(4), &[4, 2, 1], Some(1), Ok(1))]
    #[case::not_there(None, Some(4), &[4, 2], Some(3), Err("Source s has no revision 3; there are: 4, 2"))]
    #[case::nothing_before(None, Some(1), &[1], None, Err("Source s has no revision before the present one; there are: 1"))]
    #[case::nothing_known(None, None, &[], None, Err("Source s has no revision before the present one; there are: "))]
    fn where_it_goes_back_to(
        #[case] pin: Option<i64>,
        #[case] present: Option<i64>,
        #[case] numbers: &[i64],
        #[case] to: Option<i64>,
        #[case] expected: Result<i64, &str>,
    ) {
        let source = json!({"metadata": {"name": "s"}, "spec": {"directory": "/d", "pin": pin}, "status": {"revision": present}});
        let source: Source = serde_json::from_value(source).expect("a Source");
        assert_eq!(wanted(&source, numbers, to).map_err(|e| e.report()), expected.map_err(str::to_owned));
    }
}
