//! `gaia swap`: the other variant takes the name. It is started and healthy first, so that somebody answers all the time.

use std::{io::Write, time::Duration};

use clap::Args;
use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use super::{
    super::{
        CliError, Outcome,
        follow::{End, INTERRUPTED, follow},
        objects, print,
        session::Session,
    },
    Common, running,
    services::{self, Standing},
};
use crate::api::workload::{Variant, Workload};

#[derive(Debug, Args)]
pub struct SwapArgs {
    /// The workload, `gaia-mcp` or `mcp`
    service: String,
    /// Which variant shall answer
    #[arg(value_parser = ["live", "candidate"], default_value = "candidate")]
    target: String,
    /// Give up waiting after so many seconds; what was begun goes on
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    common: Common,
}

pub async fn run(args: SwapArgs, out: &mut dyn Write) -> Outcome {
    let session = Session::connect(&args.common.server)?;
    let namespace = args.common.namespace.as_str();
    let all: Vec<Workload> = session.list(Some(namespace), None).await?;
    let Some(workload) = services::named(&all, &args.service) else {
        return Err(CliError::Failed(format!("there is no {}", objects::label::<Workload>(&args.service))));
    };
    let (name, target) = (workload.name_any(), if args.target == "live" { Variant::Live } else { Variant::Candidate });
    if !services::has(workload, target) {
        return Err(CliError::Failed(format!("{name} has no {} variant", target.as_str())));
    }
    let limit = Duration::from_secs(args.timeout);
    let sent = session.merge::<Workload>(Some(namespace), &name, running::wish(target, true)).await?;
    let watched = running::Watched { variant: target, running: true, limit };
    match watched.settle(&mut running::watch(&session, namespace), &[sent]).await? {
        End::Came(standings) => may_answer(&name, target, standings.get(&name))?,
        End::TimedOut => return Err(late(&name, args.timeout)),
        End::Interrupted => return Ok(left(&name, target)),
    }
    let active = json!({"spec": {"active": format!("{target:?}")}});
    let sent = session.merge::<Workload>(Some(namespace), &name, active).await?;
    let mut watch = watcher::watch_object(session.within::<Workload>(namespace), &name).default_backoff().boxed();
    let answers = |workload: Option<Workload>| match workload {
        None => Err(CliError::Failed(format!("{} was deleted", objects::label::<Workload>(&name)))),
        Some(workload) => Ok(Some(workload).filter(|w| {
            let status = w.status.as_ref();
            w.metadata.generation >= sent.metadata.generation
                && services::is_current(w)
                && status.and_then(|status| status.active) == Some(target)
        })),
    };
    match follow(&mut watch, Some(limit), answers).await? {
        End::Came(workload) => {
            let text = || format!("{} answers as {name}\n", services::shown_name(&workload, target));
            print::result(out, args.common.output, &workload, text)?;
            Ok(0)
        }
        End::TimedOut => Err(late(&name, args.timeout)),
        End::Interrupted => Ok(left(&name, target)),
    }
}

/// Only a variant that runs may take the name.
fn may_answer(name: &str, target: Variant, standing: Option<&Standing>) -> Result<(), CliError> {
    match standing {
        Some(Standing::There) => Ok(()),
        Some(Standing::WaitsForCard(why)) => Err(CliError::Failed(format!(
            "{name} does not swap: its {} variant has no card ({why}); let it have it: gaia handoff start --to \
             {name}{}, or gaia promote {name}",
            target.as_str(),
            if target == Variant::Candidate { ":candidate" } else { "" }
        ))),
        Some(Standing::Stuck(why) | Standing::Going(why)) => {
            Err(CliError::Failed(format!("{name} does not swap: its {} variant does not run: {why}", target.as_str())))
        }
        None => Err(CliError::Failed(format!("{name} does not swap: nothing was seen of it"))),
    }
}

fn late(name: &str, seconds: u64) -> CliError {
    CliError::Failed(format!("{name} has not swapped after {seconds} s; look: gaia describe workload {name}"))
}

fn left(name: &str, target: Variant) -> u8 {
    let back = if target == Variant::Live { "candidate" } else { "live" };
    eprintln!("What was asked goes on. Look: gaia describe workload {name}. Undo: gaia swap {name} {back}");
    INTERRUPTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_name_without_running() {
        let answer = |standing: Option<Standing>| {
            may_answer("gaia-prime", Variant::Candidate, standing.as_ref()).map_err(|e| e.report())
        };
        assert_eq!(answer(Some(Standing::There)), Ok(()));
        let waits = answer(Some(Standing::WaitsForCard("held".to_owned()))).expect_err("no card");
        assert!(waits.contains("--to gaia-prime:candidate") && waits.contains("gaia promote"), "{waits}");
        for standing in [Some(Standing::Stuck("x".into())), Some(Standing::Going("x".into())), None] {
            answer(standing).expect_err("does not run");
        }
    }
}
